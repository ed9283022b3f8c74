//! devstore's admin port, for tests and benches.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::net;

/// What devstore has counted, and the levers that make it slow, busy or forgetful. The port stays the same when devstore
/// is restarted; counts and rules are gone then.
#[derive(Clone, Copy, Debug)]
pub struct StoreAdmin {
    pub(crate) port: u16,
}

impl StoreAdmin {
    /// Where it is served, for programs that are not ours.
    pub fn url(self) -> String {
        crate::url(self.port)
    }

    /// What was counted over all requests since the start: `requests` by operation, `statuses`, `bytes_in`, `bytes_out`,
    /// `max_in_flight`, `sequential_depth`.
    pub fn totals(self) -> Result<Value> {
        self.call("GET", "/totals", "")
    }

    /// The same over the requests that carried a trace id of 32 hexadecimal digits; `None` if there were none.
    pub fn trace(self, id: &str) -> Result<Option<Value>> {
        let (status, body) = net::exchange(self.port, "GET", &format!("/traces/{id}"), "")?;
        ensure!(status == 200 || status == 404, "devstore answers {status} to a trace");
        (status == 200).then(|| serde_json::from_str(&body).context("not JSON")).transpose()
    }

    /// Puts rules in force, in place of all others; returns the seed by which chance can be replayed.
    ///
    /// `rules`: an array of objects with `operation` (S3's name for it), `key_prefix`, `key_contains` (which requests),
    /// `next` (only so many), `probability` (from 0 to 1), all of them optional, and `effect`, one of
    /// `{"hold_before_ms": n}`, `{"hold_after_ms": n}`, `{"bytes_per_second": n}`, `{"shared_bytes_per_second": n}`,
    /// `{"at_once": n}`, `{"answer": 409 | 429 | 500 | 503}`, `"drop_request"`, `"drop_reply"`. A request suffers the effects
    /// of all rules that are about it.
    pub fn set_faults(self, rules: &Value, seed: Option<u64>) -> Result<u64> {
        let faults = self.call("PUT", "/faults", &json!({ "rules": rules, "seed": seed }).to_string())?;
        faults["seed"].as_u64().context("devstore tells no seed")
    }

    /// No rule is in force any more; returns how many requests each of them has met.
    pub fn clear_faults(self) -> Result<Vec<u64>> {
        let before = self.call("DELETE", "/faults", "")?;
        let rules = before["rules"].as_array().context("devstore tells no rules")?;
        rules.iter().map(|rule| rule["applied"].as_u64().context("a rule without a count")).collect()
    }

    fn call(self, method: &str, path: &str, body: &str) -> Result<Value> {
        let (status, reply) = net::exchange(self.port, method, path, body)?;
        ensure!(status == 200, "devstore answers {status} to {method} {path}: {reply}");
        serde_json::from_str(&reply).context("not JSON")
    }
}
