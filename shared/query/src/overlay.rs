//! The records of a collection, as its log says they are: all of them by id and place, and as many as fit in full.

mod arena;
mod pieces;
mod row;
mod scan;

use crate::eval::CompiledFilter;
use crate::kernel::{self, Measure};
use crate::plan::{Hit, Include, PlanError, Read, Source, saturate};
use crate::relevance::Counter;
use crate::top_k::{Ranked, TopK};
use arena::Arena;
use model::{Filter, Lsn, Metadata, OperationKind, OperationView, Position, limits};
use pieces::{Parts, Piece, Pieces};
use row::{ALLOCATION_BYTES, Row, hit_bytes};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

pub use pieces::{Origin, STORED_GROUP};
pub use scan::{Rival, Scan};

/// Records in the order of their first insertion, built by applying the log and read by plans.
///
/// A changed record keeps its place; one that was deleted and added again goes to the end. Vectors lie one behind the
/// other in an arena; the row of a deleted record stays empty until more than half of all are, then all move up.
///
/// Of every record the overlay knows the id and where in the log its fields are. The fields themselves are kept for the
/// first rows only, as far as [`Overlay::fit`] leaves them: vectors go first, then the rest. What was dropped is read
/// from the log again when it is asked for ([`Overlay::begin`]).
#[derive(Debug, Default)]
pub struct Overlay {
    /// The row of each living record.
    by_id: HashMap<Arc<str>, u32>,
    /// `None` is a deleted record's row.
    rows: Vec<Option<Slot>>,
    /// The fields of the first rows, but for vectors; those of a deleted record are empty.
    payloads: Vec<Row>,
    /// The vectors of the first rows: never more than payloads.
    vectors: Arena,
    vector_rows: usize,
    /// What the slots hold on the heap.
    index_bytes: usize,
    /// What the payloads hold on the heap.
    payload_bytes: usize,
    /// Changes whenever rows do.
    version: u64,
    /// Number of stored rows that were taken up.
    taken_up: usize,
}

/// What is stored below an overlay: the rows that compaction made of everything before the log that it holds.
pub trait Stored {
    /// The row of `id`, if it has one that was not hidden.
    fn find(&self, id: &str) -> Option<StoredRow<'_>>;

    /// The log has replaced the row of `id`, or removed it.
    fn hide(&mut self, id: &str);

    /// The log changes the row of `id`: the overlay has taken it up and will ask for it by `ordinal`. It hides it as well.
    fn take_up(&mut self, id: &str, ordinal: usize);
}

/// A stored row, as far as it is known.
#[derive(Clone, Debug)]
pub struct StoredRow<'a> {
    /// What an upsert would have carried, and when it was made; `None` if nobody said that it would be changed.
    pub row: Option<(Position, OperationView<'a>)>,
}

/// Nothing is stored below.
pub struct NothingStored;

impl Stored for NothingStored {
    fn find(&self, _: &str) -> Option<StoredRow<'_>> {
        None
    }

    fn hide(&mut self, _: &str) {}

    fn take_up(&mut self, _: &str, _: usize) {}
}

/// A living record, wherever its fields are.
#[derive(Debug)]
struct Slot {
    /// Shared with the index of ids.
    id: Arc<str>,
    /// Of the record's first insertion.
    position: Position,
    pieces: Pieces,
}

impl Slot {
    fn heap_bytes(&self) -> usize {
        self.id.len() + 2 * size_of::<usize>() + ALLOCATION_BYTES + self.pieces.heap_bytes()
    }
}

/// How a read goes on: see [`Overlay::begin`].
pub enum Begun<'r> {
    /// It is answered: hits and count.
    Answered(Vec<Vec<Hit>>, u64),
    /// Parts of the log must be read again.
    Scan(Box<Scan<'r>>),
}

impl Overlay {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether the record is here: written by this log, or stored and changed by it.
    pub fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Length of every vector, once one was seen.
    pub fn dimension(&self) -> Option<usize> {
        self.vectors.dimension()
    }

    /// All records, as upserts would carry them, in the order of their positions. Panics if not all is in memory.
    pub fn records(&self) -> impl Iterator<Item = (Position, OperationView<'_>)> {
        let living = self.rows.iter().enumerate().filter_map(|(row, slot)| Some((slot.as_ref()?.position, row)));
        let mut in_order: Vec<(Position, usize)> = living.collect();
        in_order.sort_unstable();
        in_order.into_iter().map(|(position, row)| {
            let slot = self.rows[row].as_ref().expect("it lives");
            let payload = &self.payloads[row];
            let json = |metadata: Metadata| serde_json::to_string(&metadata).expect("metadata has string keys");
            let record = OperationView {
                kind: OperationKind::Upsert,
                id: &slot.id,
                embedding: Some(self.vectors.get(row)),
                document: payload.document.as_deref(),
                uri: payload.uri.as_deref(),
                metadata: payload.attributes.to_metadata().map(|metadata| Cow::Owned(json(metadata))),
            };
            (position, record)
        })
    }

    /// Estimate of the memory held, in bytes, for a cache's budget. Cost: a few additions.
    pub fn bytes(&self) -> usize {
        // A hash table keeps an eighth of its slots free and a byte of hash for each.
        let entry_bytes = (size_of::<(Arc<str>, u32)>() + 1) * 8 / 7;
        let table_bytes = self.rows.capacity() * size_of::<Option<Slot>>() + self.by_id.capacity() * entry_bytes;
        let payload_bytes = self.payload_bytes + self.payloads.capacity() * size_of::<Row>();
        size_of::<Self>() + self.index_bytes + table_bytes + payload_bytes + self.vectors.bytes()
    }

    /// Drops vectors, then other fields, from the last rows on, until at most `bytes_max` are held.
    ///
    /// Errors: [`PlanError::TooLarge`] if ids and places alone are more.
    pub fn fit(&mut self, bytes_max: usize) -> Result<(), PlanError> {
        while self.bytes() > bytes_max {
            if self.vector_rows > 0 {
                self.vector_rows = self.vectors.drop_chunk();
            } else if !self.payloads.is_empty() {
                let keep = self.payloads.len() - self.payloads.len().div_ceil(8);
                self.payload_bytes -= self.payloads.drain(keep..).map(|row| row.heap_bytes()).sum::<usize>();
                self.payloads.shrink_to_fit();
            } else {
                let records = self.len();
                return Err(PlanError::TooLarge(format!(
                    "the log holds {records} records that are not compacted yet: more than can be read from it"
                )));
            }
        }
        Ok(())
    }

    /// Applies the operations of fragment `lsn`, the one that follows the last.
    ///
    /// An add of a stored id, an update or a delete of an unknown one change nothing. A field that an operation does
    /// not carry stays as it is; metadata merges key by key.
    ///
    /// Errors: [`PlanError::Corrupt`] for what no gateway lets into a log (a vector of another length than the first
    /// one, an insertion without one), [`PlanError::TooLarge`] if memory is out. After an error the overlay is half
    /// changed: drop it.
    pub fn apply<'a>(
        &mut self,
        lsn: Lsn,
        operations: impl IntoIterator<Item = OperationView<'a>>,
    ) -> Result<(), PlanError> {
        self.apply_over(&mut NothingStored, lsn, operations)
    }

    /// The same over what is `stored`: an add of a stored id changes nothing, a delete hides the row, and what changes it
    /// takes it up first, with the place that it has among all records.
    ///
    /// Errors: as [`Overlay::apply`]; [`PlanError::Corrupt`] as well if a row that is changed was not made known.
    pub fn apply_over<'a>(
        &mut self,
        stored: &mut impl Stored,
        lsn: Lsn,
        operations: impl IntoIterator<Item = OperationView<'a>>,
    ) -> Result<(), PlanError> {
        self.version += 1;
        for (index, operation) in operations.into_iter().enumerate() {
            if self.by_id.contains_key(operation.id) || !self.settles_below(stored, &operation)? {
                let index_in_log = u32::try_from(index).expect("a fragment has fewer operations");
                let position = Position::new(lsn, index_in_log);
                self.apply_one(&operation, position, Piece::new(lsn, index, Parts::of(&operation)))?;
            }
        }
        Ok(())
    }

    /// Whether all of `operation`, on an id that is not here, is done with what is stored; what it changes is taken up.
    fn settles_below(&mut self, stored: &mut impl Stored, operation: &OperationView<'_>) -> Result<bool, PlanError> {
        let Some(found) = stored.find(operation.id) else { return Ok(false) };
        match operation.kind {
            OperationKind::Add => Ok(true),
            OperationKind::Delete => {
                stored.hide(operation.id);
                Ok(true)
            }
            OperationKind::Update | OperationKind::Upsert => {
                let unknown = || PlanError::Corrupt("a stored row that the log changes was not read".into());
                let (position, row) = found.row.ok_or_else(unknown)?;
                if let Some(embedding) = row.embedding {
                    self.vectors.settle_dimension(embedding.len())?;
                }
                let ordinal = self.taken_up;
                self.insert(&row, position, Piece::stored(ordinal, Parts::of(&row)))?;
                self.taken_up += 1;
                stored.take_up(operation.id, ordinal);
                Ok(false)
            }
        }
    }

    fn apply_one(&mut self, operation: &OperationView<'_>, position: Position, piece: Piece) -> Result<(), PlanError> {
        use OperationKind::{Add, Delete, Update, Upsert};
        if let Some(embedding) = operation.embedding {
            self.vectors.settle_dimension(embedding.len())?;
        }
        match (operation.kind, self.by_id.get(operation.id)) {
            (Add | Upsert, None) => self.insert(operation, position, piece),
            (Update | Upsert, Some(&row)) => self.change(row as usize, operation, piece),
            (Delete, Some(&row)) => {
                self.remove(row as usize);
                Ok(())
            }
            (Add, Some(_)) | (Update | Delete, None) => Ok(()),
        }
    }

    fn insert(&mut self, operation: &OperationView<'_>, position: Position, piece: Piece) -> Result<(), PlanError> {
        let Some(embedding) = operation.embedding else {
            return Err(PlanError::Corrupt("the log inserts a record without a vector".into()));
        };
        let Ok(row) = u32::try_from(self.rows.len()) else {
            return Err(PlanError::TooLarge("a collection in memory has at most 2^32 rows".into()));
        };
        if self.vector_rows == self.rows.len() {
            self.vectors.push(embedding)?;
            self.vector_rows += 1;
        }
        if self.payloads.len() == self.rows.len() {
            let mut payload = Row { norm: kernel::norm(embedding), ..Row::default() };
            payload.change(operation, piece.parts())?;
            self.payload_bytes += payload.heap_bytes();
            self.payloads.push(payload);
        }
        let slot = Slot { id: operation.id.into(), position, pieces: Pieces::One(piece) };
        self.index_bytes += slot.heap_bytes();
        self.by_id.insert(Arc::clone(&slot.id), row);
        self.rows.push(Some(slot));
        Ok(())
    }

    fn change(&mut self, row: usize, operation: &OperationView<'_>, piece: Piece) -> Result<(), PlanError> {
        let slot = self.rows[row].as_mut().expect("an id leads to a living row");
        self.index_bytes -= slot.pieces.heap_bytes();
        slot.pieces.push(piece);
        self.index_bytes += slot.pieces.heap_bytes();
        if let Some(payload) = self.payloads.get_mut(row) {
            self.payload_bytes -= payload.heap_bytes();
            payload.change(operation, piece.parts())?;
            self.payload_bytes += payload.heap_bytes();
        }
        if let Some(embedding) = operation.embedding.filter(|_| row < self.vector_rows) {
            self.vectors.set(row, embedding);
            self.payloads[row].norm = kernel::norm(embedding);
        }
        Ok(())
    }

    fn remove(&mut self, row: usize) {
        let slot = self.rows[row].take().expect("an id leads to a living row");
        self.index_bytes -= slot.heap_bytes();
        if let Some(payload) = self.payloads.get_mut(row) {
            self.payload_bytes -= std::mem::take(payload).heap_bytes();
        }
        self.by_id.remove(&slot.id);
        if self.rows.len() > 2 * self.by_id.len() {
            self.squeeze();
        }
    }

    /// Moves living rows up over dead ones: as much work as the deletions since the last time.
    fn squeeze(&mut self) {
        let (mut live, mut payloads, mut vectors) = (0, 0, 0);
        for row in 0..self.rows.len() {
            let Some(slot) = self.rows[row].take() else { continue };
            let number = self.by_id.get_mut(&slot.id).expect("a living row has its id indexed");
            *number = u32::try_from(live).expect("rows move up only");
            self.rows[live] = Some(slot);
            if row < self.payloads.len() {
                self.payloads.swap(row, live);
                payloads = live + 1;
            }
            if row < self.vector_rows {
                self.vectors.move_up(row, live);
                vectors = live + 1;
            }
            live += 1;
        }
        self.rows.truncate(live);
        self.rows.shrink_to_fit();
        self.by_id.shrink_to_fit();
        self.payloads.truncate(payloads);
        self.payloads.shrink_to_fit();
        self.vectors.truncate(vectors);
        self.vector_rows = vectors;
    }

    /// Begins to answer `read` together with what is stored, which [`Scan::compete`] adds. Of ids that a query names the
    /// caller has made sure that they are there.
    ///
    /// Errors: as [`Overlay::answer`].
    pub fn begin_over<'r>(&self, source: &Source, read: &'r Read) -> Result<Scan<'r>, PlanError> {
        Scan::begin(self, source, read, true)
    }

    /// Begins to answer a [`Read::Rank`], together with what is stored, if anything is. Once [`Scan::next_pass`] has nothing
    /// left, everything here was counted, and [`Scan::score`] makes it go on.
    ///
    /// Errors: as [`Overlay::answer`].
    pub fn begin_rank<'r>(&self, read: &'r Read, counter: &'r dyn Counter) -> Result<Scan<'r>, PlanError> {
        Scan::begin_rank(self, read, counter)
    }

    /// Begins to answer `read`: at once if all it needs is in memory, else by a scan over parts of the log.
    ///
    /// Errors: as [`Overlay::answer`].
    pub fn begin<'r>(&self, source: &Source, read: &'r Read) -> Result<Begun<'r>, PlanError> {
        if self.holds_all_of(read) {
            return self.answer(source, read).map(|(hits, count)| Begun::Answered(hits, count));
        }
        Scan::begin(self, source, read, false).map(|scan| Begun::Scan(Box::new(scan)))
    }

    /// Whether `read` needs no part of the log again.
    pub fn holds_all_of(&self, read: &Read) -> bool {
        let parts = first_parts(read).with(include_of(read), true);
        self.rows.is_empty() || self.holds(parts, self.rows.len() - 1)
    }

    /// Whether `parts` of `row` are in memory.
    fn holds(&self, parts: Parts, row: usize) -> bool {
        (!parts.has(Parts::VECTOR) || row < self.vector_rows)
            && (!parts.has(Parts::PAYLOAD) || row < self.payloads.len())
    }

    /// Answers `read`: [`Answer::hits`] and [`Answer::count`](crate::plan::Answer::count).
    ///
    /// - Get and match: one list, in the order of first insertion; ids are deduplicated, unknown ones skipped.
    /// - Query: a list for each vector, by ascending distance, then in the order of first insertion; every distance
    ///   is that of [`kernel::Measure`]. Empty lists if no vector was ever written.
    /// - The count is that of all records for count, of the hits for match, else 0.
    ///
    /// Cost: a hash look-up for each id, or a pass over all rows that ends as soon as `limit` is reached (a query
    /// reads each row that passes the filter once, for all of its vectors).
    ///
    /// Errors: [`PlanError::Invalid`] for a bad regular expression or a vector of another length than the stored,
    /// [`PlanError::UnknownId`] for a query's, [`PlanError::Corrupt`] if catalog and log disagree on the dimension,
    /// [`PlanError::TooLarge`] if the hits are more than [`limits::ANSWER_BYTES_MAX`]. Panics if not all that the read
    /// needs is in memory: [`Overlay::begin`] never does.
    ///
    /// [`Answer::hits`]: crate::plan::Answer::hits
    pub fn answer(&self, source: &Source, read: &Read) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
        match read {
            Read::Count => Ok((Vec::new(), self.len() as u64)),
            Read::Get { ids, filter, limit, offset, include } => {
                let rows = self.select(ids.as_deref(), filter.as_ref())?;
                let page = rows.skip(saturate(*offset)).take(limit.map_or(usize::MAX, saturate));
                Ok((vec![bounded(page.map(|row| self.hit(row, None, *include)), &mut 0)?], 0))
            }
            Read::Match { ids, filter, limit } => {
                let rows = self.select(ids.as_deref(), filter.as_ref())?.take(limit.map_or(usize::MAX, saturate));
                let hits = bounded(rows.map(|row| self.hit(row, None, Include::default())), &mut 0)?;
                let count = hits.len() as u64;
                Ok((vec![hits], count))
            }
            Read::Query { vectors, ids, filter, include, .. } => {
                let candidates = self.select(ids.as_deref(), filter.as_ref())?;
                if !self.can_be_measured(source, vectors)? {
                    return Ok((vec![Vec::new(); vectors.len()], 0));
                }
                if filter.is_none() {
                    // As in Chroma, where a filter leaves out what is not there before anybody asks for it.
                    self.all_are_stored(ids.as_deref().unwrap_or_default())?;
                }
                let mut bytes = 0;
                let hit = |ranked: Ranked<u32>| self.hit(ranked.row, Some(ranked.distance), *include);
                let nearest = self.nearest(source, vectors, read.n_results(), candidates).into_iter();
                let lists: Result<Vec<_>, _> =
                    nearest.map(|rows| bounded(rows.into_iter().map(hit), &mut bytes)).collect();
                lists.map(|lists| (lists, 0))
            }
            Read::Rank { .. } => unreachable!("a rank is begun with what counts words"),
        }
    }

    /// The living rows with one of `ids` that satisfy `filter`, ascending.
    fn select(&self, ids: Option<&[String]>, filter: Option<&Filter>) -> Result<impl Iterator<Item = u32>, PlanError> {
        let filter = filter.map(compile).transpose()?;
        let passes = move |row: &u32| filter.as_ref().is_none_or(|f| f.matches(&self.payloads[*row as usize]));
        Ok(self.living(ids).filter(passes))
    }

    /// The living rows, of `ids` if there are any, ascending.
    fn living(&self, ids: Option<&[String]>) -> impl Iterator<Item = u32> {
        let rows: Box<dyn Iterator<Item = u32>> = match ids {
            Some(ids) => Box::new(self.look_up(ids).into_iter()),
            None => Box::new(0..u32::try_from(self.rows.len()).expect("row numbers were checked at insertion")),
        };
        rows.filter(|row| self.rows[*row as usize].is_some())
    }

    fn look_up(&self, ids: &[String]) -> Vec<u32> {
        let mut rows: Vec<u32> = ids.iter().filter_map(|id| self.by_id.get(id.as_str()).copied()).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    fn all_are_stored(&self, ids: &[String]) -> Result<(), PlanError> {
        let known = ids.iter().all(|id| self.by_id.contains_key(id.as_str()));
        known.then_some(()).ok_or(PlanError::UnknownId)
    }

    /// Whether there is a dimension, and all of `vectors` have it.
    ///
    /// The catalog's row may have been read before the first write fixed the dimension: then the log knows it.
    fn can_be_measured(&self, source: &Source, vectors: &[Vec<f32>]) -> Result<bool, PlanError> {
        let dimension = match (source.dimension.map(|dimension| dimension as usize), self.vectors.dimension()) {
            (Some(expected), Some(got)) if expected != got => {
                let what = format!("the catalog says dimension {expected}, the log holds vectors of {got}");
                return Err(PlanError::Corrupt(what));
            }
            (Some(dimension), _) | (None, Some(dimension)) => dimension,
            (None, None) => return Ok(false),
        };
        match vectors.iter().map(Vec::len).find(|length| *length != dimension) {
            Some(got) => Err(PlanError::Invalid(format!(
                "Collection expecting embedding with dimension of {dimension}, got {got}"
            ))),
            None => Ok(true),
        }
    }

    /// The `k` candidates nearest to each of `vectors`. A row is read once and compared with all of them.
    fn nearest(
        &self,
        source: &Source,
        vectors: &[Vec<f32>],
        k: usize,
        candidates: impl Iterator<Item = u32>,
    ) -> Vec<Vec<Ranked<u32>>> {
        let search = |vector| (Measure::new(source.space, vector), TopK::new(k));
        let mut searches: Vec<(Measure<'_>, TopK<u32>)> = vectors.iter().map(|vector| search(vector)).collect();
        // Nobody asks for distances that nobody keeps.
        let candidates = candidates.take(if k == 0 { 0 } else { usize::MAX });
        for row in candidates {
            let (vector, norm) = (self.vectors.get(row as usize), self.payloads[row as usize].norm);
            for (measure, nearest) in &mut searches {
                nearest.push(measure.distance_with_norm(vector, norm), row);
            }
        }
        searches.into_iter().map(|(_, nearest)| nearest.into_sorted()).collect()
    }

    /// The included fields of a living row, which are all in memory.
    fn hit(&self, row: u32, distance: Option<f32>, include: Include) -> Hit {
        let slot = self.rows[row as usize].as_ref().expect("hits are living rows");
        let vector = include.embeddings.then(|| self.vectors.get(row as usize));
        match self.payloads.get(row as usize) {
            Some(payload) => payload.hit(&slot.id, vector, distance, include),
            None => Row::default().hit(&slot.id, vector, distance, include),
        }
    }
}

/// What must be known of a record to decide whether it is a hit.
fn first_parts(read: &Read) -> Parts {
    match read {
        Read::Count => Parts::NONE,
        Read::Get { filter, .. } | Read::Match { filter, .. } => Parts::NONE.with(Parts::PAYLOAD, filter.is_some()),
        Read::Query { filter, .. } => Parts::VECTOR.with(Parts::PAYLOAD, filter.is_some()),
        Read::Rank { filter, .. } => Parts::DOCUMENT.with(Parts::PAYLOAD, filter.is_some()),
    }
}

/// What must be known of a hit.
fn include_of(read: &Read) -> Parts {
    let include = read.include();
    Parts::NONE
        .with(Parts::VECTOR, include.embeddings)
        .with(Parts::DOCUMENT, include.documents)
        .with(Parts::URI, include.uris || include.metadatas)
        .with(Parts::METADATA, include.metadatas)
}

fn compile(filter: &Filter) -> Result<CompiledFilter, PlanError> {
    CompiledFilter::compile(filter).map_err(|error| PlanError::Invalid(error.to_string()))
}

/// All of `hits`, if with the `bytes` of the lists before they fit into an answer.
fn bounded(mut hits: impl Iterator<Item = Hit>, bytes: &mut usize) -> Result<Vec<Hit>, PlanError> {
    hits.try_fold(Vec::new(), |mut list, hit| {
        spend(hit_bytes(&hit), bytes)?;
        list.push(hit);
        Ok(list)
    })
}

/// Counts `more` bytes of an answer.
fn spend(more: usize, bytes: &mut usize) -> Result<(), PlanError> {
    *bytes += more;
    if *bytes <= limits::ANSWER_BYTES_MAX {
        return Ok(());
    }
    let megabytes = limits::ANSWER_BYTES_MAX >> 20;
    Err(PlanError::TooLarge(format!(
        "the answer is larger than {megabytes} MB: ask for fewer records (limit and offset, n_results) or fewer fields"
    )))
}

#[cfg(test)]
mod tests;
