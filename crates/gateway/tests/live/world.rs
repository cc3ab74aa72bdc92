//! What the tests stand on: a gateway on real control and state, and the two kinds of peers, scripted
//! over websockets in memory.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use sortie_channel::{
    body::{
        AgentTaskComplete, Body, ChannelClosed, Features, OpenClient, OpenControl, OpenNode,
        SortieOpen, StartContent,
    },
    control::{self, ControlMessage},
    frame::{Frame, MessageType, NewFrame, PayloadType},
    service::{self, Stamp},
};
use sortie_control::{
    Call, Caller, Control, CreateControlChannelInput, CreateDataChannelInput, NewAdministrator,
    ResumeSessionInput, RootKey, Settings, StartSessionInput, StartSessionOutput,
    TerminateSessionInput, UserCaller,
};
use sortie_gateway::{Gateway, Io, Options, Peer};
use sortie_ports::{
    Change, Commit, LocalSignals, Node, NodeInfo, NodeState, Session, SessionState, Signals, State,
    TrailQuery,
};
use sortie_store::SqliteState;
use sortie_types::{ActivationId, NodeId, Secret, SessionId, Timestamp};
use tempfile::TempDir;
use tokio::{
    io::DuplexStream,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than anything should take; tests wait for states, not for this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that fit between two peers: little, so that a peer that does not read is noticed.
const PIPE: usize = 16 * 1024;

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

pub(crate) fn stamp() -> Stamp {
    Stamp::new(Uuid::new_v4(), now())
}

/// Waits for something that should happen, and says what did not.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Options that make a test fast. Waits that a test is not about stay long.
pub(crate) fn quick() -> Options {
    Options {
        node_grace: Duration::from_millis(100),
        unlisted_wait: Duration::from_millis(200),
        confirm_wait: Duration::from_millis(500),
        drain: Duration::from_secs(5),
        ..Options::default()
    }
}

pub(crate) struct World {
    pub(crate) control: Control,
    pub(crate) state: Arc<SqliteState>,
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) gateway: Gateway,
    pub(crate) administrator: NewAdministrator,
    pub(crate) nodes: [NodeId; 2],
    callers: Vec<Caller>,
    task: JoinHandle<()>,
    stop: CancellationToken,
    serving: JoinSet<()>,
    _directory: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, _| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings, &mut Options)) -> Self {
        let directory = TempDir::new().unwrap();
        let state = SqliteState::open(&directory.path().join("state.db"))
            .await
            .unwrap();
        let state = Arc::new(state);
        let signals: Arc<dyn Signals> = Arc::new(LocalSignals::default());
        let mut settings = Settings::new("local-1".parse().unwrap());
        let mut options = quick();
        change(&mut settings, &mut options);
        let key = RootKey::generate().unwrap();
        let control = Control::open(state.clone(), signals.clone(), key, settings, now());
        let control = control.await.unwrap();
        let name = "alice".parse().unwrap();
        let administrator = control
            .create_administrator(&name, now())
            .await
            .unwrap()
            .unwrap();
        let nodes = [1, 2].map(|byte| NodeId::from_random([byte; 9]));
        let mut callers = Vec::new();
        for (number, node_id) in nodes.iter().enumerate() {
            let row = node_row(node_id, u8::try_from(number).unwrap());
            let changes = vec![Change::InsertNode(Box::new(row))];
            state
                .commit(Commit {
                    changes,
                    trail: vec![],
                })
                .await
                .unwrap();
            let keys = control.node_public_keys(node_id.as_str()).await;
            callers.push(keys.unwrap().caller);
        }
        let (gateway, task) = Gateway::new(control.clone(), signals.clone(), options);
        let stop = CancellationToken::new();
        let task = tokio::spawn(task.run(stop.clone()));
        Self {
            control,
            state,
            signals,
            gateway,
            administrator,
            nodes,
            callers,
            task,
            stop,
            serving: JoinSet::new(),
            _directory: directory,
        }
    }

    /// Stops the gateway and waits until all its tasks are gone.
    pub(crate) async fn stop(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        self.stop.cancel();
        within("the gateway to stop", &mut self.task).await.unwrap();
        within("the channels to end", async {
            while self.serving.join_next().await.is_some() {}
        })
        .await;
    }

    /// Another gateway on the same state, as after a restart of the server.
    pub(crate) async fn restart(&mut self, options: Options) {
        self.stop().await;
        let (gateway, task) = Gateway::new(self.control.clone(), self.signals.clone(), options);
        self.gateway = gateway;
        self.stop = CancellationToken::new();
        self.task = tokio::spawn(task.run(self.stop.clone()));
    }

    /// A node as it calls with its own key.
    fn node_caller(&self, node_id: &NodeId) -> Caller {
        let nodes = self.nodes.iter().zip(&self.callers);
        let mut own = nodes.filter(|(id, _)| *id == node_id);
        own.next().unwrap().1.clone()
    }

    pub(crate) fn user_call(&self, event_name: &'static str) -> Call {
        let caller = UserCaller {
            user: self.administrator.user.clone(),
            access_key_id: self.administrator.access_key_id.clone(),
            session: None,
        };
        call(Caller::User(Box::new(caller)), event_name, "192.0.2.1")
    }

    pub(crate) async fn start_session(&self) -> StartSessionOutput {
        let input = StartSessionInput {
            target: self.nodes[0].to_string(),
            document_name: None,
            parameters: BTreeMap::new(),
            reason: None,
            stream_base: "ws://localhost".into(),
        };
        let started = self
            .control
            .start_session(&self.user_call("StartSession"), input)
            .await;
        started.unwrap().into_inner()
    }

    /// A session with this resolved document, which has not begun.
    pub(crate) async fn session_of(&self, name: &str, document: serde_json::Value) -> SessionId {
        let started = self.start_session().await;
        let mut row = self.row(&started.session_id).await;
        row.id = SessionId::from_random("alice", [7; 9]);
        row.document_name = name.into();
        row.document_content = document;
        let id = row.id.clone();
        let commit = Commit {
            changes: vec![Change::InsertSession(Box::new(row))],
            trail: vec![],
        };
        self.state.commit(commit).await.unwrap();
        id
    }

    pub(crate) async fn resume(&self, session_id: &SessionId) -> Option<Secret> {
        let input = ResumeSessionInput {
            session_id: session_id.to_string(),
            stream_base: "ws://localhost".into(),
        };
        let resumed = self
            .control
            .resume_session(&self.user_call("ResumeSession"), input)
            .await;
        resumed.unwrap().into_inner().token_value
    }

    pub(crate) async fn terminate(&self, session_id: &SessionId) {
        let input = TerminateSessionInput {
            session_id: session_id.to_string(),
        };
        let call = self.user_call("TerminateSession");
        self.control.terminate_session(&call, input).await.unwrap();
    }

    pub(crate) async fn deregister(&self, node_id: &NodeId) {
        let input = sortie_control::DeregisterManagedInstanceInput {
            instance_id: node_id.to_string(),
        };
        let call = self.user_call("DeregisterManagedInstance");
        self.control
            .deregister_managed_instance(&call, input)
            .await
            .unwrap();
    }

    pub(crate) async fn row(&self, session_id: &SessionId) -> Session {
        self.control.session(session_id).await.unwrap().unwrap()
    }

    /// The row, once it is in this state.
    pub(crate) async fn until_state(&self, session_id: &SessionId, state: SessionState) -> Session {
        let reached = async {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            loop {
                tick.tick().await;
                let row = self.row(session_id).await;
                if row.state == state {
                    return row;
                }
                assert!(
                    !row.state.is_over(),
                    "the session is {:?}",
                    (row.state, row.end_reason)
                );
            }
        };
        within(&format!("the session to be {}", state.as_str()), reached).await
    }

    pub(crate) async fn node_connected(&self, node_id: &NodeId) -> bool {
        self.state.node(node_id).await.unwrap().unwrap().connected
    }

    pub(crate) async fn until_connected(&self, node_id: &NodeId, connected: bool) {
        let reached = async {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while self.node_connected(node_id).await != connected {
                tick.tick().await;
            }
        };
        within(
            &format!("the node's row to say connected: {connected}"),
            reached,
        )
        .await;
    }

    /// How many records of this name are in the trail.
    pub(crate) async fn recorded(&self, event_name: &str) -> usize {
        let query = TrailQuery {
            limit: 1000,
            ..TrailQuery::default()
        };
        let entries = self.state.trail(query).await.unwrap();
        entries
            .iter()
            .filter(|(_, entry)| entry.event_name == event_name)
            .count()
    }

    fn pair(&self) -> (DuplexStream, DuplexStream) {
        tokio::io::duplex(PIPE)
    }

    /// A control channel as a node opens it. `from`: its address.
    pub(crate) async fn control_channel(
        &mut self,
        node: usize,
        from: &str,
        open: OpenControl,
    ) -> Channel {
        let node_id = self.nodes[node].clone();
        let (ours, theirs) = self.pair();
        let gateway = self.gateway.clone();
        let call = call(self.node_caller(&node_id), "OpenControlChannel", from);
        let path = node_id.to_string();
        self.serving.spawn(async move {
            let socket = server_side(theirs).await;
            gateway.control_channel(call, path, socket).await;
        });
        Channel::open(ours, &open.to_text()).await
    }

    pub(crate) async fn control_token(&self, node: usize) -> Secret {
        let node_id = &self.nodes[node];
        let call = call(
            self.node_caller(node_id),
            "CreateControlChannel",
            "192.0.2.7",
        );
        let input = CreateControlChannelInput {
            node_id: node_id.to_string(),
        };
        self.control
            .create_control_channel(&call, input)
            .await
            .unwrap()
            .into_inner()
            .token_value
    }

    /// An official agent, online.
    pub(crate) async fn official_node(&mut self) -> Channel {
        self.node_from(0, "192.0.2.7", None, None).await
    }

    /// Our agent, online.
    pub(crate) async fn our_node(&mut self, sessions: &[&SessionId]) -> Channel {
        let sessions = sessions.iter().map(ToString::to_string).collect();
        self.node_from(
            0,
            "192.0.2.7",
            Some(SortieOpen::announcing("0.1.0")),
            Some(sessions),
        )
        .await
    }

    pub(crate) async fn node_from(
        &mut self,
        node: usize,
        address: &str,
        sortie: Option<SortieOpen>,
        sessions: Option<Vec<String>>,
    ) -> Channel {
        let open = OpenControl {
            message_schema_version: "1.0".into(),
            request_id: Uuid::new_v4().to_string(),
            token: self.control_token(node).await,
            agent_version: "3.3.0.0".into(),
            platform_type: "linux".into(),
            sortie,
            sessions,
            ..OpenControl::default()
        };
        let channel = self.control_channel(node, address, open).await;
        self.until_connected(&self.nodes[node].clone(), true).await;
        channel
    }

    /// A data channel with this open message.
    pub(crate) async fn data_channel(
        &mut self,
        session_id: &SessionId,
        text: &str,
        signed: bool,
    ) -> Channel {
        let (ours, theirs) = self.pair();
        let gateway = self.gateway.clone();
        let path = session_id.to_string();
        let peer = Peer {
            source_ip: "192.0.2.9".into(),
            user_agent: None,
            secure_transport: true,
            signed_by: signed.then(|| self.node_caller(&self.nodes[0])),
        };
        self.serving.spawn(async move {
            let socket = server_side(theirs).await;
            gateway.data_channel(path, peer, socket).await;
        });
        Channel::open(ours, text).await
    }

    /// An official client.
    pub(crate) async fn client(&mut self, started: &StartSessionOutput) -> Channel {
        let open = client_open(&started.token_value, "client-1");
        self.data_channel(&started.session_id, &open.to_text(), false)
            .await
    }

    /// A client of ours.
    pub(crate) async fn our_client(&mut self, session_id: &SessionId, token: &Secret) -> Channel {
        let sortie = Some(SortieOpen::announcing("0.1.0"));
        let open = OpenClient {
            sortie,
            ..client_open(token, "client-1")
        };
        self.data_channel(session_id, &open.to_text(), false).await
    }

    pub(crate) async fn node_token(&self, session_id: &SessionId) -> Secret {
        let call = call(
            self.node_caller(&self.nodes[0]),
            "CreateDataChannel",
            "192.0.2.7",
        );
        let input = CreateDataChannelInput {
            session_id: session_id.to_string(),
        };
        self.control
            .create_data_channel(&call, input)
            .await
            .unwrap()
            .into_inner()
            .token_value
    }

    /// An official worker: asks for a token, signs its upgrade.
    pub(crate) async fn worker(&mut self, session_id: &SessionId) -> Channel {
        let token = self.node_token(session_id).await;
        let open = node_open(&token, &self.nodes[0]);
        self.data_channel(session_id, &open.to_text(), true).await
    }

    /// A worker of ours: has the token of its start message, signs nothing.
    pub(crate) async fn our_worker(&mut self, start: &StartContent) -> Channel {
        let token = &start.sortie.as_ref().unwrap().token;
        let sortie = Some(SortieOpen::announcing("0.1.0"));
        let open = OpenNode {
            sortie,
            ..node_open(token, &self.nodes[0])
        };
        let session_id = start.session_id.parse().unwrap();
        self.data_channel(&session_id, &open.to_text(), false).await
    }

    /// A shell between official peers, both ends open.
    pub(crate) async fn shell(&mut self) -> Shell {
        let mut control = self.official_node().await;
        let started = self.start_session().await;
        let client = self.client(&started).await;
        control.started().await;
        let worker = self.worker(&started.session_id).await;
        self.until_state(&started.session_id, SessionState::Connected)
            .await;
        Shell {
            id: started.session_id.clone(),
            started,
            control,
            client,
            worker,
        }
    }

    /// A client that comes back as an official one does.
    pub(crate) async fn resumed(&mut self, session_id: &SessionId) -> Channel {
        let token = self
            .resume(session_id)
            .await
            .expect("the session can be resumed");
        let open = client_open(&token, "client-1");
        self.data_channel(session_id, &open.to_text(), false).await
    }
}

/// A session between official peers.
pub(crate) struct Shell {
    pub(crate) id: SessionId,
    pub(crate) started: StartSessionOutput,
    pub(crate) control: Channel,
    pub(crate) client: Channel,
    pub(crate) worker: Channel,
}

async fn server_side(stream: DuplexStream) -> sortie_gateway::Socket {
    let io: Box<dyn Io> = Box::new(stream);
    Gateway::websocket(io).await
}

fn node_row(node_id: &NodeId, number: u8) -> Node {
    Node {
        id: node_id.clone(),
        state: NodeState::Active,
        activation_id: ActivationId::new(Uuid::from_u128(1)),
        iam_role: "SortieNode".into(),
        name: None,
        registered: now(),
        source_ip: None,
        fingerprint: "fingerprint".into(),
        public_key: vec![number],
        previous_public_key: None,
        info: NodeInfo::default(),
        last_ping: now(),
        connected: false,
        tags: Vec::new(),
    }
}

fn call(caller: Caller, event_name: &'static str, source_ip: &str) -> Call {
    Call {
        request_id: Uuid::new_v4(),
        caller,
        source_ip: source_ip.into(),
        user_agent: None,
        referer: None,
        secure_transport: true,
        event_source: "ssm.amazonaws.com",
        event_name,
        read_only: false,
        request_parameters: json!({}),
        now: now(),
    }
}

pub(crate) fn client_open(token: &Secret, client_id: &str) -> OpenClient {
    OpenClient {
        message_schema_version: "1.0".into(),
        request_id: Uuid::new_v4().to_string(),
        token: token.clone(),
        client_id: client_id.into(),
        client_version: Some("1.2.0.0".into()),
        sortie: None,
    }
}

pub(crate) fn node_open(token: &Secret, node_id: &NodeId) -> OpenNode {
    OpenNode {
        message_schema_version: "1.0".into(),
        request_id: Uuid::new_v4().to_string(),
        token: token.clone(),
        client_instance_id: node_id.to_string(),
        client_id: String::new(),
        sortie: None,
    }
}

/// A numbered frame.
pub(crate) fn stream(message_type: MessageType, number: i64, payload: &[u8]) -> Bytes {
    let new = NewFrame {
        message_type,
        sequence_number: number,
        flags: 0,
        message_id: Uuid::new_v4(),
        payload_type: PayloadType::OUTPUT,
        payload,
        created: now(),
        digest: true,
    };
    new.encode().unwrap()
}

pub(crate) fn output(number: i64, payload: &[u8]) -> Bytes {
    stream(MessageType::OutputStreamData, number, payload)
}

pub(crate) fn input(number: i64, payload: &[u8]) -> Bytes {
    stream(MessageType::InputStreamData, number, payload)
}

pub(crate) fn ack(frame: &Frame) -> Bytes {
    service::acknowledge_of(stamp(), frame)
}

/// The peer's end of a channel.
pub(crate) struct Channel {
    socket: WebSocketStream<DuplexStream>,
}

impl Channel {
    async fn open(stream: DuplexStream, text: &str) -> Self {
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        let mut channel = Self { socket };
        // The official client's pinger starts before its open message.
        channel
            .send_message(Message::Ping(Bytes::from_static(b"keepalive")))
            .await;
        // Who is sent too much hangs up in the middle of it.
        let _ = within(
            "an open message to be taken",
            channel.socket.send(Message::Text(text.into())),
        )
        .await;
        channel
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        within("a message to be taken", self.socket.send(message))
            .await
            .unwrap();
    }

    pub(crate) async fn send(&mut self, bytes: Bytes) {
        self.send_message(Message::Binary(bytes)).await;
    }

    /// Whether a message is taken at all.
    pub(crate) async fn try_send(&mut self, bytes: Bytes) -> bool {
        let sent = timeout(PATIENCE, self.socket.send(Message::Binary(bytes))).await;
        matches!(sent, Ok(Ok(())))
    }

    /// The next message that is not a ping or pong; `None` when the channel is closed. No text frame
    /// may ever come.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            match within("a message or the end", self.socket.next()).await {
                Some(Ok(Message::Binary(bytes))) => return Some(Frame::parse(bytes).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(other)) => panic!("unexpected message {other:?}"),
            }
        }
    }

    pub(crate) async fn expect(&mut self, message_type: MessageType) -> Frame {
        let frame = self
            .next()
            .await
            .unwrap_or_else(|| panic!("closed, not {message_type}"));
        assert_eq!(frame.message_type(), &message_type);
        frame
    }

    /// The next frame of this type; others are passed over.
    pub(crate) async fn until(&mut self, message_type: MessageType) -> Frame {
        loop {
            let frame = self.next().await;
            let frame = frame.unwrap_or_else(|| panic!("closed before {message_type}"));
            if frame.message_type() == &message_type {
                return frame;
            }
        }
    }

    /// The text of `channel_closed`, whatever came before it.
    pub(crate) async fn closed(&mut self) -> String {
        let frame = self.until(MessageType::ChannelClosed).await;
        ChannelClosed::parse(&frame.payload()).unwrap().output
    }

    pub(crate) async fn features(&mut self) -> Features {
        let frame = self.expect(MessageType::SortieFeatures).await;
        Features::parse(&frame.payload()).unwrap()
    }

    /// Waits until the other side has hung up.
    pub(crate) async fn until_hung_up(&mut self) {
        while self.next().await.is_some() {}
    }

    pub(crate) async fn until_pong(&mut self) {
        loop {
            match within("a pong", self.socket.next()).await {
                Some(Ok(Message::Pong(payload))) if &payload[..] == b"question" => return,
                Some(Ok(_)) => {}
                end => panic!("closed before the pong: {end:?}"),
            }
        }
    }

    /// Waits until everything that was sent has been read. The types of what came meanwhile.
    pub(crate) async fn until_answered(&mut self) -> Vec<MessageType> {
        self.send_message(Message::Ping(Bytes::from_static(b"read?")))
            .await;
        let mut came = Vec::new();
        loop {
            match within("a pong", self.socket.next()).await {
                Some(Ok(Message::Pong(payload))) if &payload[..] == b"read?" => return came,
                Some(Ok(Message::Binary(bytes))) => {
                    came.push(Frame::parse(bytes).unwrap().message_type().clone());
                }
                Some(Ok(_)) => {}
                end => panic!("closed before the pong: {end:?}"),
            }
        }
    }

    /// The start message of a session, on a control channel.
    pub(crate) async fn started(&mut self) -> StartContent {
        let frame = self.expect(MessageType::InteractiveShell).await;
        match ControlMessage::parse(&frame).unwrap() {
            ControlMessage::InteractiveShell(start) => *start,
            other => panic!("{other:?}"),
        }
    }

    /// The session that a `channel_closed` on a control channel ends.
    pub(crate) async fn ended(&mut self) -> String {
        let frame = self.until(MessageType::ChannelClosed).await;
        ChannelClosed::parse(&frame.payload()).unwrap().session_id
    }

    /// Reports a result and waits for its acknowledgement.
    pub(crate) async fn complete(&mut self, session_id: &SessionId, status: &str, output: &str) {
        let stamp = stamp();
        self.send(result(stamp, session_id, status, output)).await;
        self.acknowledged(stamp).await;
    }

    pub(crate) async fn acknowledged(&mut self, stamp: Stamp) {
        let frame = self.until(MessageType::AgentTaskAcknowledge).await;
        let ControlMessage::TaskAcknowledge(ack) = ControlMessage::parse(&frame).unwrap() else {
            panic!("not an acknowledgement");
        };
        assert_eq!(ack.message_id, stamp.message_id.to_string());
    }

    pub(crate) async fn say_state(&mut self, session_id: &SessionId, state: &str) {
        self.send(service::agent_session_state(
            stamp(),
            session_id.as_str(),
            state,
        ))
        .await;
    }
}

pub(crate) fn result(stamp: Stamp, session_id: &SessionId, status: &str, output: &str) -> Bytes {
    let body = AgentTaskComplete {
        schema_version: 1,
        task_id: session_id.to_string(),
        topic: "agent_task_complete".into(),
        final_task_status: status.into(),
        output: output.into(),
        retry_number: 1,
        ..AgentTaskComplete::default()
    };
    control::task_complete(stamp, &body)
}
