//! How many failed calls of strangers are written to the trail. A flood must not fill the disk, and
//! must not go unseen either: what is not written is counted, and the count goes into the next
//! record that is. Pure: the time is an argument.

use std::{collections::HashMap, time::Duration};

use sortie_types::Timestamp;

/// Records of one source in a minute.
const PER_SOURCE: u32 = 30;
/// Records of all sources together in a minute.
const ALL_SOURCES: u32 = 300;
/// Sources that are told apart; beyond, they share one window.
const SOURCES: usize = 4096;
const WINDOW: Duration = Duration::from_mins(1);

/// What becomes of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Counted only.
    Count,
    /// Written, with the number of those that were counted only since the last one.
    Write {
        /// How many.
        unwritten: u64,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    start: Option<Timestamp>,
    written: u32,
    unwritten: u64,
}

impl Window {
    fn roll(&mut self, now: Timestamp) {
        if self.is_over(now) {
            self.start = Some(now);
            self.written = 0;
        }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        // A clock that was set back must not freeze a window.
        self.start
            .is_none_or(|start| now < start || now.since(start) >= WINDOW)
    }
}

/// The count of each source, and of all.
#[derive(Debug, Default)]
pub(crate) struct FailureBudget {
    sources: HashMap<String, Window>,
    others: Window,
    all: Window,
    /// Counted for sources that are no longer told apart.
    carried: u64,
}

impl FailureBudget {
    /// Judges one failed call.
    pub(crate) fn admit(&mut self, source: &str, now: Timestamp) -> Verdict {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(source) {
            self.forget_past(now);
        }
        self.all.roll(now);
        let window = if self.sources.len() < SOURCES || self.sources.contains_key(source) {
            self.sources.entry(source.to_owned()).or_default()
        } else {
            &mut self.others
        };
        window.roll(now);
        if window.written >= PER_SOURCE || self.all.written >= ALL_SOURCES {
            window.unwritten += 1;
            return Verdict::Count;
        }
        window.written += 1;
        self.all.written += 1;
        let unwritten = std::mem::take(&mut window.unwritten) + std::mem::take(&mut self.carried);
        Verdict::Write { unwritten }
    }

    fn forget_past(&mut self, now: Timestamp) {
        let mut carried = 0;
        self.sources.retain(|_, window| {
            let over = window.is_over(now);
            if over {
                carried += window.unwritten;
            }
            !over
        });
        self.carried += carried;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn what_is_over_the_rate_is_counted_and_told_later() {
        let mut budget = FailureBudget::default();
        for _ in 0..PER_SOURCE {
            assert_eq!(budget.admit("a", at(0)), Verdict::Write { unwritten: 0 });
        }
        assert_eq!(budget.admit("a", at(1)), Verdict::Count);
        assert_eq!(budget.admit("a", at(59)), Verdict::Count);
        assert_eq!(budget.admit("b", at(59)), Verdict::Write { unwritten: 0 });
        assert_eq!(budget.admit("a", at(60)), Verdict::Write { unwritten: 2 });
        assert_eq!(budget.admit("a", at(60)), Verdict::Write { unwritten: 0 });
    }

    #[test]
    fn many_sources_share_one_limit_and_bounded_memory() {
        let mut budget = FailureBudget::default();
        let written = (0..3 * SOURCES)
            .filter(|source| budget.admit(&source.to_string(), at(0)) != Verdict::Count)
            .count();
        assert_eq!(written, ALL_SOURCES as usize);
        assert_eq!(budget.sources.len(), SOURCES);
        // The next minute forgets the sources, but not how much was left out for them.
        let expected = SOURCES as u64 - u64::from(ALL_SOURCES);
        assert_eq!(
            budget.admit("new", at(61)),
            Verdict::Write {
                unwritten: expected
            }
        );
    }

    #[test]
    fn a_clock_set_back_does_not_freeze_a_window() {
        let mut budget = FailureBudget::default();
        while budget.admit("a", at(1000)) != Verdict::Count {}
        assert_eq!(budget.admit("a", at(0)), Verdict::Write { unwritten: 1 });
    }
}
