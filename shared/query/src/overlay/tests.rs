//! Chroma's rules for writes and reads, a case a line; then random logs and reads against a plain list of records,
//! which knows nothing of rows, chunks, indexes or heaps.

use super::*;
use crate::testing::{self, DIMENSION, Plain};
use model::{CollectionId, Lsn, Manifest, Operation, RecordId, Space};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// An operation from a line: `+` add, `~` update, `*` upsert, `-` delete; then id, vector, metadata, document, `_` for
/// a field that it does not carry.
fn operation(line: &str) -> Operation {
    let mut words = line.split_whitespace();
    let kind = match words.next().unwrap() {
        "+" => OperationKind::Add,
        "~" => OperationKind::Update,
        "*" => OperationKind::Upsert,
        _ => OperationKind::Delete,
    };
    let id = RecordId::from(words.next().unwrap());
    let mut field = || words.next().filter(|word| *word != "_");
    let embedding = field().map(|json| serde_json::from_str(json).unwrap());
    let metadata = field().map(|json| serde_json::from_str(json).unwrap());
    Operation { kind, id, embedding, metadata, document: field().map(str::to_owned), uri: None }
}

fn apply(overlay: &mut Overlay, log: impl IntoIterator<Item = Operation>) -> Result<(), PlanError> {
    let log: Vec<Operation> = log.into_iter().collect();
    overlay.apply(Lsn(0), log.iter().map(Operation::view))
}

fn overlay(log: &str) -> Overlay {
    let mut overlay = Overlay::default();
    apply(&mut overlay, log.lines().filter(|line| !line.trim().is_empty()).map(operation)).unwrap();
    overlay
}

fn source(dimension: Option<u32>, space: Space) -> Source {
    Source {
        collection: CollectionId::from_u128(1),
        generation: 0,
        manifest: Manifest::default(),
        dimension,
        space,
        ef_search: 100,
    }
}

const EVERYTHING: Include = Include { embeddings: true, documents: true, uris: true, metadatas: true };

fn get_all() -> Read {
    Read::Get { ids: None, filter: None, limit: None, offset: 0, include: EVERYTHING }
}

/// What is stored, a record a line, after `log`.
#[track_caller]
fn check(log: &str, expect: &str) {
    let (hits, _) = overlay(log).answer(&source(Some(1), Space::L2), &get_all()).unwrap();
    let or_blank = |json: Option<String>| json.unwrap_or("_".into());
    let line = |hit: &Hit| {
        let metadata = or_blank(hit.metadata.as_ref().map(|metadata| serde_json::to_string(metadata).unwrap()));
        let embedding = serde_json::to_string(hit.embedding.as_ref().unwrap()).unwrap();
        format!("{} {embedding} {metadata} {}", hit.id, or_blank(hit.document.clone()))
    };
    let expect: Vec<&str> = expect.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(hits[0].iter().map(line).collect::<Vec<_>>(), expect, "after {log}");
}

#[test]
fn first_add_of_an_id_wins() {
    check("+ a [1] \n + a [2]", "a [1.0] _ _");
    check("* a [1] \n + a [2] _ text", "a [1.0] _ _");
}

#[test]
fn update_changes_what_it_carries_and_creates_nothing() {
    check("~ a [1]", "");
    check("+ a [1] _ text\n ~ a [2]", "a [2.0] _ text");
    check("+ a [1] _ text\n ~ a _ _ other", "a [1.0] _ other");
}

#[test]
fn metadata_merges_key_by_key() {
    let log = "+ a [1] {\"x\":1,\"y\":2} \n * a [2] {\"z\":[true],\"x\":\"s\",\"y\":null}";
    check(log, r#"a [2.0] {"x":"s","z":[true]} _"#);
    check("* a [1] {\"x\":1} \n * a [2] {\"y\":1} \n * a [3] {}", r#"a [3.0] {"x":1,"y":1} _"#);
    check("+ a [1] {\"x\":1} \n ~ a _ {\"x\":null}", "a [1.0] _ _");
    check("* a [1] {\"x\":null}", "a [1.0] _ _");
}

#[test]
fn places_follow_the_first_insertion() {
    check("+ a [1] \n + b [2] \n * a [3]", "a [3.0] _ _ \n b [2.0] _ _");
    check("+ a [1] \n + b [2] \n - a \n + a [3]", "b [2.0] _ _ \n a [3.0] _ _");
    check("+ a [1] \n + b [2] \n - a \n - b \n - b \n * b [3] \n - c", "b [3.0] _ _");
}

#[track_caller]
fn check_broken(log: &[&str]) {
    let result = apply(&mut Overlay::default(), log.iter().map(|line| operation(line)));
    assert!(matches!(result, Err(PlanError::Corrupt(_))), "{log:?} gave {result:?}");
}

#[test]
fn broken_invariants_are_errors() {
    check_broken(&["+ a [1]", "+ b [1,2]"]);
    check_broken(&["+ a [1]", "~ unknown [1,2]"]);
    check_broken(&["~ a [1]", "* b [1,2]"]);
    check_broken(&["+ a _"]);
    check_broken(&["+ a []"]);
}

const ABC: &str = r#"
    + a [1] {"n":1} apple
    + b [4] {"n":2} banana
    + c [3] {"n":1} cherry"#;

/// A read of ids, given as JSON (the tests below change single fields).
#[track_caller]
fn check_ids(read: &str, expect: &[&[&str]]) {
    let read: Read = serde_json::from_str(read).unwrap();
    let (hits, count) = overlay(ABC).answer(&source(Some(1), Space::L2), &read).unwrap();
    let ids: Vec<Vec<&str>> = hits.iter().map(|list| list.iter().map(|hit| hit.id.as_str()).collect()).collect();
    assert_eq!(ids, expect, "{read:?}");
    let is_match = matches!(read, Read::Match { .. });
    assert_eq!(count, if is_match { ids[0].len() as u64 } else { 0 }, "count of {read:?}");
}

/// `get` in JSON: ids, filter, limit, offset.
fn get(ids: &str, filter: &str, limit: &str, offset: u64) -> String {
    format!(r#"{{"get":{{"ids":{ids},"filter":{filter},"limit":{limit},"offset":{offset},"include":{NOTHING}}}}}"#)
}

const NOTHING: &str = r#"{"embeddings":false,"documents":false,"uris":false,"metadatas":false}"#;
const ONE: &str = r#"{"metadata":{"key":"n","test":{"compare":["eq",{"int":1}]}}}"#;

#[test]
fn get_pages_through_what_ids_and_filter_leave() {
    check_ids(&get("null", "null", "null", 0), &[&["a", "b", "c"]]);
    check_ids(&get("null", "null", "1", 1), &[&["b"]]);
    check_ids(&get("null", "null", "0", 0), &[&[]]);
    check_ids(&get("null", "null", "18446744073709551615", 18446744073709551615), &[&[]]);
    check_ids(&get("null", ONE, "null", 0), &[&["a", "c"]]);
    check_ids(&get("null", ONE, "1", 1), &[&["c"]]);
    check_ids(&get(r#"["c","x","a","c"]"#, "null", "null", 0), &[&["a", "c"]]);
    check_ids(&get(r#"["c","b"]"#, ONE, "null", 0), &[&["c"]]);
    check_ids(&get("[]", "null", "null", 0), &[&[]]);
}

#[test]
fn match_names_and_counts_what_a_delete_removes() {
    let read = |ids: &str, filter: &str, limit: &str| {
        format!(r#"{{"match":{{"ids":{ids},"filter":{filter},"limit":{limit}}}}}"#)
    };
    check_ids(&read("null", ONE, "null"), &[&["a", "c"]]);
    check_ids(&read("null", ONE, "1"), &[&["a"]]);
    check_ids(&read(r#"["b","c","c","x"]"#, ONE, "null"), &[&["c"]]);
    check_ids(&read("null", ONE, "0"), &[&[]]);
}

/// `query` for the vectors [2.9] and [0], in JSON.
fn query(ids: &str, filter: &str, n_results: u64) -> Read {
    let (ids, filter) = (serde_json::from_str(ids).unwrap(), serde_json::from_str(filter).unwrap());
    Read::Query { vectors: vec![vec![2.9], vec![0.0]], n_results, ids, filter, include: Include::default() }
}

#[test]
fn query_ranks_what_ids_and_filter_leave() {
    let check = |ids, filter, n, expect| check_ids(&serde_json::to_string(&query(ids, filter, n)).unwrap(), expect);
    check("null", "null", 2, &[&["c", "b"], &["a", "c"]]);
    check("null", "null", u64::MAX, &[&["c", "b", "a"], &["a", "c", "b"]]);
    check("null", ONE, 10, &[&["c", "a"], &["a", "c"]]);
    check(r#"["b","a","b"]"#, "null", 10, &[&["b", "a"], &["a", "b"]]);
    check("null", "null", 0, &[&[], &[]]);
    check("[]", "null", 3, &[&[], &[]]);
}

#[test]
fn collections_without_vectors_have_no_neighbours() {
    let ask = |log, dimension| overlay(log).answer(&source(dimension, Space::L2), &query("null", "null", 3));
    assert_eq!(ask("", None), Ok((vec![vec![], vec![]], 0)));
    assert_eq!(ask("", Some(1)), Ok((vec![vec![], vec![]], 0)));
    assert_eq!(ask("+ a [1] \n - a", Some(1)), Ok((vec![vec![], vec![]], 0)));
    // The catalog's row was read before the first write, the log after it.
    assert_eq!(ask("+ a [1]", None).unwrap().0[0].len(), 1);
}

#[track_caller]
fn check_error(log: &str, dimension: u32, read: &Read, expect: &str) {
    let error = overlay(log).answer(&source(Some(dimension), Space::L2), read).unwrap_err();
    assert_eq!(format!("{error:?}").split('(').next().unwrap(), expect, "{error}");
}

#[test]
fn reads_that_cannot_be_answered_say_why() {
    check_error(ABC, 1, &query(r#"["a","x"]"#, "null", 1), "UnknownId");
    check_error("+ a [1] \n - a", 1, &query(r#"["a"]"#, "null", 1), "UnknownId");
    let filtered = query(r#"["a","x"]"#, r#"{"document":{"not_contains":"none has this"}}"#, 1);
    assert_eq!(overlay(ABC).answer(&source(Some(1), Space::L2), &filtered).unwrap().0[0].len(), 1);
    check_error(ABC, 1, &query("null", r#"{"document":{"regex":"("}}"#, 1), "Invalid");
    check_error("", 2, &query("null", "null", 1), "Invalid");
    check_error(ABC, 2, &query("null", "null", 1), "Corrupt");
    let wrong = Read::Query { vectors: vec![vec![]], n_results: 1, ids: None, filter: None, include: EVERYTHING };
    check_error(ABC, 1, &wrong, "Invalid");
    let error = overlay(ABC).answer(&source(Some(1), Space::L2), &wrong).unwrap_err();
    assert_eq!(error.to_string(), "Collection expecting embedding with dimension of 1, got 0");
}

#[test]
fn rows_move_up_when_most_are_dead() {
    let record = |n: usize| operation(&format!("+ id{n} [{n}]"));
    let mut overlay = Overlay::default();
    apply(&mut overlay, (0..3000).map(record)).unwrap();
    let full = overlay.bytes();
    apply(&mut overlay, (0..3000).filter(|n| n % 3 != 0).map(|n| operation(&format!("- id{n}")))).unwrap();
    assert!(overlay.bytes() < full / 2, "{} of {full} bytes kept", overlay.bytes());
    apply(&mut overlay, [record(1)]).unwrap();
    let (hits, _) = overlay.answer(&source(Some(1), Space::L2), &get_all()).unwrap();
    let expect = (0..3000).step_by(3).chain([1]).map(|n| (format!("id{n}"), Some(vec![n as f32])));
    assert!(hits.into_iter().flatten().map(|hit| (hit.id, hit.embedding)).eq(expect));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn overlay_answers_as_a_plain_list(
        log in vec(testing::operation(), 0..60),
        reads in vec(testing::read(), 1..6),
        space in select(vec![Space::L2, Space::Cosine, Space::Ip]),
    ) {
        let (mut overlay, mut plain) = (Overlay::default(), Plain::default());
        apply(&mut overlay, log.iter().cloned()).unwrap();
        log.into_iter().for_each(|operation| plain.apply(operation));
        let source = source(Some(DIMENSION), space);
        for read in &reads {
            prop_assert_eq!(overlay.answer(&source, read), plain.answer(space, read), "{:?}", read);
        }
        // What is counted as held never drifts from what is.
        let held: usize = overlay.payloads.iter().map(Row::heap_bytes).sum();
        prop_assert_eq!(overlay.payload_bytes, held);
        let held: usize = overlay.rows.iter().flatten().map(Slot::heap_bytes).sum();
        prop_assert_eq!(overlay.index_bytes, held);
        prop_assert_eq!(overlay.len(), plain.0.len());
    }

    /// A log in fragments, an overlay that is cut to size again and again while it is read, and operations that
    /// arrive in the middle of a scan: answers are those of a plain list as of the beginning of the scan.
    #[test]
    fn what_is_not_in_memory_is_read_from_the_log_again(
        log in vec(vec(testing::operation(), 0..8), 1..14),
        cuts in vec(0usize..5_000, 14),
        late in vec(testing::operation(), 0..12),
        reads in vec(testing::read(), 1..6),
        space in select(vec![Space::L2, Space::Cosine, Space::Ip]),
    ) {
        let (mut overlay, mut plain) = (Overlay::default(), Plain::default());
        for ((lsn, fragment), cut) in log.iter().enumerate().zip(&cuts) {
            overlay.apply(Lsn(lsn as u64), fragment.iter().map(Operation::view)).unwrap();
            // An error says that the index alone is larger: all else is dropped.
            let _ = overlay.fit(overlay.bytes().saturating_sub(*cut));
            fragment.iter().cloned().for_each(|operation| plain.apply(operation));
        }
        let source = source(Some(DIMENSION), space);
        for (turn, read) in reads.iter().enumerate() {
            let expect = plain.answer(space, read);
            let begun = overlay.begin(&source, read);
            let lsn = log.len() + turn;
            if let Some(operation) = late.get(turn) {
                overlay.apply(Lsn(lsn as u64), [operation.view()]).unwrap();
                plain.apply(operation.clone());
            }
            let log = || log.iter().cloned().chain(late.iter().map(|operation| vec![operation.clone()])).collect();
            let answer = begun.and_then(|begun| finish(begun, &overlay, log()));
            prop_assert_eq!(answer, expect, "{:?}", read);
        }
        let held: usize = overlay.payloads.iter().map(Row::heap_bytes).sum();
        prop_assert_eq!(overlay.payload_bytes, held);
    }
}

/// The number of a fragment.
fn number_of(origin: Origin) -> usize {
    let Origin::Log(lsn) = origin else { panic!("nothing is stored below: {origin:?}") };
    usize::try_from(lsn.0).unwrap()
}

/// Hands a scan what it asks for; each fragment at most once a pass, in order.
fn finish(begun: Begun<'_>, overlay: &Overlay, log: Vec<Vec<Operation>>) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
    let mut scan = match begun {
        Begun::Answered(hits, count) => return Ok((hits, count)),
        Begun::Scan(scan) => scan,
    };
    while let Some(origins) = scan.next_pass(overlay)? {
        assert!(!origins.is_empty() && origins.is_sorted_by(|a, b| a < b), "{origins:?}");
        for origin in origins {
            let fragment = &log[number_of(origin)];
            scan.take(origin, |index| fragment.get(index).map(Operation::view))?;
        }
    }
    scan.finish()
}

#[test]
fn a_scan_reads_only_what_it_must() {
    let log: Vec<Vec<Operation>> = (0..9).map(|n| vec![operation(&format!("+ id{n} [{n},0] {{\"n\":{n}}}"))]).collect();
    let mut overlay = Overlay::default();
    for (lsn, fragment) in log.iter().enumerate() {
        overlay.apply(Lsn(lsn as u64), fragment.iter().map(Operation::view)).unwrap();
    }
    let _ = overlay.fit(0);
    let source = source(Some(2), Space::L2);
    let passes = |read: &str| {
        let read: Read = serde_json::from_str(read).unwrap();
        let mut passes = Vec::new();
        if let Begun::Scan(mut scan) = overlay.begin(&source, &read).unwrap() {
            while let Some(origins) = scan.next_pass(&overlay).unwrap() {
                for origin in &origins {
                    let fragment = &log[number_of(*origin)];
                    scan.take(*origin, |index| fragment.get(index).map(Operation::view)).unwrap();
                }
                passes.push(origins.into_iter().map(|origin| number_of(origin) as u64).collect::<Vec<_>>());
            }
        }
        passes
    };
    let all = vec![(0..9).collect::<Vec<u64>>()];
    let documents = NOTHING.replace("\"documents\":false", "\"documents\":true");
    let metadatas = NOTHING.replace("\"metadatas\":false", "\"metadatas\":true");
    assert!(passes("\"count\"").is_empty());
    assert!(passes(&get("null", "null", "3", 2)).is_empty());
    assert_eq!(passes(&get("null", ONE, "3", 2)), all);
    // No record has a document.
    assert!(passes(&get("null", "null", "3", 2).replace(NOTHING, &documents)).is_empty());
    assert_eq!(passes(&get("null", "null", "3", 2).replace(NOTHING, &metadatas)), vec![vec![2, 3, 4]]);
    assert_eq!(passes(&get(r#"["id7","id1"]"#, "null", "null", 0).replace(NOTHING, &metadatas)), vec![vec![1, 7]]);
    let query = Read::Query {
        vectors: vec![vec![5.1, 0.0], vec![0.0, 0.0]],
        n_results: 2,
        ids: None,
        filter: None,
        include: Include { metadatas: true, ..Include::default() },
    };
    let query = serde_json::to_string(&query).unwrap();
    assert_eq!(passes(&query), [all, vec![vec![0, 1, 5, 6]]].concat());
}
