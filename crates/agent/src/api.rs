//! The node's calls of the server's API: signing, sending, reading the answer. When to call what, and
//! what follows, is others'.

use std::{sync::Arc, time::Duration};

use sortie_types::{NodeId, Region, Secret, Timestamp};
use sortie_wire::{
    AwsError, InvalidInput, Operation,
    call::{decode_error, decode_response, encode_request},
    shapes::node::CreateControlChannel,
    sigv4::{self, Credentials, RequestParts},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    clock,
    endpoint::Endpoint,
    key::{KeyError, NodeKey},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server said no.
    #[error("the server answers {0}")]
    Refused(AwsError),
    /// The server could not be asked.
    #[error("cannot reach the server")]
    Unreachable(#[source] reqwest::Error),
    /// The answer is not what the operation answers.
    #[error("the server's answer cannot be understood: {0}")]
    Answer(String),
    /// The answer is too long.
    #[error("the server's answer is too long")]
    TooLong,
    /// The request could not be signed.
    #[error("cannot sign the request")]
    Key(#[from] KeyError),
}

impl CallError {
    /// Whether the server has understood the request and decided against it, so that asking again the
    /// same way is of no use.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(error)
            if (400..500).contains(&error.status) && error.status != 429 && !error.code.contains("Throttling"))
    }
}

impl From<InvalidInput> for CallError {
    fn from(error: InvalidInput) -> Self {
        Self::Answer(format!("{error:?}"))
    }
}

/// How a call is signed.
pub(crate) enum Signer<'a> {
    Nobody,
    Node(&'a NodeId, &'a NodeKey),
    Role(&'a Credentials),
}

/// The server's API.
#[derive(Clone)]
pub(crate) struct Api {
    endpoint: Endpoint,
    region: Region,
    http: reqwest::Client,
}

/// A request that only lacks its signature.
struct Unsigned<'a> {
    method: &'static str,
    path: &'a str,
    query: &'a str,
    service: &'static str,
    headers: Vec<(&'static str, String)>,
    body: &'a [u8],
}

impl Api {
    pub(crate) fn new(
        endpoint: Endpoint,
        region: Region,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Self, CallError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Minutes pass between calls. An idle connection would be the second one that this node
            // keeps at the server, which counts them.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .user_agent(concat!("sortie-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(CallError::Unreachable)?;
        Ok(Self {
            endpoint,
            region,
            http,
        })
    }

    /// Calls a JSON operation.
    pub(crate) async fn call<O: Operation>(
        &self,
        signer: Signer<'_>,
        input: &O::Input,
    ) -> Result<O::Output, CallError> {
        let answer = self.call_raw::<O>(signer, input).await?;
        Ok(decode_response::<O>(&answer)?)
    }

    /// As [`Self::call`], with the answer as it came.
    pub(crate) async fn call_raw<O: Operation>(
        &self,
        signer: Signer<'_>,
        input: &O::Input,
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let message = encode_request::<O>(input);
        let body = Zeroizing::new(message.body);
        let mut headers = vec![("content-type", message.content_type.to_owned())];
        headers.extend(message.target.map(|target| ("x-amz-target", target)));
        let request = Unsigned {
            method: "POST",
            path: "/",
            query: "",
            service: O::SERVICE.signing_name(),
            headers,
            body: body.as_bytes(),
        };
        self.send::<O>(request, signer).await
    }

    /// Asks for a token that opens the control channel.
    pub(crate) async fn create_control_channel(
        &self,
        node_id: &NodeId,
        credentials: &Credentials,
    ) -> Result<Secret, CallError> {
        let body = serde_json::json!({
            "MessageSchemaVersion": "1.0",
            "RequestId": Uuid::new_v4().to_string(),
        })
        .to_string();
        let request = Unsigned {
            method: "POST",
            path: &format!("/v1/control-channel/{node_id}"),
            query: "",
            service: CreateControlChannel::SERVICE.signing_name(),
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.as_bytes(),
        };
        let answer = self
            .send::<CreateControlChannel>(request, Signer::Role(credentials))
            .await?;
        Ok(decode_response::<CreateControlChannel>(&answer)?.token_value)
    }

    /// The headers that sign a websocket's upgrade request.
    pub(crate) fn sign_upgrade(
        &self,
        path: &str,
        query: &str,
        credentials: &Credentials,
    ) -> Result<Vec<(String, String)>, CallError> {
        let request = Unsigned {
            method: "GET",
            path,
            query,
            service: CreateControlChannel::SERVICE.signing_name(),
            headers: Vec::new(),
            body: b"",
        };
        self.sign(&request, Signer::Role(credentials), clock::wall())
    }

    async fn send<O: Operation>(
        &self,
        request: Unsigned<'_>,
        signer: Signer<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let signature = self.sign(&request, signer, clock::wall())?;
        let mut sent = self
            .http
            .post(self.endpoint.http_url(request.path))
            .body(request.body.to_vec());
        for (name, value) in &request.headers {
            sent = sent.header(*name, value);
        }
        for (name, value) in signature {
            sent = sent.header(name, value);
        }
        let answer = sent.send().await.map_err(CallError::Unreachable)?;
        let status = answer.status().as_u16();
        let error_type = answer
            .headers()
            .get("x-amzn-errortype")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = read(answer).await?;
        if (200..300).contains(&status) {
            Ok(body)
        } else {
            Err(CallError::Refused(decode_error::<O>(
                status,
                error_type.as_deref(),
                &body,
            )))
        }
    }

    fn sign(
        &self,
        request: &Unsigned<'_>,
        signer: Signer<'_>,
        now: Timestamp,
    ) -> Result<Vec<(String, String)>, CallError> {
        let host = self.endpoint.host_header();
        let mut headers: Vec<(&str, &[u8])> = vec![("host", host.as_bytes())];
        headers.extend(
            request
                .headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes())),
        );
        let parts = RequestParts {
            method: request.method,
            path: request.path,
            query: request.query,
            headers: &headers,
        };
        let region = self.region.as_str();
        Ok(match signer {
            Signer::Nobody => Vec::new(),
            Signer::Node(node_id, key) => sigv4::sign_rsa(
                &parts,
                request.body,
                node_id.as_str(),
                region,
                now,
                |text| key.sign(text),
            )?,
            Signer::Role(credentials) => sigv4::sign(
                &parts,
                request.body,
                credentials,
                request.service,
                region,
                now,
            ),
        })
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, CallError> {
    let mut body = Zeroizing::new(Vec::with_capacity(16 * 1024));
    while let Some(chunk) = answer.chunk().await.map_err(CallError::Unreachable)? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(CallError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
