//! How much may be under way so that nothing waits longer than it must.
//!
//! A session that carries files and keystrokes together chooses late what goes next, but what is under
//! way has been chosen. So the window follows what the way takes: the measured rate times twice the
//! least round trip, and as much again as passes in [`SLACK`]. More would only make the queues before
//! the slowest part longer. Less than [`LEAST_TIME`] is worth would have the ends wait for each other:
//! acknowledgements are put together, and programs take turns on the processors.

use std::{collections::VecDeque, time::Duration};

/// Where a window begins, before anything is known of the way.
const FIRST_WINDOW: usize = 64 << 10;
/// How much time's worth of data may wait somewhere on the way.
const SLACK: Duration = Duration::from_micros(300);
/// A window is worth at least so much time, on a way that is not fast.
const LEAST_TIME: Duration = Duration::from_millis(8);
/// The least window on the slowest way and on a fast one.
const LEAST_WINDOWS: (usize, usize) = (48 << 10, 448 << 10);
/// How long a rate is measured at least.
const MEASURE: Duration = Duration::from_millis(10);
/// The median of so many measurements counts.
const MEASUREMENTS: usize = 4;
/// The least and the most that one message should hold.
const PORTIONS: (usize, usize) = (4 << 10, LARGEST_PORTION);

/// The most that one message should hold: enough that a message costs little for each byte, no more than
/// passes within a fraction of a millisecond, and with its header less than the 128 KiB from which on
/// glibc's allocator may give buffers back to the system and take fresh pages for the next.
pub(super) const LARGEST_PORTION: usize = 112 << 10;

#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    rates: VecDeque<u64>,
    since: Duration,
    delivered: u64,
    /// The window was what held the sender back all the while.
    was_full: bool,
    window: usize,
    most: usize,
}

impl Pace {
    /// A window that never becomes larger than `most`.
    pub(super) fn new(most: usize, now: Duration) -> Self {
        Self {
            rates: VecDeque::new(),
            since: now,
            delivered: 0,
            was_full: false,
            window: FIRST_WINDOW.min(most),
            most,
        }
    }

    /// A new connection may take another way.
    pub(super) fn restart(&mut self, now: Duration) {
        *self = Self::new(self.most, now);
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// What one message should hold: others wait while it passes.
    pub(super) fn portion(&self) -> usize {
        (self.window / 4).clamp(PORTIONS.0, PORTIONS.1)
    }

    /// So many bytes were acknowledged; `held` were under way before. `least`: the least round trip, when
    /// there was one.
    pub(super) fn acknowledged(
        &mut self,
        bytes: usize,
        held: usize,
        least: Option<Duration>,
        now: Duration,
    ) {
        self.delivered = self.delivered.saturating_add(bytes as u64);
        // The last quarter may be waiting for a message to be worth its header.
        self.was_full |= held >= self.window / 4 * 3;
        let Some(least) = least else {
            return;
        };
        let elapsed = now.saturating_sub(self.since);
        if elapsed < MEASURE.max(least) {
            return;
        }
        let micros = u64::try_from(elapsed.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = self.delivered.saturating_mul(1_000_000) / micros;
        let (was_full, known) = (self.was_full, self.rate());
        (self.since, self.delivered, self.was_full) = (now, 0, false);
        // Who had little to send has learnt nothing of the way.
        if was_full || rate > known {
            self.rates.push_back(rate);
            if self.rates.len() > MEASUREMENTS {
                self.rates.pop_front();
            }
            self.window = self.wanted(least);
        }
    }

    /// The way as it is at present: neither its best moment nor its worst.
    fn rate(&self) -> u64 {
        let mut rates: Vec<u64> = self.rates.iter().copied().collect();
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied().unwrap_or(0)
    }

    fn wanted(&self, least: Duration) -> usize {
        let passes_in = |time: Duration| {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let bytes = self.rate().saturating_mul(micros) / 1_000_000;
            usize::try_from(bytes).unwrap_or(usize::MAX)
        };
        let floor = passes_in(LEAST_TIME).clamp(LEAST_WINDOWS.0, LEAST_WINDOWS.1);
        passes_in(2 * least + SLACK).max(floor).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way that takes `rate` bytes a second and `least` for a round trip, kept full for so long.
    /// The window at the end, how long a byte was then under way, and when the window first was as large.
    fn fill(rate: u64, least: Duration) -> (usize, Duration, Duration) {
        let mut pace = Pace::new(4 << 20, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut round_trip = least;
        let mut widest = (0, now);
        while now < Duration::from_secs(20) {
            let queueing = Duration::from_secs_f64(pace.window() as f64 / rate as f64);
            round_trip = least.max(queueing);
            let message = pace.portion();
            now += round_trip.mul_f64(message as f64 / pace.window() as f64);
            pace.acknowledged(message, pace.window(), Some(least), now);
            if pace.window() > widest.0 {
                widest = (pace.window(), now);
            }
        }
        (pace.window(), round_trip, widest.1)
    }

    #[test]
    fn a_long_way_is_filled_soon() {
        let (window, _, after) = fill(1 << 40, Duration::from_millis(80));
        assert_eq!(window, 4 << 20);
        assert!(after < Duration::from_secs(2), "{after:?}");
    }

    #[test]
    fn a_fast_way_is_not_clogged() {
        let (window, round_trip, after) = fill(600 << 20, Duration::from_micros(200));
        assert!((448 << 10..512 << 10).contains(&window), "{window}");
        assert!(round_trip < Duration::from_millis(1), "{round_trip:?}");
        assert!(after < Duration::from_millis(100), "{after:?}");
    }

    #[test]
    fn on_a_slow_way_little_waits_and_messages_are_small() {
        // 10 Mbit/s: a window of 448 KiB would be a third of a second.
        let (window, round_trip, _) = fill(1_250_000, Duration::from_millis(20));
        assert!((48 << 10..64 << 10).contains(&window), "{window}");
        assert!(round_trip < Duration::from_millis(50), "{round_trip:?}");
        let mut pace = Pace::new(4 << 20, Duration::ZERO);
        pace.window = window;
        assert_eq!(pace.portion(), window / 4);
    }

    #[test]
    fn a_pause_teaches_nothing() {
        let mut pace = Pace::new(4 << 20, Duration::ZERO);
        let least = Some(Duration::from_millis(1));
        for step in 1..200 {
            pace.acknowledged(4 << 20, 4 << 20, least, Duration::from_millis(20 * step));
        }
        let window = pace.window();
        assert!(window > FIRST_WINDOW);
        for step in 1..200 {
            pace.acknowledged(100, 100, least, Duration::from_secs(10 + step));
        }
        assert_eq!(pace.window(), window);
    }
}
