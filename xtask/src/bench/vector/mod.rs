//! The nearest neighbours in compacted collections, by their size: recall against a comparison with every record, what isolates
//! ask of the store that know nothing and that have asked before, how long they take, and what building the index takes. Queries
//! are records that were held out.

pub(super) mod case;
mod churn;
mod cold;
mod lance;
mod report;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stack::{Config, Part, Stack};

use super::collection::{Collection, Cost};
use super::compactor::{Compactor, Spent};
use super::cpu;
use crate::place::Place;
use crate::{build, test};
use case::{Case, DRAWS, Judge, Shape};
use churn::Churn;
use cold::Isolate;
use report::{Asked, Line, Warm};

/// Neighbours that are asked for.
pub(super) const K: usize = 10;
/// Isolates that have to start; others differ by little.
const NEW_ISOLATES: usize = 10;
/// Selectivity of filters, in thousandths.
const SHARES: [usize; 4] = [1, 10, 100, 500];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md)
    #[arg(long, value_name = "DIR", required_unless_present = "synthetic")]
    data: Option<PathBuf>,
    /// At most so many of its records, one collection after the other
    #[arg(long, value_delimiter = ',', default_values_t = [68_000])]
    records: Vec<usize>,
    /// Made-up vectors instead, such as 10000x384,100000x384
    #[arg(long, value_name = "ROWSxDIMENSION", value_delimiter = ',', conflicts_with = "data")]
    synthetic: Vec<Shape>,
    /// Records that are not written but asked for
    #[arg(long, default_value_t = 200)]
    queries: usize,
    /// Isolates that know nothing, each asked once, of a store that is far away
    #[arg(long, default_value_t = 30)]
    cold: usize,
    /// Parts in which records are written and compacted, at least
    #[arg(long, default_value_t = 1)]
    parts: usize,
    /// MiB that a compaction may take
    #[arg(long, default_value_t = 4_096)]
    memory: u32,
    /// Queries that are asked with each of several filters
    #[arg(long, default_value_t = 0)]
    filtered: usize,
    /// Add so many more at the end and compact them, beside what building took
    #[arg(long, default_value_t = 0)]
    later: usize,
    /// Replace three tenths of the records and delete two tenths, over one to four segments, too
    #[arg(long)]
    churn: bool,
    /// Measure LanceDB on the same vectors and the same store, and the building of an index by faiss, too
    #[arg(long)]
    lance: bool,
    /// Recall below which this fails
    #[arg(long, default_value_t = 0.95)]
    recall: f64,
}

/// Errors: a wrong distance, an answer that is too short, or less recall than is asked for.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let programs = test::optimised_programs(place, &build::DEPLOYED)?;
    let sizes: Vec<(usize, Option<Shape>)> = match &arguments.data {
        Some(_) => arguments.records.iter().map(|count| (*count, None)).collect(),
        None => arguments.synthetic.iter().map(|shape| (shape.rows, Some(*shape))).collect(),
    };
    let (mut lines, mut least) = (Vec::new(), 1.0_f64);
    for (count, shape) in sizes {
        let folder = arguments.data.clone().unwrap_or_else(|| data.join("vectors"));
        shape.map_or(Ok(()), |shape| shape.write(place, arguments.queries, &folder))?;
        let case = Case::load(&folder, count, arguments.queries)?;
        // One executor, so that whatever it was asked before it is the one that is asked.
        let config = Config { executors: 1, ..Config::new(programs.clone(), data.join("opal")) };
        let stack = Stack::start(config)?;
        let mut bench = Bench { place, arguments, stack, program: &programs.compactor, case: &case };
        let (line, recall) = bench.all()?;
        bench.stack.stop();
        fs::remove_dir_all(data.join("opal"))?;
        lines.push(line);
        least = least.min(recall);
    }
    report::print(&lines);
    ensure!(least >= arguments.recall, "recall {least:.4} is less than {}", arguments.recall);
    Ok(())
}

/// Records that a query may find.
struct Subset<'a> {
    /// The row whose vector a record has, if it is there.
    row_of: &'a dyn Fn(usize) -> Option<usize>,
    /// Only those whose rows have a draw below.
    draw: usize,
    /// How many of the nearest there are, up to [`K`].
    wanted: usize,
    /// How far the last of these is from each query.
    farthest: Vec<f64>,
}

struct Bench<'a> {
    place: &'a Place,
    arguments: &'a Arguments,
    stack: Stack,
    program: &'a Path,
    case: &'a Case,
}

impl Bench<'_> {
    /// Measures all that was asked for; returns the least recall of all, too.
    fn all(&mut self) -> Result<(Line, f64)> {
        let (case, arguments) = (self.case, self.arguments);
        let (collection, other) = (self.collection("vectors")?, self.collection("other")?);
        other.load(&case.records.bodies_of(0..1, 1), 1)?;
        let built =
            case.build(&collection, &self.compactor(), 0..case.records.len(), arguments.parts, arguments.memory)?;
        let mut line = self.nearest(&collection, &other, built)?;
        report::print_one(&line);
        let mut recall = line.warm.asked.recall.min(line.cold.recall);
        if line.segments > 1 {
            let built = built.and(self.compactor().compact_fully(&collection.id, arguments.memory)?);
            line = self.nearest(&collection, &other, built)?;
            report::print_one(&line);
            recall = recall.min(line.warm.asked.recall).min(line.cold.recall);
        }
        if self.arguments.filtered > 0 {
            recall = recall.min(self.filtered(&collection)?);
        }
        if self.arguments.lance {
            lance::measure(self.place, &self.stack, self.case, &line)?;
        }
        if self.arguments.later > 0 {
            self.grown(&collection, &line.built)?;
        }
        if self.arguments.churn {
            recall = recall.min(self.churned()?);
        }
        Ok((line, recall))
    }

    /// Asks for neighbours in what is `built`, by isolates that know nothing, but perhaps `other`, and by one that does.
    fn nearest(&mut self, collection: &Collection, other: &Collection, built: Spent) -> Result<Line> {
        let (case, arguments, records) = (self.case, self.arguments, self.case.records.len());
        self.compactor().verify(&collection.id)?;
        let segments = self.segments(collection)?;

        let whole = 0..records;
        let all = self.subset(slice::from_ref(&whole), DRAWS, &Some)?;
        let bodies: Vec<Value> = case.queries.iter().map(|vector| query(vector)).collect();
        let mut ask = |count: usize, isolate| {
            let bodies = &bodies[..count.min(bodies.len())];
            let answers = cold::ask(&mut self.stack, collection, other, bodies, isolate)?;
            self.judged(answers, &all)
        };
        let new = ask(NEW_ISOLATES.min(arguments.cold), Isolate::New)?;
        let cold = ask(arguments.cold, Isolate::Started)?;
        let warm = self.warm(collection, &bodies, &all)?;
        collection.expect(records)?;
        Ok(Line { records, dimension: case.dimension(), segments, built, new, cold, warm })
    }

    /// Queries of an isolate that has answered them all before: recall and reads first, then nothing but time.
    fn warm(&self, collection: &Collection, queries: &[Value], all: &Subset<'_>) -> Result<Warm> {
        let bodies: Vec<Vec<u8>> = queries.iter().map(|body| body.to_string().into_bytes()).collect();
        collection.send_all("query", &bodies, 1)?;
        let asked = self.ask(collection, queries, all)?;
        let workers = self.stack.pid(Part::Workers).unwrap_or_default();
        let before = cpu::seconds(workers)?;
        let times = collection.send_all("query", &bodies, 1)?;
        let cpu_ms = (cpu::seconds(workers)? - before) * 1e3 / bodies.len() as f64;
        Ok(Warm { asked, times, cpu_ms })
    }

    /// Asks each of `bodies`, whose answers are in `subset`.
    fn ask(&self, collection: &Collection, bodies: &[Value], subset: &Subset<'_>) -> Result<Asked> {
        let ask = |body| collection.ask_counted(self.stack.store_admin(), "query", Some(body));
        self.judged(bodies.iter().map(ask).collect::<Result<_>>()?, subset)
    }

    /// The records with the vectors in `rows`, those with a draw below `draw`. `row_of`: see [`Subset`].
    fn subset<'r>(
        &self,
        rows: &[Range<usize>],
        draw: usize,
        row_of: &'r dyn Fn(usize) -> Option<usize>,
    ) -> Result<Subset<'r>> {
        let wanted = K.min(rows.iter().cloned().flatten().filter(|row| row % DRAWS < draw).count());
        Ok(Subset { row_of, draw, wanted, farthest: self.case.truth(self.place, rows, draw, K)? })
    }

    /// Recall of answers to the first queries, which are in `subset`.
    fn judged(&self, answers: Vec<(Value, Cost)>, subset: &Subset<'_>) -> Result<Asked> {
        let Subset { row_of, draw, wanted, ref farthest } = *subset;
        let vector_of = |record| {
            let row = row_of(record).filter(|row| row % DRAWS < draw)?;
            self.case.records.vectors.get(row).map(Vec::as_slice)
        };
        let mut hits = 0;
        for (((answer, _), query), farthest) in answers.iter().zip(&self.case.queries).zip(farthest) {
            hits += Judge { query, farthest: *farthest, wanted }.hits(answer, vector_of)?;
        }
        let recall = hits as f64 / (wanted * answers.len()).max(1) as f64;
        Ok(Asked { recall, costs: answers.into_iter().map(|(_, cost)| cost).collect() })
    }

    /// Recall with filters, a line each; returns the least.
    fn filtered(&self, collection: &Collection) -> Result<f64> {
        let (mut least, whole) = (1.0_f64, 0..self.case.records.len());
        println!("\n{:<28}  recall{}", "filter", Cost::HEADINGS);
        for share in SHARES {
            let narrowed = |vector: &Vec<f32>| {
                let mut body = query(vector);
                body["where"] = json!({ "draw": { "$lt": share } });
                body
            };
            let bodies: Vec<Value> = self.case.queries.iter().take(self.arguments.filtered).map(narrowed).collect();
            let subset = self.subset(slice::from_ref(&whole), share, &Some)?;
            let asked = self.ask(collection, &bodies, &subset)?;
            println!("{:<28}{asked}", format!("{share} in {DRAWS}"));
            least = least.min(asked.recall);
        }
        Ok(least)
    }

    /// What it takes to compact some records more, beside building the rest.
    fn grown(&self, collection: &Collection, built: &Spent) -> Result<()> {
        let (first, Arguments { later, memory, .. }) = (self.case.records.len(), self.arguments);
        let spent = self.case.build(collection, &self.compactor(), first..first + later, 1, *memory)?;
        println!(
            "\n{later} more compacted into {} segments: {:.3} of the time, {:.3} of the processor time of building, {} MB written",
            self.segments(collection)?,
            spent.elapsed.as_secs_f64() / built.elapsed.as_secs_f64(),
            spent.cpu / built.cpu,
            spent.written_bytes / 1_000_000,
        );
        collection.expect(first + later)
    }

    /// Recall after records were replaced and deleted, a line for each number of segments; returns the least.
    fn churned(&self) -> Result<f64> {
        let churn = Churn::of(self.case);
        let bodies: Vec<Value> = self.case.queries.iter().map(|vector| query(vector)).collect();
        let mut least = 1.0_f64;
        let row_of = |record| churn.row_of(record);
        let alive = self.subset(&churn.alive(), DRAWS, &row_of)?;
        println!("\n{:<28}  recall{}", "after churn", Cost::HEADINGS);
        for steps in 0..4 {
            let collection = self.collection(&format!("churn-{steps}"))?;
            churn.happen(self.case, &collection, &self.compactor(), steps, self.arguments.memory)?;
            let asked = self.ask(&collection, &bodies, &alive)?;
            println!("{:<28}{asked}", format!("{} segments", self.segments(&collection)?));
            least = least.min(asked.recall);
        }
        Ok(least)
    }

    fn collection(&self, name: &str) -> Result<Collection> {
        Collection::make(&self.stack.gateway_url(), name, "cosine")
    }

    fn compactor(&self) -> Compactor<'_> {
        Compactor::new(&self.stack, self.program)
    }

    fn segments(&self, collection: &Collection) -> Result<u64> {
        Ok(self.compactor().status(&collection.id)?["segments"].as_u64().unwrap_or(0))
    }
}

/// What asks for the nearest neighbours of a vector.
pub(super) fn query(vector: &[f32]) -> Value {
    json!({ "query_embeddings": [vector], "n_results": K, "include": ["distances"] })
}
