//! What a request asks of the store, counted by devstore: requests that carry one `traceparent` are one trace.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use stack::{Part, Stack};

use crate::harness::{Api, Bucket, Collection, Reply, own_stack, shared_stack};

struct Measured {
    api: Api,
    bucket: Bucket,
    collection: Collection,
    next_trace: u32,
}

impl Measured {
    /// A collection with one record, written by an isolate that now knows it.
    fn new(stack: &Stack) -> Self {
        let api = Api::new(stack.gateway_url());
        let collection = api.fresh_collection();
        collection.add(&api, &["first"]);
        // Traces of other tests differ: they are named by their collection.
        Measured { api, bucket: Bucket::of(stack), collection, next_trace: 0 }
    }

    /// New isolates, which know nothing.
    fn restart_workers(&mut self, stack: &mut Stack) {
        stack.restart(Part::Workers).unwrap();
        self.api = Api::new(stack.gateway_url());
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
    let mut measured = Measured::new(&shared_stack());
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
    let mut measured = Measured::new(&shared_stack());
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
    let mut measured = Measured::new(&shared_stack());
    measured.request("count", None);
    measured.collection.add(&measured.api, &["second"]);
    let (reply, counts) = measured.request("count", None);
    assert_eq!(reply.json(), 2);
    assert_eq!(counts["statuses"]["200"], 1, "one fragment is new: {counts}");
    // The one that is new, and a window of those that might follow it.
    let most = 1 + model::limits::CONNECTIONS_MAX as u64;
    assert!(counts["requests"]["GetObject"].as_u64().unwrap() <= most, "{counts}");
}

#[test]
fn cold_reads_and_writes_take_few_waves() {
    const FRAGMENTS: u64 = 60;
    let mut stack = own_stack("cold");
    let mut measured = Measured::new(&stack);
    for i in 1..FRAGMENTS {
        measured.collection.add(&measured.api, &[&format!("r{i}")]);
    }

    measured.restart_workers(&mut stack);
    let (reply, counts) = measured.request("count", None);
    assert_eq!(reply.json(), FRAGMENTS);
    assert_eq!(counts["statuses"]["200"], FRAGMENTS, "each fragment is read once: {counts}");
    let at_a_time = counts["max_in_flight"].as_u64().unwrap();
    assert!((2..=model::limits::CONNECTIONS_MAX as u64).contains(&at_a_time), "{counts}");
    // Five at a time are 12 waves, one after the other 61. Here replies come so fast that some of a wave is over before
    // the rest is sent, which counts as a wave of its own.
    assert!(counts["sequential_depth"].as_u64().unwrap() < FRAGMENTS * 3 / 4, "{counts}");

    measured.restart_workers(&mut stack);
    let (_, counts) = measured.request("add", Some(json!({ "ids": ["last"], "embeddings": [[1, 2]] })));
    assert_eq!(counts["requests"]["PutObject"], 1, "{counts}");
    assert!(counts["requests"]["HeadObject"].as_u64().unwrap() <= 20, "the end is found by galloping: {counts}");
}
