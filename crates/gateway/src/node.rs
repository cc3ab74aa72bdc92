//! A node's control channel: accepted, kept alive, replaced by a newer one, and lost. What is said
//! about sessions is passed on to their tasks.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sortie_channel::{
    body::{AgentTaskComplete, Body, OpenControl},
    control::ControlMessage,
    frame::Frame,
};
use sortie_control::{Authorized, Call, End};
use sortie_ports::NodeInfo;
use sortie_types::{NodeId, SessionId};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{Socket, clock::wall, clones::Replacements, gateway::Shared, session::Command, socket};

/// Frames that may wait for one node: messages of some KiB that start or end sessions.
const OUTBOX: usize = 256;
/// Characters of a result's output that are kept. Official nodes cut it at 2500.
const LONGEST_OUTPUT: usize = 2500;
/// A node that takes no byte for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A node's control channel, as the rest of the gateway sees it. The entry outlives the channel, for
/// the sake of counting its replacements.
#[derive(Default)]
pub(crate) struct NodeEntry {
    open: Option<OpenChannel>,
    replacements: Replacements,
    serial: u64,
}

struct OpenChannel {
    sender: mpsc::Sender<Bytes>,
    close: CancellationToken,
    announced: Option<Vec<String>>,
}

impl NodeEntry {
    /// Where frames go, while the channel is open.
    pub(crate) fn sender(&self) -> Option<mpsc::Sender<Bytes>> {
        self.open.as_ref().map(|open| open.sender.clone())
    }

    /// Whether the channel is open, and then whether the node is one of ours.
    pub(crate) fn is_ours(&self) -> Option<bool> {
        self.open.as_ref().map(|open| open.announced.is_some())
    }

    /// Closes the channel.
    pub(crate) fn hang_up(&self) {
        if let Some(open) = &self.open {
            open.close.cancel();
        }
    }
}

/// One control channel that was accepted.
struct Channel {
    shared: Arc<Shared>,
    node: Authorized<NodeId>,
    serial: u64,
    outgoing: mpsc::Receiver<Bytes>,
    close: CancellationToken,
    ours: bool,
    /// Messages that could not be read.
    unreadable: u64,
}

/// Serves a control channel until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, call: Call, node_id: String, socket: Socket) {
    // Boxed: nodes idle nearly all of the time, and what opening takes is many times what that takes.
    let opening = Box::pin(open(shared, call, node_id, socket));
    let Some((mut channel, mut socket)) = opening.await else {
        return;
    };
    let why = channel.relay(&mut socket).await;
    debug!(node_id = %channel.node_id(), why, "control channel ended");
    // At once: the node has a grace to come back, and must not believe that this one is open.
    channel.shared.part(socket, None);
    channel.unregister(why).await;
}

/// Takes the open message, and makes this the node's channel if it may be.
async fn open(
    shared: Arc<Shared>,
    call: Call,
    node_id: String,
    mut socket: Socket,
) -> Option<(Channel, Socket)> {
    let patience = shared.options.open_message_timeout;
    let opening = socket::open_message(&mut socket, socket::LARGEST_CONTROL_OPEN, patience);
    let open = match shared.stop_nodes.run_until_cancelled(opening).await? {
        Ok(text) => OpenControl::parse(text.as_bytes()).map_err(|error| error.to_string()),
        Err(failure) => Err(failure.to_string()),
    };
    let open = match open {
        Ok(open) => open,
        Err(failure) => {
            debug!(%node_id, %failure, "control channel given up");
            shared.farewell(socket, None).await;
            return None;
        }
    };
    let of_all = Arc::clone(&shared);
    // Never closed.
    let turn = of_all.accepting.acquire().await.ok();
    let accepted = shared
        .control
        .accept_control_channel(&call, &node_id, &open.token)
        .await;
    let node = match accepted {
        Ok(node) => node,
        Err(refusal) => {
            info!(%node_id, source_ip = %call.source_ip, %refusal, "control channel refused");
            drop(turn);
            shared.farewell(socket, None).await;
            return None;
        }
    };
    let (channel, cloned) = Channel::register(shared, node, &call, &open);
    if let Some(addresses) = cloned {
        channel
            .shared
            .control
            .node_cloned(&channel.node, &addresses, wall())
            .await;
    }
    channel.announce(&call, &open).await;
    drop(turn);
    channel.greet(open.sessions.as_deref()).await;
    Some((channel, socket))
}

impl Channel {
    /// Makes this the node's channel; an older one is closed. The addresses involved when it looks
    /// like clones.
    fn register(
        shared: Arc<Shared>,
        node: Authorized<NodeId>,
        call: &Call,
        open: &OpenControl,
    ) -> (Self, Option<Vec<String>>) {
        let (sender, outgoing) = mpsc::channel(OUTBOX);
        let close = shared.stop_nodes.child_token();
        let announced = open.sortie.as_ref().map(|sortie| sortie.features.clone());
        let ours = announced.is_some();
        let now = shared.clock.now().monotonic;
        let mut nodes = shared.nodes();
        let entry = nodes.entry(node.resource().clone()).or_default();
        entry.serial += 1;
        let serial = entry.serial;
        let replaced = entry.open.replace(OpenChannel {
            sender,
            close: close.clone(),
            announced,
        });
        let cloned = replaced.and_then(|older| {
            older.close.cancel();
            entry.replacements.record(&call.source_ip, now)
        });
        drop(nodes);
        (
            Self {
                shared,
                node,
                serial,
                outgoing,
                close,
                ours,
                unreadable: 0,
            },
            cloned,
        )
    }

    fn node_id(&self) -> &NodeId {
        self.node.resource()
    }

    async fn announce(&self, call: &Call, open: &OpenControl) {
        let info = NodeInfo {
            agent_version: version(&open.agent_version),
            platform_type: platform(&open.platform_type),
            ..NodeInfo::default()
        };
        let online =
            self.shared
                .control
                .node_online(&self.node, info, call.source_ip.clone(), wall());
        if let Err(error) = online.await {
            warn!(node_id = %self.node_id(), %error, "node not marked as online");
        }
    }

    /// Everyone who waits for this node hears that it is there, and what it should not run ends.
    async fn greet(&self, listed: Option<&[String]>) {
        let node_id = self.node_id();
        let rows = match self.shared.control.live_sessions_of(&self.node).await {
            Ok(rows) => rows,
            Err(error) => {
                // Nothing is ended on a guess; the next look at all rows finds what should end.
                return warn!(%node_id, %error, "sessions of the node not read");
            }
        };
        let alive: HashSet<&SessionId> = rows.iter().map(|row| &row.id).collect();
        let named: Vec<SessionId> = listed
            .into_iter()
            .flatten()
            .filter_map(|id| id.parse().ok())
            .collect();
        let mut ended = 0_usize;
        for orphan in named.iter().filter(|id| !alive.contains(id)) {
            let told = self
                .shared
                .end_on_node(node_id, orphan.as_str(), "The session is over.");
            if !told {
                // It takes no more now; what it still runs then it lists the next time.
                break;
            }
            debug!(%node_id, session_id = %orphan, "session is over but runs on the node: ended there");
            ended += 1;
        }
        if ended > 0 {
            info!(%node_id, ended, "sessions that are over ran on the node: ended there");
        }
        for row in &rows {
            let named = listed.map(|_| named.contains(&row.id));
            let online = Command::NodeOnline {
                ours: self.ours,
                listed: named,
            };
            // A session that ends at this moment need not know.
            let _ = self.shared.session(row).send(online).await;
        }
    }

    /// Moves frames both ways until the channel ends. Why it did.
    async fn relay(&mut self, socket: &mut Socket) -> &'static str {
        let mut heard = Instant::now();
        let mut ping = interval(self.shared.options.ping_interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        loop {
            tokio::select! {
                () = self.close.cancelled() => return "closed by the server",
                message = socket.next() => match message {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return "closed by the node",
                    Some(Ok(message)) => {
                        heard = Instant::now();
                        self.shared.control.heard(self.node_id(), wall());
                        Box::pin(self.message(message)).await;
                    }
                },
                Some(bytes) = self.outgoing.recv() => {
                    let first = Message::Binary(bytes);
                    if !Box::pin(write(socket, first, &mut self.outgoing)).await {
                        return "takes no more bytes";
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() >= self.shared.options.control_silence {
                        return "silent for too long";
                    }
                    let question = Message::Ping(Bytes::from_static(b"keepalive"));
                    if !Box::pin(write(socket, question, &mut self.outgoing)).await {
                        return "takes no more bytes";
                    }
                }
            }
        }
    }

    async fn message(&mut self, message: Message) {
        let Message::Binary(bytes) = message else {
            return;
        };
        let node_id = self.node_id();
        let parsed = Frame::parse(bytes)
            .map_err(|error| error.to_string())
            .and_then(|frame| ControlMessage::parse(&frame).map_err(|error| error.to_string()));
        match parsed {
            Ok(ControlMessage::TaskComplete { message_id, result }) => {
                self.complete(message_id, &result).await;
            }
            Ok(ControlMessage::Sessions(running)) => self.greet(Some(&running.sessions)).await,
            Ok(other) => debug!(%node_id, kind = kind(&other), "control message ignored"),
            Err(error) => {
                self.unreadable += 1;
                // Ever more rarely: a node must not fill the disk of the server with its nonsense.
                if self.unreadable.is_power_of_two() {
                    let count = self.unreadable;
                    warn!(node_id = %self.node_id(), count, %error, "control messages cannot be read");
                }
            }
        }
    }

    /// A session's result. It comes up to three times under one id, and a failed session has two of
    /// them; each is acknowledged, and the first one counts. It is acknowledged when the row has ended:
    /// until then only the node has it, and a server that dies hears it again after its restart.
    async fn complete(&self, message_id: Uuid, result: &AgentTaskComplete) {
        let node_id = self.node_id();
        debug!(%node_id, session_id = %result.task_id, status = %result.final_task_status, "result");
        let session_id = result.task_id.parse::<SessionId>().ok();
        let row = match &session_id {
            Some(session_id) => self.shared.control.session(session_id).await,
            None => Ok(None),
        };
        match row {
            Ok(Some(row)) if &row.target == node_id && !row.state.is_over() => {
                if !self.end(&row, message_id, result).await {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                // Unacknowledged, the node says it again.
                return warn!(%node_id, %error, "result of a session not taken");
            }
        }
        self.shared
            .acknowledge_result(node_id, message_id, &result.task_id);
    }

    /// Passes a result on to its session's task, which acknowledges it; or writes it, when there is no
    /// task any more. Whether it was written.
    async fn end(
        &self,
        row: &sortie_ports::Session,
        message_id: Uuid,
        result: &AgentTaskComplete,
    ) -> bool {
        let failed = !matches!(result.final_task_status.as_str(), "Success" | "Cancelled");
        let output = told(&result.output);
        let completed = Command::Completed {
            message_id,
            failed,
            output: output.clone(),
        };
        if self.shared.session(row).send(completed).await.is_ok() {
            return false;
        }
        let end = End {
            failed,
            reason: output.trim().to_owned(),
        };
        let control = &self.shared.control;
        control.session_ended(&row.id, end, wall()).await
    }

    /// Gives the place up, unless a newer channel has it. The node is lost when none comes soon.
    async fn unregister(&self, why: &str) {
        let mine = {
            let mut nodes = self.shared.nodes();
            let entry = nodes
                .get_mut(self.node_id())
                .filter(|entry| entry.serial == self.serial);
            entry.map(|entry| entry.open = None).is_some()
        };
        if !mine || self.shared.stop_nodes.is_cancelled() {
            return;
        }
        tokio::select! {
            () = self.shared.stop_nodes.cancelled() => return,
            () = sleep(self.shared.options.node_grace) => {}
        }
        if self.is_back() {
            return;
        }
        info!(node_id = %self.node_id(), why, "node lost");
        self.shared.control.node_lost(&self.node, wall(), why).await;
        if self.is_back() {
            // It came back while the row was being written, and the later write must win.
            let online = self.shared.control.node_online(
                &self.node,
                NodeInfo::default(),
                String::new(),
                wall(),
            );
            if let Err(error) = online.await {
                warn!(node_id = %self.node_id(), %error, "node not marked as online");
            }
        }
    }

    fn is_back(&self) -> bool {
        let nodes = self.shared.nodes();
        nodes
            .get(self.node_id())
            .is_some_and(|entry| entry.serial != self.serial)
    }
}

/// Writes a message and whatever else waits, then flushes once.
async fn write(socket: &mut Socket, first: Message, more: &mut mpsc::Receiver<Bytes>) -> bool {
    let write = async {
        socket.feed(first).await?;
        while let Ok(bytes) = more.try_recv() {
            socket.feed(Message::Binary(bytes)).await?;
        }
        socket.flush().await
    };
    matches!(timeout(WRITE_TIMEOUT, write).await, Ok(Ok(())))
}

/// What a node says about an end, as it may be kept and shown to whoever asks later: not longer than
/// official nodes write, and without what moves a terminal.
fn told(output: &str) -> String {
    output
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .take(LONGEST_OUTPUT)
        .collect()
}

/// A version as the service shows it: numbers with dots between.
fn version(text: &str) -> Option<String> {
    let is_one = (1..=27).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_one.then(|| text.to_owned())
}

/// The platform as `UpdateInstanceInformation` names it.
fn platform(lower_case: &str) -> Option<String> {
    let name = match lower_case.to_ascii_lowercase().as_str() {
        "linux" => "Linux",
        "windows" => "Windows",
        "macos" | "darwin" => "MacOS",
        _ => return None,
    };
    Some(name.to_owned())
}

fn kind(message: &ControlMessage) -> &str {
    match message {
        ControlMessage::Other(message_type) => message_type.as_str(),
        ControlMessage::ChannelClosed(_) => "channel_closed",
        ControlMessage::InteractiveShell(_) => "interactive_shell",
        ControlMessage::Sessions(_) => "sortie_sessions",
        ControlMessage::TaskAcknowledge(_) => "agent_task_acknowledge",
        ControlMessage::TaskComplete { .. } => "agent_task_complete",
    }
}
