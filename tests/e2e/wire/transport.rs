//! Paths, methods, bodies, headers, and the routes of the system.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use serde_json::json;

use super::{CHROMA, INVALID, NOT_JSON, WRONG_SHAPE, api, post_raw};
use crate::harness::records;

#[test]
fn an_unknown_path_is_404_without_a_body() {
    let api = api();
    let collections = format!("{}/collections", api.fresh_database());
    for path in ["/", "/api", "/api/v2/", "/api/v2/nothing", "/api/v2/heartbeat/", "/api/v3/heartbeat"] {
        let reply = api.get(path).expect(404).expect_trace_id();
        assert!(reply.body.is_empty(), "{path}: {reply:?}");
    }
    for path in [format!("{collections}/"), format!("{collections}/a/nothing"), format!("{collections}/a/get/b")] {
        let reply = api.post(&path, &json!({})).expect_trace_id();
        assert!(reply.status == 404 && reply.body.is_empty(), "{path}: {reply:?}");
    }
}

#[test]
fn a_wrong_method_is_405_without_a_body_and_names_the_right_ones() {
    let api = api();
    let database = api.fresh_database();
    for (method, path, allowed) in [
        ("POST", "/api/v2/heartbeat".to_owned(), vec!["GET"]),
        ("DELETE", "/api/v2/version".to_owned(), vec!["GET"]),
        ("GET", "/api/v2/reset".to_owned(), vec!["POST"]),
        ("GET", "/api/v2/tenants".to_owned(), vec!["POST"]),
        ("PUT", format!("{database}/collections"), vec!["GET", "POST"]),
        ("OPTIONS", format!("{database}/collections"), vec!["GET", "POST"]),
        ("POST", format!("{database}/collections/a"), vec!["GET", "PUT", "DELETE"]),
        ("GET", format!("{database}/collections/a/add"), vec!["POST"]),
        ("POST", format!("{database}/collections/a/count"), vec!["GET"]),
    ] {
        let reply = api.call(method, &path, None).expect_trace_id();
        assert!(reply.status == 405 && reply.body.is_empty(), "{method} {path}: {reply:?}");
        for allowed in allowed {
            assert!(reply.header("allow").split(',').any(|name| name.trim() == allowed), "{method} {path}: {reply:?}");
        }
    }
}

#[test]
fn the_first_version_of_the_api_is_gone() {
    let api = api();
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in ["/api/v1/heartbeat", "/api/v1/collections/a/get"] {
            let reply = api.call(method, path, None);
            reply.expect_error(410, "Unimplemented", "The v1 API is deprecated. Please use /v2 apis");
        }
    }
    api.call("HEAD", "/api/v1/collections", None).expect(410).expect_trace_id();
    let post = api.post("/api/v1/collections", &json!({})).expect(405).expect_trace_id();
    assert!(post.body.is_empty());
}

#[test]
fn a_body_is_json_whatever_else_it_says_is_415() {
    let api = api();
    let path = api.fresh_collection().verb("get");
    let send = |content_type: Option<&str>| {
        let mut request = Request::post(&path);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        api.send(request.body(Bytes::from_static(b"{}")).unwrap()).unwrap()
    };
    for accepted in [None, Some("application/json"), Some("application/json; charset=utf-8")] {
        send(accepted).expect(200);
    }
    for refused in ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"] {
        send(Some(refused)).expect_error(415, CHROMA, "Expected request with `Content-Type: application/json`");
    }
}

#[test]
fn what_is_not_json_is_400() {
    let api = api();
    let collection = api.fresh_collection();
    let paths =
        ["/api/v2/tenants".to_owned(), collection.verb("add"), collection.verb("get"), collection.verb("query")];
    for path in &paths {
        for body in [&b""[..], b"{", b"nothing", b"\xff\xfe"] {
            post_raw(&api, path, Bytes::from_static(body)).expect_error(400, INVALID, NOT_JSON);
        }
    }
    for path in &paths[1..] {
        for body in [&br#"{"ids": [NaN]}"#[..], b"{\"ids\": [\"\xff\"]}"] {
            post_raw(&api, path, Bytes::from_static(body)).expect_error(400, INVALID, NOT_JSON);
        }
    }
    post_raw(&api, &collection.verb("get"), "{} {}").expect_error(400, INVALID, NOT_JSON);
}

#[test]
fn a_gzipped_body_is_not_json() {
    let api = api();
    let gzip =
        Bytes::from_static(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00");
    let request =
        Request::post(api.fresh_collection().verb("get")).header("content-encoding", "gzip").body(gzip).unwrap();
    api.send(request).unwrap().expect_error(400, INVALID, NOT_JSON);
}

#[test]
fn json_of_the_wrong_shape_is_422() {
    let api = api();
    let collection = api.fresh_collection();
    let database = api.fresh_database();
    let check = |path: &str, bodies: &[serde_json::Value]| {
        super::all_refused(&api, path, bodies, 422, CHROMA, WRONG_SHAPE);
    };
    check("/api/v2/tenants", &[json!({}), json!({ "name": 1 }), json!([]), json!(null), json!("x")]);
    check(
        &format!("{database}/collections"),
        &[json!({}), json!({ "name": 1 }), json!({ "name": "abc", "get_or_create": null })],
    );
    let one = json!([[1, 2]]);
    check(
        &collection.verb("add"),
        &[
            json!({}),
            json!({ "embeddings": one }),
            json!({ "ids": ["a"] }),
            json!({ "ids": ["a"], "embeddings": null }),
            json!({ "ids": ["a"], "embeddings": [null] }),
            json!({ "ids": ["a"], "embeddings": ["AACAPw==", [1]] }),
            json!({ "ids": [1], "embeddings": one }),
            json!({ "ids": "a", "embeddings": one }),
            json!({ "ids": ["a"], "embeddings": one, "documents": [1] }),
            json!({ "ids": ["a"], "embeddings": one, "metadatas": [{ "k": { "nested": 1 } }] }),
            json!({ "ids": ["a"], "embeddings": one, "metadatas": [{ "k": [1, "a"] }] }),
            json!({ "ids": ["a"], "embeddings": one, "metadatas": [{ "k": null }] }),
        ],
    );
    check(
        &collection.verb("get"),
        &[
            json!({ "limit": -1 }),
            json!({ "offset": -1 }),
            json!({ "include": null }),
            json!({ "include": ["data"] }),
            json!({ "include": ["everything"] }),
            json!({ "ids": [1] }),
        ],
    );
    check(
        &collection.verb("query"),
        &[
            json!({}),
            json!({ "query_embeddings": null }),
            json!({ "query_embeddings": ["AACAPw=="] }),
            json!({ "query_embeddings": one, "n_results": -1 }),
            json!({ "query_embeddings": one, "include": null }),
        ],
    );
    let twice = post_raw(&api, &collection.verb("get"), r#"{"limit": 1, "limit": 2}"#);
    twice.expect_error(422, CHROMA, WRONG_SHAPE);
}

#[test]
fn unknown_members_and_null_members_are_as_if_absent() {
    let api = api();
    let collection = api.fresh_collection();
    let mut body = records(&["a"]);
    body["anything"] = json!({ "else": [1] });
    for part in ["metadatas", "uris"] {
        body[part] = json!(null);
    }
    api.post(&collection.verb("add"), &body).expect(201);
    let nulls = json!({ "ids": null, "where": null, "where_document": null, "limit": null, "offset": null });
    assert_eq!(api.post(&collection.verb("get"), &nulls).expect(200).json()["ids"], json!(["a"]));
    let nulls =
        json!({ "query_embeddings": [[0, 1]], "ids": null, "where": null, "where_document": null, "n_results": null });
    assert_eq!(api.post(&collection.verb("query"), &nulls).expect(200).json()["ids"], json!([["a"]]));
}

#[test]
fn a_bad_query_string_is_400() {
    let api = api();
    let collection = api.fresh_collection();
    let database = api.fresh_database();
    for path in [
        format!("{database}/collections?limit=-1"),
        format!("{database}/collections?limit=many"),
        format!("{database}/collections?offset=-1"),
        format!("{}?read_level=sometimes", collection.verb("count")),
    ] {
        api.get(&path).expect_error(400, INVALID, "Failed to deserialize query string: ");
    }
}

#[test]
fn success_carries_json_and_no_trace_id() {
    let api = api();
    let collection = api.fresh_collection();
    for reply in [
        api.get("/api/v2/heartbeat"),
        api.get(&collection.verb("count")),
        api.post(&collection.verb("get"), &json!({})),
    ] {
        let reply = reply.expect(200);
        assert!(reply.header("content-type").starts_with("application/json"), "{reply:?}");
        assert!(!reply.headers.contains_key("chroma-trace-id"), "{reply:?}");
        assert!(!reply.headers.contains_key("content-encoding"), "{reply:?}");
    }
}

/// (The original answers zeros unless tracing is configured.)
#[test]
fn an_error_names_its_callers_trace() {
    let api = api();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = Request::get("/api/v2/nothing").header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let reply = api.send(request.body(Bytes::new()).unwrap()).unwrap();
    assert_eq!(reply.header("chroma-trace-id"), trace);
}

#[test]
fn the_system_routes_answer_as_documented() {
    let api = api();
    for path in ["/api/v2", "/api/v2/heartbeat"] {
        let beat = api.get(path).expect(200).json()["nanosecond heartbeat"].as_u64().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        assert!(now.abs_diff(u128::from(beat)) < 10_000_000_000, "{beat}");
    }
    assert_eq!(api.get("/api/v2/version").expect(200).body, "\"1.0.0\"");
    let health = api.get("/api/v2/healthcheck").expect(200).json();
    assert_eq!(health, json!({ "is_executor_ready": true, "is_log_client_ready": true }));
    let checks = api.get("/api/v2/pre-flight-checks").expect(200).json();
    assert!(checks["max_batch_size"].as_u64().unwrap() > 0 && checks["supports_base64_encoding"] == true, "{checks}");
    let identity = api.get("/api/v2/auth/identity").expect(200).json();
    assert_eq!(identity, json!({ "user_id": "", "tenant": "default_tenant", "databases": ["default_database"] }));
}

/// (The shared stack does not allow it.)
#[test]
fn reset_is_refused_unless_it_is_allowed() {
    api().call("POST", "/api/v2/reset", None).expect_error(403, CHROMA, "Reset is disabled by config");
}
