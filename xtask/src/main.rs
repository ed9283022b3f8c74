//! The project's own commands. `cargo xtask --help` lists them.
//!
//! Reading order: `place` (where things lie), `sh` (running programs), `tools` (obtaining what a bare machine lacks), `build`
//! (crates to Workers), then a module per command. None of it ends up in a Worker.
#![expect(
    clippy::disallowed_methods,
    reason = "a developer's tool runs on a real machine: its clock and its environment are the machine's"
)]

mod bench;
mod build;
mod ci;
mod demo;
mod dev;
mod dev_vars;
mod differential;
mod place;
mod probe;
mod sh;
mod sim;
mod size;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use place::Place;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Opal's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run Opal on this machine: obtains what is missing, builds, starts, prints the address
    Dev(dev::Arguments),
    /// Load thousands of real texts through the official Python client and ask questions about them
    Demo(demo::Arguments),
    /// Compare our answers with those of Chroma's own server, request by request
    Differential(differential::Arguments),
    /// Measure, beside the original server in the same run
    Bench(bench::Arguments),
    /// Run every test, from unit tests to the end-to-end tests with the real clients
    Test(test::Arguments),
    /// Check everything that needs no running stack: fmt, clippy, docs, deny, typos, tidy, sizes
    Ci,
    /// Try whether a store may hold logs: creators race for its keys, and each time one must win
    ProbeStore(probe::Arguments),
    /// Simulate gateways and executors among failures, each world decided by a seed
    Sim(sim::Arguments),
    /// Check the rules of this code base that no compiler knows
    Tidy,
    /// Build the Workers into `build/`
    Build(build::Arguments),
    /// Print the gzip sizes of the built Workers and fail if one is above its limit
    Size,
    /// Obtain the tools that building, running and testing need
    Tools(tools::Arguments),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse();
    sh::stop_on_signals()?;
    let place = Place::find()?;
    match arguments.command {
        Command::Dev(arguments) => dev::run(&place, &arguments),
        Command::Demo(arguments) => demo::run(&place, &arguments),
        Command::Differential(arguments) => differential::run(&place, &arguments),
        Command::Bench(arguments) => bench::run(&place, &arguments),
        Command::Test(arguments) => test::run(&place, &arguments),
        Command::Ci => ci::run(&place),
        Command::ProbeStore(arguments) => probe::run(&place, &arguments),
        Command::Sim(arguments) => sim::run(&place, &arguments),
        Command::Tidy => tidy::run(&place),
        Command::Build(arguments) => build::run(&place, &arguments),
        Command::Size => size::run(&place),
        Command::Tools(arguments) => tools::run(&place, &arguments),
    }
}
