//! A small generator of message ids and jitter from a seed. Not for secrets: a message id only has to
//! be unlikely to repeat, and a simulation has to be repeatable.

use uuid::Uuid;

/// SplitMix64 over two lanes; the state is the 16-byte seed.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    high: u64,
    low: u64,
}

impl Random {
    pub(crate) fn new(seed: [u8; 16]) -> Self {
        let seed = u128::from_be_bytes(seed);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are wanted")]
        Self {
            high: (seed >> 64) as u64,
            low: seed as u64,
        }
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        let (high, low) = (step(&mut self.high), step(&mut self.low));
        let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_of_distinct_version_4_ids() {
        let take = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| random.uuid()).collect::<Vec<_>>()
        };
        let ids = take([7; 16]);
        assert_eq!(ids, take([7; 16]));
        assert_ne!(ids, take([8; 16]));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}
