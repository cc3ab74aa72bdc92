//! The session's data channel as the worker has it: one reliable link over as many websockets as it
//! takes. What the bytes mean is the session's.
//!
//! The channel announces itself in its open message and sends no stream data before the server has
//! answered with the common features. The answer also brings the ticket that opens the next websocket,
//! so coming back needs no credentials of the node.

use std::{collections::VecDeque, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use sortie_channel::{
    body::{Body, OpenNode, SESSION_CONNECTED, SESSION_TERMINATING, SortieOpen},
    features,
    frame::{Frame, PayloadType},
    link::{Delivery, Link, Options, Received, Role},
    service::{Stamp, agent_session_state},
    timer::Timer,
};
use sortie_types::{NodeId, Now, Secret, SessionId};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    backoff::Backoff,
    clock::Clock,
    log::chain,
    socket::{DialError, Dialer, Socket, SocketEvent},
};

/// What goes to the socket between two looks at what it has received.
const BATCH: usize = 128 * 1024;
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long the last messages and the goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a channel is for.
pub(crate) struct ChannelOptions {
    pub(crate) session_id: SessionId,
    pub(crate) node_id: NodeId,
    /// Opens the first websocket.
    pub(crate) token: Secret,
    /// How long the server may be out of reach.
    pub(crate) idle_limit: Duration,
}

/// What the session has to act upon.
#[derive(Debug)]
pub(crate) enum ChannelEvent {
    /// The next message of the client.
    Input(Delivery),
    /// What both ends can do, known at the start and after each reconnect.
    Features,
    /// There is room to send again, or everything that was sent has arrived.
    Room,
    /// The server says that the session is over.
    Closed,
    /// The server was out of reach for the session's idle limit.
    CutOff,
}

type Dialing = Pin<Box<dyn Future<Output = Result<Socket, DialError>> + Send>>;

/// The worker's end of a session.
pub(crate) struct DataChannel {
    options: ChannelOptions,
    dialer: Dialer,
    clock: Clock,
    link: Link,
    timer: Timer,
    socket: Option<Socket>,
    dialing: Option<Dialing>,
    backoff: Backoff,
    /// Since when the server has not shown that it knows this session.
    away_since: Option<Instant>,
    /// When it last began to.
    back_since: Instant,
    /// Messages outside the stream.
    outbox: VecDeque<Bytes>,
    /// The frame that waits for room in the socket.
    staged: Option<Bytes>,
    events: VecDeque<ChannelEvent>,
    had_room: bool,
    was_drained: bool,
    announced: bool,
    features: Vec<String>,
}

impl DataChannel {
    pub(crate) fn new(options: ChannelOptions, dialer: Dialer) -> Self {
        let seed = *Uuid::new_v4().as_bytes();
        let mut link = Link::new(Options {
            wait_for_features: true,
            ..Options::new(Role::Node, seed)
        });
        link.disconnected();
        Self {
            options,
            dialer,
            clock: Clock::new(),
            link,
            timer: Timer::default(),
            socket: None,
            dialing: None,
            backoff: Backoff::new(Duration::ZERO, LONGEST_WAIT),
            away_since: Some(Instant::now()),
            back_since: Instant::now(),
            outbox: VecDeque::new(),
            staged: None,
            events: VecDeque::new(),
            had_room: false,
            was_drained: true,
            announced: false,
            features: Vec::new(),
        }
    }

    /// The time, as protocol code wants it.
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Bytes that may be sent now; none while the server asks for a pause.
    pub(crate) fn writable(&self) -> usize {
        if self.link.paused() {
            0
        } else {
            self.link.writable()
        }
    }

    /// Whether there is room to send.
    pub(crate) fn has_room(&self) -> bool {
        !self.link.paused() && self.link.has_room()
    }

    /// Bytes that one message may have now, so that others need not wait long for it.
    pub(crate) fn portion(&self) -> usize {
        self.writable().min(self.link.portion())
    }

    /// Holds from now on only what the way to the client takes, so that what is chosen to be sent does
    /// not wait behind much else.
    pub(crate) fn pace(&mut self) {
        self.link.pace(self.clock.now());
    }

    /// The next message of the client, if one is there.
    pub(crate) fn next_input(&mut self) -> Option<Delivery> {
        self.link.next_delivery()
    }

    /// Queues a message of the stream. Up to [`Self::writable`] bytes are always taken; what does not
    /// fit comes back.
    pub(crate) fn send(&mut self, payload_type: PayloadType, payload: Bytes) -> Result<(), Bytes> {
        let sent = self
            .link
            .send(payload_type, payload.clone(), self.clock.now());
        self.had_room = self.has_room();
        sent.map_err(|_full| payload)
    }

    /// Whether both ends know this feature.
    pub(crate) fn has_feature(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }

    /// Whether the client at the other side is one of ours: only those share a feature with us.
    pub(crate) fn is_client_ours(&self) -> bool {
        features::ALL
            .iter()
            .any(|feature| self.has_feature(feature))
    }

    /// Whether everything sent has arrived.
    pub(crate) fn is_drained(&self) -> bool {
        self.link.drained()
    }

    /// Whether the server is there and wants output.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.away_since.is_none() && !self.link.paused()
    }

    /// For how long since `since` the client has acknowledged nothing though something waits for it and
    /// the server was there to pass it on.
    pub(crate) fn ignored_for(&self, since: Instant) -> Duration {
        let Some(socket) = &self.socket else {
            return Duration::ZERO;
        };
        let unacknowledged = self.link.unacknowledged_for(self.clock.now());
        ignored(
            unacknowledged.unwrap_or_default(),
            since.max(self.back_since),
            socket.heard(),
            Instant::now(),
        )
    }

    /// Whether the server is there.
    pub(crate) fn is_connected(&self) -> bool {
        self.away_since.is_none()
    }

    /// Does the channel's work until there is something for the session. Input is only taken with
    /// `takes_input`; the client feels that as back-pressure. Nothing is lost when the future is
    /// dropped.
    pub(crate) async fn event(&mut self, takes_input: bool) -> ChannelEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if takes_input && let Some(delivery) = self.link.next_delivery() {
                return ChannelEvent::Input(delivery);
            }
            let (has_room, is_drained) = (self.has_room(), self.link.drained());
            let had_room = std::mem::replace(&mut self.had_room, has_room);
            let was_drained = std::mem::replace(&mut self.was_drained, is_drained);
            if has_room && !had_room || is_drained && !was_drained {
                return ChannelEvent::Room;
            }
            if self.is_cut_off() {
                return ChannelEvent::CutOff;
            }
            if self.socket.is_some() {
                self.exchange().await;
            } else {
                self.dial().await;
            }
        }
    }

    fn is_cut_off(&self) -> bool {
        self.away_since
            .is_some_and(|since| since.elapsed() >= self.options.idle_limit)
    }

    fn cut_off_at(&self) -> Option<Instant> {
        self.away_since.map(|since| since + self.options.idle_limit)
    }

    async fn exchange(&mut self) {
        let now = self.clock.now();
        if self.staged.is_none() {
            self.staged = self
                .outbox
                .pop_front()
                .or_else(|| self.link.poll_transmit(now));
        }
        let timer = self.timer.set(self.link.deadline(), now.monotonic);
        let timer = timer.map(|at| self.clock.instant(at));
        let timer = [timer, self.cut_off_at()].into_iter().flatten().min();
        let Some(socket) = self.socket.as_mut() else {
            return;
        };
        let event = tokio::select! {
            biased;
            event = socket.event(self.staged.is_some()) => event,
            () = until(timer) => return,
        };
        match event {
            SocketEvent::Binary(bytes) => self.receive(bytes),
            SocketEvent::Writable => self.transmit(),
            SocketEvent::Gone(reason) => self.lost(&reason),
        }
    }

    fn transmit(&mut self) {
        let now = self.clock.now();
        let mut room = BATCH;
        while room > 0 {
            let next = self.staged.take().or_else(|| self.link.poll_transmit(now));
            let (Some(frame), Some(socket)) = (next, self.socket.as_mut()) else {
                return;
            };
            room = room.saturating_sub(frame.len());
            if let Err(reason) = socket.push_binary(frame) {
                return self.lost(&reason);
            }
        }
    }

    fn receive(&mut self, bytes: Bytes) {
        let frame = match Frame::parse(bytes) {
            Ok(frame) => frame,
            Err(error) => return tracing::debug!(%error, "ignored what is no frame"),
        };
        match self.link.receive(frame, self.clock.now()) {
            Received::ChannelClosed(_) => self.events.push_back(ChannelEvent::Closed),
            Received::Features(answer) => {
                if let Some(ticket) = answer.ticket {
                    self.options.token = ticket;
                }
                self.features = answer.features;
                if self.away_since.take().is_some() {
                    self.back_since = Instant::now();
                }
                self.backoff.reset();
                self.events.push_back(ChannelEvent::Features);
            }
            Received::Ignored(why) => tracing::debug!(?why, "ignored a frame"),
            _ => {}
        }
    }

    fn lost(&mut self, reason: &str) {
        tracing::info!(reason, "the data channel broke");
        self.socket = None;
        self.staged = None;
        self.link.disconnected();
        self.away_since.get_or_insert_with(Instant::now);
    }

    async fn dial(&mut self) {
        if self.dialing.is_none() {
            let wait = self.backoff.next_wait();
            let (dialer, path) = (self.dialer.clone(), self.path());
            self.dialing = Some(Box::pin(async move {
                tokio::time::sleep(wait).await;
                dialer.websocket(&path, &[]).await
            }));
        }
        let cut_off = self.cut_off_at();
        let Some(dialing) = self.dialing.as_mut() else {
            return;
        };
        let dialled = tokio::select! {
            dialled = dialing => dialled,
            () = until(cut_off) => return,
        };
        self.dialing = None;
        match dialled {
            Ok(socket) => self.open(socket),
            Err(error) => {
                tracing::info!(error = chain(&error), "cannot open the data channel");
            }
        }
    }

    fn path(&self) -> String {
        format!(
            "/v1/data-channel/{}?role=publish_subscribe",
            self.options.session_id
        )
    }

    fn open(&mut self, mut socket: Socket) {
        let open = OpenNode {
            message_schema_version: "1.0".into(),
            request_id: Uuid::new_v4().to_string(),
            token: self.options.token.clone(),
            client_instance_id: self.options.node_id.to_string(),
            client_id: String::new(),
            sortie: Some(SortieOpen::announcing(env!("CARGO_PKG_VERSION"))),
        };
        let pushed = socket.push_text(open.to_text());
        self.socket = Some(socket);
        self.link.connected(self.clock.now());
        if let Err(reason) = pushed {
            return self.lost(&reason);
        }
        if !self.announced {
            self.announced = true;
            self.announce(SESSION_CONNECTED);
        }
    }

    fn announce(&mut self, state: &str) {
        let stamp = Stamp::new(Uuid::new_v4(), self.clock.now().wall);
        self.outbox.push_back(agent_session_state(
            stamp,
            self.options.session_id.as_str(),
            state,
        ));
    }

    /// Ends the channel: with `terminating` the server is told that all output was sent.
    pub(crate) async fn close(mut self, terminating: bool) {
        if terminating {
            self.announce(SESSION_TERMINATING);
        }
        let goodbye = async {
            let mut socket = self.socket.take()?;
            let last = self.staged.take().into_iter().chain(self.outbox.drain(..));
            for frame in last {
                socket.push_binary(frame).ok()?;
            }
            socket.close().await;
            Some(())
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

/// What is unacknowledged counts from `since`, and only up to when the server was last `heard`: what was
/// sent later may have gone into a dead websocket.
fn ignored(unacknowledged: Duration, since: Instant, heard: Instant, now: Instant) -> Duration {
    let begun = now
        .checked_sub(unacknowledged)
        .map_or(since, |at| at.max(since));
    heard.saturating_duration_since(begun)
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust;

    #[test]
    fn a_client_ignores_what_was_sent_only_while_the_server_is_heard() {
        let second = Duration::from_secs(1);
        let start = Instant::now() + 1000 * second;
        let at = |seconds: u32| start + seconds * second;
        let table = [
            // Unacknowledged, since, heard, now; the wait that counts.
            (12, at(0), at(20), at(20), 12),
            // The server was away until a moment ago.
            (60, at(58), at(60), at(60), 2),
            // The websocket is silent, so it may be dead.
            (30, at(0), at(31), at(60), 1),
            (30, at(0), at(10), at(60), 0),
            (0, at(0), at(60), at(60), 0),
        ];
        for (unacknowledged, since, heard, now, counts) in table {
            let ignored = ignored(unacknowledged * second, since, heard, now);
            assert_eq!(ignored, counts * second);
        }
    }

    /// A port where nobody listens: the listener is gone before it is used.
    fn nobody() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    #[tokio::test]
    async fn a_server_that_stays_away_for_the_idle_limit_ends_the_session() {
        let ca = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let tls = trust::client_config(Some(&ca.cert.pem())).unwrap();
        let dialer = Dialer::new(nobody().parse().unwrap(), tls);
        let idle_limit = Duration::from_millis(300);
        let options = ChannelOptions {
            session_id: "alice-0123456789abcdef0".parse().unwrap(),
            node_id: "mi-0123456789abcdef0".parse().unwrap(),
            token: Secret::new("SRT1.x"),
            idle_limit,
        };
        let begun = Instant::now();
        let mut channel = DataChannel::new(options, dialer);
        let ended = async {
            loop {
                match channel.event(true).await {
                    ChannelEvent::CutOff => return,
                    ChannelEvent::Room => {}
                    other => panic!("not expected: {other:?}"),
                }
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(20), ended)
                .await
                .is_ok()
        );
        assert!(begun.elapsed() >= idle_limit);
        assert!(!channel.is_connected());
    }
}
