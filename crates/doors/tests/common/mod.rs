//! A whole server without its program: real store, control, gateway and doors behind a real
//! listener on loopback, and clients that sign with `sortie-wire`.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PSS_SHA256},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::{Value, json};
use sortie_control::{Control, RootKey, Settings, operation_rule};
use sortie_doors::{Connection, DoorOptions, Doors, Listener, OperationEntry};
use sortie_evidence::Category;
use sortie_gateway::{Gateway, Options};
use sortie_ports::{LocalSignals, Signals, State, TrailQuery};
use sortie_store::SqliteState;
use sortie_types::Timestamp;
use sortie_wire::sigv4::{self, Credentials, RequestParts};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub const REGION: &str = "local-1";
pub const JSON: &str = "application/x-amz-json-1.1";

pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// Waits, bounded, for what must come.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not come"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub struct World {
    pub control: Control,
    pub state: Arc<dyn State>,
    pub doors: Doors,
    pub address: SocketAddr,
    pub admin: Credentials,
    /// Connections that are open.
    pub connections: TaskTracker,
    stop: CancellationToken,
    _directory: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with(DoorOptions::default()).await
    }

    /// Data events are on, so that every call leaves a record that can be looked at.
    pub async fn with(options: DoorOptions) -> Self {
        let directory = TempDir::new().unwrap();
        let state = SqliteState::open(&directory.path().join("state.db"))
            .await
            .unwrap();
        let state: Arc<dyn State> = Arc::new(state);
        let signals: Arc<dyn Signals> = Arc::new(LocalSignals::default());
        let settings = Settings {
            data_events: true,
            ..Settings::new(REGION.parse().unwrap())
        };
        let key = RootKey::generate().unwrap();
        let control = Control::open(
            Arc::clone(&state),
            Arc::clone(&signals),
            key,
            settings,
            now(),
        );
        let control = control.await.unwrap();
        let name = "admin".parse().unwrap();
        let made = control
            .create_administrator(&name, now())
            .await
            .unwrap()
            .unwrap();
        let (gateway, task) = Gateway::new(control.clone(), signals, Options::default());
        let stop = CancellationToken::new();
        tokio::spawn(task.run(stop.clone()));
        let doors = Doors::new(control.clone(), gateway, options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = TaskTracker::new();
        tokio::spawn(serve(
            listener,
            doors.clone(),
            connections.clone(),
            stop.clone(),
        ));
        Self {
            control,
            state,
            doors,
            address,
            admin: Credentials {
                access_key_id: made.access_key_id.to_string(),
                secret_access_key: made.secret,
                session_token: None,
            },
            connections,
            stop,
            _directory: directory,
        }
    }

    /// A request to this server, with nothing but a `Host`.
    pub fn request(&self, method: &str, path: &str) -> Draft {
        Draft {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: vec![("host".to_owned(), self.address.to_string())],
            body: Vec::new(),
            address: self.address,
            chunked: false,
        }
    }

    /// An unsigned call of a JSON service.
    pub fn json(&self, target: &str, body: &Value) -> Draft {
        self.request("POST", "/")
            .header("content-type", JSON)
            .header("x-amz-target", target)
            .body(body.to_string())
    }

    /// A call of ssm by the administrator.
    pub async fn ssm(&self, operation: &str, body: Value) -> Answer {
        let draft = self.json(&format!("AmazonSSM.{operation}"), &body);
        draft.signed(&self.admin, "ssm").send().await
    }

    /// The one trail record of a call of this operation; of a data event nothing, because they
    /// cannot be looked up.
    pub async fn record_of_any(&self, entry: &OperationEntry, answer: &Answer) -> Option<Value> {
        let rule = operation_rule(entry.service.signing_name(), entry.name).unwrap();
        match rule.category {
            Category::Management => Some(self.record_of(answer).await),
            Category::Data => None,
        }
    }

    /// The one trail record of a call.
    pub async fn record_of(&self, answer: &Answer) -> Value {
        let request_id = answer.request_id();
        let mut records = self.records().await;
        records.retain(|record| record["requestID"] == request_id.as_str());
        assert_eq!(records.len(), 1, "records of {request_id}: {records:#?}");
        records.remove(0)
    }

    pub async fn records(&self) -> Vec<Value> {
        let query = TrailQuery {
            limit: 1000,
            ..TrailQuery::default()
        };
        let rows = self.state.trail(query).await.unwrap();
        let all = rows
            .into_iter()
            .map(|(_, entry)| serde_json::from_str(&entry.record).unwrap());
        all.collect()
    }

    /// An enrolled node.
    pub async fn node(&self) -> Node {
        let made = self
            .ssm("CreateActivation", json!({ "IamRole": "SortieNode" }))
            .await
            .ok();
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public =
            AsDer::<aws_lc_rs::encoding::PublicKeyX509Der>::as_der(key.public_key()).unwrap();
        let fingerprint = uuid::Uuid::new_v4().to_string();
        let body = json!({
            "ActivationId": made["ActivationId"], "ActivationCode": made["ActivationCode"],
            "PublicKey": BASE64_STANDARD.encode(public.as_ref()), "PublicKeyType": "Rsa",
            "Fingerprint": fingerprint,
        });
        let draft = self.json("AmazonSSM.RegisterManagedInstance", &body);
        let registered = draft.send().await.ok();
        assert_eq!(registered["Region"], REGION);
        Node {
            id: registered["InstanceId"].as_str().unwrap().to_owned(),
            key,
            fingerprint,
        }
    }
}

async fn serve(
    listener: TcpListener,
    doors: Doors,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let router = doors.router(Listener { tls: false });
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted.unwrap(),
        };
        let router = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request
                .extensions_mut()
                .insert(Connection::new(peer, None, Arc::new(())));
            router.call(request)
        });
        connections.spawn(async move {
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = served.with_upgrades().await;
        });
    }
}

/// A node's own key.
pub struct Node {
    pub id: String,
    pub key: KeyPair,
    pub fingerprint: String,
}

impl Node {
    /// Its credentials, asked for with its key.
    pub async fn credentials(&self, world: &World) -> Credentials {
        let token = self.token_request(world).send().await.ok();
        let text = |name: &str| token[name].as_str().unwrap().to_owned();
        assert!(
            token["UpdateKeyPair"].is_boolean(),
            "a missing member stops official nodes"
        );
        assert!(token["TokenExpirationDate"].is_number());
        Credentials {
            access_key_id: text("AccessKeyId"),
            secret_access_key: text("SecretAccessKey").into(),
            session_token: Some(text("SessionToken").into()),
        }
    }

    /// As the official node sends it: chunked, the signature by RSA.
    pub fn token_request(&self, world: &World) -> Draft {
        let body = json!({ "Fingerprint": self.fingerprint });
        let target = "AmazonSSM.RequestManagedInstanceRoleToken";
        world
            .json(target, &body)
            .signed_by_key(&self.id, &self.key)
            .chunked()
    }
}

/// A request in the making.
#[derive(Clone)]
pub struct Draft {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    address: SocketAddr,
    chunked: bool,
}

impl Draft {
    /// Sets a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body without a declared length.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub fn signed(self, credentials: &Credentials, service: &str) -> Self {
        self.signed_at(credentials, service, REGION, now())
    }

    pub fn signed_at(
        self,
        credentials: &Credentials,
        service: &str,
        region: &str,
        time: Timestamp,
    ) -> Self {
        let added = self
            .with_parts(|parts| sigv4::sign(parts, &self.body, credentials, service, region, time));
        self.with_headers(added)
    }

    pub fn signed_by_key(self, node_id: &str, key: &KeyPair) -> Self {
        let sign = |text: &[u8]| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), text, &mut signature)?;
            Ok::<_, aws_lc_rs::error::Unspecified>(signature)
        };
        let added = self
            .with_parts(|parts| sigv4::sign_rsa(parts, &self.body, node_id, REGION, now(), sign));
        self.with_headers(added.unwrap())
    }

    fn with_headers(mut self, added: Vec<(String, String)>) -> Self {
        for (name, value) in added {
            self = self.header(&name.to_lowercase(), &value);
        }
        self
    }

    /// Presigns a request for its path and query.
    pub fn presigned(mut self, credentials: &Credentials, service: &str, region: &str) -> Self {
        let query = self.with_parts(|parts| {
            sigv4::presign(
                parts,
                &self.body,
                credentials,
                service,
                region,
                now(),
                Duration::from_secs(60),
            )
        });
        let path = self.path.split('?').next().unwrap().to_owned();
        self.path = format!("{path}?{query}");
        self
    }

    fn with_parts<R>(&self, use_them: impl FnOnce(&RequestParts<'_>) -> R) -> R {
        let headers: Vec<(&str, &[u8])> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        use_them(&RequestParts {
            method: &self.method,
            path,
            query,
            headers: &headers,
        })
    }

    /// The head as a client would write it.
    pub fn build<B>(&self, body: B) -> Request<B> {
        let mut request = Request::builder()
            .method(self.method.as_str())
            .uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(body).unwrap()
    }

    pub async fn send(self) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        if self.chunked {
            let pieces: Vec<Result<_, std::convert::Infallible>> = self
                .body
                .chunks(7)
                .map(|piece| Ok(hyper::body::Frame::data(Bytes::copy_from_slice(piece))))
                .collect();
            let body = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
            exchange(stream, self.build(body)).await
        } else {
            exchange(
                stream,
                self.build(Full::new(Bytes::from(self.body.clone()))),
            )
            .await
        }
    }
}

async fn exchange<B>(stream: TcpStream, request: Request<B>) -> Answer
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The answer of a call that must have succeeded.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    pub fn request_id(&self) -> String {
        self.headers["x-amzn-requestid"]
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub fn content_type(&self) -> &str {
        self.headers["content-type"].to_str().unwrap()
    }

    /// Status and code of an error, whatever the protocol.
    pub fn error(&self) -> (u16, String) {
        let text = self.text();
        let code = if text.starts_with('{') {
            self.json()["__type"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        } else {
            sortie_wire::AwsError::parse_xml_error(self.status, text)
                .code
                .into_owned()
        };
        (self.status, code)
    }
}
