//! The catalog: tenants, databases and collections, in a hosted libSQL database. No user records are ever in it.
//!
//! It knows `model` and speaks to a database; it knows nothing of the log or the store. In reading order: [`Catalog`],
//! [`CatalogError`], what the calls take and return; [`Maintenance`], what compaction needs; [`SqlCatalog`], which
//! keeps both in any [`database`] that runs SQLite's SQL (migrations included only when it turns out to be older than the
//! code); [`HranaCatalog`], the same over HTTP, one round trip a call; [`MemoryCatalog`]; `contract`, the suite all pass.

#![allow(async_fn_in_trait, reason = "isolates have one thread: no future here need be Send")]

use model::{CollectionId, CollectionRow, Configuration, Lsn, Metadata};
use serde_json::Value;

#[cfg(any(test, feature = "test-util"))]
pub mod contract;
pub mod database;
mod hrana;
mod maintenance;
mod memory;
mod migrations;
mod sql;

pub use hrana::{HranaCatalog, HranaConfig, HranaDatabase};
pub use maintenance::{Maintenance, PublishFrom, Upkeep, Version};
pub use memory::MemoryCatalog;
pub use sql::SqlCatalog;

/// The tenant that exists from the start.
pub const DEFAULT_TENANT: &str = "default_tenant";
/// The database that exists in it from the start; its id is the zero UUID.
pub const DEFAULT_DATABASE: &str = "default_database";

/// The system database. Every call is one transaction (a long listing: one for each few hundred rows), over HTTP one round
/// trip; every read is from the primary, never a replica.
///
/// A call answered [`CatalogError::Unavailable`] may still have had its effect, unless it only reads.
pub trait Catalog {
    /// `AlreadyExists` if there is one of this name.
    async fn create_tenant(&self, name: &str) -> Result<(), CatalogError>;
    /// Whether there is a tenant of this name.
    async fn tenant_exists(&self, name: &str) -> Result<bool, CatalogError>;

    /// `id` is the new database's id, 128 random bits. Repeating it with its own id succeeds. `AlreadyExists` if the tenant has one of this name; the tenant
    /// itself need not exist (as in Chroma).
    async fn create_database(&self, tenant: &str, name: &str, id: u128) -> Result<(), CatalogError>;
    /// `NotFound` if there is none.
    async fn get_database(&self, tenant: &str, name: &str) -> Result<DatabaseRow, CatalogError>;
    /// In the order of creation; an unknown tenant has none.
    async fn list_databases(&self, tenant: &str, page: Page) -> Result<Vec<DatabaseRow>, CatalogError>;
    /// Its collections go with it. `NotFound` if there is none.
    async fn delete_database(&self, tenant: &str, name: &str) -> Result<(), CatalogError>;

    /// Creates the collection. Repeating it with its own id succeeds; an id once deleted is `AlreadyExists` for ever. If
    /// there is one of this name: with `get_or_create` returns that one as it is, else
    /// `AlreadyExists`. `NotFound` if there is no such database.
    async fn create_collection(&self, new: NewCollection) -> Result<CollectionRow, CatalogError>;
    /// The living collection of this name; `NotFound` if there is none.
    async fn get_collection(&self, tenant: &str, database: &str, name: &str) -> Result<CollectionRow, CatalogError>;
    /// The living collection with this id, in whatever database; `NotFound` if there is none. This is the call that
    /// re-validates a row: it is never answered from a replica or a cache.
    async fn get_collection_by_id(&self, id: CollectionId) -> Result<CollectionRow, CatalogError>;
    /// In the order of creation; an unknown database has none.
    async fn list_collections(
        &self,
        tenant: &str,
        database: &str,
        page: Page,
    ) -> Result<Vec<CollectionRow>, CatalogError>;
    /// How many `list_collections` would give without a page.
    async fn count_collections(&self, tenant: &str, database: &str) -> Result<u64, CatalogError>;
    /// Changes what `change` names. `NotFound` if there is no such living collection, `AlreadyExists` if another one
    /// in its database has the new name.
    async fn update_collection(&self, id: CollectionId, change: CollectionChange) -> Result<(), CatalogError>;
    /// Frees the name at once; the objects go later. `NotFound` if there is none.
    async fn delete_collection(&self, tenant: &str, database: &str, name: &str) -> Result<(), CatalogError>;

    /// Sets the dimension if it is still unset, and returns the row as it is then (whose dimension another writer may
    /// have set). `NotFound` if there is no such living collection.
    async fn set_dimension(&self, id: CollectionId, dimension: u32) -> Result<CollectionRow, CatalogError>;
    /// Adds to `schema.keys` each entry of `keys` whose name is not there yet, and to an entry that is there the
    /// members it lacks; what is there stays as it is.
    async fn add_schema_keys(&self, id: CollectionId, keys: serde_json::Map<String, Value>)
    -> Result<(), CatalogError>;
    /// Raises the gc floor to `floor` if it is below, and never lowers it. `NotFound` as above.
    async fn raise_gc_floor(&self, id: CollectionId, floor: Lsn) -> Result<(), CatalogError>;

    /// What is known of the executors that differ from the usual, by number. The pool itself is what a gateway is bound to.
    async fn list_executors(&self) -> Result<Vec<ExecutorRow>, CatalogError>;
    /// Adds the row of an executor, or replaces it.
    async fn set_executor(&self, row: ExecutorRow) -> Result<(), CatalogError>;

    /// Removes every tenant, database and collection and makes the default ones anew.
    async fn reset(&self) -> Result<(), CatalogError>;
    /// Reads something trivial: proves that the catalog answers.
    async fn ping(&self) -> Result<(), CatalogError>;
}

/// A database of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRow {
    /// A UUID's 128 bits.
    pub id: u128,
    /// Unique within the tenant.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
}

/// An executor that is not like the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorRow {
    /// Number of its binding: `EXECUTOR_{number}`.
    pub number: u32,
    /// Its share of the collections, in relation to the others': 1 to 10,000, 100 without a row.
    pub weight: u32,
    /// It is to be taken away: it gets no requests that another one can answer.
    pub draining: bool,
}

/// A slice of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most so many; `None` is all of them, 0 is none.
    pub limit: Option<u64>,
    /// After skipping so many.
    pub offset: u64,
}

/// A collection to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCollection {
    /// The new id, from randomness.
    pub id: CollectionId,
    /// Where it goes.
    pub tenant: String,
    /// Where it goes.
    pub database: String,
    /// Unique among the living of its database.
    pub name: String,
    /// Never an empty map.
    pub metadata: Option<Metadata>,
    /// How it compares and indexes.
    pub configuration: Configuration,
    /// Chroma's schema object.
    pub schema: Value,
    /// Return the one of this name if there is one.
    pub get_or_create: bool,
}

/// What to change of a collection; `None` leaves as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CollectionChange {
    /// The new name.
    pub name: Option<String>,
    /// Replaces the whole map; an empty map removes it.
    pub metadata: Option<Metadata>,
    /// Replaces the configuration.
    pub configuration: Option<Configuration>,
    /// Replaces the schema (its copy of the configuration follows it).
    pub schema: Option<Value>,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// What the call names is not there.
    #[error("not found")]
    NotFound,
    /// The name is taken.
    #[error("already exists")]
    AlreadyExists,
    /// No answer within the deadline, or busy for longer than the retries lasted: answer 503.
    #[error("the catalog did not answer: {0}")]
    Unavailable(String),
    /// The catalog refused or answered nonsense (credentials, a newer database than this code): answer 500 and log it.
    #[error("the catalog refused: {0}")]
    Refused(String),
}
