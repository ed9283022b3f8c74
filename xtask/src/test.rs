//! `cargo xtask test`: obtains and builds what tests run, tells them where it is, and lets cargo test everything.

use anyhow::Result;
use stack::{Clients, Programs};

use crate::place::{self, Place};
use crate::{build, sh, tools};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to `cargo test --workspace`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo: Vec<String>,
}

pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let programs = programs(place, &build::ALL)?;
    let clients = Clients { python: tools::python(place)?, node_modules: tools::chroma_js(place)? };
    let mut test = place::cargo();
    test.args(["test", "--workspace"]).args(&arguments.cargo).current_dir(&place.root);
    test.envs(programs.to_env()).envs(clients.to_env());
    sh::step("cargo test --workspace", &mut test)
}

/// Obtains and builds what a stack runs.
pub(crate) fn programs(place: &Place, workers: &[build::Worker]) -> Result<Programs> {
    let (workerd, sqld) = (tools::workerd(place)?, tools::sqld(place)?);
    let toolchain = tools::wasm::toolchain(place)?;
    build::workers(place, &toolchain, workers)?;
    let mut devstore = place::cargo();
    devstore.args(["build", "--quiet", "--package", "devstore", "--bin", "devstore"]).current_dir(&place.root);
    sh::step("compiling devstore", &mut devstore)?;
    Ok(Programs { workerd, sqld, devstore: place.devstore(), workers: place.workers() })
}
