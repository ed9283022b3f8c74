//! Rows -> the parts of a segment.

use crate::codes;
use crate::head::{Head, Kind, Section};
use crate::ids::{self, IdFilter, IdHash};
use crate::positions;
use crate::row::RowView;
use crate::rows::{BATCH_BYTES, BATCH_ROWS_MAX, Pending, RowsPart};
use bytes::Bytes;
use model::{SegmentRef, SetHash};
use xxhash_rust::xxh3::xxh3_64;

/// Size at which an object of rows is complete, in bytes of its rows.
const ROWS_PART_BYTES: usize = if cfg!(test) { 256 * 1024 } else { 16 * 1024 * 1024 };

/// Takes rows in the order of their positions and makes parts of them, each as soon as it is full.
///
/// Memory: one part of rows, one of codes and about 60 bytes for each row.
pub struct Builder {
    dimension: usize,
    rows: u32,
    set_hash: SetHash,
    pending: Pending,
    rows_part: RowsPart,
    batch_rows: Vec<u32>,
    codes: Vec<u8>,
    positions: positions::Writer,
    ids: Vec<(IdHash, u32)>,
    /// The directory of batches as it is written.
    batches: Vec<u8>,
    objects: Vec<Section>,
    finished: Vec<Part>,
    bytes: u64,
}

/// An object of a segment.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its key behind the segment's prefix and a slash.
    pub name: String,
    /// What it holds.
    pub body: Bytes,
}

/// A whole segment.
#[derive(Debug)]
pub struct Built {
    /// The parts that were not taken yet, the head last.
    pub parts: Vec<Part>,
    /// What a manifest says of it.
    pub segment: SegmentRef,
}

/// The name of the head object.
pub(crate) const HEAD: &str = "head";

pub(crate) fn rows_name(part: u32) -> String {
    format!("rows-{part:04}.arrow")
}

pub(crate) fn codes_name(part: u32) -> String {
    format!("codes-{part:04}")
}

impl Builder {
    /// A segment without rows, whose vectors will have `dimension` numbers: at least one.
    pub fn new(dimension: usize) -> Self {
        assert!(dimension > 0, "a vector has at least one number");
        Builder {
            dimension,
            rows: 0,
            set_hash: SetHash::default(),
            pending: Pending::default(),
            rows_part: RowsPart::new(dimension),
            batch_rows: Vec::new(),
            codes: Vec::new(),
            positions: positions::Writer::default(),
            ids: Vec::new(),
            batches: Vec::new(),
            objects: Vec::new(),
            finished: Vec::new(),
            bytes: 0,
        }
    }

    /// Number of rows so far: that of the next one.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Appends a row whose position is above the last one's and whose id is new. Panics if the vector has another length.
    pub fn push(&mut self, row: &RowView<'_>) {
        assert_eq!(row.vector.len(), self.dimension, "all vectors of a collection have one length");
        self.set_hash = self.set_hash.with(row.hash());
        self.positions.push(row.position);
        self.ids.push((IdHash::of(row.id), self.rows));
        codes::append(&mut self.codes, row);
        self.pending.push(row);
        self.rows += 1;
        if self.pending.bytes >= BATCH_BYTES || self.pending.len() >= BATCH_ROWS_MAX {
            self.end_batch();
        }
        if self.rows_part.bytes >= ROWS_PART_BYTES {
            self.end_rows_part();
        }
        if self.rows.is_multiple_of(codes::rows_per_part(self.dimension)) {
            self.end_codes_part();
        }
    }

    /// The parts that are complete: they are not kept.
    pub fn take_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.finished)
    }

    fn end_batch(&mut self) {
        self.batch_rows.push(u32::try_from(self.pending.len()).expect("a batch has few rows"));
        self.rows_part.push(std::mem::take(&mut self.pending));
    }

    /// Directory of batches: for each part the offset of its first batch and their number, then for each batch its length,
    /// its number of rows and its checksum; u32 each.
    fn end_rows_part(&mut self) {
        if self.pending.len() > 0 {
            self.end_batch();
        }
        let batch_rows = std::mem::take(&mut self.batch_rows);
        if batch_rows.is_empty() {
            return;
        }
        let part = std::mem::replace(&mut self.rows_part, RowsPart::new(self.dimension));
        let (file, first, lengths) = part.finish();
        let number = |n: usize| u32::try_from(n).expect("a part is smaller than 4 GB").to_le_bytes();
        self.batches.extend(number(first));
        self.batches.extend(number(lengths.len()));
        let mut at = first;
        for (length, rows) in lengths.into_iter().zip(batch_rows) {
            let checksum = crate::rows::checksum(&file[at..at + length]);
            self.batches.extend(number(length));
            self.batches.extend(rows.to_le_bytes());
            self.batches.extend(checksum.to_le_bytes());
            at += length;
        }
        self.end_object(Kind::Rows, rows_name, file);
    }

    fn end_codes_part(&mut self) {
        if !self.codes.is_empty() {
            let codes = std::mem::take(&mut self.codes);
            self.end_object(Kind::Codes, codes_name, codes);
        }
    }

    fn end_object(&mut self, kind: Kind, name: fn(u32) -> String, body: Vec<u8>) {
        let part = self.objects.iter().filter(|section| section.kind == kind as u32).count();
        let part = u32::try_from(part).expect("a segment has few parts");
        let range = 0..body.len() as u64;
        self.bytes += range.end;
        self.objects.push(Section { kind: kind as u32, part, range, checksum: xxh3_64(&body) });
        self.finished.push(Part { name: name(part), body: body.into() });
    }

    /// The rest of the parts, and what a manifest says of the segment at `prefix`.
    pub fn finish(mut self, prefix: String) -> Built {
        self.end_rows_part();
        self.end_codes_part();
        let filter = IdFilter::new(self.ids.iter().map(|(hash, _)| *hash), self.ids.len());
        let sections = [
            (Kind::Batches, self.batches),
            (Kind::Positions, self.positions.bytes),
            (Kind::IdFilter, filter.encode()),
            (Kind::Ids, ids::encode(self.ids)),
        ];
        let mut at = Head::bytes(sections.len() + self.objects.len()) as u64;
        let head_bytes = at + sections[0].1.len() as u64;
        let mut table = Vec::new();
        for (kind, body) in &sections {
            let range = at..at + body.len() as u64;
            at = range.end;
            table.push(Section { kind: *kind as u32, part: 0, range, checksum: xxh3_64(body) });
        }
        let ids_at = table.last().map_or(0, |ids| ids.range.start);
        table.append(&mut self.objects);
        let dimension = u32::try_from(self.dimension).expect("a vector is shorter than 2^32");
        let head = Head { rows: self.rows, dimension, set_hash: self.set_hash, sections: table };
        let mut body = head.encode();
        sections.iter().for_each(|(_, section)| body.extend_from_slice(section));
        let bytes = self.bytes + body.len() as u64;
        let mut parts = self.finished;
        parts.push(Part { name: HEAD.to_owned(), body: body.into() });
        let segment = SegmentRef {
            prefix,
            rows: self.rows,
            dimension,
            head_bytes: u32::try_from(head_bytes).expect("a head is smaller than 4 GB"),
            ids_at,
            bytes,
            set_hash: self.set_hash,
            dead: None,
        };
        Built { parts, segment }
    }
}
