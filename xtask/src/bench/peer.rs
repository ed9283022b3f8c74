//! Reads and writes of real records on both servers: rates, latencies, recall. What it asks is in `bench/peer`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use stack::{Config, Stack};

use super::original::Original;
use crate::place::Place;
use crate::{build, sh, test, tools};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md)
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Use at most so many records
    #[arg(long, default_value_t = 20_000)]
    records: u32,
}

/// Prints a figure a line, for the original, for us, and their ratio.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let stack = Stack::start(Config::new(test::programs(place, &build::DEPLOYED)?, data.join("opal")))?;
    let original = Original::start(place, &data.join("original"))?;
    let mut peer = Command::new(tools::python(place)?);
    peer.arg("-u").arg(place.root.join("bench/peer/peer.py")).args([original.url(), &stack.gateway_url()]);
    peer.arg("--data").arg(&arguments.data).args(["--records", &arguments.records.to_string()]);
    peer.envs([("PYTHONDONTWRITEBYTECODE", "1"), ("OPENBLAS_NUM_THREADS", "1")]);
    sh::step("measuring the original server, then ours", &mut peer)?;
    stack.stop();
    Ok(())
}
