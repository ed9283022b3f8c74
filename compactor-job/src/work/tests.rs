//! Each rule of finding work, with a compactor that only moves the watermark. Fragments are empty objects; time passes as
//! it is slept, but for the lease's test, which needs two programs at once.

use super::*;
use crate::journal::Kept;
use crate::testing::new_collection;
use catalog::{Catalog, DEFAULT_DATABASE, DEFAULT_TENANT, MemoryCatalog, NewCollection, PublishFrom};
use model::{LogEnd, Manifest};
use runtime::{ManualRuntime, SimulatedRuntime};
use std::cell::RefCell;
use storage::MemoryStore;

const HOUR_MS: u64 = 3_600_000;
const ID: CollectionId = CollectionId::from_u128(7);

struct World<R> {
    runtime: R,
    store: MemoryStore,
    catalog: MemoryCatalog,
    journal: Kept,
    stop: Stop,
    /// How the next compaction is to fail.
    failure: RefCell<Option<CompactError>>,
    /// What is written while the next compaction has read the log already, by somebody who believes in the marker.
    late: Cell<Option<Lsn>>,
    takes_ms: u64,
    /// Of each compaction: which one, and whether its marker was there.
    compactions: RefCell<Vec<(CollectionId, bool)>>,
}

impl<R: Runtime + 'static> World<R> {
    fn new(runtime: R) -> World<R> {
        let clock = runtime.clone();
        World {
            runtime,
            store: MemoryStore::default(),
            catalog: MemoryCatalog::with_clock(move || clock.now()),
            journal: Kept::default(),
            stop: Stop::default(),
            failure: RefCell::default(),
            late: Cell::default(),
            takes_ms: 0,
            compactions: RefCell::default(),
        }
    }

    async fn create(&self, id: CollectionId) {
        let new = NewCollection { name: id.to_string(), ..new_collection(id) };
        self.catalog.create_collection(new).await.unwrap();
    }

    fn work(&self, holder: u128) -> Work<'_, MemoryStore, MemoryCatalog, R, Kept, World<R>> {
        let World { runtime, store, catalog, journal, stop, .. } = self;
        Work { store, catalog, runtime, journal, compact: self, stop, holder, in_hand: Cell::default() }
    }

    async fn write(&self, id: CollectionId, lsn: u64) {
        self.store.put(&keys::fragment(id, Lsn(lsn)), "".into(), PutMode::Create).await.unwrap();
    }

    async fn mark(&self, id: CollectionId) {
        self.store.put(&keys::dirty(id), "".into(), PutMode::Overwrite).await.unwrap();
    }

    async fn is_marked(&self, id: CollectionId) -> bool {
        self.store.head(&keys::dirty(id)).await.unwrap().is_some()
    }

    async fn watermark(&self, id: CollectionId) -> u64 {
        self.catalog.upkeep(id).await.unwrap().manifest.watermark().0
    }
}

impl<R: Runtime + 'static> Compact for World<R> {
    async fn compact(&self, id: CollectionId) -> Result<Compacted, CompactError> {
        let is_marked = self.is_marked(id).await;
        self.compactions.borrow_mut().push((id, is_marked));
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let row = self.catalog.get_collection_by_id(id).await.map_err(|_| CompactError::Gone)?;
        let mut next = row.watermark();
        while self.store.head(&keys::fragment(id, next)).await.unwrap().is_some() {
            next = next.next();
        }
        if self.takes_ms > 0 {
            self.runtime.sleep(self.takes_ms).await;
        }
        if let Some(late) = self.late.take() {
            self.write(id, late.0).await;
        }
        if next == row.watermark() {
            return Ok(Compacted::Nothing);
        }
        let manifest = Manifest { compacted: LogEnd { next, ..LogEnd::EMPTY }, ..Manifest::default() };
        let from = PublishFrom { generation: row.generation, gc_epoch: row.gc_epoch };
        assert!(self.catalog.publish(id, from, &manifest).await.unwrap());
        Ok(Compacted::Published { generation: row.generation + 1, watermark: next })
    }
}

/// With one collection of one fragment, marked.
async fn marked() -> World<ManualRuntime> {
    let world = World::new(ManualRuntime::default());
    world.create(ID).await;
    world.write(ID, 0).await;
    world.mark(ID).await;
    world
}

fn published(published: u64) -> Tally {
    Tally { published, ..Tally::default() }
}

#[tokio::test]
async fn a_marked_collection_is_compacted_after_its_marker_was_cleared() {
    let world = marked().await;
    assert_eq!(world.work(1).run(Sweep::None).await, Ok(published(1)));
    assert_eq!(*world.compactions.borrow(), [(ID, false)]);
    assert_eq!((world.watermark(ID).await, world.is_marked(ID).await), (1, false));
    assert_eq!(world.work(1).run(Sweep::None).await, Ok(Tally::default()));
    assert!(world.catalog.acquire_lease(ID, 2, 60).await.unwrap().is_some(), "the lease was released");
}

#[tokio::test]
async fn a_failed_compaction_puts_the_marker_back_and_the_others_go_on() {
    let world = marked().await;
    let other = CollectionId::from_u128(8);
    world.create(other).await;
    world.write(other, 0).await;
    world.mark(other).await;
    *world.failure.borrow_mut() = Some(CompactError::Unavailable("no".to_owned()));
    assert_eq!(world.work(1).run(Sweep::None).await, Ok(Tally { published: 1, failed: 1, ..Tally::default() }));
    assert_eq!((world.is_marked(ID).await, world.is_marked(other).await), (true, false));
    assert_eq!(world.journal.count("not compacted"), 1);
    assert_eq!(world.work(1).run(Sweep::None).await, Ok(published(1)));
}

#[tokio::test]
async fn what_fails_again_and_again_is_tried_less_and_less_often() {
    let world = marked().await;
    let (work, mut rounds) = (world.work(1), Rounds::default());
    rounds.swept_all = Some(world.runtime.now());
    rounds.swept_active = rounds.swept_all;
    let mut failed_at_s = Vec::new();
    for second in 0..400 {
        *world.failure.borrow_mut() = Some(CompactError::Broken("damaged".to_owned()));
        if work.round(&mut rounds, Sweep::None).await.unwrap().failed > 0 {
            failed_at_s.push(second);
        }
        world.runtime.sleep(1_000).await;
    }
    assert_eq!(failed_at_s, [0, 30, 90, 210]);
    world.failure.take();
    world.runtime.sleep(240_000).await;
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(published(1)));
    world.mark(ID).await;
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(Tally { idle: 1, ..Tally::default() }));
}

#[tokio::test]
async fn who_has_the_lease_is_left_alone() {
    let world = marked().await;
    world.catalog.acquire_lease(ID, 2, 60).await.unwrap();
    assert_eq!(world.work(1).run(Sweep::All).await, Ok(Tally { leased: 2, ..Tally::default() }));
    assert!(world.is_marked(ID).await && world.compactions.borrow().is_empty());
    world.runtime.sleep(61_000).await;
    assert_eq!(world.work(1).run(Sweep::None).await, Ok(published(1)));
}

#[tokio::test]
async fn a_pass_ends_with_a_look_for_writers_who_believed_in_the_marker() {
    let world = marked().await;
    world.late.set(Some(Lsn(1)));
    assert_eq!(world.work(1).run(Sweep::None).await, Ok(published(2)));
    assert_eq!(world.watermark(ID).await, 2);
}

#[tokio::test]
async fn a_cleared_collection_is_probed_again_when_belief_in_the_marker_is_over() {
    let world = marked().await;
    let (work, mut rounds) = (world.work(1), Rounds::default());
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(Tally { published: 1, idle: 1, ..Tally::default() }));
    world.runtime.sleep(30_000).await;
    world.write(ID, 1).await;
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(Tally::default()));
    world.runtime.sleep(30_000).await;
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(published(1)));
    world.write(ID, 2).await;
    world.runtime.sleep(60_000).await;
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(Tally::default()));
}

#[tokio::test]
async fn sweeps_find_what_has_no_marker_active_ones_hourly_all_daily() {
    let world = World::new(ManualRuntime::default());
    world.create(ID).await;
    world.runtime.sleep(30 * HOUR_MS).await;
    let young = CollectionId::from_u128(8);
    world.create(young).await;
    let (work, mut rounds) = (world.work(1), Rounds::default());
    work.round(&mut rounds, Sweep::None).await.unwrap();
    world.write(ID, 0).await;
    world.write(young, 0).await;
    world.runtime.sleep(HOUR_MS - 1).await;
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(Tally::default()));
    world.runtime.sleep(1).await;
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(published(1)));
    assert_eq!((world.watermark(ID).await, world.watermark(young).await), (0, 1));
    world.runtime.sleep(23 * HOUR_MS).await;
    assert_eq!(work.round(&mut rounds, Sweep::None).await, Ok(Tally { published: 1, idle: 1, ..Tally::default() }));
    assert_eq!(world.watermark(ID).await, 1);
}

#[tokio::test]
async fn markers_of_nobody_go_and_deleted_collections_are_no_failure() {
    let world = marked().await;
    world.mark(CollectionId::from_u128(9)).await;
    world.store.put("dirty/foreign", "".into(), PutMode::Create).await.unwrap();
    world.catalog.delete_collection(DEFAULT_TENANT, DEFAULT_DATABASE, &ID.to_string()).await.unwrap();
    assert_eq!(world.work(1).run(Sweep::All).await, Ok(Tally { idle: 2, ..Tally::default() }));
    assert_eq!(world.store.list(keys::DIRTY_PREFIX, None).await.unwrap(), ["dirty/foreign"]);
}

#[tokio::test]
async fn an_abandoned_pass_leaves_marker_and_lease_as_they_were() {
    let world = marked().await;
    let work = world.work(1);
    // As when the pass is dropped in the middle of the compaction.
    work.in_hand.set(Some(ID));
    world.catalog.acquire_lease(ID, 1, 60).await.unwrap();
    world.store.delete(&keys::dirty(ID)).await.unwrap();
    work.abandon().await;
    assert!(world.is_marked(ID).await);
    assert!(world.catalog.acquire_lease(ID, 2, 60).await.unwrap().is_some());
}

#[tokio::test]
async fn watching_ends_when_it_is_asked_to() {
    let world = marked().await;
    world.stop.ask();
    assert_eq!(world.work(1).watch(1_000, Sweep::None).await, Tally::default());
    assert_eq!(world.work(1).run(Sweep::None).await, Err(WorkError::Stopped));
    assert!(world.is_marked(ID).await);
}

#[test]
fn a_long_compaction_keeps_its_lease() {
    let runtime = SimulatedRuntime::new(1);
    let outer = runtime.clone();
    outer.spawn(async move {
        let mut world = World::new(runtime);
        world.takes_ms = 10 * 60_000;
        world.create(ID).await;
        world.write(ID, 0).await;
        let (first, second) = (world.work(1), world.work(2));
        let rival = async {
            world.runtime.sleep(5 * 60_000).await;
            second.one(ID).await
        };
        let tallies = futures_util::future::join(first.one(ID), rival).await;
        assert_eq!(tallies, (published(1), Tally { leased: 1, ..Tally::default() }));
    });
    assert!(outer.run(1_000));
}

#[test]
fn who_remembers_nothing_gives_each_collection_one_turn_a_period() {
    let every_ms = 5 * 60_000;
    let ids: Vec<CollectionId> =
        (0..200_u128).map(|n| CollectionId::from_random(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let turns = |id: CollectionId, from_ms: u64, every_ms: u64, count: u64| {
        (0..count).filter(|n| has_turn(id, Timestamp(from_ms + n * every_ms), HOUR_MS, every_ms)).count()
    };
    for id in &ids {
        for hour in 0..3 {
            assert_eq!(turns(*id, hour * HOUR_MS + 17_000, every_ms, 12), 1);
        }
    }
    // Started hourly instead of every five minutes, each has its turn at some time.
    let is_found =
        |id: &CollectionId| (0..24 * 7).any(|hour| has_turn(*id, Timestamp(hour * HOUR_MS), HOUR_MS, every_ms));
    assert!(ids.iter().all(is_found));
}
