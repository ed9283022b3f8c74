//! Writes of one isolate at the same time: they share fragments, and whoever stops is replaced.

use super::*;
use crate::backlog::{Admission, admit};
use futures_util::future::join_all;
use model::limits;
use runtime::within;

impl World {
    fn collection_id(collection: &str) -> CollectionId {
        CollectionId::parse(&collection[1..]).expect("an id")
    }

    async fn log_length(&self, collection: &str) -> u64 {
        let reader = wal::Reader { store: self.store.store(), collection: World::collection_id(collection) };
        reader.read(LogEnd::EMPTY, drop).await.expect("a sound log").next.0
    }

    async fn sorted_ids(&self, collection: &str) -> Vec<String> {
        let mut ids: Vec<String> = serde_json::from_value(self.ids(collection).await).expect("texts");
        ids.sort();
        ids
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:02}")).collect()
}

#[tokio::test(start_paused = true)]
async fn writes_at_the_same_time_share_a_fragment() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "first").await;
    world.store.inject(OperationKind::Put, Fault::Delayed { ms: 50 });
    world.reset_counts();
    let names = names(20);
    let added = join_all(names.iter().map(|id| world.add(&collection, id))).await;
    let statuses: Vec<StatusCode> = added.into_iter().map(|(status, _)| status).collect();
    assert!(statuses.iter().all(|status| *status == StatusCode::CREATED));
    assert_eq!(world.counts().0.put, 2, "the first one, and all that came while it was put");
    assert_eq!(world.sorted_ids(&collection).await.len(), 21);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_leader_goes_away_is_led_by_another() {
    for fault in [Fault::Delayed { ms: 5_000 }, Fault::ReplyLost, Fault::RequestLost, Fault::Late { operations: 2 }] {
        let world = World::new();
        let collection = world.collection("docs").await;
        world.add(&collection, "first").await;
        // The first put keeps the others waiting, so that they gather; the second one is theirs.
        world.store.inject(OperationKind::Put, Fault::Delayed { ms: 50 });
        world.store.inject(OperationKind::Put, fault);
        // The look after the second put takes so long that its leader's client goes away.
        world.store.inject(OperationKind::GetRange, Fault::Delayed { ms: 5_000 });
        let patient = names(6);
        let writes = patient.iter().enumerate().map(|(n, id)| {
            let patience_ms = if n == 1 { 100 } else { 60_000 };
            let (world, collection) = (&world, &collection);
            async move { within(&world.runtime, patience_ms, world.add(collection, id)).await }
        });
        let answers = join_all(writes).await;
        for (n, answer) in answers.iter().enumerate().filter(|(n, _)| *n != 1) {
            assert_eq!(answer.as_ref().map(|answer| answer.0), Some(StatusCode::CREATED), "{fault:?}: write {n}");
        }
        world.store.settle().await;
        let ids = world.sorted_ids(&collection).await;
        assert_eq!(ids, [names(6), vec!["first".to_owned()]].concat(), "{fault:?}");
        assert_eq!(world.log_length(&collection).await, 3, "{fault:?}: each batch once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_by_filter_is_not_starved_by_the_writers_of_its_isolate() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "first").await;
    for _ in 0..100 {
        world.store.inject(OperationKind::Put, Fault::Delayed { ms: 5 });
    }
    let writes = join_all((0..8).map(|writer| {
        let (world, collection) = (&world, &collection);
        async move {
            for n in 0..5 {
                world.add(collection, &format!("{writer}-{n}")).await;
            }
        }
    }));
    let path = format!("{collection}/delete");
    let delete = world.post(&path, json!({ "where": { "n": 1 } }));
    let (_, (status, body)) = futures_util::future::join(writes, delete).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(body["deleted"].as_u64() >= Some(1), "{body}");
}

#[tokio::test]
async fn what_a_write_leaves_to_be_done_is_done_once() {
    let world = World { with_chores: true, ..World::new() };
    let collection = world.collection("docs").await;
    let id = World::collection_id(&collection);
    for name in names(32) {
        world.add(&collection, &name).await;
    }
    let keys = world.store.list("", None).await.expect("listable");
    assert!(keys.contains(&keys::dirty(id)), "{keys:?}");
    let packs: Vec<&String> = keys.iter().filter(|key| key.contains("/pack/")).collect();
    assert_eq!(packs, [&keys::pack(id, 1, Lsn(0)), &keys::pack(id, 1, Lsn(16))]);
    world.reset_counts();
    world.add(&collection, "warm").await;
    assert_eq!(world.counts().0.put, 1, "no marker and no pack are due");
    assert_eq!(world.memory.end(id).map(|end| end.packed), Some(Lsn(32)));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_too_long_refuses_writes_and_loses_nothing() {
    let world = World::new();
    let collection = world.collection("docs").await;
    world.add(&collection, "a").await;
    let id = World::collection_id(&collection);
    let end = world.memory.end(id).expect("written");
    let full = LogEnd { next: end.next.next(), operations: limits::BACKLOG_OPERATIONS_MAX * 2, ..end };
    assert_eq!(admit(&full, &LogEnd::EMPTY), Admission::Refused);
    let other = Memory::default();
    other.see_end(id, full);
    let path = format!("{collection}/add");
    let (status, body) = world.send_with(&other, &Nothing, "POST", &path, record("b")).await;
    assert_eq!((status, &body["message"]), (StatusCode::TOO_MANY_REQUESTS, &json!("Backoff and retry")));
    assert_eq!(world.ids(&collection).await, json!(["a"]));
}
