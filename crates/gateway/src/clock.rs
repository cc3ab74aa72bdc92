//! The one place where the gateway reads the time and draws message ids.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sortie_channel::service::Stamp;
use sortie_types::{Now, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

/// Monotonic time since the gateway was made, and wall-clock time.
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

    /// The instant at which [`Now::monotonic`] will be `monotonic`.
    pub(crate) fn instant(&self, monotonic: Duration) -> Instant {
        // Saturates far away: a deadline beyond what an `Instant` holds never comes.
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.start + monotonic.min(self.start.elapsed() + FAR)
    }
}

/// Wall-clock time.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Id and time of a message that the gateway makes now.
pub(crate) fn stamp() -> Stamp {
    Stamp::new(Uuid::new_v4(), wall())
}
