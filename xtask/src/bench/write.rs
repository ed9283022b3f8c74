//! What acknowledged writes cost: batches of several sizes from several writers, on the local stack with every write
//! synced to the disk, and on the original server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use stack::{Config, Part, Stack, StoreAdmin};

use super::collection::{Collection, DATABASE};
use super::cpu;
use super::http::Client;
use super::load::{self, Measured};
use super::original::Original;
use super::profile::Profiler;
use super::records::Records;
use crate::place::Place;
use crate::{build, sh, test};

/// How long we wait at most for what a server still does in the background.
const SETTLE: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with records.jsonl and vectors.f16.npy (see bench/demo/README.md) [default: made-up records]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Records that a line of the table writes at most
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
    /// Seconds after which a line of the table begins no more writes
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Records in a batch
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 300], value_parser = clap::value_parser!(u32).range(1..))]
    batches: Vec<u32>,
    /// Writers at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16], value_parser = clap::value_parser!(u32).range(1..))]
    writers: Vec<u32>,
    /// Leave the original server out
    #[arg(long)]
    alone: bool,
    /// Then tell where the processor time of one writer's writes goes
    #[arg(long)]
    profile: bool,
}

/// A server under measurement.
struct Server {
    name: &'static str,
    url: String,
    /// Its processes.
    parts: Vec<(&'static str, u32)>,
    /// The store behind it, if it has one that counts requests.
    store: Option<StoreAdmin>,
}

/// A line of the table.
struct Line {
    batch: u32,
    writers: u32,
    server: &'static str,
    measured: Measured,
    /// Seconds of processor time, by process; the last is the client's.
    cpu: Vec<(&'static str, f64)>,
    /// Puts to the store, where they are counted.
    puts: Option<u64>,
}

/// Measures and prints; the ratios come last.
pub(super) fn run(place: &Place, arguments: &Arguments, data: &Path) -> Result<()> {
    let mut config = Config::new(test::programs(place, &build::DEPLOYED)?, data.join("opal"));
    config.inspector = arguments.profile;
    let stack = Stack::start(config)?;
    let original = (!arguments.alone).then(|| Original::start(place, &data.join("original"))).transpose()?;
    let servers: Vec<Server> = [ours(&stack)].into_iter().chain(original.as_ref().map(theirs)).collect();

    eprintln!("== preparing records");
    let records = Records::load(arguments.data.as_deref(), usize::try_from(arguments.records)?)?;
    println!("{} records of {} dimensions\n\n{HEADINGS}", records.len(), records.vectors[0].len());
    let mut lines = Vec::new();
    for &batch in &arguments.batches {
        let bodies = records.bodies(usize::try_from(batch)?);
        for (&writers, server) in
            arguments.writers.iter().flat_map(|writers| servers.iter().map(move |server| (writers, server)))
        {
            let limit = Duration::from_secs(arguments.seconds);
            let line = measure(server, (batch, writers), &records.warm_up(), &bodies, limit)?;
            println!("{line}");
            lines.push(line);
        }
    }
    if original.is_some() {
        print_ratios(&lines);
    }
    if let Some(inspector) = stack.inspector() {
        for &batch in &arguments.batches {
            profile(place, &inspector, &servers[0], batch, &records, Duration::from_secs(arguments.seconds))?;
        }
    }
    stack.stop();
    Ok(())
}

/// The lines of both servers follow each other.
fn print_ratios(lines: &[Line]) {
    println!("\nacknowledged records a second, opal : original");
    for pair in lines.chunks_exact(2) {
        let ratio = pair[0].records_a_second() / pair[1].records_a_second();
        println!("batch {:>4}, {:>2} writers  {ratio:>6.2}", pair[0].batch, pair[0].writers);
    }
}

/// Prints the shares of the processes, and of the stages within the gateway. Sampling costs time itself: only shares count.
fn profile(
    place: &Place,
    inspector: &str,
    server: &Server,
    batch: u32,
    records: &Records,
    limit: Duration,
) -> Result<()> {
    let bodies = records.bodies(usize::try_from(batch)?);
    let profiler = Profiler::start(place, inspector, "gateway")?;
    let line = measure(server, (batch, 1), &records.warm_up(), &bodies, limit)?;
    println!("\nbatch {batch}, 1 writer: processor time by process, then the gateway's by stage");
    let total: f64 = line.cpu.iter().map(|(_, seconds)| seconds).sum();
    for (name, share) in line.cpu.iter().map(|(part, seconds)| (*part, seconds / total)).chain(profiler.stop()?) {
        println!("{name:<28}{:>6.1} %", share * 100.0);
    }
    Ok(())
}

fn ours(stack: &Stack) -> Server {
    Server {
        name: "opal",
        url: stack.gateway_url(),
        parts: Part::ALL.into_iter().filter_map(|part| Some((part.name(), stack.pid(part)?))).collect(),
        store: Some(stack.store_admin()),
    }
}

fn theirs(original: &Original) -> Server {
    Server { name: "original", url: original.url().to_owned(), parts: vec![("original", original.pid())], store: None }
}

/// Writes `bodies` to a new collection, checks that every record is there, and removes it.
fn measure(
    server: &Server,
    (batch, writers): (u32, u32),
    warm_up: &[u8],
    bodies: &[Vec<u8>],
    limit: Duration,
) -> Result<Line> {
    let mut client = Client::new(&server.url);
    let collection = Collection::make(&server.url, "bench", "cosine")?;
    let add = collection.path("add");
    client.call("POST", &add, warm_up)?;
    settle(server)?;

    let (cpu_before, puts_before) = (cpu(server)?, puts(server)?);
    let measured = load::run(&server.url, &add, bodies, usize::try_from(writers)?, limit)?;
    ensure!(!sh::stopped(), "stopped by a signal");
    let spent = cpu(server)?.into_iter().zip(cpu_before).map(|((part, after), (_, before))| (part, after - before));
    let puts = puts(server)?.zip(puts_before).map(|(after, before)| after - before);
    let line = Line { batch, writers, server: server.name, measured, cpu: spent.collect(), puts };

    collection.expect(usize::try_from(line.records() + 1)?)?;
    client.call("DELETE", &format!("{DATABASE}/collections/bench"), b"")?;
    settle(server)?;
    Ok(line)
}

fn settle(server: &Server) -> Result<()> {
    let pids: Vec<u32> = server.parts.iter().map(|(_, pid)| *pid).collect();
    cpu::settle(&pids, SETTLE)
}

/// Processor time by process, in seconds; the last is ours.
fn cpu(server: &Server) -> Result<Vec<(&'static str, f64)>> {
    let parts = server.parts.iter().copied().chain([("client", std::process::id())]);
    parts.map(|(name, pid)| Ok((name, cpu::seconds(pid)?))).collect()
}

fn puts(server: &Server) -> Result<Option<u64>> {
    let totals = server.store.map(StoreAdmin::totals).transpose()?;
    Ok(totals.map(|totals| totals["requests"]["PutObject"].as_u64().unwrap_or(0)))
}

const HEADINGS: &str =
    "batch writers server     records/s  writes/s   p50 ms   p99 ms  puts/write  cores  cpu ms per 1,000 records";

impl Line {
    fn records(&self) -> u64 {
        self.measured.writes as u64 * u64::from(self.batch)
    }

    fn records_a_second(&self) -> f64 {
        self.records() as f64 / self.measured.elapsed.as_secs_f64()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { batch, writers, server, measured, cpu, puts } = self;
        let (elapsed, writes) = (measured.elapsed.as_secs_f64(), measured.writes as f64);
        let [p50, p99] = [0.5, 0.99].map(|share| measured.percentile(share).as_secs_f64() * 1e3);
        let puts = puts.map_or_else(String::new, |puts| format!("{:.2}", puts as f64 / writes));
        let cores = cpu.iter().map(|(_, seconds)| seconds).sum::<f64>() / elapsed;
        write!(f, "{batch:>5} {writers:>7} {server:<9}{:>11.0}{:>10.1}", self.records_a_second(), writes / elapsed)?;
        write!(f, "{p50:>9.1}{p99:>9.1}{puts:>12}{cores:>7.2} ")?;
        for (part, seconds) in cpu {
            write!(f, " {part} {:.0}", seconds * 1e6 / self.records() as f64)?;
        }
        Ok(())
    }
}
