//! What reading a long uncompacted log costs: reads, bytes, dependent reads and time, by isolates that know nothing and by
//! isolates that have read it before. Answers are checked against a scan.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stack::{Config, Part, Stack};

use super::collection::{Collection, Cost};
use super::records::Records;
use crate::place::Place;
use crate::{build, test};

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
        let collection = Collection::make(&stack.gateway_url(), &format!("tail-of-{batch}"), "l2")?;
        collection.load(&bodies, writers)?;
        println!("\n{} records in batches of {batch}\n{:<28}{}", records.len(), "isolates", Cost::HEADINGS);
        drop(bodies);
        let query = Query::new(&records, records.len() / 2);
        stack.restart(Part::Workers)?;
        let cold = query.ask(&stack, &collection, "cold")?;
        let warm = query.ask(&stack, &collection, "warm")?;
        println!("{:<28}{:>9.1}", "cold time : warm time", cold.as_secs_f64() / warm.as_secs_f64());
        stack.restart(Part::Workers)?;
        let admin = stack.store_admin();
        admin.set_faults(&json!([{ "effect": { "hold_before_ms": HELD_MS } }]), None)?;
        query.ask(&stack, &collection, "cold, each read held")?;
        query.ask(&stack, &collection, "warm, each read held")?;
        admin.clear_faults()?;
    }
    stack.stop();
    Ok(())
}

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
    fn ask(&self, stack: &Stack, collection: &Collection, isolates: &str) -> Result<Duration> {
        let (answer, cost) = collection.ask_counted(stack.store_admin(), "query", Some(&self.body))?;
        ensure!(answer["ids"] == json!([self.nearest]), "the nearest are {:?}, not {}", self.nearest, answer["ids"]);
        println!("{isolates:<28}{cost}");
        Ok(cost.took)
    }
}
