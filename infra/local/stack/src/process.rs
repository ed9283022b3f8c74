//! One child process with its log: it dies with us, tells why it failed, ends when asked.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

const POLL: Duration = Duration::from_millis(20);
const TAIL_LINES: usize = 20;

/// Why a part did not become healthy.
pub(crate) enum StartError {
    /// Someone else listens on its port: worth another attempt on another port, if it was ours to choose.
    PortTaken(anyhow::Error),
    /// Trying again would not help.
    Other(anyhow::Error),
}

impl StartError {
    pub(crate) fn into_anyhow(self) -> anyhow::Error {
        match self {
            StartError::PortTaken(error) | StartError::Other(error) => error,
        }
    }
}

/// A child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where this run's output begins in the log.
    log_start: u64,
}

impl Process {
    /// Starts `command` with its output appended to `log`, in a process group of its own (a Ctrl-C in the terminal is for
    /// us: we stop the parts in order).
    pub(crate) fn spawn(name: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = out.metadata()?.len();
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
        let child = spawn_dying_with_us(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log: log.to_owned(), log_start })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `healthy(log so far)`; ends the process if it fails or takes too long.
    pub(crate) fn wait_until(&mut self, within: Duration, healthy: impl Fn(&str) -> bool) -> Result<(), StartError> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exit_status() {
                let error =
                    anyhow!("{} ended while starting ({status}); its log ends:\n{}", self.name, self.log_tail());
                let taken = self.log_text().to_lowercase().contains("address already in use");
                return Err(if taken { StartError::PortTaken(error) } else { StartError::Other(error) });
            }
            if healthy(&self.log_text()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let error =
                    anyhow!("{} is not healthy after {within:?}; its log ends:\n{}", self.name, self.log_tail());
                let _ = self.kill();
                return Err(StartError::Other(error));
            }
            std::thread::sleep(POLL);
        }
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// SIGTERM; SIGKILL if it has not ended in time.
    pub(crate) fn stop(&mut self, within: Duration) {
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + within;
        while self.exit_status().is_none() {
            if Instant::now() > deadline {
                let _ = self.kill();
                return;
            }
            std::thread::sleep(POLL);
        }
    }

    fn signal(&mut self, signal: libc::c_int) {
        // A child that was waited for has given its id back: the id may be someone else's by now.
        if self.exit_status().is_none() {
            let pid = libc::pid_t::try_from(self.child.id()).expect("process ids are positive and small");
            // SAFETY: `kill` takes plain numbers; the process is our child and not yet waited for.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// What this run has written so far; empty if the log cannot be read.
    fn log_text(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(self.log_start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// The last lines that it wrote.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("{tail}\n(whole log: {})", fs::canonicalize(&self.log).unwrap_or_else(|_| self.log.clone()).display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Spawns from a thread that lives as long as we do: the kernel sends a child its death signal when the *thread* that
/// made it ends, and a test's thread ends long before the stack that tests share.
fn spawn_dying_with_us(mut command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();

    let parent = std::process::id();
    let die_with_parent = move || {
        // SAFETY: plain numbers only. `getppid` closes the gap in which the parent died before `prctl`.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if u32::try_from(libc::getppid()) != Ok(parent) {
                libc::_exit(1);
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls async-signal-safe functions only and allocates nothing.
    unsafe { command.pre_exec(die_with_parent) };

    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Whoever ordered may be gone; then the child is dropped and nobody waits for it.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = channel();
    spawner.send((command, reply)).expect("the spawner thread never ends");
    answer.recv().expect("the spawner thread answers each order")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &str) -> Process {
        let log = std::env::temp_dir().join(format!("opal-stack-{}-{log}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("sh", command, &log).unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_child_that_fails_tells_its_last_lines() {
        let mut process = shell("echo hopeless; exit 3", "fails");
        let Err(StartError::Other(error)) = process.wait_until(LONG, |_| false) else { panic!("must fail") };
        assert!(error.to_string().contains("exit status: 3") && error.to_string().contains("hopeless"), "{error}");
    }

    #[test]
    fn a_taken_port_is_told_from_other_failures() {
        let mut process = shell("echo 'bind: Address already in use'; exit 1", "taken");
        assert!(matches!(process.wait_until(LONG, |_| false), Err(StartError::PortTaken(_))));
    }

    #[test]
    fn a_child_that_never_gets_healthy_is_killed() {
        let mut process = shell("exec sleep 100", "unhealthy");
        assert!(process.wait_until(Duration::from_millis(50), |_| false).is_err());
        assert!(process.exit_status().is_some());
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed() {
        let mut process = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done", "stubborn");
        process.wait_until(LONG, |log| log.contains("ready")).map_err(StartError::into_anyhow).unwrap();
        process.stop(Duration::from_millis(100));
        assert!(process.exit_status().is_some());
    }

    #[test]
    fn a_child_survives_the_thread_that_started_it() {
        let mut process = std::thread::spawn(|| shell("echo ready; exec sleep 100", "thread")).join().unwrap();
        process.wait_until(LONG, |log| log.contains("ready")).map_err(StartError::into_anyhow).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(process.exit_status().is_none());
    }
}
