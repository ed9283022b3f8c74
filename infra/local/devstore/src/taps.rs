//! Bodies on their way in and out: counted, slowed where a rule says so, received ahead where a request is held.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use s3s::StdError;
use tokio::time::Sleep;

use crate::observe::{Passage, Watch, locked};

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// A request's body, which is read by whoever carries the request out, or ahead of that.
pub(crate) struct Upload {
    source: Mutex<Source>,
    /// Bytes that have arrived.
    pub(crate) bytes: AtomicU64,
}

struct Source {
    body: Incoming,
    ahead: VecDeque<Result<Frame<Bytes>, hyper::Error>>,
}

impl Upload {
    pub(crate) fn new(body: Incoming) -> Upload {
        Upload { source: Mutex::new(Source { body, ahead: VecDeque::new() }), bytes: AtomicU64::new(0) }
    }

    /// Takes in all that is left, for whoever reads later.
    pub(crate) async fn receive(&self) {
        while let Some(frame) = poll_fn(|context| self.poll_arrival(context)).await {
            let is_last = frame.is_err();
            locked(&self.source).ahead.push_back(frame);
            if is_last {
                return;
            }
        }
    }

    /// Takes in all that is left, for nobody.
    pub(crate) async fn discard(&self) {
        while let Some(Ok(_)) = poll_fn(|context| self.poll_arrival(context)).await {}
    }

    fn poll_arrival(&self, context: &mut Context<'_>) -> Polled<hyper::Error> {
        let frame = ready!(Pin::new(&mut locked(&self.source).body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.bytes.fetch_add(data_bytes(frame), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn poll_next(&self, context: &mut Context<'_>) -> Polled<hyper::Error> {
        // A statement of its own, so that the lock is free again.
        let ahead = locked(&self.source).ahead.pop_front();
        ahead.map_or_else(|| self.poll_arrival(context), |frame| Poll::Ready(Some(frame)))
    }
}

/// The body of a request as it is carried out.
pub(crate) struct Received {
    passage: Arc<Passage>,
    pace: Pace,
}

impl Received {
    pub(crate) fn new(passage: Arc<Passage>) -> Received {
        Received { passage, pace: Pace::default() }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled<hyper::Error> {
        let Received { passage, pace } = &mut *self;
        pace.poll(passage, context, |context| passage.upload.poll_next(context))
    }

    fn is_end_stream(&self) -> bool {
        let source = locked(&self.passage.upload.source);
        self.pace.held.is_none() && source.ahead.is_empty() && source.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let source = locked(&self.passage.upload.source);
        let ahead: u64 = source.ahead.iter().flatten().map(data_bytes).sum();
        let hint = source.body.size_hint();
        hint.exact().map_or(hint, |rest| SizeHint::with_exact(ahead + rest))
    }
}

/// A response's body that ends its request as soon as the last byte is on its way, not after: a client that waits for
/// the reply must not find it still under way.
pub(crate) struct Observed<B> {
    body: B,
    watch: Option<Watch>,
    passage: Arc<Passage>,
    pace: Pace,
}

impl<B: Body<Data = Bytes>> Observed<B> {
    pub(crate) fn new(body: B, watch: Watch, passage: Arc<Passage>, is_bodiless: bool) -> Observed<B> {
        let is_over = is_bodiless || body.is_end_stream();
        Observed { body, watch: (!is_over).then_some(watch), passage, pace: Pace::default() }
    }
}

impl<B: Body<Data = Bytes, Error = StdError> + Unpin> Body for Observed<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled<StdError> {
        let Observed { body, watch, passage, pace } = &mut *self;
        let frame = ready!(pace.poll(passage, context, |context| Pin::new(&mut *body).poll_frame(context)));
        if let (Some(Ok(frame)), Some(watch)) = (&frame, &mut *watch) {
            watch.bytes_out += data_bytes(frame);
        }
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            *watch = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.pace.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Holds each frame for as long as its bytes take.
#[derive(Default)]
struct Pace {
    held: Option<(Pin<Box<Sleep>>, Frame<Bytes>)>,
}

impl Pace {
    /// The next frame of `source`, in time.
    fn poll<E>(
        &mut self,
        passage: &Passage,
        context: &mut Context<'_>,
        source: impl FnOnce(&mut Context<'_>) -> Polled<E>,
    ) -> Polled<E> {
        if self.held.is_none() {
            let frame = ready!(source(context));
            let time = frame.as_ref().and_then(|frame| passage.pace(data_bytes(frame.as_ref().ok()?)));
            match (time, frame) {
                (Some(time), Some(Ok(frame))) => self.held = Some((Box::pin(tokio::time::sleep(time)), frame)),
                (_, frame) => return Poll::Ready(frame),
            }
        }
        if let Some((sleep, _)) = &mut self.held {
            ready!(sleep.as_mut().poll(context));
        }
        Poll::Ready(self.held.take().map(|(_, frame)| Ok(frame)))
    }
}

fn data_bytes(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |bytes| bytes.len() as u64)
}
