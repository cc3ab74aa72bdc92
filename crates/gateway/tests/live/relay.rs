//! What passes between two ends, and what never does.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use sortie_channel::{
    body::{Acknowledge, Body, OpenClient, SortieOpen},
    features,
    frame::{Frame, MessageType},
};
use sortie_ports::SessionState;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{World, ack, client_open, input, output, quick, stream, within};

fn raw(frame: Frame) -> Bytes {
    frame.into_bytes()
}

#[tokio::test]
async fn a_shell_opens_and_its_frames_pass_unchanged() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    shell.worker.say_state(&shell.id, "Connected").await;
    let prompt = output(0, b"$ ");
    shell.worker.send(prompt.clone()).await;
    assert_eq!(
        raw(shell.client.expect(MessageType::OutputStreamData).await),
        prompt
    );
    let keys: Vec<Bytes> = (0..200).map(|number| input(number, &[7; 300])).collect();
    let sender = async {
        for key in &keys {
            shell.client.send(key.clone()).await;
        }
    };
    let receiver = async {
        for key in &keys {
            assert_eq!(
                &raw(shell.worker.expect(MessageType::InputStreamData).await),
                key
            );
        }
    };
    tokio::join!(sender, receiver);
}

#[tokio::test]
async fn the_start_message_names_document_and_owner_and_brings_officials_no_token() {
    let mut world = World::start().await;
    let mut control = world.official_node().await;
    let started = world.start_session().await;
    let _client = world.client(&started).await;
    let start = control.started().await;
    assert_eq!(start.session_id, started.session_id.as_str());
    assert_eq!(start.document_content["sessionType"], "Standard_Stream");
    assert!(
        start.session_owner.ends_with(":user/alice"),
        "{}",
        start.session_owner
    );
    assert!(start.sortie.is_none());
}

#[tokio::test]
async fn our_own_ends_are_told_what_both_can_do_and_come_back_with_their_tickets() {
    let mut world = World::start().await;
    let mut control = world.our_node(&[]).await;
    let started = world.start_session().await;
    let mut client = world
        .our_client(&started.session_id, &started.token_value)
        .await;
    let start = control.started().await;
    assert_eq!(start.sortie.as_ref().unwrap().features, features::ALL);
    let mut worker = world.our_worker(&start).await;
    let told = client.features().await;
    assert_eq!(told.features, features::ALL);
    assert_eq!(worker.features().await.features, features::ALL);
    worker.send(output(0, b"one")).await;
    client.expect(MessageType::OutputStreamData).await;

    drop(client);
    world
        .until_state(&started.session_id, SessionState::Disconnected)
        .await;
    worker.send(output(1, b"two")).await;
    let ticket = told.ticket.unwrap();
    let mut client = world.our_client(&started.session_id, &ticket).await;
    let again = client.features().await;
    assert!(again.ticket.is_some());
    let numbers = [client.next().await.unwrap(), client.next().await.unwrap()];
    assert_eq!(
        numbers.map(|frame| frame.sequence_number()),
        [0, 1],
        "0 was not acknowledged"
    );
    world
        .until_state(&started.session_id, SessionState::Connected)
        .await;
}

#[tokio::test]
async fn our_client_learns_that_the_node_is_official() {
    let mut world = World::start().await;
    let mut control = world.official_node().await;
    let started = world.start_session().await;
    let mut client = world
        .our_client(&started.session_id, &started.token_value)
        .await;
    control.started().await;
    let mut worker = world.worker(&started.session_id).await;
    let told = client.features().await;
    assert!(told.features.is_empty());
    client.send(input(0, b"x")).await;
    worker.expect(MessageType::InputStreamData).await;
}

#[tokio::test]
async fn what_would_kill_an_official_peer_is_never_relayed() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let good = input(0, b"good");
    let mut past_the_end = BytesMut::from(&input(0, b"bad")[..]);
    past_the_end[0..4].copy_from_slice(&4096_u32.to_be_bytes());
    let mut no_header = BytesMut::from(&input(0, b"bad")[..]);
    no_header.truncate(118);
    let mut typeless = BytesMut::from(&input(0, b"bad")[..]);
    typeless[4..36].fill(b' ');
    let mut garbage = BytesMut::new();
    garbage.put_bytes(0xff, 500);
    let bad = [
        Message::Text("x".repeat(200).into()),
        Message::Text("x".repeat(117).into()),
        Message::Binary(past_the_end.freeze()),
        Message::Binary(no_header.freeze()),
        Message::Binary(typeless.freeze()),
        Message::Binary(garbage.freeze()),
        Message::Binary(Bytes::new()),
        Message::Binary(stream(MessageType::OutputStreamData, 0, b"wrong way")),
        Message::Binary(stream(MessageType::ChannelClosed, 0, b"{}")),
        Message::Binary(stream(MessageType::PausePublication, 0, b"{}")),
        Message::Binary(stream(MessageType::InteractiveShell, 0, b"{}")),
        Message::Binary(stream(MessageType::Other("novelty".into()), 0, b"{}")),
        Message::Binary(stream(MessageType::Acknowledge, 0, b"not json")),
    ];
    for message in bad {
        shell.client.send_message(message).await;
    }
    shell.client.send(good.clone()).await;
    assert_eq!(
        raw(shell.worker.next().await.unwrap()),
        good,
        "the first thing that arrives"
    );

    shell
        .worker
        .send_message(Message::Text("y".repeat(300).into()))
        .await;
    shell
        .worker
        .send(stream(MessageType::InputStreamData, 0, b"wrong way"))
        .await;
    shell.worker.say_state(&shell.id, "Connected").await;
    let good = output(0, b"good");
    shell.worker.send(good.clone()).await;
    assert_eq!(raw(shell.client.next().await.unwrap()), good);
}

#[tokio::test]
async fn an_agent_that_missed_an_acknowledgement_is_answered() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let first = output(0, b"first");
    shell.worker.send(first.clone()).await;
    let received = shell.client.expect(MessageType::OutputStreamData).await;
    shell.client.send(ack(&received)).await;
    shell.worker.expect(MessageType::Acknowledge).await;
    for _ in 0..3 {
        shell.worker.send(first.clone()).await;
        let answer = shell.worker.expect(MessageType::Acknowledge).await;
        let body = Acknowledge::parse(&answer.payload()).unwrap();
        assert_eq!(body.sequence_number, 0);
        assert_eq!(body.message_id, received.message_id().to_string());
    }
    let second = output(1, b"second");
    shell.worker.send(second.clone()).await;
    assert_eq!(
        raw(shell.client.next().await.unwrap()),
        second,
        "no repeat came before it"
    );
}

#[tokio::test]
async fn output_while_the_client_is_away_is_kept_once_and_the_agent_paused() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    drop(shell.client);
    world
        .until_state(&shell.id, SessionState::Disconnected)
        .await;
    for number in [0, 0, 1, 0, 2] {
        shell.worker.send(output(number, b"late")).await;
    }
    shell.worker.expect(MessageType::PausePublication).await;
    let mut client = world.resumed(&shell.id).await;
    shell.worker.expect(MessageType::StartPublication).await;
    for number in 0..3 {
        let frame = client.expect(MessageType::OutputStreamData).await;
        assert_eq!(frame.sequence_number(), number);
        client.send(ack(&frame)).await;
    }
    for _ in 0..3 {
        shell.worker.expect(MessageType::Acknowledge).await;
    }
}

#[tokio::test]
async fn input_while_the_node_is_away_waits_for_it() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    drop(shell.worker);
    world
        .until_state(&shell.id, SessionState::Disconnected)
        .await;
    shell.client.send(input(0, b"l")).await;
    shell.client.send(input(1, b"s")).await;
    shell.client.send(input(0, b"l")).await;
    let mut worker = world.worker(&shell.id).await;
    assert_eq!(worker.next().await.unwrap().sequence_number(), 0);
    assert_eq!(worker.next().await.unwrap().sequence_number(), 1);
}

#[tokio::test]
async fn a_slow_client_pauses_the_agent_and_nothing_is_lost() {
    let mut world = World::start_with(|_, options| {
        options.pause_above = 64 * 1024;
        options.resume_below = 16 * 1024;
    })
    .await;
    let mut shell = world.shell().await;
    let mut sent = 0;
    let paused = async {
        loop {
            shell.worker.send(output(sent, &[7; 1024])).await;
            sent += 1;
            if sent > 200 {
                return shell.worker.expect(MessageType::PausePublication).await;
            }
        }
    };
    within("a pause", paused).await;
    for number in 0..sent {
        let frame = shell.client.expect(MessageType::OutputStreamData).await;
        assert_eq!(frame.sequence_number(), number);
        shell.client.send(ack(&frame)).await;
    }
    shell.worker.until(MessageType::StartPublication).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_ends_the_session_with_a_reason() {
    let mut world = World::start_with(|_, options| {
        options.pause_above = 64 * 1024;
        options.output_limit = 256 * 1024;
        options.flush_wait = Duration::from_millis(100);
    })
    .await;
    let mut shell = world.shell().await;
    let mut number = 0;
    while number < 4000 && shell.worker.try_send(output(number, &[7; 1024])).await {
        number += 1;
        if world.row(&shell.id).await.state == SessionState::Failed {
            break;
        }
    }
    let row = world.until_state(&shell.id, SessionState::Failed).await;
    assert!(row.end_reason.unwrap().contains("not taken in time"));
}

#[tokio::test]
async fn a_client_whose_node_takes_nothing_is_not_read() {
    let mut world = World::start_with(|_, options| options.input_limit = 64 * 1024).await;
    let mut shell = world.shell().await;
    let mut taken = 0;
    let payload = [7; 1024];
    while taken < 2000 {
        let sent = shell.client.send(input(taken, &payload));
        if tokio::time::timeout(Duration::from_millis(300), sent)
            .await
            .is_err()
        {
            break;
        }
        taken += 1;
    }
    // The limit, two pipes and the gateway's write buffer.
    assert!((32..400).contains(&taken), "{taken} KiB were taken");
    shell.worker.expect(MessageType::InputStreamData).await;
    assert_eq!(world.row(&shell.id).await.state, SessionState::Connected);
}

#[tokio::test]
async fn the_newest_socket_of_a_side_is_the_live_one() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let mut second = world.client(&shell.started).await;
    shell.client.until_hung_up().await;
    shell.worker.send(output(0, b"hello")).await;
    second.expect(MessageType::OutputStreamData).await;
    let mut worker = world.worker(&shell.id).await;
    shell.worker.until_hung_up().await;
    second.send(input(0, b"x")).await;
    worker.until(MessageType::InputStreamData).await;
    assert_eq!(world.row(&shell.id).await.state, SessionState::Connected);
}

#[tokio::test]
async fn another_process_that_takes_a_session_over_ends_the_first_one_with_a_text() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let token = world.resume(&shell.id).await.unwrap();
    let open = client_open(&token, "client-2");
    let _second = world.data_channel(&shell.id, &open.to_text(), false).await;
    assert_eq!(
        shell.client.closed().await,
        "The session was taken over elsewhere."
    );
}

#[tokio::test]
async fn refused_clients_are_told_why_and_refused_nodes_hung_up_on() {
    let mut world = World::start().await;
    let shell = world.shell().await;
    let other = world.start_session().await;
    let foreign = client_open(&other.token_value, "client-1");
    let mut client = world
        .data_channel(&shell.id, &foreign.to_text(), false)
        .await;
    assert_eq!(
        client.closed().await,
        "The token is not valid for this session."
    );
    let forged = client_open(&"SRT1.AAAA".into(), "client-1");
    let mut client = world
        .data_channel(&shell.id, &forged.to_text(), false)
        .await;
    assert!(!client.closed().await.is_empty());

    world.resume(&shell.id).await.unwrap();
    let mut client = world.client(&shell.started).await;
    assert_eq!(
        client.closed().await,
        "The session was resumed from elsewhere."
    );

    let open = crate::world::node_open(&shell.started.token_value, &world.nodes[1]);
    let mut node = world.data_channel(&shell.id, &open.to_text(), false).await;
    assert!(node.next().await.is_none(), "a node gets no frame");
    let token = world.node_token(&shell.id).await;
    let open = crate::world::node_open(&token, &world.nodes[1]);
    let mut node = world.data_channel(&shell.id, &open.to_text(), false).await;
    assert!(node.next().await.is_none());
}

#[tokio::test]
async fn a_clients_token_signed_by_a_node_opens_nothing() {
    let mut world = World::start().await;
    world.official_node().await;
    let started = world.start_session().await;
    let open = client_open(&started.token_value, "client-1");
    let mut channel = world
        .data_channel(&started.session_id, &open.to_text(), true)
        .await;
    assert_eq!(
        channel.closed().await,
        "The token is not valid for this session."
    );
}

#[tokio::test]
async fn what_does_not_begin_with_an_open_message_is_hung_up_on() {
    let mut world =
        World::start_with(|_, options| options.open_message_timeout = Duration::from_millis(200))
            .await;
    world.official_node().await;
    let started = world.start_session().await;
    for text in ["", "{", "[]", "\u{0}", r#"{"TokenValue":7}"#] {
        let mut channel = world.data_channel(&started.session_id, text, false).await;
        let frame = channel.next().await;
        assert!(frame.is_none_or(|frame| frame.message_type() == &MessageType::ChannelClosed));
        channel.until_hung_up().await;
    }
    let huge = OpenClient {
        sortie: Some(SortieOpen {
            version: "x".repeat(300_000),
            features: vec![],
        }),
        ..client_open(&started.token_value, "client-1")
    };
    let mut channel = world
        .data_channel(&started.session_id, &huge.to_text(), false)
        .await;
    assert!(channel.next().await.is_none());
}

#[tokio::test]
async fn pings_are_answered_at_once() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    for channel in [&mut shell.client, &mut shell.worker, &mut shell.control] {
        channel
            .send_message(Message::Ping(Bytes::from_static(b"question")))
            .await;
        channel.until_pong().await;
    }
}

#[tokio::test]
async fn a_half_open_client_is_found_by_pings() {
    let mut world = World::start_with(|_, options| {
        options.ping_interval = Duration::from_millis(50);
        options.data_silence = Duration::from_secs(4);
    })
    .await;
    let mut shell = world.shell().await;
    // The client is never polled, so it answers nothing; the worker answers.
    let alive = async { while shell.worker.next().await.is_some() {} };
    tokio::select! {
        () = alive => panic!("the worker answers pings and is not to be dropped"),
        _ = world.until_state(&shell.id, SessionState::Disconnected) => {}
    }
}

#[tokio::test]
async fn live_sessions_go_on_after_a_restart() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    shell.worker.send(output(0, b"before")).await;
    let frame = shell.client.expect(MessageType::OutputStreamData).await;
    shell.client.send(ack(&frame)).await;
    shell.worker.expect(MessageType::Acknowledge).await;

    world.restart(quick()).await;
    shell.client.until_hung_up().await;
    shell.worker.until_hung_up().await;
    assert!(!world.row(&shell.id).await.state.is_over());
    let _control = world.official_node().await;
    let mut worker = world.worker(&shell.id).await;
    worker.send(output(1, b"after")).await;
    let mut client = world.resumed(&shell.id).await;
    assert_eq!(
        client
            .until(MessageType::OutputStreamData)
            .await
            .sequence_number(),
        1
    );
    client.send(input(0, b"x")).await;
    worker.until(MessageType::InputStreamData).await;
    world.until_state(&shell.id, SessionState::Connected).await;
}

#[tokio::test]
async fn before_a_channel_is_open_little_of_a_message_is_collected() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let token = world.resume(&shell.id).await.unwrap();
    let open = client_open(&token, &"x".repeat(100_000));
    let mut large = world.data_channel(&shell.id, &open.to_text(), false).await;
    assert!(large.next().await.is_none(), "hung up on without a word");
    // Nothing was taken of it: the session has its client still.
    shell.worker.send(output(0, b"alive")).await;
    shell.client.expect(MessageType::OutputStreamData).await;
}
