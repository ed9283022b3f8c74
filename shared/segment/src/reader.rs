//! An opened segment: which bytes of which part hold what.

use crate::batches::{BatchPlace, Batches};
use crate::codes;
use crate::head::{HEAD, Head, Kind, Section};
use crate::ids::IdFilter;
use crate::objects::name;
use crate::positions;
use crate::{RowBatch, SegmentError, damaged, index};
use model::{Position, SegmentRef, SetHash};
use std::ops::Range;

/// What the start of a head object tells. Memory: 20 bytes a batch.
#[derive(Clone, Debug)]
pub struct Segment {
    head: Head,
    batches: Batches,
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
    (Place { part: name(Kind::Codes, part), range: 0..bytes }, rows)
}

/// Number of parts of codes of a segment: none if it has a leaf index.
pub fn codes_parts(segment: &SegmentRef) -> u32 {
    if segment.index.is_some() {
        return 0;
    }
    segment.rows.div_ceil(codes::rows_per_part(index(segment.dimension)))
}

impl Segment {
    /// The segment whose head object begins with `start`. Errors: that is not what was written.
    pub fn open(start: &[u8]) -> Result<Self, SegmentError> {
        let head = Head::decode(start)?;
        let section = head.section(Kind::Batches)?;
        let range = index(section.range.start)..index(section.range.end);
        let directory = section.check(start.get(range).ok_or_else(|| damaged("the head is cut off"))?)?;
        let batches = Batches::decode(Kind::Rows, index(head.dimension), head.rows, directory)?;
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
        self.batches.bytes() + self.head.sections.len() * size_of::<Section>()
    }

    /// Number of batches of rows.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Where batch number `number` is.
    pub fn batch(&self, number: usize) -> BatchPlace {
        self.batches.place(number)
    }

    /// Where the batch with `row` is. Panics if the segment has no such row.
    pub fn batch_of(&self, row: u32) -> BatchPlace {
        self.batches.place_of(row)
    }

    /// The rows in the `bytes` of a batch. Cost: one copy. Errors: they are not what was written.
    pub fn decode_batch(&self, place: &BatchPlace, bytes: &[u8]) -> Result<RowBatch, SegmentError> {
        self.batches.decode_batch(place, bytes)
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
        self.head.objects([Kind::Rows, Kind::Codes])
    }

    fn place(&self, kind: Kind) -> Result<Place, SegmentError> {
        Ok(Place { part: HEAD.to_owned(), range: self.head.section(kind)?.range.clone() })
    }
}

#[cfg(test)]
mod tests;
