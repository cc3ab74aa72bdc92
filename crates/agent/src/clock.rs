//! Reads both clocks for protocol code that takes time as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sortie_types::{Now, Timestamp};

/// A monotonic clock that began when it was made, and the wall clock beside it.
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

    /// Both readings.
    pub(crate) fn now(self) -> Now {
        Now::new(self.start.elapsed(), wall())
    }

    /// The instant of a monotonic reading of this clock.
    pub(crate) fn instant(self, monotonic: Duration) -> tokio::time::Instant {
        let far = self.start + Duration::from_secs(86_400 * 365);
        self.start.checked_add(monotonic).unwrap_or(far).into()
    }
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
