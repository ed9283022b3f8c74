//! The table of leaves: what a query reads before all else, to know which leaves to read.
//!
//! Centroids are coded like rows, relative to the mean of all. Rows are coded relative to the centroid *as the table gives it
//! back*, so few bits make leaves a little wider and nothing wrong.

#![expect(clippy::cast_precision_loss, reason = "products of codes are rounded on purpose")]

use crate::Rows;
use crate::codes::{self, Codec, Frame, LeafView, Query};
use crate::planes;
use std::ops::Range;

/// The version this code writes and the only one it reads.
pub(crate) const VERSION: u32 = 1;

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
    codes: Vec<u8>,
}

impl Table {
    /// Codes `centroids` (as [`crate::Leaves`] has them) with `bits` bits a dimension.
    pub fn new(frame: Frame, codec: Codec, bits: u32, centroids: Rows<'_>, rows: &[u32]) -> Self {
        let mut table = Table {
            frame,
            codec,
            bits,
            starts: starts(rows.iter().copied()).expect("a segment has fewer than 2^32 rows"),
            scales: Vec::with_capacity(rows.len()),
            squares: Vec::with_capacity(rows.len()),
            codes: Vec::new(),
        };
        let mut levels = vec![0; centroids.dimension()];
        for centroid in centroids.iter() {
            let placed = table.frame.place(centroid);
            let fit = codes::quantise(&placed, bits, &mut levels);
            let scale = if fit.squares > 0.0 { fit.product / fit.squares } else { 0.0 };
            table.scales.push(scale);
            table.squares.push(scale * scale * fit.squares);
            planes::pack(&levels, bits, &mut table.codes);
        }
        table
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

    /// The rows of leaves `leaves`.
    pub fn rows(&self, leaves: Range<usize>) -> Range<u32> {
        self.starts[leaves.start]..self.starts[leaves.end]
    }

    /// Where the codes of leaves `leaves` lie in the part of leaves.
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
        let of_leaves = self.scales.iter().zip(&self.squares);
        let view = |(product, (scale, squares)): (i32, (&f32, &f32))| {
            query.view(scale * step * (product as f32 - centre), *squares)
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
