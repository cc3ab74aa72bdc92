//! When the owner of a machine looks at it again. The machines say when something is due at the latest;
//! this keeps the owner from setting a timer anew at every message.

use std::time::Duration;

/// A timer that is set at each turn of a loop. It moves towards the present alone: a turn too many once in a
/// while costs less than waking, at every message, the thread that sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer(Option<Duration>);

impl Timer {
    /// When to wake up, on the monotonic clock that reads `now`: at `due` or sooner.
    pub fn set(&mut self, due: Option<Duration>, now: Duration) -> Option<Duration> {
        let still = self.0.filter(|at| *at > now);
        self.0 = still.into_iter().chain(due).min();
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_until_it_has_fired_or_something_is_due_sooner() {
        let millis = |millis| Some(Duration::from_millis(millis));
        let mut timer = Timer::default();
        for (due, now, set) in [
            (None, 0, None),
            (millis(20), 0, millis(20)),
            (millis(30), 10, millis(20)),
            (None, 11, millis(20)),
            (millis(15), 12, millis(15)),
            (millis(35), 15, millis(35)),
            (None, 40, None),
        ] {
            assert_eq!(timer.set(due, Duration::from_millis(now)), set, "at {now}");
        }
    }
}
