//! What an executor isolate remembers between requests: plain data, never a promise of another request.

use model::{CollectionId, LogEnd, Lsn, limits};
use query::{Overlay, PlanError};
use runtime::Runtime;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use wal::Fragment;

/// How often a waiting request looks whether it may go on, in ms.
const POLL_MS: u64 = 3;

/// Collections by id, bounded by [`limits::EXECUTOR_CACHE_BYTES`], and how much memory running reads were promised.
#[derive(Default)]
pub struct Cache {
    tails: RefCell<HashMap<CollectionId, Entry>>,
    clock: Cell<u64>,
    promised_bytes: Cell<usize>,
}

struct Entry {
    tail: Rc<RefCell<Tail>>,
    used_at: u64,
}

/// The log of a collection from its watermark up to `end`, laid out as records as far as there is room.
#[derive(Default)]
pub struct Tail {
    /// Up to where it was read.
    pub end: LogEnd,
    /// What it says.
    pub overlay: Overlay,
    /// Size of its largest fragment.
    pub fragment_bytes_max: usize,
    /// Why it says nothing any more: a fragment went in by half, or nothing of it fits.
    failure: Option<PlanError>,
    /// Whether a request has the [`Turn`].
    is_being_read: bool,
}

impl Tail {
    /// Takes the fragment behind the end. One that another request has brought already changes nothing.
    pub fn absorb(&mut self, fragment: &Fragment) {
        if self.failure.is_some() || fragment.header.lsn < self.end.next {
            return;
        }
        assert_eq!(fragment.header.lsn, self.end.next, "a reader hands out fragments without a gap");
        self.failure = self.overlay.apply(fragment.header.lsn, fragment.operations()).err();
        let bytes = usize::try_from(fragment.bytes).unwrap_or(usize::MAX);
        self.fragment_bytes_max = self.fragment_bytes_max.max(bytes);
        self.end = fragment.header.as_end();
    }

    /// Whether it can be read; if not, it never can be again, and must be forgotten.
    pub fn check(&self) -> Result<(), PlanError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn fit(&mut self, bytes_max: usize) {
        if let Err(error) = self.overlay.fit(bytes_max) {
            self.failure = Some(error);
        }
    }
}

/// The right to read a long stretch of a log into the cache: others wait instead of fetching the same.
pub struct Turn<'a>(&'a RefCell<Tail>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().is_being_read = false;
    }
}

/// The promise that some memory is there to work with.
pub struct Permit<'a> {
    promised_bytes: &'a Cell<usize>,
    bytes: usize,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.promised_bytes.set(self.promised_bytes.get() - self.bytes);
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

    /// Makes room for `keep`: drops other collections, the least recently used first (of those that are being read
    /// only what can be read again), then what does not fit of `keep` itself.
    pub fn shrink(&self, keep: &RefCell<Tail>) {
        let mut tails = self.tails.borrow_mut();
        let is_other = |entry: &Entry| !std::ptr::eq(&*entry.tail, keep);
        let mut others: Vec<(u64, CollectionId)> =
            tails.iter().filter(|(_, entry)| is_other(entry)).map(|(id, entry)| (entry.used_at, *id)).collect();
        others.sort_unstable_by_key(|(used_at, _)| *used_at);
        let bytes = |tail: &RefCell<Tail>| tail.borrow().overlay.bytes();
        let mut others_bytes: usize = others.iter().map(|(_, id)| bytes(&tails[id].tail)).sum();
        for (_, id) in others {
            if others_bytes + bytes(keep) <= limits::EXECUTOR_CACHE_BYTES {
                return;
            }
            let tail = tails[&id].tail.clone();
            others_bytes -= bytes(&tail);
            // One is in the table, one is ours.
            if Rc::strong_count(&tail) == 2 {
                tails.remove(&id);
            } else {
                let _ = tail.borrow_mut().overlay.fit(0);
                others_bytes += bytes(&tail);
            }
        }
        keep.borrow_mut().fit(limits::EXECUTOR_CACHE_BYTES.saturating_sub(others_bytes));
    }

    /// Waits while another request reads a long stretch of `tail`, then takes the turn if this one might do so as well:
    /// if nothing was read yet, or fragments are so large that several copies of the next one would hurt.
    ///
    /// Errors: [`PlanError::Unavailable`] after [`limits::EXECUTORS_TIMEOUT_MS`].
    pub async fn turn<'a>(
        &self,
        tail: &'a RefCell<Tail>,
        runtime: &impl Runtime,
    ) -> Result<Option<Turn<'a>>, PlanError> {
        let is_free = || {
            let mut tail = tail.borrow_mut();
            let is_free = !tail.is_being_read;
            let is_long = tail.end == LogEnd::EMPTY || tail.fragment_bytes_max > limits::SHARED_PROBE_BYTES;
            tail.is_being_read |= is_long;
            is_free.then_some(is_long)
        };
        let is_long = poll(is_free, runtime).await?;
        Ok(is_long.then(|| Turn(tail)))
    }

    /// Waits until `bytes` of the memory for running reads are free; who asks for more than all of it gets all.
    ///
    /// Errors: as [`Cache::turn`].
    pub async fn permit(&self, bytes: usize, runtime: &impl Runtime) -> Result<Permit<'_>, PlanError> {
        let bytes = bytes.min(limits::EXECUTOR_WORK_BYTES);
        let promise = || {
            let promised = self.promised_bytes.get() + bytes;
            (promised <= limits::EXECUTOR_WORK_BYTES).then(|| self.promised_bytes.set(promised))
        };
        poll(promise, runtime).await?;
        Ok(Permit { promised_bytes: &self.promised_bytes, bytes })
    }
}

/// Asks `ready` until it gives something: one request cannot wake another.
async fn poll<T>(mut ready: impl FnMut() -> Option<T>, runtime: &impl Runtime) -> Result<T, PlanError> {
    for _ in 0..limits::EXECUTORS_TIMEOUT_MS / POLL_MS {
        if let Some(value) = ready() {
            return Ok(value);
        }
        runtime.sleep(POLL_MS).await;
    }
    Err(PlanError::Unavailable("the executor is busy with other reads: try again".to_owned()))
}
