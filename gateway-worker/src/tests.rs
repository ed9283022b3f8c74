//! The gateway over stores in memory: what a request costs, and what happens when something fails under it. Chroma's
//! wire format is tested in `wire`, the protocol of the log in `wal`.

use super::*;
use catalog::{CatalogError, CollectionChange, DatabaseRow, MemoryCatalog, NewCollection, Page};
use http::StatusCode;
use model::{CollectionId, CollectionRow, LogEnd, Lsn, keys};
use query::Overlay;
use runtime::NativeRuntime;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::rc::Rc;
use storage::{Counts, Fault, Faulty, MemoryStore, OperationKind, PutMode};

mod compatibility;
mod idempotency;
mod sharing;

const COLLECTIONS: &str = "/api/v2/tenants/default_tenant/databases/default_database/collections";
const TRACE: &str = "0123456789abcdef0123456789abcdef";

/// An executor that reads the log anew for every plan, after doing whatever a test wants done in between.
struct ColdExecutor<'a> {
    store: MemoryStore,
    before: &'a dyn Hook,
}

impl Executors for ColdExecutor<'_> {
    async fn run(&self, plan: &QueryPlan) -> Result<Answer, PlanError> {
        let mut overlay = Overlay::default();
        let reader = wal::Reader { store: &self.store, collection: plan.source.collection };
        let end = reader
            .read(LogEnd::EMPTY, |fragment| overlay.apply(fragment.header.lsn, fragment.operations()).expect("sound"))
            .await;
        let (hits, count) = overlay.answer(&plan.source, &plan.read)?;
        self.before.answered();
        Ok(Answer { end: end.expect("a sound log"), hits, count, explain: None })
    }
}

/// What a test does once an executor has read and before its answer arrives.
trait Hook {
    fn answered(&self);
}

struct Nothing;

impl Hook for Nothing {
    fn answered(&self) {}
}

/// A catalog that counts its calls and can be switched off.
#[derive(Clone)]
struct CountingCatalog {
    inner: MemoryCatalog,
    calls: Rc<Cell<u32>>,
    down: Rc<Cell<bool>>,
}

impl CountingCatalog {
    async fn call<T>(&self, call: impl Future<Output = Result<T, CatalogError>>) -> Result<T, CatalogError> {
        self.calls.set(self.calls.get() + 1);
        if self.down.get() { Err(CatalogError::Unavailable("switched off".to_owned())) } else { call.await }
    }
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        impl Catalog for CountingCatalog {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$result, CatalogError> {
                self.call(self.inner.$name($($argument),*)).await
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
    list_executors() -> Vec<catalog::ExecutorRow>;
    set_executor(row: catalog::ExecutorRow) -> ();
    reset() -> ();
    ping() -> ();
}

/// What one deployment allows.
const PATTERN_CHARS_MAX: usize = 256;

struct World {
    store: Faulty<MemoryStore, NativeRuntime>,
    catalog: CountingCatalog,
    memory: Memory,
    runtime: NativeRuntime,
    /// The idempotency key of every request.
    key: Option<String>,
    /// Whether what a request leaves to be done is done.
    with_chores: bool,
}

impl World {
    fn new() -> Self {
        let runtime = NativeRuntime::new();
        World {
            store: Faulty::new(MemoryStore::default(), runtime.clone()),
            catalog: CountingCatalog {
                inner: MemoryCatalog::default(),
                calls: Default::default(),
                down: Default::default(),
            },
            memory: Memory::default(),
            runtime,
            key: None,
            with_chores: false,
        }
    }

    async fn send_with(
        &self,
        memory: &Memory,
        hook: &dyn Hook,
        method: &str,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let gateway = Gateway {
            store: self.store.clone(),
            catalog: self.catalog.clone(),
            executors: ColdExecutor { store: self.store.store().clone(), before: hook },
            runtime: self.runtime.clone(),
            memory,
            settings: Settings {
                allow_reset: true,
                pattern_chars_max: Some(PATTERN_CHARS_MAX),
                store_name: "memory".to_owned(),
                log: |_| {},
            },
            written: RefCell::default(),
            spent: Spent::default(),
        };
        let request = Request::builder().method(method).uri(format!("{COLLECTIONS}{path}"));
        let request = match &self.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let response = gateway.handle(request.body(body.to_string().into()).expect("a request"), TRACE).await;
        if self.with_chores {
            gateway.afterwards().await;
        }
        let failed = !response.status().is_success();
        assert_eq!(
            failed,
            response.headers().contains_key("chroma-trace-id"),
            "errors and only errors carry a trace id"
        );
        (response.status(), serde_json::from_slice(response.body()).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send_with(&self.memory, &Nothing, "POST", path, body).await
    }

    async fn collection(&self, name: &str) -> String {
        let (status, body) = self.post("", json!({ "name": name })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        format!("/{}", body["id"].as_str().expect("an id"))
    }

    async fn add(&self, collection: &str, id: &str) -> (StatusCode, Value) {
        self.post(&format!("{collection}/add"), record(id)).await
    }

    async fn ids(&self, collection: &str) -> Value {
        self.post(&format!("{collection}/get"), json!({})).await.1["ids"].clone()
    }

    fn reset_counts(&self) {
        self.store.reset_counts();
        self.catalog.calls.set(0);
    }

    fn counts(&self) -> (Counts, u32) {
        (self.store.counts(), self.catalog.calls.get())
    }
}

fn record(id: &str) -> Value {
    json!({ "ids": [id], "embeddings": [[1.0, 2.0]], "metadatas": [{ "n": 1 }] })
}

#[tokio::test]
async fn a_warm_write_is_one_put_beside_one_catalog_read() {
    let world = World::new();
    let collection = world.collection("docs").await;
    for id in ["a", "b"] {
        world.add(&collection, id).await;
    }
    world.reset_counts();
    assert_eq!(world.add(&collection, "c").await.0, StatusCode::CREATED);
    assert_eq!(world.counts(), (Counts { put: 1, ..Counts::default() }, 1));
    assert_eq!(world.ids(&collection).await, json!(["a", "b", "c"]));
}

#[tokio::test]
async fn another_isolate_writes_behind_what_it_never_saw() {
    let world = World::new();
    let collection = world.collection("docs").await;
    let others = [Memory::default(), Memory::default()];
    for n in 0..12 {
        let memory = &others[n % 2];
        let path = format!("{collection}/add");
        let (status, body) = world.send_with(memory, &Nothing, "POST", &path, record(&format!("{n:02}"))).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    let ids: Vec<String> = (0..12).map(|n| format!("{n:02}")).collect();
    assert_eq!(world.ids(&collection).await, json!(ids));
}

#[tokio::test]
async fn a_lost_reply_does_not_double_a_write() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "a").await;
    world.store.inject(OperationKind::Put, Fault::ReplyLost);
    assert_eq!(world.add(&collection, "b").await.0, StatusCode::CREATED);
    assert_eq!(world.ids(&collection).await, json!(["a", "b"]));
    let id = CollectionId::parse(&collection[1..]).expect("an id");
    assert_eq!(world.store.head(&keys::fragment(id, Lsn(2))).await, Ok(None), "two fragments and no third");
}

#[tokio::test]
async fn writes_and_reads_of_a_deleted_collection_are_404_in_every_isolate() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "a").await;
    let other = Memory::default();
    let deleted = world.send_with(&other, &Nothing, "DELETE", "/docs", Value::Null).await;
    assert_eq!(deleted.0, StatusCode::OK);
    let other_dimension = json!({ "ids": ["b"], "embeddings": [[1.0]] });
    assert_eq!(world.post(&format!("{collection}/add"), other_dimension).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.add(&collection, "b").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.post(&format!("{collection}/get"), json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_query_of_another_dimension_in_a_deleted_collection_is_404() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "a").await;
    world.send_with(&Memory::default(), &Nothing, "DELETE", "/docs", Value::Null).await;
    let query = json!({ "query_embeddings": [[1.0]] });
    assert_eq!(world.post(&format!("{collection}/query"), query).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_first_dimension_holds_for_isolates_that_saw_none() {
    let world = World::new();
    let collection = world.collection("docs").await;
    let other = Memory::default();
    let look = world.send_with(&other, &Nothing, "POST", &format!("{collection}/get"), json!({})).await;
    assert_eq!(look.0, StatusCode::OK);
    world.add(&collection, "a").await;
    let three = json!({ "ids": ["b"], "embeddings": [[1.0, 2.0, 3.0]] });
    let (status, body) = world.send_with(&other, &Nothing, "POST", &format!("{collection}/add"), three).await;
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::BAD_REQUEST, &json!("Collection expecting embedding with dimension of 2, got 3"))
    );
}

/// Writes one record, once, when the executor has already matched.
struct WriteBetween<'a> {
    world: &'a World,
    collection: &'a str,
    left: Cell<u32>,
}

impl Hook for WriteBetween<'_> {
    fn answered(&self) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            let write = async {
                let memory = Memory::default();
                let path = format!("{}/update", self.collection);
                let body = json!({ "ids": ["a"], "metadatas": [{ "n": 2 }] });
                self.world.send_with(&memory, &Nothing, "POST", &path, body).await
            };
            let written = futures_util::FutureExt::now_or_never(write).expect("memory does not wait");
            assert_eq!(written.0, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_record_that_stopped_matching_before_the_delete_committed_stays() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "a").await;
    world.add(&collection, "b").await;
    let hook = WriteBetween { world: &world, collection: &collection, left: Cell::new(1) };
    let body = json!({ "where": { "n": 1 } });
    let (status, body) = world.send_with(&world.memory, &hook, "POST", &format!("{collection}/delete"), body).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "deleted": 1 })));
    assert_eq!(world.ids(&collection).await, json!(["a"]));
}

#[tokio::test]
async fn a_read_below_the_default_level_asks_no_catalog_for_a_while() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "a").await;
    for (level, calls) in [("index_and_bounded_wal", 0), ("index_only", 0), ("index_and_wal", 1)] {
        world.reset_counts();
        let path = format!("{collection}/count?read_level={level}");
        let (status, _) = world.send_with(&world.memory, &Nothing, "GET", &path, Value::Null).await;
        assert_eq!((status, world.counts()), (StatusCode::OK, (Counts::default(), calls)), "{level}");
    }
}

#[tokio::test]
async fn a_dead_catalog_is_503_and_heals() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "a").await;
    world.catalog.down.set(true);
    assert_eq!(world.post(&format!("{collection}/get"), json!({})).await.0, StatusCode::SERVICE_UNAVAILABLE);
    world.catalog.down.set(false);
    assert_eq!(world.ids(&collection).await, json!(["a"]));
}

/// A store that takes every condition for granted.
struct Careless(MemoryStore);

impl ObjectStore for Careless {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, storage::ReadError> {
        self.0.get(key).await
    }
    async fn get_range(&self, key: &str, range: std::ops::Range<u64>) -> Result<Option<Bytes>, storage::ReadError> {
        self.0.get_range(key, range).await
    }
    async fn head(&self, key: &str) -> Result<Option<u64>, storage::ReadError> {
        self.0.head(key).await
    }
    async fn put(&self, key: &str, body: Bytes, _: PutMode) -> Result<storage::Etag, storage::PutError> {
        self.0.put(key, body, PutMode::Overwrite).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, storage::ReadError> {
        self.0.list(prefix, start_after).await
    }
    async fn delete(&self, key: &str) -> Result<(), storage::PutError> {
        self.0.delete(key).await
    }
}

#[tokio::test]
async fn patterns_may_be_as_long_as_the_deployment_allows() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "a").await;
    let pattern = |chars: usize| "ß".repeat(chars);
    for operator in ["$contains", "$not_contains", "$regex", "$not_regex"] {
        for (chars, expect) in [(PATTERN_CHARS_MAX, 200), (PATTERN_CHARS_MAX + 1, 422)] {
            let filter = json!({ "$or": [{ operator: pattern(chars) }, { "$contains": "a" }] });
            for verb in ["get", "query", "delete"] {
                let body = json!({ "where_document": filter, "query_embeddings": [[1.0, 2.0]] });
                let (status, answer) = world.post(&format!("{collection}/{verb}"), body).await;
                assert_eq!(status.as_u16(), expect, "{verb} {operator} {chars}: {answer}");
                let is_quota = answer["message"].as_str().is_some_and(|text| text.starts_with("Quota exceeded: "));
                assert_eq!(is_quota, expect == 422, "{answer}");
            }
            world.add(&collection, "a").await;
        }
    }
    let body = json!({ "where": { "name": pattern(1_000) } });
    assert_eq!(world.post(&format!("{collection}/get"), body).await.0, StatusCode::OK, "values are no patterns");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_not_written_to() {
    let world = World::new();
    let collection = world.collection("docs").await;
    let store = MemoryStore::default();
    let gateway = Gateway {
        store: Careless(store.clone()),
        catalog: world.catalog.clone(),
        executors: ColdExecutor { store: store.clone(), before: &Nothing },
        runtime: world.runtime.clone(),
        memory: &world.memory,
        settings: Settings {
            allow_reset: false,
            pattern_chars_max: None,
            store_name: "careless".to_owned(),
            log: |_| {},
        },
        written: RefCell::default(),
        spent: Spent::default(),
    };
    let request = Request::builder().method("POST").uri(format!("{COLLECTIONS}{collection}/add"));
    let response = gateway.handle(request.body(record("a").to_string().into()).expect("a request"), TRACE).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let keys = store.list("", None).await.expect("listable");
    assert!(keys.iter().all(|key| key.starts_with("probe/")), "{keys:?}");
}
