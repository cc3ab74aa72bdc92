//! How long an acknowledgement takes, and how long to wait for one.
//!
//! Gains and the initial values are those of the official ends. The floor of the timeout is higher
//! than theirs (they add at least 10 ms to the round trip): the websocket below loses nothing while it
//! lives, so a resend helps only against a receiver that did not take a message.

use std::time::Duration;

const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);
const TIMEOUT_MIN: Duration = Duration::from_millis(200);
/// A full window on a slow leg takes seconds to be acknowledged, and that is no loss.
const TIMEOUT_MAX: Duration = Duration::from_secs(15);
/// Doubling stops here: a receiver that begins to take messages again is noticed soon, and one that
/// stands still for an hour is not buried in copies on the way to it.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After so many doublings the receiver is taken to stand still.
const STALLED_AFTER: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
    doublings: u32,
    least: Option<Duration>,
}

impl RoundTrip {
    pub(super) fn new() -> Self {
        Self {
            smoothed: INITIAL_ROUND_TRIP,
            variation: Duration::ZERO,
            doublings: 0,
            least: None,
        }
    }

    /// Takes the time from sending to acknowledgement of a message that was sent only once.
    pub(super) fn sample(&mut self, sample: Duration) {
        let difference = sample.abs_diff(self.smoothed);
        self.variation = self.variation * 3 / 4 + difference / 4;
        self.smoothed = self.smoothed * 7 / 8 + sample / 8;
        self.least = self
            .least
            .map_or(Some(sample), |least| Some(least.min(sample)));
    }

    /// The shortest on this connection: the way when nothing waits on it.
    pub(super) fn least(&self) -> Option<Duration> {
        self.least
    }

    /// A new connection may take another way.
    pub(super) fn forget_least(&mut self) {
        self.least = None;
    }

    pub(super) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// By how much messages may overtake each other without one being taken for lost.
    pub(super) fn reordering(&self) -> Duration {
        (self.smoothed / 4).max(Duration::from_millis(10))
    }

    /// The timeout without backoff.
    pub(super) fn timeout(&self) -> Duration {
        (self.smoothed + self.variation * 4).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }

    /// The timeout after so many that passed without effect.
    pub(super) fn backed_off(&self) -> Duration {
        let timeout = self.timeout();
        (timeout * (1 << self.doublings.min(10))).min(timeout.max(BACKOFF_MAX))
    }

    /// Whether timeout after timeout passed without an answer.
    pub(super) fn is_stalled(&self) -> bool {
        self.doublings >= STALLED_AFTER
    }

    pub(super) fn back_off(&mut self) {
        self.doublings = self.doublings.saturating_add(1);
    }

    pub(super) fn forget_backoff(&mut self) {
        self.doublings = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_round_trip_between_its_bounds() {
        let mut round_trip = RoundTrip::new();
        assert_eq!(round_trip.timeout(), TIMEOUT_MIN);
        for _ in 0..100 {
            round_trip.sample(Duration::from_secs(1));
        }
        assert!(
            (Duration::from_secs(1)..Duration::from_millis(1200)).contains(&round_trip.timeout())
        );
        for _ in 0..100 {
            round_trip.sample(Duration::from_secs(3600));
        }
        assert_eq!(round_trip.timeout(), TIMEOUT_MAX);
    }

    #[test]
    fn backing_off_doubles_up_to_a_bound_and_progress_ends_it() {
        let mut round_trip = RoundTrip::new();
        round_trip.back_off();
        assert_eq!(round_trip.backed_off(), 2 * TIMEOUT_MIN);
        for _ in 0..100 {
            round_trip.back_off();
        }
        assert_eq!(round_trip.backed_off(), BACKOFF_MAX);
        round_trip.forget_backoff();
        assert_eq!(round_trip.backed_off(), TIMEOUT_MIN);
    }
}
