//! The client of a session, with the gateway's part played for it: what the node sends arrives here,
//! and what is typed here arrives there.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sortie_channel::{
    body::{Body, Size},
    features,
    frame::{Frame, PayloadType},
    handshake::{ClientHandshake, ClientStep},
    link::{Delivery, Link, Options, Received, Role},
    stdin,
};
use sortie_types::Now;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    PATIENCE,
    server::{Server, Socket, now},
};

pub(crate) struct Shell<'a> {
    server: &'a Server,
    session_id: String,
    features: Vec<String>,
    link: Link,
    socket: Option<Socket>,
    begun: Instant,
    tickets: u32,
    handshake: ClientHandshake,
    /// Answers no handshake.
    pub(crate) is_mute: bool,
    /// The handshake is over.
    pub(crate) is_ready: bool,
    /// What is printed at its end.
    pub(crate) customer_message: String,
    /// Everything that came from the terminal or the standard output.
    pub(crate) output: Vec<u8>,
    /// Everything that came from the error output.
    pub(crate) errors: Vec<u8>,
    /// Bytes of standard input that were sent, and that the node said were taken.
    pub(crate) sent: u64,
    pub(crate) taken: u64,
    /// What came as payload type 12.
    pub(crate) exit_code: Option<String>,
    /// What the node told the gateway of the session.
    pub(crate) states: Vec<String>,
    /// Frames of output, in the order of arrival.
    pub(crate) frames: usize,
}

impl<'a> Shell<'a> {
    /// The client of a session that was just asked for, as our own client is.
    pub(crate) async fn attach(server: &'a Server, session_id: &str) -> Self {
        Self::attach_as(server, session_id, &features::ALL, None).await
    }

    /// A client with these features that announces this size before anything else.
    pub(crate) async fn attach_as(
        server: &'a Server,
        session_id: &str,
        features: &[&str],
        size: Option<(u32, u32)>,
    ) -> Self {
        let mut shell = Self {
            server,
            session_id: session_id.to_owned(),
            features: features.iter().map(ToString::to_string).collect(),
            link: Link::new(Options::new(Role::Client, [7; 16])),
            socket: None,
            begun: Instant::now(),
            tickets: 0,
            handshake: ClientHandshake::new(),
            is_mute: false,
            is_ready: false,
            customer_message: String::new(),
            output: Vec::new(),
            errors: Vec::new(),
            sent: 0,
            taken: 0,
            exit_code: None,
            states: Vec::new(),
            frames: 0,
        };
        shell.link.disconnected();
        shell.link.set_features(&shell.features);
        if let Some((cols, rows)) = size {
            shell.resize(cols, rows);
        }
        shell.accept().await;
        shell
    }

    fn now(&self) -> Now {
        Now::new(self.begun.elapsed(), now())
    }

    /// Takes the session's next websocket and plays the gateway's greeting.
    pub(crate) async fn accept(&mut self) {
        let server = self.server;
        let welcome = server.welcome(&self.session_id, &mut self.tickets, &self.features);
        let socket = welcome.await;
        self.link.connected(self.now());
        self.socket = Some(socket);
    }

    /// Breaks the websocket as a dying network does.
    pub(crate) fn break_connection(&mut self) {
        self.socket = None;
        self.link.disconnected();
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.send(PayloadType::OUTPUT, bytes);
    }

    /// Sends what is no keystroke.
    pub(crate) fn send(&mut self, payload_type: PayloadType, bytes: &[u8]) {
        let now = self.now();
        self.link
            .send(payload_type, Bytes::copy_from_slice(bytes), now)
            .unwrap();
    }

    /// Sends as much of a standard input as fits now, and says how much that was.
    pub(crate) fn pipe(&mut self, bytes: &[u8]) -> usize {
        let ahead = usize::try_from(self.sent - self.taken).unwrap();
        let room = self
            .link
            .writable()
            .min(stdin::WINDOW - ahead)
            .min(64 * 1024);
        let now = &bytes[..room.min(bytes.len())];
        if !now.is_empty() {
            self.send_bytes(now);
            self.sent += now.len() as u64;
        }
        now.len()
    }

    /// Bytes that the link takes now.
    pub(crate) fn writable(&self) -> usize {
        self.link.writable()
    }

    /// Runs the link until the handshake is over.
    pub(crate) async fn until_ready(&mut self) {
        self.until_that("the handshake", |shell| shell.is_ready)
            .await;
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        self.send_bytes(format!("{line}\r").as_bytes());
    }

    pub(crate) fn resize(&mut self, cols: u32, rows: u32) {
        let now = self.now();
        self.link
            .send(
                PayloadType::SIZE,
                Size::new(cols, rows).to_text().into(),
                now,
            )
            .unwrap();
    }

    pub(crate) async fn gateway_sends(&mut self, bytes: Bytes) {
        self.socket
            .as_mut()
            .unwrap()
            .send(Message::Binary(bytes))
            .await
            .unwrap();
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// Runs the link until `text` came from the terminal.
    pub(crate) async fn until(&mut self, text: &str) {
        self.until_that(text, |shell| shell.text().contains(text))
            .await;
    }

    /// Runs the link until the node says that the session is terminating.
    pub(crate) async fn until_terminating(&mut self) {
        self.until_that("the session's end", |shell| {
            shell.states.iter().any(|state| state == "Terminating")
        })
        .await;
    }

    /// Runs the link until `reached`.
    pub(crate) async fn until_that(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(
                Instant::now() < give_up,
                "waited in vain for {what:?}; the terminal shows {:?}",
                self.text()
            );
            self.step().await;
        }
    }

    /// Hands over what was typed, without waiting for anything.
    pub(crate) async fn flush(&mut self) {
        let now = self.now();
        while let Some(frame) = self.link.poll_transmit(now) {
            self.gateway_sends(frame).await;
        }
    }

    /// Runs the link for a moment.
    pub(crate) async fn step(&mut self) {
        let now = self.now();
        let Some(socket) = self.socket.as_mut() else {
            return self.accept().await;
        };
        while let Some(frame) = self.link.poll_transmit(now) {
            if socket.send(Message::Binary(frame)).await.is_err() {
                return self.break_connection();
            }
        }
        let Ok(received) = timeout(Duration::from_millis(20), socket.next()).await else {
            return;
        };
        match received {
            Some(Ok(Message::Binary(bytes))) => self.receive(bytes),
            Some(Ok(_)) => {}
            None | Some(Err(_)) => self.break_connection(),
        }
    }

    fn receive(&mut self, bytes: Bytes) {
        let now = self.now();
        if let Received::SessionState(state) = self.link.receive(Frame::parse(bytes).unwrap(), now)
        {
            self.states.push(state.session_state);
        }
        while let Some(delivery) = self.link.next_delivery() {
            self.take(delivery);
        }
    }

    fn take(&mut self, delivery: Delivery) {
        match delivery.payload_type {
            PayloadType::OUTPUT => {
                self.frames += 1;
                self.output.extend_from_slice(&delivery.payload);
            }
            PayloadType::STDERR => self.errors.extend_from_slice(&delivery.payload),
            PayloadType::EXIT_CODE => {
                self.exit_code = Some(String::from_utf8_lossy(&delivery.payload).into_owned());
            }
            PayloadType::STDIN_TAKEN => self.taken = stdin::parse_taken(&delivery.payload).unwrap(),
            PayloadType::HANDSHAKE_REQUEST if self.is_mute => {}
            PayloadType::HANDSHAKE_REQUEST | PayloadType::HANDSHAKE_COMPLETE => {
                match self.handshake.receive(&delivery).unwrap() {
                    ClientStep::Send(answer) => self.send(answer.payload_type, &answer.payload),
                    ClientStep::Complete(session) => {
                        self.is_ready = true;
                        self.customer_message = session.customer_message;
                    }
                    other => panic!("not expected: {other:?}"),
                }
            }
            other => panic!("not expected: {other:?}"),
        }
    }
}
