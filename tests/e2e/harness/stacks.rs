//! The stack that most tests share, and stacks of their own for tests that kill or reset.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use stack::{Compaction, Config, Programs, Stack};

/// The gateway that tests share. Tests keep apart by the names of their tenants.
pub(crate) fn shared_url() -> String {
    match std::env::var("OPAL_E2E_URL") {
        Ok(url) => url,
        Err(_) => shared_stack().gateway_url(),
    }
}

/// The stack behind [`shared_url`]. Nobody may kill any of it.
pub(crate) fn shared_stack() -> MutexGuard<'static, Stack> {
    static SHARED: OnceLock<Mutex<Stack>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| Mutex::new(own_stack("shared")));
    shared.lock().expect("the shared stack has started")
}

/// A stack that one test may do with as it likes; `name` is its directory's.
pub(crate) fn own_stack(name: &str) -> Stack {
    own_stack_with(name, |_| {})
}

/// The same with other settings.
pub(crate) fn own_stack_with(name: &str, change: impl FnOnce(&mut Config)) -> Stack {
    let programs = Programs::from_env().unwrap_or_else(|error| panic!("{error:#}"));
    let mut config = Config::new(programs, directory_of_this_run().join(name));
    config.compaction = compaction();
    change(&mut config);
    Stack::start(config).unwrap_or_else(|error| panic!("the stack {name} does not start: {error:#}"))
}

/// How stacks compact beside the tests: `OPAL_COMPACT_MS` is the pause between two rounds. Without it they do not: some tests
/// count requests, most are faster.
fn compaction() -> Option<Compaction> {
    let ms = std::env::var("OPAL_COMPACT_MS").ok()?;
    let ms = ms.parse().unwrap_or_else(|_| panic!("OPAL_COMPACT_MS is no number: {ms}"));
    Some(Compaction { interval: Duration::from_millis(ms), is_eager: true })
}

/// Runs `opal-compactor` on a stack to its end, which must be good.
#[track_caller]
pub(crate) fn run_compactor(stack: &Stack, arguments: &[&str]) {
    let mut process = stack.spawn_compactor(arguments, &format!("{}.log", arguments[0])).unwrap();
    let status = loop {
        match process.exit_status() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert!(status.success(), "{arguments:?}: {status}: {}", process.log_tail());
}

/// Data and logs of this process's stacks. They stay until another run begins, so that a failure can be looked into.
fn directory_of_this_run() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e");
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            // A directory is named by the process that made it.
            let is_live = Path::new("/proc").join(entry.file_name()).exists();
            if !is_live {
                fs::remove_dir_all(entry.path()).unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()));
            }
        }
        let directory = parent.join(std::process::id().to_string());
        fs::create_dir_all(&directory).unwrap();
        directory
    })
}
