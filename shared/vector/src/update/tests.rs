//! After an update each row is in one leaf, no leaf is too full, and far from what changed nothing did.

use super::*;
use crate::random::Random;
use proptest::prelude::*;

fn clustering() -> Clustering {
    Clustering::of(16, 1, 1)
}

fn points(count: usize, seed: u64, spread: f32) -> Vec<f32> {
    let mut random = Random::new(seed, 0);
    (0..count * 4).map(|_| f32::from(random.byte()) * spread).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn rows_are_kept_and_leaves_are_cut_to_size(old in 1..400_usize, new in 0..200_usize, spread in 0.0..1.0_f32, seed: u64) {
        let (old, new) = (points(old, seed, 1.0), points(new, seed + 1, spread));
        let leaves = cluster::cluster(Rows::new(&old, 4), &clustering());
        let centroids = Rows::new(&leaves.centroids, 4);
        let all = [old, new].concat();
        let rows = Rows::new(&all, 4);
        let labels = file(centroids, rows, 1);
        let mut counts = vec![0; centroids.len()];
        labels.iter().for_each(|leaf| counts[*leaf as usize] += 1);
        let affected = affected(centroids, &counts, &clustering());
        let members: Vec<u32> =
            (0..crate::number(rows.len())).filter(|row| affected.contains(&labels[*row as usize])).collect();
        let values = rows.gather(&members);
        let labels: Vec<u32> = members.iter().map(|row| labels[*row as usize]).collect();
        let rearranged = rearrange(centroids, &affected, Rows::new(&values, 4), &labels, &clustering());
        let mut seen: Vec<u32> = rearranged.iter().flat_map(|leaf| leaf.members.iter().copied()).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..crate::number(members.len())).collect::<Vec<_>>());
        prop_assert!(rearranged.iter().all(|leaf| leaf.members.len() <= 32 && !leaf.members.is_empty()));
        prop_assert!(rearranged.iter().all(|leaf| affected.contains(&leaf.place)));
    }
}

#[test]
fn only_what_is_near_a_full_leaf_is_affected() {
    let centroids: Vec<f32> = (0..100_u8).flat_map(|at| [f32::from(at), 0.0]).collect();
    let mut counts = vec![16; 100];
    counts[50] = 33;
    let affected = affected(Rows::new(&centroids, 2), &counts, &clustering());
    assert!(
        affected.contains(&50) && affected.len() <= 9 && affected.iter().all(|leaf| (45..=55).contains(leaf)),
        "{affected:?}"
    );
}
