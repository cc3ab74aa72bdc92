//! The task behind a data channel: it owns the link, which outlives its websockets, and moves frames
//! between the link, the websocket and the caller.
//!
//! States: connecting → serving → (connection lost) → connecting … → ended. What is sent again and
//! in which order is the link's; when to try again is `backoff`'s; when a peer is dead is
//! `keep_alive`'s.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sortie_channel::{
    body::{Body, OpenClient, Size, SortieOpen, TOKEN_PREFIX},
    frame::{Frame, PayloadType},
    handshake::{CLIENT_VERSION, ClientHandshake, ClientStep, Outgoing, SessionType},
    link::{self, Delivery, Link, Received, Role},
    timer::Timer,
};
use sortie_types::{Now, Secret};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    End, Event, MAX_INPUT, Options, OwnMessage, Resume, StartedSession,
    command::FromCaller,
    keep_alive::{KeepAlive, Step},
    sending::Sending,
    socket::{self, Socket},
};
use crate::{
    Tls,
    backoff::{Backoff, Schedule},
    clock::{Clock, random},
};

/// Messages that wait for the websocket.
const WRITE_QUEUE: usize = 32;

/// Events made from deliveries that wait for the caller, in this task.
const OUTBOX: usize = 16;

/// The longest input message towards a node that is not ours; official ends send no longer ones.
const OFFICIAL_INPUT: usize = 1024;

/// How long the websocket's closing may take when the client leaves.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long queued input is waited for when the client leaves after it.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that lasted this long was worth something even if nobody said anything on it.
const WORTHWHILE: Duration = Duration::from_secs(30);

/// After this many connections without a single frame a ticket is given up and the session resumed
/// through the API, which needs credentials but says why it refuses.
const FRUITLESS_TICKETS: u32 = 3;

/// The caller's ends.
pub(super) struct Ends {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) messages: mpsc::Receiver<OwnMessage>,
    pub(super) features: watch::Sender<Vec<String>>,
    pub(super) size: watch::Receiver<Option<Size>>,
    pub(super) leave: CancellationToken,
    pub(super) finish: CancellationToken,
    pub(super) from_caller: FromCaller,
    pub(super) sending: Arc<Sending>,
}

/// A session as its client sees it.
pub(super) struct Channel<R> {
    session: StartedSession,
    resume: R,
    tls: Tls,
    options: Options,
    ends: Ends,
    clock: Clock,
    client_id: Uuid,
    /// The server is ours: it gave the token.
    is_ours: bool,
    link: Link,
    timer: Timer,
    handshake: ClientHandshake,
    /// The `TokenValue` of the next connection, renewed at each.
    ticket: Option<Secret>,
    /// The other end said what it can do, so it is ours and takes input from the start.
    node_is_ours: bool,
    /// The session's type is known: an official end takes input.
    has_begun: bool,
    has_told_joined: bool,
    /// Columns and rows that the node was told last.
    size_sent: Option<(u32, u32)>,
    /// Input taken from the caller and not given to the link yet.
    input: Bytes,
    /// A message taken from the caller and not given to the link yet.
    message: Option<OwnMessage>,
    outbox: VecDeque<Event>,
    backoff: Backoff,
    was_connected: bool,
    connected_at: Option<Duration>,
    away_since: Option<Duration>,
    fruitless: u32,
    finish_by: Option<Instant>,
}

/// Why a websocket is served no longer.
enum Served {
    Ended(End),
    Lost(String),
}

/// What a served connection wakes up for.
enum Wake {
    Leave,
    Finish,
    EventRoom,
    SocketRoom,
    Said,
    FromSocket(Option<Result<Message, tungstenite::Error>>),
    Input(Option<Bytes>),
    OwnMessage(OwnMessage),
    Resized,
    Time,
    WriterDone,
}

impl<R: Resume> Channel<R> {
    pub(super) fn new(
        session: StartedSession,
        resume: R,
        tls: Tls,
        options: Options,
        ends: Ends,
    ) -> Self {
        let is_ours = session.token_value.expose().starts_with(TOKEN_PREFIX);
        let link = Link::new(link::Options {
            wait_for_features: is_ours,
            ..link::Options::new(Role::Client, Uuid::new_v4().into_bytes())
        });
        Self {
            session,
            resume,
            tls,
            options,
            ends,
            clock: Clock::new(),
            client_id: Uuid::new_v4(),
            is_ours,
            link,
            timer: Timer::default(),
            handshake: ClientHandshake::new(),
            ticket: None,
            node_is_ours: false,
            has_begun: false,
            has_told_joined: false,
            size_sent: None,
            input: Bytes::new(),
            message: None,
            outbox: VecDeque::new(),
            // Six tries in all, as the official client makes them.
            backoff: Backoff::new(Schedule::Official { retries: 5 }),
            was_connected: false,
            connected_at: None,
            away_since: None,
            fruitless: 0,
            finish_by: None,
        }
    }

    /// Runs until the session is over for this client.
    pub(super) async fn run(mut self) {
        let end = self.run_to_end().await;
        // The server closes after the last output; what has arrived is shown first.
        loop {
            self.fill_outbox();
            let Some(event) = self.outbox.pop_front() else {
                break;
            };
            if self.ends.events.send(event).await.is_err() {
                return;
            }
        }
        // A caller that is gone wants to hear nothing.
        let _ = self.ends.events.send(Event::Ended(end)).await;
    }

    async fn run_to_end(&mut self) -> End {
        loop {
            let (leave, finish) = (self.ends.leave.clone(), self.ends.finish.clone());
            let connected = tokio::select! {
                () = leave.cancelled() => return End::Left,
                () = overdue(finish) => return End::Left,
                connected = self.connect() => connected,
            };
            let socket = match connected {
                Ok(socket) => socket,
                Err(end) => return end,
            };
            match self.serve(socket).await {
                Served::Ended(end) => return end,
                Served::Lost(reason) => self.lost(reason),
            }
        }
    }

    fn lost(&mut self, reason: String) {
        tracing::debug!(
            session_id = self.session.session_id,
            reason,
            "connection lost"
        );
        self.link.disconnected();
        let now = self.clock.now().monotonic;
        if self.connected_at.is_some_and(|at| now >= at + WORTHWHILE) {
            self.was_worthwhile();
        }
        if self.away_since.is_none() {
            self.away_since = Some(now);
            self.outbox.push_back(Event::Away { reason });
            self.flush_outbox();
        }
    }

    // ---- connecting ----

    /// Opens a websocket and sends the open message, trying again as the schedule has it.
    async fn connect(&mut self) -> Result<Socket, End> {
        // A connection that brought no frame counts as a failed try.
        if self.fruitless > 0 {
            self.pause("the server closes the connection".to_owned())
                .await?;
        }
        loop {
            let reason = match self.try_connect().await {
                Ok(socket) => {
                    self.connected();
                    return Ok(socket);
                }
                Err(Try::Over(end)) => return Err(end),
                Err(Try::Again(reason)) => reason,
            };
            self.pause(reason).await?;
        }
    }

    fn connected(&mut self) {
        if self.was_connected {
            self.link.connected(self.clock.now());
        }
        self.was_connected = true;
        self.connected_at = Some(self.clock.now().monotonic);
        self.fruitless += 1;
    }

    /// Waits for the next try. Events go on to the caller meanwhile.
    async fn pause(&mut self, reason: String) -> Result<(), End> {
        let now = self.clock.now().monotonic;
        let away = self.away_since.map_or(Duration::ZERO, |since| now - since);
        let Some(wait) = self.backoff.next(away, random()) else {
            return Err(if self.is_resuming() {
                End::Lost { reason }
            } else {
                End::Refused { reason }
            });
        };
        let until = Instant::now() + wait;
        loop {
            let waiting = !self.outbox.is_empty();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                permit = self.ends.events.reserve(), if waiting => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.outbox.pop_front() {
                            permit.send(event);
                        }
                    }
                    Err(_) => return Err(End::Left),
                },
            }
        }
    }

    /// Whether the first token has served its purpose.
    fn is_resuming(&self) -> bool {
        self.away_since.is_some()
    }

    async fn try_connect(&mut self) -> Result<Socket, Try> {
        let token = self.token().await?;
        let dialled = socket::dial(
            &self.session.stream_url,
            &self.tls,
            self.options.dial_timeout,
        )
        .await;
        let mut socket = dialled.map_err(|error| {
            // Before the session was ever joined a certain refusal is worth no second try; later
            // it may be a proxy's while the server restarts.
            if error.is_final() && !self.is_resuming() {
                Try::Over(End::Refused {
                    reason: error.to_string(),
                })
            } else {
                Try::Again(error.to_string())
            }
        })?;
        let open = Message::text(self.open_message(token).to_text());
        tokio::time::timeout(self.options.dial_timeout, socket.send(open))
            .await
            .map_err(|_| Try::Again("no connection in time".to_owned()))?
            .map_err(|error| Try::Again(error.to_string()))?;
        Ok(socket)
    }

    async fn token(&mut self) -> Result<Secret, Try> {
        if !self.is_resuming() {
            return Ok(self.session.token_value.clone());
        }
        if self.fruitless >= FRUITLESS_TICKETS {
            self.ticket = None;
        }
        if let Some(ticket) = &self.ticket {
            return Ok(ticket.clone());
        }
        match self.resume.resume(&self.session.session_id).await {
            Ok(Some(token)) => Ok(token),
            Ok(None) => Err(Try::Over(End::TimedOut)),
            Err(error) if error.is_transient || self.is_ours => Err(Try::Again(error.to_string())),
            Err(error) => Err(Try::Over(End::Lost {
                reason: error.to_string(),
            })),
        }
    }

    fn open_message(&self, token: Secret) -> OpenClient {
        OpenClient {
            message_schema_version: "1.0".into(),
            request_id: Uuid::new_v4().to_string(),
            token,
            client_id: self.client_id.to_string(),
            client_version: Some(CLIENT_VERSION.to_owned()),
            sortie: self.is_ours.then(|| SortieOpen {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                features: self.options.features.clone(),
            }),
        }
    }

    // ---- serving ----

    /// Moves frames until the websocket is gone or the session over.
    async fn serve(&mut self, socket: Socket) -> Served {
        let (sink, mut stream) = socket::split(socket);
        let (to_socket, messages) = mpsc::channel(WRITE_QUEUE);
        let mut writer = Writer(tokio::spawn(socket::write_messages(sink, messages)));
        let mut keep_alive = KeepAlive::new(self.options.keep_alive);
        if !self.is_ours {
            self.back();
        }
        let served = loop {
            let until = match self.advance(&to_socket, &mut keep_alive) {
                Ok(until) => until,
                Err(reason) => break Served::Lost(reason),
            };
            let wake = self.wait(&mut stream, &to_socket, &mut writer, until).await;
            if let Some(served) = self.handle(wake, &mut keep_alive) {
                break served;
            }
        };
        drop(to_socket);
        // Closing is a courtesy: the session's end does not hang on it.
        if matches!(served, Served::Ended(_)) {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut writer.0).await;
        }
        served
    }

    /// Does everything that needs no waiting, and returns when to look again.
    fn advance(
        &mut self,
        to_socket: &mpsc::Sender<Message>,
        keep_alive: &mut KeepAlive,
    ) -> Result<Instant, String> {
        self.offer_input();
        self.fill_outbox();
        while self.flush_outbox() {
            self.fill_outbox();
        }
        // What was just received may have brought room for more.
        self.offer_input();
        let now = self.clock.now();
        let alive = loop {
            match keep_alive.poll(now.monotonic, self.link.unacknowledged_for(now)) {
                Step::Dead => return Err("the server does not answer".to_owned()),
                Step::Wait(until) => break until,
                Step::Ping => {
                    // A full queue means that the last ping is still in it.
                    let _ = to_socket.try_send(Message::Ping(Bytes::from_static(b"keepalive")));
                }
            }
        };
        while let Ok(permit) = to_socket.try_reserve() {
            match self.link.poll_transmit(now) {
                Some(frame) => permit.send(Message::Binary(frame)),
                None if self.offer_message(now) => {}
                None => break,
            }
        }
        let is_delivered = self.link.drained() && self.message.is_none();
        self.ends.sending.note(is_delivered, self.link.portion());
        let due = self.link.deadline().map_or(alive, |link| link.min(alive));
        let until = self.timer.set(Some(due), now.monotonic).unwrap_or(due);
        let until = self.clock.instant(until);
        Ok(self.finish_by.map_or(until, |by| by.min(until)))
    }

    async fn wait(
        &mut self,
        stream: &mut futures_util::stream::SplitStream<Socket>,
        to_socket: &mpsc::Sender<Message>,
        writer: &mut Writer,
        until: Instant,
    ) -> Wake {
        let has_events = !self.outbox.is_empty();
        let is_full = to_socket.capacity() == 0;
        let takes_input = self.takes_input() && self.input.is_empty();
        let takes_size = self.takes_input();
        let finishing = self.finish_by.is_some();
        // Until the link has room the choice is left to who makes the messages.
        let takes_message =
            self.has_begun && self.message.is_none() && !is_full && self.link.has_room();
        tokio::select! {
            () = self.ends.leave.cancelled() => Wake::Leave,
            () = self.ends.finish.cancelled(), if !finishing => Wake::Finish,
            permit = self.ends.events.reserve(), if has_events => match permit {
                Ok(_) => Wake::EventRoom,
                Err(_) => Wake::Leave,
            },
            _ = to_socket.reserve(), if is_full => Wake::SocketRoom,
            message = stream.next() => Wake::FromSocket(message),
            _ = &mut writer.0 => Wake::WriterDone,
            Ok(()) = self.ends.size.changed(), if takes_size => Wake::Resized,
            Some(input) = self.ends.input.recv(), if takes_input => Wake::Input(Some(input)),
            () = self.ends.from_caller.wait() => Wake::Said,
            Some(message) = self.ends.messages.recv(), if takes_message => Wake::OwnMessage(message),
            () = tokio::time::sleep_until(until) => Wake::Time,
        }
    }

    fn handle(&mut self, wake: Wake, keep_alive: &mut KeepAlive) -> Option<Served> {
        match wake {
            Wake::Leave => return Some(Served::Ended(End::Left)),
            Wake::Finish => self.finish_by = Some(Instant::now() + FINISH_TIMEOUT),
            Wake::Input(input) => self.input = input.unwrap_or_default(),
            Wake::OwnMessage(message) => self.message = Some(message),
            Wake::WriterDone => return Some(Served::Lost("the connection broke".to_owned())),
            Wake::FromSocket(None) => {
                return Some(Served::Lost("the server closed the connection".to_owned()));
            }
            Wake::FromSocket(Some(Err(error))) => return Some(Served::Lost(error.to_string())),
            Wake::FromSocket(Some(Ok(message))) => {
                keep_alive.heard();
                if let Message::Binary(bytes) = message
                    && let Some(end) = self.receive(bytes)
                {
                    return Some(Served::Ended(end));
                }
            }
            Wake::EventRoom | Wake::SocketRoom | Wake::Said | Wake::Resized | Wake::Time => {}
        }
        self.finished().then_some(Served::Ended(End::Left))
    }

    /// Whether the caller wanted to leave after its input, and that is delivered or overdue.
    fn finished(&self) -> bool {
        self.finish_by.is_some_and(|by| {
            Instant::now() >= by
                || (self.input.is_empty()
                    && self.ends.input.is_empty()
                    && self.message.is_none()
                    && self.ends.messages.is_empty()
                    && self.link.drained())
        })
    }

    /// Whether the other end can make use of input now. An official agent throws away what comes
    /// before its handshake is over; ours keeps it.
    fn takes_input(&self) -> bool {
        self.node_is_ours || self.has_begun
    }

    /// Gives the link what it has room for: the size first, so that nothing typed meets a terminal
    /// of another size.
    fn offer_input(&mut self) {
        if let Some(answer) = self.ends.from_caller.released() {
            self.answer(answer);
        }
        if !self.takes_input() {
            return;
        }
        if !self.has_told_joined {
            self.has_told_joined = true;
            self.outbox.push_back(Event::Joined);
        }
        let now = self.clock.now();
        let size = self.ends.size.borrow_and_update().clone();
        if let Some(size) = size
            && self.size_sent != Some((size.cols, size.rows))
            && self
                .link
                .send(PayloadType::SIZE, Bytes::from(size.to_text()), now)
                .is_ok()
        {
            self.size_sent = Some((size.cols, size.rows));
        }
        self.ends.from_caller.offer_signals(&mut self.link, now);
        let longest = if self.node_is_ours {
            MAX_INPUT
        } else {
            OFFICIAL_INPUT
        };
        loop {
            if self.input.is_empty() {
                self.input = self.ends.input.try_recv().unwrap_or_default();
            }
            if self.input.is_empty() {
                self.ends.from_caller.offer_end(&mut self.link, now);
                return;
            }
            let longest = longest.min(self.ends.from_caller.room());
            let piece = self.input.slice(..self.input.len().min(longest));
            if piece.is_empty() || piece.len() > self.link.writable() {
                return;
            }
            let length = piece.len();
            if self.link.send(PayloadType::OUTPUT, piece, now).is_err() {
                return;
            }
            self.ends.from_caller.sent(length);
            self.input = self.input.slice(length..);
        }
    }

    /// Sends the handshake's answer.
    fn answer(&mut self, answer: Outgoing) {
        let now = self.clock.now();
        let (payload_type, payload) = (answer.payload_type, answer.payload);
        if self.link.send(payload_type, payload, now).is_err() {
            tracing::debug!("no room for the handshake's answer");
        }
    }

    /// Gives the link one message of the caller's own making if it has room and would send it now.
    fn offer_message(&mut self, now: Now) -> bool {
        if !self.has_begun {
            return false;
        }
        if self.message.is_none() && self.link.has_room() {
            self.message = self.ends.messages.try_recv().ok();
        }
        let Some((payload_type, payload)) = &self.message else {
            return false;
        };
        // Beyond the window it would wait in the link, where nothing overtakes it.
        if payload.len() > self.link.writable() && !self.link.drained() {
            return false;
        }
        if self.link.send(*payload_type, payload.clone(), now).is_err() {
            return false;
        }
        self.message = None;
        true
    }

    // ---- receiving ----

    /// Takes a frame; an end when it was the last.
    fn receive(&mut self, bytes: Bytes) -> Option<End> {
        let frame = match Frame::parse(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::debug!(%error, "a frame was ignored");
                return None;
            }
        };
        self.was_worthwhile();
        self.back();
        match self.link.receive(frame, self.clock.now()) {
            Received::ChannelClosed(body) => Some(End::Closed {
                output: body.output,
            }),
            Received::Features(features) => {
                self.node_is_ours |= !features.features.is_empty();
                self.ends.from_caller.set_features(&features.features);
                self.ends.features.send_if_modified(|known| {
                    let is_new = *known != features.features;
                    known.clone_from(&features.features);
                    is_new
                });
                if features.ticket.is_some() {
                    self.ticket = features.ticket;
                }
                None
            }
            Received::Ignored(reason) => {
                tracing::trace!(?reason, "a frame was ignored");
                None
            }
            _ => None,
        }
    }

    /// The connection proved itself: the next loss begins a new row of tries.
    fn was_worthwhile(&mut self) {
        if self.fruitless > 0 {
            self.fruitless = 0;
            let schedule = if self.is_ours {
                Schedule::Patient {
                    limit: self.options.patience,
                }
            } else {
                Schedule::Official { retries: 5 }
            };
            self.backoff = Backoff::new(schedule);
        }
    }

    fn back(&mut self) {
        if self.away_since.take().is_some() {
            self.outbox.push_back(Event::Back);
        }
    }

    /// Hands over the events that the caller has room for. Whether that was at least one, and all.
    fn flush_outbox(&mut self) -> bool {
        let mut has_sent = false;
        while !self.outbox.is_empty() {
            let Ok(permit) = self.ends.events.try_reserve() else {
                return false;
            };
            if let Some(event) = self.outbox.pop_front() {
                permit.send(event);
                has_sent = true;
            }
        }
        has_sent
    }

    fn fill_outbox(&mut self) {
        while self.outbox.len() < OUTBOX {
            let Some(delivery) = self.link.next_delivery() else {
                return;
            };
            self.deliver(delivery);
        }
    }

    /// Turns a delivery into events.
    fn deliver(&mut self, delivery: Delivery) {
        if delivery.payload_type == PayloadType::STDIN_TAKEN {
            self.ends.from_caller.take_taken(&delivery.payload);
            return;
        }
        match self.handshake.receive(&delivery) {
            Ok(ClientStep::Over) => self.outbox.extend(event(delivery)),
            Ok(ClientStep::Shell(session)) => {
                self.has_begun = true;
                self.outbox.push_back(Event::Begun(session));
                self.outbox.extend(event(delivery));
            }
            Ok(ClientStep::Complete(session)) => {
                self.has_begun = true;
                if session.session_type == SessionType::Port {
                    // What goes next is chosen late there, and the little must not wait for the much.
                    self.link.pace(self.clock.now());
                }
                self.ends.from_caller.begin(session.session_type);
                self.outbox.push_back(Event::Begun(session));
            }
            Ok(ClientStep::Send(answer)) if self.options.asks => {
                if let Some(answer) = self.ends.from_caller.hold(answer) {
                    self.answer(answer);
                } else {
                    let features = self.ends.from_caller.features().to_vec();
                    self.outbox.push_back(Event::Asked { features });
                }
            }
            Ok(ClientStep::Send(answer)) => self.answer(answer),
            // A program that ends without a word: an official client would lose its status.
            Ok(ClientStep::Waiting) if self.node_is_ours => self.outbox.extend(event(delivery)),
            Ok(ClientStep::Waiting) => {}
            Err(error) => tracing::debug!(%error, "a handshake message was ignored"),
        }
    }
}

/// Why one try to connect failed.
enum Try {
    Again(String),
    Over(End),
}

/// The task that writes to the websocket; ended with its owner.
struct Writer(JoinHandle<Result<(), tungstenite::Error>>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until the caller wants to leave and then for as long as its input may take.
async fn overdue(finish: CancellationToken) {
    finish.cancelled().await;
    tokio::time::sleep(FINISH_TIMEOUT).await;
}

/// The event of a delivery that belongs to the session.
fn event(delivery: Delivery) -> Option<Event> {
    let payload = delivery.payload;
    match delivery.payload_type {
        PayloadType::OUTPUT => Some(Event::Output(payload)),
        PayloadType::STDERR => Some(Event::StdErr(payload)),
        PayloadType::EXIT_CODE => Some(Event::ExitStatus {
            code: exit_code(&payload),
            text: payload,
        }),
        payload_type if is_of_handshake(payload_type) => None,
        payload_type => Some(Event::Message {
            payload_type,
            payload,
        }),
    }
}

/// Whether the handshake has to do with messages of this type, also when they come late.
fn is_of_handshake(payload_type: PayloadType) -> bool {
    let first = PayloadType::HANDSHAKE_REQUEST.0;
    let last = PayloadType::ENC_CHALLENGE_RESPONSE.0;
    (first..=last).contains(&payload_type.0)
}

/// The number in `EXIT_CODE: <n>`.
fn exit_code(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    text.trim().strip_prefix("EXIT_CODE:")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_read_from_its_text_alone() {
        for (text, code) in [
            ("EXIT_CODE: 0", Some(0)),
            ("EXIT_CODE: 130\n", Some(130)),
            ("EXIT_CODE: -1", Some(-1)),
            ("EXIT_CODE: ", None),
            ("0", None),
        ] {
            assert_eq!(exit_code(text.as_bytes()), code, "{text}");
        }
    }
}
