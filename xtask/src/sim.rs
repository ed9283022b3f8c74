//! `cargo xtask sim`: lives through simulated worlds (`tests/simulation`). A seed decides everything in one.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::place::{self, Place};
use crate::sh;

/// How many fresh worlds the checks look at: a minute or two.
const FRESH_SEEDS: u64 = 2_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Live through one world again and print what happens in it
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Live through the worlds of these seeds, the last one excluded [default: some that nobody has seen]
    #[arg(long, value_name = "FROM..TO")]
    seeds: Option<String>,
}

pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    match (&arguments.seed, &arguments.seeds) {
        (Some(seed), _) => live(place, &seed.to_string()),
        (None, Some(seeds)) => live(place, seeds),
        (None, None) => fresh(place),
    }
}

/// Worlds that nobody has seen yet: which ones, the clock says.
pub(crate) fn fresh(place: &Place) -> Result<()> {
    let from =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs() * FRESH_SEEDS;
    live(place, &format!("{from}..{}", from + FRESH_SEEDS))
}

fn live(place: &Place, seeds: &str) -> Result<()> {
    let mut test = place::cargo();
    // As `cargo xtask test` calls cargo, so that what one has compiled the other finds.
    test.args(["test", "--workspace", "--exclude", "xtask", "--test", "simulation", "--"]);
    test.args(["--ignored", "--nocapture", "--exact", "tests::worlds_of_choice"]);
    sh::step(&format!("simulating {seeds}"), test.env("OPAL_SEEDS", seeds).current_dir(&place.root))
}
