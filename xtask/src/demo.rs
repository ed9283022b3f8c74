//! `cargo xtask demo`: real texts go in through Chroma's own client, and answers come out that a person can judge.
//! What it loads and asks is in `bench/demo`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::place::Place;
use crate::{sh, test, tools};

/// Where a server is looked for if none is named; `cargo xtask dev` listens there.
const USUAL_PORT: u16 = 8000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Server to use [default: the one on port 8000, else a stack of its own that is removed at the end]
    #[arg(long)]
    url: Option<String>,
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md) [default: texts that this machine has]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Load at most so many records
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..))]
    records: u32,
    /// Records a request
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Leave the collection on the server; the next run asks it again without loading it
    #[arg(long)]
    keep: bool,
}

/// Errors: a wrong answer, a server that does not answer, or a stack that does not start.
pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let python = tools::python(place)?;
    let usual = || (!stack::is_free(USUAL_PORT)).then(|| format!("http://127.0.0.1:{USUAL_PORT}"));
    if let Some(url) = arguments.url.clone().or_else(usual) {
        return ask(place, &python, &url, arguments);
    }
    if arguments.keep {
        bail!("--keep needs a server that stays: start `cargo xtask dev` first, or name one with --url");
    }
    test::on_own_stack(place, "demo", |stack| ask(place, &python, &stack.gateway_url(), arguments))
}

fn ask(place: &Place, python: &Path, url: &str, arguments: &Arguments) -> Result<()> {
    let mut demo = Command::new(python);
    demo.arg("-u").arg(place.root.join("bench/demo/demo.py")).args(["--url", url]);
    demo.args(["--records", &arguments.records.to_string(), "--batch", &arguments.batch.to_string()]);
    if let Some(data) = &arguments.data {
        demo.arg("--data").arg(data);
    }
    if arguments.keep {
        demo.arg("--keep");
    }
    // No telemetry, no bytecode left in the repository, and no threads that spin while the stack wants the processor.
    demo.envs([("ANONYMIZED_TELEMETRY", "False"), ("PYTHONDONTWRITEBYTECODE", "1"), ("OPENBLAS_NUM_THREADS", "1")]);
    sh::step(&format!("asking {url}"), &mut demo)
}
