//! An index that goes on from another has every row once, in leaves of the right size, with the codes that it would have anew;
//! it is the same with any number of threads.

use super::*;
use crate::indexing::Indexing;
use crate::tiers::tests::segment;
use model::{Position, Space};
use segment::row::Row;
use std::collections::BTreeSet;

const DIMENSION: u32 = 8;
const LEAF_ROWS: u32 = 16;

fn scratch() -> Scratch {
    Scratch { directory: std::env::temp_dir(), memory_bytes: 10_000 }
}

fn indexing(threads: usize) -> Indexing {
    Indexing { from_bytes: 0, leaf_rows: LEAF_ROWS, ..Indexing::on(threads) }
}

/// About one of twenty points, as `seed` has it.
fn vector(seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state = state.wrapping_mul(0x915f_77f5).rotate_left(11);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let cluster = seed % 20;
    (0..DIMENSION).map(|i| (cluster * (i + 3) % 7) as f32 + next()).collect()
}

fn spill(seeds: &[u32]) -> Spill {
    let mut rows = Spill::new(DIMENSION as usize, &scratch());
    for (position, seed) in (0..).zip(seeds) {
        let row = Row {
            position: Position(position),
            id: seed.to_string(),
            vector: vector(*seed),
            document: None,
            uri: None,
            metadata: None,
        };
        rows.push(&row.view()).unwrap();
    }
    rows
}

fn codes(rows: &Spill, leaves: &Leaves, before: Option<&Before>) -> Vec<Vec<u8>> {
    (0..leaves.table.leaves()).map(|leaf| indexing::encode(rows, leaves, before, leaf).unwrap()).collect()
}

/// The index of `seeds` as one that `moved` numbers anew.
fn before(seeds: &[u32], moved: &[u32], space: Space) -> Before {
    let rows = spill(seeds);
    let leaves = indexing::leaves(&rows, space, None, &indexing(1), 1 << 30).unwrap();
    let mut before = Before::new(leaves.table.clone(), scratch());
    for (leaf, codes) in codes(&rows, &leaves, None).iter().enumerate() {
        before.push(leaves.members(leaf).iter().map(|row| moved[*row as usize]), codes).unwrap();
    }
    before
}

#[track_caller]
fn check(space: Space, old: u32, is_dead: impl Fn(u32) -> bool, added: u32, memory_bytes: usize) -> Leaves {
    let seeds: Vec<u32> = (0..old).collect();
    // All that is added is about the same point.
    let added = (0..added).map(|n| old + 20 * n);
    let live: Vec<u32> = seeds.iter().copied().filter(|seed| !is_dead(*seed)).chain(added).collect();
    let moved = |seed: &u32| live.binary_search(seed).map_or(u32::MAX, number);
    let before = before(&seeds, &seeds.iter().map(moved).collect::<Vec<_>>(), space);
    let rows = spill(&live);
    let leaves = indexing::leaves(&rows, space, Some(&before), &indexing(1), memory_bytes).unwrap();
    assert_eq!(leaves.order.iter().copied().collect::<BTreeSet<u32>>(), (0..number(live.len())).collect());
    assert_eq!((leaves.order.len(), leaves.places.len()), (live.len(), leaves.table.leaves()));
    let sizes = (0..leaves.table.leaves()).map(|leaf| leaves.members(leaf).len());
    assert!(sizes.clone().all(|size| size > 0 && size <= 2 * LEAF_ROWS as usize), "{:?}", sizes.collect::<Vec<_>>());
    assert_eq!(codes(&rows, &leaves, Some(&before)), codes(&rows, &leaves, None), "copied codes are those of the rows");
    let others = indexing::leaves(&rows, space, Some(&before), &indexing(3), memory_bytes).unwrap();
    assert_eq!((&others.order, &others.places), (&leaves.order, &leaves.places));
    assert_eq!(others.table.encode(), leaves.table.encode());
    leaves
}

#[test]
fn rows_come_and_go() {
    for space in [Space::L2, Space::Cosine, Space::Ip] {
        let leaves = check(space, 2_000, |seed| seed % 7 == 3, 300, 1 << 30);
        let kept = leaves.places.iter().filter(|place| place.is_some()).count();
        assert!(kept * 2 > leaves.places.len() && kept < leaves.places.len(), "{kept} of {}", leaves.places.len());
        check(space, 2_000, |_| false, 0, 1 << 30);
        check(space, 2_000, |seed| seed % 20 < 6, 1_000, 1 << 30);
    }
}

#[test]
fn little_memory_rearranges_in_stretches() {
    check(Space::L2, 1_000, |seed| seed % 5 == 0, 1_000, 0);
}

#[test]
fn few_rows_are_a_leaf() {
    check(Space::L2, 40, |seed| seed > 0, 0, 1 << 30);
    check(Space::L2, 1, |_| false, 1, 1 << 30);
}

#[test]
fn the_larger_part_is_kept_unless_too_much_of_it_is_dead() {
    let segment = |rows: u32, dead: u32, is_indexed: bool| SegmentRef {
        index: is_indexed.then_some(model::IndexRef { bytes: 1 }),
        text: None,
        ..segment(rows, dead)
    };
    let check = |inputs: &[(u32, u32, bool)], expect: Option<usize>| {
        let inputs: Vec<SegmentRef> = inputs.iter().map(|(rows, dead, index)| segment(*rows, *dead, *index)).collect();
        assert_eq!(goes_on_from(&inputs), expect, "{inputs:?}");
    };
    check(&[], None);
    check(&[(100, 0, false)], None);
    check(&[(100, 30, true)], Some(0));
    check(&[(100, 31, true)], None);
    check(&[(10, 0, true), (100, 0, true), (5, 0, false)], Some(1));
    check(&[(10, 0, true), (100, 0, false)], None);
    check(&[(25, 0, true), (25, 0, true), (50, 0, true)], Some(2));
    check(&[(24, 0, true), (19, 0, false), (19, 0, false), (19, 0, false), (19, 0, false)], None);
}
