//! Conditional requests, alone and racing.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::client::Fixture;

const OK: StatusCode = StatusCode::OK;
const PRECONDITION_FAILED: StatusCode = StatusCode::PRECONDITION_FAILED;
const ABSENT: (&str, &str) = ("if-none-match", "*");

/// Races `racers` puts of one key under a condition, each with a body of its own. Returns the bodies that won.
async fn race(fixture: &Fixture, key: &str, racers: usize, condition: (&'static str, String)) -> Vec<String> {
    let start = Arc::new(Barrier::new(racers));
    let mut puts = JoinSet::new();
    for racer in 0..racers {
        let (s3, key, start, condition) = (fixture.s3.clone(), key.to_owned(), Arc::clone(&start), condition.clone());
        puts.spawn(async move {
            start.wait().await;
            let body = format!("{key} by {racer}");
            let reply = s3.put(&key, &[(condition.0, &condition.1)], body.clone()).await;
            (reply.status, body)
        });
    }
    let mut winners = Vec::new();
    for (status, body) in puts.join_all().await {
        match status {
            OK => winners.push(body),
            status => assert_eq!(status, PRECONDITION_FAILED, "{body}"),
        }
    }
    winners
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_claims_exactly_one_wins_and_stays() {
    let fixture = Fixture::start().await;
    for round in 0..60 {
        // New directories every few rounds, so that their making is raced too.
        let key = format!("{}/log/{round:016x}", round / 3);
        let winners = race(&fixture, &key, 8, ("if-none-match", "*".to_owned())).await;
        assert_eq!(winners.len(), 1, "{key}: {winners:?}");
        assert_eq!(fixture.s3.get(&key, &[]).await.body, winners[0]);
    }
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_swaps_exactly_one_wins_and_stays() {
    let fixture = Fixture::start().await;
    let mut etag = fixture.s3.put("register", &[], "first").await.header("etag").to_owned();
    for _ in 0..40 {
        let winners = race(&fixture, "register", 8, ("if-match", etag)).await;
        assert_eq!(winners.len(), 1, "{winners:?}");
        let now = fixture.s3.get("register", &[]).await;
        assert_eq!(now.body, winners[0]);
        etag = now.header("etag").to_owned();
        // The next round's bodies must differ from this one's, else two of them have the etag of the winner.
        etag =
            fixture.s3.put("register", &[("if-match", &etag)], format!("after {etag}")).await.header("etag").to_owned();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_race_with_deletes_without_losing_their_directory() {
    let fixture = Fixture::start().await;
    for round in 0..40 {
        let (first, second) = (format!("{round}/dir/a"), format!("{round}/dir/b"));
        fixture.s3.put(&first, &[], "a").await;
        let (deleted, claimed) = tokio::join!(fixture.s3.delete(&first, &[]), fixture.s3.put(&second, &[ABSENT], "b"));
        assert_eq!((deleted.status, claimed.status), (StatusCode::NO_CONTENT, OK));
        assert_eq!(fixture.s3.get(&second, &[]).await.body, "b");
    }
}

#[tokio::test]
async fn writes_under_a_condition_that_does_not_hold_change_nothing() {
    let fixture = Fixture::start().await;
    let s3 = &fixture.s3;
    let etag = s3.put("key", &[ABSENT], "one").await.header("etag").to_owned();
    let other = "\"00000000000000000000000000000000\"";
    let check = async |key: &str, headers: &[(&str, &str)], expect: u16| {
        assert_eq!(s3.put(key, headers, "two").await.status.as_u16(), expect, "{key} {headers:?}");
    };
    check("key", &[ABSENT], 412).await;
    check("key", &[("if-match", other)], 412).await;
    check("absent", &[("if-match", other)], 404).await;
    check("absent", &[("if-match", "*")], 404).await;
    check("absent", &[("if-none-match", other)], 501).await;
    check("absent", &[("if-match", other), ABSENT], 501).await;
    assert_eq!(s3.delete("key", &[("if-match", other)]).await.status, PRECONDITION_FAILED);
    assert_eq!(s3.get("key", &[]).await.body, "one");
    assert_eq!(s3.get("absent", &[]).await.status, StatusCode::NOT_FOUND);

    check("key", &[("if-match", &etag)], 200).await;
    assert_eq!(s3.get("key", &[]).await.body, "two");
    check("key", &[("if-match", &etag)], 412).await;
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test]
async fn reads_answer_conditions() {
    let fixture = Fixture::start().await;
    let s3 = &fixture.s3;
    s3.put("key", &[], "body").await;
    let reply = s3.get("key", &[]).await;
    let (etag, modified) = (reply.header("etag"), reply.header("last-modified"));
    let (other, old) = ("\"other\"", "Sat, 01 Jan 2000 00:00:00 GMT");
    let check = async |headers: &[(&str, &str)], expect: u16| {
        for reply in [s3.get("key", headers).await, s3.head("key", headers).await] {
            assert_eq!(reply.status.as_u16(), expect, "{headers:?}");
            assert!(expect != 304 || reply.header("etag") == etag && reply.body.is_empty(), "{reply:?}");
        }
    };
    check(&[("if-match", etag)], 200).await;
    check(&[("if-match", "*")], 200).await;
    check(&[("if-match", other)], 412).await;
    check(&[("if-none-match", etag)], 304).await;
    check(&[("if-none-match", "*")], 304).await;
    check(&[("if-none-match", other)], 200).await;
    check(&[("if-modified-since", modified)], 304).await;
    check(&[("if-modified-since", old)], 200).await;
    check(&[("if-unmodified-since", modified)], 200).await;
    check(&[("if-unmodified-since", old)], 412).await;
    // Etags outrank dates.
    check(&[("if-match", etag), ("if-unmodified-since", old)], 200).await;
    check(&[("if-none-match", other), ("if-modified-since", modified)], 200).await;
}
