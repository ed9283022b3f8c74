//! The catalog in memory: the plainest thing that keeps the contract, for tests and simulation.

mod maintenance;

use crate::{Catalog, CatalogError, CollectionChange, DatabaseRow, ExecutorRow, NewCollection, Page};
use crate::{DEFAULT_DATABASE, DEFAULT_TENANT};
use model::{CollectionId, CollectionRow, Lsn, Manifest, Timestamp};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A catalog that lives as long as its last clone: clones are handles to one and the same.
#[derive(Clone)]
pub struct MemoryCatalog {
    state: Rc<RefCell<State>>,
    clock: Rc<dyn Fn() -> Timestamp>,
}

/// Its clock stands still: nothing gets old.
impl Default for MemoryCatalog {
    fn default() -> Self {
        MemoryCatalog::with_clock(|| Timestamp(0))
    }
}

impl MemoryCatalog {
    /// An empty catalog whose own clock is `clock`.
    pub fn with_clock(clock: impl Fn() -> Timestamp + 'static) -> Self {
        MemoryCatalog { state: Rc::default(), clock: Rc::new(clock) }
    }

    /// Whole seconds by its clock.
    fn now_s(&self) -> u64 {
        (self.clock)().0 / 1_000
    }
}

/// Everything in the order of creation.
struct State {
    tenants: Vec<String>,
    databases: Vec<DatabaseRow>,
    /// Deleted ones included, until they are forgotten: no id is used twice.
    collections: Vec<Collection>,
    /// By number.
    executors: BTreeMap<u32, ExecutorRow>,
}

/// A collection with what its row does not tell; times are in seconds.
struct Collection {
    row: CollectionRow,
    created_at_s: u64,
    published_at_s: Option<u64>,
    floor_raised_at_s: Option<u64>,
    deleted_at_s: Option<u64>,
    versions: Vec<Published>,
    lease: Option<Lease>,
}

/// A version that is kept.
struct Published {
    generation: u64,
    manifest: Manifest,
    at_s: u64,
}

struct Lease {
    holder: u128,
    epoch: u64,
    expires_at_s: u64,
}

impl Default for State {
    fn default() -> Self {
        let (tenant, name) = (DEFAULT_TENANT.to_owned(), DEFAULT_DATABASE.to_owned());
        let databases = vec![DatabaseRow { id: 0, name, tenant: tenant.clone() }];
        State { tenants: vec![tenant], databases, collections: Vec::new(), executors: BTreeMap::new() }
    }
}

impl State {
    fn database(&self, tenant: &str, name: &str) -> Option<&DatabaseRow> {
        self.databases.iter().find(|row| row.tenant == tenant && row.name == name)
    }

    /// The rows of the living.
    fn living(&self) -> impl Iterator<Item = &CollectionRow> {
        self.collections.iter().filter(|collection| collection.deleted_at_s.is_none()).map(|collection| &collection.row)
    }

    fn named(&self, tenant: &str, database: &str, name: &str) -> Option<&CollectionRow> {
        self.living().find(|row| row.name == name && is_in(row, tenant, database))
    }

    /// The collection `id`, deleted or not.
    fn collection_mut(&mut self, id: CollectionId) -> Result<&mut Collection, CatalogError> {
        self.collections.iter_mut().find(|collection| collection.row.id == id).ok_or(CatalogError::NotFound)
    }

    fn living_mut(&mut self, id: CollectionId) -> Result<&mut Collection, CatalogError> {
        let collection = self.collection_mut(id)?;
        if collection.deleted_at_s.is_none() { Ok(collection) } else { Err(CatalogError::NotFound) }
    }

    fn row_mut(&mut self, id: CollectionId) -> Result<&mut CollectionRow, CatalogError> {
        self.living_mut(id).map(|collection| &mut collection.row)
    }

    fn delete_where(&mut self, now_s: u64, goes: impl Fn(&CollectionRow) -> bool) {
        for collection in self.collections.iter_mut().filter(|collection| goes(&collection.row)) {
            collection.deleted_at_s.get_or_insert(now_s);
        }
    }
}

fn is_in(row: &CollectionRow, tenant: &str, database: &str) -> bool {
    row.tenant == tenant && row.database == database
}

/// The slice of `all` that `page` names.
fn cut<T>(all: impl Iterator<Item = T>, page: Page) -> Vec<T> {
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let take = page.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    all.skip(skip).take(take).collect()
}

impl Catalog for MemoryCatalog {
    async fn create_tenant(&self, name: &str) -> Result<(), CatalogError> {
        let tenants = &mut self.state.borrow_mut().tenants;
        if tenants.iter().any(|tenant| tenant == name) {
            return Err(CatalogError::AlreadyExists);
        }
        tenants.push(name.to_owned());
        Ok(())
    }

    async fn tenant_exists(&self, name: &str) -> Result<bool, CatalogError> {
        Ok(self.state.borrow().tenants.iter().any(|tenant| tenant == name))
    }

    async fn create_database(&self, tenant: &str, name: &str, id: u128) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        match state.database(tenant, name) {
            Some(row) if row.id == id => Ok(()),
            Some(_) => Err(CatalogError::AlreadyExists),
            None => {
                state.databases.push(DatabaseRow { id, name: name.to_owned(), tenant: tenant.to_owned() });
                Ok(())
            }
        }
    }

    async fn get_database(&self, tenant: &str, name: &str) -> Result<DatabaseRow, CatalogError> {
        self.state.borrow().database(tenant, name).cloned().ok_or(CatalogError::NotFound)
    }

    async fn list_databases(&self, tenant: &str, page: Page) -> Result<Vec<DatabaseRow>, CatalogError> {
        let state = self.state.borrow();
        Ok(cut(state.databases.iter().filter(|row| row.tenant == tenant).cloned(), page))
    }

    async fn delete_database(&self, tenant: &str, name: &str) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        state.database(tenant, name).ok_or(CatalogError::NotFound)?;
        state.databases.retain(|row| row.tenant != tenant || row.name != name);
        state.delete_where(self.now_s(), |row| is_in(row, tenant, name));
        Ok(())
    }

    async fn create_collection(&self, new: NewCollection) -> Result<CollectionRow, CatalogError> {
        let state = &mut *self.state.borrow_mut();
        state.database(&new.tenant, &new.database).ok_or(CatalogError::NotFound)?;
        if let Some(row) = state.named(&new.tenant, &new.database, &new.name) {
            let wanted = new.get_or_create || row.id == new.id;
            return if wanted { Ok(row.clone()) } else { Err(CatalogError::AlreadyExists) };
        }
        if state.collection_mut(new.id).is_ok() {
            return Err(CatalogError::AlreadyExists);
        }
        let collection = first(new, self.now_s());
        let row = collection.row.clone();
        state.collections.push(collection);
        Ok(row)
    }

    async fn get_collection(&self, tenant: &str, database: &str, name: &str) -> Result<CollectionRow, CatalogError> {
        self.state.borrow().named(tenant, database, name).cloned().ok_or(CatalogError::NotFound)
    }

    async fn get_collection_by_id(&self, id: CollectionId) -> Result<CollectionRow, CatalogError> {
        self.state.borrow_mut().row_mut(id).cloned()
    }

    async fn list_collections(
        &self,
        tenant: &str,
        database: &str,
        page: Page,
    ) -> Result<Vec<CollectionRow>, CatalogError> {
        let state = self.state.borrow();
        Ok(cut(state.living().filter(|row| is_in(row, tenant, database)).cloned(), page))
    }

    async fn count_collections(&self, tenant: &str, database: &str) -> Result<u64, CatalogError> {
        Ok(self.state.borrow().living().filter(|row| is_in(row, tenant, database)).count() as u64)
    }

    async fn update_collection(&self, id: CollectionId, change: CollectionChange) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        let row = state.row_mut(id)?.clone();
        if let Some(name) = &change.name
            && state.named(&row.tenant, &row.database, name).is_some_and(|other| other.id != id)
        {
            return Err(CatalogError::AlreadyExists);
        }
        let row = state.row_mut(id)?;
        if let Some(name) = change.name {
            row.name = name;
        }
        if let Some(metadata) = change.metadata {
            row.metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
        }
        if let Some(configuration) = change.configuration {
            row.configuration = configuration;
        }
        if let Some(schema) = change.schema {
            row.schema = schema;
        }
        Ok(())
    }

    async fn delete_collection(&self, tenant: &str, database: &str, name: &str) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        let id = state.named(tenant, database, name).ok_or(CatalogError::NotFound)?.id;
        state.delete_where(self.now_s(), |row| row.id == id);
        Ok(())
    }

    async fn set_dimension(&self, id: CollectionId, dimension: u32) -> Result<CollectionRow, CatalogError> {
        let state = &mut *self.state.borrow_mut();
        let row = state.row_mut(id)?;
        row.dimension.get_or_insert(dimension);
        Ok(row.clone())
    }

    async fn add_schema_keys(&self, id: CollectionId, keys: Map<String, Value>) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        let row = state.row_mut(id)?;
        let known = row.schema.as_object_mut().map(|schema| schema.entry("keys").or_insert_with(|| Map::new().into()));
        if let Some(Value::Object(known)) = known {
            for (key, entry) in keys {
                add_members(known.entry(key).or_insert_with(|| entry.clone()), entry);
            }
        }
        Ok(())
    }

    async fn raise_gc_floor(&self, id: CollectionId, floor: Lsn) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        let collection = state.living_mut(id)?;
        if floor > collection.row.gc_floor {
            collection.row.gc_floor = floor;
            collection.floor_raised_at_s = Some(self.now_s());
        }
        Ok(())
    }

    async fn reset(&self) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        state.delete_where(self.now_s(), |_| true);
        let State { collections, executors, .. } = std::mem::take(state);
        *state = State { collections, executors, ..State::default() };
        Ok(())
    }

    async fn list_executors(&self) -> Result<Vec<ExecutorRow>, CatalogError> {
        Ok(self.state.borrow().executors.values().copied().collect())
    }

    async fn set_executor(&self, row: ExecutorRow) -> Result<(), CatalogError> {
        self.state.borrow_mut().executors.insert(row.number, row);
        Ok(())
    }

    async fn ping(&self) -> Result<(), CatalogError> {
        Ok(())
    }
}

/// Adds to `known` the members of `entry` that it lacks, if both are objects.
fn add_members(known: &mut Value, entry: Value) {
    if let (Value::Object(known), Value::Object(entry)) = (known, entry) {
        for (name, value) in entry {
            known.entry(name).or_insert(value);
        }
    }
}

/// A collection before its first write.
fn first(new: NewCollection, now_s: u64) -> Collection {
    let row = CollectionRow {
        id: new.id,
        name: new.name,
        tenant: new.tenant,
        database: new.database,
        metadata: new.metadata,
        configuration: new.configuration,
        schema: new.schema,
        dimension: None,
        generation: 0,
        manifest: Manifest::default(),
        gc_floor: Lsn::ZERO,
        gc_epoch: 0,
    };
    Collection {
        row,
        created_at_s: now_s,
        published_at_s: None,
        floor_raised_at_s: None,
        deleted_at_s: None,
        versions: Vec::new(),
        lease: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::{Runtime, SimulatedRuntime};

    #[test]
    fn keeps_the_contract() {
        let world = SimulatedRuntime::new(1);
        let runtime = world.clone();
        world.spawn(async move {
            let clock = runtime.clone();
            let outcomes = crate::contract::run(&MemoryCatalog::with_clock(move || clock.now()), &runtime).await;
            let broken: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
            assert!(broken.is_empty(), "{broken:#?}");
        });
        assert!(world.run(1_000));
    }

    #[tokio::test]
    async fn clones_share_one_catalog() {
        let catalog = MemoryCatalog::default();
        catalog.clone().create_tenant("shared").await.unwrap();
        assert_eq!(catalog.tenant_exists("shared").await, Ok(true));
    }
}
