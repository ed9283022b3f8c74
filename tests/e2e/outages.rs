//! The store or the catalog is away, or answers nothing useful: 503 within the deadline; back again: the next request
//! works, and soon, nothing is restarted. (What goes wrong for a moment only, and must not be noticed: `faults`.)

use std::time::{Duration, Instant};

use serde_json::json;
use stack::{Part, Stack};

use crate::harness::{Api, Collection, own_stack, processes, records};

/// [`model::limits::REQUEST_DEADLINE_MS`] and what a busy machine adds.
const DEADLINE: Duration = Duration::from_millis(model::limits::REQUEST_DEADLINE_MS + 5_000);
/// Longer than any request takes once all is back, and shorter than anybody waits for an executor that does not answer.
const RECOVERY: Duration = Duration::from_secs(10);

/// Takes a part away, checks that everything that needs it is refused in time, brings it back, checks that all works.
fn check(name: &str, away: impl FnOnce(&mut Stack), back: impl FnOnce(&mut Stack)) {
    let mut stack = own_stack(name);
    let api = Api::new(stack.gateway_url());
    let (known, unread) = (api.fresh_collection(), api.fresh_collection());
    known.add(&api, &["a"]);
    unread.add(&api, &["a"]);
    assert_eq!(known.ids(&api), ["a"]);

    away(&mut stack);
    let url = stack.gateway_url();
    // All at once: each may take as long as the deadline.
    std::thread::scope(|scope| {
        let (known, unread, url) = (&known, &unread, &url);
        for collection in [known, unread] {
            scope.spawn(move || is_unavailable(url, collection, "add", &records(&["lost"])));
            scope.spawn(move || is_unavailable(url, collection, "get", &json!({})));
            scope.spawn(move || is_unavailable(url, collection, "query", &json!({ "query_embeddings": [[1, 2]] })));
            let filter = json!({ "where_document": { "$contains": "nothing" } });
            scope.spawn(move || is_unavailable(url, collection, "delete", &filter));
        }
    });
    assert_eq!(api.get("/api/v2/heartbeat").status, 200);

    back(&mut stack);
    for collection in [&known, &unread] {
        soon("add", || collection.add(&api, &["b"]));
        let ids = soon("get", || collection.ids(&api));
        // The refused write was told that it may have been carried out.
        let lasting: Vec<&String> = ids.iter().filter(|id| *id != "lost").collect();
        assert_eq!(lasting, ["a", "b"], "{ids:?}");
    }
}

fn soon<T>(verb: &str, request: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let reply = request();
    let took = began.elapsed();
    println!("{verb}: {took:?} after the outage");
    assert!(took < RECOVERY, "{verb} took {took:?} after the outage");
    reply
}

fn is_unavailable(url: &str, collection: &Collection, verb: &str, body: &serde_json::Value) {
    let api = Api::new(url);
    let began = Instant::now();
    let reply = api.post(&collection.verb(verb), body);
    let took = began.elapsed();
    println!("{verb}: {} after {took:?}", reply.status);
    reply.expect_error(503, "ChromaError", "");
    assert!(took < DEADLINE, "{verb} took {took:?}");
}

#[test]
fn without_the_store_requests_are_refused_until_it_is_back() {
    check("store-killed", |stack| stack.kill(Part::Store).unwrap(), |stack| stack.restart(Part::Store).unwrap());
}

#[test]
fn without_the_catalog_requests_are_refused_until_it_is_back() {
    check("catalog-killed", |stack| stack.kill(Part::Catalog).unwrap(), |stack| stack.restart(Part::Catalog).unwrap());
}

#[test]
fn a_store_that_hangs_is_not_waited_for_longer_than_the_deadline() {
    check(
        "store-hung",
        |stack| processes::stop(pid(stack, Part::Store)),
        |stack| processes::go_on(pid(stack, Part::Store)),
    );
}

#[test]
fn a_catalog_that_hangs_is_not_waited_for_longer_than_the_deadline() {
    check(
        "catalog-hung",
        |stack| processes::stop(pid(stack, Part::Catalog)),
        |stack| processes::go_on(pid(stack, Part::Catalog)),
    );
}

fn answering(name: &str, effect: serde_json::Value) {
    let rules = json!([{ "effect": effect }]);
    let away = |stack: &mut Stack| {
        stack.store_admin().set_faults(&rules, None).unwrap();
    };
    let back = |stack: &mut Stack| {
        let met = stack.store_admin().clear_faults().unwrap();
        assert!(met[0] >= 8, "every request went to the store: {met:?}");
    };
    check(name, away, back);
}

#[test]
fn a_store_that_stays_busy_is_told_and_forgotten() {
    answering("store-429", json!({ "answer": 429 }));
}

#[test]
fn a_store_that_keeps_failing_is_told_and_forgotten() {
    answering("store-503", json!({ "answer": 503 }));
}

#[test]
fn a_store_that_loses_every_reply_is_told_and_forgotten() {
    answering("store-mute", json!("drop_reply"));
}

fn pid(stack: &Stack, part: Part) -> u32 {
    stack.pid(part).expect("the part runs")
}

#[test]
fn the_healthcheck_tells_an_outage() {
    let mut stack = own_stack("healthcheck");
    let api = Api::new(stack.gateway_url());
    let healthy = json!({ "is_executor_ready": true, "is_log_client_ready": true });
    assert_eq!(api.get("/api/v2/healthcheck").expect(200).json(), healthy);
    stack.kill(Part::Store).unwrap();
    let ill = api.get("/api/v2/healthcheck").expect(503).expect_trace_id().json();
    assert_eq!(ill["is_log_client_ready"], false);
    stack.restart(Part::Store).unwrap();
    assert_eq!(api.get("/api/v2/healthcheck").expect(200).json(), healthy);
}
