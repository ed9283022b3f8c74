//! A plan keeps to its budget, and no other choice of stretches is worth more: compared with trying all, on few leaves.

use super::*;
use crate::{Codec, Frame, Rows};
use model::Space;
use proptest::collection::vec;
use proptest::prelude::*;

fn table(rows: &[u32]) -> Table {
    let frame = Frame::new(Space::L2, vec![0.0; 4], 1.0, 1);
    Table::new(frame, Codec { dimension: 4, bits: 8 }, 4, Rows::new(&vec![0.5; rows.len() * 4], 4), rows)
}

/// The best sum of `values` over at most `count` disjoint stretches, by dynamic programming.
fn best_sum(values: &[f32], count: usize) -> f32 {
    let (mut outside, mut inside) = (vec![0.0_f32; count + 1], vec![f32::NEG_INFINITY; count + 1]);
    for value in values {
        for used in (1..=count).rev() {
            inside[used] = inside[used].max(outside[used - 1]) + value;
            outside[used] = outside[used].max(inside[used]);
        }
    }
    outside.into_iter().fold(0.0, f32::max)
}

proptest! {
    #[test]
    fn stretches_are_the_best(worth in vec(prop_oneof![Just(0.0_f32), 0.0..1.0_f32], 1..40), count in 1..6_usize) {
        let table = table(&vec![10; worth.len()]);
        let price = 0.03;
        let found = stretches(&table, &worth, price, count);
        prop_assert!(found.len() <= count);
        let values: Vec<f32> = worth.iter().map(|worth| worth - price * 10.0).collect();
        let sum: f32 = found.iter().flat_map(|range| &values[range.clone()]).sum();
        prop_assert!((sum - best_sum(&values, count)).abs() < 1e-4, "{} of {}: {:?}", sum, best_sum(&values, count), found);
    }

    #[test]
    fn a_plan_keeps_to_its_budget(rows in vec(1..50_u32, 1..60), order in any::<u64>(), bytes in 0..20_000_u64, ranges in 1..8_usize) {
        let table = table(&rows);
        let mut ranked: Vec<u32> = (0..crate::number(rows.len())).collect();
        ranked.sort_by_key(|leaf| u64::from(*leaf + 1).wrapping_mul(order | 1));
        let plan = plan(&table, &ranked, &Budget { bytes, ranges, ratio: 9.0 });
        prop_assert!(!plan.is_empty() && plan.len() <= ranges);
        prop_assert!(plan.windows(2).all(|pair| pair[0].end < pair[1].start), "ascending and apart: {plan:?}");
        let read: u64 = plan.iter().map(|range| table.bytes(range.clone())).map(|range| range.end - range.start).sum();
        let nearest = table.bytes(ranked[0] as usize..ranked[0] as usize + 1);
        prop_assert!(read <= bytes.max(nearest.end - nearest.start), "{read} of {bytes}: {plan:?}");
    }
}

#[test]
fn neighbours_are_read_through_and_stragglers_left_out() {
    let table = table(&[10; 100]);
    let row_bytes = table.codec().row_bytes() as u64;
    let budget = |rows: u64, ranges| Budget { bytes: rows * row_bytes, ranges, ratio: 9.0 };
    assert_eq!(plan(&table, &[40, 42, 41, 90], &budget(40, 2)), [40..43, 90..91]);
    assert_eq!(plan(&table, &[40, 42, 90], &budget(40, 1)), [40..43]);
    assert_eq!(plan(&table, &[40, 42, 90], &budget(5, 3)), [40..41], "the nearest is read, whatever it takes");
    assert_eq!(plan(&table, &[], &budget(5, 3)), []);
}
