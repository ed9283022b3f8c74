//! What really happened: every fragment at the moment it became durable, whoever was told; and what was made, named and
//! deleted of segments.

use crate::history::CallId;
use bytes::Bytes;
use model::{CollectionId, DeleteVectorPlace, Lsn, Manifest, Operation, SegmentRef, Timestamp, keys, limits};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;
use storage::{Etag, MemoryStore, ObjectStore, PutError, PutMode, ReadError};

/// The logs as they grew, which no garbage collection takes back.
#[derive(Default)]
pub(crate) struct Ledger {
    logs: RefCell<HashMap<CollectionId, Vec<Entry>>>,
    senders: RefCell<HashMap<Bytes, CallId>>,
    /// What no execution may contain.
    pub(crate) violation: RefCell<Option<String>>,
    /// Fragments that were put where the log had already been collected.
    pub(crate) zombies: Cell<u32>,
    /// How the gc floors rose.
    floors: RefCell<HashMap<CollectionId, Vec<(Timestamp, Lsn)>>>,
    /// Every part of a segment and every delete vector that was ever made, and whether it is there.
    made: RefCell<BTreeMap<String, bool>>,
    /// What the living collections name.
    current: RefCell<HashMap<CollectionId, Manifest>>,
    /// Generations that were published.
    pub(crate) published: Cell<u32>,
    /// Parts of segments and delete vectors that were deleted.
    pub(crate) deleted: Cell<u32>,
}

/// A fragment of a log.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) operations: Vec<Operation>,
    /// Whose request put it.
    pub(crate) sender: Option<CallId>,
}

impl Ledger {
    /// The log of a collection, from its first fragment on.
    pub(crate) fn log(&self, collection: CollectionId) -> Vec<Entry> {
        self.logs.borrow().get(&collection).cloned().unwrap_or_default()
    }

    /// Remembers who sends a body.
    pub(crate) fn sent(&self, body: &Bytes, call: CallId) {
        self.senders.borrow_mut().insert(body.clone(), call);
    }

    pub(crate) fn violated(&self, what: String) {
        self.violation.borrow_mut().get_or_insert(what);
    }

    /// The catalog says that the gc floor is at least this.
    pub(crate) fn raised(&self, collection: CollectionId, at: Timestamp, floor: Lsn) {
        self.floors.borrow_mut().entry(collection).or_default().push((at, floor));
    }

    /// How often a gc floor was raised above the first fragment.
    pub(crate) fn floors_raised(&self) -> usize {
        self.floors.borrow().values().flatten().filter(|(_, floor)| *floor > Lsn::ZERO).count()
    }

    /// The floor that a claim sent `now` must know of: its row may be a minute old.
    pub(crate) fn floor_to_be_known(&self, collection: CollectionId, now: Timestamp) -> Lsn {
        let floors = self.floors.borrow();
        let old_enough = floors.get(&collection).into_iter().flatten();
        let old_enough = old_enough.filter(|(at, _)| now.ms_since(*at) > limits::CLAIM_ROW_AGE_MAX_MS);
        old_enough.map(|(_, floor)| *floor).max().unwrap_or(Lsn::ZERO)
    }

    /// The catalog says that this manifest is the current one: all that it names must be there, and stay there.
    pub(crate) fn published(&self, collection: CollectionId, manifest: &Manifest) {
        self.published.set(self.published.get() + 1);
        if let Some(before) = self.current.borrow_mut().insert(collection, manifest.clone())
            && before.watermark() > manifest.watermark()
        {
            self.violated(format!("{collection}: the watermark falls to {}", manifest.watermark().0));
        }
        self.check_named(collection, manifest);
    }

    /// Whether every object that `manifest` names is there: of a segment, every part that was ever made.
    pub(crate) fn check_named(&self, collection: CollectionId, manifest: &Manifest) {
        let made = self.made.borrow();
        for segment in &manifest.segments {
            let parts = made.range(segment.prefix.clone()..).take_while(|(key, _)| is_of(segment, key));
            let parts: Vec<(&str, bool)> = parts.map(|(key, is_there)| (key.as_str(), *is_there)).collect();
            let dead = delete_vector_of(segment).map(|key| (key, made.get(key).copied().unwrap_or(false)));
            if parts.is_empty() {
                self.violated(format!("{collection}: nobody has made {}, which is named", segment.prefix));
            }
            if let Some((key, _)) = parts.into_iter().chain(dead).find(|(_, is_there)| !is_there) {
                self.violated(format!("{collection}: {key} is named and not there"));
            }
        }
    }

    fn made(&self, key: &str) {
        if keys::gc_epoch_of(key).is_some() {
            self.made.borrow_mut().insert(key.to_owned(), true);
        }
    }

    fn deleted(&self, key: &str) {
        let Some(is_there) = self.made.borrow_mut().get_mut(key).map(std::mem::take) else { return };
        self.deleted.set(self.deleted.get() + u32::from(is_there));
        let current = self.current.borrow();
        if current.values().any(|manifest| is_named(manifest, key)) {
            self.violated(format!("{key} is deleted and named"));
        }
    }

    fn landed(&self, collection: CollectionId, lsn: Lsn, body: Bytes) {
        let mut logs = self.logs.borrow_mut();
        let log = logs.entry(collection).or_default();
        let length = log.len() as u64;
        if lsn.0 > length {
            self.violated(format!("{collection}: fragment {} leaves a gap behind {length}", lsn.0));
        }
        if lsn.0 < length {
            self.zombies.set(self.zombies.get() + 1);
        }
        if lsn.0 != length {
            return;
        }
        let sender = self.senders.borrow().get(&body).copied();
        match wal::fragment::decode(&body).and_then(|fragment| fragment.to_operations()) {
            Ok(operations) => log.push(Entry { operations, sender }),
            Err(error) => self.violated(format!("{collection}: fragment {} is damaged: {error}", lsn.0)),
        }
    }
}

/// Whether `key` is that of a part of the segment.
fn is_of(segment: &SegmentRef, key: &str) -> bool {
    key.strip_prefix(&segment.prefix).is_some_and(|rest| rest.starts_with('/'))
}

/// The object that is the segment's delete vector, if one is.
fn delete_vector_of(segment: &SegmentRef) -> Option<&str> {
    match &segment.dead.as_ref()?.place {
        DeleteVectorPlace::Object(key) => Some(key),
        DeleteVectorPlace::Inline(_) => None,
    }
}

/// Whether the manifest names the object: as a part of a segment, or as a delete vector.
pub(crate) fn is_named(manifest: &Manifest, key: &str) -> bool {
    manifest.segments.iter().any(|segment| is_of(segment, key) || delete_vector_of(segment) == Some(key))
}

/// The collection and the LSN of a fragment's key; `None` for any other.
pub(crate) fn fragment_of(key: &str) -> Option<(CollectionId, Lsn)> {
    let (collection, lsn) = key.split_once("/log/")?;
    Some((CollectionId::parse(collection)?, Lsn(u64::from_str_radix(lsn, 16).ok()?)))
}

/// A store that writes into the ledger what it keeps.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(crate) inner: MemoryStore,
    pub(crate) ledger: Rc<Ledger>,
}

impl ObjectStore for Recorded {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.inner.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        let done = self.inner.put(key, body.clone(), mode).await;
        if let (Ok(_), Some((collection, lsn))) = (&done, fragment_of(key)) {
            self.ledger.landed(collection, lsn, body.clone());
        }
        match &done {
            Ok(_) => self.ledger.made(key),
            // A late put may find itself; another would be taken for it.
            Err(_) => {
                let is_of_segment = keys::gc_epoch_of(key).is_some();
                if is_of_segment && self.inner.get(key).await.is_ok_and(|there| there != Some(body)) {
                    self.ledger.violated(format!("{key} is made twice"));
                }
            }
        }
        done
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.inner.list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.ledger.deleted(key);
        self.inner.delete(key).await
    }
}
