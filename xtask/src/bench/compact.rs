//! What compaction costs: time and memory beside a plain copy of the same bytes, bytes written, bytes stored.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stack::{Config, Stack};

use super::bucket::{Bucket, Stored};
use super::collection::Collection;
use super::compactor::{Compactor, Spent};
use super::load;
use super::original::Original;
use super::records::Records;
use crate::place::Place;
use crate::{build, test};

const WRITERS: usize = 4;
/// As the original likes them: of larger ones it acknowledges more records a second.
const BATCH: usize = 300;
/// So long the original server is measured.
const ORIGINAL_LIMIT: Duration = Duration::from_secs(20);
/// What `--memory` does not count: the program itself, fragments that are read ahead, the parts that are being made.
const OVERHEAD_BYTES: u64 = 64 << 20;
/// Times that each byte may be written, by far more than are expected of twenty parts.
const AMPLIFICATION_MAX: f64 = 8.0;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md) [default: made-up records]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Records at the dimension that they have; of wider ones so many fewer
    #[arg(long, default_value_t = 68_000, value_parser = clap::value_parser!(u32).range(6_000..))]
    records: u32,
    /// Dimensions, as multiples of what the records have
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4], value_parser = clap::value_parser!(u32).range(1..=16))]
    times: Vec<u32>,
    /// Bounds of the compactor's memory, in MiB
    #[arg(long, value_delimiter = ',', default_values_t = [512, 64, 32], value_parser = clap::value_parser!(u32).range(16..))]
    memory: Vec<u32>,
    /// Compactions in which the records are then written once more, part by part
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..))]
    parts: u32,
    /// Leave the original server out
    #[arg(long)]
    alone: bool,
}

/// Errors: a compaction fails, what it left is not what was written, a bound does not hold.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let programs = test::optimised_programs(place, &build::DEPLOYED)?;
    let stack = Stack::start(Config::new(programs.clone(), data.join("opal")))?;
    let compactor = Compactor::new(&stack, &programs.compactor);
    let mut bench = Bench { bucket: Bucket::of(&stack)?, stack: &stack, compactor: &compactor };
    let records = |times: u32| -> Result<Records> {
        let whole_batches = usize::try_from(arguments.records / times)? / BATCH * BATCH;
        let records = Records::load(arguments.data.as_deref(), whole_batches)?;
        Ok(records.widened(usize::try_from(times)?))
    };
    for &times in &arguments.times {
        bench.at_dimension(place, arguments, &records(times)?, data)?;
    }
    bench.part_by_part(&records(1)?, usize::try_from(arguments.parts)?)?;
    stack.stop();
    Ok(())
}

struct Bench<'s> {
    stack: &'s Stack,
    compactor: &'s Compactor<'s>,
    bucket: Bucket,
}

impl Bench<'_> {
    /// A line for each bound of memory, then ratios, then what is stored.
    fn at_dimension(&mut self, place: &Place, arguments: &Arguments, records: &Records, data: &Path) -> Result<()> {
        let (dimension, bodies, raw) = (records.vectors[0].len(), records.bodies(BATCH), records.raw_bytes());
        let count = records.len();
        println!("\n{count} records of {dimension} dimensions, {} MB in themselves\n{HEADINGS}", raw / 1_000_000);
        let (mut lines, mut last) = (Vec::new(), None);
        for &memory in &arguments.memory {
            let collection = self.collection(&format!("{dimension}-{memory}"))?;
            let written = collection.load(&bodies, WRITERS)?;
            let copied = self.copy_log(&collection)?;
            let spent = self.compactor.compact(&collection.id, memory)?;
            self.check(&collection, count)?;
            let line = Line { memory, count, raw, written: written.elapsed, copied, spent };
            println!("{line}");
            line.check()?;
            lines.push(line);
            last = Some(collection);
        }
        let (Some(first), Some(collection)) = (lines.first(), last) else { return Ok(()) };
        if !arguments.alone {
            let original = Original::start(place, &data.join(format!("original-{dimension}")))?;
            first.print_beside(&original, &bodies)?;
        }
        let before = self.bucket.stored(&collection.id)?;
        self.compactor.gc(&collection.id)?;
        let after = self.bucket.stored(&collection.id)?;
        print_stored(&before, &after, count, raw);
        ensure!(["log", "packs"].iter().all(|part| !after.contains_key(part)), "gc left log: {after:?}");
        self.check(&collection, count)
    }

    fn collection(&self, name: &str) -> Result<Collection> {
        Collection::make(&self.stack.gateway_url(), name, "cosine")
    }

    fn check(&self, collection: &Collection, count: usize) -> Result<()> {
        collection.expect(count)?;
        self.compactor.verify(&collection.id)
    }

    /// How long it takes to read every object of a log and write it once more, one after the other.
    fn copy_log(&mut self, collection: &Collection) -> Result<Duration> {
        let objects = self.bucket.list(&format!("{}/log/", collection.id))?;
        let began = Instant::now();
        for (key, _) in objects {
            self.bucket.copy(&key, &format!("copy/{key}"))?;
        }
        Ok(began.elapsed())
    }

    /// Loads the records in so many parts, compacts after each, and tells how often a byte was written.
    fn part_by_part(&mut self, records: &Records, parts: usize) -> Result<()> {
        let (bodies, collection) = (records.bodies(100), self.collection("parts")?);
        let mut spent = Spent::default();
        for part in bodies.chunks(bodies.len().div_ceil(parts)) {
            collection.load(part, WRITERS)?;
            spent = spent.and(self.compactor.compact(&collection.id, 512)?);
        }
        self.check(&collection, records.len())?;
        let segments = self.compactor.status(&collection.id)?["segments"].clone();
        let amplification = spent.written_bytes as f64 / records.raw_bytes() as f64;
        println!("\n{} records in {parts} parts, compacted after each: {segments} segments", records.len());
        println!("bytes written : bytes of the records  {amplification:>8.2}");
        ensure!(amplification < AMPLIFICATION_MAX, "each byte was written {amplification:.1} times");
        ensure!(segments.as_u64().is_some_and(|segments| segments <= 4), "there are {segments} segments");
        Ok(())
    }
}

fn print_stored(before: &Stored, after: &Stored, count: usize, raw: u64) {
    println!("\nbytes a record                 before gc     after");
    let line = |what: &str, [before, after]: [u64; 2]| {
        println!("{what:<28}{:>12.1}{:>10.1}", before as f64 / count as f64, after as f64 / count as f64);
    };
    for part in before.keys() {
        line(part, [before, after].map(|stored| stored.get(part).copied().unwrap_or(0)));
    }
    let sums = [before, after].map(|stored| stored.values().sum::<u64>());
    line("all", sums);
    let [before, after] = sums.map(|sum| sum as f64 / raw as f64);
    println!("{:<28}{before:>12.2}{after:>10.2}", "all : records in themselves");
}

const HEADINGS: &str =
    "memory    time : copy's  time : writing's  records/s   MB/s  cpu s  peak MiB  peak : bound  read  written (: raw)";

/// A line of the table.
struct Line {
    memory: u32,
    count: usize,
    raw: u64,
    written: Duration,
    copied: Duration,
    spent: Spent,
}

impl Line {
    fn bound_bytes(&self) -> u64 {
        u64::from(self.memory) << 20
    }

    /// Prints how fast we were beside the original server, which is measured now.
    fn print_beside(&self, original: &Original, bodies: &[Vec<u8>]) -> Result<()> {
        let theirs = Collection::make(original.url(), "bench", "cosine")?;
        let theirs = load::run(original.url(), &theirs.path("add"), bodies, WRITERS, ORIGINAL_LIMIT)?;
        let rate = (theirs.writes * BATCH) as f64 / theirs.elapsed.as_secs_f64();
        println!("\nrecords a second : those that the original acknowledges");
        for (what, took) in [("acknowledged", self.written), ("compacted", self.spent.elapsed)] {
            println!("{what:<28}{:>12.1}", self.count as f64 / took.as_secs_f64() / rate);
        }
        Ok(())
    }

    /// Errors: it took more memory than it was allowed.
    fn check(&self) -> Result<()> {
        let (peak, bound) = (self.spent.memory_bytes, self.bound_bytes());
        ensure!(peak <= bound + OVERHEAD_BYTES, "{peak} bytes of memory with a bound of {bound}");
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { memory, count, raw, written, copied, spent } = self;
        let seconds = spent.elapsed.as_secs_f64();
        let (of_copy, of_writing) = (seconds / copied.as_secs_f64(), seconds / written.as_secs_f64());
        let (rate, megabytes) = (*count as f64 / seconds, *raw as f64 / seconds / 1e6);
        let peak = spent.memory_bytes as f64 / f64::from(1 << 20);
        let [read, put] = [spent.read_bytes, spent.written_bytes].map(|bytes| bytes as f64 / *raw as f64);
        write!(f, "{memory:>4} MiB{of_copy:>16.2}{of_writing:>18.2}{rate:>11.0}{megabytes:>7.1}{:>7.1}", spent.cpu)?;
        write!(f, "{peak:>10.1}{:>14.2}{read:>6.2}{put:>9.2}", spent.memory_bytes as f64 / self.bound_bytes() as f64)
    }
}
