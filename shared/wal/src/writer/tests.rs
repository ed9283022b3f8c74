//! Writers over a store that fails on purpose: every acknowledged batch is in the log once, and nothing else is doubled.

use super::*;
use crate::Fragment;
use futures_util::future::join_all;

use runtime::NativeRuntime;
use std::cell::Cell;
use storage::{Counts, Fault, Faulty, MemoryStore, OperationKind, Retry};

const COLLECTION: CollectionId = CollectionId::from_u128(1);
const DEADLINE_MS: u64 = 2_000;

/// A catalog with one row, which may be slow to answer or deleted.
struct Rows {
    runtime: NativeRuntime,
    floor: Cell<u64>,
    deleted: Cell<bool>,
    failures: Cell<u32>,
    reads: Cell<u32>,
}

impl RowSource for Rows {
    async fn refresh(&self) -> Result<RowView, RefreshError> {
        self.reads.set(self.reads.get() + 1);
        if let Some(left) = self.failures.get().checked_sub(1) {
            self.failures.set(left);
            return Err(RefreshError::Unavailable("no answer".into()));
        }
        if self.deleted.get() {
            return Err(RefreshError::Deleted);
        }
        let floor = Lsn(self.floor.get());
        Ok(RowView { gc_floor: floor, compacted: LogEnd::EMPTY, requested_at: self.runtime.now() })
    }
}

/// Where a batch may go; `None`: the writer has to find the end.
enum Placement {
    Anywhere(Option<LogEnd>),
    Exactly(LogEnd),
}

struct World {
    store: Faulty<MemoryStore, NativeRuntime>,
    runtime: NativeRuntime,
    rows: Rows,
}

impl World {
    fn new() -> Self {
        let runtime = NativeRuntime::new();
        let rows = Rows {
            runtime: runtime.clone(),
            floor: Cell::default(),
            deleted: Cell::default(),
            failures: Cell::default(),
            reads: Cell::default(),
        };
        World { store: Faulty::new(MemoryStore::default(), runtime.clone()), runtime, rows }
    }

    fn row(&self) -> RowView {
        RowView { gc_floor: Lsn(0), compacted: LogEnd::EMPTY, requested_at: self.runtime.now() }
    }

    async fn append(&self, id: &str, placement: Placement) -> Result<LogEnd, AppendError> {
        let store = Retry::new(self.store.clone(), self.runtime.clone());
        let writer = Writer { store: &store, runtime: &self.runtime, rows: &self.rows, collection: COLLECTION };
        let deadline = self.runtime.now().plus_ms(DEADLINE_MS);
        let (operations, row) = (vec![Operation::delete(id.into())], self.row());
        let append = match placement {
            Placement::Exactly(end) => Append::exactly(operations, end, row, deadline),
            Placement::Anywhere(Some(end)) => Append::anywhere(operations, end, row, deadline),
            Placement::Anywhere(None) => {
                Append::anywhere(operations, writer.find_end(row.compacted).await?, row, deadline)
            }
        };
        writer.carry_out(&RefCell::new(append), || true).await.expect("nobody takes over")
    }

    async fn write(&self, id: &str, end: Option<LogEnd>) -> LogEnd {
        self.append(id, Placement::Anywhere(end)).await.expect("acknowledged")
    }

    /// The ids in the log, in order.
    async fn log(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let take = |fragment: Fragment| ids.extend(fragment.operations().map(|operation| operation.id.to_owned()));
        Reader { store: self.store.store(), collection: COLLECTION }
            .read(LogEnd::EMPTY, take)
            .await
            .expect("a readable log");
        ids
    }
}

fn puts(counts: Counts) -> (u64, u64) {
    (counts.put, counts.total() - counts.put)
}

#[tokio::test]
async fn a_warm_write_is_one_put_and_one_row() {
    let world = World::new();
    let end = world.write("a", None).await;
    world.store.reset_counts();
    world.rows.reads.set(0);
    world.write("b", Some(end)).await;
    assert_eq!((puts(world.store.counts()), world.rows.reads.get()), ((1, 0), 1));
    assert_eq!(world.log().await, ["a", "b"]);
}

#[tokio::test]
async fn a_cold_writer_finds_the_end() {
    let world = World::new();
    let mut end = None;
    let ids: Vec<String> = (0..70).map(|n| n.to_string()).collect();
    for id in &ids {
        end = Some(world.write(id, end).await);
    }
    world.store.reset_counts();
    assert_eq!(world.write("cold", None).await.next, Lsn(71));
    assert!(world.store.counts().head <= 20 && world.store.counts().put == 1, "{:?}", world.store.counts());
    assert_eq!(world.log().await.len(), 71);
}

#[tokio::test]
async fn a_put_with_a_lost_reply_is_not_doubled() {
    let world = World::new();
    world.store.inject(OperationKind::Put, Fault::ReplyLost);
    let end = world.write("a", None).await;
    assert_eq!(end.next, Lsn(1));
    assert_eq!(world.log().await, ["a"]);
}

#[tokio::test]
async fn a_lost_put_is_sent_again_to_the_same_lsn() {
    let world = World::new();
    world.store.inject(OperationKind::Put, Fault::RequestLost);
    world.store.inject(OperationKind::Put, Fault::Refused);
    assert_eq!(world.write("a", None).await.next, Lsn(1));
    assert_eq!(world.log().await, ["a"]);
}

#[tokio::test]
async fn a_late_put_is_found_or_repeated_but_never_doubled() {
    for operations in 1..6 {
        let world = World::new();
        world.store.inject(OperationKind::Put, Fault::Late { operations });
        let end = world.write("a", None).await;
        world.write("b", Some(end)).await;
        world.store.settle().await;
        assert_eq!(world.log().await, ["a", "b"], "late by {operations} operations");
    }
}

#[tokio::test]
async fn a_writer_with_an_old_end_goes_behind_the_others() {
    let world = World::new();
    let old = world.write("a", None).await;
    for id in ["b", "c", "d"] {
        world.write(id, None).await;
    }
    world.write("e", Some(old)).await;
    assert_eq!(world.log().await, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn racing_writers_all_land_once() {
    let world = World::new();
    let ids: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
    join_all(ids.iter().map(|id| world.write(id, None))).await;
    let mut log = world.log().await;
    log.sort();
    assert_eq!(log, ids);
}

#[tokio::test]
async fn an_exact_append_behind_another_writer_writes_nothing() {
    let world = World::new();
    let seen = world.write("a", None).await;
    world.write("b", Some(seen)).await;
    assert_eq!(world.append("c", Placement::Exactly(seen)).await, Err(AppendError::Conflict(Lsn(1))));
    assert_eq!(world.log().await, ["a", "b"]);
}

#[tokio::test]
async fn a_write_to_a_deleted_collection_is_not_acknowledged() {
    let world = World::new();
    world.rows.deleted.set(true);
    assert_eq!(world.append("a", Placement::Anywhere(None)).await, Err(AppendError::Deleted));
}

#[tokio::test]
async fn a_write_waits_for_a_catalog_that_fails_for_a_moment() {
    let world = World::new();
    world.rows.failures.set(3);
    world.write("a", None).await;
    assert_eq!(world.log().await, ["a"]);
}

#[tokio::test]
async fn a_floor_that_rose_over_the_write_leaves_it_unknown() {
    let world = World::new();
    world.rows.floor.set(5);
    assert!(matches!(world.append("a", Placement::Anywhere(None)).await, Err(AppendError::Unknown(_))));
}

#[tokio::test]
async fn a_store_that_is_down_is_told_from_a_doubt() {
    for (fault, unknown) in [(Fault::Refused, false), (Fault::RequestLost, true)] {
        let world = World::new();
        let end = world.write("a", None).await;
        for _ in 0..1000 {
            world.store.inject(OperationKind::Put, fault);
        }
        let result = world.append("b", Placement::Anywhere(Some(end))).await;
        let expected = if unknown {
            matches!(result, Err(AppendError::Unknown(_)))
        } else {
            matches!(result, Err(AppendError::NotWritten(_)))
        };
        assert!(expected, "{fault:?}: {result:?}");
    }
}

#[tokio::test]
async fn a_replaced_fragment_is_an_error_for_readers() {
    let world = World::new();
    let end = world.write("a", None).await;
    world.write("b", Some(end)).await;
    let other = World::new();
    other.write("x", None).await;
    let key = keys::fragment(COLLECTION, Lsn(0));
    let body = other.store.get(&key).await.unwrap().unwrap();
    world.store.put(&key, body, PutMode::Overwrite).await.unwrap();
    let read = Reader { store: &world.store, collection: COLLECTION }.read(LogEnd::EMPTY, drop).await;
    assert!(matches!(read, Err(TailError::Broken { .. })), "{read:?}");
}

/// Seeds of faults on every tenth operation: whatever is acknowledged is in the log once, in the order of its LSNs.
#[tokio::test(start_paused = true)]
async fn acknowledged_writes_survive_any_faults_once() {
    for seed in 0..200 {
        let world = World::new();
        world.store.plan(seed, 100);
        let mut acknowledged = Vec::new();
        let mut end = None;
        for n in 0..20 {
            let id = n.to_string();
            if let Ok(next) = world.append(&id, Placement::Anywhere(end)).await {
                acknowledged.push((next.next, id));
                end = (n % 3 > 0).then_some(next);
            }
        }
        world.store.settle().await;
        let log = world.log().await;
        for (next, id) in &acknowledged {
            let places: Vec<usize> =
                log.iter().enumerate().filter(|(_, found)| *found == id).map(|(at, _)| at + 1).collect();
            assert_eq!(places, [usize::try_from(next.0).unwrap()], "seed {seed}, id {id}");
        }
        assert!(acknowledged.len() >= 15, "seed {seed}: too few writes went through to prove anything");
    }
}
