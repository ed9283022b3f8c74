//! Packages from PyPI, each set in a virtual environment of its own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::cache;
use crate::place::Place;
use crate::sh;

/// The virtual environment `name` with exactly these packages. Call its `bin/python`, not its scripts: they name the
/// directory in which they were made, which was renamed.
pub(super) fn obtain(place: &Place, name: &str, packages: &[String]) -> Result<PathBuf> {
    cache::obtain(place, name, |dir| {
        let venv = sh::step("python: a virtual environment", Command::new("python3").args(["-m", "venv"]).arg(dir));
        venv.context("`python3 -m venv` does not work (Debian: apt-get install -y python3-venv)")?;
        let mut pip = Command::new(dir.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]).args(packages);
        sh::step(&format!("pip: {}", packages.join(" ")), &mut pip)
    })
}
