//! The Worker around the executor: bindings in, one executor a request out. The only file here that names `worker`.

use crate::{Cache, Executor, Tally};
use http::header::CONTENT_LENGTH;
use runtime::{TRACEPARENT, WorkerRuntime, request_body, request_head, worker_response};
use std::cell::OnceCell;
use std::rc::Rc;
use storage::{BoundStore, CacheApi, Edge, Lanes, Observed, Retry};
use worker::web_sys::{Request, Response};
use worker::{Context, Env, Error, Result, console_error, event};

/// Largest plan, in bytes: a user's largest body, its vectors as base64.
const PLAN_BYTES_MAX: usize = 2 * model::limits::BODY_BYTES_MAX;

thread_local! {
    /// The memory of this isolate; a panic empties it.
    static CACHE: &'static Cache = Box::leak(Box::default());
    /// Where it reads: its bindings are the same for every request.
    static PLACE: OnceCell<Place> = const { OnceCell::new() };
}

/// What the bindings name.
#[derive(Clone)]
struct Place {
    store: Rc<BoundStore<WorkerRuntime>>,
    edge: Option<CacheApi>,
}

impl Place {
    fn of(env: &Env) -> Result<Place> {
        if let Some(known) = PLACE.with(|place| place.get().cloned()) {
            return Ok(known);
        }
        let store = BoundStore::from_env(env, WorkerRuntime::default()).map_err(|error| invalid(&error))?;
        let place = Place { store: Rc::new(store), edge: CacheApi::from_env(env) };
        Ok(PLACE.with(|known| known.get_or_init(|| place).clone()))
    }
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    let head = request_head(&request, &[CONTENT_LENGTH, TRACEPARENT]).map_err(|error| invalid(&error))?;
    let body = request_body(&request, &head, PLAN_BYTES_MAX).await.map_err(|error| invalid(&error))?;
    let runtime = WorkerRuntime::for_request(head.headers().get(TRACEPARENT).cloned());
    let Place { store, edge } = Place::of(&env)?;
    let tally = Tally::default();
    let store = Lanes::new(store.through(runtime.clone()), model::limits::CONNECTIONS_MAX);
    // Above the lanes: that a read waits for one does not make it depend on another.
    let store = Observed::new(Retry::new(store, runtime.clone()), Rc::clone(&tally.reads));
    let store = Edge::new(store, edge);
    let executor = Executor { store: &store, runtime, cache: CACHE.with(|cache| *cache), tally };
    let response = executor.handle(head.map(|()| body)).await;
    if store.has_news() {
        context.wait_until(async move { store.settle().await });
    }
    if response.status() == http::StatusCode::INTERNAL_SERVER_ERROR {
        console_error!("{}", String::from_utf8_lossy(response.body()));
    }
    Ok(worker_response(response)?)
}

fn invalid(error: &dyn std::fmt::Display) -> Error {
    Error::RustError(error.to_string())
}
