//! Simulated nodes, many in a process: each registers, keeps its own credentials and holds a control
//! channel over a TLS connection of its own, which it opens again as the agent does. Says on standard
//! output how many are registered and connected. Ends with its standard input.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sortie_channel::{
    body::{Body, OpenControl, SortieOpen},
    handshake::AGENT_VERSION,
};
use sortie_wire::sigv4::{Credentials, RequestParts};
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderName, HeaderValue},
        protocol::WebSocketConfig,
    },
};
use uuid::Uuid;

use crate::api::{self, CallError, Key, Server, Signer, text_of};

/// The agent's, of its control channel.
const FIRST_WAIT: f64 = 0.5;
const LONGEST_WAIT: f64 = 10.0;
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
const PING_INTERVAL: Duration = Duration::from_secs(27);
const QUERY: &str = "role=subscribe&stream=input";
/// How many of a process register at the same time.
const REGISTERING: usize = 16;
/// How often a process looks whether all its nodes are connected, and how often it says so when
/// they are not.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// How many source addresses a process uses.
const SOURCES: u32 = 16;

/// Which nodes.
#[derive(Args)]
pub(crate) struct Options {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    /// Its certificate authority
    #[arg(long)]
    ca_file: PathBuf,
    #[arg(long)]
    activation_id: String,
    #[arg(long)]
    activation_code: String,
    #[arg(long)]
    count: u32,
    /// Which part of the fleet; decides the source addresses
    #[arg(long)]
    part: u8,
    /// Where the nodes' keys are kept from one run to the next
    #[arg(long)]
    keys: PathBuf,
}

/// What a part of the fleet says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// How many have a key.
    pub(crate) keys: u32,
    /// How many are registered.
    pub(crate) registered: u32,
    /// How many hold a channel that has answered.
    pub(crate) connected: u32,
    /// Answers of the server that said no, ever.
    pub(crate) refused: u32,
    /// Attempts that failed otherwise, ever: nobody listening, cut, too slow.
    pub(crate) failed: u32,
    /// The last refusal.
    pub(crate) refusal: Option<String>,
    /// The last other failure.
    pub(crate) failure: Option<String>,
}

#[derive(Default)]
struct Counts {
    keys: AtomicU32,
    registered: AtomicU32,
    connected: AtomicU32,
    refused: AtomicU32,
    failed: AtomicU32,
    refusal: Mutex<Option<String>>,
    failure: Mutex<Option<String>>,
}

struct Node {
    id: String,
    credentials: Credentials,
    source: IpAddr,
}

type Channel = WebSocketStream<TlsStream<TcpStream>>;

/// Registers all nodes, waits for a line on standard input, connects them, and keeps them connected
/// until standard input ends.
pub(crate) fn run(options: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(be_nodes(options))
}

async fn be_nodes(options: Options) -> Result<()> {
    let ca = std::fs::read(&options.ca_file).context("the CA file")?;
    let server = Server::new(options.address, &ca)?;
    let counts = Arc::new(Counts::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(tell(Arc::clone(&counts), options.count));
    let nodes = register_all(&options, &server, &counts).await?;
    tokio::task::spawn_blocking(|| io::stdin().read(&mut [0])).await??;
    let over = tokio::task::spawn_blocking(|| io::stdin().read(&mut [0]));
    for node in nodes {
        let (server, counts) = (server.clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            node.live(server, counts).await;
            Ok(())
        });
    }
    tokio::select! {
        ended = over => { ended??; Ok(()) }
        Some(ended) = tasks.join_next() => ended?,
    }
}

/// Says at once when all have become connected, or not all are any more; and now and then how it
/// goes.
async fn tell(counts: Arc<Counts>, count: u32) -> Result<()> {
    let (mut were_all, mut said, mut said_at) = (false, None, Instant::now());
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        look.tick().await;
        let report = counts.report();
        let are_all = report.connected == count;
        let is_due = said_at.elapsed() >= NEWS_INTERVAL && said.as_ref() != Some(&report);
        if are_all != were_all || is_due {
            were_all = are_all;
            say(&report)?;
            (said, said_at) = (Some(report), Instant::now());
        }
    }
}

fn say(report: &Report) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    Ok(out.flush()?)
}

impl Counts {
    fn report(&self) -> Report {
        Report {
            keys: self.keys.load(Relaxed),
            registered: self.registered.load(Relaxed),
            connected: self.connected.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
            refusal: self.refusal.lock().ok().and_then(|last| last.clone()),
            failure: self.failure.lock().ok().and_then(|last| last.clone()),
        }
    }

    fn note(&self, error: CallError) {
        let (count, last, text) = match error {
            CallError::Refused(answer) => (&self.refused, &self.refusal, answer),
            CallError::Failed(error) => (&self.failed, &self.failure, format!("{error:#}")),
        };
        count.fetch_add(1, Relaxed);
        if let Ok(mut last) = last.lock() {
            *last = Some(text);
        }
    }
}

async fn register_all(options: &Options, server: &Server, counts: &Counts) -> Result<Vec<Node>> {
    let keys = keys_of(options, counts).await?;
    let gate = Arc::new(Semaphore::new(REGISTERING));
    let mut tasks = JoinSet::new();
    for (number, key) in (0..options.count).zip(keys) {
        let (server, gate) = (server.clone(), Arc::clone(&gate));
        let activation = (
            options.activation_id.clone(),
            options.activation_code.clone(),
        );
        let last = u8::try_from(number % SOURCES).unwrap_or_default();
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1 + options.part, 1 + last));
        tasks.spawn(async move {
            let _permit = gate.acquire().await?;
            let registered = Node::register(&server, &key, &activation, source).await;
            registered.map_err(CallError::into_error)
        });
    }
    let mut nodes = Vec::new();
    while let Some(node) = tasks.join_next().await {
        nodes.push(node??);
        counts.registered.fetch_add(1, Relaxed);
    }
    Ok(nodes)
}

/// The nodes' keys: those of earlier runs, and new ones where these are not enough.
async fn keys_of(options: &Options, counts: &Counts) -> Result<Vec<Key>> {
    let kept = match std::fs::read_to_string(&options.keys) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context("the nodes' keys"),
    };
    let mut keys = Vec::new();
    for line in kept.lines().take(options.count as usize) {
        keys.push(Key::from_line(line)?);
        counts.keys.fetch_add(1, Relaxed);
    }
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&options.keys)?;
    while keys.len() < options.count as usize {
        let key = tokio::task::spawn_blocking(Key::generate).await??;
        // At once, so that no half of one is kept.
        file.write_all(format!("{}\n", key.line()?).as_bytes())?;
        keys.push(key);
        counts.keys.fetch_add(1, Relaxed);
    }
    Ok(keys)
}

impl Node {
    async fn register(
        server: &Server,
        key: &Key,
        (activation_id, activation_code): &(String, String),
        source: IpAddr,
    ) -> Result<Self, CallError> {
        let fingerprint = Uuid::new_v4().to_string();
        let input = json!({
            "ActivationId": activation_id, "ActivationCode": activation_code,
            "Fingerprint": fingerprint, "PublicKey": key.public()?, "PublicKeyType": "Rsa",
        });
        let answer = server
            .call(source, "RegisterManagedInstance", &input, Signer::Nobody)
            .await?;
        let id = text_of(&answer, "InstanceId")?;
        let input = json!({ "Fingerprint": fingerprint });
        let signer = Signer::Node(&id, key);
        let operation = "RequestManagedInstanceRoleToken";
        let answer = server.call(source, operation, &input, signer).await?;
        let credentials = Credentials {
            access_key_id: text_of(&answer, "AccessKeyId")?,
            secret_access_key: text_of(&answer, "SecretAccessKey")?.into(),
            session_token: Some(text_of(&answer, "SessionToken")?.into()),
        };
        Ok(Self {
            id,
            credentials,
            source,
        })
    }

    /// Keeps the channel open, with the agent's waits between attempts.
    async fn live(self, server: Server, counts: Arc<Counts>) {
        let mut failures = 0;
        loop {
            tokio::time::sleep(wait(failures)).await;
            match Box::pin(self.open(&server)).await {
                Ok(channel) => {
                    failures = 0;
                    counts.connected.fetch_add(1, Relaxed);
                    let end = Box::pin(hold(channel)).await;
                    counts.connected.fetch_sub(1, Relaxed);
                    // A server that goes away says so or breaks the connection; all else is a no.
                    if let Some(reason) = end {
                        counts.note(CallError::Refused(reason));
                    }
                }
                Err(error) => {
                    failures += 1;
                    counts.note(error);
                }
            }
        }
    }

    /// A channel that has answered a ping sent behind its first message, so that the server has it.
    async fn open(&self, server: &Server) -> Result<Channel, CallError> {
        let token = server
            .create_control_channel(self.source, &self.id, &self.credentials)
            .await?;
        timeout(DIAL_TIMEOUT, self.dial(server, token)).await?
    }

    async fn dial(&self, server: &Server, token: String) -> Result<Channel, CallError> {
        let request = self.upgrade(server)?;
        let stream = server.connect(self.source).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(1024)
            .write_buffer_size(0);
        let (mut channel, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(refused)?;
        channel
            .feed(Message::text(self.open_message(token)))
            .await?;
        channel
            .send(Message::Ping(Vec::from("open").into()))
            .await?;
        loop {
            match channel.next().await.context("closed at once")?? {
                Message::Pong(_) => return Ok(channel),
                Message::Close(frame) => {
                    return Err(CallError::Refused(format!("closed: {frame:?}")));
                }
                _ => {}
            }
        }
    }

    fn upgrade(
        &self,
        server: &Server,
    ) -> Result<tungstenite::handshake::client::Request, CallError> {
        let (path, host) = (format!("/v1/control-channel/{}", self.id), server.host());
        let parts = RequestParts {
            method: "GET",
            path: &path,
            query: QUERY,
            headers: &[("host", host.as_bytes())],
        };
        let signer = Signer::Credentials(&self.credentials);
        let signature = api::sign(&parts, b"", "ssmmessages", &signer)?;
        let mut request = format!("wss://{host}{path}?{QUERY}").into_client_request()?;
        for (name, value) in signature {
            let (name, value) = (HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    fn open_message(&self, token: String) -> String {
        OpenControl {
            message_schema_version: "1.0".into(),
            request_id: Uuid::new_v4().to_string(),
            token: token.into(),
            agent_version: AGENT_VERSION.to_owned(),
            platform_type: "linux".to_owned(),
            sortie: Some(SortieOpen::announcing(env!("CARGO_PKG_VERSION"))),
            sessions: Some(Vec::new()),
            ..OpenControl::default()
        }
        .to_text()
    }
}

fn refused(error: tungstenite::Error) -> CallError {
    match error {
        tungstenite::Error::Http(answer) => {
            let body = answer.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body);
            CallError::Refused(format!("{} {body}", answer.status()))
        }
        other => other.into(),
    }
}

/// Reads and pings until the channel is over. A reason when it was not the server's going away.
async fn hold(mut channel: Channel) -> Option<String> {
    let start = tokio::time::Instant::now() + PING_INTERVAL;
    let mut ping = tokio::time::interval_at(start, PING_INTERVAL);
    loop {
        let message = tokio::select! {
            message = channel.next() => message,
            _ = ping.tick() => {
                channel.send(Message::Ping(Vec::from("keepalive").into())).await.ok()?;
                continue;
            }
        };
        match message? {
            Ok(Message::Ping(_)) => channel.flush().await.ok()?,
            Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1008 => {
                return Some(format!("closed: {frame:?}"));
            }
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// A random part of the agent's wait.
fn wait(failures: u32) -> Duration {
    let bound = match failures {
        0 => FIRST_WAIT,
        failures => f64::from(1 << failures.min(20).saturating_sub(1)).min(LONGEST_WAIT),
    };
    let mut bytes = [0_u8; 4];
    // Without randomness they come back together, which is harder on the server.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    Duration::from_secs_f64(bound * f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}
