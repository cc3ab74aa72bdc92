//! The two official programs, as faulty as they are. Each sends a message once and then repeats only
//! the head of its queue; each tries six times to come back and then never again.
//!
//! The client drops what it has had without a word, and what it expects while its plugin starts. The
//! agent stores a message after sending it, so that an acknowledgement that is too quick is ignored;
//! it stops its pump while it is paused, and leaves four seconds after its shell, whatever is undelivered.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use sortie_channel::{
    body::{Acknowledge, Body, ChannelClosed, SESSION_CONNECTED, SESSION_TERMINATING},
    frame::{Frame, MessageType, NewFrame, PayloadType},
    service,
};
use sortie_control::Side;

use super::{
    net::{Message, Place, Purpose},
    ours::Over,
    server::Context,
    talk::{Speech, Transcript},
};

/// The most in one message, and the pause after it.
const PIECE: usize = 1024;
const PACE: Duration = Duration::from_millis(1);
/// How often the head of the queue is looked at.
const SCAN: Duration = Duration::from_millis(100);
/// Tries to come back after the first.
const RETRIES: u32 = 5;
/// How long the agent waits for its queue to empty, twice.
const FLUSH: Duration = Duration::from_secs(2);
const FLOOD: u64 = 30_000;

/// Sent and not acknowledged.
struct Kept {
    number: i64,
    frame: Bytes,
    sent: Duration,
    is_repeat: bool,
}

/// Either program's end of a session.
pub(super) struct OfficialEnd {
    side: Side,
    process: u64,
    wire: Option<u64>,
    tries: u32,
    patience: Duration,
    dial_at: Option<Duration>,
    // Sending.
    next_number: i64,
    kept: VecDeque<Kept>,
    round_trip: Duration,
    variation: Duration,
    scan_at: Duration,
    say_at: Duration,
    paused: bool,
    // Receiving.
    expected: i64,
    early: BTreeMap<i64, Bytes>,
    ready_at: Option<Duration>,
    pub(super) speech: Speech,
    /// It reads nothing until then: a write to its terminal blocks, or it is stopped.
    pub(super) stalled_until: Duration,
    outbox: VecDeque<Bytes>,
    was_announced: bool,
    exiting: Option<Exiting>,
    pub(super) over: Option<Over>,
    is_parted: bool,
}

/// The two waits for the queue to empty.
struct Exiting {
    flush_until: Duration,
    has_told: bool,
}

impl OfficialEnd {
    pub(super) fn new(side: Side, speech: Speech, cx: &mut Context<'_>) -> Self {
        Self {
            side,
            process: cx.dice.next(),
            wire: None,
            tries: 0,
            patience: cx.dice.millis(100, 199),
            dial_at: Some(cx.now),
            next_number: 0,
            kept: VecDeque::new(),
            round_trip: Duration::from_millis(100),
            variation: Duration::ZERO,
            scan_at: cx.now + cx.dice.millis(0, 100),
            say_at: cx.now,
            paused: false,
            expected: 0,
            early: BTreeMap::new(),
            ready_at: None,
            speech,
            stalled_until: Duration::ZERO,
            outbox: VecDeque::new(),
            was_announced: false,
            exiting: None,
            over: None,
            is_parted: false,
        }
    }

    fn purpose(&self) -> Purpose {
        match self.side {
            Side::Client => Purpose::ClientData,
            Side::Node => Purpose::NodeData,
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.wire.is_some()
    }

    /// Nothing of what it sent is unacknowledged.
    pub(super) fn is_drained(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn exit(&mut self, now: Duration) {
        if self.speech.is_over() {
            self.exiting.get_or_insert(Exiting {
                flush_until: now + FLUSH,
                has_told: false,
            });
        }
    }

    pub(super) fn cancel(&mut self) {
        self.over.get_or_insert(Over::Closed(String::new()));
    }

    /// Does whatever can be done now. Whether that was anything. `is_living`: what the API would say.
    pub(super) fn poll(
        &mut self,
        is_living: bool,
        says: &mut Transcript,
        hears: &mut Transcript,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.is_parted || cx.now < self.stalled_until {
            return false;
        }
        let mut moved = self.read(hears, cx);
        moved |= self.notice_loss(cx);
        moved |= self.connect(is_living, cx);
        moved |= self.speak(says, cx);
        moved |= self.scan(cx);
        self.wind_up(cx);
        moved |= self.flush(cx);
        if self.over.is_some() {
            self.is_parted = true;
            moved = true;
            if let Some(wire) = self.wire.take() {
                cx.net.release(wire, Place::Peer, cx.now);
            }
        }
        moved
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(wire) = self.wire
            && let Some(frame) = self.outbox.pop_front()
        {
            let message = Message::Frame(frame);
            cx.net.send(wire, Place::Peer, message, cx.now, cx.dice);
            moved = true;
        }
        moved
    }

    fn read(&mut self, hears: &mut Transcript, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(wire) = self.wire
            && self.over.is_none()
            && let Some(message) = cx.net.receive(wire, Place::Peer, cx.now)
        {
            moved = true;
            match message {
                Message::Frame(bytes) => {
                    let frame = Frame::parse(bytes).expect("servers write frames");
                    self.receive(&frame, hears, cx);
                }
                Message::Ping(question) => {
                    // It answers where it reads, behind its acknowledgements.
                    self.flush(cx);
                    let answer = Message::Pong(question);
                    cx.net.send(wire, Place::Peer, answer, cx.now, cx.dice);
                }
                Message::Pong(_) => {}
                other => panic!("{other:?} on a data channel"),
            }
        }
        moved
    }

    fn receive(&mut self, frame: &Frame, hears: &mut Transcript, cx: &mut Context<'_>) {
        match frame.message_type() {
            MessageType::Acknowledge => {
                let body = Acknowledge::parse(&frame.payload()).expect("a body");
                assert_eq!(body.cumulative, None, "nobody agreed to that");
                self.acknowledged(body.sequence_number, cx);
            }
            MessageType::OutputStreamData if self.side == Side::Client => {
                assert!(frame.digest_passes_client(), "dropped for good");
                self.receive_output(frame, hears, cx);
            }
            MessageType::InputStreamData if self.side == Side::Node => {
                self.paused = false;
                self.receive_input(frame, hears, cx);
            }
            MessageType::ChannelClosed => {
                let body = ChannelClosed::parse(&frame.payload()).expect("a body");
                self.over = Some(Over::Closed(body.output));
            }
            MessageType::PausePublication if self.side == Side::Node => self.paused = true,
            MessageType::StartPublication if self.side == Side::Node => self.paused = false,
            other => panic!("an official program must not see {other}"),
        }
    }

    fn acknowledged(&mut self, number: i64, cx: &mut Context<'_>) {
        self.paused = false;
        let Some(index) = self.kept.iter().position(|kept| kept.number == number) else {
            return;
        };
        // The agent's bookkeeping is sometimes slower than the network.
        let races = self.side == Side::Node && !self.kept[index].is_repeat;
        if races && cx.dice.one_in(16) {
            return;
        }
        let Some(kept) = self.kept.remove(index) else {
            return;
        };
        let sample = cx.now.saturating_sub(kept.sent);
        self.variation = self.variation * 3 / 4 + sample.abs_diff(self.round_trip) / 4;
        self.round_trip = self.round_trip * 7 / 8 + sample / 8;
    }

    fn receive_output(&mut self, frame: &Frame, hears: &mut Transcript, cx: &mut Context<'_>) {
        let number = frame.sequence_number();
        if number < self.expected {
            return;
        }
        if number == self.expected {
            let starts = cx.dice.millis(0, 1500);
            let ready_at = *self.ready_at.get_or_insert(cx.now + starts);
            if cx.now < ready_at {
                return;
            }
        }
        self.take(frame, hears, cx);
    }

    fn receive_input(&mut self, frame: &Frame, hears: &mut Transcript, cx: &mut Context<'_>) {
        if frame.sequence_number() < self.expected {
            let ack = service::acknowledge_of(cx.stamp(), frame);
            self.outbox.push_back(ack);
        } else {
            self.take(frame, hears, cx);
        }
    }

    fn take(&mut self, frame: &Frame, hears: &mut Transcript, cx: &mut Context<'_>) {
        let ack = service::acknowledge_of(cx.stamp(), frame);
        self.outbox.push_back(ack);
        if frame.payload_type() == PayloadType::OUTPUT {
            self.early.insert(frame.sequence_number(), frame.payload());
        } else {
            panic!("nobody sent a message of type {:?}", frame.payload_type());
        }
        while let Some(payload) = self.early.remove(&self.expected) {
            hears.hear(&payload);
            self.expected += 1;
        }
    }

    fn notice_loss(&mut self, cx: &mut Context<'_>) -> bool {
        let is_gone = |wire: &u64| cx.net.is_gone(*wire, Place::Peer, cx.now);
        let Some(wire) = self.wire.take_if(|wire| is_gone(wire)) else {
            return false;
        };
        cx.trace.note(cx.now, "lost by an official end", wire);
        cx.net.release(wire, Place::Peer, cx.now);
        self.tries = 0;
        self.dial_at = Some(cx.now + cx.dice.millis(3, 8));
        true
    }

    fn connect(&mut self, is_living: bool, cx: &mut Context<'_>) -> bool {
        if self.wire.is_some() || self.dial_at.is_none_or(|at| cx.now < at) || self.over.is_some() {
            return false;
        }
        let open = Message::Open {
            announced: None,
            process: self.process,
            ticket: None,
        };
        // Both ask the API for a token first, and the client takes none for the end.
        if cx.net.can_reach(self.purpose(), cx.now) && !is_living {
            self.dial_at = None;
            if self.side == Side::Client {
                self.over = Some(Over::Closed("timed out".to_owned()));
            }
            return true;
        }
        self.wire = cx.net.dial(self.purpose(), open, cx.now);
        if self.wire.is_none() {
            let wait = self.patience * (1 << self.tries);
            self.dial_at = (self.tries < RETRIES).then_some(cx.now + wait);
            self.tries += 1;
            return true;
        }
        self.paused = false;
        if self.side == Side::Node && !self.was_announced {
            self.was_announced = true;
            self.announce(SESSION_CONNECTED, cx);
        }
        true
    }

    fn announce(&mut self, state: &str, cx: &mut Context<'_>) {
        let message = service::agent_session_state(cx.stamp(), "alice-0123456789abcdef0", state);
        self.outbox.push_back(message);
    }

    /// The pump: a message, then a pause. The client has nothing to say before its plugin has started.
    fn speak(&mut self, says: &mut Transcript, cx: &mut Context<'_>) -> bool {
        let is_up = self.side == Side::Node || self.ready_at.is_some_and(|at| cx.now >= at);
        let Some(wire) = self.wire.filter(|_| is_up && !self.paused) else {
            return false;
        };
        let length = self.speech.due(cx.now, FLOOD, cx.dice).min(PIECE);
        if length == 0 || cx.now < self.say_at || !cx.net.has_room(wire, Place::Peer) {
            return false;
        }
        self.speech.said(length);
        self.say_at = cx.now + PACE;
        let payload = says.speak(length, cx.dice);
        let stamp = cx.stamp();
        let new = NewFrame {
            message_type: match self.side {
                Side::Client => MessageType::InputStreamData,
                Side::Node => MessageType::OutputStreamData,
            },
            sequence_number: self.next_number,
            flags: 0,
            message_id: stamp.message_id,
            payload_type: PayloadType::OUTPUT,
            payload: &payload,
            created: stamp.created,
            digest: true,
        };
        let frame = new.encode().expect("a frame");
        self.kept.push_back(Kept {
            number: self.next_number,
            frame: frame.clone(),
            sent: cx.now,
            is_repeat: false,
        });
        self.next_number += 1;
        cx.net
            .send(wire, Place::Peer, Message::Frame(frame), cx.now, cx.dice);
        true
    }

    /// Repeats the head of the queue when it is overdue.
    fn scan(&mut self, cx: &mut Context<'_>) -> bool {
        if cx.now < self.scan_at {
            return false;
        }
        self.scan_at = cx.now + SCAN;
        let slack = (self.variation * 4).max(Duration::from_millis(10));
        let timeout = (self.round_trip + slack).min(Duration::from_secs(1));
        let Some(wire) = self.wire.filter(|_| !self.paused) else {
            return true;
        };
        let Some(head) = self.kept.front_mut() else {
            return true;
        };
        if cx.now >= head.sent + timeout && cx.net.has_room(wire, Place::Peer) {
            head.is_repeat = true;
            // The client never refreshes the time.
            if self.side == Side::Node {
                head.sent = cx.now;
            }
            let repeat = Message::Frame(head.frame.clone());
            cx.trace
                .note(cx.now, "repeated", head.number.unsigned_abs());
            cx.net.send(wire, Place::Peer, repeat, cx.now, cx.dice);
        }
        true
    }

    fn wind_up(&mut self, cx: &mut Context<'_>) {
        let Some(exiting) = &mut self.exiting else {
            return;
        };
        if self.over.is_some() || !(self.kept.is_empty() || cx.now >= exiting.flush_until) {
            return;
        }
        if exiting.has_told {
            cx.trace.note(cx.now, "left behind", self.kept.len() as u64);
            self.over = Some(Over::Exited);
        } else {
            exiting.has_told = true;
            exiting.flush_until = cx.now + FLUSH;
            self.announce(SESSION_TERMINATING, cx);
        }
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let is_there = self.over.is_none();
        let is_connected = self.wire.is_some();
        [
            Some(self.stalled_until),
            self.dial_at.filter(|_| !is_connected),
            self.ready_at,
            Some(self.scan_at).filter(|_| is_connected && !self.kept.is_empty()),
            Some(self.say_at),
            self.speech.deadline(),
            self.exiting.as_ref().map(|exiting| exiting.flush_until),
        ]
        .into_iter()
        .flatten()
        .filter(move |_| is_there)
    }
}
