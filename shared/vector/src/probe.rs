//! Which leaves a query reads, and which of their rows exactly: values in, values out.
//!
//! Both are choices of a few byte ranges: a read at a store takes as long as some hundred kilobytes of it, and there may be only
//! so many. What is worth reading is known about ([`Line::rank`], [`Estimate`]), bytes cost, and the best few stretches are found
//! exactly: short gaps are read through, stragglers are left out.

#![expect(clippy::cast_precision_loss, reason = "worth is a rough number")]

use crate::codes::{Estimate, LeafView};
use crate::stretches::{self, Item};
use crate::table::Table;
use crate::{index, number};
use model::Space;
use std::ops::Range;

/// How much a query does: what needs no tuning by users.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// For [`Line::rank`].
    pub ratio: f32,
    /// For [`Line::plan`].
    pub leaves: Budget,
    /// For [`rows`].
    pub rerank: Rerank,
}

impl Effort {
    /// For the `k` nearest of vectors of `dimension` numbers, where leaves and rows are read from a store.
    ///
    /// Up to 17 ranges (21 above 1024 dimensions) while `k` is small, a few more for each result beyond ten. How these were
    /// chosen: `docs/decisions/0006-leaf-index.md`.
    pub fn cold(dimension: usize, k: usize) -> Self {
        let (leaf_ranges, row_ranges) = if dimension > 1024 { (12, 9) } else { (10, 7) };
        let rerank = Rerank {
            k,
            rows: (10 * k).clamp(100, 1000).max(k),
            row_bytes: 4 * dimension as u64,
            ranges: row_ranges.max(k / 10 * row_ranges),
            gap_bytes: 64 << 10,
            neighbour_bytes: 4 << 20,
        };
        Effort { ratio: 1.3, leaves: Budget { bytes: 5 << 20, ranges: leaf_ranges }, rerank }
    }

    /// Of everything `times` as much: bytes, ranges and rows.
    pub fn times(self, times: usize) -> Self {
        let Effort { ratio, leaves, rerank } = self;
        let leaves = Budget { bytes: leaves.bytes * times as u64, ranges: leaves.ranges.saturating_mul(times) };
        let rerank = Rerank { rows: rerank.rows * times, ranges: rerank.ranges.saturating_mul(times), ..rerank };
        Effort { ratio: 1.0 + (ratio - 1.0) * times as f32, leaves, rerank }
    }

    /// The same where rows lie in so many indexes: what is side by side in one lies apart in several.
    pub fn over(self, indexes: usize) -> Self {
        let more = |ranges: usize| ranges.saturating_mul(indexes.max(1) + 1) / 2;
        let Effort { ratio, leaves, rerank } = self;
        let leaves = Budget { ranges: more(leaves.ranges), ..leaves };
        Effort { ratio, leaves, rerank: Rerank { ranges: more(rerank.ranges), ..rerank } }
    }
}

/// What a query may read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// Byte ranges: each is a GET. Where bytes are at hand, `usize::MAX`.
    pub ranges: usize,
}

/// The leaves of one table, or of several, in one line: numbered throughout, so that they can be weighed against each other. Between two
/// tables a number is left out: no stretch reaches across.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// The tables, each with the number of its first leaf.
    tables: Vec<(u32, &'a Table)>,
}

/// The price of what cannot be bought.
const PROHIBITIVE: f32 = 1e30;

impl<'a> Line<'a> {
    /// The leaves of `tables`, whose vectors are compared alike.
    pub fn of(tables: impl IntoIterator<Item = &'a Table>) -> Self {
        let mut next = 0_u32;
        let numbered = |table: &'a Table| {
            let first = next;
            next = first.saturating_add(number(table.leaves())).saturating_add(1);
            (first, table)
        };
        Line { tables: tables.into_iter().map(numbered).collect() }
    }

    /// The leaves, most promising first, without those whose centroid is further from the query than `ratio` times the nearest
    /// one's. Never none, if there are leaves. (For inner products far is not worse: there all are kept.)
    ///
    /// - `views`: of each table its [`Table::views`].
    pub fn rank<'v>(&self, views: impl IntoIterator<Item = &'v [LeafView]>, ratio: f32) -> Vec<u32> {
        let Some((_, table)) = self.tables.first() else { return Vec::new() };
        let of_table = |((first, _), views): (&(u32, &Table), &'v [LeafView])| (*first..).zip(views);
        rank(self.tables.iter().zip(views).flat_map(of_table).collect(), table.frame().space(), ratio)
    }

    /// The stretches of leaves to read, ascending, each with the number of its table: as much worth as `budget` buys; at least the
    /// first of `ranked`.
    ///
    /// - `ranked`: of [`Line::rank`]; a leaf's worth falls with its place.
    ///
    /// Cost: some ten times `O(n log n)` in the leaves that twice the budget holds; linear where ranges are not scarce.
    pub fn plan(&self, ranked: &[u32], budget: &Budget) -> Vec<(usize, Range<usize>)> {
        let Some(first) = ranked.first() else { return Vec::new() };
        // Twice what the budget holds: more could only be bought at the price of nearer ones.
        let considered = self.count_within(ranked, budget.bytes.saturating_mul(2)) + 1;
        let mut worth: Vec<(u32, f32)> = ranked.iter().copied().zip((0..considered).map(worth_of_rank)).collect();
        let affordable = self.count_within(ranked, budget.bytes);
        let mut best = joined(&worth[..affordable.max(1)]);
        if best.len() > budget.ranges {
            worth.sort_unstable_by_key(|(leaf, _)| *leaf);
            best = self.at_the_right_price(&worth, budget);
            best = if best.is_empty() { joined(&[(*first, 0.0)]) } else { best };
        }
        best.into_iter().map(|leaves| self.of_table(&leaves)).collect()
    }

    /// The table that `leaves` are of, if they are of one, and what it calls them.
    fn of_table(&self, leaves: &Range<u32>) -> (usize, Range<usize>) {
        let table = self.tables.partition_point(|(first, _)| *first <= leaves.start) - 1;
        let first = self.tables[table].0;
        (table, index(leaves.start - first)..index(leaves.end - first))
    }

    /// The rows of `leaves` and their bytes; `None` if they are of two tables.
    fn size(&self, leaves: &Range<u32>) -> Option<(u32, u64)> {
        let (table, leaves) = self.of_table(leaves);
        let table = self.tables[table].1;
        let rows = (leaves.end <= table.leaves()).then(|| table.rows(leaves))?;
        let rows = rows.end - rows.start;
        Some((rows, u64::from(rows) * table.codec().row_bytes() as u64))
    }

    fn bytes(&self, leaves: &Range<u32>) -> u64 {
        self.size(leaves).map_or(u64::MAX, |(_, bytes)| bytes)
    }

    /// How many of `ranked` fit in `bytes`, in their order.
    fn count_within(&self, ranked: &[u32], bytes: u64) -> usize {
        let mut left = bytes;
        let fits = |leaf: &&u32| {
            let rest = left.checked_sub(self.bytes(&(**leaf..**leaf + 1)));
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        ranked.iter().take_while(fits).count()
    }

    /// The best stretches at the lowest price of a row at which they fit the budget; none if there is no such price.
    fn at_the_right_price(&self, worth: &[(u32, f32)], budget: &Budget) -> Vec<Range<u32>> {
        // Between a price that is all but nothing and one that no leaf is worth.
        let (mut cheap, mut dear) = (1e-9_f32, 1.0_f32);
        let mut best = Vec::new();
        for _ in 0..PRICES {
            let price = (cheap * dear).sqrt();
            let cost = |leaves: &Range<u32>| self.size(leaves).map_or(PROHIBITIVE, |(rows, _)| price * rows as f32);
            let item = |(leaf, worth): &(u32, f32)| {
                let at = *leaf..*leaf + 1;
                Item { value: worth - cost(&at), at }
            };
            let items: Vec<Item> = worth.iter().map(item).collect();
            let found = stretches::best(&items, |gap| cost(&gap), budget.ranges);
            if found.iter().map(|leaves| self.bytes(leaves)).sum::<u64>() > budget.bytes {
                cheap = price;
            } else {
                dear = price;
                best = if found.is_empty() { best } else { found };
            }
        }
        best
    }
}

/// Tries at the price of a row.
const PRICES: usize = 9;

/// See [`Line::rank`].
fn rank(views: Vec<(u32, &LeafView)>, space: Space, ratio: f32) -> Vec<u32> {
    let by_distance = |(a, a_view): &(u32, &LeafView), (b, b_view): &(u32, &LeafView)| {
        a_view.rank.total_cmp(&b_view.rank).then_with(|| a.cmp(b))
    };
    let mut leaves = views;
    let Some((first, nearest)) = leaves.iter().copied().min_by(by_distance) else { return Vec::new() };
    let farthest = if space == Space::Ip { f32::INFINITY } else { nearest.apart * ratio };
    leaves.retain(|(leaf, view)| *leaf == first || view.apart <= farthest);
    leaves.sort_unstable_by(by_distance);
    leaves.into_iter().map(|(leaf, _)| leaf).collect()
}

/// How often a leaf of this rank holds a neighbour, but for a factor: as measured, and not sensitive.
fn worth_of_rank(rank: usize) -> f32 {
    (rank as f32 + 10.0).powf(-1.5)
}

/// `leaves` as stretches.
fn joined(leaves: &[(u32, f32)]) -> Vec<Range<u32>> {
    let mut leaves: Vec<u32> = leaves.iter().map(|(leaf, _)| *leaf).collect();
    leaves.sort_unstable();
    let mut stretches: Vec<Range<u32>> = Vec::new();
    for leaf in leaves {
        match stretches.last_mut() {
            Some(last) if last.end == leaf => last.end += 1,
            _ => stretches.push(leaf..leaf + 1),
        }
    }
    stretches
}

/// Rows to compare exactly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowPlan {
    /// The rows, ascending.
    pub rows: Vec<u32>,
    /// The stretches that hold them, and others in gaps: ascending.
    pub ranges: Vec<Range<u32>>,
}

/// How rows are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rerank {
    /// Neighbours that are wanted.
    pub k: usize,
    /// Rows that are compared exactly, at most.
    pub rows: usize,
    /// Bytes of a row's exact vector.
    pub row_bytes: u64,
    /// Byte ranges, at most: each is a GET.
    pub ranges: usize,
    /// Gaps up to so many bytes are read through.
    pub gap_bytes: u64,
    /// Bytes that one neighbour more, of the `k`, may cost.
    pub neighbour_bytes: u64,
}

/// A row with a smaller chance to be among the nearest is not compared.
const CHANCE_MIN: f32 = 0.01;

/// The rows to compare exactly, by their chance to be among the `k` nearest: that their distance, by its estimate and error, is
/// below the `k`-th smallest estimate.
pub fn rows(estimates: Vec<Estimate>, rerank: &Rerank) -> RowPlan {
    let candidates = nearest(estimates, rerank.rows.max(rerank.k));
    let Some(last) = candidates.get(rerank.k.saturating_sub(1)).or(candidates.last()).map(|last| last.distance) else {
        return RowPlan::default();
    };
    let mut chances: Vec<(u32, f32)> = candidates
        .iter()
        .map(|candidate| (candidate.row, chance(candidate, last)))
        .filter(|(_, chance)| *chance >= CHANCE_MIN)
        .collect();
    chances.sort_unstable_by_key(|(row, _)| *row);
    let price = rerank.row_bytes as f32 / rerank.neighbour_bytes.max(1) as f32;
    let free = u32::try_from(rerank.gap_bytes / rerank.row_bytes.max(1)).unwrap_or(u32::MAX);
    let mut items: Vec<Item> = Vec::new();
    for (row, chance) in &chances {
        match items.last_mut() {
            Some(item) if row.saturating_sub(item.at.end) <= free => {
                item.at.end = row.saturating_add(1);
                item.value += chance;
            }
            _ => items.push(Item { at: *row..row.saturating_add(1), value: *chance }),
        }
    }
    let ranges = stretches::best(&items, |gap| price * gap.len() as f32, rerank.ranges);
    let is_read = |row: &u32| ranges.iter().any(|range| range.contains(row));
    RowPlan { rows: chances.into_iter().map(|(row, _)| row).filter(is_read).collect(), ranges }
}

/// About the chance that the true distance is not above `last`.
fn chance(estimate: &Estimate, last: f32) -> f32 {
    let deviations = (estimate.distance - last) / estimate.error.max(f32::MIN_POSITIVE);
    // The logistic curve that is nearest to that of normal errors. What is not a number is read.
    let chance = 1.0 / (1.0 + (1.702 * deviations).exp());
    if chance.is_nan() { 1.0 } else { chance }
}

/// The `count` most promising of `estimates`, nearest first.
fn nearest(mut estimates: Vec<Estimate>, count: usize) -> Vec<Estimate> {
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
