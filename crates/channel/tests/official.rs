//! Our links against ends that behave as the official programs do: a client that drops old numbers
//! without a word, is not ready at first and keeps 10000 early messages; an agent that acknowledges
//! again, resends only its head, and forgets acknowledgements that are faster than its own bookkeeping.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use sortie_channel::{
    body::{Acknowledge, Body},
    frame::{Frame, MessageType, NewFrame, PayloadType},
    link::{Link, Options, Role},
    service::{self, Stamp},
};
use sortie_types::{Now, Timestamp};
use uuid::Uuid;

fn at(millis: u64) -> Now {
    Now::new(Duration::ZERO, Timestamp::from_millis(1_777_881_600_000))
        .after(Duration::from_millis(millis))
}

fn stamp() -> Stamp {
    Stamp::new(Uuid::from_u128(9), at(0).wall)
}

/// What the official programs have in common: a queue of which only the head is sent again.
struct Outgoing {
    message_type: MessageType,
    next_number: i64,
    unacknowledged: VecDeque<(i64, Bytes, u64)>,
}

impl Outgoing {
    fn new(message_type: MessageType) -> Self {
        Self {
            message_type,
            next_number: 0,
            unacknowledged: VecDeque::new(),
        }
    }

    /// Writes a message; keeping it is another step, and that is the race.
    fn write(&mut self, payload: &[u8]) -> (i64, Bytes) {
        let new = NewFrame {
            message_type: self.message_type.clone(),
            sequence_number: self.next_number,
            flags: 0,
            message_id: Uuid::from_u128(1),
            payload_type: PayloadType::OUTPUT,
            payload,
            created: at(0).wall,
            digest: true,
        };
        self.next_number += 1;
        (self.next_number - 1, new.encode().unwrap())
    }

    fn keep(&mut self, (number, frame): (i64, Bytes), now: u64) {
        self.unacknowledged.push_back((number, frame, now));
    }

    fn acknowledged(&mut self, number: i64) {
        self.unacknowledged.retain(|(kept, ..)| *kept != number);
    }

    /// The scan of every 100 ms.
    fn head_when_late(&mut self, now: u64, refreshes: bool) -> Option<Bytes> {
        let (_, frame, sent) = self.unacknowledged.front_mut()?;
        if now < *sent + 200 {
            return None;
        }
        if refreshes {
            *sent = now;
        }
        Some(frame.clone())
    }
}

fn ack_of(frame: &Frame) -> Bytes {
    service::acknowledge_of(stamp(), frame)
}

/// The official client as a peer of a node.
struct OfficialClient {
    expected: i64,
    early: BTreeMap<i64, Bytes>,
    /// Messages that it drops without acknowledgement before its session plugin is ready.
    not_ready: u32,
    received: Vec<u8>,
    outgoing: Outgoing,
}

impl OfficialClient {
    fn receive(&mut self, frame: &Frame) -> Vec<Bytes> {
        match frame.message_type() {
            MessageType::Acknowledge => {
                let body = Acknowledge::parse(&frame.payload()).unwrap();
                self.outgoing.acknowledged(body.sequence_number);
                Vec::new()
            }
            MessageType::OutputStreamData => {
                assert!(
                    frame.digest_passes_client(),
                    "an official client drops this for good"
                );
                self.receive_output(frame)
            }
            other => panic!("an official client cannot understand {other}"),
        }
    }

    fn receive_output(&mut self, frame: &Frame) -> Vec<Bytes> {
        let number = frame.sequence_number();
        if number < self.expected {
            return Vec::new();
        }
        if number > self.expected {
            assert!(self.early.len() < 10_000, "its buffer overflows");
            self.early.insert(number, frame.payload());
            return vec![ack_of(frame)];
        }
        if self.not_ready > 0 {
            self.not_ready -= 1;
            return Vec::new();
        }
        self.received.extend_from_slice(&frame.payload());
        self.expected += 1;
        while let Some(payload) = self.early.remove(&self.expected) {
            self.received.extend_from_slice(&payload);
            self.expected += 1;
        }
        vec![ack_of(frame)]
    }
}

#[test]
fn an_official_client_that_is_not_ready_at_first_gets_everything() {
    let mut node = Link::new(Options::new(Role::Node, [3; 16]));
    let mut client = OfficialClient {
        expected: 0,
        early: BTreeMap::new(),
        not_ready: 3,
        received: Vec::new(),
        outgoing: Outgoing::new(MessageType::InputStreamData),
    };
    let output: Vec<u8> = (0..3_000_000_u32)
        .map(|index| index.to_le_bytes()[1])
        .collect();
    let mut rest = output.as_slice();
    let mut input = Vec::new();
    let mut now = 0_u64;
    while client.received.len() < output.len() || !node.drained() {
        assert!(
            now < 60_000,
            "stuck at {} bytes: {node:?}",
            client.received.len()
        );
        while !rest.is_empty() {
            let (next, behind) = rest.split_at(rest.len().min(32 << 10));
            if node
                .send(PayloadType::OUTPUT, Bytes::copy_from_slice(next), at(now))
                .is_err()
            {
                break;
            }
            rest = behind;
        }
        while let Some(bytes) = node.poll_transmit(at(now)) {
            for answer in client.receive(&Frame::parse(bytes).unwrap()) {
                node.receive(Frame::parse(answer).unwrap(), at(now));
            }
        }
        if now.is_multiple_of(70) {
            let written = client.outgoing.write(b"k");
            node.receive(Frame::parse(written.1.clone()).unwrap(), at(now));
            client.outgoing.keep(written, now);
        }
        if now.is_multiple_of(100)
            && let Some(head) = client.outgoing.head_when_late(now, false)
        {
            node.receive(Frame::parse(head).unwrap(), at(now));
        }
        while let Some(delivery) = node.next_delivery() {
            input.extend_from_slice(&delivery.payload);
        }
        now += 10;
    }
    assert!(client.received == output);
    assert!(client.early.is_empty());
    let keys = usize::try_from(client.outgoing.next_number).unwrap();
    assert_eq!(input, vec![b'k'; keys]);
}

/// The official agent as a peer of a client.
struct OfficialAgent {
    expected: i64,
    early: BTreeMap<i64, Bytes>,
    received: Vec<u8>,
    outgoing: Outgoing,
    resends: u32,
}

impl OfficialAgent {
    fn receive(&mut self, frame: &Frame) -> Vec<Bytes> {
        match frame.message_type() {
            MessageType::Acknowledge => {
                let body = Acknowledge::parse(&frame.payload()).unwrap();
                assert_eq!(body.cumulative, None, "nobody agreed to that");
                self.outgoing.acknowledged(body.sequence_number);
                return Vec::new();
            }
            MessageType::InputStreamData => {}
            other => panic!("an official agent cannot understand {other}"),
        }
        let number = frame.sequence_number();
        if number == self.expected {
            self.received.extend_from_slice(&frame.payload());
            self.expected += 1;
            while let Some(payload) = self.early.remove(&self.expected) {
                self.received.extend_from_slice(&payload);
                self.expected += 1;
            }
        } else if number > self.expected {
            assert!(self.early.len() < 100_000, "its buffer overflows");
            self.early.insert(number, frame.payload());
        }
        vec![ack_of(frame)]
    }
}

#[test]
fn the_head_of_an_official_agent_never_stays_stuck_whoever_wins_the_race() {
    let mut client = Link::new(Options::new(Role::Client, [4; 16]));
    let mut agent = OfficialAgent {
        expected: 0,
        early: BTreeMap::new(),
        received: Vec::new(),
        outgoing: Outgoing::new(MessageType::OutputStreamData),
        resends: 0,
    };
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    let mut input = Vec::new();
    let mut now = 0_u64;
    while now < 2_000 || !agent.outgoing.unacknowledged.is_empty() || !client.drained() {
        assert!(
            now < 60_000,
            "{} stuck",
            agent.outgoing.unacknowledged.len()
        );
        let mut frames = Vec::new();
        if now < 2_000 {
            let payload = now.to_be_bytes();
            sent.extend_from_slice(&payload);
            let written = agent.outgoing.write(&payload);
            let frame = Frame::parse(written.1.clone()).unwrap();
            let loses_race = agent.outgoing.next_number % 10 == 0;
            // Losing: the acknowledgement is processed before the message is kept.
            let is_dropped = agent.outgoing.next_number % 97 == 0;
            if loses_race {
                client.receive(frame, at(now));
                while let Some(bytes) = client.poll_transmit(at(now)) {
                    frames.extend(agent.receive(&Frame::parse(bytes).unwrap()));
                }
                agent.outgoing.keep(written, now);
            } else {
                agent.outgoing.keep(written, now);
                if !is_dropped {
                    client.receive(frame, at(now));
                }
            }
            input.push(b'i');
            client
                .send(PayloadType::OUTPUT, Bytes::from_static(b"i"), at(now))
                .unwrap();
        }
        if now.is_multiple_of(100)
            && let Some(head) = agent.outgoing.head_when_late(now, true)
        {
            client.receive(Frame::parse(head).unwrap(), at(now));
            agent.resends += 1;
        }
        while let Some(bytes) = client.poll_transmit(at(now)) {
            frames.extend(agent.receive(&Frame::parse(bytes).unwrap()));
        }
        for frame in frames {
            client.receive(Frame::parse(frame).unwrap(), at(now));
        }
        while let Some(delivery) = client.next_delivery() {
            received.extend_from_slice(&delivery.payload);
        }
        now += 10;
    }
    assert_eq!(received, sent);
    assert_eq!(agent.received, input);
    assert!(agent.early.is_empty());
    assert!(
        agent.resends > 0,
        "no message was ever sent again, so nothing was tested"
    );
    assert_eq!(client.stats().resent, 0);
}
