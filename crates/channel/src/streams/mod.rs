//! Many byte streams in one session, between our ends, without IO.
//!
//! Unlike the official multiplexing every stream has its own flow control: a sender has credit, and the
//! receiver gives more as its user consumes what came. So a reader that stops holds back its own sender
//! and nobody else. Each direction ends by itself (half-close), and either end may open streams.
//!
//! What goes out next is chosen when the session takes it, not when it is queued: first what keeps
//! streams going (open, credit and the like), then streams that have sent little since they were last
//! empty, then the others in turn. So a keystroke overtakes a file.
//!
//! The owner takes events out after each [`Streams::receive`], calls [`Streams::consumed`] for data that
//! it has passed on, and takes messages with [`Streams::next_message`] while its session has room.
//! Every queue is bounded: by [`Limits`] here, and by the credit that the other end was given.

mod queue;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

pub use self::queue::Queue;
pub use self::wire::{Destination, Message, MessageError, Refusal, RefusalCode, payload};
use crate::frame::PayloadType;

/// What either end may send on a new stream before the other has said anything.
pub const INITIAL_CREDIT: usize = 128 << 10;
/// The most that a stream's receiver lets be under way.
pub const LARGEST_WINDOW: usize = 4 << 20;
/// The most data in one message: more would keep others waiting, less would cost more for each byte.
pub const LARGEST_DATA: usize = 256 << 10;
/// A stream that has sent this much since its queue was last empty is bulk.
const INTERACTIVE: usize = 64 << 10;
/// So many messages of interactive streams may go before one of bulk.
const OVERTAKING: u32 = 16;
/// With more answers than this waiting the other end has to wait, too.
const ANSWERS: usize = 8192;

/// Which end this is. Clients give odd ids, nodes even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end of the person.
    Client,
    /// The node.
    Node,
}

/// The bounds of an end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams at a time.
    pub streams: usize,
    /// Bytes of one stream queued to be sent.
    pub queue: usize,
    /// By how much all windows together may grow beyond [`INITIAL_CREDIT`] each.
    pub growth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            queue: 512 << 10,
            growth: 32 << 20,
        }
    }
}

/// What came from the other end.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// It wants a stream: answer by [`Streams::accept`] or [`Streams::refuse`]. Data may come before.
    Open(u32, Destination),
    /// A stream of ours is connected.
    Accepted(u32),
    /// A stream of ours is not to be, and is forgotten.
    Refused(u32, Refusal),
    /// Bytes, in order; to be reported by [`Streams::consumed`].
    Data(u32, Bytes),
    /// Nothing more comes on a stream; what is sent still goes.
    Finished(u32),
    /// A stream is over in both directions, and forgotten.
    Reset(u32),
    /// There is room in the queue of a stream that was full.
    Writable(u32),
}

/// Shows no data.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(id, destination) => write!(f, "Open({id}, {destination:?})"),
            Self::Accepted(id) => write!(f, "Accepted({id})"),
            Self::Refused(id, refusal) => write!(f, "Refused({id}, {:?})", refusal.code),
            Self::Data(id, data) => write!(f, "Data({id}, {} bytes)", data.len()),
            Self::Finished(id) => write!(f, "Finished({id})"),
            Self::Reset(id) => write!(f, "Reset({id})"),
            Self::Writable(id) => write!(f, "Writable({id})"),
        }
    }
}

/// The other end broke the rules. The session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// More data than it had credit for.
    #[error("stream {0} was sent more than its window")]
    Credit(u32),
    /// A message that cannot be read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Data behind the end of a direction.
    #[error("stream {0} was sent data behind its end")]
    Finished(u32),
    /// An answer to a stream that this end has not asked for, or a second one.
    #[error("stream {0} was answered without being asked for")]
    Answer(u32),
    /// An id that this end gives, or one that was given before.
    #[error("stream {0} cannot be opened")]
    Id(u32),
    /// A stream that never was.
    #[error("stream {0} was never opened")]
    Unknown(u32),
}

/// As many streams as there may be are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections are open")]
pub struct TooManyStreams;

/// What one stream has to send.
#[derive(Default)]
struct Outgoing {
    queue: Queue,
    credit: usize,
    /// Sent since the queue was last empty.
    burst: usize,
    /// The owner has nothing more.
    finishing: bool,
    /// And FIN is sent.
    finished: bool,
    /// The owner was told that there is no room.
    was_full: bool,
    /// It waits in one of the two lines.
    in_line: bool,
}

/// What one stream was sent.
struct Incoming {
    /// What the other end may still send.
    window_left: usize,
    /// Came and is not consumed.
    unconsumed: usize,
    /// Consumed and not given back as credit yet.
    ungranted: usize,
    /// All that may be under way.
    window: usize,
    /// Consumed since the window last grew.
    since_growth: usize,
    finished: bool,
}

struct Stream {
    out: Outgoing,
    inc: Incoming,
    /// Of this end, and not answered yet.
    is_asked: bool,
}

impl Stream {
    fn new(is_asked: bool) -> Self {
        Self {
            is_asked,
            out: Outgoing {
                credit: INITIAL_CREDIT,
                ..Outgoing::default()
            },
            inc: Incoming {
                window_left: INITIAL_CREDIT,
                unconsumed: 0,
                ungranted: 0,
                window: INITIAL_CREDIT,
                since_growth: 0,
                finished: false,
            },
        }
    }

    fn can_send(&self) -> bool {
        let has_data = !self.out.queue.is_empty() && self.out.credit > 0;
        let has_end = self.out.queue.is_empty() && self.out.finishing && !self.out.finished;
        has_data || has_end
    }

    fn is_over(&self) -> bool {
        self.out.finished && self.inc.finished && self.inc.unconsumed == 0
    }
}

/// One end.
pub struct Streams {
    side: Side,
    limits: Limits,
    next_id: u32,
    /// The last id that the other end has opened.
    last_theirs: u32,
    streams: BTreeMap<u32, Stream>,
    events: VecDeque<Event>,
    /// Messages that go before all data.
    control: VecDeque<Message>,
    interactive: VecDeque<u32>,
    bulk: VecDeque<u32>,
    /// Messages of interactive streams since one of bulk went.
    overtaken: u32,
    /// By how much windows have grown, all together.
    grown: usize,
}

impl Streams {
    /// An end without streams.
    #[must_use]
    pub fn new(side: Side, limits: Limits) -> Self {
        Self {
            side,
            limits,
            next_id: match side {
                Side::Client => 1,
                Side::Node => 2,
            },
            last_theirs: 0,
            streams: BTreeMap::new(),
            events: VecDeque::new(),
            control: VecDeque::new(),
            interactive: VecDeque::new(),
            bulk: VecDeque::new(),
            overtaken: 0,
            grown: 0,
        }
    }

    /// Opens a stream. Data may be queued at once: it goes out behind the request.
    ///
    /// # Errors
    /// When as many as there may be are open.
    pub fn open(&mut self, destination: Destination) -> Result<u32, TooManyStreams> {
        if self.streams.len() >= self.limits.streams || self.next_id > u32::MAX - 2 {
            return Err(TooManyStreams);
        }
        let id = self.next_id;
        self.next_id += 2;
        self.streams.insert(id, Stream::new(true));
        self.control.push_back(Message::Open(id, destination));
        Ok(id)
    }

    /// Says that the destination of a stream of the other end is connected.
    pub fn accept(&mut self, id: u32) {
        if self.streams.contains_key(&id) {
            self.control.push_back(Message::Opened(id));
        }
    }

    /// Says that it is not, and why. The stream is forgotten.
    pub fn refuse(&mut self, id: u32, refusal: Refusal) {
        if self.remove(id) {
            self.control.push_back(Message::Refused(id, refusal));
        }
    }

    /// Bytes that the queue of a stream takes now. After less than was wanted,
    /// [`Event::Writable`] tells of room.
    pub fn room(&mut self, id: u32) -> usize {
        let limit = self.limits.queue;
        let Some(stream) = self.streams.get_mut(&id) else {
            return 0;
        };
        if stream.out.finishing {
            return 0;
        }
        let room = limit.saturating_sub(stream.out.queue.len());
        stream.out.was_full = room == 0;
        room
    }

    /// Queues bytes. More than there is [`Self::room`] for is taken once; of a stream that is over
    /// nothing is.
    pub fn send(&mut self, id: u32, data: Bytes) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if data.is_empty() || stream.out.finishing {
            return;
        }
        stream.out.queue.push(data);
        self.line_up(id);
    }

    /// Ends this direction, behind what was queued.
    pub fn finish(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.out.finishing = true;
            self.line_up(id);
        }
    }

    /// Ends a stream in both directions at once. What is queued is dropped.
    pub fn reset(&mut self, id: u32) {
        if self.remove(id) {
            self.control.push_back(Message::Reset(id));
        }
    }

    /// Says that data of a stream was passed on: the other end gets credit for as much.
    pub fn consumed(&mut self, id: u32, bytes: usize) {
        let growth_left = self.limits.growth.saturating_sub(self.grown);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let inc = &mut stream.inc;
        let bytes = bytes.min(inc.unconsumed);
        inc.unconsumed -= bytes;
        inc.ungranted += bytes;
        inc.since_growth += bytes;
        if !inc.finished {
            // A window that was used up twice is what keeps the sender waiting.
            if inc.since_growth >= 2 * inc.window {
                inc.since_growth = 0;
                let growth = inc.window.min(LARGEST_WINDOW - inc.window).min(growth_left);
                inc.window += growth;
                inc.ungranted += growth;
                self.grown += growth;
            }
            if inc.ungranted >= inc.window / 2 {
                let granted = std::mem::take(&mut inc.ungranted);
                inc.window_left += granted;
                let granted = u32::try_from(granted).unwrap_or(u32::MAX);
                self.control.push_back(Message::Credit(id, granted));
            }
        }
        self.forget_if_over(id);
    }

    /// Takes a stream message of the session.
    ///
    /// # Errors
    /// When the other end broke the rules: the session is over.
    pub fn receive(&mut self, payload_type: PayloadType, data: Bytes) -> Result<(), Violation> {
        match Message::parse(payload_type, data)? {
            Message::Open(id, destination) => self.take_open(id, destination),
            Message::Opened(id) => self.take_opened(id),
            Message::Refused(id, refusal) => self.take_refused(id, refusal),
            Message::Data(id, data) => self.take(id, |stream| take_data(id, &mut stream.inc, data)),
            Message::Fin(id) => {
                self.take(id, |stream| {
                    let first = !std::mem::replace(&mut stream.inc.finished, true);
                    Ok(first.then_some(Event::Finished(id)))
                })?;
                self.forget_if_over(id);
                Ok(())
            }
            Message::Reset(id) => {
                self.known(id)?;
                if self.remove(id) {
                    self.events.push_back(Event::Reset(id));
                }
                Ok(())
            }
            Message::Credit(id, bytes) => {
                self.take(id, |stream| {
                    let more = usize::try_from(bytes).unwrap_or(usize::MAX);
                    stream.out.credit = stream.out.credit.saturating_add(more);
                    Ok(None)
                })?;
                self.line_up(id);
                Ok(())
            }
        }
    }

    /// What came, in order.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether so many answers wait to be sent that nothing more should be given to [`Self::receive`].
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.control.len() >= ANSWERS
    }

    /// Whether [`Self::next_message`] has something.
    #[must_use]
    pub fn has_message(&self) -> bool {
        !self.control.is_empty() || !self.interactive.is_empty() || !self.bulk.is_empty()
    }

    /// How many streams there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.streams.len()
    }

    /// The next message of the session, of at most about `limit` bytes of data.
    pub fn next_message(&mut self, limit: usize) -> Option<(PayloadType, Bytes)> {
        if let Some(message) = self.control.pop_front() {
            return Some(message.encode());
        }
        let limit = limit.clamp(1, LARGEST_DATA);
        while let Some(id) = self.next_in_line() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.out.in_line = false;
            if !stream.can_send() {
                continue;
            }
            let message = take_message(id, &mut stream.out, limit);
            if stream.out.was_full && stream.out.queue.len() < self.limits.queue {
                stream.out.was_full = false;
                self.events.push_back(Event::Writable(id));
            }
            self.line_up(id);
            self.forget_if_over(id);
            return Some(message);
        }
        None
    }

    fn next_in_line(&mut self) -> Option<u32> {
        let bulk_is_due = self.overtaken >= OVERTAKING && !self.bulk.is_empty();
        if !bulk_is_due && let Some(id) = self.interactive.pop_front() {
            self.overtaken = self.overtaken.saturating_add(1);
            return Some(id);
        }
        self.overtaken = 0;
        self.bulk.pop_front()
    }

    fn line_up(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.out.in_line || !stream.can_send() {
            return;
        }
        stream.out.in_line = true;
        if stream.out.burst < INTERACTIVE {
            self.interactive.push_back(id);
        } else {
            self.bulk.push_back(id);
        }
    }

    fn is_ours(&self, id: u32) -> bool {
        match self.side {
            Side::Client => !id.is_multiple_of(2),
            Side::Node => id.is_multiple_of(2),
        }
    }

    fn take_open(&mut self, id: u32, destination: Destination) -> Result<(), Violation> {
        if self.is_ours(id) || id <= self.last_theirs {
            return Err(Violation::Id(id));
        }
        self.last_theirs = id;
        if self.streams.len() >= self.limits.streams {
            let refusal = Refusal {
                code: RefusalCode::Limit,
                message: TooManyStreams.to_string(),
            };
            self.control.push_back(Message::Refused(id, refusal));
            return Ok(());
        }
        self.streams.insert(id, Stream::new(false));
        self.events.push_back(Event::Open(id, destination));
        Ok(())
    }

    fn take_opened(&mut self, id: u32) -> Result<(), Violation> {
        let ours = self.is_ours(id);
        self.take(id, |stream| {
            if !ours || !std::mem::take(&mut stream.is_asked) {
                return Err(Violation::Answer(id));
            }
            Ok(Some(Event::Accepted(id)))
        })
    }

    /// The other end refuses a stream of ours, or somebody on the way has refused one of theirs in
    /// place of its request. That one is told to the end that asked, which has heard nothing of it yet.
    fn take_refused(&mut self, id: u32, refusal: Refusal) -> Result<(), Violation> {
        if !self.is_ours(id) && id > self.last_theirs {
            self.last_theirs = id;
            self.control.push_back(Message::Refused(id, refusal));
            return Ok(());
        }
        self.known(id)?;
        match self.streams.get(&id) {
            None => return Ok(()),
            Some(stream) if !stream.is_asked => return Err(Violation::Answer(id)),
            Some(_) => {}
        }
        self.remove(id);
        self.events.push_back(Event::Refused(id, refusal));
        Ok(())
    }

    /// A message for a stream that is over at this end only is late, and nothing else.
    fn take(
        &mut self,
        id: u32,
        change: impl FnOnce(&mut Stream) -> Result<Option<Event>, Violation>,
    ) -> Result<(), Violation> {
        self.known(id)?;
        if let Some(stream) = self.streams.get_mut(&id)
            && let Some(event) = change(stream)?
        {
            self.events.push_back(event);
        }
        Ok(())
    }

    fn known(&self, id: u32) -> Result<(), Violation> {
        let known = if self.is_ours(id) {
            id < self.next_id
        } else {
            id <= self.last_theirs
        };
        if known && id > 0 {
            Ok(())
        } else {
            Err(Violation::Unknown(id))
        }
    }

    fn forget_if_over(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.remove(&id) else {
            return false;
        };
        self.grown -= stream.inc.window - INITIAL_CREDIT;
        true
    }
}

fn take_data(id: u32, inc: &mut Incoming, data: Bytes) -> Result<Option<Event>, Violation> {
    if inc.finished {
        return Err(Violation::Finished(id));
    }
    let left = inc.window_left.checked_sub(data.len());
    inc.window_left = left.ok_or(Violation::Credit(id))?;
    inc.unconsumed += data.len();
    Ok((!data.is_empty()).then_some(Event::Data(id, data)))
}

/// Data within credit and limit, or the end.
fn take_message(id: u32, out: &mut Outgoing, limit: usize) -> (PayloadType, Bytes) {
    if out.queue.is_empty() {
        out.finished = true;
        return Message::Fin(id).encode();
    }
    let parts = out.queue.take_pieces(out.credit.min(limit));
    let length: usize = parts.iter().map(Bytes::len).sum();
    out.credit -= length;
    out.burst = if out.queue.is_empty() {
        0
    } else {
        out.burst.saturating_add(length)
    };
    (payload::DATA, wire::framed(id, &parts))
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("side", &self.side)
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}
