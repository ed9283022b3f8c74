//! A read that needs fields which are not in memory: which fragments to read again, and what to keep of them.

use super::pieces::{Origin, Parts, Piece, Pieces};
use super::row::{Row, hit_bytes};
use super::{Overlay, compile, first_parts, include_of, spend};
use crate::eval::CompiledFilter;
use crate::kernel::{self, Measure};
use crate::plan::{Hit, PlanError, Read, Source};
use crate::relevance::{Counted, Counter, Counts, Statistics};
use crate::top_k::TopK;
use model::{OperationView, Position, Space, limits};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Tests fill it with few records.
const PARTIAL_BYTES_MAX: usize = if cfg!(test) { 300 } else { limits::PARTIAL_BYTES_MAX };

/// A read of an overlay as it was when the read began, whatever is applied to it meanwhile.
///
/// It goes in passes over the log: first over what decides which records are hits (filter, distance), then over the
/// fields of the hits. A pass reads each fragment that holds something wanted once, and keeps what it needs of it:
/// distances and numbers of rows, the fields of hits, and records of which some pieces are still to come (at most about
/// [`limits::PARTIAL_BYTES_MAX`]; records beyond that wait for another pass).
///
/// Memory besides those: some dozen bytes for each record that may be a hit.
pub struct Scan<'r> {
    read: &'r Read,
    filter: Option<CompiledFilter>,
    space: Space,
    /// For each vector of a query, the nearest candidates so far, by position.
    searches: Vec<(Measure<'r>, TopK<(Position, u32)>)>,
    /// For a rank, what documents come to.
    ranking: Option<Ranking<'r>>,
    /// Stored rows that may be hits.
    rivals: Vec<Vec<Rival>>,
    /// For get and match, the candidates that are hits.
    passed: Vec<u32>,
    /// The overlay's, when the candidates were taken from it.
    version: u64,
    /// In the order of their rows.
    candidates: Vec<Candidate>,
    /// Whether hits are known and their fields are being read.
    is_collecting: bool,
    /// Candidates of which something must be read, in the next pass.
    todo: HashSet<u32>,
    /// What this pass reads, for which candidate, in the order of the log; the first `taken` were.
    wants: Vec<(Piece, u32)>,
    taken: usize,
    partials: HashMap<u32, Partial>,
    partial_bytes: usize,
    /// What the answer lists, with distances.
    lists: Vec<Vec<(Choice, Option<f32>)>>,
    hits: HashMap<Choice, Hit>,
    hit_bytes: usize,
}

/// What is known of documents for a rank.
struct Ranking<'r> {
    counter: &'r dyn Counter,
    /// The only ids that may be hits, if there are such.
    ids: Option<HashSet<&'r str>>,
    /// Of all rows, hits or not.
    statistics: Statistics,
    /// The candidates that are hits.
    counts: Counts<u32>,
    /// The best of them, once their scores are known.
    best: Option<TopK<(Position, u32)>>,
}

/// A stored row that may be a hit, as good as its position and distance are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rival {
    /// To the vector of a query; of a rank the score, negative; anything for other reads.
    pub distance: f32,
    /// Of its first insertion.
    pub position: Position,
    /// Where the caller finds it again.
    pub place: u64,
}

/// Something that the answer lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Choice {
    /// A candidate.
    Own(u32),
    /// A stored row, by its place.
    Stored(u64),
}

/// A record that may be a hit.
struct Candidate {
    row: u32,
    id: Arc<str>,
    position: Position,
    pieces: Pieces,
    /// Whether it is known to satisfy the filter.
    passes: bool,
    /// Pieces that this pass has not met yet.
    left: usize,
}

/// A record as far as its pieces were read.
#[derive(Default)]
struct Partial {
    row: Row,
    vector: Option<Vec<f32>>,
}

impl Partial {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.row.heap_bytes() + self.vector.as_ref().map_or(0, |vector| size_of_val(&vector[..]))
    }
}

impl<'r> Scan<'r> {
    /// Takes from `overlay` who may be a hit, and decides what can be decided from memory.
    pub(super) fn begin(
        overlay: &Overlay,
        source: &Source,
        read: &'r Read,
        is_over_stored: bool,
    ) -> Result<Self, PlanError> {
        let (ids, filter) = (read.ids(), read.filter());
        let mut scan = Scan::new(overlay, source.space, read)?;
        if let Read::Query { vectors, .. } = read {
            overlay.can_be_measured(source, vectors)?;
            if filter.is_none() && !is_over_stored {
                overlay.all_are_stored(ids.unwrap_or_default())?;
            }
            let search = |vector| (Measure::new(source.space, vector), TopK::new(read.n_results()));
            scan.searches = vectors.iter().map(|vector| search(vector)).collect();
        }
        // Only where nothing is stored below are rows in the order of their positions.
        let enough = if is_over_stored { usize::MAX } else { read.page().end };
        for row in overlay.living(ids) {
            if scan.todo.is_empty() && scan.passed.len() >= enough {
                break;
            }
            let payload = overlay.payloads.get(row as usize);
            let passes = scan.filter.as_ref().map_or(Some(true), |filter| payload.map(|row| filter.matches(row)));
            if passes != Some(false) {
                scan.offer(overlay, row, passes.is_some());
            }
        }
        Ok(scan)
    }

    /// The same for a rank: counts what is in memory.
    pub(super) fn begin_rank(overlay: &Overlay, read: &'r Read, counter: &'r dyn Counter) -> Result<Self, PlanError> {
        let mut scan = Scan::new(overlay, Space::default(), read)?;
        let ids = read.ids().map(|ids| ids.iter().map(String::as_str).collect());
        let (statistics, counts) = (Statistics::default(), Counts::default());
        scan.ranking = Some(Ranking { counter, ids, statistics, counts, best: None });
        for row in overlay.living(None) {
            let number = scan.add_candidate(overlay, row, false);
            match overlay.payloads.get(row as usize) {
                Some(payload) if !scan.count(number, payload)? => drop(scan.candidates.pop()),
                Some(_) => {}
                None => drop(scan.todo.insert(number)),
            }
        }
        Ok(scan)
    }

    fn new(overlay: &Overlay, space: Space, read: &'r Read) -> Result<Self, PlanError> {
        Ok(Scan {
            read,
            filter: read.filter().map(compile).transpose()?,
            space,
            searches: Vec::new(),
            ranking: None,
            rivals: Vec::new(),
            passed: Vec::new(),
            version: overlay.version,
            candidates: Vec::new(),
            is_collecting: false,
            todo: HashSet::new(),
            wants: Vec::new(),
            taken: 0,
            partials: HashMap::new(),
            partial_bytes: 0,
            lists: Vec::new(),
            hits: HashMap::new(),
            hit_bytes: 0,
        })
    }

    fn add_candidate(&mut self, overlay: &Overlay, row: u32, passes: bool) -> u32 {
        let number = u32::try_from(self.candidates.len()).expect("as many as rows at most");
        let slot = overlay.rows[row as usize].as_ref().expect("only living rows are candidates");
        let (id, position, pieces) = (Arc::clone(&slot.id), slot.position, slot.pieces.clone());
        self.candidates.push(Candidate { row, id, position, pieces, passes, left: 0 });
        number
    }

    /// Makes a row, of which it may be known that it `passes` the filter, a candidate.
    fn offer(&mut self, overlay: &Overlay, row: u32, passes: bool) {
        let (at, number) = (row as usize, self.add_candidate(overlay, row, passes));
        let is_query = matches!(self.read, Read::Query { .. });
        if passes && !is_query {
            self.passed.push(number);
        } else if passes && overlay.holds(Parts::VECTOR, at) {
            self.measure(number, overlay.vectors.get(at), overlay.payloads[at].norm);
        } else {
            self.todo.insert(number);
        }
    }

    fn measure(&mut self, candidate: u32, vector: &[f32], norm: f32) {
        let position = self.candidates[candidate as usize].position;
        for (measure, nearest) in &mut self.searches {
            nearest.push(measure.distance_with_norm(vector, norm), (position, candidate));
        }
    }

    /// Counts the words of a candidate, and says whether it is a hit of the rank.
    fn count(&mut self, number: u32, row: &Row) -> Result<bool, PlanError> {
        let ranking = self.ranking.as_mut().expect("only ranks count words");
        let counted = row.document.as_deref().map(|document| ranking.counter.count(document));
        ranking.statistics.add(counted.as_ref());
        let Some(counted) = counted.filter(Counted::is_hit) else { return Ok(false) };
        let is_named = ranking.ids.as_ref().is_none_or(|ids| ids.contains(&*self.candidates[number as usize].id));
        let is_hit = is_named && self.filter.as_ref().is_none_or(|filter| filter.matches(row));
        if is_hit {
            ranking.counts.push(number, counted)?;
        }
        Ok(is_hit)
    }

    /// What the documents here came to, for a rank; known once [`Scan::next_pass`] has said that nothing is left.
    pub fn statistics(&self) -> Statistics {
        self.ranking.as_ref().map(|ranking| ranking.statistics.clone()).unwrap_or_default()
    }

    /// Scores what was counted here; the passes go on with what is best.
    pub fn score(&mut self, score: impl Fn(&Counted) -> f32) {
        let Some(ranking) = &mut self.ranking else { return };
        let mut best = TopK::new(self.read.n_results());
        for (number, counted) in ranking.counts.all.drain(..) {
            best.push(-score(&counted), (self.candidates[number as usize].position, number));
        }
        ranking.best = Some(best);
    }

    /// Whether scores must be known before the next pass.
    fn is_unscored(&self) -> bool {
        self.ranking.as_ref().is_some_and(|ranking| ranking.best.is_none())
    }

    /// Adds the stored rows that may be hits, before the first pass, or before that after scores: in one list for each vector of
    /// a query, by distance, else in one, of a rank by distance as well, else by position; ascending.
    pub fn compete(&mut self, rivals: Vec<Vec<Rival>>) {
        self.rivals = rivals;
    }

    /// What to hand to [`Scan::take`] now, ascending; `None` when nothing is left of the overlay: then come scores, if it is a
    /// rank and they have not come yet, or else the rows of [`Scan::wanted_rows`].
    ///
    /// `overlay` is the one this began from: of what it still says of the hits nothing is read.
    pub fn next_pass(&mut self, overlay: &Overlay) -> Result<Option<Vec<Origin>>, PlanError> {
        loop {
            self.list_wants()?;
            if !self.wants.is_empty() {
                let mut origins: Vec<Origin> = self.wants.iter().map(|(piece, _)| piece.origin()).collect();
                origins.dedup();
                return Ok(Some(origins));
            }
            if self.is_collecting || self.is_unscored() {
                return Ok(None);
            }
            self.choose(overlay)?;
        }
    }

    /// Turns what is to do into wants. Candidates that want nothing are completed at once.
    fn list_wants(&mut self) -> Result<(), PlanError> {
        self.wants.clear();
        self.taken = 0;
        let parts = if self.is_collecting { include_of(self.read) } else { first_parts(self.read) };
        for number in std::mem::take(&mut self.todo) {
            let candidate = &mut self.candidates[number as usize];
            let is_decided = candidate.passes && !self.is_collecting;
            let parts = if is_decided { parts.without(Parts::PAYLOAD) } else { parts };
            let pieces = candidate.pieces.as_slice().iter().map(|piece| piece.only(parts));
            let before = self.wants.len();
            self.wants.extend(pieces.filter(|piece| !piece.parts().is_empty()).map(|piece| (piece, number)));
            candidate.left = self.wants.len() - before;
            if candidate.left == 0 {
                self.complete(number, &Partial::default())?;
            }
        }
        self.wants.sort_unstable();
        Ok(())
    }

    /// The numbers of the rows that this pass wants of `group`: see [`Origin::Stored`].
    pub fn wanted_of(&self, group: u64) -> Vec<usize> {
        let start = self.wants.partition_point(|(piece, _)| piece.origin() < Origin::Stored(group));
        let own = self.wants[start..].iter().take_while(|(piece, _)| piece.origin() == Origin::Stored(group));
        let mut indexes: Vec<usize> = own.map(|(piece, _)| piece.index()).collect();
        indexes.dedup();
        indexes
    }

    /// Takes what this pass wants of `origin`; `operation` gives its operations, or the rows as such, by number.
    ///
    /// Errors: [`PlanError::Corrupt`] if the fragment is not the one that was applied, [`PlanError::TooLarge`] if the
    /// hits are more than [`limits::ANSWER_BYTES_MAX`].
    pub fn take<'f>(
        &mut self,
        origin: Origin,
        operation: impl Fn(usize) -> Option<OperationView<'f>>,
    ) -> Result<(), PlanError> {
        while let Some(&(piece, number)) = self.wants.get(self.taken)
            && piece.origin() == origin
        {
            self.taken += 1;
            let id = &self.candidates[number as usize].id;
            let Some(operation) = operation(piece.index()).filter(|operation| *operation.id == **id) else {
                return Err(PlanError::Corrupt(format!("{origin:?} is not what it was when it was read first")));
            };
            self.take_piece(&operation, piece.parts(), number)?;
        }
        Ok(())
    }

    fn take_piece(&mut self, operation: &OperationView<'_>, parts: Parts, number: u32) -> Result<(), PlanError> {
        if self.todo.contains(&number) {
            return Ok(());
        }
        let candidate = &mut self.candidates[number as usize];
        candidate.left -= 1;
        let is_last = candidate.left == 0;
        let known = self.partials.remove(&number);
        self.partial_bytes -= known.as_ref().map_or(0, Partial::bytes);
        if known.is_none() && !is_last && self.partial_bytes > PARTIAL_BYTES_MAX {
            self.todo.insert(number);
            return Ok(());
        }
        let mut partial = known.unwrap_or_default();
        partial.row.change(operation, parts)?;
        if parts.has(Parts::VECTOR) {
            partial.vector = operation.embedding.map(<[f32]>::to_vec);
        }
        if is_last {
            return self.complete(number, &partial);
        }
        self.partial_bytes += partial.bytes();
        self.partials.insert(number, partial);
        Ok(())
    }

    /// Takes a candidate of which all is known that this stage asks for.
    fn complete(&mut self, number: u32, partial: &Partial) -> Result<(), PlanError> {
        let candidate = &self.candidates[number as usize];
        if self.is_collecting {
            let hit = partial.row.hit(&candidate.id, partial.vector.as_deref(), None, self.read.include());
            return self.keep(Choice::Own(number), hit);
        }
        if self.ranking.is_some() {
            return self.count(number, &partial.row).map(drop);
        }
        let passes = candidate.passes || self.filter.as_ref().is_none_or(|filter| filter.matches(&partial.row));
        match &partial.vector {
            _ if !passes => {}
            Some(vector) => {
                let norm = if self.space == Space::Cosine { kernel::norm(vector) } else { 0.0 };
                self.measure(number, vector, norm);
            }
            None => self.passed.push(number),
        }
        Ok(())
    }

    fn keep(&mut self, choice: Choice, hit: Hit) -> Result<(), PlanError> {
        spend(hit_bytes(&hit), &mut self.hit_bytes)?;
        self.hits.insert(choice, hit);
        Ok(())
    }

    /// The places of the stored rows that are hits, to hand to [`Scan::give`], ascending; known once
    /// [`Scan::next_pass`] has said that nothing is left.
    pub fn wanted_rows(&self) -> Vec<u64> {
        let stored = self.lists.iter().flatten().filter_map(|(choice, _)| match choice {
            Choice::Stored(place) => Some(*place),
            Choice::Own(_) => None,
        });
        let mut places: Vec<u64> = stored.collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Takes the row at `place` as an upsert would carry it. Errors: as [`Scan::take`].
    pub fn give(&mut self, place: u64, row: &OperationView<'_>) -> Result<(), PlanError> {
        let mut fields = Row::default();
        fields.change(row, Parts::of(row))?;
        let hit = fields.hit(row.id, row.embedding, None, self.read.include());
        self.keep(Choice::Stored(place), hit)
    }

    /// Now that every candidate was looked at: which are hits, and whose fields must be read.
    fn choose(&mut self, overlay: &Overlay) -> Result<(), PlanError> {
        self.is_collecting = true;
        self.lists = self.ranked_lists();
        let parts = include_of(self.read);
        let is_unchanged = overlay.version == self.version;
        let own = self.lists.iter().flatten().filter_map(|(choice, _)| match choice {
            Choice::Own(number) => Some(*number),
            Choice::Stored(_) => None,
        });
        let numbers: HashSet<u32> = own.collect();
        for number in numbers {
            let row = self.candidates[number as usize].row;
            if is_unchanged && overlay.holds(parts, row as usize) {
                self.keep(Choice::Own(number), overlay.hit(row, None, self.read.include()))?;
            } else {
                self.todo.insert(number);
            }
        }
        Ok(())
    }

    /// What the answer lists: candidates and rivals in one order.
    fn ranked_lists(&mut self) -> Vec<Vec<(Choice, Option<f32>)>> {
        let rivals = std::mem::take(&mut self.rivals);
        let stored = |list: usize| rivals.get(list).into_iter().flatten();
        if matches!(self.read, Read::Query { .. } | Read::Rank { .. }) {
            let best = self.ranking.as_mut().and_then(|ranking| ranking.best.take());
            let searches = std::mem::take(&mut self.searches).into_iter().map(|(_, nearest)| nearest).chain(best);
            let merged = searches.enumerate().map(|(list, nearest)| {
                let k = nearest.k();
                let own = nearest.into_sorted().into_iter();
                let own = own.map(|ranked| (ranked.distance, ranked.row.0, Choice::Own(ranked.row.1)));
                let stored = stored(list).map(|rival| (rival.distance, rival.position, Choice::Stored(rival.place)));
                let mut all: Vec<(f32, Position, Choice)> = own.chain(stored).collect();
                all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                all.into_iter().take(k).map(|(distance, _, choice)| (choice, Some(distance))).collect()
            });
            return merged.collect();
        }
        let own = std::mem::take(&mut self.passed).into_iter();
        let own = own.map(|number| (self.candidates[number as usize].position, Choice::Own(number)));
        let stored = stored(0).map(|rival| (rival.position, Choice::Stored(rival.place)));
        let mut all: Vec<(Position, Choice)> = own.chain(stored).collect();
        all.sort_by_key(|(position, _)| *position);
        let page = self.read.page();
        vec![all.into_iter().take(page.end).skip(page.start).map(|(_, choice)| (choice, None)).collect()]
    }

    /// The answer, hits and count, once nothing is left to read.
    pub fn finish(mut self) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
        let (mut bytes, is_one_list) = (0, self.lists.len() == 1);
        let lists = std::mem::take(&mut self.lists).into_iter().map(|list| {
            let hits = list.into_iter().map(|(choice, distance)| {
                // A record may be near to several vectors, but is in each list once.
                let hit = if is_one_list { self.hits.remove(&choice) } else { self.hits.get(&choice).cloned() };
                let hit = Hit { distance, ..hit.expect("every hit was collected") };
                spend(hit_bytes(&hit), &mut bytes).map(|()| hit)
            });
            hits.collect::<Result<Vec<Hit>, PlanError>>()
        });
        let lists = lists.collect::<Result<Vec<_>, _>>()?;
        let count = if matches!(self.read, Read::Match { .. }) { lists[0].len() as u64 } else { 0 };
        Ok((lists, count))
    }
}
