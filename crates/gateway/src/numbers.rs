//! A set of stream numbers, kept as ranges: what a client has acknowledged. Pure.
//!
//! An official agent that missed an acknowledgement repeats the message for ever, and the official
//! client drops repeats without a word; so the agent's queue is stuck. With this set the gateway
//! answers the repeat itself.

use std::collections::BTreeMap;

/// More holes than this are never open at once between honest ends.
const MAX_RANGES: usize = 4096;

/// Numbers, as ranges from first to last.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    ranges: BTreeMap<i64, i64>,
}

impl Numbers {
    pub(crate) fn contains(&self, number: i64) -> bool {
        self.ranges
            .range(..=number)
            .next_back()
            .is_some_and(|(_, last)| *last >= number)
    }

    pub(crate) fn insert(&mut self, number: i64) {
        self.insert_range(number, number);
    }

    /// Adds every number up to and including `last`; numbers begin at 0.
    pub(crate) fn insert_up_to(&mut self, last: i64) {
        if last >= 0 {
            self.insert_range(0, last);
        }
    }

    fn insert_range(&mut self, mut first: i64, mut last: i64) {
        // Every range that touches the new one begins at or before `last + 1`; those reaching back to
        // `first - 1` melt into it.
        while let Some((&start, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            if end < first.saturating_sub(1) {
                break;
            }
            first = first.min(start);
            last = last.max(end);
            self.ranges.remove(&start);
        }
        self.ranges.insert(first, last);
        if self.ranges.len() > MAX_RANGES {
            self.forget_the_shortest();
        }
    }

    /// Forgetting is safe: a repeat is then forwarded instead of answered.
    fn forget_the_shortest(&mut self) {
        let shortest = self
            .ranges
            .iter()
            .min_by_key(|(first, last)| last.saturating_sub(**first));
        if let Some(first) = shortest.map(|(first, _)| *first) {
            self.ranges.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_order_melt_into_ranges() {
        let mut set = Numbers::default();
        for number in [5, 3, 4, 9, 7, 8, 0, 5] {
            set.insert(number);
        }
        let held: Vec<i64> = (-1..12).filter(|number| set.contains(*number)).collect();
        assert_eq!(held, [0, 3, 4, 5, 7, 8, 9]);
        assert_eq!(set.ranges.len(), 3);
        set.insert_up_to(7);
        assert!((0..=9).all(|number| set.contains(number)));
        assert_eq!(set.ranges.len(), 1);
        set.insert_up_to(2);
        assert!(set.contains(9));
    }

    #[test]
    fn a_hostile_client_cannot_make_it_grow() {
        let mut set = Numbers::default();
        for number in 0..20_000 {
            set.insert(number * 2);
        }
        assert_eq!(set.ranges.len(), MAX_RANGES);
        set.insert(i64::MAX);
        set.insert(i64::MIN);
        set.insert_up_to(i64::MAX);
        assert!(set.contains(1));
    }
}
