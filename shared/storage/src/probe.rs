//! Refuses at start-up a store that does not keep the promises on which the log rests.

use crate::{Etag, ObjectStore, PutError, PutMode, ReadError};
use bytes::Bytes;

/// Why a store must not be used (or could not be asked).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// A read failed: nothing is known of the store. Try again later, or mend what its text names.
    #[error("the probe could not read: {0}")]
    Read(#[from] ReadError),
    /// A write failed: nothing is known of the store. Try again later with another key, or mend what its text names.
    #[error("the probe could not write: {0}")]
    Write(PutError),
    /// There was an object under the probe's key. Try again with a random one.
    #[error("the probe's key is taken")]
    KeyTaken,
    /// What was just created is not found, or not as it was written: a cache answers, or reads are not consistent.
    /// Never use this store.
    #[error("an object that was just created is not what is read: the store, or a cache before it, is not consistent")]
    CreatedNotRead,
    /// A second put-if-absent was let through: `If-None-Match: *` is ignored. Never use this store.
    #[error("the store ignores `If-None-Match: *`")]
    CreateIgnored,
    /// A second put-if-absent was answered with 412 and wrote nevertheless. Never use this store.
    #[error("the store overwrites an object although it reports that the condition does not hold")]
    CreateOverwrote,
    /// A put conditional on another etag was let through: `If-Match` is ignored. Never use this store.
    #[error("the store ignores `If-Match`")]
    UpdateIgnored,
    /// A put conditional on the object's own etag was refused, or did not take effect. Never use this store.
    #[error("the store does not honour `If-Match` with the etag that it gave")]
    UpdateRefused,
    /// The object is still there after it was deleted. Never use this store.
    #[error("a deleted object is still read: the store, or a cache before it, is not consistent")]
    DeletedStillRead,
}

/// Tries the promises of [`ObjectStore`] on one object at `key`, which must be fresh (say, random), and removes it.
///
/// Cost: 4 puts, 6 gets and a delete, one after the other. It finds stores that ignore conditions or serve cached answers,
/// not those that check and write in two steps: whether *racing* creators are kept apart is for `contract` to try.
pub async fn probe(store: &impl ObjectStore, key: &str) -> Result<(), ProbeError> {
    let outcome = try_conditions(store, key).await;
    if outcome == Err(ProbeError::KeyTaken) {
        return outcome;
    }
    let deleted = store.delete(key).await;
    outcome?;
    deleted.map_err(ProbeError::Write)?;
    expect(store, key, None, ProbeError::DeletedStillRead).await
}

async fn try_conditions(store: &impl ObjectStore, key: &str) -> Result<(), ProbeError> {
    // The first read asks for what is not there: a cache that remembers its answer is found out by the second.
    expect(store, key, None, ProbeError::KeyTaken).await?;
    let etag = put(store, key, "first", PutMode::Create).await?.ok_or(ProbeError::KeyTaken)?;
    expect(store, key, Some("first"), ProbeError::CreatedNotRead).await?;

    if put(store, key, "second", PutMode::Create).await?.is_some() {
        return Err(ProbeError::CreateIgnored);
    }
    expect(store, key, Some("first"), ProbeError::CreateOverwrote).await?;

    let wrong = Etag("\"00000000000000000000000000000000\"".to_owned());
    if put(store, key, "third", PutMode::Update(wrong)).await?.is_some() {
        return Err(ProbeError::UpdateIgnored);
    }
    expect(store, key, Some("first"), ProbeError::UpdateIgnored).await?;
    put(store, key, "fourth", PutMode::Update(etag)).await?.ok_or(ProbeError::UpdateRefused)?;
    expect(store, key, Some("fourth"), ProbeError::UpdateRefused).await
}

/// `None`: the condition does not hold.
async fn put(
    store: &impl ObjectStore,
    key: &str,
    body: &'static str,
    mode: PutMode,
) -> Result<Option<Etag>, ProbeError> {
    match store.put(key, Bytes::from_static(body.as_bytes()), mode).await {
        Ok(etag) => Ok(Some(etag)),
        Err(PutError::Precondition) => Ok(None),
        Err(error) => Err(ProbeError::Write(error)),
    }
}

async fn expect(store: &impl ObjectStore, key: &str, body: Option<&str>, broken: ProbeError) -> Result<(), ProbeError> {
    let got = store.get(key).await?;
    if got.as_deref() == body.map(str::as_bytes) { Ok(()) } else { Err(broken) }
}

#[cfg(test)]
mod tests {
    //! A good store, and one store per broken promise.

    use super::*;
    use crate::MemoryStore;
    use std::cell::RefCell;
    use std::ops::Range;

    #[derive(Clone, Copy, PartialEq)]
    enum Flaw {
        IgnoresCreate,
        OverwritesOnConflict,
        IgnoresUpdate,
        RefusesUpdate,
        CachesAbsence,
        CachesPresence,
    }

    struct Flawed {
        store: MemoryStore,
        flaw: Option<Flaw>,
        cached: RefCell<Option<Option<Bytes>>>,
    }

    impl ObjectStore for Flawed {
        async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
            if let Some(cached) = self.cached.borrow().clone() {
                return Ok(cached);
            }
            let body = self.store.get(key).await?;
            let caches = match self.flaw {
                Some(Flaw::CachesAbsence) => body.is_none(),
                Some(Flaw::CachesPresence) => body.as_deref() == Some(b"fourth"),
                _ => false,
            };
            if caches {
                *self.cached.borrow_mut() = Some(body.clone());
            }
            Ok(body)
        }

        async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
            self.store.get_range(key, range).await
        }

        async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
            self.store.head(key).await
        }

        async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
            match (&mode, self.flaw) {
                (PutMode::Create, Some(Flaw::IgnoresCreate)) | (PutMode::Update(_), Some(Flaw::IgnoresUpdate)) => {
                    self.store.put(key, body, PutMode::Overwrite).await
                }
                (PutMode::Create, Some(Flaw::OverwritesOnConflict)) => {
                    let outcome = self.store.put(key, body.clone(), mode).await;
                    self.store.put(key, body, PutMode::Overwrite).await?;
                    outcome
                }
                (PutMode::Update(_), Some(Flaw::RefusesUpdate)) => Err(PutError::Precondition),
                _ => self.store.put(key, body, mode).await,
            }
        }

        async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
            self.store.list(prefix, start_after).await
        }

        async fn delete(&self, key: &str) -> Result<(), PutError> {
            self.store.delete(key).await
        }
    }

    async fn check(flaw: Option<Flaw>, expect: Result<(), ProbeError>) {
        let store = Flawed { store: MemoryStore::default(), flaw, cached: RefCell::default() };
        assert_eq!(probe(&store, "probe/1").await, expect);
        assert_eq!(store.store.list("", None).await, Ok(vec![]), "the probe leaves nothing behind");
    }

    #[tokio::test]
    async fn each_broken_promise_is_named() {
        check(None, Ok(())).await;
        check(Some(Flaw::IgnoresCreate), Err(ProbeError::CreateIgnored)).await;
        check(Some(Flaw::OverwritesOnConflict), Err(ProbeError::CreateOverwrote)).await;
        check(Some(Flaw::IgnoresUpdate), Err(ProbeError::UpdateIgnored)).await;
        check(Some(Flaw::RefusesUpdate), Err(ProbeError::UpdateRefused)).await;
        check(Some(Flaw::CachesAbsence), Err(ProbeError::CreatedNotRead)).await;
        check(Some(Flaw::CachesPresence), Err(ProbeError::DeletedStillRead)).await;
    }

    #[tokio::test]
    async fn a_taken_key_is_left_alone() {
        let store = MemoryStore::default();
        store.put("mine", "kept".into(), PutMode::Create).await.unwrap();
        assert_eq!(probe(&store, "mine").await, Err(ProbeError::KeyTaken));
        assert_eq!(store.get("mine").await.unwrap().unwrap().as_ref(), b"kept");
    }
}
