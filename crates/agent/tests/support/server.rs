//! The server's side: TLS, HTTP by hand, signatures, and the websockets handed to the test.

use std::{
    collections::HashSet,
    io::Cursor,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use sortie_channel::{
    body::{Body, Features, OpenControl, OpenNode, SortieStart, StartContent},
    control::{self, ControlMessage},
    frame::Frame,
    service::{self, Stamp},
};
use sortie_types::{Secret, Timestamp};
use sortie_wire::sigv4::{self, Presented, RequestParts, Scope};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};
use uuid::Uuid;

use super::within;

pub(crate) const NODE_ID: &str = "mi-0123456789abcdef0";
const REGION: &str = "local-1";
const ROLE_KEY: &str = "ASIAAAAAAAAAAAAAAAAA";
const ROLE_SECRET: &str = "role-secret";
const ROLE_TOKEN: &str = "role-session-token";

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
pub(crate) type Socket = WebSocketStream<Pin<Box<dyn Io>>>;

/// What the server knows and has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Keys that are taken for the node's, base64.
    pub(crate) keys: Vec<String>,
    /// The key that the last accepted RSA-signed call used.
    pub(crate) used_key: Option<String>,
    pub(crate) registration: Option<Value>,
    pub(crate) information: Option<Value>,
    /// What token requests answer for `UpdateKeyPair`.
    pub(crate) wants_new_key: bool,
    /// The answer to a key update gets lost.
    pub(crate) loses_update_answer: bool,
    /// Registrations are refused with this code.
    pub(crate) refuses_registration: Option<&'static str>,
    /// Role tokens given out.
    pub(crate) tokens: u32,
    /// Calls whose signature was wrong.
    pub(crate) refused: Vec<String>,
}

/// The scripted server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
    controls: tokio::sync::Mutex<mpsc::Receiver<(OpenControl, Socket)>>,
    datas: tokio::sync::Mutex<mpsc::Receiver<(OpenNode, Socket)>>,
    _tasks: JoinSet<()>,
}

struct Shared {
    seen: Arc<Mutex<Seen>>,
    host: String,
    control: mpsc::Sender<(OpenControl, Socket)>,
    data: mpsc::Sender<(OpenNode, Socket)>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let ca_pem = certified.cert.pem();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
            certified.signing_key.serialize_der(),
        ));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (control, controls) = mpsc::channel(16);
        let (data, datas) = mpsc::channel(16);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::new(Shared {
            seen: Arc::clone(&seen),
            host: address.to_string(),
            control,
            data,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        serve(tls, &shared).await;
                    }
                });
            }
        });
        Self {
            address,
            ca_pem,
            seen,
            controls: tokio::sync::Mutex::new(controls),
            datas: tokio::sync::Mutex::new(datas),
            _tasks: tasks,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }

    /// The node's next control channel.
    pub(crate) async fn control(&self) -> Control {
        let opened = within("a control channel", async {
            self.controls.lock().await.recv().await
        })
        .await;
        let (open, socket) = opened.unwrap();
        Control {
            open,
            socket,
            had: HashSet::new(),
        }
    }

    /// The next data channel of any session.
    pub(crate) async fn data(&self) -> (OpenNode, Socket) {
        within("a data channel", async {
            self.datas.lock().await.recv().await
        })
        .await
        .unwrap()
    }

    /// The session's next data channel, greeted as the gateway greets it. `tickets`: how many were given
    /// out before, of which a connection that broke early may have taken the newest with it.
    pub(crate) async fn welcome(
        &self,
        session_id: &str,
        tickets: &mut u32,
        features: &[String],
    ) -> Socket {
        let (open, mut socket) = self.data().await;
        let mut known = (1..=*tickets).map(|number| format!("SRT1.ticket-{number}"));
        let is_first = *tickets == 0 && open.token.expose() == token_of(session_id);
        assert!(
            is_first || known.any(|ticket| ticket == open.token.expose()),
            "a strange token"
        );
        assert_eq!(
            (open.client_id.as_str(), open.client_instance_id.as_str()),
            ("", NODE_ID)
        );
        assert!(open.sortie.is_some());
        *tickets += 1;
        let greeting = Features {
            version: "0.1.0".to_owned(),
            features: features.to_vec(),
            ticket: Some(Secret::new(format!("SRT1.ticket-{tickets}"))),
        };
        let greeting = service::sortie_features(stamp(), &greeting);
        socket.send(Message::Binary(greeting)).await.unwrap();
        socket
    }
}

/// The server's end of a control channel.
pub(crate) struct Control {
    pub(crate) open: OpenControl,
    pub(crate) socket: Socket,
    /// The messages of results that a test has had. An agent repeats what is not acknowledged.
    had: HashSet<Uuid>,
}

impl Control {
    pub(crate) async fn send(&mut self, bytes: Bytes) {
        self.socket.send(Message::Binary(bytes)).await.unwrap();
    }

    /// Asks for a session with a token good for its data channel.
    pub(crate) async fn start_session(&mut self, session_id: &str, document: Value) {
        let start = start_content(session_id, document);
        self.send(control::interactive_shell(stamp(), &start)).await;
    }

    pub(crate) async fn close_session(&mut self, session_id: &str) {
        self.send(control::channel_closed(stamp(), session_id, NODE_ID, ""))
            .await;
    }

    pub(crate) async fn acknowledge(&mut self, message_id: Uuid, session_id: &str) {
        self.send(control::task_acknowledge(stamp(), message_id, session_id))
            .await;
    }

    /// The next result that is none again: the id of its message, session, status and output.
    pub(crate) async fn result(&mut self) -> (Uuid, String, String, String) {
        within("a session's result", async {
            loop {
                let Message::Binary(bytes) = self.socket.next().await.unwrap().unwrap() else {
                    continue;
                };
                let message = ControlMessage::parse(&Frame::parse(bytes).unwrap()).unwrap();
                if let ControlMessage::TaskComplete { message_id, result } = message
                    && self.had.insert(message_id)
                {
                    assert_eq!(result.instance_id, NODE_ID);
                    return (
                        message_id,
                        result.task_id,
                        result.final_task_status,
                        result.output,
                    );
                }
            }
        })
        .await
    }
}

pub(crate) fn token_of(session_id: &str) -> String {
    format!("SRT1.worker-token-of-{session_id}")
}

pub(crate) fn start_content(session_id: &str, document: Value) -> StartContent {
    StartContent {
        document_name: "SSM-SessionManagerRunShell".to_owned(),
        document_content: document,
        session_id: session_id.to_owned(),
        parameters: json!({}),
        session_owner: "arn:aws:iam::111122223333:user/alice".to_owned(),
        sortie: Some(SortieStart {
            token: Secret::new(token_of(session_id)),
            features: vec![],
        }),
        ..StartContent::default()
    }
}

pub(crate) fn stamp() -> Stamp {
    Stamp::new(Uuid::new_v4(), now())
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

async fn serve(mut stream: impl Io + 'static, shared: &Shared) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let request = parse(std::str::from_utf8(&head).unwrap());
    if request.header("upgrade").is_some() {
        return upgrade(stream, head, &request, shared).await;
    }
    let length: usize = request
        .header("content-length")
        .unwrap_or("0")
        .parse()
        .unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let Some((status, answer)) = answer(&request, &body, shared) else {
        return;
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn parse(head: &str) -> Request {
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let method = first.next().unwrap().to_owned();
    let target = first.next().unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
    }
}

/// Who signed the request: the RSA key, the role, or nobody. `None` when the signature is wrong.
fn signer(request: &Request, body: &[u8], shared: &Shared, service: &str) -> Option<String> {
    assert_eq!(request.header("host"), Some(shared.host.as_str()));
    let headers: Vec<(&str, &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let parts = RequestParts {
        method: &request.method,
        path: &request.path,
        query: &request.query,
        headers: &headers,
    };
    let scope = Scope {
        service,
        regions: &[REGION],
    };
    match sigv4::parse(&parts).ok()? {
        Presented::Anonymous => Some("nobody".to_owned()),
        Presented::Presigned(_) => None,
        Presented::Header(claim) if claim.access_key == ROLE_KEY => {
            let is_token = claim
                .session_token
                .as_ref()
                .is_some_and(|token| token.expose() == ROLE_TOKEN);
            let verified = claim.verify(&parts, body, &Secret::new(ROLE_SECRET), now(), &scope);
            (is_token && verified.is_ok()).then(|| "role".to_owned())
        }
        Presented::Header(claim) => {
            assert_eq!(claim.access_key, NODE_ID);
            let keys = shared.seen.lock().unwrap().keys.clone();
            keys.into_iter().find(|key| {
                let spki = STANDARD.decode(key).unwrap();
                claim.verify_rsa(&parts, body, &spki, now(), &scope).is_ok()
            })
        }
    }
}

fn answer(request: &Request, body: &[u8], shared: &Shared) -> Option<(u16, String)> {
    let is_channel = request.path.starts_with("/v1/");
    let service = if is_channel { "ssmmessages" } else { "ssm" };
    let target = request
        .header("x-amz-target")
        .unwrap_or_default()
        .replace("AmazonSSM.", "");
    let Some(signer) = signer(request, body, shared, service) else {
        shared.seen.lock().unwrap().refused.push(target);
        return Some((
            400,
            json!({"__type": "InvalidSignatureException", "message": "no"}).to_string(),
        ));
    };
    let input: Value = serde_json::from_slice(body).unwrap();
    let mut seen = shared.seen.lock().unwrap();
    if is_channel {
        assert_eq!(
            (request.path.as_str(), signer.as_str()),
            ("/v1/control-channel/mi-0123456789abcdef0", "role")
        );
        let xml = "<CreateControlChannelResponse><TokenValue>SRT1.control</TokenValue></CreateControlChannelResponse>";
        return Some((201, xml.to_owned()));
    }
    let output = match (target.as_str(), signer.as_str()) {
        ("RegisterManagedInstance", "nobody") => {
            if let Some(code) = seen.refuses_registration {
                return Some((
                    400,
                    json!({"__type": code, "message": "refused"}).to_string(),
                ));
            }
            seen.keys = vec![input["PublicKey"].as_str().unwrap().to_owned()];
            seen.registration = Some(input);
            json!({"InstanceId": NODE_ID, "Region": REGION})
        }
        ("RequestManagedInstanceRoleToken", key) if key.len() == 392 => {
            seen.used_key = Some(key.to_owned());
            seen.tokens += 1;
            json!({"AccessKeyId": ROLE_KEY, "SecretAccessKey": ROLE_SECRET, "SessionToken": ROLE_TOKEN,
                   "TokenExpirationDate": now().epoch_seconds() + 3600.0, "UpdateKeyPair": seen.wants_new_key})
        }
        ("UpdateManagedInstancePublicKey", key) if key.len() == 392 => {
            seen.keys
                .push(input["NewPublicKey"].as_str().unwrap().to_owned());
            seen.wants_new_key = false;
            if std::mem::take(&mut seen.loses_update_answer) {
                return None;
            }
            json!({})
        }
        ("UpdateInstanceInformation", "role") => {
            seen.information = Some(input);
            json!({})
        }
        other => panic!("not expected: {other:?}"),
    };
    Some((200, output.to_string()))
}

async fn upgrade(stream: impl Io + 'static, head: Vec<u8>, request: &Request, shared: &Shared) {
    let is_control = request.path.starts_with("/v1/control-channel/");
    let expected = if is_control { "role" } else { "nobody" };
    assert_eq!(
        signer(request, b"", shared, "ssmmessages").as_deref(),
        Some(expected)
    );
    let (read, write) = tokio::io::split(stream);
    let stream: Pin<Box<dyn Io>> = Box::pin(tokio::io::join(Cursor::new(head).chain(read), write));
    let mut socket = accept_async(stream).await.unwrap();
    let Some(Ok(Message::Text(text))) = socket.next().await else {
        return;
    };
    if is_control {
        let open = OpenControl::parse(text.as_bytes()).unwrap();
        let _ = shared.control.send((open, socket)).await;
    } else {
        let open = OpenNode::parse(text.as_bytes()).unwrap();
        let _ = shared.data.send((open, socket)).await;
    }
}
