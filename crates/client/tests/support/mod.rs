//! A server for tests of clients, on loopback: answers API calls from a script and pairs each data
//! channel with a node whose reliability is the real link's. It behaves as a gateway of ours or as
//! AWS's with an official agent behind it, depending on the token that it gives out.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "support of tests, of which each test program uses its part"
)]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sortie_channel::{
    body::{Body, Features, OpenClient, Size},
    frame::{Frame, PayloadType},
    link::{Delivery, Link, Options, Role},
    service::{self, Stamp},
};
use sortie_client::{Api, ClientConfig, Environment, Overrides, StartedSession};
use sortie_types::{Now, Secret, Timestamp};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};
use uuid::Uuid;

/// How long a test waits for anything: far longer than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Calls to the server as somebody with keys and no files.
pub fn api(server: &Server, ca_bundle: Option<PathBuf>) -> Api {
    let environment = Environment::new(
        [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "local-1"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ],
        None,
    );
    let overrides = Overrides {
        endpoint: Some(format!("http://{}", server.address)),
        ca_bundle,
        ..Overrides::default()
    };
    Api::new(&ClientConfig::resolve(&environment, &overrides).unwrap()).unwrap()
}

/// The session that the server has agreed to.
pub fn agreed(server: &Server, token: &str) -> StartedSession {
    StartedSession {
        session_id: "session".to_owned(),
        token_value: Secret::new(token),
        stream_url: server.stream_url(),
    }
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An API request as received.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The operation's name.
    pub fn operation(&self) -> String {
        if let Some(target) = self.header("x-amz-target") {
            return target.rsplit('.').next().unwrap_or_default().to_owned();
        }
        let body = String::from_utf8_lossy(&self.body).into_owned();
        body.split('&')
            .find_map(|pair| pair.strip_prefix("Action="))
            .unwrap_or_default()
            .to_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What API calls are answered with: a status and a body.
pub type Answers = dyn Fn(&Call) -> (u16, String) + Send + Sync;

pub struct Server {
    pub address: SocketAddr,
    pub calls: Arc<Mutex<Vec<Call>>>,
    channels: mpsc::Receiver<Peer>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The far end of one websocket, and its open message.
pub struct Peer {
    pub open: OpenClient,
    pub raw_open: String,
    socket: WebSocketStream<Box<dyn Io>>,
}

impl Server {
    pub async fn start(answers: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::start_with(answers, None).await
    }

    /// With TLS when there is a configuration.
    pub async fn start_with(
        answers: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (sender, channels) = mpsc::channel(16);
        let answers: Arc<Answers> = Arc::new(answers);
        let log = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else {
                    return;
                };
                let (answers, log, sender) =
                    (Arc::clone(&answers), Arc::clone(&log), sender.clone());
                let acceptor = tls.clone().map(tokio_rustls::TlsAcceptor::from);
                tokio::spawn(async move {
                    // What a client that is judged does with a broken connection is its business.
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(tcp).await {
                                serve(Box::new(stream), &*answers, &log, &sender).await;
                            }
                        }
                        None => serve(Box::new(tcp), &*answers, &log, &sender).await,
                    }
                });
            }
        });
        Self {
            address,
            calls,
            channels,
            task,
        }
    }

    pub fn stream_url(&self) -> String {
        format!(
            "ws://{}/v1/data-channel/session?role=publish_subscribe",
            self.address
        )
    }

    /// The next data channel, opened by a client.
    pub async fn next_channel(&mut self) -> Peer {
        within("a client to open its data channel", self.channels.recv())
            .await
            .expect("the server runs")
    }

    /// The same for a server that waits for clients as long as its test lasts.
    pub async fn next_channel_unbounded(&mut self) -> Peer {
        self.channels.recv().await.expect("the server runs")
    }

    /// How often an operation was called.
    pub fn count(&self, operation: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls
            .iter()
            .filter(|call| call.operation() == operation)
            .count()
    }
}

/// Waits for something with a bound.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// A stream that gives the bytes already read first.
struct Replay {
    head: Bytes,
    stream: Box<dyn Io>,
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.head.is_empty() {
            return std::pin::Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.head.len().min(buffer.remaining());
        let part = self.head.split_to(length);
        buffer.put_slice(&part);
        std::task::Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn serve(
    mut stream: Box<dyn Io>,
    answers: &Answers,
    log: &Mutex<Vec<Call>>,
    channels: &mpsc::Sender<Peer>,
) {
    let mut held = Vec::new();
    loop {
        let Some((head, length)) = read_head(&mut stream, &mut held).await else {
            return;
        };
        if head.header("upgrade").is_some() {
            // The answers may refuse a websocket by any status but 101.
            let (status, body) = answers(&head);
            if head.method == "GET" && status != 101 && status != 200 {
                let _ = stream.write_all(response(status, &body).as_bytes()).await;
                return;
            }
            let replay = Replay {
                head: Bytes::from(held),
                stream,
            };
            return serve_channel(Box::new(replay), channels).await;
        }
        let mut call = head;
        held.drain(..length);
        let wanted: usize = call
            .header("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        while held.len() < wanted {
            if stream.read_buf(&mut held).await.unwrap_or(0) == 0 {
                return;
            }
        }
        call.body = held.drain(..wanted).collect();
        let (status, body) = answers(&call);
        log.lock().unwrap().push(call);
        if stream
            .write_all(response(status, &body).as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}

fn response(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads up to the end of a request's head, which is left in `held`, and gives its length.
async fn read_head(stream: &mut Box<dyn Io>, held: &mut Vec<u8>) -> Option<(Call, usize)> {
    loop {
        if let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&held[..end]).into_owned();
            let mut lines = text.split("\r\n");
            let mut first = lines.next()?.split(' ');
            let headers = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let call = Call {
                method: first.next()?.to_owned(),
                path: first.next()?.to_owned(),
                headers,
                body: Vec::new(),
            };
            return Some((call, end + 4));
        }
        if stream.read_buf(held).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn serve_channel(stream: Box<dyn Io>, channels: &mpsc::Sender<Peer>) {
    let Ok(mut socket) = accept_async(stream).await else {
        return;
    };
    // A ping may come before the open message.
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            let open = OpenClient::parse(text.as_bytes()).expect("an open message");
            let peer = Peer {
                open,
                raw_open: text.as_str().to_owned(),
                socket,
            };
            let _ = channels.send(peer).await;
            return;
        }
    }
}

/// The node's end of a session, over one websocket after another.
pub struct Node {
    pub link: Link,
    pub sizes: Vec<(u32, u32)>,
    pub input: Vec<u8>,
    pub other: Vec<Delivery>,
    /// The input messages' lengths, in order.
    pub lengths: Vec<usize>,
    /// What arrived, in order: sizes and input.
    pub order: Vec<&'static str>,
    socket: Option<WebSocketStream<Box<dyn Io>>>,
    start: Instant,
}

impl Node {
    pub fn new(is_ours: bool) -> Self {
        let mut link = Link::new(Options::new(Role::Node, [7; 16]));
        if is_ours {
            link.set_features(&common_features());
        }
        Self {
            link,
            sizes: Vec::new(),
            input: Vec::new(),
            other: Vec::new(),
            lengths: Vec::new(),
            order: Vec::new(),
            socket: None,
            start: Instant::now(),
        }
    }

    pub fn now(&self) -> Now {
        Now::new(
            self.start.elapsed(),
            Timestamp::from_millis(1_777_881_600_000),
        )
    }

    /// Takes a websocket as the session's, without saying anything.
    pub fn attach(&mut self, peer: Peer) {
        self.socket = Some(peer.socket);
        self.link.connected(self.now());
    }

    /// Takes a websocket and tells the client the common features, as our gateway does.
    pub async fn attach_ours(&mut self, peer: Peer, ticket: &str) {
        let announced = peer
            .open
            .sortie
            .as_ref()
            .expect("an announcement")
            .features
            .clone();
        self.attach(peer);
        let features = Features {
            version: "0.1.0".to_owned(),
            features: announced,
            ticket: Some(Secret::new(ticket)),
        };
        self.frame(service::sortie_features(stamp(), &features))
            .await;
    }

    pub async fn frame(&mut self, frame: Bytes) {
        if let Some(socket) = &mut self.socket {
            // A client that is gone is seen by reading.
            let _ = socket.send(Message::Binary(frame)).await;
        }
    }

    pub fn output(&mut self, bytes: &[u8]) {
        self.send(PayloadType::OUTPUT, bytes);
    }

    pub fn send(&mut self, payload_type: PayloadType, bytes: &[u8]) {
        let now = self.now();
        self.link
            .send(payload_type, Bytes::copy_from_slice(bytes), now)
            .expect("room to send");
    }

    /// Drops the connection without a word, as a broken network does.
    pub fn cut(&mut self) {
        self.socket = None;
        self.link.disconnected();
    }

    /// Ends the session after everything sent was acknowledged.
    pub async fn close(&mut self, output: &str) {
        self.pump_until("the output to be acknowledged", |node| node.link.drained())
            .await;
        self.close_now(output).await;
    }

    /// Ends the session, whatever has been acknowledged.
    pub async fn close_now(&mut self, output: &str) {
        self.frame(service::channel_closed(stamp(), "session", "node", output))
            .await;
    }

    /// Moves frames until a state is reached; false when the client closed the websocket first.
    pub async fn pump(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            while let Some(delivery) = self.link.next_delivery() {
                self.take(delivery);
            }
            // What it sends goes out before anything is waited for.
            let is_done = done(self);
            while let Some(frame) = self.link.poll_transmit(self.now()) {
                self.frame(frame).await;
            }
            if is_done {
                return true;
            }
            let pause = self.link.deadline().map_or(Duration::from_secs(1), |at| {
                at.saturating_sub(self.now().monotonic)
            });
            let socket = self.socket.as_mut().expect("a connection");
            match tokio::time::timeout(pause, socket.next()).await {
                Ok(Some(Ok(Message::Binary(bytes)))) => {
                    let frame = Frame::parse(bytes).expect("a frame");
                    let now = self.now();
                    self.link.receive(frame, now);
                }
                Ok(Some(Ok(Message::Close(_))) | None | Some(Err(_))) => return false,
                Ok(Some(Ok(_))) | Err(_) => {}
            }
        }
    }

    pub async fn pump_until(&mut self, what: &str, done: impl FnMut(&mut Self) -> bool) {
        assert!(
            within(what, self.pump(done)).await,
            "the client left while waiting for {what}"
        );
    }

    /// Waits until the client closes the websocket.
    pub async fn pump_until_closed(&mut self) {
        within("the client to leave", self.pump(|_| false)).await;
    }

    fn take(&mut self, delivery: Delivery) {
        match delivery.payload_type {
            PayloadType::SIZE => {
                let size = Size::parse(&delivery.payload).expect("a size");
                self.sizes.push((size.cols, size.rows));
                self.order.push("size");
            }
            PayloadType::OUTPUT => {
                self.input.extend_from_slice(&delivery.payload);
                self.lengths.push(delivery.payload.len());
                self.order.push("input");
            }
            _ => self.other.push(delivery),
        }
    }
}

pub fn common_features() -> Vec<String> {
    sortie_channel::features::ALL
        .iter()
        .map(ToString::to_string)
        .collect()
}

pub fn stamp() -> Stamp {
    Stamp::new(Uuid::new_v4(), Timestamp::from_millis(1_777_881_600_000))
}

/// A deque of prepared answers behind a closure.
pub fn scripted(
    answers: impl IntoIterator<Item = (u16, Value)>,
) -> impl Fn(&Call) -> (u16, String) + Send + Sync + 'static {
    let queue = Mutex::new(VecDeque::from_iter(answers));
    move |call| {
        if call.header("upgrade").is_some() {
            return (200, String::new());
        }
        match queue.lock().unwrap().pop_front() {
            Some((status, body)) => (status, body.to_string()),
            None => (
                400,
                json!({"__type": "UnexpectedCall", "message": call.operation()}).to_string(),
            ),
        }
    }
}
