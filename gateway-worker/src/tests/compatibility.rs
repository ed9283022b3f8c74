//! What the differential test against Chroma's own server brought to light, a test each.

use super::*;

impl World {
    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send_with(&self.memory, &Nothing, "GET", path, Value::Null).await
    }

    async fn dimension(&self, name: &str) -> Value {
        self.get(&format!("/{name}")).await.1["dimension"].clone()
    }
}

#[tokio::test]
async fn vectors_fix_the_dimension_whatever_becomes_of_their_records() {
    let world = World::new();
    let sparse = json!({"s": {"#type": "sparse_vector", "indices": [1], "values": [1.0]}});
    let writes = [
        ("update", json!({"ids": ["unknown"], "embeddings": [[1.0, 2.0]]}), 200, json!(2)),
        ("add", json!({"ids": ["a", "b"], "embeddings": [[1.0, 2.0]]}), 400, json!(2)),
        ("add", json!({"ids": [], "embeddings": [[1.0, 2.0]]}), 400, json!(2)),
        ("add", json!({"ids": [""], "embeddings": [[1.0, 2.0]]}), 400, json!(2)),
        ("add", json!({"ids": ["a"], "embeddings": [[1.0, 2.0]], "metadatas": [sparse]}), 501, json!(2)),
        ("add", json!({"ids": ["a"], "embeddings": [[1.0, 2.0]], "metadatas": [{"#s": 1}]}), 400, Value::Null),
        ("add", json!({"ids": [], "embeddings": []}), 201, Value::Null),
    ];
    for (number, (verb, body, status, dimension)) in writes.into_iter().enumerate() {
        let name = format!("docs{number}");
        let collection = world.collection(&name).await;
        let answer = world.post(&format!("{collection}/{verb}"), body.clone()).await;
        assert_eq!(answer.0.as_u16(), status, "{verb} {body}: {answer:?}");
        assert_eq!(world.dimension(&name).await, dimension, "{verb} {body}");
    }
}

#[tokio::test]
async fn a_record_with_a_uri_and_no_metadata_has_an_empty_map() {
    let world = World::new();
    let collection = world.collection("docs").await;
    let body = json!({
        "ids": ["uri", "document", "nothing"], "embeddings": [[1], [2], [3]],
        "uris": ["u", null, null], "documents": [null, "d", null], "metadatas": [{}, {}, null],
    });
    world.post(&format!("{collection}/add"), body).await;
    let (_, answer) = world.post(&format!("{collection}/get"), json!({})).await;
    assert_eq!(answer["metadatas"], json!([{}, null, null]));
    let (_, answer) = world.post(&format!("{collection}/query"), json!({"query_embeddings": [[1]]})).await;
    assert_eq!(answer["metadatas"], json!([[{}, null, null]]));
}

#[tokio::test]
async fn a_schema_learns_every_type_under_a_key() {
    let world = World::new();
    let collection = world.collection("docs").await;
    for (number, value) in [json!(1), json!("x"), json!(1.5), json!([true])].into_iter().enumerate() {
        let body = json!({"ids": [number.to_string()], "embeddings": [[1]], "metadatas": [{"k": value}]});
        assert_eq!(world.post(&format!("{collection}/add"), body).await.0, StatusCode::CREATED);
    }
    let (_, row) = world.get("/docs").await;
    let types: Vec<&String> = row["schema"]["keys"]["k"].as_object().expect("an entry").keys().collect();
    assert_eq!(types, ["bool", "float", "int", "string"]);
    for (name, indexes) in row["schema"]["keys"]["k"].as_object().expect("an entry") {
        assert_eq!(indexes, &row["schema"]["defaults"][name]);
    }
}

#[tokio::test]
async fn the_indexing_status_counts_operations() {
    let world = World::new();
    let collection = world.collection("docs").await;
    let status = async || world.get(&format!("{collection}/indexing_status")).await.1;
    let expect = |progress, indexed, unindexed, total| {
        json!({
            "op_indexing_progress": progress, "num_unindexed_ops": unindexed, "num_indexed_ops": indexed, "total_ops": total
        })
    };
    assert_eq!(status().await, expect(1.0, 0, 0, 0));
    world.add(&collection, "a").await;
    world.add(&collection, "b").await;
    assert_eq!(status().await, expect(0.0, 0, 2, 2));
    let nowhere = "/00000000-0000-4000-8000-000000000000/indexing_status";
    assert_eq!(world.get(nowhere).await.0.as_u16(), 404);
}

#[tokio::test]
async fn what_is_not_built_looks_at_body_and_collection_first() {
    let world = World::new();
    let collection = world.collection("docs").await;
    let nowhere = "/00000000-0000-4000-8000-000000000000";
    for (verb, body) in [("search", json!({"searches": [{}]})), ("fork", json!({"new_name": "x"}))] {
        for (path, status) in [(collection.as_str(), 501), (nowhere, 404), ("/no-uuid", 400)] {
            let answer = world.post(&format!("{path}/{verb}"), body.clone()).await;
            assert_eq!(answer.0.as_u16(), status, "{path} {verb}: {answer:?}");
            assert_eq!(world.post(&format!("{path}/{verb}"), json!({})).await.0.as_u16(), 422);
        }
    }
    let off = json!({"keys": {}, "defaults": {"int": {"int_inverted_index": {"enabled": false, "config": {}}}}});
    let (_, unfiltered) = world.post("", json!({"name": "unfiltered", "schema": off})).await;
    let path = format!("/{}/search", unfiltered["id"].as_str().expect("an id"));
    assert_eq!(world.post(&path, json!({"searches": [{"filter": {"k": "x"}}]})).await.0.as_u16(), 501);
    assert_eq!(world.post(&path, json!({"searches": [{"filter": {"k": 1}}]})).await.0.as_u16(), 400);
    assert_eq!(world.get(&format!("{collection}/fork_count")).await.0.as_u16(), 501);
    assert_eq!(world.get(&format!("{nowhere}/fork_count")).await.0.as_u16(), 404);
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_told_before_an_id_that_is_none() {
    let world = World::new();
    for verb in ["add", "upsert", "update", "delete", "get", "query"] {
        assert_eq!(world.post(&format!("/no-uuid/{verb}"), json!({"ids": 5})).await.0.as_u16(), 422, "{verb}");
    }
    let (status, answer) = world.post("/no-uuid/get", json!({})).await;
    assert_eq!((status.as_u16(), &answer["message"]), (400, &json!("Collection ID is not a valid UUIDv4")));
}

#[tokio::test]
async fn a_collection_that_could_not_be_listed_is_not_made() {
    let world = World::new();
    let large = "x".repeat(limits::COLLECTION_JSON_BYTES_MAX);
    let function = json!({"type": "known", "name": "f", "config": {"text": large}});
    for (member, value) in
        [("metadata", json!({"k": large})), ("configuration", json!({"embedding_function": function}))]
    {
        let (status, answer) = world.post("", json!({"name": "docs", member: value})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer["message"].as_str().is_some_and(|message| message.contains(member)), "{answer}");
    }
    world.collection("docs").await;
}
