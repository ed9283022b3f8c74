//! What someone who only reads Chroma's documentation gets wrong, and no other test of the wire says.

use serde_json::{Value, json};

use super::{CHROMA, NO_ONE, NOT_FOUND, api};
use crate::harness::{Api, Collection, records};

fn get(api: &Api, collection: &Collection, body: &Value) -> Value {
    api.post(&collection.verb("get"), body).expect(200).json()
}

fn query(api: &Api, collection: &Collection, extra: Value) -> Value {
    let mut body = json!({ "query_embeddings": [[0, 0]] });
    body.as_object_mut().unwrap().append(&mut extra.as_object().unwrap().clone());
    api.post(&collection.verb("query"), &body).expect(200).json()
}

#[test]
fn a_get_is_in_the_order_of_insertion_whatever_its_ids() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["a", "b", "c"]);
    assert_eq!(get(&api, &collection, &json!({ "ids": ["c", "a", "c", "x"] }))["ids"], json!(["a", "c"]));
    assert_eq!(get(&api, &collection, &json!({ "ids": [] }))["ids"], json!([]));
    api.post(&collection.verb("delete"), &json!({ "ids": ["a"] })).expect(200);
    collection.add(&api, &["a"]);
    api.post(&collection.verb("upsert"), &records(&["b"])).expect(200);
    assert_eq!(collection.ids(&api), ["b", "c", "a"]);
}

#[test]
fn limit_0_is_nothing_and_no_limit_is_everything() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["a", "b"]);
    assert_eq!(get(&api, &collection, &json!({ "limit": 0 }))["ids"], json!([]));
    assert_eq!(get(&api, &collection, &json!({ "limit": null, "offset": 1 }))["ids"], json!(["b"]));
    assert_eq!(get(&api, &collection, &json!({ "offset": 9 }))["ids"], json!([]));
    assert_eq!(query(&api, &collection, json!({ "n_results": 0 }))["ids"], json!([[]]));
    assert_eq!(query(&api, &collection, json!({ "n_results": null }))["ids"].as_array().unwrap()[0], json!(["a", "b"]));
}

#[test]
fn an_add_changes_nothing_that_is_there_and_says_201() {
    let api = api();
    let collection = api.fresh_collection();
    let add = |document: &str| {
        let body = json!({ "ids": ["a", "a"], "embeddings": [[0, 0], [1, 1]], "documents": [document, "second"] });
        api.post(&collection.verb("add"), &body).expect(201);
    };
    add("first");
    add("third");
    assert_eq!(get(&api, &collection, &json!({}))["documents"], json!(["first"]));
}

#[test]
fn an_update_merges_metadata_and_null_removes_a_key() {
    let api = api();
    let collection = api.fresh_collection();
    let write = |verb: &str, metadata: Value| {
        let body = json!({ "ids": ["a"], "embeddings": [[0, 0]], "metadatas": [metadata] });
        api.post(&collection.verb(verb), &body).expect(if verb == "add" { 201 } else { 200 });
        get(&api, &collection, &json!({}))["metadatas"][0].clone()
    };
    assert_eq!(write("add", json!({ "a": 1, "b": 2 })), json!({ "a": 1, "b": 2 }));
    assert_eq!(write("update", json!({ "a": [1, 2], "b": null, "c": 1.0 })), json!({ "a": [1, 2], "c": 1.0 }));
    assert_eq!(write("upsert", json!({})), json!({ "a": [1, 2], "c": 1.0 }));
    assert_eq!(write("update", json!({ "a": null, "c": [] })), Value::Null);
}

#[test]
fn distances_are_squared_and_complements() {
    let api = api();
    let database = api.fresh_database();
    for (space, stored, from, expect) in
        [("l2", [4, 4], [1, 0], 25.0), ("ip", [3, 4], [1, 2], -10.0), ("cosine", [3, 4], [6, 8], 0.0)]
    {
        let new = json!({ "name": format!("in-{space}"), "configuration": { "hnsw": { "space": space } } });
        let row = api.post(&format!("{database}/collections"), &new).expect(200).json();
        let path = format!("{database}/collections/{}", row["id"].as_str().unwrap());
        api.post(&format!("{path}/add"), &json!({ "ids": ["a"], "embeddings": [stored] })).expect(201);
        let found = api.post(&format!("{path}/query"), &json!({ "query_embeddings": [from] })).expect(200).json();
        let distance = found["distances"][0][0].as_f64().unwrap();
        assert!((distance - expect).abs() < 1e-6, "{space}: {found}");
    }
}

#[test]
fn an_unknown_id_in_a_query_is_500_unless_there_is_a_filter() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["a"]);
    let body = json!({ "query_embeddings": [[0, 0]], "ids": ["a", "gone"] });
    let reply = api.post(&collection.verb("query"), &body);
    reply.expect_error(500, "InternalError", "Error executing plan: Internal error: Error finding id");
    let filtered = json!({ "ids": ["a", "gone"], "where": { "k": { "$ne": 1 } } });
    assert_eq!(query(&api, &collection, filtered)["ids"], json!([["a"]]));
    assert_eq!(query(&api, &collection, json!({ "ids": [] }))["ids"], json!([[]]));
}

#[test]
fn get_or_create_changes_nothing_that_is_there() {
    let api = api();
    let collections = format!("{}/collections", api.fresh_database());
    let first = api.post(&collections, &json!({ "name": "one", "metadata": { "a": 1 } })).expect(200).json();
    let again = json!({ "name": "one", "get_or_create": true, "metadata": { "b": 2 },
                        "configuration": { "hnsw": { "space": "ip" } } });
    assert_eq!(api.post(&collections, &again).expect(200).json(), first);
    api.post(&collections, &json!({ "name": "one" })).expect_error(409, CHROMA, "Collection [one] already exists");
}

#[test]
fn a_deleted_database_takes_its_collections_along() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["a"]);
    let database = collection.path.split_once("/collections/").unwrap().0;
    api.call("DELETE", database, None).expect(200);
    let gone = format!("Collection [{}] does not exist.", collection.id);
    api.post(&collection.verb("get"), &json!({})).expect_error(404, NOT_FOUND, &gone);
    api.post(&collection.verb("add"), &records(&["b"])).expect_error(404, NOT_FOUND, &gone);
    api.get(&format!("{database}/collections/records")).expect_error(
        404,
        NOT_FOUND,
        "Collection [records] does not exist",
    );
    assert_eq!(api.get(&format!("{database}/collections")).expect(200).json(), json!([]));
}

#[test]
fn include_is_answered_as_it_was_sent() {
    let api = api();
    let collection = api.fresh_collection();
    let include = json!(["uris", "documents", "uris"]);
    assert_eq!(get(&api, &collection, &json!({ "include": include }))["include"], include);
}

#[test]
fn arrays_in_a_collections_metadata_are_kept() {
    let api = api();
    let collections = format!("{}/collections", api.fresh_database());
    let metadata = json!({ "tags": ["a", "b"], "weights": [1.0, 2.5], "one": 1 });
    api.post(&collections, &json!({ "name": "one", "metadata": metadata })).expect(200);
    assert_eq!(api.get(&format!("{collections}/one")).expect(200).json()["metadata"], metadata);
}

#[test]
fn what_is_not_built_says_so_as_the_single_node_server_does() {
    let api = api();
    let collection = api.fresh_collection();
    let search = api.post(&collection.verb("search"), &json!({ "searches": [{}] }));
    search.expect_error(501, CHROMA, "Search operation is not implemented for local executor");
    let fork = api.post(&collection.verb("fork"), &json!({ "new_name": "copy" }));
    fork.expect_error(501, CHROMA, "Collection forking is unsupported for local chroma");
    api.get(&collection.verb("fork_count")).expect_error(501, CHROMA, "Count forks is unsupported for local chroma");
    let nowhere = collection.path.replace(&collection.id, NO_ONE);
    api.get(&format!("{nowhere}/fork_count")).expect_error(404, NOT_FOUND, "does not exist.");
}

#[test]
fn a_head_is_answered_like_a_get_without_its_body() {
    let api = api();
    for path in ["/api/v2/version", "/api/v2/heartbeat"] {
        let reply = api.call("HEAD", path, None).expect(200);
        assert!(reply.body.is_empty(), "{reply:?}");
    }
    let missing = format!("{}/collections/nope", api.fresh_database());
    assert!(api.call("HEAD", &missing, None).expect(404).body.is_empty());
}
