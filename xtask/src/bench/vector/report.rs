//! What was measured, as tables, and how it grows.

use std::fmt;
use std::time::Duration;

use super::super::collection::Cost;
use super::super::compactor::Spent;
use super::super::load::Measured;

/// Marks of the plot for ten times as much, and at most: what was nearly nothing grows without measure.
const MARKS: f64 = 20.0;
const MARKS_MAX: f64 = 80.0;

/// What was measured of one collection.
pub(super) struct Line {
    pub(super) records: usize,
    pub(super) dimension: usize,
    pub(super) segments: u64,
    pub(super) built: Spent,
    /// Isolates that had to start.
    pub(super) new: Asked,
    /// Isolates that did not know the collection.
    pub(super) cold: Asked,
    pub(super) warm: Warm,
}

/// Queries, one after the other.
pub(super) struct Asked {
    pub(super) recall: f64,
    pub(super) costs: Vec<Cost>,
}

/// An isolate that had read what it may keep.
pub(super) struct Warm {
    pub(super) asked: Asked,
    pub(super) times: Measured,
    /// Processor time of the Workers for a query.
    pub(super) cpu_ms: f64,
}

impl Asked {
    fn mean(&self, of: impl Fn(&Cost) -> f64) -> f64 {
        self.costs.iter().map(of).sum::<f64>() / self.costs.len().max(1) as f64
    }

    fn most(&self, of: impl Fn(&Cost) -> u64) -> u64 {
        self.costs.iter().map(of).max().unwrap_or(0)
    }

    /// The time that this share of the queries did not exceed.
    fn percentile(&self, share: f64) -> Duration {
        let mut times: Vec<Duration> = self.costs.iter().map(|cost| cost.took).collect();
        times.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of an index is an index")]
        let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        times.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for Asked {
    /// Behind 28 characters that say what was asked, below "recall" and the headings of a cost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.4}{}", self.recall, Cost::mean(&self.costs))
    }
}

/// What grows with the number of records.
struct Measure {
    name: &'static str,
    of: fn(&Line) -> f64,
}

const MEASURES: [Measure; 8] = [
    Measure { name: "cold GETs", of: |line| line.cold.mean(|cost| cost.reads as f64) },
    Measure { name: "cold KB", of: |line| line.cold.mean(|cost| cost.bytes as f64 / 1e3) },
    Measure { name: "cold p50 ms", of: |line| line.cold_ms(0.5) },
    Measure { name: "cold p99 ms", of: |line| line.cold_ms(0.99) },
    Measure { name: "warm GETs", of: |line| line.warm.asked.mean(|cost| cost.reads as f64) },
    Measure { name: "warm KB", of: |line| line.warm.asked.mean(|cost| cost.bytes as f64 / 1e3) },
    Measure { name: "warm CPU ms", of: |line| line.warm.cpu_ms },
    Measure { name: "warm p50 ms", of: |line| ms(line.warm.times.percentile(0.5)) },
];

impl Line {
    /// Milliseconds of a query of an isolate that did not know the collection.
    pub(super) fn cold_ms(&self, share: f64) -> f64 {
        ms(self.cold.percentile(share))
    }

    /// Records a second that were compacted, and indexed.
    pub(super) fn built_a_second(&self) -> f64 {
        self.records as f64 / self.built.elapsed.as_secs_f64()
    }
}

/// All about one collection.
pub(super) fn print_one(line: &Line) {
    let Line { built, warm, cold, new, .. } = line;
    println!("\n{} records of {} dimensions in {} segments", line.records, line.dimension, line.segments);
    println!(
        "compacted {:.0} records a second, {:.1} s in all, {:.1} s of processor time, {} MiB at most",
        line.built_a_second(),
        built.elapsed.as_secs_f64(),
        built.cpu,
        built.memory_bytes >> 20
    );
    println!("\n{:<28}  recall{}", "query, ten nearest", Cost::HEADINGS);
    println!("{:<28}{new}\n{:<28}{cold}\n{:<28}{}", "new isolates", "cold", "warm", warm.asked);
    println!(
        "cold: at most {} GETs, {} KB, {} waves; p50 {:.0} ms, p99 {:.0} ms; new isolates p50 {:.0} ms",
        cold.most(|cost| cost.reads),
        cold.most(|cost| cost.bytes / 1_000),
        cold.most(|cost| cost.waves),
        line.cold_ms(0.5),
        line.cold_ms(0.99),
        ms(new.percentile(0.5)),
    );
    let [p50, p99] = [0.5, 0.99].map(|share| ms(warm.times.percentile(share)));
    println!("warm: p50 {p50:.1} ms, p99 {p99:.1} ms, processor time of the Workers {:.1} ms", warm.cpu_ms);
}

/// All collections, and how what they cost grows.
pub(super) fn print(lines: &[Line]) {
    println!("\n   records  dimension  segments  recall  built/s  peak MiB  most GETs");
    for line in lines {
        let Line { records, dimension, segments, built, cold, .. } = line;
        let (rate, peak) = (line.built_a_second(), built.memory_bytes >> 20);
        print!("{records:>10}{dimension:>11}{segments:>10}{:>8.4}{rate:>9.0}{peak:>10}", cold.recall);
        println!("{:>11}", cold.most(|cost| cost.reads));
    }
    print!("\n{:<12}", "");
    lines.iter().for_each(|line| print!("{:>14}", format!("{}x{}", line.records, line.dimension)));
    println!();
    for Measure { name, of } in &MEASURES {
        print!("{name:<12}");
        lines.iter().for_each(|line| print!("{:>14.1}", of(line)));
        println!();
    }
    if let [first, .., last] = lines {
        plot(first, last);
    }
}

/// How many times as much it became from the first collection to the last: marks are logarithms.
fn plot(first: &Line, last: &Line) {
    println!("\nfrom {} records to {}, times; {MARKS} marks are ten times", first.records, last.records);
    let bar = |name: &str, times: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "so few marks are a number")]
        let marks = (times.log10() * MARKS).clamp(0.0, MARKS_MAX).round() as usize;
        println!("{name:<12}{times:>8.2}  {}", "#".repeat(marks));
    };
    bar("records", last.records as f64 / first.records as f64);
    MEASURES.iter().for_each(|measure| bar(measure.name, (measure.of)(last) / (measure.of)(first)));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
