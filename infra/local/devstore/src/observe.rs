//! The one place that every S3 request passes: it counts them, and does to them what the rules of [`crate::faults`] say.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use s3s::access::{S3Access, S3AccessContext};
use s3s::service::S3Service;
use s3s::{HttpError, S3Error, S3ErrorCode, S3Result, s3_error};

use crate::counters::{Counters, Outcome, Ticket, TraceId};
use crate::faults::{Fate, Faults, Verdict};
use crate::link::{Lane, Link};
use crate::taps::{Observed, Received, Upload};

/// What is inside, whatever became of a thread that held it.
pub(crate) fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries out one S3 request, and counts it. All operations pass here. An error closes the connection.
pub(crate) async fn observe(
    service: &S3Service,
    counters: &Arc<Mutex<Counters>>,
    link: &Arc<Link>,
    request: Request<Incoming>,
) -> Result<Response<Observed<s3s::Body>>, HttpError> {
    // The reply to HEAD is announced with a length but has no body that could be read to its end.
    let is_head = request.method() == Method::HEAD;
    let trace = trace_of(request.headers());
    let (mut head, body) = request.into_parts();
    let passage = Arc::new(Passage::new(Upload::new(body), Arc::clone(link)));
    let watch = Watch::begin(counters, trace, Arc::clone(&passage));
    head.extensions.insert(Arc::clone(&passage));
    let body = s3s::Body::http_body_unsync(Received::new(Arc::clone(&passage)));

    // As a store elsewhere would: what has arrived is carried out, also for a client that no longer waits.
    let service = service.clone();
    let call = tokio::spawn(async move { service.call(Request::from_parts(head, body)).await });
    let response = call.await.map_err(|panic| HttpError::new(Box::new(panic)))??;

    let verdict = passage.verdict();
    if matches!(verdict.fate, Fate::Answered(_)) {
        // The client may not listen before it has sent everything.
        passage.upload.discard().await;
    }
    pause(verdict.hold_after).await;
    if matches!(verdict.fate, Fate::RequestDropped | Fate::ReplyDropped) {
        watch.ended_as("dropped");
        return Err(HttpError::new("dropped, as a rule says".into()));
    }
    let status = response.status();
    let is_bodiless = is_head || status == StatusCode::NOT_MODIFIED;
    let watch = watch.ended_as(status.as_str());
    Ok(response.map(|body| Observed::new(body, watch, passage, is_bodiless)))
}

fn trace_of(headers: &HeaderMap) -> Option<TraceId> {
    TraceId::from_traceparent(headers.get("traceparent")?.to_str().ok()?)
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// A request on its way: its body, and, once it is admitted, what it is and what shall become of it.
pub(crate) struct Passage {
    pub(crate) upload: Upload,
    admitted: OnceLock<(String, Verdict)>,
    link: Arc<Link>,
    /// Its connection of the line, as long as it is under way.
    lane: Mutex<Option<Lane>>,
}

impl Passage {
    fn new(upload: Upload, link: Arc<Link>) -> Passage {
        Passage { upload, admitted: OnceLock::new(), link, lane: Mutex::new(None) }
    }

    /// How long these bytes of a body are to be held; `None` if nothing slows them.
    pub(crate) fn pace(&self, bytes: u64) -> Option<Duration> {
        let Verdict { rate, shared_rate, .. } = self.verdict();
        let own = rate.map(|rate| Duration::from_secs_f64(bytes as f64 / rate as f64));
        own.max(shared_rate.map(|rate| self.link.pass(bytes, rate)))
    }

    async fn take_lane(&self, count: u16) {
        let lane = self.link.lane(usize::from(count)).await;
        *locked(&self.lane) = Some(lane);
    }

    /// What shall become of it; nothing special as long as it is not admitted.
    pub(crate) fn verdict(&self) -> Verdict {
        self.admitted.get().map_or_else(Verdict::default, |(_, verdict)| *verdict)
    }

    fn operation(&self) -> &str {
        self.admitted.get().map_or("Refused", |(operation, _)| operation)
    }
}

/// Admits every request that is signed, if no rule is against it.
pub(crate) struct Access {
    pub(crate) faults: Arc<Mutex<Faults>>,
}

#[async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "a signature is required"));
        }
        let operation = context.s3_op().name().to_owned();
        let verdict = locked(&self.faults).judge(&operation, context.s3_path().get_object_key().unwrap_or_default());
        let passage = context.extensions_mut().get::<Arc<Passage>>().map(Arc::clone);
        let passage = passage.expect("every request passes `observe`");
        // A request is checked once.
        let _ = passage.admitted.set((operation, verdict));
        if let Some(count) = verdict.at_once {
            passage.take_lane(count).await;
        }
        if !verdict.hold_before.is_zero() {
            passage.upload.receive().await;
            pause(verdict.hold_before).await;
        }
        match verdict.fate {
            Fate::Served | Fate::ReplyDropped => Ok(()),
            Fate::Answered(status) => Err(answer(status)),
            Fate::RequestDropped => Err(s3_error!(ServiceUnavailable, "nobody will read this")),
        }
    }
}

/// The error that S3 answers with this status.
fn answer(status: u16) -> S3Error {
    let code = match status {
        409 => S3ErrorCode::Custom("ConditionalRequestConflict".into()),
        429 => S3ErrorCode::Custom("TooManyRequests".into()),
        503 => S3ErrorCode::SlowDown,
        _ => S3ErrorCode::InternalError,
    };
    let mut error = S3Error::with_message(code, "as a rule says");
    error.set_status_code(StatusCode::from_u16(status).expect("rules are checked"));
    error
}

/// A request under way. It ends when this is dropped, as also happens when the client goes away.
pub(crate) struct Watch {
    counters: Arc<Mutex<Counters>>,
    ticket: Ticket,
    passage: Arc<Passage>,
    status: String,
    pub(crate) bytes_out: u64,
}

impl Watch {
    fn begin(counters: &Arc<Mutex<Counters>>, trace: Option<TraceId>, passage: Arc<Passage>) -> Watch {
        let ticket = locked(counters).begin(trace);
        Watch { counters: Arc::clone(counters), ticket, passage, status: "aborted".to_owned(), bytes_out: 0 }
    }

    fn ended_as(mut self, status: &str) -> Watch {
        self.status = status.to_owned();
        self
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let outcome = Outcome {
            operation: self.passage.operation().to_owned(),
            status: std::mem::take(&mut self.status),
            bytes_in: self.passage.upload.bytes.load(Ordering::Relaxed),
            bytes_out: self.bytes_out,
        };
        locked(&self.passage.lane).take();
        locked(&self.counters).end(&self.ticket, &outcome);
    }
}
