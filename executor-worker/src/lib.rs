//! The query executor: runs a plan over what the bucket holds of a collection and answers exactly.
//!
//! It never reads the catalog (the plan carries the collection's row) and never writes anything. In reading order:
//! [`Executor::run`], a read from plan to answer; [`cache`], what an isolate remembers between requests;
//! [`Executor::handle`], the same over HTTP; `entry`, the Worker around it.
//!
//! Until index segments exist a collection is its log: an isolate lays all of it out in memory once and from then on
//! reads only what is new.

pub mod cache;
#[cfg(target_arch = "wasm32")]
mod entry;

use bytes::Bytes;
use cache::{Cache, Tail};
use http::{Request, Response, StatusCode};
use query::{Answer, PlanError, QueryPlan};
use serde::Serialize;
use std::cell::RefCell;
use storage::ObjectStore;
use wal::{Reader, TailError};

/// An executor for the length of one request.
pub struct Executor<'a, S> {
    /// The bucket; reads may be repeated below this.
    pub store: S,
    /// What the isolate remembers.
    pub cache: &'a Cache,
}

impl<S: ObjectStore> Executor<'_, S> {
    /// Answers `plan` as of an end of the log that was seen after this call began: every write acknowledged before is
    /// in the answer.
    ///
    /// Cost: the log is read from where this isolate last saw its end: one 404 if nothing was written since.
    pub async fn run(&self, plan: &QueryPlan) -> Result<Answer, PlanError> {
        let collection = plan.source.collection;
        let tail = self.cache.tail(collection, plan.source.watermark);
        let caught_up = self.catch_up(plan, &tail).await;
        if matches!(caught_up, Err(PlanError::Corrupt(_) | PlanError::TooLarge(_))) {
            // Should what was remembered be at fault, the next read does not rest on it.
            self.cache.forget(collection);
        }
        caught_up?;
        self.cache.shrink(collection);
        let tail = tail.borrow();
        let (hits, count) = tail.overlay.answer(&plan.source, &plan.read)?;
        Ok(Answer { end: tail.end, hits, count })
    }

    /// Reads what was written since `tail` was last brought up to date. Several requests may do so at once: each reads
    /// for itself (a probe sent before a request began proves nothing to it) and adds what the others have not.
    async fn catch_up(&self, plan: &QueryPlan, tail: &RefCell<Tail>) -> Result<(), PlanError> {
        let from = tail.borrow().end;
        let reader = Reader { store: &self.store, collection: plan.source.collection };
        let read = reader.read(from, |fragment| tail.borrow_mut().absorb(fragment)).await;
        read.map_err(|error| match error {
            TailError::Unavailable(reason) => PlanError::Unavailable(reason),
            TailError::Broken { .. } => PlanError::Corrupt(error.to_string()),
        })?;
        tail.borrow().check()
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
    let body = serde_json::to_vec(value).expect("answers have string keys and finite numbers");
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body.into()).expect("a constant header is valid")
}

#[cfg(test)]
mod tests;
