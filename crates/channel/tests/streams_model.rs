//! Two ends of multiplexed streams over an orderly session of small room, against a model: what comes
//! out of each stream is what went in, in order; ends of one direction leave the other alone; no end
//! holds more than its limits; and a small stream is not kept waiting by a large one.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use sortie_channel::{
    frame::PayloadType,
    streams::{
        Destination, Event, INITIAL_CREDIT, Limits, Message, Refusal, RefusalCode, Side, Streams,
        Violation, payload,
    },
};

fn destination(port: u16) -> Destination {
    Destination {
        port: Some(port),
        ..Destination::default()
    }
}

/// One end with the messages that are on their way to it, and what its user has done and seen.
struct End {
    streams: Streams,
    arriving: VecDeque<(PayloadType, Bytes)>,
    sent: BTreeMap<u32, Vec<u8>>,
    got: BTreeMap<u32, Vec<u8>>,
    held: VecDeque<(u32, usize)>,
    finished: Vec<u32>,
}

impl End {
    fn new(side: Side) -> Self {
        let limits = Limits {
            streams: 8,
            ..Limits::default()
        };
        Self {
            streams: Streams::new(side, limits),
            arriving: VecDeque::new(),
            sent: BTreeMap::new(),
            got: BTreeMap::new(),
            held: VecDeque::new(),
            finished: Vec::new(),
        }
    }

    fn send(&mut self, id: u32, data: Vec<u8>) {
        let room = self.streams.room(id);
        let data = &data[..data.len().min(room)];
        self.sent.entry(id).or_default().extend_from_slice(data);
        self.streams.send(id, Bytes::copy_from_slice(data));
    }

    /// Takes what has arrived; data is held, not consumed.
    fn take(&mut self) {
        while let Some((payload_type, data)) = self.arriving.pop_front() {
            self.streams
                .receive(payload_type, data)
                .expect("by the rules");
        }
        while let Some(event) = self.streams.next_event() {
            match event {
                Event::Open(id, _) => self.streams.accept(id),
                Event::Data(id, data) => {
                    self.got.entry(id).or_default().extend_from_slice(&data);
                    self.held.push_back((id, data.len()));
                }
                Event::Finished(id) => self.finished.push(id),
                Event::Accepted(_) | Event::Writable(_) => {}
                Event::Refused(..) | Event::Reset(_) => panic!("nobody did that"),
            }
        }
    }

    fn consume(&mut self, messages: usize) {
        for (id, bytes) in self.held.drain(..messages.min(self.held.len())) {
            self.streams.consumed(id, bytes);
        }
    }
}

fn carry(from: &mut End, to: &mut End, messages: usize, limit: usize) -> usize {
    let mut carried = 0;
    while carried < messages {
        let Some(message) = from.streams.next_message(limit) else {
            break;
        };
        to.arriving.push_back(message);
        carried += 1;
    }
    to.take();
    carried
}

#[derive(Clone, Debug)]
enum Step {
    Send(bool, usize, usize),
    Finish(bool, usize),
    Carry(bool, usize, usize),
    Consume(bool, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 0..5_usize, 1..300_000_usize).prop_map(|(c, s, n)| Step::Send(c, s, n)),
        1 => (any::<bool>(), 0..5_usize).prop_map(|(c, s)| Step::Finish(c, s)),
        4 => (any::<bool>(), 1..20_usize, 1..200_000_usize).prop_map(|(c, m, l)| Step::Carry(c, m, l)),
        2 => (any::<bool>(), 1..20_usize).prop_map(|(c, m)| Step::Consume(c, m)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_stream_arrives_whole_and_in_order(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut client, mut node) = (End::new(Side::Client), End::new(Side::Node));
        let ids: Vec<u32> = (0..5).map(|port| client.streams.open(destination(port)).expect("room")).collect();
        prop_assert_eq!(&ids, &[1, 3, 5, 7, 9]);
        carry(&mut client, &mut node, 5, 1);
        let mut mark = 0_u8;
        let mut finished = Vec::new();
        for step in steps {
            match step {
                Step::Send(by_client, stream, length) => {
                    mark = mark.wrapping_add(1);
                    let end = if by_client { &mut client } else { &mut node };
                    end.send(ids[stream], vec![mark; length]);
                }
                Step::Finish(by_client, stream) => {
                    let end = if by_client { &mut client } else { &mut node };
                    end.streams.finish(ids[stream]);
                    finished.push((by_client, ids[stream]));
                }
                Step::Carry(to_node, messages, limit) => {
                    if to_node {
                        carry(&mut client, &mut node, messages, limit);
                    } else {
                        carry(&mut node, &mut client, messages, limit);
                    }
                }
                Step::Consume(by_client, messages) => {
                    let end = if by_client { &mut client } else { &mut node };
                    end.consume(messages);
                }
            }
        }
        // Once everybody reads, everything arrives.
        loop {
            client.consume(usize::MAX);
            node.consume(usize::MAX);
            let moved = carry(&mut client, &mut node, usize::MAX, 100_000)
                + carry(&mut node, &mut client, usize::MAX, 100_000);
            if moved == 0 && client.held.is_empty() && node.held.is_empty() {
                break;
            }
        }
        let sent = |end: &End| {
            let sent = end.sent.iter().filter(|(_, data)| !data.is_empty());
            sent.map(|(id, data)| (*id, data.clone())).collect::<BTreeMap<_, _>>()
        };
        prop_assert!(sent(&client) == node.got, "towards the node");
        prop_assert!(sent(&node) == client.got, "towards the client");
        for (by_client, id) in finished {
            let told = if by_client { &node.finished } else { &client.finished };
            prop_assert_eq!(told.iter().filter(|told| **told == id).count(), 1);
        }
    }

    #[test]
    fn strangers_messages_never_panic(messages in proptest::collection::vec((0x5300_u32..0x5309, proptest::collection::vec(any::<u8>(), 0..40)), 0..60)) {
        let mut node = Streams::new(Side::Node, Limits::default());
        for (payload_type, data) in messages {
            if node.receive(PayloadType(payload_type), data.into()).is_err() {
                break;
            }
            while node.next_event().is_some() {}
            while node.next_message(1000).is_some() {}
        }
    }
}

/// A reader that stops holds back its own stream and no other.
#[test]
fn a_stream_that_is_not_read_is_bounded_and_harms_nobody() {
    let (mut client, mut node) = (End::new(Side::Client), End::new(Side::Node));
    let stuck = client.streams.open(destination(1)).expect("room");
    let lively = client.streams.open(destination(2)).expect("room");
    for _ in 0..50 {
        client.send(stuck, vec![1; 100_000]);
        carry(&mut client, &mut node, usize::MAX, 100_000);
    }
    let arrived = node.got.get(&stuck).map_or(0, Vec::len);
    assert_eq!(arrived, INITIAL_CREDIT);
    for _ in 0..50 {
        client.send(lively, vec![2; 10_000]);
        carry(&mut client, &mut node, usize::MAX, 100_000);
        let of_lively = node.held.iter().position(|(id, _)| *id == lively);
        let (id, bytes) = node
            .held
            .remove(of_lively.expect("arrived"))
            .expect("there");
        node.streams.consumed(id, bytes);
        carry(&mut node, &mut client, usize::MAX, 100_000);
    }
    assert_eq!(node.got[&lively].len(), 500_000);
}

#[test]
fn a_keystroke_overtakes_a_file_and_many_keystrokes_do_not_starve_it() {
    let mut client = Streams::new(Side::Client, Limits::default());
    let file = client.open(destination(1)).expect("room");
    let keys = client.open(destination(2)).expect("room");
    while client.next_message(1).is_some() {}
    for id in [file, keys] {
        let credit = Message::Credit(id, 4 << 20).encode();
        client.receive(credit.0, credit.1).expect("by the rules");
    }
    client.send(file, vec![0; 512 << 10].into());
    // The file has shown what it is.
    for _ in 0..4 {
        client.next_message(32 << 10).expect("more of the file");
    }
    let of = |message: (PayloadType, Bytes)| match Message::parse(message.0, message.1) {
        Ok(Message::Data(id, _)) => id,
        other => panic!("{other:?}"),
    };
    client.send(keys, Bytes::from_static(b"x"));
    assert_eq!(of(client.next_message(32 << 10).expect("a message")), keys);
    let mut of_file = 0;
    for _ in 0..64 {
        client.send(keys, Bytes::from_static(b"x"));
        if of(client.next_message(1000).expect("a message")) == file {
            of_file += 1;
        }
    }
    assert!(of_file >= 3, "the file went on {of_file} times");
}

#[test]
fn who_breaks_the_rules_is_found_out() {
    let told = |messages: &[Message]| {
        let mut node = Streams::new(Side::Node, Limits::default());
        let mut last = Ok(());
        for message in messages {
            let (payload_type, data) = message.encode();
            last = node.receive(payload_type, data);
        }
        last
    };
    let open = Message::Open(1, Destination::default());
    let data = |length: usize| Message::Data(1, vec![0; length].into());
    assert_eq!(told(&[open.clone(), data(INITIAL_CREDIT)]), Ok(()));
    assert_eq!(
        told(&[open.clone(), data(INITIAL_CREDIT), data(1)]),
        Err(Violation::Credit(1))
    );
    assert_eq!(told(&[data(1)]), Err(Violation::Unknown(1)));
    assert_eq!(told(&[open.clone(), open.clone()]), Err(Violation::Id(1)));
    let even = Message::Open(2, Destination::default());
    assert_eq!(told(&[even]), Err(Violation::Id(2)));
    assert_eq!(
        told(&[open.clone(), Message::Fin(1), data(1)]),
        Err(Violation::Finished(1))
    );
    // Late messages for a stream that is over are no offence.
    assert_eq!(
        told(&[open, Message::Reset(1), data(1), Message::Fin(1)]),
        Ok(())
    );
    let mut node = Streams::new(Side::Node, Limits::default());
    for (payload_type, data) in [
        (payload::OPEN, &[0, 0, 0][..]),
        (payload::OPEN, b"\0\0\0\x01{\"Host\":1}"),
        (payload::FIN, &[0, 0, 0, 1, 9]),
        (payload::CREDIT, &[0, 0, 0, 1]),
        (PayloadType::OUTPUT, b"\0\0\0\x01"),
    ] {
        let told = node.receive(payload_type, Bytes::copy_from_slice(data));
        assert!(
            matches!(told, Err(Violation::Message(_))),
            "{payload_type:?}"
        );
    }
}

#[test]
fn a_refused_stream_is_forgotten_on_both_sides_and_the_limit_refuses_by_itself() {
    let limits = Limits {
        streams: 1,
        ..Limits::default()
    };
    let mut client = Streams::new(Side::Client, Limits::default());
    let mut node = Streams::new(Side::Node, limits);
    let first = client.open(destination(1)).expect("room");
    let second = client.open(destination(2)).expect("room");
    while let Some((payload_type, data)) = client.next_message(100) {
        node.receive(payload_type, data).expect("by the rules");
    }
    assert_eq!(node.next_event(), Some(Event::Open(first, destination(1))));
    assert_eq!(node.next_event(), None);
    let refusal = Refusal {
        code: RefusalCode::Refused,
        message: "nobody listens there".to_owned(),
    };
    node.refuse(first, refusal.clone());
    while let Some((payload_type, data)) = node.next_message(100) {
        client.receive(payload_type, data).expect("by the rules");
    }
    let codes: Vec<_> = std::iter::from_fn(|| client.next_event())
        .map(|event| match event {
            Event::Refused(id, refusal) => (id, refusal.code),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        codes,
        [(second, RefusalCode::Limit), (first, RefusalCode::Refused)]
    );
    assert_eq!((client.count(), node.count()), (0, 0));
}

/// Somebody on the way puts a refusal in the place of a request.
#[test]
fn a_stream_that_was_refused_on_the_way_is_told_to_the_end_that_asked() {
    let mut client = Streams::new(Side::Client, Limits::default());
    let mut node = Streams::new(Side::Node, Limits::default());
    let id = client.open(destination(1)).expect("room");
    client.send(id, Bytes::from_static(b"early"));
    let refusal = Refusal {
        code: RefusalCode::Forbidden,
        message: "not by policy".to_owned(),
    };
    client.next_message(100).expect("the request");
    let (payload_type, data) = Message::Refused(id, refusal.clone()).encode();
    node.receive(payload_type, data).expect("by the rules");
    while let Some((payload_type, data)) = client.next_message(100) {
        node.receive(payload_type, data).expect("late at worst");
    }
    assert_eq!(node.next_event(), None);
    while let Some((payload_type, data)) = node.next_message(100) {
        client.receive(payload_type, data).expect("by the rules");
    }
    assert_eq!(client.next_event(), Some(Event::Refused(id, refusal)));
    assert_eq!((client.count(), node.count()), (0, 0));
    // The id is used up, and the next one is free.
    let next = client.open(destination(2)).expect("room");
    let (payload_type, data) = client.next_message(100).expect("the request");
    node.receive(payload_type, data).expect("by the rules");
    assert_eq!(node.next_event(), Some(Event::Open(next, destination(2))));
}

#[test]
fn a_stream_is_answered_once_and_by_the_other_end() {
    let answer = |messages: &[Message]| {
        let mut client = Streams::new(Side::Client, Limits::default());
        client.open(destination(1)).expect("room");
        let mut last = Ok(());
        for message in messages {
            let (payload_type, data) = message.encode();
            last = client.receive(payload_type, data);
        }
        last
    };
    let refused = |id| {
        let message = "no".to_owned();
        let code = RefusalCode::Refused;
        Message::Refused(id, Refusal { code, message })
    };
    assert_eq!(answer(&[Message::Opened(1)]), Ok(()));
    assert_eq!(
        answer(&[Message::Opened(1), Message::Opened(1)]),
        Err(Violation::Answer(1))
    );
    assert_eq!(
        answer(&[Message::Opened(1), refused(1)]),
        Err(Violation::Answer(1))
    );
    assert_eq!(answer(&[refused(1), refused(1)]), Ok(()));
    assert_eq!(answer(&[refused(3)]), Err(Violation::Unknown(3)));
    let theirs = Message::Open(2, Destination::default());
    assert_eq!(
        answer(&[theirs, Message::Opened(2)]),
        Err(Violation::Answer(2))
    );
}

/// Answers wait for the session; who asks without end is not listened to for ever.
#[test]
fn an_end_that_cannot_answer_says_so() {
    let limits = Limits {
        streams: 1,
        ..Limits::default()
    };
    let mut node = Streams::new(Side::Node, limits);
    let mut asked = 0_u32;
    while !node.is_backed_up() {
        let (payload_type, data) = Message::Open(2 * asked + 1, destination(1)).encode();
        node.receive(payload_type, data).expect("by the rules");
        asked += 1;
        assert!(asked < 100_000, "answers are not bounded");
    }
    node.next_message(100).expect("an answer");
    assert!(!node.is_backed_up());
}
