//! Leaf indexes: tables, leaves, and rows in the order of the leaves.

use crate::base::{Base, OpenSegment, Place};
use crate::fetch::{Block, Key};
use crate::{StoredError, StoredReader};
use bytes::Bytes;
use futures_util::future::join;
use model::SegmentRef;
use segment::LeafIndex;
use std::collections::HashMap;
use std::rc::Rc;
use storage::ObjectStore;

/// Where rows lie a second time: the slots of those that a search met in leaf indexes.
pub type Slots = HashMap<Place, u32>;

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
