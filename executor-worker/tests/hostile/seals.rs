//! Makes checksums fit again, as docs/formats.md has them: what is behind them is read as well.

use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Kinds of sections.
pub(crate) const BATCHES: u64 = 1;
pub(crate) const IDS: u64 = 4;
pub(crate) const CODES: u64 = 6;
pub(crate) const NEAR_BATCHES: u64 = 8;
/// Those that lie in the object with the table.
const INSIDE: [u64; 6] = [BATCHES, 2, 3, IDS, 7, NEAR_BATCHES];

const SECTIONS_AT: usize = 20;
const TABLE_AT: usize = 40;
const ENTRY_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 8;
const PAGE_BYTES: usize = 4_096;

/// The little-endian number of `length` bytes at `at`; 0 beyond the end.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let mut number = [0; 8];
    let bytes = bytes.get(at..at.saturating_add(length)).unwrap_or_default();
    number[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

/// A stretch of `bytes`, if there is one of this length.
fn stretch(bytes: &[u8], start: u64, length: u64) -> Option<Range<usize>> {
    let range = usize::try_from(start).ok()?..usize::try_from(start.checked_add(length)?).ok()?;
    bytes.get(range.clone()).map(|_| range)
}

/// Where the entries are that the table of `head` counts and `head` has.
fn entries(head: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let room = head.len().saturating_sub(TABLE_AT) / ENTRY_BYTES;
    let count = usize::try_from(number(head, SECTIONS_AT, 4)).expect("it has four bytes");
    (0..count.min(room)).map(|entry| TABLE_AT + entry * ENTRY_BYTES)
}

/// Of an object `head` or `index`: sections, pages of ids and the table.
pub(crate) fn mend_head(head: &mut [u8]) {
    for entry in entries(head) {
        let kind = number(head, entry, 4);
        let section = stretch(head, number(head, entry + 8, 8), number(head, entry + 16, 8));
        let Some(section) = section.filter(|_| INSIDE.contains(&kind)) else { continue };
        if kind == IDS {
            head[section.clone()].as_chunks_mut::<PAGE_BYTES>().0.iter_mut().for_each(|page| mend_end(page));
        }
        let checksum = xxh3_64(&head[section]);
        head[entry + 24..entry + ENTRY_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
    let end = number(head, SECTIONS_AT, 4) * ENTRY_BYTES as u64 + TABLE_AT as u64;
    if let Some(whole) = stretch(head, 0, end + CHECKSUM_BYTES as u64) {
        mend_end(&mut head[whole]);
    }
}

/// Of what ends with the checksum of all before: a page, a leaf.
pub(crate) fn mend_end(bytes: &mut [u8]) {
    if let Some((body, checksum)) = bytes.split_last_chunk_mut::<CHECKSUM_BYTES>() {
        *checksum = xxh3_64(body).to_le_bytes();
    }
}

/// Of what ends with a magic and a checksum: fragments, packs, delete vectors.
pub(crate) fn mend_trailer(bytes: &mut [u8], magic: &[u8; 8]) {
    if let Some((body, trailer)) = bytes.split_last_chunk_mut::<16>() {
        trailer[..8].copy_from_slice(magic);
        trailer[8..].copy_from_slice(&xxh3_64(body).to_le_bytes());
    }
}

/// The bytes of the section of `kind` in a sound `head`.
pub(crate) fn section(head: &[u8], kind: u64) -> Range<usize> {
    let entry = entries(head).find(|entry| number(head, *entry, 4) == kind).expect("a sound head has it");
    stretch(head, number(head, entry + 8, 8), number(head, entry + 16, 8)).expect("it is in the head")
}

/// A sound `head` that says of the first batch in its directory of `kind` that it is `message`.
pub(crate) fn with_first_batch(head: &[u8], kind: u64, message: &[u8]) -> Vec<u8> {
    let mut head = head.to_vec();
    // Offset and number of the batches of an object, then of each its length, its rows and half its checksum.
    let batch = section(&head, kind).start + 8;
    let length = u32::try_from(message.len()).expect("a batch is small");
    head[batch..batch + 4].copy_from_slice(&length.to_le_bytes());
    head[batch + 8..batch + 12].copy_from_slice(&xxh3_64(message).to_le_bytes()[..4]);
    mend_head(&mut head);
    head
}

/// A sound `head` that says of its first object of `kind` that it is `body`.
pub(crate) fn with_object(head: &[u8], kind: u64, body: &[u8]) -> Vec<u8> {
    let mut head = head.to_vec();
    let entry = entries(&head).find(|entry| number(&head, *entry, 4) == kind).expect("a sound head has it");
    head[entry + 16..entry + 24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[entry + 24..entry + ENTRY_BYTES].copy_from_slice(&xxh3_64(body).to_le_bytes());
    mend_head(&mut head);
    head
}
