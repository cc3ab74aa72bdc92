//! The handle that the doors use, what all channels share, and the task that owns everything: it
//! listens to signals, looks at all rows now and then, and drains.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use sortie_channel::{
    body::{Body, OpenNode},
    service,
};
use sortie_control::{AcceptError, Call, Caller, Control, DataOpen};
use sortie_ports::{Session, SessionState, Signal, Signals};
use sortie_types::{NodeId, SessionId};
use tokio::{
    sync::{
        Semaphore,
        broadcast::{self, error::RecvError},
        mpsc,
    },
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    Io, Options, Socket,
    clock::{Clock, stamp, wall},
    kind::SessionKind,
    node::{self, NodeEntry},
    session::{Attach, Command, SessionTask},
    socket,
};

/// Events that may wait for one session.
const COMMANDS: usize = 64;
/// Nodes that are accepted at the same time.
const ACCEPTING: usize = 64;

/// Whose data channel it is, as far as HTTP tells.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The peer's address.
    pub source_ip: String,
    /// The `User-Agent` of the upgrade request.
    pub user_agent: Option<String>,
    /// Whether the connection is encrypted.
    pub secure_transport: bool,
    /// Who signed the upgrade request: official agents do, clients and our own workers do not.
    pub signed_by: Option<Caller>,
}

/// Handle on the live channels. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// Owns the gateway's tasks; nothing lives on when [`GatewayTask::run`] has returned.
pub struct GatewayTask {
    shared: Arc<Shared>,
    signals: broadcast::Receiver<Signal>,
}

/// What all channels share. Locks are held for look-ups only.
pub(crate) struct Shared {
    pub(crate) control: Control,
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    /// Nodes whose control channel is being accepted. One after the other, so that of a fleet that
    /// comes back not all wait until the last is accepted.
    pub(crate) accepting: Semaphore,
    /// Cancelled when sessions are to stop.
    stop_sessions: CancellationToken,
    /// Cancelled when a restart is waiting, and nobody should be waited for.
    hurry: CancellationToken,
    /// Cancelled when control channels are to close: after the sessions, which use them.
    pub(crate) stop_nodes: CancellationToken,
    pub(crate) nodes: Mutex<HashMap<NodeId, NodeEntry>>,
    sessions: Mutex<HashMap<SessionId, mpsc::Sender<Command>>>,
    /// Those of them whose clients choose destinations.
    choosing: Mutex<HashSet<SessionId>>,
}

impl Gateway {
    /// The gateway and the task that has to run for it to work.
    #[must_use]
    pub fn new(
        control: Control,
        signals: Arc<dyn Signals>,
        options: Options,
    ) -> (Self, GatewayTask) {
        let shared = Arc::new(Shared {
            control,
            options,
            clock: Clock::new(),
            tasks: TaskTracker::new(),
            accepting: Semaphore::new(ACCEPTING),
            stop_sessions: CancellationToken::new(),
            hurry: CancellationToken::new(),
            stop_nodes: CancellationToken::new(),
            nodes: Mutex::default(),
            sessions: Mutex::default(),
            choosing: Mutex::default(),
        });
        let task = GatewayTask {
            shared: Arc::clone(&shared),
            signals: signals.subscribe(),
        };
        (Self { shared }, task)
    }

    /// An upgraded connection as a websocket to be given to the gateway.
    pub async fn websocket(io: Box<dyn Io>) -> Socket {
        socket::websocket(io, socket::READ_BUFFER).await
    }

    /// The same for a control channel.
    pub async fn control_websocket(io: Box<dyn Io>) -> Socket {
        socket::websocket(io, socket::CONTROL_READ_BUFFER).await
    }

    /// Serves a node's control channel until it ends. `node_id` is the one in the URL; the call's
    /// caller is who signed the upgrade request.
    pub async fn control_channel(&self, call: Call, node_id: String, socket: Socket) {
        let serve = node::serve(Arc::clone(&self.shared), call, node_id, socket);
        self.shared.tasks.track_future(serve).await;
    }

    /// Takes a data channel: reads its open message, and gives the socket to its session or refuses
    /// the peer. Returns then; the session's own task serves the socket.
    pub async fn data_channel(&self, session_id: String, peer: Peer, socket: Socket) {
        let accept = accept(&self.shared, session_id, peer, socket);
        let unless_stopped = self.shared.stop_nodes.run_until_cancelled(accept);
        self.shared.tasks.track_future(unless_stopped).await;
    }
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, mpsc::Sender<Command>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn nodes(&self) -> MutexGuard<'_, HashMap<NodeId, NodeEntry>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to reach a session's task, which is started if there is none.
    pub(crate) fn session(self: &Arc<Self>, row: &Session) -> mpsc::Sender<Command> {
        let mut sessions = self.sessions();
        if let Some(sender) = sessions.get(&row.id).filter(|sender| !sender.is_closed()) {
            return sender.clone();
        }
        let (sender, commands) = mpsc::channel(COMMANDS);
        sessions.insert(row.id.clone(), sender.clone());
        if SessionKind::of(&row.document_content).chooses {
            self.choosing().insert(row.id.clone());
        }
        let task = SessionTask::new(Arc::clone(self), row.clone(), commands);
        let stop = self.stop_sessions.child_token();
        let (shared, session_id) = (Arc::clone(self), row.id.clone());
        self.tasks.spawn(async move {
            task.run(stop).await;
            shared.forget(&session_id);
        });
        sender
    }

    /// Forgets a session whose task is over, unless another has been started since.
    fn forget(&self, session_id: &SessionId) {
        let mut sessions = self.sessions();
        if sessions
            .get(session_id)
            .is_some_and(mpsc::Sender::is_closed)
        {
            sessions.remove(session_id);
            self.choosing().remove(session_id);
        }
    }

    fn choosing(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.choosing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hint: who may open which streams may have changed. It is found out at the next look where the
    /// mailbox is full.
    fn judge_streams(&self) {
        let choosing: Vec<SessionId> = self.choosing().iter().cloned().collect();
        let sessions = self.sessions();
        for sender in choosing.iter().filter_map(|id| sessions.get(id)) {
            let _ = sender.try_send(Command::JudgeStreams);
        }
    }

    /// Sends a frame through a node's control channel. Whether it is open and takes it.
    pub(crate) fn tell_node(&self, node_id: &NodeId, message: Bytes) -> bool {
        let sender = self.nodes().get(node_id).and_then(NodeEntry::sender);
        sender.is_some_and(|sender| sender.try_send(message).is_ok())
    }

    /// Tells a node that a session's result is kept, so that it can forget it.
    pub(crate) fn acknowledge_result(&self, node_id: &NodeId, message_id: Uuid, session_id: &str) {
        let message = sortie_channel::control::task_acknowledge(stamp(), message_id, session_id);
        self.tell_node(node_id, message);
    }

    /// Ends a session on a node through its control channel.
    pub(crate) fn end_on_node(&self, node_id: &NodeId, session_id: &str, output: &str) -> bool {
        let message =
            sortie_channel::control::channel_closed(stamp(), session_id, node_id.as_str(), output);
        self.tell_node(node_id, message)
    }

    /// Says a last word and hangs up, politely unless there is a hurry: official workers give up
    /// 3 s after a server went away.
    pub(crate) async fn farewell(&self, socket: Socket, last_word: Option<Bytes>) {
        let polite = socket::farewell(socket, last_word);
        // In a hurry the socket is just dropped, which official peers do all the time.
        let _ = self.hurry.run_until_cancelled(polite).await;
    }

    /// The same, beside the caller.
    pub(crate) fn part(self: &Arc<Self>, socket: Socket, last_word: Option<Bytes>) {
        let shared = Arc::clone(self);
        self.tasks
            .spawn(async move { shared.farewell(socket, last_word).await });
    }

    /// A hint: the row may have changed. A session whose mailbox is full hears of it at the next
    /// look at all rows.
    fn hint(&self, session_id: &SessionId) -> bool {
        let sender = self.sessions().get(session_id).cloned();
        sender
            .is_some_and(|sender| !sender.is_closed() && sender.try_send(Command::Changed).is_ok())
    }
}

/// Reads the open message of a data channel and finds its session.
async fn accept(shared: &Arc<Shared>, session_id: String, peer: Peer, mut socket: Socket) {
    let patience = shared.options.open_message_timeout;
    let opened = socket::open_message(&mut socket, socket::LARGEST_DATA_OPEN, patience).await;
    let text = match opened {
        Ok(text) => text,
        Err(failure) => {
            debug!(%session_id, %failure, "data channel given up");
            return shared.farewell(socket, None).await;
        }
    };
    // A node's message has all members that a client's has.
    let Ok(open) = OpenNode::parse(text.as_bytes()) else {
        debug!(%session_id, "open message of a data channel cannot be read");
        return shared.farewell(socket, None).await;
    };
    let node_id = open.client_instance_id.parse::<NodeId>().ok();
    let data_open = DataOpen {
        token: open.token,
        client_id: open.client_id,
        node_id: Some(open.client_instance_id).filter(|id| !id.is_empty()),
        source_ip: peer.source_ip,
        user_agent: peer.user_agent,
        secure_transport: peer.secure_transport,
        signed_by: peer.signed_by,
    };
    let accepted = shared
        .control
        .accept_data_channel(&session_id, data_open, wall())
        .await;
    let announced = open.sortie.map(|sortie| sortie.features);
    match accepted {
        Ok(grant) => {
            attach(
                shared,
                Attach {
                    socket,
                    grant,
                    announced,
                },
            )
            .await
        }
        Err(refusal) => refuse(shared, &session_id, node_id.as_ref(), &refusal, socket).await,
    }
}

async fn attach(shared: &Arc<Shared>, attach: Attach) {
    let row = attach.grant.session.clone();
    let mut command = Command::Attach(Box::new(attach));
    // The session's task may end at this very moment; a second one then finds the row over, or
    // takes the session up again.
    for _ in 0..2 {
        match shared.session(&row).send(command).await {
            Ok(()) => return,
            Err(mpsc::error::SendError(back)) => command = back,
        }
    }
    if let Command::Attach(attach) = command {
        shared.farewell(attach.socket, None).await;
    }
}

/// A client that is merely refused hangs for ever, so it is told why. A node is hung up on; when its
/// session is over, it is also told so where it listens.
async fn refuse(
    shared: &Shared,
    session_id: &str,
    node_id: Option<&NodeId>,
    refusal: &AcceptError,
    socket: Socket,
) {
    info!(session_id, ?node_id, %refusal, "data channel refused");
    let Some(node_id) = node_id else {
        let text = refusal.to_string();
        let last_word = service::channel_closed(stamp(), session_id, "", &text);
        return shared.farewell(socket, Some(last_word)).await;
    };
    // Only who holds a token of the session learns that it is over.
    if let AcceptError::Over { reason } = refusal {
        shared.end_on_node(node_id, session_id, reason);
    }
    shared.farewell(socket, None).await;
}

impl GatewayTask {
    /// Serves signals and rows until `stop`, then drains: sessions are ended or left to be taken up
    /// after a restart, as the options say, and every task has ended when this returns.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut sweep = interval(self.shared.options.sweep_interval);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = sweep.tick() => self.sweep().await,
                signal = self.signals.recv() => match signal {
                    Ok(Signal::Session(session_id)) => self.look_at_session(&session_id).await,
                    Ok(Signal::Node(node_id)) => {
                        self.shared.judge_streams();
                        self.look_at_node(&node_id).await;
                    }
                    // Which sessions may go on is control's matter, which tells by session.
                    Ok(Signal::Documents | Signal::Identities) => self.shared.judge_streams(),
                    Err(RecvError::Lagged(_)) => {
                        self.shared.judge_streams();
                        self.sweep().await;
                    }
                    Err(RecvError::Closed) => break,
                },
            }
        }
        self.drain().await;
    }

    async fn look_at_session(&self, session_id: &SessionId) {
        if self.shared.hint(session_id) {
            return;
        }
        match self.shared.control.session(session_id).await {
            Ok(Some(row)) if !row.state.is_over() => {
                self.shared.session(&row);
            }
            Ok(_) => {}
            Err(error) => warn!(%session_id, %error, "session row not read; the next look will"),
        }
    }

    async fn look_at_node(&self, node_id: &NodeId) {
        match self.shared.control.node_is_active(node_id).await {
            Ok(true) => {}
            Ok(false) => {
                if let Some(entry) = self.shared.nodes().get(node_id) {
                    entry.hang_up();
                }
            }
            Err(error) => warn!(%node_id, %error, "node row not read"),
        }
    }

    /// Every living session has a task, every task a living session, and what is Terminating ends.
    async fn sweep(&self) {
        let rows = match self.shared.control.live_sessions().await {
            Ok(rows) => rows,
            Err(error) => return warn!(%error, "sessions not read; the next look will"),
        };
        for row in &rows {
            let sender = self.shared.session(row);
            if row.state == SessionState::Terminating {
                let _ = sender.try_send(Command::Changed);
            }
        }
        let alive: HashSet<&SessionId> = rows.iter().map(|row| &row.id).collect();
        let tasks: Vec<SessionId> = self.shared.sessions().keys().cloned().collect();
        for session_id in tasks.iter().filter(|id| !alive.contains(id)) {
            self.shared.hint(session_id);
        }
        let nodes: Vec<NodeId> = self.shared.nodes().keys().cloned().collect();
        for node_id in &nodes {
            self.look_at_node(node_id).await;
        }
    }

    async fn drain(self) {
        let shared = self.shared;
        if !shared.options.end_sessions_on_stop {
            shared.hurry.cancel();
        }
        shared.stop_sessions.cancel();
        let sessions_over = async {
            let mut tick = interval(std::time::Duration::from_millis(10));
            while !shared.sessions().is_empty() {
                tick.tick().await;
            }
        };
        if timeout(shared.options.drain, sessions_over).await.is_err() {
            warn!("some sessions were still open when the gateway stopped");
        }
        shared.stop_nodes.cancel();
        shared.tasks.close();
        if timeout(shared.options.drain, shared.tasks.wait())
            .await
            .is_err()
        {
            warn!("some channels were still open when the gateway stopped");
        }
    }
}
