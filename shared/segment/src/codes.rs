//! Vectors in a quarter of their size, for scanning: a byte a dimension, and how far off that is at most.
//!
//! A row's code spreads its own smallest to largest number over 0 to 255. With the length of what is lost, every distance
//! can be enclosed: the true one lies between two bounds, so a scan over codes finds candidates among which the exact
//! nearest neighbours surely are, and rows need be read of those only.

#![expect(clippy::cast_possible_truncation, reason = "numbers are rounded on purpose, and bounds are widened")]

use crate::row::RowView;
use crate::{SegmentError, damaged};
use model::Space;

/// Header of a code: smallest number, step, length of the error (f32 each), four bytes of zero, sum of squares (f64).
const HEADER_BYTES: usize = 24;
/// Codes in one part, about, in bytes.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of one row's code.
pub const fn stride(dimension: usize) -> usize {
    HEADER_BYTES + dimension
}

/// Rows whose codes lie in one part: part `p` has those from `p` times this on.
pub const fn rows_per_part(dimension: usize) -> u32 {
    let rows = PART_BYTES / stride(dimension);
    if rows == 0 { 1 } else { rows as u32 }
}

/// Appends the code of `row`.
pub(crate) fn append(codes: &mut Vec<u8>, row: &RowView<'_>) {
    let fold = |start: f32, pick: fn(f32, f32) -> f32| row.vector.iter().copied().fold(start, pick);
    let (low, high) = (fold(f32::INFINITY, f32::min), fold(f32::NEG_INFINITY, f32::max));
    let step = ((f64::from(high) - f64::from(low)) / 255.0) as f32;
    let code = |x: f32| if step > 0.0 { ((f64::from(x) - f64::from(low)) / f64::from(step)).round() as u8 } else { 0 };
    let start = codes.len();
    codes.resize(start + HEADER_BYTES, 0);
    codes.extend(row.vector.iter().map(|x| code(*x)));
    let lost = |(x, code): (&f32, &u8)| f64::from(*x) - (f64::from(low) + f64::from(step) * f64::from(*code));
    let lost: f64 = row.vector.iter().zip(&codes[start + HEADER_BYTES..]).map(lost).map(|lost| lost * lost).sum();
    let squares: f64 = row.vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let error = ((lost.sqrt() * (1.0 + 1e-6)) as f32).next_up();
    let header = &mut codes[start..start + HEADER_BYTES];
    header[0..4].copy_from_slice(&low.to_le_bytes());
    header[4..8].copy_from_slice(&step.to_le_bytes());
    header[8..12].copy_from_slice(&error.to_le_bytes());
    header[16..24].copy_from_slice(&squares.to_le_bytes());
}

/// A query vector, ready to be compared with codes.
#[derive(Clone, Debug)]
pub struct CodeQuery<'q> {
    space: Space,
    vector: &'q [f32],
    sum: f64,
    norm: f64,
}

/// Between which values a distance lies, as the exact kernel computes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Not below this.
    pub lower: f32,
    /// Not above this.
    pub upper: f32,
}

impl<'q> CodeQuery<'q> {
    /// For distances in `space` to `vector`.
    pub fn new(space: Space, vector: &'q [f32]) -> Self {
        let sum = vector.iter().map(|x| f64::from(*x)).sum();
        let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        CodeQuery { space, vector, sum, norm }
    }

    /// Encloses the distance to the row with this code. Cost: a multiplication and an addition a dimension.
    pub fn bounds(&self, code: &[u8]) -> Bounds {
        let f32_at = |at: usize| f64::from(f32::from_le_bytes(*code[at..].first_chunk().expect("a code has a header")));
        let (low, step, error) = (f32_at(0), f32_at(4), f32_at(8));
        let squares = f64::from_le_bytes(*code[16..].first_chunk().expect("a code has a header"));
        let levels = &code[HEADER_BYTES..];
        let norm = squares.sqrt();
        let dimension = self.vector.len() as f64;
        let product = low * self.sum + step * f64::from(products(self.vector, levels));
        // What rounding may add: in the sum over levels here, and in the kernel that computes the distance itself.
        const EPSILON: f64 = f32::EPSILON as f64;
        let levels_norm = step * 255.0 * dimension.sqrt();
        let rounding = (dimension / 16.0 + 16.0) * EPSILON * self.norm * levels_norm
            + 2.0 * (dimension + 16.0) * EPSILON * self.norm * norm
            + f64::from(f32::MIN_POSITIVE);
        let slack = self.norm * error + rounding;
        let (lower, upper) = match self.space {
            Space::Ip => (1.0 - product - slack, 1.0 - product + slack),
            Space::Cosine if self.norm * norm == 0.0 => (f64::NEG_INFINITY, f64::INFINITY),
            Space::Cosine => {
                let lengths = self.norm * norm;
                let extra = 4.0 * (dimension + 16.0) * EPSILON;
                (1.0 - (product + slack) / lengths - extra, 1.0 - (product - slack) / lengths + extra)
            }
            Space::L2 => {
                let squared = self.norm * self.norm + squares - 2.0 * product;
                let relative = 2.0 * (dimension + 16.0) * EPSILON;
                let (near, far) = ((squared - 2.0 * slack).max(0.0), (squared + 2.0 * slack).max(0.0));
                (near * (1.0 - relative), far * (1.0 + relative))
            }
        };
        // A NaN, from numbers that overflow, bounds nothing.
        let lower = if lower.is_finite() { (lower as f32).next_down() } else { f32::NEG_INFINITY };
        let upper = if upper.is_finite() { (upper as f32).next_up() } else { f32::INFINITY };
        Bounds { lower, upper }
    }
}

/// `Σ qᵢ·levelᵢ` in sixteen sums, which compilers turn into SIMD.
fn products(query: &[f32], levels: &[u8]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (queries, query_rest) = query.as_chunks::<LANES>();
    let (codes, code_rest) = levels.as_chunks::<LANES>();
    for (query, code) in queries.iter().zip(codes) {
        for lane in 0..LANES {
            sums[lane] += query[lane] * f32::from(code[lane]);
        }
    }
    let rest: f32 = query_rest.iter().zip(code_rest).map(|(query, code)| query * f32::from(*code)).sum();
    sums.iter().sum::<f32>() + rest
}

/// The codes of the rows in a part. Errors: the part has another length.
pub fn in_part(part: &[u8], dimension: usize, rows: u32) -> Result<impl Iterator<Item = &[u8]>, SegmentError> {
    if part.len() != stride(dimension) * crate::index(rows) {
        return Err(damaged("a part of codes has another length"));
    }
    Ok(part.chunks_exact(stride(dimension)))
}
