//! Compaction of one collection: its log becomes a segment, and small segments become larger ones.
//!
//! Each step reads the row, makes new objects under random names, and publishes a manifest that names them, if nobody has
//! published since: what was not published is nobody's, and garbage collection removes it. So a crash at any moment, a lost
//! reply and a second compactor cost work at most.

use crate::indexing::{Indexing, stretches};
use crate::refile::{self, Before};
use crate::spill::Scratch;
use crate::tiers;
use crate::work::{Compact, CompactError, Compacted};
use catalog::{Catalog, CatalogError, Maintenance, PublishFrom};
use model::safeguard::{Safeguard, holds};
use model::{
    CollectionId, CollectionRow, DeleteVectorPlace, DeleteVectorRef, LogEnd, Lsn, Manifest, Nonce, SegmentRef, SetHash,
    keys, limits,
};
use query::{Overlay, PlanError};
use runtime::{Backoff, Runtime};
use segment::{DeleteVector, Part};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use storage::{ObjectStore, PutError, PutMode};
use stored::{Base, Blocks, Layer, Place, RowScan, StoredError, StoredReader, Wanted};
use wal::{Fragment, Reader, TailError};

/// Delete vectors up to this size, in bytes, are in the manifest itself, if memory is not so small that they are more than
/// a thousandth of it.
const INLINE_BYTES_MAX: usize = 1_024;
/// Tries of one step that others have overtaken.
const ATTEMPTS_MAX: u32 = 16;
/// What a row costs a builder besides the part that it is in, about, in bytes: see [`segment::Builder`]; and its new number.
pub(crate) const ROW_BYTES: usize = 80;

/// Compacts collections of one bucket and one catalog.
pub struct Compactor<'a, S, C, R> {
    /// The bucket. Reads may be repeated below this.
    pub store: &'a S,
    /// Who says which version counts.
    pub catalog: &'a C,
    /// Clock, randomness and sleep.
    pub runtime: &'a R,
    /// Bytes of memory to stay below, about: a longer log is compacted in several steps, and segments do not grow larger
    /// than their index fits.
    pub memory_bytes: usize,
    /// Where rows go that wait for their leaf index, and how many of them memory holds.
    pub scratch: Scratch,
    /// How leaf indexes are built.
    pub indexing: Indexing,
    /// Segments beyond which some are merged: usually [`tiers::SEGMENTS_MAX`].
    pub segments_max: usize,
    /// Whether to stop at the next opportunity.
    pub is_stopped: &'a dyn Fn() -> bool,
    /// What was done so far.
    pub stats: Stats,
}

/// What a compactor has done.
#[derive(Debug, Default)]
pub struct Stats {
    /// Operations read from logs.
    pub operations: Cell<u64>,
    /// Bytes of those operations.
    pub operation_bytes: Cell<u64>,
    /// Rows written for the first time.
    pub rows: Cell<u64>,
    /// Rows written again by merges.
    pub merged_rows: Cell<u64>,
    /// Merges whose leaf index went on from that of an input.
    pub kept_indexes: Cell<u64>,
    /// Bytes of objects written.
    pub bytes_written: Cell<u64>,
}

fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

/// How a step ended.
enum Step {
    /// There is nothing to do.
    Nothing,
    /// A generation was published; whether the end of the log was reached.
    Published { generation: u64, watermark: Lsn, is_all: bool },
    /// Somebody else has published.
    Overtaken,
}

impl From<CatalogError> for CompactError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound => CompactError::Gone,
            CatalogError::Unavailable(reason) => CompactError::Unavailable(reason),
            CatalogError::AlreadyExists | CatalogError::Refused(_) => CompactError::Broken(error.to_string()),
        }
    }
}

impl From<StoredError> for CompactError {
    fn from(error: StoredError) -> Self {
        match error {
            // Under an old row: the next pass reads a new one.
            StoredError::Unavailable(reason) | StoredError::Missing(reason) => CompactError::Unavailable(reason),
            StoredError::Corrupt(reason) => CompactError::Broken(reason),
        }
    }
}

impl From<PlanError> for CompactError {
    fn from(error: PlanError) -> Self {
        CompactError::Broken(error.to_string())
    }
}

/// Why the reading of a log ended before its end.
enum Halt {
    /// As much was read as fits.
    Full,
    Failed(CompactError),
}

impl From<TailError> for Halt {
    fn from(error: TailError) -> Self {
        Halt::Failed(match error {
            TailError::Unavailable(reason) => CompactError::Unavailable(reason),
            TailError::Broken { .. } => CompactError::Broken(error.to_string()),
        })
    }
}

/// A stretch of a log, laid over what is stored.
struct Stretch {
    layer: Layer,
    end: LogEnd,
    is_all: bool,
    /// Hashes of the stored rows that it may replace or remove.
    hashes: HashMap<Place, u128>,
}

impl<S: ObjectStore, C: Catalog + Maintenance, R: Runtime> Compact for Compactor<'_, S, C, R> {
    async fn compact(&self, id: CollectionId) -> Result<Compacted, CompactError> {
        let mut published = Compacted::Nothing;
        for fold in [true, false] {
            let mut attempts = 0;
            loop {
                if (self.is_stopped)() {
                    return Err(CompactError::Stopped);
                }
                let step = if fold { Box::pin(self.fold(id)).await? } else { Box::pin(self.merge(id)).await? };
                match step {
                    Step::Nothing => break,
                    Step::Published { generation, watermark, is_all } => {
                        published = Compacted::Published { generation, watermark };
                        if is_all {
                            break;
                        }
                    }
                    Step::Overtaken if attempts == ATTEMPTS_MAX => {
                        return Err(CompactError::Unavailable("others publish faster than this one".to_owned()));
                    }
                    Step::Overtaken => attempts += 1,
                }
            }
        }
        Ok(published)
    }
}

impl<S: ObjectStore, C: Catalog + Maintenance, R: Runtime> Compactor<'_, S, C, R> {
    fn reader<'r>(&'r self, blocks: &'r RefCell<Blocks>) -> StoredReader<'r, S> {
        // What one step reads twice it reads within one batch of ids.
        const KEPT_BYTES: &usize = &(8 << 20);
        StoredReader { store: self.store, blocks, room: KEPT_BYTES, tally: None }
    }

    fn rows_max(&self) -> u32 {
        u32::try_from(self.memory_bytes / 2 / ROW_BYTES).unwrap_or(u32::MAX)
    }

    /// Turns the log behind the watermark, or as much of it as fits into memory, into a segment.
    async fn fold(&self, id: CollectionId) -> Result<Step, CompactError> {
        let row = self.catalog.get_collection_by_id(id).await?;
        let base = Base::new(row.manifest.clone(), None);
        let stretch = match self.read_log(&row, &base).await {
            Err(CompactError::Broken(why)) => return self.overtaken_or(&row, CompactError::Broken(why)).await,
            read => read?,
        };
        if stretch.end.next == row.watermark() {
            return Ok(Step::Nothing);
        }
        let mut manifest = Manifest { compacted: stretch.end, ..row.manifest.clone() };
        self.remove_hidden(&row, &base, &stretch, &mut manifest).await?;
        let Stretch { layer, is_all, .. } = stretch;
        if let Some(segment) = self.write_records(&row, layer.overlay).await? {
            manifest.records += u64::from(segment.rows);
            manifest.set_hash = SetHash(manifest.set_hash.0.wrapping_add(segment.set_hash.0));
            manifest.segments.push(segment);
        }
        let from = PublishFrom { generation: row.generation, gc_epoch: row.gc_epoch };
        if !self.publish(id, from, &manifest).await? {
            return Ok(Step::Overtaken);
        }
        Ok(Step::Published { generation: row.generation + 1, watermark: manifest.watermark(), is_all })
    }

    /// What looks like damage may be what others have compacted, and collected, since `row` was read.
    async fn overtaken_or(&self, row: &CollectionRow, error: CompactError) -> Result<Step, CompactError> {
        let now = self.catalog.get_collection_by_id(row.id).await?;
        if now.generation == row.generation { Err(error) } else { Ok(Step::Overtaken) }
    }

    /// Reads the log from the watermark on, as much of it as a quarter of the memory holds.
    async fn read_log(&self, row: &CollectionRow, base: &Base) -> Result<Stretch, CompactError> {
        let blocks = RefCell::default();
        let stored = self.reader(&blocks);
        let mut stretch =
            Stretch { layer: Layer::above(base), end: row.manifest.compacted, is_all: true, hashes: HashMap::new() };
        let mut bytes = 0_u64;
        let take = async |fragments: Vec<Fragment>| -> Result<(), Halt> {
            let operations = fragments.iter().flat_map(Fragment::operations);
            let questions = stretch.layer.questions(operations, Wanted::Affected);
            let facts = Box::pin(stored.facts(base, &questions)).await.map_err(|error| Halt::Failed(error.into()))?;
            let rows = facts.values().filter_map(|fact| Some((fact.place, fact.row.as_ref()?.view().hash())));
            stretch.hashes.extend(rows);
            for fragment in &fragments {
                let applied = stretch.layer.apply(&facts, fragment.header.lsn, fragment.operations());
                applied.map_err(|error| Halt::Failed(error.into()))?;
                stretch.end = fragment.header.as_end();
                bytes += fragment.bytes;
                add(&self.stats.operations, u64::from(fragment.header.count));
                add(&self.stats.operation_bytes, fragment.bytes);
            }
            if bytes > self.memory_bytes as u64 / 4 { Err(Halt::Full) } else { Ok(()) }
        };
        let reader = Reader { store: self.store, collection: row.id };
        let read = reader.read_together(row.manifest.compacted, Lsn(u64::MAX), take).await;
        match read {
            Ok(_) => Ok(stretch),
            Err(Halt::Full) => Ok(Stretch { is_all: false, ..stretch }),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    /// Takes out of `manifest` what the log replaces or removes.
    async fn remove_hidden(
        &self,
        row: &CollectionRow,
        base: &Base,
        stretch: &Stretch,
        manifest: &mut Manifest,
    ) -> Result<(), CompactError> {
        let mut segments = Vec::new();
        for (number, mut segment) in (0..).zip(std::mem::take(&mut manifest.segments)) {
            let hidden = stretch.layer.hidden.of(number);
            if !hidden.is_empty() {
                let mut dead: DeleteVector = base.dead(number).iter().collect();
                for dead_row in hidden.iter() {
                    dead.insert(dead_row);
                    let hash = stretch.hashes[&Place { segment: number, row: dead_row }];
                    manifest.set_hash = SetHash(manifest.set_hash.0.wrapping_sub(hash));
                    manifest.records -= 1;
                }
                if dead.len() == segment.rows {
                    continue;
                }
                segment.dead = Some(self.write_dead(row, &dead).await?);
            }
            segments.push(segment);
        }
        manifest.segments = segments;
        Ok(())
    }

    async fn write_dead(&self, row: &CollectionRow, dead: &DeleteVector) -> Result<DeleteVectorRef, CompactError> {
        let body = dead.encode();
        let place = if body.len() <= INLINE_BYTES_MAX.min(self.memory_bytes / 1_000) {
            DeleteVectorPlace::Inline(dead.encode_inline())
        } else {
            let key = keys::delete_vector(row.id, row.gc_epoch, self.nonce(row));
            self.put(&key, body).await?;
            DeleteVectorPlace::Object(key)
        };
        Ok(DeleteVectorRef { count: dead.len(), place })
    }

    /// A name that nobody else has.
    pub(crate) fn nonce(&self, row: &CollectionRow) -> Nonce {
        let is_random = holds(Safeguard::RandomNames);
        Nonce(if is_random { self.runtime.random() } else { u128::from(row.generation) + 1 })
    }

    /// Writes the records that the log leaves as a segment; `None` if it leaves none.
    async fn write_records(&self, row: &CollectionRow, overlay: Overlay) -> Result<Option<SegmentRef>, CompactError> {
        let Some(dimension) = overlay.dimension().filter(|_| !overlay.is_empty()) else { return Ok(None) };
        let mut writer = self.writer(row, dimension, overlay.len() as u64);
        for (position, record) in overlay.records() {
            self.push(&mut writer, &stored::as_row(position, &record)).await?;
        }
        // An index is built in the memory that they had.
        drop(overlay);
        let segment = self.finish(writer, None).await?;
        add(&self.stats.rows, u64::from(segment.rows));
        Ok(Some(segment))
    }

    pub(crate) async fn upload(&self, prefix: &str, parts: Vec<Part>) -> Result<(), CompactError> {
        for part in parts {
            self.put(&format!("{prefix}/{}", part.name), part.body).await?;
        }
        Ok(())
    }

    /// Puts an object under a name that is nobody else's: if it is there after an unclear answer, it is this one. A store
    /// may say 412 for nothing, so that is no proof.
    async fn put(&self, key: &str, body: bytes::Bytes) -> Result<(), CompactError> {
        let mut backoff = Backoff::tries(limits::STORE_ATTEMPTS_MAX);
        add(&self.stats.bytes_written, body.len() as u64);
        loop {
            let reason = match self.store.put(key, body.clone(), PutMode::Create).await {
                Ok(_) => return Ok(()),
                Err(PutError::Refused(reason)) => return Err(CompactError::Broken(format!("{key}: {reason}"))),
                Err(error) => error.to_string(),
            };
            if self.store.head(key).await == Ok(Some(body.len() as u64)) {
                return Ok(());
            }
            if !backoff.pause(self.runtime).await {
                return Err(CompactError::Unavailable(reason));
            }
        }
    }

    /// Makes `manifest` the next generation. Returns whether it is: `false` if another one has become it.
    async fn publish(&self, id: CollectionId, from: PublishFrom, manifest: &Manifest) -> Result<bool, CompactError> {
        let mut backoff = Backoff::tries(limits::CATALOG_ATTEMPTS_MAX);
        loop {
            match self.catalog.publish(id, from, manifest).await {
                Ok(true) => return Ok(true),
                Ok(false) | Err(CatalogError::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
            // It may have been carried out all the same: the manifest tells, as its names are nobody else's.
            match self.catalog.get_collection_by_id(id).await {
                Ok(row) if row.manifest == *manifest => return Ok(true),
                Ok(row) if row.generation != from.generation || row.gc_epoch > from.gc_epoch + 1 => return Ok(false),
                Ok(_) | Err(CatalogError::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
            if !backoff.pause(self.runtime).await {
                return Err(CompactError::Unavailable("the catalog did not say whether it was published".to_owned()));
            }
        }
    }

    /// Merges or rebuilds the segments that are due.
    async fn merge(&self, id: CollectionId) -> Result<Step, CompactError> {
        let row = self.catalog.get_collection_by_id(id).await?;
        let Some(inputs) = tiers::due(&row.manifest.segments, self.segments_max, self.rows_max()) else {
            return Ok(Step::Nothing);
        };
        let inputs: Vec<SegmentRef> = inputs.into_iter().map(|number| row.manifest.segments[number].clone()).collect();
        let merged = self.write_merged(&row, &inputs).await?;
        let mut now = row.clone();
        for _ in 0..ATTEMPTS_MAX {
            let Some(manifest) = self.rebased(&row, &now, &inputs, &merged).await? else { return Ok(Step::Overtaken) };
            // The objects bear the epoch of the row that the merge began with.
            let from = PublishFrom { generation: now.generation, gc_epoch: row.gc_epoch };
            if self.publish(id, from, &manifest).await? {
                let watermark = manifest.watermark();
                return Ok(Step::Published { generation: now.generation + 1, watermark, is_all: false });
            }
            now = self.catalog.get_collection_by_id(id).await?;
            if now.gc_epoch > row.gc_epoch + 1 {
                return Ok(Step::Overtaken);
            }
        }
        Ok(Step::Overtaken)
    }

    /// Writes the live rows of `inputs`, in the order of their positions, as one segment.
    async fn write_merged(&self, row: &CollectionRow, inputs: &[SegmentRef]) -> Result<Merged, CompactError> {
        let base = Base::new(Manifest { segments: inputs.to_vec(), ..Manifest::default() }, None);
        let blocks = RefCell::default();
        let stored = StoredReader { room: &0, ..self.reader(&blocks) };
        stored.open(&base).await?;
        let dimension = inputs.first().map_or(0, |input| input.dimension);
        let dimension = usize::try_from(dimension).expect("a vector fits into memory");
        let rows = inputs.iter().map(|input| u64::from(input.live_rows())).sum();
        let mut writer = self.writer(row, dimension, rows);
        let mut moved: Vec<Vec<u32>> = inputs.iter().map(|input| vec![u32::MAX; input.rows as usize]).collect();
        let mut scan = RowScan::new(&base);
        while let Some(place) = scan.next(&stored).await? {
            moved[place.segment as usize][place.row as usize] = writer.rows();
            self.push(&mut writer, &scan.row()).await?;
            if (self.is_stopped)() {
                return Err(CompactError::Stopped);
            }
        }
        drop(scan);
        drop(base);
        let before = match refile::goes_on_from(inputs).filter(|_| writer.is_indexed()) {
            Some(input) => self.read_index(&inputs[input], &moved[input], writer.rows()).await?,
            None => None,
        };
        let segment = self.finish(writer, before).await?;
        add(&self.stats.merged_rows, u64::from(segment.rows));
        Ok(Merged { segment, moved })
    }

    /// The leaf index of `input`, whose rows are now `moved`, unless its leaves are too many for so many `rows`.
    ///
    /// Cost: a get of its table, and one or two for each 4 MB of its leaves.
    async fn read_index(&self, input: &SegmentRef, moved: &[u32], rows: u32) -> Result<Option<Before>, CompactError> {
        const STRETCH_BYTES: usize = 4 << 20;
        let base = Base::new(Manifest { segments: vec![input.clone()], ..Manifest::default() }, None);
        let blocks = RefCell::default();
        let stored = StoredReader { room: &0, ..self.reader(&blocks) };
        stored.open_indexes(&base).await?;
        let (open, index) = (&base.segments[0], base.segments[0].index());
        if !refile::fills(index.table(), rows, self.indexing.leaf_rows) {
            return Ok(None);
        }
        let memory_bytes = self.scratch.memory_bytes / 4;
        let mut before = Before::new(index.table().clone(), Scratch { memory_bytes, ..self.scratch.clone() });
        let sizes = (0..index.table().leaves()).map(|leaf| index.table().rows(leaf..leaf + 1).len());
        for leaves in stretches(sizes, STRETCH_BYTES / index.table().codec().row_bytes()) {
            let wanted: Vec<(u32, usize)> = leaves.clone().map(|leaf| (0, leaf)).collect();
            for (leaf, body) in leaves.zip(stored.leaves(&base, &wanted).await?) {
                let read = index.decode_leaf(leaf, &body).map_err(|error| open.damaged(&error))?;
                before.push(read.rows().map(|row| moved[row as usize]), read.codes)?;
            }
        }
        add(&self.stats.kept_indexes, 1);
        Ok(Some(before))
    }

    /// The manifest of `now` with `merged` in place of its `inputs`, whatever was published since the merge began at `then`:
    /// rows that died since are dead in the merged segment. `None` if an input is not live any more.
    async fn rebased(
        &self,
        then: &CollectionRow,
        now: &CollectionRow,
        inputs: &[SegmentRef],
        merged: &Merged,
    ) -> Result<Option<Manifest>, CompactError> {
        let named = |input: &SegmentRef| now.manifest.segments.iter().find(|segment| segment.prefix == input.prefix);
        let Some(inputs_now) = inputs.iter().map(|input| named(input).cloned()).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let mut dead = DeleteVector::default();
        for ((before, after), moved) in inputs.iter().zip(&inputs_now).zip(&merged.moved) {
            if before.dead != after.dead {
                let base = Base::new(Manifest { segments: vec![after.clone()], ..Manifest::default() }, None);
                self.reader(&RefCell::default()).open(&base).await?;
                let moved = base.dead(0).iter().map(|row| moved[row as usize]).filter(|row| *row != u32::MAX);
                dead = dead.iter().chain(moved).collect();
            }
        }
        let mut segments = now.manifest.segments.clone();
        segments.retain(|segment| inputs.iter().all(|input| input.prefix != segment.prefix));
        if dead.len() < merged.segment.rows {
            let dead = if dead.is_empty() { None } else { Some(self.write_dead(then, &dead).await?) };
            segments.push(SegmentRef { dead, ..merged.segment.clone() });
        }
        Ok(Some(Manifest { segments, ..now.manifest.clone() }))
    }
}

/// A segment made of others.
struct Merged {
    segment: SegmentRef,
    /// For each row of each input its number in the segment; [`u32::MAX`] for those that were dead.
    moved: Vec<Vec<u32>>,
}
