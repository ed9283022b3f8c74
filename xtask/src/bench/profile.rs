//! Where a Worker's processor time goes: V8's sampling, its functions put together by what they are for.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use crate::place::Place;

/// What a function is for, by a part of its name; the first that fits counts.
const STAGES: [(&str, &[&str]); 12] = [
    ("base64", &["base64"]),
    ("set-hash, checksum (XXH3)", &["xxh", "operation_hash", "set_hash"]),
    ("Content-MD5", &["md5"]),
    ("signature (SHA-256, URL)", &["sha2", "rusty_s3", "hmac", "url:", "percent_encoding"]),
    ("catalog (Hrana)", &["hrana", "catalog:"]),
    ("JSON and checks of records", &["serde", "wire:"]),
    ("fragment (Arrow)", &["arrow", "wal::fragment", "wal::columns"]),
    ("handlers, claims, retries", &["gateway_worker", "wal:", "storage:", "runtime:"]),
    (
        "calls of the platform",
        &["js ", "js_sys", "wasm_bindgen", "worker:", "wbg", "wbindgen", "js-to-wasm", "externref"],
    ),
    ("allocation, copies", &["alloc", "memcpy", "memmove", "memset", "memcmp"]),
    ("garbage collection", &["(garbage collector)"]),
    ("runtime outside our code", &["(program)"]),
];
/// What is not work.
const IDLE: [&str; 2] = ["(idle)", "(root)"];

/// A profile that is being taken.
pub(crate) struct Profiler {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Profiler {
    /// Begins to sample the Worker `service`. `inspector`: host and port of V8's inspector.
    pub(crate) fn start(place: &Place, inspector: &str, service: &str) -> Result<Profiler> {
        let mut node = Command::new("node");
        node.arg("--experimental-websocket").arg(place.root.join("xtask/src/bench/profile.mjs"));
        node.args([inspector, service]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = node.spawn().context("cannot run node")?;
        let output = child.stdout.take().context("node has no output")?;
        let mut profiler = Profiler { child, output: BufReader::new(output) };
        ensure!(profiler.line()? == "started", "the profiler does not start");
        Ok(profiler)
    }

    /// Ends the profile; returns the share of each stage, the largest first, and of the functions of no stage.
    pub(crate) fn stop(mut self) -> Result<Vec<(&'static str, f64)>> {
        drop(self.child.stdin.take());
        let samples: Map<String, Value> = serde_json::from_str(&self.line()?)?;
        self.child.wait()?;
        Ok(shares(&samples))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shares(samples: &Map<String, Value>) -> Vec<(&'static str, f64)> {
    let busy = samples.iter().filter(|(name, _)| !IDLE.contains(&name.as_str()));
    let mut stages: Vec<(&'static str, f64)> = STAGES.iter().map(|(stage, _)| (*stage, 0.0)).collect();
    stages.push(("everything else", 0.0));
    let mut total = 0.0;
    for (name, count) in busy {
        let count = count.as_f64().unwrap_or(0.0);
        let stage = STAGES.iter().position(|(_, parts)| parts.iter().any(|part| name.contains(part)));
        stages[stage.unwrap_or(STAGES.len())].1 += count;
        total += count;
    }
    stages.iter_mut().for_each(|(_, count)| *count /= total);
    stages.sort_by(|a, b| b.1.total_cmp(&a.1));
    stages
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn functions_are_put_together_and_idleness_is_left_out() {
        let samples = json!({
            "md5::compress::compress": 30,
            "arrow2::io::ipc::write": 20,
            "wal::fragment::encode": 20,
            "<base64::Engine as serde>::decode": 10,
            "something": 20,
            "(idle)": 900,
        });
        let shares = shares(samples.as_object().unwrap());
        assert_eq!(shares[0], ("fragment (Arrow)", 0.4));
        assert_eq!(shares[1], ("Content-MD5", 0.3));
        assert!(shares.contains(&("base64", 0.1)) && shares.contains(&("everything else", 0.2)), "{shares:?}");
    }
}
