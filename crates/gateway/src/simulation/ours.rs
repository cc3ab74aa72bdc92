//! Our two ends: a [`Link`] that outlives its sockets, as the client's data channel and the node's
//! session worker drive it.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use sortie_channel::{
    body::{SESSION_CONNECTED, SESSION_TERMINATING},
    features,
    frame::{Frame, PayloadType},
    link::{Link, Options, Received, Role},
    service,
};
use sortie_control::Side;
use sortie_types::Now;

use super::{
    net::{Message, Place, Purpose},
    port::Port,
    server::Context,
    talk::{Speech, Transcript},
};

/// The worker's, and the client's longest times without a sign of life.
const WORKER: KeepAlive = KeepAlive {
    every: Duration::from_secs(27),
    silence: Duration::from_secs(57),
};
const CLIENT: KeepAlive = KeepAlive {
    every: Duration::from_secs(20),
    silence: Duration::from_secs(35),
};
/// The client asks for a sign of life when it waits for an acknowledgement so long.
const DOUBT: Duration = Duration::from_secs(2);
/// And waits for that sign so long.
const DOUBT_DEAD: Duration = Duration::from_secs(15);
/// The worker gives up its last output when a client that is there takes nothing for so long.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
const FRAME_LIMIT: usize = 64 * 1024;
/// More than a message of streams has beside data.
const LARGEST_CONTROL: usize = 1024;
/// The longest input message towards a node that is not ours.
const OFFICIAL_INPUT: usize = 1024;
/// The largest amount said at once.
const FLOOD: u64 = 120_000;

struct KeepAlive {
    every: Duration,
    silence: Duration,
}

/// How an end has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// It was told so, in these words.
    Closed(String),
    /// The shell exited and its output was sent.
    Exited,
    /// The server was out of reach for the idle limit.
    CutOff,
}

/// One of our ends.
pub(super) struct OurEnd {
    side: Side,
    process: u64,
    link: Link,
    limits: (usize, usize),
    idle_limit: Duration,
    wire: Option<u64>,
    heard: Duration,
    pinged: Duration,
    doubted: Option<Duration>,
    ticket: Option<String>,
    /// Messages outside the stream.
    outbox: VecDeque<Bytes>,
    was_announced: bool,
    away_since: Option<Duration>,
    /// When the server was last found to be there.
    back_since: Duration,
    failures: u32,
    dial_at: Duration,
    other_is_ours: bool,
    has_begun: bool,
    pub(super) speech: Speech,
    /// What the talk goes through, in a session with streams.
    pub(super) port: Option<Port>,
    /// The process does nothing until then.
    pub(super) asleep_until: Duration,
    /// Nobody takes what was delivered until then.
    pub(super) stalled_until: Duration,
    /// The exit status that the client was told.
    pub(super) exit_status: bool,
    must_exit: bool,
    exiting: Option<Exiting>,
    pub(super) over: Option<Over>,
    is_parted: bool,
}

struct Exiting {
    since: Duration,
    has_told_status: bool,
}

impl OurEnd {
    pub(super) fn new(
        side: Side,
        idle_limit: Duration,
        speech: Speech,
        port: Option<Port>,
        cx: &mut Context<'_>,
    ) -> Self {
        let seed = (u128::from(cx.dice.next()) << 64 | u128::from(cx.dice.next())).to_be_bytes();
        let role = match side {
            Side::Client => Role::Client,
            Side::Node => Role::Node,
        };
        let limits = (1 << cx.dice.between(15, 20), 1 << cx.dice.between(18, 22));
        let mut link = Link::new(Options {
            wait_for_features: true,
            send_limit: limits.0,
            receive_limit: limits.1,
            ..Options::new(role, seed)
        });
        link.disconnected();
        Self {
            side,
            process: cx.dice.next(),
            link,
            limits,
            idle_limit,
            wire: None,
            heard: cx.now,
            pinged: cx.now,
            doubted: None,
            ticket: None,
            outbox: VecDeque::new(),
            was_announced: false,
            away_since: Some(cx.now),
            back_since: cx.now,
            failures: 0,
            dial_at: cx.now,
            other_is_ours: false,
            has_begun: false,
            speech,
            port,
            asleep_until: Duration::ZERO,
            stalled_until: Duration::ZERO,
            exit_status: false,
            must_exit: false,
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

    fn keep_alive(&self) -> KeepAlive {
        match self.side {
            Side::Client => CLIENT,
            Side::Node => WORKER,
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.away_since.is_none()
    }

    /// The shell exits as soon as it has said everything.
    pub(super) fn exit(&mut self) {
        self.must_exit = true;
    }

    /// Ended from outside.
    pub(super) fn cancel(&mut self) {
        self.over.get_or_insert(Over::Closed(String::new()));
    }

    /// Does whatever can be done now. Whether that was anything.
    pub(super) fn poll(
        &mut self,
        says: &mut Transcript,
        hears: &mut Transcript,
        cx: &mut Context<'_>,
    ) -> bool {
        if cx.now < self.asleep_until || self.is_parted {
            return false;
        }
        // The clock of a machine that sleeps stands still.
        self.back_since = self.back_since.max(self.asleep_until);
        let now = Now::new(cx.now, cx.wall());
        let mut moved = self.read(now, cx);
        moved |= self.notice_loss(now, cx);
        moved |= self.connect(now, cx);
        moved |= self.take_deliveries(hears, cx);
        self.speak(says, now, cx);
        self.wind_up(now, cx);
        moved |= self.write(now, cx);
        self.check_bounds();
        if self.over.is_some() {
            self.part(cx);
            moved = true;
        }
        moved
    }

    fn check_bounds(&self) {
        let (sending, receiving) = self.link.held_bytes();
        assert!(sending <= self.limits.0, "{sending} bytes to send");
        assert!(
            receiving <= self.limits.1 + FRAME_LIMIT + 256,
            "{receiving} bytes received"
        );
    }

    fn read(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(wire) = self.wire
            && self.over.is_none()
            && let Some(message) = cx.net.receive(wire, Place::Peer, cx.now)
        {
            moved = true;
            self.heard = cx.now;
            self.doubted = None;
            match message {
                Message::Frame(bytes) => self.receive(bytes, now, cx),
                Message::Ping(question) => {
                    cx.net
                        .send(wire, Place::Peer, Message::Pong(question), cx.now, cx.dice)
                }
                Message::Pong(_) => {}
                other => panic!("{other:?} on a data channel"),
            }
        }
        moved
    }

    fn receive(&mut self, bytes: Bytes, now: Now, cx: &mut Context<'_>) {
        let frame = Frame::parse(bytes).expect("servers write frames");
        match self.link.receive(frame, now) {
            Received::ChannelClosed(body) => self.over = Some(Over::Closed(body.output)),
            Received::Features(features) => {
                cx.trace
                    .note(cx.now, "features", features.features.len() as u64);
                self.other_is_ours |= !features.features.is_empty();
                self.has_begun |= self.side == Side::Node;
                self.ticket = features.ticket.map(|ticket| ticket.expose().to_owned());
                self.away_since = None;
                self.back_since = cx.now;
                self.failures = 0;
            }
            Received::Stream | Received::Acknowledged => {}
            Received::Paused | Received::Started => {
                panic!("our own ends have windows and are not paused")
            }
            Received::SessionState(_) => panic!("a node's state is not relayed"),
            Received::Ignored(_) => {}
        }
    }

    fn notice_loss(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let Some(wire) = self.wire else { return false };
        let keep_alive = self.keep_alive();
        if self.side == Side::Client
            && self
                .link
                .unacknowledged_for(now)
                .is_some_and(|waits| waits >= DOUBT)
            && self.doubted.is_none()
        {
            self.doubted = Some(cx.now);
            self.ping(wire, cx);
        }
        let is_silent = cx.now >= self.heard + keep_alive.silence
            || self.doubted.is_some_and(|at| cx.now >= at + DOUBT_DEAD);
        if !is_silent && !cx.net.is_gone(wire, Place::Peer, cx.now) {
            if cx.now >= self.pinged + keep_alive.every {
                self.ping(wire, cx);
            }
            return false;
        }
        cx.trace.note(cx.now, "lost by an end", wire);
        cx.net.release(wire, Place::Peer, cx.now);
        self.wire = None;
        self.link.disconnected();
        self.away_since.get_or_insert(cx.now);
        self.dial_at = cx.now + self.wait(cx);
        true
    }

    fn ping(&mut self, wire: u64, cx: &mut Context<'_>) {
        self.pinged = cx.now;
        cx.net
            .send(wire, Place::Peer, Message::Ping(0), cx.now, cx.dice);
    }

    /// Doubling waits up to five seconds; the client is quicker while the server is probably restarted.
    fn wait(&mut self, cx: &mut Context<'_>) -> Duration {
        let most = match self.side {
            Side::Client => (100 << self.failures.min(10)).min(1000),
            Side::Node if self.failures == 0 => 0,
            Side::Node => (500 << self.failures.min(10)).min(5000),
        };
        self.failures += 1;
        cx.dice.millis(most / 2, most)
    }

    fn connect(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let is_due = self.wire.is_none() && cx.now >= self.dial_at && self.over.is_none();
        if !is_due {
            return false;
        }
        let open = Message::Open {
            announced: Some(features::ALL.iter().map(ToString::to_string).collect()),
            process: self.process,
            ticket: self.ticket.clone(),
        };
        let Some(wire) = cx.net.dial(self.purpose(), open, cx.now) else {
            self.dial_at = cx.now + self.wait(cx);
            return true;
        };
        self.wire = Some(wire);
        (self.heard, self.pinged, self.doubted) = (cx.now, cx.now, None);
        self.link.connected(now);
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

    fn take_deliveries(&mut self, hears: &mut Transcript, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        // What has arrived before the end is shown, however long that takes.
        if cx.now < self.stalled_until && self.over.is_none() {
            return false;
        }
        while let Some(delivery) = self.link.next_delivery() {
            moved = true;
            self.has_begun = true;
            match delivery.payload_type {
                PayloadType::OUTPUT if self.port.is_none() => hears.hear(&delivery.payload),
                PayloadType::EXIT_CODE => {
                    assert!(!self.exit_status, "the exit status came twice");
                    self.exit_status = true;
                }
                other => match &mut self.port {
                    Some(port) => port.receive(other, delivery.payload, hears),
                    None => panic!("nobody sent a message of type {other:?}"),
                },
            }
        }
        moved
    }

    fn speak(&mut self, says: &mut Transcript, now: Now, cx: &mut Context<'_>) {
        if !(self.has_begun || self.other_is_ours) || self.over.is_some() {
            return;
        }
        let limit = if self.side == Side::Client && !self.other_is_ours {
            OFFICIAL_INPUT
        } else {
            FRAME_LIMIT
        };
        if let Some(mut port) = self.port.take() {
            self.speak_through(&mut port, says, now, cx);
            self.port = Some(port);
            return;
        }
        loop {
            let due = self.speech.due(cx.now, FLOOD, cx.dice);
            let length = due.min(self.link.writable()).min(limit);
            if length == 0 || self.link.paused() {
                return;
            }
            let payload = says.speak(length, cx.dice);
            self.speech.said(length);
            let sent = self.link.send(PayloadType::OUTPUT, payload, now);
            assert_eq!(sent, Ok(()), "what is writable is taken");
        }
    }

    fn speak_through(
        &mut self,
        port: &mut Port,
        says: &mut Transcript,
        now: Now,
        cx: &mut Context<'_>,
    ) {
        port.advance(cx.now, cx.dice);
        let due = self.speech.due(cx.now, FLOOD, cx.dice);
        let length = due.min(port.room());
        if length > 0 {
            port.say(says.speak(length, cx.dice));
            self.speech.said(length);
        }
        // A message of control is not cut to what is writable.
        while self.link.writable() > LARGEST_CONTROL {
            let limit = (self.link.writable() - LARGEST_CONTROL).min(FRAME_LIMIT);
            let Some((payload_type, payload)) = port.next_message(limit) else {
                break;
            };
            let sent = self.link.send(payload_type, payload, now);
            assert_eq!(sent, Ok(()), "what is writable is taken");
        }
    }

    /// Whether everything that was said is on its way, and every stream has come to something.
    pub(super) fn is_settled(&self) -> bool {
        let port = self.port.as_ref();
        port.is_none_or(|port| port.is_said() && port.is_settled())
    }

    /// The end of a shell: its status, then everything acknowledged, then the server is told.
    fn wind_up(&mut self, now: Now, cx: &mut Context<'_>) {
        if self.side == Side::Client || self.over.is_some() {
            return;
        }
        let is_away = |since: Duration| cx.now >= since + self.idle_limit;
        if self.away_since.is_some_and(is_away) {
            self.over = Some(Over::CutOff);
            return;
        }
        if !self.must_exit || !self.speech.is_over() || !self.is_settled() {
            return;
        }
        let exiting = self.exiting.get_or_insert(Exiting {
            since: cx.now,
            has_told_status: false,
        });
        if !exiting.has_told_status && self.other_is_ours {
            let status = Bytes::from_static(b"EXIT_CODE: 0");
            exiting.has_told_status = self.link.send(PayloadType::EXIT_CODE, status, now).is_ok();
            if !exiting.has_told_status {
                return;
            }
        }
        // A client of ours comes back and takes it. Another one may be gone for good, which only counts
        // while the server is heard.
        let is_given_up = if self.other_is_ours || self.away_since.is_some() {
            cx.now >= exiting.since + self.idle_limit
        } else {
            let unacknowledged = self.link.unacknowledged_for(now).unwrap_or_default();
            let since = (cx.now - unacknowledged).max(self.back_since);
            self.heard.saturating_sub(since.max(exiting.since)) >= FLUSH_LIMIT
        };
        if self.link.drained() || is_given_up {
            cx.trace
                .note(cx.now, "exited", u64::from(self.link.drained()));
            self.announce(SESSION_TERMINATING, cx);
            self.over = Some(Over::Exited);
        }
    }

    fn write(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(wire) = self.wire
            && cx.net.has_room(wire, Place::Peer)
        {
            let next = self.outbox.pop_front();
            let next = next.or_else(|| {
                // The last word is the server's, or the announcement of the end.
                self.link
                    .poll_transmit(now)
                    .filter(|_| self.over.is_none() || self.over == Some(Over::Exited))
            });
            let Some(frame) = next else { break };
            moved = true;
            cx.net
                .send(wire, Place::Peer, Message::Frame(frame), cx.now, cx.dice);
        }
        moved
    }

    fn part(&mut self, cx: &mut Context<'_>) {
        self.is_parted = true;
        if let Some(wire) = self.wire.take() {
            cx.net.release(wire, Place::Peer, cx.now);
        }
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let is_there = self.over.is_none();
        let is_connected = self.wire.is_some();
        let keep_alive = self.keep_alive();
        let waits = self.exiting.is_some();
        [
            Some(self.asleep_until),
            Some(self.stalled_until),
            Some(self.dial_at).filter(|_| !is_connected),
            self.link.deadline().filter(|_| is_connected),
            Some(self.heard + keep_alive.silence).filter(|_| is_connected),
            Some(self.pinged + keep_alive.every).filter(|_| is_connected),
            self.doubted.map(|at| at + DOUBT_DEAD),
            self.speech.deadline(),
            self.port.as_ref().and_then(Port::deadline),
            self.away_since
                .map(|since| since + self.idle_limit)
                .filter(|_| self.side == Side::Node),
        ]
        .into_iter()
        .flatten()
        .chain(
            self.exiting
                .as_ref()
                .filter(|_| waits)
                .map(|exiting| exiting.since + self.idle_limit),
        )
        .filter(move |_| is_there)
    }
}
