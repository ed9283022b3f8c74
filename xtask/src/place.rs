//! Where things lie: the repository, cargo's target directory, the cache of tools.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::sh;

/// The directories that every command works with.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// Tools by name and version, outside the clone: `$OPAL_CACHE`, `$XDG_CACHE_HOME/opal` or `~/.cache/opal`.
    pub(crate) cache: PathBuf,
}

impl Place {
    /// Finds the directories from cargo and the environment.
    pub(crate) fn find() -> Result<Self> {
        // Cargo sets the variable when it runs us; the compiled-in path serves a binary that is run by itself.
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.parent().context("xtask lies in the repository")?.to_owned();
        Ok(Self { target: target(&root)?, cache: cache()?, root })
    }

    /// The built Workers; `wrangler.toml` names this directory too.
    pub(crate) fn workers(&self) -> PathBuf {
        self.root.join("build")
    }

    /// The built compactor.
    pub(crate) fn compactor(&self) -> PathBuf {
        self.target.join("debug/opal-compactor")
    }

    /// The built devstore.
    pub(crate) fn devstore(&self) -> PathBuf {
        self.target.join("debug/devstore")
    }
}

/// The cargo that runs us, or the one in the path. It is not told of which package we are: there are build scripts that would
/// think that something of theirs has changed.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let is_ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_ours)) {
        cargo.env_remove(name);
    }
    cargo
}

fn target(root: &Path) -> Result<PathBuf> {
    let metadata = sh::output(cargo().args(["metadata", "--no-deps", "--format-version=1"]).current_dir(root))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo metadata names no target directory")
}

fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("OPAL_CACHE") {
        return Ok(dir.into());
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()) {
        return Ok(Path::new(&dir).join("opal"));
    }
    let home = env::var_os("HOME").context("set OPAL_CACHE or HOME: tools need a directory to lie in")?;
    Ok(Path::new(&home).join(".cache/opal"))
}
