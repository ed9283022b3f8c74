//! Requests with an `Idempotency-Key`: carried out once, in whichever isolate and however often they are sent.

use super::*;
use catalog::{Maintenance, PublishFrom};
use futures_util::future::join_all;
use model::Manifest;

fn keyed(key: &str) -> World {
    World { key: Some(key.to_owned()), ..World::new() }
}

#[tokio::test]
async fn a_repeated_write_is_carried_out_once() {
    let world = keyed("k-1");
    let collection = world.collection("docs").await;
    let path = format!("{collection}/upsert");
    let set = |n: u32| json!({ "ids": ["a"], "embeddings": [[1.0, 2.0]], "metadatas": [{ "n": n }] });
    assert_eq!(world.post(&path, set(1)).await.0, StatusCode::OK);
    let newer = World { key: Some("k-2".to_owned()), ..world };
    assert_eq!(newer.post(&path, set(2)).await.0, StatusCode::OK);
    let world = World { key: Some("k-1".to_owned()), ..newer };
    for memory in [&world.memory, &Memory::default()] {
        assert_eq!(world.send_with(memory, &Nothing, "POST", &path, set(1)).await.0, StatusCode::OK);
    }
    let (_, body) = world.post(&format!("{collection}/get"), json!({})).await;
    assert_eq!(body["metadatas"], json!([{ "n": 2 }]), "the old write is not applied again");
}

/// An isolate was idle while others wrote, and a compactor and garbage collection took all of it.
#[tokio::test]
async fn a_key_is_not_remembered_from_before_what_was_collected() {
    let world = World::new();
    let collection = world.collection("docs").await;
    let id = CollectionId::parse(&collection[1..]).unwrap();
    for record in ["a", "b", "c"] {
        world.add(&collection, record).await;
    }
    let mut ends = Vec::new();
    for lsn in (0..3).map(Lsn) {
        let key = keys::fragment(id, lsn);
        let body = world.store.get(&key).await.unwrap().unwrap();
        ends.push(wal::fragment::decode_header(&body).unwrap().as_end());
        world.store.delete(&key).await.unwrap();
    }
    let (catalog, manifest) = (&world.catalog.inner, Manifest { compacted: ends[2], ..Manifest::default() });
    assert!(catalog.publish(id, PublishFrom { generation: 0, gc_epoch: 0 }, &manifest).await.unwrap());
    catalog.raise_gc_floor(id, Lsn(3)).await.unwrap();

    let world = World { key: Some("k".to_owned()), ..world };
    let idle = Memory::default();
    idle.see_end(id, ends[0]);
    for memory in [&idle, &Memory::default()] {
        let answer = world.send_with(memory, &Nothing, "POST", &format!("{collection}/add"), record("d")).await;
        assert_eq!(answer.0, StatusCode::CREATED, "{}", answer.1);
    }
    let log = world.store.list(&keys::log_prefix(id), None).await.unwrap();
    assert_eq!(log, [keys::fragment(id, Lsn(3))]);
}

#[tokio::test]
async fn a_repeated_delete_answers_what_the_first_one_did() {
    let world = keyed("k");
    let collection = world.collection("docs").await;
    let unkeyed = World { key: None, ..world };
    for id in ["a", "b"] {
        unkeyed.add(&collection, id).await;
    }
    let world = World { key: Some("k".to_owned()), ..unkeyed };
    let path = format!("{collection}/delete");
    for _ in 0..2 {
        let answer = world.post(&path, json!({ "where": { "n": 1 } })).await;
        assert_eq!(answer, (StatusCode::OK, json!({ "deleted": 2 })));
    }
}

#[tokio::test]
async fn a_key_on_another_request_is_an_error() {
    let world = keyed("k");
    let collection = world.collection("docs").await;
    assert_eq!(world.add(&collection, "a").await.0, StatusCode::CREATED);
    assert_eq!(world.add(&collection, "b").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.ids(&collection).await, json!(["a"]));
}

#[tokio::test]
async fn a_malformed_key_is_refused() {
    for key in ["", " ", &"x".repeat(256)] {
        let world = keyed(key);
        let collection = world.collection("docs").await;
        assert_eq!(world.add(&collection, "a").await.0, StatusCode::BAD_REQUEST, "{key:?}");
    }
}

/// The original and its retries run in several isolates while others write and the store fails.
#[tokio::test(start_paused = true)]
async fn racing_repetitions_land_once() {
    for seed in 0..100 {
        let world = keyed("k");
        let collection = world.collection("docs").await;
        let path = format!("{collection}/upsert");
        let unkeyed = World { key: None, ..world };
        let body = |id: &str, n: u32| json!({ "ids": [id], "embeddings": [[1.0, 2.0]], "metadatas": [{ "n": n }] });
        unkeyed.post(&path, body("x", 0)).await;
        let world = World { key: Some("k".to_owned()), ..unkeyed };
        world.store.plan(seed, 150);
        let isolates = [Memory::default(), Memory::default(), Memory::default()];
        let tries =
            join_all(isolates.iter().map(|memory| world.send_with(memory, &Nothing, "POST", &path, body("a", 1))));
        tries.await;
        world.store.plan(seed, 0);
        world.store.settle().await;
        assert_eq!(world.post(&path, body("a", 1)).await.0, StatusCode::OK, "seed {seed}");
        let id = CollectionId::parse(&collection[1..]).expect("an id");
        let mut landed = 0;
        let reader = wal::Reader { store: world.store.store(), collection: id };
        reader.read(LogEnd::EMPTY, |fragment| landed += fragment.header.requests.len()).await.expect("a sound log");
        assert_eq!(landed, 1, "seed {seed}");
    }
}
