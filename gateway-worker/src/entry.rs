//! The Worker around the gateway: bindings in, one gateway a request out. The only file here that names `worker`.

use crate::intake::{Intake, Permit};
use crate::memory::Memory;
use crate::pool::{Ask, ExecutorPool};
use crate::wire::error::{ApiError, trace_id};
use crate::{Gateway, Settings, Spent};
use bytes::Bytes;
use catalog::{HranaCatalog, HranaConfig};
use http::{HeaderMap, HeaderValue};
use model::limits;
use query::{Answer, PlanError};
use runtime::{
    RequestError, Runtime, WorkerRuntime, announced_length, discard_body, http_response, request_body, request_head,
    within, worker_response,
};
use std::cell::RefCell;
use storage::{BoundStore, Retry};
use worker::{Context, Env, Method, Request, RequestInit, Response, Result, console_error, event};

thread_local! {
    /// The memory of this isolate; a panic empties it.
    static MEMORY: &'static Memory = Box::leak(Box::default());
    /// Whose bodies are in it.
    static INTAKE: &'static Intake = Box::leak(Box::default());
}

#[event(fetch)]
async fn fetch(mut request: Request, env: Env, context: Context) -> Result<Response> {
    let head = match request_head(&request) {
        Ok(head) => head,
        Err(error) => return refused(&error, &Trace::of(&HeaderMap::new())),
    };
    let trace = Trace::of(head.headers());
    let mut response = match take_in(&mut request, &head).await {
        Ok((body, _permit)) => match gateway(&env, &trace) {
            Ok(gateway) => {
                let response = gateway.handle(head.map(|()| body), &trace.id).await;
                if gateway.has_chores() {
                    context.wait_until(async move { gateway.afterwards().await });
                }
                response
            }
            Err(error) => {
                console_error!("the deployment is not configured: {error}");
                ApiError::internal("the deployment is not configured").into_response(&trace.id)
            }
        },
        Err(error) => error.into_response(&trace.id),
    };
    if env.var("DEBUG_HEADERS").is_ok_and(|value| value.to_string() == "true") {
        response.headers_mut().insert("opal-memory-bytes", HeaderValue::from(runtime::memory_bytes()));
    }
    worker_response(response)
}

/// The body of `request` when it is its turn, and the right to have it in memory, which must live as long as anything
/// made of it.
async fn take_in(
    request: &mut Request,
    head: &http::Request<()>,
) -> std::result::Result<(Bytes, Option<Permit<'static>>), ApiError> {
    let runtime = WorkerRuntime::default();
    let max = limits::BODY_BYTES_MAX;
    let permit = match announced_length(request, head).unwrap_or(max) {
        // Nothing of them will be kept.
        length if length == 0 || length > max => None,
        length => match INTAKE.with(|intake| *intake).turn(length, &runtime).await {
            Some(permit) => Some(permit),
            None => {
                discard_body(request, max).await;
                return Err(ApiError::unavailable("Too many large requests at once: try again later"));
            }
        },
    };
    match within(&runtime, limits::BODY_TIMEOUT_MS, request_body(request, head, max)).await {
        Some(Ok(body)) => Ok((body, permit)),
        Some(Err(RequestError::TooLarge)) => Err(ApiError::too_large(head.uri().path())),
        Some(Err(error @ RequestError::NoRoom)) => Err(ApiError::unavailable("Try again later").because(error)),
        Some(Err(error)) => Err(ApiError::invalid_argument(error.to_string())),
        None => Err(ApiError::unavailable("The request body did not arrive in time")),
    }
}

/// The answer to a request that could not be taken in.
fn refused(error: &RequestError, trace: &Trace) -> Result<Response> {
    worker_response(ApiError::invalid_argument(error.to_string()).into_response(&trace.id))
}

type WorkerGateway = Gateway<
    'static,
    Retry<BoundStore<WorkerRuntime>, WorkerRuntime>,
    HranaCatalog<WorkerRuntime>,
    ExecutorPool<'static, BoundExecutors, HranaCatalog<WorkerRuntime>, WorkerRuntime>,
    WorkerRuntime,
>;

fn gateway(env: &Env, trace: &Trace) -> std::result::Result<WorkerGateway, String> {
    let text = |name: &str| env.var(name).ok().map(|value| value.to_string()).filter(|value| !value.is_empty());
    let required = |name: &str| text(name).ok_or_else(|| format!("no variable {name}"));
    let runtime = WorkerRuntime::for_request(trace.parent.clone());
    let store = BoundStore::from_env(env, runtime.clone()).map_err(|error| error.to_string())?;
    let count = required("EXECUTORS")?.parse().ok().filter(|count| (1..=limits::EXECUTORS_MAX).contains(count));
    let catalog = HranaConfig { url: required("CATALOG_URL")?, token: text("CATALOG_TOKEN") };
    let catalog = HranaCatalog::new(catalog, runtime.clone()).map_err(|error| error.to_string())?;
    let memory = MEMORY.with(|memory| *memory);
    let executors = ExecutorPool {
        ask: BoundExecutors { env: env.clone(), runtime: runtime.clone() },
        catalog: catalog.clone(),
        runtime: runtime.clone(),
        memory,
        count: count.ok_or("EXECUTORS is not a number of executors")?,
        log: |line| console_error!("{line}"),
    };
    let settings = Settings {
        allow_reset: text("ALLOW_RESET").is_some_and(|value| value == "true"),
        store_name: key_safe(&store.name()),
        log: |line| console_error!("{line}"),
    };
    Ok(Gateway {
        store: Retry::new(store, runtime.clone()),
        catalog,
        executors,
        runtime,
        memory,
        settings,
        written: RefCell::default(),
        spent: Spent::default(),
    })
}

/// A store's name in the letters that every key may have.
fn key_safe(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

/// What joins the requests that one user's request causes.
struct Trace {
    /// 32 hexadecimal digits.
    id: String,
    /// The W3C header for outgoing requests.
    parent: Option<HeaderValue>,
}

impl Trace {
    /// The caller's trace, or a new one.
    fn of(headers: &HeaderMap) -> Trace {
        let given = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let random = WorkerRuntime::default().random();
        let id = trace_id(given, random);
        let parent = HeaderValue::from_str(&format!("00-{id}-{:016x}-01", random >> 64)).ok();
        Trace { id, parent }
    }
}

/// The executors behind the service bindings `EXECUTOR_0`, `EXECUTOR_1`, ….
struct BoundExecutors {
    env: Env,
    runtime: WorkerRuntime,
}

impl Ask for BoundExecutors {
    async fn ask(
        &self,
        executor: usize,
        plan: &Bytes,
    ) -> std::result::Result<std::result::Result<Answer, PlanError>, String> {
        self.fetch(executor, plan).await.map_err(|error| error.to_string())
    }
}

impl BoundExecutors {
    async fn fetch(&self, executor: usize, plan: &Bytes) -> Result<std::result::Result<Answer, PlanError>> {
        let mut init = RequestInit::new();
        init.with_method(Method::Post).with_body(Some(worker::js_sys::Uint8Array::from(plan.as_ref()).into()));
        let mut request = Request::new_with_init("http://executor/run", &init)?;
        if let Some(trace) = self.runtime.traceparent().and_then(|trace| trace.to_str().ok()) {
            request.headers_mut()?.set("traceparent", trace)?;
        }
        let reply = self.env.service(&format!("EXECUTOR_{executor}"))?.fetch_request(request).await?;
        let reply = http_response(reply).await?;
        if reply.status().is_success() {
            return Ok(Ok(serde_json::from_slice(reply.body())?));
        }
        Ok(Err(serde_json::from_slice(reply.body())?))
    }
}
