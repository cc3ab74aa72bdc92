//! The reliability machine: what makes a session's two byte streams arrive whole and in order over
//! websockets that break.
//!
//! A [`Link`] is one end of one session and outlives its websockets. The owner feeds it received
//! frames, takes deliveries out, and after each change calls [`Link::poll_transmit`] until it gives
//! nothing more, and again at [`Link::deadline`]. It knows no socket and no clock, cuts no payload and
//! never fails: whatever a peer sends is tolerated within bounds and counted in [`Stats`].
//!
//! Towards official ends it keeps their rules: it acknowledges every message and every duplicate, a
//! client checks digests and a node does not, a node obeys pauses, and fewer messages are in flight
//! than an official client can hold.

mod pace;
mod receive;
mod rtt;
mod send;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use sortie_types::Now;
use uuid::Uuid;

use self::{
    receive::{Receiver, Taken},
    send::{Effect, Queued, Sender},
};
use crate::{
    body::{Acknowledge, AgentSessionState, Body, ChannelClosed, Features},
    features,
    frame::{FLAG_SYN, Frame, MessageType, NewFrame, PayloadType},
    random::Random,
    service::{self, Stamp},
    streams::payload,
};

/// How long a cumulative acknowledgement waits for something to go with. Alone it would be a message of
/// its own on both legs, in front of the echo of a key or of its way to the screen.
const ACK_DELAY: Duration = Duration::from_millis(2);

/// With so many bytes received, the acknowledgement waits for nothing.
const ACK_BYTES: usize = 128 << 10;

/// What a held message counts on top of its payload, so that many small ones are bounded too.
const OVERHEAD: usize = 256;

/// Acknowledgements that wait for the socket. One more is not queued; the peer will ask again.
const MAX_PENDING_ACKS: usize = 16_384;

/// With more received and not taken than this, a client acknowledges what an official node sends only
/// when it is taken.
const ACK_AT_ONCE: usize = 256 << 10;

/// Which end of the session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends `input_stream_data`, checks digests.
    Client,
    /// Sends `output_stream_data`, obeys pauses.
    Node,
}

impl Role {
    fn sends(self) -> MessageType {
        match self {
            Self::Client => MessageType::InputStreamData,
            Self::Node => MessageType::OutputStreamData,
        }
    }

    fn receives(self) -> MessageType {
        match self {
            Self::Client => MessageType::OutputStreamData,
            Self::Node => MessageType::InputStreamData,
        }
    }
}

/// How a link is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which end this is.
    pub role: Role,
    /// Bytes queued and unacknowledged, at most.
    pub send_limit: usize,
    /// Bytes received and not taken, at most. One message beyond it is held where the stream could
    /// not go on otherwise.
    pub receive_limit: usize,
    /// Where message ids come from.
    pub seed: [u8; 16],
    /// Whether to hold stream messages until the gateway has said what both ends can do. For an end
    /// that has announced itself.
    pub wait_for_features: bool,
}

impl Options {
    /// The default limits: 1 MiB to send, 4 MiB received, 8 MiB as a client. The gateway pauses an
    /// official node when its client has not acknowledged 4 MiB, and until then everything must have room
    /// there: such a node sends what was refused again at ten messages a second.
    #[must_use]
    pub fn new(role: Role, seed: [u8; 16]) -> Self {
        let receive_limit = match role {
            Role::Client => 8 << 20,
            Role::Node => 4 << 20,
        };
        Self {
            role,
            send_limit: 1 << 20,
            receive_limit,
            seed,
            wait_for_features: false,
        }
    }
}

/// The send queue has no room for this payload now. It has after [`Link::writable`] has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("send queue is full")]
pub struct Full;

/// One message of the stream, in its turn.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it is.
    pub payload_type: PayloadType,
    /// Its bytes, sharing the received frame's memory.
    pub payload: Bytes,
}

/// Shows no payload: these are terminal bytes.
impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("payload_type", &self.payload_type)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// What a received frame was.
#[derive(Clone, Debug)]
pub enum Received {
    /// A stream message that was accepted: there may be deliveries to take.
    Stream,
    /// An acknowledgement: there may be room to send.
    Acknowledged,
    /// The session is over. Empty when the body could not be read: it is over all the same.
    ChannelClosed(ChannelClosed),
    /// The gateway asked to stop publishing. A client does not care.
    Paused,
    /// The gateway asked to publish.
    Started,
    /// The gateway named the common features; they hold from now on. The ticket is the owner's.
    Features(Features),
    /// A node's state; only a gateway should ever see one.
    SessionState(AgentSessionState),
    /// Nothing came of it.
    Ignored(Ignored),
}

/// Why nothing came of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// A stream message that had arrived before; it is acknowledged again.
    Duplicate,
    /// No room to hold it; not acknowledged, the peer sends it again.
    NoRoom,
    /// A stream number that cannot be.
    AbsurdNumber,
    /// The payload is not the one that was digested.
    WrongDigest,
    /// A stream message of this end's own kind.
    WrongDirection,
    /// The body could not be read.
    UnreadableBody,
    /// A type that has no meaning here.
    UnknownType,
    /// An acknowledgement of something acknowledged before.
    StaleAcknowledgement,
    /// An acknowledgement of something never sent.
    UnknownAcknowledgement,
}

/// What a link has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages sent again.
    pub resent: u64,
    /// Stream messages that had arrived before.
    pub duplicates: u64,
    /// Stream messages not accepted for want of room.
    pub no_room: u64,
    /// Frames that made no sense: absurd numbers, wrong digests, unreadable bodies and the like.
    pub nonsense: u64,
}

/// One end of a session's reliable channel.
pub struct Link {
    role: Role,
    random: Random,
    sender: Sender,
    receiver: Receiver,
    acks: Acks,
    no_digest: bool,
    cumulative_ack: bool,
    is_connected: bool,
    waits_for_features: bool,
    is_paused: bool,
    last_acknowledged: Duration,
    stats: Stats,
}

/// Acknowledgements that go out before anything else.
#[derive(Default)]
struct Acks {
    each: VecDeque<(i64, Uuid)>,
    /// Where the peer takes cumulative ones: the message that the next one names as its cause.
    up_to_expected: Option<Uuid>,
    /// Whether that one also says that there is room again.
    room_again: bool,
    /// When that one goes at the latest; at once when there is none.
    due: Option<Duration>,
    /// Bytes that it speaks for.
    bytes: usize,
}

impl Acks {
    /// Notes that the peer is to hear of a message, which may wait until `due`.
    fn later(&mut self, message_id: Uuid, bytes: usize, due: Duration) {
        let is_first = self.up_to_expected.is_none();
        self.bytes = self.bytes.saturating_add(bytes);
        if is_first {
            self.due = Some(due);
        }
        if self.bytes >= ACK_BYTES {
            self.due = None;
        }
        self.up_to_expected = Some(message_id);
    }

    /// Notes that the peer is to hear of a message at once.
    fn now(&mut self, message_id: Uuid) {
        self.due = None;
        self.up_to_expected = Some(message_id);
    }

    /// The message that the cumulative one names, if it goes now.
    fn take(&mut self, now: Duration, has_company: bool) -> Option<Uuid> {
        if !has_company && self.due.is_some_and(|due| due > now) {
            return None;
        }
        self.bytes = 0;
        self.due = None;
        self.up_to_expected.take()
    }
}

impl Link {
    /// A link at the beginning of a session, connected.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            role: options.role,
            random: Random::new(options.seed),
            sender: Sender::new(options.send_limit),
            receiver: Receiver::new(options.receive_limit),
            acks: Acks::default(),
            no_digest: false,
            cumulative_ack: false,
            is_connected: true,
            waits_for_features: options.wait_for_features,
            is_paused: false,
            last_acknowledged: Duration::ZERO,
            stats: Stats::default(),
        }
    }

    /// What both ends can do from now on. Called by [`Self::receive`] for a `sortie_features` frame; for
    /// an owner that knows it otherwise.
    pub fn set_features(&mut self, features: &[String]) {
        let has = |name: &str| features.iter().any(|feature| feature == name);
        let needed_digest = !self.no_digest;
        self.no_digest = has(features::NO_DIGEST);
        self.cumulative_ack = has(features::CUMULATIVE_ACK);
        self.waits_for_features = false;
        if !needed_digest && !self.no_digest {
            self.sender.add_digests();
        }
    }

    /// Has [`Self::writable`] follow from now on what the way takes, up to 4 MiB: for an owner who chooses
    /// late what to send, so that what is chosen does not wait behind what was.
    pub fn pace(&mut self, now: Now) {
        self.sender.pace(now.monotonic);
    }

    /// Payload bytes that one [`Self::send`] takes now.
    #[must_use]
    pub fn writable(&self) -> usize {
        self.sender.writable()
    }

    /// Payload bytes that one message should have at most, for an owner who chooses late what to send.
    #[must_use]
    pub fn portion(&self) -> usize {
        self.sender.portion()
    }

    /// Whether there is room now for a message that is worth its header; with [`Self::pace`] that is more
    /// than a byte.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.sender.has_room()
    }

    /// Queues one stream message. When nothing is held any size is taken; an empty payload is nothing
    /// to send, since no official end does so.
    pub fn send(
        &mut self,
        payload_type: PayloadType,
        payload: Bytes,
        _now: Now,
    ) -> Result<(), Full> {
        if payload.is_empty() {
            return Ok(());
        }
        let fits = payload.len() <= self.sender.writable() || self.sender.is_empty();
        if !fits || u32::try_from(payload.len()).is_err() {
            return Err(Full);
        }
        self.sender.queue(Queued {
            payload_type,
            payload,
        });
        Ok(())
    }

    /// Takes a frame from the websocket.
    pub fn receive(&mut self, frame: Frame, now: Now) -> Received {
        let received = self.dispatch(&frame, now);
        match &received {
            Received::Ignored(Ignored::Duplicate) => self.stats.duplicates += 1,
            Received::Ignored(Ignored::NoRoom) => self.stats.no_room += 1,
            Received::Ignored(Ignored::StaleAcknowledgement) => {}
            Received::Ignored(_) => self.stats.nonsense += 1,
            _ => {}
        }
        received
    }

    fn dispatch(&mut self, frame: &Frame, now: Now) -> Received {
        match frame.message_type() {
            MessageType::InputStreamData | MessageType::OutputStreamData => {
                self.receive_stream(frame, now)
            }
            MessageType::Acknowledge => self.receive_acknowledge(frame, now),
            MessageType::ChannelClosed => {
                Received::ChannelClosed(ChannelClosed::parse(&frame.payload()).unwrap_or_default())
            }
            MessageType::PausePublication => {
                self.is_paused = self.role == Role::Node;
                Received::Paused
            }
            MessageType::StartPublication => {
                self.is_paused = false;
                Received::Started
            }
            MessageType::SortieFeatures => match Features::parse(&frame.payload()) {
                Ok(features) => {
                    self.set_features(&features.features);
                    Received::Features(features)
                }
                Err(_) => Received::Ignored(Ignored::UnreadableBody),
            },
            MessageType::AgentSessionState => match AgentSessionState::parse(&frame.payload()) {
                Ok(state) => Received::SessionState(state),
                Err(_) => Received::Ignored(Ignored::UnreadableBody),
            },
            _ => Received::Ignored(Ignored::UnknownType),
        }
    }

    fn receive_stream(&mut self, frame: &Frame, now: Now) -> Received {
        if *frame.message_type() != self.role.receives() {
            return Received::Ignored(Ignored::WrongDirection);
        }
        self.is_paused = false;
        let number = frame.sequence_number();
        let judged = self.receiver.judge(number, frame.payload().len());
        // Hashing comes last: a duplicate or a message without room is not worth it.
        let checks_digest = self.role == Role::Client && !self.no_digest;
        if matches!(judged, Taken::InOrder | Taken::Early)
            && checks_digest
            && !frame.digest_passes_client()
        {
            return Received::Ignored(Ignored::WrongDigest);
        }
        let delivery = Delivery {
            payload_type: frame.payload_type(),
            payload: frame.payload(),
        };
        let owed = self.owes_acks().then(|| frame.message_id());
        // What is neither typed nor shown is mostly what somebody waits for, such as the last message.
        let may_wait = self.cumulative_ack && is_carried(delivery.payload_type);
        let length = delivery.payload.len();
        match self.receiver.take(number, delivery, owed) {
            Taken::InOrder if owed.is_some() => Received::Stream,
            Taken::InOrder if may_wait => {
                let due = now.monotonic + ACK_DELAY;
                self.acks.later(frame.message_id(), length, due);
                Received::Stream
            }
            Taken::InOrder | Taken::Early => {
                self.queue_ack(number, frame.message_id());
                Received::Stream
            }
            Taken::Duplicate if self.receiver.owes(number) => Received::Ignored(Ignored::Duplicate),
            Taken::Duplicate => {
                self.queue_ack(number, frame.message_id());
                Received::Ignored(Ignored::Duplicate)
            }
            Taken::NoRoom => {
                self.acks.due = None;
                Received::Ignored(Ignored::NoRoom)
            }
            Taken::Absurd => Received::Ignored(Ignored::AbsurdNumber),
        }
    }

    /// Whether messages are acknowledged when they are taken rather than when they arrive. An official
    /// node knows no window, but the gateway pauses it when its client does not acknowledge.
    fn owes_acks(&self) -> bool {
        self.role == Role::Client
            && !self.cumulative_ack
            && self.receiver.held_bytes() >= ACK_AT_ONCE
    }

    fn queue_ack(&mut self, number: i64, message_id: Uuid) {
        if self.cumulative_ack && number < self.receiver.expected() {
            self.acks.now(message_id);
        } else if self.acks.each.len() < MAX_PENDING_ACKS {
            // Something is missing: the peer is to know where this end stands.
            self.acks.due = None;
            self.acks.each.push_back((number, message_id));
        }
    }

    fn receive_acknowledge(&mut self, frame: &Frame, now: Now) -> Received {
        let Ok(body) = Acknowledge::parse(&frame.payload()) else {
            return Received::Ignored(Ignored::UnreadableBody);
        };
        self.is_paused = false;
        let cumulative = self.cumulative_ack && body.cumulative == Some(true);
        let effect = self
            .sender
            .acknowledge(body.sequence_number, cumulative, now.monotonic);
        if cumulative && body.room_again == Some(true) {
            self.sender.receiver_has_room(now.monotonic);
        }
        match effect {
            Effect::Progress => {
                self.last_acknowledged = now.monotonic;
                Received::Acknowledged
            }
            Effect::Nothing => Received::Ignored(Ignored::StaleAcknowledgement),
            Effect::Unknown => Received::Ignored(Ignored::UnknownAcknowledgement),
        }
    }

    /// The next message of the stream. Taking it frees room for more.
    pub fn next_delivery(&mut self) -> Option<Delivery> {
        let (delivery, owed) = self.receiver.next()?;
        if let Some((number, message_id)) = owed {
            self.queue_ack(number, message_id);
        }
        if self.cumulative_ack && self.receiver.has_room_again() {
            self.acks.now(self.random.uuid());
            self.acks.room_again = true;
        }
        Some(delivery)
    }

    /// The next frame for the websocket: acknowledgements first, then what goes again, then new
    /// messages. `None`: nothing now; ask again after any other call and at [`Self::deadline`].
    pub fn poll_transmit(&mut self, now: Now) -> Option<Bytes> {
        if !self.is_connected {
            return None;
        }
        if let Some(ack) = self.next_ack(now) {
            return Some(ack);
        }
        if !self.may_publish() {
            return None;
        }
        self.sender
            .take_resend(now.monotonic)
            .or_else(|| self.next_new(now))
    }

    fn may_publish(&self) -> bool {
        self.is_connected && !self.waits_for_features && !self.is_paused
    }

    fn next_ack(&mut self, now: Now) -> Option<Bytes> {
        let stamp = |random: &mut Random| Stamp::new(random.uuid(), now.wall);
        let receives = self.role.receives();
        let has_company = self.may_publish() && self.sender.has_new();
        if let Some(message_id) = self.acks.take(now.monotonic, has_company) {
            let number = self.receiver.expected().saturating_sub(1);
            let stamp = stamp(&mut self.random);
            let room_again = std::mem::take(&mut self.acks.room_again);
            return Some(service::acknowledge_up_to(
                stamp, &receives, message_id, number, room_again,
            ));
        }
        let (number, message_id) = self.acks.each.pop_front()?;
        Some(service::acknowledge(
            stamp(&mut self.random),
            &receives,
            message_id,
            number,
        ))
    }

    fn next_new(&mut self, now: Now) -> Option<Bytes> {
        let queued = self.sender.take_new()?;
        let number = self.sender.next_number();
        // Official agents set the bit on their first message, official clients do not.
        let is_first_output = self.role == Role::Node && number == 0;
        let frame = NewFrame {
            message_type: self.role.sends(),
            sequence_number: number,
            flags: if is_first_output { FLAG_SYN } else { 0 },
            message_id: self.random.uuid(),
            payload_type: queued.payload_type,
            payload: &queued.payload,
            created: now.wall,
            digest: !self.no_digest,
        };
        // `send` took no empty and no over-long payload, and the type is ours.
        let bytes = frame.encode().ok()?;
        let cost = queued.payload.len() + OVERHEAD;
        self.sender
            .sent(bytes.clone(), cost, !self.no_digest, now.monotonic);
        Some(bytes)
    }

    /// When to call [`Self::poll_transmit`] again though nothing happened, on the monotonic clock.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let resend = self.may_publish().then(|| self.sender.deadline()).flatten();
        let is_ack_waiting = self.is_connected && self.acks.up_to_expected.is_some();
        let ack = self.acks.due.filter(|_| is_ack_waiting);
        resend.into_iter().chain(ack).min()
    }

    /// The websocket is gone. Nothing is handed out until [`Self::connected`].
    pub fn disconnected(&mut self) {
        self.is_connected = false;
    }

    /// There is a new websocket, and its open message was sent. Everything unacknowledged goes again,
    /// in order, and a pause is over.
    pub fn connected(&mut self, now: Now) {
        self.is_connected = true;
        self.is_paused = false;
        self.sender.reconnected(now.monotonic);
        if self.cumulative_ack && self.receiver.expected() > 0 {
            self.acks.now(self.random.uuid());
        }
    }

    /// Whether all that was sent has been acknowledged.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.sender.is_empty()
    }

    /// Whether the gateway has asked to stop publishing. The owner should stop reading its source.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.is_paused
    }

    /// For how long the peer has acknowledged nothing though something waits for it. `None` when nothing
    /// waits.
    #[must_use]
    pub fn unacknowledged_for(&self, now: Now) -> Option<Duration> {
        let since = self.sender.unacknowledged_since(self.last_acknowledged)?;
        Some(now.monotonic.saturating_sub(since))
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            resent: self.sender.resends,
            ..self.stats
        }
    }

    /// Bytes held to be sent or acknowledged, and bytes held to be taken.
    #[must_use]
    pub fn held_bytes(&self) -> (usize, usize) {
        (self.sender.held_bytes(), self.receiver.held_bytes())
    }
}

/// Whether a message carries what people and programs say to each other, to which an answer may come.
fn is_carried(payload_type: PayloadType) -> bool {
    matches!(
        payload_type,
        PayloadType::OUTPUT | PayloadType::STDERR | payload::DATA
    )
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("role", &self.role)
            .field("held_bytes", &self.held_bytes())
            .field("next_number", &self.sender.next_number())
            .field("expected", &self.receiver.expected())
            .field("is_connected", &self.is_connected)
            .field("is_paused", &self.is_paused)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
