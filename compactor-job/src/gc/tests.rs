//! Each rule of garbage collection, on a bucket and a catalog in memory. The catalog's clock is that of the world, which
//! passes as it is slept; fragments are empty objects, since nobody here reads them.

use super::*;
use crate::journal::Kept as KeptEntries;
use crate::testing::new_collection;
use catalog::{DEFAULT_DATABASE, DEFAULT_TENANT, MemoryCatalog, PublishFrom};
use model::{ContentHash, DeleteVectorRef, LogEnd, Nonce, SegmentRef, SetHash};
use runtime::ManualRuntime;
use storage::{Fault, Faulty, MemoryStore, OperationKind, PutMode};

const HOUR_MS: u64 = 3_600_000;
const ID: CollectionId = CollectionId::from_u128(7);

struct World {
    runtime: ManualRuntime,
    memory: MemoryStore,
    store: Faulty<MemoryStore, ManualRuntime>,
    catalog: MemoryCatalog,
    journal: KeptEntries,
    stop: Stop,
    settings: GcSettings,
}

impl World {
    /// With one collection, `ID`; no grace.
    async fn new() -> World {
        let runtime = ManualRuntime::default();
        let (clock, memory) = (runtime.clone(), MemoryStore::default());
        let world = World {
            store: Faulty::new(memory.clone(), runtime.clone()),
            catalog: MemoryCatalog::with_clock(move || clock.now()),
            journal: KeptEntries::default(),
            stop: Stop::default(),
            settings: GcSettings { grace_ms: 0, ..GcSettings::default() },
            runtime,
            memory,
        };
        world.catalog.create_collection(new_collection(ID)).await.unwrap();
        world
    }

    fn gc(&self) -> Gc<'_, Faulty<MemoryStore, ManualRuntime>, MemoryCatalog, ManualRuntime, KeptEntries> {
        let World { runtime, store, catalog, journal, stop, settings, .. } = self;
        Gc { store, catalog, runtime, journal, stop, holder: 1, settings: *settings }
    }

    async fn pass(&self) -> Swept {
        self.gc().all().await.unwrap()
    }

    /// A pass after more than D.
    async fn later_pass(&self) -> Swept {
        self.runtime.sleep(HOUR_MS + 1_000).await;
        self.pass().await
    }

    async fn put(&self, key: &str) {
        self.memory.put(key, "".into(), PutMode::Overwrite).await.unwrap();
    }

    async fn write(&self, lsns: std::ops::Range<u64>) {
        for lsn in lsns {
            self.put(&keys::fragment(ID, Lsn(lsn))).await;
        }
    }

    async fn row(&self) -> Upkeep {
        self.catalog.upkeep(ID).await.unwrap()
    }

    /// Publishes `segments` and a watermark, from the current row.
    async fn publish(&self, watermark: u64, segments: &[&str]) {
        let row = self.row().await;
        let from = PublishFrom { generation: row.generation, gc_epoch: row.gc_epoch };
        assert!(self.catalog.publish(ID, from, &manifest(watermark, segments)).await.unwrap());
    }

    async fn under(&self, prefix: &str) -> Vec<String> {
        self.memory.list(prefix, None).await.unwrap()
    }

    async fn lsns(&self) -> Vec<u64> {
        self.under(&keys::log_prefix(ID)).await.iter().map(|key| keys::lsn_of(key).unwrap().0).collect()
    }

    async fn objects(&self) -> Vec<String> {
        let mut all = self.under(&keys::segments_prefix(ID)).await;
        all.extend(self.under(&keys::delete_vectors_prefix(ID)).await);
        all
    }
}

fn segment(gc_epoch: u64, nonce: u128) -> String {
    keys::segment(ID, gc_epoch, Nonce(nonce))
}

fn manifest(watermark: u64, segments: &[&str]) -> Manifest {
    let segment = |prefix: &&str| SegmentRef {
        prefix: (*prefix).to_owned(),
        rows: 1,
        dimension: 1,
        head_bytes: 1,
        ids_at: 1,
        bytes: 1,
        set_hash: SetHash(0),
        index: None,
        text: None,
        dead: None,
    };
    let compacted = LogEnd { next: Lsn(watermark), ..LogEnd::EMPTY };
    Manifest { compacted, segments: segments.iter().map(segment).collect(), ..Manifest::default() }
}

fn deleted(deleted: u64) -> Swept {
    Swept { deleted, ..Swept::default() }
}

#[tokio::test]
async fn what_is_below_the_floor_goes_when_the_floor_has_stood_for_d() {
    let world = World::new().await;
    world.write(0..10).await;
    world.publish(8, &[]).await;
    assert_eq!(world.pass().await, Swept::default());
    assert_eq!(world.row().await.gc_floor, Lsn(8));
    for _ in 0..4 {
        world.runtime.sleep(HOUR_MS / 4).await;
        assert_eq!(world.pass().await, Swept::default());
    }
    // The catalog counts whole seconds: an hour by its count may be a second less.
    world.runtime.sleep(1_000).await;
    assert_eq!(world.pass().await, deleted(8));
    assert_eq!(world.lsns().await, [8, 9]);
}

#[tokio::test]
async fn the_floor_moves_in_steps_that_are_d_apart() {
    let world = World::new().await;
    world.write(0..30).await;
    world.publish(10, &[]).await;
    world.pass().await;
    world.publish(20, &[]).await;
    world.runtime.sleep(HOUR_MS / 2).await;
    world.pass().await;
    assert_eq!(world.row().await.gc_floor, Lsn(10));
    world.later_pass().await;
    assert_eq!(world.row().await.gc_floor, Lsn(20));
    // The fragment that tells of unfinished work, and those above the old floor.
    assert_eq!(world.lsns().await, (9..30).collect::<Vec<_>>());
    world.later_pass().await;
    assert_eq!(world.lsns().await, (20..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_floor_is_the_watermark_of_the_newest_version_that_is_old_enough() {
    let mut world = World::new().await;
    world.settings.grace_ms = 24 * HOUR_MS;
    for watermark in 1..=4 {
        world.publish(watermark, &[]).await;
        world.runtime.sleep(10 * HOUR_MS).await;
    }
    // They are 40, 30, 20 and 10 hours old.
    world.pass().await;
    assert_eq!(world.row().await.gc_floor, Lsn(2));
    let generations = async || -> Vec<u64> {
        world.catalog.list_versions(ID).await.unwrap().iter().map(|version| version.generation).collect()
    };
    // One that nobody can ask for stays until nothing is left to do.
    assert_eq!(generations().await, [1, 2, 3, 4]);
    world.later_pass().await;
    assert_eq!(generations().await, [2, 3, 4]);
}

#[tokio::test]
async fn packs_go_when_they_lie_wholly_below_the_floor() {
    let world = World::new().await;
    let pack = |level, first| keys::pack(ID, level, Lsn(first));
    for (level, first) in [(1, 0), (1, 16), (1, 32), (2, 0), (3, 0)] {
        world.put(&pack(level, first)).await;
    }
    world.write(0..32).await;
    world.publish(32, &[]).await;
    world.pass().await;
    world.later_pass().await;
    assert_eq!(world.under(&keys::packs_prefix(ID)).await, [pack(1, 32), pack(2, 0), pack(3, 0)]);
}

#[tokio::test]
async fn what_stalled_writers_leave_goes_with_the_next_floor() {
    let world = World::new().await;
    world.write(0..3).await;
    world.publish(2, &[]).await;
    world.pass().await;
    world.later_pass().await;
    world.write(0..1).await;
    world.put(&keys::pack(ID, 1, Lsn(0))).await;
    world.write(3..20).await;
    world.publish(20, &[]).await;
    world.pass().await;
    assert_eq!(world.later_pass().await.failed, 0);
    assert_eq!(world.under(&keys::collection_prefix(ID)).await, Vec::<String>::new());
}

#[tokio::test]
async fn objects_go_when_no_manifest_names_them_and_their_maker_is_shut_out() {
    let world = World::new().await;
    let (first, second, orphan) = (segment(0, 1), segment(0, 2), segment(0, 3));
    let parts = |prefix: &str| ["head", "rows", "terms-0000", "text"].map(|part| format!("{prefix}/{part}"));
    for key in [&first, &second, &orphan].into_iter().flat_map(|prefix| parts(prefix)) {
        world.put(&key).await;
    }
    let vector = |nonce| keys::delete_vector(ID, 0, Nonce(nonce));
    world.put(&vector(1)).await;
    world.put(&vector(2)).await;
    world.publish(1, &[&first]).await;
    let mut named = manifest(1, &[&second]);
    named.segments[0].dead = Some(DeleteVectorRef { count: 1, place: DeleteVectorPlace::Object(vector(2)) });
    let from = PublishFrom { generation: 1, gc_epoch: 0 };
    assert!(world.catalog.publish(ID, from, &named).await.unwrap());

    // Epoch 1: whoever started in epoch 0 may still publish.
    assert_eq!(world.pass().await, Swept { waiting: 9, ..Swept::default() });
    assert_eq!(world.pass().await, deleted(9));
    assert_eq!(world.objects().await, [&parts(&second)[..], &[vector(2)]].concat());
    assert_eq!(world.row().await.gc_epoch, 2);
}

#[tokio::test]
async fn objects_of_kept_versions_stay() {
    let mut world = World::new().await;
    world.settings.grace_ms = 24 * HOUR_MS;
    let (first, second) = (segment(0, 1), segment(0, 2));
    for prefix in [&first, &second] {
        world.put(&format!("{prefix}/head")).await;
    }
    world.publish(1, &[&first]).await;
    world.publish(1, &[&second]).await;
    for _ in 0..4 {
        world.runtime.sleep(5 * HOUR_MS).await;
        world.pass().await;
    }
    assert_eq!(world.objects().await.len(), 2);
    for _ in 0..2 {
        world.runtime.sleep(5 * HOUR_MS).await;
        world.pass().await;
    }
    assert_eq!(world.objects().await, [format!("{second}/head")]);
}

#[tokio::test]
async fn a_slow_compactor_is_refused_before_its_objects_go() {
    let world = World::new().await;
    world.write(0..1).await;
    world.publish(1, &[]).await;
    let slow = world.row().await;
    let (made, from) =
        (segment(slow.gc_epoch, 1), PublishFrom { generation: slow.generation, gc_epoch: slow.gc_epoch });
    world.put(&format!("{made}/head")).await;
    world.pass().await;
    world.pass().await;
    assert!(world.objects().await.is_empty());
    assert_eq!(world.catalog.publish(ID, from, &manifest(2, &[&made])).await, Ok(false));
}

#[tokio::test]
async fn nothing_is_taken_from_who_has_the_lease() {
    let world = World::new().await;
    world.write(0..1).await;
    world.publish(1, &[]).await;
    world.put(&format!("{}/head", segment(0, 1))).await;
    world.catalog.acquire_lease(ID, 2, 60).await.unwrap();
    for _ in 0..3 {
        assert_eq!(world.pass().await, Swept { waiting: 1, ..Swept::default() });
    }
    assert_eq!(world.row().await.gc_epoch, 0);
    world.catalog.release_lease(ID, 2).await.unwrap();
    world.pass().await;
    assert_eq!(world.pass().await, deleted(1));
    // And it is given back.
    assert!(world.catalog.acquire_lease(ID, 3, 60).await.unwrap().is_some());
}

#[tokio::test]
async fn an_idle_collection_costs_a_head_and_no_write() {
    let world = World::new().await;
    world.write(0..3).await;
    assert_eq!(world.pass().await, Swept::default());
    assert_eq!(world.store.counts().total(), 0);
    let kept = segment(0, 1);
    world.put(&format!("{kept}/head")).await;
    world.publish(3, &[&kept]).await;
    world.pass().await;
    world.later_pass().await;
    let (before, row) = (world.store.counts(), world.row().await);
    for _ in 0..3 {
        assert_eq!(world.later_pass().await, Swept::default());
    }
    let after = world.store.counts();
    assert_eq!((after.head - before.head, after.total() - before.total()), (3, 3));
    assert_eq!((world.row().await.gc_epoch, world.row().await.gc_floor), (row.gc_epoch, row.gc_floor));
}

#[tokio::test]
async fn what_could_not_be_deleted_is_left_for_the_next_pass() {
    let world = World::new().await;
    world.write(0..5).await;
    world.publish(5, &[]).await;
    world.pass().await;
    world.store.inject(OperationKind::Delete, Fault::Refused);
    world.store.inject(OperationKind::Delete, Fault::RequestLost);
    assert_eq!(world.later_pass().await, Swept { deleted: 2, failed: 2, ..Swept::default() });
    assert_eq!(world.journal.count("object not deleted"), 2);
    assert_eq!(world.pass().await, deleted(3));
    assert!(world.lsns().await.is_empty());
}

#[tokio::test]
async fn an_interrupted_pass_is_made_up_for() {
    let world = World::new().await;
    world.write(0..5).await;
    world.publish(5, &[]).await;
    world.pass().await;
    world.stop.ask();
    world.runtime.sleep(2 * HOUR_MS).await;
    assert_eq!(world.gc().all().await, Err(GcError::Stopped));
    let world = World { stop: Stop::default(), ..world };
    assert_eq!(world.pass().await, deleted(5));
}

#[tokio::test]
async fn idempotency_keys_go_after_their_window_if_their_log_is_collected() {
    let world = World::new().await;
    let put = async |n: u128, from: u64| {
        let body = format!("{{\"from\":{from},\"created_at\":{}}}", world.runtime.now().0);
        let key = keys::idempotency(ID, ContentHash(n));
        world.memory.put(&key, body.into(), PutMode::Create).await.unwrap();
    };
    let left = async || -> Vec<char> {
        world.under(&keys::idempotency_prefix(ID)).await.iter().filter_map(|key| key.chars().last()).collect()
    };
    put(1, 0).await;
    put(2, 10).await;
    world.runtime.sleep(20 * HOUR_MS).await;
    put(3, 0).await;
    world.write(0..10).await;
    world.publish(10, &[]).await;
    world.pass().await;
    // Both that refer to collected log are within their window, and make the pass come again.
    assert_eq!(world.later_pass().await, Swept { deleted: 9, waiting: 2, ..Swept::default() });
    world.runtime.sleep(4 * HOUR_MS).await;
    assert_eq!(world.pass().await, Swept { deleted: 1, waiting: 1, ..Swept::default() });
    assert_eq!(left().await, ['2', '3']);
    world.runtime.sleep(24 * HOUR_MS).await;
    assert_eq!(world.pass().await, deleted(2));
    assert_eq!((left().await, world.lsns().await), (vec!['2'], vec![]));
}

#[tokio::test]
async fn a_deleted_collection_goes_after_d_and_its_row_when_nothing_more_comes() {
    let world = World::new().await;
    world.write(0..3).await;
    world.put(&format!("{}/head", segment(0, 1))).await;
    world.put(&keys::dirty(ID)).await;
    world.catalog.delete_collection(DEFAULT_TENANT, DEFAULT_DATABASE, "c").await.unwrap();
    world.runtime.sleep(HOUR_MS).await;
    assert_eq!(world.pass().await, Swept::default());
    world.runtime.sleep(1_000).await;
    assert_eq!(world.pass().await, deleted(4));
    assert!(world.under("").await.is_empty());
    world.runtime.sleep(HOUR_MS).await;
    // A late writer.
    world.write(3..4).await;
    assert_eq!(world.pass().await, deleted(1));
    assert_eq!(world.pass().await, Swept { forgotten: 1, ..Swept::default() });
    assert_eq!(world.catalog.upkeep(ID).await, Err(CatalogError::NotFound));
}

#[tokio::test]
async fn the_row_of_a_deleted_collection_stays_for_twice_d() {
    let world = World::new().await;
    world.catalog.delete_collection(DEFAULT_TENANT, DEFAULT_DATABASE, "c").await.unwrap();
    world.runtime.sleep(2 * HOUR_MS).await;
    assert_eq!(world.pass().await, Swept::default());
    world.runtime.sleep(1_000).await;
    assert_eq!(world.pass().await.forgotten, 1);
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let mut world = World::new().await;
    world.write(0..3).await;
    world.put(&format!("{}/head", segment(0, 1))).await;
    world.publish(3, &[]).await;
    world.pass().await;
    world.settings.effect = Effect::DryRun;
    world.runtime.sleep(2 * HOUR_MS).await;
    let (before, objects) = (world.row().await, world.under("").await);
    assert_eq!(world.pass().await, deleted(4));
    assert_eq!(world.journal.count("would be deleted"), 4);
    assert_eq!((world.row().await, world.under("").await), (before, objects));
    world.settings.effect = Effect::Delete;
    assert_eq!(world.pass().await, deleted(4));
}

#[test]
fn without_the_delay_what_is_below_the_floor_goes_at_once() {
    let pass = || {
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio.block_on(async {
            let world = World::new().await;
            world.write(0..2).await;
            world.publish(2, &[]).await;
            world.pass().await
        })
    };
    assert_eq!(pass(), Swept::default());
    assert_eq!(model::safeguard::without(Safeguard::GcDelay, pass), deleted(2));
}
