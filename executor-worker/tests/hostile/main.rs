//! Whatever stands in the bucket, reading it ends with an error or with an answer: never with a panic, never with more memory
//! than the bytes account for. And whatever is changed without its checksum is noticed.
//!
//! Valid bytes are changed in many ways (`mutate`), from seeds that are the same in every run. Each change is read twice: as
//! it is, which must be an error, and with all checksums made to fit again, which gets behind them. What can be decoded is
//! used as a search uses it. `OPAL_FUZZ` says how many changes each reader sees; a failure names the change, which has the
//! same number in every run.
//!
//! Not under a checksum, and so not noticed: headers and footers of Arrow files, which no reader looks at; whatever is behind
//! the end of an object; the start of a fragment for writers, who read no more of it; the catalog's manifest.

#![expect(clippy::unwrap_used, reason = "this is a test: it fails by panics")]

mod bucket;
mod logs;
mod memory;
mod mutate;
mod seals;
mod segments;
mod vectors;

use mutate::Random;
use std::fmt::Display;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Changes that a reader sees, unless `OPAL_FUZZ` says otherwise.
const CHANGES: u64 = 10_000;
/// What a reader may hold besides a multiple of what it reads, in bytes.
const MEMORY_BYTES: usize = 512 * 1024;
/// Longer than any read takes, on a busy machine too.
const SLOWEST: Duration = Duration::from_secs(10);
/// So many bytes of memory a byte that is read: positions take a byte at least and become eight, in a list that doubles.
const MEMORY_PER_BYTE: usize = 24;

/// Reads bytes and uses what they are. Errors say what is wrong with them.
type Reader<'a> = Box<dyn Fn(&[u8]) -> Result<(), String> + 'a>;

/// Bytes, and what reads them.
struct Target<'a> {
    name: &'static str,
    valid: Vec<u8>,
    /// Where most changes are made.
    focus: Range<usize>,
    /// Whether any change is noticed, if nobody adapts the checksums.
    is_sealed: bool,
    read: Reader<'a>,
    /// The same, once all checksums were made to fit.
    read_mended: Reader<'a>,
}

/// How many changes to look at, where `readers` of one kind share what is usual.
fn changes(readers: usize) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test is an entry point")]
    let asked = std::env::var("OPAL_FUZZ").ok();
    asked.map_or(CHANGES, |asked| asked.parse().expect("OPAL_FUZZ is a number")) / readers as u64
}

/// Reads `target` changed in many ways; `readers` of its kind share them.
fn fuzz(target: &Target<'_>, readers: usize) {
    let Target { name, valid, focus, is_sealed, read, read_mended } = target;
    assert_eq!(read(valid), Ok(()), "{name}: what was written cannot be read");
    assert_eq!(read_mended(valid), Ok(()), "{name}: checksums are mended wrongly");
    let (mut accepted, all) = (0, changes(readers));
    for change in 0..all {
        let bytes = mutate::mutate(&mut Random::of(name, change), valid, focus);
        let outcome = survive(name, change, bytes.len(), || read(&bytes));
        // What is behind an object's end nobody asks for.
        let is_changed = bytes.get(..valid.len()) != Some(&valid[..]);
        assert!(!*is_sealed || !is_changed || outcome.is_err(), "{name}: change {change} was not noticed");
        accepted += u64::from(survive(name, change, bytes.len(), || read_mended(&bytes)).is_ok());
    }
    println!("{name}: {accepted} of {all} changes are read once checksums fit");
}

fn told<T, E: Display>(outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|error| error.to_string())
}

/// What `read` returns, if it neither panics nor takes long nor more memory than `bytes` bytes are good for.
fn survive<T>(name: &str, change: u64, bytes: usize, read: impl FnOnce() -> T) -> T {
    #[expect(clippy::disallowed_methods, reason = "a test may look at the clock")]
    let began = std::time::Instant::now();
    let (outcome, peak) = memory::peak(|| catch_unwind(AssertUnwindSafe(read)));
    assert!(began.elapsed() < SLOWEST, "{name}: change {change} takes {:?}", began.elapsed());
    let outcome = outcome.unwrap_or_else(|_| panic!("{name}: change {change} panics"));
    let most = MEMORY_BYTES + MEMORY_PER_BYTE * bytes;
    assert!(peak <= most, "{name}: change {change} takes {peak} bytes of memory for {bytes}");
    outcome
}
