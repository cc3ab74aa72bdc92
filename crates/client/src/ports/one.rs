//! One connection at a time: the payloads of output messages are its bytes. Raw sessions of official
//! agents and forwarding by the first of them are so.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use sortie_channel::frame::{PayloadType, flag};

use super::{
    OpenError,
    carrier::{LARGEST_OFFICIAL, SILENCE, Told},
};

/// Bytes that wait for the session.
const QUEUE: usize = 512 << 10;
/// Bytes that came and are not consumed, beyond which no more is taken.
const RECEIVE_LIMIT: usize = 4 << 20;

/// The client's end.
pub(super) struct One {
    /// The agent connects anew for the next connection; else it is the only one.
    is_forwarding: bool,
    /// The id of the connection, while it is open.
    open: Option<u32>,
    last_id: u32,
    /// What came before there was a connection here.
    early: VecDeque<Bytes>,
    unconsumed: usize,
    queue: VecDeque<(PayloadType, Bytes)>,
    queued: usize,
    is_full: bool,
    /// When the other direction was last heard, once this one is over.
    ending: Option<Duration>,
    told: VecDeque<Told>,
}

impl One {
    pub(super) fn new(is_forwarding: bool) -> Self {
        Self {
            is_forwarding,
            open: None,
            last_id: 0,
            early: VecDeque::new(),
            unconsumed: 0,
            queue: VecDeque::new(),
            queued: 0,
            is_full: false,
            ending: None,
            told: VecDeque::new(),
        }
    }

    pub(super) fn open(&mut self) -> Result<u32, OpenError> {
        let is_used_up = self.last_id > 0 && !self.is_forwarding;
        if self.open.is_some() || is_used_up {
            return Err(OpenError::TooMany);
        }
        self.last_id += 1;
        let id = self.last_id;
        self.open = Some(id);
        self.told.push_back(Told::Accepted(id));
        let early = std::mem::take(&mut self.early);
        self.told
            .extend(early.into_iter().map(|data| Told::Data(id, data)));
        Ok(id)
    }

    pub(super) fn room(&mut self, id: u32) -> usize {
        if self.open != Some(id) || self.ending.is_some() {
            return 0;
        }
        let room = QUEUE.saturating_sub(self.queued);
        self.is_full = room == 0;
        room
    }

    pub(super) fn send(&mut self, id: u32, data: Bytes) {
        if self.open == Some(id) && !data.is_empty() {
            self.queued += data.len();
            self.queue.push_back((PayloadType::OUTPUT, data));
        }
    }

    pub(super) fn finish(&mut self, id: u32, now: Duration) {
        if self.open == Some(id) {
            self.ending.get_or_insert(now);
        }
    }

    pub(super) fn reset(&mut self, id: u32) {
        if self.open != Some(id) {
            return;
        }
        self.open = None;
        self.ending = None;
        self.unconsumed = 0;
        // A raw session ends as a whole.
        if self.is_forwarding {
            let disconnect = flag::DISCONNECT_TO_PORT.to_be_bytes();
            let disconnect = Bytes::copy_from_slice(&disconnect);
            self.queue.push_back((PayloadType::FLAG, disconnect));
        }
    }

    pub(super) fn consumed(&mut self, id: u32, bytes: usize) {
        if self.open == Some(id) {
            self.unconsumed = self.unconsumed.saturating_sub(bytes);
        }
    }

    pub(super) fn takes_more(&self) -> bool {
        self.unconsumed < RECEIVE_LIMIT
    }

    pub(super) fn receive(&mut self, payload_type: PayloadType, payload: Bytes, now: Duration) {
        match (payload_type, self.open) {
            (PayloadType::OUTPUT, Some(id)) => {
                if let Some(heard) = &mut self.ending {
                    *heard = now;
                }
                self.unconsumed += payload.len();
                self.told.push_back(Told::Data(id, payload));
            }
            // The agent connects by itself at first; later bytes belong to a connection that is gone.
            (PayloadType::OUTPUT, None) if self.last_id == 0 => {
                self.unconsumed += payload.len();
                self.early.push_back(payload);
            }
            (PayloadType::FLAG, _) if *payload == flag::CONNECT_TO_PORT_ERROR.to_be_bytes() => {
                self.told.push_back(Told::ConnectFailed);
            }
            _ => {}
        }
    }

    pub(super) fn next_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    pub(super) fn has_message(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What waits, joined to messages worth sending.
    pub(super) fn next_message(&mut self) -> Option<(PayloadType, Bytes)> {
        let (payload_type, first) = self.queue.pop_front()?;
        if payload_type != PayloadType::OUTPUT {
            return Some((payload_type, first));
        }
        let payload = self.join(first);
        self.queued -= payload.len();
        if std::mem::take(&mut self.is_full)
            && let Some(id) = self.open
        {
            self.told.push_back(Told::Writable(id));
        }
        Some((payload_type, payload))
    }

    fn join(&mut self, mut first: Bytes) -> Bytes {
        if first.len() >= LARGEST_OFFICIAL {
            let payload = first.split_to(LARGEST_OFFICIAL);
            if !first.is_empty() {
                self.queue.push_front((PayloadType::OUTPUT, first));
            }
            return payload;
        }
        let follows = |queue: &VecDeque<(PayloadType, Bytes)>, room: usize| {
            queue.front().is_some_and(|(payload_type, next)| {
                *payload_type == PayloadType::OUTPUT && next.len() <= room
            })
        };
        if !follows(&self.queue, LARGEST_OFFICIAL - first.len()) {
            return first;
        }
        let mut joined = BytesMut::from(first);
        while follows(&self.queue, LARGEST_OFFICIAL - joined.len()) {
            if let Some((_, next)) = self.queue.pop_front() {
                joined.extend_from_slice(&next);
            }
        }
        joined.freeze()
    }

    pub(super) fn still_sending(&mut self, now: Duration) {
        if let Some(heard) = &mut self.ending {
            *heard = now;
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.ending.map(|heard| heard + SILENCE)
    }

    pub(super) fn on_time(&mut self, now: Duration) {
        if let Some(id) = self.open
            && self.deadline().is_some_and(|due| now >= due)
        {
            self.reset(id);
            self.told.push_back(Told::Closed(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(one: &mut One) -> Vec<String> {
        std::iter::from_fn(|| one.next_told())
            .map(|told| format!("{told:?}"))
            .collect()
    }

    #[test]
    fn what_comes_before_the_connection_is_kept_for_it() {
        let mut one = One::new(false);
        one.receive(
            PayloadType::OUTPUT,
            Bytes::from_static(b"SSH-2.0"),
            Duration::ZERO,
        );
        assert_eq!(one.open(), Ok(1));
        assert_eq!(told(&mut one), ["Accepted(1)", "Data(1, b\"SSH-2.0\")"]);
        assert_eq!(one.open(), Err(OpenError::TooMany));
    }

    #[test]
    fn forwarding_tells_of_each_end_and_takes_the_next() {
        let mut one = One::new(true);
        assert_eq!(one.open(), Ok(1));
        one.send(1, Bytes::from_static(b"a"));
        one.send(1, Bytes::from_static(b"\n"));
        one.finish(1, SECOND);
        one.still_sending(SECOND * 2);
        one.on_time(SECOND + SILENCE);
        assert_eq!(told(&mut one), ["Accepted(1)"]);
        one.on_time(SECOND * 2 + SILENCE);
        assert_eq!(told(&mut one), ["Closed(1)"]);
        assert_eq!(
            one.next_message(),
            Some((PayloadType::OUTPUT, Bytes::from_static(b"a\n")))
        );
        assert_eq!(
            one.next_message(),
            Some((PayloadType::FLAG, Bytes::from_static(&[0, 0, 0, 1])))
        );
        one.receive(PayloadType::OUTPUT, Bytes::from_static(b"late"), SECOND);
        assert_eq!(one.open(), Ok(2));
        assert_eq!(told(&mut one), ["Accepted(2)"]);
    }

    #[test]
    fn a_raw_session_has_one_connection_and_no_flags() {
        let mut one = One::new(false);
        assert_eq!(one.open(), Ok(1));
        one.reset(1);
        assert_eq!(one.next_message(), None);
        assert_eq!(one.open(), Err(OpenError::TooMany));
    }

    #[test]
    fn much_is_cut_and_little_is_joined() {
        let mut one = One::new(true);
        assert_eq!(one.open(), Ok(1));
        one.send(1, Bytes::from(vec![1; LARGEST_OFFICIAL + 5]));
        one.send(1, Bytes::from(vec![2; 5]));
        let lengths: Vec<usize> = std::iter::from_fn(|| one.next_message())
            .map(|(_, payload)| payload.len())
            .collect();
        assert_eq!(lengths, [LARGEST_OFFICIAL, 10]);
    }
}
