//! A few stretches of a line that hold the most of value: how many small reads become few large ones.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Something of value on the line.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Where it lies.
    pub(crate) at: Range<u32>,
    /// What it is worth beyond its price.
    pub(crate) value: f32,
}

/// The at most `count` disjoint stretches with the largest sum of value, ascending.
///
/// - `items`: ascending and disjoint.
/// - `gap`: what reading through a gap between two of them costs, not below 0.
///
/// Items and gaps alternate; while there are too many stretches, the one whose reversal costs least is given up: an item is left
/// out, or a gap is read through. (This greedy way to "k disjoint stretches of the largest sum" is exact.) Cost: `O(n log n)`.
pub(crate) fn best(items: &[Item], gap: impl Fn(Range<u32>) -> f32, count: usize) -> Vec<Range<u32>> {
    let mut runs: Vec<Run> = Vec::with_capacity(2 * items.len());
    let mut end = items.first().map_or(0, |item| item.at.start);
    for item in items {
        let between = end..item.at.start;
        if !between.is_empty() {
            push(&mut runs, between.clone(), -gap(between).max(f32::MIN_POSITIVE));
        }
        push(&mut runs, item.at.clone(), item.value);
        end = item.at.end;
    }
    link(&mut runs);
    let gains = runs.iter().filter(|run| run.value > 0.0).count();
    reverse_cheapest(&mut runs, gains.saturating_sub(count.max(1)));
    runs.into_iter().filter(|run| run.version > 0 && run.value > 0.0).map(|run| run.at).collect()
}

/// Neighbours that are all gain, or all loss.
#[derive(Clone, Debug)]
struct Run {
    at: Range<u32>,
    value: f32,
    /// Neighbours in the list.
    previous: usize,
    next: usize,
    /// Changes with each merge; 0 once it is gone.
    version: u32,
}

fn push(runs: &mut Vec<Run>, at: Range<u32>, value: f32) {
    match runs.last_mut() {
        Some(run) if (run.value > 0.0) == (value > 0.0) => {
            run.at.end = at.end;
            run.value += value;
        }
        _ => runs.push(Run { at, value, previous: 0, next: 0, version: 1 }),
    }
}

fn link(runs: &mut [Run]) {
    for (at, run) in runs.iter_mut().enumerate() {
        (run.previous, run.next) = (at.wrapping_sub(1), at + 1);
    }
}

/// The cheapest is the greatest.
struct Reversal {
    cost: f32,
    run: usize,
    version: u32,
}

impl Ord for Reversal {
    fn cmp(&self, other: &Self) -> Ordering {
        other.cost.total_cmp(&self.cost).then_with(|| other.run.cmp(&self.run))
    }
}

impl PartialOrd for Reversal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Reversal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Reversal {}

/// Reverses the cheapest run `times` times, each time making one stretch fewer.
fn reverse_cheapest(runs: &mut [Run], times: usize) {
    if times == 0 {
        return;
    }
    let reversal = |run: usize, runs: &[Run]| Reversal { cost: runs[run].value.abs(), run, version: runs[run].version };
    let mut heap: BinaryHeap<Reversal> = (0..runs.len()).map(|run| reversal(run, runs)).collect();
    let mut left = times;
    while left > 0 {
        let Some(Reversal { run, version, .. }) = heap.pop() else { return };
        let Run { previous, next, value, version: current, .. } = runs[run];
        let is_outside = previous >= runs.len() || next >= runs.len();
        if version != current || (value <= 0.0 && is_outside) {
            continue;
        }
        left -= 1;
        absorb_neighbours(runs, run);
        heap.push(reversal(run, runs));
    }
}

/// Makes `run` and its neighbours one.
fn absorb_neighbours(runs: &mut [Run], run: usize) {
    for side in [runs[run].previous, runs[run].next] {
        let Some(gone) = runs.get_mut(side) else { continue };
        gone.version = 0;
        let gone = gone.clone();
        let kept = &mut runs[run];
        kept.value += gone.value;
        if gone.at.start < kept.at.start {
            (kept.at.start, kept.previous) = (gone.at.start, gone.previous);
        } else {
            (kept.at.end, kept.next) = (gone.at.end, gone.next);
        }
    }
    let Run { previous, next, .. } = runs[run];
    runs[run].version += 1;
    if let Some(previous) = runs.get_mut(previous) {
        previous.next = run;
    }
    if let Some(next) = runs.get_mut(next) {
        next.previous = run;
    }
}

#[cfg(test)]
mod tests {
    //! No other choice of stretches is worth more: compared with dynamic programming over the same line.

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The best sum of `values` over at most `count` disjoint stretches.
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
        fn no_stretches_are_worth_more(line in vec(prop_oneof![Just(-0.1_f32), -0.5..1.0_f32], 1..40), count in 1..6_usize) {
            // What is -0.1 is a gap of one, all else an item.
            let items: Vec<Item> = (0_u32..)
                .zip(&line)
                .filter(|(_, value)| **value != -0.1)
                .map(|(at, value)| Item { at: at..at + 1, value: *value })
                .collect();
            let found = best(&items, |gap| 0.1 * gap.len() as f32, count);
            prop_assert!(found.len() <= count);
            prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start), "{found:?}");
            let sum: f32 = found.iter().flat_map(|at| &line[at.start as usize..at.end as usize]).sum();
            prop_assert!((sum - best_sum(&line, count)).abs() < 1e-4, "{sum} of {}: {found:?}", best_sum(&line, count));
        }
    }
}
