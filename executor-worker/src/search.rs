//! What stored rows contribute to an answer: those of a page, or the nearest ones.

use crate::Executor;
use futures_util::future::join;
use model::{Metadata, MetadataValue, Space, limits};
use query::{CompiledFilter, Fields, PlanError, Read, Rival, Source, TopK, kernel::Measure};
use runtime::Runtime;
use segment::codes::{self, CodeQuery};
use segment::row::RowView;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::ControlFlow;
use storage::ObjectStore;
use stored::{Base, Block, Hidden, OpenSegment, Place, Slots};

/// A read of stored rows, as of a moment of the log above them.
pub(crate) struct Search<'a> {
    pub(crate) base: &'a Base,
    pub(crate) source: &'a Source,
    pub(crate) read: &'a Read,
    /// What the log hides of them.
    pub(crate) hidden: Hidden,
    /// The ids that the read names and the log does not have; `None` if it names none.
    pub(crate) ids: Option<Vec<&'a str>>,
}

/// Rows that pass a filter are kept while they are no more than this.
const KEPT_HITS_MAX: usize = 1_024;

/// A stored row as filters see it.
struct StoredFields<'a> {
    row: &'a RowView<'a>,
    metadata: Metadata,
}

impl<'a> StoredFields<'a> {
    fn new(row: &'a RowView<'a>) -> Result<Self, PlanError> {
        let broken = |error| PlanError::Corrupt(format!("a stored row has metadata that cannot be read: {error}"));
        let metadata = row.metadata.map(serde_json::from_str).transpose().map_err(broken)?;
        Ok(StoredFields { row, metadata: metadata.unwrap_or_default() })
    }
}

impl Fields for StoredFields<'_> {
    fn metadata(&self, key: &str) -> Option<&MetadataValue> {
        self.metadata.get(key)
    }

    fn document(&self) -> Option<&str> {
        self.row.document
    }

    fn uri(&self) -> Option<&str> {
        self.row.uri
    }
}

/// Whether a row satisfies the filter, if there is one.
fn passes(filter: Option<&CompiledFilter>, row: &RowView<'_>) -> Result<bool, PlanError> {
    filter.map_or(Ok(true), |filter| Ok(filter.matches(&StoredFields::new(row)?)))
}

impl<S: ObjectStore, R: Runtime> Executor<'_, S, R> {
    /// The stored rows that may be hits: see [`query::Overlay::begin_over`].
    ///
    /// Cost: by ids a stretch of each id index and the rows; a page without a filter the positions of all rows; a query
    /// without a filter the codes of all rows and the rows of some candidates; else rows, until there are enough.
    pub(crate) async fn rivals(&self, search: &Search<'_>) -> Result<(Vec<Vec<Rival>>, Slots), PlanError> {
        let filter = match search.read {
            Read::Count => return Ok((Vec::new(), Slots::new())),
            Read::Get { filter, .. } | Read::Match { filter, .. } | Read::Query { filter, .. } => filter.as_ref(),
        };
        let compile = |filter| CompiledFilter::compile(filter).map_err(|error| PlanError::Invalid(error.to_string()));
        let filter = filter.map(compile).transpose()?;
        match search.read {
            Read::Query { vectors, n_results, .. } => self.nearest(search, vectors, *n_results, filter.as_ref()).await,
            read => Ok((vec![self.page(search, read.page().end, filter.as_ref()).await?], Slots::new())),
        }
    }

    /// The first rows, by position.
    async fn page(
        &self,
        search: &Search<'_>,
        enough: usize,
        filter: Option<&CompiledFilter>,
    ) -> Result<Vec<Rival>, PlanError> {
        if enough == 0 {
            return Ok(Vec::new());
        }
        self.stored().open(search.base).await?;
        if search.ids.is_none() && filter.is_none() {
            self.stored().read_positions(search.base).await?;
            let visible = search.base.in_order().filter(|(_, place)| !search.hidden.contains(*place));
            let rival = |(position, place): (_, Place)| Rival { distance: 0.0, position, place: place.number() };
            return Ok(visible.map(rival).take(enough).collect());
        }
        let mut rivals = Vec::new();
        self.for_each(search, filter, |place, row| {
            rivals.push(Rival { distance: 0.0, position: row.position, place: place.number() });
            if rivals.len() <= KEPT_HITS_MAX {
                // It will be an answer, most likely, and then its batch need not be read again.
                self.stored().keep(search.base, place, row);
            }
            if rivals.len() < enough || search.ids.is_some() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .await?;
        Ok(rivals)
    }

    /// The rows nearest to each of `vectors`.
    async fn nearest(
        &self,
        search: &Search<'_>,
        vectors: &[Vec<f32>],
        n_results: u64,
        filter: Option<&CompiledFilter>,
    ) -> Result<(Vec<Vec<Rival>>, Slots), PlanError> {
        let k = usize::try_from(n_results).unwrap_or(usize::MAX);
        let measured = |vector| (Measure::new(search.source.space, vector), TopK::new(k));
        let mut lists: Vec<(Measure<'_>, TopK<(model::Position, Place)>)> =
            vectors.iter().map(|vector| measured(vector)).collect();
        let mut slots = Slots::new();
        if search.ids.is_some() || filter.is_some() {
            self.stored().open(search.base).await?;
            self.for_each(search, filter, |place, row| {
                lists.iter_mut().for_each(|(measure, nearest)| {
                    nearest.push(measure.distance(row.vector), (row.position, place));
                });
                ControlFlow::Continue(())
            })
            .await?;
        } else if k > 0 {
            self.stored().open_searched(search.base).await?;
            let (near, candidates) =
                join(Box::pin(self.near(search, vectors, k)), Box::pin(self.candidates(search, vectors, k))).await;
            let (near, mut candidates) = (near?, candidates?);
            for ((all, near), limit) in candidates.iter_mut().zip(near.places).zip(near.limits) {
                all.retain(|(lower, _)| *lower <= limit);
                all.splice(0..0, near.into_iter().map(|place| (f32::NEG_INFINITY, place)));
            }
            slots = near.slots;
            self.rank(search.base, candidates, &slots, &mut lists).await?;
        }
        let rival = |ranked: query::top_k::Ranked<(model::Position, Place)>| Rival {
            distance: ranked.distance,
            position: ranked.row.0,
            place: ranked.row.1.number(),
        };
        let rivals = |nearest: TopK<_>| nearest.into_sorted().into_iter().map(rival).collect();
        Ok((lists.into_iter().map(|(_, nearest)| rivals(nearest)).collect(), slots))
    }

    /// Hands the visible rows that satisfy the filter, of the ids that are asked for if any are, to `take`.
    ///
    /// Errors: [`PlanError::UnknownId`] if a query without a filter asks for an id that is not there.
    async fn for_each(
        &self,
        search: &Search<'_>,
        filter: Option<&CompiledFilter>,
        mut take: impl FnMut(Place, &RowView<'_>) -> ControlFlow<()>,
    ) -> Result<(), PlanError> {
        let Some(ids) = &search.ids else {
            let visible = |place: Place, row: &RowView<'_>| {
                let is_hit = !search.hidden.contains(place) && passes(filter, row)?;
                Ok(if is_hit { take(place, row) } else { ControlFlow::Continue(()) })
            };
            return self.stored().scan_rows(search.base, visible).await;
        };
        let located = self.stored().locate(search.base, ids).await?;
        let mut places: Vec<Place> = located.into_values().filter(|place| !search.hidden.contains(*place)).collect();
        places.sort_unstable();
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if filter.is_none() && matches!(search.read, Read::Query { .. }) && places.len() < distinct.len() {
            return Err(PlanError::UnknownId);
        }
        let take = |place: Place, row: &RowView<'_>| {
            if passes(filter, row)? {
                let _ = take(place, row);
            }
            Ok(())
        };
        self.stored().visit(search.base, &places, &Slots::new(), take).await
    }

    /// For each vector the rows without a leaf index that may be among its `k` nearest, by the lower bound of their distance.
    async fn candidates(
        &self,
        search: &Search<'_>,
        vectors: &[Vec<f32>],
        k: usize,
    ) -> Result<Vec<Vec<(f32, Place)>>, PlanError> {
        let mut lists: Vec<Candidates<'_>> =
            vectors.iter().map(|vector| Candidates::new(search.source.space, vector, k)).collect();
        for together in codes_parts(search.base).chunks(limits::CONNECTIONS_MAX) {
            let blocks: Vec<Block> = together.iter().map(|part| part.block.clone()).collect();
            let check = |at: usize, body: &[u8]| {
                let (number, segment) = (together[at].number, &search.base.segments[together[at].segment as usize]);
                segment.head().check_codes(number, body).map_err(|error| segment.damaged(&error))
            };
            for (part, body) in together.iter().zip(self.stored().fetch(&blocks, check).await?) {
                let segment = &search.base.segments[part.segment as usize];
                let rows = part.rows.end - part.rows.start;
                let codes = codes::in_part(&body, segment.head().dimension(), rows);
                self.tally.estimated.add(rows as usize * lists.len());
                for (row, code) in part.rows.clone().zip(codes.map_err(|error| segment.damaged(&error))?) {
                    let place = Place { segment: part.segment, row };
                    let is_visible = || search.base.is_live(place) && !search.hidden.contains(place);
                    lists.iter_mut().for_each(|list| list.offer(place, code, is_visible));
                }
            }
        }
        Ok(lists.into_iter().map(Candidates::into_sorted).collect())
    }

    /// Measures candidates exactly, the most promising first, until no other can be nearer than those that were found.
    async fn rank(
        &self,
        base: &Base,
        candidates: Vec<Vec<(f32, Place)>>,
        slots: &Slots,
        lists: &mut [(Measure<'_>, TopK<(model::Position, Place)>)],
    ) -> Result<(), PlanError> {
        let mut rest: Vec<&[(f32, Place)]> = candidates.iter().map(Vec::as_slice).collect();
        loop {
            let mut wanted: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
            for (number, (rest, (_, nearest))) in rest.iter_mut().zip(&*lists).enumerate() {
                let can_matter =
                    |(lower, _): &(f32, Place)| nearest.farthest().is_none_or(|farthest| *lower <= farthest);
                let useful = rest.iter().take_while(|candidate| can_matter(candidate)).count();
                // Those that must be looked at, and at first as many others as are wanted and some more: the bounds are close.
                let sure = rest.iter().take_while(|(lower, _)| *lower == f32::NEG_INFINITY).count();
                let (now, later) = rest.split_at(useful.min(sure + nearest.k().saturating_mul(2).saturating_add(8)));
                *rest = if useful == now.len() { &[] } else { later };
                now.iter().for_each(|(_, place)| wanted.entry(*place).or_default().push(number));
            }
            if wanted.is_empty() {
                return Ok(());
            }
            let places: Vec<Place> = wanted.keys().copied().collect();
            let measure = |place: Place, row: &RowView<'_>| {
                for number in &wanted[&place] {
                    let (measure, nearest) = &mut lists[*number];
                    nearest.push(measure.distance(row.vector), (row.position, place));
                }
                Ok::<(), PlanError>(())
            };
            self.tally.measured.add(wanted.values().map(Vec::len).sum());
            self.stored().visit(base, &places, slots, measure).await?;
        }
    }
}

/// A part of codes of a segment.
pub(crate) struct CodesPart {
    segment: u32,
    number: u32,
    rows: std::ops::Range<u32>,
    pub(crate) block: Block,
}

/// All parts of codes of `base`.
pub(crate) fn codes_parts(base: &Base) -> Vec<CodesPart> {
    let of_segment = |(segment, open): (u32, &std::rc::Rc<OpenSegment>)| {
        let named = open.named.clone();
        (0..segment::codes_parts(&named)).map(move |number| {
            let (place, rows) = segment::codes_place(&named, number);
            let block = Block { key: format!("{}/{}", named.prefix, place.part), range: place.range };
            CodesPart { segment, number, rows, block }
        })
    };
    (0..).zip(&base.segments).flat_map(of_segment).collect()
}

/// The rows that may be among the nearest to one vector.
struct Candidates<'q> {
    query: CodeQuery<'q>,
    k: usize,
    /// The `k` smallest upper bounds, the largest on top: no row whose lower bound is above it can matter.
    uppers: BinaryHeap<Total>,
    kept: Vec<(f32, Place)>,
    /// How many may be kept before those that cannot matter any more are dropped.
    room: usize,
}

/// A distance that orders.
#[derive(Clone, Copy, PartialEq)]
struct Total(f32);

impl Eq for Total {}

impl Ord for Total {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<'q> Candidates<'q> {
    const ROOM: usize = 4_096;

    fn new(space: Space, vector: &'q [f32], k: usize) -> Self {
        let query = CodeQuery::new(space, vector);
        Candidates { query, k, uppers: BinaryHeap::new(), kept: Vec::new(), room: Self::ROOM }
    }

    fn limit(&self) -> f32 {
        if self.uppers.len() < self.k { f32::INFINITY } else { self.uppers.peek().map_or(f32::INFINITY, |top| top.0) }
    }

    /// Takes note of a row unless others are surely nearer; only then it is asked whether it `is_visible`.
    fn offer(&mut self, place: Place, code: &[u8], is_visible: impl Fn() -> bool) {
        let bounds = self.query.bounds(code);
        if bounds.lower > self.limit() || !is_visible() {
            return;
        }
        self.uppers.push(Total(bounds.upper));
        if self.uppers.len() > self.k {
            self.uppers.pop();
        }
        self.kept.push((bounds.lower, place));
        if self.kept.len() >= self.room {
            self.drop_hopeless();
            self.room = Self::ROOM.max(2 * self.kept.len());
        }
    }

    fn drop_hopeless(&mut self) {
        let limit = self.limit();
        self.kept.retain(|(lower, _)| *lower <= limit);
    }

    fn into_sorted(mut self) -> Vec<(f32, Place)> {
        self.drop_hopeless();
        self.kept.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.kept
    }
}
