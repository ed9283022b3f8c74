//! The leaf index of a segment: its rows once more, filed by what their vectors are near to, so that a search reads few of them.
//!
//! It is three kinds of objects beside those of the segment. `index` has the table of leaves, which a search reads first.
//! `leaves-NNNN` have, leaf after leaf, the numbers of its rows and their codes. `near-NNNN.arrow` have the rows in the order of
//! the leaves, in batches as those of the segment: what a search looks at more closely lies close together. (The segment's own
//! rows lie in the order of their positions, for whoever reads page after page.)

use crate::batches::{BatchPlace, BatchWriter, Batches};
use crate::head::{Head, Kind, Section};
use crate::objects::{Objects, Part, Sealed, name};
use crate::reader::Place;
use crate::row::RowView;
use crate::{RowBatch, SegmentError, damaged, index};
use model::{IndexRef, SetHash};
use std::ops::Range;
use vector::Table;
use xxhash_rust::xxh3::xxh3_64;

/// The name of the object with the table.
pub(crate) const INDEX: &str = "index";

/// Size with which an object of leaves is complete, in bytes.
const PART_BYTES: usize = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };
/// XXH3-64 of what is before it.
const CHECKSUM_BYTES: usize = 8;
/// Number of a row in the segment.
const ROW_BYTES: usize = 4;

/// Bytes of a leaf with so many rows, whose codes have so many bytes each.
const fn leaf_bytes(rows: usize, code_bytes: usize) -> usize {
    rows * (ROW_BYTES + code_bytes) + CHECKSUM_BYTES
}

/// Makes the leaf index of a segment.
///
/// Memory: the table, one object of leaves and one of rows.
pub struct IndexBuilder {
    table: Table,
    next_leaf: usize,
    leaves: Vec<u8>,
    near: BatchWriter,
    set_hash: SetHash,
    objects: Objects,
}

impl IndexBuilder {
    /// An index of the leaves in `table`, whose rows are yet to come.
    pub fn new(table: Table) -> Self {
        let near = BatchWriter::new(Kind::Near, table.codec().dimension);
        let (leaves, objects) = (Vec::new(), Objects::default());
        IndexBuilder { table, next_leaf: 0, leaves, near, set_hash: SetHash::default(), objects }
    }

    /// What the leaves are.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Appends the next leaf: the codes of its rows, and the rows with their numbers in the segment. Panics if they are not as
    /// many as the table says.
    pub fn push<'r>(&mut self, codes: &[u8], rows: impl IntoIterator<Item = (u32, RowView<'r>)>) {
        let start = self.leaves.len();
        for (number, row) in rows {
            self.leaves.extend(number.to_le_bytes());
            self.set_hash = self.set_hash.with(row.hash());
            self.near.push(&row, &mut self.objects);
        }
        self.leaves.extend(codes);
        let checksum = xxh3_64(&self.leaves[start..]);
        self.leaves.extend(checksum.to_le_bytes());
        let expected = leaf_rows(&self.table, self.next_leaf);
        let expected = leaf_bytes(index(expected.end - expected.start), self.table.codec().row_bytes());
        assert_eq!(self.leaves.len() - start, expected, "a leaf has the rows that the table says");
        self.next_leaf += 1;
        if self.leaves.len() >= PART_BYTES {
            self.objects.push(Kind::Leaves, std::mem::take(&mut self.leaves));
        }
    }

    /// The objects that are complete: they are not kept.
    pub fn take_parts(&mut self) -> Vec<Part> {
        self.objects.take()
    }

    /// The rest of the objects, and what a manifest says of the index. Panics if leaves are missing.
    pub fn finish(mut self) -> BuiltIndex {
        assert_eq!(self.next_leaf, self.table.leaves(), "every leaf comes");
        if !self.leaves.is_empty() {
            self.objects.push(Kind::Leaves, std::mem::take(&mut self.leaves));
        }
        let near = self.near.finish(&mut self.objects);
        let rows = leaf_rows(&self.table, self.table.leaves().saturating_sub(1)).end;
        let dimension = u32::try_from(self.table.codec().dimension).expect("a vector is shorter than 2^32");
        let sections = vec![(Kind::Table, self.table.encode()), (Kind::NearBatches, near)];
        let sealed = self.objects.seal(INDEX, (rows, dimension, self.set_hash), &sections);
        let Sealed { parts, named_bytes, bytes } = sealed;
        BuiltIndex { parts, named: IndexRef { bytes: named_bytes }, bytes }
    }
}

/// A whole leaf index.
#[derive(Debug)]
pub struct BuiltIndex {
    /// The objects that were not taken yet, `index` last.
    pub parts: Vec<Part>,
    /// What a manifest says of it.
    pub named: IndexRef,
    /// Size of all objects together.
    pub bytes: u64,
}

fn leaf_rows(table: &Table, leaf: usize) -> Range<u32> {
    table.rows(leaf..leaf + 1)
}

/// Where the object `index` of a segment is, which [`LeafIndex::open`] wants.
pub fn index_place(named: &IndexRef) -> Place {
    Place { part: INDEX.to_owned(), range: 0..u64::from(named.bytes) }
}

/// An opened leaf index. Its rows are numbered in the order of the leaves: these numbers are *slots*.
#[derive(Clone, Debug)]
pub struct LeafIndex {
    head: Head,
    table: Table,
    near: Batches,
    /// For each leaf its object and its offset there.
    starts: Vec<(u32, u32)>,
}

/// A leaf, read.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'b> {
    rows: &'b [[u8; ROW_BYTES]],
    /// The codes of its rows.
    pub codes: &'b [u8],
}

impl Leaf<'_> {
    /// The number in the segment of the leaf's row number `at`.
    pub fn row(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.rows[at])
    }

    /// The numbers of all its rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = u32> {
        self.rows.iter().map(|row| u32::from_le_bytes(*row))
    }
}

impl LeafIndex {
    /// The index whose object `index` is `body`. Errors: that is not what was written.
    pub fn open(body: &[u8]) -> Result<Self, SegmentError> {
        let head = Head::decode(body)?;
        let section = |kind: Kind| {
            let section = head.section(kind)?;
            let range = index(section.range.start)..index(section.range.end);
            section.check(body.get(range).ok_or_else(|| damaged("the index is cut off"))?)
        };
        let table = Table::decode(section(Kind::Table)?).map_err(damaged)?;
        let is_of_head =
            table.codec().dimension == index(head.dimension) && table.rows(0..table.leaves()).end == head.rows;
        if !is_of_head {
            return Err(damaged("the table of leaves is of another segment"));
        }
        let near = Batches::decode(Kind::Near, index(head.dimension), head.rows, section(Kind::NearBatches)?)?;
        let starts = starts(&table)?;
        Ok(LeafIndex { head, table, near, starts })
    }

    /// What the leaves are.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Number of rows.
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
        let sections = self.head.sections.len() * size_of::<Section>();
        self.table.encoded_len() + self.near.bytes() + self.starts.len() * size_of::<(u32, u32)>() + sections
    }

    /// Where leaf number `leaf` is.
    pub fn leaf_place(&self, leaf: usize) -> Place {
        let (part, start) = self.starts[leaf];
        let start = u64::from(start);
        Place { part: name(Kind::Leaves, part), range: start..start + self.leaf_bytes(leaf) as u64 }
    }

    fn leaf_bytes(&self, leaf: usize) -> usize {
        let rows = leaf_rows(&self.table, leaf);
        leaf_bytes(index(rows.end - rows.start), self.table.codec().row_bytes())
    }

    /// The leaf whose `bytes` these are, after [`LeafIndex::decode_leaf`] has accepted them once. Cost: none. Errors: they are
    /// those of a leaf of another size.
    pub fn leaf<'b>(&self, leaf: usize, bytes: &'b [u8]) -> Result<Leaf<'b>, SegmentError> {
        if bytes.len() != self.leaf_bytes(leaf) {
            return Err(damaged(format_args!("leaf {leaf} has another size")));
        }
        let rows = leaf_rows(&self.table, leaf);
        let (rows, codes) = bytes[..bytes.len() - CHECKSUM_BYTES].split_at(index(rows.end - rows.start) * ROW_BYTES);
        Ok(Leaf { rows: rows.as_chunks().0, codes })
    }

    /// The leaf whose `bytes` these are. Cost: their checksum. Errors: they are not what was written.
    pub fn decode_leaf<'b>(&self, leaf: usize, bytes: &'b [u8]) -> Result<Leaf<'b>, SegmentError> {
        let is_right =
            |(body, checksum): (&[u8], &[u8; CHECKSUM_BYTES])| xxh3_64(body) == u64::from_le_bytes(*checksum);
        if !bytes.split_last_chunk().is_some_and(is_right) {
            return Err(damaged(format_args!("leaf {leaf} does not match its checksum")));
        }
        let leaf = self.leaf(leaf, bytes)?;
        if (0..leaf.rows.len()).any(|at| leaf.row(at) >= self.head.rows) {
            return Err(damaged("a leaf has a row that the segment has not"));
        }
        Ok(leaf)
    }

    /// Bytes of a row in the order of leaves, on average.
    pub fn near_row_bytes(&self) -> u64 {
        self.near.parts_bytes() / u64::from(self.rows().max(1))
    }

    /// Number of batches of rows.
    pub fn near_batches(&self) -> usize {
        self.near.len()
    }

    /// Where batch number `number` of the rows in the order of leaves is; its rows are slots.
    pub fn near_batch(&self, number: usize) -> BatchPlace {
        self.near.place(number)
    }

    /// Where the row in `slot` is. Panics if there is none.
    pub fn near_batch_of(&self, slot: u32) -> BatchPlace {
        self.near.place_of(slot)
    }

    /// The rows in the `bytes` of a batch. Cost: one copy. Errors: they are not what was written.
    pub fn decode_near_batch(&self, place: &BatchPlace, bytes: &[u8]) -> Result<RowBatch, SegmentError> {
        self.near.decode_batch(place, bytes)
    }

    /// All objects of the index but `index` itself, and what each must hash to: name, size in bytes and XXH3-64.
    pub fn objects(&self) -> Vec<(String, u64, u64)> {
        self.head.objects([Kind::Leaves, Kind::Near])
    }
}

/// Where each leaf lies: see [`IndexBuilder`].
fn starts(table: &Table) -> Result<Vec<(u32, u32)>, SegmentError> {
    let (mut part, mut start, mut starts) = (0, 0_usize, Vec::with_capacity(table.leaves()));
    for leaf in 0..table.leaves() {
        let rows = leaf_rows(table, leaf);
        starts.push((part, u32::try_from(start).map_err(|_| damaged("a leaf is beyond 4 GB"))?));
        start += leaf_bytes(index(rows.end - rows.start), table.codec().row_bytes());
        if start >= PART_BYTES {
            (part, start) = (part + 1, 0);
        }
    }
    Ok(starts)
}

#[cfg(test)]
mod tests;
