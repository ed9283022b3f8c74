//! Leaf indexes: tables, leaves, and rows in the order of the leaves.

use crate::base::{Base, OpenSegment, Place};
use crate::fetch::Block;
use crate::{StoredError, StoredReader};
use bytes::Bytes;
use segment::LeafIndex;
use std::collections::HashMap;
use std::ops::Range;
use storage::ObjectStore;

/// Where rows lie a second time: the slots of those that a search met in leaf indexes.
pub type Slots = HashMap<Place, u32>;

impl OpenSegment {
    /// Its leaf index. Panics unless [`StoredReader::open_indexes`] has succeeded, and if it has none.
    pub fn index(&self) -> &LeafIndex {
        self.index.get().expect("the index was opened")
    }

    /// Where leaf number `leaf` is.
    pub fn leaf_block(&self, leaf: usize) -> Block {
        let place = self.index().leaf_place(leaf);
        self.block(&place.part, place.range)
    }
}

impl<S: ObjectStore> StoredReader<'_, S> {
    /// Opens the leaf indexes of all segments that have one, and reads all delete vectors. Cost: a get for each that is not
    /// known yet: all indexes at once, then all vectors that are objects.
    pub async fn open_indexes(&self, base: &Base) -> Result<(), StoredError> {
        let missing: Vec<(&OpenSegment, Block)> = base
            .numbered()
            .filter(|(_, segment)| segment.index.get().is_none())
            .filter_map(|(_, segment)| {
                let place = segment::index_place(segment.named.index.as_ref()?);
                Some((segment, segment.block(&place.part, place.range)))
            })
            .collect();
        let blocks: Vec<Block> = missing.iter().map(|(_, block)| block.clone()).collect();
        for ((segment, _), body) in missing.iter().zip(self.fetch_once(&blocks).await?) {
            let index = LeafIndex::open(&body).map_err(|error| segment.damaged(&error))?;
            let named = &segment.named;
            if (index.rows(), index.set_hash()) != (named.rows, named.set_hash) {
                return Err(StoredError::Corrupt(format!("{} has the leaf index of another segment", named.prefix)));
            }
            let _ = segment.index.set(index);
        }
        self.open_dead(base).await
    }

    /// The leaves, in the order of `wanted`: segment and number of the leaf there. Indexes are open.
    ///
    /// Cost: a get for each run of neighbours that are not kept.
    pub async fn leaves(&self, base: &Base, wanted: &[(u32, usize)]) -> Result<Vec<Bytes>, StoredError> {
        let block = |(segment, leaf): &(u32, usize)| base.segments[*segment as usize].leaf_block(*leaf);
        let blocks: Vec<Block> = wanted.iter().map(block).collect();
        self.fetch(&blocks).await
    }

    /// Reads the rows of these stretches of slots ahead, each with what lies in it. Indexes are open.
    ///
    /// Cost: a get for each stretch of up to a megabyte that is not kept.
    pub async fn read_near(&self, base: &Base, stretches: &[(u32, Range<u32>)]) -> Result<(), StoredError> {
        let mut blocks = Vec::new();
        for (number, slots) in stretches.iter().filter(|(_, slots)| !slots.is_empty()) {
            let segment = &base.segments[*number as usize];
            let index = segment.index();
            let last = index.near_batch_of(slots.end - 1).number;
            let batches = (index.near_batch_of(slots.start).number..=last).map(|batch| index.near_batch(batch));
            blocks.extend(batches.map(|batch| segment.batch_block(&batch)));
        }
        blocks.sort_by(|a, b| (&a.key, a.range.start).cmp(&(&b.key, b.range.start)));
        blocks.dedup();
        self.fetch(&blocks).await.map(drop)
    }
}
