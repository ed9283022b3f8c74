//! Measures the index of vectors: recall against bytes, reads and time, over files of vectors and made-up ones.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "figures are rounded")]

mod data;
mod search;

use data::Data;
use model::Space;
use search::{Effort, Truth};
use std::path::Path;
use std::time::Instant;
use vector::{Clustering, Codec, Options, Rows};

const USAGE: &str = "bench-vector [--npy FILE | --synthetic ROWSxDIMENSION] [--space l2|cosine|ip] [--leaf 64,128] [--bits 0,4]
    [--centroid-bits 4] [--queries 500] [--threads 2] [--limit ROWS] [--scan 0.02,0.05] [--ranges 10,1000] [--rerank 20,50]
    [--row-ranges 8] [--ratio 9]";

fn main() -> Result<(), String> {
    let arguments = Arguments(std::env::args().skip(1).collect());
    if arguments.0.iter().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return Ok(());
    }
    let mut data = load(&arguments)?;
    let space = match arguments.get("--space").unwrap_or("cosine") {
        "l2" => Space::L2,
        "ip" => Space::Ip,
        _ => Space::Cosine,
    };
    let threads = arguments.number("--threads", 2);
    if space == Space::Cosine {
        vector::normalise(&mut data.rows, data.dimension);
    }
    let start = now();
    let truth = Truth::new(space, &data, 10);
    println!("# {} {space:?}: {} rows, truth in {:.1} s", data.name, data.count(), seconds(start));
    for leaf in arguments.list("--leaf", "128") {
        for bits in arguments.list("--bits", "0") {
            for centroid_bits in arguments.list("--centroid-bits", "4") {
                let mut codec = Codec::of(data.dimension);
                if bits > 0.0 {
                    codec.bits = bits as u32;
                }
                let clustering = Clustering::of(leaf as u32, 1, threads);
                let options = Options { space, clustering, codec, centroid_bits: centroid_bits as u32 };
                one_index(&arguments, &data, &truth, &options);
            }
        }
    }
    Ok(())
}

fn one_index(arguments: &Arguments, data: &Data, truth: &Truth, options: &Options) {
    let start = now();
    let index = vector::build(Rows::new(&data.rows, data.dimension), options);
    let took = seconds(start);
    println!(
        "leaf {} bits {} centroid bits {}: {} leaves, built in {took:.1} s ({:.0}/s), {} B a row, {:.1} MB leaves, peak memory {:.2} GB",
        options.clustering.leaf_rows,
        options.codec.bits,
        options.centroid_bits,
        index.table.leaves(),
        data.count() as f64 / took,
        options.codec.row_bytes(),
        index.codes.len() as f64 / 1e6,
        peak_gb(),
    );
    println!(
        "  scan% ranges rerank | recall  leaf-recall | scanned% leaf-KB GETs | rows row-KB GETs | all-GETs(max) ms"
    );
    for ratio in arguments.list("--ratio", "9") {
        for ranges in arguments.list("--ranges", "10") {
            for scan in arguments.list("--scan", "0.01,0.02,0.03,0.05") {
                for rerank in arguments.list("--rerank", "20") {
                    let effort = Effort {
                        bytes: (scan * index.codes.len() as f64) as u64,
                        ranges: ranges as usize,
                        ratio: ratio as f32,
                        rerank: rerank as usize,
                        row_ranges: arguments.number("--row-ranges", 8),
                    };
                    search::measure(data, truth, &index, options.space, &effort).print(scan, &effort);
                }
            }
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

/// The most memory this process had, in GB, as Linux says it.
fn peak_gb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1e6
}
