//! Multiplexing for official clients, as a [`Multiplexer`].

use std::collections::VecDeque;

use bytes::Bytes;
use sortie_channel::{
    frame::{PayloadType, flag},
    smux::{Event, RECEIVE_LIMIT, Side, Smux},
    streams::{Destination, Refusal, TooManyStreams},
};

use super::hub::{Happened, Multiplexer};

/// What waits to be sent, of all streams together, before sockets are no longer read.
const QUEUE: usize = 256 << 10;
/// Answers that may wait on top of that before the client has to wait too.
const ANSWERS: usize = 1 << 20;
/// The most in one message. Official clients take any size, and this one nearly as fast as any.
const LARGEST_MESSAGE: usize = 64 << 10;
/// The most that is taken in one message; official clients send 1024 bytes.
const LARGEST_TAKEN: usize = 1 << 20;

/// The node's end.
pub(super) struct OfficialMux {
    smux: Smux,
    /// Messages beside the multiplexed bytes. They go first.
    flags: VecDeque<u32>,
    was_full: bool,
    has_room_again: bool,
    keeps_alive: bool,
}

impl OfficialMux {
    /// `keeps_alive`: whether the client ends a session in which it hears nothing.
    pub(super) fn new(keeps_alive: bool) -> Self {
        Self {
            smux: Smux::new(Side::Node),
            flags: VecDeque::new(),
            was_full: false,
            has_room_again: false,
            keeps_alive,
        }
    }
}

impl Multiplexer for OfficialMux {
    const HALF_CLOSE: bool = false;

    fn receive(&mut self, payload_type: PayloadType, payload: Bytes) -> Result<(), String> {
        if payload_type != PayloadType::OUTPUT {
            return Ok(());
        }
        if payload.len() > LARGEST_TAKEN {
            return Err("the client sent a message that is too large".to_owned());
        }
        self.smux
            .receive(payload)
            .map_err(|error| error.to_string())
    }

    fn next_happened(&mut self) -> Option<Happened> {
        if std::mem::take(&mut self.has_room_again) {
            return Some(Happened::AllWritable);
        }
        Some(match self.smux.next_event()? {
            Event::Opened(id) => Happened::Open(id, Destination::default()),
            Event::Data(id, data) => Happened::Data(id, data),
            Event::Closed(id) => Happened::Finished(id),
        })
    }

    fn next_message(&mut self, limit: usize) -> Option<(PayloadType, Bytes)> {
        if let Some(flag) = self.flags.pop_front() {
            return Some((
                PayloadType::FLAG,
                Bytes::copy_from_slice(&flag.to_be_bytes()),
            ));
        }
        let bytes = self.smux.take_outgoing(limit.min(LARGEST_MESSAGE))?;
        if self.was_full && self.smux.queued() < QUEUE {
            self.was_full = false;
            self.has_room_again = true;
        }
        Some((PayloadType::OUTPUT, bytes))
    }

    fn has_message(&self) -> bool {
        !self.flags.is_empty() || self.smux.queued() > 0
    }

    fn count(&self) -> usize {
        self.smux.streams()
    }

    fn takes_input(&self) -> bool {
        self.smux.unread() < RECEIVE_LIMIT && self.smux.queued() < QUEUE + ANSWERS
    }

    fn open(&mut self) -> Result<u32, TooManyStreams> {
        // Official clients accept none.
        Err(TooManyStreams)
    }

    /// The client has taken its connection for accepted all along.
    fn accept(&mut self, _id: u32) {}

    fn refuse(&mut self, id: u32, refusal: Refusal) {
        tracing::info!(%refusal, "a connection was not made");
        // One is enough to tell; the client prints the same words for each.
        if self.flags.is_empty() {
            self.flags.push_back(flag::CONNECT_TO_PORT_ERROR);
        }
        self.smux.close(id);
    }

    fn room(&mut self, _id: u32) -> usize {
        let room = QUEUE.saturating_sub(self.smux.queued());
        self.was_full |= room == 0;
        room
    }

    fn send(&mut self, id: u32, data: Bytes) {
        self.smux.send(id, &data);
    }

    fn finish(&mut self, id: u32) {
        self.smux.close(id);
    }

    fn reset(&mut self, id: u32) {
        self.smux.close(id);
    }

    fn consumed(&mut self, id: u32, bytes: usize) {
        self.smux.used(id, bytes);
    }

    fn keep_alive(&mut self) {
        if self.keeps_alive {
            self.smux.keep_alive();
        }
    }
}
