//! What an executor isolate remembers between requests: plain data, never a promise of another request.

use model::{CollectionId, LogEnd, Lsn, limits};
use query::{Overlay, PlanError};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use wal::Fragment;

/// Collections by id, bounded by [`limits::EXECUTOR_CACHE_BYTES`]; the least recently used go first.
#[derive(Default)]
pub struct Cache {
    tails: RefCell<HashMap<CollectionId, Entry>>,
    clock: Cell<u64>,
}

struct Entry {
    tail: Rc<RefCell<Tail>>,
    used_at: u64,
}

/// The log of a collection from its watermark up to `end`, laid out as records.
#[derive(Default)]
pub struct Tail {
    /// Up to where it was read.
    pub end: LogEnd,
    /// What it says.
    pub overlay: Overlay,
    /// Why it says nothing any more: a fragment went in by half.
    failure: Option<PlanError>,
}

impl Tail {
    /// Takes the fragment behind the end. One that another request has brought already changes nothing.
    pub fn absorb(&mut self, fragment: Fragment) {
        if self.failure.is_some() || fragment.header.lsn < self.end.next {
            return;
        }
        assert_eq!(fragment.header.lsn, self.end.next, "a reader hands out fragments without a gap");
        let end = fragment.header.as_end();
        self.failure = self.overlay.apply(fragment.operations()).err();
        self.end = end;
    }

    /// Whether it can be read; if not, it never can be again, and must be forgotten.
    pub fn check(&self) -> Result<(), PlanError> {
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None if self.overlay.bytes() > limits::TAIL_BYTES_MAX => {
                Err(PlanError::TooLarge("the collection is too large to be read from its log".to_owned()))
            }
            None => Ok(()),
        }
    }
}

impl Cache {
    /// What is remembered of a collection's log from `watermark` on; empty if nothing is, or if it ends before that.
    pub fn tail(&self, collection: CollectionId, watermark: Lsn) -> Rc<RefCell<Tail>> {
        self.clock.set(self.clock.get() + 1);
        let mut tails = self.tails.borrow_mut();
        let entry = tails.entry(collection).or_insert_with(|| Entry { tail: Rc::default(), used_at: 0 });
        if entry.tail.borrow().end.next < watermark {
            entry.tail = Rc::default();
        }
        entry.used_at = self.clock.get();
        entry.tail.clone()
    }

    /// Drops what is remembered of a collection.
    pub fn forget(&self, collection: CollectionId) {
        self.tails.borrow_mut().remove(&collection);
    }

    /// Drops collections, the least recently used first, until the rest fits its budget or only `keep` is left.
    pub fn shrink(&self, keep: CollectionId) {
        let mut tails = self.tails.borrow_mut();
        let mut bytes: usize = tails.values().map(|entry| entry.tail.borrow().overlay.bytes()).sum();
        while bytes > limits::EXECUTOR_CACHE_BYTES {
            let oldest =
                tails.iter().filter(|(id, _)| **id != keep).min_by_key(|(_, entry)| entry.used_at).map(|(id, _)| *id);
            let Some(entry) = oldest.and_then(|id| tails.remove(&id)) else { return };
            bytes -= entry.tail.borrow().overlay.bytes();
        }
    }
}
