//! The time a pure component is told. Timers use the monotonic part; whatever is written down or
//! sent uses the wall clock.

use std::time::Duration;

use crate::Timestamp;

/// One reading of both clocks, handed to protocol and policy code as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since an epoch of the caller's choice, the same for all its readings.
    pub monotonic: Duration,
    /// Wall-clock time.
    pub wall: Timestamp,
}

impl Now {
    /// A reading made of its two parts.
    #[must_use]
    pub fn new(monotonic: Duration, wall: Timestamp) -> Self {
        Self { monotonic, wall }
    }

    /// This reading moved forward by `by`, on both clocks. For simulations.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self {
            monotonic: self.monotonic + by,
            wall: self.wall.plus(by),
        }
    }
}
