//! The client of a session without a terminal, with the gateway's part played for it: messages of the
//! session go in and out, and many connections over them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use sortie_channel::{
    frame::{Frame, PayloadType},
    handshake::{ClientHandshake, ClientStep, Session},
    link::{Delivery, Link, Options, Received, Role},
    smux::{self, Smux},
    streams::{Destination, Event, Limits, Refusal, Side, Streams},
};
use sortie_types::Now;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    PATIENCE,
    server::{Server, Socket, now},
};

/// One end of the session's link, and the websockets below it.
pub(crate) struct Peer<'a> {
    server: &'a Server,
    session_id: String,
    features: Vec<String>,
    link: Link,
    socket: Option<Socket>,
    begun: Instant,
    tickets: u32,
    inbox: VecDeque<Delivery>,
    outbox: VecDeque<(PayloadType, Bytes)>,
    /// What the node told the gateway of the session.
    pub(crate) states: Vec<String>,
    /// Names of the frames that came, and payload types of the numbered ones.
    pub(crate) frames: Vec<(String, PayloadType)>,
    /// Nothing is read from the websocket.
    pub(crate) is_deaf: bool,
}

impl<'a> Peer<'a> {
    pub(crate) async fn attach(server: &'a Server, session_id: &str, features: &[&str]) -> Self {
        let mut peer = Self {
            server,
            session_id: session_id.to_owned(),
            features: features.iter().map(ToString::to_string).collect(),
            link: Link::new(Options::new(Role::Client, [7; 16])),
            socket: None,
            begun: Instant::now(),
            tickets: 0,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            states: Vec::new(),
            frames: Vec::new(),
            is_deaf: false,
        };
        peer.link.disconnected();
        peer.link.set_features(&peer.features);
        peer.accept().await;
        peer
    }

    fn now(&self) -> Now {
        Now::new(self.begun.elapsed(), now())
    }

    async fn accept(&mut self) {
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

    pub(crate) fn send(&mut self, payload_type: PayloadType, payload: impl Into<Bytes>) {
        self.outbox.push_back((payload_type, payload.into()));
    }

    /// Shakes hands as a client of this version.
    pub(crate) async fn shake_hands(&mut self, version: &str) -> Session {
        let mut handshake = ClientHandshake::new();
        loop {
            let delivery = self.delivery().await;
            match handshake.receive(&delivery).unwrap() {
                ClientStep::Send(answer) => {
                    let mut answered: Value = serde_json::from_slice(&answer.payload).unwrap();
                    answered["ClientVersion"] = version.into();
                    self.send(answer.payload_type, answered.to_string());
                }
                ClientStep::Complete(session) => return session,
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    /// The next message of the session.
    pub(crate) async fn delivery(&mut self) -> Delivery {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(delivery) = self.inbox.pop_front() {
                return delivery;
            }
            assert!(Instant::now() < give_up, "waited in vain for a message");
            self.step().await;
        }
    }

    /// Sends what waits, and receives what comes within a moment.
    pub(crate) async fn step(&mut self) {
        let now = self.now();
        if self.socket.is_none() {
            return self.accept().await;
        }
        while let Some((payload_type, payload)) = self.outbox.front() {
            if self.link.send(*payload_type, payload.clone(), now).is_err() {
                break;
            }
            self.outbox.pop_front();
        }
        let Some(socket) = self.socket.as_mut() else {
            return;
        };
        while let Some(frame) = self.link.poll_transmit(now) {
            if socket.send(Message::Binary(frame)).await.is_err() {
                return self.break_connection();
            }
        }
        if self.is_deaf {
            return tokio::task::yield_now().await;
        }
        let mut patience = Duration::from_millis(10);
        for _ in 0..64 {
            let Some(socket) = self.socket.as_mut() else {
                return;
            };
            match timeout(patience, socket.next()).await {
                Err(_) => return,
                Ok(Some(Ok(Message::Binary(bytes)))) => self.receive(bytes),
                Ok(Some(Ok(_))) => {}
                Ok(None | Some(Err(_))) => return self.break_connection(),
            }
            patience = Duration::ZERO;
        }
    }

    fn receive(&mut self, bytes: Bytes) {
        let now = self.now();
        let frame = Frame::parse(bytes).unwrap();
        self.frames
            .push((frame.message_type().to_string(), frame.payload_type()));
        if let Received::SessionState(state) = self.link.receive(frame, now) {
            self.states.push(state.session_state);
        }
        while let Some(delivery) = self.link.next_delivery() {
            self.inbox.push_back(delivery);
        }
    }

    /// Whether nothing waits to be sent or acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        self.outbox.is_empty() && self.link.drained()
    }

    fn room(&self) -> usize {
        if self.outbox.is_empty() {
            self.link.writable()
        } else {
            0
        }
    }
}

/// A client of ours with its streams, and what has come of each.
pub(crate) struct Ours<'a> {
    pub(crate) peer: Peer<'a>,
    pub(crate) streams: Streams,
    pub(crate) got: BTreeMap<u32, Vec<u8>>,
    pub(crate) finished: BTreeSet<u32>,
    pub(crate) accepted: BTreeSet<u32>,
    pub(crate) refused: BTreeMap<u32, Refusal>,
    pub(crate) reset: BTreeSet<u32>,
    pub(crate) opened: Vec<u32>,
    /// Streams whose data is held and not consumed.
    pub(crate) unread: BTreeMap<u32, usize>,
    pub(crate) does_not_read: BTreeSet<u32>,
}

impl<'a> Ours<'a> {
    pub(crate) fn new(peer: Peer<'a>) -> Self {
        Self {
            peer,
            streams: Streams::new(Side::Client, Limits::default()),
            got: BTreeMap::new(),
            finished: BTreeSet::new(),
            accepted: BTreeSet::new(),
            refused: BTreeMap::new(),
            reset: BTreeSet::new(),
            opened: Vec::new(),
            unread: BTreeMap::new(),
            does_not_read: BTreeSet::new(),
        }
    }

    pub(crate) fn open(&mut self) -> u32 {
        self.streams.open(Destination::default()).unwrap()
    }

    pub(crate) async fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(Instant::now() < give_up, "waited in vain for {what}");
            self.step().await;
        }
    }

    pub(crate) async fn step(&mut self) {
        while self.peer.room() > 80 << 10
            && let Some((payload_type, payload)) = self.streams.next_message(64 << 10)
        {
            let now = self.peer.now();
            self.peer.link.send(payload_type, payload, now).unwrap();
        }
        self.peer.step().await;
        while let Some(delivery) = self.peer.inbox.pop_front() {
            self.streams
                .receive(delivery.payload_type, delivery.payload)
                .unwrap();
            self.take_events();
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.streams.next_event() {
            match event {
                Event::Open(id, _) => {
                    self.streams.accept(id);
                    self.opened.push(id);
                }
                Event::Accepted(id) => drop(self.accepted.insert(id)),
                Event::Refused(id, refusal) => drop(self.refused.insert(id, refusal)),
                Event::Data(id, data) => {
                    self.got.entry(id).or_default().extend_from_slice(&data);
                    if self.does_not_read.contains(&id) {
                        *self.unread.entry(id).or_default() += data.len();
                    } else {
                        self.streams.consumed(id, data.len());
                    }
                }
                Event::Finished(id) => drop(self.finished.insert(id)),
                Event::Reset(id) => drop(self.reset.insert(id)),
                Event::Writable(_) => {}
            }
        }
    }

    /// Reads on a stream that was not read.
    pub(crate) fn read_again(&mut self, id: u32) {
        self.does_not_read.remove(&id);
        let unread = self.unread.remove(&id).unwrap_or_default();
        self.streams.consumed(id, unread);
    }

    pub(crate) fn got(&self, id: u32) -> &[u8] {
        self.got.get(&id).map_or(&[], Vec::as_slice)
    }
}

/// An official client that multiplexes.
pub(crate) struct Official<'a> {
    pub(crate) peer: Peer<'a>,
    pub(crate) smux: Smux,
    pub(crate) got: BTreeMap<u32, Vec<u8>>,
    pub(crate) closed: BTreeSet<u32>,
    pub(crate) flags: Vec<Bytes>,
    pub(crate) reads: bool,
}

impl<'a> Official<'a> {
    pub(crate) fn new(peer: Peer<'a>) -> Self {
        Self {
            peer,
            smux: Smux::new(smux::Side::Client),
            got: BTreeMap::new(),
            closed: BTreeSet::new(),
            flags: Vec::new(),
            reads: true,
        }
    }

    pub(crate) async fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(Instant::now() < give_up, "waited in vain for {what}");
            self.step().await;
        }
    }

    pub(crate) async fn step(&mut self) {
        // Never aligned with the frames inside, as official clients are not.
        while self.peer.outbox.len() < 100
            && let Some(bytes) = self.smux.take_outgoing(1024)
        {
            self.peer.send(PayloadType::OUTPUT, bytes);
        }
        self.peer.step().await;
        while let Some(delivery) = self.peer.inbox.pop_front() {
            match delivery.payload_type {
                PayloadType::OUTPUT => self.smux.receive(delivery.payload).unwrap(),
                PayloadType::FLAG => self.flags.push(delivery.payload),
                other => panic!("not expected: {other:?}"),
            }
        }
        while let Some(event) = self.smux.next_event() {
            match event {
                smux::Event::Opened(id) => panic!("the node opened {id}"),
                smux::Event::Data(id, data) => {
                    self.smux.used(id, data.len());
                    self.got.entry(id).or_default().extend_from_slice(&data);
                }
                smux::Event::Closed(id) => drop(self.closed.insert(id)),
            }
        }
    }

    pub(crate) fn got(&self, id: u32) -> &[u8] {
        self.got.get(&id).map_or(&[], Vec::as_slice)
    }
}
