//! Notices that two machines use one node's identity. Pure.
//!
//! Two clones replace each other's control channel without end. One machine on a bad network does so
//! too, but from one address.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

/// Over this time replacements are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// More than this many within the window are suspicious.
const MOST: usize = 5;

/// The latest replacements of one node's control channel.
#[derive(Debug, Default)]
pub(crate) struct Replacements {
    latest: VecDeque<(Duration, String)>,
    reported: Option<Duration>,
}

impl Replacements {
    /// A channel from `address` replaced an open one. The addresses, when it looks like clones and
    /// has not been said within the last minute.
    pub(crate) fn record(&mut self, address: &str, now: Duration) -> Option<Vec<String>> {
        let old = |at: Duration| now.saturating_sub(at) >= WINDOW;
        while self.latest.front().is_some_and(|(at, _)| old(*at)) || self.latest.len() > 4 * MOST {
            self.latest.pop_front();
        }
        self.latest.push_back((now, address.to_owned()));
        let addresses: BTreeSet<&String> = self.latest.iter().map(|(_, address)| address).collect();
        if self.latest.len() <= MOST || addresses.len() < 2 {
            return None;
        }
        if self.reported.is_some_and(|at| !old(at)) {
            return None;
        }
        self.reported = Some(now);
        Some(addresses.into_iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(steps: &[(u64, &str)]) -> Vec<Option<Vec<String>>> {
        let mut replacements = Replacements::default();
        steps
            .iter()
            .map(|(at, from)| replacements.record(from, Duration::from_secs(*at)))
            .collect()
    }

    #[test]
    fn two_addresses_that_keep_replacing_each_other_are_reported_once_a_minute() {
        let steps: Vec<(u64, &str)> = (0..40)
            .map(|n| (n * 5, if n % 2 == 0 { "10.0.0.1" } else { "10.0.0.2" }))
            .collect();
        let reports = report(&steps);
        let when: Vec<u64> = steps
            .iter()
            .zip(&reports)
            .filter(|(_, r)| r.is_some())
            .map(|(s, _)| s.0)
            .collect();
        assert_eq!(when, [25, 85, 145]);
        assert_eq!(reports[5].as_deref().unwrap(), ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn one_address_and_slow_replacements_are_not() {
        let one: Vec<(u64, &str)> = (0..20).map(|n| (n, "10.0.0.1")).collect();
        assert!(report(&one).iter().all(Option::is_none));
        let slow: Vec<(u64, &str)> = (0..20)
            .map(|n| (n * 13, if n % 2 == 0 { "a" } else { "b" }))
            .collect();
        assert!(report(&slow).iter().all(Option::is_none));
    }
}
