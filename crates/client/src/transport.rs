//! Sends one operation's request and reads its answer, signed or not, once or with the retries of
//! AWS's SDKs. Which credentials sign is decided by the caller.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sortie_types::Timestamp;
use sortie_wire::{
    AwsError, InvalidInput, Operation, Service,
    call::{Message, decode_error, decode_response},
    sigv4::{self, Credentials, RequestParts},
};

use crate::{
    ClientConfig, ConfigError, CredentialsError, TlsError,
    clock::{random, wall},
};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one try of a call may take in all.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait between two tries.
const RETRY_CAP: Duration = Duration::from_secs(20);

/// The longest answer that is read.
const ANSWER_LIMIT: usize = 16 << 20;

/// Error codes that SDKs try again, whatever the status.
const RETRIED_CODES: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Trust could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client could not be made.
    #[error("cannot set up the http client")]
    Http(#[source] reqwest::Error),
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The endpoint is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nothing to sign with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The server cannot be reached or does not answer.
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// The service's URL.
        endpoint: String,
        /// Why, for people.
        reason: String,
    },
    /// The service answered with an error.
    #[error("an error occurred ({}) when calling {operation}: {}", error.code, error.message)]
    Service {
        /// The operation's name.
        operation: &'static str,
        /// The error.
        error: AwsError,
    },
    /// The answer is not one of this operation.
    #[error("the answer to {operation} cannot be read: {reason}")]
    Unreadable {
        /// The operation's name.
        operation: &'static str,
        /// Why.
        reason: InvalidInput,
    },
}

impl CallError {
    /// The service's error code, where the service answered.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Service { error, .. } => Some(&error.code),
            _ => None,
        }
    }

    /// Whether the same call may succeed later: the network's or the server's trouble.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Service { error, .. } => {
                error.status >= 500
                    || error.status == 429
                    || RETRIED_CODES.contains(&error.code.as_ref())
            }
            // A role that could not be assumed was tried as often as it is worth.
            Self::Config(_) | Self::Credentials(_) | Self::Unreadable { .. } => false,
        }
    }
}

/// The HTTP client and the settings that say where a service is.
#[derive(Clone)]
pub(crate) struct Transport {
    http: reqwest::Client,
    config: ClientConfig,
}

impl Transport {
    pub(crate) fn new(config: &ClientConfig, tls: &crate::Tls) -> Result<Self, ApiError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.config().as_ref().clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("sortie/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ApiError::Http)?;
        Ok(Self {
            http,
            config: config.clone(),
        })
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Sends until there is an answer or trying again is of no use.
    pub(crate) async fn send<O: Operation>(
        &self,
        message: &Message,
        credentials: &Credentials,
    ) -> Result<O::Output, CallError> {
        let mut attempt = 1;
        loop {
            let error = match self.send_once::<O>(message, Some(credentials)).await {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            if !self.may_retry(&error, attempt) {
                return Err(error);
            }
            wait_before_retry(attempt).await;
            attempt += 1;
        }
    }

    /// Whether a call that failed for the `attempt`th time is tried again.
    pub(crate) fn may_retry(&self, error: &CallError, attempt: u32) -> bool {
        attempt < self.config.max_attempts() && error.is_transient()
    }

    /// One try, signed when there are credentials.
    pub(crate) async fn send_once<O: Operation>(
        &self,
        message: &Message,
        credentials: Option<&Credentials>,
    ) -> Result<O::Output, CallError> {
        let endpoint = self.config.endpoint(O::SERVICE)?;
        let region = self.config.region().as_str();
        let headers = headers(&endpoint, message, O::SERVICE, region, credentials, wall());
        let unreachable = |reason: String| CallError::Unreachable {
            endpoint: endpoint.to_string(),
            reason,
        };
        let response = self
            .http
            .post(url_of(&endpoint))
            .headers(headers)
            .body(message.body.clone())
            .send()
            .await
            .map_err(|error| unreachable(chain(&error)))?;
        let status = response.status();
        let error_type = response
            .headers()
            .get("x-amzn-errortype")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = read_body(response).await.map_err(unreachable)?;
        if !status.is_success() {
            let error = decode_error::<O>(status.as_u16(), error_type.as_deref(), &body);
            return Err(CallError::Service {
                operation: O::NAME,
                error,
            });
        }
        decode_response::<O>(&body).map_err(|reason| CallError::Unreadable {
            operation: O::NAME,
            reason,
        })
    }
}

/// Waits as SDKs do after the given try.
pub(crate) async fn wait_before_retry(attempt: u32) {
    tokio::time::sleep(retry_wait(attempt, random())).await;
}

/// The endpoint with its path closed by a slash, where every JSON and query service listens.
fn url_of(endpoint: &http::Uri) -> String {
    format!(
        "{}://{}{}",
        endpoint.scheme_str().unwrap_or("https"),
        endpoint
            .authority()
            .map_or("", http::uri::Authority::as_str),
        path_of(endpoint)
    )
}

fn path_of(endpoint: &http::Uri) -> String {
    format!("{}/", endpoint.path().trim_end_matches('/'))
}

/// The `Host` header: without user information, and without the scheme's own port.
fn host_of(endpoint: &http::Uri) -> String {
    let host = endpoint.host().unwrap_or_default();
    let default = match endpoint.scheme_str() {
        Some("http") => 80,
        _ => 443,
    };
    match endpoint.port_u16() {
        Some(port) if port != default => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

fn headers(
    endpoint: &http::Uri,
    message: &Message,
    service: Service,
    region: &str,
    credentials: Option<&Credentials>,
    now: Timestamp,
) -> HeaderMap {
    let path = path_of(endpoint);
    let host = host_of(endpoint);
    let mut headers: Vec<(&str, &[u8])> = vec![
        ("host", host.as_bytes()),
        ("content-type", message.content_type.as_bytes()),
    ];
    if let Some(target) = &message.target {
        headers.push(("x-amz-target", target.as_bytes()));
    }
    let parts = RequestParts {
        method: "POST",
        path: &path,
        query: "",
        headers: &headers,
    };
    let added = credentials.map_or_else(Vec::new, |credentials| {
        sigv4::sign(
            &parts,
            message.body.as_bytes(),
            credentials,
            service.signing_name(),
            region,
            now,
        )
    });
    let given = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.to_vec()));
    let signed = added
        .into_iter()
        .map(|(name, value)| (name, value.into_bytes()));
    given
        .chain(signed)
        .filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(&value).ok()?))
        })
        .collect()
}

async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err("the answer is too long".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The wait after the given try, between nothing and a doubling bound, as SDKs have it.
fn retry_wait(attempt: u32, random: u64) -> Duration {
    let bound = Duration::from_secs(1)
        .saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1).min(10)))
        .min(RETRY_CAP);
    bound.mul_f64((random % 1000) as f64 / 1000.0)
}

/// The innermost causes of an HTTP error, which say what happened: the outer ones only say that
/// something did.
fn chain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_their_cap() {
        assert!(retry_wait(1, 999) < Duration::from_secs(1));
        assert!(retry_wait(2, 999) > Duration::from_secs(1));
        assert!(retry_wait(u32::MAX, 999) <= RETRY_CAP);
        assert_eq!(retry_wait(5, 0), Duration::ZERO);
    }

    #[test]
    fn the_host_header_is_what_an_http_client_sends() {
        for (endpoint, host, url) in [
            ("https://a.example", "a.example", "https://a.example/"),
            ("https://a:443/b/", "a", "https://a:443/b/"),
            ("http://a:443", "a:443", "http://a:443/"),
            ("http://[::1]:7070", "[::1]:7070", "http://[::1]:7070/"),
        ] {
            let endpoint: http::Uri = endpoint.parse().unwrap();
            assert_eq!(
                (host_of(&endpoint).as_str(), url_of(&endpoint).as_str()),
                (host, url)
            );
        }
    }
}
