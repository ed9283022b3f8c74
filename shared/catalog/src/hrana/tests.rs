//! The adapter against scripted replies: what it sends, what it repeats, what it says. (That its SQL does what the
//! contract promises is tried on a real database, in the workspace's `tests`.)
//!
//! A [`World`] answers each request with the next reply of its script, and is silent for ever after the last. Its
//! sleeps take no time, so a silent world is one whose deadline has passed.

use super::*;
use crate::migrations::{self, MIGRATIONS};
use crate::{Catalog, CollectionChange, Maintenance, Page, PublishFrom};
use http::Response;
use model::{CollectionId, Lsn, Manifest, Timestamp, limits};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

#[derive(Clone)]
enum Reply {
    /// A status and a body.
    Http(u16, String),
    /// A broken connection.
    Broken,
}
use Reply::{Broken, Http as Status};

#[derive(Clone, Default)]
struct World {
    script: Rc<RefCell<VecDeque<Reply>>>,
    requests: Rc<RefCell<Vec<Request<Bytes>>>>,
    slept_ms: Rc<RefCell<Vec<u64>>>,
}

impl World {
    fn new(script: &[Reply]) -> Self {
        World { script: Rc::new(RefCell::new(script.iter().cloned().collect())), ..World::default() }
    }

    fn catalog(&self) -> HranaCatalog<World> {
        let config = HranaConfig { url: "libsql://db.example:8080/".to_owned(), token: Some("s3cret".to_owned()) };
        HranaCatalog::new(config, self.clone()).expect("a valid configuration")
    }

    /// The SQL of each request so far.
    fn sql(&self) -> Vec<Vec<String>> {
        let steps = |request: &Request<Bytes>| -> Vec<String> {
            let body: Value = serde_json::from_slice(request.body()).expect("requests are JSON");
            let steps = body["requests"][0]["batch"]["steps"].as_array().expect("the first request is a batch").clone();
            assert_eq!(body["requests"][1]["type"], "close");
            steps.iter().map(|step| step["stmt"]["sql"].as_str().unwrap_or_default().to_owned()).collect()
        };
        self.requests.borrow().iter().map(steps).collect()
    }
}

impl Runtime for World {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn random(&self) -> u128 {
        u128::MAX
    }

    async fn sleep(&self, ms: u64) {
        self.slept_ms.borrow_mut().push(ms);
    }
}

impl Http for World {
    async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.requests.borrow_mut().push(request);
        let reply = self.script.borrow_mut().pop_front();
        match reply {
            Some(Status(status, body)) => Ok(Response::builder().status(status).body(body.into()).expect("a response")),
            Some(Broken) => Err(HttpError::NoReply("connection reset".to_owned())),
            None => std::future::pending().await,
        }
    }
}

/// The reply of a batch whose steps gave these results (`null`: not run) and errors.
fn steps(results: Value, errors: Value) -> Reply {
    let batch = serde_json::json!({"type": "batch", "result": {"step_results": results, "step_errors": errors}});
    let close = serde_json::json!({"type": "ok", "response": {"type": "close"}});
    Status(200, serde_json::json!({"results": [{"type": "ok", "response": batch}, close]}).to_string())
}

/// What a step gave that returned one row, or changed one without returning it.
fn step(row: &[i64]) -> Value {
    let row: Vec<Value> =
        row.iter().map(|value| serde_json::json!({"type": "integer", "value": value.to_string()})).collect();
    let rows = if row.is_empty() { vec![] } else { vec![row] };
    serde_json::json!({"cols": [], "rows": rows, "affected_row_count": 1, "last_insert_rowid": null})
}

fn done(row: &[i64]) -> Reply {
    steps(serde_json::json!([step(row)]), serde_json::json!([null]))
}

fn failed(code: &str, message: &str) -> Reply {
    steps(serde_json::json!([null]), serde_json::json!([{"code": code, "message": message}]))
}

fn busy() -> Reply {
    failed("SQLITE_BUSY", "SQLite error: database is locked")
}

/// A transaction of `count` statements that was committed; the last gave `row`.
fn committed(count: usize, row: &[i64]) -> Reply {
    let mut results = vec![step(&[]); count];
    results.push(step(row));
    results.extend([step(&[]), Value::Null]);
    let errors = vec![Value::Null; results.len()];
    steps(results.into(), errors.into())
}

fn is_unavailable<T>(outcome: &Result<T, CatalogError>) -> bool {
    matches!(outcome, Err(CatalogError::Unavailable(_)))
}

#[tokio::test]
async fn a_call_is_one_post_with_the_token_in_its_header_only() {
    let world = World::new(&[done(&[1])]);
    assert_eq!(world.catalog().ping().await, Ok(()));
    let requests = world.requests.borrow();
    let [request] = requests.as_slice() else { panic!("{} requests", requests.len()) };
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "https://db.example:8080/v2/pipeline");
    assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer s3cret");
    assert!(!String::from_utf8_lossy(request.body()).contains("s3cret"));
    assert!(!format!("{request:?}").contains("s3cret"));
}

#[tokio::test]
async fn several_statements_are_one_transaction() {
    let world = World::new(&[committed(2, &[])]);
    assert_eq!(world.catalog().delete_database("t", "d").await, Ok(()));
    let sql = world.sql().concat();
    let verbs: Vec<&str> = sql.iter().map(|sql| sql.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(verbs, ["BEGIN", "DELETE", "UPDATE", "COMMIT", "ROLLBACK"]);
    let body: Value = serde_json::from_slice(world.requests.borrow()[0].body()).unwrap();
    let conditions = |step: usize| body["requests"][0]["batch"]["steps"][step]["condition"].clone();
    assert_eq!(conditions(0), Value::Null);
    assert_eq!(conditions(3), serde_json::json!({"type": "ok", "step": 2}));
    let uncommitted = serde_json::json!({"type": "not", "cond": {"type": "ok", "step": 3}});
    let begun = serde_json::json!({"type": "ok", "step": 0});
    assert_eq!(conditions(4), serde_json::json!({"type": "and", "conds": [begun, uncommitted]}));
}

#[tokio::test]
async fn a_busy_database_is_tried_again_within_bounds() {
    for reply in [busy(), Status(429, "slow down".to_owned()), failed("TRANSACTION_TIMEOUT", "")] {
        let world = World::new(&[reply.clone(), reply.clone(), done(&[])]);
        assert_eq!(world.catalog().create_tenant("t").await, Ok(()));
        assert_eq!(world.requests.borrow().len(), 3);

        let world = World::new(&vec![reply; 100]);
        assert!(is_unavailable(&world.catalog().create_tenant("t").await));
        assert_eq!(world.requests.borrow().len(), limits::CATALOG_ATTEMPTS_MAX as usize);
    }
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_only_if_that_is_harmless() {
    let id = CollectionId::from_u128(7);
    for lost in [Broken, Status(502, "bad gateway".to_owned()), failed("PROXY_ERROR", "")] {
        let script = [lost, done(&[1])];
        let world = World::new(&script);
        assert_eq!(world.catalog().tenant_exists("t").await, Ok(true));
        assert_eq!(world.requests.borrow().len(), 2);
        let world = World::new(&script);
        assert_eq!(world.catalog().raise_gc_floor(id, Lsn(1)).await, Ok(()));
        assert_eq!(world.requests.borrow().len(), 2);

        let world = World::new(&script);
        assert!(is_unavailable(&world.catalog().create_tenant("t").await));
        assert_eq!(world.requests.borrow().len(), 1);
        let world = World::new(&script);
        assert!(is_unavailable(&world.catalog().update_collection(id, CollectionChange::default()).await));
        assert_eq!(world.requests.borrow().len(), 1);
        let world = World::new(&script);
        let from = PublishFrom { generation: 0, gc_epoch: 0 };
        assert!(is_unavailable(&world.catalog().publish(id, from, &Manifest::default()).await));
        assert_eq!(world.requests.borrow().len(), 1);
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let world = World::new(&[]);
    assert!(is_unavailable(&world.catalog().ping().await));
    assert_eq!(*world.slept_ms.borrow(), [limits::CATALOG_TIMEOUT_MS]);
    assert_eq!(world.requests.borrow().len(), 1);
}

#[tokio::test]
async fn an_old_database_is_migrated_and_the_call_repeated() {
    let missing = failed("SQLITE_UNKNOWN", "SQLite error: no such table: tenants");
    let version_0 = committed(2, &[0]);
    let steps = MIGRATIONS.iter().map(|step| committed(1 + step.statements.len(), &[]));
    let mut script = vec![missing.clone(), version_0.clone()];
    script.extend(steps);
    script.push(done(&[1]));
    let world = World::new(&script);
    assert_eq!(world.catalog().tenant_exists("t").await, Ok(true));
    assert_eq!(world.requests.borrow().len(), script.len());

    // Another isolate was faster: its work is ours.
    let taken = failed("SQLITE_CONSTRAINT", "SQLite error: UNIQUE constraint failed: migrations.version");
    let mut script = vec![missing.clone(), version_0];
    script.extend(MIGRATIONS.iter().map(|_| taken.clone()));
    script.push(done(&[1]));
    assert_eq!(World::new(&script).catalog().tenant_exists("t").await, Ok(true));

    // Still missing after all migrations: this is not about age.
    let latest = committed(2, &[migrations::latest()]);
    let world = World::new(&[missing.clone(), latest, missing.clone()]);
    assert!(matches!(world.catalog().tenant_exists("t").await, Err(CatalogError::Refused(_))));
    assert_eq!(world.requests.borrow().len(), 3);
}

#[tokio::test]
async fn a_database_from_the_future_is_refused() {
    let missing = failed("SQL_INPUT_ERROR", "SQL input error: no such column: name (at offset 7)");
    let future = migrations::latest() + 1;
    let refusal = format!("the database has version {future}, this code knows {}", migrations::latest());
    let world = World::new(&[missing, committed(2, &[future])]);
    assert_eq!(world.catalog().tenant_exists("t").await, Err(CatalogError::Refused(refusal.clone())));
    assert_eq!(world.requests.borrow().len(), 2);
    let world = World::new(&[done(&[future])]);
    assert_eq!(world.catalog().ping().await, Err(CatalogError::Refused(refusal)));
}

#[tokio::test]
async fn refusals_and_nonsense_are_reported_at_once_without_the_token() {
    let nonsense = [
        Status(401, "the token s3cret has expired".to_owned()),
        Status(307, String::new()),
        Status(200, "<html>s3cret</html>".to_owned()),
        Status(200, r#"{"results":[]}"#.to_owned()),
        Status(200, r#"{"results":[{"type":"ok","response":{"type":"close"}}]}"#.to_owned()),
        steps(serde_json::json!([null]), serde_json::json!([null])),
        failed("SQLITE_AUTH", "s3cret"),
        done(&[]),
        done(&[-1]),
    ];
    for reply in nonsense {
        let world = World::new(&[reply]);
        let outcome = world.catalog().count_collections("t", "d").await;
        let Err(error @ (CatalogError::Refused(_) | CatalogError::NotFound)) = outcome else { panic!("{outcome:?}") };
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert_eq!(world.requests.borrow().len(), 1);
    }
}

#[tokio::test]
async fn an_lsn_beyond_the_databases_integers_is_refused_unsent() {
    let world = World::new(&[]);
    let outcome = world.catalog().raise_gc_floor(CollectionId::from_u128(7), Lsn(1 << 63)).await;
    assert!(matches!(outcome, Err(CatalogError::Refused(_))));
    assert!(world.requests.borrow().is_empty());
}

#[test]
fn urls_become_pipelines_or_are_refused_without_being_quoted() {
    for (url, expected) in [
        ("libsql://db.turso.io", Some("https://db.turso.io/v2/pipeline")),
        ("https://db.turso.io/", Some("https://db.turso.io/v2/pipeline")),
        ("http://127.0.0.1:8080/dev/x", Some("http://127.0.0.1:8080/dev/x/v2/pipeline")),
        ("libsql://db.turso.io?authToken=s3cret", None),
        ("https://user:s3cret@db.turso.io", None),
        ("https://db.turso.io/#s3cret", None),
        ("ws://db.turso.io", None),
        ("file:s3cret.db", None),
        ("s3cret", None),
        ("", None),
    ] {
        let config = HranaConfig { url: url.to_owned(), token: None };
        match (HranaDatabase::new(config, World::new(&[])), expected) {
            (Ok(database), Some(expected)) => assert_eq!(database.pipeline, expected),
            (Err(error), None) => assert!(!error.to_string().contains("s3cret"), "{error}"),
            (outcome, _) => panic!("{url}: {:?}", outcome.map(|database| database.pipeline)),
        }
    }
}

#[test]
fn debug_hides_the_token() {
    let config = HranaConfig { url: "http://x".to_owned(), token: Some("s3cret".to_owned()) };
    assert_eq!(format!("{config:?}"), r#"HranaConfig { url: "http://x", token: Some("(hidden)") }"#);
    let two_lines = HranaConfig { token: Some("s3cret\nx".to_owned()), ..config };
    let error = HranaCatalog::new(two_lines, World::new(&[])).err().expect("not a header's value");
    assert!(!error.to_string().contains("s3cret"));
}

#[tokio::test]
async fn a_listing_that_is_too_large_is_asked_for_in_halves() {
    let too_large = || failed("RESPONSE_TOO_LARGE", "Response is too large");
    let empty = steps(serde_json::json!([step(&[])]), serde_json::json!([null]));
    let world = World::new(&[too_large(), too_large(), empty]);
    assert_eq!(world.catalog().list_collections("t", "d", Page::default()).await, Ok(vec![]));
    let limits: Vec<Value> = world
        .requests
        .borrow()
        .iter()
        .map(|request| serde_json::from_slice::<Value>(request.body()).unwrap())
        .map(|body| body["requests"][0]["batch"]["steps"][0]["stmt"]["args"][1]["value"].clone())
        .collect();
    assert_eq!(limits, [500, 250, 125].map(|limit: u64| Value::from(limit.to_string())));

    // A single row that is too large cannot be had in halves.
    let world = World::new(&[too_large()]);
    let one = Page { limit: Some(1), offset: 0 };
    assert!(matches!(world.catalog().list_collections("t", "d", one).await, Err(CatalogError::Refused(_))));
}
