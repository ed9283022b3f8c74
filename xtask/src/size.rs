//! What a cold isolate must load: the gzip size of each Worker's module, against its limit.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::build::Worker;
use crate::place::Place;

/// Bytes of gzip that a deployed Worker may have.
const LIMITS: [(Worker, usize); 2] = [(Worker::Gateway, 1_000_000), (Worker::Executor, 3_000_000)];

/// Prints a line per Worker. Errors: one is above its limit, or not built.
pub(crate) fn run(place: &Place) -> Result<()> {
    let mut above = Vec::new();
    println!("{:<10} {:>12} {:>12} {:>12}", "worker", "wasm bytes", "gzip bytes", "limit");
    for (worker, limit) in LIMITS {
        let file = worker.wasm(place);
        let wasm =
            fs::read(&file).with_context(|| format!("{} is not built: run `cargo xtask build`", file.display()))?;
        let gzip = gzip_bytes(&wasm)?;
        println!("{:<10} {:>12} {gzip:>12} {limit:>12}", worker.name(), wasm.len());
        if gzip > limit {
            above.push(worker.name());
        }
    }
    if !above.is_empty() {
        bail!("above the limit: {}", above.join(", "));
    }
    Ok(())
}

fn gzip_bytes(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}
