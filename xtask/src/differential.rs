//! `cargo xtask differential`: the same random requests to Chroma's own server and to ours, and every difference printed.
//! What it sends and how it compares is in `tests/differential`.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};
use stack::{Config, Stack};

use crate::place::Place;
use crate::{build, sh, test, tools};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One seed, or a range such as 1..20; each meets a fresh server of Chroma's
    #[arg(long, default_value = "1..3")]
    seeds: String,
    /// Requests of a seed
    #[arg(long, default_value_t = 1000)]
    ops: u32,
    /// Also send what Chroma's server cannot cope with
    #[arg(long)]
    hostile: bool,
    /// Our server [default: a stack of its own that is removed at the end]
    #[arg(long)]
    url: Option<String>,
}

/// Errors: a difference that is not known, a server that does not start or that ends.
pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let python = tools::chroma_server(place)?;
    if let Some(url) = &arguments.url {
        return compare(place, &python, url, arguments);
    }
    let data = env::temp_dir().join(format!("opal-differential-{}", std::process::id()));
    let config = Config::new(test::programs(place, &build::DEPLOYED)?, &data);
    eprintln!("== starting devstore, sqld and workerd");
    let outcome = Stack::start(config).and_then(|mut stack| {
        let outcome = compare(place, &python, &stack.gateway_url(), arguments);
        // If a part ended, that is why answers differed.
        let outcome = match stack.exited() {
            Some(exited) => {
                outcome.with_context(|| format!("{} ended; its log ends:\n{}", exited.part.name(), exited.log_tail))
            }
            None => outcome,
        };
        stack.stop();
        outcome
    });
    fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    outcome
}

fn compare(place: &Place, python: &Path, url: &str, arguments: &Arguments) -> Result<()> {
    let mut differential = Command::new(python);
    differential.arg("-u").arg(place.root.join("tests/differential/differential.py")).arg(url);
    differential.args(["--seeds", &arguments.seeds, "--ops", &arguments.ops.to_string()]);
    if arguments.hostile {
        differential.arg("--hostile");
    }
    differential.envs([("ANONYMIZED_TELEMETRY", "False"), ("PYTHONDONTWRITEBYTECODE", "1")]);
    sh::step(&format!("comparing {url} with Chroma's server"), &mut differential)
}
