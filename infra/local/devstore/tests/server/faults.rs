//! The levers as tests of other crates pull them: rules through the admin port, then requests that suffer them.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Fixture, Reply};
use crate::objects::pattern;

impl Fixture {
    /// Puts these rules in force.
    async fn rules(&self, rules: Value) {
        let (status, faults) =
            self.admin_with(Method::PUT, "/faults", json!({ "seed": 1, "rules": rules }).to_string()).await;
        assert_eq!(status, StatusCode::OK, "{faults}");
    }

    /// How many requests each rule has met, after clearing them.
    async fn clear(&self) -> Vec<u64> {
        let (_, before) = self.admin(Method::DELETE, "/faults").await;
        before["rules"].as_array().unwrap().iter().map(|rule| rule["applied"].as_u64().unwrap()).collect()
    }

    async fn statuses(&self) -> Value {
        self.admin(Method::GET, "/totals").await.1["statuses"].clone()
    }
}

fn status(reply: Option<Reply>) -> Option<u16> {
    reply.map(|reply| reply.status.as_u16())
}

const CREATE: [(&str, &str); 1] = [("if-none-match", "*")];

#[tokio::test]
async fn a_dropped_reply_comes_after_the_write_and_a_dropped_request_before_it() {
    let fixture = Fixture::start().await;
    for (effect, is_written) in [("drop_reply", true), ("drop_request", false)] {
        fixture.rules(json!([{ "operation": "PutObject", "next": 1, "effect": effect }])).await;
        assert_eq!(status(fixture.s3.try_put(effect, &CREATE, pattern(100_000)).await), None, "{effect}");
        let got = fixture.s3.get(effect, &[]).await;
        assert_eq!(got.status == StatusCode::OK, is_written, "{effect}: {}", got.status);
        let again = fixture.s3.put(effect, &CREATE, pattern(100_000)).await;
        assert_eq!(again.status == StatusCode::PRECONDITION_FAILED, is_written, "{effect}: {}", again.status);
        assert_eq!(fixture.clear().await, [1]);
    }
    assert_eq!(fixture.leftovers(), 0);
    assert_eq!(fixture.statuses().await, json!({ "200": 2, "404": 1, "412": 1, "dropped": 2 }));
}

#[tokio::test]
async fn an_answer_takes_the_place_of_the_work() {
    let fixture = Fixture::start().await;
    for (code, name) in
        [(409, "ConditionalRequestConflict"), (429, "TooManyRequests"), (500, "InternalError"), (503, "SlowDown")]
    {
        fixture.rules(json!([{ "key_contains": "busy", "next": 2, "effect": { "answer": code } }])).await;
        // Larger than what sockets hold: a client that sends everything before it listens must hear the answer too.
        let refused = fixture.s3.put("busy", &CREATE, pattern(9_000_000)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (code, name));
        assert_eq!(fixture.s3.get("busy", &[]).await.status.as_u16(), code);
        assert_eq!(fixture.s3.get("busy", &[]).await.status, StatusCode::NOT_FOUND, "only the next two");
        assert_eq!(fixture.clear().await, [2]);
    }
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test]
async fn a_request_held_before_is_carried_out_though_its_client_gave_up() {
    let fixture = Fixture::start().await;
    fixture.rules(json!([{ "operation": "PutObject", "next": 1, "effect": { "hold_before_ms": 600 } }])).await;
    let late = fixture.s3.put("late", &CREATE, pattern(300_000));
    let gave_up = tokio::time::timeout(Duration::from_millis(200), late).await;
    assert!(gave_up.is_err());
    assert_eq!(fixture.s3.get("late", &[]).await.status, StatusCode::NOT_FOUND, "it is still held");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let arrived = fixture.s3.get("late", &[]).await;
    assert!(arrived.body == pattern(300_000), "{}", arrived.status);
}

#[tokio::test]
async fn a_request_held_after_is_carried_out_at_once() {
    let fixture = Fixture::start().await;
    fixture.rules(json!([{ "operation": "PutObject", "effect": { "hold_after_ms": 500 } }])).await;
    let began = Instant::now();
    let put = tokio::spawn({
        let s3 = fixture.s3.clone();
        async move { s3.put("key", &CREATE, "body").await }
    });
    while fixture.s3.get("key", &[]).await.status != StatusCode::OK {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    assert!(!put.is_finished(), "the object is there before the reply");
    assert_eq!(put.await.unwrap().status, StatusCode::OK);
    assert!(began.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn bodies_pass_no_faster_than_their_rate() {
    let fixture = Fixture::start().await;
    fixture.rules(json!([{ "key_prefix": "slow/", "effect": { "bytes_per_second": 1_000_000 } }])).await;
    let began = Instant::now();
    fixture.s3.put("slow/key", &[], pattern(500_000)).await;
    let (put, began) = (began.elapsed(), Instant::now());
    let got = fixture.s3.get("slow/key", &[]).await;
    assert!(got.body == pattern(500_000), "{}", got.status);
    for took in [put, began.elapsed()] {
        assert!((Duration::from_millis(500)..Duration::from_secs(10)).contains(&took), "{took:?}");
    }
    let began = Instant::now();
    fixture.s3.put("key", &[], pattern(500_000)).await;
    assert!(began.elapsed() < put, "other keys are as fast as ever");
}

/// Six requests of 50 ms each over two connections that share a line of a megabyte a second.
#[tokio::test]
async fn requests_share_a_line() {
    let fixture = Fixture::start().await;
    fixture.s3.put("key", &[], pattern(100_000)).await;
    fixture
        .rules(json!([
            { "operation": "GetObject", "effect": { "at_once": 2 } },
            { "operation": "GetObject", "effect": { "hold_before_ms": 50 } },
            { "operation": "GetObject", "effect": { "shared_bytes_per_second": 1_000_000 } },
        ]))
        .await;
    let get = async |key| {
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(fixture.s3.get(key, &[]).await.body.len(), 100_000);
        }
        began.elapsed()
    };
    let (first, second) = tokio::join!(get("key"), get("key"));
    assert!(
        first.max(second) >= Duration::from_millis(650),
        "six times 100 ms of bytes, one wait: {first:?} {second:?}"
    );
    let began = Instant::now();
    let nothing = || fixture.s3.get("none", &[]);
    tokio::join!(nothing(), nothing(), nothing(), nothing(), nothing(), nothing());
    assert!(began.elapsed() >= Duration::from_millis(150), "three rounds of two");
}

/// With every request held, requests that are sent together overlap, and the depth is the number of waves.
#[tokio::test]
async fn depth_is_exact_while_requests_are_held() {
    let fixture = Fixture::start().await;
    fixture.rules(json!([{ "effect": { "hold_before_ms": 150 } }])).await;
    for _ in 0..3 {
        let get = || fixture.s3.get("key", &[]);
        tokio::join!(get(), get(), get(), get());
    }
    let (_, totals) = fixture.admin(Method::GET, "/totals").await;
    assert_eq!((&totals["sequential_depth"], &totals["max_in_flight"]), (&json!(3), &json!(4)));
}

#[tokio::test]
async fn chance_has_a_seed_that_is_told_and_rules_can_be_cleared() {
    let fixture = Fixture::start().await;
    let rules = json!({ "rules": [{ "probability": 0.5, "effect": { "answer": 503 } }] });
    let (_, faults) = fixture.admin_with(Method::PUT, "/faults", rules.to_string()).await;
    let seed = faults["seed"].as_u64().unwrap();
    let mut runs = Vec::new();
    for _ in 0..2 {
        let again = json!({ "seed": seed, "rules": rules["rules"] }).to_string();
        fixture.admin_with(Method::PUT, "/faults", again).await;
        let mut run = Vec::new();
        for _ in 0..40 {
            run.push(fixture.s3.head("key", &[]).await.status.as_u16());
        }
        assert!(run.contains(&503) && run.contains(&404), "{run:?}");
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);

    fixture.clear().await;
    assert_eq!(fixture.admin(Method::GET, "/faults").await.1["rules"], json!([]));
    for _ in 0..40 {
        assert_eq!(fixture.s3.head("key", &[]).await.status, StatusCode::NOT_FOUND);
    }
    for wrong in ["", "{", r#"{"rules": [{"effect": {"answer": 200}}]}"#, r#"{"rules": [{"effect": "explode"}]}"#] {
        assert_eq!(fixture.admin_with(Method::PUT, "/faults", wrong).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
}
