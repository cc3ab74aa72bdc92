//! The server: a row that survives it, and what the session's task does with [`Pairing`], [`Life`] and
//! [`IdleClock`], step by step as `session` does it, with sockets of [`Net`].

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sortie_channel::{
    body::Features,
    frame::Frame,
    service::{self, Stamp},
};
use sortie_control::{End, Side};
use sortie_ports::{Session, SessionState};
use sortie_types::{Now, Timestamp};
use uuid::Uuid;

use super::{
    dice::{Dice, Trace},
    net::{Message, Net, Place, Purpose},
};
use crate::{
    Options,
    idle::{IdleClock, RunOut},
    kind::SessionKind,
    life::{Cause, ClientHalf, Life, NodeHalf, View},
    pairing::{Limits, Pairing, earliest, testing},
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
}

impl Disk {
    pub(super) fn new(idle_limit: i64, wall: Timestamp) -> Self {
        let row = Session {
            idle_timeout_seconds: idle_limit,
            started: wall,
            last_activity: wall,
            ..testing::session(json!({"sessionType": "Standard_Stream"}))
        };
        Self { row }
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
    heard: Duration,
    pinged: Duration,
}

enum Noted {
    Ended(End),
    Read,
    State(SessionState),
}

/// The node's control channel.
struct ControlLine {
    wire: u64,
}

/// A running server.
pub(super) struct Server {
    born: Duration,
    options: Options,
    knocking: Vec<Knocking>,
    control: Option<ControlLine>,
    task: Option<Task>,
    swept: Duration,
    /// Its threads stand still until then.
    pub(super) frozen_until: Duration,
}

impl Server {
    pub(super) fn new(options: Options, now: Duration) -> Self {
        Self {
            born: now,
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
            task.must_read = true;
        }
    }

    pub(super) fn waiting(&self, to: Side) -> usize {
        self.task
            .as_ref()
            .map_or(0, |task| task.pairing.waiting(to))
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
        moved |= task.poll(disk, control, cx);
        task.advance(control, cx);
        if task.over {
            if let Some(control) = control.filter(|_| task.is_reported) {
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
            .get_or_insert_with(|| Task::new(disk.row.clone(), options.clone(), born, cx))
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
            self.task(disk, cx);
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
            let line = Line {
                wire,
                process,
                heard: Duration::ZERO,
                pinged: Duration::ZERO,
            };
            cx.trace.note(cx.now, "attached", wire);
            self.task(disk, cx).attach(side, line, announced, cx);
            let control = self.control.as_ref();
            if let Some(task) = self.task.as_mut().filter(|task| task.must_start) {
                task.start_node(control, cx);
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
                        let cause = Cause::Completed {
                            failed,
                            output: String::new(),
                        };
                        let task = self.task(disk, cx);
                        task.is_reported = true;
                        task.begin(cause);
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
    options: Options,
    row: Session,
    now: Now,
    pairing: Pairing,
    life: Life,
    idle: IdleClock,
    client: Option<Line>,
    node: Option<Line>,
    met: bool,
    client_done: bool,
    note: Option<(Duration, Noted)>,
    must_read: bool,
    must_start: bool,
    written: SessionState,
    ending_noted: bool,
    /// The node reported a result, which is acknowledged once the end is written.
    is_reported: bool,
    over: bool,
    armed: Option<Duration>,
}

impl Task {
    fn new(row: Session, options: Options, born: Duration, cx: &Context<'_>) -> Self {
        let now = Now::new(cx.now - born, cx.wall());
        let limits = Limits {
            pause_delay: options.pause_delay,
            pause_above: options.pause_above,
            resume_below: options.resume_below,
            input: options.input_limit,
            output: options.output_limit,
        };
        let kind = SessionKind::of(&row.document_content);
        let restored = row.state != SessionState::Connecting;
        let mut task = Self {
            born,
            pairing: Pairing::new(kind, limits, restored, now.monotonic),
            life: Life::new(&row, &options, now),
            idle: IdleClock::new(&row, now),
            met: restored,
            written: row.state,
            options,
            now,
            client: None,
            node: None,
            client_done: false,
            note: None,
            must_read: false,
            must_start: false,
            ending_noted: false,
            is_reported: false,
            over: false,
            armed: None,
            row,
        };
        if task.row.state == SessionState::Terminating {
            task.begin(Cause::of_row(&task.row));
        }
        task
    }

    fn set_now(&mut self, cx: &Context<'_>) {
        self.now = Now::new(cx.now - self.born, cx.wall());
    }

    fn line(&mut self, side: Side) -> &mut Option<Line> {
        match side {
            Side::Client => &mut self.client,
            Side::Node => &mut self.node,
        }
    }

    fn begin(&mut self, cause: Cause) {
        self.life.begin(cause, self.now.monotonic);
    }

    fn view(&self, control: Option<&ControlLine>) -> View {
        View {
            client_attached: self.client.is_some(),
            client_ours: self.pairing.is_ours(Side::Client),
            client_unfinished: self.pairing.unfinished(Side::Client),
            client_flushed: self.pairing.waiting(Side::Client) == 0,
            node_attached: self.node.is_some(),
            node_online: control.is_some(),
            idle_limit: self.idle.limit(),
        }
    }

    fn attach(
        &mut self,
        side: Side,
        mut line: Line,
        announced: Option<Vec<String>>,
        cx: &mut Context<'_>,
    ) {
        self.set_now(cx);
        let now = self.now.monotonic;
        let ours = announced.is_some();
        (line.heard, line.pinged) = (now, now);
        let process = line.process;
        if let Some(older) = self.line(side).replace(line) {
            assert_eq!(older.process, process, "there is one process an end");
            cx.net.release(older.wire, Place::Server, cx.now);
        }
        self.pairing.attach(side, announced);
        self.tell_features(Side::Client, cx);
        self.tell_features(Side::Node, cx);
        self.met |= self.client.is_some() && self.node.is_some();
        match side {
            Side::Client => {
                self.client_done = false;
                self.touch();
                self.must_start |= self.life.client_opened(now);
            }
            Side::Node => self.life.node_opened(ours),
        }
    }

    fn start_node(&mut self, control: Option<&ControlLine>, cx: &mut Context<'_>) {
        self.must_start = false;
        if let Some(control) = control {
            cx.net
                .send(control.wire, Place::Server, Message::Start, cx.now, cx.dice);
            self.life.start_sent();
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
        let view = self.view(control);
        self.life
            .node_online(ours, listed, view, self.now.monotonic);
        if self.life.is_starting() {
            self.start_node(control, cx);
        }
    }

    fn tell_features(&mut self, side: Side, cx: &mut Context<'_>) {
        let Some(common) = self.pairing.features_due(side) else {
            return;
        };
        let process = self.line(side).as_ref().map_or(0, |line| line.process);
        let body = Features {
            version: "0.1.0".to_owned(),
            features: common.clone(),
            ticket: Some(ticket_of(side, process).into()),
        };
        let message = service::sortie_features(cx.stamp(), &body);
        self.pairing.tell_features(side, common, message);
    }

    fn touch(&mut self) {
        // What control hears is flushed later: a killed server forgets it.
        self.idle.touch(self.now);
    }

    // Decisions.

    fn advance(&mut self, control: Option<&ControlLine>, cx: &mut Context<'_>) {
        self.set_now(cx);
        self.run_out(control);
        if self.life.is_ending() {
            self.end(control, cx);
        }
        self.pairing.settle(self.now.monotonic, &mut || cx.stamp());
        self.ping(Side::Client, cx);
        self.ping(Side::Node, cx);
        self.ask_client(cx);
        self.take_note(control, cx);
        self.arm(control);
    }

    fn run_out(&mut self, control: Option<&ControlLine>) {
        if self.life.is_ending() {
            return;
        }
        let now = self.now.monotonic;
        let due = earliest([self.life.deadline(), Some(self.idle.deadline())]);
        if due.is_none_or(|due| now < due) && !self.pairing.overflows() {
            return;
        }
        let expired = self.life.expired(self.view(control), now);
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

    fn end(&mut self, control: Option<&ControlLine>, cx: &mut Context<'_>) {
        let now = self.now.monotonic;
        let text = self.life.cause().map(Cause::text).unwrap_or_default();
        if !self.client_done {
            match self.life.client_half(self.view(control), now) {
                ClientHalf::Tell => {
                    let message = closed(self.row.id.as_str(), &text, cx);
                    self.pairing.tell(Side::Client, message);
                    self.life.client_told(now);
                }
                ClientHalf::Wait(_) => {}
                ClientHalf::Done => {
                    self.client_done = true;
                    if let Some(line) = self.client.take() {
                        self.pairing.detach(Side::Client, now);
                        cx.net.release(line.wire, Place::Server, cx.now);
                    }
                }
            }
        }
        if self.life.node_due(self.view(control)) {
            if let Some(control) = control {
                cx.net
                    .send(control.wire, Place::Server, Message::End, cx.now, cx.dice);
            }
            let message = closed(self.row.id.as_str(), &text, cx);
            self.pairing.tell(Side::Node, message);
            self.life.node_told(now);
        }
    }

    fn ping(&mut self, side: Side, cx: &mut Context<'_>) {
        let (interval, limit) = (self.options.ping_interval, self.options.data_silence);
        let now = self.now.monotonic;
        let Some(line) = self.line(side) else {
            return;
        };
        if now.saturating_sub(line.heard) >= limit {
            return self.lost(side, cx);
        }
        if now.saturating_sub(line.heard.max(line.pinged)) < interval {
            return;
        }
        line.pinged = now;
        let wire = line.wire;
        cx.net
            .send(wire, Place::Server, Message::Ping(0), cx.now, cx.dice);
    }

    fn ask_client(&mut self, cx: &mut Context<'_>) {
        let Some(line) = &self.client else { return };
        if let Some(question) = self.pairing.question(self.now.monotonic) {
            let question = Message::Ping(question);
            cx.net
                .send(line.wire, Place::Server, question, cx.now, cx.dice);
        }
    }

    fn take_note(&mut self, control: Option<&ControlLine>, cx: &mut Context<'_>) {
        if self.note.is_some() {
            return;
        }
        let noted = if std::mem::take(&mut self.must_read) {
            Some(Noted::Read)
        } else if let Some(end) = self.due_end(control) {
            self.ending_noted = true;
            Some(Noted::Ended(end))
        } else {
            self.due_state(control).map(Noted::State)
        };
        if let Some(noted) = noted {
            // Commits are grouped, and a disk is slow. A read sees the row as it is then.
            let takes = cx.dice.millis(1, 12);
            self.note = Some((cx.now + takes, noted));
        }
    }

    fn due_end(&self, control: Option<&ControlLine>) -> Option<End> {
        if !self.client_done || self.ending_noted {
            return None;
        }
        let half = self.life.node_half(self.view(control), self.now.monotonic);
        self.life.end().filter(|_| half == NodeHalf::Done)
    }

    fn due_state(&self, control: Option<&ControlLine>) -> Option<SessionState> {
        let now = self.now.monotonic;
        let state = if self.life.is_ending() {
            let view = self.view(control);
            let client = if self.client_done {
                ClientHalf::Done
            } else {
                self.life.client_half(view, now)
            };
            if !self.life.shows_terminating(client, view, now) {
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

    fn arm(&mut self, control: Option<&ControlLine>) {
        let now = self.now.monotonic;
        let options = &self.options;
        let silence = |line: &Option<Line>| {
            let line = line.as_ref()?;
            Some(
                (line.heard.max(line.pinged) + options.ping_interval)
                    .min(line.heard + options.data_silence),
            )
        };
        let ending = if self.life.is_ending() {
            self.life.ending_deadline(self.view(control), now)
        } else {
            earliest([self.life.deadline(), Some(self.idle.deadline())])
        };
        self.armed = earliest([
            ending,
            self.pairing.deadline(now),
            silence(&self.client),
            silence(&self.node),
        ]);
    }

    // Moving bytes.

    fn poll(
        &mut self,
        disk: &mut Disk,
        control: Option<&ControlLine>,
        cx: &mut Context<'_>,
    ) -> bool {
        self.set_now(cx);
        let mut moved = false;
        if self.must_start {
            self.start_node(control, cx);
        }
        moved |= self.poll_read(Side::Client, cx);
        moved |= self.poll_read(Side::Node, cx);
        moved |= self.poll_write(Side::Node, cx);
        moved |= self.poll_write(Side::Client, cx);
        moved |= self.poll_note(disk, cx);
        moved
    }

    fn poll_note(&mut self, disk: &mut Disk, cx: &mut Context<'_>) -> bool {
        let Some((_, noted)) = self.note.take_if(|(at, _)| *at <= cx.now) else {
            return false;
        };
        match noted {
            Noted::Ended(end) => {
                cx.trace.note(cx.now, &end.reason, u64::from(end.failed));
                disk.end(&end);
                self.over = true;
            }
            Noted::State(state) => {
                disk.set_state(state);
                self.written = state;
            }
            Noted::Read => {
                let row = &disk.row;
                if row.state == SessionState::Terminating || row.state.is_over() {
                    self.written = row.state;
                    self.begin(Cause::of_row(row));
                }
            }
        }
        true
    }

    fn poll_read(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let born = self.born;
        let mut moved = false;
        while self.pairing.may_read(side) {
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
            line.heard = cx.now.saturating_sub(born);
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
                    self.pairing
                        .answered(question, cx.now - born, &mut || cx.stamp());
                }
                Message::Pong(_) => {}
                other => panic!("{other:?} on a data channel"),
            }
        }
        moved
    }

    fn frame(&mut self, side: Side, frame: Frame, cx: &mut Context<'_>) {
        let now = self.now.monotonic;
        let heard = self.pairing.receive(side, frame, now, &mut || cx.stamp());
        if heard.activity {
            self.touch();
        }
        if heard.terminating {
            self.begin(Cause::Exited);
        }
    }

    fn poll_write(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(line) = self.line(side) {
            let wire = line.wire;
            if !cx.net.has_room(wire, Place::Server) {
                break;
            }
            let Some(bytes) = self.pairing.pop(side, self.now.monotonic) else {
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
            let now = self.now.monotonic;
            self.pairing.detach(side, now);
            if side == Side::Node {
                self.life.node_closed(now);
            }
        }
    }

    /// Frees the sockets.
    fn leave(&mut self, cx: &mut Context<'_>) {
        for line in [self.client.take(), self.node.take()].into_iter().flatten() {
            cx.net.release(line.wire, Place::Server, cx.now);
        }
    }
}
