//! Errors as the API shows them: a status, a name out of Chroma's small vocabulary, a message; or no body at all.

use bytes::Bytes;
use catalog::CatalogError;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use model::bounded::NoRoom;
use query::PlanError;
use std::fmt;

#[cfg(test)]
mod tests;

/// Longest message that is sent, in bytes: messages quote the request, which may be megabytes of one name.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Header of every 4xx and 5xx: 32 hexadecimal digits that name the request in the log.
pub const TRACE_HEADER: &str = "chroma-trace-id";
const NO_TRACE: &str = "00000000000000000000000000000000";

/// What a request is answered that cannot be answered otherwise.
///
/// `message` is for whoever sent the request: it never carries keys, addresses or credentials. What went wrong inside
/// is in `cause`, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The `error` member. `None`: the body is the bare message, as plain text, or nothing if that is empty.
    pub name: Option<&'static str>,
    /// The `message` member.
    pub message: String,
    /// What to log besides, if there is anything the user is not told.
    pub cause: Option<String>,
    /// What the path is there for, of a 405.
    allowed: Vec<Method>,
}

/// For the log: with the cause.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.message)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, " ({cause})"))
    }
}

impl ApiError {
    fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        ApiError { name: Some(name), ..ApiError::bare(status, message) }
    }

    fn bare(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, name: None, message: message.into(), cause: None, allowed: Vec::new() }
    }

    /// 400: the request is understood and wrong.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "InvalidArgumentError", message)
    }

    /// 403: the deployment does not allow it.
    pub fn forbidden(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, "ChromaError", message)
    }

    /// 404: what the request names is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "NotFoundError", message)
    }

    /// 409: the name is taken.
    pub fn already_exists(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::CONFLICT, "ChromaError", message)
    }

    /// 410: the API before this one.
    pub fn v1_is_gone() -> Self {
        ApiError::new(StatusCode::GONE, "Unimplemented", "The v1 API is deprecated. Please use /v2 apis")
    }

    /// 404 of a path that no route has: no body.
    pub fn no_such_route() -> Self {
        ApiError::bare(StatusCode::NOT_FOUND, "")
    }

    /// 405 of a path that is there for the methods `allowed`: no body.
    pub fn method_not_allowed(allowed: &[Method]) -> Self {
        ApiError { allowed: allowed.to_vec(), ..ApiError::bare(StatusCode::METHOD_NOT_ALLOWED, "") }
    }

    /// 413: plain text from the routes that take vectors, JSON from all others.
    pub fn too_large(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("add" | "update" | "upsert" | "query" | "search") => {
                ApiError::bare(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large")
            }
            _ => {
                let message = "Failed to buffer the request body: length limit exceeded";
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "ChromaError", message)
            }
        }
    }

    /// 413: a body that is small enough to be sent and too large to be worked on.
    pub fn out_of_memory() -> Self {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "ChromaError", NoRoom::TEXT)
    }

    /// 415: a content type that is not JSON.
    pub fn unsupported_media() -> Self {
        let message = "Expected request with `Content-Type: application/json`";
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "ChromaError", message)
    }

    /// 422: JSON of the wrong shape.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "ChromaError", message)
    }

    /// 429: the same request may succeed later.
    pub fn backoff() -> Self {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "ChromaError", "Backoff and retry")
    }

    /// 500: `cause` goes to the log, the user learns only that it is our fault.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let message = "Internal error: the server's log has the details under the trace id of this answer";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message).because(cause)
    }

    /// 501: Chroma has it, this server does not (yet).
    pub fn unimplemented(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "ChromaError", message)
    }

    /// 503: something behind the gateway did not answer; `message` says what that means for the request, and
    /// [`ApiError::because`] adds what happened.
    pub fn unavailable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ChromaError", message)
    }

    /// 503 of a write whose outcome is unknown: reading tells.
    pub fn indeterminate(cause: impl fmt::Display) -> Self {
        ApiError::unavailable("The write may or may not be durable: read before trying again").because(cause)
    }

    /// The same error with what the log is to say besides.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// The answer on the wire.
    ///
    /// - `trace_id`: 32 hexadecimal digits, see [`trace_id`]; anything that cannot stand in a header becomes zeros.
    pub fn into_response(self, trace_id: &str) -> Response<Bytes> {
        let mut response = with_trace(Response::new(Bytes::new()), trace_id);
        *response.status_mut() = self.status;
        if !self.allowed.is_empty() {
            response.headers_mut().insert(ALLOW, allow(&self.allowed));
        }
        if self.name.is_none() && self.message.is_empty() {
            return response;
        }
        let message = shortened(self.message);
        let (content_type, body) = match self.name {
            None => ("text/plain; charset=utf-8", message),
            Some(name) => ("application/json", json(name, &message)),
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        *response.body_mut() = body.into();
        response
    }
}

/// `response` with the header that every 4xx and 5xx has. `trace_id`: as for [`ApiError::into_response`].
pub fn with_trace(mut response: Response<Bytes>, trace_id: &str) -> Response<Bytes> {
    let trace = HeaderValue::from_str(trace_id).unwrap_or(HeaderValue::from_static(NO_TRACE));
    response.headers_mut().insert(TRACE_HEADER, trace);
    response
}

/// The sentences about tenants, databases and collections, word for word: clients and tests match on them.
impl ApiError {
    /// 404.
    pub fn tenant_not_found(name: &str) -> Self {
        ApiError::not_found(format!("Tenant [{name}] not found"))
    }

    /// 409.
    pub fn tenant_exists(name: &str) -> Self {
        ApiError::already_exists(format!("Tenant [{name}] already exists"))
    }

    /// 404 of GET.
    pub fn database_not_found(name: &str) -> Self {
        ApiError::not_found(format!("Database [{name}] not found. Are you sure it exists?"))
    }

    /// 404 of DELETE.
    pub fn database_to_delete_not_found(name: &str) -> Self {
        ApiError::not_found(format!("Database [{name}] not found"))
    }

    /// 409.
    pub fn database_exists(name: &str) -> Self {
        ApiError::already_exists(format!("Database [{name}] already exists"))
    }

    /// 400 (not 404) of creating a collection in a database that is not there.
    pub fn database_of_new_collection_missing(name: &str) -> Self {
        ApiError::invalid_argument(format!("Database [{name}] does not exist"))
    }

    /// 409.
    pub fn collection_exists(name: &str) -> Self {
        ApiError::already_exists(format!("Collection [{name}] already exists"))
    }

    /// 404 of GET and DELETE by name, and of `by-id`.
    pub fn collection_not_found(name: &str) -> Self {
        ApiError::not_found(format!("Collection [{name}] does not exist"))
    }

    /// 404 of the routes that work on a collection by id: with a full stop.
    pub fn collection_id_not_found(id: impl fmt::Display) -> Self {
        ApiError::not_found(format!("Collection [{id}] does not exist."))
    }

    /// 400 of the routes that work on a collection by id.
    pub fn collection_id_malformed() -> Self {
        ApiError::invalid_argument("Collection ID is not a valid UUIDv4")
    }

    /// 400 of `by-id`.
    pub fn by_id_malformed() -> Self {
        ApiError::invalid_argument("Validation error: collection_id: Invalid collection ID format, expected UUID")
    }

    /// 403.
    pub fn reset_disabled() -> Self {
        ApiError::forbidden("Reset is disabled by config")
    }
}

/// Not for `NotFound` and `AlreadyExists` where the handler knows what was asked for: match those first.
impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound => ApiError::not_found("Resource not found"),
            CatalogError::AlreadyExists => ApiError::already_exists("Resource already exists"),
            CatalogError::Unavailable(_) => {
                ApiError::unavailable("The catalog did not answer: try again later").because(error)
            }
            CatalogError::Refused(_) => ApiError::internal(error),
        }
    }
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Invalid(message) => ApiError::invalid_argument(message),
            // Chroma's own tests want this sentence.
            PlanError::UnknownId => {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", PlanError::UnknownId.to_string())
            }
            PlanError::Unavailable(_) => {
                ApiError::unavailable("The storage did not answer: try again later").because(error)
            }
            PlanError::Missing(_) | PlanError::Corrupt(_) => ApiError::internal(error),
            // A sentence for the user: what to ask for instead.
            PlanError::TooLarge(why) => ApiError::unavailable(why),
        }
    }
}

/// The id under which a request is logged: that of its `traceparent` header if there is a valid one, else `random`.
pub fn trace_id(traceparent: Option<&str>, random: u128) -> String {
    let theirs = traceparent.and_then(|header| header.split('-').nth(1)).filter(|id| is_trace_id(id));
    theirs.map_or_else(|| format!("{random:032x}"), str::to_ascii_lowercase)
}

fn is_trace_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.bytes().any(|byte| byte != b'0')
}

/// Whoever answers GET answers HEAD.
fn allow(methods: &[Method]) -> HeaderValue {
    let head = methods.contains(&Method::GET).then_some(&Method::HEAD);
    let names: Vec<&str> = methods.iter().chain(head).map(Method::as_str).collect();
    HeaderValue::from_str(&names.join(",")).expect("methods are tokens")
}

fn json(name: &str, message: &str) -> String {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        error: &'a str,
        message: &'a str,
    }
    serde_json::to_string(&Body { error: name, message }).expect("two strings are JSON")
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    message
}
