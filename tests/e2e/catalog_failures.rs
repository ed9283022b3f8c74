//! The catalog on a real database: `HranaCatalog` speaks to an sqld that each test starts for itself.
//!
//! The variable `OPAL_SQLD` names the sqld to run.

use bytes::Bytes;
use catalog::{Catalog, CatalogError, CollectionChange, HranaCatalog, HranaConfig, NewCollection, Page, contract};
use futures_util::future::{join, join_all};
use http::{Request, Response};
use model::{CollectionId, Configuration, Lsn, Timestamp, limits};
use runtime::{Http, HttpError, NativeRuntime, Runtime};
use serde_json::{Value, json};
use std::cell::Cell;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use crate::harness::processes;

/// What a busy machine adds to a deadline, in ms.
const BUSY_MS: u64 = 5_000;

/// An sqld with a folder of its own; both go when this goes.
struct Sqld {
    folder: PathBuf,
    port: u16,
    process: Child,
}

impl Sqld {
    async fn start() -> Sqld {
        let folder = std::env::temp_dir().join(format!("opal-sqld-{:032x}", NativeRuntime::new().random()));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let sqld = Sqld { process: Self::spawn(&folder, port), folder, port };
        sqld.answers().await;
        sqld
    }

    fn spawn(folder: &PathBuf, port: u16) -> Child {
        let sqld = std::env::var_os("OPAL_SQLD").expect("OPAL_SQLD names the sqld to run");
        let mut command = Command::new(sqld);
        command.arg("--db-path").arg(folder).args(["--no-welcome", "--http-listen-addr", &format!("127.0.0.1:{port}")]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sqld starts")
    }

    async fn answers(&self) {
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("sqld did not answer within 30 s");
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.process = Self::spawn(&self.folder, self.port);
        self.answers().await;
    }

    fn catalog<R: Runtime + Http>(&self, runtime: R) -> HranaCatalog<R> {
        let config = HranaConfig { url: format!("http://127.0.0.1:{}", self.port), token: None };
        HranaCatalog::new(config, runtime).unwrap()
    }

    /// Runs `statements` on the stream `baton`, beside any catalog; the stream stays open, and its new baton returns.
    async fn on_stream(&self, baton: Option<String>, statements: &[&str]) -> Option<String> {
        let steps = statements.iter().map(|sql| json!({"type": "execute", "stmt": {"sql": sql}}));
        let body = json!({"baton": baton, "requests": steps.collect::<Vec<Value>>()}).to_string();
        let uri = format!("http://127.0.0.1:{}/v2/pipeline", self.port);
        let request = Request::post(uri).header("content-type", "application/json").body(Bytes::from(body)).unwrap();
        let reply: Value = serde_json::from_slice(NativeRuntime::new().fetch(request).await.unwrap().body()).unwrap();
        let all_ok = reply["results"].as_array().unwrap().iter().all(|result| result["type"] == "ok");
        assert!(all_ok, "{reply}");
        reply["baton"].as_str().map(str::to_owned)
    }
}

impl Drop for Sqld {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Counts the requests that pass.
#[derive(Clone)]
struct Counting {
    inner: NativeRuntime,
    requests: Rc<Cell<u32>>,
}

impl Counting {
    fn new() -> Self {
        Counting { inner: NativeRuntime::new(), requests: Rc::default() }
    }
}

impl Runtime for Counting {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn random(&self) -> u128 {
        self.inner.random()
    }

    async fn sleep(&self, ms: u64) {
        self.inner.sleep(ms).await;
    }
}

impl Http for Counting {
    async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.requests.set(self.requests.get() + 1);
        self.inner.fetch(request).await
    }
}

fn assert_kept(outcomes: Vec<(&'static str, Result<(), String>)>) {
    let broken: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
    assert!(outcomes.len() > 30 && broken.is_empty(), "{broken:#?}");
}

fn new_collection(name: &str) -> NewCollection {
    NewCollection {
        id: CollectionId::from_random(NativeRuntime::new().random()),
        tenant: catalog::DEFAULT_TENANT.to_owned(),
        database: catalog::DEFAULT_DATABASE.to_owned(),
        name: name.to_owned(),
        metadata: None,
        configuration: Configuration::default(),
        schema: json!({"keys": {}}),
        get_or_create: false,
    }
}

#[tokio::test]
async fn hrana_keeps_the_contract_on_fresh_and_used_databases() {
    let sqld = Sqld::start().await;
    let runtime = NativeRuntime::new();
    let catalog = sqld.catalog(runtime.clone());
    assert_kept(contract::run(&catalog, &runtime).await);
    let other = sqld.catalog(NativeRuntime::new());
    let (one, two) =
        join(contract::run_beside_others(&catalog, &runtime), contract::run_beside_others(&other, &runtime)).await;
    assert_kept(one);
    assert_kept(two);
    assert_kept(contract::run(&catalog, &runtime).await);
}

#[tokio::test]
async fn every_call_is_one_round_trip() {
    let sqld = Sqld::start().await;
    let world = Counting::new();
    let catalog = sqld.catalog(world.clone());
    catalog.ping().await.unwrap();
    let (tenant, database) = (catalog::DEFAULT_TENANT, catalog::DEFAULT_DATABASE);
    let new = new_collection("c");
    let id = new.id;
    macro_rules! one_trip {
        ($($call:expr;)*) => {$(
            let before = world.requests.get();
            let outcome = $call.await;
            assert!(outcome.is_ok(), "{}: {outcome:?}", stringify!($call));
            assert_eq!(world.requests.get() - before, 1, "{}", stringify!($call));
        )*};
    }
    one_trip! {
        catalog.create_tenant("t1");
        catalog.tenant_exists("t1");
        catalog.create_database("t1", "d1", 1);
        catalog.get_database("t1", "d1");
        catalog.list_databases("t1", Page::default());
        catalog.delete_database("t1", "d1");
        catalog.create_collection(new.clone());
        catalog.create_collection(NewCollection { get_or_create: true, ..new_collection("c") });
        catalog.get_collection(tenant, database, "c");
        catalog.get_collection_by_id(id);
        catalog.list_collections(tenant, database, Page::default());
        catalog.count_collections(tenant, database);
        catalog.update_collection(id, CollectionChange { name: Some("d".to_owned()), ..Default::default() });
        catalog.set_dimension(id, 3);
        catalog.add_schema_keys(id, json!({"k": {}}).as_object().cloned().unwrap());
        catalog.raise_gc_floor(id, Lsn(1));
        catalog.delete_collection(tenant, database, "d");
        catalog.ping();
        catalog.reset();
    }
}

#[tokio::test]
async fn a_listing_longer_than_a_reply_is_complete_and_in_order() {
    let sqld = Sqld::start().await;
    let catalog = sqld.catalog(NativeRuntime::new());
    let (tenant, database) = (catalog::DEFAULT_TENANT, catalog::DEFAULT_DATABASE);
    catalog.create_collection(new_collection("0")).await.unwrap();
    // Rows of 12 kB: 1,201 of them are more than sqld's 10 MB.
    let copies = "INSERT INTO collections (id, tenant, database, name, configuration, schema, metadata)
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1200)
        SELECT printf('00000000-0000-4000-8000-%012d', n), tenant, database, n, configuration, schema,
            json_object('filler', hex(zeroblob(6000))) FROM collections, numbers";
    sqld.on_stream(None, &[copies]).await;
    let names = async |page| -> Vec<String> {
        let rows = catalog.list_collections(tenant, database, page).await.unwrap();
        rows.into_iter().map(|row| row.name).collect()
    };
    let all: Vec<String> = (0..=1200).map(|n| n.to_string()).collect();
    assert_eq!(names(Page::default()).await, all);
    assert_eq!(names(Page { limit: Some(1000), offset: 7 }).await, all[7..1007]);
    assert_eq!(names(Page { limit: Some(500), offset: 0 }).await, all[..500]);
    assert_eq!(names(Page { limit: None, offset: 701 }).await, all[701..]);
}

#[tokio::test]
async fn a_frozen_database_is_unavailable_at_the_deadline() {
    let sqld = Sqld::start().await;
    let runtime = NativeRuntime::new();
    let catalog = sqld.catalog(runtime.clone());
    catalog.ping().await.unwrap();
    processes::stop(sqld.process.id());
    let before = runtime.now();
    let outcome = catalog.ping().await;
    let took_ms = runtime.now().ms_since(before);
    processes::go_on(sqld.process.id());
    assert!(matches!(outcome, Err(CatalogError::Unavailable(_))), "{outcome:?}");
    assert!((limits::CATALOG_TIMEOUT_MS..limits::CATALOG_TIMEOUT_MS + BUSY_MS).contains(&took_ms), "{took_ms} ms");
    assert_eq!(catalog.ping().await, Ok(()));
}

#[tokio::test]
async fn a_killed_database_is_unavailable_in_time_and_comes_back_with_everything() {
    let mut sqld = Sqld::start().await;
    let runtime = NativeRuntime::new();
    let catalog = sqld.catalog(runtime.clone());
    for round in 0..3 {
        let made = join_all((0..8).map(|n| catalog.create_collection(new_collection(&format!("{round}-{n}"))))).await;
        let before = runtime.now();
        let (outcome, ()) =
            join(catalog.create_collection(new_collection(&format!("{round}-late"))), async { sqld.kill() }).await;
        let took_ms = runtime.now().ms_since(before);
        assert!(matches!(outcome, Ok(_) | Err(CatalogError::Unavailable(_))), "{outcome:?}");
        let dead = catalog.ping().await;
        assert!(matches!(dead, Err(CatalogError::Unavailable(_))), "{dead:?}");
        assert!(took_ms < limits::CATALOG_TIMEOUT_MS + BUSY_MS, "{took_ms} ms");
        sqld.start_again().await;
        for row in made {
            let row = row.unwrap();
            assert_eq!(catalog.get_collection_by_id(row.id).await, Ok(row));
        }
        if let Ok(row) = outcome {
            assert_eq!(catalog.get_collection_by_id(row.id).await, Ok(row));
        }
    }
}

#[tokio::test]
async fn a_busy_database_is_waited_for_and_read_meanwhile() {
    let sqld = Sqld::start().await;
    let runtime = NativeRuntime::new();
    let catalog = sqld.catalog(runtime.clone());
    let row = catalog.create_collection(new_collection("c")).await.unwrap();
    let baton = sqld.on_stream(None, &["BEGIN IMMEDIATE", "INSERT INTO tenants (name) VALUES ('in the way')"]).await;
    let write = catalog.set_dimension(row.id, 3);
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(catalog.get_collection_by_id(row.id).await.unwrap().dimension, None);
        sqld.on_stream(baton, &["COMMIT"]).await;
    };
    let (written, ()) = join(write, meanwhile).await;
    assert_eq!(written.unwrap().dimension, Some(3));
    assert_eq!(catalog.tenant_exists("in the way").await, Ok(true));
}

#[tokio::test]
async fn isolates_that_race_to_migrate_do_no_harm() {
    for _ in 0..3 {
        let sqld = Sqld::start().await;
        let catalogs: Vec<_> = (0..8).map(|_| sqld.catalog(NativeRuntime::new())).collect();
        let made = join_all(catalogs.iter().map(|catalog| catalog.create_collection(new_collection("c")))).await;
        let won = made.iter().filter(|outcome| outcome.is_ok()).count();
        let lost = made.iter().filter(|outcome| **outcome == Err(CatalogError::AlreadyExists)).count();
        assert_eq!((won, lost), (1, 7), "{made:?}");
        assert_eq!(catalogs[0].list_databases(catalog::DEFAULT_TENANT, Page::default()).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_database_newer_than_the_code_is_refused() {
    let sqld = Sqld::start().await;
    let catalog = sqld.catalog(NativeRuntime::new());
    catalog.ping().await.unwrap();
    let newer = "INSERT INTO migrations (version, applied_at) VALUES (1000000, unixepoch())";
    sqld.on_stream(None, &[newer, "ALTER TABLE collections RENAME COLUMN manifest TO index_version"]).await;
    assert!(matches!(catalog.ping().await, Err(CatalogError::Refused(_))));
    sqld.on_stream(None, &["ALTER TABLE tenants RENAME TO accounts"]).await;
    assert!(matches!(catalog.create_tenant("t").await, Err(CatalogError::Refused(_))));
}
