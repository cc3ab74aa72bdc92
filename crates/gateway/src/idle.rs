//! How long a session may go on: without activity, and at all. Pure.

use std::time::Duration;

use sortie_ports::Session;
use sortie_types::Now;

/// Marks of activity go to control at most this often: they are kept in seconds anyway.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunOut {
    /// Nothing happened for the idle time.
    Idle,
    /// The maximum duration is over, whatever happens.
    Maximum,
}

/// The two limits of a session, on the monotonic clock.
#[derive(Debug)]
pub(crate) struct IdleClock {
    limit: Duration,
    idle_at: Duration,
    maximum: Option<Duration>,
    maximum_at: Option<Duration>,
    reported: Option<Duration>,
}

impl IdleClock {
    /// Takes over what the row says: time that passed while no server ran has passed.
    pub(crate) fn new(session: &Session, now: Now) -> Self {
        let limit = seconds(session.idle_timeout_seconds);
        let maximum = session.max_duration_seconds.map(seconds);
        let idle_for = now.wall.since(session.last_activity);
        let age = now.wall.since(session.started);
        Self {
            limit,
            idle_at: now.monotonic + limit.saturating_sub(idle_for),
            maximum,
            maximum_at: maximum.map(|most| now.monotonic + most.saturating_sub(age)),
            reported: None,
        }
    }

    /// The idle limit.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// The maximum duration.
    pub(crate) fn maximum(&self) -> Option<Duration> {
        self.maximum
    }

    /// The session is in use. Whether control should hear of it.
    pub(crate) fn touch(&mut self, now: Now) -> bool {
        self.idle_at = now.monotonic + self.limit;
        let due = self
            .reported
            .is_none_or(|at| now.monotonic >= at + REPORT_EVERY);
        if due {
            self.reported = Some(now.monotonic);
        }
        due
    }

    /// When something runs out next.
    pub(crate) fn deadline(&self) -> Duration {
        self.maximum_at
            .map_or(self.idle_at, |at| at.min(self.idle_at))
    }

    /// What has run out by now.
    pub(crate) fn run_out(&self, now: Duration) -> Option<RunOut> {
        if self.maximum_at.is_some_and(|at| now >= at) {
            Some(RunOut::Maximum)
        } else if now >= self.idle_at {
            Some(RunOut::Idle)
        } else {
            None
        }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use sortie_types::Timestamp;

    use super::*;
    use crate::pairing::testing::session;

    fn at(second: u64) -> Now {
        Now::new(
            Duration::from_secs(1000 + second),
            Timestamp::from_millis(0).plus(Duration::from_secs(second)),
        )
    }

    fn clock(idle: i64, maximum: Option<i64>, now: Now) -> IdleClock {
        let row = Session {
            idle_timeout_seconds: idle,
            max_duration_seconds: maximum,
            ..session(serde_json::json!({}))
        };
        IdleClock::new(&row, now)
    }

    #[test]
    fn activity_moves_the_idle_limit_and_not_the_maximum() {
        let mut clock = clock(60, Some(150), at(0));
        assert_eq!(clock.run_out(at(59).monotonic), None);
        assert!(clock.touch(at(59)));
        assert_eq!(clock.run_out(at(118).monotonic), None);
        assert!(clock.touch(at(118)));
        assert_eq!(clock.deadline(), at(150).monotonic);
        assert_eq!(clock.run_out(at(150).monotonic), Some(RunOut::Maximum));
        assert_eq!(clock.run_out(at(149).monotonic), None);
    }

    #[test]
    fn silence_runs_out() {
        let clock = clock(60, None, at(0));
        assert_eq!(clock.deadline(), at(60).monotonic);
        assert_eq!(clock.run_out(at(60).monotonic), Some(RunOut::Idle));
    }

    #[test]
    fn a_server_that_starts_later_counts_from_the_row() {
        let clock = clock(60, Some(100), at(90));
        assert_eq!(clock.run_out(at(90).monotonic), Some(RunOut::Idle));
        assert_eq!(clock.maximum_at, Some(at(100).monotonic));
    }

    #[test]
    fn control_hears_of_activity_once_a_second() {
        let mut clock = clock(60, None, at(0));
        assert!(clock.touch(at(1)));
        assert!(!clock.touch(at(1).after(Duration::from_millis(999))));
        assert!(clock.touch(at(2)));
    }
}
