//! Which executor reads a collection: always the same one while the pool stays, so that its cache stays in one place.

use model::CollectionId;

/// The executors `0..count` in the order in which they should be asked about `collection`.
///
/// Rendezvous hashing: when an executor leaves, only its collections move. Source: Thaler and Ravishankar, "Using
/// name-based mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998.
pub fn ranked(collection: CollectionId, count: usize) -> Vec<usize> {
    let mut executors: Vec<usize> = (0..count).collect();
    executors.sort_by_key(|executor| std::cmp::Reverse(weight(collection, *executor as u64)));
    executors
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of the id are mixed one after the other")]
fn weight(collection: CollectionId, executor: u64) -> u64 {
    let bits = collection.as_u128();
    mix(mix(mix(bits as u64) ^ (bits >> 64) as u64) ^ executor)
}

/// SplitMix64's finaliser after one step. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLLECTIONS: std::ops::Range<u128> = 0..1000;

    fn first(collection: u128, count: usize) -> usize {
        ranked(CollectionId::from_u128(collection), count)[0]
    }

    #[test]
    fn collections_spread_evenly() {
        for executor in 0..4 {
            let share = COLLECTIONS.filter(|id| first(*id, 4) == executor).count();
            assert!((200..300).contains(&share), "executor {executor} has {share} of 1000");
        }
    }

    #[test]
    fn one_more_executor_moves_only_what_it_takes() {
        for id in COLLECTIONS {
            let (before, after) = (first(id, 4), first(id, 5));
            assert!(after == before || after == 4);
        }
    }

    #[test]
    fn every_executor_is_asked_in_the_end() {
        let mut order = ranked(CollectionId::from_u128(9), 8);
        order.sort_unstable();
        assert_eq!(order, (0..8).collect::<Vec<_>>());
    }
}
