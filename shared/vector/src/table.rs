//! The table of leaves: what a query reads before all else, to know which leaves to read.
//!
//! Centroids are coded like rows, relative to the mean of all. Rows are coded relative to the centroid *as the table gives it
//! back*, so few bits make leaves a little wider and nothing wrong.
//!
//! Bytes, little-endian: version `u32`, space `u8` (0 l2, 1 cosine, 2 ip), bits of rows `u8`, bits of centroids `u8`, 0 `u8`,
//! dimension `u32`, leaves `u32`, seed of the rotation `u64`, length `f32`, mean `[f32; d]`, rows of the leaves `[u16; leaves]`,
//! scales, squares and radii `[f32; leaves]` each, then a code for each leaf as [`crate::planes`] packs them.

#![expect(clippy::cast_precision_loss, reason = "products of codes are rounded on purpose")]

use crate::codes::{self, Codec, Frame, LeafView, Query};
use crate::planes;
use crate::{Rows, VectorError};
use model::Space;
use std::ops::Range;

/// The version this code writes and the only one it reads.
pub(crate) const VERSION: u32 = 1;

/// By their number in bytes.
const SPACES: [Space; 3] = [Space::L2, Space::Cosine, Space::Ip];
/// Bytes before the mean.
const FIXED_BYTES: usize = 28;

/// Leaves and where they lie.
#[derive(Clone, Debug)]
pub struct Table {
    frame: Frame,
    /// How rows are coded.
    codec: Codec,
    /// How centroids are coded.
    bits: u32,
    /// First row of each leaf, and the number of all.
    starts: Vec<u32>,
    /// A centroid is `scale · (level − half)`.
    scales: Vec<f32>,
    /// The squares of the centroids as they are given back.
    squares: Vec<f32>,
    /// How far the rows of a leaf are from its centroid, about.
    radii: Vec<f32>,
    codes: Vec<u8>,
}

impl Table {
    /// Codes `centroids` (as [`crate::Leaves`] has them) with `bits` bits a dimension.
    pub fn new(frame: Frame, codec: Codec, bits: u32, centroids: Rows<'_>, rows: &[u32], radii: &[f32]) -> Self {
        let mut table = Table {
            frame,
            codec,
            bits,
            starts: vec![0],
            scales: Vec::with_capacity(rows.len()),
            squares: Vec::with_capacity(rows.len()),
            radii: Vec::with_capacity(rows.len()),
            codes: Vec::new(),
        };
        for (centroid, (rows, radius)) in centroids.iter().zip(rows.iter().zip(radii)) {
            table.push(&table.frame.place(centroid), *radius, *rows);
        }
        table
    }

    /// A table of the same kind without leaves.
    pub fn emptied(&self) -> Self {
        let Table { ref frame, codec, bits, .. } = *self;
        Table::new(frame.clone(), codec, bits, Rows::new(&[], codec.dimension), &[], &[])
    }

    /// Appends a leaf of `rows` rows that are about `radius` from its centroid, which is as the frame sees it.
    pub fn push(&mut self, centroid: &[f32], radius: f32, rows: u32) {
        let mut levels = vec![0; self.codec.dimension];
        let fit = codes::quantise(centroid, self.bits, &mut levels);
        let scale = if fit.squares > 0.0 { fit.product / fit.squares } else { 0.0 };
        self.scales.push(scale);
        self.squares.push(scale * scale * fit.squares);
        self.radii.push(radius);
        planes::pack(&levels, self.bits, &mut self.codes);
        self.end_leaf(rows);
    }

    /// Appends leaf `leaf` of `table`, which is of the same kind, with `rows` rows: rows that were coded there are coded here.
    pub fn push_from(&mut self, table: &Table, leaf: usize, rows: u32) {
        let stride = planes::code_bytes(self.codec.dimension, self.bits);
        self.scales.push(table.scales[leaf]);
        self.squares.push(table.squares[leaf]);
        self.radii.push(table.radii[leaf]);
        self.codes.extend_from_slice(&table.codes[leaf * stride..(leaf + 1) * stride]);
        self.end_leaf(rows);
    }

    fn end_leaf(&mut self, rows: u32) {
        let start = self.starts.last().copied().unwrap_or(0);
        self.starts.push(start.checked_add(rows).expect("a segment has fewer than 2^32 rows"));
    }

    /// The table as bytes: [`Table::encoded_len`] of them.
    pub fn encode(&self) -> Vec<u8> {
        let space = SPACES.iter().position(|space| *space == self.frame.space()).unwrap_or_default();
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.extend(
            [space, crate::index(self.codec.bits), crate::index(self.bits), 0].map(|byte| byte.to_le_bytes()[0]),
        );
        bytes.extend(crate::number(self.codec.dimension).to_le_bytes());
        bytes.extend(crate::number(self.leaves()).to_le_bytes());
        bytes.extend(self.frame.seed().to_le_bytes());
        bytes.extend(self.frame.length().to_le_bytes());
        bytes.extend(self.frame.mean().iter().flat_map(|x| x.to_le_bytes()));
        let rows = self.starts.windows(2).map(|pair| u16::try_from(pair[1] - pair[0]).expect("a leaf has few rows"));
        bytes.extend(rows.flat_map(u16::to_le_bytes));
        bytes.extend(self.scales.iter().chain(&self.squares).chain(&self.radii).flat_map(|x| x.to_le_bytes()));
        bytes.extend_from_slice(&self.codes);
        debug_assert_eq!(bytes.len(), self.encoded_len(), "a table has a length that can be told before");
        bytes
    }

    /// Bytes of the table.
    pub fn encoded_len(&self) -> usize {
        let leaf_bytes = 2 + 4 + 4 + 4 + planes::code_bytes(self.codec.dimension, self.bits);
        FIXED_BYTES + 4 * self.codec.dimension + self.leaves() * leaf_bytes
    }

    /// The table that `bytes` are. Cost: a copy. Errors: anything else than a whole table.
    pub fn decode(bytes: &[u8]) -> Result<Self, VectorError> {
        let mut rest = bytes;
        let version = u32::from_le_bytes(take(&mut rest)?);
        if version != VERSION {
            return Err(VectorError::Version(version));
        }
        let [space, row_bits, bits, _] = take(&mut rest)?.map(u32::from);
        let space = *SPACES.get(crate::index(space)).ok_or(VectorError::Damaged("no such space"))?;
        let dimension = crate::index(u32::from_le_bytes(take(&mut rest)?));
        let leaves = crate::index(u32::from_le_bytes(take(&mut rest)?));
        let possible = 1..=planes::BITS_MAX;
        if !possible.contains(&row_bits)
            || !possible.contains(&bits)
            || !(1..=planes::DIMENSION_MAX).contains(&dimension)
        {
            return Err(VectorError::Damaged("codes that do not exist"));
        }
        let seed = u64::from_le_bytes(take(&mut rest)?);
        let length = f32::from_le_bytes(take(&mut rest)?);
        let mean = floats(take_bytes(&mut rest, dimension, 4)?);
        let rows = take_bytes(&mut rest, leaves, 2)?.as_chunks().0;
        let starts = starts(rows.iter().map(|two| u32::from(u16::from_le_bytes(*two))));
        let scales = floats(take_bytes(&mut rest, leaves, 4)?);
        let squares = floats(take_bytes(&mut rest, leaves, 4)?);
        let radii = floats(take_bytes(&mut rest, leaves, 4)?);
        let codes = take_bytes(&mut rest, leaves, planes::code_bytes(dimension, bits))?.to_vec();
        if !rest.is_empty() {
            return Err(VectorError::Damaged("bytes behind the table"));
        }
        Ok(Table {
            frame: Frame::new(space, mean, length, seed),
            codec: Codec { dimension, bits: row_bits },
            bits,
            starts: starts.ok_or(VectorError::Damaged("more rows than numbers for them"))?,
            scales,
            squares,
            radii,
            codes,
        })
    }

    /// How rows are coded.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Where vectors are compared.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Number of leaves.
    pub fn leaves(&self) -> usize {
        self.scales.len()
    }

    /// The rows of leaves `leaves`. Panics if there are no such leaves.
    pub fn rows(&self, leaves: Range<usize>) -> Range<u32> {
        self.starts[leaves.start]..self.starts[leaves.end]
    }

    /// Where the codes of leaves `leaves` lie in the part of leaves. Panics if there are no such leaves.
    pub fn bytes(&self, leaves: Range<usize>) -> Range<u64> {
        let rows = self.rows(leaves);
        let row_bytes = self.codec.row_bytes() as u64;
        u64::from(rows.start) * row_bytes..u64::from(rows.end) * row_bytes
    }

    /// Leaf `leaf`'s centroid, as the frame sees it.
    pub fn centroid(&self, leaf: usize) -> Vec<f32> {
        let dimension = self.codec.dimension;
        let stride = planes::code_bytes(dimension, self.bits);
        let levels = planes::unpack(&self.codes[leaf * stride..(leaf + 1) * stride], dimension, self.bits);
        let half = codes::half(self.bits);
        levels.into_iter().map(|level| self.scales[leaf] * (f32::from(level) - half)).collect()
    }

    /// All leaves as `query` sees them.
    pub fn views(&self, query: &Query) -> Vec<LeafView> {
        let mut products = vec![0; self.leaves()];
        query.levels.products(&self.codes, self.bits, &mut products);
        let (step, centre) = query.levels.scale(self.bits);
        let of_leaves = self.scales.iter().zip(self.squares.iter().zip(&self.radii));
        let view = |(product, (scale, (squares, radius))): (i32, (&f32, (&f32, &f32)))| {
            query.view(scale * step * (product as f32 - centre), *squares, *radius)
        };
        products.into_iter().zip(of_leaves).map(view).collect()
    }
}

/// Where each leaf's rows begin, and where the last one's end. `None` beyond 2^32 rows.
fn starts(rows: impl Iterator<Item = u32>) -> Option<Vec<u32>> {
    let mut starts = vec![0_u32];
    for count in rows {
        starts.push(starts.last()?.checked_add(count)?);
    }
    Some(starts)
}

/// The next bytes of `rest`.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], VectorError> {
    let (first, behind) = rest.split_first_chunk().ok_or(VectorError::Damaged(CUT_OFF))?;
    *rest = behind;
    Ok(*first)
}

/// The next `count` things of `size` bytes.
fn take_bytes<'b>(rest: &mut &'b [u8], count: usize, size: usize) -> Result<&'b [u8], VectorError> {
    let bytes = count.checked_mul(size).ok_or(VectorError::Damaged(CUT_OFF))?;
    let (first, behind) = rest.split_at_checked(bytes).ok_or(VectorError::Damaged(CUT_OFF))?;
    *rest = behind;
    Ok(first)
}

const CUT_OFF: &str = "the table is cut off";

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

#[cfg(test)]
mod tests;
