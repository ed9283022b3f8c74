//! The Worker around the executor: bindings in, one executor a request out. The only file here that names `worker`.

use crate::{Cache, Executor, Tally};
use runtime::{WorkerRuntime, request_body, request_head, worker_response};
use std::rc::Rc;
use storage::{BoundStore, CacheApi, Edge, Lanes, Observed, Retry};
use worker::{Context, Env, Error, Request, Response, Result, console_error, event};

/// Largest plan, in bytes: a user's largest body, its vectors as base64.
const PLAN_BYTES_MAX: usize = 2 * model::limits::BODY_BYTES_MAX;

thread_local! {
    /// The memory of this isolate; a panic empties it.
    static CACHE: &'static Cache = Box::leak(Box::default());
}

#[event(fetch)]
async fn fetch(mut request: Request, env: Env, context: Context) -> Result<Response> {
    let invalid = |error: &dyn std::fmt::Display| Error::RustError(error.to_string());
    let head = request_head(&request).map_err(|error| invalid(&error))?;
    let body = request_body(&mut request, &head, PLAN_BYTES_MAX).await.map_err(|error| invalid(&error))?;
    let runtime = WorkerRuntime::for_request(head.headers().get("traceparent").cloned());
    let store = BoundStore::from_env(&env, runtime.clone()).map_err(|error| invalid(&error))?;
    let tally = Tally::default();
    let store = Retry::new(Lanes::new(store, model::limits::CONNECTIONS_MAX), runtime.clone());
    // Above the lanes: that a read waits for one does not make it depend on another.
    let store = Observed::new(store, Rc::clone(&tally.reads));
    let store = Edge::new(store, CacheApi::from_env(&env));
    let executor = Executor { store: &store, runtime, cache: CACHE.with(|cache| *cache), tally };
    let response = executor.handle(head.map(|()| body)).await;
    if store.has_news() {
        context.wait_until(async move { store.settle().await });
    }
    if response.status() == http::StatusCode::INTERNAL_SERVER_ERROR {
        console_error!("{}", String::from_utf8_lossy(response.body()));
    }
    worker_response(response)
}
