//! The admin port: JSON over HTTP/1.1, without authentication, for tests and benches on this machine.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::counters::TraceId;
use crate::observe::{SharedCounters, locked};

/// Answers `GET /totals`, `GET /traces/{trace_id}` and `POST /reset`.
pub(crate) fn answer<B>(counters: &SharedCounters, request: &Request<B>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/totals") => json(StatusCode::OK, locked(counters).totals()),
        (&Method::POST, "/reset") => {
            locked(counters).reset();
            json(StatusCode::OK, &serde_json::json!({}))
        }
        (&Method::GET, path) => match path.strip_prefix("/traces/").and_then(TraceId::parse) {
            Some(id) => trace(counters, id),
            None => error(StatusCode::NOT_FOUND, "GET /totals, GET /traces/{32 hex digits} or POST /reset"),
        },
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "GET, or POST /reset"),
    }
}

fn trace(counters: &SharedCounters, id: TraceId) -> Response<Full<Bytes>> {
    match locked(counters).trace(id) {
        Some(tally) => json(StatusCode::OK, tally),
        None => error(StatusCode::NOT_FOUND, "no request has carried this trace id"),
    }
}

fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": message }))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("numbers and strings are always JSON");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
