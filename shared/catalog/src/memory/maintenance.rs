//! What compaction and garbage collection ask, in memory.

use super::{Collection, Lease, MemoryCatalog, Published};
use crate::{CatalogError, Maintenance, PublishFrom, Upkeep, Version};
use model::safeguard::{Safeguard, holds};
use model::{CollectionId, Manifest};

impl Maintenance for MemoryCatalog {
    async fn publish(&self, id: CollectionId, from: PublishFrom, manifest: &Manifest) -> Result<bool, CatalogError> {
        let state = &mut *self.state.borrow_mut();
        let Ok(collection) = state.living_mut(id) else { return Ok(false) };
        let row = &mut collection.row;
        let passed_by = row.gc_epoch > from.gc_epoch + 1 && holds(Safeguard::GcEpochFence);
        if row.generation != from.generation || passed_by {
            return Ok(false);
        }
        row.generation += 1;
        row.manifest = manifest.clone();
        let published = Published { generation: row.generation, manifest: manifest.clone(), at_s: self.now_s() };
        collection.published_at_s = Some(published.at_s);
        collection.versions.push(published);
        Ok(true)
    }

    async fn upkeep(&self, id: CollectionId) -> Result<Upkeep, CatalogError> {
        self.state.borrow_mut().collection_mut(id).map(|collection| upkeep(collection, self.now_s()))
    }

    async fn list_upkeep(&self) -> Result<Vec<Upkeep>, CatalogError> {
        Ok(self.state.borrow().collections.iter().map(|collection| upkeep(collection, self.now_s())).collect())
    }

    async fn raise_gc_epoch(&self, id: CollectionId) -> Result<u64, CatalogError> {
        let state = &mut *self.state.borrow_mut();
        let row = &mut state.collection_mut(id)?.row;
        row.gc_epoch += 1;
        Ok(row.gc_epoch)
    }

    async fn list_versions(&self, id: CollectionId) -> Result<Vec<Version>, CatalogError> {
        let version = |published: &Published| Version {
            generation: published.generation,
            manifest: published.manifest.clone(),
            age_s: self.now_s().saturating_sub(published.at_s),
        };
        let state = &mut *self.state.borrow_mut();
        Ok(state.collection_mut(id).map_or(Vec::new(), |collection| collection.versions.iter().map(version).collect()))
    }

    async fn forget_versions(&self, id: CollectionId, generation: u64) -> Result<(), CatalogError> {
        if let Ok(collection) = self.state.borrow_mut().collection_mut(id) {
            collection.versions.retain(|version| version.generation >= generation);
        }
        Ok(())
    }

    async fn forget_collection(&self, id: CollectionId) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        state.collection_mut(id)?.deleted_at_s.ok_or(CatalogError::NotFound)?;
        state.collections.retain(|collection| collection.row.id != id);
        Ok(())
    }

    async fn acquire_lease(&self, id: CollectionId, holder: u128, seconds: u64) -> Result<Option<u64>, CatalogError> {
        let now_s = self.now_s();
        let state = &mut *self.state.borrow_mut();
        let Ok(collection) = state.collection_mut(id) else { return Ok(None) };
        let epoch = match &collection.lease {
            Some(lease) if lease.holder == holder => lease.epoch,
            Some(lease) if lease.expires_at_s > now_s => return Ok(None),
            Some(lease) => lease.epoch + 1,
            None => 1,
        };
        collection.lease = Some(Lease { holder, epoch, expires_at_s: now_s + seconds });
        Ok(Some(epoch))
    }

    async fn release_lease(&self, id: CollectionId, holder: u128) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        let lease = state.collection_mut(id).ok().and_then(|collection| collection.lease.as_mut());
        if let Some(lease) = lease.filter(|lease| lease.holder == holder) {
            lease.expires_at_s = 0;
        }
        Ok(())
    }
}

fn upkeep(collection: &Collection, now_s: u64) -> Upkeep {
    let row = &collection.row;
    let age_s = |at_s: u64| now_s.saturating_sub(at_s);
    Upkeep {
        id: row.id,
        name: format!("{}/{}/{}", row.tenant, row.database, row.name),
        generation: row.generation,
        manifest: row.manifest.clone(),
        dimension: row.dimension,
        gc_floor: row.gc_floor,
        gc_epoch: row.gc_epoch,
        created_age_s: age_s(collection.created_at_s),
        published_age_s: collection.published_at_s.map(age_s),
        floor_age_s: collection.floor_raised_at_s.map(age_s),
        deleted_age_s: collection.deleted_at_s.map(age_s),
    }
}
