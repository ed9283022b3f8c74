//! The native job beside the Workers. So far it verifies: `opal-compactor verify` reads every log in the bucket and proves
//! that each fragment is what was written and follows its predecessor. Compaction into index segments is not built yet.
//!
//! The bucket is named by the same variables as in the Workers: `S3_ENDPOINT` (plain HTTP so far), `S3_BUCKET`,
//! `S3_REGION`, `S3_ACCESS_KEY_ID`, `S3_SECRET_ACCESS_KEY`, `S3_SESSION_TOKEN`.

mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};
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
    #[expect(clippy::disallowed_methods, reason = "an entry point reads its configuration")]
    let config = S3Config::from_lookup(|name| std::env::var(name).ok())?;
    let runtime = NativeRuntime::new();
    let store = Retry::new(S3Store::new(config, runtime.clone())?, runtime);
    match arguments.command {
        Command::Verify => {
            let reports = verify::logs(&store).await?;
            print!("{}", verify::table(&reports));
            Ok(reports.iter().all(|report| report.broken.is_none()))
        }
    }
}
