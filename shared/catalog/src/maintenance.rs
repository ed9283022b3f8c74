//! What compaction and garbage collection ask of the system database.

use crate::CatalogError;
use model::{CollectionId, Lsn, Manifest};

/// Publishing, leases and the bookkeeping of garbage collection. As with [`crate::Catalog`] every call is one transaction
/// on the primary (a long listing: one for each few hundred rows). Ages are by the catalog's own clock, in whole
/// seconds: nobody else's counts.
pub trait Maintenance {
    /// Makes `manifest` the next generation of the living collection, and a version of it that is kept, if nobody has
    /// published since and garbage collection has not passed it by: if the generation is still `from.generation` and the
    /// gc epoch at most `from.gc_epoch + 1`. Returns whether it did; to one that is deleted or not known, it never does.
    ///
    /// Only generation, watermark, manifest and the time of publishing change. It is never repeated: a call answered
    /// `Unavailable` may have had its effect, so compare the row's manifest with the one that was to be published.
    async fn publish(&self, id: CollectionId, from: PublishFrom, manifest: &Manifest) -> Result<bool, CatalogError>;

    /// What is known of the collection for its upkeep, deleted or not. `NotFound` if not even a tombstone is left.
    async fn upkeep(&self, id: CollectionId) -> Result<Upkeep, CatalogError>;

    /// The same of all collections, deleted ones included, in the order of creation.
    async fn list_upkeep(&self) -> Result<Vec<Upkeep>, CatalogError>;

    /// Adds 1 to the gc epoch of the collection, deleted or not, and returns it. A repetition raises it once more, which
    /// only refuses more of the slow. `NotFound` as above.
    async fn raise_gc_epoch(&self, id: CollectionId) -> Result<u64, CatalogError>;

    /// The published versions that are kept, by generation: none of a collection that is not known.
    async fn list_versions(&self, id: CollectionId) -> Result<Vec<Version>, CatalogError>;

    /// Forgets the kept versions below `generation`.
    async fn forget_versions(&self, id: CollectionId, generation: u64) -> Result<(), CatalogError>;

    /// Removes what is left of a deleted collection. Its id stays used up only as long as nobody draws the same 122 random
    /// bits again. `NotFound` if it lives or is not known.
    async fn forget_collection(&self, id: CollectionId) -> Result<(), CatalogError>;

    /// Gives `holder` the lease of the collection, deleted or not, for `seconds` from now if nobody else has it, or lets
    /// its own last until then. Returns the lease's epoch, which grows whenever the holder changes; `None` if another has
    /// it or the collection is not known. A lease saves double work and proves nothing.
    async fn acquire_lease(&self, id: CollectionId, holder: u128, seconds: u64) -> Result<Option<u64>, CatalogError>;

    /// Ends the lease if `holder` has it.
    async fn release_lease(&self, id: CollectionId, holder: u128) -> Result<(), CatalogError>;
}

/// What a compactor started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishFrom {
    /// The row's generation.
    pub generation: u64,
    /// The row's gc epoch, as read together with it.
    pub gc_epoch: u64,
}

/// A collection as its upkeep sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Upkeep {
    /// Which one.
    pub id: CollectionId,
    /// Its tenant, database and name, for people.
    pub name: String,
    /// The current version.
    pub generation: u64,
    /// That version.
    pub manifest: Manifest,
    /// Length of every vector.
    pub dimension: Option<u32>,
    /// First LSN that may not be deleted.
    pub gc_floor: Lsn,
    /// Counts the passes of garbage collection.
    pub gc_epoch: u64,
    /// Seconds since it was created.
    pub created_age_s: u64,
    /// Seconds since the current version was published; `None` if none was.
    pub published_age_s: Option<u64>,
    /// Seconds since the gc floor was raised; `None` if it never was.
    pub floor_age_s: Option<u64>,
    /// Seconds since it was deleted; `None` if it lives.
    pub deleted_age_s: Option<u64>,
}

/// A published version that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Its number.
    pub generation: u64,
    /// What it said.
    pub manifest: Manifest,
    /// Seconds since it was published.
    pub age_s: u64,
}
