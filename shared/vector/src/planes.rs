//! Small whole numbers, a few bits each, and their products with a query's: the innermost loop of a search.
//!
//! A code of `b` bits a dimension is split into planes of 8, 4, 2 or 1 bits, the most significant first: 3 = 2 + 1, 7 = 4 + 2 + 1.
//! In a plane of `w` bits, a block of 16 bytes holds 128/w dimensions: bits `k·w..(k+1)·w` of byte `j` are those of dimension
//! `16·k + j` of the block, so that a shift and a mask unpack 16 dimensions in their order. The last block of a plane may be
//! shorter: with `m` bytes, byte `j` has those of dimensions `m·k + j`.
//!
//! Sums are exact whole numbers: every implementation gives the same, in whatever order it adds.

mod kernels;

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

/// The planes of a code: (bits, how far their numbers are shifted). A number of bits is the sum of the planes it has.
fn planes(bits: u32) -> impl Iterator<Item = (u32, u32)> {
    [8, 4, 2, 1].into_iter().filter(move |width| bits & width != 0).map(move |width| (width, bits & (width - 1)))
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

/// A query's numbers as whole ones, ready to be multiplied with codes: `v ≈ step · level`.
#[derive(Clone, Debug)]
pub(crate) struct QueryLevels {
    dimension: usize,
    largest: f32,
    narrow: Vec<i8>,
    narrow_sum: i32,
    wide: Vec<i16>,
    wide_sum: i32,
    /// `narrow` as planes of 1, 2 and 4 bits meet them: sixteen by sixteen, zeros where the last block has no dimensions.
    lined_up: [Vec<[i8; BLOCK]>; 3],
}

impl QueryLevels {
    #[expect(clippy::cast_possible_truncation, reason = "levels are whole and within their type")]
    pub(crate) fn new(vector: &[f32]) -> Self {
        assert!(vector.len() <= DIMENSION_MAX, "a vector of {} dimensions", vector.len());
        let largest = vector.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let inverse = |max: f32| if (max / largest).is_finite() { max / largest } else { 0.0 };
        let level = |x: &f32, max: f32| (x * inverse(max)).round().clamp(-max, max);
        let narrow: Vec<i8> = vector.iter().map(|x| level(x, NARROW_MAX) as i8).collect();
        let wide: Vec<i16> = vector.iter().map(|x| level(x, WIDE_MAX) as i16).collect();
        QueryLevels {
            dimension: vector.len(),
            largest,
            narrow_sum: narrow.iter().map(|level| i32::from(*level)).sum(),
            wide_sum: wide.iter().map(|level| i32::from(*level)).sum(),
            lined_up: [1, 2, 4].map(|width| line_up(&narrow, width)),
            narrow,
            wide,
        }
    }

    /// `(a, b)` so that `Σ vᵢ·(levelᵢ − (2^bits − 1)/2)` is about `a·(product − b)` with one of [`QueryLevels::products`].
    pub(crate) fn scale(&self, bits: u32) -> (f32, f32) {
        let (max, sum) = if bits == 8 { (WIDE_MAX, self.wide_sum) } else { (NARROW_MAX, self.narrow_sum) };
        #[expect(clippy::cast_possible_truncation, reason = "rounded on purpose")]
        let centre = (f64::from((1_u32 << bits) - 1) / 2.0 * f64::from(sum)) as f32;
        (self.largest / max, centre)
    }

    /// `products[i] = Σ levelⱼ · codeⱼ` for each of the codes that lie one behind the other in `codes`.
    ///
    /// Cost: with AVX2 some 30 million codes of 384 dimensions and 4 bits a second.
    pub(crate) fn products(&self, codes: &[u8], bits: u32, products: &mut [i32]) {
        products.fill(0);
        let codes = codes.chunks_exact(code_bytes(self.dimension, bits));
        let mut start = 0;
        for (width, shift) in planes(bits) {
            let bytes = plane_bytes(self.dimension, width);
            let of_planes = codes.clone().map(|code| &code[start..start + bytes]).zip(&mut *products);
            match width {
                1 => kernels::add_products::<1, _>(of_planes, &self.lined_up[0], shift),
                2 => kernels::add_products::<2, _>(of_planes, &self.lined_up[1], shift),
                4 => kernels::add_products::<4, _>(of_planes, &self.lined_up[2], shift),
                _ => of_planes.for_each(|(plane, product)| *product += kernels::bytes(plane, &self.wide)),
            }
            start += bytes;
        }
    }
}

/// Levels in the order in which a plane of `width` bits has the codes they are multiplied with.
fn line_up(levels: &[i8], width: u32) -> Vec<[i8; BLOCK]> {
    let shifts = 8 / width as usize;
    let mut lines = vec![[0; BLOCK]; plane_bytes(levels.len(), width).div_ceil(BLOCK) * shifts];
    each(levels.len(), width, |at, byte, place| {
        let shift = (place / width) as usize;
        lines[byte / BLOCK * shifts + shift][byte % BLOCK] = levels[at];
    });
    lines
}

/// Compares the products of this target with their definition, on levels and codes made from `seed`: many dimensions, all
/// widths.
///
/// Errors: a sentence that names the case. Cost:
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
                8 => query.wide.iter().zip(&levels).map(|(level, code)| of(i32::from(*level), code)).sum(),
                _ => query.narrow.iter().zip(&levels).map(|(level, code)| of(i32::from(*level), code)).sum(),
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
mod tests;
