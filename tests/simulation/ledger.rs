//! What really happened: every fragment at the moment it became durable, whoever was told.

use crate::history::CallId;
use bytes::Bytes;
use model::{CollectionId, Lsn, Operation};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
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
            self.ledger.landed(collection, lsn, body);
        }
        done
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.inner.list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.inner.delete(key).await
    }
}
