//! Leaf indexes: tables, leaves, and rows in the order of the leaves.

use crate::base::{Base, OpenSegment, Place};
use crate::fetch::{Block, Key};
use crate::{StoredError, StoredReader};
use bytes::Bytes;
use futures_util::future::join;
use model::SegmentRef;
use segment::LeafIndex;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use storage::ObjectStore;

/// Where rows lie a second time: the slots of those that a search met in leaf indexes.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    of: HashMap<Place, u32>,
    /// Segments and slots there that are read at once.
    stretches: Vec<(u32, Range<u32>)>,
}

impl Slots {
    /// Of no rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// The row at `place` has this slot.
    pub fn insert(&mut self, place: Place, slot: u32) {
        self.of.insert(place, slot);
    }

    /// What is wanted of these slots of segment number `segment`, at least one, is to be read by one get, whatever lies between.
    pub fn join(&mut self, segment: u32, slots: Range<u32>) {
        self.stretches.push((segment, slots));
    }

    pub(crate) fn get(&self, place: &Place) -> Option<u32> {
        self.of.get(place).copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// What is to be read at once. Indexes are open.
    pub(crate) fn stretches(&self, base: &Base) -> Vec<Block> {
        let block = |(segment, slots): &(u32, Range<u32>)| {
            let segment = &base.segments[*segment as usize];
            let (first, last) =
                (segment.index().near_batch_of(slots.start), segment.index().near_batch_of(slots.end - 1));
            let range = first.range.start..last.range.end;
            (first.part == last.part).then(|| segment.block(&first.part, range))
        };
        self.stretches.iter().filter_map(block).collect()
    }
}

impl OpenSegment {
    /// Its leaf index. Panics unless [`StoredReader::open_indexes`] has succeeded, and if it has none.
    pub fn index(&self) -> &LeafIndex {
        self.index.get().expect("the index was opened")
    }

    fn open_index(&self, body: &[u8]) -> Result<LeafIndex, StoredError> {
        let index = LeafIndex::open(body).map_err(|error| self.damaged(&error))?;
        match (index.rows(), index.set_hash()) == (self.named.rows, self.named.set_hash) {
            true => Ok(index),
            false => Err(self.not_ours("leaf index")),
        }
    }

    /// Where leaf number `leaf` is.
    pub fn leaf_block(&self, leaf: usize) -> Block {
        let place = self.index().leaf_place(leaf);
        self.block(&place.part, place.range)
    }
}

impl<S: ObjectStore> StoredReader<'_, S> {
    /// Opens the leaf indexes of all segments that have one, and reads all delete vectors. Cost: a get for each that is not
    /// known yet, all at once.
    pub async fn open_indexes(&self, base: &Base) -> Result<(), StoredError> {
        let (indexes, dead) = join(self.read_indexes(base), self.open_dead(base)).await;
        indexes.and(dead)
    }

    pub(crate) async fn read_indexes(&self, base: &Base) -> Result<(), StoredError> {
        let place = |named: &SegmentRef| named.index.as_ref().map(segment::index_place);
        self.open_each(base, |segment| &segment.index, place, OpenSegment::open_index).await
    }

    /// The leaves, in the order of `wanted`: segment and number of the leaf there. Indexes are open.
    ///
    /// Cost: a get for each run of neighbours that are not kept.
    pub async fn leaves(&self, base: &Base, wanted: &[(u32, usize)]) -> Result<Vec<Bytes>, StoredError> {
        let open = |at: usize| (&base.segments[wanted[at].0 as usize], wanted[at].1);
        let keys: Vec<Key> = wanted.iter().map(|(segment, leaf)| leaf_key(base, *segment, *leaf)).collect();
        let block = |at| {
            let (segment, leaf) = open(at);
            segment.leaf_block(leaf)
        };
        let check = |at, body: &[u8]| {
            let (segment, leaf) = open(at);
            segment.index().decode_leaf(leaf, body).map(drop).map_err(|error| segment.damaged(&error))
        };
        self.kept_or_read(&keys, block, check).await
    }
}

fn leaf_key(base: &Base, segment: u32, leaf: usize) -> Key {
    Key::Leaf(Rc::clone(&base.segments[segment as usize].prefix), leaf)
}
