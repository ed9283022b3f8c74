//! Tenants, databases, collections.

use serde_json::{Value, json};

use super::{CHROMA, INVALID, NO_ONE, NOT_FOUND, WRONG_SHAPE, all_refused, api};
use crate::harness::{records, unique_name};

const BAD_ID: &str = "Collection ID is not a valid UUIDv4";

#[test]
fn tenants_are_made_once_and_found_by_name() {
    let api = api();
    let name = unique_name("tenant");
    let path = format!("/api/v2/tenants/{name}");
    api.get(&path).expect_error(404, NOT_FOUND, &format!("Tenant [{name}] not found"));
    let body = json!({ "name": name });
    assert_eq!(api.post("/api/v2/tenants", &body).expect(200).json(), json!({}));
    api.post("/api/v2/tenants", &body).expect_error(409, CHROMA, &format!("Tenant [{name}] already exists"));
    assert_eq!(api.get(&path).expect(200).json(), json!({ "name": name, "resource_name": null }));
    api.post("/api/v2/tenants", &json!({ "name": "ab" })).expect_error(400, INVALID, "");
}

#[test]
fn a_tenants_name_may_be_any_text() {
    let api = api();
    let name = unique_name("größe/ 100% ?#");
    api.post("/api/v2/tenants", &json!({ "name": name })).expect(200);
    let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(api.get(&format!("/api/v2/tenants/{encoded}")).expect(200).json()["name"], name);
}

#[test]
fn databases_are_made_listed_found_and_deleted() {
    let api = api();
    let databases = format!("/api/v2/tenants/{}/databases", unique_name("tenant"));
    assert_eq!(api.get(&databases).expect(200).json(), json!([]), "an unknown tenant has none");
    assert_eq!(api.post(&databases, &json!({ "name": "one" })).expect(200).json(), json!({}));
    api.post(&databases, &json!({ "name": "one" })).expect_error(409, CHROMA, "Database [one] already exists");
    all_refused(
        &api,
        &databases,
        &[json!({ "name": "ab" }), json!({ "name": "a b" })],
        400,
        INVALID,
        "Expected a name",
    );

    let one = api.get(&format!("{databases}/one")).expect(200).json();
    assert_eq!(one["name"], "one");
    let members: Vec<&String> = one.as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "name", "tenant"]);
    assert_eq!(api.get(&databases).expect(200).json(), json!([one]));
    assert_eq!(api.get(&format!("{databases}?limit=0")).expect(200).json(), json!([]));

    let missing = format!("{databases}/two");
    api.get(&missing).expect_error(404, NOT_FOUND, "Database [two] not found. Are you sure it exists?");
    api.call("DELETE", &missing, None).expect_error(404, NOT_FOUND, "Database [two] not found");
    api.get(&format!("{databases}/ab")).expect_error(400, INVALID, "database name must be at least 3 characters");
    assert_eq!(api.call("DELETE", &format!("{databases}/one"), None).expect(200).json(), json!({}));
    api.get(&format!("{databases}/one")).expect_error(404, NOT_FOUND, "");
}

#[test]
fn a_collection_object_has_all_its_members() {
    let api = api();
    let database = api.fresh_database();
    let made = api.post(&format!("{database}/collections"), &json!({ "name": "letters" })).expect(200).json();
    let mut members: Vec<&String> = made.as_object().unwrap().keys().collect();
    members.sort();
    let expected = "configuration_json database dimension id log_position metadata name schema tenant version";
    assert_eq!(members, expected.split(' ').collect::<Vec<_>>());
    assert_eq!((&made["name"], &made["metadata"], &made["dimension"]), (&json!("letters"), &Value::Null, &Value::Null));
    let configuration = made["configuration_json"].as_object().unwrap();
    assert!(configuration["hnsw"].is_object() != configuration["spann"].is_object(), "{configuration:?}");
    let index = if configuration["hnsw"].is_object() { &configuration["hnsw"] } else { &configuration["spann"] };
    assert_eq!(index["space"], "l2");
    assert_eq!(made["schema"]["keys"]["#document"]["string"]["fts_index"], json!({ "enabled": true, "config": {} }));
    assert_eq!(made["schema"]["defaults"]["int"]["int_inverted_index"], json!({ "enabled": true, "config": {} }));

    let id = made["id"].as_str().unwrap();
    for path in ["letters".to_owned(), format!("by-id/{id}")] {
        assert_eq!(api.get(&format!("{database}/collections/{path}")).expect(200).json(), made);
    }
    assert_eq!(api.get(&format!("{database}/collections")).expect(200).json(), json!([made]));
    assert_eq!(api.get(&format!("{database}/collections_count")).expect(200).json(), 1);
}

#[test]
fn a_collection_is_found_by_name_in_some_places_and_by_id_in_others() {
    let api = api();
    let database = api.fresh_database();
    let collections = format!("{database}/collections");
    let id =
        api.post(&collections, &json!({ "name": "letters" })).expect(200).json()["id"].as_str().unwrap().to_owned();

    let by_id_as_name = format!("Collection [{id}] does not exist");
    api.get(&format!("{collections}/{id}")).expect_error(404, NOT_FOUND, &by_id_as_name);
    api.call("DELETE", &format!("{collections}/{id}"), None).expect_error(404, NOT_FOUND, &by_id_as_name);
    api.get(&format!("{collections}/nothing")).expect_error(404, NOT_FOUND, "Collection [nothing] does not exist");
    api.get(&format!("{collections}/by-id/{NO_ONE}")).expect_error(404, NOT_FOUND, "does not exist");
    api.get(&format!("{collections}/by-id/letters")).expect_error(
        400,
        INVALID,
        "Invalid collection ID format, expected UUID",
    );

    let nothing = json!({});
    let put = |id: &str| api.call("PUT", &format!("{collections}/{id}"), Some(&nothing));
    put("letters").expect_error(400, INVALID, BAD_ID);
    put(NO_ONE).expect_error(404, NOT_FOUND, &format!("Collection [{NO_ONE}] does not exist."));
    assert_eq!(put(&id).expect(200).json(), json!({}));

    let no_one = format!("Collection [{NO_ONE}] does not exist.");
    for (verb, body) in [
        ("add", records(&["a"])),
        ("upsert", records(&["a"])),
        ("update", records(&["a"])),
        ("delete", json!({ "ids": ["a"] })),
        ("get", json!({})),
        ("query", json!({ "query_embeddings": [[1, 2]] })),
    ] {
        api.post(&format!("{collections}/letters/{verb}"), &body).expect_error(400, INVALID, BAD_ID);
        api.post(&format!("{collections}/{NO_ONE}/{verb}"), &body).expect_error(404, NOT_FOUND, &no_one);
    }
    api.get(&format!("{collections}/letters/count")).expect_error(400, INVALID, BAD_ID);
    api.get(&format!("{collections}/{NO_ONE}/count")).expect_error(404, NOT_FOUND, &no_one);
}

/// (The original does not look.)
#[test]
fn a_collection_is_not_found_under_another_database() {
    let api = api();
    let (mine, other) = (api.fresh_collection(), api.fresh_database());
    mine.add(&api, &["a"]);
    let path = format!("{other}/collections/{}", mine.id);
    let message = format!("Collection [{}] does not exist.", mine.id);
    api.get(&format!("{path}/count")).expect_error(404, NOT_FOUND, &message);
    api.post(&format!("{path}/get"), &json!({})).expect_error(404, NOT_FOUND, &message);
    api.post(&format!("{path}/add"), &records(&["b"])).expect_error(404, NOT_FOUND, &message);
    assert_eq!(mine.ids(&api), ["a"]);
}

#[test]
fn creating_a_collection_is_checked() {
    let api = api();
    let database = api.fresh_database();
    let collections = format!("{database}/collections");
    api.post(&collections, &json!({ "name": "taken" })).expect(200);
    api.post(&collections, &json!({ "name": "taken" })).expect_error(409, CHROMA, "Collection [taken] already exists");
    for name in ["", "ab", "a b", "-abc", "abc_", "a..b", "10.0.0.1", "ärger"] {
        let reply = api.post(&collections, &json!({ "name": name }));
        reply.expect_error(400, INVALID, "Validation error: name: Expected a name");
    }
    let nowhere = format!("{}/collections", database.replace("/main", "/nowhere"));
    api.post(&nowhere, &json!({ "name": "letters" })).expect_error(400, INVALID, "Database [nowhere] does not exist");

    let with = |configuration: Value| json!({ "name": "other", "configuration": configuration });
    let both = with(json!({ "hnsw": { "space": "l2" }, "spann": { "space": "l2" } }));
    api.post(&collections, &both).expect_error(400, INVALID, "Multiple vector index configurations provided");
    let unknown = [with(json!({ "hnsw": { "speed": 1 } })), with(json!({ "hnsw": { "space": "flat" } }))];
    all_refused(&api, &collections, &unknown, 422, CHROMA, WRONG_SHAPE);
    assert_eq!(api.get(&format!("{database}/collections_count")).expect(200).json(), 1);
}

#[test]
fn an_unknown_database_has_no_collections() {
    let api = api();
    let nowhere = api.fresh_database().replace("/main", "/nowhere");
    assert_eq!(api.get(&format!("{nowhere}/collections")).expect(200).json(), json!([]));
    assert_eq!(api.get(&format!("{nowhere}/collections_count")).expect(200).json(), 0);
    api.get(&format!("{nowhere}/collections/letters")).expect_error(404, NOT_FOUND, "");
}

#[test]
fn collections_are_listed_in_pages() {
    let api = api();
    let collections = format!("{}/collections", api.fresh_database());
    for name in ["one", "two", "three"] {
        api.post(&collections, &json!({ "name": name })).expect(200);
    }
    let count = |page: &str| api.get(&format!("{collections}{page}")).expect(200).json().as_array().unwrap().len();
    let pages = ["", "?limit=2", "?limit=2&offset=2", "?offset=1", "?limit=0", "?offset=9"];
    assert_eq!(pages.map(count), [3, 2, 1, 2, 0, 0]);
}

/// The catalog answers at most 10 MB at once.
#[test]
fn collections_with_much_metadata_are_listed_all_the_same() {
    let api = api();
    let collections = format!("{}/collections", api.fresh_database());
    let names: Vec<String> = (10..22).map(|number| format!("large-{number}")).collect();
    for name in &names {
        let body = json!({ "name": name, "metadata": { "text": "x".repeat(1_000_000) } });
        api.post(&collections, &body).expect(200);
    }
    let listed = api.get(&collections).expect(200).json();
    let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
    let more = json!({ "name": "larger", "metadata": { "text": "x".repeat(1 << 20) } });
    api.post(&collections, &more).expect_error(400, INVALID, "A collection's metadata takes at most");
}

#[test]
fn changing_a_collection_replaces_its_metadata() {
    let api = api();
    let collections = format!("{}/collections", api.fresh_database());
    let body = json!({ "name": "letters", "metadata": { "a": 1, "b": 2.0 } });
    let made = api.post(&collections, &body).expect(200).json();
    let path = format!("{collections}/{}", made["id"].as_str().unwrap());
    let change = json!({ "new_name": "post", "new_metadata": { "c": true }, "new_configuration": null });
    assert_eq!(api.call("PUT", &path, Some(&change)).expect(200).json(), json!({}));
    let got = api.get(&format!("{collections}/post")).expect(200).json();
    assert_eq!((&got["id"], &got["metadata"]), (&made["id"], &json!({ "c": true })));
    api.call("PUT", &path, Some(&json!({ "new_metadata": {} }))).expect_error(400, INVALID, "");
    api.call("PUT", &path, Some(&json!({ "new_name": "a b" }))).expect_error(400, INVALID, "Expected a name");
    assert_eq!(api.get(&format!("{collections}/post")).expect(200).json()["metadata"], json!({ "c": true }));
}

#[test]
fn floats_stay_floats_and_ints_stay_ints() {
    let api = api();
    let collections = format!("{}/collections", api.fresh_database());
    let body =
        r#"{"name": "letters", "metadata": {"float": 1.0, "int": 1, "least": -9223372036854775808, "bool": true}}"#;
    super::post_raw(&api, &collections, body).expect(200);
    let got = api.get(&format!("{collections}/letters")).expect(200);
    let text = String::from_utf8_lossy(&got.body);
    for member in [r#""float":1.0"#, r#""int":1"#, r#""least":-9223372036854775808"#, r#""bool":true"#] {
        assert!(text.contains(&format!("{member},")) || text.contains(&format!("{member}}}")), "no {member} in {text}");
    }
}
