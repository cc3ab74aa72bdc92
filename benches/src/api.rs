//! The few calls that a measurement makes of a server's API, one TLS connection each, from a source
//! address of the caller's choice. Codecs and signatures are `sortie-wire`'s.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PSS_SHA256},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use sortie_types::Timestamp;
use sortie_wire::{
    call::decode_response,
    shapes::node::CreateControlChannel,
    sigv4::{self, Credentials, RequestParts},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The region of an installation that was not told another.
pub(crate) const REGION: &str = "local-1";
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, as its clients see it.
#[derive(Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    tls: TlsConnector,
}

/// Who signs.
pub(crate) enum Signer<'a> {
    Nobody,
    Node(&'a str, &'a Key),
    Credentials(&'a Credentials),
}

/// Why a call brought nothing.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The server said no.
    Refused(String),
    /// It could not be asked, or did not answer.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for CallError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl CallError {
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Refused(answer) => anyhow!("the server answers {answer}"),
            Self::Failed(error) => error,
        }
    }
}

/// A node's key. The server takes no key twice. Making them takes longer than all else.
pub(crate) struct Key(KeyPair);

impl Key {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self(KeyPair::generate(KeySize::Rsa2048)?))
    }

    /// As it was kept.
    pub(crate) fn from_line(line: &str) -> Result<Self> {
        Ok(Self(KeyPair::from_pkcs8(&STANDARD.decode(line)?)?))
    }

    /// As it can be kept: one line of text.
    pub(crate) fn line(&self) -> Result<String> {
        let der: Pkcs8V1Der<'_> = self.0.as_der()?;
        Ok(STANDARD.encode(der.as_ref()))
    }

    pub(crate) fn public(&self) -> Result<String> {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der()?;
        Ok(STANDARD.encode(der.as_ref()))
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        let random = SystemRandom::new();
        self.0
            .sign(&RSA_PSS_SHA256, &random, text, &mut signature)?;
        Ok(signature)
    }
}

impl Server {
    /// Trusts the authorities in `ca_pem` alone. Sessions are not resumed: each simulated node is a
    /// machine of its own.
    pub(crate) fn new(address: SocketAddr, ca_pem: &[u8]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self {
            address,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// A fresh TLS connection from `source`.
    pub(crate) async fn connect(&self, source: IpAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let tcp = socket.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        self.tls.connect(name, tcp).await
    }

    /// A JSON operation of SSM.
    pub(crate) async fn call(
        &self,
        source: IpAddr,
        operation: &str,
        input: &Value,
        signer: Signer<'_>,
    ) -> Result<Value, CallError> {
        let target = format!("AmazonSSM.{operation}");
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", &target),
        ];
        let answer = self.post(source, "/", &headers, "ssm", input, signer);
        Ok(serde_json::from_str(&answer.await?)?)
    }

    /// The token that opens a node's control channel.
    pub(crate) async fn create_control_channel(
        &self,
        source: IpAddr,
        node_id: &str,
        credentials: &Credentials,
    ) -> Result<String, CallError> {
        let input = serde_json::json!({
            "MessageSchemaVersion": "1.0",
            "RequestId": uuid::Uuid::new_v4().to_string(),
        });
        let path = format!("/v1/control-channel/{node_id}");
        let headers = [("content-type", "application/json")];
        let signer = Signer::Credentials(credentials);
        let answer = self
            .post(source, &path, &headers, "ssmmessages", &input, signer)
            .await?;
        let answer = decode_response::<CreateControlChannel>(answer.as_bytes());
        let answer = answer.map_err(|error| anyhow!("the answer is not understood: {error:?}"))?;
        Ok(answer.token_value.expose().to_owned())
    }

    async fn post(
        &self,
        source: IpAddr,
        path: &str,
        headers: &[(&str, &str)],
        service: &str,
        input: &Value,
        signer: Signer<'_>,
    ) -> Result<String, CallError> {
        let body = input.to_string();
        let host = self.host();
        let mut all: Vec<(&str, &[u8])> = vec![("host", host.as_bytes())];
        all.extend(
            headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes())),
        );
        let parts = RequestParts {
            method: "POST",
            path,
            query: "",
            headers: &all,
        };
        let signature = sign(&parts, body.as_bytes(), service, &signer)?;
        let mut text = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        let signature = signature.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in headers.iter().copied().chain(signature) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        timeout(PATIENCE, self.exchange(source, &text)).await?
    }

    async fn exchange(&self, source: IpAddr, request: &str) -> Result<String, CallError> {
        let mut stream = self.connect(source).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no whole answer")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        // Channels are created with 201.
        if !matches!(status, "200" | "201") {
            return Err(CallError::Refused(format!("{status} {body}")));
        }
        Ok(body.to_owned())
    }
}

/// The headers that sign a request; for websocket upgrades too.
pub(crate) fn sign(
    parts: &RequestParts<'_>,
    body: &[u8],
    service: &str,
    signer: &Signer<'_>,
) -> Result<Vec<(String, String)>> {
    let now = wall();
    Ok(match signer {
        Signer::Nobody => Vec::new(),
        Signer::Node(node_id, key) => {
            sigv4::sign_rsa(parts, body, node_id, REGION, now, |text| key.sign(text))?
        }
        Signer::Credentials(credentials) => {
            sigv4::sign(parts, body, credentials, service, REGION, now)
        }
    })
}

/// A text member of an answer.
pub(crate) fn text_of(answer: &Value, name: &str) -> Result<String> {
    let text = answer.get(name).and_then(Value::as_str);
    Ok(text
        .with_context(|| format!("no `{name}` in the answer"))?
        .to_owned())
}

fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
