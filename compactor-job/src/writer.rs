//! Writes one segment: its rows as they come, and, if they are many, a leaf index when all of them are there.

use crate::compact::Compactor;
use crate::indexing::{self, Leaves};
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
}

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

    /// Uploads the rest; says how a manifest names the segment.
    pub(crate) async fn finish(&self, writer: SegmentWriter) -> Result<SegmentRef, CompactError> {
        let SegmentWriter { prefix, space, builder, rows } = writer;
        let (index, index_bytes) = match rows {
            Some(rows) => self.write_index(&prefix, space, rows).await?,
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
        rows: Spill,
    ) -> Result<(Option<IndexRef>, u64), CompactError> {
        let (rows, threads, memory) = (Arc::new(rows), self.indexing.threads, self.scratch.memory_bytes);
        let own = Arc::clone(&rows);
        let Leaves { table, order } = self.compute(move || indexing::leaves(&own, space, threads, memory)).await?;
        let mut builder = IndexBuilder::new(table);
        let order: Arc<[u32]> = order.into();
        for first in (0..builder.table().leaves()).step_by(LEAVES_TOGETHER) {
            let end = builder.table().leaves().min(first + LEAVES_TOGETHER);
            let (own, all, table) = (Arc::clone(&rows), Arc::clone(&order), builder.table().clone());
            let codes = self.compute(move || {
                let leaf = |leaf: usize| indexing::encode(&own, &table, leaf, members(&all, &table, leaf));
                vector::parallel::map(threads, end - first, |at| leaf(first + at))
                    .into_iter()
                    .collect::<io::Result<Vec<_>>>()
            });
            for (leaf, codes) in (first..).zip(codes.await?) {
                let numbers = members(&order, builder.table(), leaf);
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

fn members<'o>(order: &'o [u32], table: &vector::Table, leaf: usize) -> &'o [u32] {
    let range = table.rows(leaf..leaf + 1);
    &order[range.start as usize..range.end as usize]
}
