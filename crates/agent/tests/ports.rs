//! Port sessions with real destinations, in processes of their own: streams towards our clients, and the
//! two ways of official ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::{os::unix::fs::MetadataExt, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use sortie_channel::{
    features::{self, STREAMS},
    frame::{PayloadType, flag},
    handshake::CLIENT_VERSION,
    streams::{Destination, INITIAL_CREDIT, Message, Refusal, RefusalCode},
};
use support::{
    Node,
    peer::{Official, Ours, Peer},
    server::{Control, Server},
    within,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    task::JoinSet,
};

const SESSION: &str = "alice-0123456789abcdef0";
/// A released official client: no keep-alives.
const OFFICIAL: &str = "1.2.707.0";

fn document(properties: Value) -> Value {
    json!({"schemaVersion": "1.0", "sessionType": "Port", "inputs": {}, "parameters": {},
           "properties": properties})
}

fn local(port: u16) -> Value {
    document(
        json!({"portNumber": port.to_string(), "type": "LocalPortForwarding",
                    "localPortNumber": "0"}),
    )
}

/// A server that answers each connection with what it reads, until it reads the end.
struct Echo {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(echo(stream));
            }
        });
        Self {
            port,
            _tasks: tasks,
        }
    }
}

async fn echo(stream: impl AsyncRead + AsyncWrite) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
    let _ = writer.shutdown().await;
}

/// A port at which nobody listens or can, while the socket is there.
fn nobody() -> (TcpSocket, u16) {
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = taken.local_addr().unwrap().port();
    (taken, port)
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from((at * 31 + at / 251 + seed) % 256).unwrap())
        .collect()
}

/// A node with a session of ours whose handshake is done.
async fn ours<'a>(server: &'a Server, control: &mut Control, document: Value) -> Ours<'a> {
    control.start_session(SESSION, document).await;
    let mut peer = Peer::attach(server, SESSION, &features::ALL).await;
    peer.shake_hands(CLIENT_VERSION).await;
    Ours::new(peer)
}

async fn start() -> (Server, Node, Control) {
    let server = Server::start().await;
    let node = Node::start(&server).await;
    let control = server.control().await;
    (server, node, control)
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_ends_in_each_by_itself() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let mut client = ours(&server, &mut control, local(echo.port)).await;
    let id = client.open();
    // Before the destination is connected, and more than there is credit for.
    let sent = pattern(3_000_000, 1);
    client.streams.send(id, sent.clone().into());
    client.streams.finish(id);
    client
        .until("the echo", |client| client.finished.contains(&id))
        .await;
    assert!(client.accepted.contains(&id));
    assert!(client.got(id) == sent, "{} bytes", client.got(id).len());
    assert_eq!(client.streams.count(), 0);
    // The session goes on.
    let again = client.open();
    client.streams.send(again, Bytes::from_static(b"x"));
    client
        .until("another echo", |client| client.got(again) == b"x")
        .await;
    let terminate = flag::TERMINATE_SESSION.to_be_bytes().to_vec();
    client.peer.send(PayloadType::FLAG, terminate);
    client.step().await;
    let (_, _, status, output) = control.result().await;
    assert_eq!((status.as_str(), output.as_str()), ("Success", ""));
    node.stop().await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_says_why_and_harms_no_other() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let socks = document(json!({"type": "SocksForwarding"}));
    let mut client = ours(&server, &mut control, socks).await;
    let to = |host: &str, port: u16| Destination {
        host: Some(host.to_owned()),
        port: Some(port),
        socket: None,
    };
    let (_taken, nobody) = nobody();
    let ids: Vec<u32> = [
        to("127.0.0.1", nobody),
        to("no-such-host.invalid", 80),
        to("169.254.169.254", 80),
        to("::ffff:169.254.169.254", 80),
        to("a\u{7}b", 80),
        Destination::default(),
    ]
    .into_iter()
    .map(|destination| client.streams.open(destination).unwrap())
    .collect();
    let good: Vec<u32> = ["localhost", "127.0.0.1", "LOCALHOST"]
        .into_iter()
        .map(|host| client.streams.open(to(host, echo.port)).unwrap())
        .collect();
    for id in &good {
        client.streams.send(*id, Bytes::from_static(b"hello"));
    }
    client
        .until("every answer", |client| {
            client.refused.len() == ids.len() && good.iter().all(|id| client.got(*id) == b"hello")
        })
        .await;
    let refused: Vec<(RefusalCode, &str)> = ids
        .iter()
        .map(|id| (client.refused[id].code, client.refused[id].message.as_str()))
        .collect();
    let by = format!("connection refused by 127.0.0.1:{nobody}");
    assert_eq!(
        refused,
        [
            (RefusalCode::Refused, by.as_str()),
            (
                RefusalCode::UnknownHost,
                "cannot resolve no-such-host.invalid"
            ),
            (
                RefusalCode::Forbidden,
                "Forwarding to IP address 169.254.169.254 is forbidden."
            ),
            (
                RefusalCode::Forbidden,
                "Forwarding to IP address ::ffff:169.254.169.254 is forbidden."
            ),
            (RefusalCode::Forbidden, "that is no name of a host"),
            (
                RefusalCode::Forbidden,
                "this session does not connect to other destinations"
            ),
        ]
    );
    node.stop().await;
}

#[tokio::test]
async fn a_stream_may_go_only_where_its_session_goes() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let mut client = ours(&server, &mut control, local(echo.port)).await;
    let elsewhere = Destination {
        port: Some(echo.port),
        ..Destination::default()
    };
    let id = client.streams.open(elsewhere).unwrap();
    client
        .until("the refusal", |client| client.refused.contains_key(&id))
        .await;
    assert_eq!(client.refused[&id].code, RefusalCode::Forbidden);
    // Refused on the way: the node passes it on to the client that asked.
    let refusal = Refusal {
        code: RefusalCode::Forbidden,
        message: "not by policy".to_owned(),
    };
    let id = client.open();
    let (open, _) = client.streams.next_message(1).unwrap();
    let (payload_type, payload) = Message::Refused(id, refusal.clone()).encode();
    assert_ne!(open, payload_type);
    client.peer.send(payload_type, payload);
    client.streams.send(id, Bytes::from_static(b"early"));
    client
        .until("the refusal of another", |client| {
            client.refused.get(&id) == Some(&refusal)
        })
        .await;
    let id = client.open();
    client.streams.send(id, Bytes::from_static(b"on"));
    client
        .until("an echo", |client| client.got(id) == b"on")
        .await;
    node.stop().await;
}

#[tokio::test]
async fn two_hundred_connections_at_a_time_survive_a_cut() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let mut client = ours(&server, &mut control, local(echo.port)).await;
    let ids: Vec<u32> = (0..200).map(|_| client.open()).collect();
    let of = |id: u32| pattern(20_000, id as usize);
    for id in &ids {
        client.streams.send(*id, of(*id)[..10_000].to_vec().into());
    }
    client
        .until("half of the echoes", |client| {
            ids.iter().any(|id| !client.got(*id).is_empty())
        })
        .await;
    client.peer.break_connection();
    for id in &ids {
        client.streams.send(*id, of(*id)[10_000..].to_vec().into());
        client.streams.finish(*id);
    }
    client
        .until("all echoes", |client| client.finished.len() == 200)
        .await;
    for id in &ids {
        assert!(client.got(*id) == of(*id), "stream {id} is damaged");
    }
    assert!(client.reset.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_one_stream_slowly_holds_up_that_one_alone() {
    let (server, mut node, mut control) = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = ours(&server, &mut control, local(port)).await;
    let slow = client.open();
    client.does_not_read.insert(slow);
    let (mut source, _) = tokio::join!(async { listener.accept().await.unwrap().0 }, async {
        client
            .until("the connection", |client| client.accepted.contains(&slow))
            .await;
    });
    // Far more than every buffer on the way holds.
    let sent = pattern(24_000_000, 3);
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        source.write_all(&sent).await.unwrap();
        source.shutdown().await.unwrap();
        source
    });
    client
        .until("what there is credit for", |client| {
            client.got(slow).len() == INITIAL_CREDIT
        })
        .await;
    // The others go on, whatever that one wants.
    let quick = client.open();
    let mut other = None;
    for _ in 0..50 {
        client.streams.send(quick, Bytes::from_static(b"ping"));
        let before = client.got(quick).len();
        if other.is_none() {
            other = Some(tokio::join!(listener.accept(), client.step()).0.unwrap().0);
        }
        let other = other.as_mut().unwrap();
        let mut ping = [0; 4];
        let mut read = Box::pin(other.read_exact(&mut ping));
        while tokio::time::timeout(Duration::ZERO, &mut read)
            .await
            .is_err()
        {
            client.step().await;
        }
        drop(read);
        other.write_all(&ping).await.unwrap();
        client
            .until("a pong", |client| client.got(quick).len() == before + 4)
            .await;
    }
    assert_eq!(client.got(slow).len(), INITIAL_CREDIT);
    assert!(!writing.is_finished(), "somebody took all of it");
    client.read_again(slow);
    client
        .until("all of it", |client| client.finished.contains(&slow))
        .await;
    assert!(client.got(slow) == expected);
    drop(writing.await.unwrap());
    node.stop().await;
}

#[tokio::test]
async fn a_destination_that_reads_slowly_holds_the_client_back_and_little_memory() {
    let (server, mut node, mut control) = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = ours(&server, &mut control, local(port)).await;
    let id = client.open();
    let data = Bytes::from(pattern(32_000_000, 5));
    client.streams.send(id, data.clone());
    client.streams.finish(id);
    let (mut sink, _) = tokio::join!(async { listener.accept().await.unwrap().0 }, async {
        client
            .until("the connection", |client| client.accepted.contains(&id))
            .await;
    });
    // Nothing more can be sent once the credit is used up.
    client
        .until("the end of the credit", |client| {
            !client.streams.has_message() && client.peer.is_drained()
        })
        .await;
    let resident = resident_bytes(&node);
    assert!(resident < 24_000_000, "{resident} bytes");
    let reading = async {
        let mut got = Vec::new();
        sink.read_to_end(&mut got).await.unwrap();
        got
    };
    tokio::pin!(reading);
    let got = loop {
        tokio::select! {
            got = &mut reading => break got,
            () = client.step() => {}
        }
    };
    assert!(got == data);
    node.stop().await;
}

/// What the session's process holds.
fn resident_bytes(node: &Node) -> usize {
    let directory = node.data_dir().join("sessions").join(SESSION);
    let worker = std::fs::read_to_string(directory.join("worker.json")).unwrap();
    let worker: Value = serde_json::from_str(&worker).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker["pid"])).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_session_with_a_port_alone_ends_with_its_connection() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let ssh = document(json!({"portNumber": echo.port.to_string()}));
    let mut client = ours(&server, &mut control, ssh).await;
    let id = client.open();
    client
        .streams
        .send(id, Bytes::from_static(b"SSH-2.0-x\r\n"));
    client
        .until("the echo", |client| client.got(id) == b"SSH-2.0-x\r\n")
        .await;
    client.streams.finish(id);
    client
        .until("the end", |client| {
            client.finished.contains(&id)
                && client
                    .peer
                    .states
                    .iter()
                    .any(|state| state == "Terminating")
        })
        .await;
    assert_eq!(control.result().await.2, "Success");
    node.stop().await;
}

#[tokio::test]
async fn such_a_session_does_not_end_before_its_client_has_read_everything() {
    let (server, mut node, mut control) = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ssh = document(json!({"portNumber": port.to_string()}));
    let mut client = ours(&server, &mut control, ssh).await;
    let id = client.open();
    client.streams.finish(id);
    client.does_not_read.insert(id);
    let sent = pattern(400_000, 6);
    let serving = async {
        let (mut far, _) = listener.accept().await.unwrap();
        far.write_all(&sent).await.unwrap();
    };
    tokio::join!(serving, async {
        client
            .until("what there is credit for", |client| {
                client.got(id).len() == INITIAL_CREDIT
            })
            .await;
    });
    // Its connection has ended long since.
    for _ in 0..20 {
        client.step().await;
    }
    assert_eq!(client.peer.states, ["Connected"]);
    client.read_again(id);
    client
        .until("the end", |client| {
            client
                .peer
                .states
                .iter()
                .any(|state| state == "Terminating")
        })
        .await;
    assert!(client.got(id) == sent);
    assert_eq!(control.result().await.2, "Success");
    node.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_broken_off_does_not_look_complete() {
    let (server, mut node, mut control) = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = ours(&server, &mut control, local(port)).await;
    let id = client.open();
    client.streams.send(id, Bytes::from_static(b"half of it"));
    let (mut far, ()) = tokio::join!(async { listener.accept().await.unwrap().0 }, async {
        client
            .until("the connection", |client| client.accepted.contains(&id))
            .await;
    });
    let mut got = [0; 10];
    within("the data", far.read_exact(&mut got)).await.unwrap();
    client.streams.reset(id);
    client.step().await;
    let error = within("the end", far.read(&mut got)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // And the other way round.
    let id = client.open();
    let (far, ()) = tokio::join!(async { listener.accept().await.unwrap().0 }, async {
        client
            .until("the connection", |client| client.accepted.contains(&id))
            .await;
    });
    rustix::net::sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    client
        .until("the reset", |client| client.reset.contains(&id))
        .await;
    node.stop().await;
}

#[tokio::test]
async fn streams_reach_unix_sockets() {
    let (server, mut node, mut control) = start().await;
    let path = node.directory.path().join("service.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        echo(stream).await;
    });
    let properties = json!({"type": "LocalPortForwarding", "socket": path, "localPortNumber": "0"});
    let mut client = ours(&server, &mut control, document(properties)).await;
    let id = client.open();
    client.streams.send(id, Bytes::from_static(b"hello"));
    client.streams.finish(id);
    client
        .until("the echo", |client| client.finished.contains(&id))
        .await;
    assert_eq!(client.got(id), b"hello");
    within("the service to end", serving).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let id = client.open();
    client
        .until("the refusal", |client| client.refused.contains_key(&id))
        .await;
    assert_eq!(
        client.refused[&id].message,
        format!("there is no socket at {}", path.display())
    );
    node.stop().await;
}

#[tokio::test]
async fn a_reverse_session_listens_here_and_connects_at_the_client() {
    let (server, mut node, mut control) = start().await;
    let properties =
        json!({"type": "ReverseForwarding", "portNumber": "0", "bindAddress": "localhost"});
    control.start_session(SESSION, document(properties)).await;
    let mut peer = Peer::attach(&server, SESSION, &features::ALL).await;
    let session = peer.shake_hands(CLIENT_VERSION).await;
    // It listens when the client hears that the session has begun, and says where.
    let port: u16 = session.properties["portNumber"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let mut near = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    near.write_all(b"hello").await.unwrap();
    near.shutdown().await.unwrap();
    let mut client = Ours::new(peer);
    client
        .until("the connection", |client| {
            client.opened == [2] && client.got(2) == b"hello" && client.finished.contains(&2)
        })
        .await;
    client.streams.send(2, Bytes::from_static(b"and back"));
    client.streams.finish(2);
    let mut answer = Vec::new();
    let mut reading = Box::pin(near.read_to_end(&mut answer));
    while tokio::time::timeout(Duration::ZERO, &mut reading)
        .await
        .is_err()
    {
        client.step().await;
    }
    drop(reading);
    assert_eq!(answer, b"and back");
    // The client opens nothing in such a session.
    let id = client.open();
    client
        .until("the refusal", |client| client.refused.contains_key(&id))
        .await;
    control.close_session(SESSION).await;
    assert_eq!(control.result().await.2, "Success");
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    node.stop().await;
}

#[tokio::test]
async fn a_reverse_session_may_listen_at_a_unix_socket_of_its_own() {
    let (server, mut node, mut control) = start().await;
    let path = node.directory.path().join("reverse.sock");
    let reverse = || document(json!({"type": "ReverseForwarding", "socket": path}));
    let mut client = ours(&server, &mut control, reverse()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let mut near = UnixStream::connect(&path).await.unwrap();
    near.write_all(b"hello").await.unwrap();
    client
        .until("the connection", |client| client.got(2) == b"hello")
        .await;
    control.close_session(SESSION).await;
    let (message_id, _, status, _) = control.result().await;
    control.acknowledge(message_id, SESSION).await;
    assert_eq!(status, "Success");
    assert!(!path.exists());
    // What is there already is not touched.
    std::fs::write(&path, "mine").unwrap();
    control
        .start_session("bob-0123456789abcdef0", reverse())
        .await;
    let _peer = Peer::attach(&server, "bob-0123456789abcdef0", &features::ALL).await;
    let (_, _, status, output) = control.result().await;
    assert_eq!(status, "Failed");
    assert!(output.contains("it exists"), "{output}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    node.stop().await;
}

#[tokio::test]
async fn what_the_client_must_not_do_ends_the_session() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let mut client = ours(&server, &mut control, local(echo.port)).await;
    let (payload_type, payload) = Message::Data(77, Bytes::from_static(b"x")).encode();
    client.peer.send(payload_type, payload);
    client.step().await;
    let (_, _, status, output) = control.result().await;
    assert_eq!(status, "Failed");
    assert!(output.contains("stream 77 was never opened"), "{output}");
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_forwarded_is_refused_before_anything_starts() {
    let (server, mut node, mut control) = start().await;
    let cases = [
        (
            json!({"type": "LocalPortForwarding"}),
            "Port number is empty",
        ),
        (
            json!({"portNumber": "80", "host": "169.254.169.254", "type": "LocalPortForwarding"}),
            "Forwarding to IP address 169.254.169.254 is forbidden.",
        ),
        (
            json!({"type": "ReverseForwarding", "portNumber": "80", "bindAddress": "0.0.0.0"}),
            "loopback addresses only",
        ),
    ];
    for (number, (properties, reason)) in cases.into_iter().enumerate() {
        let session_id = format!("bob-{number:017x}");
        control
            .start_session(&session_id, document(properties))
            .await;
        let (message_id, of, status, output) = control.result().await;
        assert_eq!((of, status.as_str()), (session_id.clone(), "Failed"));
        assert!(output.contains(reason), "{output}");
        control.acknowledge(message_id, &session_id).await;
    }
    // What only our clients know is nothing for official ones.
    control
        .start_session(SESSION, document(json!({"type": "SocksForwarding"})))
        .await;
    let others: Vec<&str> = features::ALL
        .into_iter()
        .filter(|name| *name != STREAMS)
        .collect();
    let _peer = Peer::attach(&server, SESSION, &others).await;
    let (_, _, status, output) = control.result().await;
    assert_eq!(status, "Failed");
    assert!(output.contains("needs a client of Sortie"), "{output}");
    node.stop().await;
}

/// A session of an official client of this version whose handshake is done.
async fn official<'a>(
    server: &'a Server,
    control: &mut Control,
    document: Value,
    version: &str,
) -> Peer<'a> {
    control.start_session(SESSION, document.clone()).await;
    let mut peer = Peer::attach(server, SESSION, &[]).await;
    let session = peer.shake_hands(version).await;
    assert_eq!(session.properties, document["properties"]);
    // An official client loses its mind over an acknowledgement behind the end of the handshake.
    let at = |wanted: &(String, PayloadType)| peer.frames.iter().position(|frame| frame == wanted);
    let acknowledged = at(&("acknowledge".to_owned(), PayloadType::NONE));
    let complete = at(&(
        "output_stream_data".to_owned(),
        PayloadType::HANDSHAKE_COMPLETE,
    ));
    assert!(acknowledged.unwrap() < complete.unwrap());
    peer
}

#[tokio::test]
async fn official_clients_have_their_connections_multiplexed() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let peer = official(&server, &mut control, local(echo.port), OFFICIAL).await;
    let mut client = Official::new(peer);
    let ids: Vec<u32> = (0..20).map(|_| client.smux.open().unwrap()).collect();
    let of = |id: u32| pattern(50_000, id as usize);
    for id in &ids {
        client.smux.send(*id, &of(*id)[..25_000]);
    }
    client
        .until("some echo", |client| !client.got.is_empty())
        .await;
    client.peer.break_connection();
    for id in &ids {
        client.smux.send(*id, &of(*id)[25_000..]);
    }
    client
        .until("all echoes", |client| {
            ids.iter().all(|id| client.got(*id).len() == 50_000)
        })
        .await;
    assert!(ids.iter().all(|id| client.got(*id) == of(*id)));
    // The end of one direction is the end of the stream.
    client.smux.close(ids[0]);
    let terminate = flag::TERMINATE_SESSION.to_be_bytes().to_vec();
    client
        .until("the end to be sent", |client| client.peer.is_drained())
        .await;
    client.peer.send(PayloadType::FLAG, terminate);
    client.step().await;
    assert_eq!(control.result().await.2, "Success");
    assert!(client.flags.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_opens_and_closes_at_once_makes_only_so_many_connections_wait() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let mut client = official(&server, &mut control, local(echo.port), OFFICIAL).await;
    let mut bytes = Vec::new();
    for id in (0..5000_u32).map(|number| 3 + 2 * number) {
        for command in [0, 1] {
            bytes.extend([1, command, 0, 0]);
            bytes.extend(id.to_le_bytes());
        }
    }
    // In one message, so that none of them can be connected before the last has come.
    client.send(PayloadType::OUTPUT, bytes);
    // The streams' own ends may come before.
    while client.delivery().await.payload_type != PayloadType::FLAG {}
    node.stop().await;
}

#[tokio::test]
async fn a_destination_that_ends_or_refuses_is_told_to_official_clients() {
    let (server, mut node, mut control) = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = official(&server, &mut control, local(port), OFFICIAL).await;
    let mut client = Official::new(peer);
    let id = client.smux.open().unwrap();
    let (mut far, ()) = tokio::join!(async { listener.accept().await.unwrap().0 }, async {
        client.step().await;
    });
    far.write_all(&pattern(2_000_000, 9)[..100_000])
        .await
        .unwrap();
    drop(far);
    client
        .until("the end", |client| client.closed.contains(&id))
        .await;
    assert!(client.got(id) == &pattern(2_000_000, 9)[..100_000]);
    drop(listener);
    let id = client.smux.open().unwrap();
    client
        .until("the refusal", |client| client.closed.contains(&id))
        .await;
    let flag = flag::CONNECT_TO_PORT_ERROR.to_be_bytes();
    assert_eq!(client.flags, [Bytes::copy_from_slice(&flag)]);
    node.stop().await;
}

#[tokio::test]
async fn what_an_official_client_sent_before_its_end_arrives() {
    let (server, mut node, mut control) = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = official(&server, &mut control, local(port), OFFICIAL).await;
    let mut client = Official::new(peer);
    let id = client.smux.open().unwrap();
    let sent = pattern(1_500_000, 4);
    client.smux.send(id, &sent);
    client.smux.close(id);
    let reading = async {
        let mut got = Vec::new();
        let (mut far, _) = listener.accept().await.unwrap();
        far.read_to_end(&mut got).await.unwrap();
        got
    };
    tokio::pin!(reading);
    let got = loop {
        tokio::select! {
            got = &mut reading => break got,
            () = client.step() => {}
        }
    };
    assert!(got == sent, "{} bytes", got.len());
    node.stop().await;
}

#[tokio::test]
async fn a_connection_over_standard_input_and_output_is_the_session() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let ssh = document(json!({"portNumber": echo.port.to_string()}));
    let mut peer = official(&server, &mut control, ssh, OFFICIAL).await;
    let sent = pattern(500_000, 7);
    for piece in sent.chunks(1024) {
        peer.send(PayloadType::OUTPUT, Bytes::copy_from_slice(piece));
    }
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let delivery = peer.delivery().await;
        assert_eq!(delivery.payload_type, PayloadType::OUTPUT);
        got.extend_from_slice(&delivery.payload);
    }
    assert!(got == sent);
    // The client's end of it closes the connection, hence the session.
    peer.send(
        PayloadType::FLAG,
        flag::DISCONNECT_TO_PORT.to_be_bytes().to_vec(),
    );
    peer.step().await;
    while !peer.states.iter().any(|state| state == "Terminating") {
        peer.step().await;
    }
    assert_eq!(control.result().await.2, "Success");
    node.stop().await;
}

#[tokio::test]
async fn nobody_at_the_destination_fails_such_a_session() {
    let (server, mut node, mut control) = start().await;
    let (_taken, nobody) = nobody();
    let ssh = document(json!({"portNumber": nobody.to_string()}));
    let _peer = official(&server, &mut control, ssh, OFFICIAL).await;
    let (_, _, status, output) = control.result().await;
    assert_eq!(status, "Failed");
    assert!(
        output.contains("Unable to connect to specified port: connection refused by localhost:"),
        "{output}"
    );
    node.stop().await;
}

#[tokio::test]
async fn old_clients_have_one_connection_after_the_other() {
    let (server, mut node, mut control) = start().await;
    let echo = Echo::start().await;
    let mut peer = official(&server, &mut control, local(echo.port), "1.1.60.0").await;
    for text in [&b"first"[..], b"second"] {
        peer.send(PayloadType::OUTPUT, text.to_vec());
        assert_eq!(peer.delivery().await.payload, text);
        peer.send(
            PayloadType::FLAG,
            flag::DISCONNECT_TO_PORT.to_be_bytes().to_vec(),
        );
    }
    let terminate = flag::TERMINATE_SESSION.to_be_bytes().to_vec();
    peer.send(PayloadType::FLAG, terminate);
    peer.step().await;
    assert_eq!(control.result().await.2, "Success");
    node.stop().await;
}
