//! Objects that are not what was written: a read is refused and the log names the object; nothing wrong is returned.

use std::fs;

use bytes::Bytes;
use serde_json::json;
use stack::{Part, Stack};

use crate::harness::{Api, Bucket, Collection, fragment_key, own_stack_with};

/// Replaces a fragment of a log of three by what `damage` makes of the log, and checks that every read of the collection
/// is refused and that another collection's reads are not.
fn check(name: &str, lsn: u64, named: u64, damage: impl FnOnce(&[Bytes]) -> Bytes) {
    // The fragment is read for every answer: nothing takes its place.
    let stack = own_stack_with(name, |config| config.compaction = None);
    let api = Api::new(stack.gateway_url());
    let (damaged, sound) = (api.fresh_collection(), api.fresh_collection());
    for id in ["a", "b", "c"] {
        damaged.add(&api, &[id]);
        sound.add(&api, &[id]);
    }
    let bucket = Bucket::of(&stack);
    let fragments = bucket.fragments(&damaged.id);
    bucket.put(&fragment_key(&damaged.id, lsn), damage(&fragments));

    refuses_reads(&api, &damaged);
    let key = fragment_key(&damaged.id, named);
    assert!(log_of_workers(&stack).contains(&key), "the log does not name {key}:\n{}", stack.log_tail(Part::Workers));

    assert_eq!(sound.ids(&api), ["a", "b", "c"]);
    sound.add(&api, &["d"]);
    assert_eq!(sound.ids(&api), ["a", "b", "c", "d"]);

    // Damage that heals (a backup, say) is over without a restart.
    bucket.put(&fragment_key(&damaged.id, lsn), fragments[usize::try_from(lsn).unwrap()].clone());
    assert_eq!(damaged.ids(&api), ["a", "b", "c"]);
}

#[track_caller]
fn refuses_reads(api: &Api, collection: &Collection) {
    api.post(&collection.verb("get"), &json!({})).expect_error(500, "InternalError", "");
    let query = json!({ "query_embeddings": [[1, 2]] });
    api.post(&collection.verb("query"), &query).expect_error(500, "InternalError", "");
    api.get(&collection.verb("count")).expect_error(500, "InternalError", "");
    let filter = json!({ "where": { "k": { "$ne": 1 } } });
    api.post(&collection.verb("delete"), &filter).expect_error(500, "InternalError", "");
}

fn log_of_workers(stack: &Stack) -> String {
    fs::read_to_string(stack.data().join("logs/workerd.log")).unwrap()
}

#[test]
fn garbage_is_refused() {
    check("garbage", 1, 1, |_| Bytes::from_static(b"this is not a fragment"));
}

#[test]
fn an_empty_object_is_refused() {
    check("empty", 0, 0, |_| Bytes::new());
}

#[test]
fn a_truncated_fragment_is_refused() {
    check("truncated", 2, 2, |fragments| fragments[2].slice(..fragments[2].len() - 1));
}

#[test]
fn a_flipped_bit_is_refused() {
    check("flipped", 1, 1, |fragments| {
        let mut body = fragments[1].to_vec();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        body.into()
    });
}

#[test]
fn another_fragment_of_the_same_log_is_refused() {
    check("misplaced", 1, 1, |fragments| fragments[2].clone());
}

#[test]
fn a_fragment_of_another_log_is_refused() {
    check("foreign", 0, 0, |fragments| {
        let mut fragment = wal::fragment::decode(&fragments[0]).unwrap();
        fragment.header.collection = model::CollectionId::from_random(7);
        wal::fragment::encode(&fragment.header, &fragment.to_operations().expect("sound"))
    });
}

/// Sound in itself and rightly named, but not what was written there: the next fragment names another predecessor.
#[test]
fn a_replaced_fragment_breaks_the_chain() {
    check("replaced", 1, 2, |fragments| {
        let mut fragment = wal::fragment::decode(&fragments[1]).unwrap();
        fragment.header.nonce = model::Nonce(fragment.header.nonce.0 ^ 1);
        wal::fragment::encode(&fragment.header, &fragment.to_operations().expect("sound"))
    });
}

#[test]
fn a_fragment_that_is_damaged_while_it_is_cached_is_refused_by_a_new_isolate() {
    let mut stack = own_stack_with("damaged-later", |config| config.compaction = None);
    let api = Api::new(stack.gateway_url());
    let collection = api.fresh_collection();
    collection.add(&api, &["a"]);
    assert_eq!(collection.ids(&api), ["a"]);
    Bucket::of(&stack).put(&fragment_key(&collection.id, 0), "garbage");
    stack.restart(Part::Workers).unwrap();
    let api = Api::new(stack.gateway_url());
    refuses_reads(&api, &collection);
    // Where the log ends cannot be told from garbage: a write is refused as well, and nothing is put.
    api.post(&collection.verb("add"), &crate::harness::records(&["b"])).expect_error(500, "InternalError", "");
    assert!(Bucket::of(&stack).get(&fragment_key(&collection.id, 1)).is_none());
}
