//! The nearest neighbours in a compacted collection: recall against a comparison with every record, what isolates ask of the
//! store that know nothing and that have asked before, and how long they take. Queries are records that were held out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::{Config, Part, Stack};

use super::collection::{Collection, Cost};
use super::compactor::Compactor;
use super::records::Records;
use crate::place::Place;
use crate::{build, test};

/// Longer than sending the requests of one wave takes: while each is held for so long, depth counts waves.
const HELD_MS: u64 = 100;
/// Neighbours that are asked for.
const K: usize = 10;
/// Isolates that know nothing, one after the other, each asked once and then something else.
const COLD: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md) [default: made-up records]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[arg(long, default_value_t = 68_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    records: u32,
    /// Records that are not written but asked for
    #[arg(long, default_value_t = 300)]
    queries: u32,
    /// Recall below which this fails
    #[arg(long, default_value_t = 0.95)]
    recall: f64,
}

/// Errors: a wrong distance, or less recall than is asked for.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let programs = test::optimised_programs(place, &build::DEPLOYED)?;
    let mut stack = Stack::start(Config::new(programs.clone(), data.join("opal")))?;
    let mut records = Records::load(arguments.data.as_deref(), usize::try_from(arguments.records)?)?;
    let held_out = records.vectors.split_off(records.len().saturating_sub(usize::try_from(arguments.queries)?));
    let collection = Collection::make(&stack.gateway_url(), "vectors", "cosine")?;
    let bodies = records.bodies(100);
    records.vectors.truncate(bodies.len() * 100);
    collection.load(&bodies, 4)?;
    let compactor = Compactor::new(&stack, &programs.compactor);
    let spent = compactor.compact(&collection.id, 512)?;
    compactor.verify(&collection.id)?;
    println!(
        "{} records, {} queries; compacted in {:.1} s of {:.1} s processor time, {} MiB at most",
        records.vectors.len(),
        held_out.len(),
        spent.elapsed.as_secs_f64(),
        spent.cpu,
        spent.memory_bytes >> 20
    );

    println!("\n{:<28}{}", "query, ten nearest", Cost::HEADINGS);
    let queries = held_out.iter().map(|vector| query(vector)).collect::<Vec<_>>();
    for pair in queries.chunks(2).take(COLD) {
        stack.restart(Part::Workers)?;
        let admin = stack.store_admin();
        admin.set_faults(&json!([{ "effect": { "hold_before_ms": HELD_MS } }]), None)?;
        for (body, isolates) in pair.iter().zip(["cold", "another"]) {
            println!("{isolates:<28}{}", collection.ask_counted(admin, "query", Some(body))?.1);
        }
        admin.clear_faults()?;
    }

    let (mut found, mut times) = (0, Vec::new());
    for (vector, body) in held_out.iter().zip(&queries) {
        let (answer, cost) = collection.ask_counted(stack.store_admin(), "query", Some(body))?;
        found += hits(&records, vector, &answer)?;
        times.push(cost.took);
    }
    times.sort_unstable();
    let recall = found as f64 / (K * held_out.len()) as f64;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "\nrecall {recall:.4}; warm p50 {:.1} ms, p95 {:.1} ms",
        ms(times[times.len() / 2]),
        ms(times[times.len() * 95 / 100])
    );
    stack.stop();
    ensure!(recall >= arguments.recall, "recall {recall:.4} is less than {}", arguments.recall);
    Ok(())
}

fn query(vector: &[f32]) -> Value {
    json!({ "query_embeddings": [vector], "n_results": K, "include": ["distances", "documents", "metadatas"] })
}

/// How many of the answer's records are as near as the nearest are.
fn hits(records: &Records, vector: &[f32], answer: &Value) -> Result<usize> {
    let mut all: Vec<f64> = records.vectors.iter().map(|row| cosine(vector, row)).collect();
    let (_, last, _) = all.select_nth_unstable_by(K - 1, f64::total_cmp);
    let farthest = *last + 1e-6;
    let (ids, distances) = (answer["ids"][0].as_array(), answer["distances"][0].as_array());
    let (ids, distances) = ids.zip(distances).context("no answer")?;
    let distinct: BTreeSet<&str> = ids.iter().filter_map(Value::as_str).collect();
    ensure!(distinct.len() == K, "{} results", distinct.len());
    let mut hits = 0;
    for (id, told) in ids.iter().zip(distances) {
        let row: usize = id.as_str().and_then(|id| id.strip_prefix("record-")).context("another id")?.parse()?;
        let (distance, told) = (cosine(vector, &records.vectors[row]), told.as_f64().context("no distance")?);
        ensure!((distance - told).abs() < 1e-5, "{id} is {distance} away, not {told}");
        hits += usize::from(distance <= farthest);
    }
    Ok(hits)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut product, mut squares_a, mut squares_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b))) {
        product += a * b;
        squares_a += a * a;
        squares_b += b * b;
    }
    1.0 - product / (squares_a * squares_b).sqrt()
}
