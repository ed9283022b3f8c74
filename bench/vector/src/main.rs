//! Measures the index of vectors: recall against bytes, reads and time, over files of vectors and made-up ones.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "figures are rounded")]

mod churn;
mod data;
mod search;

use data::Data;
use model::Space;
use search::Truth;
use std::path::Path;
use std::time::Instant;
use vector::probe::{Budget, Effort, Rerank};
use vector::{Clustering, Codec, Index, Leaves, Options, Rows};

const USAGE: &str =
    "bench-vector [--npy FILE | --synthetic ROWSxDIMENSION] [--space l2|cosine|ip] [--leaf 64,128] [--bits 0,4]
    [--churn [--later ROWS | --grow ROWS [--rounds 10]]] [--centroid-bits 4] [--queries 500] [--threads 2] [--limit ROWS] [--kb 500,1000 (else: the standard effort, twice that, and leaves at hand)] [--ranges 10,1000] [--rerank 20,50]
    [--row-ranges 8] [--gap-kb 64] [--neighbour-kb 4000] [--ratio 9] | --kernels | --synthetic ROWSxDIMENSION --write DIR";

fn main() -> Result<(), String> {
    let arguments = Arguments(std::env::args().skip(1).collect());
    if arguments.0.iter().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return Ok(());
    }
    if arguments.0.iter().any(|argument| argument == "--kernels") {
        kernels();
        return Ok(());
    }
    let mut data = load(&arguments)?;
    if let Some(folder) = arguments.get("--write") {
        return data.write(Path::new(folder)).map_err(|error| format!("{folder}: {error}"));
    }
    let space = match arguments.get("--space").unwrap_or("cosine") {
        "l2" => Space::L2,
        "ip" => Space::Ip,
        _ => Space::Cosine,
    };
    let threads = arguments.number("--threads", 2);
    if space == Space::Cosine {
        vector::normalise(&mut data.rows, data.dimension);
    }
    if arguments.0.iter().any(|argument| argument == "--churn") {
        churn(&arguments, &data, space, threads);
        return Ok(());
    }
    let start = now();
    let truth = Truth::new(space, &data, 10);
    println!("# {} {space:?}: {} rows, truth in {:.1} s", data.name, data.count(), seconds(start));
    for leaf in arguments.list("--leaf", "128") {
        let clustering = Clustering::of(leaf as u32, 1, threads);
        let (start, cpu) = (now(), cpu_seconds());
        let leaves = vector::cluster::cluster(Rows::new(&data.rows, data.dimension), &clustering);
        println!(
            "\nleaf {leaf}: {} leaves in {:.1} s ({:.1} s CPU), peak memory {:.2} GB",
            leaves.rows.len(),
            seconds(start),
            cpu_seconds() - cpu,
            peak_gb()
        );
        for bits in arguments.list("--bits", "0") {
            for centroid_bits in arguments.list("--centroid-bits", "0") {
                let mut codec = Codec::of(data.dimension);
                if bits > 0.0 {
                    codec.bits = bits as u32;
                }
                let default_bits = Codec::centroid_bits(data.dimension);
                let centroid_bits = if centroid_bits > 0.0 { centroid_bits as u32 } else { default_bits };
                let options = Options { space, clustering, codec, centroid_bits };
                one_index(&arguments, &data, &truth, &leaves, &options);
            }
        }
    }
    Ok(())
}

fn one_index(arguments: &Arguments, data: &Data, truth: &Truth, leaves: &Leaves, options: &Options) {
    let start = now();
    let index = vector::build::index(Rows::new(&data.rows, data.dimension), leaves.clone(), options);
    println!(
        "bits {} centroid bits {}: coded in {:.1} s, {} B a row, {:.1} MB leaves, {:.2} MB table",
        options.codec.bits,
        options.centroid_bits,
        seconds(start),
        options.codec.row_bytes(),
        index.codes.len() as f64 / 1e6,
        index.table.encoded_len() as f64 / 1e6,
    );
    efforts(arguments, data, truth, &index, options.space);
}

fn efforts(arguments: &Arguments, data: &Data, truth: &Truth, index: &Index, space: Space) {
    println!("{}", search::HEADING);
    if arguments.get("--kb").is_none() {
        let standard = Effort::cold(data.dimension, 10);
        let warm = Effort { leaves: Budget { ranges: usize::MAX, ..standard.leaves }, ..standard };
        for effort in [standard, standard.times(2), warm] {
            search::measure(data, truth, index, space, &effort).print(&effort);
        }
        return;
    }
    for ratio in arguments.list("--ratio", "9") {
        for ranges in arguments.list("--ranges", "10") {
            for kb in arguments.list("--kb", "") {
                for rerank in arguments.list("--rerank", "100") {
                    let effort = Effort {
                        leaves: Budget { bytes: (kb * 1000.0) as u64, ranges: ranges as usize },
                        ratio: ratio as f32,
                        rerank: Rerank {
                            k: 10,
                            rows: rerank as usize,
                            row_bytes: 4 * data.dimension as u64,
                            ranges: arguments.number("--row-ranges", 8),
                            gap_bytes: 1000 * arguments.number("--gap-kb", 64) as u64,
                            neighbour_bytes: 1000 * arguments.number("--neighbour-kb", 4000) as u64,
                        },
                    };
                    search::measure(data, truth, index, space, &effort).print(&effort);
                }
            }
        }
    }
}

/// Three tenths of the rows replaced and two tenths deleted; or `--later` rows added to all others.
fn churn(arguments: &Arguments, data: &Data, space: Space, threads: usize) {
    let mut codec = Codec::of(data.dimension);
    codec.bits = arguments.number("--bits", codec.bits as usize) as u32;
    let clustering = Clustering::of(arguments.number("--leaf", 128) as u32, 1, threads);
    let default_bits = Codec::centroid_bits(data.dimension) as usize;
    let options =
        Options { space, clustering, codec, centroid_bits: arguments.number("--centroid-bits", default_bits) as u32 };
    let later = arguments.get("--later").and_then(|later| later.parse().ok());
    if let Some(first) = arguments.get("--grow").and_then(|first| first.parse().ok()) {
        let (updated, anew) = churn::grown(data, &options, first, arguments.number("--rounds", 10));
        let truth = Truth::new(space, data, 10);
        for (name, index) in [("updated", &updated), ("anew", &anew)] {
            println!("{name}:");
            efforts(arguments, data, &truth, index, space);
        }
        return;
    }
    let (data, updated, anew) = churn::churned(data, &options, later);
    let truth = Truth::new(space, &data, 10);
    for (name, index) in [("updated", &updated), ("anew", &anew)] {
        println!("{name}:");
        efforts(arguments, &data, &truth, index, space);
    }
}

/// Millions of rows a second whose distances are estimated, by dimension and bits.
fn kernels() {
    for dimension in [100, 384, 1536] {
        for bits in 1..=8 {
            let codec = Codec { dimension, bits };
            let frame = vector::Frame::new(Space::L2, vec![0.0; dimension], 1.0, 1);
            let rows: Vec<f32> = (0..1024 * dimension).map(|at| (at % 97) as f32 / 97.0 - 0.5).collect();
            let centroid = vec![0.1; dimension];
            let leaves = vec![1024; 1];
            let table = vector::Table::new(frame, codec, 4, Rows::new(&centroid, dimension), &leaves, &[1.0]);
            let of = vector::codes::encode_leaf(table.frame(), codec, &table.centroid(0), rows.chunks_exact(dimension));
            let query = table.frame().query(&rows[..dimension]);
            let view = table.views(&query)[0];
            let (start, mut estimates) = (now(), Vec::new());
            for _ in 0..200 {
                estimates.clear();
                vector::codes::estimate(&query, codec, view, &of, 0, &mut estimates).expect("own codes");
            }
            println!("{dimension} dimensions, {bits} bits: {:.1}", 0.2 * 1.024 / seconds(start));
        }
    }
}

fn load(arguments: &Arguments) -> Result<Data, String> {
    let queries = arguments.number("--queries", 500);
    if let Some(path) = arguments.get("--npy") {
        return Data::npy(Path::new(path), queries, arguments.number("--limit", usize::MAX));
    }
    let (rows, dimension) = arguments.get("--synthetic").unwrap_or("100000x384").split_once('x').ok_or(USAGE)?;
    let parse = |number: &str| number.parse().map_err(|_| USAGE);
    Ok(Data::synthetic(parse(rows)?, parse(dimension)?, queries, 1))
}

struct Arguments(Vec<String>);

impl Arguments {
    fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, default: usize) -> usize {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    fn list(&self, name: &str, default: &str) -> Vec<f64> {
        self.get(name).unwrap_or(default).split(',').filter_map(|text| text.parse().ok()).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark run by hand measures time")]
fn now() -> Instant {
    Instant::now()
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// What this process computed, all threads together, in seconds, as Linux counts it in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The most memory this process had, in GB, as Linux says it.
fn peak_gb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1e6
}
