//! How much may be under way so that nothing waits longer than it must.
//!
//! A session that carries files and keystrokes together chooses late what goes next, but what is under
//! way has been chosen. So the window follows what the way takes: the measured rate times twice the
//! least round trip, and as much again as passes in [`SLACK`]. More would only make the queues before
//! the slowest part longer.

use std::{collections::VecDeque, time::Duration};

/// Where a window begins, and the least that it becomes.
const LEAST_WINDOW: usize = 256 << 10;
/// How much time's worth of data may wait somewhere on the way.
const SLACK: Duration = Duration::from_micros(1500);
/// How long a rate is measured at least.
const MEASURE: Duration = Duration::from_millis(10);
/// The best of so many measurements counts.
const MEASUREMENTS: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct Pace {
    least_round_trip: Option<Duration>,
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
            least_round_trip: None,
            rates: VecDeque::new(),
            since: now,
            delivered: 0,
            was_full: false,
            window: LEAST_WINDOW.min(most),
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

    /// A message that was sent once took this long to be acknowledged.
    pub(super) fn sample(&mut self, round_trip: Duration) {
        let least = self
            .least_round_trip
            .map_or(round_trip, |least| least.min(round_trip));
        self.least_round_trip = Some(least);
    }

    /// So many bytes were acknowledged; `held` were under way before.
    pub(super) fn acknowledged(&mut self, bytes: usize, held: usize, now: Duration) {
        self.delivered = self.delivered.saturating_add(bytes as u64);
        // The last quarter may be waiting for a message to be worth its header.
        self.was_full |= held >= self.window / 4 * 3;
        let Some(least) = self.least_round_trip else {
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
        let (was_full, best) = (self.was_full, self.best_rate());
        (self.since, self.delivered, self.was_full) = (now, 0, false);
        // Who had little to send has learnt nothing of the way.
        if was_full || rate > best {
            self.rates.push_back(rate);
            if self.rates.len() > MEASUREMENTS {
                self.rates.pop_front();
            }
            self.window = self.wanted(least);
        }
    }

    fn best_rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or(0)
    }

    fn wanted(&self, least: Duration) -> usize {
        let time = u64::try_from((2 * least + SLACK).as_micros()).unwrap_or(u64::MAX);
        let wanted = self.best_rate().saturating_mul(time) / 1_000_000;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        wanted.max(LEAST_WINDOW).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way that takes `rate` bytes a second and `least` for a round trip, kept full for so long.
    /// The window at the end, and how long a byte was then under way.
    fn fill(rate: u64, least: Duration) -> (usize, Duration) {
        let mut pace = Pace::new(4 << 20, Duration::ZERO);
        let message = 64 << 10;
        let mut now = Duration::ZERO;
        let mut round_trip = least;
        while now < Duration::from_secs(20) {
            let queueing = Duration::from_secs_f64(pace.window() as f64 / rate as f64);
            round_trip = least.max(queueing);
            now += round_trip * u32::try_from(message).unwrap()
                / u32::try_from(pace.window()).unwrap();
            pace.sample(round_trip);
            pace.acknowledged(message, pace.window(), now);
        }
        (pace.window(), round_trip)
    }

    #[test]
    fn a_long_way_is_filled_and_a_short_one_not_clogged() {
        let (window, _) = fill(1 << 40, Duration::from_millis(80));
        assert_eq!(window, 4 << 20);
        let (window, round_trip) = fill(400 << 20, Duration::from_micros(200));
        assert!(window > 256 << 10, "{window}");
        assert!(round_trip < Duration::from_micros(5500), "{round_trip:?}");
        let (window, _) = fill(10 << 20, Duration::from_millis(20));
        assert!((256 << 10..1 << 20).contains(&window), "{window}");
    }

    #[test]
    fn a_pause_teaches_nothing() {
        let mut pace = Pace::new(4 << 20, Duration::ZERO);
        pace.sample(Duration::from_millis(1));
        for step in 1..200 {
            pace.acknowledged(4 << 20, 4 << 20, Duration::from_millis(20 * step));
        }
        let window = pace.window();
        assert!(window > LEAST_WINDOW);
        for step in 1..200 {
            pace.acknowledged(100, 100, Duration::from_secs(10 + step));
        }
        assert_eq!(pace.window(), window);
    }
}
