//! How long to wait before trying again: at once or nearly so at first, then full jitter under a
//! doubling limit, without end.

use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is at most `first`, later ones are anything up to a bound that doubles from one
    /// second to `limit`.
    pub(crate) fn new(first: Duration, limit: Duration) -> Self {
        Self {
            first,
            limit,
            failures: 0,
        }
    }

    /// Begins again, after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether the attempt under way is the first after a success.
    pub(crate) fn is_first_retry(&self) -> bool {
        self.failures == 1
    }

    /// The next wait.
    pub(crate) fn next_wait(&mut self) -> Duration {
        self.wait_for(random_fraction())
    }

    fn wait_for(&mut self, fraction: f64) -> Duration {
        let bound = match self.failures {
            0 => self.first,
            failures => {
                Duration::from_secs(1 << failures.min(20).saturating_sub(1)).min(self.limit)
            }
        };
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(fraction)
    }
}

/// A random number from 0 up to, not including, 1.
fn random_fraction() -> f64 {
    let mut bytes = [0_u8; 4];
    // Without randomness many nodes would come back together; it is no reason not to come back.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_try_comes_within_its_bound_and_later_ones_never_wait_longer_than_the_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        let longest: Vec<u64> = (0..7)
            .map(|_| backoff.wait_for(1.0).as_millis() as u64)
            .collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(backoff.wait_for(0.0), Duration::ZERO);
        backoff.reset();
        assert!(!backoff.is_first_retry());
        assert_eq!(backoff.wait_for(0.5), Duration::from_millis(250));
        assert!(backoff.is_first_retry());
    }

    #[test]
    fn fractions_are_below_one() {
        assert!((0..100).all(|_| (0.0..1.0).contains(&random_fraction())));
    }
}
