//! What a gateway isolate remembers between requests: catalog rows and where logs end. Plain data that may be lost or
//! out of date at any time: every use says how old it may be.

use crate::lane::Lane;
use crate::pool::Membership;
use model::{CollectionId, CollectionRow, LogEnd, Lsn, Timestamp, limits};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use wal::RowView;

/// A catalog row and when it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenRow {
    /// As the catalog answered; shared, as every request on the collection looks at it.
    pub row: Rc<CollectionRow>,
    /// Before the request was sent.
    pub requested_at: Timestamp,
}

impl SeenRow {
    /// What the log needs of it.
    pub fn view(&self) -> RowView {
        RowView { gc_floor: self.row.gc_floor, compacted: self.row.manifest.compacted, requested_at: self.requested_at }
    }
}

impl Known {
    fn watermark(&self) -> Lsn {
        self.row.as_ref().map_or(Lsn::ZERO, |seen| seen.row.watermark())
    }
}

/// The memory of an isolate.
#[derive(Default)]
pub struct Memory {
    collections: RefCell<HashMap<CollectionId, Known>>,
    clock: Cell<u64>,
    /// The pool of executors.
    pub pool: RefCell<Membership>,
    /// Whether the store was seen to honour conditions.
    pub store_trusted: Cell<bool>,
}

#[derive(Default)]
struct Known {
    row: Option<SeenRow>,
    end: Option<LogEnd>,
    /// Below this every run of fragments is packed or too large for it.
    packed: Lsn,
    /// When the compactor's marker was last put, and at which watermark.
    marked: Option<(Timestamp, Lsn)>,
    lane: Rc<Lane>,
    used_at: u64,
}

impl Memory {
    /// The row as last seen, however old.
    pub fn row(&self, id: CollectionId) -> Option<SeenRow> {
        self.with(id, |known| known.row.clone())
    }

    /// Remembers a row unless a newer one is known.
    pub fn see_row(&self, seen: &SeenRow) {
        self.with(seen.row.id, |known| {
            if known.row.as_ref().is_none_or(|row| row.requested_at <= seen.requested_at) {
                known.row = Some(seen.clone());
            }
        });
    }

    /// Where the log was last seen to end.
    pub fn end(&self, id: CollectionId) -> Option<LogEnd> {
        self.with(id, |known| known.end.map(|end| LogEnd { packed: end.packed.max(known.packed), ..end }))
    }

    /// Remembers an end of the log unless a later one is known: what was seen to exist stays.
    pub fn see_end(&self, id: CollectionId, end: LogEnd) {
        self.with(id, |known| {
            if known.end.is_none_or(|known| known.next < end.next) {
                known.end = Some(end);
            }
        });
    }

    /// Remembers up to where the log is packed.
    pub fn see_packed(&self, id: CollectionId, packed: Lsn) {
        self.with(id, |known| known.packed = known.packed.max(packed));
    }

    /// Whether the compactor's marker must be put at `now`: the belief that it is there lasts [`limits::MARKER_MS`], and
    /// no longer than the watermark stands.
    pub fn needs_marker(&self, id: CollectionId, now: Timestamp) -> bool {
        self.with(id, |known| {
            let watermark = known.watermark();
            let is_there = |(at, then): (Timestamp, Lsn)| then == watermark && now.ms_since(at) < limits::MARKER_MS;
            !known.marked.is_some_and(is_there)
        })
    }

    /// Remembers that the compactor's marker was put after `at`.
    pub fn see_marker(&self, id: CollectionId, at: Timestamp) {
        self.with(id, |known| known.marked = Some((at, known.watermark())));
    }

    /// Who writes to the collection.
    pub fn lane(&self, id: CollectionId) -> Rc<Lane> {
        self.with(id, |known| Rc::clone(&known.lane))
    }

    /// Forgets where the log ends: it turned out to be too old to build on.
    pub fn forget_end(&self, id: CollectionId) {
        self.with(id, |known| known.end = None);
    }

    /// Forgets all there is about a collection.
    pub fn forget(&self, id: CollectionId) {
        self.collections.borrow_mut().remove(&id);
    }

    fn with<T>(&self, id: CollectionId, action: impl FnOnce(&mut Known) -> T) -> T {
        let mut collections = self.collections.borrow_mut();
        if collections.len() >= limits::GATEWAY_COLLECTIONS_MAX && !collections.contains_key(&id) {
            forget_older_half(&mut collections);
        }
        self.clock.set(self.clock.get() + 1);
        let known = collections.entry(id).or_default();
        known.used_at = self.clock.get();
        action(known)
    }
}

/// Half at a time, so that a full memory is sorted seldom.
fn forget_older_half(collections: &mut HashMap<CollectionId, Known>) {
    let mut used: Vec<u64> = collections.values().map(|known| known.used_at).collect();
    let (_, median, _) = used.select_nth_unstable(collections.len() / 2);
    let median = *median;
    collections.retain(|_, known| known.used_at > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(next: u64) -> LogEnd {
        LogEnd { next: Lsn(next), ..LogEnd::EMPTY }
    }

    #[test]
    fn an_earlier_end_does_not_replace_a_later_one() {
        let (memory, id) = (Memory::default(), CollectionId::from_u128(1));
        for next in [3, 5, 4] {
            memory.see_end(id, end(next));
        }
        assert_eq!(memory.end(id), Some(end(5)));
    }

    #[test]
    fn a_full_memory_keeps_what_was_used_last() {
        let memory = Memory::default();
        let mut ids = (0..=limits::GATEWAY_COLLECTIONS_MAX as u128).map(CollectionId::from_u128);
        ids.clone().for_each(|id| memory.see_end(id, end(1)));
        assert!(memory.collections.borrow().len() <= limits::GATEWAY_COLLECTIONS_MAX);
        assert_eq!(memory.end(ids.next_back().unwrap()), Some(end(1)));
        assert_eq!(memory.end(CollectionId::from_u128(0)), None);
    }
}
