//! An acknowledged write is seen by every read that begins after it, whoever reads; and by each record once.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::harness::{Api, records, shared_url};

#[test]
fn another_connection_sees_each_write_at_once() {
    let (writer, reader) = (Api::new(shared_url()), Api::new(shared_url()));
    let collection = writer.fresh_collection();
    for round in 0..40 {
        let id = format!("r{round}");
        collection.add(&writer, &[&id]);
        assert_eq!(reader.get(&collection.verb("count")).expect(200).json(), round + 1);
        let found = reader.post(&collection.verb("get"), &json!({ "ids": [id] })).expect(200).json();
        assert_eq!(found["ids"], json!([id]));

        writer.post(&collection.verb("update"), &json!({ "ids": [id], "documents": ["changed"] })).expect(200);
        let found = reader.post(&collection.verb("get"), &json!({ "ids": [id] })).expect(200).json();
        assert_eq!(found["documents"], json!(["changed"]));

        // Far away from all others, so that it is the nearest to itself as soon as it is visible.
        let vector = [1000.0 + f64::from(round), -1000.0];
        writer.post(&collection.verb("upsert"), &json!({ "ids": [id], "embeddings": [vector] })).expect(200);
        let query = json!({ "query_embeddings": [vector], "n_results": 1 });
        let found = reader.post(&collection.verb("query"), &query).expect(200).json();
        assert_eq!((&found["ids"], &found["distances"]), (&json!([[id]]), &json!([[0.0]])));
    }
    for round in (0..40).rev() {
        writer.post(&collection.verb("delete"), &json!({ "ids": [format!("r{round}")] })).expect(200);
        assert_eq!(reader.get(&collection.verb("count")).expect(200).json(), round);
    }
}

#[test]
fn a_reader_never_sees_less_than_was_acknowledged_before_it_began() {
    const BATCHES: usize = 60;
    const BATCH: usize = 5;
    let url = shared_url();
    let collection = Api::new(&url).fresh_collection();
    let acknowledged = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let reader = Api::new(&url);
                while acknowledged.load(Ordering::SeqCst) < BATCHES * BATCH {
                    let before = acknowledged.load(Ordering::SeqCst);
                    let seen = collection.ids(&reader).len();
                    assert!(seen >= before, "{seen} records seen, {before} were acknowledged before");
                    assert_eq!(seen % BATCH, 0, "half a batch is visible");
                }
            });
        }
        let writer = Api::new(&url);
        for batch in 0..BATCHES {
            let ids: Vec<String> = (0..BATCH).map(|i| format!("b{batch}-{i}")).collect();
            collection.add(&writer, &ids.iter().map(String::as_str).collect::<Vec<_>>());
            acknowledged.fetch_add(BATCH, Ordering::SeqCst);
        }
    });
}

#[test]
fn concurrent_adds_are_all_there_exactly_once() {
    const THREADS: usize = 8;
    const ADDS: usize = 25;
    let url = shared_url();
    let collection = Api::new(&url).fresh_collection();
    let refusals = Mutex::new(Vec::new());
    let acknowledged: BTreeSet<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (url, collection, refusals) = (&url, &collection, &refusals);
                scope.spawn(move || {
                    let api = Api::new(url);
                    let mut acknowledged = Vec::new();
                    for i in 0..ADDS {
                        let pair = [format!("t{thread}-{i}-a"), format!("t{thread}-{i}-b")];
                        let reply = api.post(&collection.verb("add"), &records(&[&pair[0], &pair[1]]));
                        match reply.status {
                            201 => acknowledged.extend(pair),
                            _ => refusals.lock().unwrap().push(reply),
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let there = collection.ids(&Api::new(&url));
    let distinct: BTreeSet<String> = there.iter().cloned().collect();
    assert_eq!(there.len(), distinct.len(), "a record is there twice");
    let lost: Vec<&String> = acknowledged.difference(&distinct).collect();
    assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    // The official clients do not try again: contention is ours to bear.
    let refusals = refusals.into_inner().unwrap();
    assert!(refusals.is_empty(), "{} of {} adds were refused: {:?}", refusals.len(), THREADS * ADDS, refusals[0]);
    assert_eq!(distinct, acknowledged, "there is a record that nobody added");
}

#[test]
fn of_concurrent_adds_of_one_id_one_is_kept_whole() {
    let url = shared_url();
    let collection = Api::new(&url).fresh_collection();
    thread::scope(|scope| {
        for thread in 0..8 {
            let (url, collection) = (&url, &collection);
            scope.spawn(move || {
                let mut body = records(&["same"]);
                body["documents"] = json!([format!("by {thread}")]);
                body["metadatas"] = json!([{ "by": thread }]);
                Api::new(url).post(&collection.verb("add"), &body).expect(201);
            });
        }
    });
    let kept = Api::new(&url).post(&collection.verb("get"), &json!({})).expect(200).json();
    assert_eq!(kept["ids"], json!(["same"]));
    assert_eq!(kept["documents"][0], format!("by {}", kept["metadatas"][0]["by"]));
}

#[test]
fn concurrent_deletes_by_filter_count_each_record_once() {
    let url = shared_url();
    let api = Api::new(&url);
    let collection = api.fresh_collection();
    let ids: Vec<String> = (0..100).map(|i| format!("r{i}")).collect();
    let mut body = records(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    body["metadatas"] = json!(vec![json!({ "doomed": true }); 100]);
    api.post(&collection.verb("add"), &body).expect(201);
    let deleted: u64 = thread::scope(|scope| {
        let deleters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let body = json!({ "where": { "doomed": true }, "limit": 40 });
                    Api::new(&url).post(&collection.verb("delete"), &body).expect(200).json()["deleted"]
                        .as_u64()
                        .unwrap()
                })
            })
            .collect();
        deleters.into_iter().map(|deleter| deleter.join().unwrap()).sum()
    });
    assert_eq!(deleted, 100);
    assert_eq!(collection.ids(&api), Vec::<String>::new());
}
