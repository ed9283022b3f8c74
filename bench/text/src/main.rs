//! `cargo run --release -p bench-text -- RECORDS.jsonl`: builds the text index of real records and asks it.
//!
//! Each line of the file is an object with `document` and `metadata`. Every question starts with nothing but the hotcache in
//! memory. A wave is what is asked for at the same time; reads are counted as the executor makes them, which joins ranges less
//! than 32 KiB apart. The bundle lies in memory, so that the times are those of computing only.

mod plain;

use anyhow::{Context, Result, bail};
use model::{Comparison, DocumentTest, Filter, Language, Metadata, MetadataTest, MetadataValue, Scalar, Words, limits};
use query::{CompiledFilter, Fields};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Instant;
use text::{Builder, Built, Keywords, Options, Plan, Ranking, Row, Search, Step, TextIndex};

/// A record as the file has it.
#[derive(Deserialize)]
struct Line {
    document: String,
    metadata: Metadata,
}

impl Fields for Line {
    fn metadata(&self, key: &str) -> Option<&MetadataValue> {
        self.metadata.get(key)
    }

    fn document(&self) -> Option<&str> {
        Some(&self.document)
    }

    fn uri(&self) -> Option<&str> {
        None
    }
}

const ENGLISH: Words = Words { stem: Some(Language::English), stop_words: Some(Language::English) };

fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("which file of records, as JSON lines?")?;
    let lines: Vec<Line> = BufReader::new(File::open(path)?)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<_>>()?;
    let texts: usize = lines.iter().map(|line| line.document.len()).sum();
    let metadata: usize =
        lines.iter().map(|line| serde_json::to_vec(&line.metadata).map_or(0, |json| json.len())).sum();
    println!("{} rows, {} of text, {} of metadata as JSON", lines.len(), mb(texts), mb(metadata));
    plain::print(&lines)?;

    println!("\n| indexed | bundle | hotcache | a byte of text and metadata | rows/s | peak memory |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let all = Options { words: Some(ENGLISH), ..Options::default() };
    let metadata_only = Options { documents: false, ..Options::default() };
    for (name, options) in [("metadata", &metadata_only), ("and grams", &Options::default()), ("and words", &all)] {
        let (built, seconds) = build(&lines, options);
        let bundle: usize = built.iter().map(|part| part.bundle.len()).sum();
        let hotcache: usize = built.iter().map(|part| part.hotcache.len()).sum();
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let (ratio, speed) = (bundle as f64 / (texts + metadata) as f64, lines.len() as f64 / seconds);
        println!("| {name} | {} | {} | {ratio:.2} | {speed:.0} | {} |", mb(bundle), kb(hotcache), peak_memory());
    }
    let (built, _) = build(&lines, &all);
    let [built] = &built[..] else { bail!("this bench asks one part") };
    ask_all(&lines, built)?;
    rank(built)
}

fn build(lines: &[Line], options: &Options) -> (Vec<Built>, f64) {
    #[expect(clippy::disallowed_methods, reason = "a bench measures")]
    let start = Instant::now();
    let mut builder = Builder::new(options.clone(), limits::TEXT_PART_BYTES_MAX);
    let row = |line: &Line| builder.push(&row_of(line));
    let mut built: Vec<Built> = lines.iter().filter_map(row).collect();
    built.extend(builder.finish());
    (built, start.elapsed().as_secs_f64())
}

fn row_of(line: &Line) -> Row<'_> {
    Row { metadata: Some(&line.metadata), document: Some(&line.document), uri: None }
}

/// The most memory that this process ever had, as the system says.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".to_owned(), |peak| peak.trim().to_owned())
}

fn compare(key: &str, comparison: Comparison, operand: Scalar) -> Filter {
    Filter::Metadata { key: key.to_owned(), test: MetadataTest::Compare(comparison, operand) }
}

fn equal(key: &str, value: &str) -> Filter {
    compare(key, Comparison::Eq, Scalar::Str(value.to_owned()))
}

fn contains(text: &str) -> Filter {
    Filter::Document(DocumentTest::Contains(text.to_owned()))
}

fn regex(pattern: &str) -> Filter {
    Filter::Document(DocumentTest::Regex(pattern.to_owned()))
}

/// The number that so many of a hundred records are above.
fn above(lines: &[Line], key: &str, percent: usize) -> Filter {
    let number = |line: &Line| match line.metadata.get(key) {
        #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
        Some(MetadataValue::Int(int)) => Some(*int as f64),
        Some(MetadataValue::Float(float)) => Some(*float),
        _ => None,
    };
    let mut numbers: Vec<f64> = lines.iter().filter_map(number).collect();
    numbers.sort_unstable_by(f64::total_cmp);
    let operand = numbers.get(numbers.len() * (100 - percent) / 100).copied().unwrap_or_default();
    compare(key, Comparison::Gt, Scalar::Float(operand))
}

fn filters(lines: &[Line]) -> Vec<(&'static str, Filter)> {
    let sources = lines.iter().step_by(lines.len() / 100 + 1).filter_map(|line| match line.metadata.get("source") {
        Some(MetadataValue::Str(source)) => Some(Scalar::Str(source.clone())),
        _ => None,
    });
    let some = Filter::Metadata { key: "source".to_owned(), test: MetadataTest::In(sources.collect()) };
    vec![
        ("a unique text", equal("source", "4pane")),
        ("`$in` of 100 texts", some),
        ("a section", equal("section", "x11")),
        ("integers, 1 %", above(lines, "installed_kb", 1)),
        ("integers, 10 %", above(lines, "installed_kb", 10)),
        ("integers, 50 %", above(lines, "installed_kb", 50)),
        ("floats, 50 %", above(lines, "size_mb", 50)),
        ("a boolean", compare("has_homepage", Comparison::Eq, Scalar::Bool(true))),
        ("`$contains` `e`", contains("e")),
        ("`$contains` `th`", contains("th")),
        ("`$contains` `the`", contains("the")),
        ("`$contains` `library`", contains("library")),
        ("`$contains` `the th`", contains("the th")),
        ("`$contains` `python`", contains("python")),
        ("`$contains` `kernel module`", contains("kernel module")),
        ("`$contains` `Decompress flashfiles`", contains("Decompress flashfiles")),
        ("`$contains` `qqqzz`", contains("qqqzz")),
        ("regex `lib[a-z]+-dev`", regex("lib[a-z]+-dev")),
        ("regex `(?i)haskell (compiler\\|library)`", regex("(?i)haskell (compiler|library)")),
        ("regex `kernel.{0,20}module`", regex("kernel.{0,20}module")),
        ("regex `[0-9]{4}`", regex("[0-9]{4}")),
        (
            "section and integers and `library` and `python`",
            Filter::And(vec![
                equal("section", "python"),
                above(lines, "installed_kb", 50),
                contains("library"),
                contains("python"),
            ]),
        ),
        ("not `library`", Filter::Document(DocumentTest::NotContains("library".to_owned()))),
    ]
}

fn ask_all(lines: &[Line], built: &Built) -> Result<()> {
    println!(
        "\n| filter | rows | unsure | waves | reads | bytes | computing |\n| --- | --- | --- | --- | --- | --- | --- |"
    );
    for (name, filter) in filters(lines) {
        let index = TextIndex::open(&built.hotcache)?;
        let plan = Plan::compile(&filter)?;
        let mut search = Search::new(&index, &plan, limits::TEXT_SEARCH_BYTES_MAX);
        let (matches, cost) = answered(&index, &built.bundle, || search.step())?;
        let verify = CompiledFilter::compile(&filter)?;
        let row = |row: u32| usize::try_from(row).ok().and_then(|row| lines.get(row));
        let verified = matches.unsure.iter().filter(|n| row(*n).is_some_and(|line| verify.matches(line))).count();
        let found = matches.sure.len() + verified as u64;
        let expected = lines.iter().filter(|line| verify.matches(*line)).count() as u64;
        if found != expected {
            bail!("{name}: the index says {found} rows, the plain evaluator {expected}");
        }
        println!("| {name} | {found} | {} | {cost} |", matches.unsure.len());
    }
    Ok(())
}

fn rank(built: &Built) -> Result<()> {
    println!("\n| BM25 | hits | waves | reads | bytes | computing |\n| --- | --- | --- | --- | --- | --- |");
    for text in ["python", "a small web server", "library for parsing the configuration files of the kernel"] {
        let index = TextIndex::open(&built.hotcache)?;
        let keywords = Keywords::new(text, ENGLISH);
        let ranking = Ranking::new(&index, &keywords).context("words are indexed")?;
        let (statistics, dictionary) = answered(&index, &built.bundle, || ranking.statistics())?;
        let (hits, postings) = answered(&index, &built.bundle, || ranking.top(10, &statistics, None))?;
        println!("| `{text}` | {} | {} |", hits.len(), dictionary.plus(&postings));
    }
    Ok(())
}

/// Ranges that are no farther apart are read as one.
const GAP_BYTES: u64 = 32 * 1024;

/// What an answer cost.
#[derive(Default)]
struct Cost {
    waves: usize,
    reads: usize,
    bytes: u64,
    ms: f64,
}

impl Cost {
    fn plus(&self, other: &Cost) -> Cost {
        Cost {
            waves: self.waves + other.waves,
            reads: self.reads + other.reads,
            bytes: self.bytes + other.bytes,
            ms: self.ms + other.ms,
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = usize::try_from(self.bytes).map_or_else(|_| "many".to_owned(), kb);
        write!(f, "{} | {} | {bytes} | {:.1} ms", self.waves, self.reads, self.ms)
    }
}

/// Steps until it is done, with the bytes of `bundle`.
fn answered<T>(
    index: &TextIndex,
    bundle: &[u8],
    mut step: impl FnMut() -> Result<Step<T>, text::TextError>,
) -> Result<(T, Cost)> {
    let mut cost = Cost::default();
    loop {
        #[expect(clippy::disallowed_methods, reason = "a bench measures")]
        let start = Instant::now();
        let stepped = step()?;
        cost.ms += start.elapsed().as_secs_f64() * 1e3;
        let ranges = match stepped {
            Step::Done(answer) => return Ok((answer, cost)),
            Step::Needs(ranges) => ranges,
        };
        cost.waves += 1;
        let mut last = None;
        for range in ranges {
            let gap = last.map(|last| range.start - last);
            cost.reads += usize::from(gap.is_none_or(|gap| gap > GAP_BYTES));
            cost.bytes += range.end - range.start + gap.filter(|gap| *gap <= GAP_BYTES).unwrap_or_default();
            last = Some(range.end);
            let bytes = bundle.get(usize::try_from(range.start)?..usize::try_from(range.end)?);
            index.supply(range, bytes.context("the bundle has what it needs")?.to_vec())?;
        }
    }
}

fn mb(bytes: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mb = bytes as f64 / 1e6;
    format!("{mb:.1} MB")
}

fn kb(bytes: usize) -> String {
    format!("{} KB", bytes.div_ceil(1_000))
}
