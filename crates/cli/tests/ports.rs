//! Port sessions of the plugin in front of a scripted node: AWS's lines to the byte, the stream alone
//! between standard input and output, signals, and local sockets.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sortie_channel::{
    body::{Body, HandshakeComplete, HandshakeRequest, RequestedAction, SessionTypeParameters},
    frame::{PayloadType, flag},
    smux::{self, Smux},
    streams::{self, Limits, Refusal, RefusalCode, Side, Streams},
};
use support::{
    OFFICIAL, OURS, SESSION, World,
    server::{Node, Server},
};

const OFFICIAL_AGENT: &str = "3.3.987.0";

/// How the scripted node carries streams.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Raw,
    Smux,
    Streams,
}

/// A server whose node has one port session, echoes what comes on every connection, and ends the
/// session when it is told to.
struct Station {
    world: World,
    runtime: tokio::runtime::Runtime,
    stream_url: String,
    /// Bytes that the node was sent in all, and flags.
    told: mpsc::Receiver<u32>,
}

impl Station {
    fn start(carrier: Carrier, properties: Value, refuses: bool) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(Server::start(|call| {
            // No call is needed.
            let status = if call.header("upgrade").is_some() {
                200
            } else {
                400
            };
            (status, "{}".to_owned())
        }));
        let stream_url = server.stream_url();
        let (tell, told) = mpsc::channel();
        runtime.spawn(serve(server, carrier, properties, refuses, tell));
        Self {
            world: World::start(OURS),
            runtime,
            stream_url,
            told,
        }
    }

    fn plugin(&self, carrier: Carrier) -> Command {
        let token = if carrier == Carrier::Streams {
            OURS
        } else {
            OFFICIAL
        };
        let response = json!({
            "SessionId": SESSION, "TokenValue": token, "StreamUrl": self.stream_url,
        });
        let mut command = self.world.command(&self.world.install_plugin());
        command
            .args([response.to_string().as_str(), "r", "StartSession", ""])
            .args([r#"{"Target":"mi-1"}"#, "http://127.0.0.1:1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

async fn serve(
    mut server: Server,
    carrier: Carrier,
    properties: Value,
    refuses: bool,
    tell: mpsc::Sender<u32>,
) {
    let is_ours = carrier == Carrier::Streams;
    // As an agent does whose session is its one connection.
    let ends_refused = refuses && properties.get("type").is_none();
    let mut node = Node::new(is_ours);
    let peer = server.next_channel().await;
    if is_ours {
        node.attach_ours(peer, OURS).await;
    } else {
        node.attach(peer);
    }
    shake_hands(&mut node, properties).await;
    let mut echo = Echo {
        smux: Smux::new(smux::Side::Node),
        streams: Streams::new(Side::Node, Limits::default()),
        refuses,
        has_refused: false,
    };
    // The client may leave at any time.
    let is_told = node
        .pump(|node| {
            match carrier {
                Carrier::Raw => echo.raw(node),
                Carrier::Smux => echo.smux(node),
                Carrier::Streams => echo.streams(node),
            }
            let is_told = node
                .other
                .iter()
                .any(|told| told.payload_type == PayloadType::FLAG);
            is_told || (ends_refused && echo.has_refused)
        })
        .await;
    if ends_refused && echo.has_refused {
        node.close_now("").await;
    } else if is_told {
        let flag = node.other.remove(0).payload;
        tell.send(u32::from_be_bytes(flag[..].try_into().unwrap()))
            .unwrap();
        node.close("").await;
        node.pump(|_| false).await;
    }
    std::future::pending::<()>().await;
    drop(server);
}

async fn shake_hands(node: &mut Node, properties: Value) {
    let parameters = SessionTypeParameters {
        session_type: "Port".to_owned(),
        properties,
    };
    let request = HandshakeRequest {
        agent_version: OFFICIAL_AGENT.to_owned(),
        actions: vec![RequestedAction {
            action_type: "SessionType".to_owned(),
            parameters: parameters.to_value(),
        }],
    };
    node.send(PayloadType::HANDSHAKE_REQUEST, request.to_text().as_bytes());
    node.pump_until("the response", |node| !node.other.is_empty())
        .await;
    node.other.clear();
    let complete = HandshakeComplete {
        time_to_complete_ns: 1,
        customer_message: String::new(),
    };
    node.send(
        PayloadType::HANDSHAKE_COMPLETE,
        complete.to_text().as_bytes(),
    );
}

struct Echo {
    smux: Smux,
    streams: Streams,
    refuses: bool,
    has_refused: bool,
}

impl Echo {
    fn raw(&self, node: &mut Node) {
        let input = std::mem::take(&mut node.input);
        for piece in input.chunks(1024) {
            node.output(piece);
        }
    }

    fn smux(&mut self, node: &mut Node) {
        let input = std::mem::take(&mut node.input);
        self.smux.receive(Bytes::from(input)).unwrap();
        while let Some(event) = self.smux.next_event() {
            match event {
                smux::Event::Opened(id) if self.refuses => {
                    node.send(
                        PayloadType::FLAG,
                        &flag::CONNECT_TO_PORT_ERROR.to_be_bytes(),
                    );
                    self.smux.close(id);
                }
                smux::Event::Data(id, data) => {
                    self.smux.send(id, &data);
                    self.smux.used(id, data.len());
                }
                _ => {}
            }
        }
        while let Some(bytes) = self.smux.take_outgoing(1024) {
            node.send(PayloadType::OUTPUT, &bytes);
        }
    }

    fn streams(&mut self, node: &mut Node) {
        let (flags, messages): (Vec<_>, Vec<_>) = std::mem::take(&mut node.other)
            .into_iter()
            .partition(|delivery| delivery.payload_type == PayloadType::FLAG);
        node.other = flags;
        for message in messages {
            self.streams
                .receive(message.payload_type, message.payload)
                .unwrap();
        }
        while let Some(event) = self.streams.next_event() {
            match event {
                streams::Event::Open(id, _) if self.refuses => {
                    let refusal = Refusal {
                        code: RefusalCode::Refused,
                        message: "nobody listens".to_owned(),
                    };
                    self.streams.refuse(id, refusal);
                    self.has_refused = true;
                }
                streams::Event::Open(id, _) => self.streams.accept(id),
                streams::Event::Data(id, data) => {
                    self.streams.consumed(id, data.len());
                    self.streams.send(id, data);
                }
                streams::Event::Finished(id) => self.streams.finish(id),
                _ => {}
            }
        }
        while let Some((payload_type, payload)) = self.streams.next_message(1 << 16) {
            node.send(payload_type, &payload);
        }
    }
}

/// Reads standard output up to and with a line that begins so.
fn until(output: &mut impl BufRead, begin: &str) -> String {
    let mut read = String::new();
    loop {
        let mut line = String::new();
        assert!(
            output.read_line(&mut line).unwrap() > 0,
            "no {begin}: {read}"
        );
        read.push_str(&line);
        if line.starts_with(begin) {
            return read;
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn banner() -> String {
    format!("\nStarting session with SessionId: {SESSION}\n")
}

fn forwarding() -> Value {
    json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": "0"})
}

fn port_of(shown: &str) -> u16 {
    let (_, rest) = shown.split_once("Port ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn forwarding_has_awss_lines_and_ends_with_a_signal_of_the_keyboard() {
    for carrier in [Carrier::Smux, Carrier::Streams] {
        for key in [Signal::INT, Signal::QUIT, Signal::TSTP] {
            let station = Station::start(carrier, forwarding(), false);
            let mut child = station.plugin(carrier).spawn().unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let shown = until(&mut output, "Waiting");
            let port = port_of(&shown);
            assert_eq!(
                shown,
                format!(
                    "{}Port {port} opened for sessionId {SESSION}.\nWaiting for connections...\n",
                    banner()
                )
            );
            // Several at once, and the same line once.
            let mut connections: Vec<_> = (0..3)
                .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
                .collect();
            for (number, connection) in connections.iter_mut().enumerate() {
                let sent = vec![b'0' + number as u8; 200_000];
                let mut writer = connection.try_clone().unwrap();
                let writing = {
                    let sent = sent.clone();
                    std::thread::spawn(move || writer.write_all(&sent).unwrap())
                };
                let mut got = vec![0; sent.len()];
                connection.read_exact(&mut got).unwrap();
                writing.join().unwrap();
                assert!(got == sent);
            }
            signal(&child, key);
            assert_eq!(station.told.recv().unwrap(), flag::TERMINATE_SESSION);
            let mut rest = String::new();
            output.read_to_string(&mut rest).unwrap();
            assert_eq!(
                rest,
                format!(
                    "\nConnection accepted for session [{SESSION}]\n\
                     Terminate signal received, exiting.\n\
                     \n\nExiting session with sessionId: {SESSION}.\n\n"
                )
            );
            assert_eq!(child.wait().unwrap().code(), Some(0));
            station.runtime.shutdown_background();
        }
    }
}

#[test]
fn a_signal_before_the_node_is_there_ends_the_session_on_its_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = runtime.block_on(Server::start(|_| {
        (200, format!(r#"{{"SessionId":"{SESSION}"}}"#))
    }));
    let world = World::start(OURS);
    let mut command = world.command(&world.install_plugin());
    let response = json!({
        "SessionId": SESSION, "TokenValue": OURS, "StreamUrl": server.stream_url(),
    });
    command
        .args([response.to_string().as_str(), "r", "StartSession", ""])
        .args([
            r#"{"Target":"mi-1"}"#,
            &format!("http://{}", server.address),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let peer = runtime.block_on(server.next_channel());
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(255));
    assert_eq!(server.count("TerminateSession"), 1);
    drop(peer);
}

#[test]
fn a_destination_that_is_not_there_is_told_in_awss_words() {
    for carrier in [Carrier::Smux, Carrier::Streams] {
        let station = Station::start(carrier, forwarding(), true);
        let mut child = station.plugin(carrier).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let port = port_of(&until(&mut output, "Waiting"));
        for _ in 0..2 {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let mut got = Vec::new();
            // Broken or ended, but not served.
            let _ = connection.read_to_end(&mut got);
            assert!(got.is_empty());
            until(
                &mut output,
                "Connection to destination port failed, check SSM Agent logs.",
            );
        }
        signal(&child, Signal::INT);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut told = String::new();
        child.stderr.unwrap().read_to_string(&mut told).unwrap();
        let expected = usize::from(carrier == Carrier::Streams);
        assert_eq!(told.matches("nobody listens").count(), expected, "{told}");
        station.runtime.shutdown_background();
    }
}

#[test]
fn a_unix_socket_is_listened_at_where_the_document_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("local.sock");
    let properties = json!({
        "type": "LocalPortForwarding", "portNumber": "80",
        "localConnectionType": "unix", "localUnixSocket": path.to_str().unwrap(),
    });
    let station = Station::start(Carrier::Smux, properties, false);
    let mut child = station.plugin(Carrier::Smux).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let shown = until(&mut output, "Waiting");
    let expected = format!(
        "Unix socket {} opened for sessionId {SESSION}.\n",
        path.display()
    );
    assert!(shown.contains(&expected), "{shown}");
    let mut connection = UnixStream::connect(&path).unwrap();
    connection.write_all(b"over a socket").unwrap();
    let mut got = [0; 13];
    connection.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"over a socket");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!path.exists());
    station.runtime.shutdown_background();
}

#[test]
fn standard_input_and_output_are_the_connection_alone() {
    for carrier in [Carrier::Raw, Carrier::Streams] {
        let station = Station::start(carrier, json!({"portNumber": "22"}), false);
        let mut child = station.plugin(carrier).spawn().unwrap();
        // With line feeds of their own, which are not to become something else.
        let mut sent = b"SSH-2.0-x\r\n\n\n".to_vec();
        sent.extend((0..300_000_u32).map(|number| (number % 251) as u8));
        let mut input = child.stdin.take().unwrap();
        let writing = {
            let sent = sent.clone();
            std::thread::spawn(move || input.write_all(&sent).unwrap())
        };
        let mut output = child.stdout.take().unwrap();
        let begin = banner();
        let mut got = vec![0; begin.len() + sent.len()];
        output.read_exact(&mut got).unwrap();
        writing.join().unwrap();
        assert_eq!(&got[..begin.len()], begin.as_bytes());
        assert!(got[begin.len()..] == sent);
        // The end of the input ends it, within what an official agent's silence takes.
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert!(
            rest.is_empty() || rest.contains("Exiting session with sessionId"),
            "{rest}"
        );
        assert_eq!(child.wait().unwrap().code(), Some(0));
        station.runtime.shutdown_background();
    }
}

#[test]
fn a_refusal_is_told_however_soon_the_session_ends_behind_it() {
    for _ in 0..12 {
        let properties = json!({"portNumber": "22"});
        let station = Station::start(Carrier::Streams, properties, true);
        let mut plugin = station.plugin(Carrier::Streams);
        let output = plugin.stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("nobody listens"), "{output:?}");
        station.runtime.shutdown_background();
    }
}
