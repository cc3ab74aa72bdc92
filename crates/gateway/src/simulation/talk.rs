//! What the two people of a session say: a stream of bytes in each direction, and the judge of what
//! of it was heard.

use std::time::Duration;

use bytes::Bytes;

use super::dice::Dice;

/// One direction of a session.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    spoken: Vec<u8>,
    heard: usize,
}

impl Transcript {
    /// The next `length` bytes to send.
    pub(super) fn speak(&mut self, length: usize, dice: &mut Dice) -> Bytes {
        let begin = self.spoken.len();
        while self.spoken.len() < begin + length {
            self.spoken.extend_from_slice(&dice.next().to_le_bytes());
        }
        self.spoken.truncate(begin + length);
        Bytes::copy_from_slice(&self.spoken[begin..])
    }

    /// What the other end received next.
    pub(super) fn hear(&mut self, payload: &[u8]) {
        let rest = &self.spoken[self.heard..];
        assert!(
            rest.starts_with(payload),
            "{} bytes at {} of {} are not those that were sent: lost, doubled or out of order",
            payload.len(),
            self.heard,
            self.spoken.len()
        );
        self.heard += payload.len();
    }

    pub(super) fn is_heard(&self) -> bool {
        self.heard == self.spoken.len()
    }

    pub(super) fn heard(&self) -> usize {
        self.heard
    }

    pub(super) fn spoken(&self) -> usize {
        self.spoken.len()
    }
}

/// How somebody talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Typing,
    Answers,
    Pieces,
    Rarely,
}

/// When somebody says how much.
#[derive(Debug)]
pub(super) struct Speech {
    manner: Manner,
    until: Duration,
    next_at: Duration,
    flood_at: Option<Duration>,
    /// Bytes to say now.
    due: usize,
}

impl Speech {
    pub(super) fn new(until: Duration, dice: &mut Dice) -> Self {
        let manner = match dice.below(4) {
            0 => Manner::Typing,
            1 => Manner::Answers,
            2 => Manner::Pieces,
            _ => Manner::Rarely,
        };
        let flood_at = dice
            .one_in(6)
            .then(|| Duration::from_micros(dice.below(until.as_micros().try_into().unwrap_or(1))));
        Self {
            manner,
            until,
            next_at: dice.millis(1, 900),
            flood_at,
            due: 0,
        }
    }

    /// How many bytes wait to be said.
    pub(super) fn due(&mut self, now: Duration, flood: u64, dice: &mut Dice) -> usize {
        while self.next_at <= now && self.next_at < self.until {
            let (bytes, pause) = match self.manner {
                Manner::Typing => (dice.between(1, 3), dice.millis(30, 1500)),
                Manner::Answers => (dice.between(1, 3000), dice.millis(100, 5000)),
                Manner::Pieces => (dice.between(900, 1100), dice.millis(5, 2000)),
                Manner::Rarely => (dice.between(1, 200), dice.millis(500, 20_000)),
            };
            self.due += usize::try_from(bytes).unwrap_or(0);
            // What could not be said for long is not made up for all at once.
            self.next_at = (self.next_at + pause).max(now);
        }
        if self.flood_at.is_some_and(|at| at <= now) {
            self.flood_at = None;
            self.due += usize::try_from(dice.between(flood / 8, flood)).unwrap_or(0);
        }
        self.due
    }

    pub(super) fn said(&mut self, length: usize) {
        self.due -= length;
    }

    /// Something more to say, at the end.
    pub(super) fn add(&mut self, length: usize) {
        self.due += length;
    }

    pub(super) fn is_over(&self) -> bool {
        self.next_at >= self.until && self.due == 0 && self.flood_at.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let next = Some(self.next_at.min(self.until));
        [next, self.flood_at].into_iter().flatten().min()
    }
}
