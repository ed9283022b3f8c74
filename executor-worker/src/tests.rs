//! An executor over a log in memory: what it sees, what it costs, and what damage does to it.

use super::*;
use model::{CollectionId, LogEnd, Lsn, Manifest, Operation, OperationKind, Space, Timestamp, keys, limits};
use query::{Read, Source};
use runtime::{ManualRuntime, NativeRuntime, Runtime, SimulatedRuntime};
use std::cell::Cell;
use std::rc::Rc;
use storage::{Fault, Faulty, MemoryStore, PutMode};
use wal::{RefreshError, RowSource, RowView, Writer};

const COLLECTION: CollectionId = CollectionId::from_u128(1);

struct World {
    store: Faulty<MemoryStore, NativeRuntime>,
    runtime: NativeRuntime,
    cache: Cache,
}

fn source_of(collection: CollectionId) -> Source {
    Source {
        collection,
        manifest: Manifest::default(),
        generation: 0,
        dimension: Some(2),
        space: Space::L2,
        ef_search: 100,
    }
}

struct Rows(NativeRuntime);

impl RowSource for Rows {
    async fn refresh(&self) -> Result<RowView, RefreshError> {
        Ok(RowView { gc_floor: Lsn(0), compacted: LogEnd::EMPTY, requested_at: self.0.now() })
    }
}

impl World {
    fn new() -> Self {
        let runtime = NativeRuntime::new();
        World { store: Faulty::new(MemoryStore::default(), runtime.clone()), runtime, cache: Cache::default() }
    }

    async fn add(&self, collection: CollectionId, id: &str, document: &str) {
        let rows = Rows(self.runtime.clone());
        let writer = Writer { store: self.store.store(), runtime: &self.runtime, rows: &rows, collection };
        let document = Some(document.to_owned());
        let embedding = Some(vec![1.0, 2.0]);
        let add = Operation { kind: OperationKind::Add, embedding, document, ..Operation::delete(id.into()) };
        let row = rows.refresh().await.expect("always there");
        writer.append(vec![add], row, Timestamp(u64::MAX)).await.expect("written");
    }

    async fn count(&self, collection: CollectionId) -> Result<u64, PlanError> {
        self.count_at(ReadLevel::default(), collection).await
    }

    async fn count_at(&self, level: ReadLevel, collection: CollectionId) -> Result<u64, PlanError> {
        let source = source_of(collection);
        let executor = Executor {
            store: self.store.clone(),
            runtime: self.runtime.clone(),
            cache: &self.cache,
            tally: Tally::default(),
        };
        executor.run(&QueryPlan { source, read: Read::Count, level, explain: false }).await.map(|answer| answer.count)
    }
}

#[tokio::test]
async fn a_warm_read_of_an_unchanged_log_is_one_probe() {
    let world = World::new();
    world.add(COLLECTION, "a", "").await;
    assert_eq!(world.count(COLLECTION).await, Ok(1));
    world.store.reset_counts();
    assert_eq!(world.count(COLLECTION).await, Ok(1));
    assert_eq!((world.store.counts().get, world.store.counts().total()), (1, 1));
}

#[tokio::test]
async fn every_read_sees_what_was_written_before_it() {
    let world = World::new();
    for n in 0..30 {
        world.add(COLLECTION, &n.to_string(), "").await;
        assert_eq!(world.count(COLLECTION).await, Ok(n + 1));
    }
}

#[tokio::test]
async fn an_answer_made_while_the_log_is_looked_at_gives_way_to_what_is_found() {
    let world = World::new();
    world.add(COLLECTION, "a", "").await;
    for _ in 0..2 {
        assert_eq!(world.count(COLLECTION).await, Ok(1));
    }
    world.add(COLLECTION, "b", "").await;
    world.store.inject(storage::OperationKind::Get, Fault::Delayed { ms: 20 });
    assert_eq!(world.count(COLLECTION).await, Ok(2));
}

#[tokio::test]
async fn concurrent_reads_share_what_they_fetch_and_agree() {
    let world = World::new();
    for n in 0..20 {
        world.add(COLLECTION, &n.to_string(), "").await;
    }
    let counts = futures_util::future::join_all((0..8).map(|_| world.count(COLLECTION))).await;
    assert!(counts.iter().all(|count| *count == Ok(20)), "{counts:?}");
}

#[tokio::test]
async fn damage_is_an_error_that_names_the_key_and_ends_with_the_damage() {
    let world = World::new();
    world.add(COLLECTION, "a", "").await;
    world.add(COLLECTION, "b", "").await;
    let key = keys::fragment(COLLECTION, Lsn(1));
    let sound = world.store.get(&key).await.expect("readable").expect("there");
    world.store.put(&key, sound.slice(..sound.len() - 1), PutMode::Overwrite).await.expect("written");
    for _ in 0..2 {
        assert!(matches!(world.count(COLLECTION).await, Err(PlanError::Corrupt(why)) if why.contains(&key)));
    }
    world.store.put(&key, sound, PutMode::Overwrite).await.expect("written");
    assert_eq!(world.count(COLLECTION).await, Ok(2));
}

#[tokio::test]
async fn a_store_that_is_down_is_an_error_and_is_read_again_when_it_is_back() {
    let world = World::new();
    world.add(COLLECTION, "a", "").await;
    world.store.inject(storage::OperationKind::Get, Fault::Refused);
    assert!(matches!(world.count(COLLECTION).await, Err(PlanError::Unavailable(_))));
    assert_eq!(world.count(COLLECTION).await, Ok(1));
}

#[tokio::test]
async fn levels_say_how_much_of_the_log_is_read() {
    let world = World::new();
    for n in 0..limits::BOUNDED_READ_FRAGMENTS + 3 {
        world.add(COLLECTION, &n.to_string(), "").await;
    }
    let check = async |level, count, reads| {
        world.store.reset_counts();
        assert_eq!(world.count_at(level, COLLECTION).await, Ok(count), "{level:?}");
        assert_eq!(world.store.counts().total(), reads, "{level:?}");
    };
    let (bound, all) = (limits::BOUNDED_READ_FRAGMENTS, limits::BOUNDED_READ_FRAGMENTS + 3);
    check(ReadLevel::IndexOnly, 0, 0).await;
    check(ReadLevel::IndexAndBoundedWal, bound, bound).await;
    check(ReadLevel::IndexAndBoundedWal, bound, 0).await;
    assert_eq!(world.count(COLLECTION).await, Ok(all));
    check(ReadLevel::IndexAndBoundedWal, all, 0).await;
    check(ReadLevel::IndexAndWal, all, 1).await;
}

#[tokio::test]
async fn concurrent_cold_reads_fetch_a_log_once() {
    let world = World::new();
    for n in 0..20 {
        world.add(COLLECTION, &n.to_string(), "").await;
    }
    world.store.reset_counts();
    let counts = futures_util::future::join_all((0..8).map(|_| world.count(COLLECTION))).await;
    assert!(counts.iter().all(|count| *count == Ok(20)), "{counts:?}");
    // One looks for the end and reads all, each of the others probes for itself: eight readers of their own would take 160.
    let reads = world.store.counts().total();
    assert!(reads < 3 * 20, "{reads} reads");
}

#[tokio::test]
async fn the_cache_keeps_to_its_budget() {
    let world = World::new();
    let document = "x".repeat(limits::EXECUTOR_CACHE_BYTES / 3);
    for n in 1..=4 {
        let collection = CollectionId::from_u128(n);
        world.add(collection, "a", &document).await;
        assert_eq!(world.count(collection).await, Ok(1));
    }
    let kept = |n| world.cache.version(&source_of(CollectionId::from_u128(n))).tail.borrow().end.next == Lsn(1);
    assert_eq!([1, 2, 3, 4].map(kept), [false, false, true, true]);
}

#[tokio::test]
async fn plans_cross_http() {
    let world = World::new();
    world.add(COLLECTION, "a", "").await;
    let executor = Executor {
        store: world.store.clone(),
        runtime: world.runtime.clone(),
        cache: &world.cache,
        tally: Tally::default(),
    };
    let source = source_of(COLLECTION);
    let plan =
        serde_json::to_vec(&QueryPlan { source, read: Read::Count, level: ReadLevel::default(), explain: false })
            .expect("JSON");
    let response = executor.handle(Request::new(plan.into())).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(serde_json::from_slice::<Answer>(response.body()).expect("an answer").count, 1);
    let response = executor.handle(Request::new(Bytes::from_static(b"{}"))).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn who_vanishes_in_the_middle_of_a_read_is_waited_for_a_moment_only() {
    let (cache, clock) = (Cache::default(), ManualRuntime::default());
    let version = cache.version(&source_of(COLLECTION));
    let tail = &version.tail;
    std::mem::forget(cache.turn(tail, &Pulse::default(), &clock).await);
    std::mem::forget(cache.permit(usize::MAX, &Pulse::default(), &clock).await);
    let mine = Pulse::default();
    let turn = cache.turn(tail, &mine, &clock).await;
    let permit = cache.permit(1, &mine, &clock).await;
    assert!(turn.is_ok_and(|turn| turn.is_some()) && permit.is_ok());
    let waited_ms = clock.now().0;
    assert!((limits::BEAT_MS..3 * limits::SILENCE_MS).contains(&waited_ms), "{waited_ms} ms");
}

#[test]
fn who_reads_for_long_is_waited_for() {
    const LONG_MS: u64 = 5 * limits::SILENCE_MS;
    let runtime = SimulatedRuntime::new(1);
    let (began, done) = (runtime.now(), Rc::new(Cell::new(false)));
    let (clock, ended) = (runtime.clone(), Rc::clone(&done));
    runtime.spawn(async move {
        let cache = Cache::default();
        let version = cache.version(&source_of(COLLECTION));
        let tail = &version.tail;
        let (reader, next) = (Pulse::default(), Pulse::default());
        let turn = cache.turn(tail, &reader, &clock).await;
        let permit = cache.permit(usize::MAX, &reader, &clock).await;
        let reads = async {
            clock.sleep(LONG_MS).await;
            drop((turn, permit));
        };
        let waits = async {
            let granted = (cache.turn(tail, &next, &clock).await.is_ok(), cache.permit(1, &next, &clock).await.is_ok());
            assert_eq!(granted, (true, true));
            assert!(clock.now().ms_since(began) >= LONG_MS, "the reader was thought to be gone");
        };
        let (reads, waits) = (pin!(reads), pin!(waits));
        futures_util::future::join(reader.during(&clock, reads), next.during(&clock, waits)).await;
        ended.set(true);
    });
    assert!(runtime.run(100_000) && done.get());
}
