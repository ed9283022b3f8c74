//! From an id to its row, with at most one read: hashes in ascending order, whose places can be guessed.
//!
//! Hashes of ids are spread evenly, so that hash `h` of `n` lies near the `h·n`-th place, and nearly always within four
//! standard deviations (two roots of `n`) of it. A reader asks for that stretch at once, without any directory. A Bloom
//! filter beside it tells of most ids that they are not there at all.

#![expect(clippy::cast_possible_truncation, reason = "hashes are cut in halves, and places are guessed")]

use crate::{SegmentError, damaged};
use sha2::{Digest, Sha256};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

const ENTRY_BYTES: usize = 20;
const PAGE_BYTES: usize = 4_096;
/// A page ends with the XXH3-64 of what is before.
const PAGE_ENTRIES: usize = (PAGE_BYTES - 8) / ENTRY_BYTES;

/// The first half of an id's SHA-256: whoever chooses ids cannot make two meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdHash([u8; 16]);

impl IdHash {
    /// That of `id`.
    pub fn of(id: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(id.as_bytes()).into();
        IdHash(*digest.first_chunk().expect("a digest is longer"))
    }

    fn halves(self) -> (u64, u64) {
        let bits = u128::from_be_bytes(self.0);
        ((bits >> 64) as u64, (bits & u128::from(u64::MAX)) as u64)
    }

    /// Where it would lie among `rows` evenly spread ones.
    fn guess(self, rows: u32) -> u64 {
        let (high, _) = self.halves();
        ((u128::from(high) * u128::from(rows)) >> 64) as u64
    }
}

/// The pages of an index of `entries`, which come in any order and have different hashes.
pub(crate) fn encode(mut entries: Vec<(IdHash, u32)>) -> Vec<u8> {
    entries.sort_unstable();
    let mut section = Vec::with_capacity(entries.len().div_ceil(PAGE_ENTRIES) * PAGE_BYTES);
    for page in entries.chunks(PAGE_ENTRIES) {
        let start = section.len();
        for (hash, row) in page {
            section.extend_from_slice(&hash.0);
            section.extend_from_slice(&row.to_le_bytes());
        }
        section.resize(start + PAGE_BYTES - 8, 0);
        let checksum = xxh3_64(&section[start..]);
        section.extend_from_slice(&checksum.to_le_bytes());
    }
    section
}

/// The id index of a segment, as far as its manifest tells.
#[derive(Clone, Copy, Debug)]
pub struct IdIndex {
    /// Where it begins in the head object.
    pub at: u64,
    /// Number of rows.
    pub rows: u32,
}

/// What a stretch of the index says of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has this row.
    Row(u32),
    /// The segment has no such id.
    Absent,
    /// Ask again, [`IdIndex::range`] with a larger `spread`.
    Beyond,
}

impl IdIndex {
    /// The bytes of the head object in which `hash` lies if anywhere: nearly always with `spread` 0, more surely with 1, 2,
    /// and so on; whole pages.
    pub fn range(&self, hash: IdHash, spread: u32) -> Range<u64> {
        let reach = (2.0 * f64::from(self.rows).sqrt()).ceil() as u64 + 2;
        let reach = reach.saturating_mul(1 << (2 * spread.min(20)));
        let guess = hash.guess(self.rows);
        let page = |entry: u64| entry / PAGE_ENTRIES as u64;
        let (first, last) = (page(guess.saturating_sub(reach)), page(guess.saturating_add(reach)));
        let byte = |page: u64| self.at + page.min(self.pages()) * PAGE_BYTES as u64;
        byte(first)..byte(last + 1)
    }

    /// All of it.
    pub fn whole(&self) -> Range<u64> {
        self.at..self.at + self.pages() * PAGE_BYTES as u64
    }

    fn pages(&self) -> u64 {
        u64::from(self.rows).div_ceil(PAGE_ENTRIES as u64)
    }

    /// Looks for `hash` in `bytes`, the part of the head object that begins at `start` and holds [`IdIndex::range`].
    /// Errors: a page that the answer depends on is damaged, or `bytes` are not whole pages of the index.
    pub fn find(&self, hash: IdHash, start: u64, bytes: &[u8]) -> Result<Found, SegmentError> {
        let stretch = self.stretch(start, bytes)?;
        let (pages, _) = bytes.as_chunks::<PAGE_BYTES>();
        // Of the pages around the answer both are checked: it does not matter then what the others said on the way there.
        let above = pages.partition_point(|page| page.first_chunk().is_some_and(|first| *first <= hash.0));
        if let Some(page) = pages.get(above) {
            checked_page(page)?;
        }
        let goes_on = above == pages.len() && stretch.end < self.pages();
        let Some(at) = above.checked_sub(1) else {
            return Ok(if stretch.start == 0 && !goes_on { Found::Absent } else { Found::Beyond });
        };
        let own = self.entries_of(stretch.start + at as u64, &pages[at])?;
        if let Ok(found) = own.binary_search_by(|entry| entry[..16].cmp(&hash.0)) {
            return Ok(Found::Row(self.row(&own[found])?));
        }
        let is_above_all = own.last().is_none_or(|last| last[..16] < hash.0[..]);
        Ok(if goes_on && is_above_all { Found::Beyond } else { Found::Absent })
    }

    /// All rows by hash, from the whole section. Errors: it is damaged.
    pub fn entries(&self, section: &[u8]) -> Result<Vec<(IdHash, u32)>, SegmentError> {
        if self.stretch(self.at, section)?.end != self.pages() {
            return Err(damaged("the id index is cut off"));
        }
        let mut all = Vec::with_capacity(crate::index(self.rows));
        for (number, page) in (0..).zip(section.as_chunks::<PAGE_BYTES>().0) {
            for entry in self.entries_of(number, page)? {
                let hash = IdHash(*entry.first_chunk().expect("an entry begins with a hash"));
                all.push((hash, self.row(entry)?));
            }
        }
        Ok(all)
    }

    /// The numbers of the pages in `bytes`, which begin at `start`.
    fn stretch(&self, start: u64, bytes: &[u8]) -> Result<Range<u64>, SegmentError> {
        let (page, size) = (PAGE_BYTES as u64, bytes.len() as u64);
        let first = start.checked_sub(self.at).filter(|before| (before | size).is_multiple_of(page));
        let numbers = first.map(|before| before / page..before / page + size / page);
        numbers.filter(|numbers| numbers.end <= self.pages()).ok_or_else(|| damaged("not pages of the id index"))
    }

    /// The entries of page `number`.
    fn entries_of<'p>(&self, number: u64, page: &'p [u8; PAGE_BYTES]) -> Result<&'p [[u8; ENTRY_BYTES]], SegmentError> {
        let (entries, _) = checked_page(page)?.as_chunks();
        let before = number.saturating_mul(PAGE_ENTRIES as u64);
        let own = u64::from(self.rows).saturating_sub(before).min(PAGE_ENTRIES as u64);
        Ok(&entries[..own as usize])
    }

    fn row(&self, entry: &[u8; ENTRY_BYTES]) -> Result<u32, SegmentError> {
        let row = u32::from_le_bytes(*entry.last_chunk().expect("an entry ends with a row"));
        if row < self.rows { Ok(row) } else { Err(damaged("an id has a row that the segment does not have")) }
    }
}

fn checked_page(page: &[u8; PAGE_BYTES]) -> Result<&[u8], SegmentError> {
    let (body, checksum) = page.split_last_chunk::<8>().expect("a page is longer");
    if xxh3_64(body) == u64::from_le_bytes(*checksum) {
        Ok(body)
    } else {
        Err(damaged("a page of the id index does not match its checksum"))
    }
}

const FILTER_BITS_PER_ROW: u64 = 16;
/// In smaller filters the probes of different ids are the same too often.
const FILTER_WORDS_MIN: u64 = 16;
const FILTER_PROBES: u64 = 11;

/// A Bloom filter over the ids of a segment: of those that are not there it lets one in two thousand pass.
#[derive(Clone, Debug, PartialEq)]
pub struct IdFilter(Vec<u64>);

impl IdFilter {
    pub(crate) fn new(hashes: impl Iterator<Item = IdHash>, rows: usize) -> Self {
        let words = (rows as u64 * FILTER_BITS_PER_ROW).div_ceil(64).max(FILTER_WORDS_MIN);
        let mut filter = IdFilter(vec![0; crate::index(words)]);
        for hash in hashes {
            for bit in filter.bits(hash) {
                filter.0[crate::index(bit / 64)] |= 1 << (bit % 64);
            }
        }
        filter
    }

    fn bits(&self, hash: IdHash) -> impl Iterator<Item = u64> + use<> {
        let size = self.0.len() as u64 * 64;
        let (first, step) = hash.halves();
        (0..FILTER_PROBES).map(move |n| first.wrapping_add(n.wrapping_mul(step | 1)) % size)
    }

    /// Whether an id may be in the segment.
    pub fn may_contain(&self, hash: IdHash) -> bool {
        self.bits(hash).all(|bit| self.0[crate::index(bit / 64)] >> (bit % 64) & 1 == 1)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The filter in a section.
    pub fn decode(section: &[u8]) -> Result<Self, SegmentError> {
        let (words, rest) = section.as_chunks::<8>();
        if words.is_empty() || !rest.is_empty() {
            return Err(damaged("the id filter is cut off"));
        }
        Ok(IdFilter(words.iter().map(|word| u64::from_le_bytes(*word)).collect()))
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len() * 8
    }
}

#[cfg(test)]
mod tests;
