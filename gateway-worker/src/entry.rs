//! The Worker around the gateway: bindings in, one gateway a request out. The only file here that names `worker`.

use crate::intake::{Intake, Permit};
use crate::memory::Memory;
use crate::pool::{Ask, ExecutorPool};
use crate::wire::error::{ApiError, trace_id};
use crate::{Gateway, Settings, Spent, idempotency};
use bytes::Bytes;
use catalog::{HranaCatalog, HranaConfig};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use model::limits;
use query::{Answer, PlanError};
use runtime::{
    RequestError, Runtime, TRACEPARENT, WorkerRuntime, announced_length, discard_body, http_response, request_body,
    request_head, within, worker_response,
};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use storage::{BoundStore, Retry};
use worker::js_sys::{Uint8Array, futures::JsFuture};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::web_sys::{Headers, Request, RequestInit, Response};
use worker::{Context, Env, Result, console_error, event, worker_sys};

/// All that is asked of a request's headers.
const HEADERS: [HeaderName; 4] = [CONTENT_LENGTH, CONTENT_TYPE, TRACEPARENT, idempotency::HEADER];

thread_local! {
    /// The memory of this isolate; a panic empties it.
    static MEMORY: &'static Memory = Box::leak(Box::default());
    /// Whose bodies are in it.
    static INTAKE: &'static Intake = Box::leak(Box::default());
    /// What the bindings name: they are the same for every request.
    static DEPLOYMENT: OnceCell<Rc<Deployment>> = const { OnceCell::new() };
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    let head = match request_head(&request, &HEADERS) {
        Ok(head) => head,
        Err(error) => return refused(&error, &Trace::of(&HeaderMap::new())),
    };
    let trace = Trace::of(head.headers());
    let deployment = match Deployment::of(&env) {
        Ok(deployment) => deployment,
        Err(error) => {
            console_error!("the deployment is not configured: {error}");
            let error = ApiError::internal("the deployment is not configured");
            return Ok(worker_response(error.into_response(&trace.id))?);
        }
    };
    let mut response = match take_in(&request, &head).await {
        Ok((body, _permit)) => {
            let gateway = deployment.gateway(&trace);
            let response = gateway.handle(head.map(|()| body), &trace.id).await;
            if gateway.has_chores() {
                context.wait_until(async move { gateway.afterwards().await });
            }
            response
        }
        Err(error) => error.into_response(&trace.id),
    };
    if deployment.has_debug_headers {
        response.headers_mut().insert("opal-memory-bytes", HeaderValue::from(runtime::memory_bytes()));
    }
    Ok(worker_response(response)?)
}

/// The body of `request` when it is its turn, and the right to have it in memory, which must live as long as anything
/// made of it.
async fn take_in(
    request: &Request,
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
    Ok(worker_response(ApiError::invalid_argument(error.to_string()).into_response(&trace.id))?)
}

type WorkerGateway = Gateway<
    'static,
    Retry<BoundStore<WorkerRuntime>, WorkerRuntime>,
    HranaCatalog<WorkerRuntime>,
    ExecutorPool<'static, BoundExecutors, HranaCatalog<WorkerRuntime>, WorkerRuntime>,
    WorkerRuntime,
>;

/// What the bindings name.
struct Deployment {
    store: BoundStore<WorkerRuntime>,
    catalog: HranaCatalog<WorkerRuntime>,
    executors: Rc<[worker_sys::Fetcher]>,
    settings: Settings,
    has_debug_headers: bool,
}

impl Deployment {
    /// That of this isolate. Errors: the binding that is missing or wrong.
    fn of(env: &Env) -> std::result::Result<Rc<Deployment>, String> {
        if let Some(known) = DEPLOYMENT.with(|deployment| deployment.get().cloned()) {
            return Ok(known);
        }
        let deployment = Rc::new(Deployment::read(env)?);
        Ok(DEPLOYMENT.with(|known| Rc::clone(known.get_or_init(|| deployment))))
    }

    fn read(env: &Env) -> std::result::Result<Deployment, String> {
        let text = |name: &str| env.var(name).ok().map(|value| value.to_string()).filter(|value| !value.is_empty());
        let required = |name: &str| text(name).ok_or_else(|| format!("no variable {name}"));
        let is_on = |name: &str| text(name).is_some_and(|value| value == "true");
        let runtime = WorkerRuntime::default();
        let store = BoundStore::from_env(env, runtime.clone()).map_err(|error| error.to_string())?;
        let count = required("EXECUTORS")?.parse().ok().filter(|count| (1..=limits::EXECUTORS_MAX).contains(count));
        let executor = |number| env.service(&format!("EXECUTOR_{number}")).map(worker::Fetcher::into_rpc);
        let executors = (0..count.ok_or("EXECUTORS is not a number of executors")?).map(executor);
        let executors = executors.collect::<Result<_>>().map_err(|error| error.to_string())?;
        let catalog = HranaConfig { url: required("CATALOG_URL")?, token: text("CATALOG_TOKEN") };
        let catalog = HranaCatalog::new(catalog, runtime).map_err(|error| error.to_string())?;
        let number = |text: String| text.parse().map_err(|_| "PATTERN_CHARS_MAX is not a number".to_owned());
        let settings = Settings {
            allow_reset: is_on("ALLOW_RESET"),
            pattern_chars_max: text("PATTERN_CHARS_MAX").map(number).transpose()?,
            store_name: key_safe(&store.name()),
            log: |line| console_error!("{line}"),
        };
        Ok(Deployment { store, catalog, executors, settings, has_debug_headers: is_on("DEBUG_HEADERS") })
    }

    /// A gateway for one request.
    fn gateway(&self, trace: &Trace) -> WorkerGateway {
        let runtime = WorkerRuntime::for_request(trace.parent.clone());
        let catalog = self.catalog.through(runtime.clone());
        let memory = MEMORY.with(|memory| *memory);
        let executors = ExecutorPool {
            ask: BoundExecutors { executors: Rc::clone(&self.executors), runtime: runtime.clone() },
            catalog: catalog.clone(),
            runtime: runtime.clone(),
            memory,
            count: self.executors.len(),
            log: self.settings.log,
        };
        Gateway {
            store: Retry::new(self.store.through(runtime.clone()), runtime.clone()),
            catalog,
            executors,
            runtime,
            memory,
            settings: self.settings.clone(),
            written: RefCell::default(),
            spent: Spent::default(),
        }
    }
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
        let given = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let random = WorkerRuntime::default().random();
        let id = trace_id(given, random);
        let parent = HeaderValue::from_str(&format!("00-{id}-{:016x}-01", random >> 64)).ok();
        Trace { id, parent }
    }
}

/// The executors behind the service bindings `EXECUTOR_0`, `EXECUTOR_1`, ….
struct BoundExecutors {
    executors: Rc<[worker_sys::Fetcher]>,
    runtime: WorkerRuntime,
}

impl Ask for BoundExecutors {
    async fn ask(
        &self,
        executor: usize,
        plan: &Bytes,
    ) -> std::result::Result<std::result::Result<Answer, PlanError>, String> {
        let reply = self.fetch(executor, plan).await.map_err(|error| worker::Error::from(error).to_string())?;
        if reply.status().is_success() {
            return serde_json::from_slice(reply.body()).map(Ok).map_err(|error| error.to_string());
        }
        serde_json::from_slice(reply.body()).map(Err).map_err(|error| error.to_string())
    }
}

impl BoundExecutors {
    async fn fetch(&self, executor: usize, plan: &Bytes) -> std::result::Result<http::Response<Bytes>, JsValue> {
        let init = RequestInit::new();
        init.set_method("POST");
        init.set_body(&Uint8Array::from(plan.as_ref()));
        if let Some(trace) = self.runtime.traceparent().and_then(|trace| trace.to_str().ok()) {
            let headers = Headers::new()?;
            headers.set(TRACEPARENT.as_str(), trace)?;
            init.set_headers(&headers);
        }
        let reply = self.executors[executor].fetch_with_str_and_init("http://executor/run", &init)?;
        http_response(JsFuture::from(reply).await?.unchecked_into()).await
    }
}
