//! Crates to Workers: cargo compiles for wasm32, wasm-bindgen makes the JavaScript, our shim becomes the entry point.
//!
//! `build/{gateway,executor,contract}/` then holds `worker.mjs` (the entry point), `index.js`, `index_bg.wasm` and `snippets/`:
//! plain ES modules, which workerd loads as they are and wrangler bundles by itself.

mod package;

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::place::Place;
use crate::sh;
use crate::tools::wasm::{self, Toolchain};

/// A Worker that we build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Worker {
    /// The public API.
    Gateway,
    /// Runs query plans.
    Executor,
    /// Runs the port contracts inside workerd, for tests.
    Contract,
}

/// What every deployment has.
pub(crate) const DEPLOYED: [Worker; 2] = [Worker::Gateway, Worker::Executor];
/// Everything, as tests need it.
pub(crate) const ALL: [Worker; 3] = [Worker::Gateway, Worker::Executor, Worker::Contract];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which Workers; all if none is named
    workers: Vec<Worker>,
}

impl Worker {
    /// Name of its directory in `build/`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Worker::Gateway => "gateway",
            Worker::Executor => "executor",
            Worker::Contract => "contract",
        }
    }

    /// Name of its crate.
    pub(crate) fn package(self) -> String {
        format!("{}-worker", self.name())
    }

    /// Its compiled module, as wasm-bindgen leaves it.
    pub(crate) fn wasm(self, place: &Place) -> PathBuf {
        place.workers().join(self.name()).join("index_bg.wasm")
    }
}

pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let toolchain = wasm::toolchain(place)?;
    workers(place, &toolchain, if arguments.workers.is_empty() { &ALL } else { &arguments.workers })
}

/// Builds these Workers, as far as their sources changed.
pub(crate) fn workers(place: &Place, toolchain: &Toolchain, workers: &[Worker]) -> Result<()> {
    // Cargo unifies the features of what it builds at once: so the same crates together each time, and the contract Worker's
    // `test-util` apart.
    for group in [DEPLOYED.as_slice(), &[Worker::Contract]] {
        if group.iter().any(|worker| workers.contains(worker)) {
            compile(place, toolchain, group)?;
        }
    }
    fs::create_dir_all(place.workers()).with_context(|| format!("cannot create {}", place.workers().display()))?;
    let lock = File::create(place.workers().join(".lock")).context("cannot write into build/")?;
    lock.lock().context("cannot lock build/")?;
    for worker in workers {
        let compiled =
            wasm_target(place).join(wasm::TARGET).join("release").join(format!("{}_worker.wasm", worker.name()));
        let dir = place.workers().join(worker.name());
        if package::package(&compiled, &dir)? {
            eprintln!("== packaged {}", dir.display());
        }
    }
    Ok(())
}

fn compile(place: &Place, toolchain: &Toolchain, workers: &[Worker]) -> Result<()> {
    let names = workers.iter().map(|worker| worker.package()).collect::<Vec<_>>();
    let mut cargo = toolchain.cargo();
    cargo.args(["build", "--release"]).current_dir(&place.root).env("CARGO_TARGET_DIR", wasm_target(place));
    toolchain.target(&mut cargo);
    for name in &names {
        cargo.args(["--package", name]);
    }
    sh::step(&format!("compiling {} for wasm32", names.join(", ")), &mut cargo)
}

/// A directory of its own: another compiler may be at work here, and native builds need not wait.
fn wasm_target(place: &Place) -> PathBuf {
    place.target.join("wasm")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The local stack and a deployment must run the Workers alike, and a deployment must find what we build.
    #[test]
    fn wrangler_configurations_agree_with_the_stack() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for (worker, file) in [(Worker::Gateway, "wrangler.toml"), (Worker::Executor, "executor-worker/wrangler.toml")]
        {
            let config: toml::Table = fs::read_to_string(root.join(file)).unwrap().parse().unwrap();
            assert_eq!(config["compatibility_date"].as_str(), Some(stack::COMPATIBILITY_DATE), "{file}");
            let main = config["main"].as_str().unwrap().trim_start_matches("../");
            assert_eq!(main, format!("build/{}/worker.mjs", worker.name()), "{file}");
            let bucket = &config["r2_buckets"][0];
            assert_eq!(bucket["binding"].as_str(), Some("BUCKET"), "{file}");
            assert_eq!(bucket["bucket_name"].as_str(), Some(stack::BUCKET), "{file}");
        }
    }
}
