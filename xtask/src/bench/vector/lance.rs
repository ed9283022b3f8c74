//! LanceDB beside us, on the same vectors and the same store. What it is asked is in `bench/vector/lance.py`.

use std::process::Command;

use anyhow::Result;
use stack::Stack;

use super::case::Case;
use super::cold;
use super::report::Line;
use crate::place::Place;
use crate::{sh, tools};

/// Prints what its indexes cost to build and to ask, at the recall that we have, and our share of it.
pub(super) fn measure(place: &Place, stack: &Stack, case: &Case, ours: &Line) -> Result<()> {
    let mut python = Command::new(tools::lance(place)?);
    python.arg("-u").arg(place.root.join("bench/vector/lance.py")).arg("--data").arg(&case.folder);
    let mut argument = |name: &str, value: String| {
        python.arg(format!("--{name}={value}"));
    };
    argument("records", case.records.len().to_string());
    argument("queries", case.queries.len().to_string());
    argument("count", ours.cold.costs.len().to_string());
    argument("endpoint", stack.store_url());
    argument("admin", stack.store_admin().url());
    argument("bucket", stack::BUCKET.to_owned());
    argument("region", stack::REGION.to_owned());
    argument("key-id", stack::ACCESS_KEY_ID.to_owned());
    argument("secret", stack::SECRET_ACCESS_KEY.to_owned());
    argument("line", cold::far_away().to_string());
    argument("recall", ours.cold.recall.to_string());
    argument("p50", ours.cold_ms(0.5).to_string());
    argument("p99", ours.cold_ms(0.99).to_string());
    argument("rate", ours.built_a_second().to_string());
    argument("rate_cpu", (case.records.len() as f64 / ours.built.cpu).to_string());
    argument("peak", (ours.built.memory_bytes >> 20).to_string());
    sh::step("measuring LanceDB", python.env("PYTHONDONTWRITEBYTECODE", "1"))
}
