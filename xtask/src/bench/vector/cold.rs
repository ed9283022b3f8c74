//! Queries of isolates that know nothing, of a store that is as far away as one in a cloud.

use anyhow::Result;
use serde_json::{Value, json};
use stack::{Part, Stack};

use super::super::collection::{Collection, Cost};

/// The line to the store: what a request takes, how many there may be at once, and what passes in a second.
const REQUEST_MS: u64 = 45;
const AT_ONCE: u64 = 6;
const BYTES_A_SECOND: u64 = 50_000_000;

/// The rules that put the store far away.
pub(super) fn far_away() -> Value {
    json!([
        { "effect": { "at_once": AT_ONCE } },
        { "effect": { "hold_before_ms": REQUEST_MS } },
        { "effect": { "shared_bytes_per_second": BYTES_A_SECOND } },
    ])
}

/// What an isolate has done before it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolate {
    /// Nothing at all: it has to start, and to compile what it runs.
    New,
    /// It has answered for another collection.
    Started,
}

/// Asks an isolate of its own for each of `bodies`; returns the answers and what they cost. `other`: a collection of which all
/// know, if they know any.
pub(super) fn ask(
    stack: &mut Stack,
    collection: &Collection,
    other: &Collection,
    bodies: &[Value],
    isolate: Isolate,
) -> Result<Vec<(Value, Cost)>> {
    let mut answers = Vec::new();
    for body in bodies {
        stack.restart(Part::Workers)?;
        if isolate == Isolate::Started {
            other.ask("query", Some(body))?;
        }
        stack.store_admin().set_faults(&far_away(), None)?;
        answers.push(collection.ask_counted(stack.store_admin(), "query", Some(body))?);
        stack.store_admin().clear_faults()?;
    }
    Ok(answers)
}
