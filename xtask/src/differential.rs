//! `cargo xtask differential`: the same random requests to Chroma's own server and to ours, and every difference printed.
//! What it sends and how it compares is in `tests/differential`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::place::Place;
use crate::{sh, test, tools};

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
    test::on_own_stack(place, "differential", |stack| compare(place, &python, &stack.gateway_url(), arguments))
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
