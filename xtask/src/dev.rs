//! `cargo xtask dev`: one command runs Opal.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};
use stack::{Compaction, Config, Part, Runtime, Stack};

use crate::dev_vars::DevVars;
use crate::place::Place;
use crate::{build, sh, test, tools};

/// How often we look whether a part has ended or a signal has come.
const POLL: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Port of the API; 8000 is what Chroma's clients expect
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Where the data lies [default: .opal in the repository, of Miniflare .opal/miniflare]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// Keep the data in a temporary directory and remove it at the end
    #[arg(long)]
    ephemeral: bool,
    /// Allow clients to delete everything (`client.reset()`)
    #[arg(long)]
    allow_reset: bool,
    /// What runs the Workers: workerd, with devstore for a bucket, or Miniflare, with an emulated R2 binding
    #[arg(long, value_enum, default_value_t = RuntimeName::Workerd)]
    runtime: RuntimeName,
    /// Pause between two rounds of the compactor, as in 0.2s, 30s, 5m
    #[arg(long, default_value = "30s", value_parser = duration)]
    compact_interval: Duration,
    /// Compact again and again, without a pause and whether or not somebody says that it is due
    #[arg(long, conflicts_with = "compact_interval")]
    always_compact: bool,
    /// Number of query executors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    executors: u16,
    /// Also write the `.dev.vars` by which `wrangler dev` uses this catalog; its bucket is an R2 of its own, so take a fresh
    /// data directory
    #[arg(long, conflicts_with = "runtime")]
    dev_vars: bool,
}

impl Arguments {
    fn compaction(&self) -> Compaction {
        let interval = if self.always_compact { Duration::ZERO } else { self.compact_interval };
        // Who wants it that often does not want to wait for a marker.
        Compaction { interval, is_eager: interval < Duration::from_secs(1) }
    }
}

/// A number of seconds or minutes, as in `0.2s`, `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _) => (number, 1.0),
        (_, Some(number)) => (number, 60.0),
        _ => return Err("not a duration such as 0.2s, 30s, 5m".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "not a number of seconds or minutes".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RuntimeName {
    Workerd,
    Miniflare,
}

/// Runs until a signal comes or a part ends.
pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    refuse_busy_port(arguments.port)?;
    let mut config = Config::new(test::programs(place, &build::DEPLOYED)?, data(place, arguments)?);
    if arguments.runtime == RuntimeName::Miniflare {
        config.runtime = Runtime::Miniflare;
        config.programs.miniflare = tools::miniflare(place)?;
    }
    config.port = arguments.port;
    config.executors = arguments.executors;
    config.allow_reset = arguments.allow_reset;
    config.compaction = Some(arguments.compaction());

    eprintln!("== starting {}", config.runtime);
    let data = config.data.clone();
    let outcome = Stack::start(config).and_then(|stack| serve(place, stack, arguments));
    if arguments.ephemeral {
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    outcome
}

/// Before a long build, not after it.
fn refuse_busy_port(port: u16) -> Result<()> {
    if port != 0 && !stack::is_free(port) {
        bail!("port {port} is in use by another program: stop that program or choose another port with --port");
    }
    Ok(())
}

fn data(place: &Place, arguments: &Arguments) -> Result<PathBuf> {
    if arguments.ephemeral {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        return Ok(env::temp_dir().join(format!("opal-{}-{}", std::process::id(), now.as_nanos())));
    }
    match &arguments.data {
        Some(dir) => std::path::absolute(dir).context("cannot find the data directory"),
        None if arguments.runtime == RuntimeName::Miniflare => Ok(place.root.join(".opal/miniflare")),
        None => Ok(place.root.join(".opal")),
    }
}

fn serve(place: &Place, mut stack: Stack, arguments: &Arguments) -> Result<()> {
    let write = || DevVars::write(place, &stack, arguments.allow_reset);
    let _dev_vars = arguments.dev_vars.then(write).transpose()?;
    println!("{}", greeting(&stack, arguments.ephemeral));
    while !sh::stopped() {
        if let Some(exited) = stack.exited() {
            bail!("{} ended ({}); its log ends:\n{}", exited.part.name(), exited.status, exited.log_tail);
        }
        thread::sleep(POLL);
    }
    eprintln!("== stopping");
    stack.stop();
    Ok(())
}

fn store(stack: &Stack) -> String {
    match stack.runtime() {
        Runtime::Workerd => format!("{} (bucket {})", stack.store_url(), stack::BUCKET),
        Runtime::Miniflare => format!("R2 binding (bucket {})", stack::BUCKET),
    }
}

fn greeting(stack: &Stack, ephemeral: bool) -> String {
    let port = match stack.gateway_port() {
        8000 => String::new(),
        port => format!("port={port}"),
    };
    let pids: Vec<String> =
        Part::ALL.into_iter().filter_map(|part| Some(format!("{} {}", part.name(), stack.pid(part)?))).collect();
    format!(
        "
Opal is running at {url}  (stop with Ctrl-C)

    import chromadb                                        # pip install chromadb-client
    client = chromadb.HttpClient({port})
    notes = client.get_or_create_collection(\"notes\")
    notes.add(ids=[\"a\", \"b\"], embeddings=[[1, 0], [0, 1]], documents=[\"a red opal\", \"a blue one\"])
    print(notes.query(query_embeddings=[[1, 0.1]], n_results=1, where_document={{\"$contains\": \"opal\"}}))

data   {data}{fate}
store  {store}   catalog  {catalog}
parts  {pids}",
        url = stack.gateway_url(),
        data = stack.data().display(),
        fate = if ephemeral { " (removed at the end)" } else { "" },
        store = store(stack),
        catalog = stack.catalog_url(),
        pids = pids.join(", "),
    )
}
