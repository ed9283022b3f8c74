//! Latencies of reads of a collection while it is all log and after it was compacted, by isolates that know nothing and by
//! isolates that have read it before. Both answer alike.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stack::{Config, Part, Stack};

use super::collection::Collection;
use super::compactor::Compactor;
use super::records::Records;
use crate::place::Place;
use crate::{build, test};

/// A wave of reads takes so long in a store that is not on the same machine.
const STORE_MS: u64 = 20;
const COLD_TIMES: usize = 3;
const WARM_TIMES: usize = 20;
/// After so long no more warm reads of one kind begin.
const WARM_LIMIT: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md) [default: made-up records]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Numbers of records
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 60_000], value_parser = clap::value_parser!(u32).range(1_000..))]
    records: Vec<u32>,
}

/// Errors: a compacted collection answers otherwise than its log did.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let programs = test::optimised_programs(place, &build::DEPLOYED)?;
    let mut stack = Stack::start(Config::new(programs.clone(), data.join("opal")))?;
    for &count in &arguments.records {
        let records = Records::load(arguments.data.as_deref(), usize::try_from(count)?)?;
        let collection = Collection::make(&stack.gateway_url(), &format!("latency-{count}"), "cosine")?;
        collection.load(&records.bodies(100), 4)?;
        println!("\n{count} records in batches of 100, medians\n{HEADINGS}");
        let reads = reads(&records)?;
        let log = reads.iter().map(|read| read.measure(&mut stack, &collection)).collect::<Result<Vec<_>>>()?;
        Compactor::new(&stack, &programs.compactor).compact(&collection.id, 512)?;
        for (read, log) in reads.iter().zip(log) {
            let compacted = read.measure(&mut stack, &collection)?;
            ensure!(compacted.answer == log.answer, "{}: {} before, {}", read.name, log.answer, compacted.answer);
            print(read.name, &log, &compacted);
        }
    }
    stack.stop();
    Ok(())
}

struct Read {
    name: &'static str,
    verb: &'static str,
    body: Option<Value>,
}

fn reads(records: &Records) -> Result<[Read; 3]> {
    let vector: Vec<f32> = records.vectors[records.len() / 2].iter().map(|value| value + 0.01).collect();
    let query = json!({ "query_embeddings": [vector], "n_results": 10, "include": ["distances"] });
    let (key, text) = records.text_of_one_in(100)?;
    let get = json!({ "where": { key: text }, "include": ["documents"] });
    Ok([
        Read { name: "query, ten nearest", verb: "query", body: Some(query) },
        Read { name: "get, one in 100", verb: "get", body: Some(get) },
        Read { name: "count", verb: "count", body: None },
    ])
}

struct Measured {
    cold: Duration,
    warm: Duration,
    answer: Value,
}

impl Read {
    fn measure(&self, stack: &mut Stack, collection: &Collection) -> Result<Measured> {
        let (mut cold, mut answer) = (Vec::new(), Value::Null);
        for _ in 0..COLD_TIMES {
            stack.restart(Part::Workers)?;
            let hold = json!([{ "effect": { "hold_before_ms": STORE_MS } }]);
            stack.store_admin().set_faults(&hold, None)?;
            cold.push(timed(|| {
                answer = collection.ask(self.verb, self.body.as_ref())?;
                Ok(())
            })?);
        }
        let (mut warm, began) = (Vec::new(), Instant::now());
        while warm.is_empty() || (warm.len() < WARM_TIMES && began.elapsed() < WARM_LIMIT) {
            warm.push(timed(|| collection.ask(self.verb, self.body.as_ref()).map(drop))?);
        }
        stack.store_admin().clear_faults()?;
        Ok(Measured { cold: median(cold), warm: median(warm), answer })
    }
}

fn timed(task: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    task()?;
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

const HEADINGS: &str = "read                    cold ms: log  compacted  ratio    warm ms: log  compacted  ratio";

fn print(name: &str, log: &Measured, compacted: &Measured) {
    print!("{name:<24}");
    for (log, compacted) in [(log.cold, compacted.cold), (log.warm, compacted.warm)] {
        let [log, compacted] = [log, compacted].map(|took| took.as_secs_f64() * 1e3);
        print!("{log:>12.1}{compacted:>11.1}{:>7.2}    ", compacted / log);
    }
    println!();
}
