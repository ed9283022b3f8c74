//! What a request asks of the store, counted by devstore: requests that carry one `traceparent` are one trace.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use stack::{Part, Stack};

use crate::harness::{Api, Bucket, Collection, EdgeCache, Reply, own_stack_with, run_compactor, shared_stack};

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
        let bucket = Bucket::of(stack);
        // The marker for the compactor is put after the answer; until its writer knows that it is there, the next write puts another.
        let marker = format!("dirty/{}", collection.id);
        let began = Instant::now();
        while bucket.get(&marker).is_none() && began.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(100));
        // Traces of other tests differ: they are named by their collection.
        Measured { api, bucket, collection, next_trace: 0 }
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
    // The log stays as it is.
    let mut stack = own_stack_with("cold", |config| config.compaction = None);
    let mut measured = Measured::new(&stack);
    for i in 1..FRAGMENTS {
        measured.collection.add(&measured.api, &[&format!("r{i}")]);
    }

    measured.restart_workers(&mut stack);
    // Held for longer than a wave takes to be sent: so requests that are sent together overlap, and the depth is exact.
    let held = json!([{ "effect": { "hold_before_ms": 150 } }]);
    stack.store_admin().set_faults(&held, None).unwrap();
    let (reply, counts) = measured.request("count", None);
    stack.store_admin().clear_faults().unwrap();
    assert_eq!(reply.json(), FRAGMENTS);
    // The first ones, then the rest in packs of sixteen as far as there are, and a window behind the end.
    assert!(counts["requests"]["GetObject"].as_u64().unwrap() <= FRAGMENTS / 2, "{counts}");
    let at_a_time = counts["max_in_flight"].as_u64().unwrap();
    assert!((2..=model::limits::CONNECTIONS_MAX as u64).contains(&at_a_time), "{counts}");
    // A search for the end is among them, as the log turned out to be long.
    assert!(counts["sequential_depth"].as_u64().unwrap() <= 15, "{counts}");

    measured.restart_workers(&mut stack);
    let (_, counts) = measured.request("add", Some(json!({ "ids": ["last"], "embeddings": [[1, 2]] })));
    // The fragment and, after the answer, the marker for the compactor.
    assert!((1..=2).contains(&counts["requests"]["PutObject"].as_u64().unwrap()), "{counts}");
    assert!(counts["requests"]["HeadObject"].as_u64().unwrap() <= 20, "the end is found by galloping: {counts}");
}

#[test]
fn what_never_changes_is_read_once_in_a_data_centre() {
    let cache = EdgeCache::start();
    let mut stack = own_stack_with("edge-cache", |config| {
        config.compaction = None;
        config.edge_cache = Some(cache.port);
    });
    let mut measured = Measured::new(&stack);
    run_compactor(&stack, &["compact", &measured.collection.id]);
    measured.collection.add(&measured.api, &["second"]);
    let query = json!({ "query_embeddings": [[0, 1]] });
    let mut cold_read = || {
        measured.restart_workers(&mut stack);
        let (reply, counts) = measured.request("query", Some(query.clone()));
        assert_eq!(reply.json()["ids"][0].as_array().unwrap().len(), 2);
        let found = |status: &str| counts["statuses"][status].as_u64().unwrap_or(0);
        found("200") + found("206")
    };
    assert!(cold_read() > 1, "what is stored, and the log");
    // It is kept after the answer, so perhaps not at once.
    let began = Instant::now();
    while cold_read() > 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "more than the log is read; kept: {:?}", cache.names());
    }
    assert!(!cache.names().is_empty());
    assert!(cache.names().iter().all(|name| name.contains("/seg/")), "{:?}", cache.names());
}

#[test]
fn making_and_deleting_collections_and_reset_are_one_catalog_round_trip_and_no_object() {
    let listener = Listener::new();
    let stack = own_stack_with("round-trips", |config| {
        config.compaction = None;
        config.allow_reset = true;
        config.gateway_vars.push(("CATALOG_URL".to_owned(), listener.url.clone()));
    });
    listener.listen_in_on(&stack);
    let api = Api::new(stack.gateway_url());
    let database = api.fresh_database();
    // The first request of an isolate makes the tables.
    let objects = stack.store_admin().totals().unwrap()["requests"].clone();
    let cost = |method: &str, path: &str, body: Option<Value>| {
        let before = listener.requests.load(Ordering::SeqCst);
        let reply = api.call(method, path, body.as_ref()).expect(200);
        assert_eq!(listener.requests.load(Ordering::SeqCst) - before, 1, "{method} {path}");
        reply
    };
    let collections = format!("{database}/collections");
    cost("POST", &collections, Some(json!({ "name": "one" })));
    cost("POST", &collections, Some(json!({ "name": "one", "get_or_create": true })));
    cost("POST", &collections, Some(json!({ "name": "two", "metadata": { "a": 1 } })));
    cost("GET", &collections, None);
    cost("DELETE", &format!("{collections}/one"), None);
    cost("POST", "/api/v2/reset", None);
    assert_eq!(stack.store_admin().totals().unwrap()["requests"], objects, "none of it asks the store");
}

/// Stands between the gateway and sqld and counts requests.
struct Listener {
    url: String,
    upstream: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
}

impl Listener {
    fn new() -> Listener {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let (upstream, requests) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicUsize::new(0)));
        let (port, count) = (Arc::clone(&upstream), Arc::clone(&requests));
        thread::spawn(move || {
            for client in socket.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port.load(Ordering::SeqCst))) else { continue };
                let (client_out, server_out) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let count = Arc::clone(&count);
                thread::spawn(move || forward(client, server_out, &count));
                thread::spawn(move || forward(server, client_out, &AtomicUsize::new(0)));
            }
        });
        Listener { url, upstream, requests }
    }

    fn listen_in_on(&self, stack: &Stack) {
        let port = stack.catalog_url().rsplit(':').next().unwrap().parse().unwrap();
        self.upstream.store(port, Ordering::SeqCst);
    }
}

/// Forwards bytes until either side ends, and counts the requests among them. (A request begins in a piece of its own: the
/// gateway waits for each answer before it uses a connection again.)
fn forward(mut from: TcpStream, mut to: TcpStream, requests: &AtomicUsize) {
    let mut piece = [0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut piece) {
        requests.fetch_add(usize::from(piece[..bytes].starts_with(b"POST ")), Ordering::SeqCst);
        if to.write_all(&piece[..bytes]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
