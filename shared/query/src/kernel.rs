//! Exact distances of f32 vectors: the same bits on every machine, for every distance a user ever sees.
//!
//! # The canonical order
//!
//! Floating-point sums depend on their order, so the order is part of the format of whatever stores a distance or is
//! compared with one. A sum over the elements of two vectors (of `aᵢ·bᵢ`, or of `dᵢ·dᵢ` with `dᵢ = aᵢ − bᵢ`) is:
//!
//! 1. 32 lanes start at +0. Element `i` belongs to lane `i mod 32`.
//! 2. In ascending order of `i`, each term is computed and then added to its lane. Every subtraction, product and
//!    addition rounds to f32 on its own (to nearest, ties to even, denormals kept): nothing is fused.
//! 3. The lanes are folded in halves: lane `j` becomes `lane[j] + lane[j + w]` for all `j < w`, for w = 16, 8, 4, 2,
//!    1. Lane 0 is the sum.
//!
//! Filling the vectors up with zeros to a multiple of 32 changes no bit of it, and both implementations do that: a
//! lane is never −0 (it starts at +0, and rounding to nearest gives −0 only for −0 + −0), and adding a zero to
//! anything else leaves it as it is.
//!
//! From the sums, again with every operation rounded to f32 on its own, where `|v|` is `√(v·v)`:
//!
//! | space | distance |
//! | --- | --- |
//! | l2 | `Σ dᵢ·dᵢ` |
//! | ip | `1 − a·b` |
//! | cosine | `1 − a·b / (\|a\| · \|b\|)`; 1 if either norm is 0 |
//!
//! A result that is not a number (`∞ − ∞`, where sums overflow) becomes +∞, the farthest of all: the bits of a NaN
//! depend on the machine. Norms are exact to rounding for lengths from 1e-19 · √d to 1e19 (below, squares lose digits); a
//! vector shorter than 1e-23 has the norm 0.
//!
//! # Two implementations
//!
//! [`scalar`] says the order in plain Rust, laid out so that compilers vectorise it; on wasm32 with simd128 the
//! kernels use `f32x4` instructions in the same order. [`self_check`] compares the two bit for bit.

use model::Space;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd as best;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use scalar as best;

/// Number of partial sums in the canonical order.
pub const LANES: usize = 32;

/// `Σ aᵢ·bᵢ` in the canonical order. Panics if the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    best::dot(a, b)
}

/// `Σ (aᵢ − bᵢ)²` in the canonical order. Panics if the lengths differ.
pub fn squared_l2(a: &[f32], b: &[f32]) -> f32 {
    best::squared_l2(a, b)
}

/// `√(v·v)`, as [`Measure::distance_with_norm`] expects it.
pub fn norm(vector: &[f32]) -> f32 {
    dot(vector, vector).sqrt()
}

/// A query vector, ready to be compared with many rows.
///
/// ```
/// use model::Space;
/// use query::kernel::Measure;
/// assert_eq!(Measure::new(Space::L2, &[1.0, 2.0]).distance(&[1.0, 4.0]), 4.0);
/// assert_eq!(Measure::new(Space::Cosine, &[1.0, 2.0]).distance(&[0.0, 0.0]), 1.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Measure<'q> {
    space: Space,
    query: &'q [f32],
    norm: f32,
}

impl<'q> Measure<'q> {
    /// Prepares `query`: its norm is computed once.
    pub fn new(space: Space, query: &'q [f32]) -> Self {
        let norm = if space == Space::Cosine { norm(query) } else { 0.0 };
        Measure { space, query, norm }
    }

    /// The distance to `row`, smaller is nearer. Panics if the lengths differ.
    pub fn distance(&self, row: &[f32]) -> f32 {
        let row_norm = if self.space == Space::Cosine { norm(row) } else { 0.0 };
        self.distance_with_norm(row, row_norm)
    }

    /// As [`Measure::distance`], to the bit, for half the work if the space is cosine.
    ///
    /// `row_norm` is [`norm`]`(row)`; it matters in cosine space only.
    pub fn distance_with_norm(&self, row: &[f32], row_norm: f32) -> f32 {
        let distance = match self.space {
            Space::L2 => squared_l2(self.query, row),
            Space::Ip => 1.0 - dot(self.query, row),
            Space::Cosine => cosine(dot(self.query, row), self.norm, row_norm),
        };
        if distance.is_nan() { f32::INFINITY } else { distance }
    }
}

/// `1 − dot / (a_norm · b_norm)`; 1 if either vector has no direction.
fn cosine(dot: f32, a_norm: f32, b_norm: f32) -> f32 {
    if a_norm == 0.0 || b_norm == 0.0 {
        return 1.0;
    }
    1.0 - dot / (a_norm * b_norm)
}

/// The last elements of a vector, filled up with zeros to a whole block.
fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut block = [0.0; LANES];
    block[..tail.len()].copy_from_slice(tail);
    block
}

/// The canonical order in plain Rust: on every target, the definition the others are compared with.
pub mod scalar {
    use super::{LANES, padded};

    /// As [`super::dot`].
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum(a, b, |x, y| x * y)
    }

    /// As [`super::squared_l2`].
    pub fn squared_l2(a: &[f32], b: &[f32]) -> f32 {
        sum(a, b, |x, y| (x - y) * (x - y))
    }

    #[inline(always)]
    fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
        assert_eq!(a.len(), b.len(), "only vectors of one length have a distance");
        let ((a_blocks, a_tail), (b_blocks, b_tail)) = (a.as_chunks(), b.as_chunks());
        let mut lanes = [0.0; LANES];
        for (a, b) in a_blocks.iter().zip(b_blocks) {
            add_block(&mut lanes, a, b, &term);
        }
        if !a_tail.is_empty() {
            add_block(&mut lanes, &padded(a_tail), &padded(b_tail), &term);
        }
        fold(lanes)
    }

    #[inline(always)]
    fn add_block(lanes: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES], term: impl Fn(f32, f32) -> f32) {
        for i in 0..LANES {
            lanes[i] += term(a[i], b[i]);
        }
    }

    fn fold(mut lanes: [f32; LANES]) -> f32 {
        for width in [16, 8, 4, 2, 1] {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
        }
        lanes[0]
    }
}

/// The canonical order in simd128 instructions: register `r` holds lanes `4r` to `4r + 3`.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd {
    use super::{LANES, padded};
    use core::arch::wasm32::{
        f32x4_add as add, f32x4_extract_lane as extract, f32x4_mul as mul, f32x4_splat as splat, f32x4_sub as sub,
        i32x4_shuffle as shuffle, v128, v128_load,
    };

    const REGISTERS: usize = LANES / 4;

    pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum(a, b, |x, y| mul(x, y))
    }

    pub(super) fn squared_l2(a: &[f32], b: &[f32]) -> f32 {
        sum(a, b, |x, y| {
            let difference = sub(x, y);
            mul(difference, difference)
        })
    }

    #[inline(always)]
    fn sum(a: &[f32], b: &[f32], term: impl Fn(v128, v128) -> v128) -> f32 {
        assert_eq!(a.len(), b.len(), "only vectors of one length have a distance");
        let ((a_blocks, a_tail), (b_blocks, b_tail)) = (a.as_chunks(), b.as_chunks());
        let mut registers = [splat(0.0); REGISTERS];
        for (a, b) in a_blocks.iter().zip(b_blocks) {
            add_block(&mut registers, a, b, &term);
        }
        if !a_tail.is_empty() {
            add_block(&mut registers, &padded(a_tail), &padded(b_tail), &term);
        }
        fold(registers)
    }

    #[inline(always)]
    fn add_block(
        registers: &mut [v128; REGISTERS],
        a: &[f32; LANES],
        b: &[f32; LANES],
        term: impl Fn(v128, v128) -> v128,
    ) {
        let ((a, _), (b, _)) = (a.as_chunks(), b.as_chunks());
        for r in 0..REGISTERS {
            registers[r] = add(registers[r], term(load(&a[r]), load(&b[r])));
        }
    }

    #[inline(always)]
    fn load(quarter: &[f32; 4]) -> v128 {
        // SAFETY: the reference covers the 16 bytes that are read, and `v128_load` asks for no alignment.
        unsafe { v128_load(quarter.as_ptr().cast()) }
    }

    fn fold(mut registers: [v128; REGISTERS]) -> f32 {
        for width in [4, 2, 1] {
            for r in 0..width {
                registers[r] = add(registers[r], registers[r + width]);
            }
        }
        let four = registers[0];
        let two = add(four, shuffle::<2, 3, 2, 3>(four, four));
        let one = add(two, shuffle::<1, 1, 1, 1>(two, two));
        extract::<0>(one)
    }
}

/// Compares the kernels of this target with [`scalar`], bit for bit, on vectors made from `seed`: every dimension up
/// to 300 and some large ones, slices that start at any element, and denormals, zeros of both signs and values whose
/// sums overflow among the ordinary ones.
///
/// Where the kernels *are* the scalar ones (not on wasm32) this cannot fail. Errors: a sentence that names the seed,
/// the dimension and the two results. Cost: some million operations.
pub fn self_check(seed: u64) -> Result<(), String> {
    let mut random = SplitMix(seed);
    for dimension in (0..=300).chain([384, 768, 1023, 1536, 3072, 65_536]) {
        for style in 0..STYLES {
            // Starting at an odd element makes 16-byte loads unaligned.
            let (a_start, b_start) = (random.below(5), random.below(5));
            let a: Vec<f32> = (0..a_start + dimension).map(|_| random.element(style)).collect();
            let b: Vec<f32> = (0..b_start + dimension).map(|_| random.element(style)).collect();
            compare(&a[a_start..], &b[b_start..])
                .map_err(|what| format!("seed {seed}, dimension {dimension}, style {style}: {what}"))?;
        }
    }
    Ok(())
}

/// Whether both implementations give the same bits for one pair.
fn compare(a: &[f32], b: &[f32]) -> Result<(), String> {
    let pairs = [
        ("dot", dot(a, b), scalar::dot(a, b)),
        ("squared_l2", squared_l2(a, b), scalar::squared_l2(a, b)),
        ("norm", norm(a), scalar::dot(a, a).sqrt()),
    ];
    for (name, got, expected) in pairs {
        // Which NaN comes out of ∞ − ∞ is the machine's choice; distances turn every one into +∞.
        if got.to_bits() != expected.to_bits() && !(got.is_nan() && expected.is_nan()) {
            return Err(format!(
                "{name} is {got:e} ({:08x}), scalar {expected:e} ({:08x})",
                got.to_bits(),
                expected.to_bits()
            ));
        }
    }
    Ok(())
}

/// Ordinary values; all magnitudes; denormals; zeros and few others; values whose squares overflow.
const STYLES: u32 = 5;

/// A small generator (Steele, Lea and Flood's SplitMix64): the check needs variety, not quality.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bits(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.bits() as usize % bound
    }

    /// A value from −1 up to 1, in steps of 2⁻²³.
    fn ordinary(&mut self) -> f32 {
        f32::from_bits(0x4000_0000 | self.bits() >> 9) - 3.0
    }

    fn element(&mut self, style: u32) -> f32 {
        let sign = self.bits() & 0x8000_0000;
        match style {
            0 => self.ordinary(),
            1 => f32::from_bits(sign | (self.bits() % 0x7f80_0000)),
            2 => f32::from_bits(sign | (self.bits() % 0x0100_0000)),
            3 if self.below(4) == 0 => self.ordinary(),
            3 => f32::from_bits(sign),
            _ => self.ordinary() * 3e19,
        }
    }
}

#[cfg(test)]
mod tests;
