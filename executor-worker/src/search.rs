//! What stored rows contribute to an answer: those of a page, or the nearest ones.

use crate::Executor;
use crate::filters::{self, Passing, Sight};
use bytes::Bytes;
use futures_util::future::join;
use model::{Position, Space, limits};
use query::{CompiledFilter, PlanError, Read, Rival, Source, TopK, kernel::Measure};
use runtime::Runtime;
use segment::codes::{self, CodeQuery};
use segment::row::RowView;
use std::collections::{BTreeMap, BinaryHeap};
use storage::ObjectStore;
use stored::{Base, Block, Hidden, OpenSegment, Place, Slots, StoredError};
use text::Keywords;

/// A read of stored rows, as of a moment of the log above them.
pub(crate) struct Search<'a> {
    pub(crate) base: &'a Base,
    pub(crate) source: &'a Source,
    pub(crate) read: &'a Read,
    /// What the log hides of them.
    pub(crate) hidden: Hidden,
    /// The ids that the read names and the log does not have; `None` if it names none.
    pub(crate) ids: Option<Vec<&'a str>>,
    /// The rows that satisfy its filter; `None` if it has none, or names ids.
    pub(crate) passing: Option<Passing>,
    /// What it ranks by, if it ranks.
    pub(crate) keywords: Option<&'a Keywords>,
}

/// Unsure rows of a page that are looked at together, at first.
const VERIFIED_TOGETHER: usize = 64;
/// Rows of a page that are decided on together.
const ROWS_TOGETHER: usize = 16 * 1024;
/// So few rows of a segment are measured without looking at leaves or codes first: their batches are a few megabytes.
const MEASURED_AT_ONCE: u64 = 48;

/// The nearest rows to a vector, as far as they are known.
type Nearest<'v> = (Measure<'v>, TopK<(Position, Place)>);
/// Rows that may be among the nearest to a vector, with a lower bound of their distance; ascending.
type Candidate = (f32, Place);

impl Search<'_> {
    /// What is known of a row: whether it is a hit, but for its distance.
    pub(crate) fn sees(&self, place: Place) -> Sight {
        match &self.passing {
            Some(passing) => passing.sees(place),
            None if self.base.is_live(place) && !self.hidden.contains(place) => Sight::Visible,
            None => Sight::Hidden,
        }
    }

    pub(crate) fn numbers(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.base.segments.len()).expect("a manifest has few segments")
    }

    /// The live rows of segment number `segment` that the log does not hide, ascending.
    pub(crate) fn unhidden(&self, segment: u32) -> impl Iterator<Item = Place> {
        let places = (0..self.base.segments[segment as usize].named.rows).map(move |row| Place { segment, row });
        places.filter(|place| self.base.is_live(*place) && !self.hidden.contains(*place))
    }

    /// The rows of segment number `segment` that are hits for sure, but for what ranks them, ascending.
    pub(crate) fn visible(&self, segment: u32) -> Box<dyn Iterator<Item = Place> + '_> {
        match &self.passing {
            Some(passing) => {
                let sure = passing.rows(segment).filter(|(_, is_sure)| *is_sure);
                Box::new(sure.map(|(place, _)| place))
            }
            None => Box::new(self.unhidden(segment)),
        }
    }

    /// Rows of segment number `segment` that may be hits, at most.
    pub(crate) fn possible(&self, segment: u32) -> u64 {
        let rows = u64::from(self.base.segments[segment as usize].named.rows);
        self.passing.as_ref().map_or(rows, |passing| passing.possible(segment))
    }

    /// Whether codes or leaves are worth a look: whether the filter leaves more rows of the segment than are measured at once.
    pub(crate) fn is_searched(&self, segment: u32) -> bool {
        self.passing.as_ref().is_none_or(|passing| passing.possible(segment) > MEASURED_AT_ONCE)
    }

    /// Whether of some rows it is not known whether they satisfy the filter.
    pub(crate) fn is_unsure(&self) -> bool {
        self.passing.as_ref().is_some_and(|passing| self.numbers().any(|segment| passing.is_unsure(segment)))
    }

    /// The rows of segments that are not searched: they are measured at once.
    fn at_once(&self) -> Vec<Candidate> {
        let Some(passing) = &self.passing else { return Vec::new() };
        let segments = self.numbers().filter(|segment| !self.is_searched(*segment));
        segments.flat_map(|segment| passing.rows(segment)).map(|(place, _)| (f32::NEG_INFINITY, place)).collect()
    }

    /// The rows that may be hits, by position, and whether they surely are. Positions were read.
    fn in_order(&self) -> Box<dyn Iterator<Item = (Position, Place, bool)> + '_> {
        let Some(passing) = &self.passing else {
            let visible = self.base.in_order().filter(|(_, place)| !self.hidden.contains(*place));
            return Box::new(visible.map(|(position, place)| (position, place, true)));
        };
        let of = |segment: u32| {
            let with_position = move |(place, is_sure)| (self.base.position(place), place, is_sure);
            passing.rows(segment).map(with_position).peekable()
        };
        let mut segments: Vec<_> = self.numbers().map(of).collect();
        Box::new(std::iter::from_fn(move || {
            let heads = segments.iter_mut().filter_map(|rows| Some((rows.peek()?.0, rows)));
            heads.min_by_key(|(position, _)| *position)?.1.next()
        }))
    }
}

impl<S: ObjectStore, R: Runtime> Executor<'_, S, R> {
    /// The stored rows that may be hits: see [`query::Overlay::begin_over`].
    ///
    /// Cost: by ids a stretch of each id index and the rows; a page the positions of all rows; a query leaves and codes and the
    /// rows of some candidates. Of rows that text indexes are unsure of as many are looked at as it takes.
    pub(crate) async fn rivals(&self, search: &mut Search<'_>) -> Result<(Vec<Vec<Rival>>, Slots), PlanError> {
        match search.read {
            Read::Count | Read::Rank { .. } => Ok((Vec::new(), Slots::new())),
            Read::Query { vectors, filter, .. } => {
                let k = search.read.n_results();
                let mut lists: Vec<Nearest<'_>> =
                    vectors.iter().map(|vector| (Measure::new(search.source.space, vector), TopK::new(k))).collect();
                let mut slots = Slots::new();
                if let Some(ids) = &search.ids {
                    let filter = filter.as_ref().map(filters::compile).transpose()?;
                    let measure = |place, row: &RowView<'_>| {
                        let distances =
                            lists.iter_mut().map(|(measure, nearest)| (measure.distance(row.vector), nearest));
                        distances.for_each(|(distance, nearest)| nearest.push(distance, (row.position, place)));
                    };
                    self.named(search, ids, filter.as_ref(), measure).await?;
                } else if k > 0 {
                    slots = self.nearest(search, vectors, k, &mut lists).await?;
                }
                Ok((lists.into_iter().map(|(_, nearest)| rivals(nearest)).collect(), slots))
            }
            Read::Get { filter, .. } | Read::Match { filter, .. } => match &search.ids {
                Some(ids) => {
                    let filter = filter.as_ref().map(filters::compile).transpose()?;
                    let mut rivals = Vec::new();
                    let take = |place: Place, row: &RowView<'_>| rivals.push(at_position(row.position, place));
                    self.named(search, ids, filter.as_ref(), take).await?;
                    rivals.sort_by_key(|rival: &Rival| rival.position);
                    Ok((vec![rivals], Slots::new()))
                }
                None => Ok((vec![self.page(search, search.read.page().end).await?], Slots::new())),
            },
        }
    }

    /// The first rows, by position.
    async fn page(&self, search: &Search<'_>, enough: usize) -> Result<Vec<Rival>, PlanError> {
        if enough == 0 {
            return Ok(Vec::new());
        }
        self.stored().read_positions(search.base).await?;
        let (mut rows, mut rivals, mut together) = (search.in_order(), Vec::new(), VERIFIED_TOGETHER);
        while rivals.len() < enough {
            let (mut some, mut unsure) = (Vec::new(), Vec::new());
            while some.len() - unsure.len() < enough - rivals.len()
                && some.len() < ROWS_TOGETHER
                && unsure.len() < together
                && let Some((position, place, is_sure)) = rows.next()
            {
                some.push((position, place, is_sure));
                unsure.extend(Some(place).filter(|_| !is_sure));
            }
            if some.is_empty() {
                break;
            }
            unsure.sort_unstable();
            let found = match &search.passing {
                Some(passing) if !unsure.is_empty() => self.verified(search.base, passing, &unsure).await?,
                _ => Vec::new(),
            };
            let is_found =
                |place: Place| found.get(place.segment as usize).is_some_and(|rows| rows.contains(place.row));
            let hits = some.into_iter().filter(|(_, place, is_sure)| *is_sure || is_found(*place));
            rivals.extend(hits.map(|(position, place, _)| at_position(position, place)));
            together = together.saturating_mul(4);
        }
        rivals.truncate(enough);
        Ok(rivals)
    }

    /// Finds the `k` rows nearest to each of `vectors`; says where leaf indexes have them.
    async fn nearest(
        &self,
        search: &mut Search<'_>,
        vectors: &[Vec<f32>],
        k: usize,
        lists: &mut [Nearest<'_>],
    ) -> Result<Slots, PlanError> {
        self.stored().open_searched(search.base, search.passing.is_some()).await?;
        // A segment without a text index is small.
        let has_text = |segment: &u32| search.base.segments[*segment as usize].named.text.is_some();
        let without: Vec<u32> = search.numbers().filter(|segment| !has_text(segment)).collect();
        self.settle(search, &without).await?;
        let slots = self.look_near(search, vectors, k, lists).await?;
        let is_short = |(_, nearest): &Nearest<'_>| nearest.farthest().is_none();
        if search.is_unsure() && lists.iter().any(is_short) {
            // What seemed nearest did not satisfy the filter, and others may: now it must be known which.
            let all: Vec<u32> = search.numbers().collect();
            self.settle(search, &all).await?;
            lists.iter_mut().for_each(|(_, nearest)| *nearest = TopK::new(k));
            return self.look_near(search, vectors, k, lists).await;
        }
        Ok(slots)
    }

    async fn look_near(
        &self,
        search: &Search<'_>,
        vectors: &[Vec<f32>],
        k: usize,
        lists: &mut [Nearest<'_>],
    ) -> Result<Slots, PlanError> {
        let (near, candidates) =
            join(Box::pin(self.near(search, vectors, k)), Box::pin(self.candidates(search, vectors, k))).await;
        let (near, mut candidates) = (near?, candidates?);
        let at_once = search.at_once();
        for ((all, near), limit) in candidates.iter_mut().zip(near.candidates).zip(near.limits) {
            all.retain(|(lower, _)| *lower <= limit);
            all.extend(near);
            all.extend_from_slice(&at_once);
            all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        }
        self.rank(search, candidates, &near.slots, lists).await?;
        Ok(near.slots)
    }

    /// Hands the visible rows with these `ids` that satisfy the filter to `take`.
    ///
    /// Errors: [`PlanError::UnknownId`] if a query without a filter asks for an id that is not there.
    pub(crate) async fn named(
        &self,
        search: &Search<'_>,
        ids: &[&str],
        filter: Option<&CompiledFilter>,
        mut take: impl FnMut(Place, &RowView<'_>),
    ) -> Result<(), PlanError> {
        let located = self.stored().locate(search.base, ids).await?;
        let mut places: Vec<Place> = located.into_values().filter(|place| !search.hidden.contains(*place)).collect();
        places.sort_unstable();
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if filter.is_none() && matches!(search.read, Read::Query { .. }) && places.len() < distinct.len() {
            return Err(PlanError::UnknownId);
        }
        let take = |place: Place, row: &RowView<'_>| {
            if filter.map_or(Ok(true), |filter| filters::passes(filter, row))? {
                take(place, row);
            }
            Ok(())
        };
        self.stored().visit(search.base, &places, &Slots::new(), take).await
    }

    /// These parts of codes. Heads of their segments are open.
    async fn codes(&self, base: &Base, parts: &[CodesPart]) -> Result<Vec<Bytes>, StoredError> {
        let blocks: Vec<Block> = parts.iter().map(|part| part.block.clone()).collect();
        let check = |at: usize, body: &[u8]| {
            let (number, segment) = (parts[at].number, &base.segments[parts[at].segment as usize]);
            segment.head().check_codes(number, body).map_err(|error| segment.damaged(&error))
        };
        self.stored().fetch(&blocks, check).await
    }

    /// Reads the codes that a query looks at first. They are kept.
    pub(crate) async fn expect_codes(&self, base: &Base) -> Result<(), PlanError> {
        let parts = codes_parts(base);
        self.codes(base, &parts[..parts.len().min(limits::CONNECTIONS_MAX)]).await?;
        Ok(())
    }

    /// For each vector the rows without a leaf index that may be among its `k` nearest, by the lower bound of their distance.
    async fn candidates(
        &self,
        search: &Search<'_>,
        vectors: &[Vec<f32>],
        k: usize,
    ) -> Result<Vec<Vec<Candidate>>, PlanError> {
        let mut lists: Vec<Candidates<'_>> =
            vectors.iter().map(|vector| Candidates::new(search.source.space, vector, k)).collect();
        let mut parts = codes_parts(search.base);
        parts.retain(|part| search.is_searched(part.segment));
        for together in parts.chunks(limits::CONNECTIONS_MAX) {
            for (part, body) in together.iter().zip(self.codes(search.base, together).await?) {
                let segment = &search.base.segments[part.segment as usize];
                let rows = part.rows.end - part.rows.start;
                let codes = codes::in_part(&body, segment.head().dimension(), rows);
                self.tally.estimated.add(rows as usize * lists.len());
                for (row, code) in part.rows.clone().zip(codes.map_err(|error| segment.damaged(&error))?) {
                    let place = Place { segment: part.segment, row };
                    lists.iter_mut().for_each(|list| list.offer(place, code, || search.sees(place)));
                }
            }
        }
        Ok(lists.into_iter().map(Candidates::into_sorted).collect())
    }

    /// Measures candidates exactly, the most promising first, until no other can be nearer than those that were found.
    async fn rank(
        &self,
        search: &Search<'_>,
        candidates: Vec<Vec<Candidate>>,
        slots: &Slots,
        lists: &mut [Nearest<'_>],
    ) -> Result<(), PlanError> {
        let mut rest: Vec<&[Candidate]> = candidates.iter().map(Vec::as_slice).collect();
        // Those that must be looked at, and at first as many others as are wanted and some more: the bounds are close.
        let mut others = lists.first().map_or(0, |(_, nearest)| nearest.k()).saturating_mul(2).saturating_add(8);
        loop {
            let mut wanted: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
            for (number, (rest, (_, nearest))) in rest.iter_mut().zip(&*lists).enumerate() {
                let can_matter = |(lower, _): &Candidate| nearest.farthest().is_none_or(|farthest| *lower <= farthest);
                let useful = rest.iter().take_while(|candidate| can_matter(candidate)).count();
                let sure = rest.iter().take_while(|(lower, _)| *lower == f32::NEG_INFINITY).count();
                let (now, later) = rest.split_at(useful.min(sure.saturating_add(others)));
                *rest = if useful == now.len() { &[] } else { later };
                now.iter().for_each(|(_, place)| wanted.entry(*place).or_default().push(number));
            }
            if wanted.is_empty() {
                return Ok(());
            }
            let places: Vec<Place> = wanted.keys().copied().collect();
            let measure = |place: Place, row: &RowView<'_>| {
                if search.passing.as_ref().map_or(Ok(true), |passing| passing.accepts(place, row))? {
                    for number in &wanted[&place] {
                        let (measure, nearest) = &mut lists[*number];
                        nearest.push(measure.distance(row.vector), (row.position, place));
                    }
                }
                Ok::<(), PlanError>(())
            };
            self.tally.measured.add(wanted.values().map(Vec::len).sum());
            self.stored().visit(search.base, &places, slots, measure).await?;
            others = others.saturating_mul(2);
        }
    }
}

fn at_position(position: Position, place: Place) -> Rival {
    Rival { distance: 0.0, position, place: place.number() }
}

pub(crate) fn rivals(nearest: TopK<(Position, Place)>) -> Vec<Rival> {
    let rival = |ranked: query::top_k::Ranked<(Position, Place)>| Rival {
        distance: ranked.distance,
        position: ranked.row.0,
        place: ranked.row.1.number(),
    };
    nearest.into_sorted().into_iter().map(rival).collect()
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

    /// Takes note of a row unless others are surely nearer; only then it is asked for what is known of it. One that may turn
    /// out to be no hit is nearer than no other.
    fn offer(&mut self, place: Place, code: &[u8], sight: impl Fn() -> Sight) {
        let bounds = self.query.bounds(code);
        if bounds.lower > self.limit() {
            return;
        }
        match sight() {
            Sight::Hidden => return,
            Sight::Unsure => {}
            Sight::Visible => self.uppers.push(Total(bounds.upper)),
        }
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
