//! When to try a lost or missing connection again. Pure: the owner sleeps and brings the randomness.

use std::time::Duration;

/// The longest wait between two tries to come back to a server of ours.
const PATIENT_CAP: Duration = Duration::from_secs(5);

/// The same at first, when the server is probably being restarted and a person waits.
const HOPEFUL_CAP: Duration = Duration::from_secs(1);

/// How long that is.
const HOPEFUL_FOR: Duration = Duration::from_secs(60);

/// The first such wait.
const PATIENT_BASE: Duration = Duration::from_millis(100);

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// As the official client does: this many waits, doubling from 100 to 199 ms.
    Official {
        /// Waits before giving up.
        retries: u32,
    },
    /// Until the connection has been away for this long: the server keeps the session meanwhile,
    /// and knows better than we do when it is over.
    Patient {
        /// The longest time away.
        limit: Duration,
    },
}

/// The state of one row of tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    schedule: Schedule,
    waits: u32,
}

impl Backoff {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule, waits: 0 }
    }

    /// How long to wait before the next try; `None` to give up. `away` is how long the connection
    /// has been missing.
    pub(crate) fn next(&mut self, away: Duration, random: u64) -> Option<Duration> {
        let wait = match self.schedule {
            Schedule::Official { retries } => {
                if self.waits >= retries {
                    return None;
                }
                Duration::from_millis(100 + random % 100) * 2u32.pow(self.waits.min(16))
            }
            Schedule::Patient { limit } => {
                if away >= limit {
                    return None;
                }
                let cap = if away < HOPEFUL_FOR {
                    HOPEFUL_CAP
                } else {
                    PATIENT_CAP
                };
                let full = (PATIENT_BASE * 2u32.pow(self.waits.min(10))).min(cap);
                // Half of it at random, so that a restarted server is not met by all at once.
                let half = full / 2;
                half + half.mul_f64((random % 1000) as f64 / 1000.0)
            }
        };
        self.waits += 1;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_budget_is_six_tries_in_three_to_six_seconds() {
        for random in [0, 99] {
            let mut backoff = Backoff::new(Schedule::Official { retries: 5 });
            let waits: Vec<_> =
                std::iter::from_fn(|| backoff.next(Duration::ZERO, random)).collect();
            assert_eq!(waits.len(), 5);
            let total: Duration = waits.iter().sum();
            assert!((3..=7).contains(&total.as_secs()), "{total:?}");
        }
    }

    #[test]
    fn a_patient_row_grows_to_its_cap_and_ends_by_time_alone() {
        let limit = Duration::from_secs(1200);
        let mut backoff = Backoff::new(Schedule::Patient { limit });
        let first = backoff.next(Duration::ZERO, 0).unwrap();
        assert!(first <= PATIENT_BASE);
        for random in 0..20 {
            let wait = backoff.next(Duration::from_secs(10), random).unwrap();
            assert!(wait <= HOPEFUL_CAP);
        }
        for random in 0..1000 {
            let wait = backoff.next(Duration::from_secs(1199), random).unwrap();
            assert!(wait <= PATIENT_CAP);
        }
        assert_eq!(backoff.next(limit, 0), None);
    }
}
