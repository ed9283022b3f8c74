//! The catalog in memory: the plainest thing that keeps the contract, for tests and simulation.

use crate::{Catalog, CatalogError, CollectionChange, DatabaseRow, ExecutorRow, NewCollection, Page};
use crate::{DEFAULT_DATABASE, DEFAULT_TENANT};
use model::{CollectionId, CollectionRow, Lsn, Manifest};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A catalog that lives as long as its last clone: clones are handles to one and the same.
#[derive(Clone, Debug, Default)]
pub struct MemoryCatalog {
    state: Rc<RefCell<State>>,
}

/// Everything in the order of creation.
#[derive(Debug)]
struct State {
    tenants: Vec<String>,
    databases: Vec<DatabaseRow>,
    living: Vec<CollectionRow>,
    /// Ids of deleted collections: none is used twice.
    deleted: Vec<CollectionId>,
    /// By number.
    executors: BTreeMap<u32, ExecutorRow>,
}

impl Default for State {
    fn default() -> Self {
        let (tenant, name) = (DEFAULT_TENANT.to_owned(), DEFAULT_DATABASE.to_owned());
        let databases = vec![DatabaseRow { id: 0, name, tenant: tenant.clone() }];
        State { tenants: vec![tenant], databases, living: Vec::new(), deleted: Vec::new(), executors: BTreeMap::new() }
    }
}

impl State {
    fn database(&self, tenant: &str, name: &str) -> Option<&DatabaseRow> {
        self.databases.iter().find(|row| row.tenant == tenant && row.name == name)
    }

    fn named(&self, tenant: &str, database: &str, name: &str) -> Option<&CollectionRow> {
        self.living.iter().find(|row| row.name == name && is_in(row, tenant, database))
    }

    fn row_mut(&mut self, id: CollectionId) -> Result<&mut CollectionRow, CatalogError> {
        self.living.iter_mut().find(|row| row.id == id).ok_or(CatalogError::NotFound)
    }

    fn delete_where(&mut self, goes: impl Fn(&CollectionRow) -> bool) {
        let (gone, living) = std::mem::take(&mut self.living).into_iter().partition(|row| goes(row));
        self.living = living;
        self.deleted.extend(gone.iter().map(|row: &CollectionRow| row.id));
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
        state.delete_where(|row| is_in(row, tenant, name));
        Ok(())
    }

    async fn create_collection(&self, new: NewCollection) -> Result<CollectionRow, CatalogError> {
        let state = &mut *self.state.borrow_mut();
        state.database(&new.tenant, &new.database).ok_or(CatalogError::NotFound)?;
        if let Some(row) = state.named(&new.tenant, &new.database, &new.name) {
            let wanted = new.get_or_create || row.id == new.id;
            return if wanted { Ok(row.clone()) } else { Err(CatalogError::AlreadyExists) };
        }
        if state.deleted.contains(&new.id) || state.living.iter().any(|row| row.id == new.id) {
            return Err(CatalogError::AlreadyExists);
        }
        let row = first_row(new);
        state.living.push(row.clone());
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
        Ok(cut(state.living.iter().filter(|row| is_in(row, tenant, database)).cloned(), page))
    }

    async fn count_collections(&self, tenant: &str, database: &str) -> Result<u64, CatalogError> {
        Ok(self.state.borrow().living.iter().filter(|row| is_in(row, tenant, database)).count() as u64)
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
        state.delete_where(|row| row.id == id);
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
        let row = state.row_mut(id)?;
        row.gc_floor = row.gc_floor.max(floor);
        Ok(())
    }

    async fn reset(&self) -> Result<(), CatalogError> {
        let state = &mut *self.state.borrow_mut();
        state.delete_where(|_| true);
        let State { deleted, executors, .. } = std::mem::take(state);
        *state = State { deleted, executors, ..State::default() };
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

/// A collection's row before its first write.
fn first_row(new: NewCollection) -> CollectionRow {
    CollectionRow {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::NativeRuntime;

    #[tokio::test]
    async fn keeps_the_contract() {
        let outcomes = crate::contract::run(&MemoryCatalog::default(), &NativeRuntime::new()).await;
        let broken: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[tokio::test]
    async fn clones_share_one_catalog() {
        let catalog = MemoryCatalog::default();
        catalog.clone().create_tenant("shared").await.unwrap();
        assert_eq!(catalog.tenant_exists("shared").await, Ok(true));
    }
}
