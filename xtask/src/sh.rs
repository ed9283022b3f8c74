//! Running programs: visibly, without standard input, and so that a signal to us ends them too.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const POLL: Duration = Duration::from_millis(20);

fn stop_flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// From now on SIGINT, SIGTERM and SIGHUP end the running program and make [`stopped`] true, even where SIGINT was ignored
/// when we were started (a shell's `&` does that).
pub(crate) fn stop_on_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(stop_flag())).context("cannot handle signals")?;
    }
    Ok(())
}

/// Whether a signal has asked us to stop.
pub(crate) fn stopped() -> bool {
    stop_flag().load(Ordering::Relaxed)
}

/// Runs a program to its end with its output shown. Errors: it fails, it is missing, or we are asked to stop.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let mut child = spawn(command)?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if stopped() {
            end_group(&mut child)?;
            bail!("stopped by a signal");
        }
        sleep(POLL);
    };
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// As [`run`], with a line that says what is going on.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("== {what}");
    run(command)
}

/// Runs a short program and returns its standard output, trimmed; its standard error is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| missing(error, command))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// In a group of its own, so that all that it starts can be ended with it.
fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).process_group(0).spawn().map_err(|error| missing(error, command))
}

fn end_group(child: &mut Child) -> Result<()> {
    Command::new("kill").args(["-TERM", "--", &format!("-{}", child.id())]).status()?;
    child.wait()?;
    Ok(())
}

fn missing(error: std::io::Error, command: &Command) -> anyhow::Error {
    let program = command.get_program().to_string_lossy();
    match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("`{program}` is not on this machine{}", hint(&program)),
        _ => anyhow::Error::new(error).context(format!("cannot run `{program}`")),
    }
}

/// How to come by the few programs that we do not obtain ourselves.
fn hint(program: &str) -> &'static str {
    match program {
        "npm" | "node" => ": install Node.js 20 or later, with npm (Debian: apt-get install -y nodejs npm)",
        "python3" => ": install Python 3.10 or later (Debian: apt-get install -y python3 python3-venv)",
        "cargo" => ": install Rust 1.92 or later with rustup",
        _ => "",
    }
}

/// The command as a shell would take it, for messages.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
