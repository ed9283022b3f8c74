//! Small whole numbers, a few bits each, and their products with a query's: the innermost loop of a search.
//!
//! A code of `b` bits a dimension is split into planes of 8, 4, 2 or 1 bits, the most significant first: 3 = 2 + 1, 7 = 4 + 2 + 1.
//! In a plane of `w` bits, a block of 16 bytes holds 128/w dimensions: bits `k·w..(k+1)·w` of byte `j` are those of dimension
//! `16·k + j` of the block, so that a shift and a mask unpack 16 dimensions in their order. The last block of a plane may be
//! shorter: with `m` bytes, byte `j` has those of dimensions `m·k + j`.
//!
//! Sums are exact whole numbers: every implementation gives the same, in whatever order it adds.

use crate::random::Random;

/// Bytes of a whole block.
const BLOCK: usize = 16;

/// Largest code that is used, in bits a dimension.
pub const BITS_MAX: u32 = 8;
/// Most dimensions of a vector: sums of products stay within 31 bits.
pub const DIMENSION_MAX: usize = 4096;

/// Levels of a query that meet planes of up to 4 bits go from −127 to 127, so that they are bytes.
const NARROW_MAX: f32 = 127.0;
/// Levels that meet planes of 8 bits: `2047 × 255 × 4096 < 2^31`.
const WIDE_MAX: f32 = 2047.0;

/// The planes of a code: (bits, what the plane's numbers count).
fn planes(bits: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut left = bits;
    [8, 4, 2, 1].into_iter().filter_map(move |width| {
        (left >= width).then(|| {
            left -= width;
            (width, left)
        })
    })
}

/// Bytes of one plane.
const fn plane_bytes(dimension: usize, width: u32) -> usize {
    (dimension * width as usize).div_ceil(8)
}

/// Bytes of the code of a vector. Panics if `bits` is not 1 to 8.
pub fn code_bytes(dimension: usize, bits: u32) -> usize {
    assert!((1..=BITS_MAX).contains(&bits), "codes have 1 to 8 bits a dimension");
    planes(bits).map(|(width, _)| plane_bytes(dimension, width)).sum()
}

/// Dimensions in a whole block of a plane.
const fn per_block<const W: u32>() -> usize {
    BLOCK * 8 / W as usize
}

/// Calls `visit(dimension, byte, shift)` for all dimensions of a plane.
fn each(dimension: usize, width: u32, mut visit: impl FnMut(usize, usize, u32)) {
    let per_byte = 8 / width as usize;
    let bytes = plane_bytes(dimension, width);
    for start in (0..bytes).step_by(BLOCK) {
        let stride = BLOCK.min(bytes - start);
        for (k, shift) in (0..8).step_by(width as usize).enumerate() {
            for j in 0..stride {
                let at = start * per_byte + k * stride + j;
                if at < dimension {
                    visit(at, start + j, shift);
                }
            }
        }
    }
}

/// Appends the code of `levels`, each below `2^bits`.
pub(crate) fn pack(levels: &[u8], bits: u32, code: &mut Vec<u8>) {
    for (width, shift) in planes(bits) {
        let start = code.len();
        code.resize(start + plane_bytes(levels.len(), width), 0);
        let mask = mask(width);
        each(levels.len(), width, |at, byte, place| code[start + byte] |= ((levels[at] >> shift) & mask) << place);
    }
}

/// The levels of a code. Panics if it is too short.
pub(crate) fn unpack(code: &[u8], dimension: usize, bits: u32) -> Vec<u8> {
    let mut levels = vec![0; dimension];
    let mut start = 0;
    for (width, shift) in planes(bits) {
        let mask = mask(width);
        each(dimension, width, |at, byte, place| levels[at] |= ((code[start + byte] >> place) & mask) << shift);
        start += plane_bytes(dimension, width);
    }
    levels
}

const fn mask(width: u32) -> u8 {
    if width == 8 { 0xff } else { (1 << width) - 1 }
}

/// A vector as whole numbers: `v ≈ step · level`.
#[derive(Clone, Debug, Default)]
struct Levels<T> {
    values: Vec<T>,
    step: f32,
    sum: i32,
}

/// A query's numbers, ready to be multiplied with codes.
#[derive(Clone, Debug)]
pub(crate) struct QueryLevels {
    narrow: Levels<i8>,
    wide: Levels<i16>,
}

impl QueryLevels {
    #[expect(clippy::cast_possible_truncation, reason = "levels are whole and within their type")]
    pub(crate) fn new(vector: &[f32]) -> Self {
        assert!(vector.len() <= DIMENSION_MAX, "a vector of {} dimensions", vector.len());
        let most = vector.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let inverse = |max: f32| if most > 0.0 && (max / most).is_finite() { max / most } else { 0.0 };
        let level = |x: &f32, max: f32| (x * inverse(max)).round().clamp(-max, max);
        let narrow: Vec<i8> = vector.iter().map(|x| level(x, NARROW_MAX) as i8).collect();
        let wide: Vec<i16> = vector.iter().map(|x| level(x, WIDE_MAX) as i16).collect();
        let sums = (narrow.iter().map(|l| i32::from(*l)).sum(), wide.iter().map(|l| i32::from(*l)).sum());
        QueryLevels {
            narrow: Levels { values: narrow, step: most / NARROW_MAX, sum: sums.0 },
            wide: Levels { values: wide, step: most / WIDE_MAX, sum: sums.1 },
        }
    }

    /// `(a, b)` so that `Σ vᵢ·(levelᵢ − (2^bits − 1)/2)` is about `a·(product − b)` with a [`QueryLevels::product`].
    pub(crate) fn scale(&self, bits: u32) -> (f32, f32) {
        let (step, sum) = if bits == 8 { (self.wide.step, self.wide.sum) } else { (self.narrow.step, self.narrow.sum) };
        #[expect(clippy::cast_possible_truncation, reason = "rounded on purpose")]
        let centre = (f64::from((1_u32 << bits) - 1) / 2.0 * f64::from(sum)) as f32;
        (step, centre)
    }

    /// `products[i] = Σ levelⱼ · codeⱼ` for each of the codes that lie one behind the other in `codes`.
    pub(crate) fn products(&self, codes: &[u8], bits: u32, products: &mut [i32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has AVX2, as was just asked.
            unsafe { self.products_avx2(codes, bits, products) };
            return;
        }
        self.products_plain(codes, bits, products);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn products_avx2(&self, codes: &[u8], bits: u32, products: &mut [i32]) {
        self.products_plain(codes, bits, products);
    }

    #[inline(always)]
    fn products_plain(&self, codes: &[u8], bits: u32, products: &mut [i32]) {
        let dimension = self.narrow.values.len();
        let stride = code_bytes(dimension, bits);
        for (code, product) in codes.chunks_exact(stride).zip(products) {
            let mut rest = code;
            *product = 0;
            for (width, shift) in planes(bits) {
                let (plane, behind) = rest.split_at(plane_bytes(dimension, width));
                *product += self.plane_product(plane, width) << shift;
                rest = behind;
            }
        }
    }

    #[inline(always)]
    fn plane_product(&self, plane: &[u8], width: u32) -> i32 {
        match width {
            1 => best::plane::<1>(plane, &self.narrow.values),
            2 => best::plane::<2>(plane, &self.narrow.values),
            4 => best::plane::<4>(plane, &self.narrow.values),
            _ => best::bytes(plane, &self.wide.values),
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd as best;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use scalar as best;

/// In plain Rust, laid out so that compilers vectorise it: the definition.
mod scalar {
    use super::{BLOCK, mask};

    /// A plane of `W` bits, below 8.
    #[inline(always)]
    pub(super) fn plane<const W: u32>(plane: &[u8], levels: &[i8]) -> i32 {
        let (blocks, _) = plane.as_chunks::<BLOCK>();
        let mut sums = [0_i32; BLOCK];
        for (block, levels) in blocks.iter().zip(levels.chunks_exact(super::per_block::<W>())) {
            let (levels, _) = levels.as_chunks::<BLOCK>();
            for (shift, levels) in (0..8).step_by(W as usize).zip(levels) {
                for j in 0..BLOCK {
                    let code = i16::from((block[j] >> shift) & mask(W));
                    sums[j] += i32::from(code * i16::from(levels[j]));
                }
            }
        }
        sums.iter().sum::<i32>() + rest::<W>(plane, levels)
    }

    /// What is in the last block, whole or short, if dimensions do not fill it.
    #[inline(always)]
    pub(super) fn rest<const W: u32>(plane: &[u8], levels: &[i8]) -> i32 {
        let whole = levels.len() / super::per_block::<W>();
        let (bytes, levels) = (&plane[whole * BLOCK..], &levels[whole * super::per_block::<W>()..]);
        let of_shifts = (0..8).step_by(W as usize).zip(levels.chunks(bytes.len().max(1)));
        let product = |(shift, levels): (u32, &[i8])| {
            let codes = bytes.iter().map(|byte| i32::from((byte >> shift) & mask(W)));
            codes.zip(levels).map(|(code, level)| code * i32::from(*level)).sum::<i32>()
        };
        of_shifts.map(product).sum()
    }

    /// A plane of 8 bits.
    #[inline(always)]
    pub(super) fn bytes(plane: &[u8], levels: &[i16]) -> i32 {
        plane.iter().zip(levels).map(|(code, level)| i32::from(*code) * i32::from(*level)).sum()
    }
}

/// In simd128 instructions. The relaxed product of bytes has one result on every machine as long as its second operand is below
/// 128 and no sum of two products leaves 16 bits: `2 · 15 · 127` does not.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd {
    use super::{BLOCK, mask, scalar};
    #[cfg(not(target_feature = "relaxed-simd"))]
    use core::arch::wasm32::{i16x8_extend_high_i8x16, i16x8_extend_low_i8x16};
    use core::arch::wasm32::{
        i16x8_extend_high_u8x16, i16x8_extend_low_u8x16, i32x4_add, i32x4_dot_i16x8, i32x4_extract_lane, i32x4_splat,
        u8x16_shr, u8x16_splat, v128, v128_and, v128_load,
    };

    #[inline(always)]
    pub(super) fn plane<const W: u32>(plane: &[u8], levels: &[i8]) -> i32 {
        let (blocks, _) = plane.as_chunks::<BLOCK>();
        let mut sums = [i32x4_splat(0); 2];
        for (block, levels) in blocks.iter().zip(levels.chunks_exact(super::per_block::<W>())) {
            let (levels, _) = levels.as_chunks::<BLOCK>();
            let codes = load(block.as_ptr());
            for (at, levels) in levels.iter().enumerate() {
                let codes = v128_and(u8x16_shr(codes, at as u32 * W), u8x16_splat(mask(W)));
                sums[at % 2] = add_products(load(levels.as_ptr().cast()), codes, sums[at % 2]);
            }
        }
        total(i32x4_add(sums[0], sums[1])) + scalar::rest::<W>(plane, levels)
    }

    #[inline(always)]
    pub(super) fn bytes(plane: &[u8], levels: &[i16]) -> i32 {
        let ((blocks, rest), (pairs, _)) = (plane.as_chunks::<BLOCK>(), levels.as_chunks::<BLOCK>());
        let mut sums = [i32x4_splat(0); 2];
        for (block, levels) in blocks.iter().zip(pairs) {
            let codes = load(block.as_ptr());
            let (low, high) = (load(levels.as_ptr().cast()), load(levels[8..].as_ptr().cast()));
            sums[0] = i32x4_add(sums[0], i32x4_dot_i16x8(i16x8_extend_low_u8x16(codes), low));
            sums[1] = i32x4_add(sums[1], i32x4_dot_i16x8(i16x8_extend_high_u8x16(codes), high));
        }
        total(i32x4_add(sums[0], sums[1])) + scalar::bytes(rest, &levels[blocks.len() * BLOCK..])
    }

    #[inline(always)]
    fn load(bytes: *const u8) -> v128 {
        // SAFETY: every caller points at 16 bytes of an array, and `v128_load` asks for no alignment.
        unsafe { v128_load(bytes.cast()) }
    }

    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    fn add_products(levels: v128, codes: v128, sum: v128) -> v128 {
        core::arch::wasm32::i32x4_relaxed_dot_i8x16_i7x16_add(levels, codes, sum)
    }

    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    fn add_products(levels: v128, codes: v128, sum: v128) -> v128 {
        let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(levels), i16x8_extend_low_u8x16(codes));
        let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(levels), i16x8_extend_high_u8x16(codes));
        i32x4_add(sum, i32x4_add(low, high))
    }

    fn total(sums: v128) -> i32 {
        let halves = [i32x4_extract_lane::<0>(sums), i32x4_extract_lane::<1>(sums)];
        halves.into_iter().sum::<i32>() + i32x4_extract_lane::<2>(sums) + i32x4_extract_lane::<3>(sums)
    }
}

/// Compares the products of this target with their definition, on levels and codes made from `seed`: many dimensions, all
/// widths.
///
/// Where the kernels *are* the scalar ones (not on wasm32) only packing can fail. Errors: a sentence that names the case. Cost:
/// some million operations.
pub fn self_check(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed, 0);
    for dimension in (1..=300).chain([384, 768, 1023, 1536, DIMENSION_MAX]) {
        let vector: Vec<f32> = (0..dimension).map(|_| f32::from(random.byte()) - 128.0).collect();
        let query = QueryLevels::new(&vector);
        for bits in 1..=BITS_MAX {
            let levels: Vec<u8> = (0..dimension).map(|_| random.byte() >> (8 - bits)).collect();
            let mut code = Vec::new();
            pack(&levels, bits, &mut code);
            if unpack(&code, dimension, bits) != levels {
                return Err(format!(
                    "seed {seed}: {dimension} dimensions of {bits} bits do not come out as they went in"
                ));
            }
            let of = |level: i32, code: &u8| i64::from(level) * i64::from(*code);
            let expected: i64 = match bits {
                8 => query.wide.values.iter().zip(&levels).map(|(level, code)| of(i32::from(*level), code)).sum(),
                _ => query.narrow.values.iter().zip(&levels).map(|(level, code)| of(i32::from(*level), code)).sum(),
            };
            let mut got = [0];
            query.products(&code, bits, &mut got);
            if i64::from(got[0]) != expected {
                return Err(format!("seed {seed}: {dimension} dimensions of {bits} bits give {got:?}, not {expected}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Codes come out as they went in, and products are those of the numbers, on the widest and the largest too.

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn products_are_those_of_the_definition(seed: u64) {
            prop_assert_eq!(self_check(seed), Ok(()));
        }
    }

    #[test]
    fn the_largest_sum_of_products_does_not_overflow() {
        for (bits, most) in [(8, 2047_i64 * 255), (7, 127 * 127), (4, 127 * 15), (1, 127)] {
            let query = QueryLevels::new(&vec![1.0; DIMENSION_MAX]);
            let mut code = Vec::new();
            pack(&vec![mask(8) >> (8 - bits); DIMENSION_MAX], bits, &mut code);
            let mut got = [0];
            query.products(&code, bits, &mut got);
            assert_eq!(i64::from(got[0]), most * DIMENSION_MAX as i64, "{bits} bits");
        }
    }

    #[test]
    fn a_code_has_no_byte_too_many() {
        for (dimension, bits, bytes) in
            [(384, 4, 192), (100, 8, 100), (100, 7, 88), (1536, 2, 384), (1, 1, 1), (9, 3, 5)]
        {
            assert_eq!(code_bytes(dimension, bits), bytes, "{dimension} dimensions of {bits} bits");
        }
    }

    #[test]
    fn queries_without_finite_levels_are_zero() {
        for x in [0.0, f32::MIN_POSITIVE / 4.0, f32::INFINITY, f32::NAN] {
            let query = QueryLevels::new(&[x, -x]);
            assert!(query.narrow.values.iter().all(|level| i32::from(*level).abs() <= 127), "{x}");
        }
    }
}
