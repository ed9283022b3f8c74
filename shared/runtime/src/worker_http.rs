//! A Worker's requests and responses <-> those of the crate `http`, bodies in memory.

use ::worker::js_sys::{Uint8Array, futures::JsFuture};
use ::worker::{ByteStream, Headers, Request, Response, ResponseBody, web_sys};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::CONTENT_LENGTH;

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

/// The request line and the headers of `request`, without its body.
pub fn request_head(request: &Request) -> Result<http::Request<()>, RequestError> {
    let broken = |error: &dyn std::fmt::Display| RequestError::Broken(error.to_string());
    let url = request.url().map_err(|error| broken(&error))?;
    let mut head = http::Request::builder().method(request.method().to_string().as_str()).uri(url.as_str());
    for (name, value) in request.headers().entries() {
        head = head.header(name, value);
    }
    head.body(()).map_err(|error| broken(&error))
}

/// Length of the body of `request` in bytes, as announced; 0 if it has none, `None` if only its end will tell.
pub fn announced_length(request: &Request, head: &http::Request<()>) -> Option<usize> {
    let announced = head.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if request.inner().body().is_none() { Some(0) } else { announced }
}

/// The body of `request`, if it has at most `bytes_max` bytes. Cost: its length in memory, for large ones an eighth more;
/// `bytes_max` if the length was not announced.
pub async fn request_body(
    request: &mut Request,
    head: &http::Request<()>,
    bytes_max: usize,
) -> Result<Bytes, RequestError> {
    match announced_length(request, head) {
        Some(0) => Ok(Bytes::new()),
        Some(length) if length <= WHOLE_BYTES_MAX.min(bytes_max) => {
            request.bytes().await.map(Bytes::from).map_err(broken)
        }
        length => {
            let mut stream = request.stream().map_err(broken)?;
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
pub async fn discard_body(request: &mut Request, bytes_max: usize) {
    if let Ok(mut stream) = request.stream() {
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
        let chunk = chunk.map_err(broken)?;
        if bytes.len() + chunk.len() > length {
            return Err(RequestError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

fn broken(error: ::worker::Error) -> RequestError {
    RequestError::Broken(error.to_string())
}

/// `response` as a Worker answers it.
pub fn worker_response(response: http::Response<Bytes>) -> ::worker::Result<Response> {
    let (parts, body) = response.into_parts();
    let headers = Headers::new();
    for (name, value) in &parts.headers {
        headers.append(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
    }
    let body = if body.is_empty() { ResponseBody::Empty } else { ResponseBody::Body(body.into()) };
    Ok(Response::from_body(body)?.with_status(parts.status.as_u16()).with_headers(headers))
}

/// Status and body of the reply of a binding.
pub async fn http_response(reply: Response) -> ::worker::Result<http::Response<Bytes>> {
    let response = http::Response::builder().status(reply.status_code());
    let body = body_of(reply.into()).await?;
    response.body(body).map_err(|error| ::worker::Error::RustError(error.to_string()))
}

/// The body of a reply: in one piece if it is announced to be small.
pub(crate) async fn body_of(reply: web_sys::Response) -> ::worker::Result<Bytes> {
    let announced = reply.headers().get(CONTENT_LENGTH.as_str())?.and_then(|length| length.parse().ok());
    if announced.is_some_and(|length: usize| length > WHOLE_REPLY_BYTES_MAX) {
        return Ok(Response::from(reply).bytes().await?.into());
    }
    let buffer = JsFuture::from(reply.array_buffer()?).await?;
    Ok(Uint8Array::new(&buffer).to_vec().into())
}
