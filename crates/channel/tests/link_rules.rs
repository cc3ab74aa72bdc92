//! The rules of a link, one by one: what it sends when, what it tolerates, and what it never does.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing"
)]

use std::time::Duration;

use bytes::Bytes;
use sortie_channel::{
    body::{Acknowledge, Body, Features},
    features,
    frame::{Frame, MessageType, NewFrame, PayloadType},
    link::{Full, Ignored, Link, Options, Received, Role},
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

fn link(role: Role) -> Link {
    Link::new(Options::new(role, [1; 16]))
}

fn parse(bytes: Bytes) -> Frame {
    Frame::parse(bytes).unwrap()
}

/// A stream message as a peer of `role` gets it.
fn stream(role: Role, number: i64, payload: &[u8]) -> Frame {
    let message_type = match role {
        Role::Client => MessageType::OutputStreamData,
        Role::Node => MessageType::InputStreamData,
    };
    let new = NewFrame {
        message_type,
        sequence_number: number,
        flags: 0,
        message_id: Uuid::from_u128(1 + u128::from(number.cast_unsigned())),
        payload_type: PayloadType::OUTPUT,
        payload,
        created: at(0).wall,
        digest: true,
    };
    parse(new.encode().unwrap())
}

fn ack(number: i64) -> Frame {
    parse(service::acknowledge(
        stamp(),
        &MessageType::OutputStreamData,
        Uuid::nil(),
        number,
    ))
}

fn ack_up_to(number: i64) -> Frame {
    let output = MessageType::OutputStreamData;
    parse(service::acknowledge_up_to(
        stamp(),
        &output,
        Uuid::nil(),
        number,
        false,
    ))
}

fn room_again(number: i64) -> Frame {
    let output = MessageType::OutputStreamData;
    parse(service::acknowledge_up_to(
        stamp(),
        &output,
        Uuid::nil(),
        number,
        true,
    ))
}

fn queue(link: &mut Link, payload: &'static [u8]) {
    link.send(PayloadType::OUTPUT, Bytes::from_static(payload), at(0))
        .unwrap();
}

fn transmit(link: &mut Link, now: Now) -> Vec<Frame> {
    std::iter::from_fn(|| link.poll_transmit(now))
        .map(parse)
        .collect()
}

/// The stream numbers among the frames that a link sends now.
fn numbers(link: &mut Link, now: Now) -> Vec<i64> {
    let frames = transmit(link, now);
    let is_stream = |frame: &&Frame| frame.message_type().is_stream();
    frames
        .iter()
        .filter(is_stream)
        .map(Frame::sequence_number)
        .collect()
}

fn acknowledged(frame: &Frame) -> (i64, bool) {
    assert_eq!(frame.message_type(), &MessageType::Acknowledge);
    let body = Acknowledge::parse(&frame.payload()).unwrap();
    (body.sequence_number, body.cumulative == Some(true))
}

fn all_features() -> Vec<String> {
    features::ALL.iter().map(ToString::to_string).collect()
}

#[test]
fn stream_messages_are_written_as_official_ends_write_them() {
    for (role, message_type, first_flags) in [
        (Role::Node, "output_stream_data", 1),
        (Role::Client, "input_stream_data", 0),
    ] {
        let mut link = link(role);
        queue(&mut link, b"one");
        queue(&mut link, b"two");
        let frames = transmit(&mut link, at(0));
        assert_eq!(frames.len(), 2);
        for (frame, (number, flags)) in frames.iter().zip([(0, first_flags), (1, 0)]) {
            assert_eq!(frame.message_type().as_str(), message_type);
            assert_eq!((frame.sequence_number(), frame.flags()), (number, flags));
            assert!(frame.digest_matches());
        }
        assert_ne!(frames[0].message_id(), frames[1].message_id());
    }
}

#[test]
fn an_acknowledgement_names_the_message_and_goes_before_new_data() {
    let mut link = link(Role::Node);
    queue(&mut link, b"output");
    let input = stream(Role::Node, 0, b"key");
    assert!(matches!(
        link.receive(input.clone(), at(0)),
        Received::Stream
    ));
    let frames = transmit(&mut link, at(0));
    let body = Acknowledge::parse(&frames[0].payload()).unwrap();
    assert_eq!(body.message_type, MessageType::InputStreamData);
    assert_eq!(body.message_id, input.message_id().to_string());
    assert_eq!(
        (body.sequence_number, body.is_sequential, body.cumulative),
        (0, true, None)
    );
    assert_eq!(frames[0].flags(), 3);
    assert_eq!(frames[1].payload(), "output");
}

#[test]
fn a_gateway_rebuilds_the_acknowledgement_that_the_end_wrote() {
    let mut link = link(Role::Client);
    let output = stream(Role::Client, 0, b"x");
    link.receive(output.clone(), at(0));
    let by_end = transmit(&mut link, at(0)).remove(0);
    let stamp = Stamp::new(by_end.message_id(), at(0).wall);
    assert_eq!(service::acknowledge_of(stamp, &output), by_end.into_bytes());
}

#[test]
fn duplicates_are_acknowledged_each_time_and_delivered_once() {
    for role in [Role::Client, Role::Node] {
        let mut link = link(role);
        for _ in 0..3 {
            link.receive(stream(role, 0, b"a"), at(0));
            link.receive(stream(role, 2, b"c"), at(0));
        }
        let acks: Vec<i64> = transmit(&mut link, at(0))
            .iter()
            .map(|frame| acknowledged(frame).0)
            .collect();
        assert_eq!(acks, [0, 2, 0, 2, 0, 2]);
        assert_eq!(link.next_delivery().unwrap().payload, "a");
        assert_eq!(link.next_delivery(), None);
        link.receive(stream(role, 1, b"b"), at(0));
        assert_eq!(link.next_delivery().unwrap().payload, "b");
        assert_eq!(link.next_delivery().unwrap().payload, "c");
        assert_eq!(link.stats().duplicates, 4);
    }
}

#[test]
fn a_client_ignores_a_wrong_digest_and_a_node_does_not_look() {
    let spoil = |frame: Frame| {
        let mut bytes = frame.into_bytes().to_vec();
        bytes[90] ^= 1;
        parse(Bytes::from(bytes))
    };
    let mut client = link(Role::Client);
    let spoiled = spoil(stream(Role::Client, 0, b"x"));
    let received = client.receive(spoiled.clone(), at(0));
    assert!(matches!(received, Received::Ignored(Ignored::WrongDigest)));
    assert_eq!(client.poll_transmit(at(0)), None);
    assert_eq!(client.next_delivery(), None);
    client.set_features(&[features::NO_DIGEST.to_owned()]);
    assert!(matches!(client.receive(spoiled, at(0)), Received::Stream));

    let mut node = link(Role::Node);
    let received = node.receive(spoil(stream(Role::Node, 0, b"x")), at(0));
    assert!(matches!(received, Received::Stream));
}

#[test]
fn without_digests_agreed_upon_none_are_written_and_they_come_back_for_an_official_peer() {
    let mut node = link(Role::Node);
    node.set_features(&all_features());
    queue(&mut node, b"x");
    let frame = transmit(&mut node, at(0)).remove(0);
    assert!(!frame.digest_matches());

    // An official client takes over: what it has not acknowledged must pass its check.
    node.set_features(&[]);
    node.disconnected();
    node.connected(at(1));
    let again = transmit(&mut node, at(1)).remove(0);
    assert!(again.digest_matches());
    assert_eq!(again.message_id(), frame.message_id());
}

#[test]
fn a_paused_node_sends_acknowledgements_only_until_any_sign_of_its_client() {
    let signs: [fn(&mut Link); 4] = [
        |link| drop(link.receive(parse(service::start_publication(stamp())), at(0))),
        |link| drop(link.receive(stream(Role::Node, 1, b"k"), at(0))),
        |link| drop(link.receive(ack(7), at(0))),
        |link| {
            link.disconnected();
            link.connected(at(0));
        },
    ];
    for sign in signs {
        let mut node = link(Role::Node);
        node.receive(stream(Role::Node, 0, b"k"), at(0));
        let pause = parse(service::pause_publication(stamp()));
        assert!(matches!(node.receive(pause, at(0)), Received::Paused));
        assert!(node.paused());
        queue(&mut node, b"held");
        assert_eq!(acknowledged(&transmit(&mut node, at(0))[0]).0, 0);
        assert_eq!(node.poll_transmit(at(60_000)), None);
        assert_eq!(node.deadline(), None);
        sign(&mut node);
        assert!(!node.paused());
        assert_eq!(numbers(&mut node, at(0)), [0]);
    }
    let mut client = link(Role::Client);
    client.receive(parse(service::pause_publication(stamp())), at(0));
    assert!(!client.paused());
}

#[test]
fn nothing_goes_to_the_stream_before_the_features_are_known() {
    let mut client = Link::new(Options {
        wait_for_features: true,
        ..Options::new(Role::Client, [1; 16])
    });
    queue(&mut client, b"size");
    assert!(transmit(&mut client, at(0)).is_empty());
    client.receive(stream(Role::Client, 0, b"x"), at(0));
    assert_eq!(acknowledged(&transmit(&mut client, at(0))[0]), (0, false));

    let features = Features {
        version: "0.1.0".into(),
        features: all_features(),
        ticket: Some("t".into()),
    };
    let frame = parse(service::sortie_features(stamp(), &features));
    let Received::Features(features) = client.receive(frame, at(0)) else {
        panic!("not read as features");
    };
    assert_eq!(features.ticket.unwrap().expose(), "t");
    let frames = transmit(&mut client, at(0));
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].payload(), "size");
    assert!(!frames[0].digest_matches());
}

#[test]
fn a_cumulative_acknowledgement_counts_only_where_agreed() {
    let mut node = link(Role::Node);
    for _ in 0..3 {
        queue(&mut node, b"x");
    }
    assert_eq!(numbers(&mut node, at(0)), [0, 1, 2]);
    node.receive(ack_up_to(2), at(1));
    assert!(!node.drained());
    node.set_features(&all_features());
    node.receive(ack_up_to(2), at(2));
    // 2 itself was acknowledged before, so this one changed nothing it names; yet it speaks for all.
    assert!(node.drained());
}

#[test]
fn one_cumulative_acknowledgement_answers_many_messages_and_early_ones_get_their_own() {
    let mut client = link(Role::Client);
    client.set_features(&all_features());
    for number in [0, 1, 2, 5] {
        client.receive(stream(Role::Client, number, b"x"), at(0));
    }
    let acks: Vec<_> = transmit(&mut client, at(0))
        .iter()
        .map(acknowledged)
        .collect();
    assert_eq!(acks, [(2, true), (5, false)]);
}

#[test]
fn a_cumulative_acknowledgement_waits_a_moment_for_something_to_go_with() {
    let mut node = link(Role::Node);
    node.set_features(&all_features());
    let receive = |node: &mut Link, number, size, millis| {
        let output = stream(Role::Node, number, &vec![b'x'; size]);
        assert!(matches!(node.receive(output, at(millis)), Received::Stream));
    };
    receive(&mut node, 0, 1, 0);
    assert!(transmit(&mut node, at(1)).is_empty());
    assert_eq!(node.deadline(), Some(at(2).monotonic));
    let frames = transmit(&mut node, at(2));
    assert_eq!(acknowledged(&frames[0]), (0, true), "nothing came");
    assert_eq!(node.deadline(), None);

    receive(&mut node, 1, 1, 3);
    queue(&mut node, b"the echo");
    let frames = transmit(&mut node, at(3));
    assert_eq!(acknowledged(&frames[0]), (1, true), "with the echo");
    assert_eq!(frames[1].payload(), "the echo");

    receive(&mut node, 2, 131_071, 4);
    assert!(transmit(&mut node, at(4)).is_empty());
    receive(&mut node, 3, 1, 4);
    let frames = transmit(&mut node, at(4));
    assert_eq!(acknowledged(&frames[0]), (3, true), "enough came");
}

#[test]
fn after_a_reconnect_everything_unacknowledged_goes_again_in_order_and_at_once() {
    let mut node = link(Role::Node);
    for _ in 0..500 {
        queue(&mut node, &[7; 1024]);
    }
    assert_eq!(numbers(&mut node, at(0)), (0..500).collect::<Vec<_>>());
    for number in (0..500).filter(|number| number % 5 == 1) {
        node.receive(ack(number), at(1));
    }
    let _ = transmit(&mut node, at(1));
    node.disconnected();
    queue(&mut node, b"during the outage");
    assert_eq!(node.poll_transmit(at(5000)), None);
    assert_eq!(node.deadline(), None);
    node.connected(at(60_000));
    let mut expected: Vec<i64> = (0..500).filter(|number| number % 5 != 1).collect();
    expected.push(500);
    assert_eq!(numbers(&mut node, at(60_000)), expected);
}

#[test]
fn a_silent_peer_is_asked_less_and_less_often_and_never_for_everything() {
    let mut node = link(Role::Node);
    for _ in 0..700 {
        queue(&mut node, &[7; 1024]);
    }
    assert_eq!(numbers(&mut node, at(0)).len(), 700);
    let mut resend_times = Vec::new();
    let mut now = 0;
    while now < 60_000 {
        let deadline = u64::try_from(node.deadline().unwrap().as_millis()).unwrap();
        assert!(deadline >= now, "a deadline in the past is a busy loop");
        now = deadline + 1;
        let again = numbers(&mut node, at(now));
        assert_eq!(again.first(), Some(&0));
        let at_most = if resend_times.len() < 3 { 64 } else { 1 };
        assert!(again.len() <= at_most, "{} messages at once", again.len());
        assert!(numbers(&mut node, at(now)).is_empty());
        resend_times.push(now);
    }
    assert!(resend_times.len() < 15, "{resend_times:?}");
    assert!(resend_times[0] < 300);
    let gaps: Vec<u64> = resend_times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(
        gaps.windows(2).all(|pair| pair[1] + 5 >= pair[0]),
        "{gaps:?}"
    );
    assert_eq!(
        node.unacknowledged_for(at(now)),
        Some(Duration::from_millis(now))
    );
}

#[test]
fn a_kind_network_sees_no_resend() {
    let mut node = link(Role::Node);
    let round_trip = 80;
    for round in 0..200 {
        let now = round * round_trip;
        queue(&mut node, b"x");
        queue(&mut node, b"y");
        let sent = numbers(&mut node, at(now));
        assert_eq!(sent.len(), 2);
        for number in sent {
            node.receive(ack(number), at(now + round_trip));
        }
    }
    assert!(node.drained());
    assert_eq!(node.stats().resent, 0);
}

#[test]
fn a_round_trip_longer_than_the_first_timeout_is_learnt_after_a_few_messages() {
    for round_trip in [250, 385, 700, 1200, 2500] {
        let mut node = link(Role::Node);
        let mut now = 0;
        let mut resent_late = 0;
        for round in 0..50 {
            queue(&mut node, b"x");
            let before = node.stats().resent;
            let sent = numbers(&mut node, at(now));
            let arrival = now + round_trip;
            while let Some(deadline) = node.deadline().filter(|at| at.as_millis() < arrival.into())
            {
                now = u64::try_from(deadline.as_millis()).unwrap() + 1;
                numbers(&mut node, at(now));
            }
            now = arrival;
            node.receive(ack(sent[0]), at(now));
            if round >= 10 {
                resent_late += node.stats().resent - before;
            }
        }
        assert!(
            resent_late <= 1,
            "{resent_late} useless resends at {round_trip} ms"
        );
    }
}

#[test]
fn a_lost_message_goes_again_as_soon_as_later_ones_are_acknowledged() {
    let mut node = link(Role::Node);
    queue(&mut node, b"lost");
    assert_eq!(numbers(&mut node, at(0)), [0]);
    queue(&mut node, b"later");
    assert_eq!(numbers(&mut node, at(60)), [1]);
    node.receive(ack(1), at(100));
    assert_eq!(numbers(&mut node, at(100)), [0]);
    assert!(numbers(&mut node, at(101)).is_empty());
}

#[test]
fn the_send_queue_is_bounded_by_bytes_and_many_small_messages_count() {
    let mut node = Link::new(Options {
        send_limit: 64 << 10,
        ..Options::new(Role::Node, [1; 16])
    });
    let mut count = 0;
    while node
        .send(PayloadType::OUTPUT, Bytes::from_static(b"x"), at(0))
        .is_ok()
    {
        count += 1;
    }
    assert!((100..300).contains(&count), "{count} messages of one byte");
    assert_eq!(node.writable(), 0);
    let sent = numbers(&mut node, at(0)).len();
    assert_eq!(sent, count);
    node.receive(ack(0), at(1));
    assert!(node.writable() > 0);

    let mut empty = link(Role::Node);
    let huge = Bytes::from(vec![1; 8 << 20]);
    assert_eq!(empty.send(PayloadType::OUTPUT, huge.clone(), at(0)), Ok(()));
    assert_eq!(empty.send(PayloadType::OUTPUT, huge, at(0)), Err(Full));
    assert_eq!(numbers(&mut empty, at(0)), [0]);
}

#[test]
fn fewer_messages_are_in_flight_than_an_official_client_can_hold() {
    let mut node = Link::new(Options {
        send_limit: 64 << 20,
        ..Options::new(Role::Node, [1; 16])
    });
    for _ in 0..20_000 {
        queue(&mut node, b"x");
    }
    let sent = numbers(&mut node, at(0));
    assert!(
        (1000..10_000).contains(&sent.len()),
        "{} in flight",
        sent.len()
    );
    // The head is missing: everything else being acknowledged must not widen the span beyond it.
    for number in sent.iter().skip(1) {
        node.receive(ack(*number), at(1));
    }
    let more = numbers(&mut node, at(1));
    assert!(
        more.iter().all(|number| *number < 10_000),
        "{:?}",
        more.last()
    );
}

#[test]
fn what_is_not_consumed_is_bounded_and_the_peer_hears_when_there_is_room() {
    let mut client = Link::new(Options {
        receive_limit: 16 << 10,
        ..Options::new(Role::Client, [1; 16])
    });
    client.set_features(&all_features());
    let mut accepted = 0;
    for number in 0..100 {
        match client.receive(stream(Role::Client, number, &[1; 1024]), at(0)) {
            Received::Stream => accepted += 1,
            Received::Ignored(Ignored::NoRoom) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((8..=16).contains(&accepted), "{accepted} accepted");
    let acks: Vec<_> = transmit(&mut client, at(0))
        .iter()
        .map(acknowledged)
        .collect();
    assert_eq!(acks, [(accepted - 1, true)]);
    while client.next_delivery().is_some() {}
    let again = transmit(&mut client, at(0)).remove(0);
    assert_eq!(acknowledged(&again), (accepted - 1, true));
    assert_eq!(
        Acknowledge::parse(&again.payload()).unwrap().room_again,
        Some(true)
    );
    assert!(transmit(&mut client, at(0)).is_empty());

    let mut node = link(Role::Node);
    node.set_features(&all_features());
    for _ in 0..20 {
        queue(&mut node, &[1; 1024]);
    }
    assert_eq!(numbers(&mut node, at(0)).len(), 20);
    node.receive(ack_up_to(9), at(50));
    node.receive(ack_up_to(9), at(100));
    assert!(numbers(&mut node, at(100)).is_empty());
    node.receive(room_again(9), at(150));
    assert_eq!(numbers(&mut node, at(150)), (10..20).collect::<Vec<_>>());
    node.receive(room_again(9), at(160));
    assert!(
        numbers(&mut node, at(160)).is_empty(),
        "what may be under way is left alone"
    );
    node.receive(room_again(12), at(250));
    assert_eq!(numbers(&mut node, at(250)), (13..20).collect::<Vec<_>>());
}

#[test]
fn a_message_larger_than_the_receive_limit_passes_when_nothing_else_is_held() {
    let mut client = Link::new(Options {
        receive_limit: 1024,
        ..Options::new(Role::Client, [1; 16])
    });
    for number in 0..2 {
        let received = client.receive(stream(Role::Client, number, &[1; 8 << 10]), at(0));
        assert_eq!(
            matches!(received, Received::Stream),
            number == 0,
            "{received:?}"
        );
    }
    assert!(client.next_delivery().is_some());
    let received = client.receive(stream(Role::Client, 1, &[1; 8 << 10]), at(0));
    assert!(matches!(received, Received::Stream));
}

#[test]
fn nonsense_is_counted_and_changes_nothing() {
    let mut client = link(Role::Client);
    queue(&mut client, b"x");
    assert_eq!(numbers(&mut client, at(0)), [0]);
    let far = [i64::MIN, -1, 1_000_000, i64::MAX];
    for number in far {
        let received = client.receive(stream(Role::Client, number, b"x"), at(0));
        assert!(
            matches!(received, Received::Ignored(Ignored::AbsurdNumber)),
            "{number}"
        );
        for frame in [ack(number), ack_up_to(number)] {
            let received = client.receive(frame, at(0));
            assert!(
                matches!(received, Received::Ignored(Ignored::UnknownAcknowledgement)),
                "{number}"
            );
        }
    }
    let received = client.receive(stream(Role::Node, 0, b"x"), at(0));
    assert!(matches!(
        received,
        Received::Ignored(Ignored::WrongDirection)
    ));
    for message_type in [
        "acknowledge",
        "sortie_features",
        "agent_session_state",
        "nobody_knows",
    ] {
        let new = NewFrame {
            message_type: MessageType::from(message_type),
            sequence_number: 0,
            flags: 0,
            message_id: Uuid::nil(),
            payload_type: PayloadType::NONE,
            payload: b"[",
            created: at(0).wall,
            digest: true,
        };
        let received = client.receive(parse(new.encode().unwrap()), at(0));
        assert!(
            matches!(received, Received::Ignored(_)),
            "{message_type}: {received:?}"
        );
    }
    assert_eq!(client.stats().nonsense, 4 * 3 + 1 + 4);
    assert!(transmit(&mut client, at(0)).is_empty());
    assert_eq!(client.held_bytes().1, 0);
    client.receive(ack(0), at(1));
    assert!(client.drained());
}

#[test]
fn early_messages_are_bounded_in_number() {
    let mut client = Link::new(Options {
        receive_limit: 1 << 30,
        ..Options::new(Role::Client, [1; 16])
    });
    for number in 1..20_000 {
        client.receive(stream(Role::Client, number, b"x"), at(0));
    }
    assert!(client.stats().no_room >= 9_000);
    assert!(client.held_bytes().1 < 4 << 20);
}

#[test]
fn a_closed_channel_is_closed_also_when_its_body_cannot_be_read() {
    let mut client = link(Role::Client);
    let closed =
        service::channel_closed(stamp(), "alice-0123456789abcdef0", "mi-1", "idle too long");
    let Received::ChannelClosed(closed) = client.receive(parse(closed), at(0)) else {
        panic!("not closed");
    };
    assert_eq!(closed.output, "idle too long");
    let new = NewFrame {
        message_type: MessageType::ChannelClosed,
        sequence_number: 0,
        flags: 3,
        message_id: Uuid::nil(),
        payload_type: PayloadType(261),
        payload: b"nonsense",
        created: at(0).wall,
        digest: true,
    };
    let Received::ChannelClosed(closed) = client.receive(parse(new.encode().unwrap()), at(0))
    else {
        panic!("not closed");
    };
    assert_eq!(closed.output, "");
}

/// An official node is paused by what is not acknowledged, and recovers what was refused far too slowly.
#[test]
fn a_client_that_takes_nothing_acknowledges_an_official_node_only_so_much() {
    let mut client = link(Role::Client);
    let acks = |client: &mut Link| std::iter::from_fn(|| client.poll_transmit(at(0))).count();
    let payload = [7; 1024];
    for number in 0..4000 {
        let received = client.receive(stream(Role::Client, number, &payload), at(0));
        assert!(
            matches!(received, Received::Stream),
            "{number}: {received:?}"
        );
    }
    let at_once = acks(&mut client);
    assert!((100..400).contains(&at_once), "{at_once}");
    let repeated = client.receive(stream(Role::Client, 3999, &payload), at(0));
    assert!(matches!(repeated, Received::Ignored(Ignored::Duplicate)));
    assert_eq!(acks(&mut client), 0, "it is not taken yet");
    for _ in 0..4000 {
        assert!(client.next_delivery().is_some());
    }
    assert_eq!(at_once + acks(&mut client), 4000);
    client.receive(stream(Role::Client, 3999, &payload), at(0));
    assert_eq!(acks(&mut client), 1, "every repeat of what was taken");
}
