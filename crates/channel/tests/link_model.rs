//! Two links over a simulated gateway that loses, repeats, delays, reorders and cuts, against a model:
//! what arrives is what was sent, byte for byte and in order, in both directions; memory stays within
//! its bounds; and once the network is kind again everything arrives soon.
//!
//! Each run follows from its seed, which a failure prints. `LINK_SEED=<n>` runs that one alone.

#![allow(clippy::expect_used, reason = "a test says what is wrong by failing")]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use sortie_channel::{
    features,
    frame::{Frame, PayloadType},
    link::{Link, Options, Received, Role},
};
use sortie_types::{Now, Timestamp};

const SEEDS: u64 = 300;
/// Simulated time in which everything has to arrive once the network is kind. The smallest send limit
/// allows one message for each round trip, which is 400 ms at most, and 400 messages may be left.
const PATIENCE: Duration = Duration::from_secs(240);

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// How unkind the network is in one run.
struct Weather {
    loss: u64,
    repeat: u64,
    reorder: u64,
    cut: u64,
    delay_us: u64,
}

struct End {
    link: Link,
    /// Still to be given to the link.
    to_send: VecDeque<Bytes>,
    /// What the other end has to receive.
    sent: Vec<u8>,
    received: Vec<u8>,
    /// Chance in a hundred, for each step, that the consumer takes something.
    appetite: u64,
    send_limit: usize,
    receive_limit: usize,
    largest: usize,
}

impl End {
    fn new(role: Role, dice: &mut Dice, features: &[String]) -> Self {
        let send_limit = 1 << (12 + dice.below(9));
        // Only a peer of ours is told when there is room again; others find out by resending, so to
        // them the limit is given as it is in earnest.
        let least = if features.is_empty() { 22 } else { 12 };
        let receive_limit = 1 << (least + dice.below(11));
        let seed = u128::from(dice.next()).to_be_bytes();
        let mut link = Link::new(Options {
            send_limit,
            receive_limit,
            ..Options::new(role, seed)
        });
        link.set_features(features);
        let mut sent = Vec::new();
        let largest_exponent = dice.below(14);
        let to_send: VecDeque<Bytes> = (0..dice.below(400))
            .map(|_| {
                let length = 1 + dice.below(1 << largest_exponent);
                let payload: Vec<u8> = (0..length).map(|_| dice.next().to_be_bytes()[0]).collect();
                sent.extend_from_slice(&payload);
                Bytes::from(payload)
            })
            .collect();
        let largest = to_send.iter().map(Bytes::len).max().unwrap_or(0);
        let appetite = if dice.percent(20) { 3 } else { 100 };
        Self {
            link,
            to_send,
            sent,
            received: Vec::new(),
            appetite,
            send_limit,
            receive_limit,
            largest,
        }
    }

    fn feed(&mut self, now: Now) {
        while let Some(payload) = self.to_send.front() {
            if self
                .link
                .send(PayloadType::OUTPUT, payload.clone(), now)
                .is_err()
            {
                break;
            }
            self.to_send.pop_front();
        }
    }

    fn consume(&mut self, dice: &mut Dice) {
        while dice.percent(self.appetite) {
            let Some(delivery) = self.link.next_delivery() else {
                break;
            };
            self.received.extend_from_slice(&delivery.payload);
        }
    }

    fn assert_bounds(&self, peer_largest: usize) {
        // A message of any size is taken when nothing is held; 256 bytes of overhead are counted.
        let (sending, receiving) = self.link.held_bytes();
        assert!(
            sending <= self.send_limit.max(self.largest + 256),
            "{sending} bytes to send"
        );
        let bound = self.receive_limit + peer_largest + 256;
        assert!(
            receiving <= bound,
            "{receiving} bytes received, {bound} allowed"
        );
    }
}

/// A frame under way: arrival, order, the end it goes to, connection, bytes.
type UnderWay = (Duration, u64, usize, u64, Bytes);

struct Simulation {
    ends: [End; 2],
    wire: BinaryHeap<Reverse<UnderWay>>,
    order: u64,
    connection: u64,
    /// When a cut connection comes back.
    back_at: Option<Duration>,
    now: Now,
    dice: Dice,
    weather: Weather,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut chance = |bound: u64| {
            if dice.percent(50) {
                0
            } else {
                dice.below(bound)
            }
        };
        let weather = Weather {
            loss: chance(25),
            repeat: chance(25),
            reorder: chance(50),
            cut: chance(3),
            delay_us: 1 + dice.below(200_000),
        };
        let common: Vec<String> = match dice.below(3) {
            0 => Vec::new(),
            1 => vec![features::CUMULATIVE_ACK.to_owned()],
            _ => features::ALL.iter().map(ToString::to_string).collect(),
        };
        let ends = [
            End::new(Role::Client, &mut dice, &common),
            End::new(Role::Node, &mut dice, &common),
        ];
        Self {
            ends,
            wire: BinaryHeap::new(),
            order: 0,
            connection: 0,
            back_at: None,
            now: Now::new(Duration::ZERO, Timestamp::from_millis(1_777_881_600_000)),
            dice,
            weather,
        }
    }

    fn run(&mut self) {
        let unkind_until = Duration::from_secs(10);
        while !self.is_done() {
            let is_kind = self.now.monotonic > unkind_until;
            assert!(
                self.now.monotonic < unkind_until + PATIENCE,
                "stuck: {:?} {:?}, wire {}",
                self.ends[0].link,
                self.ends[1].link,
                self.wire.len()
            );
            if is_kind {
                self.weather = Weather {
                    loss: 0,
                    repeat: 0,
                    reorder: 0,
                    cut: 0,
                    ..self.weather
                };
            }
            self.step(is_kind);
        }
    }

    fn is_done(&self) -> bool {
        let [client, node] = &self.ends;
        client.link.drained()
            && node.link.drained()
            && client.to_send.is_empty()
            && node.to_send.is_empty()
            && client.received.len() == node.sent.len()
            && node.received.len() == client.sent.len()
    }

    fn step(&mut self, is_kind: bool) {
        self.cut_or_restore();
        for index in 0..2 {
            if is_kind {
                self.ends[index].appetite = self.ends[index].appetite.max(60);
            }
            self.ends[index].feed(self.now);
            while let Some(frame) = self.ends[index].link.poll_transmit(self.now) {
                self.put_on_wire(1 - index, frame);
            }
            let peer_largest = self.ends[1 - index].largest;
            self.ends[index].assert_bounds(peer_largest);
            self.ends[index].consume(&mut self.dice);
        }
        self.advance();
        self.deliver();
    }

    fn cut_or_restore(&mut self) {
        if self.back_at.is_none() && self.dice.below(1000) < self.weather.cut {
            let outage = Duration::from_millis(self.dice.below(3000));
            self.back_at = Some(self.now.monotonic + outage);
            self.ends.iter_mut().for_each(|end| end.link.disconnected());
        }
        if self.back_at.is_some_and(|at| self.now.monotonic >= at) {
            self.back_at = None;
            self.connection += 1;
            let now = self.now;
            self.ends.iter_mut().for_each(|end| end.link.connected(now));
        }
    }

    fn put_on_wire(&mut self, to: usize, frame: Bytes) {
        if self.dice.percent(self.weather.loss) {
            return;
        }
        let copies = if self.dice.percent(self.weather.repeat) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let base = Duration::from_micros(self.weather.delay_us);
            let extra = if self.dice.percent(self.weather.reorder) {
                Duration::from_micros(self.dice.below(2 * self.weather.delay_us))
            } else {
                Duration::ZERO
            };
            self.order += 1;
            let at = self.now.monotonic + base + extra;
            self.wire.push(Reverse((
                at,
                self.order,
                to,
                self.connection,
                frame.clone(),
            )));
        }
    }

    /// To the next event, but at least a little: consumers eat by the step.
    fn advance(&mut self) {
        let arrival = self.wire.peek().map(|Reverse((at, ..))| *at);
        let deadlines = self.ends.iter().filter_map(|end| end.link.deadline());
        let next = deadlines.chain(arrival).chain(self.back_at).min();
        let now = self.now.monotonic;
        let limit = now + Duration::from_millis(20);
        let next = next
            .unwrap_or(limit)
            .clamp(now + Duration::from_micros(100), limit);
        self.now = self.now.after(next - now);
    }

    fn deliver(&mut self) {
        while self
            .wire
            .peek()
            .is_some_and(|Reverse((at, ..))| *at <= self.now.monotonic)
        {
            let Some(Reverse((_, _, to, connection, bytes))) = self.wire.pop() else {
                return;
            };
            if connection != self.connection || self.back_at.is_some() {
                continue;
            }
            let frame = Frame::parse(bytes).expect("what a link writes is a frame");
            let received = self.ends[to].link.receive(frame, self.now);
            assert!(
                matches!(
                    received,
                    Received::Stream | Received::Acknowledged | Received::Ignored(_)
                ),
                "{received:?}"
            );
        }
    }
}

#[test]
fn whatever_the_network_does_both_streams_arrive_whole_and_in_order() {
    let only = std::env::var("LINK_SEED")
        .ok()
        .and_then(|seed| seed.parse::<u64>().ok());
    let seeds: Vec<u64> = only.map_or_else(|| (0..SEEDS).collect(), |seed| vec![seed]);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            simulation.run();
            let [client, node] = &simulation.ends;
            assert!(client.received == node.sent, "output differs");
            assert!(node.received == client.sent, "input differs");
        });
        if let Err(cause) = outcome {
            eprintln!("failed with LINK_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}
