//! Bytes that somebody has damaged: opening an index and supplying pages ends with an error, never with a panic, and never
//! asks for memory that the bytes do not account for. A program of its own, because it looks at every allocation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use model::{Metadata, MetadataValue, limits};
use proptest::collection::vec;
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use text::{Builder, Built, Options, Row, TextError, TextIndex};

thread_local! {
    /// The largest allocation of the thread since it was set to 0. (Other tests build meanwhile.)
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn watch(layout: Layout) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
}

struct Watched;

// SAFETY: every call goes to the system's allocator unchanged; watching touches no memory of the caller.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch(layout);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        watch(layout);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// More than anything here has reason to ask for.
const LARGEST_MAX: usize = 1 << 20;

fn built() -> Built {
    let mut builder = Builder::new(Options::default(), limits::TEXT_PART_BYTES_MAX);
    for n in 0..300_i64 {
        let metadata = Metadata::from([
            ("n".to_owned(), MetadataValue::Int(n)),
            ("text".to_owned(), MetadataValue::Str(format!("value {}", n % 7))),
        ]);
        let document = format!("document {n} of some words {}", n * n * n);
        let row = Row { metadata: Some(&metadata), document: Some(&document), uri: None };
        assert!(builder.push(&row).is_none());
    }
    builder.finish().unwrap()
}

/// `hotcache` with the checksum that its bytes now have.
fn resealed(mut hotcache: Vec<u8>) -> Vec<u8> {
    let at = hotcache.len() - 8;
    let checksum = xxhash_rust::xxh3::xxh3_64(&hotcache[..at]);
    hotcache[at..].copy_from_slice(&checksum.to_le_bytes());
    hotcache
}

fn is_refused(hotcache: &[u8]) -> bool {
    LARGEST.set(0);
    let result = TextIndex::open(hotcache);
    assert!(LARGEST.get() < LARGEST_MAX);
    result.is_err()
}

#[test]
fn damaged_bytes_are_errors() {
    let built = built();
    assert!(!is_refused(&built.hotcache));
    for length in 0..built.hotcache.len() {
        assert!(is_refused(&built.hotcache[..length]), "{length} bytes were accepted");
    }
    let flips = (0..built.hotcache.len()).map(|at| (at, 1_u8 << (at % 8)));
    for (at, bit) in flips {
        let mut hotcache = built.hotcache.clone();
        hotcache[at] ^= bit;
        assert!(is_refused(&hotcache), "byte {at}");
    }
    let index = TextIndex::open(&built.hotcache).unwrap();
    for (number, page) in built.bundle.chunks(4096).enumerate() {
        let start = number as u64 * 4096;
        let mut flipped = page.to_vec();
        flipped[page.len() / 2] ^= 1;
        let range = start..start + page.len() as u64;
        assert!(matches!(index.supply(range.clone(), flipped), Err(TextError::Damaged(_))));
        assert_eq!(index.supply(range, page.to_vec()), Ok(()));
    }
}

#[test]
fn another_version_is_named() {
    let mut hotcache = built().hotcache;
    hotcache[8] = 2;
    assert_eq!(TextIndex::open(&hotcache).err(), Some(TextError::Version(2)));
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(is_refused(&bytes));
        prop_assert!(is_refused(&resealed([b"OPALTXT1\x01\0\0\0", &bytes[..], &[0; 8]].concat())));
    }

    #[test]
    fn ranges_that_no_page_has_are_refused(start: u64, length in 0..9_000_u64) {
        let built = built();
        let index = TextIndex::open(&built.hotcache).unwrap();
        let bytes = vec![0; usize::try_from(length).unwrap()];
        let end = start.saturating_add(length);
        prop_assert!(index.supply(start..end, bytes.clone()).is_err() || length == 0);
        prop_assert!(index.supply(end..start, bytes).is_err() || length == 0);
    }
}
