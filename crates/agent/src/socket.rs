//! Websockets to the server: dialling, and a socket that reads, writes and finds out when it is dead.
//! What is said over them is others'.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use http::{HeaderName, HeaderValue};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::{endpoint::Endpoint, os};

/// How long name resolution, TCP, TLS and the upgrade may take together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the server is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(27);
/// How long a connection may say nothing at all, answers to pings included.
const SILENCE_LIMIT: Duration = Duration::from_secs(57);
/// How long the server's machine may leave what was sent unconfirmed. A node whose address has changed
/// hears of it in no other way.
const CONFIRM_LIMIT: Duration = Duration::from_secs(15);
const PING_PAYLOAD: &[u8] = b"keepalive";
/// What is read of the connection at a time. TLS by itself asks for 4 KiB.
const READ_AHEAD: usize = 128 * 1024;
/// What is read of TLS at a time: about one of its records.
const READ_BUFFER: usize = 16 * 1024;
/// Frames collected before they go to the kernel.
const WRITE_BUFFER: usize = 128 * 1024;
/// The most that waits for a kernel that takes nothing.
const WRITE_LIMIT: usize = 4 * 1024 * 1024;
/// The largest message taken from a server.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// Any stream under a websocket.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Why no websocket came to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot connect to the server")]
    Connect(#[source] std::io::Error),
    #[error("cannot set up TLS with the server")]
    Tls(#[source] std::io::Error),
    #[error("the server's name cannot be verified")]
    Name,
    #[error("the server refuses the websocket")]
    Upgrade(#[source] Box<tungstenite::Error>),
    #[error("the server took too long to answer")]
    Timeout,
}

/// How a server is reached.
#[derive(Clone)]
pub(crate) struct Dialer {
    endpoint: Endpoint,
    tls: Arc<rustls::ClientConfig>,
}

impl Dialer {
    pub(crate) fn new(endpoint: Endpoint, tls: Arc<rustls::ClientConfig>) -> Self {
        Self { endpoint, tls }
    }

    /// Opens a websocket at `path` with these headers besides the usual ones.
    pub(crate) async fn websocket(
        &self,
        path: &str,
        headers: &[(String, String)],
    ) -> Result<Socket, DialError> {
        timeout(DIAL_TIMEOUT, self.upgrade(path, headers))
            .await
            .map_err(|_| DialError::Timeout)?
    }

    async fn upgrade(&self, path: &str, headers: &[(String, String)]) -> Result<Socket, DialError> {
        let upgrade = |error| DialError::Upgrade(Box::new(error));
        let mut request = self
            .endpoint
            .websocket_url(path)
            .into_client_request()
            .map_err(upgrade)?;
        for (name, value) in headers {
            let name =
                HeaderName::try_from(name.as_str()).map_err(|error| upgrade(error.into()))?;
            let value =
                HeaderValue::try_from(value.as_str()).map_err(|error| upgrade(error.into()))?;
            request.headers_mut().insert(name, value);
        }
        let stream = self.stream().await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_LIMIT + MESSAGE_LIMIT)
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        let (stream, _answer) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(upgrade)?;
        Ok(Socket::new(stream))
    }

    async fn stream(&self) -> Result<Box<dyn Io>, DialError> {
        let address = (self.endpoint.host(), self.endpoint.port());
        let tcp = TcpStream::connect(address)
            .await
            .map_err(DialError::Connect)?;
        tcp.set_nodelay(true).map_err(DialError::Connect)?;
        os::limit_unconfirmed(&tcp, CONFIRM_LIMIT).map_err(DialError::Connect)?;
        let tcp = BufReader::with_capacity(READ_AHEAD, tcp);
        if !self.endpoint.is_tls() {
            return Ok(Box::new(tcp));
        }
        let name =
            ServerName::try_from(self.endpoint.host().to_owned()).map_err(|_| DialError::Name)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        Ok(Box::new(
            tls.connect(name, tcp).await.map_err(DialError::Tls)?,
        ))
    }
}

/// Whether the other side is alive, by what was heard of it.
struct Liveness {
    heard: Instant,
    next_ping: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Alive,
    Dead,
    Ping,
}

impl Liveness {
    fn new(now: Instant) -> Self {
        Self {
            heard: now,
            next_ping: now + PING_INTERVAL,
        }
    }

    fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// When to judge next.
    fn deadline(&self) -> Instant {
        self.next_ping.min(self.heard + SILENCE_LIMIT)
    }

    fn judge(&mut self, now: Instant) -> Verdict {
        if now >= self.heard + SILENCE_LIMIT {
            return Verdict::Dead;
        }
        if now >= self.next_ping {
            self.next_ping = now + PING_INTERVAL;
            return Verdict::Ping;
        }
        Verdict::Alive
    }
}

/// What happened on a socket.
#[derive(Debug)]
pub(crate) enum SocketEvent {
    /// A binary message arrived.
    Binary(Bytes),
    /// There is room for more.
    Writable,
    /// It is over, and why.
    Gone(String),
}

/// A websocket that keeps itself alive and notices when the other side is dead.
pub(crate) struct Socket {
    stream: WebSocketStream<Box<dyn Io>>,
    unflushed: bool,
    reads_first: bool,
    liveness: Liveness,
}

impl Socket {
    fn new(stream: WebSocketStream<Box<dyn Io>>) -> Self {
        Self {
            stream,
            unflushed: false,
            reads_first: true,
            liveness: Liveness::new(Instant::now()),
        }
    }

    /// When the server last sent anything.
    pub(crate) fn heard(&self) -> Instant {
        self.liveness.heard
    }

    /// Hands over a text message. It leaves as soon as [`Self::event`] is awaited.
    pub(crate) fn push_text(&mut self, text: String) -> Result<(), String> {
        self.push(Message::text(text))
    }

    /// Hands over a binary message. It leaves as soon as [`Self::event`] is awaited.
    pub(crate) fn push_binary(&mut self, bytes: Bytes) -> Result<(), String> {
        self.push(Message::Binary(bytes))
    }

    fn push(&mut self, message: Message) -> Result<(), String> {
        self.unflushed = true;
        Pin::new(&mut self.stream)
            .start_send(message)
            .map_err(|error| error.to_string())
    }

    /// Waits for what happens next, writing out meanwhile what was pushed. With `wants_room` room to
    /// write is an event too. Nothing is lost when the future is dropped.
    pub(crate) async fn event(&mut self, wants_room: bool) -> SocketEvent {
        loop {
            let deadline = self.liveness.deadline();
            let event = tokio::select! {
                biased;
                event = std::future::poll_fn(|context| self.poll(context, wants_room)) => event,
                () = tokio::time::sleep_until(deadline) => None,
            };
            if let Some(event) = event {
                return event;
            }
            if let Some(reason) = self.keep_alive() {
                return SocketEvent::Gone(reason);
            }
        }
    }

    /// Pings when it is time. The reason when the other side is taken for dead.
    fn keep_alive(&mut self) -> Option<String> {
        match self.liveness.judge(Instant::now()) {
            Verdict::Dead => Some("the server has been silent for too long".to_owned()),
            Verdict::Ping => self
                .push(Message::Ping(Bytes::from_static(PING_PAYLOAD)))
                .err(),
            Verdict::Alive => None,
        }
    }

    /// `None` when something was read that is nobody's business.
    fn poll(&mut self, context: &mut Context<'_>, wants_room: bool) -> Poll<Option<SocketEvent>> {
        // Taking turns keeps a busy direction from starving the other.
        self.reads_first = !self.reads_first;
        if self.reads_first
            && let Poll::Ready(event) = self.poll_read(context)
        {
            return Poll::Ready(event);
        }
        if let Poll::Ready(event) = self.poll_write(context, wants_room) {
            return Poll::Ready(Some(event));
        }
        if self.reads_first {
            Poll::Pending
        } else {
            self.poll_read(context)
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        let Poll::Ready(message) = Pin::new(&mut self.stream).poll_next(context) else {
            return Poll::Pending;
        };
        self.liveness.heard(Instant::now());
        Poll::Ready(match message {
            None => Some(SocketEvent::Gone(
                "the server closed the connection".to_owned(),
            )),
            Some(Err(error)) => Some(SocketEvent::Gone(error.to_string())),
            Some(Ok(Message::Binary(bytes))) => Some(SocketEvent::Binary(bytes)),
            Some(Ok(Message::Close(frame))) => Some(SocketEvent::Gone(match frame {
                Some(frame) => format!("the server closed the connection ({})", frame.code),
                None => "the server closed the connection".to_owned(),
            })),
            // The reader has queued the answer to a ping by itself.
            Some(Ok(Message::Ping(_))) => {
                self.unflushed = true;
                None
            }
            Some(Ok(_)) => None,
        })
    }

    fn poll_write(&mut self, context: &mut Context<'_>, wants_room: bool) -> Poll<SocketEvent> {
        let mut stream = Pin::new(&mut self.stream);
        if wants_room {
            return match stream.as_mut().poll_ready(context) {
                Poll::Ready(Ok(())) => Poll::Ready(SocketEvent::Writable),
                Poll::Ready(Err(error)) => Poll::Ready(SocketEvent::Gone(error.to_string())),
                Poll::Pending => Poll::Pending,
            };
        }
        if self.unflushed {
            match stream.as_mut().poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(SocketEvent::Gone(error.to_string()));
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Writes out what was pushed and says goodbye. Errors are of no interest any more.
    pub(crate) async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges at each deadline until `verdicts` were given; `answers`: pings are answered at once.
    fn watch(answers: bool, verdicts: usize) -> (Duration, Vec<Verdict>) {
        let begun = Instant::now();
        let mut now = begun;
        let mut liveness = Liveness::new(begun);
        let mut given = Vec::new();
        while given.len() < verdicts && given.last() != Some(&Verdict::Dead) {
            now = now.max(liveness.deadline());
            given.push(liveness.judge(now));
            if answers {
                liveness.heard(now);
            }
        }
        (now - begun, given)
    }

    #[test]
    fn a_server_that_says_nothing_at_all_is_taken_for_dead_within_a_minute() {
        let (after, given) = watch(false, 10);
        assert_eq!(given, [Verdict::Ping, Verdict::Ping, Verdict::Dead]);
        assert_eq!(after, SILENCE_LIMIT);
    }

    #[test]
    fn a_server_that_answers_pings_is_kept_however_little_it_says() {
        let (after, given) = watch(true, 1000);
        assert!(given.iter().all(|verdict| *verdict == Verdict::Ping));
        assert_eq!(after, PING_INTERVAL * 1000);
    }
}
