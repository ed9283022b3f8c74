//! What reads by filters ask of the store, of isolates that know nothing: dependent reads, requests and bytes, by the number of
//! records.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::{Config, Part, Stack};

use super::collection::Collection;
use super::compactor::Compactor;
use super::records::Records;
use super::vector::{self, case::Case};
use crate::place::Place;
use crate::{build, test};

/// Heads and text indexes, beside the end of the log; terms, which may take two; rows.
const WAVES_OF_GET_MAX: u64 = 4;
/// And leaves, where those that were read beside the terms are not enough.
const WAVES_OF_QUERY_MAX: u64 = 5;
const PAGE: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md)
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Numbers of records; where there are fewer they come again and again, with vectors that are a little off
    #[arg(long, value_delimiter = ',', default_values_t = [68_000])]
    records: Vec<usize>,
    /// Vectors that are asked for, each of an isolate of its own; they are not written
    #[arg(long, default_value_t = 5)]
    queries: usize,
    /// MiB that a compaction may take
    #[arg(long, default_value_t = 4_096)]
    memory: u32,
}

/// Errors: more dependent reads than there are by design, or fewer results than there are.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let programs = test::optimised_programs(place, &build::DEPLOYED)?;
    let case = Case::load(&arguments.data, usize::MAX, arguments.queries)?;
    let filters = filters(&case.records)?;
    let mut is_as_designed = true;
    for count in &arguments.records {
        let mut stack = Stack::start(Config::new(programs.clone(), data.join("opal")))?;
        let collection = Collection::make(&stack.gateway_url(), "filters", "cosine")?;
        let compactor = Compactor::new(&stack, &programs.compactor);
        case.build(&collection, &compactor, 0..*count, 1, arguments.memory)?;
        compactor.compact_fully(&collection.id, arguments.memory)?;
        println!("\n{count} records in one segment, isolates that know nothing\n{}", Told::HEADINGS);
        for (name, filter) in &filters {
            let page = json!({ "limit": PAGE, "include": ["documents"] });
            let get = ask(&mut stack, &collection, "get", &[with(&page, filter)], PAGE)?;
            println!("{:<28}{get}", format!("get, {name}"));
            let bodies: Vec<Value> = case.queries.iter().map(|vector| with(&vector::query(vector), filter)).collect();
            let query = ask(&mut stack, &collection, "query", &bodies, vector::K)?;
            println!("{:<28}{query}", format!("query, {name}"));
            is_as_designed &= get.waves <= WAVES_OF_GET_MAX && query.waves <= WAVES_OF_QUERY_MAX;
        }
        stack.stop();
        fs::remove_dir_all(data.join("opal"))?;
    }
    ensure!(
        is_as_designed,
        "more than {WAVES_OF_GET_MAX} dependent reads for a get, or {WAVES_OF_QUERY_MAX} for a query"
    );
    Ok(())
}

fn with(body: &Value, filter: &Value) -> Value {
    let mut body = body.clone();
    let members = filter.as_object().into_iter().flatten();
    members.for_each(|(key, value)| body[key] = value.clone());
    body
}

/// Narrow ones, a broad one, a conjunction, and some on the text, with their names.
fn filters(records: &Records) -> Result<Vec<(String, Value)>> {
    let (rare_key, rare) = records.text_of_one_in(100)?;
    let (key, common) = records.text_of_one_in(10)?;
    let (number, bound) = number_above(records)?;
    let word = records.word_of_one_in(10)?;
    let rare_word = records.word_of_one_in(1_000)?;
    let contains = |text: &str| json!({ "where_document": { "$contains": text } });
    Ok(vec![
        ("a text, one in 100".to_owned(), json!({ "where": { rare_key: rare } })),
        ("a text, one in 10".to_owned(), json!({ "where": { &key: common } })),
        ("a number, one in 2".to_owned(), json!({ "where": { &number: { "$gt": bound } } })),
        ("both".to_owned(), json!({ "where": { "$and": [{ key: common }, { number: { "$gt": bound } }] } })),
        (format!("`{word}`"), contains(&word)),
        (format!("`{rare_word}`"), contains(&rare_word)),
        ("two letters".to_owned(), contains(&rare_word[..2])),
    ])
}

/// A key of whole numbers, and one that half of them exceed.
fn number_above(records: &Records) -> Result<(String, i64)> {
    let mut numbers: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (key, value) in records.metadatas.iter().filter_map(Value::as_object).flatten() {
        numbers.entry(key).or_default().extend(value.as_i64());
    }
    numbers.remove("draw");
    let (key, values) = numbers.iter_mut().max_by_key(|(_, values)| values.len()).context("no record has metadata")?;
    values.sort_unstable();
    let median = values.get(values.len() / 2).context("no record has a whole number in its metadata")?;
    Ok(((*key).to_owned(), *median))
}

/// What answers said of themselves: the most waves, the means of the rest.
struct Told {
    waves: u64,
    reads: f64,
    kb: f64,
    leaves: f64,
}

impl Told {
    const HEADINGS: &str = "read                           waves    reads       KB   leaves";
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Told { waves, reads, kb, leaves } = self;
        write!(f, "{waves:>8}{reads:>9.1}{kb:>9.0}{leaves:>9.0}")
    }
}

/// Asks isolates that have just started, one for each body.
fn ask(stack: &mut Stack, collection: &Collection, verb: &str, bodies: &[Value], wanted: usize) -> Result<Told> {
    let mut told = Told { waves: 0, reads: 0.0, kb: 0.0, leaves: 0.0 };
    let share = 1.0 / bodies.len() as f64;
    for body in bodies {
        stack.restart(Part::Workers)?;
        let answer = collection.ask(&format!("{verb}?explain=true"), Some(body))?;
        let ids = if verb == "query" { &answer["ids"][0] } else { &answer["ids"] };
        let found = ids.as_array().map_or(0, Vec::len);
        ensure!(found == wanted, "{verb} finds {found}: {body}");
        let explain = &answer["explain"];
        let number = |name: &str| explain[name].as_u64().unwrap_or(0);
        told.waves = told.waves.max(number("waves"));
        told.reads += explain["reads"].as_array().map_or(0, Vec::len) as f64 * share;
        told.kb += number("bytes") as f64 / 1e3 * share;
        told.leaves += number("leaves") as f64 * share;
    }
    Ok(told)
}
