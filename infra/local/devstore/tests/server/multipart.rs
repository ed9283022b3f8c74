//! Multipart uploads.

use http::{Method, StatusCode};
use rusty_s3::actions::{AbortMultipartUpload, CompleteMultipartUpload, CreateMultipartUpload, ListParts, UploadPart};

use crate::client::{Fixture, Reply};
use crate::objects::pattern;

struct Upload<'a> {
    fixture: &'a Fixture,
    key: &'a str,
    id: String,
}

impl<'a> Upload<'a> {
    async fn create(fixture: &'a Fixture, key: &'a str, headers: &[(&str, &str)]) -> Upload<'a> {
        let s3 = &fixture.s3;
        let action = CreateMultipartUpload::new(&s3.bucket, Some(&s3.credentials), key);
        let reply = s3.send(Method::POST, action, headers, "").await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        let id = CreateMultipartUpload::parse_response(reply.text()).unwrap().upload_id().to_owned();
        Upload { fixture, key, id }
    }

    async fn put(&self, number: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let s3 = &self.fixture.s3;
        let action = UploadPart::new(&s3.bucket, Some(&s3.credentials), self.key, number, &self.id);
        s3.send(Method::PUT, action, headers, body).await
    }

    async fn complete(&self, etags: &[&str], headers: &[(&str, &str)]) -> Reply {
        let s3 = &self.fixture.s3;
        let new = || {
            CompleteMultipartUpload::new(&s3.bucket, Some(&s3.credentials), self.key, &self.id, etags.iter().copied())
        };
        s3.send(Method::POST, new(), headers, new().body()).await
    }

    async fn abort(&self) -> Reply {
        let s3 = &self.fixture.s3;
        let action = AbortMultipartUpload::new(&s3.bucket, Some(&s3.credentials), self.key, &self.id);
        s3.send(Method::DELETE, action, &[], "").await
    }

    async fn parts(&self) -> Vec<(u16, u64)> {
        let s3 = &self.fixture.s3;
        let reply =
            s3.send(Method::GET, ListParts::new(&s3.bucket, Some(&s3.credentials), self.key, &self.id), &[], "");
        let parts = ListParts::parse_response(reply.await.text()).unwrap().parts;
        parts.into_iter().map(|part| (part.number, part.size)).collect()
    }
}

#[tokio::test]
async fn parts_become_one_object() {
    let fixture = Fixture::start().await;
    let body = pattern(11 << 20);
    let (first, rest) = body.split_at(5 << 20);
    let upload = Upload::create(&fixture, "big/object", &[("x-amz-meta-a", "b"), ("content-type", "text/plain")]).await;
    let last = upload.put(2, &[], rest.to_vec()).await;
    upload.put(1, &[], b"to be replaced".to_vec()).await;
    let replaced = upload.put(1, &[], first.to_vec()).await;
    assert_eq!(upload.parts().await, [(1, first.len() as u64), (2, rest.len() as u64)]);
    assert_eq!(fixture.s3.get("big/object", &[]).await.status, StatusCode::NOT_FOUND);

    let done = upload.complete(&[replaced.header("etag"), last.header("etag")], &[]).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    let reply = fixture.s3.get("big/object", &[]).await;
    assert!(reply.body == body);
    assert_eq!((reply.header("x-amz-meta-a"), reply.header("content-type")), ("b", "text/plain"));
    assert!(reply.header("etag").ends_with("-2\""), "{}", reply.header("etag"));
    assert_eq!(upload.complete(&[replaced.header("etag")], &[]).await.code(), "NoSuchUpload");
    assert_eq!(std::fs::read_dir(fixture.data.path().join("uploads")).unwrap().count(), 0);
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let fixture = Fixture::start().await;
    let upload = Upload::create(&fixture, "key", &[]).await;
    let part = upload.put(1, &[], b"small".to_vec()).await;
    let other = upload.put(2, &[], b"other".to_vec()).await;
    let (part, other) = (part.header("etag"), other.header("etag"));
    let check = async |etags: &[&str], headers: &[(&str, &str)], expect: &str| {
        assert_eq!(upload.complete(etags, headers).await.code(), expect, "{etags:?}");
    };
    check(&[part, other], &[], "EntityTooSmall").await;
    check(&[other], &[], "InvalidPart").await;
    check(&[part, other, part], &[], "InvalidPart").await;
    assert_eq!(upload.put(0, &[], Vec::new()).await.code(), "InvalidArgument");
    assert_eq!(upload.put(10_001, &[], Vec::new()).await.code(), "InvalidArgument");
    let digest = [("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")];
    assert_eq!(upload.put(3, &digest, b"not those nine".to_vec()).await.code(), "BadDigest");
    assert_eq!(upload.parts().await.len(), 2);

    fixture.s3.put("key", &[], "claimed meanwhile").await;
    check(&[part], &[("if-none-match", "*")], "PreconditionFailed").await;
    assert_eq!(fixture.s3.get("key", &[]).await.body, "claimed meanwhile");

    assert_eq!(upload.abort().await.status, StatusCode::NO_CONTENT);
    assert_eq!(upload.abort().await.code(), "NoSuchUpload");
    assert_eq!(upload.put(1, &[], b"late".to_vec()).await.code(), "NoSuchUpload");
    for id in ["", "..", "../../buckets/opal", &"0".repeat(32)] {
        let stranger = Upload { fixture: &fixture, key: "key", id: id.to_owned() };
        assert_eq!(stranger.abort().await.status, StatusCode::NOT_FOUND, "{id}");
    }
    assert_eq!(fixture.leftovers(), 0);
}

/// CRC32 of the whole from the bytes, SHA-256 from those of the parts: the values are Python's `zlib` and `hashlib`.
#[tokio::test]
async fn multipart_checksums_are_of_the_whole_or_of_the_parts() {
    let fixture = Fixture::start().await;
    let enabled = [("x-amz-checksum-mode", "ENABLED")];
    let cases = [
        ("CRC32", "FULL_OBJECT", "y/Q5Jg=="),
        ("SHA256", "COMPOSITE", "KSsNAHVmgy25S/rmic1w0at3KBH9RLn0nYVQ7p6mpJQ=-1"),
    ];
    for (algorithm, kind, expect) in cases {
        let headers = [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)];
        let upload = Upload::create(&fixture, algorithm, &headers).await;
        let part = upload.put(1, &[], b"123456789".to_vec()).await;
        let done = upload.complete(&[part.header("etag")], &[]).await;
        assert_eq!(done.status, StatusCode::OK, "{done:?}");
        let reply = fixture.s3.head(algorithm, &enabled).await;
        let header = format!("x-amz-checksum-{}", algorithm.to_ascii_lowercase());
        assert_eq!((reply.header(&header), reply.header("x-amz-checksum-type")), (expect, kind));
    }
}
