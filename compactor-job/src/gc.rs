//! Garbage collection: deletes what no reader can need any more.
//!
//! Two kinds of objects, two rules. **The log** is read by its numbers, so a *floor* in the catalog says from where on it may
//! be read; what is below is deleted once the floor has stood for D ([`GcSettings::delay_ms`]), by the catalog's clock:
//! until then somebody may still act on what was true before. **Segments and delete vectors** are read by name, so whatever
//! no kept manifest names goes, if it was made by somebody who may not publish any more: its name carries the gc epoch that
//! its maker started from, and a pass raises the epoch *before* it reads the manifests.
//!
//! How long old generations are kept ([`GcSettings::grace_ms`]) is retention, not safety: 0 is sound.
//!
//! **What an idle collection costs.** Nothing if it was never published; else one look at its versions and one HEAD a pass,
//! and no write. A pass has something to do as long as one of these holds: a version is kept that nobody can ask for, the
//! floor is below the watermark that it may rise to, or the fragment directly below the floor is there. A pass deletes this
//! fragment, and forgets the last of these versions, only when it leaves nothing else behind: so a pass that was cut short,
//! or deletes that failed, are made up for by a later one without any bookkeeping. What a stalled writer or compactor leaves
//! behind after that waits for the next time something is published.
//!
//! Deleting is idempotent, in any order, and by any number of collectors at once.

use crate::journal::{Entry, Journal, Stop};
use catalog::{Catalog, CatalogError, Maintenance, Upkeep, Version};
use futures_util::stream::{self, StreamExt};
use model::safeguard::{Safeguard, holds};
use model::{CollectionId, DeleteVectorPlace, Lsn, Manifest, Timestamp, keys, limits};
use runtime::Runtime;
use serde::Deserialize;
use std::collections::HashSet;
use std::ops::AddAssign;
use storage::{ObjectStore, ReadError};
use wal::pack::PackId;

/// A collector of garbage.
pub struct Gc<'a, S, C, R, J> {
    /// The bucket.
    pub store: &'a S,
    /// The system database.
    pub catalog: &'a C,
    /// The clock is asked about idempotency keys only.
    pub runtime: &'a R,
    /// Who is told.
    pub journal: &'a J,
    /// Ends the pass.
    pub stop: &'a Stop,
    /// As whom it takes leases: 128 random bits.
    pub holder: u128,
    /// How it collects.
    pub settings: GcSettings,
}

/// How garbage is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcSettings {
    /// For so long old generations are kept, with the log from their watermark on, in ms.
    pub grace_ms: u64,
    /// D, in ms: at least that of the gateways, and never 0. See [`limits::GC_DELAY_MS`].
    pub delay_ms: u64,
    /// Whether it is done.
    pub effect: Effect,
}

impl Default for GcSettings {
    fn default() -> Self {
        GcSettings { grace_ms: limits::RETENTION_MS, delay_ms: limits::GC_DELAY_MS, effect: Effect::Delete }
    }
}

/// What comes of finding garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is deleted.
    Delete,
    /// It is told, and nothing changes, in the catalog neither.
    DryRun,
}

/// What a pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects that were deleted, or would have been.
    pub deleted: u64,
    /// Objects that could not be deleted.
    pub failed: u64,
    /// Objects that nobody needs, but somebody may believe that he does.
    pub waiting: u64,
    /// Deleted collections of which nothing is left.
    pub forgotten: u64,
    /// Collections that could not be looked at.
    pub collections_failed: u64,
}

impl Swept {
    /// Whether nothing is left that a pass would have to come for.
    fn is_clean(&self) -> bool {
        self.failed == 0 && self.waiting == 0
    }
}

impl AddAssign for Swept {
    fn add_assign(&mut self, other: Swept) {
        self.deleted += other.deleted;
        self.failed += other.failed;
        self.waiting += other.waiting;
        self.forgotten += other.forgotten;
        self.collections_failed += other.collections_failed;
    }
}

/// Why a pass ended early. All of it is left for a later one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GcError {
    /// The catalog did not do its part.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The bucket could not be listed.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// Somebody asked for it.
    #[error("interrupted")]
    Stopped,
}

/// A key in use, as its object tells: the gateway writes it (docs/formats.md).
#[derive(Deserialize)]
struct KeyInUse {
    /// Where the log ended when the key was first seen.
    from: Lsn,
    /// When that was, by the gateway's clock.
    created_at: Timestamp,
}

/// What a collection keeps, and what therefore may go.
struct Kept {
    /// Versions from this generation on.
    generation: u64,
    /// The floor may rise to here: the watermark of that generation.
    floor: Lsn,
    /// Older versions of which the catalog still knows, by generation.
    outdated: Vec<u64>,
    /// The others.
    versions: Vec<Version>,
}

impl Kept {
    /// Of all `versions`, by generation: the newest that is `grace_ms` old, and what came after it. `None` if none is.
    fn of(mut versions: Vec<Version>, grace_ms: u64) -> Option<Kept> {
        let at = versions.iter().rposition(|version| version.age_s.saturating_mul(1_000) >= grace_ms)?;
        let kept = versions.split_off(at);
        let (generation, floor) = (kept[0].generation, kept[0].manifest.watermark());
        Some(Kept { generation, floor, outdated: versions.iter().map(|old| old.generation).collect(), versions: kept })
    }
}

/// How far a listing has come.
struct Pages {
    prefix: String,
    after: Option<String>,
    is_end: bool,
}

impl Pages {
    fn under(prefix: String) -> Pages {
        Pages { prefix, after: None, is_end: false }
    }
}

/// The objects that manifests name.
#[derive(Default)]
struct Named {
    segments: HashSet<String>,
    delete_vectors: HashSet<String>,
}

impl Named {
    fn by<'m>(manifests: impl Iterator<Item = &'m Manifest>) -> Named {
        let mut named = Named::default();
        for segment in manifests.flat_map(|manifest| &manifest.segments) {
            named.segments.insert(segment.prefix.clone());
            if let Some(DeleteVectorPlace::Object(key)) = segment.dead.as_ref().map(|dead| &dead.place) {
                named.delete_vectors.insert(key.clone());
            }
        }
        named
    }

    fn has(&self, key: &str) -> bool {
        let segment = key.rsplit_once('/').map_or(key, |(prefix, _)| prefix);
        self.segments.contains(segment) || self.delete_vectors.contains(key)
    }
}

impl<S: ObjectStore, C: Catalog + Maintenance, R: Runtime, J: Journal> Gc<'_, S, C, R, J> {
    /// One pass over all collections. What goes wrong with one is told, counted, and left for the next pass.
    ///
    /// Errors: the catalog does not list them, or somebody asked to stop. Cost: the listing, then [`Gc::collection`] each.
    pub async fn all(&self) -> Result<Swept, GcError> {
        let collections = self.catalog.list_upkeep().await?;
        let mut swept = Swept::default();
        for (done, upkeep) in collections.iter().enumerate() {
            self.journal.progress("collecting garbage", done, collections.len());
            match self.collection(upkeep).await {
                Ok(of_this) => swept += of_this,
                Err(GcError::Stopped) => return Err(GcError::Stopped),
                Err(error) => {
                    swept.collections_failed += 1;
                    self.journal.record(Entry::warn("garbage not collected").of(upkeep.id).because(error));
                }
            }
        }
        Ok(swept)
    }

    /// One pass over one collection, of which `upkeep` was true not long ago.
    ///
    /// Cost: idle, one catalog read and one HEAD. Else a list for each thousand keys below the floor, of packs, of segments
    /// and of delete vectors; a delete for each object; a get for a sixteenth of the idempotency keys; up to seven calls of
    /// the catalog. Deleted, nothing for D, then a list and a delete for each object.
    pub async fn collection(&self, upkeep: &Upkeep) -> Result<Swept, GcError> {
        assert!(self.settings.delay_ms > 0, "without a delay garbage collection deletes what is being read");
        let outcome = match upkeep.deleted_age_s {
            Some(age_s) => self.remains(upkeep.id, age_s).await,
            None => self.living(upkeep).await,
        };
        match outcome {
            // It was deleted or forgotten meanwhile: the next pass sees that.
            Err(GcError::Catalog(CatalogError::NotFound)) => Ok(Swept::default()),
            Ok(swept) if swept != Swept::default() => {
                self.journal.record(entry(upkeep.id, &swept, self.settings.effect));
                Ok(swept)
            }
            outcome => outcome,
        }
    }

    async fn living(&self, upkeep: &Upkeep) -> Result<Swept, GcError> {
        let mut swept = Swept::default();
        let Some(kept) = self.due(upkeep).await? else { return Ok(swept) };
        let mut floor = upkeep.gc_floor;
        if !holds(Safeguard::GcDelay) {
            self.raise_floor(upkeep.id, kept.floor).await?;
            floor = floor.max(kept.floor);
        }
        let floor_is_old = floor == Lsn::ZERO || self.is_over_delay(upkeep.floor_age_s, 1);
        if floor_is_old {
            self.log_below(upkeep.id, floor, &mut swept).await?;
        }
        self.objects(upkeep, &kept, &mut swept).await?;
        if floor_is_old {
            self.idempotency_keys(upkeep.id, floor, &mut swept).await?;
        }
        // Steps of the floor are at least D apart, or it would never be old.
        if floor_is_old && kept.floor > floor {
            self.raise_floor(upkeep.id, kept.floor).await?;
        }
        let is_done = swept.is_clean() && floor_is_old && kept.floor <= floor;
        if is_done && let Some(last) = floor.previous() {
            self.delete_all(upkeep.id, vec![keys::fragment(upkeep.id, last)], &mut swept).await;
        }
        self.forget_outdated(upkeep.id, &kept, is_done).await?;
        Ok(swept)
    }

    /// What is to be kept, if a pass may have something to do.
    async fn due(&self, upkeep: &Upkeep) -> Result<Option<Kept>, GcError> {
        if upkeep.generation == 0 {
            return Ok(None);
        }
        let versions = self.catalog.list_versions(upkeep.id).await?;
        let Some(kept) = Kept::of(versions, self.settings.grace_ms) else { return Ok(None) };
        if !kept.outdated.is_empty() || kept.floor > upkeep.gc_floor {
            return Ok(Some(kept));
        }
        let Some(last) = upkeep.gc_floor.previous() else { return Ok(None) };
        let is_left = self.store.head(&keys::fragment(upkeep.id, last)).await?.is_some();
        Ok(is_left.then_some(kept))
    }

    /// Whether something that is `age_s` old by the catalog's clock is older than so many D. Whole seconds say it only of what
    /// is a second older.
    fn is_over_delay(&self, age_s: Option<u64>, times: u64) -> bool {
        let delay_ms = self.settings.delay_ms.saturating_mul(times);
        age_s.is_some_and(|age_s| age_s.saturating_sub(1).saturating_mul(1_000) >= delay_ms)
            || !holds(Safeguard::GcDelay)
    }

    /// Deletes the fragments below `floor`, but for the last, and the packs that lie wholly below it.
    async fn log_below(&self, id: CollectionId, floor: Lsn, swept: &mut Swept) -> Result<(), GcError> {
        let Some(last) = floor.previous() else { return Ok(()) };
        let end = keys::fragment(id, last);
        let mut pages = Pages::under(keys::log_prefix(id));
        while let Some(page) = self.next(&mut pages).await? {
            let is_end = page.last().is_some_and(|key| *key >= end);
            let below = page.into_iter().filter(|key| keys::lsn_of(key).is_some_and(|lsn| lsn < last)).collect();
            self.delete_all(id, below, swept).await;
            if is_end {
                break;
            }
        }
        let mut pages = Pages::under(keys::packs_prefix(id));
        while let Some(page) = self.next(&mut pages).await? {
            let below = page
                .into_iter()
                .filter(|key| PackId::of_key(key).is_some_and(|pack| pack.lsns().end <= floor))
                .collect();
            self.delete_all(id, below, swept).await;
        }
        Ok(())
    }

    /// Deletes the segments and delete vectors that no kept manifest names, of makers who may not publish any more.
    ///
    /// They are looked for before the epoch is raised: where there are none it stays, and idle collections cost no write.
    /// While somebody has the lease it stays as well: two passes would take from him what he is building.
    async fn objects(&self, upkeep: &Upkeep, kept: &Kept, swept: &mut Swept) -> Result<(), GcError> {
        let id = upkeep.id;
        let manifests = kept.versions.iter().map(|version| &version.manifest);
        let mut named = Named::by(manifests.chain([&upkeep.manifest]));
        let mut unnamed = Vec::new();
        for prefix in [keys::segments_prefix(id), keys::delete_vectors_prefix(id)] {
            let mut pages = Pages::under(prefix);
            while let Some(page) = self.next(&mut pages).await? {
                unnamed.extend(page.into_iter().filter(|key| !named.has(key) && keys::gc_epoch_of(key).is_some()));
            }
        }
        if unnamed.is_empty() {
            return Ok(());
        }
        let mut epoch = upkeep.gc_epoch + 1;
        if self.settings.effect == Effect::Delete {
            if self.catalog.acquire_lease(id, self.holder, limits::LEASE_S).await?.is_none() {
                swept.waiting += unnamed.len() as u64;
                return Ok(());
            }
            let fenced = self.fence(id, kept.generation).await;
            self.catalog.release_lease(id, self.holder).await?;
            (epoch, named) = fenced?;
        }
        unnamed.retain(|key| !named.has(key));
        let is_refused = |key: &String| keys::gc_epoch_of(key).is_some_and(|made_in| made_in + 1 < epoch);
        let (old, young): (Vec<_>, Vec<_>) = unnamed.into_iter().partition(is_refused);
        swept.waiting += young.len() as u64;
        self.delete_all(id, old, swept).await;
        Ok(())
    }

    /// Shuts out who started before the last pass, then reads what is named. Returns the epoch with it.
    async fn fence(&self, id: CollectionId, kept_from: u64) -> Result<(u64, Named), GcError> {
        if holds(Safeguard::EpochBeforeManifests) {
            let epoch = self.catalog.raise_gc_epoch(id).await?;
            return Ok((epoch, self.named(id, kept_from).await?));
        }
        let named = self.named(id, kept_from).await?;
        Ok((self.catalog.raise_gc_epoch(id).await?, named))
    }

    async fn named(&self, id: CollectionId, kept_from: u64) -> Result<Named, GcError> {
        let current = self.catalog.upkeep(id).await?.manifest;
        let versions = self.catalog.list_versions(id).await?;
        let kept = versions.iter().filter(|version| version.generation >= kept_from);
        Ok(Named::by(kept.map(|version| &version.manifest).chain([&current])))
    }

    /// Deletes what is known of idempotency keys that begin anew when they are used again: their window is over, and the log
    /// that they refer to is below `floor`. Both, because the one rests on the clocks of gateway and job, and the other on
    /// what a gateway believed of the log. With a grace shorter than the window the clocks decide alone.
    ///
    /// A pass that would otherwise be the last looks at all of them, any other at a sixteenth, drawn at random: an hourly pass
    /// then reads each object once or twice in its life instead of every hour.
    async fn idempotency_keys(&self, id: CollectionId, floor: Lsn, swept: &mut Swept) -> Result<(), GcError> {
        let mut prefix = keys::idempotency_prefix(id);
        if !swept.is_clean() {
            prefix.push_str(&format!("{:x}", self.runtime.random() % 16));
        }
        let mut pages = Pages::under(prefix);
        while let Some(page) = self.next(&mut pages).await? {
            let looks = stream::iter(page).map(async |key| (self.key_in_use(id, &key).await, key));
            let looked: Vec<_> = looks.buffer_unordered(limits::JOB_REQUESTS_AT_ONCE).collect().await;
            let mut expired = Vec::new();
            for (used, key) in looked {
                match used? {
                    Some(used) if used.from >= floor => {}
                    Some(used) if self.runtime.now().ms_since(used.created_at) > limits::IDEMPOTENCY_WINDOW_MS => {
                        expired.push(key);
                    }
                    Some(_) => swept.waiting += 1,
                    None => {}
                }
            }
            self.delete_all(id, expired, swept).await;
        }
        Ok(())
    }

    /// `None`: it is gone, or not what a gateway writes.
    async fn key_in_use(&self, id: CollectionId, key: &str) -> Result<Option<KeyInUse>, GcError> {
        let Some(body) = self.store.get(key).await? else { return Ok(None) };
        let used = serde_json::from_slice(&body);
        if let Err(error) = &used {
            self.journal.record(Entry::warn("object not understood").of(id).with("key", key).because(error));
        }
        Ok(used.ok())
    }

    /// Deletes what a deleted collection has left, from D after its deletion on. Its row goes when a pass from 2·D on finds
    /// nothing: until then late writers and compactors may still leave something.
    async fn remains(&self, id: CollectionId, deleted_age_s: u64) -> Result<Swept, GcError> {
        let mut swept = Swept::default();
        if !self.is_over_delay(Some(deleted_age_s), 1) {
            return Ok(swept);
        }
        let (mut pages, mut is_empty) = (Pages::under(keys::collection_prefix(id)), true);
        while let Some(page) = self.next(&mut pages).await? {
            is_empty = false;
            self.delete_all(id, page, &mut swept).await;
        }
        if self.settings.effect == Effect::Delete {
            // Whoever looks for work clears the marker as well: that it may stay is no reason to come again.
            let _ = self.store.delete(&keys::dirty(id)).await;
            if is_empty && self.is_over_delay(Some(deleted_age_s), 2) {
                self.catalog.forget_collection(id).await?;
                swept.forgotten = 1;
            }
        }
        Ok(swept)
    }

    async fn raise_floor(&self, id: CollectionId, floor: Lsn) -> Result<(), GcError> {
        match self.settings.effect {
            Effect::Delete => Ok(self.catalog.raise_gc_floor(id, floor).await?),
            Effect::DryRun => Ok(()),
        }
    }

    /// Forgets the versions that nobody can ask for. Unless the pass `is_done` the newest of them stays: it tells the next
    /// pass that something is left.
    async fn forget_outdated(&self, id: CollectionId, kept: &Kept, is_done: bool) -> Result<(), GcError> {
        let from = match kept.outdated.last() {
            Some(newest) if !is_done => *newest,
            _ => kept.generation,
        };
        let has_older = kept.outdated.first().is_some_and(|oldest| *oldest < from);
        if has_older && self.settings.effect == Effect::Delete {
            self.catalog.forget_versions(id, from).await?;
        }
        Ok(())
    }

    /// The next keys of a listing, `None` at its end. Cost: one list; finding the end costs none.
    async fn next(&self, pages: &mut Pages) -> Result<Option<Vec<String>>, GcError> {
        if self.stop.is_asked() {
            return Err(GcError::Stopped);
        }
        if pages.is_end {
            return Ok(None);
        }
        let page = self.store.list(&pages.prefix, pages.after.as_deref()).await?;
        pages.is_end = page.len() < storage::LIST_KEYS_MAX;
        pages.after = page.last().cloned();
        Ok((!page.is_empty()).then_some(page))
    }

    /// Deletes `keys`, in any order, and counts what came of it.
    async fn delete_all(&self, id: CollectionId, keys: Vec<String>, swept: &mut Swept) {
        let deletes = stream::iter(keys).map(async |key| self.delete(id, &key).await);
        let mut deletes = std::pin::pin!(deletes.buffer_unordered(limits::JOB_REQUESTS_AT_ONCE));
        while let Some(is_deleted) = deletes.next().await {
            *(if is_deleted { &mut swept.deleted } else { &mut swept.failed }) += 1;
        }
    }

    async fn delete(&self, id: CollectionId, key: &str) -> bool {
        if self.settings.effect == Effect::DryRun {
            self.journal.record(Entry::info("would be deleted").of(id).with("key", key));
            return true;
        }
        match self.store.delete(key).await {
            Ok(()) => true,
            Err(error) => {
                self.journal.record(Entry::warn("object not deleted").of(id).with("key", key).because(error));
                false
            }
        }
    }
}

fn entry(id: CollectionId, swept: &Swept, effect: Effect) -> Entry {
    let event = match effect {
        Effect::Delete => "garbage collected",
        Effect::DryRun => "garbage found",
    };
    let entry = Entry::info(event).of(id).with("deleted", swept.deleted).with("failed", swept.failed);
    entry.with("waiting", swept.waiting).with("forgotten", swept.forgotten)
}

#[cfg(test)]
mod tests;
