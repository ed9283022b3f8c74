//! `wrangler dev` beside a running stack: it reads a Worker's local settings from `.dev.vars` beside its `wrangler.toml`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use stack::Stack;

use crate::place::Place;

/// The first line of what we wrote, by which we know that we may replace it.
const MARK: &str = "# Written by `cargo xtask dev --dev-vars`, removed when it ends.";

/// The files, as long as the stack that they point to runs.
pub(crate) struct DevVars {
    files: Vec<PathBuf>,
}

impl DevVars {
    /// Points the Workers of `wrangler dev` at this stack's store and catalog. Errors: somebody's own file is in the way.
    pub(crate) fn write(place: &Place, stack: &Stack, allow_reset: bool) -> Result<Self> {
        let text = text(stack, allow_reset);
        let mut written = Self { files: Vec::new() };
        for dir in ["", "executor-worker"] {
            let file = place.root.join(dir).join(".dev.vars");
            if fs::read_to_string(&file).is_ok_and(|old| !old.starts_with(MARK)) {
                bail!("{} is your own: move it away to use --dev-vars", file.display());
            }
            fs::write(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
            written.files.push(file);
        }
        Ok(written)
    }
}

impl Drop for DevVars {
    fn drop(&mut self) {
        for file in &self.files {
            // Left behind, it is replaced by the next run.
            let _ = fs::remove_file(file);
        }
    }
}

fn text(stack: &Stack, allow_reset: bool) -> String {
    format!(
        "{MARK}\nS3_ENDPOINT={}\nS3_BUCKET={}\nS3_REGION={}\nS3_ACCESS_KEY_ID={}\nS3_SECRET_ACCESS_KEY={}\nCATALOG_URL={}\n\
         ALLOW_RESET={allow_reset}\n",
        stack.store_url(),
        stack::BUCKET,
        stack::REGION,
        stack::ACCESS_KEY_ID,
        stack::SECRET_ACCESS_KEY,
        stack.catalog_url(),
    )
}
