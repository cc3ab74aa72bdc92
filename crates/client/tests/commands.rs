//! Commands over the data channel, against a scripted node: the question before they begin, standard
//! input and its pace, its end, and signals.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sortie_channel::{
    body::{Body, HandshakeResponse},
    frame::PayloadType,
    handshake::{NodeHandshake, SessionType},
    stdin,
};
use sortie_client::{
    DataChannel,
    data_channel::{CommandSignal, Event, KeepAliveOptions, Options},
};
use support::{Node, Server, agreed, api, scripted, within};

const OURS: &str = "SRT1.first";
const OFFICIAL: &str = "AAEAAfirst";

fn open(server: &Server, token: &str) -> DataChannel {
    let api = api(server, None);
    let options = Options {
        asks: true,
        keep_alive: KeepAliveOptions {
            doubt_after: Duration::from_millis(200),
            ..KeepAliveOptions::default()
        },
        ..Options::default()
    };
    DataChannel::open(agreed(server, token), api.clone(), api.tls(), options)
}

async fn next(channel: &mut DataChannel) -> Event {
    within("an event", channel.events.next())
        .await
        .expect("an event before the end")
}

/// What the client was asked with.
async fn asked(channel: &mut DataChannel) -> Vec<String> {
    loop {
        match next(channel).await {
            Event::Asked { features } => return features,
            Event::Joined => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Asks the client, and once it has agreed completes the handshake.
async fn begin(node: &mut Node, channel: &mut DataChannel) -> Vec<String> {
    let session_type = SessionType::NonInteractiveCommands;
    let mut handshake = NodeHandshake::new(session_type, serde_json::Value::Null, "");
    let request = handshake.start(node.now());
    node.send(request.payload_type, &request.payload);
    let (features, ()) = tokio::join!(
        asked(channel),
        node.pump_until("the request to be acknowledged", |node| node.link.drained()),
    );
    assert!(node.other.is_empty(), "answered without being told to");
    channel.commands.agree();
    node.pump_until("the response", |node| !node.other.is_empty())
        .await;
    let response = node.other.remove(0);
    assert!(HandshakeResponse::parse(&response.payload).is_ok());
    let complete = match handshake.receive(&response, node.now()) {
        Ok(sortie_channel::handshake::NodeStep::Complete { send, .. }) => send,
        other => panic!("{other:?}"),
    };
    node.send(complete.payload_type, &complete.payload);
    features
}

async fn begun(node: &mut Node, channel: &mut DataChannel) {
    let pump = node.pump_until("the end of the handshake", |node| node.link.drained());
    let event = async {
        loop {
            match next(channel).await {
                Event::Begun(session) => return session.session_type,
                Event::Joined => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let (session_type, ()) = tokio::join!(event, pump);
    assert_eq!(session_type, SessionType::NonInteractiveCommands);
}

async fn started(token: &str) -> (Server, Node, DataChannel, Vec<String>) {
    let mut server = Server::start(scripted([])).await;
    let mut channel = open(&server, token);
    let peer = server.next_channel().await;
    let is_ours = token == OURS;
    let mut node = Node::new(is_ours);
    if is_ours {
        node.attach_ours(peer, "SRT1.ticket").await;
    } else {
        node.attach(peer);
    }
    let features = begin(&mut node, &mut channel).await;
    begun(&mut node, &mut channel).await;
    (server, node, channel, features)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn types(node: &Node) -> Vec<PayloadType> {
    node.other.iter().map(|other| other.payload_type).collect()
}

#[tokio::test]
async fn a_signal_gets_through_while_the_command_reads_nothing_and_all_input_arrives() {
    let (_server, mut node, channel, features) = started(OURS).await;
    assert!(features.iter().any(|feature| feature == "stdin"));
    let input = pattern(stdin::WINDOW * 3 + 12_345);
    let commands = channel.commands.clone();
    let given = Bytes::from(input.clone());
    let writing = tokio::spawn(async move {
        commands.send(given).await.unwrap();
        commands.end_input();
    });
    node.pump_until("a full window", |node| node.input.len() >= stdin::WINDOW)
        .await;
    channel.commands.signal(CommandSignal::Int).unwrap();
    channel.commands.signal(CommandSignal::Usr1).unwrap();
    node.pump_until("the signals", |node| node.other.len() == 2)
        .await;
    assert_eq!(node.input.len(), stdin::WINDOW, "more than was agreed");
    assert_eq!(types(&node), [PayloadType::SIGNAL; 2]);
    assert_eq!(node.other[0].payload.as_ref(), b"INT");
    assert_eq!(node.other[1].payload.as_ref(), b"USR1");
    // The command begins to read.
    while node.input.len() < input.len() {
        let before = node.input.len();
        node.send(PayloadType::STDIN_TAKEN, &stdin::taken(before as u64));
        node.pump_until("more input", |node| node.input.len() > before)
            .await;
    }
    node.pump_until("the end of the input", |node| node.other.len() == 3)
        .await;
    assert_eq!(types(&node)[2], PayloadType::STDIN_EOF);
    assert!(node.input == input);
    writing.await.unwrap();
}

#[tokio::test]
async fn news_of_what_was_taken_never_widens_the_window() {
    let (_server, mut node, channel, _) = started(OURS).await;
    for nonsense in [&[0xff_u8; 8][..], b"x", &[0; 8]] {
        node.send(PayloadType::STDIN_TAKEN, nonsense);
    }
    node.pump_until("the nonsense to be acknowledged", |node| {
        node.link.drained()
    })
    .await;
    let commands = channel.commands.clone();
    let writing =
        tokio::spawn(async move { commands.send(Bytes::from(pattern(stdin::WINDOW * 2))).await });
    node.pump_until("a full window", |node| node.input.len() >= stdin::WINDOW)
        .await;
    channel.commands.signal(CommandSignal::Term).unwrap();
    node.pump_until("the signal", |node| node.other.len() == 1)
        .await;
    assert_eq!(node.input.len(), stdin::WINDOW);
    writing.abort();
}

#[tokio::test]
async fn input_and_its_end_survive_a_lost_connection() {
    let (mut server, mut node, channel, _) = started(OURS).await;
    let input = pattern(900_000);
    let commands = channel.commands.clone();
    let given = Bytes::from(input.clone());
    let writing = tokio::spawn(async move {
        commands.send(given).await.unwrap();
        commands.end_input();
        commands.signal(CommandSignal::Hup).unwrap();
    });
    node.pump_until("some input", |node| node.input.len() > 100_000)
        .await;
    node.cut();
    let peer = server.next_channel().await;
    node.attach_ours(peer, "SRT1.ticket").await;
    node.pump_until("all input, its end and the signal", |node| {
        node.other.len() == 2
    })
    .await;
    writing.await.unwrap();
    node.pump_until("the rest", |node| node.input.len() == input.len())
        .await;
    assert!(node.input == input);
    let mut types = types(&node);
    types.sort_by_key(|payload_type| payload_type.0);
    assert_eq!(types, [PayloadType::STDIN_EOF, PayloadType::SIGNAL]);
}

#[tokio::test]
async fn an_official_agent_gets_control_bytes_and_hears_nothing_else() {
    let (_server, mut node, mut channel, features) = started(OFFICIAL).await;
    assert!(features.is_empty());
    channel.commands.end_input();
    for signal in [
        CommandSignal::Term,
        CommandSignal::Int,
        CommandSignal::Pipe,
        CommandSignal::Quit,
    ] {
        channel.commands.signal(signal).unwrap();
    }
    node.pump_until("the control bytes", |node| node.input.len() == 2)
        .await;
    assert_eq!(node.input, [0x03, 0x1c]);
    node.send(PayloadType::STDERR, b"oh");
    node.send(PayloadType::EXIT_CODE, b"EXIT_CODE: 3");
    node.close("").await;
    assert!(node.other.is_empty(), "{:?}", types(&node));
    let mut told = next(&mut channel).await;
    if matches!(told, Event::Joined) {
        told = next(&mut channel).await;
    }
    assert!(matches!(&told, Event::StdErr(text) if text.as_ref() == b"oh"));
    let status = next(&mut channel).await;
    assert!(matches!(status, Event::ExitStatus { code: Some(3), .. }));
}

#[tokio::test]
async fn a_client_that_does_not_agree_leaves_before_anything_has_happened() {
    let mut server = Server::start(scripted([(200, json!({}))])).await;
    let mut channel = open(&server, OURS);
    let mut node = Node::new(true);
    let peer = server.next_channel().await;
    node.attach_ours(peer, "SRT1.ticket").await;
    let mut handshake = NodeHandshake::new(
        SessionType::NonInteractiveCommands,
        serde_json::Value::Null,
        "",
    );
    let request = handshake.start(node.now());
    node.send(request.payload_type, &request.payload);
    let ((), _) = tokio::join!(
        node.pump_until("the request to be taken", |node| node.link.drained()),
        asked(&mut channel),
    );
    channel.commands.leave();
    node.pump_until_closed().await;
    assert!(node.other.is_empty());
}
