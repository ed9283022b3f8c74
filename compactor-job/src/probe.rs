//! Whether a store may hold a log, tried before anything is deployed on it.

use anyhow::Result;
use clap::Args;
use runtime::{NativeRuntime, Runtime};
use std::fmt::Write;
use storage::{ObjectStore, RaceReport};

/// How to try, and what to take instead of the variables.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many races to hold: eight creators each, over one key
    #[arg(long, default_value_t = 1_000)]
    races: u64,
    /// Races that are held at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    at_once: u8,
    /// The store, instead of `S3_ENDPOINT`
    #[arg(long)]
    endpoint: Option<String>,
    /// The bucket, instead of `S3_BUCKET`
    #[arg(long)]
    bucket: Option<String>,
    /// The region, instead of `S3_REGION`
    #[arg(long)]
    region: Option<String>,
}

impl Arguments {
    /// The setting `name` as given here, if it is.
    pub fn setting(&self, name: &str) -> Option<String> {
        match name {
            "S3_ENDPOINT" => self.endpoint.clone(),
            "S3_BUCKET" => self.bucket.clone(),
            "S3_REGION" => self.region.clone(),
            _ => None,
        }
    }
}

/// Tries the conditions one after the other, then in races, on keys under `probe/`.
///
/// Errors: the store breaks a promise, or cannot be tried. Cost: some twenty requests a race.
pub async fn run(store: &impl ObjectStore, runtime: &NativeRuntime, arguments: &Arguments) -> Result<RaceReport> {
    let prefix = format!("probe/{:032x}", runtime.random());
    storage::probe(store, &prefix).await?;
    Ok(storage::races(store, &format!("{prefix}/"), arguments.races, arguments.at_once.into()).await?)
}

/// What the races showed, for people.
pub fn text(report: &RaceReport) -> String {
    let RaceReport { won, undecided, busy, ambiguous, broken, descriptions } = report;
    let mut text = format!(
        "races {}: one winner in {won}, undecided {undecided}, broken {broken}\n\
         puts: the store was busy for {busy}, of unknown outcome {ambiguous}\n",
        won + undecided + broken
    );
    for description in descriptions {
        writeln!(text, "broken: {description}").expect("writing to a String cannot fail");
    }
    text
}

/// Whether the races prove something: most of them were decided, and none was broken.
pub fn has_passed(report: &RaceReport) -> bool {
    report.broken == 0 && report.undecided <= report.won / 9
}
