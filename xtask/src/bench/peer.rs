//! Reads and writes of real records on both servers: rates, latencies, recall. What it asks is in `bench/peer`; many queries at
//! once are asked from here, by a client that leaves the processor to the servers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use stack::{Config, Part, Programs, Stack, StoreAdmin};

use super::bucket::Bucket;
use super::collection::Collection;
use super::cpu;
use super::load::{self, Measured};
use super::original::Original;
use super::records::Records;
use crate::place::Place;
use crate::{build, sh, test, tools};

/// Name of the collection that `peer.py` leaves behind.
const NAME: &str = "peer";
/// Queries that are asked once each before the clock runs, and then again and again.
const QUERIES: usize = 200;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md)
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Use at most so many records
    #[arg(long, default_value_t = 68_000)]
    records: u32,
    /// Connections that query at once
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds for which they do
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Prints a figure a line, for the original, for us, and their ratio; then what both store.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let programs = test::optimised_programs(place, &build::DEPLOYED)?;
    let stack = Stack::start(Config::new(programs.clone(), data.join("opal")))?;
    let original = Original::start(place, &data.join("original"))?;
    let mut peer = Command::new(tools::python(place)?);
    peer.arg("-u").arg(place.root.join("bench/peer/peer.py")).args([original.url(), &stack.gateway_url()]);
    peer.arg("--data").arg(&arguments.data).args(["--records", &arguments.records.to_string()]);
    peer.args(["--queries", &QUERIES.to_string()]).arg("--compactor").arg(&programs.compactor);
    peer.envs([("PYTHONDONTWRITEBYTECODE", "1"), ("OPENBLAS_NUM_THREADS", "1")]).envs(stack.compactor_env());
    sh::step("measuring the original server, then ours", &mut peer)?;
    let mut records = Records::load(Some(&arguments.data), usize::MAX)?;
    let queries = records.vectors.split_off(records.len() - QUERIES);
    sizes(place, arguments, &records, &data.join("original"), &stack)?;
    let floor = Programs { workers: place.root.join("bench/floor"), ..programs };
    rates(arguments, &queries, &original, stack, Config::new(floor, data.join("opal")))
}

/// What both store, beside the bytes of all documents and metadata, as JSON.
fn sizes(place: &Place, arguments: &Arguments, records: &Records, original: &Path, stack: &Stack) -> Result<()> {
    let texts = records.documents.iter().map(String::len).zip(&records.metadatas);
    let texts: usize =
        texts.take(arguments.records as usize).map(|(document, metadata)| document + metadata.to_string().len()).sum();
    let mut stored = Command::new(tools::python(place)?);
    stored.arg(place.root.join("bench/peer/stored.py")).arg(original).env("PYTHONDONTWRITEBYTECODE", "1");
    let theirs: BTreeMap<String, u64> = serde_json::from_str(&sh::output(&mut stored)?)?;
    let own = Collection::find(&stack.gateway_url(), NAME)?;
    let own = Bucket::of(stack)?.stored(&own.id)?;
    println!("\nstored, in bytes a byte of documents and metadata, which are {texts}");
    let print =
        |whose: &str, part: &str, bytes: u64| println!("{whose:<14}{part:<40}{:>8.3}", bytes as f64 / texts as f64);
    theirs.iter().for_each(|(part, bytes)| print("the original", part, *bytes));
    own.iter().for_each(|(part, bytes)| print("ours", part, *bytes));
    Ok(())
}

/// Queries by one connection and by many, of both servers; then, beside the original once more, of Workers that do no more than
/// send the requests of a strong query: what any Workers of this design take.
fn rates(arguments: &Arguments, queries: &[Vec<f32>], original: &Original, stack: Stack, floor: Config) -> Result<()> {
    let body = |vector: &Vec<f32>| json!({ "query_embeddings": [vector], "n_results": 10, "include": ["distances"] });
    let mut bodies: Vec<Value> = queries.iter().map(body).collect();
    let (theirs, own) = (Collection::find(original.url(), NAME)?, Collection::find(&stack.gateway_url(), NAME)?);
    let theirs =
        Asked { name: "the original", collection: &theirs, verb: "query", pids: vec![original.pid()], store: None };
    let index_only = Asked { verb: "query?read_level=index_only", ..Asked::ours("ours, index_only", &own, &stack) };
    compare(arguments, &bodies, &[theirs.clone(), Asked::ours("ours", &own, &stack), index_only])?;

    stack.stop();
    let floor = Stack::start(floor)?;
    let end_of_log = Bucket::of(&floor)?.signed(&format!("{}/log/end", own.id));
    bodies.iter_mut().for_each(|body| body["end_of_log"] = json!(end_of_log));
    let own = Collection { url: floor.gateway_url(), id: own.id };
    compare(arguments, &bodies, &[theirs, Asked::ours("requests alone", &own, &floor)])?;
    floor.stop();
    Ok(())
}

/// Asks `servers` one after the other, by one connection and by many; ratios are to the first.
fn compare(arguments: &Arguments, bodies: &[Value], servers: &[Asked<'_>]) -> Result<()> {
    let bodies: Vec<Vec<u8>> = bodies.iter().map(|body| body.to_string().into_bytes()).collect();
    for connections in [1, arguments.connections] {
        println!("\n{connections} connections\n{HEADINGS}");
        let mut first: Option<Rate> = None;
        for server in servers {
            let rate = server.ask(&bodies, connections, Duration::from_secs(arguments.seconds))?;
            let first = first.get_or_insert_with(|| rate.clone());
            println!("{:<18}{rate}{:>14.2}{:>11.2}", server.name, rate.p50 / first.p50, rate.a_second / first.a_second);
            if server.store.is_some() {
                let each = OURS.iter().zip(&rate.server_cpu_ms).map(|((_, name), ms)| format!("{name} {ms:.2}"));
                println!("{:<18}of that processor time: {}", "", each.collect::<Vec<_>>().join(", "));
            }
        }
    }
    Ok(())
}

/// Our processes, as they are called in what is printed.
const OURS: [(Part, &str); 3] = [(Part::Workers, "Workers"), (Part::Catalog, "catalog"), (Part::Store, "store")];

const HEADINGS: &str = "                    p50 ms   p99 ms  queries/s  server CPU ms  client's share  GETs a query  ratios: p50  queries/s";

/// A server that is asked.
#[derive(Clone)]
struct Asked<'a> {
    name: &'static str,
    collection: &'a Collection,
    verb: &'static str,
    pids: Vec<u32>,
    store: Option<StoreAdmin>,
}

/// How fast it answers.
#[derive(Clone)]
struct Rate {
    p50: f64,
    p99: f64,
    a_second: f64,
    /// Milliseconds of processor time that a query takes, of each process.
    server_cpu_ms: Vec<f64>,
    /// The client's part of all processor time.
    client_share: f64,
    /// Requests of a query to the store, if there is one.
    gets: Option<f64>,
}

impl<'a> Asked<'a> {
    fn ours(name: &'static str, collection: &'a Collection, stack: &Stack) -> Asked<'a> {
        let pids = OURS.into_iter().filter_map(|(part, _)| stack.pid(part)).collect();
        Asked { name, collection, verb: "query", pids, store: Some(stack.store_admin()) }
    }

    fn ask(&self, bodies: &[Vec<u8>], connections: usize, time: Duration) -> Result<Rate> {
        let path = self.collection.path(self.verb);
        let ask = |times, limit| load::cycle(&self.collection.url, &path, bodies, times, connections, limit);
        ask(bodies.len(), Duration::MAX)?;
        let (servers, client, gets) = (self.cpu()?, cpu::seconds(std::process::id())?, self.gets()?);
        let measured = ask(usize::MAX, time)?;
        let servers: Vec<f64> = self.cpu()?.iter().zip(servers).map(|(after, before)| after - before).collect();
        let client = cpu::seconds(std::process::id())? - client;
        let count = measured.writes as f64;
        let gets = self.gets()?.zip(gets).map(|(after, before)| (after - before) as f64 / count);
        let ms = |measured: &Measured, share| measured.percentile(share).as_secs_f64() * 1e3;
        Ok(Rate {
            p50: ms(&measured, 0.5),
            p99: ms(&measured, 0.99),
            a_second: count / measured.elapsed.as_secs_f64(),
            client_share: client / (servers.iter().sum::<f64>() + client),
            server_cpu_ms: servers.iter().map(|seconds| seconds * 1e3 / count).collect(),
            gets,
        })
    }

    fn cpu(&self) -> Result<Vec<f64>> {
        self.pids.iter().map(|pid| cpu::seconds(*pid)).collect()
    }

    fn gets(&self) -> Result<Option<u64>> {
        let requests = |store: StoreAdmin| -> Result<u64> {
            let totals = store.totals()?;
            Ok(totals["requests"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum())
        };
        self.store.map(requests).transpose()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { p50, p99, a_second, server_cpu_ms, client_share, gets } = self;
        let server_cpu_ms: f64 = server_cpu_ms.iter().sum();
        let gets = gets.map_or_else(|| "-".to_owned(), |gets| format!("{gets:.2}"));
        write!(f, "{p50:>9.2}{p99:>9.2}{a_second:>11.1}{server_cpu_ms:>15.2}{:>14.0} %{gets:>14}", client_share * 100.0)
    }
}
