//! The catalog as gateways see it: behind a network, with watermarks that the compactor publishes.

use crate::world::Network;
use catalog::{Catalog, CatalogError, CollectionChange, DatabaseRow, ExecutorRow, MemoryCatalog, NewCollection, Page};
use model::{CollectionId, CollectionRow, LogEnd, Lsn, Manifest};
use runtime::Runtime;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// [`MemoryCatalog`] behind delays, lost requests and lost replies.
#[derive(Clone)]
pub(crate) struct SimulatedCatalog {
    pub(crate) network: Rc<Network>,
    pub(crate) inner: MemoryCatalog,
    /// Up to where logs are folded, by collection.
    pub(crate) compacted: Rc<RefCell<HashMap<CollectionId, LogEnd>>>,
}

impl SimulatedCatalog {
    async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, CatalogError>>,
    ) -> Result<T, CatalogError> {
        let unavailable = |why: &str| Err(CatalogError::Unavailable(why.to_owned()));
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

    fn published(&self, row: CollectionRow) -> CollectionRow {
        let compacted = self.compacted.borrow().get(&row.id).copied().unwrap_or(LogEnd::EMPTY);
        CollectionRow { manifest: Manifest { compacted, ..row.manifest }, ..row }
    }
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty $(, $map:ident)?;)*) => {
        impl Catalog for SimulatedCatalog {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$result, CatalogError> {
                let call = async { self.inner.$name($($argument),*).await$(.map(|row| self.$map(row)))? };
                self.call(stringify!($name), call).await
            })*
        }
    };
}

forward! {
    create_tenant(name: &str) -> ();
    tenant_exists(name: &str) -> bool;
    create_database(tenant: &str, name: &str, id: u128) -> ();
    get_database(tenant: &str, name: &str) -> DatabaseRow;
    list_databases(tenant: &str, page: Page) -> Vec<DatabaseRow>;
    delete_database(tenant: &str, name: &str) -> ();
    create_collection(new: NewCollection) -> CollectionRow, published;
    get_collection(tenant: &str, database: &str, name: &str) -> CollectionRow, published;
    get_collection_by_id(id: CollectionId) -> CollectionRow, published;
    list_collections(tenant: &str, database: &str, page: Page) -> Vec<CollectionRow>;
    count_collections(tenant: &str, database: &str) -> u64;
    update_collection(id: CollectionId, change: CollectionChange) -> ();
    delete_collection(tenant: &str, database: &str, name: &str) -> ();
    set_dimension(id: CollectionId, dimension: u32) -> CollectionRow, published;
    add_schema_keys(id: CollectionId, keys: Map<String, Value>) -> ();
    raise_gc_floor(id: CollectionId, floor: Lsn) -> ();
    list_executors() -> Vec<ExecutorRow>;
    set_executor(row: ExecutorRow) -> ();
    reset() -> ();
    ping() -> ();
}
