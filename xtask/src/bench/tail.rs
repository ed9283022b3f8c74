//! What reading a long uncompacted log costs: reads, bytes, dependent reads and time, by isolates that know nothing and by
//! isolates that have read it before. Answers are checked against a scan.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::{Config, Part, Stack};

use super::http::Client;
use super::load;
use super::records::Records;
use crate::place::Place;
use crate::{build, test};

const DATABASE: &str = "/api/v2/tenants/default_tenant/databases/default_database";
/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Longer than sending the requests of one wave takes: while each is held for so long, depth counts waves.
const HELD_MS: u64 = 10;
const TOP: usize = 10;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md) [default: made-up records]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Records that are written in batches of 100
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..))]
    batched: u32,
    /// Records that are written one by one
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    single: u32,
}

/// Errors: a wrong answer, or none.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let mut stack = Stack::start(Config::new(test::programs(place, &build::DEPLOYED)?, data.join("opal")))?;
    for (records, batch, writers) in [(arguments.batched, 100, 4), (arguments.single, 1, 1)] {
        let records = Records::load(arguments.data.as_deref(), usize::try_from(records)?)?;
        let bodies = records.bodies(batch);
        let path = collection(&stack, &format!("tail-of-{batch}"))?;
        let written = load::run(&stack.gateway_url(), &format!("{path}/add"), &bodies, writers, PATIENCE)?;
        ensure!(written.writes == bodies.len(), "only {} of {} writes were sent", written.writes, bodies.len());
        println!("\n{} records in batches of {batch}\n{HEADINGS}", records.len());
        drop(bodies);
        let query = Query::new(&records, records.len() / 2);
        stack.restart(Part::Workers)?;
        let cold = query.ask(&stack, &path, "cold")?;
        let warm = query.ask(&stack, &path, "warm")?;
        println!("{:<28}{:>9.1}", "cold time : warm time", cold.as_secs_f64() / warm.as_secs_f64());
        stack.restart(Part::Workers)?;
        let admin = stack.store_admin();
        admin.set_faults(&json!([{ "effect": { "hold_before_ms": HELD_MS } }]), None)?;
        query.ask(&stack, &path, "cold, each read held")?;
        query.ask(&stack, &path, "warm, each read held")?;
        admin.clear_faults()?;
    }
    stack.stop();
    Ok(())
}

fn collection(stack: &Stack, name: &str) -> Result<String> {
    let body = json!({ "name": name, "configuration": { "hnsw": { "space": "l2" } } });
    let made = Client::new(&stack.gateway_url()).json("POST", &format!("{DATABASE}/collections"), Some(&body))?;
    Ok(format!("{DATABASE}/collections/{}", made["id"].as_str().context("a collection without id")?))
}

const HEADINGS: &str = "isolates                        reads       KB  max at once  waves       ms";

/// A query whose answer is known.
struct Query {
    body: Value,
    /// The ids of the nearest, the nearest first.
    nearest: Vec<String>,
}

impl Query {
    /// A query near the record in `row`.
    fn new(records: &Records, row: usize) -> Query {
        let vector: Vec<f32> = records.vectors[row].iter().map(|value| value + 0.01).collect();
        let distance = |other: &Vec<f32>| -> f32 { other.iter().zip(&vector).map(|(a, b)| (a - b) * (a - b)).sum() };
        let mut rows: Vec<(f32, usize)> = records.vectors.iter().map(distance).zip(0..).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let nearest = rows.iter().take(TOP).map(|(_, row)| Records::id(*row)).collect();
        Query { body: json!({ "query_embeddings": [vector], "n_results": TOP, "include": [] }), nearest }
    }

    /// Asks once, checks the answer, prints what it cost, returns the time.
    fn ask(&self, stack: &Stack, path: &str, isolates: &str) -> Result<Duration> {
        // Unique in this run of this stack, which is all that a trace needs to be.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let trace = format!("{nanos:032x}");
        let mut client = Client::new(&stack.gateway_url());
        client.trace = Some(trace.clone());
        let began = Instant::now();
        let answer = client.json("POST", &format!("{path}/query"), Some(&self.body))?;
        let took = began.elapsed();
        ensure!(answer["ids"] == json!([self.nearest]), "the nearest are {:?}, not {}", self.nearest, answer["ids"]);
        let counts = stack.store_admin().trace(&trace)?.context("the query read nothing")?;
        let number = |name: &str| counts[name].as_u64().unwrap_or(0);
        let reads: u64 = counts["requests"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
        let (kilobytes, ms) = (number("bytes_out") / 1024, took.as_secs_f64() * 1e3);
        let (at_once, waves) = (number("max_in_flight"), number("sequential_depth"));
        println!("{isolates:<28}{reads:>9}{kilobytes:>9}{at_once:>13}{waves:>7}{ms:>9.1}");
        Ok(took)
    }
}
