//! `cargo xtask probe-store`: the native job's command of this name, compiled if need be.

use anyhow::Result;

use crate::place::{self, Place};
use crate::sh;

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Passed on to `opal-compactor probe-store`, as in `--races 10000 --endpoint https://… --bucket …`; keys come from
    /// `S3_ACCESS_KEY_ID` and `S3_SECRET_ACCESS_KEY`, and what is not named from the other variables of a Worker
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    compactor: Vec<String>,
}

/// Errors: the store failed, or could not be tried.
pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let mut job = place::cargo();
    job.args(["run", "--quiet", "--package", "compactor-job", "--", "probe-store"]).args(&arguments.compactor);
    sh::run(job.current_dir(&place.root))
}
