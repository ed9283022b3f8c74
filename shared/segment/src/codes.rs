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
const PART_BYTES: usize = if cfg!(test) { 64 * 1024 } else { 4 * 1024 * 1024 };

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

impl Bounds {
    /// Nothing is known.
    const NONE: Bounds = Bounds { lower: f32::NEG_INFINITY, upper: f32::INFINITY };
}

/// Products of lengths up to which no sum of a dot product overflows in the kernel.
const KERNEL_SUM_MAX: f64 = 1e38;
/// The kernel takes a vector shorter than this for zero, to which all have the cosine distance 1.
const KERNEL_NO_LENGTH: f64 = 1e-23;
/// The kernel's norms of vectors between these lengths are exact to rounding, and so are products of two.
const KERNEL_LENGTH_MIN: f64 = 1e-18;
const KERNEL_LENGTH_MAX: f64 = 1e18;

impl<'q> CodeQuery<'q> {
    /// For distances in `space` to `vector`.
    pub fn new(space: Space, vector: &'q [f32]) -> Self {
        let sum = vector.iter().map(|x| f64::from(*x)).sum();
        let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        CodeQuery { space, vector, sum, norm }
    }

    /// Encloses the distance to the row with this code. Cost: a multiplication and an addition a dimension.
    /// Panics if it is the code of a vector of another length.
    pub fn bounds(&self, code: &[u8]) -> Bounds {
        let f32_at = |at: usize| f64::from(f32::from_le_bytes(*code[at..].first_chunk().expect("a code has a header")));
        let (low, step, error) = (f32_at(0), f32_at(4), f32_at(8));
        let squares = f64::from_le_bytes(*code[16..].first_chunk().expect("a code has a header"));
        let levels = &code[HEADER_BYTES..];
        assert_eq!(levels.len(), self.vector.len(), "only vectors of one length have a distance");
        let norm = squares.sqrt();
        let (shorter, longer) = (self.norm.min(norm), self.norm.max(norm));
        let dimension = self.vector.len() as f64;
        let product = low * self.sum + step * f64::from(products(self.vector, levels));
        // What rounding may add: in the sum over levels here, and in the kernel that computes the distance itself.
        const EPSILON: f64 = f32::EPSILON as f64;
        let levels_norm = step * 255.0 * dimension.sqrt();
        let rounding = (dimension / 16.0 + 16.0) * EPSILON * self.norm * levels_norm
            + 2.0 * (dimension + 16.0) * EPSILON * self.norm * norm
            + f64::from(f32::MIN_POSITIVE);
        let slack = self.norm * error + rounding;
        let lengths = self.norm * norm;
        let (lower, upper) = match self.space {
            // The kernel has its own rules where its sums leave the range of f32; so have these sums here.
            _ if !product.is_finite() => return Bounds::NONE,
            Space::Ip if lengths > KERNEL_SUM_MAX => return Bounds::NONE,
            Space::Cosine if shorter < KERNEL_NO_LENGTH => return Bounds { lower: 1.0, upper: 1.0 },
            Space::Cosine if shorter < KERNEL_LENGTH_MIN || longer > KERNEL_LENGTH_MAX => return Bounds::NONE,
            Space::Ip => (1.0 - product - slack, 1.0 - product + slack),
            Space::Cosine => {
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

#[cfg(test)]
mod tests {
    //! The form of codes; that bounds enclose distances is tested where the kernel is known, in `stored`.

    use super::*;
    use crate::testing::rows;

    #[test]
    fn a_code_restores_its_vector_but_for_what_it_says_is_lost() {
        for row in rows(7, 200, 5) {
            let mut code = Vec::new();
            append(&mut code, &row.view());
            assert_eq!(code.len(), stride(5));
            let f32_at = |at: usize| f64::from(f32::from_le_bytes(*code[at..].first_chunk().unwrap()));
            let (low, step, error) = (f32_at(0), f32_at(4), f32_at(8));
            let restored = code[HEADER_BYTES..].iter().map(|level| low + step * f64::from(*level));
            let lost = restored.zip(&row.vector).map(|(restored, x)| (restored - f64::from(*x)).powi(2)).sum::<f64>();
            assert!(lost.sqrt() <= error, "{row:?}");
        }
    }

    #[test]
    fn parts_of_another_length_are_errors() {
        for (bytes, rows, is_right) in [(0, 0, true), (29 * 3, 3, true), (29 * 3, 2, false), (29 * 3 - 1, 3, false)] {
            assert_eq!(in_part(&vec![0; bytes], 5, rows).is_ok(), is_right, "{bytes} bytes, {rows} rows");
        }
    }
}
