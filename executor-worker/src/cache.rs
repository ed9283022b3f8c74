//! What an executor isolate remembers between requests: plain data, never a promise of another request.

use model::{CollectionId, LogEnd, Lsn, Timestamp, limits};
use query::{Overlay, PlanError};
use runtime::Runtime;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use wal::Fragment;

/// Collections by id, bounded by [`limits::EXECUTOR_CACHE_BYTES`], and how much memory running reads were promised.
#[derive(Default)]
pub struct Cache {
    tails: RefCell<HashMap<CollectionId, Entry>>,
    clock: Cell<u64>,
    /// Bytes promised to running reads.
    promised: RefCell<Vec<(Lease, usize)>>,
}

/// A right that ends when its holder gives it back, or else when the holder must have been answered: an isolate may drop
/// a request without running its destructors.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Lease {
    number: u64,
    until: Timestamp,
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
    /// Of the request that has the [`Turn`].
    lease: Option<Lease>,
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
pub struct Turn<'a> {
    tail: &'a RefCell<Tail>,
    lease: Lease,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.tail.borrow_mut().lease.take_if(|lease| *lease == self.lease);
    }
}

/// The promise that some memory is there to work with.
pub struct Permit<'a> {
    promised: &'a RefCell<Vec<(Lease, usize)>>,
    lease: Lease,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.promised.borrow_mut().retain(|(lease, _)| *lease != self.lease);
    }
}

impl Cache {
    /// What is remembered of a collection's log from `watermark` on; empty if nothing is, or if it ends before that.
    pub fn tail(&self, collection: CollectionId, watermark: Lsn) -> Rc<RefCell<Tail>> {
        let used_at = self.tick();
        let mut tails = self.tails.borrow_mut();
        let entry = tails.entry(collection).or_insert_with(|| Entry { tail: Rc::default(), used_at: 0 });
        if entry.tail.borrow().end.next < watermark {
            entry.tail = Rc::default();
        }
        entry.used_at = used_at;
        entry.tail.clone()
    }

    /// A number that nothing had before.
    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    fn lease(&self, now: Timestamp) -> Lease {
        Lease { number: self.tick(), until: now.plus_ms(limits::REQUEST_DEADLINE_MS) }
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
        let take = || {
            let now = runtime.now();
            let mut tail = tail.borrow_mut();
            if tail.lease.is_some_and(|lease| lease.until > now) {
                return None;
            }
            let is_long = tail.end == LogEnd::EMPTY || tail.fragment_bytes_max > limits::SHARED_PROBE_BYTES;
            tail.lease = is_long.then(|| self.lease(now));
            Some(tail.lease)
        };
        let lease = poll(take, runtime).await?;
        Ok(lease.map(|lease| Turn { tail, lease }))
    }

    /// Waits until `bytes` of the memory for running reads are free; who asks for more than all of it gets all.
    ///
    /// Errors: as [`Cache::turn`].
    pub async fn permit(&self, bytes: usize, runtime: &impl Runtime) -> Result<Permit<'_>, PlanError> {
        let bytes = bytes.min(limits::EXECUTOR_WORK_BYTES);
        let promise = || {
            let now = runtime.now();
            let mut promised = self.promised.borrow_mut();
            promised.retain(|(lease, _)| lease.until > now);
            let used: usize = promised.iter().map(|(_, bytes)| bytes).sum();
            let lease = (used + bytes <= limits::EXECUTOR_WORK_BYTES).then(|| self.lease(now))?;
            promised.push((lease, bytes));
            Some(lease)
        };
        let lease = poll(promise, runtime).await?;
        Ok(Permit { promised: &self.promised, lease })
    }
}

/// Asks `ready` until it gives something: one request cannot wake another.
async fn poll<T>(mut ready: impl FnMut() -> Option<T>, runtime: &impl Runtime) -> Result<T, PlanError> {
    for _ in 0..limits::EXECUTORS_TIMEOUT_MS / limits::POLL_MS {
        if let Some(value) = ready() {
            return Ok(value);
        }
        runtime.sleep(limits::POLL_MS).await;
    }
    Err(PlanError::Unavailable("the executor is busy with other reads: try again".to_owned()))
}
