//! The terms of metadata and their rows: in blocks, in ascending order, with a directory small enough for the hotcache.
//!
//! A term's rows lie behind it in its block, and the directory has the beginning of every block: whoever knows a term, or
//! the bounds of some, knows all bytes to read, and one wave of reads answers. An entry of a block is what its term shares
//! with the one before, the rest of it, and the rows. Behind all blocks are the rows of each run of blocks that hold numbers
//! of one key, so that a wide range of numbers reads a bit a row and not an entry.

use crate::bytes::{Cursor, put_leb, put_run};
use crate::rows::{self, RowList, Union};
use crate::{TextError, damaged, terms};
use std::mem;
use std::ops::Range;

/// A block ends with the entry that brings it to so many bytes, if the index is small.
const BLOCK_BYTES_MIN: u64 = 4_096;
/// Blocks of an index, about; a larger index has larger blocks.
const BLOCKS: u64 = 4_096;
/// An entry of so many bytes has a block of its own.
const LARGE_ENTRY_BYTES: usize = 2_048;

/// Blocks whose rows are also stored together, if they are numbers of one key.
const RUN_BLOCKS: usize = 16;

/// Where the blocks lie, and a separator before each: not above its first term, and above the last one of the block before.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    separators: Vec<Box<[u8]>>,
    /// One more than there are blocks.
    offsets: Vec<u64>,
    /// By number of the run, where the rows of all its blocks lie; not of every run.
    runs: Vec<(usize, Range<u64>)>,
}

/// What is to be read for some bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// A block, whose terms are to be compared with the bounds.
    Block(Range<u64>),
    /// The rows of blocks that lie within them.
    Rows(Range<u64>),
}

impl Stretch {
    pub(crate) fn range(&self) -> Range<u64> {
        match self {
            Stretch::Block(range) | Stretch::Rows(range) => range.clone(),
        }
    }
}

/// The rows of a run of blocks while they are written.
#[derive(Default)]
struct Run {
    rows: Vec<u32>,
    first: Vec<u8>,
}

impl Run {
    /// The rows together, encoded, if the run is of numbers of one key up to `last`.
    fn finish(&mut self, last: &[u8]) -> Option<Vec<u8>> {
        let mut rows = mem::take(&mut self.rows);
        let prefix = terms::number_prefix(&self.first).filter(|prefix| last.starts_with(prefix));
        prefix?;
        rows.sort_unstable();
        let (mut list, mut encoded) = (RowList::default(), Vec::new());
        rows.into_iter().for_each(|row| list.push(row));
        list.encode(&mut encoded);
        Some(encoded)
    }
}

/// Appends the blocks of `terms`, which ascend, to `out`. Equal input gives equal bytes.
pub(crate) fn write(terms: impl Iterator<Item = (Vec<u8>, RowList)>, total_bytes: u64, out: &mut Vec<u8>) -> Directory {
    let block_bytes = crate::index((total_bytes / BLOCKS).max(BLOCK_BYTES_MIN));
    let (mut directory, mut before, mut block_start) = (Directory::default(), Vec::new(), out.len());
    let (mut must_begin, mut run, mut runs) = (true, Run::default(), Vec::new());
    for (term, list) in terms {
        let mut rows = Vec::new();
        list.encode(&mut rows);
        let is_large = rows.len() >= LARGE_ENTRY_BYTES;
        let begins = must_begin || is_large || out.len() - block_start >= block_bytes;
        let shared = common_bytes(&before, &term);
        if begins {
            let blocks = directory.separators.len();
            if blocks.is_multiple_of(RUN_BLOCKS) {
                let rows = run.finish(&before).filter(|_| blocks > 0);
                runs.extend(rows.map(|rows| (blocks / RUN_BLOCKS - 1, rows)));
                run.first.clone_from(&term);
            }
            let separator = &term[..term.len().min(shared + 1)];
            directory.separators.push(separator.into());
            directory.offsets.push(out.len() as u64);
            block_start = out.len();
        }
        let shared = if begins { 0 } else { shared };
        put_leb(out, shared as u64);
        put_run(out, &term[shared..]);
        out.extend_from_slice(&rows);
        if terms::number_prefix(&term).is_some() {
            run.rows.extend(list.rows());
        }
        (before, must_begin) = (term, is_large);
    }
    directory.offsets.push(out.len() as u64);
    for (run, rows) in runs {
        let start = out.len() as u64;
        out.extend_from_slice(&rows);
        directory.runs.push((run, start..out.len() as u64));
    }
    directory
}

fn common_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Adds the rows of the terms of `bounds` in what was read for them to `sum`. Cost: linear in the bytes.
pub(crate) fn collect(
    stretch: &Stretch,
    bytes: &[u8],
    rows: u32,
    bounds: &Range<Vec<u8>>,
    sum: &mut Union,
) -> Result<(), TextError> {
    match stretch {
        Stretch::Block(_) => collect_block(bytes, rows, bounds, sum),
        Stretch::Rows(_) => sum.add(&mut Cursor(bytes), rows),
    }
}

fn collect_block(block: &[u8], rows: u32, bounds: &Range<Vec<u8>>, sum: &mut Union) -> Result<(), TextError> {
    let (mut cursor, mut term) = (Cursor(block), Vec::new());
    while !cursor.0.is_empty() {
        let shared = crate::index(cursor.leb()?);
        if shared > term.len() {
            return Err(damaged("a term that shares more than there is"));
        }
        term.truncate(shared);
        term.extend_from_slice(cursor.run()?);
        if term >= bounds.end {
            break;
        }
        if term >= bounds.start {
            sum.add(&mut cursor, rows)?;
        } else {
            rows::skip(&mut cursor)?;
        }
    }
    Ok(())
}

impl Directory {
    /// What holds the terms of `bounds`, ascending: blocks, and runs of blocks where all their terms do.
    pub(crate) fn stretches(&self, bounds: &Range<Vec<u8>>) -> Vec<Stretch> {
        let first = self.separators.partition_point(|separator| **separator <= *bounds.start).saturating_sub(1);
        let end = self.separators.partition_point(|separator| **separator < *bounds.end);
        let (mut blocks, mut rows, mut block) = (Vec::new(), Vec::new(), first);
        while block < end {
            match self.run_from(block).filter(|_| block + RUN_BLOCKS < end && *self.separators[block] >= *bounds.start)
            {
                Some(run) => {
                    rows.push(Stretch::Rows(run));
                    block += RUN_BLOCKS;
                }
                None => {
                    blocks.push(Stretch::Block(self.offsets[block]..self.offsets[block + 1]));
                    block += 1;
                }
            }
        }
        blocks.append(&mut rows);
        blocks
    }

    /// Where the rows of the run that begins with `block` lie.
    fn run_from(&self, block: usize) -> Option<Range<u64>> {
        let run = block.is_multiple_of(RUN_BLOCKS).then_some(block / RUN_BLOCKS)?;
        let at = self.runs.binary_search_by_key(&run, |(run, _)| *run).ok()?;
        Some(self.runs[at].1.clone())
    }

    /// Memory held, about, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        (self.offsets.len() + self.runs.len()) * 32
            + self.separators.iter().map(|separator| separator.len()).sum::<usize>()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_leb(out, self.separators.len() as u64);
        put_leb(out, self.offsets[0]);
        let mut before: &[u8] = &[];
        for (separator, place) in self.separators.iter().zip(self.offsets.windows(2)) {
            let shared = common_bytes(before, separator);
            put_leb(out, shared as u64);
            put_run(out, &separator[shared..]);
            put_leb(out, place[1] - place[0]);
            before = separator;
        }
        put_leb(out, self.runs.len() as u64);
        for (run, range) in &self.runs {
            put_leb(out, *run as u64);
            put_leb(out, range.end - range.start);
        }
    }

    /// The inverse. Errors: not a directory of what ends at `end`.
    pub(crate) fn decode(cursor: &mut Cursor<'_>, end: u64) -> Result<Self, TextError> {
        let count = cursor.leb()?;
        let mut directory = Directory { separators: Vec::new(), offsets: vec![cursor.leb()?], runs: Vec::new() };
        let mut offset = directory.offsets[0];
        for _ in 0..count {
            let shared = crate::index(cursor.leb()?);
            let before = directory.separators.last().map_or(&[][..], |separator| separator);
            let kept = before.get(..shared).ok_or_else(|| damaged("a separator that shares more than there is"))?;
            let separator = [kept, cursor.run()?].concat();
            if *before >= *separator && !directory.separators.is_empty() {
                return Err(damaged("separators that do not ascend"));
            }
            offset = offset.checked_add(cursor.leb()?).ok_or_else(|| damaged("blocks beyond all numbers"))?;
            directory.separators.push(separator.into());
            directory.offsets.push(offset);
        }
        for _ in 0..cursor.leb()? {
            let (run, start) = (crate::index(cursor.leb()?), offset);
            offset = offset.checked_add(cursor.leb()?).ok_or_else(|| damaged("rows beyond all numbers"))?;
            if directory.runs.last().is_some_and(|(last, _)| *last >= run) {
                return Err(damaged("runs that do not ascend"));
            }
            directory.runs.push((run, start..offset));
        }
        if offset == end { Ok(directory) } else { Err(damaged("blocks that end elsewhere")) }
    }
}

#[cfg(test)]
mod tests {
    //! Blocks answer as a plain map does, by the places that the directory names and through its encoded form.

    use super::*;
    use model::MetadataValue;
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const ROWS: u32 = 100_000;
    type Map = BTreeMap<Vec<u8>, BTreeSet<u32>>;

    fn written(map: &Map, out: &mut Vec<u8>) -> Directory {
        let lists = map.iter().map(|(term, rows)| {
            let mut list = RowList::default();
            rows.iter().for_each(|row| list.push(*row));
            (term.clone(), list)
        });
        let directory = write(lists, 0, out);
        let mut bytes = Vec::new();
        directory.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(Directory::decode(&mut Cursor(&bytes[..length]), out.len() as u64).is_err());
        }
        Directory::decode(&mut Cursor(&bytes), out.len() as u64).unwrap()
    }

    fn found(blocks: &[u8], directory: &Directory, bounds: &Range<Vec<u8>>) -> BTreeSet<u32> {
        let mut sum = Union::default();
        for stretch in directory.stretches(bounds) {
            let range = stretch.range();
            let bytes = &blocks[crate::index(range.start)..crate::index(range.end)];
            collect(&stretch, bytes, ROWS, bounds, &mut sum).unwrap();
        }
        sum.finish().iter().collect()
    }

    fn term() -> impl Strategy<Value = Vec<u8>> {
        vec(0..3_u8, 0..6)
    }

    fn map() -> impl Strategy<Value = Map> {
        let rows = prop_oneof![
            4 => btree_set(0..ROWS, 0..300),
            1 => (1..5_u32).prop_map(|step| (0..ROWS / 7).map(|row| row * step).collect())
        ];
        btree_map(term(), rows, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn blocks_answer_as_a_map(map in map(), start in term(), end in term()) {
            let mut blocks = b"before".to_vec();
            let directory = written(&map, &mut blocks);
            if start < end {
                let expect = map.range(start.clone()..end.clone()).flat_map(|(_, rows)| rows).copied().collect();
                prop_assert_eq!(found(&blocks, &directory, &(start.clone()..end)), expect);
            }
            let behind = [&start[..], &[0]].concat();
            let expect = map.get(&start).cloned().unwrap_or_default();
            let bounds = start..behind;
            prop_assert!(directory.stretches(&bounds).len() <= 1);
            prop_assert_eq!(found(&blocks, &directory, &bounds), expect);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..100), start in term(), end in term()) {
            let _ = collect_block(&bytes, ROWS, &(start..end), &mut Union::default());
            let _ = Directory::decode(&mut Cursor(&bytes), 100);
        }
    }

    #[test]
    fn a_wide_range_of_numbers_reads_rows_and_not_entries() {
        let term = |n: u32| terms::of_value("n", &MetadataValue::Int(i64::from(n))).remove(0).bytes;
        let other = |n: u32| terms::of_value("o", &MetadataValue::Str(format!("{n:060}"))).remove(0).bytes;
        let numbers = (0..60_000).map(|n| (term(n), BTreeSet::from([n * 7_919 % ROWS])));
        let texts = (0..3_000).map(|n| (other(n), BTreeSet::from([n])));
        let map: Map = numbers.chain(texts).collect();
        let mut blocks = Vec::new();
        let directory = written(&map, &mut blocks);
        let check = |from: u32, to: u32| {
            let bounds = term(from)..term(to);
            let expect = (from..to).map(|n| n * 7_919 % ROWS).collect();
            assert!(found(&blocks, &directory, &bounds) == expect, "{from} to {to}");
            directory.stretches(&bounds).iter().map(|stretch| stretch.range()).map(|r| r.end - r.start).sum::<u64>()
        };
        let [narrow, wide] = [check(10, 500), check(0, 59_999)];
        assert!(narrow < 10_000 && wide < 250_000, "{narrow} {wide}");
        for (from, to) in [(0, 30_000), (1, 2), (29_000, 59_000), (700, 1_400), (58_000, 59_999)] {
            check(from, to);
        }
    }
}
