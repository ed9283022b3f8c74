//! The bytes of a bundle that are in memory: whole pages, each checked before anything decodes it.

use crate::{TextError, damaged};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tantivy::directory::OwnedBytes;
use xxhash_rust::xxh3::xxh3_64;

/// Smallest page, as a power of two, in bytes.
const PAGE_BITS_MIN: u8 = 12;
const PAGE_BITS_MAX: u8 = 24;
/// Most pages of a bundle: a larger one has larger pages, so that the checksums stay small (4 bytes each).
const PAGES_MAX: u64 = 16_384;

/// How a bundle is cut into pages, and what each must hash to.
#[derive(Clone, PartialEq)]
pub(crate) struct PageTable {
    pub(crate) bits: u8,
    pub(crate) bytes: u64,
    /// The lower half of the XXH3-64 of each page.
    pub(crate) checksums: Vec<u32>,
}

impl PageTable {
    pub(crate) fn of(bundle: &[u8]) -> Self {
        let bytes = bundle.len() as u64;
        let fits = |bits: &u8| bytes.div_ceil(1 << bits) <= PAGES_MAX;
        let bits = (PAGE_BITS_MIN..PAGE_BITS_MAX).find(fits).unwrap_or(PAGE_BITS_MAX);
        PageTable { bits, bytes, checksums: bundle.chunks(1 << bits).map(checksum).collect() }
    }

    /// Number of pages of a bundle. Errors: no bundle is cut so.
    pub(crate) fn pages(bits: u8, bytes: u64) -> Result<usize, TextError> {
        if (PAGE_BITS_MIN..=PAGE_BITS_MAX).contains(&bits) && usize::try_from(bytes).is_ok() {
            Ok(crate::index(bytes.div_ceil(1 << bits)))
        } else {
            Err(damaged("pages that no bundle has"))
        }
    }

    fn page_of(&self, byte: u64) -> u64 {
        byte >> self.bits
    }

    /// The bytes of pages with these numbers.
    fn range_of(&self, pages: Range<u64>) -> Range<u64> {
        pages.start << self.bits..(pages.end << self.bits).min(self.bytes)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn checksum(page: &[u8]) -> u32 {
    xxh3_64(page) as u32
}

/// Where a reader finds the bytes of a bundle.
pub(crate) trait Source: Send + Sync + fmt::Debug {
    /// The bytes of `range`. Errors: `WouldBlock` if they are not in memory.
    fn read(&self, range: Range<u64>) -> io::Result<OwnedBytes>;
}

/// Pages that were supplied, and those that were missed since somebody last asked.
pub(crate) struct Pages {
    pub(crate) table: PageTable,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: BTreeMap<u64, Held>,
    missed: BTreeSet<u64>,
}

/// A page in the run of pages that it was supplied in.
#[derive(Clone)]
struct Held {
    run: OwnedBytes,
    /// Where the run begins in the bundle.
    start: u64,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({} of {})", self.state().held.len(), self.table.checksums.len())
    }
}

impl Pages {
    pub(crate) fn new(table: PageTable) -> Self {
        Pages { table, state: Mutex::default() }
    }

    /// Every change of the state is complete when it is made: after a panic elsewhere it is as good as before.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the bytes of whole pages. Errors: they are not those of the bundle; then none is taken.
    pub(crate) fn supply(&self, range: Range<u64>, bytes: Vec<u8>) -> Result<(), TextError> {
        let pages = self.table.page_of(range.start)..self.table.page_of(range.end + (1 << self.table.bits) - 1);
        if self.table.range_of(pages.clone()) != range || range.end - range.start != bytes.len() as u64 {
            return Err(damaged("bytes of another place than was asked for"));
        }
        for (page, chunk) in pages.clone().zip(bytes.chunks(1 << self.table.bits)) {
            if self.table.checksums.get(crate::index(page)) != Some(&checksum(chunk)) {
                return Err(damaged(format_args!("page {page} does not match its checksum")));
            }
        }
        let held = Held { run: OwnedBytes::new(bytes), start: range.start };
        self.state().held.extend(pages.map(|page| (page, held.clone())));
        Ok(())
    }

    /// The runs of pages that were missed since this was last asked.
    pub(crate) fn take_missed(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for page in std::mem::take(&mut self.state().missed) {
            match runs.last_mut() {
                Some(run) if run.end == page => run.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
        runs.into_iter().map(|pages| self.table.range_of(pages)).collect()
    }

    /// The whole pages in which `range` lies.
    pub(crate) fn around(&self, range: &Range<u64>) -> Range<u64> {
        self.table.range_of(self.table.page_of(range.start)..self.table.page_of(range.end.saturating_sub(1)) + 1)
    }

    /// Bytes of the pages in memory.
    pub(crate) fn held_bytes(&self) -> u64 {
        (self.state().held.len() as u64) << self.table.bits
    }

    /// Forgets all pages.
    pub(crate) fn clear(&self) {
        self.state().held.clear();
    }
}

impl Source for Pages {
    fn read(&self, range: Range<u64>) -> io::Result<OwnedBytes> {
        if range.start >= range.end {
            return Ok(OwnedBytes::empty());
        }
        let mut state = self.state();
        let pages = self.table.page_of(range.start)..self.table.page_of(range.end - 1) + 1;
        let missing: Vec<u64> = pages.clone().filter(|page| !state.held.contains_key(page)).collect();
        if !missing.is_empty() {
            state.missed.extend(missing);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut pieces = pages.map(|page| {
            let Held { run, start } = &state.held[&page];
            let own = self.table.range_of(page..page + 1);
            (run, *start, range.start.max(own.start)..range.end.min(own.end))
        });
        let (run, start, _) = pieces.next().expect("a range that is not empty has a page");
        if range.end - start <= run.len() as u64 {
            return Ok(slice(run, start, &range));
        }
        let mut joined = Vec::with_capacity(crate::index(range.end - range.start));
        for page in self.table.page_of(range.start)..=self.table.page_of(range.end - 1) {
            let Held { run, start } = &state.held[&page];
            let own = self.table.range_of(page..page + 1);
            joined.extend_from_slice(&slice(run, *start, &(range.start.max(own.start)..range.end.min(own.end))));
        }
        Ok(OwnedBytes::new(joined))
    }
}

fn slice(run: &OwnedBytes, start: u64, range: &Range<u64>) -> OwnedBytes {
    run.slice(crate::index(range.start - start)..crate::index(range.end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Vec<u8> {
        (0..30_000_u32).map(|n| n.to_le_bytes()[1] ^ n.to_le_bytes()[0]).collect()
    }

    fn part(bundle: &[u8], range: &Range<u64>) -> Vec<u8> {
        bundle[crate::index(range.start)..crate::index(range.end)].to_vec()
    }

    #[test]
    fn what_is_missing_is_named_once_and_read_when_supplied() {
        let bundle = bundle();
        let pages = Pages::new(PageTable::of(&bundle));
        for range in [5000..9000, 4000..4097, 29_999..30_000] {
            assert_eq!(pages.read(range).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        let missed = pages.take_missed();
        assert_eq!(missed, [0..12_288, 28_672..30_000]);
        assert!(pages.take_missed().is_empty());
        for range in missed {
            pages.supply(range.clone(), part(&bundle, &range)).unwrap();
        }
        for range in [5000..9000, 0..12_288, 29_999..30_000, 7..7] {
            assert_eq!(pages.read(range.clone()).unwrap().as_slice(), part(&bundle, &range));
        }
    }

    #[test]
    fn runs_that_came_apart_are_read_together() {
        let bundle = bundle();
        let pages = Pages::new(PageTable::of(&bundle));
        for range in [4096..8192, 8192..16_384, 0..4096] {
            pages.supply(range.clone(), part(&bundle, &range)).unwrap();
        }
        assert_eq!(pages.read(10..15_000).unwrap().as_slice(), part(&bundle, &(10..15_000)));
        assert_eq!(pages.held_bytes(), 16_384);
        pages.clear();
        assert!(pages.read(10..15_000).is_err());
    }

    #[test]
    fn bytes_of_another_place_or_with_a_flipped_bit_are_refused() {
        let bundle = bundle();
        let pages = Pages::new(PageTable::of(&bundle));
        assert!(pages.supply(0..4096, part(&bundle, &(4096..8192))).is_err());
        assert!(pages.supply(0..4095, part(&bundle, &(0..4095))).is_err());
        assert!(pages.supply(0..8192, part(&bundle, &(0..4096))).is_err());
        assert!(pages.supply(28_672..32_768, part(&bundle, &(25_904..30_000))).is_err());
        let mut flipped = part(&bundle, &(0..8192));
        flipped[5000] ^= 4;
        assert!(pages.supply(0..8192, flipped).is_err());
        assert_eq!(pages.held_bytes(), 0);
    }
}
