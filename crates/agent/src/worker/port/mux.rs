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

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(mux: &mut OfficialMux) -> Vec<(PayloadType, Bytes)> {
        std::iter::from_fn(|| mux.next_message(1 << 20)).collect()
    }

    #[test]
    fn only_clients_that_listen_for_it_hear_that_the_node_is_alive() {
        let nop = Bytes::from_static(&[1, 3, 0, 0, 0, 0, 0, 0]);
        for (listens, expected) in [(true, vec![(PayloadType::OUTPUT, nop)]), (false, vec![])] {
            let mut mux = OfficialMux::new(listens);
            mux.keep_alive();
            assert_eq!(messages(&mut mux), expected);
        }
    }

    #[test]
    fn a_refusal_is_told_before_the_stream_ends() {
        let mut mux = OfficialMux::new(false);
        let open = Bytes::from_static(&[1, 0, 0, 0, 3, 0, 0, 0]);
        mux.receive(PayloadType::OUTPUT, open).unwrap();
        assert!(matches!(mux.next_happened(), Some(Happened::Open(3, _))));
        let refusal = Refusal {
            code: sortie_channel::streams::RefusalCode::Refused,
            message: "nobody listens".to_owned(),
        };
        mux.refuse(3, refusal);
        let told = messages(&mut mux);
        assert_eq!(
            told[0],
            (PayloadType::FLAG, Bytes::from_static(&[0, 0, 0, 3]))
        );
        assert_eq!(told[1].1, Bytes::from_static(&[1, 1, 0, 0, 3, 0, 0, 0]));
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn sockets_are_not_read_while_much_waits_and_input_not_taken_while_much_is_unread() {
        let mut mux = OfficialMux::new(false);
        let open = Bytes::from_static(&[1, 0, 0, 0, 3, 0, 0, 0]);
        mux.receive(PayloadType::OUTPUT, open).unwrap();
        while mux.room(3) > 0 {
            mux.send(3, vec![0; 50_000].into());
        }
        assert!(mux.smux.queued() <= QUEUE + 60_000);
        while mux.has_room_again || mux.next_message(1 << 20).is_some() {
            if mux.has_room_again {
                assert!(mux.room(3) > 0);
                break;
            }
        }
        let mut frame = vec![1, 2, 0xff, 0xff, 3, 0, 0, 0];
        frame.resize(8 + 65_535, 0);
        let mut taken = 0;
        while mux.takes_input() {
            mux.receive(PayloadType::OUTPUT, frame.clone().into())
                .unwrap();
            taken += 1;
            assert!(taken < 1000, "it takes everything");
        }
        mux.consumed(3, 1 << 20);
        assert!(mux.takes_input());
    }
}
