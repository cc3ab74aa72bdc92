//! When to ping, and when a silent peer counts as gone. Pure.

use std::time::Duration;

/// How a connection is kept alive.
#[derive(Clone, Copy, Debug)]
pub struct KeepAliveOptions {
    /// The longest time between two pings.
    pub every: Duration,
    /// How long something sent may stay unacknowledged before the peer is asked for a sign of life.
    pub doubt_after: Duration,
    /// How long the answer to a ping may take.
    pub dead_after: Duration,
}

impl Default for KeepAliveOptions {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(20),
            doubt_after: Duration::from_secs(2),
            dead_after: Duration::from_secs(15),
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send a ping.
    Ping,
    /// The peer is gone.
    Dead,
    /// Nothing before this time, on the monotonic clock.
    Wait(Duration),
}

/// The state of one connection. Times are monotonic.
#[derive(Debug)]
pub(super) struct KeepAlive {
    options: KeepAliveOptions,
    last_ping: Option<Duration>,
    /// The first ping since the peer was last heard.
    unanswered: Option<Duration>,
}

impl KeepAlive {
    pub(super) fn new(options: KeepAliveOptions) -> Self {
        Self {
            options,
            last_ping: None,
            unanswered: None,
        }
    }

    /// Anything came from the peer.
    pub(super) fn heard(&mut self) {
        self.unanswered = None;
    }

    /// What is due at `now`; `unacknowledged` is for how long the other end owes an
    /// acknowledgement.
    pub(super) fn poll(&mut self, now: Duration, unacknowledged: Option<Duration>) -> Step {
        let options = self.options;
        if let Some(since) = self.unanswered
            && now >= since + options.dead_after
        {
            return Step::Dead;
        }
        let Some(last) = self.last_ping else {
            return self.ping(now);
        };
        let doubt = unacknowledged.map(|waiting| {
            (now + options.doubt_after.saturating_sub(waiting)).max(last + options.doubt_after)
        });
        let due = doubt.unwrap_or(Duration::MAX).min(last + options.every);
        if now >= due {
            return self.ping(now);
        }
        let dead = self
            .unanswered
            .map_or(Duration::MAX, |since| since + options.dead_after);
        Step::Wait(due.min(dead))
    }

    fn ping(&mut self, now: Duration) -> Step {
        self.last_ping = Some(now);
        self.unanswered.get_or_insert(now);
        Step::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: KeepAliveOptions = KeepAliveOptions {
        every: Duration::from_secs(20),
        doubt_after: Duration::from_secs(2),
        dead_after: Duration::from_secs(15),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_ping_goes_at_once_and_a_silent_peer_is_dead() {
        let mut keep_alive = KeepAlive::new(OPTIONS);
        assert_eq!(keep_alive.poll(at(0), None), Step::Ping);
        assert_eq!(keep_alive.poll(at(1), None), Step::Wait(at(15)));
        assert_eq!(keep_alive.poll(at(15), None), Step::Dead);
    }

    #[test]
    fn a_peer_that_answers_is_pinged_every_so_often() {
        let mut keep_alive = KeepAlive::new(OPTIONS);
        assert_eq!(keep_alive.poll(at(0), None), Step::Ping);
        keep_alive.heard();
        assert_eq!(keep_alive.poll(at(1), None), Step::Wait(at(20)));
        assert_eq!(keep_alive.poll(at(20), None), Step::Ping);
    }

    #[test]
    fn an_owed_acknowledgement_brings_the_next_ping_forward() {
        let mut keep_alive = KeepAlive::new(OPTIONS);
        assert_eq!(keep_alive.poll(at(0), None), Step::Ping);
        keep_alive.heard();
        assert_eq!(keep_alive.poll(at(5), Some(at(1))), Step::Wait(at(6)));
        assert_eq!(keep_alive.poll(at(6), Some(at(2))), Step::Ping);
        assert_eq!(keep_alive.poll(at(7), Some(at(3))), Step::Wait(at(8)));
    }
}
