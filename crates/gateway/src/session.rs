//! The task of one session. It owns both data channels and moves frames between them without a hop
//! to another task; what to do is decided by [`Pairing`], [`Life`] and [`IdleClock`].
//!
//! Rows are read and written by one future at a time that runs beside the relay, so that a slow disk
//! never delays a keystroke.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use serde_json::{Map, Value};
use sortie_channel::{
    body::{Features, SortieStart, StartContent},
    control, features,
    frame::Frame,
    service,
};
use sortie_control::{DataGrant, End, Side};
use sortie_ports::{Session, SessionState};
use sortie_types::Now;
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::{Message, error::Error as WebSocketError};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    Socket,
    clock::stamp,
    gateway::Shared,
    idle::{IdleClock, RunOut},
    kind::SessionKind,
    life::{Cause, ClientHalf, Life, NodeHalf, View},
    node::NodeEntry,
    pairing::{Limits, Pairing, earliest},
};

/// Results that wait for their acknowledgement: a failed session has two. More than a node has reason
/// to send are not remembered; it says them again.
const RESULTS: usize = 8;

/// Messages read from one end before the other has its turn.
const BATCH: usize = 64;

/// A data channel that was accepted.
pub(crate) struct Attach {
    pub(crate) socket: Socket,
    pub(crate) grant: DataGrant,
    /// Its features, when the end is one of ours.
    pub(crate) announced: Option<Vec<String>>,
}

/// What a session's task is told.
pub(crate) enum Command {
    /// An end has opened a data channel.
    Attach(Box<Attach>),
    /// The row may have changed.
    Changed,
    /// The node reported a result, in this message.
    Completed {
        message_id: Uuid,
        failed: bool,
        output: String,
    },
    /// The node's control channel opened, or it listed its sessions.
    NodeOnline { ours: bool, listed: Option<bool> },
}

/// One end's websocket.
struct Line {
    socket: Socket,
    grant: DataGrant,
    unflushed: bool,
    heard: Duration,
    pinged: Duration,
}

/// What a read or write of the row came to.
enum Noted {
    /// Whether the end is on stable storage.
    Ended(bool),
    Read(Option<Box<Session>>),
    State(SessionState),
}

type Note = Pin<Box<dyn Future<Output = Noted> + Send>>;

/// Everything about one live session.
pub(crate) struct SessionTask {
    shared: Arc<Shared>,
    row: Session,
    now: Now,
    pairing: Pairing,
    life: Life,
    idle: IdleClock,
    client: Option<Line>,
    node: Option<Line>,
    commands: mpsc::Receiver<Command>,
    /// When the task ends whatever is left to do, once the gateway stops.
    stop_by: Option<Duration>,
    /// Both ends have been there at one time.
    met: bool,
    client_done: bool,
    note: Option<Note>,
    must_read: bool,
    written: SessionState,
    ending_noted: bool,
    /// The node's messages to acknowledge once the end is written.
    results: Vec<Uuid>,
    is_written: bool,
    over: bool,
    timer: Pin<Box<Sleep>>,
    armed: Option<Duration>,
}

impl SessionTask {
    /// Takes up a session as its row stands.
    pub(crate) fn new(
        shared: Arc<Shared>,
        row: Session,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let now = shared.clock.now();
        let options = &shared.options;
        let limits = Limits {
            pause_delay: options.pause_delay,
            pause_above: options.pause_above,
            resume_below: options.resume_below,
            input: options.input_limit,
            output: options.output_limit,
        };
        let kind = SessionKind::of(&row.document_content);
        let restored = row.state != SessionState::Connecting;
        Self {
            pairing: Pairing::new(kind, limits, restored, now.monotonic),
            life: Life::new(&row, options, now),
            idle: IdleClock::new(&row, now),
            met: restored,
            written: row.state,
            timer: Box::pin(sleep_until(shared.clock.instant(now.monotonic))),
            now,
            client: None,
            node: None,
            commands,
            stop_by: None,
            client_done: false,
            note: None,
            must_read: false,
            ending_noted: false,
            results: Vec::new(),
            is_written: false,
            over: false,
            armed: None,
            shared,
            row,
        }
    }

    /// Serves the session until it is over, or until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        if self.row.state == SessionState::Terminating {
            self.begin(Cause::of_row(&self.row));
        }
        let mut stopped = Box::pin(stop.cancelled_owned());
        while !self.over {
            self.advance();
            if self.stop_by.is_some_and(|by| self.now.monotonic >= by) {
                break;
            }
            std::future::poll_fn(|cx| self.poll(cx, &mut stopped)).await;
        }
        self.leave().await;
    }

    /// Frees the sockets and turns away who comes too late.
    async fn leave(&mut self) {
        self.commands.close();
        if let Some(note) = self.note.take() {
            let noted = note.await;
            self.noted(noted);
        }
        if let Some(end) = self
            .life
            .end()
            .filter(|_| !self.over && self.ends_on_stop())
        {
            let control = &self.shared.control;
            self.is_written = control
                .session_ended(&self.row.id, end, self.now.wall)
                .await;
            self.acknowledge_results();
        }
        for line in [self.client.take(), self.node.take()].into_iter().flatten() {
            self.shared.part(line.socket, None);
        }
        while let Some(command) = self.commands.recv().await {
            if let Command::Completed { message_id, .. } = command {
                // What comes too late is kept nowhere but with the node, unless the row is over.
                self.remember(message_id);
                self.acknowledge_results();
            } else if let Command::Attach(attach) = command {
                let last_word = match attach.grant.side {
                    Side::Client if self.over => self.life.cause().map(|cause| {
                        let text = cause.text();
                        service::channel_closed(stamp(), self.row.id.as_str(), "", &text)
                    }),
                    _ => None,
                };
                self.shared.part(attach.socket, last_word);
            }
        }
        let dropped = [Side::Client, Side::Node].map(|side| self.pairing.dropped_so_far(side));
        debug!(session_id = %self.row.id, ?dropped, "session's task ended");
    }

    fn ends_on_stop(&self) -> bool {
        self.stop_by.is_some() && self.shared.options.end_sessions_on_stop
    }

    // Decisions: what time and events have made due.

    fn advance(&mut self) {
        self.now = self.shared.clock.now();
        self.run_out();
        if self.life.is_ending() {
            self.end();
        }
        self.pairing.settle(self.now.monotonic, &mut stamp);
        self.ping(Side::Client);
        self.ping(Side::Node);
        self.ask_client();
        self.take_note();
        self.arm();
    }

    /// Whether time or a bound has run out.
    fn run_out(&mut self) {
        if self.life.is_ending() {
            return;
        }
        let now = self.now.monotonic;
        let due = earliest([self.life.deadline(), Some(self.idle.deadline())]);
        if due.is_none_or(|due| now < due) && !self.pairing.overflows() {
            return;
        }
        let expired = self.life.expired(self.view(), now);
        let ran_out = expired.or_else(|| match self.idle.run_out(now)? {
            RunOut::Idle => Some(Cause::Idle {
                limit: self.idle.limit(),
            }),
            RunOut::Maximum => Some(Cause::Maximum {
                limit: self.idle.maximum().unwrap_or_default(),
            }),
        });
        let cause = ran_out.or_else(|| self.pairing.overflows().then_some(Cause::Overflow));
        if let Some(cause) = cause {
            self.begin(cause);
        }
    }

    fn begin(&mut self, cause: Cause) {
        let reason = cause.reason();
        if self.life.begin(cause, self.now.monotonic) {
            info!(session_id = %self.row.id, reason, "session ends");
        }
    }

    fn view(&self) -> View {
        let client_unflushed = self.client.as_ref().is_some_and(|line| line.unflushed);
        View {
            client_attached: self.client.is_some(),
            client_ours: self.pairing.is_ours(Side::Client),
            client_unfinished: self.pairing.unfinished(Side::Client),
            client_flushed: self.pairing.waiting(Side::Client) == 0 && !client_unflushed,
            node_attached: self.node.is_some(),
            node_online: self.node_is_ours().is_some(),
            idle_limit: self.idle.limit(),
        }
    }

    fn node_is_ours(&self) -> Option<bool> {
        self.shared
            .nodes()
            .get(&self.row.target)
            .and_then(NodeEntry::is_ours)
    }

    /// Moves the ending on.
    fn end(&mut self) {
        let now = self.now.monotonic;
        let text = self.life.cause().map(Cause::text).unwrap_or_default();
        if !self.client_done {
            match self.life.client_half(self.view(), now) {
                ClientHalf::Tell => {
                    let message = self.closed(&text);
                    self.pairing.tell(Side::Client, message);
                    self.life.client_told(now);
                }
                ClientHalf::Wait(_) => {}
                ClientHalf::Done => {
                    self.client_done = true;
                    self.hang_up(Side::Client);
                }
            }
        }
        if self.life.node_due(self.view()) {
            self.shared
                .end_on_node(&self.row.target, self.row.id.as_str(), &text);
            let message = self.closed(&text);
            self.pairing.tell(Side::Node, message);
            self.life.node_told(now);
        }
    }

    fn closed(&self, text: &str) -> Bytes {
        service::channel_closed(
            stamp(),
            self.row.id.as_str(),
            self.row.target.as_str(),
            text,
        )
    }

    /// Lets go of an end that was told everything.
    fn hang_up(&mut self, side: Side) {
        if let Some(line) = self.line(side).take() {
            self.pairing.detach(side, self.now.monotonic);
            self.shared.part(line.socket, None);
        }
    }

    /// Tells an announcing end what both can do, with the token for its next websocket.
    fn tell_features(&mut self, side: Side) {
        let Some(common) = self.pairing.features_due(side) else {
            return;
        };
        let ticket = self
            .line(side)
            .as_ref()
            .map(|line| line.grant.clone())
            .and_then(|grant| {
                let ticket = self.shared.control.ticket(&grant, self.now.wall);
                ticket
                    .inspect_err(|error| warn!(%error, "no ticket for an end"))
                    .ok()
            });
        let body = Features {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: common.clone(),
            ticket,
        };
        self.pairing
            .tell_features(side, common, service::sortie_features(stamp(), &body));
    }

    /// Pings a silent end, and gives up one that stays silent.
    fn ping(&mut self, side: Side) {
        let options = &self.shared.options;
        let (interval, limit) = (options.ping_interval, options.data_silence);
        let now = self.now.monotonic;
        let Some(line) = self.line(side) else {
            return;
        };
        if now.saturating_sub(line.heard) >= limit {
            debug!(session_id = %self.row.id, ?side, "data channel silent for too long");
            return self.lost(side);
        }
        if now.saturating_sub(line.heard.max(line.pinged)) < interval {
            return;
        }
        line.pinged = now;
        let question = Message::Ping(Bytes::from_static(b"keepalive"));
        // Where the socket takes nothing now, there are bytes under way that show whether it lives.
        match Pin::new(&mut line.socket).start_send(question) {
            Ok(()) => line.unflushed = true,
            Err(_) => self.lost(side),
        }
    }

    /// Pings an official client behind what it may have dropped in silence.
    fn ask_client(&mut self) {
        let Some(line) = &mut self.client else {
            return;
        };
        let Some(question) = self.pairing.question(self.now.monotonic) else {
            return;
        };
        let question = Bytes::copy_from_slice(&question.to_be_bytes());
        match Pin::new(&mut line.socket).start_send(Message::Ping(question)) {
            Ok(()) => line.unflushed = true,
            Err(_) => self.lost(Side::Client),
        }
    }

    /// The client has read whatever was written before the ping that it answers.
    fn client_answered(&mut self, answer: &[u8]) {
        if let Ok(question) = answer.try_into().map(u64::from_be_bytes) {
            self.pairing
                .answered(question, self.now.monotonic, &mut stamp);
        }
    }

    /// Starts the next read or write of the row.
    fn take_note(&mut self) {
        if self.note.is_some() {
            return;
        }
        let control = self.shared.control.clone();
        let (session_id, wall) = (self.row.id.clone(), self.now.wall);
        if std::mem::take(&mut self.must_read) {
            self.note = Some(Box::pin(async move {
                match control.session(&session_id).await {
                    Ok(row) => Noted::Read(row.map(Box::new)),
                    Err(error) => {
                        warn!(%session_id, %error, "session row not read");
                        Noted::Read(None)
                    }
                }
            }));
        } else if let Some(end) = self.due_end() {
            self.ending_noted = true;
            self.note = Some(Box::pin(async move {
                Noted::Ended(control.session_ended(&session_id, end, wall).await)
            }));
        } else if let Some(state) = self.due_state() {
            self.note = Some(Box::pin(async move {
                control.session_state(&session_id, state, wall).await;
                Noted::State(state)
            }));
        }
    }

    fn due_end(&self) -> Option<End> {
        if !self.client_done || self.ending_noted {
            return None;
        }
        let node_done = self.life.node_half(self.view(), self.now.monotonic) == NodeHalf::Done;
        self.life.end().filter(|_| node_done)
    }

    fn due_state(&self) -> Option<SessionState> {
        let state = if self.life.is_ending() {
            let view = self.view();
            let client = if self.client_done {
                ClientHalf::Done
            } else {
                self.life.client_half(view, self.now.monotonic)
            };
            if !self
                .life
                .shows_terminating(client, view, self.now.monotonic)
            {
                return None;
            }
            SessionState::Terminating
        } else if self.client.is_some() && self.node.is_some() {
            SessionState::Connected
        } else if self.met {
            SessionState::Disconnected
        } else {
            return None;
        };
        (self.written != state && self.written != SessionState::Terminating).then_some(state)
    }

    /// Sets the timer to what is due next.
    fn arm(&mut self) {
        let now = self.now.monotonic;
        let options = &self.shared.options;
        let silence = |line: &Option<Line>| {
            let line = line.as_ref()?;
            Some(
                (line.heard.max(line.pinged) + options.ping_interval)
                    .min(line.heard + options.data_silence),
            )
        };
        let ending = if self.life.is_ending() {
            self.life.ending_deadline(self.view(), now)
        } else {
            earliest([self.life.deadline(), Some(self.idle.deadline())])
        };
        let next = earliest([
            ending,
            self.pairing.deadline(now),
            silence(&self.client),
            silence(&self.node),
            self.stop_by,
        ]);
        // A timer that fires too early costs less than setting it at every keystroke.
        let sooner = |next: &Duration| self.armed.is_none_or(|armed| *next < armed);
        if let Some(next) = next.filter(sooner) {
            self.armed = Some(next);
            self.timer.as_mut().reset(self.shared.clock.instant(next));
        }
    }

    // Events.

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach(attach) => self.attach(*attach),
            Command::Changed => self.must_read = true,
            Command::Completed {
                message_id,
                failed,
                output,
            } => {
                self.remember(message_id);
                self.begin(Cause::Completed { failed, output });
            }
            Command::NodeOnline { ours, listed } => {
                let view = self.view();
                self.life
                    .node_online(ours, listed, view, self.now.monotonic);
                if self.life.is_starting() {
                    self.start_node();
                }
            }
        }
    }

    /// The gateway stops: the session ends with it, or is left to be taken up after a restart.
    fn stop(&mut self) {
        let options = &self.shared.options;
        let patience = match (options.end_sessions_on_stop, self.life.is_ending()) {
            (true, false) => options.drain.mul_f32(0.8),
            // Nothing new has to be said, and a node that is away is not waited for.
            (true, true) => options.drain.mul_f32(0.1),
            (false, _) => Duration::ZERO,
        };
        self.stop_by = Some(self.now.monotonic + patience);
        if patience > Duration::ZERO {
            self.begin(Cause::Stopping);
        }
    }

    fn attach(&mut self, attach: Attach) {
        let side = attach.grant.side;
        let now = self.now.monotonic;
        debug!(session_id = %self.row.id, ?side, ours = attach.announced.is_some(), "data channel");
        let ours = attach.announced.is_some();
        let line = Line {
            socket: attach.socket,
            grant: attach.grant,
            unflushed: false,
            heard: now,
            pinged: now,
        };
        let client_id = line.grant.client_id.clone();
        if let Some(older) = self.line(side).replace(line) {
            self.supersede(side, older, &client_id);
        }
        self.pairing.attach(side, attach.announced);
        // Before anything else can be written: ends of ours wait for it.
        self.tell_features(Side::Client);
        self.tell_features(Side::Node);
        self.met |= self.client.is_some() && self.node.is_some();
        match side {
            Side::Client => {
                self.client_done = false;
                self.touch();
                if self.life.client_opened(now) {
                    self.start_node();
                }
            }
            Side::Node => self.life.node_opened(ours),
        }
    }

    /// The newest socket of a side is the live one. An older one of the same process is dead; another
    /// process is told, or it would reconnect for ever.
    fn supersede(&self, side: Side, older: Line, client_id: &str) {
        let other_process = side == Side::Client && older.grant.client_id != client_id;
        let last_word = other_process.then(|| self.closed("The session was taken over elsewhere."));
        self.shared.part(older.socket, last_word);
    }

    /// Tells the node to start the session, when its control channel is open.
    fn start_node(&mut self) {
        let Some(ours) = self.node_is_ours() else {
            return;
        };
        let sortie = if ours { self.worker_start() } else { None };
        let start = StartContent {
            document_name: self.row.document_name.clone(),
            document_content: self.row.document_content.clone(),
            session_id: self.row.id.as_str().to_owned(),
            parameters: plain_parameters(&self.row.parameters),
            run_as_user: String::new(),
            session_owner: self.row.owner.to_string(),
            sortie,
        };
        if self.shared.tell_node(
            &self.row.target,
            control::interactive_shell(stamp(), &start),
        ) {
            self.life.start_sent();
        }
    }

    /// What a worker of ours gets beyond the official start message: a credential for this session's
    /// data channel alone.
    fn worker_start(&self) -> Option<SortieStart> {
        let token = self.shared.control.worker_token(&self.row, self.now.wall);
        let token = token
            .inspect_err(|error| warn!(%error, "no token for a worker"))
            .ok()?;
        let known: Vec<String> = features::ALL.iter().map(ToString::to_string).collect();
        let features = features::common(&known, self.pairing.announced(Side::Client));
        Some(SortieStart { token, features })
    }

    fn touch(&mut self) {
        if self.idle.touch(self.now) {
            self.shared.control.active(&self.row.id, self.now.wall);
        }
    }

    fn noted(&mut self, noted: Noted) {
        match noted {
            Noted::Ended(is_written) => {
                self.over = true;
                self.is_written = is_written;
                self.acknowledge_results();
            }
            Noted::State(state) => self.written = state,
            Noted::Read(None) => {}
            Noted::Read(Some(row)) => {
                let ends = row.state == SessionState::Terminating || row.state.is_over();
                if ends {
                    self.written = row.state;
                    self.begin(Cause::of_row(&row));
                }
            }
        }
    }

    fn remember(&mut self, message_id: Uuid) {
        if self.results.len() < RESULTS && !self.results.contains(&message_id) {
            self.results.push(message_id);
        }
    }

    /// Tells the node that its results are kept, when they are.
    fn acknowledge_results(&mut self) {
        if !self.is_written {
            return;
        }
        for message_id in self.results.drain(..) {
            self.shared
                .acknowledge_result(&self.row.target, message_id, self.row.id.as_str());
        }
    }

    // Moving bytes.

    fn line(&mut self, side: Side) -> &mut Option<Line> {
        match side {
            Side::Client => &mut self.client,
            Side::Node => &mut self.node,
        }
    }

    /// Moves whatever can be moved now. Ready when anything happened.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stopped: &mut Pin<Box<WaitForCancellationFutureOwned>>,
    ) -> Poll<()> {
        self.now = self.shared.clock.now();
        let mut moved = self.poll_commands(cx);
        moved |= self.poll_read(Side::Client, cx);
        moved |= self.poll_read(Side::Node, cx);
        moved |= self.poll_write(Side::Node, cx);
        moved |= self.poll_write(Side::Client, cx);
        moved |= self.poll_note(cx);
        if self.stop_by.is_none() && stopped.as_mut().poll(cx).is_ready() {
            self.stop();
            moved = true;
        }
        if self.armed.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.armed = None;
            moved = true;
        }
        if moved {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) {
            self.command(command);
            moved = true;
        }
        moved
    }

    fn poll_note(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(note) = &mut self.note else {
            return false;
        };
        let Poll::Ready(noted) = note.as_mut().poll(cx) else {
            return false;
        };
        self.note = None;
        self.noted(noted);
        true
    }

    fn poll_read(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for _ in 0..BATCH {
            if !self.pairing.may_read(side) {
                break;
            }
            let Some(line) = self.line(side) else { break };
            let message = match Pin::new(&mut line.socket).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(message) => message,
            };
            moved = true;
            match message {
                Some(Ok(Message::Close(_))) | None => self.lost(side),
                Some(Ok(message)) => self.message(side, message),
                Some(Err(error)) => self.broken(side, &error),
            }
        }
        moved
    }

    fn poll_write(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            let now = self.now.monotonic;
            let Some(line) = self.line(side) else {
                return moved;
            };
            match Pin::new(&mut line.socket).poll_ready(cx) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.broken(side, &error);
                    return true;
                }
            }
            let Some(bytes) = self.pairing.pop(side, now) else {
                break;
            };
            let Some(line) = self.line(side) else {
                return moved;
            };
            line.unflushed = true;
            moved = true;
            if let Err(error) = Pin::new(&mut line.socket).start_send(Message::Binary(bytes)) {
                self.broken(side, &error);
                return true;
            }
        }
        self.poll_flush(side, cx) || moved
    }

    fn poll_flush(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let Some(line) = self.line(side).as_mut().filter(|line| line.unflushed) else {
            return false;
        };
        match Pin::new(&mut line.socket).poll_flush(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => {
                line.unflushed = false;
                true
            }
            Poll::Ready(Err(error)) => {
                self.broken(side, &error);
                true
            }
        }
    }

    fn message(&mut self, side: Side, message: Message) {
        let now = self.now.monotonic;
        if let Some(line) = self.line(side) {
            line.heard = now;
        }
        let frame = match message {
            Message::Binary(bytes) => Frame::parse(bytes).map_err(|error| error.to_string()),
            // A text frame would kill the reader of an official peer.
            Message::Text(_) => Err("text frame".to_owned()),
            Message::Pong(answer) if side == Side::Client => return self.client_answered(&answer),
            _ => return,
        };
        match frame {
            Ok(frame) => self.frame(side, frame),
            Err(error) => {
                let count = self.pairing.dropped(side);
                if count.is_power_of_two() {
                    warn!(session_id = %self.row.id, ?side, %error, count, "message not relayed");
                }
            }
        }
    }

    fn frame(&mut self, side: Side, frame: Frame) {
        let heard = self
            .pairing
            .receive(side, frame, self.now.monotonic, &mut stamp);
        if heard.activity {
            self.touch();
        }
        if heard.terminating {
            self.begin(Cause::Exited);
        }
    }

    fn broken(&mut self, side: Side, error: &WebSocketError) {
        debug!(session_id = %self.row.id, ?side, %error, "data channel broke");
        self.lost(side);
    }

    fn lost(&mut self, side: Side) {
        if self.line(side).take().is_some() {
            let now = self.now.monotonic;
            self.pairing.detach(side, now);
            if side == Side::Node {
                self.life.node_closed(now);
            }
        }
    }
}

/// A node takes texts where the API takes lists of texts.
fn plain_parameters(parameters: &Value) -> Value {
    let Value::Object(parameters) = parameters else {
        return Value::Object(Map::new());
    };
    let plain = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([only]) => only.clone(),
        _ => value.clone(),
    };
    Value::Object(
        parameters
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn single_texts_lose_their_list() {
        assert_eq!(
            plain_parameters(&json!({"portNumber": ["22"], "commands": ["a", "b"]})),
            json!({"portNumber": "22", "commands": ["a", "b"]})
        );
        assert_eq!(plain_parameters(&Value::Null), json!({}));
    }
}
