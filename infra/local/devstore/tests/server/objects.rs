//! Single objects: what was put is what is got, whole or in ranges, described as S3 describes it.

use std::time::Duration;

use http::StatusCode;
use rusty_s3::S3Action;
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Fixture};

const OK: StatusCode = StatusCode::OK;
const NOT_FOUND: StatusCode = StatusCode::NOT_FOUND;
const BAD_REQUEST: StatusCode = StatusCode::BAD_REQUEST;

/// Bytes without a period that a mistake in offsets would keep.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).collect()
}

#[tokio::test]
async fn an_absent_object_is_there_after_its_put_and_gone_after_its_delete() {
    let fixture = Fixture::start().await;
    let s3 = &fixture.s3;
    let absent = s3.get("dir/key", &[]).await;
    assert_eq!((absent.status, absent.code().as_str()), (NOT_FOUND, "NoSuchKey"));
    assert_eq!(s3.head("dir/key", &[]).await.status, NOT_FOUND);

    let headers = [("content-type", "text/plain"), ("x-amz-meta-colour", "green"), ("cache-control", "no-store")];
    let put = s3.put("dir/key", &headers, "hello world").await;
    assert_eq!((put.status, put.header("etag")), (OK, "\"5eb63bbbe01eeed093cb22bb8f5acdc3\""));
    for reply in [s3.get("dir/key", &[]).await, s3.head("dir/key", &[]).await] {
        assert_eq!(reply.status, OK);
        assert_eq!(reply.header("etag"), put.header("etag"));
        assert_eq!(reply.header("content-length"), "11");
        for (name, value) in headers {
            assert_eq!(reply.header(name), value, "{name}");
        }
    }
    assert_eq!(s3.get("dir/key", &[]).await.body, "hello world");

    for _ in 0..2 {
        assert_eq!(s3.delete("dir/key", &[]).await.status, StatusCode::NO_CONTENT);
        assert_eq!(s3.get("dir/key", &[]).await.status, NOT_FOUND);
    }
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test]
async fn every_key_is_an_object_of_its_own() {
    let fixture = Fixture::start().await;
    let long = "x".repeat(1024);
    // The client's URLs cannot have components `.` and `..`; that their names are harmless is tested with `keys`.
    let keys = ["a", "A", "a/", "a/b", "a//b", "...", ".a", "/", "%2e", "a b+c?#&=", "é", "\u{1F600}", long.as_str()];
    for key in keys {
        assert_eq!(fixture.s3.put(key, &[], key.to_owned()).await.status, OK, "{key}");
    }
    for key in keys {
        assert_eq!(fixture.s3.get(key, &[]).await.body, key, "{key}");
    }
    let too_long = fixture.s3.put(&"x".repeat(1025), &[], "").await;
    assert_eq!((too_long.status, too_long.code().as_str()), (BAD_REQUEST, "KeyTooLongError"));
}

#[tokio::test]
async fn ranges_are_cut_out_of_bodies_of_any_size() {
    let fixture = Fixture::start().await;
    let body = pattern(3_500_000);
    fixture.s3.put("body", &[], body.clone()).await;
    fixture.s3.put("empty", &[], "").await;
    let check = async |range: &str, expect: std::ops::Range<usize>| {
        let reply = fixture.s3.get("body", &[("range", range)]).await;
        assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT, "{range}");
        let content_range = format!("bytes {}-{}/{}", expect.start, expect.end - 1, body.len());
        assert_eq!(reply.header("content-range"), content_range, "{range}");
        assert!(reply.body == body[expect], "{range}");
    };
    check("bytes=0-0", 0..1).await;
    check("bytes=10-2000009", 10..2_000_010).await;
    check("bytes=1048575-1048576", 1_048_575..1_048_577).await;
    check("bytes=3000000-", 3_000_000..3_500_000).await;
    check("bytes=3499999-9999999", 3_499_999..3_500_000).await;
    check("bytes=-7", 3_499_993..3_500_000).await;
    check("bytes=-9999999", 0..3_500_000).await;
    assert!(fixture.s3.get("body", &[]).await.body == body);
    for (key, range) in [("body", "bytes=3500000-"), ("body", "bytes=-0"), ("empty", "bytes=0-"), ("empty", "bytes=-1")]
    {
        let reply = fixture.s3.get(key, &[("range", range)]).await;
        assert_eq!(reply.status, StatusCode::RANGE_NOT_SATISFIABLE, "{key} {range}");
    }
    assert_eq!(fixture.s3.get("empty", &[]).await.body, "");
}

#[tokio::test]
async fn a_reader_keeps_what_it_opened() {
    let fixture = Fixture::start().await;
    let body = pattern(8_000_000);
    fixture.s3.put("body", &[], body.clone()).await;
    let reading = fixture.s3.get("body", &[]);
    let replacing = async {
        fixture.s3.put("body", &[], "short").await;
        fixture.s3.delete("body", &[]).await;
    };
    let (reply, ()) = tokio::join!(reading, replacing);
    assert!(reply.body == body || reply.body == "short" || reply.status == NOT_FOUND, "nothing in between");
}

#[tokio::test]
async fn a_wrong_secret_or_none_is_refused() {
    let fixture = Fixture::start().await;
    let stranger = Client::new(&fixture.server.listen().to_string(), "wrong");
    for reply in [stranger.put("key", &[], "body").await, stranger.get("key", &[]).await] {
        assert_eq!((reply.status, reply.code().as_str()), (StatusCode::FORBIDDEN, "SignatureDoesNotMatch"));
    }
    let mut unsigned = stranger.clone();
    unsigned.credentials = rusty_s3::Credentials::new("nobody", "wrong");
    assert_eq!(unsigned.put("key", &[], "body").await.status, StatusCode::FORBIDDEN);
    assert_eq!(fixture.s3.get("key", &[]).await.status, NOT_FOUND);
}

/// The checksums are those that the definitions of the algorithms publish for these nine bytes.
#[tokio::test]
async fn checksums_are_verified_kept_and_shown_on_request() {
    let fixture = Fixture::start().await;
    let body = "123456789";
    let checksums = [
        ("x-amz-checksum-crc32", "y/Q5Jg=="),
        ("x-amz-checksum-crc32c", "4waSgw=="),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
        ("x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
    ];
    for checksum in checksums {
        let put = fixture.s3.put("kept", &[checksum], body).await;
        assert_eq!((put.status, put.header(checksum.0)), (OK, checksum.1), "{put:?}");
        let shown = fixture.s3.get("kept", &[("x-amz-checksum-mode", "ENABLED")]).await;
        assert_eq!((shown.header(checksum.0), shown.header("x-amz-checksum-type")), (checksum.1, "FULL_OBJECT"));
        assert_eq!(fixture.s3.get("kept", &[]).await.header(checksum.0), "");
        let part = fixture.s3.get("kept", &[("x-amz-checksum-mode", "ENABLED"), ("range", "bytes=0-3")]).await;
        assert_eq!(part.header(checksum.0), "", "a part is not held to the checksum of the whole");

        let refused = fixture.s3.put("refused", &[checksum], "another body").await;
        assert_eq!((refused.status, refused.code().as_str()), (BAD_REQUEST, "BadDigest"), "{}", checksum.0);
    }
    let right = [("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")];
    assert_eq!(fixture.s3.put("kept", &right, body).await.status, OK);
    assert_eq!(fixture.s3.put("refused", &right, "another body").await.code(), "BadDigest");
    assert_eq!(fixture.s3.put("refused", &[("content-md5", "short")], body).await.code(), "InvalidDigest");
    assert_eq!(fixture.s3.get("refused", &[]).await.status, NOT_FOUND);
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let fixture = Fixture::start().await;
    let s3 = &fixture.s3;
    let put = rusty_s3::actions::PutObject::new(&s3.bucket, Some(&s3.credentials), "key");
    let url = put.sign(Duration::from_secs(60));
    let path = url.as_str().split_once("/opal/").unwrap().1;
    let head =
        format!("PUT /opal/{path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 4000000\r\n\r\n", fixture.server.listen());
    let mut stream = tokio::net::TcpStream::connect(fixture.server.listen()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&pattern(3_000_000)).await.unwrap();
    while fixture.leftovers() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    while fixture.leftovers() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(s3.get("key", &[]).await.status, NOT_FOUND);
}

#[tokio::test]
async fn a_stopped_server_can_be_started_on_its_data() {
    let fixture = Fixture::start().await;
    fixture.s3.put("key", &[("x-amz-meta-a", "b")], "body").await;
    let Fixture { data, server, .. } = fixture;
    server.stop().await;
    let server = devstore::Server::start(crate::client::config(data.path())).await.unwrap();
    let reply = Client::new(&server.listen().to_string(), crate::client::SECRET).get("key", &[]).await;
    assert_eq!((reply.header("x-amz-meta-a"), &reply.body[..]), ("b", &b"body"[..]));
}
