//! Processes that hang: they keep their connections and answer nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The kernel stops a thread as soon as it comes by; on a busy machine that takes a while.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops the process. Returns when all its threads stand still: until then it may answer.
pub(crate) fn stop(pid: u32) {
    signal(pid, "-STOP");
    let began = Instant::now();
    while !is_stopped(pid) {
        assert!(began.elapsed() < PATIENCE, "process {pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets it go on.
pub(crate) fn go_on(pid: u32) {
    signal(pid, "-CONT");
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// What `/proc` says of each thread. Where there is none (macOS), that of the process must do.
fn is_stopped(pid: u32) -> bool {
    match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads.flatten().all(|thread| is_thread_stopped(&thread.path())),
        Err(_) => {
            let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap().stdout;
            state.starts_with(b"T")
        }
    }
}

fn is_thread_stopped(thread: &Path) -> bool {
    // A thread that has ended is as good.
    let Ok(stat) = fs::read_to_string(thread.join("stat")) else { return true };
    // `7 (its name) T …`
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}
