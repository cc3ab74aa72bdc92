//! Streams towards an official agent: smux in the payloads of output messages, and what its rules mean
//! for a stream that ends one direction first.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use sortie_channel::{
    frame::{PayloadType, flag},
    smux::{Event, RECEIVE_LIMIT, Side, Smux},
};

use super::{
    OpenError,
    carrier::{LARGEST_OFFICIAL, SILENCE, Told},
};

/// Bytes of all streams that wait for the session. The protocol knows one queue only.
const QUEUE: usize = 512 << 10;

/// How often an agent that wants it is told that nothing was forgotten.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The client's end.
pub(super) struct Muxed {
    smux: Smux,
    /// Streams whose writers found the queue full.
    waiting: BTreeSet<u32>,
    /// Streams that have ended their direction, and when the other's was last heard.
    ending: BTreeMap<u32, Duration>,
    told: VecDeque<Told>,
    /// When the agent has to hear something.
    keep_alive: Option<Duration>,
}

impl Muxed {
    pub(super) fn new(keeps_alive: bool) -> Self {
        Self {
            smux: Smux::new(Side::Client),
            waiting: BTreeSet::new(),
            ending: BTreeMap::new(),
            told: VecDeque::new(),
            keep_alive: keeps_alive.then_some(KEEP_ALIVE),
        }
    }

    pub(super) fn open(&mut self) -> Result<u32, OpenError> {
        let id = self.smux.open().map_err(|_| OpenError::TooMany)?;
        // The agent never says that it has connected.
        self.told.push_back(Told::Accepted(id));
        Ok(id)
    }

    pub(super) fn room(&mut self, id: u32) -> usize {
        if self.ending.contains_key(&id) {
            return 0;
        }
        let room = QUEUE.saturating_sub(self.smux.queued());
        if room == 0 {
            self.waiting.insert(id);
        }
        room
    }

    pub(super) fn send(&mut self, id: u32, data: &[u8]) {
        self.smux.send(id, data);
    }

    pub(super) fn finish(&mut self, id: u32, now: Duration) {
        self.ending.entry(id).or_insert(now);
    }

    pub(super) fn reset(&mut self, id: u32) {
        self.ending.remove(&id);
        self.waiting.remove(&id);
        self.smux.close(id);
    }

    pub(super) fn consumed(&mut self, id: u32, bytes: usize) {
        self.smux.used(id, bytes);
    }

    pub(super) fn takes_more(&self) -> bool {
        self.smux.unread() < RECEIVE_LIMIT
    }

    pub(super) fn receive(
        &mut self,
        payload_type: PayloadType,
        payload: Bytes,
        now: Duration,
    ) -> Result<(), String> {
        match payload_type {
            PayloadType::OUTPUT => {
                let understood = self.smux.receive(payload);
                understood.map_err(|error| error.to_string())?;
            }
            PayloadType::FLAG if *payload == flag::CONNECT_TO_PORT_ERROR.to_be_bytes() => {
                self.told.push_back(Told::ConnectFailed);
            }
            _ => {}
        }
        while let Some(event) = self.smux.next_event() {
            match event {
                // Only clients open streams, and the machine knows it.
                Event::Opened(_) => {}
                Event::Data(id, data) => {
                    if let Some(heard) = self.ending.get_mut(&id) {
                        *heard = now;
                    }
                    self.told.push_back(Told::Data(id, data));
                }
                Event::Closed(id) => {
                    self.ending.remove(&id);
                    self.waiting.remove(&id);
                    self.told.push_back(Told::Closed(id));
                }
            }
        }
        Ok(())
    }

    pub(super) fn next_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    pub(super) fn has_message(&self) -> bool {
        self.smux.queued() > 0
    }

    pub(super) fn next_message(&mut self) -> Option<(PayloadType, Bytes)> {
        let payload = self.smux.take_outgoing(LARGEST_OFFICIAL)?;
        if self.smux.queued() < QUEUE {
            let waiting = std::mem::take(&mut self.waiting);
            self.told.extend(waiting.into_iter().map(Told::Writable));
        }
        Some((PayloadType::OUTPUT, payload))
    }

    pub(super) fn still_sending(&mut self, now: Duration) {
        for heard in self.ending.values_mut() {
            *heard = now;
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let silence = self.ending.values().min().map(|heard| *heard + SILENCE);
        silence.into_iter().chain(self.keep_alive).min()
    }

    pub(super) fn on_time(&mut self, now: Duration) {
        if let Some(due) = self.keep_alive.filter(|due| now >= *due) {
            self.smux.keep_alive();
            self.keep_alive = Some(due.max(now) + KEEP_ALIVE);
        }
        let is_over = |heard: &Duration| now >= *heard + SILENCE;
        let over: Vec<u32> = self
            .ending
            .iter()
            .filter(|(_, heard)| is_over(heard))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.reset(id);
            self.told.push_back(Told::Closed(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(muxed: &mut Muxed) -> Vec<String> {
        std::iter::from_fn(|| muxed.next_told())
            .map(|told| format!("{told:?}"))
            .collect()
    }

    fn sent(muxed: &mut Muxed) -> Vec<u8> {
        let mut sent = Vec::new();
        while let Some((payload_type, payload)) = muxed.next_message() {
            assert_eq!(payload_type, PayloadType::OUTPUT);
            assert!(payload.len() <= LARGEST_OFFICIAL);
            sent.extend_from_slice(&payload);
        }
        sent
    }

    #[test]
    fn an_answer_is_read_until_it_pauses_and_then_the_stream_is_closed() {
        let mut muxed = Muxed::new(false);
        let id = muxed.open().unwrap();
        muxed.send(id, b"question");
        muxed.finish(id, SECOND);
        assert_eq!(muxed.room(id), 0);
        assert_eq!(muxed.deadline(), Some(SECOND + SILENCE));
        let answer = [&[1, 2, 2, 0, 3, 0, 0, 0][..], b"42"].concat();
        muxed
            .receive(PayloadType::OUTPUT, answer.into(), SECOND + SILENCE / 2)
            .unwrap();
        muxed.on_time(SECOND + SILENCE);
        assert_eq!(told(&mut muxed), ["Accepted(3)", "Data(3, b\"42\")"]);
        muxed.consumed(id, 2);
        muxed.on_time(SECOND + SILENCE * 2);
        assert_eq!(told(&mut muxed), ["Closed(3)"]);
        assert!(sent(&mut muxed).ends_with(&[1, 1, 0, 0, 3, 0, 0, 0]));
    }

    #[test]
    fn silence_counts_from_when_all_was_sent() {
        let mut muxed = Muxed::new(false);
        let id = muxed.open().unwrap();
        muxed.send(id, b"much");
        muxed.finish(id, SECOND);
        muxed.still_sending(SECOND * 9);
        muxed.on_time(SECOND * 9);
        assert_eq!(told(&mut muxed), ["Accepted(3)"]);
        muxed.on_time(SECOND * 9 + SILENCE);
        assert_eq!(told(&mut muxed), ["Closed(3)"]);
    }

    #[test]
    fn a_full_queue_makes_writers_wait_and_calls_them_back() {
        let mut muxed = Muxed::new(false);
        let id = muxed.open().unwrap();
        told(&mut muxed);
        muxed.send(id, &vec![7; QUEUE]);
        assert_eq!(muxed.room(id), 0);
        assert!(sent(&mut muxed).len() > QUEUE);
        assert_eq!(told(&mut muxed), ["Writable(3)"]);
        assert!(muxed.room(id) > 0);
    }

    #[test]
    fn single_line_feeds_stay_what_they_are() {
        let mut muxed = Muxed::new(false);
        let id = muxed.open().unwrap();
        muxed.send(id, b"\n");
        assert!(sent(&mut muxed).ends_with(b"\n"));
    }

    #[test]
    fn an_old_agent_hears_something_every_so_often() {
        let mut muxed = Muxed::new(true);
        assert_eq!(muxed.deadline(), Some(KEEP_ALIVE));
        muxed.on_time(KEEP_ALIVE);
        assert_eq!(sent(&mut muxed), [1, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(muxed.deadline(), Some(KEEP_ALIVE * 2));
    }

    #[test]
    fn a_failed_connection_is_told_without_a_stream() {
        let mut muxed = Muxed::new(false);
        let failed = Bytes::from_static(&[0, 0, 0, 3]);
        muxed.receive(PayloadType::FLAG, failed, SECOND).unwrap();
        assert_eq!(told(&mut muxed), ["ConnectFailed"]);
        let unknown = Bytes::from_static(&[9, 0, 0, 0, 0, 0, 0, 0]);
        assert!(muxed.receive(PayloadType::OUTPUT, unknown, SECOND).is_err());
    }
}
