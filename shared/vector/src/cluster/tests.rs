//! Whatever the rows: each is in one leaf, none is too full, and threads change nothing.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn check(values: &[f32], dimension: usize, leaf_rows: u32) -> Leaves {
    let rows = Rows::new(values, dimension);
    let leaves = cluster(rows, &Clustering::of(leaf_rows, 7, 1));
    let mut all = leaves.order.clone();
    all.sort_unstable();
    assert_eq!(all, (0..crate::number(rows.len())).collect::<Vec<_>>(), "each row is in one leaf");
    assert_eq!(leaves.rows.iter().sum::<u32>() as usize, rows.len());
    assert!(leaves.rows.iter().all(|count| (1..=2 * leaf_rows).contains(count)), "{:?}", leaves.rows);
    assert_eq!(leaves.centroids.len(), leaves.rows.len() * dimension);
    leaves
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_rows_are_filed(values in vec(prop_oneof![4 => -2.0_f32..2.0, 1 => Just(0.0), 1 => any::<f32>()
        .prop_filter("finite", |x| x.is_finite())], 0..600), dimension in 1..5_usize, leaf_rows in 1..20_u32) {
        let whole = values.len() / dimension * dimension;
        check(&values[..whole], dimension, leaf_rows);
    }

    #[test]
    fn threads_change_nothing(values in vec(-1.0_f32..1.0, 4000), seed: u64) {
        let of = |threads| cluster(Rows::new(&values, 4), &Clustering::of(8, seed, threads));
        prop_assert_eq!(of(1), of(2));
        prop_assert_eq!(of(1), of(5));
    }
}

#[test]
fn equal_rows_are_cut_to_size() {
    let leaves = check(&vec![0.25; 3000], 3, 16);
    assert!(leaves.rows.len() <= 125, "{}", leaves.rows.len());
}

#[test]
fn clusters_far_apart_are_not_mixed() {
    let values: Vec<f32> =
        (0..4000_u16).flat_map(|row| [f32::from(row % 10) * 100.0, f32::from(row / 10) * 0.01]).collect();
    let leaves = check(&values, 2, 100);
    let mut at = 0;
    for count in leaves.rows {
        let members = &leaves.order[at..at + count as usize];
        assert!(members.iter().all(|row| row % 10 == members[0] % 10), "{members:?}");
        at += count as usize;
    }
}

#[test]
fn leaves_are_about_as_large_as_they_should_be() {
    let mut random = Random::new(3, 3);
    let values: Vec<f32> = (0..20_000 * 8).map(|_| f32::from(random.byte())).collect();
    let leaves = check(&values, 8, 64);
    assert!((280..=420).contains(&leaves.rows.len()), "{} leaves of 64 of 20,000 rows", leaves.rows.len());
}

#[test]
fn rows_that_are_streamed_are_filed_alike() {
    let mut random = Random::new(5, 3);
    let values: Vec<f32> = (0..6_000 * 4).map(|_| f32::from(random.byte())).collect();
    let (rows, clustering) = (Rows::new(&values, 4), Clustering::of(16, 7, 2));
    let sample = rows.gather(&clustering.sample(6_000));
    let centroids = train(Rows::new(&sample, 4), clustering.leaves(6_000), &clustering);
    let assigner = Assigner::new(Rows::new(&centroids, 4), 1);
    let labels: Vec<u32> = (0..6).flat_map(|at| assigner.assign(rows.slice(at * 1_000..(at + 1) * 1_000), 1)).collect();
    assert_eq!(labels, assigner.assign(rows, 2), "batches change nothing");
    // Leaves by the hundred, as a caller does that has room for no more.
    let mut filed = 0;
    for first in (0..centroids.len() / 4).step_by(100) {
        let last = (first + 100).min(centroids.len() / 4);
        let is_here = |label: &u32| (first..last).contains(&(*label as usize));
        let members: Vec<u32> = (0..6_000).filter(|row| is_here(&labels[*row as usize])).collect();
        let values = rows.gather(&members);
        let local: Vec<u32> =
            labels.iter().filter(|label| is_here(label)).map(|label| label - crate::number(first)).collect();
        let leaves = balance(Rows::new(&values, 4), &local, &centroids[first * 4..last * 4], &clustering);
        assert!(leaves.rows.iter().all(|count| (1..=32).contains(count)));
        filed += leaves.order.len();
    }
    assert_eq!(filed, 6_000);
}
