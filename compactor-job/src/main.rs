//! The program `opal-compactor`: arguments, the bucket, the catalog, signals, the exit code. What it does is in the library.
//!
//! The bucket and the catalog are named by the same variables as in the Workers: `S3_ENDPOINT`, `S3_BUCKET`, `S3_REGION`,
//! `S3_ACCESS_KEY_ID`, `S3_SECRET_ACCESS_KEY`, `S3_SESSION_TOKEN`; `CATALOG_URL`, `CATALOG_TOKEN`. Without keys the machine's,
//! the container's or the profile's credentials are taken; without an endpoint, AWS's own.

mod cli;
mod teller;

use anyhow::{Context, Result};
use catalog::{HranaConfig, SqlCatalog};
use clap::Parser;
use cli::{Arguments, Command, Compact, Run, Watch};
use compactor_job::bucket::{AwsStore, BucketConfig};
use compactor_job::compact::{Compactor, Stats};
use compactor_job::database::{self, LibsqlDatabase};
use compactor_job::gc::{Gc, GcError};
use compactor_job::indexing::Indexing;
use compactor_job::journal::{Entry, Journal, Stop};
use compactor_job::spill::Scratch;
use compactor_job::work::{Tally, Work, WorkError};
use compactor_job::{probe, status, tiers, verify};
use futures_util::future::{Either, select};
use runtime::{NativeRuntime, Runtime, within};
use std::cell::Cell;
use std::num::NonZero;
use std::pin::pin;
use std::process::ExitCode;
use storage::Retry;
use teller::Teller;
use tokio::signal::unix::{SignalKind, signal};

/// After a signal, what is under way may take so long to end well, in ms: whoever sends one kills 30 s later.
const SHUTDOWN_MS: u64 = 20_000;
/// Longest time for putting the marker back and giving up the lease after that, in ms.
const ABANDON_MS: u64 = 5_000;

/// How the program ended, if it could do anything at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    /// Something stored is wrong, or some collections failed.
    Wrong,
    Interrupted,
}

impl From<End> for ExitCode {
    fn from(end: End) -> ExitCode {
        match end {
            End::Done => ExitCode::SUCCESS,
            End::Wrong => ExitCode::from(1),
            End::Interrupted => ExitCode::from(3),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let runtime = NativeRuntime::new();
    let teller = Teller::new(&runtime);
    let outcome = run(&Arguments::parse(), &runtime, &teller).await;
    teller.end();
    match outcome {
        Ok(end) => end.into(),
        Err(error) => {
            teller.record(Entry::error("nothing could be done").because(format!("{error:#}")));
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments, runtime: &NativeRuntime, teller: &Teller) -> Result<End> {
    let store = AwsStore::new(bucket(&arguments.command)?, runtime.clone()).await;
    let store = Retry::new(store, runtime.clone());
    let stop = Stop::default();
    let ended = match &arguments.command {
        Command::Verify(arguments) => {
            let catalog = system_database(runtime).await?;
            let looked = verify::collections(&store, &catalog, arguments.collection, arguments.memory.memory);
            let reports = until_signal(runtime, &stop, 0, looked).await;
            let Some(reports) = reports.transpose()? else { return Ok(End::Interrupted) };
            print!("{}", verify::table(&reports));
            Some(reports.iter().all(|report| report.broken.is_empty()))
        }
        Command::ProbeStore(arguments) => {
            let report = until_signal(runtime, &stop, 0, probe::run(&store, runtime, arguments)).await;
            let Some(report) = report.transpose()? else { return Ok(End::Interrupted) };
            print!("{}", probe::text(&report));
            Some(probe::has_passed(&report))
        }
        Command::Status(arguments) => {
            let catalog = system_database(runtime).await?;
            let statuses = until_signal(runtime, &stop, 0, status::collections(&store, &catalog, runtime)).await;
            let Some(statuses) = statuses.transpose()? else { return Ok(End::Interrupted) };
            match arguments.json {
                true => println!("{}", serde_json::to_string(&statuses)?),
                false => print!("{}", status::table(&statuses)),
            }
            Some(statuses.iter().all(|status| status.error.is_none()))
        }
        Command::Gc(arguments) => {
            let (catalog, settings) = (system_database(runtime).await?, arguments.settings());
            let holder = runtime.random();
            let (store, catalog, journal, stop) = (&store, &catalog, teller, &stop);
            let gc = Gc { store, catalog, runtime, journal, stop, holder, settings };
            collect(&gc, runtime).await?
        }
        Command::Run(Run { memory, .. })
        | Command::Watch(Watch { memory, .. })
        | Command::Compact(Compact { memory, .. }) => {
            let (catalog, is_stopped) = (system_database(runtime).await?, || stop.is_asked());
            let (store, catalog, journal) = (&store, &catalog, teller);
            let memory_bytes = usize::try_from(memory.memory).context("so much memory cannot be addressed")?;
            let stats = Stats::default();
            let scratch = Scratch { directory: memory.scratch(), memory_bytes: memory_bytes / 2 };
            let indexing = Indexing::on(std::thread::available_parallelism().map_or(1, NonZero::get));
            let is_full = matches!(arguments.command, Command::Compact(Compact { full: true, .. }));
            let segments_max = if is_full { 1 } else { tiers::SEGMENTS_MAX };
            let is_stopped = &is_stopped;
            let compact = &Compactor {
                store,
                catalog,
                runtime,
                memory_bytes,
                scratch,
                indexing,
                segments_max,
                is_stopped,
                stats,
            };
            let (holder, in_hand, stop) = (runtime.random(), Cell::default(), &stop);
            let work = Work { store, catalog, runtime, journal, compact, stop, holder, in_hand };
            compaction(&work, &arguments.command).await?
        }
    };
    Ok(match ended {
        Some(true) => End::Done,
        Some(false) => End::Wrong,
        None => End::Interrupted,
    })
}

type Store = Retry<AwsStore<NativeRuntime>, NativeRuntime>;
type Database = SqlCatalog<LibsqlDatabase, NativeRuntime>;
type Compaction<'a> = Compactor<'a, Store, Database, NativeRuntime>;

/// Whether all went well; `None` if it was interrupted.
async fn collect(gc: &Gc<'_, Store, Database, NativeRuntime, Teller>, runtime: &NativeRuntime) -> Result<Option<bool>> {
    let swept = match until_signal(runtime, gc.stop, SHUTDOWN_MS, gc.all()).await {
        None | Some(Err(GcError::Stopped)) => return Ok(None),
        Some(swept) => swept?,
    };
    let entry = Entry::info("pass ended").with("deleted", swept.deleted).with("failed", swept.failed);
    let entry = entry.with("waiting", swept.waiting).with("forgotten", swept.forgotten);
    gc.journal.record(entry.with("collections_failed", swept.collections_failed));
    Ok(Some(swept.failed + swept.collections_failed == 0))
}

/// Whether all went well; `None` if it was interrupted in the middle of something. A watch that is ended between two
/// compactions went well.
async fn compaction(
    work: &Work<'_, Store, Database, NativeRuntime, Teller, Compaction<'_>>,
    command: &Command,
) -> Result<Option<bool>> {
    let command = async {
        match command {
            Command::Run(arguments) => work.run(arguments.sweep()).await,
            Command::Watch(arguments) => {
                work.watch(arguments.interval, arguments.sweep()).await;
                Ok(Tally::default())
            }
            Command::Compact(arguments) => match work.one(arguments.collection).await {
                Tally { leased: 1.., .. } => Ok(Tally { failed: 1, ..Tally::default() }),
                tally => Ok(tally),
            },
            _ => Ok(Tally::default()),
        }
    };
    let tally = match until_signal(work.runtime, work.stop, SHUTDOWN_MS, command).await {
        Some(Err(WorkError::Stopped)) => return Ok(None),
        Some(tally) => tally?,
        None => {
            within(work.runtime, ABANDON_MS, work.abandon()).await;
            return Ok(None);
        }
    };
    let entry = Entry::info("pass ended").with("published", tally.published).with("idle", tally.idle);
    let entry = entry.with("leased", tally.leased).with("failed", tally.failed);
    let stats = &work.compact.stats;
    let entry = entry.with("operations", stats.operations.get()).with("rows", stats.rows.get());
    let entry = entry.with("merged_rows", stats.merged_rows.get()).with("kept_indexes", stats.kept_indexes.get());
    work.journal.record(entry.with("bytes", stats.bytes_written.get()));
    Ok(Some(tally.failed == 0))
}

/// `work`, which is asked to stop at SIGINT or SIGTERM, and given up `grace_ms` later: then `None`.
async fn until_signal<T>(
    runtime: &NativeRuntime,
    stop: &Stop,
    grace_ms: u64,
    work: impl Future<Output = T>,
) -> Option<T> {
    let signalled = async {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return std::future::pending().await;
        };
        select(pin!(interrupt.recv()), pin!(terminate.recv())).await;
    };
    match select(pin!(work), pin!(signalled)).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(((), work)) => {
            stop.ask();
            within(runtime, grace_ms, work).await
        }
    }
}

/// The bucket that the environment names, or the arguments of a probe.
fn bucket(command: &Command) -> Result<BucketConfig> {
    let given = |name: &str| match command {
        Command::ProbeStore(probe) => probe.setting(name),
        _ => None,
    };
    BucketConfig::from_lookup(|name| given(name).or_else(|| setting(name)))
}

/// The catalog that the environment names.
async fn system_database(runtime: &NativeRuntime) -> Result<Database> {
    let url = setting("CATALOG_URL").context("CATALOG_URL is not set")?;
    Ok(database::catalog(HranaConfig { url, token: setting("CATALOG_TOKEN") }, runtime.clone()).await?)
}

/// A variable; an empty one is none.
#[expect(clippy::disallowed_methods, reason = "an entry point reads its configuration")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
