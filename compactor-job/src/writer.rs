//! Writes one segment: its rows and their text index as they come, and, if they are many, a leaf index when all of them are
//! there.

use crate::compact::{Compactor, ROW_BYTES};
use crate::indexing;
use crate::refile::Before;
use crate::spill::Spill;
use crate::texts::{self, Beside, TextWriter};
use crate::work::CompactError;
use catalog::{Catalog, Maintenance};
use model::{CollectionRow, IndexRef, SegmentRef, Space, TextRef, keys};
use runtime::Runtime;
use segment::row::RowView;
use segment::{Builder, IndexBuilder};
use std::io;
use std::sync::Arc;
use storage::ObjectStore;

#[cfg(test)]
mod tests;

/// A segment under way.
pub(crate) struct SegmentWriter {
    prefix: String,
    space: Space,
    builder: Builder,
    /// Its rows once more, if it gets a leaf index.
    rows: Option<Spill>,
    texts: TextWriter,
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
        let options = texts::options(&row.schema, self.indexing.words);
        let is_indexed = rows > 0 && self.indexing.is_worth_it(rows, dimension);
        SegmentWriter {
            prefix: keys::segment(row.id, row.gc_epoch, self.nonce(row)),
            space: row.configuration.space,
            builder: if is_indexed { Builder::without_codes(dimension) } else { Builder::new(dimension) },
            rows: is_indexed.then(|| Spill::new(dimension, &self.scratch)),
            texts: TextWriter::new(options, self.indexing.text_from_bytes, self.memory_bytes),
        }
    }

    /// Appends a row; what it completes is uploaded.
    pub(crate) async fn push(&self, writer: &mut SegmentWriter, row: &RowView<'_>) -> Result<(), CompactError> {
        writer.builder.push(row);
        if let Some(rows) = &mut writer.rows {
            rows.push(row)?;
        }
        writer.texts.push(row);
        if writer.texts.is_due() {
            self.index_waiting(&writer.prefix, &mut writer.texts).await?;
        }
        self.upload(&writer.prefix, writer.builder.take_parts()).await
    }

    /// Uploads the rest; says how a manifest names the segment. `before`: what its leaf index goes on from.
    pub(crate) async fn finish(
        &self,
        writer: SegmentWriter,
        before: Option<Before>,
    ) -> Result<SegmentRef, CompactError> {
        let SegmentWriter { prefix, space, builder, rows, texts } = writer;
        let built = builder.finish(prefix.clone());
        self.upload(&prefix, built.parts).await?;
        // The memory that this takes the leaf index has afterwards.
        let (text, text_bytes) = match texts.is_worth_it() {
            true => self.write_text(&built.segment, texts).await?,
            false => (None, 0),
        };
        let (index, index_bytes) = match rows {
            Some(rows) => self.write_index(&prefix, space, rows, before).await?,
            None => (None, 0),
        };
        Ok(SegmentRef { index, text, bytes: built.segment.bytes + text_bytes + index_bytes, ..built.segment })
    }

    /// Hands the rows that wait for their text index over, when those before them are done with.
    async fn index_waiting(&self, prefix: &str, texts: &mut TextWriter) -> Result<(), CompactError> {
        let builder = self.text_builder(prefix, texts).await?;
        let rows = texts.take_waiting();
        texts.work = Some(Beside::start(self.indexing.threads, move || texts::index(builder, &rows)));
        Ok(())
    }

    /// The builder, when it has taken what it was given; what it built is uploaded.
    async fn text_builder(&self, prefix: &str, texts: &mut TextWriter) -> Result<text::Builder, CompactError> {
        let Some(work) = texts.work.take() else { return Ok(texts.builder()) };
        let (builder, built) = self.end_of(work).await?;
        built.into_iter().for_each(|built| texts.objects.push(built.bundle, built.hotcache));
        self.upload(prefix, texts.objects.take_parts()).await?;
        Ok(builder)
    }

    /// The rest of the text index of `segment`.
    async fn write_text(
        &self,
        segment: &SegmentRef,
        mut texts: TextWriter,
    ) -> Result<(Option<TextRef>, u64), CompactError> {
        self.index_waiting(&segment.prefix, &mut texts).await?;
        let builder = self.text_builder(&segment.prefix, &mut texts).await?;
        let last = self.compute(move || builder.finish()).await;
        last.into_iter().for_each(|built| texts.objects.push(built.bundle, built.hotcache));
        let built = texts.objects.finish(segment.rows, segment.dimension, segment.set_hash);
        self.upload(&segment.prefix, built.parts).await?;
        Ok((Some(built.named), built.bytes))
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

    /// The result of `work`, which runs on a thread of its own if there may be several.
    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.end_of(Beside::start(self.indexing.threads, work)).await
    }

    /// The result of `work`. Signals and leases are seen to meanwhile.
    async fn end_of<T: Send + 'static>(&self, work: Beside<T>) -> T {
        const LOOK_MS: u64 = 5;
        while !work.is_finished() {
            self.runtime.sleep(LOOK_MS).await;
        }
        work.finish()
    }
}
