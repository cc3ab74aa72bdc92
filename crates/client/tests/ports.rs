//! Port sessions against a scripted node, by each way that streams are carried: exact bytes over lost
//! connections, half-close, refusals, back-pressure, streams that the node opens, and the end.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sortie_channel::{
    body::{Body, HandshakeComplete, HandshakeRequest, RequestedAction, SessionTypeParameters},
    frame::{PayloadType, flag},
    link::Delivery,
    smux::{self, Smux},
    streams::{self, Destination, Limits, Refusal, RefusalCode, Side, Streams},
};
use sortie_client::{
    PortSession,
    data_channel::{End, Options},
    ports::{Carrier, Event, OpenError, PortStream, splice},
};
use support::{Node, Server, agreed, api, scripted, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OURS: &str = "SRT1.first";
const OFFICIAL: &str = "AAEAAfirst";
const OUR_AGENT: &str = "3.3.9999.0";

fn open(server: &Server, token: &str) -> PortSession {
    let api = api(server, None);
    PortSession::open(
        agreed(server, token),
        api.clone(),
        api.tls(),
        Options::default(),
    )
}

fn forwarding() -> Value {
    json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": "8080"})
}

/// The node shakes hands as an agent of this version in a session with these properties.
async fn shake_hands(node: &mut Node, agent_version: &str, properties: Value) {
    let action = RequestedAction {
        action_type: "SessionType".to_owned(),
        parameters: SessionTypeParameters {
            session_type: "Port".to_owned(),
            properties,
        }
        .to_value(),
    };
    let request = HandshakeRequest {
        agent_version: agent_version.to_owned(),
        actions: vec![action],
    };
    node.send(PayloadType::HANDSHAKE_REQUEST, request.to_text().as_bytes());
    node.pump_until("the response", |node| !node.other.is_empty())
        .await;
    assert_eq!(
        node.other.remove(0).payload_type,
        PayloadType::HANDSHAKE_RESPONSE
    );
    let complete = HandshakeComplete {
        time_to_complete_ns: 1,
        customer_message: String::new(),
    };
    node.send(
        PayloadType::HANDSHAKE_COMPLETE,
        complete.to_text().as_bytes(),
    );
}

async fn begun(session: &mut PortSession) -> Carrier {
    loop {
        match within("the session to begin", session.next()).await {
            Some(Event::Begun(begun)) => return begun.carrier,
            Some(Event::Ended(end)) => panic!("ended: {end:?}"),
            Some(_) => {}
            None => panic!("no event"),
        }
    }
}

async fn end(session: &mut PortSession) -> End {
    loop {
        if let Some(Event::Ended(end)) = within("the end", session.next()).await {
            return end;
        }
    }
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

/// The node's end of streams, which sends back what comes and ends when the client does.
struct Echo {
    streams: Streams,
    /// What each stream was sent and could not send back yet.
    held: Vec<(u32, Bytes)>,
    ended: Vec<u32>,
    opened: Vec<(u32, Destination)>,
    data_lengths: Vec<usize>,
}

impl Echo {
    fn new() -> Self {
        Self {
            streams: Streams::new(Side::Node, Limits::default()),
            held: Vec::new(),
            ended: Vec::new(),
            opened: Vec::new(),
            data_lengths: Vec::new(),
        }
    }

    /// Takes what came, and sends what there is room for.
    fn turn(&mut self, node: &mut Node) {
        for Delivery {
            payload_type,
            payload,
        } in std::mem::take(&mut node.other)
        {
            if payload_type == streams::payload::DATA {
                self.data_lengths.push(payload.len());
            }
            self.streams.receive(payload_type, payload).unwrap();
        }
        while let Some(event) = self.streams.next_event() {
            match event {
                streams::Event::Open(id, destination) => {
                    self.opened.push((id, destination));
                    self.streams.accept(id);
                }
                streams::Event::Data(id, data) => self.held.push((id, data)),
                streams::Event::Finished(id) => self.ended.push(id),
                _ => {}
            }
        }
        let streams = &mut self.streams;
        self.held.retain(|(id, data)| {
            if streams.room(*id) == 0 {
                return true;
            }
            streams.send(*id, data.clone());
            streams.consumed(*id, data.len());
            false
        });
        self.ended.retain(|id| {
            let has_more = self.held.iter().any(|(held, _)| held == id);
            if !has_more {
                streams.finish(*id);
            }
            has_more
        });
        while node.link.writable() > 70_000
            && let Some((payload_type, payload)) = self.streams.next_message(64 << 10)
        {
            node.send(payload_type, &payload);
        }
    }
}

/// Sends and receives at once, ends its own direction, and compares.
async fn echo(stream: PortStream, sent: Vec<u8>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let expected = sent.clone();
    let sending = async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = tokio::join!(sending, reader.read_to_end(&mut got));
    read.unwrap();
    assert!(got == expected, "{} bytes differ", expected.len());
}

#[tokio::test]
async fn streams_are_exact_and_half_closed_over_many_lost_connections() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OURS);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.0")
        .await;
    shake_hands(&mut node, OUR_AGENT, forwarding()).await;

    let client = tokio::spawn(async move {
        assert_eq!(begun(&mut session).await, Carrier::Streams);
        let connector = session.connector();
        let lengths = [1, 1_000_000, 0, 70_000, 3_000_000];
        let echoes: Vec<_> = (0..)
            .zip(lengths)
            .map(|(seed, length)| {
                let stream = connector.open_own().unwrap();
                tokio::spawn(echo(stream, pattern(length, seed)))
            })
            .collect();
        for echo in echoes {
            within("an echo", echo).await.unwrap();
        }
        session
    });

    let mut peer = Echo::new();
    let mut cuts = 0;
    loop {
        let goal = peer.data_lengths.len() + 8;
        let done = |peer: &Echo| peer.opened.len() == 5 && peer.streams.count() == 0;
        node.pump_until("progress", |node| {
            peer.turn(node);
            (done(&peer) && node.link.drained()) || peer.data_lengths.len() >= goal
        })
        .await;
        if done(&peer) && node.link.drained() {
            break;
        }
        node.cut();
        cuts += 1;
        node.attach_ours(server.next_channel().await, &format!("SRT1.{cuts}"))
            .await;
    }
    assert!(cuts > 2, "{cuts}");
    // Far more than official ends put into one, though each connection begins with a small window.
    assert!(peer.data_lengths.iter().any(|length| *length > 15_000));
    assert!(
        peer.opened
            .iter()
            .all(|(_, destination)| *destination == Destination::default())
    );
    let mut session = client.await.unwrap();
    session.close();
    node.pump_until("the flag", |node| !node.other.is_empty())
        .await;
    let told = node.other.remove(0);
    assert_eq!(told.payload_type, PayloadType::FLAG);
    assert_eq!(*told.payload, flag::TERMINATE_SESSION.to_be_bytes());
    node.close("").await;
    assert_eq!(
        end(&mut session).await,
        End::Closed {
            output: String::new()
        }
    );
    assert_eq!(server.count("ResumeSession"), 0);
}

#[tokio::test]
async fn a_refusal_is_told_by_the_stream_and_harms_no_other() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OURS);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.0")
        .await;
    shake_hands(&mut node, OUR_AGENT, json!({"type": "SocksForwarding"})).await;
    let client = tokio::spawn(async move {
        begun(&mut session).await;
        let connector = session.connector();
        let to = |host: &str| Destination {
            host: Some(host.to_owned()),
            port: Some(80),
            socket: None,
        };
        let refused = connector.open(to("refused")).unwrap();
        let mut other = connector.open(to("other")).unwrap();
        other.write_all(b"x").await.unwrap();
        let refusal = refused.connected().await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Refused);
        let (mut reader, mut writer) = refused.into_split();
        for error in [
            reader.piece().await.unwrap_err(),
            writer.send(Bytes::from_static(b"x")).await.unwrap_err(),
        ] {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            assert_eq!(inner, Some(&refusal));
        }
        other.connected().await.unwrap();
        let mut got = [0];
        other.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"x");
        session
    });
    let mut machine = Streams::new(Side::Node, Limits::default());
    let mut echoed = false;
    node.pump_until("the echo to be taken", |node| {
        for delivery in std::mem::take(&mut node.other) {
            machine
                .receive(delivery.payload_type, delivery.payload)
                .unwrap();
        }
        while let Some(event) = machine.next_event() {
            match event {
                streams::Event::Open(id, destination)
                    if destination.host.as_deref() == Some("refused") =>
                {
                    let refusal = Refusal {
                        code: RefusalCode::Refused,
                        message: "connection refused".to_owned(),
                    };
                    machine.refuse(id, refusal);
                }
                streams::Event::Open(id, _) => machine.accept(id),
                streams::Event::Data(id, data) => {
                    machine.send(id, data);
                    echoed = true;
                }
                _ => {}
            }
        }
        while let Some((payload_type, payload)) = machine.next_message(1 << 16) {
            node.send(payload_type, &payload);
        }
        echoed && node.link.drained()
    })
    .await;
    drop(client.await.unwrap());
}

#[tokio::test]
async fn a_reader_that_stops_holds_back_its_sender_and_nobody_else() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OURS);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.0")
        .await;
    shake_hands(&mut node, OUR_AGENT, forwarding()).await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let client = tokio::spawn(async move {
        begun(&mut session).await;
        let connector = session.connector();
        let stuck = connector.open_own().unwrap();
        let lively = connector.open_own().unwrap();
        echo(lively, pattern(2_000_000, 3)).await;
        tell.send(()).unwrap();
        // All of it comes once it is read.
        let (mut reader, mut writer) = stuck.into_split();
        let mut got = 0;
        while got < 8 << 20 {
            got += reader.piece().await.unwrap().unwrap().len();
        }
        assert_eq!(got, 8 << 20);
        writer.finish();
        session
    });
    let mut peer = Echo::new();
    let mut flooded = 0;
    let mut most_before = None;
    let mut told = Some(told);
    node.pump_until("the flood to be read", |node| {
        peer.turn(node);
        if peer.opened.len() == 2 {
            while flooded < 8 << 20 && peer.streams.room(1) > 0 {
                peer.streams.send(1, Bytes::from(vec![0; 64 << 10]));
                flooded += 64 << 10;
            }
            peer.turn(node);
        }
        if let Some(waiting) = &mut told
            && waiting.try_recv().is_ok()
        {
            most_before = Some(flooded);
            told = None;
        }
        most_before.is_some()
            && flooded == 8 << 20
            && node.link.drained()
            && peer.streams.count() == 0
    })
    .await;
    let most = most_before.unwrap();
    assert!(
        most < 2 << 20,
        "{most} bytes for a reader that did not read"
    );
    drop(client.await.unwrap());
}

#[tokio::test]
async fn the_node_opens_streams_that_are_accepted_or_refused() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OURS);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.0")
        .await;
    let reverse = json!({"type": "ReverseForwarding", "portNumber": "9000"});
    shake_hands(&mut node, OUR_AGENT, reverse).await;
    let client = tokio::spawn(async move {
        begun(&mut session).await;
        let mut accepted = Vec::new();
        for turn in 0..3 {
            let Some(Event::Incoming(incoming)) = session.next().await else {
                panic!("no stream");
            };
            match turn {
                0 => accepted.push(incoming.accept().unwrap()),
                1 => incoming.refuse(Refusal {
                    code: RefusalCode::Refused,
                    message: "nobody".to_owned(),
                }),
                _ => drop(incoming),
            }
        }
        let mut stream = accepted.remove(0);
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "bye");
        session
    });
    let mut machine = Streams::new(Side::Node, Limits::default());
    let ids: Vec<u32> = (0..3)
        .map(|_| machine.open(Destination::default()).unwrap())
        .collect();
    let mut told = Vec::new();
    node.pump_until("the streams to be over", |node| {
        for delivery in std::mem::take(&mut node.other) {
            machine
                .receive(delivery.payload_type, delivery.payload)
                .unwrap();
        }
        while let Some(event) = machine.next_event() {
            if let streams::Event::Data(id, data) = &event {
                machine.consumed(*id, data.len());
                machine.send(*id, Bytes::from_static(b"bye"));
                machine.finish(*id);
            }
            told.push(format!("{event:?}"));
        }
        while let Some((payload_type, payload)) = machine.next_message(1 << 16) {
            node.send(payload_type, &payload);
        }
        machine.count() == 0 && node.link.drained()
    })
    .await;
    let expected = [
        format!("Accepted({})", ids[0]),
        format!("Refused({}, Refused)", ids[1]),
        format!("Data({}, 5 bytes)", ids[0]),
        format!("Finished({})", ids[0]),
        // Dropped without a word.
        format!("Refused({}, Forbidden)", ids[2]),
    ];
    for expected in expected {
        assert!(told.contains(&expected), "{expected}: {told:?}");
    }
    drop(client.await.unwrap());
}

#[tokio::test]
async fn an_official_agent_gets_smux_in_large_messages_and_every_byte_as_it_is() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OFFICIAL);
    let mut node = Node::new(false);
    node.attach(server.next_channel().await);
    shake_hands(&mut node, "3.3.987.0", forwarding()).await;
    let client = tokio::spawn(async move {
        assert_eq!(begun(&mut session).await, Carrier::Smux);
        let connector = session.connector();
        let named = Destination {
            port: Some(80),
            ..Destination::default()
        };
        assert_eq!(
            connector.open(named).unwrap_err(),
            OpenError::OwnDestinationOnly
        );
        let mut sent = pattern(600_000, 9);
        sent.extend_from_slice(b"\n");
        let (here, there) = tokio::io::duplex(256 << 10);
        let spliced = tokio::spawn(splice(connector.open_own().unwrap(), there));
        echo_local(here, sent).await;
        spliced.await.unwrap().unwrap();
        // Somewhere a message of nothing but one line feed goes out.
        let mut lines = connector.open_own().unwrap();
        for _ in 0..50 {
            lines.write_all(b"\n").await.unwrap();
            let mut got = [0];
            lines.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"\n");
        }
        drop(lines);
        session
    });
    let mut machine = Smux::new(smux::Side::Node);
    let mut lengths = Vec::new();
    let mut closed = 0;
    node.pump_until("both streams to be closed", |node| {
        lengths.append(&mut node.lengths);
        let input = std::mem::take(&mut node.input);
        machine.receive(Bytes::from(input)).unwrap();
        while let Some(event) = machine.next_event() {
            match event {
                smux::Event::Data(id, data) => {
                    machine.send(id, &data);
                    machine.used(id, data.len());
                }
                smux::Event::Closed(_) => closed += 1,
                smux::Event::Opened(_) => {}
            }
        }
        while node.link.writable() > 40_000
            && let Some(bytes) = machine.take_outgoing(1024)
        {
            node.send(PayloadType::OUTPUT, &bytes);
        }
        closed == 2
    })
    .await;
    let longest = lengths.iter().max().unwrap();
    assert!((16_000..=32 << 10).contains(longest), "{longest}");
    let mut session = client.await.unwrap();
    node.send(
        PayloadType::FLAG,
        &flag::CONNECT_TO_PORT_ERROR.to_be_bytes(),
    );
    node.pump_until("the flag to be taken", |node| node.link.drained())
        .await;
    assert!(matches!(
        within("the failure", session.next()).await,
        Some(Event::ConnectFailed)
    ));
}

/// The program at a local connection.
async fn echo_local(local: tokio::io::DuplexStream, sent: Vec<u8>) {
    let (mut reader, mut writer) = tokio::io::split(local);
    let expected = sent.clone();
    let sending = async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = tokio::join!(sending, reader.read_to_end(&mut got));
    read.unwrap();
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
}

#[tokio::test]
async fn a_raw_session_is_one_connection_from_its_beginning() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OFFICIAL);
    let mut node = Node::new(false);
    node.attach(server.next_channel().await);
    shake_hands(&mut node, "3.3.987.0", json!({"portNumber": "22"})).await;
    // A server that speaks first.
    node.output(b"SSH-2.0-x\r\n");
    let client = tokio::spawn(async move {
        assert_eq!(begun(&mut session).await, Carrier::One);
        let connector = session.connector();
        let mut stream = connector.open_own().unwrap();
        assert_eq!(connector.open_own().unwrap_err(), OpenError::TooMany);
        let mut got = [0; 11];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"SSH-2.0-x\r\n");
        stream.write_all(&pattern(100_000, 4)).await.unwrap();
        stream.write_all(b"\n").await.unwrap();
        (session, stream)
    });
    node.pump_until("the input", |node| node.input.len() == 100_001)
        .await;
    let (mut session, mut stream) = client.await.unwrap();
    assert_eq!(node.input.last(), Some(&b'\n'));
    assert!(node.input[..100_000] == pattern(100_000, 4));
    node.output(b"last words");
    node.close("").await;
    assert!(matches!(end(&mut session).await, End::Closed { .. }));
    let mut got = [0; 10];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"last words");
    assert!(stream.read(&mut got).await.is_err());
    assert_eq!(
        session.connector().open_own().unwrap_err(),
        OpenError::NotOpen
    );
}

#[tokio::test]
async fn an_agent_that_has_not_taken_everything_yet_is_not_silent() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OFFICIAL);
    let mut node = Node::new(false);
    node.attach(server.next_channel().await);
    shake_hands(&mut node, "3.3.987.0", json!({"portNumber": "22"})).await;
    node.pump_until("the handshake to be taken", |node| node.link.drained())
        .await;
    begun(&mut session).await;
    let mut stream = session.connector().open_own().unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    // Longer than the silence that counts as an end.
    let mut got = [0; 6];
    let waited = tokio::time::timeout(Duration::from_millis(1500), stream.read(&mut got));
    assert!(waited.await.is_err(), "the answer was not waited for");
    node.pump_until("the question", |node| node.input == b"question")
        .await;
    node.output(b"answer");
    node.pump_until("the answer to be taken", |node| node.link.drained())
        .await;
    within("the answer", stream.read_exact(&mut got))
        .await
        .unwrap();
    assert_eq!(&got, b"answer");
    assert_eq!(within("the end", stream.read(&mut got)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_node_that_breaks_the_rules_ends_the_session_with_a_reason() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OURS);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.0")
        .await;
    shake_hands(&mut node, OUR_AGENT, forwarding()).await;
    node.send(streams::payload::DATA, &[0, 0, 0, 9, 1]);
    let client = tokio::spawn(async move {
        begun(&mut session).await;
        end(&mut session).await
    });
    node.pump_until_closed().await;
    let end = within("the end", client).await.unwrap();
    assert!(
        matches!(&end, End::Lost { reason } if reason.contains("never opened")),
        "{end:?}"
    );
}

#[tokio::test]
async fn streams_and_their_owner_end_with_the_session() {
    let mut server = Server::start(scripted([])).await;
    let mut session = open(&server, OURS);
    let connector = session.connector();
    assert_eq!(connector.open_own().unwrap_err(), OpenError::NotOpen);
    let mut node = Node::new(true);
    node.attach_ours(server.next_channel().await, "SRT1.0")
        .await;
    shake_hands(&mut node, OUR_AGENT, forwarding()).await;
    let client = tokio::spawn(async move {
        begun(&mut session).await;
        let mut stream = connector.open_own().unwrap();
        let mut got = [0];
        let read = tokio::spawn(async move { stream.read(&mut got).await });
        // The owner lets go of the session.
        drop(session);
        within("the read to fail", read).await.unwrap()
    });
    let pumped = tokio::time::timeout(Duration::from_secs(20), node.pump(|_| false));
    let (_, read) = tokio::join!(pumped, client);
    assert_eq!(
        read.unwrap().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionAborted
    );
}
