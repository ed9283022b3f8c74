//! The store has a bad moment: it is busy, fails, stalls, is slow, or does what it was asked and loses the reply. Nobody
//! notices but by the time it takes: nothing is lost, nothing is doubled. devstore's levers do it to the real stack.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stack::{Part, Stack};

use crate::harness::{Api, Bucket, Collection, own_stack, records};

/// A stack of its own, and a collection that its isolates know.
struct Patient {
    stack: Stack,
    api: Api,
    collection: Collection,
}

impl Patient {
    fn new(name: &str) -> Self {
        let stack = own_stack(name);
        let api = Api::new(stack.gateway_url());
        let collection = api.fresh_collection();
        collection.add(&api, &["first"]);
        Patient { stack, api, collection }
    }

    fn faults(&self, rules: Value) {
        self.stack.store_admin().set_faults(&rules, None).unwrap();
    }

    /// Ends all faults; each rule must have met something, or the test has shown nothing.
    #[track_caller]
    fn no_more_faults(&self) {
        let met = self.stack.store_admin().clear_faults().unwrap();
        assert!(met.iter().all(|met| *met > 0), "a rule met no request: {met:?}");
    }

    fn fragments(&self) -> usize {
        Bucket::of(&self.stack).fragments(&self.collection.id).len()
    }

    fn write(&self, verb: &str, body: Value) {
        let reply = self.api.post(&self.collection.verb(verb), &body);
        assert!(reply.status < 300, "{verb}: {reply:?}");
    }
}

/// Each kind of write, each in a bad moment of the store: acknowledged, and in the log once.
fn every_write_happens_once(name: &str, effects: &[Value]) {
    let patient = Patient::new(name);
    for effect in effects {
        for (verb, body) in [
            ("add", records(&["a", "b"])),
            ("upsert", records(&["b", "c"])),
            ("update", json!({ "ids": ["a"], "documents": ["changed"] })),
            ("delete", json!({ "ids": ["b"] })),
            ("delete", json!({ "where_document": { "$contains": "changed" } })),
        ] {
            let before = patient.fragments();
            patient.faults(json!([{ "operation": "PutObject", "key_contains": "/log/", "next": 2, "effect": effect }]));
            patient.write(verb, body);
            patient.no_more_faults();
            assert_eq!(patient.fragments(), before + 1, "{verb} under {effect}");
        }
        assert_eq!(patient.collection.ids(&patient.api), ["first", "c"], "{effect}");
        patient.write("delete", json!({ "ids": ["c"] }));
    }
}

#[test]
fn a_write_whose_reply_is_lost_is_acknowledged_once() {
    every_write_happens_once("lost-replies", &[json!("drop_reply")]);
}

#[test]
fn a_write_to_a_busy_or_failing_store_is_acknowledged_once() {
    let answers = [409, 429, 500, 503].map(|status| json!({ "answer": status }));
    every_write_happens_once("refusals", &answers);
    every_write_happens_once("lost-requests", &[json!("drop_request")]);
}

#[test]
fn reads_of_a_busy_or_failing_store_are_answered() {
    let mut patient = Patient::new("reads");
    for effect in [json!({ "answer": 429 }), json!({ "answer": 503 }), json!("drop_request"), json!("drop_reply")] {
        patient.collection.add(&patient.api, &["second"]);
        // A warm isolate misses one fragment, a cold one both.
        for _ in 0..2 {
            patient.faults(json!([{ "operation": "GetObject", "next": 2, "effect": effect }]));
            assert_eq!(patient.collection.ids(&patient.api), ["first", "second"], "{effect}");
            patient.no_more_faults();
            patient.stack.restart(Part::Workers).unwrap();
            patient.api = Api::new(patient.stack.gateway_url());
        }
        patient.write("delete", json!({ "ids": ["second"] }));
    }
}

/// The store holds a put, or its reply, for longer than the gateway waits for it. Then the same bytes go to the same key
/// again, and whichever put comes second finds the first.
#[test]
fn a_put_that_arrives_late_is_not_doubled() {
    let patient = Patient::new("late-puts");
    let held = Duration::from_millis(model::limits::STORE_TIMEOUT_MS + 1_500);
    let ms = u64::try_from(held.as_millis()).unwrap();
    let cases = [json!({ "hold_before_ms": ms }), json!({ "hold_after_ms": ms })];
    let collections: Vec<Collection> = cases.iter().map(|_| patient.api.fresh_collection()).collect();
    let rule = |(effect, collection): (&Value, &Collection)| json!({ "operation": "PutObject", "key_prefix": collection.id, "next": 1, "effect": effect });
    patient.faults(cases.iter().zip(&collections).map(rule).collect());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for collection in &collections {
            let url = patient.stack.gateway_url();
            scope.spawn(move || collection.add(&Api::new(url), &["a", "b"]));
        }
    });
    patient.no_more_faults();
    std::thread::sleep((held + Duration::from_secs(1)).saturating_sub(began.elapsed()));
    for collection in &collections {
        collection.add(&patient.api, &["c"]);
        assert_eq!(collection.ids(&patient.api), ["a", "b", "c"]);
        assert_eq!(written(&patient.stack, collection), BTreeMap::from(["a", "b", "c"].map(|id| (id.to_owned(), 1))));
    }
}

#[test]
fn a_slow_store_takes_its_time_and_nothing_else() {
    let mut patient = Patient::new("slow");
    let ids: Vec<String> = (0..200).map(|i| format!("r{i}")).collect();
    let documents: Vec<String> = ids.iter().map(|id| id.repeat(200)).collect();
    let embeddings = vec![[0.5, 1.0]; ids.len()];
    let body = json!({ "ids": ids, "embeddings": embeddings, "documents": documents });
    patient.faults(json!([{ "key_prefix": patient.collection.id, "effect": { "bytes_per_second": 100_000 } }]));
    let began = Instant::now();
    patient.write("add", body);
    // 130 KB of documents alone.
    assert!(began.elapsed() > Duration::from_secs(1));
    patient.stack.restart(Part::Workers).unwrap();
    let api = Api::new(patient.stack.gateway_url());
    let got = api.post(&patient.collection.verb("get"), &json!({ "offset": 1 })).expect(200).json();
    assert_eq!((&got["ids"], &got["documents"]), (&json!(ids), &json!(documents)));
    patient.no_more_faults();
}

/// Everything at once, from several writers, by a seed: what was acknowledged is there once, what was not is there whole
/// or not at all, and nothing is in the log twice.
#[test]
fn writers_in_a_storm_lose_nothing_and_double_nothing() {
    const WRITERS: usize = 6;
    const WRITES: usize = 20;
    let patient = Patient::new("storm");
    let rules = json!([
        { "probability": 0.10, "effect": "drop_reply" },
        { "probability": 0.05, "effect": "drop_request" },
        { "probability": 0.05, "effect": { "answer": 429 } },
        { "probability": 0.05, "effect": { "answer": 503 } },
        { "probability": 0.10, "effect": { "hold_before_ms": 200 } },
        { "probability": 0.10, "effect": { "hold_after_ms": 200 } },
        { "probability": 0.10, "effect": { "bytes_per_second": 10_000 } },
        // S3 answers so to conditional puts only.
        { "probability": 0.10, "operation": "PutObject", "effect": { "answer": 409 } },
    ]);
    let seed = patient.stack.store_admin().set_faults(&rules, None).unwrap();
    println!("faults of seed {seed}");
    let write = |writer: usize| {
        let api = Api::new(patient.stack.gateway_url());
        let batches = (0..WRITES).map(|write| [0, 1, 2].map(|record| format!("{writer}-{write}-{record}")));
        let outcomes = batches.map(|ids| {
            let reply = api.post(&patient.collection.verb("add"), &records(&ids.each_ref().map(String::as_str)));
            assert!([201, 503].contains(&reply.status), "{reply:?}");
            (ids, reply.status == 201)
        });
        outcomes.collect::<Vec<_>>()
    };
    let outcomes: Vec<([String; 3], bool)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    // Writers share requests, so not every rule need have met one.
    let met: u64 = patient.stack.store_admin().clear_faults().unwrap().into_iter().sum();
    assert!(met >= 10, "the weather was fair: {met} faults");
    // Whatever was still held is there now, or never comes: this write is behind it.
    patient.collection.add(&patient.api, &["last"]);

    let (ids, log) = (patient.collection.ids(&patient.api), written(&patient.stack, &patient.collection));
    for (batch, acknowledged) in &outcomes {
        let there = batch.iter().filter(|id| ids.contains(id)).count();
        assert!(there == 3 || (there == 0 && !acknowledged), "{there} of 3 of {batch:?}, acknowledged: {acknowledged}");
    }
    assert!(outcomes.iter().filter(|(_, acknowledged)| *acknowledged).count() > outcomes.len() / 2, "hardly a write");
    assert!(log.values().all(|times| *times == 1), "{log:?}");
    assert_eq!(ids.len(), log.len());
}

/// How often each record was written, by its id.
fn written(stack: &Stack, collection: &Collection) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for operation in Bucket::of(stack).operations(&collection.id) {
        *times.entry(operation.id.as_str().to_owned()).or_default() += 1;
    }
    times
}
