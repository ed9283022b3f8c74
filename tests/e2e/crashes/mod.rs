//! Clients write and read while processes are killed again and again, and the store loses replies besides. Then everything is
//! read. `OPAL_KILLS` says how many kills.
//!
//! Every operation of a write carries the write's number, deletions aside, whose ids say whose they are. So the log itself
//! tells what was carried out: an acknowledged write is in it once, another one once or not at all, each whole and in one
//! piece, those of one client in the order in which it sent them. What the log amounts to, by a model of a few lines, is
//! what the API must answer; and whoever has just been told that his write is done must read it.

mod clients;
mod history;
mod housekeepers;
mod servers;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use stack::Stack;

use crate::harness::Collection;

/// Writers share collections, so that they contend for the ends of their logs.
const COLLECTIONS: u64 = 2;
/// A cold start may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn kills(default: usize) -> usize {
    std::env::var("OPAL_KILLS").map_or(default, |kills| kills.parse().expect("a number of kills"))
}

fn collections(api: &crate::harness::Api) -> Vec<Collection> {
    (0..COLLECTIONS).map(|_| api.fresh_collection()).collect()
}

/// Part of the store's replies are lost, part of its requests fail, part of them come late.
fn trouble(stack: &Stack, random: &mut Random) {
    let rules = json!([
        { "operation": "PutObject", "probability": 0.05, "effect": "drop_reply" },
        { "probability": 0.02, "effect": "drop_request" },
        { "probability": 0.02, "effect": { "answer": 503 } },
        { "operation": "PutObject", "probability": 0.05, "effect": { "hold_before_ms": 300 } },
    ]);
    stack.store_admin().set_faults(&rules, Some(random.next())).unwrap();
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// From `OPAL_SEED`, or else from the clock.
    fn from_env() -> Random {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        Random(std::env::var("OPAL_SEED").map_or(u64::from(nanos), |seed| seed.parse().expect("a seed")))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
