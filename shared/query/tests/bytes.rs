//! `Overlay::bytes` against what the allocator really handed out: a cache's budget is only as good as the estimate.
//! One test in a program of its own, because it counts every allocation of the process.

use model::{Lsn, MetadataPatch, MetadataValue, Operation, OperationKind};
use query::Overlay;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A record with `words` words of text and `keys` metadata keys.
fn record(n: usize, dimension: usize, words: usize, keys: usize) -> Operation {
    let value = |key: usize| match key % 3 {
        0 => MetadataValue::Str(format!("value {n}")),
        1 => MetadataValue::Float(0.5),
        _ => MetadataValue::Strs(vec!["one".into(), "two".into()]),
    };
    let metadata: MetadataPatch = (0..keys).map(|key| (format!("key{key}"), Some(value(key)))).collect();
    Operation {
        kind: OperationKind::Add,
        embedding: Some(vec![1.0; dimension]),
        document: (words > 0).then(|| "word ".repeat(words)),
        metadata: Some(metadata),
        ..Operation::delete(format!("record-{n}").as_str().into())
    }
}

/// The estimate must be no less than what is held, and at most a quarter more: what allocators add, counted nowhere,
/// is in it.
#[track_caller]
fn check(records: usize, dimension: usize, words: usize, keys: usize) {
    let before = HELD.load(Relaxed);
    let mut overlay = Overlay::default();
    for n in 0..records {
        overlay.apply(Lsn(n as u64), [record(n, dimension, words, keys).view()]).expect("records of one dimension");
    }
    let check = |overlay: &Overlay, when: &str| {
        let (held, estimate) = (HELD.load(Relaxed) - before, overlay.bytes());
        let what = format!("{when} {records} × {dimension}, {words} words, {keys} keys: {held} held, {estimate} told");
        assert!(held <= estimate && estimate <= held + held / 4, "{what}");
    };
    check(&overlay, "after adding");
    for n in 0..records * 2 / 3 {
        overlay
            .apply(Lsn((records + n) as u64), [Operation::delete(format!("record-{n}").as_str().into()).view()])
            .expect("deletes");
    }
    check(&overlay, "after deleting from");
}

#[test]
fn estimate_is_near_what_is_held() {
    check(1_000, 384, 30, 5);
    check(20_000, 3, 0, 0);
    check(20_000, 3, 2, 1);
    check(5_000, 96, 10, 12);
    check(3, 1536, 100, 3);
}
