//! What a write leaves to be done after it is answered: telling the compactor, folding fragments into packs.
//!
//! None of it is needed for what was promised: a chore that fails or never runs costs the compactor a longer search or a
//! reader more requests.

use crate::{Executors, Gateway};
use catalog::Catalog;
use model::{CollectionId, LogEnd, keys, limits};
use runtime::{Runtime, within};
use storage::{ObjectStore, PutMode};
use wal::Packer;

/// A fragment was written: the log of `collection` ends at `end`.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub(crate) collection: CollectionId,
    pub(crate) end: LogEnd,
}

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> Gateway<'_, S, C, E, R> {
    /// Whether [`Gateway::afterwards`] has something to do.
    pub fn has_chores(&self) -> bool {
        !self.written.borrow().is_empty()
    }

    /// Does what the answered request left to do, within [`limits::CHORES_MS`].
    ///
    /// Cost: one put for each collection at most every [`limits::MARKER_MS`]; for every sixteenth fragment two ranged
    /// gets and, if a pack is worth while, sixteen gets and one put.
    pub async fn afterwards(&self) {
        let written = self.written.take();
        let chores = async {
            for written in written {
                self.mark(&written).await;
                self.pack(&written).await;
            }
        };
        within(&self.runtime, limits::CHORES_MS, chores).await;
    }

    /// Puts the marker that tells the compactor of the collection; after the fragment, or it could be cleared before.
    async fn mark(&self, written: &Written) {
        let now = self.runtime.now();
        if !self.memory.needs_marker(written.collection, now) {
            return;
        }
        match self.store.put(&keys::dirty(written.collection), "".into(), PutMode::Overwrite).await {
            Ok(_) => self.memory.see_marker(written.collection, now),
            Err(error) => (self.settings.log)(&format!("{} is not marked for compaction: {error}", written.collection)),
        }
    }

    /// Folds the fragments before the end, if they fill a pack.
    async fn pack(&self, written: &Written) {
        let Some(seen) = self.memory.row(written.collection) else { return };
        if self.runtime.now().ms_since(seen.requested_at) > limits::CLAIM_ROW_AGE_MAX_MS {
            return;
        }
        let packer = Packer { store: &self.store, collection: written.collection };
        match packer.fold_before(&written.end, seen.view()).await {
            Ok(packed) => self.memory.see_packed(written.collection, packed),
            Err(error) => (self.settings.log)(&format!("{} is not packed: {error}", written.collection)),
        }
    }
}
