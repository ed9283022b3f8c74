//! The object store by the AWS SDK, which knows more ways to credentials than the Workers' adapter: without keys of its own
//! the job takes those of the machine, the container or the profile, and renews them.

use anyhow::{Result, bail};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, SharedCredentialsProvider,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest, Md5};
use model::limits;
use runtime::{Runtime, within};
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use storage::{Etag, LIST_KEYS_MAX, ObjectStore, PutError, PutMode, ReadError, key_error, part_of};

/// What a transfer takes at least, in bytes in a millisecond: as [`limits::STORE_TIMEOUT_MS`] has it.
const BYTES_PER_MS: u64 = 5_000;
/// Most requests for one listing: a store may cut its pages short, but must go on.
const LIST_REQUESTS_MAX: usize = 16;

/// Where a bucket is, and whose it is.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// `https://host` or `http://host:port` of the store; `None` is AWS's own in the region.
    pub endpoint: Option<String>,
    /// Name of the bucket: the first segment of the path.
    pub bucket: String,
    /// Region that signatures name; R2 takes `auto`.
    pub region: String,
    /// `None`: the keys that the machine, the container or the profile has.
    pub keys: Option<Keys>,
}

/// Keys that do not change.
#[derive(Clone)]
pub struct Keys {
    /// Access key.
    pub access_key_id: String,
    /// Secret key.
    pub secret_access_key: String,
    /// Session token, with temporary keys.
    pub session_token: Option<String>,
}

/// Without the keys.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl BucketConfig {
    /// The bucket that a program's settings name: `S3_BUCKET`, `S3_REGION` and, where they are not AWS's own,
    /// `S3_ENDPOINT`, `S3_ACCESS_KEY_ID`, `S3_SECRET_ACCESS_KEY`, `S3_SESSION_TOKEN`. An empty setting is none.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let optional = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let required = |name: &str| optional(name).ok_or_else(|| anyhow::anyhow!("{name} is not set"));
        let keys = match (optional("S3_ACCESS_KEY_ID"), optional("S3_SECRET_ACCESS_KEY")) {
            (Some(access_key_id), Some(secret_access_key)) => {
                Some(Keys { access_key_id, secret_access_key, session_token: optional("S3_SESSION_TOKEN") })
            }
            (None, None) => None,
            _ => bail!("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY are set together or not at all"),
        };
        Ok(BucketConfig {
            endpoint: optional("S3_ENDPOINT"),
            bucket: required("S3_BUCKET")?,
            region: required("S3_REGION")?,
            keys,
        })
    }
}

/// A bucket of S3, R2 or anything that speaks like them.
///
/// Each call is one request: the SDK's own repetitions are off, since [`storage::Retry`] knows what may be repeated. Writes
/// carry `Content-MD5`, the one checksum that all of them verify. Error texts name the status and the store's error code.
pub struct AwsStore<R> {
    runtime: R,
    client: Client,
    bucket: String,
}

impl<R> fmt::Debug for AwsStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsStore").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

impl<R> AwsStore<R> {
    /// The bucket that `config` names. Nothing is sent, unless the machine must be asked for its credentials.
    pub async fn new(config: BucketConfig, runtime: R) -> Self {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::rustls(CryptoMode::Ring)).build_https();
        let mut builder = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .http_client(http.clone());
        builder.set_endpoint_url(config.endpoint);
        builder.set_credentials_provider(credentials(config.keys, config.region, http).await);
        AwsStore { runtime, client: Client::from_conf(builder.build()), bucket: config.bucket }
    }
}

async fn credentials(keys: Option<Keys>, region: String, http: SharedHttpClient) -> Option<SharedCredentialsProvider> {
    let Some(Keys { access_key_id, secret_access_key, session_token }) = keys else {
        let defaults = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(region)).http_client(http);
        return defaults.load().await.credentials_provider();
    };
    let fixed = Credentials::new(access_key_id, secret_access_key, session_token, None, "settings");
    Some(SharedCredentialsProvider::new(fixed))
}

impl<R: Runtime> ObjectStore for AwsStore<R> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        check(key).map_err(ReadError::Refused)?;
        let request = self.client.get_object().bucket(&self.bucket).key(key);
        match self.timed(0, Box::pin(request.customize().mutate_request(uncached).send())).await {
            Ok(reply) => Ok(Some(self.body(reply.content_length, reply.body).await?)),
            Err(failure) => failure.absent(),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        assert!(range.start < range.end, "an empty range asks for nothing");
        check(key).map_err(ReadError::Refused)?;
        let request = self.client.get_object().bucket(&self.bucket).key(key);
        let request = request.range(format!("bytes={}-{}", range.start, range.end - 1));
        let reply = match self.timed(0, Box::pin(request.customize().mutate_request(uncached).send())).await {
            Ok(reply) => reply,
            Err(Failure::Status(416, _)) => return Ok(Some(Bytes::new())),
            Err(failure) => return failure.absent(),
        };
        let is_part = reply.content_range.is_some();
        let body = self.body(reply.content_length, reply.body).await?;
        match is_part {
            true if body.len() as u64 <= range.end - range.start => Ok(Some(body)),
            true => Err(ReadError::Unavailable("more bytes than asked for".to_owned())),
            false => Ok(Some(part_of(&body, &range))),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        check(key).map_err(ReadError::Refused)?;
        let request = self.client.head_object().bucket(&self.bucket).key(key);
        match self.timed(0, Box::pin(request.customize().mutate_request(uncached).send())).await {
            Ok(reply) => match reply.content_length.and_then(|size| u64::try_from(size).ok()) {
                Some(size) => Ok(Some(size)),
                None => Err(ReadError::Unavailable("no content-length".to_owned())),
            },
            Err(failure) => failure.absent(),
        }
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        check(key).map_err(PutError::Refused)?;
        let request = self.client.put_object().bucket(&self.bucket).key(key);
        let request = request.content_md5(BASE64.encode(Md5::digest(&body)));
        let (bytes, is_update) = (body.len() as u64, matches!(mode, PutMode::Update(_)));
        let request = match mode {
            PutMode::Overwrite => request,
            PutMode::Create => request.if_none_match("*"),
            PutMode::Update(etag) => request.if_match(etag.0),
        };
        match self.timed(bytes, Box::pin(request.body(ByteStream::from(body)).send())).await {
            // A store that names no content gets a name that no condition will ever match.
            Ok(reply) => Ok(Etag(reply.e_tag.unwrap_or_else(|| "\"\"".to_owned()))),
            // S3 answers so to `If-Match` where there is no object at all.
            Err(Failure::Status(404, code)) if is_update && code.as_deref() != Some(NO_BUCKET) => {
                Err(PutError::Precondition)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        let mut keys = Vec::new();
        let (mut token, mut start_after) = (None, start_after.map(str::to_owned));
        for _ in 0..LIST_REQUESTS_MAX {
            let left = i32::try_from(LIST_KEYS_MAX - keys.len()).unwrap_or(i32::MAX);
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).max_keys(left);
            let request = request.set_continuation_token(token.take()).set_start_after(start_after.take());
            let page = self.timed(0, Box::pin(request.send())).await?;
            keys.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
            token = page.next_continuation_token;
            if token.is_none() || keys.len() >= LIST_KEYS_MAX {
                return Ok(keys);
            }
        }
        Err(ReadError::Unavailable(format!("a listing of fewer than {LIST_KEYS_MAX} keys does not end")))
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        check(key).map_err(PutError::Refused)?;
        let request = self.client.delete_object().bucket(&self.bucket).key(key);
        match self.timed(0, Box::pin(request.send())).await {
            Ok(_) => Ok(()),
            Err(Failure::Status(404, code)) if code.as_deref() != Some(NO_BUCKET) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl<R: Runtime> AwsStore<R> {
    /// The reply to `request`, which carries so many `bytes`, if it comes in time. (A request of the SDK is a future of many
    /// kilobytes, which callers would all carry in theirs: hence the box.)
    async fn timed<T, E: ProvideErrorMetadata + Error + 'static>(
        &self,
        bytes: u64,
        request: Pin<Box<impl Future<Output = Result<T, SdkError<E>>>>>,
    ) -> Result<T, Failure> {
        let timeout_ms = limits::STORE_TIMEOUT_MS + bytes / BYTES_PER_MS;
        match within(&self.runtime, timeout_ms, request).await {
            Some(reply) => reply.map_err(Failure::of),
            None => Err(Failure::NoReply(format!("no reply within {timeout_ms} ms"))),
        }
    }

    /// A body of about `length` bytes, if it comes in time.
    async fn body(&self, length: Option<i64>, body: ByteStream) -> Result<Bytes, ReadError> {
        let length = length.and_then(|length| u64::try_from(length).ok()).unwrap_or_default();
        let timeout_ms = limits::STORE_TIMEOUT_MS + length / BYTES_PER_MS;
        match within(&self.runtime, timeout_ms, Box::pin(body.collect())).await {
            Some(Ok(body)) => Ok(body.into_bytes()),
            Some(Err(error)) => Err(ReadError::Unavailable(with_causes(&error))),
            None => Err(ReadError::Unavailable(format!("no body within {timeout_ms} ms"))),
        }
    }
}

/// The error code of a bucket that is not there.
const NO_BUCKET: &str = "NoSuchBucket";

fn check(key: &str) -> Result<(), String> {
    key_error(key).map_or(Ok(()), Err)
}

/// Whatever stands between us and the store must ask it anew: the log rests on what *is* there.
fn uncached(request: &mut aws_sdk_s3::config::http::HttpRequest) {
    request.headers_mut().insert("cache-control", "no-store");
}

/// Why there is no good reply.
enum Failure {
    /// Nothing was sent.
    Invalid(String),
    /// Its effect is unknown.
    NoReply(String),
    /// The reply has this status, and the store's error code.
    Status(u16, Option<String>),
}

impl Failure {
    fn of<E: ProvideErrorMetadata + Error + 'static>(error: SdkError<E>) -> Failure {
        if matches!(error, SdkError::ConstructionFailure(_)) {
            return Failure::Invalid(with_causes(&error));
        }
        match error.raw_response().map(|reply| reply.status().as_u16()) {
            // What succeeded and cannot be read is as good as no reply.
            Some(status) if status >= 300 => Failure::Status(status, error.code().and_then(word)),
            _ => Failure::NoReply(with_causes(&error)),
        }
    }

    /// What it means for a read: that there is no object, or an error.
    fn absent<T>(self) -> Result<Option<T>, ReadError> {
        match &self {
            Failure::Status(404, code) if code.as_deref() != Some(NO_BUCKET) => Ok(None),
            _ => Err(self.into()),
        }
    }

    /// The store failed, or (S3: 400 `RequestTimeout`) lost patience with a connection that stalled.
    fn is_unanswered(status: u16, code: Option<&str>) -> bool {
        status >= 500 || status == 408 || code == Some("RequestTimeout")
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> ReadError {
        match failure {
            Failure::Invalid(text) => ReadError::Refused(text),
            Failure::NoReply(text) => ReadError::Unavailable(text),
            Failure::Status(status, code) => {
                let (text, code) = (text(status, code.as_deref()), code.as_deref());
                let is_unanswered = status == 429 || Failure::is_unanswered(status, code);
                if is_unanswered { ReadError::Unavailable(text) } else { ReadError::Refused(text) }
            }
        }
    }
}

impl From<Failure> for PutError {
    fn from(failure: Failure) -> PutError {
        match failure {
            Failure::Invalid(text) => PutError::Refused(text),
            Failure::NoReply(text) => PutError::Indeterminate(text),
            Failure::Status(412, _) => PutError::Precondition,
            // 409: another conditional put to the same key was under way.
            Failure::Status(status @ (409 | 429), code) => PutError::Busy(text(status, code.as_deref())),
            Failure::Status(status, code) => {
                let (text, code) = (text(status, code.as_deref()), code.as_deref());
                if Failure::is_unanswered(status, code) {
                    PutError::Indeterminate(text)
                } else {
                    PutError::Refused(text)
                }
            }
        }
    }
}

/// `403 AccessDenied`. Nothing else of the reply: its message may repeat what was signed.
fn text(status: u16, code: Option<&str>) -> String {
    code.map_or_else(|| status.to_string(), |code| format!("{status} {code}"))
}

/// An error code, if it is one.
fn word(code: &str) -> Option<String> {
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then(|| code.to_owned())
}

/// The error and all its causes: the outer ones only say which part of the SDK failed.
fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Result<BucketConfig> {
        let find = |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        BucketConfig::from_lookup(find)
    }

    #[test]
    fn without_keys_the_machine_is_asked_and_half_a_pair_is_a_mistake() {
        let place = [("S3_BUCKET", "b"), ("S3_REGION", "r"), ("S3_ENDPOINT", "")];
        let found = config(&place).unwrap();
        assert!(found.keys.is_none() && found.endpoint.is_none());
        let half = [place[0], place[1], ("S3_ACCESS_KEY_ID", "k")];
        assert!(config(&half).is_err() && config(&place[..1]).is_err());
        let full = [half[0], half[1], half[2], ("S3_SECRET_ACCESS_KEY", "secret")];
        let found = config(&full).unwrap();
        assert!(found.keys.is_some() && !format!("{found:?}").contains("secret"));
    }

    #[test]
    fn statuses_mean_what_the_port_says() {
        let put = |status, code: &str| PutError::from(Failure::Status(status, Some(code.to_owned())));
        let read = |status, code: &str| ReadError::from(Failure::Status(status, Some(code.to_owned())));
        assert_eq!(put(412, "PreconditionFailed"), PutError::Precondition);
        assert!(matches!(put(409, "ConditionalRequestConflict"), PutError::Busy(_)));
        assert!(matches!(put(429, "SlowDown"), PutError::Busy(_)));
        assert!(matches!(put(503, "SlowDown"), PutError::Indeterminate(_)));
        assert!(matches!(put(400, "RequestTimeout"), PutError::Indeterminate(_)));
        assert_eq!(put(403, "AccessDenied"), PutError::Refused("403 AccessDenied".to_owned()));
        assert!(matches!(read(429, "SlowDown"), ReadError::Unavailable(_)));
        assert!(matches!(read(500, "InternalError"), ReadError::Unavailable(_)));
        assert!(matches!(read(404, NO_BUCKET), ReadError::Refused(_)));
        assert_eq!(Failure::Status(404, Some("NoSuchKey".to_owned())).absent::<()>(), Ok(None));
    }
}
