//! The catalog as everybody sees it: behind a network.

use crate::ledger::Ledger;
use crate::world::Network;
use catalog::{
    Catalog, CatalogError, CollectionChange, DatabaseRow, ExecutorRow, Maintenance, MemoryCatalog, NewCollection, Page,
    PublishFrom, Upkeep, Version,
};
use model::{CollectionId, CollectionRow, Lsn, Manifest};
use runtime::{Runtime, SimulatedRuntime};
use serde_json::{Map, Value};
use std::ops::Deref;
use std::rc::Rc;

/// [`MemoryCatalog`] behind delays, lost requests and lost replies.
#[derive(Clone)]
pub(crate) struct SimulatedCatalog {
    pub(crate) network: Rc<Network>,
    pub(crate) inner: Recorded,
    /// Whether a compactor or a collector asks.
    pub(crate) of_keeper: bool,
}

/// [`MemoryCatalog`], of which the ledger learns what it says of logs and segments.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(crate) inner: MemoryCatalog,
    pub(crate) ledger: Rc<Ledger>,
    pub(crate) clock: SimulatedRuntime,
}

/// All but the calls that are recorded.
impl Deref for Recorded {
    type Target = MemoryCatalog;

    fn deref(&self) -> &MemoryCatalog {
        &self.inner
    }
}

impl Recorded {
    async fn publish(&self, id: CollectionId, from: PublishFrom, manifest: &Manifest) -> Result<bool, CatalogError> {
        let done = self.inner.publish(id, from, manifest).await;
        if done == Ok(true) {
            self.ledger.published(id, manifest);
        }
        done
    }

    async fn raise_gc_floor(&self, id: CollectionId, floor: Lsn) -> Result<(), CatalogError> {
        let done = self.inner.raise_gc_floor(id, floor).await;
        self.ledger.raised(id, self.clock.now(), floor);
        done
    }
}

impl SimulatedCatalog {
    async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, CatalogError>>,
    ) -> Result<T, CatalogError> {
        let unavailable = |why: &str| Err(CatalogError::Unavailable(why.to_owned()));
        if self.of_keeper {
            // Between what was seen and what is done about it, it matters most.
            let weight = if matches!(what, "publish" | "raise_gc_epoch") { 4 } else { 1 };
            self.network.suspend(&self.network.runtime, weight).await;
        }
        let fate = self.network.catalog_fate(what);
        if fate.there_ms > 0 {
            self.network.runtime.sleep(fate.there_ms).await;
        }
        if fate.request_lost {
            return unavailable("injected: the request was lost");
        }
        let reply = call.await;
        self.network.runtime.sleep(fate.back_ms).await;
        if fate.reply_lost { unavailable("injected: the reply was lost") } else { reply }
    }
}

macro_rules! forward {
    ($port:ident: $($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        impl $port for SimulatedCatalog {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$result, CatalogError> {
                self.call(stringify!($name), self.inner.$name($($argument),*)).await
            })*
        }
    };
}

forward! {
    Catalog:
    create_tenant(name: &str) -> ();
    tenant_exists(name: &str) -> bool;
    create_database(tenant: &str, name: &str, id: u128) -> ();
    get_database(tenant: &str, name: &str) -> DatabaseRow;
    list_databases(tenant: &str, page: Page) -> Vec<DatabaseRow>;
    delete_database(tenant: &str, name: &str) -> ();
    create_collection(new: NewCollection) -> CollectionRow;
    get_collection(tenant: &str, database: &str, name: &str) -> CollectionRow;
    get_collection_by_id(id: CollectionId) -> CollectionRow;
    list_collections(tenant: &str, database: &str, page: Page) -> Vec<CollectionRow>;
    count_collections(tenant: &str, database: &str) -> u64;
    update_collection(id: CollectionId, change: CollectionChange) -> ();
    delete_collection(tenant: &str, database: &str, name: &str) -> ();
    set_dimension(id: CollectionId, dimension: u32) -> CollectionRow;
    add_schema_keys(id: CollectionId, keys: Map<String, Value>) -> ();
    raise_gc_floor(id: CollectionId, floor: Lsn) -> ();
    list_executors() -> Vec<ExecutorRow>;
    set_executor(row: ExecutorRow) -> ();
    reset() -> ();
    ping() -> ();
}

forward! {
    Maintenance:
    publish(id: CollectionId, from: PublishFrom, manifest: &Manifest) -> bool;
    upkeep(id: CollectionId) -> Upkeep;
    list_upkeep() -> Vec<Upkeep>;
    raise_gc_epoch(id: CollectionId) -> u64;
    list_versions(id: CollectionId) -> Vec<Version>;
    forget_versions(id: CollectionId, generation: u64) -> ();
    forget_collection(id: CollectionId) -> ();
    acquire_lease(id: CollectionId, holder: u128, seconds: u64) -> Option<u64>;
    release_lease(id: CollectionId, holder: u128) -> ();
}
