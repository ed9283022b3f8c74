//! The smallest client: whatever bytes a test wants to send, and whatever comes back.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Longer than the answer to a small request may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// An older connection is not used again: workerd closes it after 5 s, and nobody listens for that between two calls.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// A client with a connection of its own, which it keeps from request to request. It blocks: give each thread its own.
pub(crate) struct Api {
    url: String,
    patience: Duration,
    runtime: Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Api {
    /// `url` without a path.
    pub(crate) fn new(url: impl Into<String>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_idle_timeout(IDLE_MAX);
        Api { url: url.into(), patience: PATIENCE, runtime, client: client.build_http() }
    }

    /// The same, that waits this long for an answer.
    pub(crate) fn patient(self, patience: Duration) -> Self {
        Api { patience, ..self }
    }

    /// The URL that it was made for.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends exactly this; the uri is a path. An error: no answer came.
    pub(crate) fn send(&self, request: Request<Bytes>) -> Result<Reply, String> {
        let (mut head, body) = request.into_parts();
        head.uri = format!("{}{}", self.url, head.uri).parse().map_err(|error| format!("{error}"))?;
        let request = Request::from_parts(head, Full::new(body));
        let exchange = async {
            let (head, body) = self.client.request(request).await.map_err(|error| format!("{error:?}"))?.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        let patient = async { tokio::time::timeout(self.patience, exchange).await };
        self.runtime.block_on(patient).map_err(|_| format!("no answer in {:?}", self.patience))?
    }

    /// Sends `body` as JSON, if there is one. An error: no answer came.
    pub(crate) fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        self.send(request.body(body).unwrap())
    }

    /// The same; an answer must come.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.call("GET", path, None)
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, Some(body))
    }

    /// Makes a tenant with a database and returns the path of the database.
    #[track_caller]
    pub(crate) fn fresh_database(&self) -> String {
        let tenant = unique_name("tenant");
        self.post("/api/v2/tenants", &json!({ "name": tenant })).expect(200);
        self.post(&format!("/api/v2/tenants/{tenant}/databases"), &json!({ "name": "main" })).expect(200);
        format!("/api/v2/tenants/{tenant}/databases/main")
    }

    /// Makes a collection in a tenant of its own.
    #[track_caller]
    pub(crate) fn fresh_collection(&self) -> Collection {
        let database = self.fresh_database();
        let id = self.post(&format!("{database}/collections"), &json!({ "name": "records" })).expect(200).json()["id"]
            .clone();
        let id = id.as_str().unwrap().to_owned();
        Collection { path: format!("{database}/collections/{id}"), id }
    }
}

/// A collection as its routes name it.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    /// Of its record routes, without the verb.
    pub(crate) path: String,
    /// A UUID.
    pub(crate) id: String,
}

impl Collection {
    /// The path of one of its record routes.
    pub(crate) fn verb(&self, verb: &str) -> String {
        format!("{}/{verb}", self.path)
    }

    /// Adds records of two dimensions with these ids.
    #[track_caller]
    pub(crate) fn add(&self, api: &Api, ids: &[&str]) {
        api.post(&self.verb("add"), &records(ids)).expect(201);
    }

    /// All ids, in order.
    #[track_caller]
    pub(crate) fn ids(&self, api: &Api) -> Vec<String> {
        let reply = api.post(&self.verb("get"), &json!({ "include": [] })).expect(200).json();
        reply["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }
}

/// A body that writes records of two dimensions with these ids.
pub(crate) fn records(ids: &[&str]) -> Value {
    let vectors: Vec<[f32; 2]> = (0..ids.len()).map(|i| [f32::from(u16::try_from(i).unwrap()), 1.0]).collect();
    json!({ "ids": ids, "embeddings": vectors, "documents": ids })
}

impl Reply {
    /// Itself, if it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The body.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// A header's value, empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it is an error as Chroma makes them: JSON with a name and a message, and a trace id.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, name: &str, message_part: &str) -> Self {
        let reply = self.expect(status).expect_trace_id();
        let body = reply.json();
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["error", "message"], "{reply:?}");
        assert_eq!(body["error"], name, "{reply:?}");
        assert!(body["message"].as_str().unwrap().contains(message_part), "no {message_part:?} in {reply:?}");
        assert!(reply.header("content-type").starts_with("application/json"), "{reply:?}");
        reply
    }

    /// Checks that there is a trace id, as on every 4xx and 5xx.
    #[track_caller]
    pub(crate) fn expect_trace_id(self) -> Self {
        let id = self.header("chroma-trace-id");
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "no chroma-trace-id in {self:?}");
        self
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let shown: String = body.chars().take(2000).collect();
        write!(f, "{} {:?} {shown:?}", self.status, self.headers)
    }
}

/// A name that no other test has, in this run or an earlier one.
pub(crate) fn unique_name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{what}-{nanos:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
