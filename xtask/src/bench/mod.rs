//! `cargo xtask bench`: what things cost, beside the original server in the same run. Nothing printed here is absolute:
//! machines differ, ratios stay.

mod backlog;
mod bucket;
mod collection;
mod compact;
mod compactor;
mod cpu;
mod filters;
mod http;
mod latency;
mod load;
mod original;
mod peer;
mod profile;
mod reads;
mod records;
mod tail;
mod vector;
mod write;

use std::fs;

use anyhow::{Context, Result};

use crate::place::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Acknowledged writes a second and their latencies, by batch size and number of writers
    Write(write::Arguments),
    /// What reading a long log costs, cold and warm
    Tail(tail::Arguments),
    /// Compaction: time and memory, bytes that it writes, bytes that are stored
    Compact(compact::Arguments),
    /// How far a compactor stays behind writers
    Backlog(backlog::Arguments),
    /// What reads of a compacted collection ask of the store, by the number of its segments
    Reads(reads::Arguments),
    /// What isolates ask of the store that know nothing, by filter
    Filters(filters::Arguments),
    /// Latencies before and after compaction
    Latency(latency::Arguments),
    /// Recall, reads and latencies of nearest neighbours in a compacted collection
    Vector(vector::Arguments),
    /// Reads and writes of real records: rates, latencies and recall
    Peer(peer::Arguments),
}

/// Errors: a server that does not start, a request that is refused, an answer that is wrong.
pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    // On the disk that is built on, not in /tmp, which may be memory: a sync must be one.
    let data = place.target.join(format!("bench-{}", std::process::id()));
    let outcome = match &arguments.bench {
        Bench::Write(arguments) => write::run(place, arguments, &data),
        Bench::Tail(arguments) => tail::run(place, arguments, &data),
        Bench::Compact(arguments) => compact::run(place, arguments, &data),
        Bench::Backlog(arguments) => backlog::run(place, arguments, &data),
        Bench::Reads(arguments) => reads::run(place, arguments, &data),
        Bench::Filters(arguments) => filters::run(place, arguments, &data),
        Bench::Latency(arguments) => latency::run(place, arguments, &data),
        Bench::Vector(arguments) => vector::run(place, arguments, &data),
        Bench::Peer(arguments) => peer::run(place, arguments, &data),
    };
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    outcome
}
