//! The native adapter: tokio's timers and hyper's client, HTTPS by rustls with the machine's certificates.

use crate::{Http, HttpError, Runtime, TRACEPARENT};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use model::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The world as a native program sees it. Needs a tokio runtime around it when it sleeps or fetches.
#[derive(Clone)]
pub struct NativeRuntime {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    traceparent: Option<HeaderValue>,
    /// When it was made, by the clock that tests can stop.
    #[cfg(feature = "test-util")]
    made: (Timestamp, tokio::time::Instant),
}

impl Default for NativeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl NativeRuntime {
    /// A runtime with a connection pool of its own.
    pub fn new() -> Self {
        NativeRuntime {
            client: Client::builder(TokioExecutor::new()).build(connector()),
            traceparent: None,
            #[cfg(feature = "test-util")]
            made: (machine_time(), tokio::time::Instant::now()),
        }
    }

    /// The same, whose requests carry this W3C `traceparent`.
    #[must_use]
    pub fn traced(mut self, traceparent: HeaderValue) -> Self {
        self.traceparent = Some(traceparent);
        self
    }
}

/// HTTP, and HTTPS to whom the machine's certificates vouch for; without any, HTTPS finds nobody to trust.
fn connector() -> HttpsConnector<HttpConnector> {
    static TLS: OnceLock<ClientConfig> = OnceLock::new();
    let tls = TLS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        versions.expect("ring knows the usual versions").with_root_certificates(roots).with_no_client_auth()
    });
    HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().build()
}

/// By the machine's clock, which goes on while the machine sleeps.
#[expect(clippy::disallowed_methods, reason = "this adapter is where the native clock is read")]
fn machine_time() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

impl Runtime for NativeRuntime {
    #[cfg(not(feature = "test-util"))]
    fn now(&self) -> Timestamp {
        machine_time()
    }

    /// In tests time is tokio's, so that it stands still and leaps together with what is slept.
    #[cfg(feature = "test-util")]
    fn now(&self) -> Timestamp {
        let (at, then) = self.made;
        at.plus_ms(u64::try_from(then.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> u128 {
        random_bits()
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// 128 bits from the operating system.
fn random_bits() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    u128::from_le_bytes(bytes)
}

impl Http for NativeRuntime {
    async fn fetch(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if let Some(traceparent) = &self.traceparent {
            request.headers_mut().insert(TRACEPARENT, traceparent.clone());
        }
        let reply = self.client.request(request.map(Full::new)).await.map_err(no_reply)?;
        let (parts, body) = reply.into_parts();
        let body = body.collect().await.map_err(no_reply)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

/// The error and all its causes: the outer ones only say which part of the client failed.
fn no_reply(error: impl std::error::Error) -> HttpError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    HttpError::NoReply(text)
}
