//! The HTTP contract, byte for byte where clients can tell: statuses, bodies, headers, and what a hostile sender gets.

mod collections;
mod hostile;
mod records;
mod surprises;
mod transport;

use serde_json::Value;

use crate::harness::{Api, Reply, shared_url};

const INVALID: &str = "InvalidArgumentError";
const NOT_FOUND: &str = "NotFoundError";
const CHROMA: &str = "ChromaError";

/// What parsing and deserializing say before the details.
const NOT_JSON: &str = "Failed to parse the request body as JSON: ";
const WRONG_SHAPE: &str = "Failed to deserialize the JSON body into the target type: ";

/// An id that no collection has.
const NO_ONE: &str = "11111111-2222-4333-8444-555555555555";

fn api() -> Api {
    Api::new(shared_url())
}

/// Sends `body` as it is, called JSON.
#[track_caller]
fn post_raw(api: &Api, path: &str, body: impl Into<bytes::Bytes>) -> Reply {
    let request = http::Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    api.send(request).unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

/// Sends each body and checks that it is refused in this way.
#[track_caller]
fn all_refused(api: &Api, path: &str, bodies: &[Value], status: u16, name: &str, message_part: &str) {
    for body in bodies {
        let reply = api.post(path, body);
        assert_eq!(reply.status, status, "{path} {body}: {reply:?}");
        reply.expect_error(status, name, message_part);
    }
}
