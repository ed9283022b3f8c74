//! What was read, and which reads waited for which.

use crate::{Etag, ObjectStore, PutError, PutMode, ReadError};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

/// A read that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRead {
    /// The object.
    pub key: String,
    /// What of it was asked for; `None` is all.
    pub range: Option<Range<u64>>,
    /// Length of the body; `None`: there was no object.
    pub bytes: Option<u64>,
    /// One more than that of the last read that was answered before this one was sent, unless it waited for room only.
    pub wave: u32,
}

/// The reads of one request, in the order of their answers.
#[derive(Debug, Default)]
pub struct Reads {
    answered: RefCell<Vec<ObservedRead>>,
    /// The latest wave that was answered.
    wave: Cell<u32>,
    /// The one that counts instead, as long as reads wait for room only.
    held: Cell<Option<u32>>,
}

impl Reads {
    /// Those that were answered so far.
    pub fn answered(&self) -> Vec<ObservedRead> {
        self.answered.borrow().clone()
    }

    /// What is read by `reading` was known before it began, though there may not be room for all of it at once: it is of one wave.
    pub async fn one_wave<T>(&self, reading: impl Future<Output = T>) -> T {
        self.held.set(Some(self.wave.get()));
        let answer = reading.await;
        self.held.set(None);
        answer
    }
}

/// A store whose reads are written down.
#[derive(Debug)]
pub struct Observed<S> {
    store: S,
    reads: Rc<Reads>,
}

impl<S> Observed<S> {
    /// Writes into `reads`.
    pub fn new(store: S, reads: Rc<Reads>) -> Self {
        Observed { store, reads }
    }

    async fn observe<T>(
        &self,
        (key, range): (&str, Option<Range<u64>>),
        read: impl Future<Output = Result<Option<T>, ReadError>>,
        bytes: impl Fn(&T) -> u64,
    ) -> Result<Option<T>, ReadError> {
        let wave = self.reads.held.get().unwrap_or(self.reads.wave.get()) + 1;
        let answer = read.await;
        if let Ok(found) = &answer {
            self.reads.wave.set(self.reads.wave.get().max(wave));
            let read = ObservedRead { key: key.to_owned(), range, bytes: found.as_ref().map(bytes), wave };
            self.reads.answered.borrow_mut().push(read);
        }
        answer
    }
}

impl<S: ObjectStore> ObjectStore for Observed<S> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.observe((key, None), self.store.get(key), |body| body.len() as u64).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        let read = self.store.get_range(key, range.clone());
        self.observe((key, Some(range)), read, |body| body.len() as u64).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.observe((key, None), self.store.head(key), |_| 0).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        self.store.put(key, body, mode).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.store.list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.store.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;
    use futures_util::future::{FutureExt, join};

    #[test]
    fn reads_that_wait_for_others_are_of_a_later_wave() {
        let store = MemoryStore::default();
        let reads = Rc::new(Reads::default());
        let observed = Observed::new(store, Rc::clone(&reads));
        let both = async {
            observed.put("a", "body".into(), PutMode::Create).await.expect("a new key");
            let (first, second) = join(observed.get_range("a", 1..3), observed.get("b")).await;
            assert_eq!((first, second), (Ok(Some("od".into())), Ok(None)));
            observed.get("a").await
        };
        assert_eq!(both.now_or_never().expect("memory is at hand"), Ok(Some("body".into())));
        let read = |key: &str, range, bytes, wave| ObservedRead { key: key.to_owned(), range, bytes, wave };
        let seen = reads.answered();
        assert_eq!(seen[0], read("a", Some(1..3), Some(2), 1));
        assert_eq!((seen[1].bytes, seen[2].clone()), (None, read("a", None, Some(4), seen[1].wave + 1)));
        let one_by_one = async {
            observed.get("a").await?;
            observed.get("a").await
        };
        assert!(reads.one_wave(one_by_one).now_or_never().expect("memory is at hand").is_ok());
        let waves: Vec<u32> = reads.answered().iter().map(|read| read.wave).collect();
        assert_eq!(waves[3..], [seen[2].wave + 1; 2]);
    }
}
