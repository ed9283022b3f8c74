//! The adapter for Workers: JavaScript's clock, crypto and timers, and `fetch`.

use crate::{Http, HttpError, Runtime, http_response};
use ::worker::{AbortController, CacheMode, Delay, Fetch, Headers, Method, RequestInit, RequestRedirect};
use bytes::Bytes;
use http::HeaderValue;
use model::Timestamp;
use std::time::Duration;

/// The world as one request of an isolate sees it.
#[derive(Clone, Default)]
pub struct WorkerRuntime {
    traceparent: Option<HeaderValue>,
}

impl WorkerRuntime {
    /// A runtime whose outgoing requests carry `traceparent`, so that a store can count what one request cost.
    pub fn for_request(traceparent: Option<HeaderValue>) -> Self {
        WorkerRuntime { traceparent }
    }

    /// The `traceparent` of the request, for what does not go through [`Http`].
    pub fn traceparent(&self) -> Option<&HeaderValue> {
        self.traceparent.as_ref()
    }
}

impl Runtime for WorkerRuntime {
    fn now(&self) -> Timestamp {
        Timestamp(::worker::Date::now().as_millis())
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("an isolate has crypto.getRandomValues");
        u128::from_le_bytes(bytes)
    }

    async fn sleep(&self, ms: u64) {
        Delay::from(Duration::from_millis(ms)).await;
    }
}

/// Aborts the request when it is dropped unanswered, so that an abandoned fetch does not keep its connection.
struct AbortOnDrop(AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).abort();
    }
}

impl Http for WorkerRuntime {
    async fn fetch(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let invalid = |error: ::worker::Error| HttpError::Invalid(error.to_string());
        let no_reply = |error: ::worker::Error| HttpError::NoReply(error.to_string());
        let request = self.js_request(request).map_err(invalid)?;
        let abort = AbortOnDrop(AbortController::default());
        let reply = Fetch::Request(request).send_with_signal(&abort.0.signal()).await.map_err(no_reply)?;
        http_response(reply).await.map_err(no_reply)
    }
}

impl WorkerRuntime {
    fn js_request(&self, request: http::Request<Bytes>) -> ::worker::Result<::worker::Request> {
        let (parts, body) = request.into_parts();
        let headers = Headers::new();
        for (name, value) in &parts.headers {
            headers.append(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
        }
        if let Some(traceparent) = &self.traceparent {
            headers.set("traceparent", &String::from_utf8_lossy(traceparent.as_bytes()))?;
        }
        let mut init = RequestInit::new();
        init.with_method(Method::from(parts.method.as_str().to_owned())).with_headers(headers);
        init.with_redirect(RequestRedirect::Manual);
        if matches!(parts.method, http::Method::GET | http::Method::HEAD) {
            // What is asked for may change at any moment: the platform's cache must not answer. (Put requests are never
            // answered by it, and the header that this adds would become a property of the object.)
            init.with_cache(CacheMode::NoStore);
        }
        if !body.is_empty() {
            init.with_body(Some(::worker::js_sys::Uint8Array::from(body.as_ref()).into()));
        }
        ::worker::Request::new_with_init(&parts.uri.to_string(), &init)
    }
}
