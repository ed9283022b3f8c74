//! A bucket reached over the S3 protocol by presigned URLs: no SDK, so it is small enough for a Worker.

use crate::{Etag, LIST_KEYS_MAX, ObjectStore, PutError, PutMode, ReadError, key_error, part_of};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use jiff::Timestamp;
use md5::{Digest, Md5};
use model::limits;
use runtime::{Http, HttpError, Runtime, within};
use rusty_s3::actions::{ListObjectsV2, ListObjectsV2Response};
use rusty_s3::{Bucket, BucketError, Credentials, Map, S3Action, UrlStyle};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// How long a signed request may be carried out, by the store's clock: our clock may be late by this much, and no write
/// arrives later than this. Far below the delay of garbage collection.
const SIGNATURE_VALID: Duration = Duration::from_secs(300);

/// Most requests for one listing: a store may cut its pages short, but must go on.
const LIST_REQUESTS_MAX: usize = 16;

/// Where a bucket is, and whose it is.
#[derive(Clone)]
pub struct S3Config {
    /// `https://host` or `http://host:port` of the store; the bucket is the first segment of the path.
    pub endpoint: String,
    /// Name of the bucket.
    pub bucket: String,
    /// Region that signatures name; R2 takes `auto`.
    pub region: String,
    /// Access key.
    pub access_key_id: String,
    /// Secret key.
    pub secret_access_key: String,
    /// Session token, with temporary keys.
    pub session_token: Option<String>,
}

impl S3Config {
    /// The bucket that a program's settings name: `S3_ENDPOINT`, `S3_BUCKET`, `S3_REGION`, `S3_ACCESS_KEY_ID`,
    /// `S3_SECRET_ACCESS_KEY` and, if there is one, `S3_SESSION_TOKEN`. An empty setting is none.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, S3ConfigError> {
        let optional = |name| lookup(name).filter(|value| !value.is_empty());
        let required = |name| optional(name).ok_or(S3ConfigError::Missing(name));
        Ok(S3Config {
            endpoint: required("S3_ENDPOINT")?,
            bucket: required("S3_BUCKET")?,
            region: required("S3_REGION")?,
            access_key_id: required("S3_ACCESS_KEY_ID")?,
            secret_access_key: required("S3_SECRET_ACCESS_KEY")?,
            session_token: optional("S3_SESSION_TOKEN"),
        })
    }
}

/// Without the keys.
impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let S3Config { endpoint, bucket, region, .. } = self;
        let mut config = f.debug_struct("S3Config");
        config.field("endpoint", endpoint).field("bucket", bucket).field("region", region).finish_non_exhaustive()
    }
}

/// A setting that names no bucket: the program cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum S3ConfigError {
    /// The endpoint is not a URL of a host by HTTP or HTTPS.
    #[error("the store's endpoint is not `http(s)://host[:port]`: {0}")]
    Endpoint(String),
    /// The named setting is missing or empty.
    #[error("{0} is not set")]
    Missing(&'static str),
}

/// A bucket of S3, R2 or anything that speaks like them.
///
/// Writes carry `Content-MD5`, the one checksum that all of them verify (R2 does not take the CRCs for whole objects).
/// Error texts name the status and the store's error code, never URLs: whoever reads a signed URL could use it.
pub struct S3Store<R> {
    runtime: R,
    bucket: Bucket,
    credentials: Credentials,
}

/// Without the keys.
impl<R> fmt::Debug for S3Store<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("bucket", &self.bucket.base_url().as_str()).finish_non_exhaustive()
    }
}

impl<R> S3Store<R> {
    /// The bucket that `config` names, reached through `runtime`. Nothing is sent yet.
    pub fn new(config: S3Config, runtime: R) -> Result<Self, S3ConfigError> {
        let invalid = |error: &dyn fmt::Display| S3ConfigError::Endpoint(error.to_string());
        let endpoint = config.endpoint.parse().map_err(|error| invalid(&error))?;
        let bucket = Bucket::new(endpoint, UrlStyle::Path, config.bucket, config.region)
            .map_err(|error: BucketError| invalid(&error))?;
        let (key, secret) = (config.access_key_id, config.secret_access_key);
        let credentials = match config.session_token {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        Ok(S3Store { runtime, bucket, credentials })
    }

    /// The same bucket, reached through `runtime`.
    pub fn through(&self, runtime: R) -> Self {
        S3Store { runtime, bucket: self.bucket.clone(), credentials: self.credentials.clone() }
    }

    /// Where the bucket is: endpoint and name, nothing secret.
    pub fn url(&self) -> String {
        self.bucket.base_url().to_string()
    }
}

impl<R: Runtime + Http> ObjectStore for S3Store<R> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        let reply = self.read(key, self.bucket.get_object(Some(&self.credentials), key)).await?;
        found(reply, |reply| Ok(reply.into_body()))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        assert!(range.start < range.end, "an empty range asks for nothing");
        let mut action = self.bucket.get_object(Some(&self.credentials), key);
        action.headers_mut().insert("range", format!("bytes={}-{}", range.start, range.end - 1));
        let reply = self.read(key, action).await?;
        if reply.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(Some(Bytes::new()));
        }
        found(reply, |reply| match reply.status() {
            StatusCode::PARTIAL_CONTENT if reply.body().len() as u64 <= range.end - range.start => {
                Ok(reply.into_body())
            }
            StatusCode::PARTIAL_CONTENT => Err(ReadError::Unavailable("more bytes than asked for".to_owned())),
            _ => Ok(part_of(reply.body(), &range)),
        })
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        let reply = self.read(key, self.bucket.head_object(Some(&self.credentials), key)).await?;
        found(reply, |reply| {
            let size = reply.headers().get(header::CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok());
            size.ok_or_else(|| ReadError::Unavailable("no content-length".to_owned()))
        })
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        let headers = action.headers_mut();
        headers.insert("content-md5", BASE64.encode(Md5::digest(&body)));
        let is_update = matches!(mode, PutMode::Update(_));
        match mode {
            PutMode::Overwrite => {}
            PutMode::Create => headers.insert("if-none-match", "*"),
            PutMode::Update(etag) => headers.insert("if-match", etag.0),
        }
        let reply = self.write(key, action, body).await?;
        match reply.status() {
            status if status.is_success() => Ok(etag_of(&reply)),
            // S3 answers so to `If-Match` where there is no object at all.
            StatusCode::NOT_FOUND if is_update && !is_bucket_missing(&reply) => Err(PutError::Precondition),
            _ => Err(put_error(&reply)),
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        let mut keys = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..LIST_REQUESTS_MAX {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(prefix);
            action.with_max_keys(LIST_KEYS_MAX - keys.len());
            match (token.take(), start_after) {
                (Some(token), _) => action.with_continuation_token(token),
                (None, Some(key)) => action.with_start_after(key),
                (None, None) => {}
            }
            let page = listing(&self.send(action, Bytes::new()).await?)?;
            keys.extend(page.contents.into_iter().map(|object| object.key));
            token = page.next_continuation_token;
            if token.is_none() || keys.len() >= LIST_KEYS_MAX {
                return Ok(keys);
            }
        }
        Err(ReadError::Unavailable(format!("a listing of fewer than {LIST_KEYS_MAX} keys does not end")))
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        let reply = self.write(key, self.bucket.delete_object(Some(&self.credentials), key), Bytes::new()).await?;
        match reply.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND if !is_bucket_missing(&reply) => Ok(()),
            _ => Err(put_error(&reply)),
        }
    }
}

/// Why there is no reply.
enum SendError {
    /// Nothing was sent.
    Invalid(String),
    /// Its effect is unknown.
    NoReply(String),
}

impl From<SendError> for ReadError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Invalid(text) => ReadError::Refused(text),
            SendError::NoReply(text) => ReadError::Unavailable(text),
        }
    }
}

impl From<SendError> for PutError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Invalid(text) => PutError::Refused(text),
            SendError::NoReply(text) => PutError::Indeterminate(text),
        }
    }
}

impl<R: Runtime + Http> S3Store<R> {
    async fn read<'a>(&self, key: &str, action: impl S3Action<'a>) -> Result<Response<Bytes>, ReadError> {
        match key_error(key) {
            Some(error) => Err(ReadError::Refused(error)),
            None => Ok(self.send(action, Bytes::new()).await?),
        }
    }

    async fn write<'a>(&self, key: &str, action: impl S3Action<'a>, body: Bytes) -> Result<Response<Bytes>, PutError> {
        match key_error(key) {
            Some(error) => Err(PutError::Refused(error)),
            None => Ok(self.send(action, body).await?),
        }
    }

    /// Signs and sends `action` with the headers that it has.
    async fn send<'a, A: S3Action<'a>>(&self, mut action: A, body: Bytes) -> Result<Response<Bytes>, SendError> {
        let now = i64::try_from(self.runtime.now().0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let now = now.ok_or_else(|| SendError::Invalid("the clock is beyond all calendars".to_owned()))?;
        let url = action.sign_with_time(SIGNATURE_VALID, &now);
        let request = request(A::METHOD, url.as_str(), action.headers_mut(), body)?;
        match within(&self.runtime, limits::STORE_TIMEOUT_MS, self.runtime.fetch(request)).await {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(HttpError::Invalid(text))) => Err(SendError::Invalid(without_url(text))),
            Some(Err(HttpError::NoReply(text))) => Err(SendError::NoReply(without_url(text))),
            None => Err(SendError::NoReply(format!("no reply within {} ms", limits::STORE_TIMEOUT_MS))),
        }
    }
}

fn request(method: rusty_s3::Method, url: &str, headers: &Map<'_>, body: Bytes) -> Result<Request<Bytes>, SendError> {
    let mut request = Request::builder().method(method.to_str()).uri(url);
    for (name, value) in headers.iter() {
        request = request.header(name, value);
    }
    if matches!(method, rusty_s3::Method::Get | rusty_s3::Method::Head) {
        // Whatever stands between us and the store must ask it anew: the log rests on what *is* there. (On a put the same
        // header would become a property of the object.)
        request = request.header(header::CACHE_CONTROL, "no-store");
    }
    request.body(body).map_err(|error| SendError::Invalid(error.to_string()))
}

/// The value of a reply about an object, or `None` if there is no object.
fn found<T>(
    reply: Response<Bytes>,
    value: impl FnOnce(Response<Bytes>) -> Result<T, ReadError>,
) -> Result<Option<T>, ReadError> {
    match reply.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => value(reply).map(Some),
        StatusCode::NOT_FOUND if !is_bucket_missing(&reply) => Ok(None),
        _ => Err(read_error(&reply)),
    }
}

fn listing(reply: &Response<Bytes>) -> Result<ListObjectsV2Response, ReadError> {
    if !reply.status().is_success() {
        return Err(read_error(reply));
    }
    let unreadable = || ReadError::Unavailable("a listing that cannot be read".to_owned());
    let text = std::str::from_utf8(reply.body()).map_err(|_| unreadable())?;
    ListObjectsV2::parse_response(text).map_err(|_| unreadable())
}

/// The etag of a write that succeeded. A store that gives none gets one that no condition will ever match.
fn etag_of(reply: &Response<Bytes>) -> Etag {
    let etag = reply.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
    Etag(etag.unwrap_or("\"\"").to_owned())
}

fn read_error(reply: &Response<Bytes>) -> ReadError {
    let text = error_text(reply);
    match reply.status() {
        StatusCode::TOO_MANY_REQUESTS => ReadError::Unavailable(text),
        _ if is_unanswered(reply) => ReadError::Unavailable(text),
        _ => ReadError::Refused(text),
    }
}

fn put_error(reply: &Response<Bytes>) -> PutError {
    let text = error_text(reply);
    match reply.status() {
        StatusCode::PRECONDITION_FAILED => PutError::Precondition,
        // 409: another conditional put to the same key was under way.
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => PutError::Busy(text),
        _ if is_unanswered(reply) => PutError::Indeterminate(text),
        _ => PutError::Refused(text),
    }
}

/// The store failed, or (S3: 400 `RequestTimeout`) lost patience with a connection that stalled.
fn is_unanswered(reply: &Response<Bytes>) -> bool {
    let status = reply.status();
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT || error_code(reply) == Some("RequestTimeout")
}

fn is_bucket_missing(reply: &Response<Bytes>) -> bool {
    error_code(reply) == Some("NoSuchBucket")
}

/// `403 AccessDenied`. Nothing else of the reply: its message may repeat what was signed.
fn error_text(reply: &Response<Bytes>) -> String {
    match error_code(reply) {
        Some(code) => format!("{} {code}", reply.status().as_u16()),
        None => reply.status().as_u16().to_string(),
    }
}

/// The error code in a reply's XML, if it has one.
fn error_code(reply: &Response<Bytes>) -> Option<&str> {
    let text = std::str::from_utf8(reply.body()).ok()?;
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then_some(code)
}

/// The text of a failed request, unless it repeats the signed URL.
fn without_url(text: String) -> String {
    if text.contains("X-Amz-") { "the request failed".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
