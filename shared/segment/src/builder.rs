//! Rows -> the parts of a segment.

use crate::batches::BatchWriter;
use crate::codes;
use crate::head::{HEAD, Head, Kind};
use crate::ids::{self, IdFilter, IdHash};
use crate::objects::{Objects, Part, Sealed};
use crate::positions;
use crate::row::RowView;
use model::{SegmentRef, SetHash};

/// Takes rows in the order of their positions and makes parts of them, each as soon as it is full.
///
/// Memory: one part of rows, one of codes and about 60 bytes for each row.
pub struct Builder {
    dimension: usize,
    rows: u32,
    set_hash: SetHash,
    batches: BatchWriter,
    /// If its vectors are to be scanned as codes.
    codes: Option<Vec<u8>>,
    positions: positions::Writer,
    ids: Vec<(IdHash, u32)>,
    objects: Objects,
}

/// A whole segment.
#[derive(Debug)]
pub struct Built {
    /// The parts that were not taken yet, the head last.
    pub parts: Vec<Part>,
    /// What a manifest says of it.
    pub segment: SegmentRef,
}

impl Builder {
    /// A flat segment without rows, whose vectors will have `dimension` numbers: at least one.
    pub fn new(dimension: usize) -> Self {
        Builder { codes: Some(Vec::new()), ..Builder::without_codes(dimension) }
    }

    /// The same for a segment that gets a leaf index: [`crate::IndexBuilder`].
    pub fn without_codes(dimension: usize) -> Self {
        assert!(dimension > 0, "a vector has at least one number");
        Builder {
            dimension,
            rows: 0,
            set_hash: SetHash::default(),
            batches: BatchWriter::new(Kind::Rows, dimension),
            codes: None,
            positions: positions::Writer::default(),
            ids: Vec::new(),
            objects: Objects::default(),
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
        if let Some(codes) = &mut self.codes {
            codes::append(codes, row);
        }
        self.batches.push(row, &mut self.objects);
        self.rows += 1;
        if self.rows.is_multiple_of(codes::rows_per_part(self.dimension)) {
            self.end_codes_part();
        }
    }

    /// The parts that are complete: they are not kept.
    pub fn take_parts(&mut self) -> Vec<Part> {
        self.objects.take()
    }

    fn end_codes_part(&mut self) {
        if let Some(codes) = self.codes.as_mut().filter(|codes| !codes.is_empty()) {
            self.objects.push(Kind::Codes, std::mem::take(codes));
        }
    }

    /// The rest of the parts, and what a manifest says of the segment at `prefix`.
    pub fn finish(mut self, prefix: String) -> Built {
        let batches = self.batches.finish(&mut self.objects);
        self.end_codes_part();
        let filter = IdFilter::new(self.ids.iter().map(|(hash, _)| *hash), self.ids.len());
        let sections = [
            (Kind::Batches, batches),
            (Kind::Positions, self.positions.bytes),
            (Kind::IdFilter, filter.encode()),
            (Kind::Ids, ids::encode(self.ids)),
        ];
        let opened = Head::bytes(sections.len() + self.objects.sections.len()) + sections[0].1.len();
        let before_ids = opened + sections[1].1.len() + sections[2].1.len();
        let dimension = u32::try_from(self.dimension).expect("a vector is shorter than 2^32");
        let Sealed { parts, bytes, .. } = self.objects.seal(HEAD, (self.rows, dimension, self.set_hash), &sections);
        let segment = SegmentRef {
            prefix,
            rows: self.rows,
            dimension,
            head_bytes: u32::try_from(opened).expect("a head is smaller than 4 GB"),
            ids_at: before_ids as u64,
            bytes,
            set_hash: self.set_hash,
            index: None,
            text: None,
            dead: None,
        };
        Built { parts, segment }
    }
}
