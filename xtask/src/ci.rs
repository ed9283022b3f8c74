//! `cargo xtask ci`: what needs no running stack. All checks run, the failed ones are named at the end.

use std::process::Command;

use anyhow::{Result, bail};

use crate::build::{self, ALL, DEPLOYED};
use crate::place::{self, Place};
use crate::{sh, sim, size, tidy, tools};

type Check = fn(&Place) -> Result<()>;

/// Runs every check. Errors: the names of those that failed.
pub(crate) fn run(place: &Place) -> Result<()> {
    // The quick ones first.
    let checks: [(&str, Check); 10] = [
        ("fmt", fmt),
        ("tidy", tidy::run),
        ("typos", typos),
        ("terraform fmt", terraform_fmt),
        ("deny", deny),
        ("clippy", clippy),
        ("clippy for wasm32", clippy_wasm32),
        ("docs", docs),
        ("simulation of fresh worlds", sim::fresh),
        ("size", built_size),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        eprintln!("== {name}");
        if let Err(error) = check(place) {
            if sh::stopped() {
                return Err(error);
            }
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    eprintln!("== all checks passed");
    Ok(())
}

fn fmt(place: &Place) -> Result<()> {
    sh::run(cargo(place).args(["fmt", "--all", "--check"]))
}

fn typos(place: &Place) -> Result<()> {
    sh::run(Command::new(tools::typos(place)?).current_dir(&place.root))
}

fn terraform_fmt(place: &Place) -> Result<()> {
    let files = ["ls-files", "--cached", "--others", "--exclude-standard", "*.tf"];
    if sh::output(Command::new("git").args(files).current_dir(&place.root))?.is_empty() {
        return Ok(());
    }
    sh::run(Command::new("terraform").args(["fmt", "-check", "-recursive", "infra"]).current_dir(&place.root))
}

/// Advisories are not among these: their database must be downloaded from a place that not every machine reaches.
fn deny(place: &Place) -> Result<()> {
    // It looks at what is for other machines, too, which no build here has fetched.
    sh::run(cargo(place).args(["fetch", "--locked"]))?;
    let mut deny = Command::new(tools::cargo_deny(place)?);
    sh::run(deny.args(["--offline", "check", "bans", "licenses", "sources"]).current_dir(&place.root))
}

fn clippy(place: &Place) -> Result<()> {
    sh::run(cargo(place).args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
}

/// The compiler for wasm32 may be newer than the native one and know more lints: its warnings are shown, not refused.
fn clippy_wasm32(place: &Place) -> Result<()> {
    let toolchain = tools::wasm::toolchain(place)?;
    toolchain.obtain_clippy()?;
    let mut clippy = toolchain.cargo();
    clippy.arg("clippy").current_dir(&place.root).env("CARGO_TARGET_DIR", place.target.join("wasm-clippy"));
    toolchain.target(&mut clippy);
    for worker in ALL {
        clippy.args(["--package", &worker.package()]);
    }
    sh::run(&mut clippy)
}

fn docs(place: &Place) -> Result<()> {
    sh::run(cargo(place).args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings"))
}

fn built_size(place: &Place) -> Result<()> {
    build::workers(place, &tools::wasm::toolchain(place)?, &DEPLOYED)?;
    size::run(place)
}

fn cargo(place: &Place) -> Command {
    let mut cargo = place::cargo();
    cargo.current_dir(&place.root);
    cargo
}
