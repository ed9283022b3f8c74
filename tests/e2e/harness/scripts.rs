//! Runs test scripts of other languages; their whole output is shown when they fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use stack::Clients;

/// Runs `tests/clients/python/{script}` with the server's URL in `OPAL_URL`.
#[track_caller]
pub(crate) fn python(script: &str, url: &str, arguments: &[&Path]) {
    let mut command = Command::new(clients().python);
    // `-B`: no compiled files in the source tree.
    command.arg("-B").arg(folder("python").join(script)).args(arguments).env("OPAL_URL", url);
    run(command);
}

/// Runs `tests/clients/js/{script}` with the server's URL in `OPAL_URL` and the packages' directory in `NODE_MODULES`.
#[track_caller]
pub(crate) fn node(script: &str, url: &str) {
    let mut command = Command::new("node");
    command.arg("--test").arg(folder("js").join(script));
    command.env("OPAL_URL", url).env("NODE_MODULES", clients().node_modules);
    run(command);
}

fn clients() -> Clients {
    Clients::from_env().unwrap_or_else(|error| panic!("{error:#}"))
}

fn folder(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(language)
}

#[track_caller]
fn run(mut command: Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
