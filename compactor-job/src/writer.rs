//! Writes one segment: its rows as they come, and, if they are many, a leaf index when all of them are there.

use crate::compact::{Compactor, ROW_BYTES};
use crate::indexing;
use crate::refile::Before;
use crate::spill::Spill;
use crate::work::CompactError;
use catalog::{Catalog, Maintenance};
use model::{CollectionRow, IndexRef, SegmentRef, Space, keys};
use runtime::Runtime;
use segment::row::RowView;
use segment::{Builder, IndexBuilder};
use std::io;
use std::sync::Arc;
use storage::ObjectStore;

/// A segment under way.
pub(crate) struct SegmentWriter {
    prefix: String,
    space: Space,
    builder: Builder,
    /// Its rows once more, if it gets a leaf index.
    rows: Option<Spill>,
}

impl SegmentWriter {
    /// Number of rows so far: that of the next one.
    pub(crate) fn rows(&self) -> u32 {
        self.builder.rows()
    }

    /// Whether it gets a leaf index.
    pub(crate) fn is_indexed(&self) -> bool {
        self.rows.is_some()
    }
}

/// What the objects take that are being made while an index is built, about, in bytes.
const PARTS_BYTES: usize = 32 * 1024 * 1024;
/// Leaves whose codes are computed together.
const LEAVES_TOGETHER: usize = 256;

impl From<io::Error> for CompactError {
    /// The disk for what does not fit into memory.
    fn from(error: io::Error) -> Self {
        CompactError::Unavailable(format!("the scratch directory: {error}"))
    }
}

impl<S: ObjectStore, C: Catalog + Maintenance, R: Runtime> Compactor<'_, S, C, R> {
    /// A segment of the collection with this `row`, which will have about so many rows.
    pub(crate) fn writer(&self, row: &CollectionRow, dimension: usize, rows: u64) -> SegmentWriter {
        let is_indexed = rows > 0 && self.indexing.is_worth_it(rows, dimension);
        SegmentWriter {
            prefix: keys::segment(row.id, row.gc_epoch, self.nonce(row)),
            space: row.configuration.space,
            builder: if is_indexed { Builder::without_codes(dimension) } else { Builder::new(dimension) },
            rows: is_indexed.then(|| Spill::new(dimension, &self.scratch)),
        }
    }

    /// Appends a row; what it completes is uploaded.
    pub(crate) async fn push(&self, writer: &mut SegmentWriter, row: &RowView<'_>) -> Result<(), CompactError> {
        writer.builder.push(row);
        if let Some(rows) = &mut writer.rows {
            rows.push(row)?;
        }
        self.upload(&writer.prefix, writer.builder.take_parts()).await
    }

    /// Uploads the rest; says how a manifest names the segment. `before`: what its leaf index goes on from.
    pub(crate) async fn finish(
        &self,
        writer: SegmentWriter,
        before: Option<Before>,
    ) -> Result<SegmentRef, CompactError> {
        let SegmentWriter { prefix, space, builder, rows } = writer;
        let (index, index_bytes) = match rows {
            Some(rows) => self.write_index(&prefix, space, rows, before).await?,
            None => (None, 0),
        };
        let built = builder.finish(prefix.clone());
        self.upload(&prefix, built.parts).await?;
        Ok(SegmentRef { index, bytes: built.segment.bytes + index_bytes, ..built.segment })
    }

    async fn write_index(
        &self,
        prefix: &str,
        space: Space,
        mut rows: Spill,
        before: Option<Before>,
    ) -> Result<(Option<IndexRef>, u64), CompactError> {
        rows.settle()?;
        let held = rows.memory_bytes() + before.as_ref().map_or(0, Before::memory_bytes) + rows.len() * ROW_BYTES;
        let memory = self.memory_bytes.saturating_sub(held + PARTS_BYTES);
        let (rows, before, indexing) = (Arc::new(rows), Arc::new(before), self.indexing);
        let (of, from) = (Arc::clone(&rows), Arc::clone(&before));
        let leaves = self.compute(move || indexing::leaves(&of, space, (*from).as_ref(), &indexing, memory)).await?;
        let mut builder = IndexBuilder::new(leaves.table.clone());
        let leaves = Arc::new(leaves);
        for first in (0..leaves.table.leaves()).step_by(LEAVES_TOGETHER) {
            let some = first..leaves.table.leaves().min(first + LEAVES_TOGETHER);
            let (of, from, all) = (Arc::clone(&rows), Arc::clone(&before), Arc::clone(&leaves));
            let codes = self.compute(move || {
                let leaf = |at: usize| indexing::encode(&of, &all, (*from).as_ref(), some.start + at);
                vector::parallel::map(indexing.threads, some.len(), leaf).into_iter().collect::<io::Result<Vec<_>>>()
            });
            for (leaf, codes) in (first..).zip(codes.await?) {
                let numbers = leaves.members(leaf);
                let full = numbers.iter().map(|number| rows.row(*number)).collect::<io::Result<Vec<_>>>()?;
                builder.push(&codes, numbers.iter().copied().zip(full.iter().map(|row| row.view())));
                self.upload(prefix, builder.take_parts()).await?;
                if (self.is_stopped)() {
                    return Err(CompactError::Stopped);
                }
            }
        }
        let built = builder.finish();
        self.upload(prefix, built.parts).await?;
        Ok((Some(built.named), built.bytes))
    }

    /// The result of `work`, which runs on a thread of its own if there may be several, so that signals and leases are seen to
    /// meanwhile.
    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        const LOOK_MS: u64 = 5;
        if self.indexing.threads <= 1 {
            return work();
        }
        let thread = std::thread::spawn(work);
        while !thread.is_finished() {
            self.runtime.sleep(LOOK_MS).await;
        }
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
