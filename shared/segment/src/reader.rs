//! An opened segment: which bytes of which part hold what.

use crate::builder::{HEAD, codes_name, rows_name};
use crate::codes;
use crate::head::{Head, Kind, Section};
use crate::ids::IdFilter;
use crate::positions;
use crate::{RowBatch, SegmentError, damaged, index};
use model::{Position, SegmentRef, SetHash};
use std::ops::Range;

/// What the start of a head object tells. Memory: 16 bytes a batch.
#[derive(Clone, Debug)]
pub struct Segment {
    head: Head,
    batches: Vec<Batch>,
}

#[derive(Clone, Debug)]
struct Batch {
    /// Number of the part of rows.
    part: u32,
    start: u32,
    length: u32,
    first_row: u32,
    checksum: u32,
}

/// Where a batch of rows lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// Number of the batch in the segment.
    pub number: usize,
    /// Name of its part.
    pub part: String,
    /// Its bytes there.
    pub range: Range<u64>,
    /// The rows in it.
    pub rows: Range<u32>,
}

/// A stretch of a part that is read and checked as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the part.
    pub part: String,
    /// Its bytes there.
    pub range: Range<u64>,
}

/// Where the start of the head object of a segment is, which [`Segment::open`] wants.
pub fn head_place(segment: &SegmentRef) -> Place {
    Place { part: HEAD.to_owned(), range: 0..u64::from(segment.head_bytes) }
}

/// The name of the object that [`crate::ids::IdIndex`] is in.
pub const IDS_PART: &str = HEAD;

/// Where the codes of part number `part` of a segment are: known without its head.
pub fn codes_place(segment: &SegmentRef, part: u32) -> (Place, Range<u32>) {
    let dimension = index(segment.dimension);
    let per_part = codes::rows_per_part(dimension);
    let first = part * per_part;
    let rows = first..segment.rows.min(first.saturating_add(per_part));
    let bytes = u64::from(rows.end - rows.start) * codes::stride(dimension) as u64;
    (Place { part: codes_name(part), range: 0..bytes }, rows)
}

/// Number of parts of codes of a segment.
pub fn codes_parts(segment: &SegmentRef) -> u32 {
    segment.rows.div_ceil(codes::rows_per_part(index(segment.dimension)))
}

impl Segment {
    /// The segment whose head object begins with `start`. Errors: that is not what was written.
    pub fn open(start: &[u8]) -> Result<Self, SegmentError> {
        let head = Head::decode(start)?;
        let section = head.section(Kind::Batches)?;
        let range = index(section.range.start)..index(section.range.end);
        let directory = section.check(start.get(range).ok_or_else(|| damaged("the head is cut off"))?)?;
        let (batches, rows) = batches(directory)?;
        if rows != head.rows {
            return Err(damaged("the batches have other rows than the segment"));
        }
        Ok(Segment { head, batches })
    }

    /// Number of rows, dead ones included.
    pub fn rows(&self) -> u32 {
        self.head.rows
    }

    /// Length of every vector.
    pub fn dimension(&self) -> usize {
        index(self.head.dimension)
    }

    /// Sum of the hashes of all rows.
    pub fn set_hash(&self) -> SetHash {
        self.head.set_hash
    }

    /// Memory held, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.batches.len() * size_of::<Batch>() + self.head.sections.len() * size_of::<Section>()
    }

    /// Number of batches of rows.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Where batch number `number` is.
    pub fn batch(&self, number: usize) -> BatchPlace {
        let batch = &self.batches[number];
        let end = self.batches.get(number + 1).map_or(self.head.rows, |next| next.first_row);
        let start = u64::from(batch.start);
        BatchPlace {
            number,
            part: rows_name(batch.part),
            range: start..start + u64::from(batch.length),
            rows: batch.first_row..end,
        }
    }

    /// Where the batch with `row` is. Panics if the segment has no such row.
    pub fn batch_of(&self, row: u32) -> BatchPlace {
        assert!(row < self.rows(), "a row of a segment has a smaller number than there are rows");
        self.batch(self.batches.partition_point(|batch| batch.first_row <= row) - 1)
    }

    /// The rows in the `bytes` of a batch. Cost: one copy. Errors: they are not what was written.
    pub fn decode_batch(&self, place: &BatchPlace, bytes: &[u8]) -> Result<RowBatch, SegmentError> {
        if crate::rows::checksum(bytes) != self.batches[place.number].checksum {
            return Err(damaged(format_args!("batch {} does not match its checksum", place.number)));
        }
        let batch = RowBatch::decode(bytes, place.rows.start, self.dimension())?;
        if batch.rows() == place.rows { Ok(batch) } else { Err(damaged("a batch has another number of rows")) }
    }

    /// Where the positions of all rows are.
    pub fn positions_place(&self) -> Result<Place, SegmentError> {
        self.place(Kind::Positions)
    }

    /// The positions, ascending, from the bytes there.
    pub fn decode_positions(&self, bytes: &[u8]) -> Result<Vec<Position>, SegmentError> {
        positions::decode(self.head.section(Kind::Positions)?.check(bytes)?, self.head.rows)
    }

    /// Where the filter of ids is.
    pub fn filter_place(&self) -> Result<Place, SegmentError> {
        self.place(Kind::IdFilter)
    }

    /// The filter, from the bytes there.
    pub fn decode_filter(&self, bytes: &[u8]) -> Result<IdFilter, SegmentError> {
        IdFilter::decode(self.head.section(Kind::IdFilter)?.check(bytes)?)
    }

    /// Whether `bytes` are the codes of part number `part`.
    pub fn check_codes(&self, part: u32, bytes: &[u8]) -> Result<(), SegmentError> {
        let parts = self.head.parts(Kind::Codes);
        let section = parts.get(index(part)).ok_or_else(|| damaged("a part of codes is missing"))?;
        section.check(bytes).map(drop)
    }

    /// All parts and what each must hash to, for whoever checks them: name, size in bytes and XXH3-64; of the head object
    /// nothing.
    pub fn objects(&self) -> Vec<(String, u64, u64)> {
        let named = |kind: Kind, name: fn(u32) -> String| {
            let parts = self.head.parts(kind).into_iter();
            parts.map(move |section| (name(section.part), section.range.end, section.checksum)).collect::<Vec<_>>()
        };
        [named(Kind::Rows, rows_name), named(Kind::Codes, codes_name)].concat()
    }

    fn place(&self, kind: Kind) -> Result<Place, SegmentError> {
        Ok(Place { part: HEAD.to_owned(), range: self.head.section(kind)?.range.clone() })
    }
}

/// The batches in their directory, and the number of their rows: see [`crate::Builder`].
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
mod tests;
