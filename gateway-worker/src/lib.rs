//! The gateway: Chroma's HTTP API v2 in front of the log, the catalog and the executors.
//!
//! It keeps nothing that another component needs: [`memory`] may be lost at any time. In reading order: [`routes`], the
//! API at a glance; [`intake`], how bodies take turns; [`wire`], Chroma's JSON <-> values; `handlers`, check, call, answer;
//! `reads` and `writes`, how a collection is read and appended to (`lane`: writes that share a fragment; `idempotency`:
//! requests carried out once; `backlog`: writes that are slowed); `chores`, what is done after the answer; [`placement`]
//! and [`pool`], which executor reads it; `entry`, the Worker around all of it.

#![allow(async_fn_in_trait, reason = "isolates have one thread: no future here need be Send")]

mod backlog;
mod chores;
mod handlers;
mod idempotency;
pub mod intake;
mod lane;
pub mod memory;
pub mod placement;
pub mod pool;
mod quotas;
mod reads;
pub mod routes;
mod spent;
pub mod wire;
mod writes;

#[cfg(target_arch = "wasm32")]
mod entry;

use bytes::Bytes;
use catalog::Catalog;
use chores::Written;
use http::{Request, Response};
use memory::Memory;
use model::limits;
use query::{Answer, PlanError, QueryPlan};
use runtime::{Runtime, within};
pub use spent::Spent;
use std::cell::RefCell;
use storage::ObjectStore;
use wire::ApiError;
use wire::error::with_trace;

/// Whoever runs plans.
pub trait Executors {
    /// Answers `plan`, by the executor that has the collection in its cache or, if that one fails, by another.
    async fn run(&self, plan: &QueryPlan) -> Result<Answer, PlanError>;

    /// Fetches what `run` will need, while a read that is to come waits for something else.
    async fn prepare(&self) {}
}

/// What a deployment decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether `POST /api/v2/reset` may remove everything.
    pub allow_reset: bool,
    /// Longest pattern that documents may be looked through for, in characters; `None` is as long as a body can be.
    pub pattern_chars_max: Option<usize>,
    /// Where the bucket is, as text that is safe in an object key: a store is probed once for each.
    pub store_name: String,
    /// Takes a line that says what went wrong inside. Never a secret.
    pub log: fn(&str),
}

/// A gateway for the length of one request.
pub struct Gateway<'a, S, C, E, R> {
    /// The bucket. Puts must not be repeated below this.
    pub store: S,
    /// The catalog's primary.
    pub catalog: C,
    /// The pool of executors.
    pub executors: E,
    /// Clock, randomness and sleep.
    pub runtime: R,
    /// What the isolate remembers.
    pub memory: &'a Memory,
    /// What the deployment decides.
    pub settings: Settings,
    /// What the request wrote; begins empty.
    pub written: RefCell<Vec<Written>>,
    /// How long the request waited for what; begins empty.
    pub spent: Spent,
}

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> Gateway<'_, S, C, E, R> {
    /// Answers `request` within [`limits::REQUEST_DEADLINE_MS`]. `trace_id`: 32 hexadecimal digits that errors carry.
    pub async fn handle(&self, request: Request<Bytes>, trace_id: &str) -> Response<Bytes> {
        let begun = self.runtime.now();
        let mut response = Box::pin(self.answer(request, trace_id)).await;
        let timing = self.spent.server_timing(self.runtime.now().ms_since(begun));
        response.headers_mut().insert("server-timing", timing);
        response
    }

    async fn answer(&self, request: Request<Bytes>, trace_id: &str) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let answer = within(&self.runtime, limits::REQUEST_DEADLINE_MS, handlers::answer(self, &head, body)).await;
        let error = match answer.unwrap_or_else(|| Err(ApiError::indeterminate("the request's deadline passed"))) {
            Ok(response) if response.status().is_success() => return response,
            // A health check that tells of an outage.
            Ok(response) => return with_trace(response, trace_id),
            Err(error) => error,
        };
        if error.cause.is_some() {
            (self.settings.log)(&format!("{trace_id} {} {}: {error}", head.method, head.uri.path()));
        }
        error.into_response(trace_id)
    }
}

#[cfg(test)]
mod tests;
