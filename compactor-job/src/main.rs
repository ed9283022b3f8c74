//! The program `opal-compactor`: arguments, the bucket, the exit code. What it does is in the library.
//!
//! The bucket is named by the same variables as in the Workers: `S3_ENDPOINT`, `S3_BUCKET`,
//! `S3_REGION`, `S3_ACCESS_KEY_ID`, `S3_SECRET_ACCESS_KEY`, `S3_SESSION_TOKEN`.

use anyhow::Result;
use clap::{Parser, Subcommand};
use compactor_job::{probe, verify};
use runtime::NativeRuntime;
use std::process::ExitCode;
use storage::{Retry, S3Config, S3Store};

#[derive(Parser)]
#[command(name = "opal-compactor", about = "The native job beside Opal's Workers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read every log and report what is in it; exit code 1 if any of it is not what was written
    Verify,
    /// Let creators race for keys of the bucket; exit code 1 if ever two win, or too few races are decided
    ProbeStore(probe::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything is sound.
async fn run(arguments: &Arguments) -> Result<bool> {
    let given = |name: &str| match &arguments.command {
        Command::ProbeStore(probe) => probe.setting(name),
        Command::Verify => None,
    };
    #[expect(clippy::disallowed_methods, reason = "an entry point reads its configuration")]
    let config = S3Config::from_lookup(|name| given(name).or_else(|| std::env::var(name).ok()))?;
    let runtime = NativeRuntime::new();
    let store = Retry::new(S3Store::new(config, runtime.clone())?, runtime.clone());
    match &arguments.command {
        Command::Verify => {
            let reports = verify::logs(&store).await?;
            print!("{}", verify::table(&reports));
            Ok(reports.iter().all(|report| report.broken.is_none()))
        }
        Command::ProbeStore(arguments) => {
            let report = probe::run(&store, &runtime, arguments).await?;
            print!("{}", probe::text(&report));
            Ok(probe::has_passed(&report))
        }
    }
}
