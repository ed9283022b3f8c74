//! A bucket in memory: what the contract means, in the fewest words.

use crate::{Etag, LIST_KEYS_MAX, ObjectStore, PutError, PutMode, ReadError, key_error};
use bytes::Bytes;
use md5::{Digest, Md5};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::rc::Rc;

/// A bucket that lives as long as its last clone. Every operation is instantaneous and none fails.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Rc<RefCell<BTreeMap<String, Bytes>>>,
}

impl MemoryStore {
    fn read<T>(&self, key: &str, of: impl FnOnce(&Bytes) -> T) -> Result<Option<T>, ReadError> {
        match key_error(key) {
            Some(error) => Err(ReadError::Refused(error)),
            None => Ok(self.objects.borrow().get(key).map(of)),
        }
    }
}

impl ObjectStore for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.read(key, Bytes::clone)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        self.read(key, |body| crate::part_of(body, &range))
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.read(key, |body| body.len() as u64)
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        if let Some(error) = key_error(key) {
            return Err(PutError::Refused(error));
        }
        let mut objects = self.objects.borrow_mut();
        let current = objects.get(key);
        let may_write = match mode {
            PutMode::Overwrite => true,
            PutMode::Create => current.is_none(),
            PutMode::Update(etag) => current.is_some_and(|body| etag_of(body) == etag),
        };
        if !may_write {
            return Err(PutError::Precondition);
        }
        let etag = etag_of(&body);
        objects.insert(key.to_owned(), body);
        Ok(etag)
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        let from = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        let objects = self.objects.borrow();
        let keys = objects.range::<str, _>((from, Bound::Unbounded)).map(|(key, _)| key);
        Ok(keys.take_while(|key| key.starts_with(prefix)).take(LIST_KEYS_MAX).cloned().collect())
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        match key_error(key) {
            Some(error) => Err(PutError::Refused(error)),
            None => {
                self.objects.borrow_mut().remove(key);
                Ok(())
            }
        }
    }
}

/// As S3 makes it: equal contents have equal names, so whoever takes an etag for a version number is found out here.
fn etag_of(body: &Bytes) -> Etag {
    let hex: String = Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    Etag(format!("\"{hex}\""))
}
