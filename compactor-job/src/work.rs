//! Finding work: which collections have log that is not compacted yet.
//!
//! A writer puts the marker `dirty/{collection}` after its fragment, but not after every one: for
//! [`limits::MARKER_MS`] it believes that the marker is still there. So:
//!
//! 1. **Markers.** The marker is cleared *before* the log is read: what arrives later puts it again. A compaction that
//!    fails puts it back.
//! 2. **Probing again.** A collection whose marker was cleared is probed once more, for writers that believed in it: after
//!    [`limits::PROBE_AGAIN_MS`] if the program stays ([`Work::watch`]), else at the end of the pass ([`Work::run`]).
//! 3. **Sweeps.** Collections that were created or published within a day are probed every hour, all of them every day: a
//!    marker that was lost is lag, never loss.
//!
//! A probe is a HEAD of the fragment at the watermark. Whoever compacts has the collection's lease, so that others do
//! something else meanwhile; nothing depends on it.

use crate::journal::{Entry, Journal, Stop};
use catalog::{CatalogError, Maintenance, Upkeep};
use futures_util::future::{Either, select};
use futures_util::stream::{self, StreamExt};
use model::{CollectionId, Lsn, Timestamp, keys, limits};
use runtime::Runtime;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::ops::AddAssign;
use std::pin::pin;
use storage::{ObjectStore, PutMode, ReadError};

/// Longest nap between two looks at whether to stop, in ms.
const NAP_MS: u64 = 200;
/// For so long a watch leaves alone what failed, in ms; doubles each time, up to [`FAILED_PAUSE_MS_MAX`].
const FAILED_PAUSE_MS: u64 = 30_000;
/// Longest time for which a watch leaves alone what failed, in ms.
const FAILED_PAUSE_MS_MAX: u64 = 3_600_000;

/// Who compacts one collection.
pub trait Compact {
    /// Turns what the log of the collection holds now into segments, and publishes them. The caller has the lease.
    async fn compact(&self, id: CollectionId) -> Result<Compacted, CompactError>;
}

/// What came of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// There was nothing to do.
    Nothing,
    /// This generation was published.
    Published {
        /// Its number.
        generation: u64,
        /// Its watermark.
        watermark: Lsn,
    },
}

/// Why a collection was not compacted. What was uploaded stays for the garbage collection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// The collection was deleted: there is nothing to do any more.
    #[error("the collection is gone")]
    Gone,
    /// The store or the catalog did not answer, or somebody else published: a later pass may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// Something stored is not what was written, or the store refuses: somebody has to look.
    #[error("{0}")]
    Broken(String),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Stopped,
}

/// What a pass did, in collections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Compacted.
    pub published: u64,
    /// Nothing was to be done.
    pub idle: u64,
    /// Left alone, because another compactor has the lease.
    pub leased: u64,
    /// A later pass is needed.
    pub failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.published += other.published;
        self.idle += other.idle;
        self.leased += other.leased;
        self.failed += other.failed;
    }
}

/// Why a pass ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// The catalog does not tell what there is.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The bucket cannot be listed or probed.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// Somebody asked for it.
    #[error("interrupted")]
    Stopped,
}

/// Which collections are probed whatever the markers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// None.
    None,
    /// Those that were created or published within [`limits::ACTIVE_MS`].
    Active,
    /// All that live.
    All,
    /// A share of them, different each time, for a program that is started `every_ms` and remembers nothing: of the active
    /// ones such that each has its turn once in [`limits::SWEEP_ACTIVE_MS`], of all such that each has once in
    /// [`limits::SWEEP_ALL_MS`]. If it is started less often, each has its turn as often less, on average.
    Share {
        /// How often the program is started, in ms.
        every_ms: u64,
    },
}

impl Sweep {
    fn takes(self, upkeep: &Upkeep, now: Timestamp) -> bool {
        let age_s = upkeep.published_age_s.unwrap_or(u64::MAX).min(upkeep.created_age_s);
        let is_active = age_s.saturating_mul(1_000) <= limits::ACTIVE_MS;
        let has_turn = |period_ms, every_ms| has_turn(upkeep.id, now, period_ms, every_ms);
        upkeep.deleted_age_s.is_none()
            && match self {
                Sweep::None => false,
                Sweep::Active => is_active,
                Sweep::All => true,
                Sweep::Share { every_ms } => {
                    (is_active && has_turn(limits::SWEEP_ACTIVE_MS, every_ms))
                        || has_turn(limits::SWEEP_ALL_MS, every_ms)
                }
            }
    }
}

/// Whether `now` is in the one slice of the period, of those that are `every_ms` long, that is the collection's. It is another
/// one in each period: whoever looks too seldom finds each collection at some time.
fn has_turn(id: CollectionId, now: Timestamp, period_ms: u64, every_ms: u64) -> bool {
    let slices = (period_ms / every_ms.max(1)).max(1);
    let slice = now.0 % period_ms * slices / period_ms;
    let mixed = (id.as_u128() ^ u128::from(now.0 / period_ms)).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
    (mixed >> 64) % u128::from(slices) == u128::from(slice)
}

/// Somebody who looks for work and has it done, one collection after the other.
pub struct Work<'a, S, C, R, J, K> {
    /// The bucket.
    pub store: &'a S,
    /// The system database.
    pub catalog: &'a C,
    /// Clock and pauses.
    pub runtime: &'a R,
    /// Who is told.
    pub journal: &'a J,
    /// Who compacts.
    pub compact: &'a K,
    /// Ends the pass between two collections.
    pub stop: &'a Stop,
    /// As whom it takes leases: 128 random bits.
    pub holder: u128,
    /// The collection whose lease it has.
    pub in_hand: Cell<Option<CollectionId>>,
}

/// What [`Work::watch`] remembers between two rounds.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Whose marker was cleared when, earliest first.
    cleared: VecDeque<(CollectionId, Timestamp)>,
    /// What failed, how long it is left alone after the last time, and until when.
    failing: HashMap<CollectionId, (u64, Timestamp)>,
    swept_active: Option<Timestamp>,
    swept_all: Option<Timestamp>,
}

impl Rounds {
    /// Whether the collection failed not long ago. A round costs what it reads, so each failure in a row doubles the time.
    fn leaves_alone(&self, id: CollectionId, now: Timestamp) -> bool {
        self.failing.get(&id).is_some_and(|(_, until)| now < *until)
    }

    fn see(&mut self, id: CollectionId, tally: &Tally, now: Timestamp) {
        if tally.failed > 0 {
            let (pause_ms, _) = self.failing.get(&id).copied().unwrap_or((FAILED_PAUSE_MS / 2, now));
            let pause_ms = (pause_ms * 2).min(FAILED_PAUSE_MS_MAX);
            self.failing.insert(id, (pause_ms, now.plus_ms(pause_ms)));
        } else {
            self.failing.remove(&id);
        }
        if tally.published + tally.idle > 0 {
            self.cleared.push_back((id, now));
        }
    }
}

impl<S: ObjectStore, C: Maintenance, R: Runtime, J: Journal, K: Compact> Work<'_, S, C, R, J, K> {
    /// One pass: marked collections, then those of `sweep`, then the cleared ones once more.
    ///
    /// Errors: the store or the catalog cannot be listed, or somebody asked to stop; what failed of single collections is
    /// told and counted. Cost: a list for each thousand markers; a delete, two or more catalog writes and a compaction for
    /// each; the listing of upkeep for a sweep; a HEAD for each collection that is probed.
    pub async fn run(&self, sweep: Sweep) -> Result<Tally, WorkError> {
        let mut rounds = Rounds::default();
        let mut tally = self.marked(&mut rounds).await?;
        tally += self.sweep(sweep).await?;
        let cleared = rounds.cleared.into_iter().map(|(id, _)| id).collect();
        tally += self.again(cleared).await?;
        Ok(tally)
    }

    /// Rounds, `interval_ms` apart, until somebody asks to stop; in each, `sweep` besides what is due. What goes wrong is told
    /// and left for the next round.
    pub async fn watch(&self, interval_ms: u64, sweep: Sweep) -> Tally {
        let (mut rounds, mut tally) = (Rounds::default(), Tally::default());
        while !self.stop.is_asked() {
            match self.round(&mut rounds, sweep).await {
                Ok(of_round) => tally += of_round,
                Err(WorkError::Stopped) => {}
                Err(error) => self.journal.record(Entry::warn("round failed").because(error)),
            }
            let until = self.runtime.now().plus_ms(interval_ms);
            while !self.stop.is_asked() && self.runtime.now() < until {
                self.runtime.sleep(until.ms_since(self.runtime.now()).min(NAP_MS)).await;
            }
        }
        tally
    }

    /// One round of [`Work::watch`]: marked collections, those that were cleared a while ago, and a sweep if one is due.
    pub async fn round(&self, rounds: &mut Rounds, sweep: Sweep) -> Result<Tally, WorkError> {
        let mut tally = self.marked(rounds).await?;
        tally += self.sweep(sweep).await?;
        let now = self.runtime.now();
        let is_due = |(_, at): &(CollectionId, Timestamp)| now.ms_since(*at) >= limits::PROBE_AGAIN_MS;
        let due = rounds.cleared.iter().take_while(|cleared| is_due(cleared)).count();
        // They are forgotten only when they were probed.
        let ids = rounds.cleared.iter().take(due).map(|(id, _)| *id).collect();
        tally += self.again(ids).await?;
        rounds.cleared.drain(..due);
        let is_older = |last: Option<Timestamp>, ms| last.is_none_or(|last| now.ms_since(last) >= ms);
        if is_older(rounds.swept_all, limits::SWEEP_ALL_MS) {
            tally += self.sweep(Sweep::All).await?;
            (rounds.swept_all, rounds.swept_active) = (Some(now), Some(now));
        } else if is_older(rounds.swept_active, limits::SWEEP_ACTIVE_MS) {
            tally += self.sweep(Sweep::Active).await?;
            rounds.swept_active = Some(now);
        }
        Ok(tally)
    }

    /// Compacts one collection, whose marker is cleared before.
    ///
    /// Cost: a delete, two catalog writes, the compaction, and a catalog write for each third of [`limits::LEASE_S`].
    pub async fn one(&self, id: CollectionId) -> Tally {
        let lease = self.catalog.acquire_lease(id, self.holder, limits::LEASE_S).await;
        match lease {
            Ok(Some(_)) => {}
            Ok(None) => return self.without_lease(id).await,
            Err(error) => {
                self.journal.record(Entry::warn("no lease").of(id).because(error));
                return Tally { failed: 1, ..Tally::default() };
            }
        }
        self.in_hand.set(Some(id));
        self.clear(id).await;
        let outcome = self.renewing(id, self.compact.compact(id)).await;
        let tally = self.judge(id, outcome).await;
        self.release(id).await;
        self.in_hand.set(None);
        tally
    }

    /// After a pass that was given up in the middle of something: puts the marker of that collection back, and gives up the
    /// lease.
    pub async fn abandon(&self) {
        if let Some(id) = self.in_hand.take() {
            self.mark(id).await;
            self.release(id).await;
        }
    }

    /// Compacts what has a marker.
    async fn marked(&self, rounds: &mut Rounds) -> Result<Tally, WorkError> {
        let mut tally = Tally::default();
        let ids = self.markers().await?;
        for (done, id) in ids.iter().enumerate() {
            self.check_stop()?;
            self.journal.progress("compacting", done, ids.len());
            if rounds.leaves_alone(*id, self.runtime.now()) {
                continue;
            }
            let of_this = self.one(*id).await;
            rounds.see(*id, &of_this, self.runtime.now());
            tally += of_this;
        }
        Ok(tally)
    }

    async fn markers(&self) -> Result<Vec<CollectionId>, WorkError> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.list(keys::DIRTY_PREFIX, after.as_deref()).await?;
            ids.extend(page.iter().filter_map(|key| keys::dirty_collection_of(key)));
            if page.len() < storage::LIST_KEYS_MAX {
                return Ok(ids);
            }
            after = page.last().cloned();
        }
    }

    /// Probes the collections that `sweep` takes, and compacts those that have a backlog.
    async fn sweep(&self, sweep: Sweep) -> Result<Tally, WorkError> {
        if sweep == Sweep::None {
            return Ok(Tally::default());
        }
        let now = self.runtime.now();
        let mut collections = self.catalog.list_upkeep().await?;
        collections.retain(|upkeep| sweep.takes(upkeep, now));
        let probes = stream::iter(&collections).map(async |upkeep| (upkeep.id, self.has_backlog(upkeep).await));
        let probed: Vec<_> = probes.buffered(limits::JOB_REQUESTS_AT_ONCE).collect().await;
        let mut tally = Tally::default();
        for (done, (id, has_backlog)) in probed.into_iter().enumerate() {
            self.check_stop()?;
            self.journal.progress("sweeping", done, collections.len());
            tally += if has_backlog? { self.one(id).await } else { Tally { idle: 1, ..Tally::default() } };
        }
        Ok(tally)
    }

    /// Probes collections whose marker was cleared, and compacts those that have a backlog.
    async fn again(&self, ids: Vec<CollectionId>) -> Result<Tally, WorkError> {
        let mut tally = Tally::default();
        for id in ids {
            self.check_stop()?;
            let upkeep = match self.catalog.upkeep(id).await {
                Err(CatalogError::NotFound) => continue,
                upkeep => upkeep?,
            };
            if upkeep.deleted_age_s.is_none() && self.has_backlog(&upkeep).await? {
                tally += self.one(id).await;
            }
        }
        Ok(tally)
    }

    async fn has_backlog(&self, upkeep: &Upkeep) -> Result<bool, ReadError> {
        Ok(self.store.head(&keys::fragment(upkeep.id, upkeep.manifest.watermark())).await?.is_some())
    }

    fn check_stop(&self) -> Result<(), WorkError> {
        if self.stop.is_asked() { Err(WorkError::Stopped) } else { Ok(()) }
    }

    /// Another compactor is at work, or nobody knows the collection any more, and its marker is all that is left.
    async fn without_lease(&self, id: CollectionId) -> Tally {
        if self.catalog.upkeep(id).await == Err(CatalogError::NotFound) {
            self.clear(id).await;
            return Tally { idle: 1, ..Tally::default() };
        }
        self.journal.record(Entry::info("another compactor is at work").of(id));
        Tally { leased: 1, ..Tally::default() }
    }

    async fn judge(&self, id: CollectionId, outcome: Result<Compacted, CompactError>) -> Tally {
        let entry = match outcome {
            Ok(Compacted::Published { generation, watermark }) => {
                let entry = Entry::info("compacted").of(id).with("generation", generation);
                self.journal.record(entry.with("watermark", watermark.0));
                return Tally { published: 1, ..Tally::default() };
            }
            Ok(Compacted::Nothing) | Err(CompactError::Gone) => return Tally { idle: 1, ..Tally::default() },
            Err(error @ CompactError::Broken(_)) => Entry::error("not compacted").because(error),
            Err(error) => Entry::warn("not compacted").because(error),
        };
        self.journal.record(entry.of(id));
        self.mark(id).await;
        Tally { failed: 1, ..Tally::default() }
    }

    /// `compaction`, with the lease renewed until it ends. That somebody else gets the lease does not end it: publishing
    /// decides.
    async fn renewing<T>(&self, id: CollectionId, compaction: impl Future<Output = T>) -> T {
        match select(pin!(compaction), pin!(self.renew(id))).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right((never, _)) => match never {},
        }
    }

    async fn renew(&self, id: CollectionId) -> Infallible {
        loop {
            self.runtime.sleep(limits::LEASE_S * 1_000 / 3).await;
            if let Err(error) = self.catalog.acquire_lease(id, self.holder, limits::LEASE_S).await {
                self.journal.record(Entry::warn("lease not renewed").of(id).because(error));
            }
        }
    }

    async fn clear(&self, id: CollectionId) {
        if let Err(error) = self.store.delete(&keys::dirty(id)).await {
            self.journal.record(Entry::warn("marker not cleared").of(id).because(error));
        }
    }

    async fn mark(&self, id: CollectionId) {
        if let Err(error) = self.store.put(&keys::dirty(id), "".into(), PutMode::Overwrite).await {
            self.journal.record(Entry::warn("marker not put back").of(id).because(error));
        }
    }

    async fn release(&self, id: CollectionId) {
        if let Err(error) = self.catalog.release_lease(id, self.holder).await {
            self.journal.record(Entry::warn("lease not released").of(id).because(error));
        }
    }
}

#[cfg(test)]
mod tests;
