//! The adapter for Workers: JavaScript's clock, crypto and timers, and `fetch`.

use crate::worker_http::body_of;
use crate::{Http, HttpError, Runtime, TRACEPARENT};
use ::worker::Delay;
use ::worker::js_sys::{self, Uint8Array, futures::JsFuture};
use ::worker::wasm_bindgen::{JsCast, JsValue};
use ::worker::web_sys::{
    AbortController, Headers, RequestCache, RequestInit, RequestRedirect, Response, WorkerGlobalScope,
};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG, HeaderName};
use http::{HeaderMap, HeaderValue};
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
struct AbortOnDrop {
    controller: AbortController,
    is_answered: bool,
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if !self.is_answered {
            self.controller.abort();
        }
    }
}

/// What callers may know of a reply besides status and body: each header that is taken over costs calls of JavaScript.
const REPLY_HEADERS: [HeaderName; 2] = [CONTENT_LENGTH, ETAG];

impl Http for WorkerRuntime {
    /// Of the reply's headers only [`REPLY_HEADERS`] are there.
    async fn fetch(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let invalid = |error: JsValue| HttpError::Invalid(text_of(&error));
        let no_reply = |error: JsValue| HttpError::NoReply(text_of(&error));
        let controller = AbortController::new().map_err(invalid)?;
        let init = self.init(&request).map_err(invalid)?;
        init.set_signal(Some(&controller.signal()));
        let mut abort = AbortOnDrop { controller, is_answered: false };
        let global: WorkerGlobalScope = js_sys::global().unchecked_into();
        let reply = global.fetch_with_str_and_init(&request.uri().to_string(), &init);
        let reply: Response = JsFuture::from(reply).await.map_err(no_reply)?.unchecked_into();
        let mut response = http::Response::builder().status(reply.status());
        for name in REPLY_HEADERS {
            if let Some(value) = reply.headers().get(name.as_str()).map_err(no_reply)? {
                response = response.header(name, value);
            }
        }
        let body = body_of(reply).await.map_err(no_reply)?;
        abort.is_answered = true;
        response.body(body).map_err(|error| HttpError::NoReply(error.to_string()))
    }
}

impl WorkerRuntime {
    /// What JavaScript's `fetch` wants besides the URL.
    fn init(&self, request: &http::Request<Bytes>) -> Result<RequestInit, JsValue> {
        let headers = headers_of(request.headers())?;
        if let Some(traceparent) = &self.traceparent {
            headers.set(TRACEPARENT.as_str(), &String::from_utf8_lossy(traceparent.as_bytes()))?;
        }
        let init = RequestInit::new();
        init.set_method(request.method().as_str());
        init.set_headers(&headers);
        init.set_redirect(RequestRedirect::Manual);
        if matches!(*request.method(), http::Method::GET | http::Method::HEAD) {
            // What is asked for may change at any moment: the platform's cache must not answer. (Put requests are never
            // answered by it, and the header that this adds would become a property of the object.)
            init.set_cache(RequestCache::NoStore);
        }
        if !request.body().is_empty() {
            init.set_body(&Uint8Array::from(request.body().as_ref()));
        }
        Ok(init)
    }
}

/// `headers` as JavaScript has them.
pub(crate) fn headers_of(headers: &HeaderMap) -> Result<Headers, JsValue> {
    let all = Headers::new()?;
    for (name, value) in headers {
        all.append(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
    }
    Ok(all)
}

/// What JavaScript says of an error.
pub(crate) fn text_of(error: &JsValue) -> String {
    ::worker::Error::from(error.clone()).to_string()
}
