//! A second memory, between that of an isolate and the bucket: objects that never change are looked for in the cache of the
//! place where the isolate runs, which its neighbours filled.

use crate::{Etag, ObjectStore, PutError, PutMode, ReadError};
use bytes::Bytes;
use model::{keys, limits};
use std::cell::RefCell;
use std::ops::Range;

/// A cache that outlives isolates. It may forget anything at any time and fail at will, but what it gives is what was kept.
pub trait EdgeCache {
    /// What was kept under this name.
    async fn get(&self, name: &str) -> Option<Bytes>;

    /// Keeps `body`, perhaps.
    async fn put(&self, name: &str, body: Bytes);

    /// Whether it may ever keep anything.
    fn is_there(&self) -> bool {
        true
    }
}

/// No cache: everything is read from the bucket.
impl<C: EdgeCache> EdgeCache for Option<C> {
    async fn get(&self, name: &str) -> Option<Bytes> {
        match self {
            Some(cache) => cache.get(name).await,
            None => None,
        }
    }

    async fn put(&self, name: &str, body: Bytes) {
        if let Some(cache) = self {
            cache.put(name, body).await;
        }
    }

    fn is_there(&self) -> bool {
        self.is_some()
    }
}

/// A store of which parts of segments and delete vectors are read through an [`EdgeCache`]: objects whose names are random,
/// so that nothing else will ever be under them. Everything else goes to the bucket, above all the log: where it ends is told
/// by what is not there.
///
/// What a read brings is kept when somebody calls [`Edge::settle`], so that an answer does not wait for it: up to
/// [`limits::EDGE_BYTES_MAX`].
#[derive(Debug)]
pub struct Edge<S, C> {
    store: S,
    cache: C,
    /// What is to be kept, and how many bytes that is.
    news: RefCell<(Vec<(String, Bytes)>, usize)>,
}

impl<S: ObjectStore, C: EdgeCache> Edge<S, C> {
    /// Puts `cache` in front of `store`.
    pub fn new(store: S, cache: C) -> Self {
        Edge { store, cache, news: RefCell::default() }
    }

    /// Whether [`Edge::settle`] has something to do.
    pub fn has_news(&self) -> bool {
        !self.news.borrow().0.is_empty()
    }

    /// Keeps what was read since this was called last.
    pub async fn settle(&self) {
        let (news, _) = self.news.take();
        for (name, body) in news {
            self.cache.put(&name, body).await;
        }
    }

    fn keeps(&self, key: &str) -> bool {
        self.cache.is_there() && keys::gc_epoch_of(key).is_some()
    }

    /// What is kept under `name`, if it has so many `bytes` as far as that is known, or else what `read` brings.
    async fn through(
        &self,
        name: String,
        bytes: Option<u64>,
        read: impl Future<Output = Result<Option<Bytes>, ReadError>>,
    ) -> Result<Option<Bytes>, ReadError> {
        // Half of a body would be an error to whoever decodes it, for as long as it is kept; the bucket has the whole one.
        let is_whole = |body: &Bytes| bytes.is_none_or(|bytes| body.len() as u64 == bytes);
        if let Some(body) = self.cache.get(&name).await.filter(is_whole) {
            return Ok(Some(body));
        }
        let body = read.await?;
        let (news, bytes) = &mut *self.news.borrow_mut();
        if let Some(body) = body.as_ref().filter(|body| *bytes + body.len() <= limits::EDGE_BYTES_MAX) {
            *bytes += body.len();
            news.push((name, body.clone()));
        }
        Ok(body)
    }
}

impl<S: ObjectStore, C: EdgeCache> ObjectStore for Edge<S, C> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        match self.keeps(key) {
            true => self.through(key.to_owned(), None, self.store.get(key)).await,
            false => self.store.get(key).await,
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        let name = format!("{key}?{}-{}", range.start, range.end);
        match self.keeps(key) {
            true => {
                let bytes = range.end.saturating_sub(range.start);
                self.through(name, Some(bytes), self.store.get_range(key, range)).await
            }
            false => self.store.get_range(key, range).await,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.store.head(key).await
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
    use crate::{Faulty, MemoryStore};
    use futures_util::FutureExt;
    use model::{CollectionId, Lsn, Nonce};
    use runtime::ManualRuntime;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Memory(RefCell<HashMap<String, Bytes>>);

    impl EdgeCache for &Memory {
        async fn get(&self, name: &str) -> Option<Bytes> {
            self.0.borrow().get(name).cloned()
        }

        async fn put(&self, name: &str, body: Bytes) {
            self.0.borrow_mut().insert(name.to_owned(), body);
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("nothing here waits")
    }

    /// An object under `key`, read twice, whole and in part; returns how many reads reached the bucket.
    fn reads(key: &str, bytes: usize) -> u64 {
        let (memory, bucket) = (Memory::default(), Faulty::new(MemoryStore::default(), ManualRuntime::default()));
        let body = Bytes::from(vec![7; bytes]);
        now(bucket.put(key, body.clone(), PutMode::Create)).unwrap();
        bucket.reset_counts();
        for _ in 0..2 {
            let edge = Edge::new(&bucket, &memory);
            assert_eq!(now(edge.get(key)), Ok(Some(body.clone())));
            assert_eq!(now(edge.get_range(key, 1..3)), Ok(Some(body.slice(1..3))));
            now(edge.settle());
        }
        bucket.counts().total()
    }

    #[test]
    fn only_what_never_changes_is_kept_and_not_more_than_fits() {
        let id = CollectionId::from_u128(1);
        let part = format!("{}/head", keys::segment(id, 3, Nonce(9)));
        for (key, bytes, expect) in [
            (part.as_str(), 100, 2),
            (&keys::delete_vector(id, 3, Nonce(9)), 100, 2),
            (&part, limits::EDGE_BYTES_MAX + 1, 3),
            (&keys::fragment(id, Lsn(1)), 100, 4),
            (&keys::pack(id, 1, Lsn(16)), 100, 4),
            (&keys::dirty(id), 100, 4),
        ] {
            assert_eq!(reads(key, bytes), expect, "{key}");
        }
    }

    #[test]
    fn half_of_a_body_is_read_again() {
        let (memory, bucket) = (Memory::default(), MemoryStore::default());
        let key = format!("{}/head", keys::segment(CollectionId::from_u128(1), 3, Nonce(9)));
        now(bucket.put(&key, "a whole body".into(), PutMode::Create)).unwrap();
        now((&memory).put(&format!("{key}?2-7"), "wh".into()));
        let edge = Edge::new(bucket, &memory);
        assert_eq!(now(edge.get_range(&key, 2..7)), Ok(Some("whole".into())));
        now(edge.settle());
        assert_eq!(memory.0.borrow()[&format!("{key}?2-7")], "whole");
    }

    #[test]
    fn what_is_not_there_is_not_kept() {
        let memory = Memory::default();
        let edge = Edge::new(MemoryStore::default(), &memory);
        let key = keys::delete_vector(CollectionId::from_u128(1), 3, Nonce(9));
        assert_eq!(now(edge.get(&key)), Ok(None));
        now(edge.settle());
        now(edge.put(&key, "late".into(), PutMode::Create)).unwrap();
        assert_eq!(now(edge.get(&key)), Ok(Some("late".into())));
    }
}
