//! So many requests at once, and no more.

use crate::{Etag, ObjectStore, PutError, PutMode, ReadError};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::task::{Poll, Waker};

/// A store that one request of a Worker uses, and of which it has at most a number of answers outstanding: the platform would
/// let others wait anyhow, in an order of its own. Who comes first goes first.
///
/// It belongs to one request: a request that waited for another one's lane would never be woken.
#[derive(Debug)]
pub struct Lanes<S> {
    store: S,
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl<S> Lanes<S> {
    /// At most `lanes` at once, one at least.
    pub fn new(store: S, lanes: usize) -> Self {
        assert!(lanes > 0, "without a lane nobody gets through");
        Lanes { store, free: Cell::new(lanes), waiting: RefCell::default() }
    }

    async fn lane(&self) -> Lane<'_, S> {
        std::future::poll_fn(|context| match self.free.get() {
            0 => {
                self.waiting.borrow_mut().push_back(context.waker().clone());
                Poll::Pending
            }
            free => {
                self.free.set(free - 1);
                Poll::Ready(Lane(self))
            }
        })
        .await
    }
}

/// The right to one request; dropped with it, also when nobody wants its answer any more.
struct Lane<'a, S>(&'a Lanes<S>);

impl<S> Drop for Lane<'_, S> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        // All of them: one of those that wait may be gone, and must not be the only one that hears of it.
        self.0.waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl<S: ObjectStore> ObjectStore for Lanes<S> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        let _lane = self.lane().await;
        self.store.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        let _lane = self.lane().await;
        self.store.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        let _lane = self.lane().await;
        self.store.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        let _lane = self.lane().await;
        self.store.put(key, body, mode).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        let _lane = self.lane().await;
        self.store.list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        let _lane = self.lane().await;
        self.store.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;
    use futures_util::future::join_all;
    use runtime::{NativeRuntime, Runtime, within};

    /// Takes a moment, and counts how many are in it.
    struct Slow {
        store: MemoryStore,
        now: Cell<usize>,
        most: Cell<usize>,
    }

    impl Slow {
        async fn pass(&self) {
            self.now.set(self.now.get() + 1);
            self.most.set(self.most.get().max(self.now.get()));
            NativeRuntime::new().sleep(10).await;
            self.now.set(self.now.get() - 1);
        }
    }

    impl ObjectStore for &Slow {
        async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
            self.pass().await;
            self.store.get(key).await
        }

        async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
            self.pass().await;
            self.store.get_range(key, range).await
        }

        async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
            self.pass().await;
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

    fn slow() -> Slow {
        Slow { store: MemoryStore::default(), now: Cell::new(0), most: Cell::new(0) }
    }

    #[tokio::test]
    async fn no_more_than_there_are_lanes_are_under_way_and_all_get_through() {
        let slow = slow();
        let lanes = Lanes::new(&slow, 3);
        let answers = join_all((0..20).map(|i| {
            let lanes = &lanes;
            async move { if i % 2 == 0 { lanes.head("a").await.map(drop) } else { lanes.get("a").await.map(drop) } }
        }));
        assert!(answers.await.iter().all(Result::is_ok));
        assert_eq!((slow.most.get(), slow.now.get(), lanes.free.get()), (3, 0, 3));
    }

    #[tokio::test]
    async fn who_gives_up_keeps_no_lane_and_nobody_waiting() {
        let slow = slow();
        let lanes = Lanes::new(&slow, 1);
        // Both are dropped: one with the lane, one that waits for it.
        let both = join_all([lanes.get("a"), lanes.get("b")]);
        assert!(within(&NativeRuntime::new(), 1, both).await.is_none());
        assert!(lanes.get("c").await.is_ok());
        assert_eq!(lanes.free.get(), 1);
    }
}
