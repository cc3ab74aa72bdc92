//! Dials the websocket of a session and says in words why that failed. What is sent over it is not
//! known here.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use crate::Tls;

/// A byte stream below a websocket.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A websocket.
pub(super) type Socket = WebSocketStream<Box<dyn Io>>;

/// The longest message that is taken. Frames of both kinds of ends are far smaller.
const MAX_MESSAGE: usize = 16 << 20;

/// What is read of the connection at a time. TLS by itself asks for 4 KiB.
const READ_AHEAD: usize = 128 << 10;
/// What TLS takes to encrypt at a time: a large frame and more.
const TLS_BUFFER: usize = 256 << 10;

/// Why a websocket did not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the stream URL is not a ws:// or wss:// URL")]
    BadUrl,
    #[error("no connection in time")]
    TimedOut,
    #[error("cannot connect to {host}: {reason}")]
    Connect { host: String, reason: String },
    #[error(
        "the certificate of {host} is not trusted ({reason}); for a certificate authority of \
         your own set AWS_CA_BUNDLE, ca_bundle or SSL_CERT_FILE"
    )]
    Untrusted { host: String, reason: String },
    #[error("{host} answered the websocket request with status {status}")]
    Refused { host: String, status: u16 },
}

impl DialError {
    /// Whether another try cannot help.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::BadUrl | Self::Untrusted { .. } => true,
            Self::Refused { status, .. } => (400..500).contains(status) && *status != 429,
            Self::TimedOut | Self::Connect { .. } => false,
        }
    }
}

/// Opens the websocket at exactly this URL.
pub(super) async fn dial(url: &str, tls: &Tls, timeout: Duration) -> Result<Socket, DialError> {
    tokio::time::timeout(timeout, dial_untimed(url, tls))
        .await
        .unwrap_or(Err(DialError::TimedOut))
}

async fn dial_untimed(url: &str, tls: &Tls) -> Result<Socket, DialError> {
    let uri: http::Uri = url.parse().map_err(|_| DialError::BadUrl)?;
    let secure = match uri.scheme_str() {
        Some("wss") => true,
        Some("ws") => false,
        _ => return Err(DialError::BadUrl),
    };
    let host = uri.host().ok_or(DialError::BadUrl)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let failed = |reason: String| DialError::Connect {
        host: format!("{host}:{port}"),
        reason,
    };
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(|error| failed(error.to_string()))?;
    tcp.set_nodelay(true)
        .map_err(|error| failed(error.to_string()))?;
    let tcp = BufReader::with_capacity(READ_AHEAD, tcp);
    let stream: Box<dyn Io> = if secure {
        let mut stream = secure_stream(tcp, host, tls).await?;
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        Box::new(stream)
    } else {
        Box::new(tcp)
    };
    match client_async_with_config(url, stream, Some(websocket_config())).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(DialError::Refused {
            host: format!("{host}:{port}"),
            status: response.status().as_u16(),
        }),
        Err(tungstenite::Error::Url(_)) => Err(DialError::BadUrl),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn secure_stream(
    tcp: BufReader<TcpStream>,
    host: &str,
    tls: &Tls,
) -> Result<tokio_rustls::client::TlsStream<BufReader<TcpStream>>, DialError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::BadUrl)?;
    // Websockets are HTTP/1.1; API calls may agree on more.
    let mut config = tls.config().as_ref().clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|error| {
            let certificate = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
            let (host, reason) = (host.to_owned(), error.to_string());
            if certificate {
                DialError::Untrusted { host, reason }
            } else {
                DialError::Connect { host, reason }
            }
        })
}

fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(32 << 10)
        .write_buffer_size(128 << 10)
        .max_write_buffer_size(4 << 20)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// Writes what the channel brings, flushing when it is empty, and closes the websocket when the
/// channel is closed.
pub(super) async fn write_messages(
    mut sink: SplitSink<Socket, Message>,
    mut messages: mpsc::Receiver<Message>,
) -> Result<(), tungstenite::Error> {
    while let Some(message) = messages.recv().await {
        sink.feed(message).await?;
        while let Ok(message) = messages.try_recv() {
            sink.feed(message).await?;
        }
        sink.flush().await?;
    }
    sink.send(Message::Close(None)).await
}

/// The two halves of a websocket.
pub(super) fn split(
    socket: Socket,
) -> (
    SplitSink<Socket, Message>,
    futures_util::stream::SplitStream<Socket>,
) {
    socket.split()
}
