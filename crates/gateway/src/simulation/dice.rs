//! Numbers from a seed, and the record of what a run did with them.

use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.between(least * 1000, most * 1000))
    }
}

/// What happened in a run, as one number; and in words when it is being looked at.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    is_shown: bool,
}

impl Trace {
    pub(super) fn new(is_shown: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            is_shown,
        }
    }

    /// Notes that `what` happened, with the number that tells it from others of its kind.
    pub(super) fn note(&mut self, now: Duration, what: &str, number: u64) {
        let time = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        for part in [time, number] {
            self.mix(&part.to_le_bytes());
        }
        self.mix(what.as_bytes());
        if self.is_shown {
            eprintln!("{:>12.6} {what} {number}", now.as_secs_f64());
        }
    }

    /// FNV-1a.
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}
