//! The task of one session. It owns both data channels and moves frames between them without a hop
//! to another task; what to do is decided by [`Course`].
//!
//! Rows are read and written by one future at a time that runs beside the relay, so that a slow disk
//! never delays a keystroke.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use serde_json::{Map, Value};
use sortie_channel::{
    body::{SortieStart, StartContent},
    control, features,
    frame::Frame,
    streams::RefusalCode,
};
use sortie_control::{DataGrant, Side, StreamJudge, StreamRecords, StreamVerdict, run_as_of};
use sortie_ports::Session;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{Sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{Message, error::Error as WebSocketError};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    Socket,
    clock::stamp,
    course::{Course, Due, Note, Noted, Outside},
    gateway::Shared,
    life::Cause,
    node::NodeEntry,
    pairing::earliest,
    spool::Spool,
    streams::Question,
};

/// Messages read from one end before the other has its turn.
const BATCH: usize = 64;

/// How long a decision about a stream may take before the stream is refused: the client waits.
const JUDGING: Duration = Duration::from_secs(10);

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
    /// Who may do what may have changed.
    JudgeStreams,
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
}

type Noting = Pin<Box<dyn Future<Output = Noted> + Send>>;
/// Deciding about streams.
type Judging = Pin<Box<dyn Future<Output = (Question, Decision)> + Send>>;
type Decision = Result<(), (RefusalCode, String)>;
/// Writing records of streams; what could not be written comes back.
type Recording = Pin<Box<dyn Future<Output = Option<StreamRecords>> + Send>>;

/// Writing or reading output on disk; the spool comes back with the outcome.
type Spooling = JoinHandle<(Spool, io::Result<Option<Bytes>>)>;

/// Everything about one live session.
pub(crate) struct SessionTask {
    shared: Arc<Shared>,
    course: Course,
    client: Option<Line>,
    node: Option<Line>,
    commands: mpsc::Receiver<Command>,
    /// When the task ends whatever is left to do, once the gateway stops.
    stop_by: Option<Duration>,
    noting: Option<Noting>,
    /// Decides about streams, by the row as it was when the client came.
    judge: Option<Arc<StreamJudge>>,
    judging: Option<Judging>,
    recording: Option<Recording>,
    /// Output on disk, while nothing is done with it.
    spool: Option<Spool>,
    spooling: Option<Spooling>,
    due: Vec<Due>,
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
        Self {
            course: Course::new(row, &shared.options, now),
            timer: Box::pin(sleep_until(shared.clock.instant(now.monotonic))),
            client: None,
            node: None,
            commands,
            stop_by: None,
            noting: None,
            judge: None,
            judging: None,
            recording: None,
            spool: None,
            spooling: None,
            due: Vec::new(),
            armed: None,
            shared,
        }
    }

    /// Serves the session until it is over, or until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut stopped = Box::pin(stop.cancelled_owned());
        while !self.course.is_over() {
            self.advance();
            let now = self.now();
            if self.stop_by.is_some_and(|by| now >= by) {
                break;
            }
            std::future::poll_fn(|cx| self.poll(cx, &mut stopped)).await;
        }
        self.leave().await;
    }

    fn row(&self) -> &Session {
        &self.course.row
    }

    fn now(&self) -> Duration {
        self.course.now().monotonic
    }

    /// Frees the sockets and turns away who comes too late.
    async fn leave(&mut self) {
        self.commands.close();
        if let Some(noting) = self.noting.take() {
            let noted = noting.await;
            self.noted(noted);
        }
        if let Some(spooling) = self.spooling.take() {
            // The file is gone with it.
            drop(spooling.await);
        }
        self.record_last_streams().await;
        if let Some(end) = self
            .course
            .life
            .end()
            .filter(|_| !self.course.is_over() && self.ends_on_stop())
        {
            let (control, wall) = (&self.shared.control, self.course.now().wall);
            let ended = control.session_ended(&self.row().id, end, wall).await;
            self.noted(Noted::Ended(ended));
        }
        for line in [self.client.take(), self.node.take()].into_iter().flatten() {
            self.shared.part(line.socket, None);
        }
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Completed { message_id, .. } => {
                    // What comes too late is kept nowhere but with the node, unless the row is over.
                    self.course.remember(message_id);
                    self.acknowledge_results();
                }
                Command::Attach(attach) => self.turn_away(*attach),
                Command::Changed | Command::JudgeStreams | Command::NodeOnline { .. } => {}
            }
        }
        let pairing = &self.course.pairing;
        let dropped = [Side::Client, Side::Node].map(|side| pairing.dropped_so_far(side));
        debug!(session_id = %self.row().id, ?dropped, "session's task ended");
    }

    fn turn_away(&self, attach: Attach) {
        let cause = self.course.life.cause();
        let last_word = match attach.grant.side {
            Side::Client if self.course.is_over() => {
                cause.map(|cause| self.course.closed(stamp(), &cause.text()))
            }
            _ => None,
        };
        self.shared.part(attach.socket, last_word);
    }

    fn ends_on_stop(&self) -> bool {
        self.stop_by.is_some() && self.shared.options.end_sessions_on_stop
    }

    // Decisions: what time and events have made due.

    fn advance(&mut self) {
        self.course.set_now(self.shared.clock.now());
        let mut due = std::mem::take(&mut self.due);
        self.course.advance(self.outside(), &mut stamp, &mut due);
        due.drain(..).for_each(|due| self.act(due));
        self.due = due;
        self.take_note();
        self.take_question();
        self.take_stream_records();
        self.take_spool_work();
        self.arm();
    }

    /// What the course minds of the outside: to see whether a node is online takes a lock.
    fn outside(&self) -> Outside {
        if self.course.minds_outside() {
            self.look_outside()
        } else {
            Outside::default()
        }
    }

    fn look_outside(&self) -> Outside {
        Outside {
            client_unflushed: self.client.as_ref().is_some_and(|line| line.unflushed),
            node_online: self.node_is_ours().is_some(),
        }
    }

    fn node_is_ours(&self) -> Option<bool> {
        self.shared
            .nodes()
            .get(&self.row().target)
            .and_then(NodeEntry::is_ours)
    }

    fn act(&mut self, due: Due) {
        match due {
            Due::ReleaseClient => {
                if let Some(line) = self.client.take() {
                    self.shared.part(line.socket, None);
                }
            }
            Due::EndOnNode { text } => {
                let row = self.row();
                self.shared.end_on_node(&row.target, row.id.as_str(), &text);
            }
            Due::GiveUp(side) => {
                debug!(session_id = %self.row().id, ?side, "data channel silent for too long");
                self.lost(side);
            }
            Due::Ping(side) => self.ping(side, Bytes::from_static(b"keepalive")),
            Due::Ask(question) => {
                let question = Bytes::copy_from_slice(&question.to_be_bytes());
                self.ping(Side::Client, question);
            }
        }
    }

    fn ping(&mut self, side: Side, question: Bytes) {
        let Some(line) = self.line(side) else {
            return;
        };
        // Where the socket takes nothing now, there are bytes under way that show whether it lives.
        match Pin::new(&mut line.socket).start_send(Message::Ping(question)) {
            Ok(()) => line.unflushed = true,
            Err(_) => self.lost(side),
        }
    }

    /// Tells an announcing end what both can do, with the token for its next websocket.
    fn tell_features(&mut self, side: Side) {
        let wall = self.course.now().wall;
        let grant = self.line(side).as_ref().map(|line| line.grant.clone());
        let control = &self.shared.control;
        let ticket = || {
            let ticket = control.ticket(&grant?, wall);
            ticket
                .inspect_err(|error| warn!(%error, "no ticket for an end"))
                .ok()
        };
        self.course.tell_features(side, ticket, &mut stamp);
    }

    /// Starts the next read or write of the row.
    fn take_note(&mut self) {
        let Some(note) = self.course.take_note(self.outside()) else {
            return;
        };
        let control = self.shared.control.clone();
        let (session_id, wall) = (self.row().id.clone(), self.course.now().wall);
        self.noting = Some(Box::pin(async move {
            match note {
                Note::Read => match control.session(&session_id).await {
                    Ok(row) => Noted::Read(row.map(Box::new)),
                    Err(error) => {
                        warn!(%session_id, %error, "session row not read");
                        Noted::Read(None)
                    }
                },
                Note::End(end) => Noted::Ended(control.session_ended(&session_id, end, wall).await),
                Note::State(state) => {
                    control.session_state(&session_id, state, wall).await;
                    Noted::State(state)
                }
            }
        }));
    }

    /// Starts the next decision about streams.
    fn take_question(&mut self) {
        let Some(question) = self.course.take_question() else {
            return;
        };
        let judge = self.judge.get_or_insert_with(|| {
            let row = self.course.row.clone();
            Arc::new(self.shared.control.stream_judge(row))
        });
        let (judge, wall) = (Arc::clone(judge), self.course.now().wall);
        let session_id = self.row().id.clone();
        self.judging = Some(Box::pin(async move {
            let judged = timeout(JUDGING, async {
                match &question {
                    Question::Open(destination) => judge.judge(destination, wall).await,
                    Question::Again(destination) => judge.judge_again(destination, wall).await,
                }
            });
            let decision = match judged.await {
                Ok(Ok(StreamVerdict::Allowed)) => Ok(()),
                Ok(Ok(StreamVerdict::Refused(why))) => Err((RefusalCode::Forbidden, why)),
                failed => {
                    warn!(%session_id, error = ?failed, "a stream is not judged");
                    let why = "the server could not decide about it".to_owned();
                    Err((RefusalCode::Other, why))
                }
            };
            (question, decision)
        }));
    }

    /// Starts writing the records of streams that are due.
    fn take_stream_records(&mut self) {
        if self.recording.is_some() {
            return;
        }
        if let Some(records) = self.course.take_stream_records() {
            self.recording = Some(self.record_streams(records));
        }
    }

    fn record_streams(&self, records: StreamRecords) -> Recording {
        let control = self.shared.control.clone();
        let (row, wall) = (self.row().clone(), self.course.now().wall);
        Box::pin(async move {
            let error = control.record_streams(&row, &records, wall).await.err()?;
            warn!(session_id = %row.id, %error, "records of streams are not written");
            Some(records)
        })
    }

    /// Writes what is left to be said about streams.
    async fn record_last_streams(&mut self) {
        if let Some(recording) = self.recording.take() {
            let back = recording.await;
            self.course.stream_records_written(back);
        }
        if let Some(records) = self.course.last_stream_records()
            && let Some(lost) = self.record_streams(records).await
        {
            // In the log at least, since the state does not take it.
            warn!(session_id = %self.row().id, streams = ?lost, "streams without a record");
        }
    }

    /// Starts the next write or read of output on disk.
    fn take_spool_work(&mut self) {
        let Some(work) = self.course.pairing.spool_work() else {
            return;
        };
        let Some(directory) = &self.shared.options.spool_directory else {
            return;
        };
        let mut spool = self
            .spool
            .take()
            .unwrap_or_else(|| Spool::new(directory.clone()));
        self.spooling = Some(spawn_blocking(move || {
            let outcome = spool.work(work);
            (spool, outcome)
        }));
    }

    /// Sets the timer to what is due next.
    fn arm(&mut self) {
        let next = earliest([self.course.deadline(self.outside()), self.stop_by]);
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
            Command::Changed => self.course.changed(),
            Command::JudgeStreams => {
                if let Some(judge) = &self.judge {
                    judge.forget();
                }
                self.course.judge_streams_again();
            }
            Command::Completed {
                message_id,
                failed,
                output,
            } => self.course.completed(message_id, failed, output),
            Command::NodeOnline { ours, listed } => {
                if self.course.node_online(ours, listed, self.look_outside()) {
                    self.start_node();
                }
            }
        }
    }

    /// The gateway stops: the session ends with it, or is left to be taken up after a restart.
    fn stop(&mut self) {
        let options = &self.shared.options;
        let patience = match (options.end_sessions_on_stop, self.course.life.is_ending()) {
            (true, false) => options.drain.mul_f32(0.8),
            // Nothing new has to be said, and a node that is away is not waited for.
            (true, true) => options.drain.mul_f32(0.1),
            (false, _) => Duration::ZERO,
        };
        self.stop_by = Some(self.now() + patience);
        if patience > Duration::ZERO {
            self.course.begin(Cause::Stopping);
        }
    }

    fn attach(&mut self, attach: Attach) {
        let side = attach.grant.side;
        debug!(session_id = %self.row().id, ?side, ours = attach.announced.is_some(), "data channel");
        let line = Line {
            socket: attach.socket,
            grant: attach.grant,
            unflushed: false,
        };
        if side == Side::Client && self.course.kind.chooses {
            // Somebody else may have resumed it.
            let row = line.grant.session.clone();
            self.judge = Some(Arc::new(self.shared.control.stream_judge(row)));
            self.course.judge_streams_again();
        }
        let client_id = line.grant.client_id.clone();
        if let Some(older) = self.line(side).replace(line) {
            self.supersede(side, older, &client_id);
        }
        let must_start = self.course.attach(side, attach.announced);
        // Before anything else can be written: ends of ours wait for it.
        self.tell_features(Side::Client);
        self.tell_features(Side::Node);
        if side == Side::Client {
            self.touch();
        }
        if must_start {
            self.start_node();
        }
    }

    /// The newest socket of a side is the live one. An older one of the same process is dead; another
    /// process is told, or it would reconnect for ever.
    fn supersede(&self, side: Side, older: Line, client_id: &str) {
        let other_process = side == Side::Client && older.grant.client_id != client_id;
        let text = "The session was taken over elsewhere.";
        let last_word = other_process.then(|| self.course.closed(stamp(), text));
        self.shared.part(older.socket, last_word);
    }

    /// Tells the node to start the session, when its control channel is open.
    fn start_node(&mut self) {
        let Some(ours) = self.node_is_ours() else {
            return;
        };
        if self.course.kind.needs_streams && !ours {
            return self.course.begin(Cause::Incapable { side: Side::Node });
        }
        let sortie = if ours { self.worker_start() } else { None };
        let row = self.row();
        let start = StartContent {
            document_name: row.document_name.clone(),
            document_content: row.document_content.clone(),
            session_id: row.id.as_str().to_owned(),
            // The document has them in it: official agents would fill in once more.
            parameters: Value::Object(Map::new()),
            run_as_user: run_as_of(&row.document_content).to_owned(),
            session_owner: row.owner.to_string(),
            sortie,
        };
        let message = control::interactive_shell(stamp(), &start);
        if self.shared.tell_node(&row.target, message) {
            self.course.life.start_sent();
        }
    }

    /// What a worker of ours gets beyond the official start message: a credential for this session's
    /// data channel alone.
    fn worker_start(&self) -> Option<SortieStart> {
        let wall = self.course.now().wall;
        let token = self.shared.control.worker_token(self.row(), wall);
        let token = token
            .inspect_err(|error| warn!(%error, "no token for a worker"))
            .ok()?;
        let known: Vec<String> = features::ALL.iter().map(ToString::to_string).collect();
        let features = features::common(&known, self.course.pairing.announced(Side::Client));
        Some(SortieStart { token, features })
    }

    fn touch(&mut self) {
        if self.course.touch() {
            self.is_active();
        }
    }

    fn is_active(&self) {
        let wall = self.course.now().wall;
        self.shared.control.active(&self.row().id, wall);
    }

    fn noted(&mut self, noted: Noted) {
        self.course.noted(noted);
        self.acknowledge_results();
    }

    /// Tells the node that its results are kept, when they are.
    fn acknowledge_results(&mut self) {
        for message_id in self.course.take_results() {
            let row = self.row();
            self.shared
                .acknowledge_result(&row.target, message_id, row.id.as_str());
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
        self.course.set_now(self.shared.clock.now());
        let mut moved = self.poll_commands(cx);
        moved |= self.poll_read(Side::Client, cx);
        moved |= self.poll_read(Side::Node, cx);
        moved |= self.poll_write(Side::Node, cx);
        moved |= self.poll_write(Side::Client, cx);
        moved |= self.poll_note(cx);
        moved |= self.poll_streams(cx);
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
        let Some(noting) = &mut self.noting else {
            return false;
        };
        let Poll::Ready(noted) = noting.as_mut().poll(cx) else {
            return false;
        };
        self.noting = None;
        self.noted(noted);
        true
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        if let Some(judging) = &mut self.judging
            && let Poll::Ready((question, decision)) = judging.as_mut().poll(cx)
        {
            self.judging = None;
            self.course.streams_judged(question, decision);
            moved = true;
        }
        if let Some(spooling) = &mut self.spooling
            && let Poll::Ready(done) = Pin::new(spooling).poll(cx)
        {
            self.spooling = None;
            self.spooled(done);
            moved = true;
        }
        if let Some(recording) = &mut self.recording
            && let Poll::Ready(back) = recording.as_mut().poll(cx)
        {
            self.recording = None;
            self.course.stream_records_written(back);
            moved = true;
        }
        moved
    }

    fn spooled(&mut self, done: Result<(Spool, io::Result<Option<Bytes>>), JoinError>) {
        let outcome = match done {
            Ok((spool, outcome)) => {
                self.spool = Some(spool);
                outcome
            }
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = &outcome {
            warn!(session_id = %self.row().id, %error, "output is not held on disk");
        }
        self.course.pairing.spool_worked(outcome);
    }

    fn poll_read(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for _ in 0..BATCH {
            if !self.course.pairing.may_read(side) {
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
            let now = self.now();
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
            let Some(bytes) = self.course.pairing.pop(side, now) else {
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
        self.course.heard(side);
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
                let count = self.course.pairing.dropped(side);
                if count.is_power_of_two() {
                    warn!(session_id = %self.row().id, ?side, %error, count, "message not relayed");
                }
            }
        }
    }

    fn frame(&mut self, side: Side, frame: Frame) {
        if self.course.frame(side, frame, &mut stamp) {
            self.is_active();
        }
    }

    /// The client has read whatever was written before the ping that it answers.
    fn client_answered(&mut self, answer: &[u8]) {
        if let Ok(question) = answer.try_into().map(u64::from_be_bytes) {
            let now = self.now();
            self.course.pairing.answered(question, now, &mut stamp);
        }
    }

    fn broken(&mut self, side: Side, error: &WebSocketError) {
        debug!(session_id = %self.row().id, ?side, %error, "data channel broke");
        self.lost(side);
    }

    fn lost(&mut self, side: Side) {
        if self.line(side).take().is_some() {
            self.course.lost(side);
        }
    }
}
