//! What an executor isolate remembers between requests: plain data, never a promise of another request.

use model::{CollectionId, Filter, LogEnd, Manifest, Timestamp, limits};
use query::{PlanError, Source};
use runtime::{Runtime, beating};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use stored::{Base, Blocks, Facts, Layer, Room};
use text::Matches;
use wal::Fragment;

/// Versions of collections and blocks of objects, bounded by [`limits::EXECUTOR_CACHE_BYTES`], and how much memory running
/// reads were promised.
#[derive(Default)]
pub struct Cache {
    collections: RefCell<HashMap<CollectionId, Entry>>,
    pub(crate) blocks: RefCell<Blocks>,
    clock: Cell<u64>,
    /// Bytes promised to running reads.
    promised: RefCell<Vec<(Lease, usize)>>,
}

/// By this a request shows the others that it is still there: an isolate may drop a request at any await, without running
/// its destructors.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Rc<Cell<u64>>);

impl Pulse {
    /// The result of `future`, which is done in the sight of the others.
    pub(crate) async fn during<F: Future>(&self, runtime: &impl Runtime, future: Pin<&mut F>) -> F::Output {
        beating(runtime, limits::BEAT_MS, || self.0.set(self.0.get() + 1), future).await
    }
}

/// A right that ends when its holder gives it back, or else when somebody who waits for it finds the holder gone.
#[derive(Clone)]
struct Lease {
    number: u64,
    holder: Pulse,
}

/// What a request that waits has seen of the holders that it waits for, by the numbers of their leases.
#[derive(Default)]
struct Watch {
    seen: HashMap<u64, Sight>,
}

/// A beat, since when it has been the last one, and how often it was found to be.
#[derive(Clone, Copy)]
struct Sight {
    beat: u64,
    since: Timestamp,
    looks: u64,
}

impl Watch {
    /// Looks at the holder once more; whether it counts as gone. Silence alone does not prove it: a busy isolate comes to
    /// all its timers late, and who waits must not conclude from that before the holder could beat. So there must have
    /// been twice as many looks, too, as there usually are between two beats.
    fn finds_gone(&mut self, lease: &Lease, now: Timestamp) -> bool {
        let first = Sight { beat: lease.holder.0.get(), since: now, looks: 0 };
        let sight = self.seen.entry(lease.number).or_insert(first);
        if sight.beat != first.beat {
            *sight = first;
        }
        sight.looks += 1;
        now.ms_since(sight.since) > limits::SILENCE_MS && sight.looks > 2 * limits::BEAT_MS / limits::POLL_MS
    }
}

struct Entry {
    version: Rc<Version>,
    used_at: u64,
}

/// A version of a collection: its stored rows, and the log above them.
pub(crate) struct Version {
    generation: u64,
    pub(crate) base: Base,
    pub(crate) tail: RefCell<Tail>,
    /// What is known of filters.
    pub(crate) answered: RefCell<Answered>,
}

impl Version {
    pub(crate) fn new(generation: u64, manifest: Manifest, before: Option<&Base>) -> Self {
        let base = Base::new(manifest, before);
        let tail = RefCell::new(Tail::above(&base));
        Version { generation, base, tail, answered: RefCell::default() }
    }

    /// Whether it is known which rows satisfy `filter`.
    pub(crate) fn knows(&self, filter: &Filter) -> bool {
        self.answered.borrow().has(&name_of(filter))
    }

    fn bytes(&self) -> usize {
        self.base.bytes() + self.answered.borrow().bytes + self.tail.borrow().layer.bytes()
    }
}

/// What text indexes said of the filters of a version that were asked for last: users ask for the same ones again and again.
#[derive(Default)]
pub(crate) struct Answered {
    /// By the filter's JSON; the one that was used last at the end.
    kept: Vec<(String, Vec<Matches>)>,
    bytes: usize,
}

impl Answered {
    /// Bytes that are kept at most.
    const BYTES_MAX: usize = 2 * 1024 * 1024;

    pub(crate) fn get(&mut self, filter: &str) -> Option<Vec<Matches>> {
        let at = self.kept.iter().position(|(known, _)| known == filter)?;
        let last = self.kept.remove(at);
        let matches = last.1.clone();
        self.kept.push(last);
        Some(matches)
    }

    fn has(&self, filter: &str) -> bool {
        self.kept.iter().any(|(known, _)| known == filter)
    }

    pub(crate) fn put(&mut self, filter: String, matches: &[Matches]) {
        // Another request may have asked the same.
        if !self.has(&filter) {
            self.bytes += matches_bytes(&filter, matches);
            self.kept.push((filter, matches.to_vec()));
        }
        while self.bytes > Self::BYTES_MAX {
            let (filter, matches) = self.kept.remove(0);
            self.bytes -= matches_bytes(&filter, &matches);
        }
    }
}

/// What a filter is kept under.
pub(crate) fn name_of(filter: &Filter) -> String {
    serde_json::to_string(filter).expect("filters have string keys")
}

fn matches_bytes(filter: &str, matches: &[Matches]) -> usize {
    let sets = matches.iter().map(|Matches { sure, unsure }| sure.serialized_size() + unsure.serialized_size());
    filter.len() + sets.sum::<usize>() + size_of_val(matches)
}

/// The log of a collection from the watermark of a version up to `end`, laid out as records as far as there is room.
pub(crate) struct Tail {
    /// Up to where it was read.
    pub(crate) end: LogEnd,
    /// Whether anybody has looked yet whether there is something.
    pub(crate) was_read: bool,
    /// Whether the last one to look found that it still ends there.
    pub(crate) is_quiet: bool,
    /// What it says.
    pub(crate) layer: Layer,
    /// Size of its largest fragment.
    pub(crate) fragment_bytes_max: usize,
    /// Why it says nothing any more: a fragment went in by half, or nothing of it fits.
    failure: Option<PlanError>,
    /// Of the request that has the [`Turn`].
    lease: Option<Lease>,
}

impl Tail {
    /// The log above `base`, of which nothing was read.
    pub(crate) fn above(base: &Base) -> Self {
        Tail {
            end: base.manifest.compacted,
            was_read: false,
            is_quiet: false,
            layer: Layer::above(base),
            fragment_bytes_max: 0,
            failure: None,
            lease: None,
        }
    }

    /// Takes the fragment behind the end; `facts` are what is stored of its ids that the overlay does not have. One that
    /// another request has brought already changes nothing.
    pub(crate) fn absorb(&mut self, fragment: &Fragment, facts: &Facts) {
        if self.failure.is_some() || fragment.header.lsn < self.end.next {
            return;
        }
        assert_eq!(fragment.header.lsn, self.end.next, "a reader hands out fragments without a gap");
        self.failure = self.layer.apply(facts, fragment.header.lsn, fragment.operations()).err();
        let bytes = usize::try_from(fragment.bytes).unwrap_or(usize::MAX);
        self.fragment_bytes_max = self.fragment_bytes_max.max(bytes);
        self.end = fragment.header.as_end();
    }

    /// Whether it can be read; if not, it never can be again, and must be forgotten.
    pub(crate) fn check(&self) -> Result<(), PlanError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn fit(&mut self, bytes_max: usize) {
        let others = self.layer.bytes_besides();
        if let Err(error) = self.layer.overlay.fit(bytes_max.saturating_sub(others)) {
            self.failure = Some(error);
        }
    }
}

/// The right to read a long stretch of a log into the cache: others wait instead of fetching the same.
pub(crate) struct Turn<'a> {
    tail: &'a RefCell<Tail>,
    /// Its number.
    lease: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.tail.borrow_mut().lease.take_if(|lease| lease.number == self.lease);
    }
}

/// The promise that some memory is there to work with.
pub(crate) struct Permit<'a> {
    promised: &'a RefCell<Vec<(Lease, usize)>>,
    /// Its number.
    lease: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.promised.borrow_mut().retain(|(lease, _)| lease.number != self.lease);
    }
}

impl Cache {
    /// What is remembered of the version that `source` names, or of a later one: a later row says the same and more.
    pub(crate) fn version(&self, source: &Source) -> Rc<Version> {
        let used_at = self.tick();
        let mut collections = self.collections.borrow_mut();
        let known = collections.get_mut(&source.collection).filter(|entry| {
            entry.version.generation > source.generation || entry.version.base.manifest == source.manifest
        });
        if let Some(entry) = known {
            entry.used_at = used_at;
            return Rc::clone(&entry.version);
        }
        let before = collections.get(&source.collection).map(|entry| &entry.version.base);
        let version = Rc::new(Version::new(source.generation, source.manifest.clone(), before));
        collections.insert(source.collection, Entry { version: Rc::clone(&version), used_at });
        version
    }

    /// A number that nothing had before.
    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    fn lease(&self, holder: &Pulse) -> Lease {
        Lease { number: self.tick(), holder: holder.clone() }
    }

    /// Drops what is remembered of a collection.
    pub(crate) fn forget(&self, collection: CollectionId) {
        self.collections.borrow_mut().remove(&collection);
    }

    /// Makes room for `keep`: drops blocks, then other collections, the least recently used first (of those that are being
    /// read only what can be read again), then what does not fit of `keep` itself.
    pub(crate) fn shrink(&self, keep: &Version) {
        self.blocks.borrow_mut().fit(self.blocks_bytes());
        let mut collections = self.collections.borrow_mut();
        let is_other = |entry: &Entry| !std::ptr::eq(&*entry.version, keep);
        let mut others: Vec<(u64, CollectionId)> =
            collections.iter().filter(|(_, entry)| is_other(entry)).map(|(id, entry)| (entry.used_at, *id)).collect();
        others.sort_unstable_by_key(|(used_at, _)| *used_at);
        let mut others_bytes: usize = others.iter().map(|(_, id)| collections[id].version.bytes()).sum();
        for (_, id) in others {
            if others_bytes + keep.bytes() <= limits::EXECUTOR_CACHE_BYTES {
                return;
            }
            let version = Rc::clone(&collections[&id].version);
            others_bytes -= version.bytes();
            // One is in the table, one is ours.
            if Rc::strong_count(&version) == 2 {
                collections.remove(&id);
            } else {
                let _ = version.tail.borrow_mut().layer.overlay.fit(0);
                others_bytes += version.bytes();
            }
        }
        let others_bytes = others_bytes + keep.base.bytes() + keep.answered.borrow().bytes;
        let room = limits::EXECUTOR_CACHE_BYTES.saturating_sub(others_bytes);
        keep.tail.borrow_mut().fit(room);
    }

    /// Waits while another request reads a long stretch of `tail`, then takes the turn if this one might do so as well:
    /// if nothing was read yet, or fragments are so large that several copies of the next one would hurt. It has the turn
    /// as long as `holder` beats.
    ///
    /// Errors: [`PlanError::Unavailable`] after [`limits::EXECUTORS_TIMEOUT_MS`].
    pub(crate) async fn turn<'a>(
        &self,
        tail: &'a RefCell<Tail>,
        holder: &Pulse,
        runtime: &impl Runtime,
    ) -> Result<Option<Turn<'a>>, PlanError> {
        let mut watch = Watch::default();
        let take = || {
            let mut tail = tail.borrow_mut();
            if tail.lease.as_ref().is_some_and(|lease| !watch.finds_gone(lease, runtime.now())) {
                return None;
            }
            let is_long = !tail.was_read || tail.fragment_bytes_max > limits::SHARED_PROBE_BYTES;
            tail.lease = is_long.then(|| self.lease(holder));
            Some(tail.lease.as_ref().map(|lease| lease.number))
        };
        let lease = poll(take, runtime).await?;
        Ok(lease.map(|lease| Turn { tail, lease }))
    }

    /// Waits until `bytes` of the memory for running reads are free; who asks for more than all of it gets all. They are
    /// promised as long as `holder` beats.
    ///
    /// Errors: as [`Cache::turn`].
    pub(crate) async fn permit(
        &self,
        bytes: usize,
        holder: &Pulse,
        runtime: &impl Runtime,
    ) -> Result<Permit<'_>, PlanError> {
        let bytes = bytes.min(limits::EXECUTOR_WORK_BYTES);
        let mut watch = Watch::default();
        let promise = || {
            let now = runtime.now();
            let mut promised = self.promised.borrow_mut();
            promised.retain(|(lease, _)| !watch.finds_gone(lease, now));
            let used: usize = promised.iter().map(|(_, bytes)| bytes).sum();
            let lease = (used + bytes <= limits::EXECUTOR_WORK_BYTES).then(|| self.lease(holder))?;
            let number = lease.number;
            promised.push((lease, bytes));
            Some(number)
        };
        let lease = poll(promise, runtime).await?;
        Ok(Permit { promised: &self.promised, lease })
    }
}

impl Room for Cache {
    fn blocks_bytes(&self) -> usize {
        let versions: usize = self.collections.borrow().values().map(|entry| entry.version.bytes()).sum();
        limits::EXECUTOR_CACHE_BYTES.saturating_sub(versions)
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
