//! The two ends of one session and everything that passes between them. Pure: frames, times and
//! stamps go in, frames come out.
//!
//! Ends come and go in any order and any number of times. What passes is the sender's bytes, in the
//! sender's order. What the gateway adds are the cures that two official peers need: repeats of what
//! the client has acknowledged are answered here, an agent whose client is away or slow is paused, and
//! a multiplexing client is left alone for a moment after its handshake.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use sortie_channel::{
    body::{Acknowledge, AgentSessionState, Body, SESSION_TERMINATING},
    features,
    frame::{Frame, PayloadType},
    service::{self, Stamp},
    streams::RefusalCode,
};
use sortie_control::Side;

use crate::{
    check::{Verdict, judge},
    hold::MuxHold,
    kind::SessionKind,
    numbers::Numbers,
    outbox::Outbox,
    publication::{Order, Pressure, Publication},
    spool::{SpoolGate, SpoolLimits, SpoolWork},
    streams::{Passed, Question, StreamGate},
};

/// Acknowledgements that are given to a node again on its next websocket, since those that were on
/// the old one when it broke may be lost, and an official agent recovers only five a second.
const RECENT_ACKS: usize = 64;

/// How often an official client that does not answer is asked, at most, what it has read.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long an official client takes, at most, to start its plugin once it has the data that it
/// expects. Until then it drops that message and its repeats.
const GET_READY: Duration = Duration::from_secs(2);

/// Bytes that may wait, and how patient the gateway is with an absent client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) pause_delay: Duration,
    pub(crate) pause_above: usize,
    pub(crate) resume_below: usize,
    pub(crate) input: usize,
    pub(crate) output: usize,
    /// `None`: there is no disk for output.
    pub(crate) spool: Option<SpoolLimits>,
}

/// What a frame meant to the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// It shows that the session is in use.
    pub(crate) activity: bool,
    /// The process on the node has ended and all its output was sent.
    pub(crate) terminating: bool,
}

/// Makes the stamp of a message of the gateway's own.
pub(crate) type Stamps<'a> = &'a mut dyn FnMut() -> Stamp;

/// One end.
#[derive(Debug, Default)]
struct End {
    attached: bool,
    away_since: Option<Duration>,
    /// Known since the end first came: the features it announced, or `None` for an official one.
    announced: Option<Option<Vec<String>>>,
    /// The common features that it was told on its present websocket.
    told: Option<Vec<String>>,
    outbox: Outbox,
    newest: Option<i64>,
    dropped: u64,
}

impl End {
    fn is_official(&self) -> bool {
        matches!(self.announced, Some(None))
    }
}

/// Both ends of a session.
#[derive(Debug)]
pub(crate) struct Pairing {
    kind: SessionKind,
    limits: Limits,
    client: End,
    node: End,
    /// Output numbers that the client has acknowledged.
    acknowledged: Numbers,
    /// Taken up after a restart: what was sent before is not known.
    restored: bool,
    recent_acks: VecDeque<Bytes>,
    /// The smallest number that the client acknowledged. After a restart, what comes behind it was
    /// never given to the client before.
    least_acknowledged: Option<i64>,
    /// When the client was asked what it has read, until it answers.
    asked: Option<Duration>,
    /// From when on the plugin of an official client certainly takes data, and goes on doing so.
    takes_data_from: Option<Duration>,
    /// What went to the client before that was repeated.
    has_repeated: bool,
    encrypted: bool,
    hold: MuxHold,
    publication: Publication,
    pub(crate) streams: StreamGate,
    /// Present where output may go to disk.
    spool: Option<SpoolGate>,
}

impl Pairing {
    /// `restored`: the session is taken up after a restart, so its start is long past.
    pub(crate) fn new(kind: SessionKind, limits: Limits, restored: bool, now: Duration) -> Self {
        let away = || End {
            away_since: Some(now),
            ..End::default()
        };
        Self {
            kind,
            limits,
            client: away(),
            node: away(),
            acknowledged: Numbers::default(),
            restored,
            recent_acks: VecDeque::new(),
            least_acknowledged: None,
            asked: None,
            takes_data_from: None,
            has_repeated: false,
            encrypted: false,
            hold: MuxHold::default(),
            publication: Publication::new(
                limits.pause_delay,
                limits.pause_above,
                limits.resume_below,
            ),
            streams: StreamGate::new(kind.chooses, restored, now),
            spool: limits.spool.filter(|_| !kind.pausable).map(SpoolGate::new),
        }
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.client,
            Side::Node => &self.node,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Node => &mut self.node,
        }
    }

    /// An end has a (new) websocket. `announced`: its features when it is one of ours.
    pub(crate) fn attach(&mut self, side: Side, announced: Option<Vec<String>>) {
        let end = self.end_mut(side);
        end.attached = true;
        end.away_since = None;
        end.announced = Some(announced);
        end.told = None;
        end.outbox.reconnected();
        if side == Side::Node {
            self.publication.reconnected();
            for ack in &self.recent_acks {
                self.node.outbox.push(ack.clone());
            }
        }
    }

    /// An end's websocket is gone.
    pub(crate) fn detach(&mut self, side: Side, now: Duration) {
        let end = self.end_mut(side);
        end.attached = false;
        end.away_since = Some(now);
    }

    /// Whether the end is one of ours; `None` while it has not come.
    pub(crate) fn is_ours(&self, side: Side) -> Option<bool> {
        self.end(side).announced.as_ref().map(Option::is_some)
    }

    /// The features that the end announced, none for an official one.
    pub(crate) fn announced(&self, side: Side) -> &[String] {
        self.end(side)
            .announced
            .iter()
            .flatten()
            .next()
            .map_or(&[], Vec::as_slice)
    }

    /// The common features that an announcing end is to be told now, or again.
    pub(crate) fn features_due(&self, side: Side) -> Option<Vec<String>> {
        let (this, other) = match side {
            Side::Client => (&self.client, &self.node),
            Side::Node => (&self.node, &self.client),
        };
        let mine = this
            .announced
            .as_ref()?
            .as_ref()
            .filter(|_| this.attached)?;
        let common = match other.announced.as_ref()? {
            Some(theirs) => {
                // What this server does not know, it would not relay as it should.
                let mut common = features::common(mine, theirs);
                common.retain(|name| features::ALL.contains(&name.as_str()));
                common
            }
            None => Vec::new(),
        };
        (this.told.as_ref() != Some(&common)).then_some(common)
    }

    /// The message that tells an end the common features; it goes before everything that waits.
    pub(crate) fn tell_features(&mut self, side: Side, common: Vec<String>, message: Bytes) {
        let end = self.end_mut(side);
        end.told = Some(common);
        end.outbox.push_own_first(message);
    }

    /// Queues a message of the gateway's own behind everything that waits.
    pub(crate) fn tell(&mut self, side: Side, message: Bytes) {
        self.end_mut(side).outbox.push_own(message);
    }

    /// Takes in a frame. What it leads to is queued.
    pub(crate) fn receive(
        &mut self,
        from: Side,
        frame: Frame,
        now: Duration,
        stamps: Stamps<'_>,
    ) -> Heard {
        match judge(from, &frame, self.encrypted) {
            Verdict::Stream => self.stream(from, frame, now, stamps),
            Verdict::Acknowledge => self.acknowledge(from, frame, now, stamps),
            Verdict::SessionState => session_state(&frame),
            Verdict::Drop => {
                self.dropped(from);
                Heard::default()
            }
        }
    }

    /// Counts a message that was not passed on. The number of messages dropped so far.
    pub(crate) fn dropped(&mut self, from: Side) -> u64 {
        let end = self.end_mut(from);
        end.dropped += 1;
        end.dropped
    }

    /// How many messages of an end were not passed on.
    pub(crate) fn dropped_so_far(&self, from: Side) -> u64 {
        self.end(from).dropped
    }

    fn stream(&mut self, from: Side, frame: Frame, now: Duration, stamps: Stamps<'_>) -> Heard {
        let number = frame.sequence_number();
        let end = self.end_mut(from);
        let is_new = end.newest.is_none_or(|newest| number > newest);
        if is_new {
            end.newest = Some(number);
        }
        let activity = is_new && self.kind.is_activity(from, &frame);
        let heard = Heard {
            activity,
            ..Heard::default()
        };
        let frame = if self.kind.port {
            match self.streams.pass(from, frame, is_new, now) {
                Passed::Frame(frame) => frame,
                Passed::Held => return heard,
            }
        } else {
            frame
        };
        match from {
            Side::Client => {
                self.hold.input(&frame);
                let is_typed = matches!(
                    frame.payload_type(),
                    PayloadType::OUTPUT | PayloadType::SIZE
                );
                if is_typed && !self.kind.port {
                    // Only a plugin that has started reads the terminal.
                    self.client_takes_data(now);
                }
                self.queue_input(frame);
            }
            Side::Node if self.acknowledged.contains(number) => {
                // A node that repeats without reading the answers asks again later.
                if self.node.outbox.waiting() < self.limits.input {
                    let answer = service::acknowledge_of(stamps(), &frame);
                    self.node.outbox.push(answer);
                    self.publication.traffic();
                }
            }
            Side::Node => {
                self.encrypted |= frame.payload_type() == PayloadType::ENC_CHALLENGE_REQUEST;
                let waiting = self.client.outbox.waiting();
                let frame = match &mut self.spool {
                    Some(spool) if self.node.is_official() => spool.take(frame, is_new, waiting),
                    _ => Some(frame),
                };
                if let Some(frame) = frame {
                    self.queue_output(frame);
                }
            }
        }
        heard
    }

    fn queue_output(&mut self, frame: Frame) {
        let number = frame.sequence_number();
        let again = self.restored && self.least_acknowledged.is_none_or(|least| number < least);
        self.client.outbox.push_stream(frame, again);
    }

    /// What is to be done with output on disk now.
    pub(crate) fn spool_work(&mut self) -> Option<SpoolWork> {
        let waiting = self.client.outbox.waiting();
        let spool = self.spool.as_mut()?;
        let work = spool.work(waiting);
        for frame in spool.rest(waiting) {
            self.queue_output(frame);
        }
        work
    }

    /// That is done.
    pub(crate) fn spool_worked(&mut self, outcome: std::io::Result<Option<Bytes>>) {
        let frames = self
            .spool
            .as_mut()
            .map_or_else(Vec::new, |spool| spool.worked(outcome));
        for frame in frames {
            self.queue_output(frame);
        }
    }

    fn spooled(&self) -> usize {
        self.spool.as_ref().map_or(0, SpoolGate::held)
    }

    fn queue_input(&mut self, frame: Frame) {
        self.node.outbox.push_stream(frame, false);
        self.publication.traffic();
    }

    /// What was asked about streams is decided: a frame that waited for it goes on.
    pub(crate) fn streams_judged(
        &mut self,
        question: Question,
        decision: Result<(), (RefusalCode, String)>,
        now: Duration,
    ) {
        if let Some(frame) = self.streams.answered(question, decision, now) {
            self.queue_input(frame);
        }
    }

    fn acknowledge(
        &mut self,
        from: Side,
        frame: Frame,
        now: Duration,
        stamps: Stamps<'_>,
    ) -> Heard {
        let Ok(body) = Acknowledge::parse(&frame.payload()) else {
            self.dropped(from);
            return Heard::default();
        };
        let (number, cumulative) = (body.sequence_number, body.cumulative == Some(true));
        match from {
            // Some clients acknowledge whatever they receive under its number, which is 0 for all that
            // is no output. Taken at its word, that would swallow the first output.
            Side::Client if self.was_never_sent(number) => {
                self.dropped(from);
            }
            Side::Client => {
                let dropped = self.output_acknowledged(number, cumulative, now);
                self.answer_for(dropped, stamps);
                self.acknowledge_to_node(frame.into_bytes());
            }
            Side::Node => {
                self.streams.acknowledged(number, cumulative);
                if cumulative {
                    self.node.outbox.acknowledged_up_to(number);
                } else {
                    self.node.outbox.acknowledged(number);
                }
                if self.hold_applies() && self.hold.acknowledged(number) {
                    self.client.outbox.push_first(frame.into_bytes());
                } else {
                    self.client.outbox.push(frame.into_bytes());
                }
            }
        }
        Heard::default()
    }

    fn was_never_sent(&self, number: i64) -> bool {
        !self.restored && self.node.newest.is_none_or(|newest| number > newest)
    }

    fn acknowledge_to_node(&mut self, bytes: Bytes) {
        if self.recent_acks.len() == RECENT_ACKS {
            self.recent_acks.pop_front();
        }
        self.recent_acks.push_back(bytes.clone());
        self.node.outbox.push(bytes);
        self.publication.traffic();
    }

    /// The client has had these, and will not say so. The node is told at once: left to repeat each
    /// until it is answered, one that has many would take minutes, and could not leave before.
    fn answer_for(&mut self, dropped: Vec<Bytes>, stamps: Stamps<'_>) {
        for bytes in dropped {
            let Ok(frame) = Frame::parse(bytes) else {
                continue;
            };
            self.acknowledged.insert(frame.sequence_number());
            if self.node.outbox.waiting() < self.limits.input {
                self.acknowledge_to_node(service::acknowledge_of(stamps(), &frame));
            }
        }
    }

    /// What turns out to have been dropped in silence.
    fn output_acknowledged(&mut self, number: i64, cumulative: bool, now: Duration) -> Vec<Bytes> {
        if cumulative {
            self.acknowledged.insert_up_to(number);
            self.client.outbox.acknowledged_up_to(number);
            return Vec::new();
        }
        let mut dropped = Vec::new();
        // Only an official client drops repeats in silence.
        if self.client.is_official() {
            let was_silent = self.client.outbox.arrived_before(number);
            self.client_was_silent(was_silent, now);
            dropped = self.client.outbox.take_dropped_before(number);
        }
        self.acknowledged.insert(number);
        let least = self.least_acknowledged.get_or_insert(number);
        *least = number.min(*least);
        let in_order = self.client.outbox.acknowledged(number);
        // After a restart, what waits before it is not known.
        if in_order && (self.kind.port || !self.restored) {
            self.client_takes_data(now);
        }
        dropped
    }

    fn client_takes_data(&mut self, from: Duration) {
        let known = self.takes_data_from.get_or_insert(from);
        *known = from.min(*known);
    }

    /// The client of anything but a port was silent about data: it has had it, or it is the expected
    /// one, which sets its plugin off. That of a port takes data when a local connection comes.
    fn client_was_silent(&mut self, about_data: bool, now: Duration) {
        if about_data && !self.kind.port {
            self.client_takes_data(now + GET_READY);
        }
    }

    /// What an official client is to be pinged with now: it answers behind whatever it was sent, so
    /// what it has not acknowledged by then it has dropped as a repeat.
    pub(crate) fn question(&mut self, now: Duration) -> Option<u64> {
        let due = self.asked.is_none_or(|asked| now >= asked + ASK_EVERY);
        if !due || !self.client.attached || !self.client.is_official() {
            return None;
        }
        let question = self.client.outbox.question()?;
        self.asked = Some(now);
        Some(question)
    }

    /// The client has answered such a ping.
    pub(crate) fn answered(&mut self, question: u64, now: Duration, stamps: Stamps<'_>) {
        if !self.client.is_official() {
            return;
        }
        self.asked = None;
        let was_silent = self.client.outbox.arrived_up_to(question);
        self.client_was_silent(was_silent, now);
        let dropped = self.client.outbox.take_dropped_up_to(question);
        self.answer_for(dropped, stamps);
    }

    fn hold_applies(&self) -> bool {
        self.kind.mux && self.client.is_official()
    }

    /// The next message for an end's websocket.
    pub(crate) fn pop(&mut self, to: Side, now: Duration) -> Option<Bytes> {
        if !self.end(to).attached {
            return None;
        }
        if to == Side::Client && self.hold_applies() {
            self.hold.admit(self.client.outbox.next_type()?, now).ok()?;
        }
        let takes_data = self.takes_data_from.is_some_and(|from| now >= from);
        self.end_mut(to).outbox.pop(takes_data)
    }

    /// Tells an official node to pause or to go on, when it is time.
    pub(crate) fn settle(&mut self, now: Duration, stamps: Stamps<'_>) {
        if self.repeat_at().is_some_and(|at| now >= at) {
            self.has_repeated = true;
            self.client.outbox.repeat_doubtful();
        }
        match self.publication.decide(self.pressure(), now) {
            Some(Order::Pause) => {
                self.node
                    .outbox
                    .push_own(service::pause_publication(stamps()));
            }
            Some(Order::Start) => {
                self.node
                    .outbox
                    .push_own(service::start_publication(stamps()));
            }
            None => {}
        }
    }

    /// When what an official client may have dropped because it took no data yet goes again, once.
    fn repeat_at(&self) -> Option<Duration> {
        let may = self.client.attached && self.client.is_official() && !self.has_repeated;
        self.takes_data_from.filter(|_| may)
    }

    fn pressure(&self) -> Pressure {
        Pressure {
            possible: self.kind.pausable && self.node.attached && self.node.is_official(),
            client_away_since: self.client.away_since,
            // Our own client takes what it has no room for and does not acknowledge it.
            undelivered: self.client.outbox.unacknowledged(),
        }
    }

    /// Whether more may be read from an end. A node is always read while the session lasts, since an
    /// official agent that cannot write loses what it has.
    pub(crate) fn may_read(&self, from: Side) -> bool {
        match from {
            Side::Client => {
                !self.streams.is_asking() && self.node.outbox.waiting() < self.limits.input
            }
            Side::Node => !self.overflows(),
        }
    }

    /// Whether more output waits than is held for a client.
    pub(crate) fn overflows(&self) -> bool {
        let is_too_much = self.spool.as_ref().is_some_and(SpoolGate::overflows);
        is_too_much || self.client.outbox.waiting() > self.limits.output
    }

    /// Bytes that wait for an end.
    pub(crate) fn waiting(&self, to: Side) -> usize {
        let spooled = match to {
            Side::Client => self.spooled(),
            Side::Node => 0,
        };
        self.end(to).outbox.waiting().saturating_add(spooled)
    }

    /// Whether a message that was taken in for an end will get there without its sender's help, or has
    /// got there.
    #[cfg(test)]
    pub(crate) fn answers_for(&self, to: Side, number: i64) -> bool {
        let has_arrived = to == Side::Client && self.acknowledged.contains(number);
        let is_held = to == Side::Node && self.streams.holds(number);
        has_arrived || is_held || self.end(to).outbox.will_write(number)
    }

    /// Whether an end has not taken everything.
    pub(crate) fn unfinished(&self, to: Side) -> bool {
        let is_spooled = to == Side::Client && self.spooled() > 0;
        is_spooled || self.end(to).outbox.unfinished()
    }

    /// When something is due by the mere passing of time.
    pub(crate) fn deadline(&self, now: Duration) -> Option<Duration> {
        let held = if self.client.attached && self.hold_applies() {
            let next = self.client.outbox.next_type();
            next.and_then(|next| self.hold.admit_at(next, now))
        } else {
            None
        };
        earliest([
            held,
            self.repeat_at(),
            self.streams.deadline(),
            self.publication.deadline(self.pressure()),
        ])
    }
}

/// The earliest of some deadlines.
pub(crate) fn earliest(deadlines: impl IntoIterator<Item = Option<Duration>>) -> Option<Duration> {
    deadlines.into_iter().flatten().min()
}

fn session_state(frame: &Frame) -> Heard {
    let state = AgentSessionState::parse(&frame.payload());
    let terminating = state.is_ok_and(|state| state.session_state == SESSION_TERMINATING);
    Heard {
        terminating,
        ..Heard::default()
    }
}

/// Frames and rows for the tests of this crate.
#[cfg(test)]
pub(crate) mod testing {
    use serde_json::Value;
    use sortie_channel::frame::{MessageType, NewFrame};
    use sortie_ports::{Session, SessionState};
    use sortie_types::{Arn, Timestamp, UniqueId, UniqueIdKind};
    use uuid::Uuid;

    use super::*;

    pub(crate) fn frame(
        message_type: MessageType,
        sequence_number: i64,
        payload_type: PayloadType,
        payload: &[u8],
    ) -> Frame {
        let new = NewFrame {
            message_type,
            sequence_number,
            flags: 0,
            message_id: Uuid::new_v4(),
            payload_type,
            payload,
            created: Timestamp::from_millis(1_777_881_600_000),
            digest: true,
        };
        Frame::parse(new.encode().unwrap()).unwrap()
    }

    pub(crate) fn stamp() -> Stamp {
        Stamp::new(Uuid::new_v4(), Timestamp::from_millis(1_777_881_600_000))
    }

    pub(crate) fn session(document: Value) -> Session {
        Session {
            id: "alice-0123456789abcdef0".parse().unwrap(),
            target: "mi-0123456789abcdef0".parse().unwrap(),
            owner: Arn::new("iam", "", "111122223333", "user/alice"),
            owner_unique_id: UniqueId::from_random(UniqueIdKind::User, [1; 17]),
            document_name: "SSM-SessionManagerRunShell".into(),
            document_content: document,
            parameters: serde_json::json!({}),
            reason: None,
            state: SessionState::Connecting,
            end_reason: None,
            started: Timestamp::from_millis(0),
            ended: None,
            idle_timeout_seconds: 1200,
            max_duration_seconds: None,
            client_epoch: 0,
            node_epoch: 0,
            last_activity: Timestamp::from_millis(0),
            request_context: serde_json::json!({}),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sortie_channel::{frame::MessageType, streams};

    use super::{
        testing::{frame, stamp},
        *,
    };

    const LIMITS: Limits = Limits {
        pause_delay: Duration::from_millis(250),
        pause_above: 4000,
        resume_below: 1000,
        input: 16_000,
        output: 64_000,
        spool: None,
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn official(document: serde_json::Value) -> Pairing {
        let mut pairing = Pairing::new(SessionKind::of(&document), LIMITS, false, Duration::ZERO);
        pairing.attach(Side::Client, None);
        pairing.attach(Side::Node, None);
        pairing
    }

    fn shell() -> Pairing {
        official(json!({"sessionType": "Standard_Stream"}))
    }

    fn output(number: i64) -> Frame {
        frame(
            MessageType::OutputStreamData,
            number,
            PayloadType::OUTPUT,
            b"out",
        )
    }

    fn input(number: i64) -> Frame {
        frame(
            MessageType::InputStreamData,
            number,
            PayloadType::OUTPUT,
            b"in",
        )
    }

    fn ack(of: &Frame) -> Frame {
        Frame::parse(service::acknowledge_of(stamp(), of)).unwrap()
    }

    fn give(pairing: &mut Pairing, from: Side, frame: &Frame) -> Heard {
        pairing.receive(from, frame.clone(), ms(0), &mut stamp)
    }

    fn give_all(pairing: &mut Pairing, from: Side, frames: &[Frame]) {
        for frame in frames {
            give(pairing, from, frame);
        }
    }

    fn taken(pairing: &mut Pairing, to: Side, now: Duration) -> Vec<Frame> {
        std::iter::from_fn(|| pairing.pop(to, now))
            .map(|bytes| Frame::parse(bytes).unwrap())
            .collect()
    }

    fn types(frames: &[Frame]) -> Vec<&str> {
        frames
            .iter()
            .map(|frame| frame.message_type().as_str())
            .collect()
    }

    #[test]
    fn frames_pass_unchanged_and_in_order_both_ways() {
        let mut pairing = shell();
        let sent = [output(0), output(1), output(2)];
        give_all(&mut pairing, Side::Node, &sent);
        assert_eq!(taken(&mut pairing, Side::Client, ms(0)), sent);
        let typed = [input(0), ack(&sent[0]), input(1)];
        give_all(&mut pairing, Side::Client, &typed);
        assert_eq!(taken(&mut pairing, Side::Node, ms(0)), typed);
    }

    #[test]
    fn separated_output_of_an_official_node_goes_to_disk_and_is_never_paused() {
        let limits = Limits {
            spool: Some(SpoolLimits {
                above: 4000,
                below: 1000,
                most: 1 << 20,
            }),
            ..LIMITS
        };
        let separated = json!({"sessionType": "NonInteractiveCommands",
            "properties": {"linux": {"separateOutputStream": true}}});
        let kind = SessionKind::of(&separated);
        let mut pairing = Pairing::new(kind, limits, false, Duration::ZERO);
        pairing.attach(Side::Client, None);
        pairing.attach(Side::Node, None);
        let sent: Vec<Frame> = (0..500).map(output).collect();
        give_all(&mut pairing, Side::Node, &sent);
        pairing.settle(ms(1000), &mut stamp);
        assert!(taken(&mut pairing, Side::Node, ms(1000)).is_empty());
        assert!(pairing.client.outbox.waiting() < 5000);
        assert!(
            pairing.waiting(Side::Client) > 60_000,
            "what is on disk waits too"
        );
        assert!(!pairing.overflows());
        let mut came = taken(&mut pairing, Side::Client, ms(1000));
        for _ in 0..10 {
            assert!(pairing.unfinished(Side::Client));
            if let Some(SpoolWork::Write(bytes)) = pairing.spool_work() {
                panic!("{} bytes are not worth a file", bytes.len());
            }
            came.extend(taken(&mut pairing, Side::Client, ms(1000)));
        }
        assert_eq!(came, sent);

        // Ours has a window instead.
        let mut pairing = Pairing::new(kind, limits, false, Duration::ZERO);
        pairing.attach(Side::Client, None);
        pairing.attach(Side::Node, Some(vec![]));
        give_all(&mut pairing, Side::Node, &sent);
        assert_eq!(taken(&mut pairing, Side::Client, ms(0)).len(), 500);
    }

    #[test]
    fn only_features_that_the_gateway_knows_are_named() {
        let mut pairing = Pairing::new(
            SessionKind::of(&json!({"sessionType": "Port"})),
            LIMITS,
            false,
            Duration::ZERO,
        );
        let announced = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        let both = announced(&["teleport", features::STREAMS, features::NO_DIGEST]);
        pairing.attach(Side::Client, both.clone());
        pairing.attach(Side::Node, both);
        let expected = [features::STREAMS, features::NO_DIGEST].map(ToOwned::to_owned);
        assert_eq!(pairing.features_due(Side::Client), Some(expected.to_vec()));
        assert_eq!(pairing.features_due(Side::Node), Some(expected.to_vec()));
    }

    #[test]
    fn a_client_waits_for_the_decision_about_its_stream_and_the_node_does_not() {
        let mut pairing = Pairing::new(
            SessionKind::of(
                &json!({"sessionType": "Port", "properties": {"type": "SocksForwarding"}}),
            ),
            LIMITS,
            false,
            Duration::ZERO,
        );
        let ours = || Some(vec![features::STREAMS.to_owned()]);
        pairing.attach(Side::Client, ours());
        pairing.attach(Side::Node, ours());
        let destination = r#"{"Host":"db","Port":5432}"#;
        let payload = [&[0, 0, 0, 1], destination.as_bytes()].concat();
        let open = frame(
            MessageType::InputStreamData,
            0,
            streams::payload::OPEN,
            &payload,
        );
        assert!(give(&mut pairing, Side::Client, &open).activity);
        assert!(!pairing.may_read(Side::Client));
        assert!(pairing.may_read(Side::Node));
        assert!(taken(&mut pairing, Side::Node, ms(0)).is_empty());
        give(&mut pairing, Side::Node, &output(0));
        assert_eq!(taken(&mut pairing, Side::Client, ms(0)).len(), 1);
        let question = pairing.streams.question().unwrap();
        pairing.streams_judged(question, Ok(()), ms(1));
        assert!(pairing.may_read(Side::Client));
        assert_eq!(taken(&mut pairing, Side::Node, ms(1)), [open]);
    }

    #[test]
    fn a_repeat_of_what_the_client_acknowledged_is_answered_and_not_forwarded() {
        let mut pairing = shell();
        let first = output(0);
        give(&mut pairing, Side::Node, &first);
        taken(&mut pairing, Side::Client, ms(0));
        give(&mut pairing, Side::Client, &ack(&first));
        assert_eq!(taken(&mut pairing, Side::Node, ms(0)).len(), 1);

        give(&mut pairing, Side::Node, &first);
        assert!(taken(&mut pairing, Side::Client, ms(0)).is_empty());
        let answers = taken(&mut pairing, Side::Node, ms(0));
        assert_eq!(types(&answers), ["acknowledge"]);
        let body = Acknowledge::parse(&answers[0].payload()).unwrap();
        assert_eq!(body.sequence_number, 0);
        assert_eq!(body.message_id, first.message_id().to_string());
        assert_eq!(body.message_type, MessageType::OutputStreamData);
    }

    #[test]
    fn acknowledging_what_was_never_sent_swallows_nothing() {
        let mut pairing = shell();
        give(&mut pairing, Side::Client, &ack(&output(0)));
        assert!(taken(&mut pairing, Side::Node, ms(0)).is_empty());
        give(&mut pairing, Side::Node, &output(0));
        assert_eq!(
            types(&taken(&mut pairing, Side::Client, ms(1))),
            ["output_stream_data"]
        );
        give(&mut pairing, Side::Client, &ack(&output(1)));
        give(&mut pairing, Side::Node, &output(1));
        assert_eq!(
            types(&taken(&mut pairing, Side::Client, ms(2))),
            ["output_stream_data"]
        );
    }

    #[test]
    fn a_node_that_repeats_without_reading_does_not_fill_the_memory() {
        let mut pairing = shell();
        let first = output(0);
        give(&mut pairing, Side::Node, &first);
        give(&mut pairing, Side::Client, &ack(&first));
        for _ in 0..1000 {
            give(&mut pairing, Side::Node, &first);
        }
        assert!(pairing.waiting(Side::Node) < LIMITS.input + 1000);
    }

    #[test]
    fn output_before_the_client_comes_is_queued_once_and_the_agent_paused() {
        let document = json!({"sessionType": "Standard_Stream"});
        let mut pairing = Pairing::new(SessionKind::of(&document), LIMITS, false, Duration::ZERO);
        pairing.attach(Side::Node, None);
        for number in [0, 0, 1, 0, 2] {
            give(&mut pairing, Side::Node, &output(number));
        }
        pairing.settle(ms(249), &mut stamp);
        assert!(taken(&mut pairing, Side::Node, ms(249)).is_empty());
        assert_eq!(pairing.deadline(ms(249)), Some(ms(250)));
        pairing.settle(ms(250), &mut stamp);
        assert_eq!(
            types(&taken(&mut pairing, Side::Node, ms(250))),
            ["pause_publication"]
        );

        pairing.attach(Side::Client, None);
        pairing.settle(ms(400), &mut stamp);
        assert_eq!(
            types(&taken(&mut pairing, Side::Node, ms(400))),
            ["start_publication"]
        );
        let frames = taken(&mut pairing, Side::Client, ms(400));
        assert_eq!(
            frames
                .iter()
                .map(Frame::sequence_number)
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }

    #[test]
    fn a_slow_client_pauses_an_official_agent_but_never_separated_output_or_our_own() {
        let separated = json!({"sessionType": "NonInteractiveCommands",
            "properties": {"linux": {"separateOutputStream": true}}});
        let shell_document = json!({"sessionType": "Standard_Stream"});
        let table = [
            (&shell_document, None, 1),
            (&separated, None, 0),
            (&shell_document, Some(vec![]), 0),
        ];
        for (document, announced, pauses) in table {
            let mut pairing = official(document.clone());
            pairing.attach(Side::Node, announced);
            give_all(
                &mut pairing,
                Side::Node,
                &(0..30).map(output).collect::<Vec<_>>(),
            );
            pairing.settle(ms(0), &mut stamp);
            let told = taken(&mut pairing, Side::Node, ms(0));
            assert_eq!(told.len(), pauses, "{document}");
        }
    }

    #[test]
    fn nothing_more_is_read_from_a_node_that_floods_beyond_the_bound() {
        let mut pairing = shell();
        let mut number = 0;
        while pairing.may_read(Side::Node) {
            give(&mut pairing, Side::Node, &output(number));
            number += 1;
        }
        assert!(pairing.overflows());
        assert!(pairing.waiting(Side::Client) < LIMITS.output + 1000);
    }

    #[test]
    fn input_while_paused_is_followed_by_another_pause() {
        let mut pairing = shell();
        give_all(
            &mut pairing,
            Side::Node,
            &(0..30).map(output).collect::<Vec<_>>(),
        );
        pairing.settle(ms(0), &mut stamp);
        taken(&mut pairing, Side::Node, ms(0));
        give(&mut pairing, Side::Client, &input(0));
        pairing.settle(ms(1), &mut stamp);
        let told = taken(&mut pairing, Side::Node, ms(1));
        assert_eq!(types(&told), ["input_stream_data", "pause_publication"]);
        taken(&mut pairing, Side::Client, ms(1));
        pairing.settle(ms(2), &mut stamp);
        let told = taken(&mut pairing, Side::Node, ms(2));
        assert_eq!(types(&told), [""; 0], "written is not acknowledged");
        for number in 0..30 {
            give(&mut pairing, Side::Client, &ack(&output(number)));
        }
        pairing.settle(ms(2), &mut stamp);
        let told = taken(&mut pairing, Side::Node, ms(2));
        assert_eq!(types(&told).last(), Some(&"start_publication"));
    }

    #[test]
    fn unacknowledged_frames_go_again_when_an_end_comes_back() {
        let mut pairing = shell();
        let sent = [output(0), output(1)];
        give_all(&mut pairing, Side::Node, &sent);
        taken(&mut pairing, Side::Client, ms(0));
        give(&mut pairing, Side::Client, &ack(&sent[0]));
        pairing.detach(Side::Client, ms(1));
        give(&mut pairing, Side::Node, &output(2));
        assert!(taken(&mut pairing, Side::Client, ms(1)).is_empty());
        pairing.attach(Side::Client, None);
        let again = taken(&mut pairing, Side::Client, ms(2));
        assert_eq!(
            again.iter().map(Frame::sequence_number).collect::<Vec<_>>(),
            [1, 2]
        );
    }

    /// Relays frames of the node at a time, and acknowledges the last of them.
    fn output_and_ack(pairing: &mut Pairing, frames: &[&Frame], now: Duration) {
        for frame in frames {
            give(pairing, Side::Node, frame);
        }
        assert_eq!(taken(pairing, Side::Client, now).len(), frames.len());
        if let Some(last) = frames.last() {
            pairing.receive(Side::Client, ack(last), now, &mut stamp);
        }
        taken(pairing, Side::Node, now);
    }

    fn assert_found_out(pairing: &mut Pairing, stuck: &Frame, now: Duration) {
        give(pairing, Side::Node, stuck);
        assert!(taken(pairing, Side::Client, now).is_empty());
        assert_eq!(types(&taken(pairing, Side::Node, now)), ["acknowledge"]);
    }

    #[test]
    fn an_ack_that_was_lost_with_the_clients_websocket_is_found_out() {
        let mut pairing = shell();
        let sent = [output(0), output(1)];
        give_all(&mut pairing, Side::Node, &sent);
        taken(&mut pairing, Side::Client, ms(0));
        give(&mut pairing, Side::Client, &ack(&sent[0]));
        // The client has taken 1, but its acknowledgement went down with the websocket.
        pairing.detach(Side::Client, ms(1));
        pairing.attach(Side::Client, None);
        assert_eq!(taken(&mut pairing, Side::Client, ms(2)), sent[1..]);
        output_and_ack(&mut pairing, &[&output(2)], ms(100));
        assert_found_out(&mut pairing, &sent[1], ms(200));
    }

    #[test]
    fn an_ack_that_was_lost_with_the_server_is_found_out() {
        let document = json!({"sessionType": "Standard_Stream"});
        let mut pairing = Pairing::new(SessionKind::of(&document), LIMITS, true, Duration::ZERO);
        pairing.attach(Side::Node, None);
        pairing.attach(Side::Client, None);
        // The client has taken 7; the server that saw the acknowledgement is gone.
        let seventh = output(7);
        output_and_ack(&mut pairing, &[&seventh, &output(8)], ms(0));
        output_and_ack(&mut pairing, &[&seventh, &output(9)], ms(2000));
        assert_found_out(&mut pairing, &seventh, ms(2100));
    }

    #[test]
    fn a_lost_ack_is_found_out_though_nothing_comes_after() {
        let document = json!({"sessionType": "Standard_Stream"});
        let mut pairing = Pairing::new(SessionKind::of(&document), LIMITS, true, Duration::ZERO);
        pairing.attach(Side::Node, None);
        pairing.attach(Side::Client, None);
        // The client has taken 7, and 8 was lost on the way; the shell is quiet from now on.
        let seventh = output(7);
        let mut found_out = None;
        for at in (0..4000).step_by(200).map(ms) {
            pairing.receive(Side::Node, seventh.clone(), at, &mut stamp);
            if types(&taken(&mut pairing, Side::Node, at)).contains(&"acknowledge") {
                found_out.get_or_insert(at);
            }
            taken(&mut pairing, Side::Client, at);
            if let Some(question) = pairing.question(at) {
                pairing.answered(question, at + ms(20), &mut stamp);
            }
        }
        assert!(found_out.is_some_and(|at| at >= ms(2000)), "{found_out:?}");
    }

    fn numbers_acknowledged(frames: &[Frame]) -> Vec<i64> {
        let acks = frames.iter();
        acks.filter(|frame| *frame.message_type() == MessageType::Acknowledge)
            .map(|frame| {
                Acknowledge::parse(&frame.payload())
                    .unwrap()
                    .sequence_number
            })
            .collect()
    }

    #[test]
    fn all_that_the_client_drops_in_silence_is_acknowledged_to_the_node_at_once() {
        let mut pairing = shell();
        let sent: Vec<Frame> = (0..20).map(output).collect();
        give_all(&mut pairing, Side::Node, &sent);
        taken(&mut pairing, Side::Client, ms(0));
        give(&mut pairing, Side::Client, &ack(&sent[0]));
        // It has taken all of them; the other acknowledgements went down with its websocket.
        pairing.detach(Side::Client, ms(1));
        pairing.attach(Side::Client, None);
        assert_eq!(taken(&mut pairing, Side::Client, ms(2)), sent[1..]);
        taken(&mut pairing, Side::Node, ms(2));
        let question = pairing.question(ms(3)).unwrap();
        pairing.answered(question, ms(4), &mut stamp);
        let told = taken(&mut pairing, Side::Node, ms(4));
        assert_eq!(numbers_acknowledged(&told), (1..20).collect::<Vec<_>>());
        assert!(!pairing.unfinished(Side::Client));
    }

    #[test]
    fn all_that_the_client_had_before_the_server_died_is_acknowledged_once_it_surely_takes_data() {
        let document = json!({"sessionType": "Standard_Stream"});
        let mut pairing = Pairing::new(SessionKind::of(&document), LIMITS, true, Duration::ZERO);
        pairing.attach(Side::Node, None);
        pairing.attach(Side::Client, None);
        let sent: Vec<Frame> = (70..90).map(output).collect();
        give_all(&mut pairing, Side::Node, &sent);
        assert_eq!(taken(&mut pairing, Side::Client, ms(0)), sent);
        let question = pairing.question(ms(1)).unwrap();
        pairing.answered(question, ms(2), &mut stamp);
        pairing.settle(ms(3), &mut stamp);
        assert!(taken(&mut pairing, Side::Client, ms(3)).is_empty());
        assert!(numbers_acknowledged(&taken(&mut pairing, Side::Node, ms(3))).is_empty());
        assert_eq!(pairing.deadline(ms(3)), Some(ms(2002)));

        // A key is pressed: its plugin has started.
        give(&mut pairing, Side::Client, &input(1));
        pairing.settle(ms(4), &mut stamp);
        assert_eq!(taken(&mut pairing, Side::Client, ms(4)), sent);
        let question = pairing.question(ms(5)).unwrap();
        pairing.answered(question, ms(6), &mut stamp);
        let told = taken(&mut pairing, Side::Node, ms(6));
        assert_eq!(numbers_acknowledged(&told), (70..90).collect::<Vec<_>>());
        assert_eq!(pairing.deadline(ms(6)), None, "once is enough");

        // What comes behind an acknowledged one was never given before.
        output_and_ack(&mut pairing, &[&output(90)], ms(7));
        output_and_ack(&mut pairing, &[&output(91), &output(92)], ms(8));
        assert!(pairing.unfinished(Side::Client), "91 may be lost");
    }

    #[test]
    fn a_client_is_asked_only_when_something_went_again_and_not_often() {
        let mut pairing = shell();
        let first = output(0);
        give(&mut pairing, Side::Node, &first);
        taken(&mut pairing, Side::Client, ms(0));
        assert_eq!(pairing.question(ms(100)), None);
        give(&mut pairing, Side::Node, &first);
        taken(&mut pairing, Side::Client, ms(200));
        assert!(pairing.question(ms(200)).is_some());
        assert_eq!(pairing.question(ms(600)), None);
        assert!(pairing.question(ms(700)).is_some());
        give(&mut pairing, Side::Client, &ack(&first));
        assert_eq!(pairing.question(ms(1300)), None);
    }

    #[test]
    fn a_client_that_reads_nothing_for_long_is_not_taken_for_ready() {
        let mut pairing = shell();
        let (first, second) = (output(0), output(1));
        // All of it is read at once, when the client's plugin has not even begun to start.
        for (frame, at) in [(&first, ms(0)), (&first, ms(5000)), (&second, ms(5001))] {
            give(&mut pairing, Side::Node, frame);
            taken(&mut pairing, Side::Client, at);
        }
        pairing.receive(Side::Client, ack(&second), ms(9000), &mut stamp);
        give(&mut pairing, Side::Node, &first);
        assert_eq!(taken(&mut pairing, Side::Client, ms(9100)), [first]);
    }

    #[test]
    fn a_client_that_was_not_ready_when_the_server_died_loses_nothing() {
        let document = json!({"sessionType": "Standard_Stream"});
        let mut pairing = Pairing::new(SessionKind::of(&document), LIMITS, true, Duration::ZERO);
        pairing.attach(Side::Node, None);
        pairing.attach(Side::Client, None);
        // Its plugin starts, so it drops what it expects and takes what is ahead.
        let (first, second) = (output(0), output(1));
        for (frame, at) in [(&first, ms(0)), (&first, ms(300)), (&second, ms(1000))] {
            give(&mut pairing, Side::Node, frame);
            taken(&mut pairing, Side::Client, at);
        }
        give(&mut pairing, Side::Client, &ack(&second));
        give(&mut pairing, Side::Node, &first);
        assert_eq!(taken(&mut pairing, Side::Client, ms(1300)), [first]);
    }

    #[test]
    fn silence_before_the_clients_plugin_is_ready_is_no_acknowledgement() {
        let mut pairing = shell();
        let (first, second) = (output(0), output(1));
        for frame in [&first, &second, &first] {
            give(&mut pairing, Side::Node, frame);
            taken(&mut pairing, Side::Client, ms(0));
        }
        give(&mut pairing, Side::Client, &ack(&second));
        give(&mut pairing, Side::Node, &first);
        assert_eq!(
            taken(&mut pairing, Side::Client, ms(2)),
            [first],
            "it is not lost"
        );
    }

    #[test]
    fn acks_that_were_lost_with_the_nodes_websocket_are_given_again() {
        let mut pairing = shell();
        let first = output(0);
        give(&mut pairing, Side::Node, &first);
        give(&mut pairing, Side::Client, &ack(&first));
        taken(&mut pairing, Side::Node, ms(0));
        pairing.detach(Side::Node, ms(1));
        pairing.attach(Side::Node, None);
        assert_eq!(
            types(&taken(&mut pairing, Side::Node, ms(2))),
            ["acknowledge"]
        );
    }

    #[test]
    fn a_multiplexing_official_client_is_left_alone_after_the_handshake() {
        let port = json!({"sessionType": "Port", "properties": {"type": "LocalPortForwarding"}});
        let mut pairing = official(port.clone());
        let response = frame(
            MessageType::InputStreamData,
            0,
            PayloadType::HANDSHAKE_RESPONSE,
            b"{}",
        );
        let complete = frame(
            MessageType::OutputStreamData,
            1,
            PayloadType::HANDSHAKE_COMPLETE,
            b"{}",
        );
        give(&mut pairing, Side::Client, &response);
        give(&mut pairing, Side::Node, &complete);
        assert!(taken(&mut pairing, Side::Client, ms(0)).is_empty());
        assert_eq!(pairing.deadline(ms(0)), Some(ms(20)));
        give(&mut pairing, Side::Node, &ack(&response));
        give(&mut pairing, Side::Node, &output(2));
        let first = taken(&mut pairing, Side::Client, ms(3));
        assert_eq!(types(&first), ["acknowledge", "output_stream_data"]);
        assert_eq!(first[1], complete);
        assert_eq!(pairing.deadline(ms(3)), Some(ms(103)));
        assert!(taken(&mut pairing, Side::Client, ms(102)).is_empty());
        assert_eq!(taken(&mut pairing, Side::Client, ms(103)).len(), 1);

        let mut ours = official(port);
        ours.attach(Side::Client, Some(vec![]));
        give(&mut ours, Side::Node, &complete);
        give(&mut ours, Side::Node, &output(2));
        assert_eq!(
            taken(&mut ours, Side::Client, ms(0)).len(),
            2,
            "ours needs no hold"
        );
    }

    #[test]
    fn announcing_ends_are_told_the_common_features_once_the_other_is_known() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut pairing = Pairing::new(SessionKind::of(&json!({})), LIMITS, false, Duration::ZERO);
        pairing.attach(Side::Client, Some(names(&["exit-status", "no-digest"])));
        assert_eq!(
            pairing.features_due(Side::Client),
            None,
            "the node is not known"
        );
        pairing.attach(Side::Node, Some(names(&["no-digest", "streams"])));
        assert_eq!(
            pairing.features_due(Side::Client),
            Some(names(&["no-digest"]))
        );
        let message = service::start_publication(stamp());
        pairing.tell_features(Side::Client, names(&["no-digest"]), message);
        assert_eq!(pairing.features_due(Side::Client), None);
        assert_eq!(
            pairing.features_due(Side::Node),
            Some(names(&["no-digest"]))
        );
        pairing.detach(Side::Client, ms(1));
        pairing.attach(Side::Client, Some(names(&["exit-status", "no-digest"])));
        assert_eq!(
            pairing.features_due(Side::Client),
            Some(names(&["no-digest"])),
            "with a new ticket"
        );
        pairing.attach(Side::Node, None);
        assert_eq!(
            pairing.features_due(Side::Client),
            Some(vec![]),
            "the other is official"
        );
        assert_eq!(pairing.features_due(Side::Node), None);
    }

    #[test]
    fn repeats_and_acknowledgements_are_no_activity() {
        let mut pairing = official(json!({"sessionType": "Port"}));
        let first = output(0);
        assert!(give(&mut pairing, Side::Node, &first).activity);
        assert!(!give(&mut pairing, Side::Node, &first).activity);
        assert!(!give(&mut pairing, Side::Client, &ack(&first)).activity);
        let mut pairing = shell();
        assert!(give(&mut pairing, Side::Client, &input(0)).activity);
        assert!(!give(&mut pairing, Side::Client, &input(0)).activity);
        assert!(!give(&mut pairing, Side::Node, &first).activity);
    }

    #[test]
    fn the_nodes_state_is_consumed() {
        let mut pairing = shell();
        let state =
            |state| Frame::parse(service::agent_session_state(stamp(), "s", state)).unwrap();
        assert!(!give(&mut pairing, Side::Node, &state("Connected")).terminating);
        assert!(give(&mut pairing, Side::Node, &state("Terminating")).terminating);
        assert!(taken(&mut pairing, Side::Client, ms(0)).is_empty());
        assert!(!give(&mut pairing, Side::Client, &state("Terminating")).terminating);
        assert_eq!(pairing.dropped_so_far(Side::Client), 1);
    }

    #[test]
    fn a_client_is_not_read_while_its_input_waits_and_too_much_output_is_noticed() {
        let mut pairing = shell();
        let big =
            |message_type, number| frame(message_type, number, PayloadType::OUTPUT, &[7; 8000]);
        assert!(pairing.may_read(Side::Client));
        give(
            &mut pairing,
            Side::Client,
            &big(MessageType::InputStreamData, 0),
        );
        give(
            &mut pairing,
            Side::Client,
            &big(MessageType::InputStreamData, 1),
        );
        assert!(!pairing.may_read(Side::Client));
        assert!(pairing.may_read(Side::Node));
        for number in 0..8 {
            assert!(!pairing.overflows());
            give(
                &mut pairing,
                Side::Node,
                &big(MessageType::OutputStreamData, number),
            );
        }
        assert!(pairing.overflows());
    }

    #[test]
    fn an_acknowledgement_that_cannot_be_read_is_dropped() {
        let mut pairing = shell();
        let broken = frame(MessageType::Acknowledge, 0, PayloadType::NONE, b"not json");
        give(&mut pairing, Side::Client, &broken);
        assert!(taken(&mut pairing, Side::Node, ms(0)).is_empty());
        assert_eq!(pairing.dropped_so_far(Side::Client), 1);
    }
}
