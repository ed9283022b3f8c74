//! `cargo xtask tidy`: the rules of this code base that no compiler checks. Each finding names file, line and reason.

mod edges;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::sh;

/// A rule that a line breaks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path from the root of the repository.
    file: String,
    /// From 1.
    line: usize,
    /// What is wrong, and why it matters.
    reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}

/// Checks every file that git knows or would know. Errors: the number of findings, which are printed.
pub(crate) fn run(place: &Place) -> Result<()> {
    let mut findings = Vec::new();
    for file in files(&place.root)? {
        let path = place.root.join(&file);
        if path.is_symlink() || !path.exists() {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {file}"))?;
        findings.extend(check_file(&file, &bytes)?);
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    println!("tidy: nothing to report");
    Ok(())
}

/// All rules on one file. Errors: a `Cargo.toml` that does not parse.
fn check_file(file: &str, bytes: &[u8]) -> Result<Vec<Finding>> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(text::binary(file).into_iter().collect());
    };
    let mut findings = text::check(file, text);
    if Path::new(file).file_name().is_some_and(|name| name == "Cargo.toml") && file != "Cargo.toml" {
        findings.extend(edges::check(file, text)?);
    }
    Ok(findings)
}

/// Tracked files and those that a commit could add, so that a rule speaks before the commit.
fn files(root: &Path) -> Result<Vec<String>> {
    let listing = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listing =
        sh::output(Command::new("git").args(listing).current_dir(root)).context("tidy asks git for the files")?;
    Ok(listing.lines().map(str::to_owned).collect())
}
