//! The one place of this crate where clocks are read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sortie_types::{Now, Timestamp};
use tokio::time::Instant;

/// Reads both clocks; the monotonic part counts from the clock's making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now::new(self.start.elapsed(), wall())
    }

    /// The instant of a monotonic time of this clock.
    pub(crate) fn instant(&self, monotonic: Duration) -> Instant {
        self.start + monotonic
    }
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
    Timestamp::from_millis(millis)
}

/// 64 random bits, for jitter alone.
pub(crate) fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}
