//! The server: a row that survives it, and the session's task, whose every step is [`Course`]'s, with
//! sockets of [`Net`].

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use serde_json::json;
use sortie_channel::{
    body::{Acknowledge, Body},
    frame::{Frame, MessageType},
    service::{self, Stamp},
    streams::RefusalCode,
};
use sortie_control::{End, Side, StreamRecord};
use sortie_ports::{Session, SessionState};
use sortie_types::{Now, Timestamp};
use uuid::Uuid;

use super::{
    dice::{Dice, Trace},
    net::{Message, Net, Place, Purpose},
    port,
};
use crate::{
    Options,
    course::{Course, Due, Note, Noted, Outside},
    pairing::testing,
    streams::Question,
};

/// Everything that a step may touch.
pub(super) struct Context<'a> {
    pub(super) now: Duration,
    pub(super) net: &'a mut Net,
    pub(super) dice: &'a mut Dice,
    pub(super) trace: &'a mut Trace,
}

impl Context<'_> {
    pub(super) fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_777_881_600_000).plus(self.now)
    }

    pub(super) fn stamp(&mut self) -> Stamp {
        let id = u128::from(self.dice.next()) << 64 | u128::from(self.dice.next());
        Stamp::new(Uuid::from_u128(id), self.wall())
    }
}

/// What outlives the process.
pub(super) struct Disk {
    pub(super) row: Session,
    /// The trail, as far as it is about streams.
    pub(super) streams: Vec<StreamRecord>,
}

impl Disk {
    pub(super) fn new(idle_limit: i64, has_streams: bool, wall: Timestamp) -> Self {
        let document = if has_streams {
            json!({"sessionType": "Port", "properties": {"type": "SocksForwarding"}})
        } else {
            json!({"sessionType": "Standard_Stream"})
        };
        let row = Session {
            idle_timeout_seconds: idle_limit,
            started: wall,
            last_activity: wall,
            ..testing::session(document)
        };
        Self {
            row,
            streams: Vec::new(),
        }
    }

    pub(super) fn is_living(&self) -> bool {
        use SessionState::{Connected, Connecting, Disconnected};
        matches!(self.row.state, Connecting | Connected | Disconnected)
    }

    /// As control does it: only a living session moves.
    fn set_state(&mut self, state: SessionState) {
        if self.is_living() {
            self.row.state = state;
        }
    }

    /// Somebody asks for the end.
    pub(super) fn terminate(&mut self, reason: &str) {
        if self.is_living() {
            self.row.state = SessionState::Terminating;
            self.row.end_reason = Some(reason.to_owned());
        }
    }

    fn end(&mut self, end: &End) {
        if self.row.state.is_over() {
            return;
        }
        let told = self.row.state == SessionState::Terminating;
        self.row.state = if end.failed && !told {
            SessionState::Failed
        } else {
            SessionState::Terminated
        };
        if !told || self.row.end_reason.is_none() {
            self.row.end_reason = Some(end.reason.clone());
        }
    }
}

/// A socket whose open message has not come, or is being judged.
struct Knocking {
    wire: u64,
    purpose: Purpose,
    opened: Option<(Duration, Message)>,
}

struct Line {
    wire: u64,
    process: u64,
}

/// The node's control channel.
struct ControlLine {
    wire: u64,
}

/// A running server.
pub(super) struct Server {
    born: Duration,
    /// How many there were before.
    lives: u64,
    options: Options,
    knocking: Vec<Knocking>,
    control: Option<ControlLine>,
    task: Option<Task>,
    swept: Duration,
    /// Its threads stand still until then.
    pub(super) frozen_until: Duration,
}

impl Server {
    pub(super) fn new(options: Options, lives: u64, now: Duration) -> Self {
        Self {
            born: now,
            lives,
            options,
            knocking: Vec::new(),
            control: None,
            task: None,
            swept: Duration::ZERO,
            frozen_until: Duration::ZERO,
        }
    }

    /// The row may have changed.
    pub(super) fn hint(&mut self) {
        if let Some(task) = &mut self.task {
            task.course.changed();
        }
    }

    pub(super) fn waiting(&self, to: Side) -> usize {
        self.task
            .as_ref()
            .map_or(0, |task| task.course.pairing.waiting(to))
    }

    pub(super) fn are_both_attached(&self) -> bool {
        let both = |task: &Task| task.client.is_some() && task.node.is_some();
        self.task.as_ref().is_some_and(both)
    }

    /// Does whatever can be done now. Whether that was anything.
    pub(super) fn poll(&mut self, disk: &mut Disk, cx: &mut Context<'_>) -> bool {
        if cx.now < self.frozen_until {
            return false;
        }
        let mut moved = self.knock(disk, cx);
        moved |= self.poll_control(disk, cx);
        moved |= self.sweep(disk, cx);
        let Some(task) = &mut self.task else {
            return moved;
        };
        let control = self.control.as_ref();
        moved |= task.poll(disk, cx);
        moved |= task.judge_streams(self.lives, cx);
        task.advance(control, cx);
        let records = task.course.take_stream_records();
        task.course.stream_records_written(None);
        disk.streams
            .extend(records.into_iter().flat_map(|records| records.streams));
        if task.course.is_over() {
            let records = task.course.last_stream_records();
            disk.streams
                .extend(records.into_iter().flat_map(|records| records.streams));
            let is_heard = !task.course.take_results().is_empty();
            if let Some(control) = control.filter(|_| is_heard) {
                let taken = Message::CompleteTaken;
                cx.net
                    .send(control.wire, Place::Server, taken, cx.now, cx.dice);
            }
            task.leave(cx);
            self.task = None;
        }
        moved
    }

    fn task(&mut self, disk: &Disk, cx: &Context<'_>) -> &mut Task {
        let (options, born) = (&self.options, self.born);
        self.task
            .get_or_insert_with(|| Task::new(disk.row.clone(), options, born, cx))
    }

    /// All rows are looked at, at first and now and then.
    fn sweep(&mut self, disk: &Disk, cx: &Context<'_>) -> bool {
        if cx.now < self.swept {
            return false;
        }
        self.swept = cx.now + self.options.sweep_interval;
        if disk.row.state.is_over() {
            self.hint();
        } else {
            self.task(disk, cx).course.judge_streams_again();
            if disk.row.state == SessionState::Terminating {
                self.hint();
            }
        }
        true
    }

    fn knock(&mut self, disk: &mut Disk, cx: &mut Context<'_>) -> bool {
        let fresh = cx.net.take_fresh().into_iter();
        self.knocking.extend(fresh.map(|(wire, purpose)| Knocking {
            wire,
            purpose,
            opened: None,
        }));
        let mut moved = false;
        for mut knocking in std::mem::take(&mut self.knocking) {
            if knocking.opened.is_none()
                && let Some(open) = cx.net.receive(knocking.wire, Place::Server, cx.now)
            {
                // Judging a token reads rows, and writes one.
                knocking.opened = Some((cx.now + cx.dice.millis(0, 8), open));
                moved = true;
            }
            match knocking.opened.take() {
                Some((at, open)) if at <= cx.now => {
                    moved = true;
                    self.accept(knocking.wire, knocking.purpose, open, disk, cx);
                }
                opened => {
                    let is_gone = cx.net.is_gone(knocking.wire, Place::Server, cx.now);
                    if opened.is_none() && is_gone {
                        cx.net.release(knocking.wire, Place::Server, cx.now);
                    } else {
                        knocking.opened = opened;
                        self.knocking.push(knocking);
                    }
                }
            }
        }
        moved
    }

    fn accept(
        &mut self,
        wire: u64,
        purpose: Purpose,
        open: Message,
        disk: &mut Disk,
        cx: &mut Context<'_>,
    ) {
        let side = match purpose {
            Purpose::ClientData => Side::Client,
            Purpose::NodeData => Side::Node,
            Purpose::Control => return self.accept_control(wire, &open, disk, cx),
        };
        let Message::Open {
            announced,
            process,
            ticket,
        } = open
        else {
            panic!("{open:?} opens no data channel");
        };
        if let Some(ticket) = ticket {
            assert_eq!(
                ticket,
                ticket_of(side, process),
                "not the ticket of this end"
            );
        }
        if disk.is_living() {
            let line = Line { wire, process };
            cx.trace.note(cx.now, "attached", wire);
            self.task(disk, cx);
            let control = self.control.as_ref();
            if let Some(task) = &mut self.task {
                task.attach(side, line, announced, control, cx);
            }
            return;
        }
        cx.trace.note(cx.now, "refused", wire);
        if side == Side::Client {
            let reason = disk.row.end_reason.clone().unwrap_or_default();
            let text = closed(disk.row.id.as_str(), &reason, cx);
            cx.net
                .send(wire, Place::Server, Message::Frame(text), cx.now, cx.dice);
        } else if let Some(control) = &self.control {
            cx.net
                .send(control.wire, Place::Server, Message::End, cx.now, cx.dice);
        }
        cx.net.release(wire, Place::Server, cx.now);
    }

    fn accept_control(&mut self, wire: u64, open: &Message, disk: &mut Disk, cx: &mut Context<'_>) {
        let Message::Hello { ours, listed } = *open else {
            panic!("{open:?} opens no control channel");
        };
        cx.trace.note(cx.now, "control channel", wire);
        if let Some(older) = self.control.replace(ControlLine { wire }) {
            cx.net.release(older.wire, Place::Server, cx.now);
        }
        // Its sessions are found by their rows: those that should not run end.
        if disk.row.state.is_over() {
            if listed == Some(true) {
                cx.net
                    .send(wire, Place::Server, Message::End, cx.now, cx.dice);
            }
            return;
        }
        self.task(disk, cx);
        let control = self.control.as_ref();
        if let Some(task) = &mut self.task {
            task.node_online(ours, listed, control, cx);
        }
    }

    fn poll_control(&mut self, disk: &mut Disk, cx: &mut Context<'_>) -> bool {
        let Some(wire) = self.control.as_ref().map(|control| control.wire) else {
            return false;
        };
        let mut moved = false;
        while let Some(message) = cx.net.receive(wire, Place::Server, cx.now) {
            moved = true;
            match message {
                Message::Ping(question) => cx.net.send(
                    wire,
                    Place::Server,
                    Message::Pong(question),
                    cx.now,
                    cx.dice,
                ),
                Message::Complete { failed } => {
                    if disk.row.state.is_over() {
                        let taken = Message::CompleteTaken;
                        cx.net.send(wire, Place::Server, taken, cx.now, cx.dice);
                    } else {
                        let course = &mut self.task(disk, cx).course;
                        course.completed(Uuid::nil(), failed, String::new());
                    }
                }
                Message::Pong(_) => {}
                other => panic!("{other:?} on a control channel"),
            }
        }
        if cx.net.is_gone(wire, Place::Server, cx.now) {
            cx.net.release(wire, Place::Server, cx.now);
            self.control = None;
            moved = true;
        }
        moved
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let knocking = self
            .knocking
            .iter()
            .filter_map(|knocking| Some(knocking.opened.as_ref()?.0));
        let task = self.task.as_ref();
        let own = [
            Some(self.frozen_until),
            Some(self.swept),
            task.and_then(|task| task.armed).map(|at| self.born + at),
            task.and_then(|task| Some(task.note.as_ref()?.0)),
            task.and_then(|task| Some(task.question.as_ref()?.0)),
        ];
        knocking.chain(own.into_iter().flatten())
    }
}

/// What stands for a sealed ticket: good for one end alone.
fn ticket_of(side: Side, process: u64) -> String {
    format!("{side:?} {process}")
}

fn closed(session_id: &str, text: &str, cx: &mut Context<'_>) -> Bytes {
    service::channel_closed(cx.stamp(), session_id, "", text)
}

/// One session's task. Its times are those of its process.
struct Task {
    born: Duration,
    course: Course,
    client: Option<Line>,
    node: Option<Line>,
    note: Option<(Duration, Note)>,
    question: Option<(Duration, Question)>,
    armed: Option<Duration>,
    owed: [Owed; 2],
}

/// What an end was sent through this server and has not acknowledged, as somebody knows who looks on.
#[derive(Default)]
struct Owed(BTreeSet<i64>);

impl Owed {
    fn settle(&mut self, frame: &Frame) {
        let body = Acknowledge::parse(&frame.payload()).expect("a body");
        let number = body.sequence_number;
        if body.cumulative == Some(true) {
            self.0 = self.0.split_off(&(number + 1));
        } else {
            self.0.remove(&number);
        }
    }
}

impl Task {
    fn new(row: Session, options: &Options, born: Duration, cx: &Context<'_>) -> Self {
        let now = Now::new(cx.now - born, cx.wall());
        Self {
            born,
            course: Course::new(row, options, now),
            client: None,
            node: None,
            note: None,
            question: None,
            armed: None,
            owed: Default::default(),
        }
    }

    fn set_now(&mut self, cx: &Context<'_>) {
        self.course.set_now(Now::new(cx.now - self.born, cx.wall()));
    }

    fn line(&mut self, side: Side) -> &mut Option<Line> {
        match side {
            Side::Client => &mut self.client,
            Side::Node => &mut self.node,
        }
    }

    fn outside(&self, control: Option<&ControlLine>) -> Outside {
        if self.course.minds_outside() {
            Self::look_outside(control)
        } else {
            Outside::default()
        }
    }

    fn look_outside(control: Option<&ControlLine>) -> Outside {
        Outside {
            client_unflushed: false,
            node_online: control.is_some(),
        }
    }

    fn attach(
        &mut self,
        side: Side,
        line: Line,
        announced: Option<Vec<String>>,
        control: Option<&ControlLine>,
        cx: &mut Context<'_>,
    ) {
        self.set_now(cx);
        let process = line.process;
        if let Some(older) = self.line(side).replace(line) {
            assert_eq!(older.process, process, "there is one process an end");
            cx.net.release(older.wire, Place::Server, cx.now);
        }
        let must_start = self.course.attach(side, announced);
        self.check_nothing_forgotten();
        self.tell_features(Side::Client, cx);
        self.tell_features(Side::Node, cx);
        if side == Side::Client {
            // What control hears is flushed later: a killed server forgets it.
            self.course.touch();
        }
        if must_start {
            self.start_node(control, cx);
        }
    }

    /// The ends would repair it, but a server that lives forgets nothing that it has taken in.
    fn check_nothing_forgotten(&self) {
        for (side, owed) in [Side::Client, Side::Node].into_iter().zip(&self.owed) {
            let holds = |number: &&i64| self.course.pairing.answers_for(side, **number);
            let forgotten = owed.0.iter().find(|number| !holds(number));
            assert_eq!(forgotten, None, "of what was for the {side:?}");
        }
    }

    fn owed(&mut self, to: Side) -> &mut Owed {
        let [client, node] = &mut self.owed;
        match to {
            Side::Client => client,
            Side::Node => node,
        }
    }

    fn start_node(&mut self, control: Option<&ControlLine>, cx: &mut Context<'_>) {
        if let Some(control) = control {
            cx.net
                .send(control.wire, Place::Server, Message::Start, cx.now, cx.dice);
            self.course.life.start_sent();
        }
    }

    fn node_online(
        &mut self,
        ours: bool,
        listed: Option<bool>,
        control: Option<&ControlLine>,
        cx: &mut Context<'_>,
    ) {
        self.set_now(cx);
        if self
            .course
            .node_online(ours, listed, Self::look_outside(control))
        {
            self.start_node(control, cx);
        }
    }

    fn tell_features(&mut self, side: Side, cx: &mut Context<'_>) {
        let process = self.line(side).as_ref().map_or(0, |line| line.process);
        let ticket = || Some(ticket_of(side, process).into());
        self.course.tell_features(side, ticket, &mut || cx.stamp());
    }

    fn advance(&mut self, control: Option<&ControlLine>, cx: &mut Context<'_>) {
        self.set_now(cx);
        let mut due = Vec::new();
        let outside = self.outside(control);
        self.course.advance(outside, &mut || cx.stamp(), &mut due);
        for due in due {
            self.act(due, control, cx);
        }
        if let Some(note) = self.course.take_note(self.outside(control)) {
            // Commits are grouped, and a disk is slow. A read sees the row as it is then.
            let takes = cx.dice.millis(1, 12);
            self.note = Some((cx.now + takes, note));
        }
        self.armed = self.course.deadline(self.outside(control));
    }

    fn act(&mut self, due: Due, control: Option<&ControlLine>, cx: &mut Context<'_>) {
        match due {
            Due::ReleaseClient => {
                if let Some(line) = self.client.take() {
                    cx.net.release(line.wire, Place::Server, cx.now);
                }
            }
            Due::EndOnNode { .. } => {
                if let Some(control) = control {
                    cx.net
                        .send(control.wire, Place::Server, Message::End, cx.now, cx.dice);
                }
            }
            Due::GiveUp(side) => self.lost(side, cx),
            Due::Ping(side) => self.ping(side, 0, cx),
            Due::Ask(question) => self.ping(Side::Client, question, cx),
        }
    }

    fn ping(&mut self, side: Side, question: u64, cx: &mut Context<'_>) {
        if let Some(line) = self.line(side) {
            let (wire, question) = (line.wire, Message::Ping(question));
            cx.net.send(wire, Place::Server, question, cx.now, cx.dice);
        }
    }

    // Moving bytes.

    fn poll(&mut self, disk: &mut Disk, cx: &mut Context<'_>) -> bool {
        self.set_now(cx);
        let mut moved = false;
        moved |= self.poll_read(Side::Client, cx);
        moved |= self.poll_read(Side::Node, cx);
        moved |= self.poll_write(Side::Node, cx);
        moved |= self.poll_write(Side::Client, cx);
        moved |= self.poll_note(disk, cx);
        moved
    }

    /// Decides about streams, which takes a moment.
    fn judge_streams(&mut self, lives: u64, cx: &mut Context<'_>) -> bool {
        if self.question.is_none()
            && let Some(question) = self.course.take_question()
        {
            self.question = Some((cx.now + cx.dice.millis(0, 30), question));
        }
        let Some((_, question)) = self.question.take_if(|(at, _)| *at <= cx.now) else {
            return false;
        };
        let (Question::Open(destination) | Question::Again(destination)) = &question;
        let refused = || Err((RefusalCode::Forbidden, "no policy allows it".to_owned()));
        let decision = match port::is_allowed(destination, lives, cx.now) {
            true => Ok(()),
            false => refused(),
        };
        self.course.streams_judged(question, decision);
        true
    }

    fn poll_note(&mut self, disk: &mut Disk, cx: &mut Context<'_>) -> bool {
        let Some((_, note)) = self.note.take_if(|(at, _)| *at <= cx.now) else {
            return false;
        };
        self.course.noted(match note {
            Note::End(end) => {
                cx.trace.note(cx.now, &end.reason, u64::from(end.failed));
                disk.end(&end);
                Noted::Ended(true)
            }
            Note::State(state) => {
                disk.set_state(state);
                Noted::State(state)
            }
            Note::Read => Noted::Read(Some(Box::new(disk.row.clone()))),
        });
        true
    }

    fn poll_read(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.course.pairing.may_read(side) {
            let Some(line) = self.line(side) else { break };
            let wire = line.wire;
            let Some(message) = cx.net.receive(wire, Place::Server, cx.now) else {
                if cx.net.is_gone(wire, Place::Server, cx.now) {
                    self.lost(side, cx);
                    moved = true;
                }
                break;
            };
            moved = true;
            self.course.heard(side);
            match message {
                Message::Frame(bytes) => {
                    self.frame(side, Frame::parse(bytes).expect("peers write frames"), cx);
                }
                Message::Ping(question) => {
                    cx.net.send(
                        wire,
                        Place::Server,
                        Message::Pong(question),
                        cx.now,
                        cx.dice,
                    );
                }
                Message::Pong(question) if side == Side::Client => {
                    let now = self.course.now().monotonic;
                    let pairing = &mut self.course.pairing;
                    pairing.answered(question, now, &mut || cx.stamp());
                }
                Message::Pong(_) => {}
                other => panic!("{other:?} on a data channel"),
            }
        }
        moved
    }

    fn frame(&mut self, from: Side, frame: Frame, cx: &mut Context<'_>) {
        match *frame.message_type() {
            MessageType::Acknowledge => self.owed(from).settle(&frame),
            MessageType::InputStreamData => {
                self.owed(Side::Node).0.insert(frame.sequence_number());
            }
            MessageType::OutputStreamData => {
                self.owed(Side::Client).0.insert(frame.sequence_number());
            }
            _ => {}
        }
        self.course.frame(from, frame, &mut || cx.stamp());
    }

    fn poll_write(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(line) = self.line(side) {
            let wire = line.wire;
            if !cx.net.has_room(wire, Place::Server) {
                break;
            }
            let Some(bytes) = self.course.pairing.pop(side, self.course.now().monotonic) else {
                break;
            };
            moved = true;
            cx.net
                .send(wire, Place::Server, Message::Frame(bytes), cx.now, cx.dice);
        }
        moved
    }

    fn lost(&mut self, side: Side, cx: &mut Context<'_>) {
        if let Some(line) = self.line(side).take() {
            cx.trace.note(cx.now, "lost by the server", line.wire);
            cx.net.release(line.wire, Place::Server, cx.now);
            self.course.lost(side);
        }
    }

    /// Frees the sockets.
    fn leave(&mut self, cx: &mut Context<'_>) {
        for line in [self.client.take(), self.node.take()].into_iter().flatten() {
            cx.net.release(line.wire, Place::Server, cx.now);
        }
    }
}
