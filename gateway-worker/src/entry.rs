//! The Worker around the gateway: bindings in, one gateway a request out. The only file here that names `worker`.

use crate::memory::Memory;
use crate::pool::{Ask, ExecutorPool};
use crate::wire::error::{ApiError, trace_id};
use crate::{Gateway, Settings};
use bytes::Bytes;
use catalog::{HranaCatalog, HranaConfig};
use http::{HeaderMap, HeaderValue};
use model::limits;
use query::{Answer, PlanError};
use runtime::{RequestError, Runtime, WorkerRuntime, http_response, request_body, request_head, worker_response};
use storage::{BoundStore, Retry};
use worker::{Context, Env, Method, Request, RequestInit, Response, Result, console_error, event};

thread_local! {
    /// The memory of this isolate; a panic empties it.
    static MEMORY: &'static Memory = Box::leak(Box::default());
}

#[event(fetch)]
async fn fetch(mut request: Request, env: Env, _context: Context) -> Result<Response> {
    let head = match request_head(&request) {
        Ok(head) => head,
        Err(error) => return refused(&error, &Trace::of(&HeaderMap::new())),
    };
    let trace = Trace::of(head.headers());
    let body = match request_body(&mut request, &head, limits::BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(RequestError::TooLarge) => {
            return worker_response(ApiError::too_large(head.uri().path()).into_response(&trace.id));
        }
        Err(error) => return refused(&error, &trace),
    };
    let response = match gateway(&env, &trace) {
        Ok(gateway) => gateway.handle(head.map(|()| body), &trace.id).await,
        Err(error) => {
            console_error!("the deployment is not configured: {error}");
            ApiError::internal("the deployment is not configured").into_response(&trace.id)
        }
    };
    worker_response(response)
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
    Ok(Gateway { store: Retry::new(store, runtime.clone()), catalog, executors, runtime, memory, settings })
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
