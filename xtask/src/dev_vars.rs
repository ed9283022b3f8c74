//! `wrangler dev` beside a running stack: it reads a Worker's local settings from `.dev.vars` beside its `wrangler.toml`.
//! The catalog is the stack's, the bucket an emulated R2 of wrangler's own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use stack::Stack;

use crate::place::Place;

/// The first line of what we wrote, by which we know that we may replace it.
const MARK: &str = "# Written by `cargo xtask dev --dev-vars`, removed when it ends.";

/// The file, as long as the stack that it points to runs.
pub(crate) struct DevVars {
    file: PathBuf,
}

impl DevVars {
    /// Points the gateway of `wrangler dev` at this stack's catalog. Errors: somebody's own file is in the way.
    pub(crate) fn write(place: &Place, stack: &Stack, allow_reset: bool) -> Result<Self> {
        let file = place.root.join(".dev.vars");
        if fs::read_to_string(&file).is_ok_and(|old| !old.starts_with(MARK)) {
            bail!("{} is your own: move it away to use --dev-vars", file.display());
        }
        let text = format!("{MARK}\nCATALOG_URL={}\nALLOW_RESET={allow_reset}\n", stack.catalog_url());
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { file })
    }
}

impl Drop for DevVars {
    fn drop(&mut self) {
        // Left behind, it is replaced by the next run.
        let _ = fs::remove_file(&self.file);
    }
}
