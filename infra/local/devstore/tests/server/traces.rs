//! The counters as a test of another crate sees them: through the admin port, after the replies have come.

use http::{Method, StatusCode};
use serde_json::json;

use crate::client::Fixture;
use crate::objects::pattern;

fn traceparent(trace: u32) -> String {
    format!("00-{trace:032x}-00f067aa0ba902b7-01")
}

#[tokio::test]
async fn requests_are_counted_by_trace_and_in_total() {
    let fixture = Fixture::start().await;
    let s3 = &fixture.s3;
    let (one, two) = (traceparent(1), traceparent(2));
    let body = pattern(3_000_000);
    s3.put("key", &[("traceparent", &one)], body).await;
    s3.get("key", &[("traceparent", &one)]).await;
    s3.head("key", &[("traceparent", &one)]).await;
    s3.get("absent", &[("traceparent", &two)]).await;
    s3.get("key", &[("range", "bytes=0-9")]).await;

    let (status, trace) = fixture.admin(Method::GET, &format!("/traces/{:032x}", 1)).await;
    assert_eq!(status, StatusCode::OK);
    let expect = json!({
        "requests": {"GetObject": 1, "HeadObject": 1, "PutObject": 1},
        "statuses": {"200": 3},
        "bytes_in": 3_000_000,
        "bytes_out": 3_000_000,
        "max_in_flight": 1,
        "sequential_depth": 3,
    });
    assert_eq!(trace, expect);
    let (_, totals) = fixture.admin(Method::GET, "/totals").await;
    assert_eq!(totals["requests"], json!({"GetObject": 3, "HeadObject": 1, "PutObject": 1}));
    assert_eq!(totals["statuses"], json!({"200": 3, "206": 1, "404": 1}));
    assert_eq!(totals["sequential_depth"], 5);

    assert_eq!(fixture.admin(Method::POST, "/reset").await.0, StatusCode::OK);
    assert_eq!(fixture.admin(Method::GET, "/totals").await.1["requests"], json!({}));
    assert_eq!(fixture.admin(Method::GET, &format!("/traces/{:032x}", 1)).await.0, StatusCode::NOT_FOUND);
}

/// Waves of requests that run side by side: their number is the depth, however many requests each has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn depth_counts_waves_not_requests() {
    let fixture = Fixture::start().await;
    fixture.s3.put("key", &[], pattern(2_000_000)).await;
    for round in 1..=20 {
        let header = traceparent(round);
        let header = [("traceparent", header.as_str())];
        let get = || fixture.s3.get("key", &header);
        for _ in 0..3 {
            // All requests of a wave have begun before the first has ended, or the wave counts as several.
            tokio::join!(get(), get(), get());
        }
        let (_, trace) = fixture.admin(Method::GET, &format!("/traces/{round:032x}")).await;
        let (depth, in_flight) =
            (trace["sequential_depth"].as_u64().unwrap(), trace["max_in_flight"].as_u64().unwrap());
        assert!((3..=9).contains(&depth) && (1..=3).contains(&in_flight), "{trace}");
        assert_eq!(trace["requests"]["GetObject"], 9);
    }
    fixture.admin(Method::POST, "/reset").await;
    for _ in 0..200 {
        fixture.s3.head("key", &[]).await;
    }
    // A reply that has come belongs to a request that has ended: a chain is never mistaken for a wave.
    let (_, totals) = fixture.admin(Method::GET, "/totals").await;
    assert_eq!((&totals["sequential_depth"], &totals["max_in_flight"]), (&json!(200), &json!(1)));
}

#[tokio::test]
async fn a_request_that_is_not_admitted_is_counted_too() {
    let fixture = Fixture::start().await;
    let stranger = crate::client::Client::new(&fixture.server.listen().to_string(), "wrong");
    stranger.get("key", &[]).await;
    let (_, totals) = fixture.admin(Method::GET, "/totals").await;
    assert_eq!((&totals["requests"], &totals["statuses"]), (&json!({"Refused": 1}), &json!({"403": 1})));
    assert_eq!(fixture.admin(Method::GET, "/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(fixture.admin(Method::GET, "/traces/xyz").await.0, StatusCode::NOT_FOUND);
    assert_eq!(fixture.admin(Method::GET, "/reset").await.0, StatusCode::NOT_FOUND);
}
