//! A store that fails on purpose: by script, or by a seed that always gives the same failures in the same order.

use crate::{Etag, ObjectStore, PutError, PutMode, ReadError};
use bytes::Bytes;
use runtime::Runtime;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not reach the store: `Unavailable` for reads, `Busy` for writes.
    Refused,
    /// It is done, but the reply is lost: `Unavailable` for reads, `Indeterminate` for writes.
    ReplyLost,
    /// It is not done, and nobody can tell: `Unavailable` for reads, `Indeterminate` for writes.
    RequestLost,
    /// A write: `Indeterminate` now; done before the `operations`-th following operation, on whatever is there then.
    /// A read: as `RequestLost`.
    Late {
        /// Following operations, of any kind, the last of which sees the write done; at least 1.
        operations: u32,
    },
    /// It is done after a pause.
    Delayed {
        /// The pause in ms, by the runtime's clock.
        ms: u64,
    },
}

/// The methods of [`ObjectStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// `get`
    Get,
    /// `get_range`
    GetRange,
    /// `head`
    Head,
    /// `put`
    Put,
    /// `list`
    List,
    /// `delete`
    Delete,
}

/// How often each method was called, whatever came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `get`.
    pub get: u64,
    /// Calls of `get_range`.
    pub get_range: u64,
    /// Calls of `head`.
    pub head: u64,
    /// Calls of `put`.
    pub put: u64,
    /// Calls of `list`.
    pub list: u64,
    /// Calls of `delete`.
    pub delete: u64,
}

impl Counts {
    /// Calls of all methods.
    pub fn total(&self) -> u64 {
        self.get + self.get_range + self.head + self.put + self.list + self.delete
    }

    fn of(&mut self, kind: OperationKind) -> &mut u64 {
        match kind {
            OperationKind::Get => &mut self.get,
            OperationKind::GetRange => &mut self.get_range,
            OperationKind::Head => &mut self.head,
            OperationKind::Put => &mut self.put,
            OperationKind::List => &mut self.list,
            OperationKind::Delete => &mut self.delete,
        }
    }
}

/// Longest delay of a seeded fault, in ms.
const DELAY_MS_MAX: u64 = 50;
/// Most operations by which a seeded fault makes a write late.
const LATE_OPERATIONS_MAX: u64 = 8;

/// `store`, with faults. Clones share the plan, the counts and the writes that are still to come.
///
/// A write that a [`Fault::Late`] holds back is done as soon as its time has come, or by [`Faulty::settle`].
#[derive(Clone, Debug)]
pub struct Faulty<S, R> {
    store: S,
    runtime: R,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    script: Vec<(OperationKind, Fault)>,
    plan: Option<Plan>,
    late: Vec<Late>,
}

/// A write on its way: it arrives when `left` operations have begun.
#[derive(Clone, Debug)]
struct Late {
    left: u32,
    write: Write,
}

#[derive(Clone, Debug)]
enum Write {
    Put(String, Bytes, PutMode),
    Delete(String),
}

impl<S, R> Faulty<S, R> {
    /// No faults as yet; `runtime` makes the delays.
    pub fn new(store: S, runtime: R) -> Self {
        Faulty { store, runtime, state: Rc::default() }
    }

    /// From now on, besides the script, `per_mille` of all operations meet a fault drawn from `seed`.
    ///
    /// Equal seeds give equal faults to equal sequences of operations. 0 ends all faults but scripted ones.
    pub fn plan(&self, seed: u64, per_mille: u16) {
        self.state.borrow_mut().plan = Some(Plan { state: seed, per_mille });
    }

    /// The next operation of this kind that has no scripted fault yet meets this one.
    pub fn inject(&self, kind: OperationKind, fault: Fault) {
        self.state.borrow_mut().script.push((kind, fault));
    }

    /// Calls so far.
    pub fn counts(&self) -> Counts {
        self.state.borrow().counts
    }

    /// Counts from 0 again.
    pub fn reset_counts(&self) {
        self.state.borrow_mut().counts = Counts::default();
    }

    /// The undecorated store: what is really there.
    pub fn store(&self) -> &S {
        &self.store
    }
}

impl<S: ObjectStore, R: Runtime> Faulty<S, R> {
    /// Does all late writes now.
    pub async fn settle(&self) {
        let late = std::mem::take(&mut self.state.borrow_mut().late);
        for Late { write, .. } in late {
            self.arrive(write).await;
        }
    }

    /// Counts the operation, lets the late writes that are due arrive, and decides its fault; waits if it is a delay.
    async fn begin(&self, kind: OperationKind) -> Option<Fault> {
        let (due, fault) = self.state.borrow_mut().begin(kind);
        for write in due {
            self.arrive(write).await;
        }
        if let Some(Fault::Delayed { ms }) = fault {
            self.runtime.sleep(ms).await;
        }
        fault.filter(|fault| !matches!(fault, Fault::Delayed { .. }))
    }

    /// Nobody waits for the outcome any more.
    async fn arrive(&self, write: Write) {
        match write {
            Write::Put(key, body, mode) => drop(self.store.put(&key, body, mode).await),
            Write::Delete(key) => drop(self.store.delete(&key).await),
        }
    }

    async fn read<T>(
        &self,
        kind: OperationKind,
        read: impl AsyncFnOnce(&S) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        match self.begin(kind).await {
            None => read(&self.store).await,
            Some(fault) => Err(ReadError::Unavailable(format!("injected: {fault:?}"))),
        }
    }

    async fn write<T>(
        &self,
        kind: OperationKind,
        write: Write,
        done: impl AsyncFnOnce(&S) -> Result<T, PutError>,
    ) -> Result<T, PutError> {
        let Some(fault) = self.begin(kind).await else {
            return done(&self.store).await;
        };
        let text = format!("injected: {fault:?}");
        match fault {
            Fault::Refused => return Err(PutError::Busy(text)),
            Fault::ReplyLost => drop(done(&self.store).await),
            Fault::Late { operations } => self.state.borrow_mut().late.push(Late { left: operations, write }),
            Fault::RequestLost | Fault::Delayed { .. } => {}
        }
        Err(PutError::Indeterminate(text))
    }
}

impl State {
    fn begin(&mut self, kind: OperationKind) -> (Vec<Write>, Option<Fault>) {
        *self.counts.of(kind) += 1;
        let due = self.due();
        let scripted = self.script.iter().position(|(of, _)| *of == kind);
        let fault = match scripted {
            Some(i) => Some(self.script.remove(i).1),
            None => self.plan.as_mut().and_then(Plan::fault),
        };
        (due, fault)
    }

    /// The late writes whose time has come, in the order in which they were sent.
    fn due(&mut self) -> Vec<Write> {
        for late in &mut self.late {
            late.left = late.left.saturating_sub(1);
        }
        self.late.extract_if(.., |late| late.left == 0).map(|late| late.write).collect()
    }
}

impl<S: ObjectStore, R: Runtime> ObjectStore for Faulty<S, R> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.read(OperationKind::Get, async |store| store.get(key).await).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        self.read(OperationKind::GetRange, async |store| store.get_range(key, range).await).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.read(OperationKind::Head, async |store| store.head(key).await).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        let write = Write::Put(key.to_owned(), body.clone(), mode.clone());
        self.write(OperationKind::Put, write, async |store| store.put(key, body, mode).await).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.read(OperationKind::List, async |store| store.list(prefix, start_after).await).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        let write = Write::Delete(key.to_owned());
        self.write(OperationKind::Delete, write, async |store| store.delete(key).await).await
    }
}

/// Faults from a seed.
#[derive(Debug)]
struct Plan {
    state: u64,
    per_mille: u16,
}

impl Plan {
    fn fault(&mut self) -> Option<Fault> {
        if self.below(1_000) >= u64::from(self.per_mille) {
            return None;
        }
        Some(match self.below(5) {
            0 => Fault::Refused,
            1 => Fault::ReplyLost,
            2 => Fault::RequestLost,
            3 => Fault::Late { operations: 1 + u32::try_from(self.below(LATE_OPERATIONS_MAX)).unwrap_or(0) },
            _ => Fault::Delayed { ms: 1 + self.below(DELAY_MS_MAX) },
        })
    }

    /// A number from 0 to `limit - 1`, all about equally likely.
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[cfg(test)]
mod tests {
    //! What really happened is read from the undecorated store.

    use super::*;
    use crate::MemoryStore;
    use runtime::NativeRuntime;

    fn faulty() -> Faulty<MemoryStore, NativeRuntime> {
        Faulty::new(MemoryStore::default(), NativeRuntime::new())
    }

    async fn put(store: &impl ObjectStore, key: &str) -> Result<Etag, PutError> {
        store.put(key, "x".into(), PutMode::Create).await
    }

    #[tokio::test]
    async fn a_fault_hits_the_next_operation_of_its_kind_only() {
        let faulty = faulty();
        faulty.inject(OperationKind::Put, Fault::Refused);
        assert_eq!(faulty.get("a").await, Ok(None));
        assert!(matches!(put(&faulty, "a").await, Err(PutError::Busy(_))));
        assert_eq!(faulty.store().get("a").await, Ok(None));
        assert!(put(&faulty, "a").await.is_ok());
        assert_eq!(faulty.counts(), Counts { get: 1, put: 2, ..Counts::default() });
    }

    #[tokio::test]
    async fn a_lost_reply_is_done_and_a_lost_request_is_not() {
        let faulty = faulty();
        faulty.inject(OperationKind::Put, Fault::ReplyLost);
        faulty.inject(OperationKind::Put, Fault::RequestLost);
        assert!(matches!(put(&faulty, "done").await, Err(PutError::Indeterminate(_))));
        assert!(matches!(put(&faulty, "lost").await, Err(PutError::Indeterminate(_))));
        assert_eq!(faulty.store().list("", None).await, Ok(vec!["done".to_owned()]));
    }

    #[tokio::test]
    async fn a_late_write_arrives_before_the_given_operation() {
        let faulty = faulty();
        faulty.inject(OperationKind::Put, Fault::Late { operations: 2 });
        assert!(matches!(put(&faulty, "a").await, Err(PutError::Indeterminate(_))));
        assert_eq!(faulty.head("a").await, Ok(None));
        assert_eq!(faulty.head("a").await, Ok(Some(1)));
    }

    #[tokio::test]
    async fn a_late_delete_removes_what_came_after_it() {
        let faulty = faulty();
        put(&faulty, "a").await.unwrap();
        faulty.inject(OperationKind::Delete, Fault::Late { operations: 9 });
        assert!(matches!(faulty.delete("a").await, Err(PutError::Indeterminate(_))));
        faulty.store().put("a", "y".into(), PutMode::Overwrite).await.unwrap();
        faulty.settle().await;
        assert_eq!(faulty.store().get("a").await, Ok(None));
    }

    #[tokio::test]
    async fn equal_seeds_give_equal_faults_of_every_kind() {
        let drawn = |seed| {
            let mut plan = Plan { state: seed, per_mille: 300 };
            (0..1_000).map(|_| plan.fault()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        let faults: Vec<Fault> = drawn(1).into_iter().flatten().collect();
        assert!((250..350).contains(&faults.len()), "{} of 1000", faults.len());
        for fault in [Fault::Refused, Fault::ReplyLost, Fault::RequestLost] {
            assert!(faults.contains(&fault), "{fault:?}");
        }
        assert!(faults.iter().any(|fault| matches!(fault, Fault::Late { operations: 1..=8 })));
        assert!(faults.iter().any(|fault| matches!(fault, Fault::Delayed { .. })));
    }
}
