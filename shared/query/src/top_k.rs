//! The nearest of many: a bounded heap.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row and how far away it is. Orders by distance ([`f32::total_cmp`]), then by row.
#[derive(Clone, Copy, Debug)]
pub struct Ranked<R> {
    /// Smaller is nearer.
    pub distance: f32,
    /// Which row; of two at one distance, the smaller comes first.
    pub row: R,
}

impl<R: Ord> Ord for Ranked<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then_with(|| self.row.cmp(&other.row))
    }
}

impl<R: Ord> PartialOrd for Ranked<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R: Ord> PartialEq for Ranked<R> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<R: Ord> Eq for Ranked<R> {}

/// Keeps the `k` smallest of what is pushed.
///
/// Cost: `O(log k)` a push that is kept, one comparison for any other; memory for `min(k, pushed)` rows, so `k` may be
/// as large as it likes.
///
/// ```
/// let mut nearest = query::TopK::new(2);
/// for (distance, row) in [(0.5, 0), (0.1, 1), (0.5, 2), (0.3, 3)] {
///     nearest.push(distance, row);
/// }
/// assert_eq!(nearest.into_sorted().iter().map(|hit| hit.row).collect::<Vec<_>>(), [1, 3]);
/// ```
#[derive(Clone, Debug)]
pub struct TopK<R> {
    k: usize,
    /// The farthest of those kept is on top.
    kept: BinaryHeap<Ranked<R>>,
}

impl<R: Ord> TopK<R> {
    /// Room for `k`.
    pub fn new(k: usize) -> Self {
        TopK { k, kept: BinaryHeap::new() }
    }

    /// How many are kept at most.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The distance beyond which nothing is kept any more; `None` as long as there is room.
    pub fn farthest(&self) -> Option<f32> {
        let is_full = self.kept.len() >= self.k;
        is_full.then(|| self.kept.peek().map_or(f32::NEG_INFINITY, |farthest| farthest.distance))
    }

    /// Offers a row.
    pub fn push(&mut self, distance: f32, row: R) {
        let candidate = Ranked { distance, row };
        if self.kept.len() < self.k {
            self.kept.push(candidate);
        } else if let Some(mut farthest) = self.kept.peek_mut()
            && candidate < *farthest
        {
            *farthest = candidate;
        }
    }

    /// What was kept, nearest first.
    pub fn into_sorted(self) -> Vec<Ranked<R>> {
        self.kept.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(k: usize, pushed: &[(f32, u32)]) {
        let mut top_k = TopK::new(k);
        let mut sorted = pushed.to_vec();
        pushed.iter().for_each(|&(distance, row)| top_k.push(distance, row));
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        sorted.truncate(k);
        let bits = |hits: &[(f32, u32)]| hits.iter().map(|hit| (hit.0.to_bits(), hit.1)).collect::<Vec<_>>();
        let kept: Vec<(f32, u32)> = top_k.into_sorted().iter().map(|hit| (hit.distance, hit.row)).collect();
        assert_eq!(bits(&kept), bits(&sorted));
    }

    #[test]
    fn ties_and_odd_values_have_an_order() {
        check(0, &[(1.0, 0)]);
        check(3, &[(1.0, 2), (1.0, 1), (1.0, 0), (0.0, 4), (-0.0, 3)]);
        check(2, &[(f32::INFINITY, 0), (f32::NAN, 1), (f32::NEG_INFINITY, 2), (f32::MAX, 3)]);
        check(usize::MAX, &[(2.0, 0), (1.0, 1)]);
    }

    proptest! {
        #[test]
        fn keeps_what_sorting_would(k in 0usize..20, rows in prop::collection::vec((-3i8..3, 0u32..9), 0..60)) {
            check(k, &rows.iter().map(|&(distance, row)| (f32::from(distance), row)).collect::<Vec<_>>());
        }
    }
}
