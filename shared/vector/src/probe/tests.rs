//! Plans keep to their budgets and read what is near, whatever the leaves and rows are.

use super::*;
use crate::{Codec, Frame, Rows};
use model::Space;
use proptest::collection::vec;
use proptest::prelude::*;

fn table(rows: &[u32]) -> Table {
    let frame = Frame::new(Space::L2, vec![0.0; 4], 1.0, 1);
    Table::new(
        frame,
        Codec { dimension: 4, bits: 8 },
        4,
        Rows::new(&vec![0.5; rows.len() * 4], 4),
        rows,
        &vec![1.0; rows.len()],
    )
}

proptest! {
    #[test]
    fn a_plan_keeps_to_its_budget(rows in vec(vec(0..50_u32, 0..30), 1..4), order: u64, bytes in 0..20_000_u64, ranges in 1..8_usize) {
        let tables: Vec<Table> = rows.iter().map(|rows| table(rows)).collect();
        let line = Line::of(&tables);
        let mut ranked: Vec<u32> = line.tables.iter().flat_map(|(first, table)| *first..first + crate::number(table.leaves())).collect();
        ranked.sort_by_key(|leaf| u64::from(*leaf + 1).wrapping_mul(order | 1));
        let plan = line.plan(&ranked, &Budget { bytes, ranges });
        prop_assert!(plan.is_empty() == ranked.is_empty() && plan.len() <= ranges);
        let ends = |at: usize| (plan[at].0, plan[at].1.end);
        prop_assert!((1..plan.len()).all(|at| ends(at - 1) < (plan[at].0, plan[at].1.start)), "ascending and apart: {plan:?}");
        let bytes_of = |(table, leaves): &(usize, Range<usize>)| tables[*table].bytes(leaves.clone());
        let read: u64 = plan.iter().map(bytes_of).map(|range| range.end - range.start).sum();
        let nearest = ranked.first().map_or(0, |leaf| line.bytes(&(*leaf..*leaf + 1)));
        prop_assert!(read <= bytes.max(nearest), "{read} of {bytes}: {plan:?}");
    }

    #[test]
    fn rows_keep_to_their_ranges(estimates in vec((any::<f32>(), 0.0..1.0_f32, 0..5000_u32), 0..200), k in 0..12_usize,
        count in 0..50_usize, ranges in 1..6_usize, gap_bytes in 0..4000_u64) {
        let estimates: Vec<Estimate> = estimates.into_iter().map(|(distance, error, row)| Estimate { distance, error, row }).collect();
        let any = !estimates.is_empty();
        let rerank = Rerank { k, rows: count, row_bytes: 16, ranges, gap_bytes, neighbour_bytes: 1000 };
        let plan = super::rows(estimates, &rerank);
        prop_assert!(plan.ranges.len() <= ranges && plan.rows.len() <= count.max(k));
        prop_assert!(plan.rows.iter().all(|row| plan.ranges.iter().any(|range| range.contains(row))));
        prop_assert!(!any || count.max(k) == 0 || !plan.rows.is_empty());
    }
}

#[test]
fn neighbours_are_read_through_and_stragglers_left_out() {
    let table = table(&[10; 100]);
    let row_bytes = table.codec().row_bytes() as u64;
    let budget = |rows: u64, ranges| Budget { bytes: rows * row_bytes, ranges };
    let line = Line::of([&table]);
    let of = |ranked: &[u32], budget| {
        line.plan(ranked, &budget).iter().map(|(_, at)| (at.start, at.end)).collect::<Vec<_>>()
    };
    assert_eq!(of(&[40, 42, 41, 90], budget(40, 2)), [(40, 43), (90, 91)]);
    assert_eq!(of(&[40, 42, 90], budget(40, 1)), [(40, 43)]);
    assert_eq!(of(&[40, 42, 90], budget(5, 3)), [(40, 41)], "the nearest is read, whatever it takes");
    assert_eq!(of(&[], budget(5, 3)), []);
}

#[test]
fn leaves_of_several_tables_share_a_budget_and_no_stretch() {
    let tables = [table(&[10; 3]), table(&[10; 5])];
    let line = Line::of(&tables);
    let row_bytes = tables[0].codec().row_bytes() as u64;
    // The last of the first table and the first of the second: 2 and 4.
    let plan = |ranges| line.plan(&[4, 2, 5, 8], &Budget { bytes: 40 * row_bytes, ranges });
    assert_eq!(plan(3), [(0, 2..3), (1, 0..2), (1, 4..5)]);
    assert_eq!(plan(1), [(1, 0..2)]);
}

#[test]
fn leaves_far_beyond_the_nearest_are_not_ranked() {
    let view = |apart: f32| LeafView { base: apart * apart, apart, rank: apart * apart };
    let of = |views: &[LeafView]| rank((0..).zip(views).collect(), Space::L2, 1.5);
    assert_eq!(of(&[view(3.0), view(1.0), view(1.4), view(1.6)]), [1, 2]);
    assert_eq!(of(&[view(f32::NAN), view(f32::INFINITY)])[0], 1);
    assert!(of(&[]).is_empty());
}

#[test]
fn rows_are_compared_as_far_as_their_errors_reach() {
    let of = |error: f32| {
        let estimates =
            (0..100_u16).map(|row| Estimate { distance: f32::from(row), error, row: u32::from(row) * 1000 });
        let rerank = Rerank { k: 5, rows: 60, row_bytes: 4, ranges: 100, gap_bytes: 0, neighbour_bytes: 1 << 30 };
        super::rows(estimates.collect(), &rerank).rows.len()
    };
    assert_eq!((of(0.0), of(1.0), of(100.0)), (5, 7, 60));
}
