//! Where the server is: the one URL that everything of a node is sent to.

use std::{fmt, net::IpAddr, str::FromStr};

/// The server's origin. Plain HTTP is taken for loopback addresses only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not `https://HOST[:PORT]`.
    #[error("endpoint `{0}` is not of the form https://HOST[:PORT]")]
    Form(String),
    /// Plain HTTP to somewhere else.
    #[error("endpoint `{0}` is plain http: that is allowed for loopback addresses only, use https")]
    Insecure(String),
}

impl Endpoint {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The `Host` header: with the port unless it is the scheme's own.
    #[must_use]
    pub fn host_header(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// The URL of `path` for a request.
    #[must_use]
    pub fn http_url(&self, path: &str) -> String {
        format!(
            "{}://{}{path}",
            if self.tls { "https" } else { "http" },
            self.host_header()
        )
    }

    /// The URL of `path` for a websocket.
    #[must_use]
    pub fn websocket_url(&self, path: &str) -> String {
        format!(
            "{}://{}{path}",
            if self.tls { "wss" } else { "ws" },
            self.host_header()
        )
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.http_url(""))
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || EndpointError::Form(text.to_owned());
        let uri: http::Uri = text.trim_end_matches('/').parse().map_err(|_| form())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(form()),
        };
        let authority = uri.authority().ok_or_else(form)?;
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !is_bare || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(form());
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if !tls && !is_loopback(&host) {
            return Err(EndpointError::Insecure(text.to_owned()));
        }
        Ok(Self { tls, host, port })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_header_carries_a_port_only_when_it_is_not_the_schemes_own() {
        let host = |text: &str| {
            text.parse::<Endpoint>()
                .map(|endpoint| endpoint.host_header())
        };
        assert_eq!(
            host("https://Sortie.example/").as_deref(),
            Ok("sortie.example")
        );
        assert_eq!(
            host("https://sortie.example:443").as_deref(),
            Ok("sortie.example")
        );
        assert_eq!(
            host("https://sortie.example:7443").as_deref(),
            Ok("sortie.example:7443")
        );
        assert_eq!(host("https://[::1]:7443").as_deref(), Ok("[::1]:7443"));
        let endpoint: Endpoint = "http://127.0.0.1:7070".parse().unwrap();
        assert_eq!(
            endpoint.websocket_url("/v1/x?y"),
            "ws://127.0.0.1:7070/v1/x?y"
        );
    }

    #[test]
    fn plain_http_is_for_loopback_alone_and_paths_are_refused() {
        let parse = str::parse::<Endpoint>;
        assert!(matches!(
            parse("http://sortie.example"),
            Err(EndpointError::Insecure(_))
        ));
        assert!(parse("http://localhost:7070").is_ok());
        for text in [
            "",
            "sortie.example",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://a?b",
        ] {
            assert!(matches!(parse(text), Err(EndpointError::Form(_))), "{text}");
        }
    }
}
