//! Which leaves a query reads, and which of their rows exactly: values in, values out.

use crate::codes::{Estimate, LeafView};
use crate::table::Table;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

/// What a query may read of leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Bytes of codes.
    pub bytes: u64,
    /// Byte ranges: each is a GET.
    pub ranges: usize,
    /// Leaves whose centroid is further from the query than this times the nearest one's are not worth a read of their own.
    pub ratio: f32,
}

/// Leaves that are considered at all, nearest first.
const CONSIDERED_MAX: usize = 4096;

/// Numbers of the leaves worth reading, the nearest first: those within `ratio` of the nearest, at least one.
///
/// For inner products, near means a large product.
pub fn rank(views: &[LeafView], ratio: f32) -> Vec<u32> {
    let by_distance = |a: &u32, b: &u32| {
        let (a_view, b_view) = (views[*a as usize], views[*b as usize]);
        a_view.base.total_cmp(&b_view.base).then_with(|| a.cmp(b))
    };
    let mut leaves: Vec<u32> = (0..crate::number(views.len())).collect();
    if leaves.len() > CONSIDERED_MAX {
        leaves.select_nth_unstable_by(CONSIDERED_MAX, by_distance);
        leaves.truncate(CONSIDERED_MAX);
    }
    leaves.sort_unstable_by(by_distance);
    let Some(nearest) = leaves.first().map(|leaf| views[*leaf as usize].apart) else { return leaves };
    let first = leaves[0];
    leaves.retain(|leaf| *leaf == first || views[*leaf as usize].apart <= nearest * ratio);
    leaves
}

/// The stretches of leaves to read, ascending: as much worth as `budget` buys.
///
/// A leaf's worth falls with its rank; bytes cost what makes the sum fit the budget. With both, the best few stretches are
/// found exactly: short gaps are read through, stragglers are left out.
pub fn plan(table: &Table, ranked: &[u32], budget: &Budget) -> Vec<Range<usize>> {
    let mut worth = vec![0.0_f32; table.leaves()];
    for (rank, leaf) in ranked.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let value = (rank as f32 + 10.0).powf(-1.5);
        worth[*leaf as usize] = value;
    }
    let bytes = |ranges: &[Range<usize>]| {
        let lengths = ranges.iter().map(|range| table.bytes(range.clone())).map(|bytes| bytes.end - bytes.start);
        lengths.sum::<u64>()
    };
    let row_bytes = table.codec().row_bytes() as f32;
    let mut best = ranked.first().map(|leaf| *leaf as usize..*leaf as usize + 1).into_iter().collect();
    // What a row costs, between nothing and more than the nearest leaf is worth.
    let (mut cheap, mut dear) = (0.0_f32, 1.0 / (row_bytes * 16.0));
    for _ in 0..14 {
        let price = if cheap == 0.0 { dear / 16.0 } else { (cheap * dear).sqrt() };
        let ranges = stretches(table, &worth, price * row_bytes, budget.ranges);
        if bytes(&ranges) > budget.bytes {
            cheap = price;
        } else {
            dear = price;
            if !ranges.is_empty() {
                best = ranges;
            }
        }
    }
    best
}

/// A run of leaves that are all worth their price, or all not.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: usize,
    end: usize,
    value: f32,
    /// Neighbours in the list.
    previous: usize,
    next: usize,
    /// Changes with each merge; 0 once it is gone.
    version: u32,
}

/// The at most `count` disjoint stretches with the largest sum of worth minus price.
///
/// Runs of gain and of loss alternate; while there are too many gains, the run whose reversal costs least is given up: a gain
/// dropped, or a loss read through. (The greedy solution of "k disjoint subarrays of largest sum" is exact.)
fn stretches(table: &Table, worth: &[f32], price: f32, count: usize) -> Vec<Range<usize>> {
    let value = |leaf: usize| {
        let rows = table.rows(leaf..leaf + 1);
        #[expect(clippy::cast_precision_loss, reason = "a leaf has few rows")]
        let rows = (rows.end - rows.start) as f32;
        worth[leaf] - price * rows
    };
    let mut runs: Vec<Run> = Vec::new();
    for leaf in 0..worth.len() {
        let value = value(leaf);
        match runs.last_mut() {
            Some(run) if (run.value > 0.0) == (value > 0.0) => {
                run.end = leaf + 1;
                run.value += value;
            }
            _ => {
                let at = runs.len();
                runs.push(Run {
                    start: leaf,
                    end: leaf + 1,
                    value,
                    previous: at.wrapping_sub(1),
                    next: at + 1,
                    version: 1,
                });
            }
        }
    }
    let gains = runs.iter().filter(|run| run.value > 0.0).count();
    merge(&mut runs, gains.saturating_sub(count.max(1)));
    runs.iter().filter(|run| run.version > 0 && run.value > 0.0).map(|run| run.start..run.end).collect()
}

#[derive(PartialEq)]
struct Reversal {
    cost: f32,
    run: usize,
    version: u32,
}

impl Eq for Reversal {}

impl PartialOrd for Reversal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reversal {
    /// The cheapest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.cost.total_cmp(&self.cost).then_with(|| other.run.cmp(&self.run))
    }
}

/// Reverses the cheapest run `times` times, each time making one gain fewer.
fn merge(runs: &mut [Run], times: usize) {
    let reversal = |run: usize, runs: &[Run]| Reversal { cost: runs[run].value.abs(), run, version: runs[run].version };
    let mut heap: BinaryHeap<Reversal> = (0..runs.len()).map(|run| reversal(run, runs)).collect();
    let mut left = times;
    while left > 0 {
        let Some(Reversal { run, version, .. }) = heap.pop() else { return };
        let Run { previous, next, value, version: current, .. } = runs[run];
        let at_the_end = previous >= runs.len() || next >= runs.len();
        if version != current || (value <= 0.0 && at_the_end) {
            continue;
        }
        left -= 1;
        absorb(runs, run);
        heap.push(reversal(run, runs));
    }
}

/// Makes `run` and its neighbours one.
fn absorb(runs: &mut [Run], run: usize) {
    for side in [runs[run].previous, runs[run].next] {
        if side >= runs.len() {
            continue;
        }
        let gone = runs[side];
        runs[side].version = 0;
        let kept = &mut runs[run];
        kept.value += gone.value;
        if gone.start < kept.start {
            kept.start = gone.start;
            kept.previous = gone.previous;
        } else {
            kept.end = gone.end;
            kept.next = gone.next;
        }
    }
    let Run { previous, next, .. } = runs[run];
    runs[run].version += 1;
    if previous < runs.len() {
        runs[previous].next = run;
    }
    if next < runs.len() {
        runs[next].previous = run;
    }
}

/// The `count` most promising of `estimates`, nearest first.
pub fn nearest(mut estimates: Vec<Estimate>, count: usize) -> Vec<Estimate> {
    let by_distance = |a: &Estimate, b: &Estimate| a.distance.total_cmp(&b.distance).then_with(|| a.row.cmp(&b.row));
    if count < estimates.len() {
        estimates.select_nth_unstable_by(count, by_distance);
        estimates.truncate(count);
    }
    estimates.sort_unstable_by(by_distance);
    estimates
}

#[cfg(test)]
mod tests;
