//! The one place that every S3 request passes: counts it, and is where faults can be put in its way.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use s3s::access::{S3Access, S3AccessContext};
use s3s::service::S3Service;
use s3s::{HttpError, S3Result, StdError, s3_error};

use crate::counters::{Counters, Outcome, Ticket, TraceId};

/// Counters that all connections share.
pub(crate) type SharedCounters = Arc<Mutex<Counters>>;

/// The counters, whatever became of a thread that held them.
pub(crate) fn locked(counters: &Mutex<Counters>) -> MutexGuard<'_, Counters> {
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries out one S3 request, and counts it. All operations pass here.
pub(crate) async fn observe(
    service: &S3Service,
    counters: &SharedCounters,
    request: Request<Incoming>,
) -> Result<Response<Observed<s3s::Body>>, HttpError> {
    let watch = Watch::begin(counters, trace_of(request.headers()));
    // The reply to HEAD is announced with a length but has no body that could be read to its end.
    let is_head = request.method() == Method::HEAD;
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(OperationName(Arc::clone(&watch.operation)));
    let body = s3s::Body::http_body_unsync(CountedIncoming { body, bytes: Arc::clone(&watch.bytes_in) });

    let response = service.call(Request::from_parts(parts, body)).await?;
    let status = response.status();
    let is_bodiless = is_head || status == StatusCode::NOT_MODIFIED;
    Ok(response.map(|body| Observed::new(body, watch.replied(status), is_bodiless)))
}

fn trace_of(headers: &HeaderMap) -> Option<TraceId> {
    TraceId::from_traceparent(headers.get("traceparent")?.to_str().ok()?)
}

/// Where the name of a request's operation is noted, once it is known.
#[derive(Clone)]
struct OperationName(Arc<OnceLock<String>>);

/// Admits every request that is signed, and notes which operation it is.
pub(crate) struct Access;

#[async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "a signature is required"));
        }
        let operation = context.s3_op().name().to_owned();
        if let Some(name) = context.extensions_mut().get::<OperationName>() {
            // Set here only, and a request is checked once.
            let _ = name.0.set(operation);
        }
        Ok(())
    }
}

/// A request under way. It ends when this is dropped, as also happens when the client goes away.
struct Watch {
    counters: SharedCounters,
    ticket: Ticket,
    operation: Arc<OnceLock<String>>,
    status: Option<StatusCode>,
    bytes_in: Arc<AtomicU64>,
    bytes_out: u64,
}

impl Watch {
    fn begin(counters: &SharedCounters, trace: Option<TraceId>) -> Watch {
        Watch {
            counters: Arc::clone(counters),
            ticket: locked(counters).begin(trace),
            operation: Arc::default(),
            status: None,
            bytes_in: Arc::default(),
            bytes_out: 0,
        }
    }

    fn replied(mut self, status: StatusCode) -> Watch {
        self.status = Some(status);
        self
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let outcome = Outcome {
            operation: self.operation.get().map_or("Refused", String::as_str).to_owned(),
            status: self.status.map_or("aborted".to_owned(), |status| status.as_u16().to_string()),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out,
        };
        locked(&self.counters).end(&self.ticket, &outcome);
    }
}

/// A request's body that counts its bytes.
struct CountedIncoming {
    body: Incoming,
    bytes: Arc<AtomicU64>,
}

impl Body for CountedIncoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.bytes.fetch_add(data_bytes(frame), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body that ends its request as soon as the last byte is on its way, not after: a client that waits for
/// the reply must not find it still under way.
pub(crate) struct Observed<B> {
    body: B,
    watch: Option<Watch>,
}

impl<B: Body<Data = Bytes>> Observed<B> {
    fn new(body: B, watch: Watch, is_bodiless: bool) -> Observed<B> {
        let is_over = is_bodiless || body.is_end_stream();
        Observed { body, watch: (!is_over).then_some(watch) }
    }
}

impl<B: Body<Data = Bytes, Error = StdError> + Unpin> Body for Observed<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(Ok(frame)), Some(watch)) = (&frame, &mut self.watch) {
            watch.bytes_out += data_bytes(frame);
        }
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.watch = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn data_bytes(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |bytes| bytes.len() as u64)
}
