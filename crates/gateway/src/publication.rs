//! When an official agent is told to pause and to go on. Pure.
//!
//! A paused agent stops reading its terminal, which is the only back-pressure it knows. Any
//! acknowledgement or input un-pauses it, so a pause is repeated after each. It is not while the
//! client is catching up, though: what the agent reads between two pauses it keeps and sends much
//! later, ten messages a second.

use std::time::Duration;

/// What to tell the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Pause,
    Start,
}

/// What matters for the decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pressure {
    /// The node can be paused: attached, official, and of a kind that survives it.
    pub(crate) possible: bool,
    /// Since when there is no client.
    pub(crate) client_away_since: Option<Duration>,
    /// Bytes that the client has not acknowledged.
    pub(crate) undelivered: usize,
}

/// Whether the agent is paused, as far as the gateway knows.
#[derive(Debug)]
pub(crate) struct Publication {
    delay: Duration,
    pause_above: usize,
    resume_below: usize,
    paused: bool,
    undone: bool,
}

impl Publication {
    pub(crate) fn new(delay: Duration, pause_above: usize, resume_below: usize) -> Self {
        Self {
            delay,
            pause_above,
            resume_below,
            paused: false,
            undone: false,
        }
    }

    /// The agent has a new websocket, which clears its pause.
    pub(crate) fn reconnected(&mut self) {
        self.paused = false;
        self.undone = false;
    }

    /// An acknowledgement or input goes to the agent.
    pub(crate) fn traffic(&mut self) {
        self.undone |= self.paused;
    }

    /// What to tell the agent now.
    pub(crate) fn decide(&mut self, pressure: Pressure, now: Duration) -> Option<Order> {
        let wanted = pressure.possible && self.wanted(pressure, now);
        let order = match (wanted, self.paused) {
            (true, false) => Some(Order::Pause),
            (true, true) if self.undone => Some(Order::Pause),
            (false, true) if pressure.possible => Some(Order::Start),
            _ => None,
        };
        self.paused = wanted;
        self.undone = false;
        order
    }

    /// When the decision may become another by the mere passing of time.
    pub(crate) fn deadline(&self, pressure: Pressure) -> Option<Duration> {
        let away = pressure
            .client_away_since
            .filter(|_| pressure.possible && !self.paused)?;
        Some(away + self.delay)
    }

    fn wanted(&self, pressure: Pressure, now: Duration) -> bool {
        let bound = if self.paused && !self.undone {
            self.resume_below
        } else {
            self.pause_above
        };
        pressure.undelivered > bound
            || pressure
                .client_away_since
                .is_some_and(|since| now >= since + self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(250);

    fn pressure(undelivered: usize, away: Option<u64>) -> Pressure {
        Pressure {
            possible: true,
            client_away_since: away.map(Duration::from_millis),
            undelivered,
        }
    }

    #[test]
    fn a_full_buffer_pauses_and_an_emptied_one_starts() {
        let mut publication = Publication::new(DELAY, 400, 100);
        let mut decide =
            |undelivered| publication.decide(pressure(undelivered, None), Duration::ZERO);
        assert_eq!(decide(400), None);
        assert_eq!(decide(401), Some(Order::Pause));
        assert_eq!(decide(300), None);
        assert_eq!(decide(101), None);
        assert_eq!(decide(100), Some(Order::Start));
        assert_eq!(decide(300), None);
    }

    #[test]
    fn what_unpauses_the_agent_is_followed_by_another_pause() {
        let mut publication = Publication::new(DELAY, 400, 100);
        assert_eq!(
            publication.decide(pressure(500, None), DELAY),
            Some(Order::Pause)
        );
        assert_eq!(publication.decide(pressure(500, None), DELAY), None);
        publication.traffic();
        assert_eq!(
            publication.decide(pressure(500, None), DELAY),
            Some(Order::Pause)
        );
        publication.reconnected();
        assert_eq!(
            publication.decide(pressure(500, None), DELAY),
            Some(Order::Pause)
        );
    }

    #[test]
    fn an_agent_whose_client_is_catching_up_is_left_alone() {
        let mut publication = Publication::new(DELAY, 400, 100);
        let mut decide = |undelivered, traffic| {
            if traffic {
                publication.traffic();
            }
            publication.decide(pressure(undelivered, None), Duration::ZERO)
        };
        assert_eq!(decide(401, false), Some(Order::Pause));
        // The client's first acknowledgements have set it going already.
        assert_eq!(decide(399, true), Some(Order::Start));
        assert_eq!(decide(399, true), None);
        assert_eq!(decide(100, true), None);
        assert_eq!(decide(401, true), Some(Order::Pause));
    }

    #[test]
    fn without_a_client_the_agent_is_paused_after_a_moment() {
        let mut publication = Publication::new(DELAY, 400, 100);
        let away = pressure(0, Some(1000));
        assert_eq!(publication.decide(away, Duration::from_millis(1000)), None);
        assert_eq!(
            publication.deadline(away),
            Some(Duration::from_millis(1250))
        );
        assert_eq!(
            publication.decide(away, Duration::from_millis(1250)),
            Some(Order::Pause)
        );
        assert_eq!(publication.deadline(away), None);
        let back = pressure(0, None);
        assert_eq!(
            publication.decide(back, Duration::from_millis(2000)),
            Some(Order::Start)
        );
    }

    #[test]
    fn who_cannot_be_paused_is_told_nothing() {
        let mut publication = Publication::new(DELAY, 400, 100);
        let never = Pressure {
            possible: false,
            ..pressure(9999, Some(0))
        };
        assert_eq!(publication.decide(never, Duration::from_secs(9)), None);
        assert_eq!(publication.deadline(never), None);
    }
}
