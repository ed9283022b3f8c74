//! How far a compactor stays behind writers: the log that is not compacted, sampled while they write and afterwards.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::{Compaction, Config, Stack};

use super::collection::Collection;
use super::compactor::Compactor;
use super::records::Records;
use crate::place::Place;
use crate::{build, sh, test};

const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Lines of the table, about.
const SAMPLES_SHOWN: usize = 24;
/// What a log may wait for besides the next round and its work: a marker that was cleared while a gateway believed that it
/// was there is made up for after a minute.
const MARKER_DELAY: Duration = Duration::from_secs(60);
/// What a round may take.
const ROUND: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md) [default: made-up records]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[arg(long, default_value_t = 68_000, value_parser = clap::value_parser!(u32).range(100..))]
    records: u32,
    /// Records in a batch
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    batch: u32,
    /// Writers at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    writers: u32,
    /// Seconds between two rounds of the compactor; as in `cargo xtask dev` unless told
    #[arg(long, default_value_t = 30)]
    interval: u64,
}

/// Errors: the compactor stays behind for longer than a round is due, or loses something.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let programs = test::optimised_programs(place, &build::DEPLOYED)?;
    let mut config = Config::new(programs.clone(), data.join("opal"));
    let interval = Duration::from_secs(arguments.interval);
    config.compaction = Some(Compaction { interval, is_eager: false });
    let mut stack = Stack::start(config)?;
    let records = Records::load(arguments.data.as_deref(), usize::try_from(arguments.records)?)?;
    let batch = usize::try_from(arguments.batch)?;
    let bodies = records.bodies(batch);
    let collection = Collection::make(&stack.gateway_url(), "backlog", "cosine")?;
    let compactor = Compactor::new(&stack, &programs.compactor);
    let lag_max = interval + MARKER_DELAY + ROUND;
    let writers = usize::try_from(arguments.writers)?;

    let began = Instant::now();
    let (samples, written) = thread::scope(|scope| {
        let writing = scope.spawn(|| collection.load(&bodies, writers).map(|written| written.elapsed));
        let is_over = || writing.is_finished().then(|| began.elapsed());
        let samples = samples(&compactor, &collection, began, lag_max, is_over);
        (samples, writing.join().expect("no writer panics"))
    });
    let (samples, written) = (samples?, written?);
    collection.expect(bodies.len() * batch)?;
    compactor.verify(&collection.id)?;
    ensure!(stack.exited().is_none(), "a part has ended");
    print(&samples, bodies.len() * batch, written);
    let last = samples.last().context("no sample")?;
    ensure!(last.operations == 0, "{} records wait {lag_max:?} after the last write", last.operations);
    let oldest = samples.iter().map(|sample| sample.oldest).max().unwrap_or_default();
    ensure!(oldest <= lag_max, "a record waited for {oldest:?}");
    stack.stop();
    Ok(())
}

/// The log of a collection that is not compacted, at a time.
struct Sample {
    at: Duration,
    operations: u64,
    fragments: u64,
    /// How long the first of it has waited.
    oldest: Duration,
    /// Records in segments.
    rows: u64,
    segments: u64,
}

/// Samples until nothing waits any more after the last write (`is_over`: since when there is none), but for no longer
/// than `patience` after it.
fn samples(
    compactor: &Compactor<'_>,
    collection: &Collection,
    began: Instant,
    patience: Duration,
    is_over: impl Fn() -> Option<Duration>,
) -> Result<Vec<Sample>> {
    let (mut samples, mut over) = (Vec::new(), None);
    loop {
        over = over.or_else(&is_over);
        let sample = Sample::of(&compactor.status(&collection.id)?, began.elapsed())?;
        let is_last = over.is_some_and(|over| sample.operations == 0 || sample.at > over + patience);
        samples.push(sample);
        if is_last || sh::stopped() {
            return Ok(samples);
        }
        sleep(SAMPLE_EVERY);
    }
}

impl Sample {
    fn of(status: &Value, at: Duration) -> Result<Sample> {
        let backlog = &status["backlog"];
        let number = |value: &Value| value.as_u64().with_context(|| format!("the status tells no backlog: {status}"));
        Ok(Sample {
            at,
            operations: number(&backlog["operations"])?,
            fragments: number(&backlog["fragments"])?,
            oldest: Duration::from_millis(number(&backlog["oldest_ms"])?),
            rows: number(&status["rows"])?,
            segments: number(&status["segments"])?,
        })
    }
}

fn print(samples: &[Sample], records: usize, written: Duration) {
    println!(
        "\n{records} records in {:.1} s\n     s  compacted  segments  records wait  fragments  oldest s",
        written.as_secs_f64()
    );
    for sample in samples.iter().step_by(samples.len().div_ceil(SAMPLES_SHOWN)) {
        println!("{sample}");
    }
    let Some(worst) = samples.iter().max_by_key(|sample| sample.operations) else { return };
    let share = worst.operations as f64 / records as f64;
    println!(
        "\nmost records that waited  {} ({:.0} % of all), in {} fragments",
        worst.operations,
        share * 100.0,
        worst.fragments
    );
    let oldest = samples.iter().map(|sample| sample.oldest).max().unwrap_or_default();
    let caught_up = samples.last().map(|sample| sample.at.saturating_sub(written)).unwrap_or_default();
    println!("the longest wait          {:.1} s", oldest.as_secs_f64());
    println!("nothing waited any more   {:.1} s after the last write", caught_up.as_secs_f64());
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { at, operations, fragments, oldest, rows, segments } = self;
        let (at, oldest) = (at.as_secs_f64(), oldest.as_secs_f64());
        write!(f, "{at:>6.1}{rows:>11}{segments:>10}{operations:>14}{fragments:>11}{oldest:>10.1}")
    }
}
