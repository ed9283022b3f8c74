//! Who keeps house: compactors and collectors of garbage, as they are, on machines that stand still for days and die at
//! work; and what must be true when all of them have done theirs.

use crate::catalog::SimulatedCatalog;
use crate::ledger::is_named;
use crate::world::{SECOND_MS, Store, World};
use bytes::Bytes;
use catalog::{CatalogError, Maintenance, Upkeep};
use compactor_job::compact::{Compactor, Stats};
use compactor_job::gc::{Effect, Gc, GcError, GcSettings, Swept};
use compactor_job::indexing::Indexing;
use compactor_job::journal::{Entry, Journal, Level, Stop};
use compactor_job::spill::Scratch;
use compactor_job::tiers::SEGMENTS_MAX;
use compactor_job::work::{Compact, CompactError, Sweep, Tally, Work, WorkError};
use model::{CollectionId, Lsn, SetHash, keys, limits};
use runtime::{Runtime, SimulatedRuntime, within};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use storage::{Etag, ObjectStore, PutError, PutMode, ReadError, Retry};
use stored::{Base, RowScan, StoredError, StoredReader};

/// Passes of garbage collection after which nothing is left.
const PASSES_MAX: usize = 8;

/// Who listens: whatever somebody would have to look at is a violation.
struct Told<'a> {
    world: &'a World,
    who: String,
}

impl Journal for Told<'_> {
    fn record(&self, entry: Entry) {
        self.world.network.note(|| format!("{}: {} {:?}", self.who, entry.event, entry.fields));
        if entry.level == Level::Error {
            self.world.ledger.violated(format!("{}: {} {:?}", self.who, entry.event, entry.fields));
        }
    }
}

impl World {
    /// Compacts what is new, now and then, as compactor number `number` of several.
    pub(crate) async fn compacts(&self, number: u64) {
        let Some(pause_ms) = self.network.climate.housekeeping_ms else { return };
        let runtime = self.runtime.ahead((3 + number) * SECOND_MS);
        while self.clients_left.get() > 0 {
            self.runtime.sleep(self.runtime.below(pause_ms) + 1).await;
            let memory_bytes = *self.runtime.pick(self.network.climate.memory_bytes);
            let who = format!("compactor {number}");
            // Nothing may depend on leases.
            let work = async {
                if self.runtime.chance(500) {
                    let collection = *self.runtime.pick(&self.all());
                    self.compact(&runtime, &who, memory_bytes, collection).await;
                } else {
                    let sweep = *self.runtime.pick(&[Sweep::None, Sweep::All]);
                    let _ = self.work(&runtime, &who, memory_bytes, sweep).await;
                }
            };
            self.until_death(&who, work).await;
        }
    }

    async fn compact(&self, runtime: &SimulatedRuntime, who: &str, memory_bytes: usize, id: CollectionId) {
        let (store, catalog) = (self.keepers_store(runtime), self.keepers_catalog());
        let is_stopped = || self.runtime.chance(5);
        let compactor = compactor(&store, &catalog, runtime, memory_bytes, &is_stopped);
        let compacted = compactor.compact(id).await;
        self.merged_rows.set(self.merged_rows.get() + compactor.stats.merged_rows.get());
        self.network.note(|| format!("{who} of {id}: {compacted:?}"));
        if let Err(CompactError::Broken(why)) = compacted {
            self.ledger.violated(format!("{who} of {id}: {why}"));
        }
    }

    /// A pass over all collections that have something to compact.
    async fn work(
        &self,
        runtime: &SimulatedRuntime,
        who: &str,
        memory_bytes: usize,
        sweep: Sweep,
    ) -> Result<Tally, WorkError> {
        let (store, catalog) = (self.keepers_store(runtime), self.keepers_catalog());
        let compactor = compactor(&store, &catalog, runtime, memory_bytes, &|| false);
        let work = Work {
            store: &store,
            catalog: &catalog,
            runtime,
            journal: &Told { world: self, who: who.to_owned() },
            stop: &Stop::default(),
            compact: &compactor,
            holder: runtime.random(),
            in_hand: Cell::default(),
        };
        let done = work.run(sweep).await;
        self.merged_rows.set(self.merged_rows.get() + compactor.stats.merged_rows.get());
        done
    }

    /// Collects garbage, now and then, as collector number `number` of several.
    pub(crate) async fn collects(&self, number: u64) {
        let Some(pause_ms) = self.network.climate.housekeeping_ms else { return };
        let runtime = self.runtime.ahead((7 + number) * SECOND_MS);
        while self.clients_left.get() > 0 {
            self.runtime.sleep(self.runtime.below(pause_ms) + 1).await;
            let who = format!("collector {number}");
            self.until_death(&who, self.collect(&runtime, &who, self.network.climate.grace_ms)).await;
        }
    }

    async fn collect(&self, runtime: &SimulatedRuntime, who: &str, grace_ms: u64) -> Result<Swept, GcError> {
        let climate = &self.network.climate;
        let gc = Gc {
            store: &Retry::new(Keeper { world: self, pause_ms: climate.housekeeping_ms.unwrap_or(0) }, runtime.clone()),
            catalog: &self.keepers_catalog(),
            runtime,
            journal: &Told { world: self, who: who.to_owned() },
            stop: &Stop::default(),
            holder: runtime.random(),
            settings: GcSettings { grace_ms, delay_ms: limits::GC_DELAY_MS, effect: Effect::Delete },
        };
        gc.all().await
    }

    /// The store as compactors have it.
    fn keepers_store(&self, runtime: &SimulatedRuntime) -> KeepersStore<'_> {
        Retry::new(Keeper { world: self, pause_ms: self.network.climate.upload_ms }, runtime.clone())
    }

    fn keepers_catalog(&self) -> SimulatedCatalog {
        SimulatedCatalog { of_keeper: true, ..self.catalog.clone() }
    }

    /// Does `work`, unless its machine dies before the end.
    async fn until_death<T>(&self, who: &str, work: impl Future<Output = T>) {
        let dies = self.runtime.chance(self.network.climate.deaths_per_mille);
        let longest_ms = if dies { *self.runtime.pick(&[100, SECOND_MS, 60 * SECOND_MS]) } else { 0 };
        let left_ms = if dies { self.runtime.below(longest_ms) } else { u64::from(u32::MAX) * SECOND_MS };
        if within(&self.runtime, left_ms, work).await.is_none() {
            self.network.note(|| format!("{who} dies"));
        }
    }

    /// Compacts and collects until nothing is left to do, and looks whether nothing is missing and nothing is left.
    pub(crate) async fn tidy_up(&self) {
        // Leases of the dead.
        self.runtime.sleep((limits::LEASE_S + 1) * SECOND_MS).await;
        let done = self.work(&self.runtime, "the last compactor", 1 << 30, Sweep::All).await;
        if !done.as_ref().is_ok_and(|tally| tally.failed + tally.leased == 0) {
            self.ledger.violated(format!("in the end there is something that cannot be compacted: {done:?}"));
        }
        for collection in self.all() {
            let mut tidy = Ok(());
            for _ in 0..PASSES_MAX {
                tidy = self.check_tidiness(collection).await;
                if tidy.is_ok() {
                    break;
                }
                self.runtime.sleep(limits::GC_DELAY_MS + 2 * SECOND_MS).await;
                let swept = self.collect(&self.runtime, "the last collector", 0).await;
                self.network.note(|| format!("in the end, of {collection}, {tidy:?}: {swept:?}"));
            }
            if let Err(why) = tidy {
                self.ledger.violated(format!("in the end, of {collection}, {why}"));
            }
        }
    }

    /// Whether of a collection exactly what its row names is there, and is what the row says.
    async fn check_tidiness(&self, id: CollectionId) -> Result<(), String> {
        let Upkeep { manifest, gc_floor, .. } =
            self.catalog.inner.upkeep(id).await.map_err(|error: CatalogError| error.to_string())?;
        let end = Lsn(self.ledger.log(id).len() as u64);
        if (manifest.watermark(), gc_floor) != (end, end) {
            return Err(format!("the log ends at {end:?}, is compacted to {:?}, {gc_floor:?}", manifest.watermark()));
        }
        self.ledger.check_named(id, &manifest);
        let there = self.store.list(&keys::collection_prefix(id), None).await.map_err(|error| error.to_string())?;
        if let Some(left) = there.iter().find(|key| !is_named(&manifest, key)) {
            return Err(format!("{left} is left"));
        }
        let (rows, set_hash) = self.live_rows(&Base::new(manifest.clone(), None)).await.map_err(|e| e.to_string())?;
        if (rows, set_hash) != (manifest.records, manifest.set_hash) {
            return Err(format!("{rows} rows with the hash {set_hash:?} are under {manifest:?}"));
        }
        Ok(())
    }

    /// Number and hash of all live rows.
    async fn live_rows(&self, base: &Base) -> Result<(u64, SetHash), StoredError> {
        let blocks = RefCell::default();
        let reader = StoredReader { store: &self.store, blocks: &blocks, room: &0, tally: None };
        reader.open(base).await?;
        let (mut rows, mut sum) = (0, 0_u128);
        let mut scan = RowScan::new(base);
        while scan.next(&reader).await?.is_some() {
            rows += 1;
            sum = sum.wrapping_add(scan.row().hash());
        }
        Ok((rows, SetHash(sum)))
    }
}

type KeepersStore<'a> = Retry<Keeper<'a>, SimulatedRuntime>;

fn compactor<'a>(
    store: &'a KeepersStore<'a>,
    catalog: &'a SimulatedCatalog,
    runtime: &'a SimulatedRuntime,
    memory_bytes: usize,
    is_stopped: &'a dyn Fn() -> bool,
) -> Compactor<'a, KeepersStore<'a>, SimulatedCatalog, SimulatedRuntime> {
    Compactor {
        store,
        catalog,
        runtime,
        memory_bytes,
        scratch: Scratch { directory: std::env::temp_dir(), memory_bytes },
        // All segments are flat: what is in an index changes no protocol.
        indexing: Indexing { from_bytes: u64::MAX, ..Indexing::on(1) },
        segments_max: SEGMENTS_MAX,
        is_stopped,
        stats: Stats::default(),
    }
}

/// The store as compactors and collectors have it: their machines are suspended more often than others.
struct Keeper<'a> {
    world: &'a World,
    /// Longest pause before a write, in ms: so deletes come in any order, and others see what is half done.
    pause_ms: u64,
}

impl Keeper<'_> {
    /// The store, after whatever befalls the machine.
    async fn store(&self) -> &Store {
        self.world.network.suspend(&self.world.runtime, 1).await;
        &self.world.store
    }

    /// The same to write to.
    async fn store_to_write(&self) -> &Store {
        let World { runtime, network, .. } = self.world;
        if self.pause_ms > 0 && !network.quiet.get() {
            runtime.sleep(runtime.below(*runtime.pick(&[1, 100, self.pause_ms]))).await;
        }
        self.store().await
    }
}

impl ObjectStore for Keeper<'_> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.store().await.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        self.store().await.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.store().await.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        self.store_to_write().await.put(key, body, mode).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.store().await.list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.store_to_write().await.delete(key).await
    }
}
