//! The catalog's one row per collection: the root of everything a reader or writer needs to know about it.

use crate::{CollectionId, Lsn, Manifest, Metadata};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A collection as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectionRow {
    /// Never re-used.
    pub id: CollectionId,
    /// Unique within its database among the living.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
    /// The database's name.
    pub database: String,
    /// The user's metadata; never an empty map.
    pub metadata: Option<Metadata>,
    /// How the collection is indexed and compared.
    pub configuration: Configuration,
    /// Chroma's schema object, as the API returns it.
    pub schema: Value,
    /// Length of every vector; `None` until the first write with a vector.
    pub dimension: Option<u32>,
    /// Number of the index version the row points to.
    pub generation: u64,
    /// That version.
    pub manifest: Manifest,
    /// First LSN that may not be deleted; never above the watermark.
    pub gc_floor: Lsn,
    /// Counts the passes of garbage collection over its objects: a compactor names what it makes with it.
    pub gc_epoch: u64,
}

impl CollectionRow {
    /// First LSN that is not compacted.
    pub fn watermark(&self) -> Lsn {
        self.manifest.watermark()
    }
}

/// How distances are measured; smaller is nearer in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    /// `Σ (aᵢ − bᵢ)²`, without the root.
    #[default]
    L2,
    /// `1 − a·b / (|a| |b|)`; 1 if either is zero.
    Cosine,
    /// `1 − a·b`.
    Ip,
}

/// A collection's index configuration. Members are named as Chroma's `hnsw` configuration names them: clients
/// read them back. `ef_search` steers the search effort; the others that describe a graph are kept, not used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Fixed at creation.
    pub space: Space,
    /// Kept for clients.
    pub ef_construction: u64,
    /// Search effort.
    pub ef_search: u64,
    /// Kept for clients.
    pub max_neighbors: u64,
    /// Kept for clients.
    pub num_threads: u64,
    /// Kept for clients.
    pub resize_factor: f64,
    /// Kept for clients.
    pub sync_threshold: u64,
    /// Kept for clients.
    pub batch_size: u64,
    /// The client's description of its embedding function: stored, never interpreted.
    pub embedding_function: Option<Value>,
}

impl Default for Configuration {
    fn default() -> Self {
        Configuration {
            space: Space::L2,
            ef_construction: 100,
            ef_search: 100,
            max_neighbors: 16,
            num_threads: 1,
            resize_factor: 1.2,
            sync_threshold: 1000,
            batch_size: 100,
            embedding_function: None,
        }
    }
}
