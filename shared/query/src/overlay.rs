//! The records of a collection in memory, as its log says they are.

mod arena;
mod row;

use crate::eval::CompiledFilter;
use crate::kernel::{self, Measure};
use crate::plan::{Hit, Include, PlanError, Read, Source};
use crate::top_k::{Ranked, TopK};
use arena::Arena;
use model::{Filter, MetadataPatch, OperationKind, OperationView};
use row::{Attributes, Row};
use std::collections::HashMap;
use std::sync::Arc;

/// Records in the order of their first insertion, built by applying the log and read by plans.
///
/// A changed record keeps its place; one that was deleted and added again goes to the end. Vectors lie one behind the
/// other in an arena; the row of a deleted record stays empty until more than half of all are, then all move up.
#[derive(Debug, Default)]
pub struct Overlay {
    /// The row of each living record.
    by_id: HashMap<Arc<str>, u32>,
    /// `None` is a deleted record's row.
    rows: Vec<Option<Row>>,
    /// As many vectors as rows.
    vectors: Arena,
    /// What the living rows hold on the heap.
    payload_bytes: usize,
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

    /// Estimate of the memory held, in bytes, for a cache's budget. Cost: a few additions.
    pub fn bytes(&self) -> usize {
        // A hash table keeps an eighth of its slots free and a byte of hash for each.
        let slot_bytes = (size_of::<(Arc<str>, u32)>() + 1) * 8 / 7;
        let rows_bytes = self.rows.capacity() * size_of::<Option<Row>>();
        let index_bytes = self.by_id.capacity() * slot_bytes;
        size_of::<Self>() + self.payload_bytes + rows_bytes + index_bytes + self.vectors.bytes()
    }

    /// Applies operations, in the order of the log.
    ///
    /// An add of a stored id, an update or a delete of an unknown one change nothing. A field that an operation does
    /// not carry stays as it is; metadata merges key by key.
    ///
    /// Errors: [`PlanError::Corrupt`] for what no gateway lets into a log (a vector of another length than the first
    /// one, an insertion without one), [`PlanError::TooLarge`] if memory is out. After an error the overlay is half
    /// changed: drop it.
    pub fn apply<'a>(&mut self, operations: impl IntoIterator<Item = OperationView<'a>>) -> Result<(), PlanError> {
        operations.into_iter().try_for_each(|operation| self.apply_one(&operation))
    }

    fn apply_one(&mut self, operation: &OperationView<'_>) -> Result<(), PlanError> {
        use OperationKind::{Add, Delete, Update, Upsert};
        if let Some(embedding) = operation.embedding {
            self.vectors.settle_dimension(embedding.len())?;
        }
        match (operation.kind, self.by_id.get(operation.id)) {
            (Add | Upsert, None) => self.insert(operation),
            (Update | Upsert, Some(&row)) => self.change(row, operation),
            (Delete, Some(&row)) => {
                self.remove(row);
                Ok(())
            }
            (Add, Some(_)) | (Update | Delete, None) => Ok(()),
        }
    }

    fn insert(&mut self, operation: &OperationView<'_>) -> Result<(), PlanError> {
        let Some(embedding) = operation.embedding else {
            return Err(PlanError::Corrupt("the log inserts a record without a vector".into()));
        };
        let Ok(row) = u32::try_from(self.rows.len()) else {
            return Err(PlanError::TooLarge("a collection in memory has at most 2^32 rows".into()));
        };
        let mut record = Row {
            id: operation.id.into(),
            norm: kernel::norm(embedding),
            document: operation.document.map(Box::from),
            uri: operation.uri.map(Box::from),
            attributes: Attributes::default(),
        };
        record.attributes.patch(patch_of(operation)?);
        self.vectors.push(embedding)?;
        self.payload_bytes += record.heap_bytes();
        self.by_id.insert(Arc::clone(&record.id), row);
        self.rows.push(Some(record));
        Ok(())
    }

    fn change(&mut self, row: u32, operation: &OperationView<'_>) -> Result<(), PlanError> {
        let record = self.rows[row as usize].as_mut().expect("an id leads to a living row");
        self.payload_bytes -= record.heap_bytes();
        if let Some(embedding) = operation.embedding {
            self.vectors.set(row as usize, embedding);
            record.norm = kernel::norm(embedding);
        }
        if let Some(document) = operation.document {
            record.document = Some(document.into());
        }
        if let Some(uri) = operation.uri {
            record.uri = Some(uri.into());
        }
        record.attributes.patch(patch_of(operation)?);
        self.payload_bytes += record.heap_bytes();
        Ok(())
    }

    fn remove(&mut self, row: u32) {
        let record = self.rows[row as usize].take().expect("an id leads to a living row");
        self.payload_bytes -= record.heap_bytes();
        self.by_id.remove(&record.id);
        if self.rows.len() > 2 * self.by_id.len() {
            self.squeeze();
        }
    }

    /// Moves living rows up over dead ones: as much work as the deletions since the last time.
    fn squeeze(&mut self) {
        let mut live = 0;
        for row in 0..self.rows.len() {
            let Some(record) = self.rows[row].take() else { continue };
            let number = self.by_id.get_mut(&record.id).expect("a living row has its id indexed");
            *number = u32::try_from(live).expect("rows move up only");
            self.vectors.move_up(row, live);
            self.rows[live] = Some(record);
            live += 1;
        }
        self.rows.truncate(live);
        self.rows.shrink_to_fit();
        self.by_id.shrink_to_fit();
        self.vectors.truncate(live);
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
    /// [`PlanError::UnknownId`] for a query's, [`PlanError::Corrupt`] if catalog and log disagree on the dimension.
    ///
    /// [`Answer::hits`]: crate::plan::Answer::hits
    pub fn answer(&self, source: &Source, read: &Read) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
        match read {
            Read::Count => Ok((Vec::new(), self.len() as u64)),
            Read::Get { ids, filter, limit, offset, include } => {
                let rows = self.select(ids.as_deref(), filter.as_ref())?;
                let page = rows.skip(saturate(*offset)).take(limit.map_or(usize::MAX, saturate));
                Ok((vec![page.map(|(row, _)| self.hit(row, None, *include)).collect()], 0))
            }
            Read::Match { ids, filter, limit } => {
                let rows = self.select(ids.as_deref(), filter.as_ref())?.take(limit.map_or(usize::MAX, saturate));
                let hits: Vec<Hit> = rows.map(|(row, _)| self.hit(row, None, Include::default())).collect();
                let count = hits.len() as u64;
                Ok((vec![hits], count))
            }
            Read::Query { vectors, n_results, ids, filter, include } => {
                let candidates = self.select(ids.as_deref(), filter.as_ref())?;
                if !self.can_be_measured(source, vectors)? {
                    return Ok((vec![Vec::new(); vectors.len()], 0));
                }
                if filter.is_none() {
                    // As in Chroma, where a filter leaves out what is not there before anybody asks for it.
                    self.all_are_stored(ids.as_deref().unwrap_or_default())?;
                }
                let nearest = self.nearest(source, vectors, saturate(*n_results), candidates);
                let hit = |ranked: Ranked<u32>| self.hit(ranked.row, Some(ranked.distance), *include);
                Ok((nearest.into_iter().map(|rows| rows.into_iter().map(hit).collect()).collect(), 0))
            }
        }
    }

    /// The rows with one of `ids` that satisfy `filter`, ascending.
    fn select(
        &self,
        ids: Option<&[String]>,
        filter: Option<&Filter>,
    ) -> Result<impl Iterator<Item = (u32, &Row)>, PlanError> {
        let filter = filter.map(CompiledFilter::compile).transpose();
        let filter = filter.map_err(|error| PlanError::Invalid(error.to_string()))?;
        let rows: Box<dyn Iterator<Item = u32>> = match ids {
            Some(ids) => Box::new(self.look_up(ids).into_iter()),
            None => Box::new(0..u32::try_from(self.rows.len()).expect("row numbers were checked at insertion")),
        };
        let living = rows.filter_map(|row| Some((row, self.rows[row as usize].as_ref()?)));
        Ok(living.filter(move |(_, record)| filter.as_ref().is_none_or(|filter| filter.matches(*record))))
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
    fn nearest<'a>(
        &self,
        source: &Source,
        vectors: &[Vec<f32>],
        k: usize,
        candidates: impl Iterator<Item = (u32, &'a Row)>,
    ) -> Vec<Vec<Ranked<u32>>> {
        let search = |vector| (Measure::new(source.space, vector), TopK::new(k));
        let mut searches: Vec<(Measure<'_>, TopK<u32>)> = vectors.iter().map(|vector| search(vector)).collect();
        // Nobody asks for distances that nobody keeps.
        let candidates = candidates.take(if k == 0 { 0 } else { usize::MAX });
        for (row, record) in candidates {
            let vector = self.vectors.get(row as usize);
            for (measure, nearest) in &mut searches {
                nearest.push(measure.distance_with_norm(vector, record.norm), row);
            }
        }
        searches.into_iter().map(|(_, nearest)| nearest.into_sorted()).collect()
    }

    /// The included fields of a living row.
    fn hit(&self, row: u32, distance: Option<f32>, include: Include) -> Hit {
        let record = self.rows[row as usize].as_ref().expect("hits are living rows");
        Hit {
            id: record.id.to_string(),
            distance,
            embedding: include.embeddings.then(|| self.vectors.get(row as usize).to_vec()),
            document: record.document.as_deref().filter(|_| include.documents).map(str::to_owned),
            uri: record.uri.as_deref().filter(|_| include.uris).map(str::to_owned),
            metadata: if include.metadatas { record.metadata() } else { None },
        }
    }
}

/// The changes to metadata that an operation carries.
fn patch_of(operation: &OperationView<'_>) -> Result<MetadataPatch, PlanError> {
    let patch = operation
        .metadata_patch()
        .map_err(|error| PlanError::Corrupt(format!("the log holds metadata that cannot be read: {error}")))?;
    Ok(patch.unwrap_or_default())
}

/// A count from the wire as one of rows in memory, of which there are fewer than `usize` can count.
fn saturate(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
