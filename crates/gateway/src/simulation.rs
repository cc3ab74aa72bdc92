//! Two official peers, as faulty as they are, with the gateway between them: hours of broken
//! websockets in milliseconds. Nothing may be lost, and no agent's queue may stay stuck.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use sortie_channel::{
    body::{Acknowledge, Body},
    frame::{Frame, MessageType, PayloadType},
    service,
};
use sortie_control::Side;

use crate::{
    kind::SessionKind,
    pairing::{
        Limits, Pairing,
        testing::{frame, stamp},
    },
};

/// Numbers from a seed: xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.roll(chances) == 0
    }
}

/// The official agent: sends a message once, then repeats only the head of its queue, and stores a
/// message after sending it, so that an acknowledgement that is too quick is ignored.
#[derive(Default)]
struct Agent {
    next: i64,
    unacknowledged: BTreeMap<i64, Frame>,
    wire: VecDeque<Bytes>,
    paused: bool,
}

impl Agent {
    /// A new message, stored in any case; sent unless paused.
    fn say(&mut self) -> Option<Frame> {
        let output = frame(
            MessageType::OutputStreamData,
            self.next,
            PayloadType::OUTPUT,
            &self.next.to_be_bytes(),
        );
        self.next += 1;
        self.unacknowledged
            .insert(output.sequence_number(), output.clone());
        (!self.paused).then_some(output)
    }

    fn take(&mut self, bytes: Bytes, dice: &mut Dice) {
        let frame = Frame::parse(bytes).unwrap();
        match frame.message_type() {
            MessageType::PausePublication => self.paused = true,
            MessageType::StartPublication => self.paused = false,
            MessageType::Acknowledge => {
                self.paused = false;
                let number = Acknowledge::parse(&frame.payload())
                    .unwrap()
                    .sequence_number;
                // One in eight is too quick for the agent, which forgets it.
                if !dice.one_in(8) {
                    self.unacknowledged.remove(&number);
                }
            }
            other => panic!("an official agent must not see {other}"),
        }
    }

    fn head(&self) -> Option<Frame> {
        let head = self
            .unacknowledged
            .first_key_value()
            .map(|(_, head)| head.clone());
        head.filter(|_| !self.paused)
    }
}

/// The official client: acknowledges what it expects and what is ahead, and drops what it has had
/// without a word. So it does with what it expects while its plugin starts, which its first message
/// sets off.
#[derive(Default)]
struct Client {
    expected: i64,
    ready_at: Option<Duration>,
    ahead: BTreeMap<i64, Frame>,
    wire: VecDeque<Bytes>,
}

impl Client {
    fn take(&mut self, bytes: Bytes, now: Duration) -> Option<Frame> {
        let frame = Frame::parse(bytes).unwrap();
        assert_eq!(frame.message_type(), &MessageType::OutputStreamData);
        let number = frame.sequence_number();
        if number < self.expected {
            return None;
        }
        let starting = self.ready_at.is_some_and(|at| now < at);
        if number == self.expected && starting {
            return None;
        }
        self.ready_at
            .get_or_insert(now + Duration::from_millis(1000));
        let ack = Frame::parse(service::acknowledge_of(stamp(), &frame)).unwrap();
        self.ahead.insert(number, frame);
        while self.ahead.remove(&self.expected).is_some() {
            self.expected += 1;
        }
        Some(ack)
    }
}

fn pairing(restored: bool) -> Pairing {
    let limits = Limits {
        pause_delay: Duration::from_millis(250),
        pause_above: 64 * 1024,
        resume_below: 16 * 1024,
        input: 1024 * 1024,
        output: 16 * 1024 * 1024,
    };
    let kind = SessionKind::of(&json!({"sessionType": "Standard_Stream"}));
    Pairing::new(kind, limits, restored, Duration::ZERO)
}

struct World {
    dice: Dice,
    pairing: Pairing,
    agent: Agent,
    client: Client,
    now: Duration,
    /// Whether each end's websocket is open.
    client_open: bool,
    agent_open: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut pairing = pairing(false);
        pairing.attach(Side::Client, None);
        pairing.attach(Side::Node, None);
        Self {
            dice: Dice(seed | 1),
            pairing,
            agent: Agent::default(),
            client: Client::default(),
            now: Duration::ZERO,
            client_open: true,
            agent_open: true,
        }
    }

    fn agent_says(&mut self, frame: Frame) {
        if self.agent_open {
            self.pairing
                .receive(Side::Node, frame, self.now, &mut stamp);
        }
    }

    /// Moves what the gateway has written, some of which may still be under way.
    fn exchange(&mut self) {
        self.pairing.settle(self.now, &mut stamp);
        while let Some(bytes) = self.pairing.pop(Side::Node, self.now) {
            self.agent.wire.push_back(bytes);
        }
        while let Some(bytes) = self.pairing.pop(Side::Client, self.now) {
            self.client.wire.push_back(bytes);
        }
        for _ in 0..self.dice.roll(6) {
            if let Some(bytes) = self.agent.wire.pop_front() {
                self.agent.take(bytes, &mut self.dice);
            }
            if let Some(bytes) = self.client.wire.pop_front()
                && let Some(ack) = self.client.take(bytes, self.now)
            {
                // An acknowledgement may go down with the websocket.
                if self.client_open && !(self.dice.one_in(40) && self.breaks_client()) {
                    self.pairing
                        .receive(Side::Client, ack, self.now, &mut stamp);
                }
            }
        }
    }

    fn breaks_client(&mut self) -> bool {
        self.pairing.detach(Side::Client, self.now);
        self.client_open = false;
        self.client.wire.clear();
        true
    }

    fn breaks_agent(&mut self) {
        self.pairing.detach(Side::Node, self.now);
        self.agent_open = false;
        self.agent.wire.clear();
    }

    fn come_back(&mut self) {
        if !self.client_open && self.dice.one_in(5) {
            self.client_open = true;
            self.pairing.attach(Side::Client, None);
        }
        if !self.agent_open && self.dice.one_in(5) {
            self.agent_open = true;
            self.agent.paused = false;
            self.pairing.attach(Side::Node, None);
        }
    }

    /// A tenth of a second in which things may break.
    fn tick(&mut self, talking: bool, breaking: bool) {
        self.now += Duration::from_millis(100);
        if talking {
            for _ in 0..self.dice.roll(4) {
                if let Some(frame) = self.agent.say() {
                    self.agent_says(frame);
                }
            }
        }
        if let Some(head) = self.agent.head() {
            self.agent_says(head);
        }
        self.exchange();
        if breaking && self.client_open && self.dice.one_in(50) {
            self.breaks_client();
        }
        if breaking && self.agent_open && self.dice.one_in(50) {
            self.breaks_agent();
        }
        // The server dies and comes back, with nothing in its memory.
        let settled = self.now > Duration::from_secs(10);
        if breaking && settled && self.dice.one_in(400) {
            self.breaks_client();
            self.breaks_agent();
            self.pairing = pairing(true);
        }
        self.come_back();
    }
}

#[test]
fn official_peers_lose_nothing_and_never_stay_stuck() {
    for seed in 1..20 {
        let mut world = World::new(seed * 0x9e37_79b9);
        for _ in 0..2000 {
            world.tick(true, true);
        }
        // A lost acknowledgement is only noticed by what comes later, so there must be some more
        // output; each takes one stuck message off the head of the agent's queue.
        let mut ticks = 0;
        while !world.agent.unacknowledged.is_empty() {
            ticks += 1;
            let stuck = world.agent.unacknowledged.keys().next();
            assert!(ticks < 30_000, "seed {seed}: stuck at {stuck:?}");
            let talking = ticks % 5 == 0 && ticks < 20_000;
            world.tick(talking, false);
        }
        assert_eq!(
            world.client.expected, world.agent.next,
            "seed {seed}: output was lost"
        );
        assert!(world.agent.next > 1000);
    }
}
