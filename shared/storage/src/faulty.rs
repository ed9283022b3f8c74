//! A store that fails on purpose: by script, or by a seed that always gives the same failures in the same order.

use crate::{Etag, ObjectStore, PutError, PutMode, ReadError};
use bytes::Bytes;
use model::Timestamp;
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
    /// A write: `Indeterminate` now; done `ms` milliseconds later, on whatever is there then. A read: as `RequestLost`.
    LateBy {
        /// By the runtime's clock.
        ms: u64,
    },
    /// A put is not done, and answered as if its condition did not hold (412). Any other operation: as `Refused`.
    Taken,
    /// It is done after a pause.
    Delayed {
        /// The pause in ms, by the runtime's clock.
        ms: u64,
    },
}

/// What becomes of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Until it reaches the store, in ms. A write gets there whether or not its sender still waits.
    pub there_ms: u64,
    /// From there until the sender has the reply, in ms.
    pub back_ms: u64,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

impl From<Option<Fault>> for Fate {
    fn from(fault: Option<Fault>) -> Self {
        match fault {
            Some(Fault::Delayed { ms }) => Fate { there_ms: ms, ..Fate::default() },
            fault => Fate { fault, ..Fate::default() },
        }
    }
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
/// A write on its way is done before the first operation after its time has come, or by [`Faulty::settle`].
#[derive(Clone)]
pub struct Faulty<S, R> {
    store: S,
    runtime: R,
    state: Rc<RefCell<State>>,
}

type Fates = Box<dyn FnMut(OperationKind, &str) -> Fate>;

#[derive(Default)]
struct State {
    counts: Counts,
    script: Vec<(OperationKind, Fault)>,
    fates: Option<Fates>,
    on_the_way: Vec<Sent>,
}

/// A write on its way.
struct Sent {
    due: Due,
    write: Write,
    reply: Reply,
}

/// Where whoever still waits for a write finds what came of it.
type Reply = Rc<RefCell<Option<Result<Option<Etag>, PutError>>>>;

enum Due {
    /// When so many operations have begun.
    Operations(u32),
    At(Timestamp),
}

#[derive(Clone, Debug)]
enum Write {
    Put(String, Bytes, PutMode),
    Delete(String),
}

impl Write {
    fn kind(&self) -> OperationKind {
        match self {
            Write::Put(..) => OperationKind::Put,
            Write::Delete(_) => OperationKind::Delete,
        }
    }

    fn key(&self) -> &str {
        match self {
            Write::Put(key, ..) | Write::Delete(key) => key,
        }
    }
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
        let mut plan = Plan { state: seed, per_mille };
        self.fates(move |_, _| plan.fault().into());
    }

    /// From now on `fates` decides, from its kind and its key, what becomes of every operation that is not scripted.
    pub fn fates(&self, fates: impl FnMut(OperationKind, &str) -> Fate + 'static) {
        self.state.borrow_mut().fates = Some(Box::new(fates));
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
    /// Does all writes that are on their way now.
    pub async fn settle(&self) {
        let mut sent = std::mem::take(&mut self.state.borrow_mut().on_the_way);
        sent.sort_by_key(Sent::at);
        for sent in sent {
            self.arrive(sent).await;
        }
    }

    /// Counts the operation, does the writes whose time has come, and decides what becomes of this one.
    async fn begin(&self, kind: OperationKind, key: &str) -> Fate {
        let fate = self.state.borrow_mut().begin(kind, key);
        self.do_due().await;
        fate
    }

    async fn do_due(&self) {
        let now = self.runtime.now();
        let due = self.state.borrow_mut().due(now);
        for sent in due {
            self.arrive(sent).await;
        }
    }

    async fn arrive(&self, sent: Sent) {
        let done = self.perform(sent.write).await;
        *sent.reply.borrow_mut() = Some(done);
    }

    async fn perform(&self, write: Write) -> Result<Option<Etag>, PutError> {
        match write {
            Write::Put(key, body, mode) => self.store.put(&key, body, mode).await.map(Some),
            Write::Delete(key) => self.store.delete(&key).await.map(|()| None),
        }
    }

    /// No pause at all is no await: some callers never wait.
    async fn pass(&self, ms: u64) {
        if ms > 0 {
            self.runtime.sleep(ms).await;
        }
    }

    async fn read<T>(
        &self,
        kind: OperationKind,
        key: &str,
        read: impl AsyncFnOnce(&S) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let fate = self.begin(kind, key).await;
        if fate.there_ms > 0 {
            self.pass(fate.there_ms).await;
            self.do_due().await;
        }
        let reply = match fate.fault {
            None => read(&self.store).await,
            Some(fault) => Err(ReadError::Unavailable(format!("injected: {fault:?}"))),
        };
        self.pass(fate.back_ms).await;
        reply
    }

    async fn write(&self, write: Write) -> Result<Option<Etag>, PutError> {
        let fate = self.begin(write.kind(), write.key()).await;
        let text = format!("injected: {:?}", fate.fault);
        let is_put = write.kind() == OperationKind::Put;
        let arrives = self.runtime.now().plus_ms(fate.there_ms);
        let reply = match fate.fault {
            None | Some(Fault::ReplyLost | Fault::Delayed { .. }) if fate.there_ms == 0 => self.perform(write).await,
            None | Some(Fault::ReplyLost | Fault::Delayed { .. }) => self.travel(write, arrives).await,
            Some(Fault::Late { operations }) => self.leave(write, Due::Operations(operations), &text),
            Some(Fault::LateBy { ms }) => self.leave(write, Due::At(arrives.plus_ms(ms)), &text),
            Some(Fault::RequestLost) => Err(PutError::Indeterminate(text.clone())),
            Some(Fault::Taken) if is_put => Err(PutError::Precondition),
            Some(Fault::Taken | Fault::Refused) => Err(PutError::Busy(text.clone())),
        };
        self.pass(fate.back_ms).await;
        if fate.fault == Some(Fault::ReplyLost) { Err(PutError::Indeterminate(text)) } else { reply }
    }

    /// Sends a write on its way, which it goes alone, and waits for its reply.
    async fn travel(&self, write: Write, arrives: Timestamp) -> Result<Option<Etag>, PutError> {
        let reply = Reply::default();
        self.state.borrow_mut().on_the_way.push(Sent { due: Due::At(arrives), write, reply: reply.clone() });
        self.pass(arrives.ms_since(self.runtime.now())).await;
        self.do_due().await;
        loop {
            if let Some(reply) = reply.borrow_mut().take() {
                return reply;
            }
            self.pass(1).await;
        }
    }

    /// Sends a write on its way and hears no more of it.
    fn leave(&self, write: Write, due: Due, text: &str) -> Result<Option<Etag>, PutError> {
        self.state.borrow_mut().on_the_way.push(Sent { due, write, reply: Reply::default() });
        Err(PutError::Indeterminate(text.to_owned()))
    }
}

impl State {
    fn begin(&mut self, kind: OperationKind, key: &str) -> Fate {
        *self.counts.of(kind) += 1;
        for sent in &mut self.on_the_way {
            if let Due::Operations(left) = &mut sent.due {
                *left = left.saturating_sub(1);
            }
        }
        let scripted = self.script.iter().position(|(of, _)| *of == kind);
        match scripted {
            Some(i) => Some(self.script.remove(i).1).into(),
            None => self.fates.as_mut().map_or(Fate::default(), |fates| fates(kind, key)),
        }
    }

    /// The writes whose time has come, in the order in which they arrive.
    fn due(&mut self, now: Timestamp) -> Vec<Sent> {
        let is_due = |sent: &mut Sent| sent.at() <= now;
        let mut due: Vec<Sent> = self.on_the_way.extract_if(.., is_due).collect();
        due.sort_by_key(Sent::at);
        due
    }
}

impl Sent {
    fn at(&self) -> Timestamp {
        match self.due {
            Due::Operations(0) => Timestamp::default(),
            Due::Operations(_) => Timestamp(u64::MAX),
            Due::At(at) => at,
        }
    }
}

impl<S: ObjectStore, R: Runtime> ObjectStore for Faulty<S, R> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.read(OperationKind::Get, key, async |store| store.get(key).await).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        self.read(OperationKind::GetRange, key, async |store| store.get_range(key, range).await).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.read(OperationKind::Head, key, async |store| store.head(key).await).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        let etag = self.write(Write::Put(key.to_owned(), body, mode)).await?;
        Ok(etag.expect("a put names its content"))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.read(OperationKind::List, prefix, async |store| store.list(prefix, start_after).await).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.write(Write::Delete(key.to_owned())).await.map(drop)
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
    use runtime::{NativeRuntime, SimulatedRuntime, within};

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
    async fn a_write_arrives_though_nobody_waits_for_it_any_more() {
        let runtime = SimulatedRuntime::new(1);
        let faulty = Faulty::new(MemoryStore::default(), runtime.clone());
        faulty.fates(|kind, _| match kind {
            OperationKind::Put => Fate { there_ms: 100, back_ms: 50, fault: None },
            _ => Fate::default(),
        });
        let world = runtime.clone();
        world.spawn(async move {
            assert!(within(&runtime, 10, put(&faulty, "a")).await.is_none());
            assert_eq!(faulty.head("a").await, Ok(None));
            runtime.sleep(90).await;
            assert_eq!(faulty.head("a").await, Ok(Some(1)));
            let begun = runtime.now();
            assert!(put(&faulty, "b").await.is_ok());
            assert_eq!(runtime.now().ms_since(begun), 150);
        });
        assert!(world.run(1_000));
    }

    #[tokio::test]
    async fn a_write_may_be_late_by_time_and_a_condition_may_fail_for_nothing() {
        let runtime = SimulatedRuntime::new(1);
        let faulty = Faulty::new(MemoryStore::default(), runtime.clone());
        let world = runtime.clone();
        world.spawn(async move {
            faulty.inject(OperationKind::Put, Fault::LateBy { ms: 1_000 });
            faulty.inject(OperationKind::Put, Fault::Taken);
            assert!(matches!(put(&faulty, "a").await, Err(PutError::Indeterminate(_))));
            assert_eq!(put(&faulty, "a").await, Err(PutError::Precondition));
            assert_eq!(faulty.head("a").await, Ok(None));
            runtime.sleep(1_000).await;
            assert_eq!(faulty.head("a").await, Ok(Some(1)));
        });
        assert!(world.run(1_000));
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
