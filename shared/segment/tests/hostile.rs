//! Segments that somebody has changed, checksums and all: opening and reading them ends with an error or with rows, never
//! with a panic, and never asks for memory that the bytes do not account for. A program of its own, because it looks at
//! every allocation of the process.

use model::{Position, SegmentRef};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use segment::ids::IdIndex;
use segment::row::RowView;
use segment::{Builder, Built, IDS_PART, IdHash, Segment, SegmentError};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use xxhash_rust::xxh3::xxh3_64;

/// The largest allocation since it was set to 0.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: every call goes to the system's allocator unchanged; watching touches no memory of the caller.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
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
const DIMENSION: usize = 3;
const ROWS: u64 = 40;

fn built() -> Built {
    let mut builder = Builder::new(DIMENSION);
    for row in 0..ROWS {
        let (id, document) = (row.to_string(), "word ".repeat(if row % 2 == 0 { 1 } else { 700 }));
        builder.push(&RowView {
            position: Position(row * 100),
            id: &id,
            vector: &[1.0, 2.0, 3.0],
            document: Some(&document),
            uri: None,
            metadata: Some("{}"),
        });
    }
    builder.finish("prefix".to_owned())
}

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    let mut number = [0; 8];
    number[..length].copy_from_slice(&bytes[at..at + length]);
    usize::try_from(u64::from_le_bytes(number)).expect("a number of eight bytes at most")
}

/// Offsets of the head, as docs/formats.md has them.
const SECTIONS_AT: usize = 20;
const TABLE_AT: usize = 40;
const ENTRY_BYTES: usize = 32;

/// The entries of the table: kind and bytes of each section of the head object that lies in it.
fn sections(head: &[u8]) -> Vec<(usize, Range<usize>, usize)> {
    let entries = (0..number(head, SECTIONS_AT, 4)).map(|entry| TABLE_AT + entry * ENTRY_BYTES);
    let section = |at: usize| (number(head, at, 4), number(head, at + 8, 8), number(head, at + 16, 8), at + 24);
    let sections = entries.map(section).filter(|(kind, ..)| *kind <= 4);
    sections.map(|(kind, start, length, at)| (kind, start..start + length, at)).collect()
}

/// Gives `head` the checksums that its sections, its pages of ids and its table now have.
fn reseal(head: &mut [u8], sections: &[(usize, Range<usize>, usize)]) {
    for (kind, range, checksum_at) in sections {
        if *kind == 4 {
            for page in head[range.clone()].as_chunks_mut::<4_096>().0 {
                let checksum = xxh3_64(&page[..4_088]);
                page[4_088..].copy_from_slice(&checksum.to_le_bytes());
            }
        }
        let checksum = xxh3_64(&head[range.clone()]);
        head[*checksum_at..checksum_at + 8].copy_from_slice(&checksum.to_le_bytes());
    }
    let end = sections[0].1.start;
    let checksum = xxh3_64(&head[..end - 8]);
    head[end - 8..end].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads all there is, as far as it can be read. `rows` is the object of rows.
fn read(named: &SegmentRef, head: &[u8], rows: &[u8]) -> Result<(), SegmentError> {
    let get = |body: &[u8], range: &Range<u64>| -> Option<Vec<u8>> {
        body.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?).map(<[u8]>::to_vec)
    };
    let ids = IdIndex { at: named.ids_at, rows: named.rows };
    for id in 0..ROWS + 3 {
        let hash = IdHash::of(&id.to_string());
        for range in [ids.range(hash, 0), ids.whole()] {
            let _ = get(head, &range).map(|stretch| ids.find(hash, range.start, &stretch));
        }
    }
    let _ = get(head, &ids.whole()).map(|section| ids.entries(&section));
    let segment = Segment::open(head)?;
    assert_eq!(IDS_PART, "head");
    for number in 0..segment.batches() {
        let place = segment.batch(number);
        let bytes = get(rows, &place.range).unwrap_or_default();
        if let Ok(batch) = segment.decode_batch(&place, &bytes) {
            place.rows.for_each(|row| drop(batch.row(row).to_row()));
        }
    }
    let _ = get(head, &segment.positions_place()?.range).map(|bytes| segment.decode_positions(&bytes));
    let filter = get(head, &segment.filter_place()?.range).map(|bytes| segment.decode_filter(&bytes));
    if let Some(Ok(filter)) = filter {
        filter.may_contain(IdHash::of("a"));
    }
    segment.objects();
    Ok(())
}

/// A number that is taken for a length or a count.
fn hostile() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0..50_u32, (0..32_u32).prop_map(|bits| u32::MAX >> bits)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn whatever_a_segment_says_it_is_read_within_bounds(
        in_head in vec((any::<Index>(), hostile()), 0..4),
        in_rows in vec((any::<Index>(), any::<u8>()), 0..4),
        says_rows in prop_oneof![3 => Just(None), 1 => hostile().prop_map(Some)],
        is_front: bool,
    ) {
        let built = built();
        let body = |name: &str| built.parts.iter().find(|part| part.name == name).unwrap().body.to_vec();
        let (mut head, mut rows) = (body("head"), body("rows-0000.arrow"));
        let sound = sections(&head);
        let end = if is_front { built.segment.head_bytes as usize } else { head.len() } - 4;
        for (at, number) in &in_head {
            // Numbers are not aligned behind the table.
            let at = at.index(end);
            head[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        // The directory of batches: after offset and number of batches, each has its length, its rows and its checksum.
        let directory = sound[0].1.clone();
        let mut at = number(&head, directory.start, 4);
        for batch in head[directory.start + 8..directory.end].as_chunks_mut::<12>().0 {
            let length = number(batch, 0, 4);
            if let Some(message) = at.checked_add(length).and_then(|end| rows.get_mut(at..end)) {
                for (at, byte) in in_rows.iter().filter(|_| length > 0) {
                    let at = at.index(length.min(if is_front { 600 } else { length }));
                    message[at] = *byte;
                }
                batch[8..].copy_from_slice(&xxh3_64(message).to_le_bytes()[..4]);
            }
            at = at.saturating_add(length);
        }
        reseal(&mut head, &sound);
        let named = SegmentRef { rows: says_rows.unwrap_or(built.segment.rows), ..built.segment };

        LARGEST.store(0, Relaxed);
        let outcome = read(&named, &head, &rows);
        let largest = LARGEST.load(Relaxed);
        prop_assert!(largest <= LARGEST_MAX, "asked for {} bytes", largest);
        if in_head.is_empty() && in_rows.is_empty() && says_rows.is_none() {
            prop_assert_eq!(outcome, Ok(()));
        }
    }
}
