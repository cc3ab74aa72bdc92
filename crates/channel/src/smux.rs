//! Multiplexing of port connections as the official pair does it: smux version 1, without IO.
//!
//! The payloads of a session's stream messages are one byte stream in each direction, and this machine
//! is one end of it: bytes go in and events come out, and what to send is taken in pieces of any size.
//! It keeps the rules of the official ends: no window for each stream, no half-close (an end of one
//! direction is the end of the stream), data for unknown streams is skipped, and a wrong version or
//! command is the end of everything.
//!
//! There is no flow control inside: whoever owns the machine stops feeding it while too much of what
//! came out is not used up ([`Smux::unread`]), and stops queueing while too much waits
//! ([`Smux::queued`]). Both then hold back all streams together, as the protocol does.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const HEADER_LEN: usize = 8;
/// The most data that official ends put into one frame.
const MAX_SENT: usize = 32_768;
/// What official ends hold unread before they stop reading.
pub const RECEIVE_LIMIT: usize = 4 << 20;
/// Streams at a time, at most: the official accept backlog.
pub const MAX_STREAMS: usize = 1024;
/// The first stream of a client; the next ones are two apart.
const FIRST_ID: u32 = 3;

/// Which end this is. Only the client opens streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Listens for local connections.
    Client,
    /// Dials the destination.
    Node,
}

/// What came from the other end.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// The client opened a stream.
    Opened(u32),
    /// Bytes of a stream, in order. Counted as unread until [`Smux::used`] says otherwise.
    Data(u32, Bytes),
    /// The other end closed a stream: nothing more comes, and nothing more is taken.
    Closed(u32),
}

/// Shows no data.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opened(id) => write!(f, "Opened({id})"),
            Self::Data(id, data) => write!(f, "Data({id}, {} bytes)", data.len()),
            Self::Closed(id) => write!(f, "Closed({id})"),
        }
    }
}

/// Why the other end is not understood. The session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmuxError {
    /// A command that version 1 does not have.
    #[error("multiplexing command {0} is not known")]
    Command(u8),
    /// Another version of the protocol.
    #[error("multiplexing version {0} is not supported")]
    Version(u8),
}

/// There is no room for another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_STREAMS} connections are open already")]
pub struct TooManyStreams;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Syn,
    Fin,
    Psh,
    Nop,
}

impl Command {
    fn parse(byte: u8) -> Result<Self, SmuxError> {
        match byte {
            0 => Ok(Self::Syn),
            1 => Ok(Self::Fin),
            2 => Ok(Self::Psh),
            3 => Ok(Self::Nop),
            other => Err(SmuxError::Command(other)),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Syn => 0,
            Self::Fin => 1,
            Self::Psh => 2,
            Self::Nop => 3,
        }
    }
}

/// A frame whose header was read and whose data is on its way.
#[derive(Clone, Copy)]
struct Pending {
    stream: u32,
    left: usize,
}

/// One end.
pub struct Smux {
    side: Side,
    next_id: u32,
    /// The last id that a client has opened.
    last_theirs: u32,
    /// Streams that are open at this end, with what is unread of each.
    streams: BTreeMap<u32, usize>,
    /// Streams that the other end closed and that are not used up yet.
    draining: BTreeMap<u32, usize>,
    /// The beginning of a header.
    header: BytesMut,
    /// The data of the frame that is being read.
    pending: Option<Pending>,
    events: VecDeque<Event>,
    unread: usize,
    outgoing: VecDeque<Bytes>,
    queued: usize,
}

impl Smux {
    /// An end without streams.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            side,
            next_id: FIRST_ID,
            last_theirs: 0,
            streams: BTreeMap::new(),
            draining: BTreeMap::new(),
            header: BytesMut::with_capacity(HEADER_LEN),
            pending: None,
            events: VecDeque::new(),
            unread: 0,
            outgoing: VecDeque::new(),
            queued: 0,
        }
    }

    /// Opens a stream. Only a client does.
    ///
    /// # Errors
    /// When as many as there may be are open.
    pub fn open(&mut self) -> Result<u32, TooManyStreams> {
        if self.streams.len() >= MAX_STREAMS {
            return Err(TooManyStreams);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(2);
        self.streams.insert(id, 0);
        self.queue_frame(Command::Syn, id, &[]);
        Ok(id)
    }

    /// Queues bytes of a stream. Those of a stream that is closed are dropped, as the other end would.
    pub fn send(&mut self, id: u32, data: &[u8]) {
        if !self.streams.contains_key(&id) {
            return;
        }
        for piece in data.chunks(MAX_SENT) {
            self.queue_frame(Command::Psh, id, piece);
        }
    }

    /// Closes a stream in both directions, behind what was queued. What is unread of it is dropped.
    pub fn close(&mut self, id: u32) {
        if let Some(unread) = self.streams.remove(&id) {
            self.unread -= unread;
            self.queue_frame(Command::Fin, id, &[]);
        }
        if let Some(unread) = self.draining.remove(&id) {
            self.unread -= unread;
        }
    }

    /// Says that nothing was forgotten: an end that keeps watch hears it.
    pub fn keep_alive(&mut self) {
        self.queue_frame(Command::Nop, 0, &[]);
    }

    /// Takes bytes of the other end.
    ///
    /// # Errors
    /// When they cannot be understood; nothing can be from then on.
    pub fn receive(&mut self, mut bytes: Bytes) -> Result<(), SmuxError> {
        while !bytes.is_empty() {
            match self.pending.take() {
                Some(pending) => self.take_data(pending, &mut bytes),
                None => self.take_header(&mut bytes)?,
            }
        }
        Ok(())
    }

    /// What came, in order.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Says that bytes of a stream are used up.
    pub fn used(&mut self, id: u32, bytes: usize) {
        let (streams, draining) = (&mut self.streams, &mut self.draining);
        let Some(unread) = streams.get_mut(&id).or_else(|| draining.get_mut(&id)) else {
            return;
        };
        let bytes = bytes.min(*unread);
        *unread -= bytes;
        self.unread -= bytes;
        if draining.get(&id) == Some(&0) {
            draining.remove(&id);
        }
    }

    /// Bytes that came and are not used up.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How many streams are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The next bytes to send, at most `limit`. Frames are not aligned with what is taken.
    pub fn take_outgoing(&mut self, limit: usize) -> Option<Bytes> {
        let first = self.outgoing.front()?;
        let taken = if first.len() >= limit {
            self.take_front(limit)
        } else {
            let mut taken = BytesMut::with_capacity(limit.min(self.queued));
            while let Some(front) = self.outgoing.front() {
                let room = limit - taken.len();
                let part = front.len().min(room);
                if part == 0 {
                    break;
                }
                let part = self.take_front(part);
                taken.extend_from_slice(&part);
            }
            taken.freeze()
        };
        self.queued -= taken.len();
        (!taken.is_empty()).then_some(taken)
    }

    fn take_front(&mut self, length: usize) -> Bytes {
        let Some(front) = self.outgoing.front_mut() else {
            return Bytes::new();
        };
        let taken = front.split_to(length.min(front.len()));
        if front.is_empty() {
            self.outgoing.pop_front();
        }
        taken
    }

    fn queue_frame(&mut self, command: Command, id: u32, data: &[u8]) {
        // Callers cut data to what a frame may have.
        let Ok(length) = u16::try_from(data.len()) else {
            return;
        };
        let mut frame = BytesMut::with_capacity(HEADER_LEN + data.len());
        frame.put_u8(VERSION);
        frame.put_u8(command.byte());
        frame.put_u16_le(length);
        frame.put_u32_le(id);
        frame.put_slice(data);
        self.queued += frame.len();
        self.outgoing.push_back(frame.freeze());
    }

    fn take_header(&mut self, bytes: &mut Bytes) -> Result<(), SmuxError> {
        let missing = HEADER_LEN - self.header.len();
        let part = bytes.split_to(missing.min(bytes.len()));
        self.header.extend_from_slice(&part);
        if self.header.len() < HEADER_LEN {
            return Ok(());
        }
        let mut header = self.header.split().freeze();
        let version = header.get_u8();
        if version != VERSION {
            return Err(SmuxError::Version(version));
        }
        let command = Command::parse(header.get_u8())?;
        let left = usize::from(header.get_u16_le());
        let stream = header.get_u32_le();
        self.take_command(command, stream)?;
        // Official ends send data with PSH alone; what others carry is skipped like that of strangers.
        let stream = if command == Command::Psh { stream } else { 0 };
        self.pending = (left > 0).then_some(Pending { stream, left });
        Ok(())
    }

    fn take_command(&mut self, command: Command, id: u32) -> Result<(), SmuxError> {
        match command {
            Command::Syn => {
                self.take_syn(id);
                Ok(())
            }
            Command::Fin => {
                if let Some(unread) = self.streams.remove(&id) {
                    if unread > 0 {
                        self.draining.insert(id, unread);
                    }
                    // The official end waits for ours before it forgets the stream.
                    self.queue_frame(Command::Fin, id, &[]);
                    self.events.push_back(Event::Closed(id));
                }
                Ok(())
            }
            Command::Psh | Command::Nop => Ok(()),
        }
    }

    fn take_syn(&mut self, id: u32) {
        // Clients give ids in ascending order, each once.
        if self.side == Side::Client || id <= self.last_theirs {
            return;
        }
        self.last_theirs = id;
        if self.streams.len() + self.draining.len() >= MAX_STREAMS {
            // Closed as it is opened; the others go on.
            self.queue_frame(Command::Fin, id, &[]);
            return;
        }
        self.streams.insert(id, 0);
        self.events.push_back(Event::Opened(id));
    }

    fn take_data(&mut self, mut pending: Pending, bytes: &mut Bytes) {
        let part = bytes.split_to(pending.left.min(bytes.len()));
        pending.left -= part.len();
        if let Some(unread) = self.streams.get_mut(&pending.stream) {
            *unread += part.len();
            self.unread += part.len();
            self.events.push_back(Event::Data(pending.stream, part));
        }
        self.pending = (pending.left > 0).then_some(pending);
    }
}

impl std::fmt::Debug for Smux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smux")
            .field("side", &self.side)
            .field("streams", &self.streams.len())
            .field("unread", &self.unread)
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all_events(smux: &mut Smux) -> Vec<Event> {
        std::iter::from_fn(|| smux.next_event()).collect()
    }

    fn bytes(smux: &mut Smux) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(part) = smux.take_outgoing(1024) {
            assert!(part.len() <= 1024);
            all.extend_from_slice(&part);
        }
        assert_eq!(smux.queued(), 0);
        all
    }

    #[test]
    fn frames_are_those_of_the_official_pair() {
        let mut client = Smux::new(Side::Client);
        assert_eq!(client.open(), Ok(3));
        client.send(3, b"hi");
        client.close(3);
        assert_eq!(client.open(), Ok(5));
        client.keep_alive();
        assert_eq!(
            bytes(&mut client),
            [
                &[1, 0, 0, 0, 3, 0, 0, 0][..],
                &[1, 2, 2, 0, 3, 0, 0, 0, b'h', b'i'],
                &[1, 1, 0, 0, 3, 0, 0, 0],
                &[1, 0, 0, 0, 5, 0, 0, 0],
                &[1, 3, 0, 0, 0, 0, 0, 0],
            ]
            .concat()
        );
    }

    #[test]
    fn an_end_of_one_direction_is_the_end_of_the_stream_and_is_answered() {
        let mut node = Smux::new(Side::Node);
        node.receive(Bytes::from_static(&[
            1, 0, 0, 0, 3, 0, 0, 0, 1, 2, 1, 0, 3, 0, 0, 0, 9,
        ]))
        .unwrap();
        assert_eq!(node.unread(), 1);
        node.receive(Bytes::from_static(&[1, 1, 0, 0, 3, 0, 0, 0]))
            .unwrap();
        assert_eq!(
            all_events(&mut node),
            [
                Event::Opened(3),
                Event::Data(3, Bytes::from_static(&[9])),
                Event::Closed(3)
            ]
        );
        assert_eq!((node.unread(), node.streams()), (1, 0));
        node.used(3, 1);
        assert_eq!(node.unread(), 0);
        assert_eq!(bytes(&mut node), [1, 1, 0, 0, 3, 0, 0, 0]);
        // What comes for it later is skipped, and so is what is sent.
        node.send(3, b"late");
        node.receive(Bytes::from_static(&[1, 2, 1, 0, 3, 0, 0, 0, 9]))
            .unwrap();
        assert_eq!(all_events(&mut node), []);
        assert_eq!(node.queued(), 0);
    }

    #[test]
    fn what_the_protocol_does_not_have_is_the_end() {
        let told = |bytes: &'static [u8]| Smux::new(Side::Node).receive(Bytes::from_static(bytes));
        assert_eq!(told(&[2, 0, 0, 0, 3, 0, 0, 0]), Err(SmuxError::Version(2)));
        assert_eq!(told(&[1, 4, 0, 0, 3, 0, 0, 0]), Err(SmuxError::Command(4)));
    }

    #[test]
    fn streams_are_bounded_on_both_sides() {
        let mut client = Smux::new(Side::Client);
        let mut node = Smux::new(Side::Node);
        for _ in 0..MAX_STREAMS {
            client.open().unwrap();
        }
        assert_eq!(client.open(), Err(TooManyStreams));
        node.receive(bytes(&mut client).into()).unwrap();
        assert_eq!(node.streams(), MAX_STREAMS);
        while node.next_event().is_some() {}
        let one_more = Bytes::from_static(&[1, 0, 0, 0, 1, 1, 1, 1]);
        node.receive(one_more).unwrap();
        assert_eq!(node.next_event(), None);
        assert_eq!(bytes(&mut node), [1, 1, 0, 0, 1, 1, 1, 1]);
        assert_eq!(node.streams(), MAX_STREAMS);
    }

    proptest! {
        /// However the byte stream is cut, what comes out of the streams is what went in.
        #[test]
        fn cuts_change_nothing(
            sends in proptest::collection::vec((0_usize..4, proptest::collection::vec(any::<u8>(), 0..100_000)), 1..12),
            cuts in proptest::collection::vec(1_usize..3000, 1..50),
        ) {
            let mut client = Smux::new(Side::Client);
            let mut node = Smux::new(Side::Node);
            let ids: Vec<u32> = (0..4).map(|_| client.open().unwrap()).collect();
            let mut sent = BTreeMap::<u32, Vec<u8>>::new();
            for (which, data) in &sends {
                client.send(ids[*which], data);
                sent.entry(ids[*which]).or_default().extend(data);
            }
            let mut got = BTreeMap::<u32, Vec<u8>>::new();
            let mut cuts = cuts.iter().cycle();
            while let Some(part) = client.take_outgoing(*cuts.next().unwrap()) {
                node.receive(part).unwrap();
                while let Some(event) = node.next_event() {
                    if let Event::Data(id, data) = event {
                        node.used(id, data.len());
                        got.entry(id).or_default().extend_from_slice(&data);
                    }
                }
            }
            sent.retain(|_, data| !data.is_empty());
            prop_assert_eq!(got, sent);
            prop_assert_eq!(node.unread(), 0);
        }

        #[test]
        fn strangers_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut node = Smux::new(Side::Node);
            let _ = node.receive(bytes.into());
            while node.next_event().is_some() {}
        }
    }
}
