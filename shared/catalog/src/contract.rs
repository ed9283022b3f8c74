//! What every catalog promises, as a suite that all adapters pass.
//!
//! Each promise is kept in a tenant and database of its own with random names, so that it holds on a database with
//! content, and two suites may run on one database at once. Only the last one, `reset`, touches what others made.

mod maintenance;

use crate::{Catalog, CatalogError, CollectionChange, ExecutorRow, Maintenance, NewCollection, Page};
use crate::{DEFAULT_DATABASE, DEFAULT_TENANT};
use futures_util::future::join_all;
use model::{CollectionId, CollectionRow, Configuration, Lsn, Manifest, Metadata, Space};
use runtime::Runtime;
use serde_json::{Map, Value, json};
use std::fmt::{Debug, Display};
use std::panic::Location;

/// Writers in a race.
const RIVALS: u32 = 12;

/// Runs all promises, `reset` included: everything in the catalog is gone afterwards.
///
/// Returns each promise's name and, if it was broken, how.
pub async fn run(
    catalog: &(impl Catalog + Maintenance),
    runtime: &impl Runtime,
) -> Vec<(&'static str, Result<(), String>)> {
    let mut outcomes = run_beside_others(catalog, runtime).await;
    let scope = Scope::new(catalog, runtime);
    outcomes.push(("reset_leaves_the_defaults_only", reset_leaves_the_defaults_only(&scope).await.map_err(|b| b.0)));
    outcomes
}

/// Runs the promises that leave what others made alone.
pub async fn run_beside_others(
    catalog: &(impl Catalog + Maintenance),
    runtime: &impl Runtime,
) -> Vec<(&'static str, Result<(), String>)> {
    use maintenance::*;
    let mut outcomes = Vec::new();
    macro_rules! keep {
        ($($promise:ident)*) => {$(
            let scope = Scope::new(catalog, runtime);
            let outcome = match catalog.create_database(&scope.tenant, &scope.database, runtime.random()).await {
                Ok(()) => $promise(&scope).await.map_err(|broken| broken.0),
                Err(error) => Err(format!("no database to try it in: {error}")),
            };
            outcomes.push((stringify!($promise), outcome));
        )*};
    }
    keep! {
        it_answers
        a_tenant_is_made_once
        a_database_is_made_once
        a_database_needs_no_tenant
        databases_are_listed_in_the_order_of_creation
        a_collection_is_returned_as_it_was_made
        a_collection_is_made_once
        a_collection_needs_its_database
        a_repeated_creation_is_the_same_creation
        an_id_is_never_used_twice
        collections_are_listed_in_the_order_of_creation
        pages_cut_the_listing
        nothing_is_found_in_an_unknown_place
        databases_do_not_share_names
        of_racing_creations_one_wins
        racing_get_or_creations_all_get_the_same
        racing_database_creations_one_wins
        an_update_changes_only_what_it_names
        an_empty_metadata_map_removes_it
        a_rename_onto_a_taken_name_is_refused
        racing_renames_onto_one_name_one_wins
        a_deleted_collection_is_gone_and_its_name_free
        a_deleted_database_takes_its_collections_along
        nothing_is_deleted_twice
        the_dimension_is_set_once
        racing_dimensions_are_one
        schema_keys_and_their_members_are_added_and_never_changed
        racing_schema_keys_are_all_kept
        the_gc_floor_only_rises
        what_is_gone_cannot_be_changed
        names_may_hold_anything
        metadata_keeps_every_type
        json_comes_back_as_it_was
        executors_are_listed_by_number_as_they_were_last_set
        publishing_makes_the_next_generation
        of_racing_publishers_one_wins_each_generation
        who_was_passed_by_twice_does_not_publish
        nothing_is_published_to_what_is_gone
        a_version_is_kept_for_each_publication_until_it_is_forgotten
        publishing_and_other_changes_leave_each_other_alone
        racing_publications_and_other_changes_are_all_kept
        the_gc_epoch_counts_up_deleted_or_not
        upkeep_knows_the_collection_as_its_row_does
        upkeep_lists_the_deleted_too_in_the_order_of_creation
        ages_are_those_of_the_last_event_and_never_shrink
        only_a_real_raise_makes_the_floor_young
        only_a_deleted_collection_is_forgotten
        a_lease_has_one_holder
        of_rivals_for_a_lease_one_gets_it
        a_lease_ends_by_itself
        there_is_no_lease_of_the_unknown
    }
    outcomes
}

/// A broken promise: where, and what was seen.
struct Broken(String);

impl<E: Display> From<E> for Broken {
    #[track_caller]
    fn from(error: E) -> Self {
        Broken(format!("line {}: {error}", Location::caller().line()))
    }
}

type Kept = Result<(), Broken>;

#[track_caller]
fn same<T: PartialEq + Debug>(got: T, expected: T) -> Kept {
    if got == expected { Ok(()) } else { Err(Broken::from(format!("got {got:?}, expected {expected:?}"))) }
}

/// A tenant and a database that nobody else has.
struct Scope<'a, C, R> {
    catalog: &'a C,
    runtime: &'a R,
    tenant: String,
    database: String,
}

impl<'a, C: Catalog, R: Runtime> Scope<'a, C, R> {
    fn new(catalog: &'a C, runtime: &'a R) -> Self {
        let name = |kind: &str| format!("contract-{kind}-{:032x}", runtime.random());
        Scope { catalog, runtime, tenant: name("tenant"), database: name("database") }
    }

    /// A new collection `name` in the database.
    fn new_collection(&self, name: &str) -> NewCollection {
        NewCollection {
            id: CollectionId::from_random(self.runtime.random()),
            tenant: self.tenant.clone(),
            database: self.database.clone(),
            name: name.to_owned(),
            metadata: None,
            configuration: Configuration::default(),
            schema: json!({"defaults": {}, "keys": {}}),
            get_or_create: false,
        }
    }

    async fn create(&self, name: &str) -> Result<CollectionRow, CatalogError> {
        self.catalog.create_collection(self.new_collection(name)).await
    }

    async fn get(&self, name: &str) -> Result<CollectionRow, CatalogError> {
        self.catalog.get_collection(&self.tenant, &self.database, name).await
    }

    async fn delete(&self, name: &str) -> Result<(), CatalogError> {
        self.catalog.delete_collection(&self.tenant, &self.database, name).await
    }

    /// The names that `page` lists.
    async fn names(&self, page: Page) -> Result<Vec<String>, CatalogError> {
        let rows = self.catalog.list_collections(&self.tenant, &self.database, page).await?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }
}

fn page(limit: impl Into<Option<u64>>, offset: u64) -> Page {
    Page { limit: limit.into(), offset }
}

fn rename(name: &str) -> CollectionChange {
    CollectionChange { name: Some(name.to_owned()), ..CollectionChange::default() }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// How many of `outcomes` are successes; every other must be `AlreadyExists`.
fn winners<T>(outcomes: Vec<Result<T, CatalogError>>) -> Result<Vec<T>, Broken> {
    let mut winners = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(winner) => winners.push(winner),
            Err(CatalogError::AlreadyExists) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(winners)
}

async fn it_answers<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    Ok(scope.catalog.ping().await?)
}

async fn a_tenant_is_made_once<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, tenant) = (scope.catalog, &scope.tenant);
    same(catalog.tenant_exists(tenant).await, Ok(false))?;
    catalog.create_tenant(tenant).await?;
    same(catalog.tenant_exists(tenant).await, Ok(true))?;
    same(catalog.create_tenant(tenant).await, Err(CatalogError::AlreadyExists))
}

async fn a_database_is_made_once<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, tenant, id) = (scope.catalog, &scope.tenant, scope.runtime.random());
    same(catalog.get_database(tenant, "db").await, Err(CatalogError::NotFound))?;
    catalog.create_database(tenant, "db", id).await?;
    same(catalog.create_database(tenant, "db", id ^ 1).await, Err(CatalogError::AlreadyExists))?;
    let row = catalog.get_database(tenant, "db").await?;
    same((row.id, row.name.as_str(), &row.tenant), (id, "db", tenant))
}

async fn a_database_needs_no_tenant<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    // The suite made the database; nobody made its tenant.
    same(scope.catalog.tenant_exists(&scope.tenant).await, Ok(false))?;
    scope.catalog.get_database(&scope.tenant, &scope.database).await?;
    scope.create("c").await?;
    Ok(())
}

async fn databases_are_listed_in_the_order_of_creation<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, tenant) = (scope.catalog, &scope.tenant);
    for name in ["zz", "aa", "mm"] {
        catalog.create_database(tenant, name, scope.runtime.random()).await?;
    }
    let names = async |page| -> Result<Vec<String>, CatalogError> {
        Ok(catalog.list_databases(tenant, page).await?.into_iter().map(|row| row.name).collect())
    };
    let first = scope.database.as_str();
    same(names(Page::default()).await?, [first, "zz", "aa", "mm"].map(str::to_owned).to_vec())?;
    same(names(page(2, 1)).await?, ["zz", "aa"].map(str::to_owned).to_vec())?;
    same(names(page(0, 0)).await?, vec![])?;
    same(names(page(None, 9)).await?, vec![])?;
    catalog.delete_database(tenant, "zz").await?;
    catalog.create_database(tenant, "zz", scope.runtime.random()).await?;
    same(names(Page::default()).await?, [first, "aa", "mm", "zz"].map(str::to_owned).to_vec())
}

async fn a_collection_is_returned_as_it_was_made<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let new = NewCollection {
        metadata: serde_json::from_str(r#"{"topic":"birds"}"#)?,
        configuration: Configuration { space: Space::Cosine, ef_search: 7, ..Configuration::default() },
        schema: json!({"keys": {"#document": {"string": {}}}, "defaults": {"bool": {}}}),
        ..scope.new_collection("c")
    };
    let row = scope.catalog.create_collection(new.clone()).await?;
    let expected = CollectionRow {
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
    same(&row, &expected)?;
    same(scope.get("c").await?, row.clone())?;
    same(scope.catalog.get_collection_by_id(new.id).await?, row.clone())?;
    same(scope.catalog.list_collections(&scope.tenant, &scope.database, Page::default()).await?, vec![row])
}

async fn a_collection_is_made_once<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let first = scope.create("c").await?;
    same(scope.create("c").await, Err(CatalogError::AlreadyExists))?;
    let again = NewCollection {
        get_or_create: true,
        metadata: serde_json::from_str(r#"{"ignored":true}"#)?,
        ..scope.new_collection("c")
    };
    same(scope.catalog.create_collection(again).await?, first.clone())?;
    same(scope.get("c").await?, first)?;
    let other = NewCollection { get_or_create: true, ..scope.new_collection("other") };
    same(scope.catalog.create_collection(other.clone()).await?.id, other.id)?;
    same(scope.catalog.count_collections(&scope.tenant, &scope.database).await?, 2)
}

async fn a_collection_needs_its_database<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    for get_or_create in [false, true] {
        let new = NewCollection { database: "nowhere".to_owned(), get_or_create, ..scope.new_collection("c") };
        same(scope.catalog.create_collection(new.clone()).await, Err(CatalogError::NotFound))?;
        same(scope.catalog.get_collection_by_id(new.id).await, Err(CatalogError::NotFound))?;
    }
    Ok(())
}

async fn a_repeated_creation_is_the_same_creation<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, tenant, id) = (scope.catalog, &scope.tenant, scope.runtime.random());
    catalog.create_database(tenant, "twice", id).await?;
    catalog.create_database(tenant, "twice", id).await?;
    let new = scope.new_collection("twice");
    let row = catalog.create_collection(new.clone()).await?;
    same(catalog.create_collection(new).await?, row)?;
    same(catalog.count_collections(tenant, &scope.database).await?, 1)
}

async fn an_id_is_never_used_twice<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let new = scope.new_collection("c");
    scope.catalog.create_collection(new.clone()).await?;
    scope.delete("c").await?;
    for name in ["c", "other"] {
        let again = NewCollection { name: name.to_owned(), ..new.clone() };
        same(scope.catalog.create_collection(again).await, Err(CatalogError::AlreadyExists))?;
    }
    same(scope.catalog.get_collection_by_id(new.id).await, Err(CatalogError::NotFound))
}

async fn collections_are_listed_in_the_order_of_creation<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    for name in ["z", "a", "m", "B"] {
        scope.create(name).await?;
    }
    same(scope.names(Page::default()).await?, ["z", "a", "m", "B"].map(str::to_owned).to_vec())?;
    // Neither a new name nor new content moves a collection; a new collection goes last.
    scope.catalog.update_collection(scope.get("z").await?.id, rename("y")).await?;
    scope.delete("a").await?;
    scope.create("a").await?;
    same(scope.names(Page::default()).await?, ["y", "m", "B", "a"].map(str::to_owned).to_vec())
}

async fn pages_cut_the_listing<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let names: Vec<String> = (0..5).map(|number| format!("c{number}")).collect();
    for name in &names {
        scope.create(name).await?;
    }
    for (cut, expected) in [
        (page(None, 0), 0..5),
        (page(2, 0), 0..2),
        (page(2, 4), 4..5),
        (page(None, 3), 3..5),
        (page(0, 0), 0..0),
        (page(3, 5), 0..0),
        (page(u64::MAX, 1), 1..5),
        (page(1, u64::MAX), 0..0),
    ] {
        same(scope.names(cut).await?, names[expected].to_vec())?;
    }
    same(scope.catalog.count_collections(&scope.tenant, &scope.database).await?, 5)
}

async fn nothing_is_found_in_an_unknown_place<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, tenant) = (scope.catalog, &scope.tenant);
    let nowhere = format!("{tenant}-nowhere");
    same(catalog.list_databases(&nowhere, Page::default()).await?, vec![])?;
    same(catalog.list_collections(tenant, "nowhere", Page::default()).await?, vec![])?;
    same(catalog.count_collections(tenant, "nowhere").await?, 0)?;
    same(catalog.get_collection(tenant, "nowhere", "c").await, Err(CatalogError::NotFound))?;
    same(catalog.get_collection(&nowhere, &scope.database, "c").await, Err(CatalogError::NotFound))
}

async fn databases_do_not_share_names<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, tenant) = (scope.catalog, &scope.tenant);
    catalog.create_database(tenant, "second", scope.runtime.random()).await?;
    let here = scope.create("c").await?;
    let elsewhere = NewCollection { database: "second".to_owned(), ..scope.new_collection("c") };
    let there = catalog.create_collection(elsewhere).await?;
    same(scope.get("c").await?, here)?;
    same(catalog.get_collection(tenant, "second", "c").await?, there.clone())?;
    scope.delete("c").await?;
    same(catalog.get_collection(tenant, "second", "c").await?, there)
}

async fn of_racing_creations_one_wins<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let won = winners(join_all((0..RIVALS).map(|_| scope.create("c"))).await)?;
    same(won.len(), 1)?;
    same(vec![scope.get("c").await?], won)?;
    same(scope.catalog.count_collections(&scope.tenant, &scope.database).await?, 1)
}

async fn racing_get_or_creations_all_get_the_same<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let created = join_all((0..RIVALS).map(|_| {
        let new = NewCollection { get_or_create: true, ..scope.new_collection("c") };
        scope.catalog.create_collection(new)
    }));
    let expected = created.await;
    let row = scope.get("c").await?;
    same(expected, vec![Ok(row); RIVALS as usize])
}

async fn racing_database_creations_one_wins<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let ids: Vec<u128> = (0..RIVALS).map(|_| scope.runtime.random()).collect();
    let create = async |id| scope.catalog.create_database(&scope.tenant, "db", id).await.map(|()| id);
    let won = winners(join_all(ids.into_iter().map(create)).await)?;
    same(vec![scope.catalog.get_database(&scope.tenant, "db").await?.id], won)
}

async fn an_update_changes_only_what_it_names<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let metadata: Option<Metadata> = serde_json::from_str(r#"{"a":1,"b":2}"#)?;
    let new = NewCollection { metadata, ..scope.new_collection("c") };
    let mut row = scope.catalog.create_collection(new).await?;
    let update = async |change| scope.catalog.update_collection(row.id, change).await;

    update(CollectionChange::default()).await?;
    same(scope.get("c").await?, row.clone())?;
    update(rename("d")).await?;
    row.name = "d".to_owned();
    same(scope.get("d").await?, row.clone())?;
    same(scope.get("c").await, Err(CatalogError::NotFound))?;

    row.metadata = serde_json::from_str(r#"{"b":3.0}"#)?;
    update(CollectionChange { metadata: row.metadata.clone(), ..CollectionChange::default() }).await?;
    same(scope.get("d").await?, row.clone())?;

    row.configuration.ef_search = 1234;
    row.schema = json!({"keys": {"k": {"x": null}}, "defaults": null});
    let configuration = Some(row.configuration.clone());
    let schema = Some(row.schema.clone());
    update(CollectionChange { configuration, schema, ..CollectionChange::default() }).await?;
    same(scope.get("d").await?, row)
}

async fn an_empty_metadata_map_removes_it<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let metadata: Option<Metadata> = serde_json::from_str(r#"{"a":1}"#)?;
    let new = NewCollection { metadata, ..scope.new_collection("c") };
    let row = scope.catalog.create_collection(new).await?;
    let change = CollectionChange { metadata: Some(Metadata::new()), ..CollectionChange::default() };
    scope.catalog.update_collection(row.id, change).await?;
    same(scope.get("c").await?.metadata, None)
}

async fn a_rename_onto_a_taken_name_is_refused<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (a, b) = (scope.create("a").await?, scope.create("b").await?);
    let change = CollectionChange { metadata: serde_json::from_str(r#"{"x":1}"#)?, ..rename("b") };
    same(scope.catalog.update_collection(a.id, change).await, Err(CatalogError::AlreadyExists))?;
    same(scope.get("a").await?, a.clone())?;
    // Its own name is not taken, nor is that of a deleted one.
    scope.catalog.update_collection(a.id, rename("a")).await?;
    scope.delete("b").await?;
    scope.catalog.update_collection(a.id, rename("b")).await?;
    same(scope.get("b").await?.id, a.id)?;
    same(scope.catalog.get_collection_by_id(b.id).await, Err(CatalogError::NotFound))
}

async fn racing_renames_onto_one_name_one_wins<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(scope.create(&format!("c{number}")).await?.id);
    }
    let take = async |id| scope.catalog.update_collection(id, rename("prize")).await.map(|()| id);
    let won = winners(join_all(ids.into_iter().map(take)).await)?;
    same(vec![scope.get("prize").await?.id], won)?;
    same(scope.catalog.count_collections(&scope.tenant, &scope.database).await?, 4)
}

async fn a_deleted_collection_is_gone_and_its_name_free<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let old = scope.create("c").await?;
    scope.catalog.set_dimension(old.id, 3).await?;
    scope.delete("c").await?;
    same(scope.get("c").await, Err(CatalogError::NotFound))?;
    same(scope.catalog.get_collection_by_id(old.id).await, Err(CatalogError::NotFound))?;
    same(scope.names(Page::default()).await?, vec![])?;
    same(scope.catalog.count_collections(&scope.tenant, &scope.database).await?, 0)?;

    let new = NewCollection { get_or_create: true, ..scope.new_collection("c") };
    let row = scope.catalog.create_collection(new.clone()).await?;
    same((row.id, row.dimension), (new.id, None))?;
    same(scope.get("c").await?.id, new.id)?;
    same(scope.catalog.get_collection_by_id(old.id).await, Err(CatalogError::NotFound))
}

async fn a_deleted_database_takes_its_collections_along<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, tenant, database) = (scope.catalog, &scope.tenant, &scope.database);
    catalog.create_database(tenant, "bystander", scope.runtime.random()).await?;
    let elsewhere = NewCollection { database: "bystander".to_owned(), ..scope.new_collection("a") };
    let bystander = catalog.create_collection(elsewhere).await?;
    let (a, b) = (scope.create("a").await?, scope.create("b").await?);

    catalog.delete_database(tenant, database).await?;
    same(catalog.get_database(tenant, database).await, Err(CatalogError::NotFound))?;
    same(scope.create("late").await, Err(CatalogError::NotFound))?;
    for made_anew in [false, true] {
        if made_anew {
            catalog.create_database(tenant, database, scope.runtime.random()).await?;
        }
        for row in [&a, &b] {
            same(catalog.get_collection_by_id(row.id).await, Err(CatalogError::NotFound))?;
            same(scope.get(&row.name).await, Err(CatalogError::NotFound))?;
        }
        same(scope.names(Page::default()).await?, vec![])?;
        same(catalog.count_collections(tenant, database).await?, 0)?;
    }
    scope.create("a").await?;
    same(catalog.get_collection_by_id(bystander.id).await?, bystander)
}

async fn nothing_is_deleted_twice<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    same(scope.delete("c").await, Err(CatalogError::NotFound))?;
    scope.create("c").await?;
    scope.delete("c").await?;
    same(scope.delete("c").await, Err(CatalogError::NotFound))?;
    scope.catalog.delete_database(&scope.tenant, &scope.database).await?;
    same(scope.catalog.delete_database(&scope.tenant, &scope.database).await, Err(CatalogError::NotFound))
}

async fn the_dimension_is_set_once<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let row = scope.create("c").await?;
    let set = CollectionRow { dimension: Some(384), ..row.clone() };
    same(scope.catalog.set_dimension(row.id, 384).await?, set.clone())?;
    same(scope.catalog.set_dimension(row.id, 2).await?, set.clone())?;
    same(scope.get("c").await?, set)
}

async fn racing_dimensions_are_one<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let id = scope.create("c").await?.id;
    let rows = join_all((1..=RIVALS).map(|dimension| scope.catalog.set_dimension(id, dimension))).await;
    let settled = scope.get("c").await?;
    same(settled.dimension.is_some_and(|dimension| (1..=RIVALS).contains(&dimension)), true)?;
    same(rows, vec![Ok(settled); RIVALS as usize])
}

/// Names that a path language, a quoting rule or a C string would stumble over.
const HOSTILE: [&str; 14] = [
    "it's",
    "\"quoted\"",
    "a.b[0].$.c",
    "$.keys.\"x\"",
    "back\\slash\\",
    "line\nbreak\ttab",
    "nul\0inside",
    "nul\0outside",
    "",
    "größe 雪 \u{1F98A}\u{200D}\u{10FFFF}",
    "?1 :name %_*",
    "'; DROP TABLE collections; --",
    "#document",
    "null",
];

/// An entry whose members are named so.
fn hostile_members() -> Map<String, Value> {
    HOSTILE.iter().map(|name| ((*name).to_owned(), json!([null, name]))).collect()
}

async fn schema_keys_and_their_members_are_added_and_never_changed<C: Catalog, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let there = json!({"a": {"x": 1.0, "none": null}, "b.c": [1, null, {"y": 2.50}], "text": "t", "no": null});
    let schema = json!({"defaults": {"float": 1.0, "none": null}, "keys": there});
    let row = scope.catalog.create_collection(NewCollection { schema, ..scope.new_collection("c") }).await?;

    scope.catalog.add_schema_keys(row.id, Map::new()).await?;
    same(scope.get("c").await?, row.clone())?;

    let mut additions = object(json!({"a": {"x": 2, "more": 1}, "b.c": {}, "text": 1, "no": 1}));
    let mut expected = row.schema.clone();
    expected["keys"]["a"]["more"] = json!(1);
    for (number, key) in HOSTILE.iter().enumerate() {
        let entry =
            json!({"n": number, "f": 1.0, "tiny": 1e-7, "huge": 1.7976931348623157e308, "none": null, "s": key});
        additions.insert((*key).to_owned(), entry.clone());
        expected["keys"][*key] = entry;
    }
    scope.catalog.add_schema_keys(row.id, additions).await?;
    let read = scope.get("c").await?;
    same(&read.schema, &expected)?;
    same(read.schema.to_string(), expected.to_string())?;

    let again = |changed: Value| HOSTILE.iter().map(|key| ((*key).to_owned(), changed.clone())).collect();
    for changed in [json!("changed"), json!({"n": "changed", "none": 1}), json!({})] {
        scope.catalog.add_schema_keys(row.id, again(changed)).await?;
        same(&scope.get("c").await?, &CollectionRow { schema: expected.clone(), ..row.clone() })?;
    }
    scope.catalog.add_schema_keys(row.id, object(json!({"#document": hostile_members()}))).await?;
    for (name, value) in hostile_members() {
        if expected["keys"]["#document"].get(&name).is_none() {
            expected["keys"]["#document"][&name] = value;
        }
    }
    same(scope.get("c").await?.schema, expected)?;

    let bare =
        scope.catalog.create_collection(NewCollection { schema: json!({}), ..scope.new_collection("bare") }).await?;
    same(&bare.schema, &json!({}))?;
    scope.catalog.add_schema_keys(bare.id, object(json!({"k": {}}))).await?;
    same(scope.get("bare").await?.schema, json!({"keys": {"k": {}}}))
}

async fn racing_schema_keys_are_all_kept<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let id = scope.create("c").await?.id;
    let add =
        |number| scope.catalog.add_schema_keys(id, object(json!({format!("own{number}"): number, "shared": number})));
    for outcome in join_all((0..RIVALS).map(add)).await {
        outcome?;
    }
    let mut keys = object(scope.get("c").await?.schema["keys"].clone());
    let shared = keys.remove("shared").and_then(|number| number.as_u64());
    same(shared.is_some_and(|number| number < u64::from(RIVALS)), true)?;
    let expected: Map<String, Value> = (0..RIVALS).map(|number| (format!("own{number}"), number.into())).collect();
    same(keys, expected)
}

async fn the_gc_floor_only_rises<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let row = scope.create("c").await?;
    for (raise, expected) in [(7, 7), (3, 7), (7, 7), (0, 7), (1 << 43, 1 << 43), (8, 1 << 43)] {
        scope.catalog.raise_gc_floor(row.id, Lsn(raise)).await?;
        same(scope.get("c").await?, CollectionRow { gc_floor: Lsn(expected), ..row.clone() })?;
    }
    let other = scope.create("d").await?;
    join_all((1..=u64::from(RIVALS)).rev().map(|floor| scope.catalog.raise_gc_floor(other.id, Lsn(floor)))).await;
    same(scope.get("d").await?.gc_floor, Lsn(RIVALS.into()))
}

async fn what_is_gone_cannot_be_changed<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let catalog = scope.catalog;
    let deleted = scope.create("c").await?.id;
    scope.delete("c").await?;
    for id in [deleted, CollectionId::from_random(scope.runtime.random())] {
        same(catalog.update_collection(id, CollectionChange::default()).await, Err(CatalogError::NotFound))?;
        same(catalog.update_collection(id, rename("d")).await, Err(CatalogError::NotFound))?;
        same(catalog.set_dimension(id, 3).await, Err(CatalogError::NotFound))?;
        same(catalog.add_schema_keys(id, Map::new()).await, Err(CatalogError::NotFound))?;
        same(catalog.raise_gc_floor(id, Lsn(1)).await, Err(CatalogError::NotFound))?;
    }
    Ok(())
}

async fn names_may_hold_anything<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let catalog = scope.catalog;
    let long = "ö".repeat(5 * 1024);
    let names: Vec<&str> = HOSTILE.into_iter().chain([long.as_str()]).collect();
    for name in &names {
        let tenant = format!("{}{name}", scope.tenant);
        catalog.create_tenant(&tenant).await?;
        same(catalog.create_tenant(&tenant).await, Err(CatalogError::AlreadyExists))?;
        let id = scope.runtime.random();
        catalog.create_database(&tenant, name, id).await?;
        same(catalog.get_database(&tenant, name).await?.name.as_str(), name)?;
        let new = NewCollection { tenant: tenant.clone(), database: (*name).to_owned(), ..scope.new_collection(name) };
        let row = catalog.create_collection(new).await?;
        same((&row.tenant, row.database.as_str(), row.name.as_str()), (&tenant, *name, *name))?;
        same(catalog.get_collection(&tenant, name, name).await?, row)?;
        catalog.delete_database(&tenant, name).await?;
    }
    for name in &names {
        scope.create(name).await?;
    }
    same(scope.names(Page::default()).await?, names.iter().map(|name| (*name).to_owned()).collect())
}

async fn metadata_keeps_every_type<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let text = r##"{"":"empty key","bool":true,"float":1.0,"floats":[1.0,-0.0,2.5],"huge":1.7976931348623157e308,
        "int":1,"ints":[1,-9223372036854775808,9223372036854775807],"bools":[true,false],"nul\u0000":"\u0000\u001f\"\\",
        "sparse":{"#type":"sparse_vector","indices":[1,4294967295],"values":[0.1,-3.0],"tokens":["a","b"]},
        "str":"1","strs":["","x"],"third":0.3333333333333333,"tiny":5e-324,"z.[\"$']":"雪"}"##;
    let metadata: Metadata = serde_json::from_str(text)?;
    let new = NewCollection { metadata: Some(metadata.clone()), ..scope.new_collection("c") };
    scope.catalog.create_collection(new).await?;
    let read = scope.get("c").await?;
    same(serde_json::to_string(&read.metadata)?, serde_json::to_string(&metadata)?)?;
    let other = scope.create("d").await?;
    let change = CollectionChange { metadata: Some(metadata.clone()), ..CollectionChange::default() };
    scope.catalog.update_collection(other.id, change).await?;
    same(scope.get("d").await?.metadata, Some(metadata))
}

async fn json_comes_back_as_it_was<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let schema = json!({"defaults": {"one": 1.0, "int": 1, "none": null, "list": [null, 1e300], "u64": u64::MAX},
        "keys": {"k": {"none": null, "f": 0.1}}, "cmek": null});
    let embedding_function = Some(json!({"name": "x", "config": {"f": 1.0, "none": null, "nul": "\0"}}));
    let configuration = Configuration { embedding_function, resize_factor: 2.0, ..Configuration::default() };
    let new = NewCollection { schema, configuration, ..scope.new_collection("c") };
    scope.catalog.create_collection(new.clone()).await?;
    let row = scope.get("c").await?;
    same(row.schema.to_string(), new.schema.to_string())?;
    same(serde_json::to_string(&row.configuration)?, serde_json::to_string(&new.configuration)?)
}

/// The table is one for all, so the numbers are random, and beyond any pool.
#[expect(clippy::cast_possible_truncation, reason = "any of the 128 random bits will do")]
async fn executors_are_listed_by_number_as_they_were_last_set<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let base = 1_000 + (scope.runtime.random() as u32 >> 2);
    let listed = async || {
        let rows = scope.catalog.list_executors().await?;
        let mine = rows.into_iter().filter(|row| (base..base + 3).contains(&row.number));
        Ok::<_, CatalogError>(mine.collect::<Vec<_>>())
    };
    let row = |i, weight, draining| ExecutorRow { number: base + i, weight, draining };
    same(listed().await?, vec![])?;
    for row in [row(2, 100, false), row(0, 1, true), row(1, 10_000, false)] {
        scope.catalog.set_executor(row).await?;
    }
    scope.catalog.set_executor(row(2, 50, true)).await?;
    same(listed().await?, vec![row(0, 1, true), row(1, 10_000, false), row(2, 50, true)])
}

async fn reset_leaves_the_defaults_only<C: Catalog, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let catalog = scope.catalog;
    catalog.create_tenant(&scope.tenant).await?;
    catalog.create_database(&scope.tenant, &scope.database, scope.runtime.random()).await?;
    let custom = scope.create("c").await?;
    let in_default = || NewCollection {
        tenant: DEFAULT_TENANT.to_owned(),
        database: DEFAULT_DATABASE.to_owned(),
        ..scope.new_collection(&scope.tenant)
    };
    let default = catalog.create_collection(in_default()).await?;
    for _ in 0..2 {
        catalog.reset().await?;
        same(catalog.tenant_exists(&scope.tenant).await, Ok(false))?;
        same(catalog.get_database(&scope.tenant, &scope.database).await, Err(CatalogError::NotFound))?;
        for row in [&custom, &default] {
            same(catalog.get_collection_by_id(row.id).await, Err(CatalogError::NotFound))?;
        }
        same(catalog.tenant_exists(DEFAULT_TENANT).await, Ok(true))?;
        let databases = catalog.list_databases(DEFAULT_TENANT, Page::default()).await?;
        let databases: Vec<_> = databases.iter().map(|row| (row.id, row.name.as_str())).collect();
        same(databases, vec![(0, DEFAULT_DATABASE)])?;
        same(catalog.count_collections(DEFAULT_TENANT, DEFAULT_DATABASE).await?, 0)?;
    }
    catalog.create_database(&scope.tenant, &scope.database, scope.runtime.random()).await?;
    same(scope.names(Page::default()).await?, vec![])?;
    catalog.create_collection(in_default()).await?;
    Ok(())
}
