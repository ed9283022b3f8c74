//! The local stack: devstore (S3), sqld (libSQL) and `workerd serve` with the gateway and its executors, as real
//! processes on loopback ports. `cargo xtask dev` runs one, each end-to-end test runs its own. The other [`Runtime`] is
//! Miniflare: slower, but it has Cloudflare's bindings, so the bucket is an R2 binding and there is no devstore.
//!
//! It knows nothing about what the Workers do: programs, ports, files, signals and health only.
//!
//! Read [`Programs`] (where the binaries are), [`Config`] (what to start), [`Stack`] (what runs), [`Part`] (what can be
//! killed and restarted alone), [`StoreAdmin`] (what the store has counted, and what goes wrong in it on purpose).
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let config = stack::Config::new(stack::Programs::from_env()?, "/tmp/opal-data");
//! let mut stack = stack::Stack::start(config)?;
//! println!("{}", stack.gateway_url());
//! stack.kill(stack::Part::Workers)?;
//! stack.restart(stack::Part::Workers)?;
//! # Ok(()) }
//! ```
//!
//! Children never outlive us: `Drop` stops them, and the kernel kills them if we are killed.
#![expect(
    clippy::disallowed_methods,
    reason = "this crate waits for real processes: its clock is the machine's, its settings come from the environment"
)]

mod admin;
mod miniflare;
mod net;
mod process;
mod programs;
mod workerd;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use admin::StoreAdmin;
pub use net::is_free;
pub use process::Process;
use process::StartError;
pub use programs::{Clients, Programs, env};
pub use workerd::COMPATIBILITY_DATE;

/// Bucket that devstore serves and the Workers use.
pub const BUCKET: &str = "opal";
/// Region that requests are signed for; devstore takes any.
pub const REGION: &str = "us-east-1";
/// Access key of the local store. Not a secret: devstore listens on loopback only.
pub const ACCESS_KEY_ID: &str = "opal-local";
/// Secret key of the local store, as public as its access key.
pub const SECRET_ACCESS_KEY: &str = "opal-local-secret";

/// How long a part may take until it is healthy; a cold machine compiles the Wasm modules in this time.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);
/// How long a part may take to end after SIGTERM before it gets SIGKILL.
const STOPPED_WITHIN: Duration = Duration::from_secs(3);
/// A port that we found free may be taken before the program binds it: so often we choose another.
const PORT_ATTEMPTS: usize = 5;

/// What runs the Workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// `workerd serve`, with devstore for a bucket.
    #[default]
    Workerd,
    /// Miniflare, with an R2 binding for a bucket: its objects lie in the data directory too.
    Miniflare,
}

/// The programs that make up a stack.
impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Runtime::Workerd => "devstore, sqld and workerd",
            Runtime::Miniflare => "sqld and Miniflare",
        })
    }
}

/// How a stack compacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Pause between two rounds.
    pub interval: Duration,
    /// Every round looks at all collections, whether or not they are marked: for tests, which do not wait for markers.
    pub is_eager: bool,
}

/// What to start, and where its data lies.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the programs are.
    pub programs: Programs,
    /// What runs the Workers.
    pub runtime: Runtime,
    /// Data directory, created if missing: `store/` (devstore) or `r2/` (Miniflare), `catalog/` (sqld), the runtime's
    /// configuration. One stack at a time, always with the same runtime.
    pub data: PathBuf,
    /// Directory of `devstore.log`, `sqld.log`, `workerd.log`; restarts append.
    pub logs: PathBuf,
    /// Port of the gateway; 0 takes a free one.
    pub port: u16,
    /// Number of executors, 1 or more, bound to the gateway as `EXECUTOR_0`, `EXECUTOR_1`, …
    pub executors: u16,
    /// Whether `POST /api/v2/reset` is allowed.
    pub allow_reset: bool,
    /// Serve the contract Worker too, on a port of its own.
    pub contract_worker: bool,
    /// Serve V8's inspector protocol too, on a port of its own: for profiles.
    pub inspector: bool,
    /// Token that the gateway sends to the catalog.
    pub catalog_token: Option<String>,
    /// Run a compactor, if so; under workerd only.
    pub compaction: Option<Compaction>,
    /// Executors, by number, in whose place something else listens on a loopback port: for tests of what happens when an
    /// executor fails or hangs. Under workerd only.
    pub foreign_executors: Vec<(u16, u16)>,
    /// Loopback port of what stands for the cache of a data centre, if executors have one: it speaks the HTTP by which workerd
    /// asks for the Cache API. Under workerd only.
    pub edge_cache: Option<u16>,
    /// Text bindings of the gateway, besides ours or in their place, for tests that need a setting of their own.
    pub gateway_vars: Vec<(String, String)>,
}

impl Config {
    /// Two executors on a free port, reset refused, logs in `data/logs`.
    pub fn new(programs: Programs, data: impl Into<PathBuf>) -> Self {
        let data = data.into();
        Self {
            programs,
            runtime: Runtime::default(),
            logs: data.join("logs"),
            data,
            port: 0,
            executors: 2,
            allow_reset: false,
            contract_worker: false,
            inspector: false,
            catalog_token: None,
            compaction: None,
            foreign_executors: Vec::new(),
            edge_cache: None,
            gateway_vars: Vec::new(),
        }
    }
}

impl Config {
    /// What the stack is made of, in the order in which it starts.
    fn parts(&self) -> Vec<Part> {
        let is_there = |part: &Part| match part {
            Part::Store => self.runtime == Runtime::Workerd,
            Part::Catalog | Part::Workers => true,
            Part::Compactor => self.runtime == Runtime::Workerd && self.compaction.is_some(),
        };
        Part::ALL.into_iter().filter(is_there).collect()
    }
}

/// A process of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// devstore, the object store.
    Store,
    /// sqld, the catalog's database.
    Catalog,
    /// The gateway and all executors (one process, an isolate each).
    Workers,
    /// The compactor, if the stack has one.
    Compactor,
}

impl Part {
    /// All parts, in the order in which they start.
    pub const ALL: [Part; 4] = [Part::Store, Part::Catalog, Part::Workers, Part::Compactor];

    /// The program's name, as in its log file's.
    pub fn name(self) -> &'static str {
        match self {
            Part::Store => "devstore",
            Part::Catalog => "sqld",
            Part::Workers => "workerd",
            Part::Compactor => "opal-compactor",
        }
    }
}

/// A part that ended by itself.
#[derive(Clone, Debug)]
pub struct Exited {
    /// Which.
    pub part: Part,
    /// How it ended.
    pub status: ExitStatus,
    /// The last lines of its log.
    pub log_tail: String,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) gateway: u16,
    pub(crate) contract: u16,
    pub(crate) inspector: u16,
    pub(crate) store: u16,
    pub(crate) store_admin: u16,
    pub(crate) catalog: u16,
}

/// A running stack. Dropping it stops every process and leaves the data.
#[derive(Debug)]
pub struct Stack {
    config: Config,
    ports: Ports,
    running: [Option<Process>; 4],
    /// Held as long as we live: two stores over one directory would lose data.
    _data_lock: File,
}

impl Stack {
    /// Starts all parts and waits until each is healthy.
    ///
    /// Errors: one sentence for a port in use, a missing program or a data directory in use; else the last log lines of the
    /// part that failed. Nothing is left running.
    pub fn start(config: Config) -> Result<Self> {
        assert!(config.executors >= 1, "a gateway needs an executor");
        config.programs.check(config.runtime)?;
        for dir in [config.data.join("store"), config.data.join("catalog"), config.logs.clone()] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let data_lock = lock_data(&config)?;
        if config.port != 0 && !is_free(config.port) {
            bail!("port {} is in use by another program: stop that program or choose another port", config.port);
        }
        let ports = Ports { gateway: config.port, contract: 0, inspector: 0, store: 0, store_admin: 0, catalog: 0 };
        let mut stack = Self { config, ports, running: [const { None }; 4], _data_lock: data_lock };
        for part in stack.config.parts() {
            stack.start_on_free_ports(part)?;
        }
        Ok(stack)
    }

    /// `http://127.0.0.1:PORT` of the gateway, without a path.
    pub fn gateway_url(&self) -> String {
        url(self.ports.gateway)
    }

    /// The gateway's port.
    pub fn gateway_port(&self) -> u16 {
        self.ports.gateway
    }

    /// What runs the Workers.
    pub fn runtime(&self) -> Runtime {
        self.config.runtime
    }

    /// S3 endpoint of devstore; nobody listens there under Miniflare, nor at the admin endpoint.
    pub fn store_url(&self) -> String {
        url(self.ports.store)
    }

    /// Counters and test levers of devstore.
    pub fn store_admin(&self) -> StoreAdmin {
        StoreAdmin { port: self.ports.store_admin }
    }

    /// HTTP endpoint of sqld.
    pub fn catalog_url(&self) -> String {
        url(self.ports.catalog)
    }

    /// Endpoint of the contract Worker, if the config asked for it.
    pub fn contract_url(&self) -> Option<String> {
        self.config.contract_worker.then(|| url(self.ports.contract))
    }

    /// `127.0.0.1:PORT` of V8's inspector, if the config asked for it; its targets are the Workers.
    pub fn inspector(&self) -> Option<String> {
        self.config.inspector.then(|| address(self.ports.inspector))
    }

    /// What tells `opal-compactor` where bucket and catalog of this stack are.
    pub fn compactor_env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("S3_ENDPOINT", self.store_url()),
            ("S3_BUCKET", BUCKET.to_owned()),
            ("S3_REGION", REGION.to_owned()),
            ("S3_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("S3_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("CATALOG_URL", self.catalog_url()),
        ];
        env.extend(self.config.catalog_token.clone().map(|token| ("CATALOG_TOKEN", token)));
        env
    }

    /// Starts `opal-compactor` with these arguments on bucket and catalog of this stack, beside whatever the stack runs. Its
    /// output is appended to `log` in the stack's directory of logs. It is killed when it is dropped.
    pub fn spawn_compactor(&self, arguments: &[&str], log: &str) -> Result<Process> {
        let mut command = Command::new(&self.config.programs.compactor);
        command.args(arguments).envs(self.compactor_env());
        Process::spawn(Part::Compactor.name(), command, &self.config.logs.join(log))
    }

    /// The data directory.
    pub fn data(&self) -> &std::path::Path {
        &self.config.data
    }

    /// What it is made of, in the order in which it starts.
    pub fn parts(&self) -> Vec<Part> {
        self.config.parts()
    }

    /// Process id of a part, `None` while it is killed.
    pub fn pid(&self, part: Part) -> Option<u32> {
        self.running[part as usize].as_ref().map(Process::pid)
    }

    /// The last lines that a part logged since it was started.
    pub fn log_tail(&self, part: Part) -> String {
        self.running[part as usize].as_ref().map_or_else(String::new, Process::log_tail)
    }

    /// Ends a part with SIGKILL, as a crash would, and waits until it is gone. Nothing happens if it does not run.
    pub fn kill(&mut self, part: Part) -> Result<()> {
        match self.running[part as usize].take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts a part again on the same ports and data and waits until it is healthy; kills it first if it still runs.
    pub fn restart(&mut self, part: Part) -> Result<()> {
        self.kill(part)?;
        self.launch(part).map_err(StartError::into_anyhow)
    }

    /// Which part has ended by itself since it was started, if any.
    pub fn exited(&mut self) -> Option<Exited> {
        Part::ALL.into_iter().find_map(|part| {
            let process = self.running[part as usize].as_mut()?;
            let status = process.exit_status()?;
            Some(Exited { part, status, log_tail: process.log_tail() })
        })
    }

    /// SIGTERM to every part, Workers first, then SIGKILL to those that stay.
    pub fn stop(mut self) {
        self.stop_all();
    }

    fn stop_all(&mut self) {
        for part in Part::ALL.into_iter().rev() {
            if let Some(mut process) = self.running[part as usize].take() {
                process.stop(STOPPED_WITHIN);
            }
        }
    }

    /// Starts a part; as long as one of the ports that we chose turns out to be taken, chooses others.
    fn start_on_free_ports(&mut self, part: Part) -> Result<()> {
        for _ in 1..PORT_ATTEMPTS {
            self.choose_ports(part)?;
            match self.launch(part) {
                Err(StartError::PortTaken(_)) => {}
                outcome => return outcome.map_err(StartError::into_anyhow),
            }
        }
        self.choose_ports(part)?;
        self.launch(part).map_err(StartError::into_anyhow)
    }

    fn choose_ports(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Store => {
                self.ports.store = net::free_port()?;
                self.ports.store_admin = net::free_port()?;
            }
            Part::Catalog => self.ports.catalog = net::free_port()?,
            Part::Compactor => {}
            Part::Workers => {
                if self.config.port == 0 {
                    self.ports.gateway = net::free_port()?;
                }
                if self.config.contract_worker {
                    self.ports.contract = net::free_port()?;
                }
                if self.config.inspector {
                    self.ports.inspector = net::free_port()?;
                }
            }
        }
        Ok(())
    }

    fn launch(&mut self, part: Part) -> Result<(), StartError> {
        let command = self.command(part).map_err(StartError::Other)?;
        let log = self.config.logs.join(format!("{}.log", part.name()));
        let mut process = Process::spawn(part.name(), command, &log).map_err(StartError::Other)?;
        let ports = self.ports;
        process.wait_until(HEALTHY_WITHIN, |log| match part {
            Part::Store => log.lines().any(is_ready_line),
            Part::Catalog => net::answers(ports.catalog, "/health"),
            Part::Workers => net::answers(ports.gateway, "/api/v2/heartbeat"),
            // It is healthy as long as it runs.
            Part::Compactor => true,
        })?;
        self.running[part as usize] = Some(process);
        Ok(())
    }

    fn command(&self, part: Part) -> Result<Command> {
        let (config, ports) = (&self.config, &self.ports);
        Ok(match part {
            Part::Store => {
                let mut command = Command::new(&config.programs.devstore);
                command.arg("--data").arg(config.data.join("store"));
                command.args(["--listen", &address(ports.store), "--admin", &address(ports.store_admin)]);
                command.args(["--bucket", BUCKET]);
                command.env("DEVSTORE_ACCESS_KEY_ID", ACCESS_KEY_ID);
                command.env("DEVSTORE_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
                command
            }
            Part::Catalog => {
                let mut command = Command::new(&config.programs.sqld);
                command.arg("--db-path").arg(config.data.join("catalog"));
                command.args(["--http-listen-addr", &address(ports.catalog), "--no-welcome"]);
                command
            }
            Part::Compactor => {
                let compaction = config.compaction.context("the stack has no compactor")?;
                let mut command = Command::new(&config.programs.compactor);
                command.args(["watch", "--interval", &format!("{}ms", compaction.interval.as_millis())]);
                if compaction.is_eager {
                    command.arg("--eager");
                }
                command.envs(self.compactor_env());
                command
            }
            Part::Workers if config.runtime == Runtime::Miniflare => miniflare::command(config, ports)?,
            Part::Workers => {
                let file = config.data.join("workerd.capnp");
                fs::write(&file, workerd::config_text(config, ports)?)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                let mut command = Command::new(&config.programs.workerd);
                command.arg("serve").arg("--import-path=/");
                if config.inspector {
                    command.arg(format!("--inspector-addr={}", address(ports.inspector)));
                }
                command.arg(file);
                command
            }
        })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop_all();
    }
}

fn lock_data(config: &Config) -> Result<File> {
    let path = config.data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "the data directory {} is in use by another running stack: stop that one or choose another directory",
            config.data.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// devstore says that it listens by one JSON line: `{"listen": …, "admin": …}`.
fn is_ready_line(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line)
        .is_ok_and(|line| line["listen"].is_string() && line["admin"].is_string())
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

pub(crate) fn url(port: u16) -> String {
    format!("http://{}", address(port))
}
