//! Repeats what may be repeated.

use crate::{Etag, ObjectStore, PutError, PutMode, ReadError};
use bytes::Bytes;
use model::limits;
use runtime::{Backoff, Runtime};
use std::ops::Range;

/// A store whose reads are tried up to [`limits::STORE_ATTEMPTS_MAX`] times, with growing pauses, as long as it does not
/// answer. No try begins later than [`limits::STORE_TIMEOUT_MS`] after the first, so a read from a store that hangs takes at
/// most twice that long.
///
/// Writes go through once, whatever comes of them:
/// - A put of unknown outcome ([`PutError::Indeterminate`]) may still be carried out. Repeated blindly, a put that had
///   succeeded would come back as [`PutError::Precondition`], and its writer would take its own object for another's.
///   What to do next depends on what the object means: for log fragments it is the claim's state machine that decides.
/// - After [`PutError::Busy`] nothing was written, but the writer may have to look first whether it still wants to.
/// - A late delete removes what was created meanwhile under the same key; a repeated one widens that window.
#[derive(Clone, Debug)]
pub struct Retry<S, R> {
    store: S,
    runtime: R,
}

impl<S, R> Retry<S, R> {
    /// Adds repetition to `store`; `runtime` makes the pauses.
    pub fn new(store: S, runtime: R) -> Self {
        Retry { store, runtime }
    }
}

impl<S: ObjectStore, R: Runtime> Retry<S, R> {
    /// `read` until it is answered, refused, or out of tries: then its last error.
    async fn read<T>(&self, mut read: impl AsyncFnMut(&S) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let begun = self.runtime.now();
        let mut backoff = Backoff::tries(limits::STORE_ATTEMPTS_MAX);
        loop {
            let outcome = read(&self.store).await;
            let is_unanswered = matches!(outcome, Err(ReadError::Unavailable(_)));
            let has_time = self.runtime.now().ms_since(begun) < limits::STORE_TIMEOUT_MS;
            if !(is_unanswered && has_time && backoff.pause(&self.runtime).await) {
                return outcome;
            }
        }
    }
}

impl<S: ObjectStore, R: Runtime> ObjectStore for Retry<S, R> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.read(async |store| store.get(key).await).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        self.read(async |store| store.get_range(key, range.clone()).await).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.read(async |store| store.head(key).await).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        self.store.put(key, body, mode).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.read(async |store| store.list(prefix, start_after).await).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.store.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    //! Scripted faults below the decorator; how often the store was asked tells what was repeated.

    use super::*;
    use crate::{Fault, Faulty, MemoryStore, OperationKind};
    use model::Timestamp;
    use runtime::NativeRuntime;
    use std::cell::Cell;
    use std::rc::Rc;

    fn faulty() -> Faulty<MemoryStore, NativeRuntime> {
        Faulty::new(MemoryStore::default(), NativeRuntime::new())
    }

    #[tokio::test]
    async fn a_read_is_repeated_until_it_is_answered() {
        let faulty = faulty();
        let store = Retry::new(&faulty, NativeRuntime::new());
        for _ in 1..limits::STORE_ATTEMPTS_MAX {
            faulty.inject(OperationKind::Get, Fault::Refused);
        }
        assert_eq!(store.get("a").await, Ok(None));
        assert_eq!(faulty.counts().get, u64::from(limits::STORE_ATTEMPTS_MAX));
    }

    #[tokio::test]
    async fn a_read_out_of_tries_gives_the_last_error() {
        let faulty = faulty();
        let store = Retry::new(&faulty, NativeRuntime::new());
        for _ in 0..limits::STORE_ATTEMPTS_MAX {
            faulty.inject(OperationKind::Head, Fault::Refused);
        }
        assert!(matches!(store.head("a").await, Err(ReadError::Unavailable(_))));
        assert_eq!(faulty.counts().head, u64::from(limits::STORE_ATTEMPTS_MAX));
    }

    #[tokio::test]
    async fn a_read_out_of_time_is_not_repeated() {
        /// Each look at the clock takes three quarters of the time that there is.
        #[derive(Clone)]
        struct Slow(Rc<Cell<u64>>);
        impl Runtime for Slow {
            fn now(&self) -> Timestamp {
                Timestamp(self.0.replace(self.0.get() + limits::STORE_TIMEOUT_MS * 3 / 4))
            }
            fn random(&self) -> u128 {
                0
            }
            async fn sleep(&self, _ms: u64) {}
        }
        let faulty = faulty();
        let store = Retry::new(&faulty, Slow(Rc::default()));
        for _ in 0..limits::STORE_ATTEMPTS_MAX {
            faulty.inject(OperationKind::Get, Fault::Refused);
        }
        assert!(matches!(store.get("a").await, Err(ReadError::Unavailable(_))));
        assert_eq!(faulty.counts().get, 2);
    }

    #[tokio::test]
    async fn a_refused_read_is_not_repeated() {
        let faulty = faulty();
        let store = Retry::new(&faulty, NativeRuntime::new());
        assert!(matches!(store.get("").await, Err(ReadError::Refused(_))));
        assert_eq!(faulty.counts().get, 1);
    }

    #[tokio::test]
    async fn a_write_is_never_repeated() {
        let faulty = faulty();
        let store = Retry::new(&faulty, NativeRuntime::new());
        faulty.inject(OperationKind::Put, Fault::ReplyLost);
        faulty.inject(OperationKind::Put, Fault::Refused);
        faulty.inject(OperationKind::Delete, Fault::ReplyLost);
        assert!(matches!(store.put("a", Bytes::new(), PutMode::Create).await, Err(PutError::Indeterminate(_))));
        assert!(matches!(store.put("b", Bytes::new(), PutMode::Create).await, Err(PutError::Busy(_))));
        assert!(matches!(store.delete("a").await, Err(PutError::Indeterminate(_))));
        assert_eq!((faulty.counts().put, faulty.counts().delete), (2, 1));
    }
}
