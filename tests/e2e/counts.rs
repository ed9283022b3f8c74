//! What a request asks of the store, counted by devstore: requests that carry one `traceparent` are one trace.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use stack::{Part, Stack};

use crate::harness::{Api, Bucket, Collection, Reply, own_stack, shared_stack};

struct Measured<'a> {
    api: &'a Api,
    bucket: Bucket,
    collection: Collection,
    next_trace: u32,
}

impl<'a> Measured<'a> {
    /// A collection with one record, written by an isolate that now knows it.
    fn new(api: &'a Api, stack: &Stack) -> Self {
        let collection = api.fresh_collection();
        collection.add(api, &["first"]);
        // Traces of other tests differ: they are named by their collection.
        Measured { api, bucket: Bucket::of(stack), collection, next_trace: 0 }
    }

    /// Sends a request of its own trace; returns its answer and what it asked of the store.
    #[track_caller]
    fn request(&mut self, verb: &str, body: Option<Value>) -> (Reply, Value) {
        self.next_trace += 1;
        let trace = format!("{}{:08x}", &self.collection.id.replace('-', "")[..24], self.next_trace);
        let request = Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(self.collection.verb(verb))
            .header("content-type", "application/json")
            .header("traceparent", format!("00-{trace}-00000000000000ff-01"));
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let reply = self.api.send(request.body(body).unwrap()).unwrap();
        assert!(reply.status < 300, "{reply:?}");
        (reply, self.bucket.counts(&trace))
    }
}

#[test]
fn a_warm_uncontended_write_is_one_put() {
    let api = Api::new(shared_stack().gateway_url());
    let mut measured = Measured::new(&api, &shared_stack());
    let embeddings = json!([[1, 2]]);
    for (verb, body) in [
        ("add", json!({ "ids": ["second"], "embeddings": embeddings })),
        ("upsert", json!({ "ids": ["second"], "embeddings": embeddings, "documents": ["text"] })),
        ("update", json!({ "ids": ["second"], "metadatas": [{ "a new key": 1 }] })),
        ("delete", json!({ "ids": ["second"] })),
    ] {
        let (_, counts) = measured.request(verb, Some(body));
        assert_eq!(counts["requests"], json!({ "PutObject": 1 }), "{verb}: {counts}");
        assert_eq!(counts["sequential_depth"], 1, "{verb}: {counts}");
        assert_eq!(counts["statuses"], json!({ "200": 1 }), "{verb}: {counts}");
    }
}

#[test]
fn a_warm_strong_read_of_an_unchanged_collection_is_one_probe() {
    let api = Api::new(shared_stack().gateway_url());
    let mut measured = Measured::new(&api, &shared_stack());
    let reads = [
        ("get", Some(json!({}))),
        ("query", Some(json!({ "query_embeddings": [[1, 2]] }))),
        ("count", None),
        ("get", Some(json!({ "where_document": { "$contains": "first" } }))),
    ];
    measured.request("count", None);
    for (verb, body) in reads {
        let (_, counts) = measured.request(verb, body);
        assert_eq!(counts["requests"], json!({ "GetObject": 1 }), "{verb}: {counts}");
        assert_eq!(counts["statuses"], json!({ "404": 1 }), "{verb}: {counts}");
        assert_eq!(counts["sequential_depth"], 1, "{verb}: {counts}");
    }
}

#[test]
fn a_warm_read_after_a_write_reads_that_write_only() {
    let api = Api::new(shared_stack().gateway_url());
    let mut measured = Measured::new(&api, &shared_stack());
    measured.request("count", None);
    measured.collection.add(&api, &["second"]);
    let (reply, counts) = measured.request("count", None);
    assert_eq!(reply.json(), 2);
    assert_eq!(counts["statuses"]["200"], 1, "one fragment is new: {counts}");
    assert!(counts["sequential_depth"].as_u64().unwrap() <= 2, "{counts}");
}

#[test]
fn cold_reads_and_writes_take_few_waves() {
    const FRAGMENTS: u64 = 60;
    let mut stack = own_stack("cold");
    let api = Api::new(stack.gateway_url());
    let mut measured = Measured::new(&api, &stack);
    for i in 1..FRAGMENTS {
        measured.collection.add(&api, &[&format!("r{i}")]);
    }

    stack.restart(Part::Workers).unwrap();
    let (reply, counts) = measured.request("count", None);
    assert_eq!(reply.json(), FRAGMENTS);
    assert_eq!(counts["statuses"]["200"], FRAGMENTS, "each fragment is read once: {counts}");
    let at_a_time = counts["max_in_flight"].as_u64().unwrap();
    assert!((2..=model::limits::CONNECTIONS_MAX as u64).contains(&at_a_time), "{counts}");
    // Reading five at a time takes 12 waves, one after the other 61.
    assert!(counts["sequential_depth"].as_u64().unwrap() <= FRAGMENTS / 2, "{counts}");

    stack.restart(Part::Workers).unwrap();
    let (_, counts) = measured.request("add", Some(json!({ "ids": ["last"], "embeddings": [[1, 2]] })));
    assert_eq!(counts["requests"]["PutObject"], 1, "{counts}");
    assert!(counts["requests"]["HeadObject"].as_u64().unwrap() <= 20, "the end is found by galloping: {counts}");
    assert!(counts["sequential_depth"].as_u64().unwrap() <= 8, "{counts}");
}
