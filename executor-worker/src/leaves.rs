//! The rows nearest to a vector, by leaf indexes: of a few leaves whose centroids are near those rows that seem nearest.

use crate::Executor;
use crate::cache::Pulse;
use crate::filters::Sight;
use crate::search::Search;
use query::{PlanError, Source};
use runtime::Runtime;
use segment::LeafIndex;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use storage::ObjectStore;
use stored::{Base, Place, Slots};
use vector::codes::{self, LeafView};
use vector::probe::{self, Effort, Line, RowPlan};
use vector::{Estimate, Query, Table};

/// What leaf indexes say of some vectors.
#[derive(Default)]
pub(crate) struct Near {
    /// For each vector rows to look at exactly, by the lower bound of their distance: negative infinity for those that must be.
    pub(crate) candidates: Vec<Vec<(f32, Place)>>,
    /// For each vector a distance that `k` rows do not exceed, most likely: what is surely farther off need not be looked at.
    pub(crate) limits: Vec<f32>,
    /// Where these rows lie in the leaf indexes.
    pub(crate) slots: Slots,
}

/// Each time that too few rows were found, so many times as much is read.
const MORE: usize = 8;

/// Rows whose estimates are kept for each result, and at least.
const KEPT_PER_RESULT: usize = 20;
const KEPT_MIN: usize = 400;
/// So many times as many where some of them may turn out to be no hits.
const UNSURE_TIMES: usize = 4;
/// What `ef_search` is where the usual effort is wanted, and up to how many times that it may ask for.
const EF_SEARCH_USUAL: u64 = 100;
const TIMES_MAX: u64 = 16;
/// An estimate is seldom off by more than so many times its error.
const DEVIATIONS: f32 = 3.0;
/// Bytes of rows that one neighbour more may cost.
const NEIGHBOUR_BYTES: u64 = 2 * 1024 * 1024;

/// What rows that seem near deserve.
struct Look {
    /// So many times the usual number of ranges.
    ranges: usize,
    /// Where no more rows were met all of them are looked at.
    all_of: usize,
}

impl Look {
    const USUAL: Look = Look { ranges: 1, all_of: 128 };
    /// Rows that a filter leaves lie scattered: each is a read.
    const FILTERED: Look = Look { ranges: 4, all_of: 48 };
}

/// Leaves that are read together, in bytes: as much as one vector wants, a filter included. What is beyond them waits for another
/// wave.
const TOGETHER_BYTES: usize = 11 * 1024 * 1024;
/// What the bodies of gets take while leaves are cut out of them.
const BODIES_BYTES: usize = 6 * 1024 * 1024;

/// Memory in which leaves and rows are read, about: whatever the number of vectors.
pub(crate) fn bytes(base: &Base) -> usize {
    let has_index = base.segments.iter().any(|segment| segment.named.index.is_some());
    if has_index { TOGETHER_BYTES + BODIES_BYTES } else { 0 }
}

impl<S: ObjectStore, R: Runtime> Executor<'_, S, R> {
    /// The rows in leaf indexes that may be among the `k` nearest to each of `vectors`: as many at least as are visible, up to
    /// `k`.
    ///
    /// Cost: the tables of leaves, then leaves: as [`Effort::cold`] says; more, up to all, as long as fewer than `k` visible
    /// rows were met.
    pub(crate) async fn near(&self, search: &Search<'_>, vectors: &[Vec<f32>], k: usize) -> Result<Near, PlanError> {
        let indexes = indexes(search.base, |segment| search.is_searched(segment));
        let is_unsure = search.is_unsure();
        let mut near = Near::default();
        let mut probes: Vec<Probe<'_>> = vectors.iter().map(|vector| Probe::new(&indexes, vector)).collect();
        let mut lists: Vec<Seen> = vectors.iter().map(|_| Seen::new(k, is_unsure)).collect();
        let usual = usual_times(search.source.ef_search).saturating_mul(filtered_times(search, &indexes));
        let mut times = usual;
        loop {
            let mut wanted: BTreeMap<Leaf, Vec<usize>> = BTreeMap::new();
            for (vector, (probe, seen)) in probes.iter_mut().zip(&lists).enumerate() {
                let is_short = times == usual || seen.met < k;
                let leaves = if is_short { probe.next(k, times) } else { Vec::new() };
                leaves.into_iter().for_each(|leaf| wanted.entry(leaf).or_default().push(vector));
            }
            if wanted.is_empty() {
                break;
            }
            let wanted: Vec<(Leaf, Vec<usize>)> = wanted.into_iter().collect();
            let scan_all = async {
                for together in in_pieces(&wanted, |(leaf, _)| leaf_bytes(&indexes, *leaf)) {
                    self.scan(search, &indexes, together, &probes, &mut lists).await?;
                }
                Ok::<(), PlanError>(())
            };
            self.tally.reads.one_wave(Box::pin(scan_all)).await?;
            times = times.saturating_mul(MORE);
        }
        let look = if search.passing.is_some() { Look::FILTERED } else { Look::USUAL };
        lists.into_iter().for_each(|seen| near.add(&indexes, seen, k, usual, &look));
        Ok(near)
    }

    /// Reads the leaves that a query for `vector` without a filter looks at: those that one with a filter, which is being looked
    /// up meanwhile, most likely needs as well. They are kept. Indexes are open.
    pub(crate) async fn expect_leaves(
        &self,
        base: &Base,
        source: &Source,
        vector: &[f32],
        k: usize,
        pulse: &Pulse,
    ) -> Result<(), PlanError> {
        let indexes = indexes(base, |_| true);
        let wanted = Probe::new(&indexes, vector).next(k, usual_times(source.ef_search));
        let bytes = |leaf: &Leaf| leaf_bytes(&indexes, *leaf);
        let Some(first) = in_pieces(&wanted, bytes).next() else { return Ok(()) };
        let first_bytes = usize::try_from(first.iter().map(bytes).sum::<u64>()).unwrap_or(usize::MAX);
        let _permit = self.cache.permit(first_bytes, pulse, &self.runtime).await?;
        self.stored().leaves(base, &in_segments(&indexes, first.iter().copied())).await?;
        Ok(())
    }

    /// Reads leaves and estimates how far their visible rows are from the vectors that want them.
    async fn scan(
        &self,
        search: &Search<'_>,
        indexes: &[At<'_>],
        wanted: &[(Leaf, Vec<usize>)],
        probes: &[Probe<'_>],
        lists: &mut [Seen],
    ) -> Result<(), PlanError> {
        let leaves = in_segments(indexes, wanted.iter().map(|(leaf, _)| *leaf));
        let mut estimates = Vec::new();
        for ((leaf, vectors), body) in wanted.iter().zip(self.stored().leaves(search.base, &leaves).await?) {
            let (at, leaf) = (&indexes[leaf.index], leaf.leaf);
            let (open, table) = (&search.base.segments[at.segment as usize], at.index.table());
            let read = at.index.leaf(leaf, &body).map_err(|error| open.damaged(&error))?;
            let first = table.rows(leaf..leaf + 1).start;
            self.tally.leaves.add(1);
            for vector in vectors {
                let (query, views) = &probes[*vector].sights[at.number];
                estimates.clear();
                codes::estimate(query, table.codec(), views[leaf], read.codes, first, &mut estimates)
                    .map_err(|error| PlanError::Corrupt(format!("{}: {error}", open.named.prefix)))?;
                self.tally.estimated.add(estimates.len());
                let seen = &mut lists[*vector];
                for (row, estimate) in estimates.iter().enumerate() {
                    if estimate.distance > seen.limit {
                        continue;
                    }
                    let place = Place { segment: at.segment, row: read.row(row) };
                    if search.sees(place) != Sight::Hidden {
                        seen.push(place, Estimate { row: estimate.row + at.offset, ..*estimate });
                    }
                }
            }
        }
        Ok(())
    }
}

/// How many times the usual effort a filter asks for: the fewer rows satisfy it, the farther off are the nearest of them.
fn filtered_times(search: &Search<'_>, indexes: &[At<'_>]) -> usize {
    let rows: u64 = indexes.iter().map(|at| u64::from(at.index.rows())).sum();
    let possible: u64 = indexes.iter().map(|at| search.possible(at.segment)).sum();
    match rows / possible.max(1) {
        0..2 => 1,
        2 => 2,
        3..30 => 3,
        30..300 => 4,
        _ => 6,
    }
}

/// How many times the usual effort `ef_search` asks for.
fn usual_times(ef_search: u64) -> usize {
    let times = ef_search.div_ceil(EF_SEARCH_USUAL).clamp(1, TIMES_MAX);
    usize::try_from(times).expect("it is small")
}

/// A leaf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Leaf {
    /// Number of its index among those that are searched.
    index: usize,
    /// Its number there.
    leaf: usize,
}

fn leaf_bytes(indexes: &[At<'_>], Leaf { index, leaf }: Leaf) -> u64 {
    let place = indexes[index].index.leaf_place(leaf);
    place.range.end - place.range.start
}

/// Segment and number of each leaf.
fn in_segments(indexes: &[At<'_>], leaves: impl Iterator<Item = Leaf>) -> Vec<(u32, usize)> {
    leaves.map(|Leaf { index, leaf }| (indexes[index].segment, leaf)).collect()
}

/// `all` in pieces of up to [`TOGETHER_BYTES`], of one at least.
fn in_pieces<T>(all: &[T], bytes: impl Fn(&T) -> u64) -> impl Iterator<Item = &[T]> {
    let mut rest = all;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |one: &&T| {
            sum += bytes(one);
            sum <= TOGETHER_BYTES as u64
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (piece, others) = rest.split_at(count);
        rest = others;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A leaf index among those of a base.
#[derive(Clone, Copy)]
struct At<'a> {
    /// Its place among them.
    number: usize,
    segment: u32,
    index: &'a LeafIndex,
    /// What makes its slots numbers that no other index has, and that none is near to.
    offset: u32,
}

/// Between the slots of two indexes: no stretch of rows is worth bridging that.
const APART: u32 = 1 << 16;

fn indexes(base: &Base, is_searched: impl Fn(u32) -> bool) -> Vec<At<'_>> {
    let mut offset = 0;
    let segments = (0..).zip(&base.segments).filter(|(_, segment)| segment.named.index.is_some());
    let searched = segments.filter(|(number, _)| is_searched(*number));
    searched
        .enumerate()
        .map(|(number, (segment, open))| {
            let at = At { number, segment, index: open.index(), offset };
            offset += at.index.rows() + APART;
            at
        })
        .collect()
}

/// What one vector wants.
struct Probe<'a> {
    line: Line<'a>,
    tables: Vec<&'a Table>,
    /// The vector and all leaves, as each index sees them.
    sights: Vec<(Query, Vec<LeafView>)>,
    asked: BTreeSet<Leaf>,
}

impl<'a> Probe<'a> {
    fn new(indexes: &[At<'a>], vector: &[f32]) -> Self {
        let tables: Vec<&Table> = indexes.iter().map(|at| at.index.table()).collect();
        let see = |table: &&Table| {
            let query = table.frame().query(vector);
            let views = table.views(&query);
            (query, views)
        };
        let sights = tables.iter().map(see).collect();
        Probe { line: Line::of(tables.iter().copied()), tables, sights, asked: BTreeSet::new() }
    }

    /// The leaves to look at that were not asked for before, if so many `times` the usual is done for `k` neighbours. What is kept
    /// makes no difference: the same question has the same answer.
    fn next(&mut self, k: usize, times: usize) -> Vec<Leaf> {
        let Some(first) = self.tables.first() else { return Vec::new() };
        let effort = Effort::cold(first.codec().dimension, k).times(times).over(self.tables.len());
        let all = self.tables.iter().map(|table| 0..table.leaves()).enumerate();
        let all_bytes: u64 = self.tables.iter().map(|table| table.bytes(0..table.leaves()).end).sum();
        let stretches = if all_bytes <= effort.leaves.bytes {
            all.collect()
        } else {
            let ranked = self.line.rank(self.sights.iter().map(|(_, views)| &views[..]), effort.ratio);
            self.line.plan(&ranked, &effort.leaves)
        };
        let leaves = stretches.into_iter().flat_map(|(index, leaves)| leaves.map(move |leaf| Leaf { index, leaf }));
        leaves.filter(|leaf| self.asked.insert(*leaf)).collect()
    }
}

/// The visible rows that were met for one vector: those that seem nearest.
struct Seen {
    /// How many are kept.
    most: usize,
    /// Whether some of them may turn out to be no hits.
    is_unsure: bool,
    /// How many were met, before that many were: from then on those beyond the limit are passed over uncounted.
    met: usize,
    /// What is farther than this is none of them.
    limit: f32,
    kept: Vec<(Estimate, Place)>,
}

impl Seen {
    fn new(k: usize, is_unsure: bool) -> Self {
        let most = k.saturating_mul(KEPT_PER_RESULT).max(KEPT_MIN);
        let most = most.saturating_mul(if is_unsure { UNSURE_TIMES } else { 1 });
        Seen { most, is_unsure, met: 0, limit: f32::INFINITY, kept: Vec::new() }
    }

    fn push(&mut self, place: Place, estimate: Estimate) {
        self.met += 1;
        self.kept.push((estimate, place));
        if self.kept.len() >= self.most.saturating_mul(2) {
            let (_, (last, _), _) = self.kept.select_nth_unstable_by(self.most, by_distance);
            // Those as far as the limit go on: which of them are kept is decided by their numbers.
            self.limit = last.distance;
            self.kept.truncate(self.most);
        }
    }
}

fn by_distance((a, _): &(Estimate, Place), (b, _): &(Estimate, Place)) -> Ordering {
    a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row))
}

impl Near {
    /// Takes from `seen` what is worth a closer look, if so many `times` the usual is done.
    fn add(&mut self, indexes: &[At<'_>], seen: Seen, k: usize, times: usize, look: &Look) {
        let Some(largest) = indexes.iter().max_by_key(|at| at.index.rows()) else {
            self.candidates.push(Vec::new());
            self.limits.push(f32::INFINITY);
            return;
        };
        let mut rerank = Effort::cold(largest.index.dimension(), k).times(times).over(indexes.len()).rerank;
        // Rows come with all that they have.
        rerank.row_bytes = largest.index.near_row_bytes();
        rerank.neighbour_bytes = NEIGHBOUR_BYTES;
        rerank.ranges = rerank.ranges.saturating_mul(look.ranges);
        let Seen { mut kept, is_unsure, .. } = seen;
        let RowPlan { rows, ranges } = probe::rows(kept.iter().map(|(estimate, _)| *estimate).collect(), &rerank);
        for at in indexes {
            let own = |range: &Range<u32>| {
                range.start.saturating_sub(at.offset)..range.end.saturating_sub(at.offset).min(at.index.rows())
            };
            ranges
                .iter()
                .map(own)
                .filter(|slots| !slots.is_empty())
                .for_each(|slots| self.slots.join(at.segment, slots));
        }
        let is_all = kept.len() <= look.all_of;
        // What exists is found, far apart or not.
        kept.sort_unstable_by(by_distance);
        // Of few rows all are compared, and so are those of other segments: then nothing at all is missed.
        let last = k.checked_sub(1).and_then(|last| kept.get(last)).filter(|_| !is_all && !is_unsure);
        self.limits.push(last.map_or(f32::INFINITY, |(last, _)| last.distance + DEVIATIONS * last.error));
        let mut missing = k.min(kept.len()).saturating_sub(rows.len());
        let mut candidates = Vec::new();
        for (estimate, place) in kept {
            let is_chosen = is_all || rows.binary_search(&estimate.row).is_ok();
            let must_be = is_chosen || missing > 0;
            missing -= usize::from(must_be && !is_chosen);
            if must_be || is_unsure {
                let at = indexes.iter().find(|at| at.segment == place.segment).expect("it is of an index");
                self.slots.insert(place, estimate.row - at.offset);
                let lower = estimate.distance - DEVIATIONS * estimate.error;
                candidates.push((if must_be { f32::NEG_INFINITY } else { lower }, place));
            }
        }
        self.candidates.push(candidates);
    }
}
