//! Records: statuses, answers, refusals.

use serde_json::{Value, json};

use super::{INVALID, all_refused, api, post_raw};
use crate::harness::records;

#[test]
fn writes_answer_as_documented() {
    let api = api();
    let collection = api.fresh_collection();
    let write = |verb: &str, body: &Value| api.post(&collection.verb(verb), body);
    let nothing = json!({ "ids": [], "embeddings": [] });
    assert_eq!(write("add", &records(&["a", "b"])).expect(201).json(), json!({}));
    assert_eq!(write("upsert", &records(&["c"])).expect(200).json(), json!({}));
    assert_eq!(write("update", &records(&["a"])).expect(200).json(), json!({}));
    write("add", &nothing).expect(201);
    write("upsert", &nothing).expect(200);
    write("update", &nothing).expect(200);
    assert_eq!(write("delete", &json!({ "ids": ["a", "a", "x"] })).expect(200).json(), json!({ "deleted": 3 }));
    assert_eq!(write("delete", &json!({})).expect(200).json(), json!({ "deleted": 0 }));
    assert_eq!(collection.ids(&api), ["b", "c"]);
}

#[test]
fn writes_are_checked_before_anything_is_written() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["kept"]);
    let check = |bodies: &[Value], message: &str| {
        all_refused(&api, &collection.verb("add"), bodies, 400, INVALID, message);
        all_refused(&api, &collection.verb("upsert"), bodies, 400, INVALID, message);
    };
    let one = json!([[1, 2]]);
    check(
        &[
            json!({ "ids": ["a", "b"], "embeddings": one }),
            json!({ "ids": ["a"], "embeddings": one, "documents": ["a", "b"] }),
            json!({ "ids": ["a"], "embeddings": one, "metadatas": [] }),
            json!({ "ids": ["a"], "embeddings": one, "uris": ["a", "b"] }),
        ],
        "Inconsistent number of IDs, embeddings, documents, URIs and metadatas",
    );
    check(&[json!({ "ids": [""], "embeddings": one })], "Empty ID, ID must have at least one character");
    check(
        &[json!({ "ids": ["a"], "embeddings": [[1, 2, 3]] })],
        "Collection expecting embedding with dimension of 2, got 3",
    );
    check(
        &[json!({ "ids": ["a", "b"], "embeddings": [[1, 2], [1]] })],
        "Inconsistent dimensions in provided embeddings",
    );
    check(&[json!({ "ids": ["a"], "embeddings": [[]] })], "Each embedding must have at least 1 dimension");
    check(&[json!({ "ids": ["a"], "embeddings": [[1e39, 1]] })], "Embeddings must not contain NaN or Infinity values");
    for key in ["", "#a", "$a"] {
        check(&[json!({ "ids": ["a"], "embeddings": one, "metadatas": [{ key: 1 }] })], "Invalid metadata at index 0");
    }
    assert_eq!(collection.ids(&api), ["kept"]);
}

#[test]
fn vectors_may_come_as_base64() {
    let api = api();
    let collection = api.fresh_collection();
    let add = |vector: &str| api.post(&collection.verb("add"), &json!({ "ids": ["a"], "embeddings": [vector] }));
    for (bad, message) in [
        ("!", "Invalid base64 string: "),
        ("AAAA", "Invalid byte length: 3 bytes cannot be converted to f32 values (must be divisible by 4)"),
        ("AADAfw==", "Non-finite float value at embedding index 0: NaN"),
    ] {
        add(bad).expect_error(400, INVALID, message);
    }
    add("AACAPwAAAMA=").expect(201);
    let got = api.post(&collection.verb("get"), &json!({ "include": ["embeddings"] })).expect(200).json();
    assert_eq!(got["embeddings"], json!([[1.0, -2.0]]));
    let mixed = json!({ "ids": ["a", "b"], "embeddings": [null, "AACAPwAAAMA="] });
    api.post(&collection.verb("update"), &mixed).expect(200);
}

#[test]
fn deletes_are_checked() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["a"]);
    let delete = |body: Value| api.post(&collection.verb("delete"), &body);
    delete(json!({ "ids": [] })).expect_error(400, INVALID, "Either ids or where must be specified");
    let limit_alone = delete(json!({ "ids": ["a"], "limit": 1 }));
    limit_alone.expect_error(400, INVALID, "limit can only be specified when a where clause is provided");
    let none = delete(json!({ "where": { "k": { "$ne": 1 } }, "limit": 0 })).expect(200).json();
    assert_eq!(none, json!({ "deleted": 0 }));
    assert_eq!(collection.ids(&api), ["a"]);
}

#[test]
fn an_answer_to_get_has_all_its_members() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["a"]);
    let get = |body: Value| api.post(&collection.verb("get"), &body).expect(200).json();
    assert_eq!(
        get(json!({})),
        json!({ "ids": ["a"], "embeddings": null, "documents": ["a"], "uris": null, "metadatas": [null],
                "include": ["documents", "metadatas"] })
    );
    let include = json!(["uris", "embeddings", "uris"]);
    assert_eq!(
        get(json!({ "include": include })),
        json!({ "ids": ["a"], "embeddings": [[0.0, 1.0]], "documents": null, "uris": [null], "metadatas": null,
                "include": include })
    );
    for nothing in [json!({ "ids": [] }), json!({ "limit": 0 }), json!({ "offset": 5 }), json!({ "ids": ["x"] })] {
        assert_eq!(get(nothing)["ids"], json!([]));
    }
    assert_eq!(get(json!({ "ids": ["a", "a"], "include": [] }))["ids"], json!(["a"]));
}

#[test]
fn an_answer_to_query_has_all_its_members() {
    let api = api();
    let collection = api.fresh_collection();
    let query = |body: Value| api.post(&collection.verb("query"), &body);
    let empty = query(json!({ "query_embeddings": [[1, 2], [3, 4]] })).expect(200).json();
    assert_eq!((&empty["ids"], &empty["distances"]), (&json!([[], []]), &json!([[], []])));
    let uneven = query(json!({ "query_embeddings": [[1, 2], [3]] }));
    uneven.expect_error(400, INVALID, "Inconsistent dimensions in provided embeddings");

    collection.add(&api, &["a", "b"]);
    assert_eq!(
        query(json!({ "query_embeddings": [[0, 1]] })).expect(200).json(),
        json!({ "ids": [["a", "b"]], "distances": [[0.0, 1.0]], "documents": [["a", "b"]], "embeddings": null,
                "metadatas": [[null, null]], "uris": null, "include": ["documents", "metadatas", "distances"] })
    );
    assert_eq!(query(json!({ "query_embeddings": [[0, 1]], "n_results": 0 })).expect(200).json()["ids"], json!([[]]));
    assert_eq!(query(json!({ "query_embeddings": [] })).expect(200).json()["ids"], json!([]));
    assert_eq!(query(json!({ "query_embeddings": [[0, 1]], "ids": [] })).expect(200).json()["ids"], json!([[]]));
    for (vector, got) in [(json!([1, 2, 3]), 3), (json!([]), 0)] {
        let message = format!("Collection expecting embedding with dimension of 2, got {got}");
        query(json!({ "query_embeddings": [vector] })).expect_error(400, INVALID, &message);
    }
    let unknown = query(json!({ "query_embeddings": [[0, 1]], "ids": ["a", "nobody"] }));
    unknown.expect_error(500, "InternalError", "Error finding id");
}

#[test]
fn count_takes_every_read_level() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["a"]);
    assert_eq!(api.get(&collection.verb("count")).expect(200).json(), 1);
    assert_eq!(api.get(&collection.verb("count?read_level=index_and_wal")).expect(200).json(), 1);
    for level in ["index_only", "index_and_bounded_wal"] {
        api.get(&collection.verb(&format!("count?read_level={level}"))).expect(200);
    }
}

#[test]
fn bad_filters_are_400() {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["a"]);
    let wheres = [
        json!({}),
        json!([]),
        json!("x"),
        json!({ "k": null }),
        json!({ "a": 1, "b": 2 }),
        json!({ "k": { "$like": "x" } }),
        json!({ "k": { "$gt": "x" } }),
        json!({ "k": { "$gt": 1, "$lt": 2 } }),
        json!({ "k": { "$in": [] } }),
        json!({ "k": { "$in": [1, "a"] } }),
        json!({ "k": { "$in": [1, 1.5] } }),
        json!({ "$not": [{ "k": 1 }] }),
        json!({ "$and": { "k": 1 } }),
    ];
    let documents =
        [json!({}), json!({ "$contains": 1 }), json!({ "$like": "x" }), json!({ "$contains": "a", "$regex": "b" })];
    for (verb, body) in [("get", json!({})), ("query", json!({ "query_embeddings": [[0, 1]] })), ("delete", json!({}))]
    {
        let with = |part: &str, filter: &Value| {
            let mut body = body.clone();
            body[part] = filter.clone();
            body
        };
        let bodies: Vec<Value> = wheres.iter().map(|filter| with("where", filter)).collect();
        all_refused(&api, &collection.verb(verb), &bodies, 400, INVALID, "Invalid where clause");
        let bodies: Vec<Value> = documents.iter().map(|filter| with("where_document", filter)).collect();
        all_refused(&api, &collection.verb(verb), &bodies, 400, INVALID, "Invalid where document clause");
        for pattern in ["(", "(?=x)", r"(a)\1"] {
            let body = with("where_document", &json!({ "$regex": pattern }));
            api.post(&collection.verb(verb), &body).expect_error(400, INVALID, "Regex syntax errror");
        }
    }
    assert_eq!(collection.ids(&api), ["a"]);
}

#[test]
fn what_a_schema_switches_off_cannot_be_filtered_by() {
    let (api, off) = (api(), json!({ "enabled": false, "config": {} }));
    let no_text = json!({ "string": { "fts_index": off } });
    let no_numbers = json!({ "int": { "int_inverted_index": off } });
    let schema = json!({ "defaults": no_numbers, "keys": { "#document": no_text } });
    let path = format!("{}/collections", api.fresh_database());
    let made = api.post(&path, &json!({ "name": "off", "schema": schema })).expect(200).json();
    let verb = |verb: &str| format!("{path}/{}/{verb}", made["id"].as_str().unwrap());
    let record =
        json!({ "ids": ["a"], "embeddings": [[1, 2]], "documents": ["text"], "metadatas": [{ "k": 1, "s": "x" }] });
    api.post(&verb("add"), &record).expect(201);
    for (filter, message) in [
        (
            json!({ "where": { "$or": [{ "s": "x" }, { "k": { "$gt": 0 } }] } }),
            "Cannot filter using metadata key 'k' with type 'Int' because indexing is disabled",
        ),
        (
            json!({ "where_document": { "$contains": "t" } }),
            "Cannot filter using full-text search because FTS indexing is disabled",
        ),
    ] {
        let mut query = filter.clone();
        query["query_embeddings"] = json!([[1, 2]]);
        for (route, body) in [("get", &filter), ("delete", &filter), ("query", &query)] {
            api.post(&verb(route), body).expect_error(400, INVALID, message);
        }
    }
    let others = json!({ "where": { "s": "x" } });
    assert_eq!(api.post(&verb("get"), &others).expect(200).json()["ids"], json!(["a"]));
}

#[test]
fn metadata_numbers_come_back_as_they_were_written() {
    let api = api();
    let collection = api.fresh_collection();
    let body = r#"{"ids": ["a"], "embeddings": [[1]], "metadatas": [
        {"float": 1.0, "int": 1, "least": -9223372036854775808, "most": 9223372036854775807,
         "beyond": 9223372036854775808, "list": [1.0, 2], "bool": false, "tiny": 5e-324}]}"#;
    post_raw(&api, &collection.verb("add"), body).expect(201);
    let got = api.post(&collection.verb("get"), &json!({})).expect(200);
    let text = String::from_utf8_lossy(&got.body);
    for member in [
        r#""float":1.0"#,
        r#""int":1"#,
        r#""least":-9223372036854775808"#,
        r#""most":9223372036854775807"#,
        r#""list":[1.0,2.0]"#,
        r#""bool":false"#,
        r#""tiny":5e-324"#,
    ] {
        assert!(text.contains(&format!("{member},")) || text.contains(&format!("{member}}}")), "no {member} in {text}");
    }
    let beyond = &got.json()["metadatas"][0]["beyond"];
    assert!(beyond.is_f64() && beyond.as_f64() == Some(9_223_372_036_854_775_808.0), "{text}");
}
