//! Requests that nobody sends by accident: each gets an answer, and the Workers serve everyone else as before.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use http::Request;
use serde_json::json;

use super::{CHROMA, INVALID, NOT_JSON, api, post_raw};
use crate::harness::{Api, Collection, Reply};

/// Chroma's default.
const BODY_BYTES_MAX: usize = 40 * 1024 * 1024;

/// A collection of one record, checked again after `attack`.
fn survives(attack: impl FnOnce(&Api, &Collection)) {
    let api = api();
    let collection = api.fresh_collection();
    collection.add(&api, &["before"]);
    attack(&api, &collection);
    collection.add(&api, &["after"]);
    assert_eq!(collection.ids(&api), ["before", "after"]);
    api.get("/api/v2/heartbeat").expect(200);
}

#[track_caller]
fn is_refused(reply: &Reply, what: &str) {
    assert!((400..500).contains(&reply.status), "{what}: {reply:?}");
    reply.clone().expect_trace_id();
}

#[test]
fn a_body_that_is_too_large_is_413() {
    survives(|api, collection| {
        let spaces = Bytes::from(vec![b' '; BODY_BYTES_MAX + 1]);
        for verb in ["add", "update", "upsert", "query"] {
            let reply = post_raw(api, &collection.verb(verb), spaces.clone()).expect(413).expect_trace_id();
            assert_eq!(reply.body, "Payload too large", "{verb}");
        }
        let message = "Failed to buffer the request body: length limit exceeded";
        post_raw(api, &collection.verb("get"), spaces.clone()).expect_error(413, CHROMA, message);
        post_raw(api, "/api/v2/tenants", spaces).expect_error(413, CHROMA, message);
    });
}

#[test]
fn a_body_of_just_the_limit_is_read() {
    survives(|api, collection| {
        let spaces = Bytes::from(vec![b' '; BODY_BYTES_MAX]);
        post_raw(api, &collection.verb("add"), spaces).expect_error(400, INVALID, NOT_JSON);
    });
}

#[test]
fn a_body_without_an_announced_length_is_bounded_too() {
    survives(|api, collection| {
        let address = api.url().strip_prefix("http://").unwrap();
        let mut connection = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
            collection.verb("add")
        );
        connection.write_all(head.as_bytes()).unwrap();
        let chunk = [b"100000\r\n".as_slice(), &[b' '; 1 << 20], b"\r\n"].concat();
        // The answer may come, and the connection go, before all is sent.
        let _ =
            (0..60).try_for_each(|_| connection.write_all(&chunk)).and_then(|()| connection.write_all(b"0\r\n\r\n"));
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let reset = read.is_err() && answer.is_empty();
        assert!(reset || answer.starts_with("HTTP/1.1 413 "), "{read:?} {answer}");
    });
}

#[test]
fn a_large_batch_within_the_limit_is_written() {
    let api = api();
    let collection = api.fresh_collection();
    let ids: Vec<String> = (0..2000).map(|i| format!("r{i}")).collect();
    let body = json!({ "ids": ids, "embeddings": vec![vec![0.123_456_7; 384]; 2000], "documents": vec!["x".repeat(2000); 2000] });
    api.post(&collection.verb("add"), &body).expect(201);
    assert_eq!(api.get(&collection.verb("count")).expect(200).json(), 2000);
    let include = json!({ "include": ["embeddings", "documents"] });
    let got = api.post(&collection.verb("get"), &include).expect(200).json();
    assert_eq!(got["documents"].as_array().unwrap().len(), 2000);
}

#[test]
fn deep_nesting_is_refused() {
    survives(|api, collection| {
        for depth in [100, 200, 10_000, 1_000_000] {
            let bodies = [
                format!(r#"{{"where": {}{{"k": 1}}{}}}"#, r#"{"$and": ["#.repeat(depth), "]}".repeat(depth)),
                format!(
                    r#"{{"where_document": {}{{"$contains": "a"}}{}}}"#,
                    r#"{"$or": ["#.repeat(depth),
                    "]}".repeat(depth)
                ),
                "[".repeat(depth),
                format!(r#"{{"anything": {}{}}}"#, "[".repeat(depth), "]".repeat(depth)),
                format!(r#"{{"ids": {}{}}}"#, "[".repeat(depth), "]".repeat(depth)),
            ];
            for (i, body) in bodies.into_iter().enumerate() {
                let reply = post_raw(api, &collection.verb("get"), body);
                // What is not asked for may be skipped without looking, as long as it can be parsed.
                let skipped = i == 3 && reply.status == 200;
                if !skipped {
                    is_refused(&reply, &format!("depth {depth}, body {i}"));
                }
            }
            let metadata = format!(
                r#"{{"ids":["a"],"embeddings":[[1,2]],"metadatas":[{{"k":{}1{}}}]}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            );
            is_refused(&post_raw(api, &collection.verb("add"), metadata), &format!("metadata of depth {depth}"));
        }
    });
}

#[test]
fn huge_filters_are_answered() {
    survives(|api, collection| {
        let many: Vec<_> = (0..20_000).map(|i| json!({ "k": i })).collect();
        let body = json!({ "where": { "$or": many } });
        assert!(api.post(&collection.verb("get"), &body).status < 500);
        let ids: Vec<String> = (0..200_000).map(|i| i.to_string()).collect();
        assert_eq!(api.post(&collection.verb("get"), &json!({ "ids": ids })).expect(200).json()["ids"], json!([]));
    });
}

#[test]
fn exploding_patterns_are_refused_or_answered_in_time() {
    survives(|api, collection| {
        for pattern in
            ["(a{1000}){1000}", "((a{100}){100}){100}", &"(".repeat(100_000), &"(a|".repeat(50_000), "(a+)+$"]
        {
            let body = json!({ "where_document": { "$regex": pattern } });
            let reply = api.post(&collection.verb("get"), &body);
            assert!(reply.status < 500, "{}: {reply:?}", &pattern[..pattern.len().min(30)]);
        }
    });
}

#[test]
fn numbers_beyond_all_bounds_are_refused() {
    survives(|api, collection| {
        for body in [
            r#"{"limit": 18446744073709551616}"#,
            r#"{"limit": 1.5}"#,
            r#"{"offset": 99999999999999999999999999999999}"#,
            r#"{"limit": 1e400}"#,
        ] {
            is_refused(&post_raw(api, &collection.verb("get"), body), body);
        }
        for body in [
            r#"{"limit": 18446744073709551615}"#,
            r#"{"limit": 4294967296, "offset": 4294967295}"#,
            r#"{"offset": 9223372036854775807}"#,
        ] {
            let reply = post_raw(api, &collection.verb("get"), body);
            assert!(reply.status < 500, "{body}: {reply:?}");
        }
        let many = json!({ "query_embeddings": [[0, 1]], "n_results": 4_294_967_295_u32 });
        assert_eq!(api.post(&collection.verb("query"), &many).expect(200).json()["ids"], json!([["before"]]));
    });
}

#[test]
fn paths_that_are_not_text_are_refused() {
    survives(|api, collection| {
        for path in ["/api/v2/tenants/%ff", "/api/v2/tenants/%", "/api/v2/tenants/%00", "/api/v2/tenants/%F0%28%8C%BC"]
        {
            let reply = api.get(path);
            is_refused(&reply, path);
        }
        let long = format!("/api/v2/tenants/{}", "x".repeat(6000));
        is_refused(&api.get(&long), "a long path");
        is_refused(&api.get(&collection.verb("count?read_level=%ff")), "a query that is not text");
    });
}

#[test]
fn bytes_that_are_not_http_disturb_nobody() {
    survives(|api, _| {
        let address = api.url().strip_prefix("http://").unwrap();
        for noise in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"GET\r\n\r\n",
            b"\0\0\0\0\r\n\r\n",
            b"POST / HTTP/9.9\r\n\r\n",
        ] {
            let mut connection = TcpStream::connect(address).unwrap();
            let _ = connection.write_all(noise);
        }
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_disturbs_nobody() {
    survives(|api, collection| {
        let address = api.url().strip_prefix("http://").unwrap();
        for _ in 0..20 {
            let mut connection = TcpStream::connect(address).unwrap();
            let body = r#"{"include": ["embeddings"]}"#;
            let path = collection.verb("get");
            // Half of them leave before the body is there, half while the answer is made.
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            connection.write_all(request.as_bytes()).unwrap();
            drop(connection);
            let mut connection = TcpStream::connect(address).unwrap();
            connection.write_all(&request.as_bytes()[..request.len() - 5]).unwrap();
        }
    });
}

#[test]
fn unusual_headers_are_tolerated() {
    survives(|api, collection| {
        for (name, value) in [
            ("traceparent", "garbage"),
            ("traceparent", "00-zz-zz-zz"),
            ("authorization", "Bearer x"),
            ("x-chroma-token", "x"),
            ("accept-encoding", "gzip, deflate, br"),
            ("expect", "something"),
        ] {
            let request = Request::get(collection.verb("count")).header(name, value).body(Bytes::new()).unwrap();
            let reply = api.send(request).unwrap();
            assert_eq!((reply.status, reply.json()), (200, json!(1)), "{name}: {value}");
        }
    });
}
