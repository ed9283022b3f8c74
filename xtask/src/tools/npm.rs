//! Packages from npm, each in a prefix of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::cache;
use crate::place::Place;
use crate::sh;

/// The `node_modules` directory that holds `package` at `version`.
pub(super) fn obtain(place: &Place, package: &str, version: &str) -> Result<PathBuf> {
    let name = package.rsplit('/').next().expect("rsplit yields at least one part");
    let dir = cache::obtain(place, &format!("{name}-{version}"), |dir| install(dir, &format!("{package}@{version}")))?;
    Ok(dir.join("node_modules"))
}

/// Installs into `dir` without running the scripts that packages bring.
pub(super) fn install(dir: &Path, package: &str) -> Result<()> {
    sh::step(&format!("npm: {package}"), npm(dir, package).arg("--ignore-scripts"))
}

pub(super) fn install_with_scripts(dir: &Path, package: &str) -> Result<()> {
    sh::step(&format!("npm: {package}"), &mut npm(dir, package))
}

fn npm(dir: &Path, package: &str) -> Command {
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-fund", "--no-audit", "--no-update-notifier", "--loglevel=error", "--prefix"])
        .arg(dir)
        .arg(package);
    // What npm counts is no result of ours.
    npm.stdout(std::io::stderr());
    // npm reads a package.json of the current directory too.
    npm.current_dir(dir);
    npm
}
