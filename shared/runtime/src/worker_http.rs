//! A Worker's requests and responses <-> those of the crate `http`, bodies in memory.

use crate::worker::{headers_of, text_of};
use ::worker::ByteStream;
use ::worker::js_sys::{Promise, Uint8Array, futures::JsFuture};
use ::worker::wasm_bindgen::JsValue;
use ::worker::web_sys::{Request, Response, ResponseInit};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, HeaderName};

/// So many times the largest allowed body is read before a connection is given up.
const DISCARD_FACTOR: usize = 4;
/// Bodies up to this length, in bytes, are taken in one piece. That is faster, but JavaScript then holds a copy.
const WHOLE_BYTES_MAX: usize = 1 << 20;
/// The same of replies: of a store that is the largest range that is asked for at once.
const WHOLE_REPLY_BYTES_MAX: usize = 2 << 20;
/// A larger body leaves room behind it if it can, a fraction of its length: what is made of it may then take its place in
/// one piece.
const SLACK_DIVISOR: usize = 8;

/// Why a request could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The body has more bytes than allowed; the rest was not read.
    #[error("the request body is too large")]
    TooLarge,
    /// There is no memory for the body at present.
    #[error("no memory for the request body")]
    NoRoom,
    /// The client went away or broke its own framing.
    #[error("the request is broken: {0}")]
    Broken(String),
}

/// The request line of `request` and those of its headers that are among `names`: each costs calls of JavaScript.
pub fn request_head(request: &Request, names: &[HeaderName]) -> Result<http::Request<()>, RequestError> {
    let mut head = http::Request::builder().method(request.method().as_str()).uri(request.url());
    let headers = request.headers();
    for name in names {
        if let Some(value) = headers.get(name.as_str()).map_err(broken)? {
            head = head.header(name, value);
        }
    }
    head.body(()).map_err(|error| RequestError::Broken(error.to_string()))
}

/// Length of the body of `request` in bytes, as `head` announces it; 0 if it has none, `None` if only its end will tell.
pub fn announced_length(request: &Request, head: &http::Request<()>) -> Option<usize> {
    match head.headers().get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok(),
        None => request.body().is_none().then_some(0),
    }
}

/// The body of `request`, if it has at most `bytes_max` bytes. Cost: its length in memory, for large ones an eighth more;
/// `bytes_max` if the length was not announced.
pub async fn request_body(
    request: &Request,
    head: &http::Request<()>,
    bytes_max: usize,
) -> Result<Bytes, RequestError> {
    match announced_length(request, head) {
        Some(0) => Ok(Bytes::new()),
        Some(length) if length <= WHOLE_BYTES_MAX.min(bytes_max) => {
            bytes_of(request.array_buffer()).await.map_err(broken)
        }
        length => {
            let mut stream = stream_of(request)?;
            let body = streamed_body(&mut stream, length.unwrap_or(bytes_max), bytes_max).await;
            if matches!(body, Err(RequestError::TooLarge | RequestError::NoRoom)) {
                discarded(&mut stream, bytes_max).await;
            }
            body
        }
    }
}

/// Reads the body of a refused request and throws it away, up to a few times `bytes_max`: many clients do not listen before
/// they have sent everything, and would miss the answer.
pub async fn discard_body(request: &Request, bytes_max: usize) {
    if let Ok(mut stream) = stream_of(request) {
        discarded(&mut stream, bytes_max).await;
    }
}

async fn discarded(stream: &mut ByteStream, bytes_max: usize) {
    let mut left = bytes_max * DISCARD_FACTOR;
    while let Some(Ok(chunk)) = stream.next().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A body of at most `length` bytes, piece by piece.
async fn streamed_body(stream: &mut ByteStream, length: usize, bytes_max: usize) -> Result<Bytes, RequestError> {
    if length > bytes_max {
        return Err(RequestError::TooLarge);
    }
    let mut bytes: Vec<u8> = Vec::new();
    let reserved =
        bytes.try_reserve_exact(length + length / SLACK_DIVISOR).or_else(|_| bytes.try_reserve_exact(length));
    reserved.map_err(|_| RequestError::NoRoom)?;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| RequestError::Broken(error.to_string()))?;
        if bytes.len() + chunk.len() > length {
            return Err(RequestError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

fn stream_of(request: &Request) -> Result<ByteStream, RequestError> {
    let mut request = ::worker::Request::from(Clone::clone(request));
    request.stream().map_err(|error| RequestError::Broken(error.to_string()))
}

fn broken(error: JsValue) -> RequestError {
    RequestError::Broken(text_of(&error))
}

/// `response` as a Worker answers it.
pub fn worker_response(response: http::Response<Bytes>) -> Result<Response, JsValue> {
    let headers = headers_of(response.headers())?;
    let init = ResponseInit::new();
    init.set_status(response.status().as_u16());
    init.set_headers(&headers);
    match response.body() {
        body if body.is_empty() => Response::new_with_opt_str_and_init(None, &init),
        body => Response::new_with_opt_buffer_source_and_init(Some(&Uint8Array::from(body.as_ref())), &init),
    }
}

/// Status and body of the reply that a Worker gives.
pub async fn http_response(reply: Response) -> Result<http::Response<Bytes>, JsValue> {
    let response = http::Response::builder().status(reply.status());
    let body = body_of(reply).await?;
    Ok(response.body(body).expect("JavaScript has checked the status"))
}

/// The body of a reply: in one piece if it is announced to be small.
pub(crate) async fn body_of(reply: Response) -> Result<Bytes, JsValue> {
    let announced = reply.headers().get(CONTENT_LENGTH.as_str())?.and_then(|length| length.parse().ok());
    if announced.is_some_and(|length: usize| length > WHOLE_REPLY_BYTES_MAX) {
        return Ok(::worker::Response::from(reply).bytes().await?.into());
    }
    bytes_of(reply.array_buffer()).await
}

/// What is in the buffer that JavaScript promises.
async fn bytes_of(buffer: Result<Promise, JsValue>) -> Result<Bytes, JsValue> {
    let buffer = JsFuture::from(buffer?).await?;
    Ok(Uint8Array::new(&buffer).to_vec().into())
}
