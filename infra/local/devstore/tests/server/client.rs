//! What the tests talk to the server with: presigned requests of `rusty-s3` over a pooled HTTP client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use devstore::{Config, Server};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rusty_s3::actions::{DeleteObject, GetObject, HeadObject, ListObjectsV2, ListObjectsV2Response, PutObject};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

pub const KEY_ID: &str = "test-key";
pub const SECRET: &str = "test-secret";
const VALID: Duration = Duration::from_secs(300);

/// A directory of its own, removed when the test ends.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        let mut nonce = [0_u8; 8];
        getrandom::fill(&mut nonce).unwrap();
        let path = std::env::temp_dir().join(format!("devstore-test-{:x}", u64::from_le_bytes(nonce)));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn config(data: &Path) -> Config {
    Config {
        data: data.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        bucket: "opal".into(),
        access_key_id: KEY_ID.into(),
        secret_access_key: SECRET.into(),
        fsync: true,
    }
}

/// A server in this process and a client of it.
pub struct Fixture {
    pub data: TempDir,
    pub server: Server,
    pub s3: Client,
}

impl Fixture {
    pub async fn start() -> Fixture {
        let data = TempDir::new();
        let server = Server::start(config(data.path())).await.unwrap();
        let s3 = Client::new(&server.listen().to_string(), SECRET);
        Fixture { data, server, s3 }
    }

    /// Files that are not published yet: none, when no request is under way.
    pub fn leftovers(&self) -> usize {
        std::fs::read_dir(self.data.path().join("tmp")).unwrap().count()
    }

    /// What the admin port answers.
    pub async fn admin(&self, method: Method, path: &str) -> (StatusCode, serde_json::Value) {
        self.admin_with(method, path, "").await
    }

    /// What it answers to a body.
    pub async fn admin_with(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (StatusCode, serde_json::Value) {
        let uri = format!("http://{}{path}", self.server.admin());
        let request = Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap();
        let reply = send(&self.s3.http, request).await;
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }
}

/// A reply that has come in whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The code in the body of an error.
    pub fn code(&self) -> String {
        let code = self.text().split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        code.map_or(String::new(), |(code, _)| code.to_owned())
    }
}

pub type Http = HttpClient<HttpConnector, Full<Bytes>>;

async fn send(http: &Http, request: Request<Full<Bytes>>) -> Reply {
    try_send(http, request).await.expect("the server answers")
}

async fn try_send(http: &Http, request: Request<Full<Bytes>>) -> Option<Reply> {
    let (parts, body) = http.request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Reply { status: parts.status, headers: parts.headers, body })
}

#[derive(Clone)]
pub struct Client {
    pub http: Http,
    pub bucket: Bucket,
    pub credentials: Credentials,
}

pub type Headers<'a> = &'a [(&'a str, &'a str)];

impl Client {
    pub fn new(address: &str, secret: &str) -> Client {
        let endpoint = format!("http://{address}").parse().unwrap();
        let bucket = Bucket::new(endpoint, UrlStyle::Path, "opal", "us-east-1").unwrap();
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Client { http, bucket, credentials: Credentials::new(KEY_ID, secret) }
    }

    /// Signs an action and sends it; `None` if the server went away.
    pub async fn try_send<'a>(
        &self,
        method: Method,
        action: impl S3Action<'a>,
        headers: Headers<'_>,
        body: impl Into<Bytes>,
    ) -> Option<Reply> {
        let mut request = Request::builder().method(method).uri(action.sign(VALID).as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        try_send(&self.http, request.body(Full::new(body.into())).unwrap()).await
    }

    pub async fn send<'a>(
        &self,
        method: Method,
        action: impl S3Action<'a>,
        headers: Headers<'_>,
        body: impl Into<Bytes>,
    ) -> Reply {
        self.try_send(method, action, headers, body).await.expect("the server answers")
    }

    pub async fn put(&self, key: &str, headers: Headers<'_>, body: impl Into<Bytes>) -> Reply {
        self.send(Method::PUT, PutObject::new(&self.bucket, Some(&self.credentials), key), headers, body).await
    }

    /// A put that may get no answer.
    pub async fn try_put(&self, key: &str, headers: Headers<'_>, body: impl Into<Bytes>) -> Option<Reply> {
        self.try_send(Method::PUT, PutObject::new(&self.bucket, Some(&self.credentials), key), headers, body).await
    }

    pub async fn get(&self, key: &str, headers: Headers<'_>) -> Reply {
        self.send(Method::GET, GetObject::new(&self.bucket, Some(&self.credentials), key), headers, "").await
    }

    pub async fn head(&self, key: &str, headers: Headers<'_>) -> Reply {
        self.send(Method::HEAD, HeadObject::new(&self.bucket, Some(&self.credentials), key), headers, "").await
    }

    pub async fn delete(&self, key: &str, headers: Headers<'_>) -> Reply {
        self.send(Method::DELETE, DeleteObject::new(&self.bucket, Some(&self.credentials), key), headers, "").await
    }

    /// DeleteObjects, which the S3 client has only together with more than we need.
    pub async fn delete_many(&self, xml: &'static str) -> Reply {
        let url = rusty_s3::signing::sign(
            &jiff::Timestamp::now(),
            rusty_s3::Method::Post,
            self.bucket.base_url().clone(),
            self.credentials.key(),
            self.credentials.secret(),
            None,
            self.bucket.region(),
            VALID.as_secs(),
            [("delete", "")].into_iter(),
            std::iter::empty(),
        );
        let request = Request::builder().method(Method::POST).uri(url.as_str()).body(Full::from(xml)).unwrap();
        send(&self.http, request).await
    }

    pub async fn list(&self, set: impl FnOnce(&mut ListObjectsV2<'_>)) -> ListObjectsV2Response {
        let mut action = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
        set(&mut action);
        let reply = self.send(Method::GET, action, &[], "").await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        ListObjectsV2::parse_response(reply.text()).unwrap()
    }
}
