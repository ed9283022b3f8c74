//! What reads of a compacted collection ask of the store: requests, bytes and dependent reads, by isolates that know nothing
//! and by isolates that have read the same before, over one segment and over several. Answers are checked.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stack::{Config, Part, Stack};

use super::collection::{Collection, Cost};
use super::compactor::Compactor;
use super::records::Records;
use crate::place::Place;
use crate::{build, test};

/// Longer than sending the requests of one wave takes: while each is held for so long, depth counts waves.
const HELD_MS: u64 = 100;
/// Heads, indexes of ids and the end of the log; then rows. (Of four segments the first are more than may be under way at once.)
const WAVES_BY_ID_MAX: u64 = 2;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md) [default: made-up records]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    records: u32,
    /// Numbers of segments
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4], value_parser = clap::value_parser!(u32).range(1..=4))]
    segments: Vec<u32>,
}

/// Errors: a wrong answer, or more dependent reads for an id than there are by design.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let programs = test::optimised_programs(place, &build::DEPLOYED)?;
    let mut stack = Stack::start(Config::new(programs.clone(), data.join("opal")))?;
    let records = Records::load(arguments.data.as_deref(), usize::try_from(arguments.records)?)?;
    let mut is_as_designed = true;
    for &segments in &arguments.segments {
        let collection = Collection::make(&stack.gateway_url(), &format!("segments-{segments}"), "cosine")?;
        let bodies = records.bodies(100);
        let compactor = Compactor::new(&stack, &programs.compactor);
        for part in bodies.chunks(bodies.len().div_ceil(usize::try_from(segments)?)) {
            collection.load(part, 4)?;
            compactor.compact(&collection.id, 512)?;
        }
        let made = compactor.status(&collection.id)?["segments"].clone();
        ensure!(made == segments, "there are {made} segments, not {segments}");
        println!("\n{} records in {segments} segments\n{:<28}{}", bodies.len() * 100, "read", Cost::HEADINGS);
        for read in reads(&records, bodies.len() * 100)? {
            let is_few = read.cold_and_warm(&mut stack, &collection)?;
            is_as_designed &= is_few || segments > 1;
        }
    }
    stack.stop();
    ensure!(is_as_designed, "a cold get of one id from one segment takes more than {WAVES_BY_ID_MAX} dependent reads");
    Ok(())
}

/// A read of one kind.
struct Read {
    name: &'static str,
    verb: &'static str,
    body: Option<Value>,
    /// A like read of other records, for isolates that know the first.
    other: Option<Value>,
    /// The ids that it must find, ascending, if they are known.
    ids: Option<Vec<String>>,
    /// Most dependent reads that isolates may take which know nothing.
    waves_max: Option<u64>,
}

fn reads(records: &Records, count: usize) -> Result<Vec<Read>> {
    let read = |name, verb, body| Read { name, verb, body, other: None, ids: None, waves_max: None };
    let get = |name, rows: &[usize], others: &[usize]| {
        let ids = |rows: &[usize]| rows.iter().map(|row| Records::id(*row)).collect::<Vec<_>>();
        let body = |rows| json!({ "ids": ids(rows), "include": ["documents"] });
        Read { other: Some(body(others)), ids: Some(ids(rows)), ..read(name, "get", Some(body(rows))) }
    };
    let spread = |first: usize| (0..10).map(|step| first + step * (count / 10)).collect::<Vec<_>>();
    let nearest = |row: usize| json!({ "query_embeddings": [records.vectors[row]], "n_results": 10, "include": [] });
    let (key, text) = records.text_of_one_in(100)?;
    Ok(vec![
        Read { waves_max: Some(WAVES_BY_ID_MAX), ..get("get, one id", &[count / 3], &[count / 2]) },
        get("get, ten ids", &spread(5), &spread(9)),
        read("get, the first ten", "get", Some(json!({ "limit": 10, "include": ["documents"] }))),
        read("get, one in 100", "get", Some(json!({ "where": { key: text }, "include": ["documents"] }))),
        read("count", "count", None),
        Read { other: Some(nearest(count / 2)), ..read("query, ten nearest", "query", Some(nearest(count / 3))) },
    ])
}

impl Read {
    /// Asks isolates that know nothing, then the same ones again; returns whether that was as few waves as it must be.
    fn cold_and_warm(&self, stack: &mut Stack, collection: &Collection) -> Result<bool> {
        stack.restart(Part::Workers)?;
        let admin = stack.store_admin();
        admin.set_faults(&json!([{ "effect": { "hold_before_ms": HELD_MS } }]), None)?;
        let ask = |body: Option<&Value>, isolates: &str| -> Result<(Value, Cost)> {
            let (answer, cost) = collection.ask_counted(admin, self.verb, body)?;
            println!("{:<28}{cost}", format!("{}, {isolates}", self.name));
            Ok((answer, cost))
        };
        let (answer, cold) = ask(self.body.as_ref(), "cold")?;
        let mut found: Vec<&str> = answer["ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        found.sort_unstable();
        ensure!(self.ids.as_ref().is_none_or(|ids| found == *ids), "{} finds {found:?}", self.name);
        let (again, _) = ask(self.body.as_ref(), "again")?;
        ensure!(again == answer, "{} answers {again}, then {answer}", self.name);
        if let Some(other) = &self.other {
            ask(Some(other), "other")?;
        }
        admin.clear_faults()?;
        Ok(self.waves_max.is_none_or(|max| cold.waves <= max))
    }
}
