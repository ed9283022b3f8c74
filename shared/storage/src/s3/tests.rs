//! `S3Store` over replies that the test writes, and the requests that it reads: signing, headers, and what each status
//! becomes. What a real store makes of the requests is for the contract.

use super::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

const SECRET: &str = "secret-that-nobody-sees";
const KEY_ID: &str = "AKIDTHATNOBODYSEES";

enum Answer {
    Reply(u16, &'static [(&'static str, &'static str)], String),
    Fail(HttpError),
    Hang,
}

#[derive(Clone, Default)]
struct Scripted {
    answers: Rc<RefCell<VecDeque<Answer>>>,
    requests: Rc<RefCell<Vec<Request<Bytes>>>>,
}

impl Runtime for Scripted {
    fn now(&self) -> model::Timestamp {
        model::Timestamp(1_700_000_000_000)
    }

    fn random(&self) -> u128 {
        4
    }

    async fn sleep(&self, _ms: u64) {}
}

impl Http for Scripted {
    async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.requests.borrow_mut().push(request);
        let answer = self.answers.borrow_mut().pop_front().expect("a request the test does not expect");
        match answer {
            Answer::Reply(status, headers, body) => {
                let mut reply = Response::builder().status(status);
                for (name, value) in headers {
                    reply = reply.header(*name, *value);
                }
                Ok(reply.body(Bytes::from(body)).unwrap())
            }
            Answer::Fail(error) => Err(error),
            Answer::Hang => std::future::pending().await,
        }
    }
}

fn config() -> S3Config {
    S3Config {
        endpoint: "https://store.example:9000".to_owned(),
        bucket: "opal".to_owned(),
        region: "auto".to_owned(),
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: Some("token-that-nobody-sees".to_owned()),
    }
}

fn store(answers: impl IntoIterator<Item = Answer>) -> (S3Store<Scripted>, Scripted) {
    let runtime = Scripted { answers: Rc::new(RefCell::new(answers.into_iter().collect())), ..Scripted::default() };
    (S3Store::new(config(), runtime.clone()).unwrap(), runtime)
}

fn reply(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>");
    Answer::Reply(status, &[], if code.is_empty() { String::new() } else { body })
}

async fn get_of(answer: Answer) -> Result<Option<Bytes>, ReadError> {
    store([answer]).0.get("k").await
}

async fn put_of(answer: Answer, mode: PutMode) -> Result<Etag, PutError> {
    store([answer]).0.put("k", "body".into(), mode).await
}

#[tokio::test]
async fn each_status_of_a_read_means_one_thing() {
    let unavailable = |text: &str| Err(ReadError::Unavailable(text.to_owned()));
    let refused = |text: &str| Err(ReadError::Refused(text.to_owned()));
    for (status, code, expect) in [
        (200, "", Ok(Some(Bytes::new()))),
        (404, "NoSuchKey", Ok(None)),
        (404, "", Ok(None)),
        (404, "NoSuchBucket", refused("404 NoSuchBucket")),
        (403, "SignatureDoesNotMatch", refused("403 SignatureDoesNotMatch")),
        (301, "PermanentRedirect", refused("301 PermanentRedirect")),
        (400, "", refused("400")),
        (400, "RequestTimeout", unavailable("400 RequestTimeout")),
        (408, "", unavailable("408")),
        (429, "", unavailable("429")),
        (500, "InternalError", unavailable("500 InternalError")),
        (503, "SlowDown", unavailable("503 SlowDown")),
        (403, "not a code", refused("403")),
    ] {
        assert_eq!(get_of(reply(status, code)).await, expect, "{status} {code}");
    }
}

#[tokio::test]
async fn each_status_of_a_put_means_one_thing() {
    let busy = |text: &str| Err(PutError::Busy(text.to_owned()));
    let indeterminate = |text: &str| Err(PutError::Indeterminate(text.to_owned()));
    let refused = |text: &str| Err(PutError::Refused(text.to_owned()));
    for (status, code, expect) in [
        (412, "PreconditionFailed", Err(PutError::Precondition)),
        (409, "ConditionalRequestConflict", busy("409 ConditionalRequestConflict")),
        (429, "", busy("429")),
        (500, "", indeterminate("500")),
        (503, "SlowDown", indeterminate("503 SlowDown")),
        (400, "RequestTimeout", indeterminate("400 RequestTimeout")),
        (400, "BadDigest", refused("400 BadDigest")),
        (403, "AccessDenied", refused("403 AccessDenied")),
        (404, "NoSuchBucket", refused("404 NoSuchBucket")),
        (404, "NoSuchKey", refused("404 NoSuchKey")),
    ] {
        assert_eq!(put_of(reply(status, code), PutMode::Create).await, expect, "{status} {code}");
    }
    let written = Answer::Reply(200, &[("etag", "\"e\"")], String::new());
    assert_eq!(put_of(written, PutMode::Create).await, Ok(Etag("\"e\"".to_owned())));
}

#[tokio::test]
async fn an_update_of_nothing_fails_by_its_condition() {
    let update = PutMode::Update(Etag("\"e\"".to_owned()));
    assert_eq!(put_of(reply(404, "NoSuchKey"), update.clone()).await, Err(PutError::Precondition));
    assert!(matches!(put_of(reply(404, "NoSuchBucket"), update).await, Err(PutError::Refused(_))));
}

#[tokio::test]
async fn no_reply_is_unavailable_or_indeterminate_and_nothing_sent_is_refused() {
    let lost = || Answer::Fail(HttpError::NoReply("connection reset".to_owned()));
    assert_eq!(get_of(lost()).await, Err(ReadError::Unavailable("connection reset".to_owned())));
    assert_eq!(put_of(lost(), PutMode::Create).await, Err(PutError::Indeterminate("connection reset".to_owned())));
    assert!(matches!(get_of(Answer::Hang).await, Err(ReadError::Unavailable(_))));
    assert!(matches!(put_of(Answer::Hang, PutMode::Create).await, Err(PutError::Indeterminate(_))));
    let invalid = || Answer::Fail(HttpError::Invalid("no such scheme".to_owned()));
    assert!(matches!(get_of(invalid()).await, Err(ReadError::Refused(_))));
    assert!(matches!(put_of(invalid(), PutMode::Create).await, Err(PutError::Refused(_))));
}

#[tokio::test]
async fn a_delete_of_nothing_succeeds() {
    for (status, code, succeeds) in
        [(204, "", true), (200, "", true), (404, "NoSuchKey", true), (404, "NoSuchBucket", false), (403, "", false)]
    {
        assert_eq!(store([reply(status, code)]).0.delete("k").await.is_ok(), succeeds, "{status} {code}");
    }
}

#[tokio::test]
async fn ranges_come_back_whatever_the_store_makes_of_them() {
    let answers = [
        Answer::Reply(206, &[], "cde".to_owned()),
        Answer::Reply(200, &[], "abcdefgh".to_owned()),
        reply(416, "InvalidRange"),
        reply(404, "NoSuchKey"),
        Answer::Reply(206, &[], "abcdefgh".to_owned()),
    ];
    let (store, runtime) = store(answers);
    assert_eq!(store.get_range("k", 2..5).await, Ok(Some("cde".into())));
    assert_eq!(store.get_range("k", 2..5).await, Ok(Some("cde".into())));
    assert_eq!(store.get_range("k", 2..5).await, Ok(Some(Bytes::new())));
    assert_eq!(store.get_range("k", 2..5).await, Ok(None));
    assert!(matches!(store.get_range("k", 2..5).await, Err(ReadError::Unavailable(_))));
    let requests = runtime.requests.borrow();
    assert_eq!(requests[0].headers()["range"], "bytes=2-4");
    assert!(requests[0].uri().query().unwrap().contains("X-Amz-SignedHeaders=host%3Brange"));
}

#[tokio::test]
async fn a_size_is_read_from_the_header() {
    let (store, _) = store([Answer::Reply(200, &[("content-length", "42")], String::new()), reply(200, "")]);
    assert_eq!(store.head("k").await, Ok(Some(42)));
    assert!(matches!(store.head("k").await, Err(ReadError::Unavailable(_))));
}

#[tokio::test]
async fn a_put_is_signed_with_its_condition_and_checksum() {
    let (store, runtime) = store([reply(200, ""), reply(200, "")]);
    store.put("a b/+%é", "body".into(), PutMode::Create).await.unwrap();
    store.put("k", "".into(), PutMode::Update(Etag("\"e\"".to_owned()))).await.unwrap();
    let requests = runtime.requests.borrow();
    let (create, update) = (&requests[0], &requests[1]);
    assert_eq!(create.uri().path(), "/opal/a%20b/%2B%25%C3%A9");
    assert_eq!(create.headers()["if-none-match"], "*");
    assert_eq!(create.headers()["content-md5"], "hBotaJrYa9FhFEdFPCLG/A==");
    assert!(!create.headers().contains_key("cache-control"), "it would become a property of the object");
    let query = create.uri().query().unwrap();
    for part in [
        "X-Amz-SignedHeaders=content-md5%3Bhost%3Bif-none-match",
        "X-Amz-Date=20231114T221320Z",
        "X-Amz-Expires=300",
        "X-Amz-Security-Token=token",
    ] {
        assert!(query.contains(part), "{part} in {query}");
    }
    assert_eq!(update.headers()["if-match"], "\"e\"");
}

#[tokio::test]
async fn reads_pass_by_caches() {
    let list = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></ListBucketResult>";
    let (store, runtime) = store([reply(404, ""), reply(404, ""), Answer::Reply(200, &[], list.to_owned())]);
    store.get("k").await.unwrap();
    store.head("k").await.unwrap();
    store.list("k", None).await.unwrap();
    assert_eq!(runtime.requests.borrow().len(), 3);
    for request in runtime.requests.borrow().iter() {
        assert_eq!(request.headers()["cache-control"], "no-store");
    }
}

fn page(keys: &[&str], token: Option<&str>) -> Answer {
    let keys: String = keys.iter().map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
    let more = match token {
        Some(token) => format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"),
        None => "<IsTruncated>false</IsTruncated>".to_owned(),
    };
    let xml = format!(
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <EncodingType>url</EncodingType>{more}{keys}</ListBucketResult>"
    );
    Answer::Reply(200, &[], xml)
}

#[tokio::test]
async fn a_listing_that_is_cut_short_goes_on() {
    let (store, runtime) = store([page(&["p/a+b", "p/c%2B"], Some("t")), page(&[], Some("u")), page(&["p/d"], None)]);
    assert_eq!(store.list("p/", Some("p/")).await, Ok(vec!["p/a b".to_owned(), "p/c+".to_owned(), "p/d".to_owned()]));
    let requests = runtime.requests.borrow();
    let queries: Vec<&str> = requests.iter().map(|request| request.uri().query().unwrap()).collect();
    assert!(queries[0].contains("start-after=p%2F") && queries[0].contains("max-keys=1000"), "{}", queries[0]);
    assert!(queries[1].contains("continuation-token=t") && queries[1].contains("max-keys=998"), "{}", queries[1]);
    assert!(queries[2].contains("continuation-token=u"), "{}", queries[2]);
}

#[tokio::test]
async fn a_listing_that_never_ends_is_given_up() {
    let (store, runtime) = store((0..LIST_REQUESTS_MAX).map(|_| page(&[], Some("t"))));
    assert!(matches!(store.list("", None).await, Err(ReadError::Unavailable(_))));
    assert_eq!(runtime.requests.borrow().len(), LIST_REQUESTS_MAX);
}

#[tokio::test]
async fn a_listing_that_cannot_be_read_is_an_error() {
    for (answer, refused) in [
        (Answer::Reply(200, &[], "<html>".to_owned()), false),
        (reply(503, ""), false),
        (reply(404, "NoSuchBucket"), true),
        (reply(404, ""), true),
    ] {
        let outcome = store([answer]).0.list("", None).await;
        assert_eq!(matches!(outcome, Err(ReadError::Refused(_))), refused, "{outcome:?}");
        assert!(outcome.is_err());
    }
}

#[tokio::test]
async fn keys_that_urls_cannot_carry_are_never_sent() {
    let (store, runtime) = store([]);
    let long = "k".repeat(limits::KEY_BYTES_MAX + 1);
    for key in ["", ".", "..", "a/../b", "a/.", &long] {
        assert!(matches!(store.get(key).await, Err(ReadError::Refused(_))), "{key}");
        assert!(matches!(store.put(key, "".into(), PutMode::Create).await, Err(PutError::Refused(_))), "{key}");
        assert!(matches!(store.delete(key).await, Err(PutError::Refused(_))), "{key}");
    }
    assert!(runtime.requests.borrow().is_empty());
}

#[tokio::test]
async fn no_text_names_keys_or_signed_urls() {
    let url = "Fetch API cannot load: https://store.example/opal/k?X-Amz-Signature=abc".to_owned();
    let (store, _) = store([
        Answer::Fail(HttpError::NoReply(url.clone())),
        Answer::Fail(HttpError::Invalid(url)),
        reply(403, "AccessDenied"),
    ]);
    let mut texts = vec![format!("{:?} {store:?}", config())];
    for _ in 0..3 {
        let error = store.get("k").await.unwrap_err();
        texts.push(format!("{error} {error:?}"));
    }
    for text in texts {
        for secret in [SECRET, KEY_ID, "nobody", "X-Amz", "abc"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn a_config_is_read_from_settings() {
    let settings = |without: &'static str| {
        move |name: &str| match name {
            name if name == without => Some(String::new()),
            "S3_ENDPOINT" => Some("http://127.0.0.1:9000".to_owned()),
            "S3_SESSION_TOKEN" => None,
            name => Some(name.to_lowercase()),
        }
    };
    let config = S3Config::from_lookup(settings("")).unwrap();
    assert_eq!((config.bucket.as_str(), config.region.as_str()), ("s3_bucket", "s3_region"));
    assert_eq!((config.access_key_id.as_str(), config.session_token), ("s3_access_key_id", None));
    for name in ["S3_ENDPOINT", "S3_BUCKET", "S3_REGION", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"] {
        assert_eq!(S3Config::from_lookup(settings(name)).unwrap_err(), S3ConfigError::Missing(name));
    }
}

#[test]
fn an_endpoint_that_is_no_host_is_refused() {
    for endpoint in ["store.example", "ftp://store.example", "http://"] {
        let config = S3Config { endpoint: endpoint.to_owned(), ..config() };
        let refused = S3Store::new(config, Scripted::default());
        assert!(matches!(refused, Err(S3ConfigError::Endpoint(_))), "{endpoint}: {refused:?}");
    }
}
