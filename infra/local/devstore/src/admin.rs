//! The admin port: JSON over HTTP/1.1, without authentication, for tests and benches on this machine.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /totals` | what was counted over all requests |
//! | `GET /traces/{trace_id}` | the same for the requests of one trace |
//! | `POST /reset` | counts from 0 |
//! | `GET /faults` | the rules of `faults` that are in force, the seed, and how many requests each has met |
//! | `PUT /faults` | the same, after these took the place of all others: `{"rules": [{"effect": "drop_reply"}]}` |
//! | `DELETE /faults` | as before, and no rule is in force any more |

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use serde::Serialize;

use crate::counters::{Counters, TraceId};
use crate::faults::{Faults, Order};
use crate::observe::locked;

/// What the admin port reads and sets; all connections share it.
#[derive(Clone, Default)]
pub(crate) struct Levers {
    pub(crate) counters: Arc<Mutex<Counters>>,
    pub(crate) faults: Arc<Mutex<Faults>>,
}

/// Answers one request.
pub(crate) async fn answer<B: Body>(levers: &Levers, request: Request<B>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match (head.method, head.uri.path()) {
        (Method::GET, "/totals") => json(StatusCode::OK, locked(&levers.counters).totals()),
        (Method::POST, "/reset") => {
            locked(&levers.counters).reset();
            json(StatusCode::OK, &serde_json::json!({}))
        }
        (Method::GET, "/faults") => json(StatusCode::OK, &*locked(&levers.faults)),
        (Method::DELETE, "/faults") => {
            let before = std::mem::take(&mut *locked(&levers.faults));
            json(StatusCode::OK, &before)
        }
        (Method::PUT, "/faults") => match body.collect().await {
            Ok(body) => set_faults(levers, &body.to_bytes()),
            Err(_) => error(StatusCode::BAD_REQUEST, "the body broke off"),
        },
        (Method::GET, path) => match path.strip_prefix("/traces/").and_then(TraceId::parse) {
            Some(id) => trace(&levers.counters, id),
            None => error(StatusCode::NOT_FOUND, "GET /totals, /traces/{32 hex digits} or /faults"),
        },
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "GET, POST /reset, PUT or DELETE /faults"),
    }
}

fn set_faults(levers: &Levers, body: &[u8]) -> Response<Full<Bytes>> {
    let order = serde_json::from_slice::<Order>(body).map_err(|error| error.to_string());
    let faults = order.and_then(|order| {
        let seed = order.seed.map_or_else(|| getrandom::u64().map_err(|error| error.to_string()), Ok)?;
        Faults::new(order.rules, seed)
    });
    match faults {
        Ok(faults) => {
            let mut current = locked(&levers.faults);
            *current = faults;
            json(StatusCode::OK, &*current)
        }
        Err(reason) => error(StatusCode::BAD_REQUEST, &reason),
    }
}

fn trace(counters: &Mutex<Counters>, id: TraceId) -> Response<Full<Bytes>> {
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
