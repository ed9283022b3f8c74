//! `opal-compactor` beside a stack: one command at a time, and what it took.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stack::Stack;

use super::cpu;
use crate::sh;

/// How often we look at a running command: what it takes in its last moments is not seen.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Passes of garbage collection until nothing is left: the floor rises, what is below it goes, then old versions.
const GC_PASSES_MAX: usize = 10;
/// What gc waits before it deletes, in whole seconds of the catalog's clock, is over after this.
const GC_PAUSE: Duration = Duration::from_millis(2_100);

/// Runs commands of the program.
pub(crate) struct Compactor<'s> {
    stack: &'s Stack,
    program: PathBuf,
    log: PathBuf,
}

/// What a command took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    /// Seconds of processor time.
    pub(crate) cpu: f64,
    /// Most memory that it ever had in use (VmHWM), in bytes.
    pub(crate) memory_bytes: u64,
    /// Bytes of all bodies that the store sent and received meanwhile.
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl Spent {
    /// Both, one after the other.
    pub(crate) fn and(self, other: Spent) -> Spent {
        Spent {
            elapsed: self.elapsed + other.elapsed,
            cpu: self.cpu + other.cpu,
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            read_bytes: self.read_bytes + other.read_bytes,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }
}

impl<'s> Compactor<'s> {
    pub(crate) fn new(stack: &'s Stack, program: &Path) -> Compactor<'s> {
        Compactor { stack, program: program.to_owned(), log: stack.data().join("commands.log") }
    }

    /// Compacts a collection within so many MiB. Nothing else may use the store meanwhile. Errors: something was left to do.
    pub(crate) fn compact(&self, collection: &str, memory: u32) -> Result<Spent> {
        self.compact_as(&["compact", collection], memory)
    }

    /// The same into one segment, whatever that costs.
    pub(crate) fn compact_fully(&self, collection: &str, memory: u32) -> Result<Spent> {
        self.compact_as(&["compact", collection, "--full"], memory)
    }

    fn compact_as(&self, arguments: &[&str], memory: u32) -> Result<Spent> {
        let collection = arguments[1];
        let spent = self.run(&[arguments, &["--memory", &format!("{memory}MiB")]].concat())?;
        let status = self.status(collection)?;
        ensure!(status["backlog"]["operations"] == 0, "a backlog is left: {status}");
        Ok(spent)
    }

    /// Collects garbage until nothing is left of the log of a collection that is compacted, nor of old segments.
    pub(crate) fn gc(&self, collection: &str) -> Result<()> {
        for _ in 0..GC_PASSES_MAX {
            let before = fs::metadata(&self.log).map_or(0, |log| log.len());
            // The pass that raises the floor finds nothing below it: the next one does.
            let status = self.status(collection)?;
            let was_raised = status["gc_floor"] == status["watermark"];
            self.run(&["gc", "--grace", "0", "--delay", "1s"])?;
            let told = fs::read_to_string(&self.log)?;
            let told = told.get(usize::try_from(before)?..).context("the log became shorter")?;
            let mut lines = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let pass = lines.find(|line| line["event"] == "pass ended").context("a pass without an end")?;
            let has_found_nothing = ["deleted", "waiting", "failed"].iter().all(|what| pass[*what] == 0);
            if has_found_nothing && was_raised {
                return Ok(());
            }
            sleep(GC_PAUSE);
        }
        bail!("after {GC_PASSES_MAX} passes there still is garbage")
    }

    /// Errors: log, packs, segments and manifest do not hold the same records.
    pub(crate) fn verify(&self, collection: &str) -> Result<()> {
        self.run(&["verify", collection]).map(drop)
    }

    /// What `status --json` says of a collection.
    pub(crate) fn status(&self, collection: &str) -> Result<Value> {
        let told = sh::output(self.command().args(["status", "--json"]))?;
        let told: Vec<Value> = serde_json::from_str(&told)?;
        told.into_iter().find(|status| status["collection"] == collection).context("no such collection")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.stack.compactor_env());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Spent> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let before = self.stack.store_admin().totals()?;
        let began = Instant::now();
        let mut child = command.spawn().context("cannot start opal-compactor")?;
        let (mut memory_bytes, mut cpu) = (0, 0.0);
        let status = loop {
            // Of a process that has ended there is nothing to see.
            memory_bytes = peak_bytes(child.id()).unwrap_or(memory_bytes);
            cpu = cpu::seconds(child.id()).unwrap_or(cpu);
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if sh::stopped() {
                child.kill()?;
                child.wait()?;
                bail!("stopped by a signal");
            }
            sleep(LOOK_EVERY);
        };
        let elapsed = began.elapsed();
        let told = || fs::read_to_string(&self.log).unwrap_or_default();
        ensure!(status.success(), "opal-compactor {arguments:?} failed ({status}); its log ends:\n{}", told());
        let after = self.stack.store_admin().totals()?;
        let more = |name: &str| after[name].as_u64().unwrap_or(0) - before[name].as_u64().unwrap_or(0);
        Ok(Spent { elapsed, cpu, memory_bytes, read_bytes: more("bytes_out"), written_bytes: more("bytes_in") })
    }
}

/// The most memory that a process ever had in use, in bytes.
fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_peak() {
        assert!(peak_bytes(std::process::id()).unwrap() > 1 << 20);
        assert_eq!(peak_bytes(u32::MAX), None);
    }
}
