//! The query executor: runs a plan over what the bucket holds of a collection and answers exactly.
//!
//! It never reads the catalog (the plan carries the collection's row) and never writes anything. In reading order:
//! [`Executor::run`], a read from plan to answer; [`cache`], what an isolate remembers between requests;
//! [`Executor::handle`], the same over HTTP; `entry`, the Worker around it.
//!
//! Until index segments exist a collection is its log: an isolate lays it out in memory once, as far as there is room, and
//! from then on reads only what is new; what did not fit is read again by those who ask for it.

pub mod cache;
#[cfg(target_arch = "wasm32")]
mod entry;

use bytes::Bytes;
use cache::{Cache, Tail};
use http::{Request, Response, StatusCode};
use model::safeguard::{Safeguard, holds};
use model::{LogEnd, Lsn, limits};
use query::{Answer, Begun, Hit, Overlay, PlanError, QueryPlan, ReadLevel, Scan};
use runtime::Runtime;
use serde::Serialize;
use std::cell::RefCell;
use storage::ObjectStore;
use wal::{Reader, TailError};

/// An executor for the length of one request.
pub struct Executor<'a, S, R> {
    /// The bucket; reads may be repeated below this.
    pub store: S,
    /// Time to wait in.
    pub runtime: R,
    /// What the isolate remembers.
    pub cache: &'a Cache,
}

impl<S: ObjectStore, R: Runtime> Executor<'_, S, R> {
    /// Answers `plan`. At the default level the answer is as of an end of the log that was seen after this call began:
    /// every write acknowledged before is in it.
    ///
    /// Cost: the log is read from where this isolate last saw its end: one 404 if nothing was written since. Of what is
    /// not in memory, the fragments that hold what the plan asks for. Nothing at [`ReadLevel::IndexOnly`]; at
    /// [`ReadLevel::IndexAndBoundedWal`] nothing beyond [`limits::BOUNDED_READ_FRAGMENTS`] that is not known yet.
    pub async fn run(&self, plan: &QueryPlan) -> Result<Answer, PlanError> {
        let (collection, compacted) = (plan.source.collection, plan.source.manifest.compacted);
        if plan.level == ReadLevel::IndexOnly {
            // As long as nothing is compacted, that is nothing.
            let (hits, count) = Overlay::default().answer(&plan.source, &plan.read)?;
            return Ok(Answer { end: compacted, hits, count });
        }
        let tail = self.cache.tail(collection, compacted.next);
        let answer = self.run_on(plan, &tail).await;
        if matches!(answer, Err(PlanError::Corrupt(_))) || tail.borrow().check().is_err() {
            // Should what was remembered be at fault, the next read does not rest on it.
            self.cache.forget(collection);
        }
        answer
    }

    async fn run_on(&self, plan: &QueryPlan, tail: &RefCell<Tail>) -> Result<Answer, PlanError> {
        self.catch_up(plan, tail).await?;
        let must_scan = !tail.borrow().overlay.holds_all_of(&plan.read);
        let bytes = scan_bytes(&tail.borrow());
        let _permit = if must_scan { Some(self.cache.permit(bytes, &self.runtime).await?) } else { None };
        let (end, begun) = {
            let tail = tail.borrow();
            tail.check()?;
            (tail.end, tail.overlay.begin(&plan.source, &plan.read)?)
        };
        let (hits, count) = match begun {
            Begun::Answered(hits, count) => (hits, count),
            Begun::Scan(scan) => self.scan(*scan, tail, &end, &self.reader(plan)).await?,
        };
        Ok(Answer { end, hits, count })
    }

    fn reader(&self, plan: &QueryPlan) -> Reader<'_, S> {
        Reader { store: &self.store, collection: plan.source.collection }
    }

    /// Reads what was written since `tail` was last brought up to date. Several requests may do so at once: each reads
    /// for itself (a probe sent before a request began proves nothing to it) and adds what the others have not. Where
    /// much is to be read they take turns.
    async fn catch_up(&self, plan: &QueryPlan, tail: &RefCell<Tail>) -> Result<(), PlanError> {
        let limit = match plan.level {
            ReadLevel::IndexAndWal => Lsn(u64::MAX),
            _ => Lsn(plan.source.manifest.watermark().0 + limits::BOUNDED_READ_FRAGMENTS),
        };
        let _turn = self.cache.turn(tail, &self.runtime).await?;
        let from = tail.borrow().end;
        if from != LogEnd::EMPTY && !holds(Safeguard::ProbeOfOnesOwn) {
            return tail.borrow().check();
        }
        let is_long = from == LogEnd::EMPTY && limit > from.next;
        let _permit = if is_long { Some(self.cache.permit(READ_BYTES, &self.runtime).await?) } else { None };
        let take = |fragment: wal::Fragment| {
            tail.borrow_mut().absorb(&fragment);
            self.cache.shrink(tail);
        };
        self.reader(plan).read_until(from, limit, take).await.map_err(plan_error)?;
        tail.borrow().check()
    }

    /// Reads what `scan` asks for until it is answered.
    async fn scan(
        &self,
        mut scan: Scan<'_>,
        tail: &RefCell<Tail>,
        end: &LogEnd,
        reader: &Reader<'_, S>,
    ) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
        loop {
            let pass = scan.next_pass(&tail.borrow().overlay)?;
            let Some(lsns) = pass else { return scan.finish() };
            // In stretches, so that a scan whose answer becomes too large stops.
            for stretch in lsns.chunks(STRETCH_FRAGMENTS) {
                let mut taken = Ok(());
                let take = |fragment: wal::Fragment| {
                    if taken.is_ok() {
                        taken = scan.take(fragment.header.lsn, |index| fragment.operation(index));
                    }
                };
                reader.fragments(stretch, end, take).await.map_err(plan_error)?;
                taken?;
            }
        }
    }

    /// The same over HTTP: a [`QueryPlan`] as JSON in, an [`Answer`] or a [`PlanError`] with its status out.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        let result = match serde_json::from_slice(request.body()) {
            Ok(plan) => self.run(&plan).await,
            Err(error) => Err(PlanError::Invalid(format!("not a plan: {error}"))),
        };
        match result {
            Ok(answer) => json(StatusCode::OK, &answer),
            Err(error) => json(status(&error), &error),
        }
    }
}

/// Fragments that a scan reads before it looks whether it may go on.
const STRETCH_FRAGMENTS: usize = 256;

/// Memory in which a reader works: what it asks for ahead, and the one that is being decoded.
const READ_BYTES: usize = limits::READ_AHEAD_BYTES * 3 / 2;

/// Memory in which a scan of `tail` works: fragments, candidates, pieces of records, hits.
fn scan_bytes(tail: &Tail) -> usize {
    /// What a scan keeps of a record that may be a hit, about.
    const CANDIDATE_BYTES: usize = 96;
    let ahead = (tail.fragment_bytes_max * limits::CONNECTIONS_MAX).min(limits::READ_AHEAD_BYTES);
    let fragments = ahead + 2 * tail.fragment_bytes_max;
    fragments + tail.overlay.len() * CANDIDATE_BYTES + limits::PARTIAL_BYTES_MAX
}

fn plan_error(error: TailError) -> PlanError {
    match error {
        TailError::Unavailable(reason) => PlanError::Unavailable(reason),
        TailError::Broken { .. } => PlanError::Corrupt(error.to_string()),
    }
}

/// The HTTP status under which an error crosses to the gateway.
fn status(error: &PlanError) -> StatusCode {
    match error {
        PlanError::Invalid(_) => StatusCode::BAD_REQUEST,
        PlanError::UnknownId => StatusCode::NOT_FOUND,
        PlanError::Corrupt(_) => StatusCode::INTERNAL_SERVER_ERROR,
        PlanError::Unavailable(_) | PlanError::TooLarge(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Bytes> {
    // Counted first: a buffer that grows is there twice while it is moved.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).expect("answers have string keys and finite numbers");
    let mut body = Vec::with_capacity(length.0);
    serde_json::to_writer(&mut body, value).expect("what was written once can be written again");
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body.into()).expect("a constant header is valid")
}

/// Counts what is written.
struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
