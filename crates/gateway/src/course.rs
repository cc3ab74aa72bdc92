//! The course of one session, step by step: what its task does when time passes, frames come, ends come
//! and go, and rows are read and written. Pure. The task moves the bytes and waits; the simulation
//! drives the same steps with sockets of its own.

use std::time::Duration;

use bytes::Bytes;
use sortie_channel::{
    body::Features,
    features,
    frame::Frame,
    service::{self, Stamp},
    streams::RefusalCode,
};
use sortie_control::{End, Side, StreamEnd, StreamRecords};
use sortie_ports::{Session, SessionState};
use sortie_types::Now;
use tracing::info;
use uuid::Uuid;

use crate::{
    Options,
    idle::{IdleClock, RunOut},
    kind::SessionKind,
    life::{Cause, ClientHalf, Life, NodeHalf, View},
    pairing::{Limits, Pairing, Stamps, earliest},
    spool::SpoolLimits,
    streams::Question,
};

/// Results that wait for their acknowledgement: a failed session has two. More than a node has reason
/// to send are not remembered; it says them again.
const RESULTS: usize = 8;

/// What the course of a session does not know by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outside {
    /// Bytes for the client were written and may not have left.
    pub(crate) client_unflushed: bool,
    /// The node's control channel is open.
    pub(crate) node_online: bool,
}

/// What is to be done with sockets now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The client was told everything: let go of it.
    ReleaseClient,
    /// Tell the node through its control channel that the session is over.
    EndOnNode { text: String },
    /// An end was silent for too long: give its websocket up, as lost.
    GiveUp(Side),
    /// Ask an end whether it is there.
    Ping(Side),
    /// Ping the client with this number, behind what it may have dropped in silence.
    Ask(u64),
}

/// A read or write of the row that is due. There is one at a time; [`Course::noted`] ends it.
#[derive(Debug)]
pub(crate) enum Note {
    Read,
    End(End),
    State(SessionState),
}

/// What it came to.
pub(crate) enum Noted {
    /// The row as it stands, if it could be read.
    Read(Option<Box<Session>>),
    /// Whether the end is on stable storage.
    Ended(bool),
    State(SessionState),
}

/// When an end's websocket last showed life, and was last pinged.
#[derive(Clone, Copy, Debug)]
struct Beat {
    heard: Duration,
    pinged: Duration,
}

/// The waits that are about websockets.
#[derive(Clone, Copy, Debug)]
struct Silence {
    ping: Duration,
    limit: Duration,
}

/// One live session, but for its sockets.
pub(crate) struct Course {
    pub(crate) row: Session,
    pub(crate) kind: SessionKind,
    pub(crate) pairing: Pairing,
    pub(crate) life: Life,
    now: Now,
    idle: IdleClock,
    silence: Silence,
    client: Option<Beat>,
    node: Option<Beat>,
    /// Both ends have been there at one time.
    met: bool,
    client_done: bool,
    must_read: bool,
    is_noting: bool,
    written: SessionState,
    ending_noted: bool,
    /// The node's messages to acknowledge once the end is written.
    results: Vec<Uuid>,
    is_written: bool,
    over: bool,
}

impl Course {
    /// Takes up a session as its row stands.
    pub(crate) fn new(row: Session, options: &Options, now: Now) -> Self {
        let limits = Limits {
            pause_delay: options.pause_delay,
            pause_above: options.pause_above,
            resume_below: options.resume_below,
            input: options.input_limit,
            output: options.output_limit,
            spool: options.spool_directory.is_some().then_some(SpoolLimits {
                above: options.pause_above,
                below: options.resume_below,
                most: options.spool_limit,
            }),
        };
        let kind = SessionKind::of(&row.document_content);
        let restored = row.state != SessionState::Connecting;
        let mut course = Self {
            pairing: Pairing::new(kind, limits, restored, now.monotonic),
            life: Life::new(&row, options, now),
            idle: IdleClock::new(&row, now),
            silence: Silence {
                ping: options.ping_interval,
                limit: options.data_silence,
            },
            now,
            client: None,
            node: None,
            met: restored,
            client_done: false,
            must_read: false,
            is_noting: false,
            written: row.state,
            ending_noted: false,
            results: Vec::new(),
            is_written: false,
            over: false,
            kind,
            row,
        };
        if course.row.state == SessionState::Terminating {
            course.begin(Cause::of_row(&course.row));
        }
        course
    }

    /// The time of the step that goes on.
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    pub(crate) fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// Whether its end is written, as far as it could be.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    fn beat(&mut self, side: Side) -> &mut Option<Beat> {
        match side {
            Side::Client => &mut self.client,
            Side::Node => &mut self.node,
        }
    }

    fn view(&self, outside: Outside) -> View {
        View {
            client_attached: self.client.is_some(),
            client_ours: self.pairing.is_ours(Side::Client),
            client_unfinished: self.pairing.unfinished(Side::Client),
            client_flushed: self.pairing.waiting(Side::Client) == 0 && !outside.client_unflushed,
            node_attached: self.node.is_some(),
            node_online: outside.node_online,
            idle_limit: self.idle.limit(),
        }
    }

    // Decisions: what time and events have made due.

    /// Moves everything on that is due. What is left to be done with sockets goes to `due`.
    pub(crate) fn advance(&mut self, outside: Outside, stamps: Stamps<'_>, due: &mut Vec<Due>) {
        self.run_out(outside);
        if self.life.is_ending() {
            self.end(outside, stamps, due);
        }
        self.pairing.settle(self.now.monotonic, stamps);
        self.pairing.streams.advance(self.now.monotonic);
        self.look_for_silence(Side::Client, due);
        self.look_for_silence(Side::Node, due);
        due.extend(self.pairing.question(self.now.monotonic).map(Due::Ask));
    }

    /// Whether a step depends on what is outside, which is not looked at for every keystroke.
    pub(crate) fn minds_outside(&self) -> bool {
        self.life.is_ending() || self.is_run_out()
    }

    fn is_run_out(&self) -> bool {
        let due = earliest([self.life.deadline(), Some(self.idle.deadline())]);
        due.is_some_and(|due| self.now.monotonic >= due) || self.pairing.overflows()
    }

    /// Whether time or a bound has run out.
    fn run_out(&mut self, outside: Outside) {
        if self.life.is_ending() || !self.is_run_out() {
            return;
        }
        let now = self.now.monotonic;
        let expired = self.life.expired(self.view(outside), now);
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

    /// Starts the ending, unless it has started.
    pub(crate) fn begin(&mut self, cause: Cause) {
        let reason = cause.reason();
        if self.life.begin(cause, self.now.monotonic) {
            info!(session_id = %self.row.id, reason, "session ends");
        }
    }

    /// Moves the ending on.
    fn end(&mut self, outside: Outside, stamps: Stamps<'_>, due: &mut Vec<Due>) {
        let now = self.now.monotonic;
        let text = self.life.cause().map(Cause::text).unwrap_or_default();
        if !self.client_done {
            match self.life.client_half(self.view(outside), now) {
                ClientHalf::Tell => {
                    let message = self.closed(stamps(), &text);
                    self.pairing.tell(Side::Client, message);
                    self.life.client_told(now);
                }
                ClientHalf::Wait(_) => {}
                ClientHalf::Done => {
                    self.client_done = true;
                    if self.client.take().is_some() {
                        self.pairing.detach(Side::Client, now);
                        due.push(Due::ReleaseClient);
                    }
                }
            }
        }
        if self.life.node_due(self.view(outside)) {
            let message = self.closed(stamps(), &text);
            self.pairing.tell(Side::Node, message);
            self.life.node_told(now);
            due.push(Due::EndOnNode { text });
        }
    }

    /// The message that says that the session is over.
    pub(crate) fn closed(&self, stamp: Stamp, text: &str) -> Bytes {
        service::channel_closed(stamp, self.row.id.as_str(), self.row.target.as_str(), text)
    }

    /// Pings a silent end, and gives up one that stays silent.
    fn look_for_silence(&mut self, side: Side, due: &mut Vec<Due>) {
        let (now, silence) = (self.now.monotonic, self.silence);
        let Some(beat) = self.beat(side) else {
            return;
        };
        if now.saturating_sub(beat.heard) >= silence.limit {
            due.push(Due::GiveUp(side));
        } else if now.saturating_sub(beat.heard.max(beat.pinged)) >= silence.ping {
            beat.pinged = now;
            due.push(Due::Ping(side));
        }
    }

    /// The next read or write of the row, unless one is under way.
    pub(crate) fn take_note(&mut self, outside: Outside) -> Option<Note> {
        if self.is_noting {
            return None;
        }
        let note = if std::mem::take(&mut self.must_read) {
            Some(Note::Read)
        } else if let Some(end) = self.due_end(outside) {
            self.ending_noted = true;
            Some(Note::End(end))
        } else {
            self.due_state(outside).map(Note::State)
        };
        self.is_noting = note.is_some();
        note
    }

    fn due_end(&self, outside: Outside) -> Option<End> {
        if !self.client_done || self.ending_noted {
            return None;
        }
        let half = self.life.node_half(self.view(outside), self.now.monotonic);
        self.life.end().filter(|_| half == NodeHalf::Done)
    }

    fn due_state(&self, outside: Outside) -> Option<SessionState> {
        let now = self.now.monotonic;
        let state = if self.life.is_ending() {
            let view = self.view(outside);
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

    /// When something is due next by the mere passing of time.
    pub(crate) fn deadline(&self, outside: Outside) -> Option<Duration> {
        let now = self.now.monotonic;
        let silence = |beat: &Option<Beat>| {
            let beat = beat.as_ref()?;
            let ping = beat.heard.max(beat.pinged) + self.silence.ping;
            Some(ping.min(beat.heard + self.silence.limit))
        };
        let ending = if self.life.is_ending() {
            self.life.ending_deadline(self.view(outside), now)
        } else {
            earliest([self.life.deadline(), Some(self.idle.deadline())])
        };
        earliest([
            ending,
            self.pairing.deadline(now),
            silence(&self.client),
            silence(&self.node),
        ])
    }

    // Events.

    /// An end has a (new) websocket. `announced`: its features when it is one of ours. Whether the node
    /// is to be told to start the session.
    pub(crate) fn attach(&mut self, side: Side, announced: Option<Vec<String>>) -> bool {
        let now = self.now.monotonic;
        let ours = announced.is_some();
        let can = announced
            .iter()
            .flatten()
            .any(|name| name == features::STREAMS);
        if self.kind.needs_streams && !can {
            self.begin(Cause::Incapable { side });
        }
        *self.beat(side) = Some(Beat {
            heard: now,
            pinged: now,
        });
        self.pairing.attach(side, announced);
        self.met |= self.client.is_some() && self.node.is_some();
        match side {
            Side::Client => {
                self.client_done = false;
                self.life.client_opened(now)
            }
            Side::Node => {
                self.life.node_opened(ours);
                false
            }
        }
    }

    /// Tells an announcing end what both can do, where that is due, with the ticket for its next
    /// websocket.
    pub(crate) fn tell_features(
        &mut self,
        side: Side,
        ticket: impl FnOnce() -> Option<sortie_types::Secret>,
        stamps: Stamps<'_>,
    ) {
        let Some(common) = self.pairing.features_due(side) else {
            return;
        };
        let body = Features {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: common.clone(),
            ticket: ticket(),
        };
        let message = service::sortie_features(stamps(), &body);
        self.pairing.tell_features(side, common, message);
    }

    /// An end's websocket is gone.
    pub(crate) fn lost(&mut self, side: Side) {
        if self.beat(side).take().is_some() {
            let now = self.now.monotonic;
            self.pairing.detach(side, now);
            if side == Side::Node {
                self.life.node_closed(now);
            }
        }
    }

    /// Something came from an end.
    pub(crate) fn heard(&mut self, side: Side) {
        let now = self.now.monotonic;
        if let Some(beat) = self.beat(side) {
            beat.heard = now;
        }
    }

    /// Takes in a frame. Whether control should hear that the session is in use.
    pub(crate) fn frame(&mut self, side: Side, frame: Frame, stamps: Stamps<'_>) -> bool {
        let heard = self
            .pairing
            .receive(side, frame, self.now.monotonic, stamps);
        if heard.terminating {
            self.begin(Cause::Exited);
        }
        heard.activity && self.touch()
    }

    /// What control is to decide about streams, one question at a time.
    pub(crate) fn take_question(&mut self) -> Option<Question> {
        self.pairing.streams.question()
    }

    /// It has decided; `Err` says why not.
    pub(crate) fn streams_judged(
        &mut self,
        question: Question,
        decision: Result<(), (RefusalCode, String)>,
    ) {
        let now = self.now.monotonic;
        self.pairing.streams_judged(question, decision, now);
    }

    /// What may be opened may have changed.
    pub(crate) fn judge_streams_again(&mut self) {
        self.pairing.streams.judge_again(self.now.monotonic);
    }

    /// What there is to record of streams now.
    pub(crate) fn take_stream_records(&mut self) -> Option<StreamRecords> {
        self.pairing.streams.take_records(false, self.now)
    }

    /// They are written, or could not be and are to be tried again.
    pub(crate) fn stream_records_written(&mut self, back: Option<StreamRecords>) {
        self.pairing.streams.written(back, self.now.monotonic);
    }

    /// All that there is to record of streams when the session ends here, or goes on elsewhere.
    pub(crate) fn last_stream_records(&mut self) -> Option<StreamRecords> {
        let end = if self.life.is_ending() {
            StreamEnd::SessionEnded
        } else {
            StreamEnd::ServerStopped
        };
        self.pairing.streams.close(&end, self.now.monotonic);
        self.pairing.streams.take_records(true, self.now)
    }

    /// The session is in use. Whether control should hear of it.
    pub(crate) fn touch(&mut self) -> bool {
        self.idle.touch(self.now)
    }

    /// The node's control channel opened, or it listed its sessions. Whether it is to be told to start
    /// this one.
    pub(crate) fn node_online(
        &mut self,
        ours: bool,
        listed: Option<bool>,
        outside: Outside,
    ) -> bool {
        let view = self.view(outside);
        self.life
            .node_online(ours, listed, view, self.now.monotonic);
        self.life.is_starting()
    }

    /// The row may have changed.
    pub(crate) fn changed(&mut self) {
        self.must_read = true;
    }

    /// The node reported a result, in this message.
    pub(crate) fn completed(&mut self, message_id: Uuid, failed: bool, output: String) {
        self.remember(message_id);
        self.begin(Cause::Completed { failed, output });
    }

    /// A result has to be acknowledged once the end is written.
    pub(crate) fn remember(&mut self, message_id: Uuid) {
        if self.results.len() < RESULTS && !self.results.contains(&message_id) {
            self.results.push(message_id);
        }
    }

    /// The results that are to be acknowledged now: none before the end is on stable storage.
    pub(crate) fn take_results(&mut self) -> Vec<Uuid> {
        if self.is_written {
            std::mem::take(&mut self.results)
        } else {
            Vec::new()
        }
    }

    /// A read or write of the row is done.
    pub(crate) fn noted(&mut self, noted: Noted) {
        self.is_noting = false;
        match noted {
            Noted::Ended(is_written) => {
                self.over = true;
                self.is_written = is_written;
            }
            Noted::State(state) => self.written = state,
            Noted::Read(None) => {}
            Noted::Read(Some(row)) => {
                if row.state == SessionState::Terminating || row.state.is_over() {
                    self.written = row.state;
                    self.begin(Cause::of_row(&row));
                }
            }
        }
    }
}
