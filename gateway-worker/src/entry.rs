//! The Worker around the gateway: bindings in, one gateway a request out. The only file here that names `worker`.

use crate::memory::Memory;
use crate::wire::error::{ApiError, trace_id};
use crate::{Executors, Gateway, Settings, placement};
use bytes::Bytes;
use catalog::{HranaCatalog, HranaConfig};
use http::{HeaderMap, HeaderValue};
use model::limits;
use query::{Answer, PlanError, QueryPlan};
use runtime::{
    RequestError, Runtime, WorkerRuntime, http_response, request_body, request_head, within, worker_response,
};
use storage::{Retry, S3Config, S3Store};
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
    Retry<S3Store<WorkerRuntime>, WorkerRuntime>,
    HranaCatalog<WorkerRuntime>,
    BoundExecutors,
    WorkerRuntime,
>;

fn gateway(env: &Env, trace: &Trace) -> std::result::Result<WorkerGateway, String> {
    let text = |name: &str| env.var(name).ok().map(|value| value.to_string()).filter(|value| !value.is_empty());
    let required = |name: &str| text(name).ok_or_else(|| format!("no variable {name}"));
    let runtime = WorkerRuntime::for_request(trace.parent.clone());
    let store = S3Config::from_lookup(text).map_err(|error| error.to_string())?;
    let count = required("EXECUTORS")?.parse().ok().filter(|count| (1..=limits::EXECUTORS_MAX).contains(count));
    let executors = BoundExecutors {
        env: env.clone(),
        count: count.ok_or("EXECUTORS is not a number of executors")?,
        runtime: runtime.clone(),
    };
    let settings = Settings {
        allow_reset: text("ALLOW_RESET").is_some_and(|value| value == "true"),
        store_name: store_name(&store),
        log: |line| console_error!("{line}"),
    };
    let catalog = HranaConfig { url: required("CATALOG_URL")?, token: text("CATALOG_TOKEN") };
    Ok(Gateway {
        store: Retry::new(S3Store::new(store, runtime.clone()).map_err(|error| error.to_string())?, runtime.clone()),
        catalog: HranaCatalog::new(catalog, runtime.clone()).map_err(|error| error.to_string())?,
        executors,
        runtime,
        memory: MEMORY.with(|memory| *memory),
        settings,
    })
}

/// Endpoint and bucket in the letters that every key may have.
fn store_name(store: &S3Config) -> String {
    let name = format!("{}-{}", store.endpoint, store.bucket);
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
    count: usize,
    runtime: WorkerRuntime,
}

impl Executors for BoundExecutors {
    async fn run(&self, plan: &QueryPlan) -> std::result::Result<Answer, PlanError> {
        let body = Bytes::from(serde_json::to_vec(plan).expect("plans have string keys and finite numbers"));
        let mut failures = Vec::new();
        for executor in placement::ranked(plan.source.collection, self.count) {
            match within(&self.runtime, limits::EXECUTOR_TIMEOUT_MS, self.ask(executor, &body)).await {
                Some(Ok(result)) => return result,
                Some(Err(error)) => failures.push(format!("executor {executor}: {error}")),
                None => return Err(PlanError::Unavailable(format!("executor {executor} took too long"))),
            }
        }
        Err(PlanError::Unavailable(failures.join("; ")))
    }
}

impl BoundExecutors {
    /// One executor's answer; an outer error if it gave none, so that another may be asked.
    async fn ask(&self, executor: usize, plan: &Bytes) -> Result<std::result::Result<Answer, PlanError>> {
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
