//! A Worker's requests and responses <-> those of the crate `http`, bodies in memory.

use ::worker::{Headers, Request, Response, ResponseBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::CONTENT_LENGTH;

/// So many times the largest allowed body is read before a connection is given up.
const DISCARD_FACTOR: usize = 4;

/// Why a request could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The body has more bytes than allowed; the rest was not read.
    #[error("the request body is too large")]
    TooLarge,
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

/// The body of `request`, if it has at most `bytes_max` bytes.
pub async fn request_body(
    request: &mut Request,
    head: &http::Request<()>,
    bytes_max: usize,
) -> Result<Bytes, RequestError> {
    let announced = head.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match announced {
        Some(length) if length <= bytes_max => {
            request.bytes().await.map(Bytes::from).map_err(|error| RequestError::Broken(error.to_string()))
        }
        None if request.inner().body().is_none() => Ok(Bytes::new()),
        _ => streamed_body(request, bytes_max).await,
    }
}

/// A body of unannounced length, never more of it in memory than allowed. What is too large is read on for a while and
/// thrown away: many clients do not listen before they have sent everything, and would miss the answer.
async fn streamed_body(request: &mut Request, bytes_max: usize) -> Result<Bytes, RequestError> {
    let broken = |error: ::worker::Error| RequestError::Broken(error.to_string());
    let mut stream = request.stream().map_err(broken)?;
    let mut bytes = BytesMut::new();
    let mut total = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(broken)?;
        total += chunk.len();
        if total <= bytes_max {
            bytes.extend_from_slice(&chunk);
        } else if total <= bytes_max * DISCARD_FACTOR {
            bytes.clear();
        } else {
            break;
        }
    }
    if total <= bytes_max { Ok(bytes.freeze()) } else { Err(RequestError::TooLarge) }
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

/// The reply of a binding as a response of the crate `http`.
pub async fn http_response(mut reply: Response) -> ::worker::Result<http::Response<Bytes>> {
    let body = reply.bytes().await?;
    let mut response = http::Response::builder().status(reply.status_code());
    for (name, value) in reply.headers().entries() {
        response = response.header(name, value);
    }
    response.body(Bytes::from(body)).map_err(|error| ::worker::Error::RustError(error.to_string()))
}
