//! What was done, by the log, and whether it was what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use model::{Operation, OperationKind};
use serde_json::json;

use super::clients::Write;
use crate::harness::{Api, Collection};

/// Records that are read at a time.
const PAGE: usize = 2_000;

/// Writes once more, so that nothing can come any more that is still under way, and checks what clients wrote to a collection
/// against its log (read by `log` afterwards), and its log against what the API answers. Returns the log before
/// that last write.
pub(super) fn check<'w>(
    api: &Api,
    collection: &Collection,
    histories: impl Iterator<Item = &'w Vec<Write>>,
    log: impl FnOnce() -> Vec<Operation>,
) -> Vec<Operation> {
    let last = json!({ "ids": ["last"], "embeddings": [[0, 0, 0, 0]], "metadatas": [{ "write": 0 }] });
    api.post(&collection.verb("add"), &last).expect(201);
    let mut log = log();
    assert_eq!(log.pop().unwrap().id.as_str(), "last");
    let carried_out = histories.map(|history| check_history(history, &log)).sum::<usize>();
    assert_eq!(carried_out, log.len(), "the log holds what nobody wrote, or holds something twice");
    check_answers(api, collection, &log);
    log
}

/// The text of a record, by the number of the write that wrote it.
pub(super) fn document(id: &str, number: u64) -> String {
    format!("{id} of write {number} ").repeat(3)
}

/// Checks one client's writes against the log of their collection; returns how many operations of it are theirs.
fn check_history(history: &[Write], log: &[Operation]) -> usize {
    let places = places(log);
    let mut end_of_last = 0;
    let mut carried_out = 0;
    for write in history {
        let found: Vec<&Vec<usize>> =
            write.operations.iter().filter_map(|(kind, id)| places.get(&key(*kind, id, write.number))).collect();
        let Write { number, operations, is_acknowledged } = write;
        assert!(!(found.is_empty() && *is_acknowledged), "acknowledged write {number} is not in the log");
        if found.is_empty() {
            continue;
        }
        assert_eq!(found.len(), operations.len(), "write {number} is there in part");
        assert!(found.iter().all(|places| places.len() == 1), "write {number} is there more than once");
        let place = found[0][0];
        let piece: Range<usize> = place..place + operations.len();
        assert!(found.iter().map(|places| places[0]).eq(piece.clone()), "write {number} is not in one piece");
        assert!(place >= end_of_last, "write {number} is before what its client wrote earlier");
        end_of_last = piece.end;
        carried_out += operations.len();
    }
    carried_out
}

/// What tells an operation from all others: each record is deleted once at most, and other operations name their write.
fn key(kind: OperationKind, id: &str, number: u64) -> String {
    match kind {
        OperationKind::Delete => format!("delete {id}"),
        kind => format!("{kind:?} {id} {number}"),
    }
}

fn places(log: &[Operation]) -> BTreeMap<String, Vec<usize>> {
    let mut places = BTreeMap::<String, Vec<usize>>::new();
    for (place, operation) in log.iter().enumerate() {
        let id = operation.id.as_str();
        places.entry(key(operation.kind, id, number_of(operation))).or_default().push(place);
    }
    places
}

/// The number of the write that an operation belongs to; 0 for a deletion.
fn number_of(operation: &Operation) -> u64 {
    let text = operation.document.as_deref().unwrap_or_default();
    let number = text.split(" of write ").nth(1).and_then(|rest| rest.split(' ').next());
    number.map_or(0, |number| number.parse().expect("documents are ours"))
}

/// Checks that the API answers what the log amounts to, and the last write of [`check`].
pub(super) fn check_answers(api: &Api, collection: &Collection, log: &[Operation]) {
    let mut expected = BTreeMap::new();
    for operation in log {
        let id = operation.id.as_str().to_owned();
        let is_there = expected.contains_key(&id);
        match operation.kind {
            OperationKind::Delete => drop(expected.remove(&id)),
            OperationKind::Add if is_there => {}
            OperationKind::Update if !is_there => {}
            _ => drop(expected.insert(id, number_of(operation))),
        }
    }
    assert_eq!(api.get(&collection.verb("count")).expect(200).json(), expected.len() + 1);
    let mut ids = BTreeSet::new();
    for offset in (0..expected.len() + 1).step_by(PAGE) {
        let page = json!({ "limit": PAGE, "offset": offset, "include": ["metadatas", "documents"] });
        let page = api.post(&collection.verb("get"), &page).expect(200).json();
        for (i, id) in page["ids"].as_array().unwrap().iter().enumerate() {
            let id = id.as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            if id == "last" {
                continue;
            }
            let number = expected.get(id).unwrap_or_else(|| panic!("{id} should not be there"));
            assert_eq!(page["metadatas"][i]["write"], *number, "{id}");
            assert_eq!(page["documents"][i], document(id, *number));
        }
    }
    assert_eq!(ids.len(), expected.len() + 1, "a record is missing");
}
