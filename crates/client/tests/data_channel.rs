//! The data channel against a scripted server: what it announces and to whom, order and exactness of
//! bytes over lost connections, and every way a session ends.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use sortie_channel::{
    body::{
        Body, HandshakeComplete, HandshakeRequest, HandshakeResponse, RequestedAction,
        SessionTypeParameters, Size,
    },
    frame::PayloadType,
    handshake::{CLIENT_VERSION, SessionType},
};
use sortie_client::{
    DataChannel, StartedSession,
    data_channel::{End, Event, KeepAliveOptions, Options},
};
use sortie_types::Secret;
use support::{Node, Server, agreed, api, scripted, within};

const OURS: &str = "SRT1.first";
const OFFICIAL: &str = "AAEAAfirst";

fn open_with(server: &Server, token: &str, options: Options) -> DataChannel {
    let api = api(server, None);
    DataChannel::open(agreed(server, token), api.clone(), api.tls(), options)
}

fn open(server: &Server, token: &str) -> DataChannel {
    open_with(server, token, Options::default())
}

async fn next(channel: &mut DataChannel) -> Event {
    within("an event", channel.events.next())
        .await
        .expect("an event before the end")
}

async fn end(channel: &mut DataChannel) -> End {
    loop {
        if let Event::Ended(end) = next(channel).await {
            return end;
        }
    }
}

/// Collects output until there is this much of it.
async fn output(channel: &mut DataChannel, length: usize) -> Vec<u8> {
    let mut collected = Vec::new();
    while collected.len() < length {
        if let Event::Output(bytes) = next(channel).await {
            collected.extend_from_slice(&bytes);
        }
    }
    collected
}

#[tokio::test]
async fn our_server_is_told_who_we_are_and_the_size_goes_before_the_input() {
    let mut server = Server::start(scripted([])).await;
    let mut channel = open(&server, OURS);
    channel.commands.resize(Size::new(80, 24));
    channel
        .commands
        .send(Bytes::from_static(b"ls\r"))
        .await
        .unwrap();
    let peer = server.next_channel().await;
    assert_eq!(peer.open.token.expose(), OURS);
    assert_eq!(peer.open.client_version.as_deref(), Some(CLIENT_VERSION));
    assert!(
        peer.open
            .sortie
            .as_ref()
            .unwrap()
            .features
            .contains(&"exit-status".to_owned())
    );

    let mut node = Node::new(true);
    node.attach_ours(peer, "SRT1.ticket").await;
    node.pump_until("the input", |node| node.input == b"ls\r")
        .await;
    assert_eq!(node.order, ["size", "input"]);
    assert_eq!(node.sizes, [(80, 24)]);

    node.output(b"$ ");
    node.send(PayloadType::STDERR, b"oops");
    node.send(PayloadType::EXIT_CODE, b"EXIT_CODE: 3");
    node.close("").await;
    assert!(matches!(next(&mut channel).await, Event::Joined));
    assert!(
        matches!(next(&mut channel).await, Event::Begun(session) if session.session_type == SessionType::StandardStream)
    );
    assert!(matches!(next(&mut channel).await, Event::Output(bytes) if bytes == "$ "));
    assert!(matches!(next(&mut channel).await, Event::StdErr(bytes) if bytes == "oops"));
    assert!(matches!(
        next(&mut channel).await,
        Event::ExitStatus { code: Some(3), .. }
    ));
    assert_eq!(
        end(&mut channel).await,
        End::Closed {
            output: String::new()
        }
    );
    assert!(channel.events.next().await.is_none());
    assert_eq!(server.count("ResumeSession"), 0);
}

#[tokio::test]
async fn an_exit_status_without_any_output_arrives() {
    let mut server = Server::start(scripted([])).await;
    let mut channel = open(&server, OURS);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.ticket")
        .await;
    node.send(PayloadType::EXIT_CODE, b"EXIT_CODE: 4");
    node.close("").await;
    assert!(matches!(next(&mut channel).await, Event::Joined));
    assert!(matches!(
        next(&mut channel).await,
        Event::ExitStatus { code: Some(4), .. }
    ));
    assert_eq!(
        end(&mut channel).await,
        End::Closed {
            output: String::new()
        }
    );
}

#[tokio::test]
async fn another_server_is_told_nothing_and_gets_what_official_clients_send() {
    let mut server = Server::start(scripted([])).await;
    let mut channel = open(&server, OFFICIAL);
    channel.commands.resize(Size::new(80, 24));
    channel
        .commands
        .send(Bytes::from(vec![b'x'; 5000]))
        .await
        .unwrap();
    let peer = server.next_channel().await;
    assert!(!peer.raw_open.contains("Sortie"), "{}", peer.raw_open);

    let mut node = Node::new(false);
    node.attach(peer);
    node.output(b"prompt");
    node.pump_until("the input", |node| node.input.len() == 5000)
        .await;
    assert_eq!(node.order[0], "size");
    assert!(
        node.lengths.iter().all(|length| *length <= 1024),
        "{:?}",
        node.lengths
    );
    node.close("bye").await;
    assert_eq!(
        end(&mut channel).await,
        End::Closed {
            output: "bye".to_owned()
        }
    );
}

#[tokio::test]
async fn nothing_is_typed_at_an_official_agent_before_its_handshake_is_over() {
    let mut server = Server::start(scripted([])).await;
    let mut channel = open(&server, OFFICIAL);
    channel.commands.resize(Size::new(80, 24));
    channel
        .commands
        .send(Bytes::from_static(b"early"))
        .await
        .unwrap();
    let mut node = Node::new(false);
    node.attach(server.next_channel().await);
    let action = RequestedAction {
        action_type: "SessionType".to_owned(),
        parameters: SessionTypeParameters {
            session_type: "InteractiveCommands".to_owned(),
            properties: json!(null),
        }
        .to_value(),
    };
    let request = HandshakeRequest {
        agent_version: "3.3.987.0".to_owned(),
        actions: vec![action],
    };
    node.send(PayloadType::HANDSHAKE_REQUEST, request.to_text().as_bytes());
    node.pump_until("the response", |node| !node.other.is_empty())
        .await;
    assert_eq!(node.other[0].payload_type, PayloadType::HANDSHAKE_RESPONSE);
    let response = HandshakeResponse::parse(&node.other[0].payload).unwrap();
    assert_eq!(response.actions[0].status, 1);
    assert!(node.order.is_empty(), "{:?}", node.order);

    let complete = HandshakeComplete {
        time_to_complete_ns: 1,
        customer_message: "hello".to_owned(),
    };
    node.send(
        PayloadType::HANDSHAKE_COMPLETE,
        complete.to_text().as_bytes(),
    );
    node.pump_until("the input", |node| node.input == b"early")
        .await;
    assert!(matches!(next(&mut channel).await, Event::Begun(session)
        if session.session_type == SessionType::InteractiveCommands && session.customer_message == "hello"));
}

/// Bytes that show every loss, repeat and exchange.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    })
    .take(length)
    .collect()
}

#[tokio::test]
async fn both_directions_stay_exact_over_many_lost_connections_without_credentials() {
    let mut server = Server::start(scripted([])).await;
    let mut channel = open(&server, OURS);
    let (typed, shown) = (pattern(600_000, 1), pattern(900_000, 2));

    let commands = channel.commands.clone();
    let input = Bytes::from(typed.clone());
    let typing = tokio::spawn(async move { commands.send(input).await });
    let expected = shown.len();
    let watching = tokio::spawn(async move {
        let collected = output(&mut channel, expected).await;
        (collected, channel)
    });

    let mut node = Node::new(true);
    let mut rest = shown.as_slice();
    for round in 0.. {
        let peer = server.next_channel().await;
        let token = if round == 0 {
            OURS.to_owned()
        } else {
            format!("SRT1.ticket-{}", round - 1)
        };
        assert_eq!(peer.open.token.expose(), token);
        node.attach_ours(peer, &format!("SRT1.ticket-{round}"))
            .await;
        let goal = node.input.len() + 50_000;
        node.pump_until("progress", |node| {
            while !rest.is_empty() && node.link.writable() > 8192 {
                let (piece, later) = rest.split_at(rest.len().min(7919));
                node.output(piece);
                rest = later;
            }
            let is_done = rest.is_empty() && node.link.drained() && node.input.len() == typed.len();
            is_done || (node.input.len() >= goal && node.input.len() < typed.len())
        })
        .await;
        if rest.is_empty() && node.link.drained() && node.input.len() == typed.len() {
            assert!(round > 5, "only {round} connections were lost");
            break;
        }
        node.cut();
    }
    typing.await.unwrap().unwrap();
    let (collected, mut channel) = within("the output", watching).await.unwrap();
    assert!(collected == shown, "the output differs");
    assert!(node.input == typed, "the input differs");
    node.close("").await;
    assert_eq!(
        end(&mut channel).await,
        End::Closed {
            output: String::new()
        }
    );
    assert_eq!(server.count("ResumeSession"), 0);
}

#[tokio::test]
async fn elsewhere_a_lost_connection_is_resumed_through_the_api_with_the_same_client_id() {
    let resumed =
        json!({"SessionId": "session", "TokenValue": "second", "StreamUrl": "ws://ignored/"});
    let mut server = Server::start(scripted([(200, resumed)])).await;
    let mut channel = open(&server, OFFICIAL);
    let mut node = Node::new(false);
    let first = server.next_channel().await;
    let client_id = first.open.client_id.clone();
    node.attach(first);
    node.output(b"one");
    node.pump_until("an acknowledgement", |node| node.link.drained())
        .await;
    node.cut();
    let second = server.next_channel().await;
    assert_eq!(second.open.token.expose(), "second");
    assert_eq!(second.open.client_id, client_id);
    node.attach(second);
    node.output(b"two");
    node.close("").await;

    let mut seen = Vec::new();
    loop {
        match next(&mut channel).await {
            Event::Away { .. } => seen.push("away".to_owned()),
            Event::Back => seen.push("back".to_owned()),
            Event::Output(bytes) => seen.push(String::from_utf8(bytes.to_vec()).unwrap()),
            Event::Ended(_) => break,
            _ => {}
        }
    }
    assert_eq!(seen, ["one", "away", "back", "two"]);
}

#[tokio::test]
async fn a_session_that_ended_meanwhile_has_timed_out() {
    let gone = json!({"SessionId": "session", "StreamUrl": "ws://ignored/"});
    for answer in [
        (200, gone.clone()),
        (
            200,
            json!({"SessionId": "session", "TokenValue": "", "StreamUrl": ""}),
        ),
        (
            400,
            json!({"__type": "DoesNotExistException", "message": "gone"}),
        ),
    ] {
        let mut server = Server::start(scripted([answer])).await;
        let mut channel = open(&server, OFFICIAL);
        drop(server.next_channel().await);
        assert_eq!(end(&mut channel).await, End::TimedOut);
    }
}

#[tokio::test]
async fn a_refused_resume_ends_with_its_reason() {
    let denied = json!({"__type": "AccessDeniedException", "message": "not you"});
    let mut server = Server::start(scripted([(400, denied)])).await;
    let mut channel = open(&server, OFFICIAL);
    drop(server.next_channel().await);
    match end(&mut channel).await {
        End::Lost { reason } => assert!(reason.contains("not you"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_websocket_ends_at_once_with_the_status() {
    let server = Server::start(|_| (403, String::new())).await;
    let mut channel = open(&server, OURS);
    match end(&mut channel).await {
        End::Refused { reason } => assert!(reason.contains("403"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_given_up_after_the_official_budget() {
    let server = Server::start(scripted([])).await;
    let session = StartedSession {
        session_id: "session".to_owned(),
        token_value: Secret::new(OURS),
        stream_url: "ws://127.0.0.1:1/".to_owned(),
    };
    let api = api(&server, None);
    let mut channel = DataChannel::open(session, api.clone(), api.tls(), Options::default());
    match end(&mut channel).await {
        End::Refused { reason } => assert!(reason.contains("127.0.0.1:1"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_any_more_is_left_for_a_new_connection() {
    let mut server = Server::start(scripted([])).await;
    let options = Options {
        keep_alive: KeepAliveOptions {
            every: Duration::from_millis(50),
            doubt_after: Duration::from_millis(50),
            dead_after: Duration::from_secs(3),
        },
        ..Options::default()
    };
    let mut channel = open_with(&server, OURS, options);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.ticket")
        .await;
    node.output(b"one");
    node.pump_until("an acknowledgement", |node| node.link.drained())
        .await;
    // The socket stays open and is not read: a half-open connection.
    let silent = std::mem::replace(&mut node, Node::new(true));
    let again = server.next_channel().await;
    assert_eq!(again.open.token.expose(), "SRT1.ticket");
    drop(silent);
    loop {
        if let Event::Away { reason } = next(&mut channel).await {
            assert!(reason.contains("does not answer"), "{reason}");
            break;
        }
    }
}

#[tokio::test]
async fn leaving_after_the_input_delivers_it_first() {
    let mut server = Server::start(scripted([])).await;
    let mut channel = open(&server, OURS);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.ticket")
        .await;
    let typed = pattern(200_000, 3);
    let commands = channel.commands.clone();
    let input = Bytes::from(typed.clone());
    tokio::spawn(async move {
        commands.send(input).await.unwrap();
        commands.leave_when_delivered();
    });
    node.pump_until_closed().await;
    assert!(
        node.input == typed,
        "{} of {} bytes",
        node.input.len(),
        typed.len()
    );
    assert_eq!(end(&mut channel).await, End::Left);
}

#[tokio::test]
async fn malformed_and_foreign_frames_are_ignored() {
    let mut server = Server::start(scripted([])).await;
    let mut channel = open(&server, OURS);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.ticket")
        .await;
    for garbage in [vec![], vec![0; 119], vec![0xff; 500], pattern(4096, 4)] {
        node.frame(Bytes::from(garbage)).await;
    }
    node.output(b"still here");
    node.pump_until("an acknowledgement", |node| node.link.drained())
        .await;
    assert_eq!(output(&mut channel, 10).await, b"still here");
}

#[tokio::test]
async fn a_private_certificate_authority_is_trusted_when_configured_and_only_then() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.pem");
    std::fs::write(&bundle, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let mut server = Server::start_with(scripted([]), Some(Arc::new(tls))).await;
    let session = || StartedSession {
        session_id: "session".to_owned(),
        token_value: Secret::new(OURS),
        stream_url: format!("wss://{}/", server.address),
    };
    let (trusting, strict) = (api(&server, Some(bundle)), api(&server, None));
    let trusted = DataChannel::open(
        session(),
        trusting.clone(),
        trusting.tls(),
        Options::default(),
    );
    let mut refused =
        DataChannel::open(session(), strict.clone(), strict.tls(), Options::default());
    match end(&mut refused).await {
        End::Refused { reason } => assert!(reason.contains("AWS_CA_BUNDLE"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let peer = server.next_channel().await;
    assert_eq!(peer.open.token.expose(), OURS);
    drop(trusted);
}
