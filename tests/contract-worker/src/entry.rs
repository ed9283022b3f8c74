//! Routes to suites; each reads the bindings that it needs.

use catalog::{HranaCatalog, HranaConfig};
use http::Request;
use query::kernel;
use runtime::{Http, HttpError, Runtime, WorkerRuntime, within};
use serde_json::{Map, Value};
use storage::BoundStore;
use worker::{Context, Env, Response, event};

/// Seeds with which the kernels are compared, besides a random one.
const KERNEL_SEEDS: u64 = 8;

/// Races for `/races`, ten requests each.
const RACES: u64 = 50;

/// A promise and, if it was broken, how.
type Line = (String, Result<(), String>);

#[event(fetch)]
async fn fetch(request: worker::Request, env: Env, _context: Context) -> worker::Result<Response> {
    let runtime = WorkerRuntime::default();
    let report = match request.path().as_str() {
        "/runtime" => Ok(clock_and_http(&runtime).await),
        "/storage" => storage(&env, &runtime).await,
        "/races" => races(&env, &runtime).await,
        "/catalog" => catalog(&env, &runtime).await,
        "/kernels" => Ok(kernels(&runtime)),
        _ => return Response::error("/runtime, /storage, /races, /catalog or /kernels", 404),
    };
    answer(report.unwrap_or_else(|error| vec![("the_suite_starts".to_owned(), Err(error))]))
}

fn answer(report: Vec<Line>) -> worker::Result<Response> {
    let status = if report.iter().all(|(_, outcome)| outcome.is_ok()) { 200 } else { 500 };
    let value = |outcome: Result<(), String>| Value::from(outcome.err().unwrap_or_else(|| "ok".to_owned()));
    let body: Map<String, Value> = report.into_iter().map(|(name, outcome)| (name, value(outcome))).collect();
    Ok(Response::from_json(&body)?.with_status(status))
}

fn lines(report: Vec<(&'static str, Result<(), String>)>) -> Vec<Line> {
    report.into_iter().map(|(name, outcome)| (name.to_owned(), outcome)).collect()
}

fn setting(env: &Env, name: &str) -> Option<String> {
    env.var(name).ok().map(|value| value.to_string())
}

async fn storage(env: &Env, runtime: &WorkerRuntime) -> Result<Vec<Line>, String> {
    let store = BoundStore::from_env(env, runtime.clone()).map_err(|error| error.to_string())?;
    let prefix = format!("contract/{:032x}/", runtime.random());
    Ok(lines(storage::contract::run(&store, runtime, &prefix).await))
}

/// So many races as a request may hold calls to the store.
async fn races(env: &Env, runtime: &WorkerRuntime) -> Result<Vec<Line>, String> {
    let store = BoundStore::from_env(env, runtime.clone()).map_err(|error| error.to_string())?;
    let prefix = format!("races/{:032x}/", runtime.random());
    let report = storage::races(&store, &prefix, RACES, 1).await.map_err(|error| error.to_string())?;
    let all_won = if report.won == RACES { Ok(()) } else { Err(format!("{report:?}")) };
    Ok(vec![("each_race_has_one_winner".to_owned(), all_won)])
}

async fn catalog(env: &Env, runtime: &WorkerRuntime) -> Result<Vec<Line>, String> {
    let url = setting(env, "CATALOG_URL").ok_or("CATALOG_URL is not set")?;
    let config = HranaConfig { url, token: setting(env, "CATALOG_TOKEN") };
    let catalog = HranaCatalog::new(config, runtime.clone()).map_err(|error| error.to_string())?;
    Ok(lines(catalog::contract::run(&catalog, runtime).await))
}

#[expect(clippy::cast_possible_truncation, reason = "any 64 of the 128 random bits will do")]
fn kernels(runtime: &WorkerRuntime) -> Vec<Line> {
    let simd = if cfg!(target_feature = "simd128") { Ok(()) } else { Err("compiled without simd128".to_owned()) };
    let seeds = (0..KERNEL_SEEDS).chain([runtime.random() as u64]);
    let compared = seeds.map(|seed| (format!("simd_equals_scalar_with_seed_{seed}"), kernel::self_check(seed)));
    let codes = [("codes_equal_their_definition".to_owned(), vector::planes::self_check(runtime.random() as u64))];
    [("simd_is_compiled_in".to_owned(), simd)].into_iter().chain(compared).chain(codes).collect()
}

/// What the adapter for Workers makes of JavaScript's clock, crypto, timers and fetch.
async fn clock_and_http(runtime: &WorkerRuntime) -> Vec<Line> {
    let check = |name: &str, holds: bool, broken: String| (name.to_owned(), holds.then_some(()).ok_or(broken));
    let (before, drawn) = (runtime.now(), runtime.random());
    runtime.sleep(50).await;
    let slept_ms = runtime.now().ms_since(before);
    let hanging = within(runtime, 20, runtime.sleep(60_000)).await;
    let waited_ms = runtime.now().ms_since(before);
    // Nobody listens at the lowest port.
    let request = Request::get("http://127.0.0.1:1/").body(Default::default()).expect("a valid request");
    let unheard = runtime.fetch(request).await;
    vec![
        check("the_clock_shows_this_century", before.0 > 1_700_000_000_000, format!("{before:?}")),
        check("random_numbers_differ", drawn != runtime.random(), format!("{drawn:x} twice")),
        check("sleep_takes_its_time", (45..5_000).contains(&slept_ms), format!("50 ms took {slept_ms} ms")),
        check("within_gives_up", hanging.is_none() && waited_ms < 10_000, format!("after {waited_ms} ms")),
        check("no_server_is_no_reply", matches!(unheard, Err(HttpError::NoReply(_))), format!("{unheard:?}")),
    ]
}
