//! Answers byte by byte, as Chroma's own server sent them.

use super::*;
use model::{CollectionId, Configuration, LogEnd};
use serde_json::json;

#[track_caller]
fn check(body: Bytes, expect: &str) {
    assert_eq!(std::str::from_utf8(&body).unwrap(), expect);
}

fn include(list: &[&str]) -> IncludeList {
    serde_json::from_value(json!(list)).expect("the test's own list")
}

fn hit(id: &str) -> Hit {
    serde_json::from_value(json!({ "id": id })).expect("a hit needs an id only")
}

fn full_hit() -> Hit {
    Hit {
        distance: Some(2.814_749_1e14),
        embedding: Some(vec![0.1, 16_777_216.0, 1e-9, 1.0]),
        document: Some("d \"q\"".into()),
        uri: Some("u".into()),
        metadata: serde_json::from_value(json!({"i": 1, "f": 1.0, "b": true, "chroma:foo": 1, "a": [1.0, 2.5]}))
            .unwrap(),
        ..hit("a")
    }
}

fn answer(hits: Vec<Vec<Hit>>) -> Answer {
    Answer { end: LogEnd::EMPTY, hits, count: 0, explain: None }
}

#[test]
fn a_get_has_every_member_and_null_for_what_was_not_asked() {
    let answer = answer(vec![vec![full_hit(), hit("b")]]);
    check(
        get(&answer, &include(&["documents", "metadatas"])),
        r#"{"ids":["a","b"],"embeddings":null,"documents":["d \"q\"",null],"uris":null,"metadatas":[{"a":[1.0,2.5],"b":true,"f":1.0,"i":1},null],"include":["documents","metadatas"]}"#,
    );
    check(
        get(&answer, &include(&["embeddings", "uris", "embeddings", "distances"])),
        r#"{"ids":["a","b"],"embeddings":[[0.1,16777216.0,1e-9,1.0],null],"documents":null,"uris":["u",null],"metadatas":null,"include":["embeddings","uris","embeddings","distances"]}"#,
    );
    let nothing = r#"{"ids":[],"embeddings":null,"documents":null,"uris":null,"metadatas":null,"include":[]}"#;
    check(get(&self::answer(vec![]), &include(&[])), nothing);
}

#[test]
fn metadata_of_hidden_keys_only_is_an_empty_object() {
    let metadata = serde_json::from_value(json!({"chroma:foo": 1})).unwrap();
    let answer = answer(vec![vec![Hit { metadata, ..hit("a") }]]);
    check(
        get(&answer, &include(&["metadatas"])),
        r#"{"ids":["a"],"embeddings":null,"documents":null,"uris":null,"metadatas":[{}],"include":["metadatas"]}"#,
    );
}

#[test]
fn a_query_nests_by_vector() {
    let answer = answer(vec![vec![full_hit()], vec![]]);
    check(
        query(&answer, &include(&["documents", "distances"])),
        r#"{"ids":[["a"],[]],"embeddings":null,"documents":[["d \"q\""],[]],"uris":null,"metadatas":null,"distances":[[2.8147491e+14],[]],"include":["documents","distances"]}"#,
    );
    let nothing =
        r#"{"ids":[],"embeddings":null,"documents":null,"uris":null,"metadatas":null,"distances":null,"include":[]}"#;
    check(query(&self::answer(vec![]), &include(&[])), nothing);
}

#[test]
fn floats_read_back_as_they_were() {
    let vector: Vec<f32> =
        (0..1000_u32).map(|i| f32::from_bits(0x3f80_0000 ^ i.wrapping_mul(2_654_435_761) >> 9)).collect();
    let answer = answer(vec![vec![Hit { embedding: Some(vector.clone()), ..hit("a") }]]);
    let body: serde_json::Value = serde_json::from_slice(&get(&answer, &include(&["embeddings"]))).unwrap();
    let back: Vec<f32> = serde_json::from_value(body["embeddings"][0].clone()).unwrap();
    assert_eq!(back, vector);
}

#[test]
fn the_small_answers() {
    check(empty(), "{}");
    check(count(4), "4");
    check(deleted(2), r#"{"deleted":2}"#);
    check(reset(), "true");
    check(heartbeat(Timestamp(1_795_335_392_660)), r#"{"nanosecond heartbeat":1795335392660000000}"#);
    check(version(), r#""1.0.0""#);
    check(preflight(), r#"{"max_batch_size":5461,"supports_base64_encoding":true}"#);
    let (status, body) = healthcheck(true, false);
    assert_eq!((status, healthcheck(true, true).0), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
    check(body, r#"{"is_executor_ready":true,"is_log_client_ready":false}"#);
    check(
        identity("", "default_tenant", &["default_database"]),
        r#"{"user_id":"","tenant":"default_tenant","databases":["default_database"]}"#,
    );
    check(tenant("t"), r#"{"name":"t","resource_name":null}"#);
    let row = DatabaseRow { id: 0, name: "d".into(), tenant: "t".into() };
    check(database(&row), r#"{"id":"00000000-0000-0000-0000-000000000000","name":"d","tenant":"t"}"#);
    check(databases(&[row]), r#"[{"id":"00000000-0000-0000-0000-000000000000","name":"d","tenant":"t"}]"#);
    check(databases(&[]), "[]");
}

#[test]
fn answers_are_json() {
    let response = json(StatusCode::CREATED, empty());
    assert_eq!(
        (response.status().as_u16(), &response.headers()[CONTENT_TYPE]),
        (201, &"application/json".parse().unwrap())
    );
}

#[test]
fn a_collection_shows_what_clients_read() {
    let row = model::CollectionRow {
        id: CollectionId::from_u128(5),
        name: "n".into(),
        tenant: "t".into(),
        database: "d".into(),
        metadata: Some(serde_json::from_value(json!({"i": 1, "f": 1.0})).unwrap()),
        configuration: Configuration {
            embedding_function: Some(json!({"type": "legacy"})),
            ..Configuration::default()
        },
        schema: json!({}),
        dimension: Some(3),
        generation: 2,
        manifest: model::Manifest {
            compacted: model::LogEnd { next: model::Lsn(1), operations: 5, ..model::LogEnd::EMPTY },
            ..model::Manifest::default()
        },
        gc_floor: model::Lsn::ZERO,
        gc_epoch: 0,
    };
    let expect = r#"{"id":"00000000-0000-0000-0000-000000000005","name":"n","configuration_json":{"hnsw":{"space":"l2","ef_construction":100,"ef_search":100,"max_neighbors":16,"resize_factor":1.2,"sync_threshold":1000},"spann":null,"embedding_function":{"type":"legacy"}},"schema":{},"metadata":{"f":1.0,"i":1},"dimension":3,"tenant":"t","database":"d","log_position":5,"version":2}"#;
    check(crate::wire::collections::collection(&row), expect);
    check(crate::wire::collections::collections(&[row.clone(), row]), &format!("[{expect},{expect}]"));
}
