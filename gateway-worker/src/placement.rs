//! Which executor reads a collection: always the same one while the pool stays, so that its cache stays in one place.

use model::CollectionId;

/// An executor as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Number of its binding.
    pub number: usize,
    /// Its share of the collections, in relation to the others' weights; at least 1.
    pub weight: u32,
    /// Executors of a higher rank are asked only when all of a lower one have failed.
    pub rank: Rank,
}

/// How gladly an executor is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// As a matter of course.
    Active,
    /// It is to be taken away: only if no active one answers.
    Draining,
    /// It failed a short while ago: only if no other answers.
    Failing,
}

/// The numbers of `pool` in the order in which they should be asked about `collection`.
///
/// Weighted rendezvous hashing: an executor is first for a share of the collections that is proportional to its weight, and
/// when its weight changes, or it comes or goes, only collections that move to or from *it* move at all. Source: Thaler and
/// Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998; with
/// weights by the logarithmic method of Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005.
pub fn ranked(collection: CollectionId, pool: &[Member]) -> Vec<usize> {
    let mut order: Vec<(Rank, f64, usize)> =
        pool.iter().map(|member| (member.rank, distance(collection, member), member.number)).collect();
    order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    order.into_iter().map(|(_, _, number)| number).collect()
}

/// Exponentially distributed with the executor's weight as its rate: of independent such distances, the least is each one's
/// with a probability proportional to its rate.
fn distance(collection: CollectionId, member: &Member) -> f64 {
    -uniform(collection, member.number as u64).ln() / f64::from(member.weight)
}

/// Uniform in the open interval from 0 to 1.
#[expect(clippy::cast_possible_truncation, reason = "the two halves of the id are mixed one after the other")]
fn uniform(collection: CollectionId, executor: u64) -> f64 {
    let bits = collection.as_u128();
    let hash = mix(mix(mix(bits as u64) ^ (bits >> 64) as u64) ^ executor);
    ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
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
    use proptest::prelude::*;

    const COLLECTIONS: u128 = 4_000;

    fn pool(weights: &[u32]) -> Vec<Member> {
        let member = |(number, weight): (usize, &u32)| Member { number, weight: *weight, rank: Rank::Active };
        weights.iter().enumerate().map(member).collect()
    }

    fn order(collection: u128, pool: &[Member]) -> Vec<usize> {
        ranked(CollectionId::from_u128(collection), pool)
    }

    #[test]
    fn collections_spread_by_weight() {
        let weights = [100, 100, 50, 200, 1];
        let pool = pool(&weights);
        let mut shares = [0_u32; 5];
        (0..COLLECTIONS).for_each(|id| shares[order(id, &pool)[0]] += 1);
        for (share, weight) in shares.iter().zip(weights) {
            let expect = 4_000.0 * f64::from(weight) / 451.0;
            let deviation = (f64::from(*share) - expect).abs();
            assert!(deviation < 5.0 * expect.sqrt(), "weight {weight} has {share}, expected about {expect}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_weight_moves_only_collections_of_the_changed_executor(
            weights in prop::collection::vec(1_u32..1_000, 2..8),
            changed in any::<prop::sample::Index>(),
            weight in 1_u32..1_000,
            collection in any::<u128>(),
        ) {
            let changed = changed.index(weights.len());
            let before = pool(&weights);
            let mut after = before.clone();
            after[changed].weight = weight;
            let without = |order: Vec<usize>| -> Vec<usize> { order.into_iter().filter(|n| *n != changed).collect() };
            let (old, new) = (order(collection, &before), order(collection, &after));
            let place = |order: &[usize]| order.iter().position(|number| *number == changed);
            if weight >= weights[changed] {
                prop_assert!(place(&new) <= place(&old), "more weight never moves a collection away");
            } else {
                prop_assert!(place(&new) >= place(&old), "less weight never moves a collection here");
            }
            prop_assert_eq!(without(old), without(new), "among themselves the others stay as they were");
        }

        #[test]
        fn one_more_executor_moves_only_what_it_takes(
            weights in prop::collection::vec(1_u32..1_000, 2..8),
            collection in any::<u128>(),
        ) {
            let newest = weights.len() - 1;
            let (before, after) = (pool(&weights[..newest]), pool(&weights));
            let mut order_after = order(collection, &after);
            order_after.retain(|number| *number != newest);
            prop_assert_eq!(order_after, order(collection, &before));
        }

        #[test]
        fn everyone_is_asked_once_and_the_unwanted_last(
            ranks in prop::collection::vec(0_u8..3, 1..8),
            collection in any::<u128>(),
        ) {
            let mut pool = pool(&vec![100; ranks.len()]);
            for (member, rank) in pool.iter_mut().zip(&ranks) {
                member.rank = [Rank::Active, Rank::Draining, Rank::Failing][usize::from(*rank)];
            }
            let mut order = order(collection, &pool);
            prop_assert!(order.is_sorted_by_key(|number| pool[*number].rank));
            order.sort_unstable();
            prop_assert_eq!(order, (0..ranks.len()).collect::<Vec<_>>());
        }
    }
}
