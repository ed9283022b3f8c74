//! `cargo xtask test`: obtains and builds what tests run, tells them where it is, and lets cargo test everything.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result};
use stack::{Clients, Config, Programs, Stack};

use crate::place::{self, Place};
use crate::{build, sh, tools};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to `cargo test`, as in `cargo xtask test -p wal -- claim`; without any, everything is tested
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo: Vec<String>,
}

pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let mut programs = programs(place, &build::ALL)?;
    programs.miniflare = tools::miniflare(place)?;
    let clients = Clients { python: tools::python(place)?, node_modules: tools::chroma_js(place)? };
    let test = |arguments: &[String]| {
        let mut test = place::cargo();
        test.arg("test").args(arguments).current_dir(&place.root);
        test.envs(programs.to_env()).envs(clients.to_env());
        sh::step(&format!("cargo test {}", arguments.join(" ")), &mut test)
    };
    if !arguments.cargo.is_empty() {
        return test(&arguments.cargo);
    }
    // This crate is compiled in its own profile already; in the dev profile it would be compiled once more, slowly.
    test(&words("--profile xtask --package xtask"))?;
    test(&words("--workspace --exclude xtask"))
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Obtains and builds what a stack under workerd runs; Miniflare is for whoever wants it.
pub(crate) fn programs(place: &Place, workers: &[build::Worker]) -> Result<Programs> {
    built(place, workers, &[])
}

/// The same with native programs that are optimised, as deployed ones are, for measurements. What they stand on is what the
/// others stand on.
pub(crate) fn optimised_programs(place: &Place, workers: &[build::Worker]) -> Result<Programs> {
    built(place, workers, &["--config", "profile.dev.opt-level=2", "--config", "profile.dev.incremental=false"])
}

fn built(place: &Place, workers: &[build::Worker], settings: &[&str]) -> Result<Programs> {
    let (workerd, sqld) = (tools::workerd(place)?, tools::sqld(place)?);
    let toolchain = tools::wasm::toolchain(place)?;
    build::workers(place, &toolchain, workers)?;
    let mut natives = place::cargo();
    // All of the workspace, so that what they stand on is compiled with the features that tests want, and once.
    natives.args(["build", "--workspace", "--exclude", "xtask", "--bins"]).args(settings);
    sh::step("compiling devstore and the compactor", natives.current_dir(&place.root))?;
    let (devstore, compactor) = (place.devstore(), place.compactor());
    Ok(Programs { workerd, sqld, devstore, compactor, miniflare: PathBuf::new(), workers: place.workers() })
}

/// Runs `trial` against a stack of its own, which is removed at the end. `name`: of the command, for its data.
pub(crate) fn on_own_stack(place: &Place, name: &str, trial: impl FnOnce(&Stack) -> Result<()>) -> Result<()> {
    let data = env::temp_dir().join(format!("opal-{name}-{}", std::process::id()));
    let config = Config::new(programs(place, &build::DEPLOYED)?, &data);
    eprintln!("== starting devstore, sqld and workerd");
    let outcome = Stack::start(config).and_then(|mut stack| {
        let outcome = trial(&stack);
        // If a part ended, that is why the trial failed.
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
