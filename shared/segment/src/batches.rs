//! Rows in objects of record batches, and the directory by which each batch is found.

use crate::head::Kind;
use crate::objects::{Objects, name};
use crate::row::RowView;
use crate::rows::{BATCH_BYTES, BATCH_ROWS_MAX, Pending, RowsPart, checksum};
use crate::{RowBatch, SegmentError, damaged};
use std::ops::Range;

/// Size at which an object is complete, in bytes of its rows.
const PART_BYTES: usize = if cfg!(test) { 256 * 1024 } else { 16 * 1024 * 1024 };

/// Puts rows into batches and batches into objects of one kind.
pub(crate) struct BatchWriter {
    kind: Kind,
    dimension: usize,
    pending: Pending,
    part: RowsPart,
    batch_rows: Vec<u32>,
    /// For each object the offset of its first batch and their number, then for each batch its length, its number of rows
    /// and its checksum; u32 each.
    directory: Vec<u8>,
}

impl BatchWriter {
    pub(crate) fn new(kind: Kind, dimension: usize) -> Self {
        let part = RowsPart::new(dimension);
        BatchWriter {
            kind,
            dimension,
            pending: Pending::default(),
            part,
            batch_rows: Vec::new(),
            directory: Vec::new(),
        }
    }

    /// Appends a row; an object that this completes goes to `objects`.
    pub(crate) fn push(&mut self, row: &RowView<'_>, objects: &mut Objects) {
        self.pending.push(row);
        if self.pending.bytes >= BATCH_BYTES || self.pending.len() >= BATCH_ROWS_MAX {
            self.end_batch();
        }
        if self.part.bytes >= PART_BYTES {
            self.end_part(objects);
        }
    }

    /// The directory; the last object goes to `objects`.
    pub(crate) fn finish(&mut self, objects: &mut Objects) -> Vec<u8> {
        self.end_part(objects);
        std::mem::take(&mut self.directory)
    }

    fn end_batch(&mut self) {
        self.batch_rows.push(u32::try_from(self.pending.len()).expect("a batch has few rows"));
        self.part.push(std::mem::take(&mut self.pending));
    }

    fn end_part(&mut self, objects: &mut Objects) {
        if self.pending.len() > 0 {
            self.end_batch();
        }
        let batch_rows = std::mem::take(&mut self.batch_rows);
        if batch_rows.is_empty() {
            return;
        }
        let part = std::mem::replace(&mut self.part, RowsPart::new(self.dimension));
        let (file, first, lengths) = part.finish();
        let number = |n: usize| u32::try_from(n).expect("a part is smaller than 4 GB").to_le_bytes();
        self.directory.extend(number(first));
        self.directory.extend(number(lengths.len()));
        let mut at = first;
        for (length, rows) in lengths.into_iter().zip(batch_rows) {
            let checksum = checksum(&file[at..at + length]);
            self.directory.extend(number(length));
            self.directory.extend(rows.to_le_bytes());
            self.directory.extend(checksum.to_le_bytes());
            at += length;
        }
        objects.push(self.kind, file);
    }
}

/// Where a batch of rows lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// Number of the batch among those of its kind.
    pub number: usize,
    /// Name of its part.
    pub part: String,
    /// Its bytes there.
    pub range: Range<u64>,
    /// The rows in it.
    pub rows: Range<u32>,
}

/// A directory of batches, read. Memory: 20 bytes a batch.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    kind: Kind,
    dimension: usize,
    rows: u32,
    batches: Vec<Batch>,
}

#[derive(Clone, Debug)]
struct Batch {
    /// Number of the object.
    part: u32,
    start: u32,
    length: u32,
    first_row: u32,
    checksum: u32,
}

impl Batches {
    /// The directory of batches that together have `rows` rows. Errors: it is not one.
    pub(crate) fn decode(kind: Kind, dimension: usize, rows: u32, directory: &[u8]) -> Result<Self, SegmentError> {
        let (batches, found) = batches(directory)?;
        if found != rows {
            return Err(damaged("the batches have other rows than the segment"));
        }
        Ok(Batches { kind, dimension, rows, batches })
    }

    /// Memory held, about, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.batches.len() * size_of::<Batch>()
    }

    /// Size of all batches together, in bytes.
    pub(crate) fn parts_bytes(&self) -> u64 {
        self.batches.iter().map(|batch| u64::from(batch.length)).sum()
    }

    /// Number of batches.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Where batch number `number` is.
    pub(crate) fn place(&self, number: usize) -> BatchPlace {
        let batch = &self.batches[number];
        let end = self.batches.get(number + 1).map_or(self.rows, |next| next.first_row);
        let start = u64::from(batch.start);
        BatchPlace {
            number,
            part: name(self.kind, batch.part),
            range: start..start + u64::from(batch.length),
            rows: batch.first_row..end,
        }
    }

    /// Where the batch with `row` is. Panics if there is no such row.
    pub(crate) fn place_of(&self, row: u32) -> BatchPlace {
        assert!(row < self.rows, "a row of a segment has a smaller number than there are rows");
        self.place(self.batches.partition_point(|batch| batch.first_row <= row) - 1)
    }

    /// The rows in the `bytes` of a batch. Cost: one copy. Errors: they are not what was written.
    pub(crate) fn decode_batch(&self, place: &BatchPlace, bytes: &[u8]) -> Result<RowBatch, SegmentError> {
        if checksum(bytes) != self.batches[place.number].checksum {
            return Err(damaged(format_args!("batch {} does not match its checksum", place.number)));
        }
        let batch = RowBatch::decode(bytes, place.rows.start, self.dimension)?;
        if batch.rows() == place.rows { Ok(batch) } else { Err(damaged("a batch has another number of rows")) }
    }
}

/// The batches in their directory, and the number of their rows: see [`BatchWriter`].
fn batches(directory: &[u8]) -> Result<(Vec<Batch>, u32), SegmentError> {
    let (words, rest) = directory.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    let cut_off = || damaged("the directory of batches is cut off");
    if !rest.is_empty() {
        return Err(cut_off());
    }
    let (mut batches, mut part, mut first_row) = (Vec::new(), 0, 0_u32);
    while let Some(mut start) = words.next() {
        let count = words.next().ok_or_else(cut_off)?;
        for _ in 0..count {
            let mut next = || words.next().ok_or_else(cut_off);
            let (length, rows, checksum) = (next()?, next()?, next()?);
            if rows == 0 {
                return Err(damaged("a batch without rows"));
            }
            batches.push(Batch { part, start, length, first_row, checksum });
            start = start.checked_add(length).ok_or_else(cut_off)?;
            first_row = first_row.checked_add(rows).ok_or_else(cut_off)?;
        }
        part += 1;
    }
    Ok((batches, first_row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_lie_are_errors() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let rows = |directory: &[u8]| batches(directory).ok().map(|(_, rows)| rows);
        for (case, directory, expected) in [
            ("no part", words(&[]), Some(0)),
            ("a part without batches", words(&[7, 0]), Some(0)),
            ("two parts", words(&[8, 1, 100, 5, 0, 8, 2, 100, 6, 0, 50, 1, 0]), Some(12)),
            ("fewer batches than it says", words(&[8, 2, 100, 5, 0]), None),
            ("four billion batches", words(&[8, u32::MAX, 100, 5, 0]), None),
            ("a part that begins and ends", words(&[8, 1, 100, 5, 0, 8]), None),
            ("a batch without rows", words(&[8, 1, 100, 0, 0]), None),
            ("more rows than have numbers", words(&[8, 2, 100, u32::MAX, 0, 100, 1, 0]), None),
            ("a batch beyond 4 GB", words(&[8, 1, u32::MAX, 1, 0]), None),
            ("half a number", vec![8, 0, 0, 0, 1, 0], None),
        ] {
            assert_eq!(rows(&directory), expected, "{case}");
        }
    }
}
