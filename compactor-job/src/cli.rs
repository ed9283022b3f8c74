//! The arguments of the program.

use clap::{Args, Parser, Subcommand, ValueEnum};
use compactor_job::gc::{Effect, GcSettings};
use compactor_job::probe;
use compactor_job::work::Sweep;
use model::CollectionId;
use std::path::PathBuf;

/// What the exit code says; shown by `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  everything that was to be done is done
  1  something stored is not what was written, or some collections failed (the others are done)
  2  nothing could be done: usage, configuration, or the bucket or the catalog refuses or does not answer
  3  interrupted by SIGINT or SIGTERM: what was begun is undone or left for the next pass

Configuration by environment, as of the gateway: S3_BUCKET, S3_REGION, S3_ENDPOINT (without it AWS), S3_ACCESS_KEY_ID,
S3_SECRET_ACCESS_KEY, S3_SESSION_TOKEN (without keys: the role or profile that AWS's own tools would take), CATALOG_URL,
CATALOG_TOKEN.";

#[derive(Debug, Parser)]
#[command(name = "opal-compactor", about = "The native job beside Opal's Workers", after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compact what waits for it, once: for a program that a schedule starts
    Run(Run),
    /// Compact what waits for it, again and again, until SIGINT or SIGTERM
    Watch(Watch),
    /// Compact one collection
    Compact(Compact),
    /// Delete what no reader can need any more
    Gc(Gc),
    /// Prove that log, packs, segments and manifests hold the same records; exit code 1 if any of them is not what was written
    Verify(Verify),
    /// Tell of each collection what is stored and what waits for compaction
    Status(Status),
    /// Let creators race for keys of the bucket; exit code 1 if ever two win, or too few races are decided
    ProbeStore(probe::Arguments),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Collections to probe besides the marked ones
    #[arg(long, value_enum, default_value_t = SweepArgument::Share)]
    sweep: SweepArgument,
    /// How often the schedule starts this: decides the share of the collections whose turn it is
    #[arg(long, default_value = "5m", value_parser = duration_ms)]
    every: u64,
    #[command(flatten)]
    pub(crate) memory: Memory,
}

impl Run {
    pub(crate) fn sweep(&self) -> Sweep {
        match self.sweep {
            SweepArgument::None => Sweep::None,
            SweepArgument::Share => Sweep::Share { every_ms: self.every },
            SweepArgument::Active => Sweep::Active,
            SweepArgument::All => Sweep::All,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SweepArgument {
    /// None
    None,
    /// A share: each active one once an hour, each other once a day
    Share,
    /// Those that were created or published within a day
    Active,
    /// All
    All,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Pause between two rounds
    #[arg(long, default_value = "30s", value_parser = duration_ms)]
    pub(crate) interval: u64,
    /// Look at all collections in every round, whether or not they are marked: for development
    #[arg(long)]
    eager: bool,
    #[command(flatten)]
    pub(crate) memory: Memory,
}

impl Watch {
    /// Besides what is due anyway.
    pub(crate) fn sweep(&self) -> Sweep {
        if self.eager { Sweep::All } else { Sweep::None }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// Its id
    #[arg(value_parser = collection)]
    pub(crate) collection: CollectionId,
    /// Merge all its segments into one: cold queries of it read the least, all its rows are written once more
    #[arg(long)]
    pub(crate) full: bool,
    #[command(flatten)]
    pub(crate) memory: Memory,
}

#[derive(Debug, Args)]
pub(crate) struct Memory {
    /// What may be held in memory, about
    #[arg(long, default_value = "512MiB", value_parser = bytes)]
    pub(crate) memory: u64,
    /// A directory for what does not fit in there [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl Memory {
    pub(crate) fn scratch(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Tell what would be deleted and change nothing
    #[arg(long)]
    dry_run: bool,
    /// For so long old generations are kept, with the log behind them; 0 is sound
    #[arg(long, default_value = "24h", value_parser = duration_ms)]
    grace: u64,
    /// How long something must have been out of reach before it is deleted: less than an hour is not safe beside gateways
    /// that serve users
    #[arg(long, default_value = "1h", value_parser = delay_ms, hide_short_help = true)]
    delay: u64,
}

impl Gc {
    pub(crate) fn settings(&self) -> GcSettings {
        let effect = if self.dry_run { Effect::DryRun } else { Effect::Delete };
        GcSettings { grace_ms: self.grace, delay_ms: self.delay, effect }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The id of one collection, instead of all
    #[arg(value_parser = collection)]
    pub(crate) collection: Option<CollectionId>,
    #[command(flatten)]
    pub(crate) memory: Memory,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// An array of JSON objects instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

fn collection(text: &str) -> Result<CollectionId, String> {
    CollectionId::parse(text).ok_or_else(|| "not the id of a collection".to_owned())
}

/// `90s`, `24h`, `0`: in milliseconds.
fn duration_ms(text: &str) -> Result<u64, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    measured(text, &units).ok_or_else(|| "not a duration such as 500ms, 30s, 5m, 24h, 7d".to_owned())
}

fn delay_ms(text: &str) -> Result<u64, String> {
    match duration_ms(text)? {
        0 => Err("without a delay what is being read would be deleted".to_owned()),
        ms => Ok(ms),
    }
}

/// `512MiB`: in bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    measured(text, &units).ok_or_else(|| "not a size such as 512MiB, 2GiB".to_owned())
}

/// A whole number and one of `units`; zero needs none.
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_and_sizes_have_units() {
        for (text, expect) in [("0", Some(0)), ("500ms", Some(500)), ("30s", Some(30_000)), ("24h", Some(86_400_000))] {
            assert_eq!(duration_ms(text).ok(), expect, "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5h", "30 s", "99999999999999999d"] {
            assert_eq!(duration_ms(text).ok(), None, "{text}");
        }
        assert_eq!((bytes("512MiB"), bytes("1B")), (Ok(512 << 20), Ok(1)));
        assert!(bytes("512MB").is_err() && delay_ms("0").is_err() && delay_ms("1ms") == Ok(1));
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap().command;
        let Command::Gc(gc) = parse("opal-compactor gc") else { panic!("another command") };
        assert_eq!(gc.settings(), GcSettings::default());
        let Command::Gc(gc) = parse("opal-compactor gc --dry-run --grace 0") else { panic!("another command") };
        let expect = GcSettings { grace_ms: 0, effect: Effect::DryRun, ..GcSettings::default() };
        assert_eq!(gc.settings(), expect);
        let Command::Run(run) = parse("opal-compactor run") else { panic!("another command") };
        assert_eq!(run.sweep(), Sweep::Share { every_ms: 300_000 });
    }
}
