//! Small whole numbers, a few bits each, and their products with a query's: the innermost loop of a search.
//!
//! A code of `b` bits a dimension is split into planes of 8, 4, 2 or 1 bits, the most significant first: 3 = 2 + 1, 7 = 4 + 2 + 1.
//! In a plane of `w` bits, a block of 16 bytes holds 128/w dimensions: bits `k·w..(k+1)·w` of byte `j` are those of dimension
//! `16·k + j` of the block, so that a shift and a mask unpack 16 dimensions in their order. The last block of a plane may be
//! shorter: with `m` bytes, byte `j` has those of dimensions `m·k + j`.
//!
//! Sums are exact whole numbers: every implementation gives the same, in whatever order it adds.

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
    pub(super) fn plane<const W: usize>(plane: &[u8], levels: &[i8]) -> i32 {
        let (blocks, tail) = plane.as_chunks::<BLOCK>();
        let mut sums = [0_i32; BLOCK];
        let of_blocks = levels.chunks_exact(BLOCK * 8 / W);
        for (block, levels) in blocks.iter().zip(of_blocks) {
            add::<W>(&mut sums, block, levels);
        }
        sums.iter().sum::<i32>() + rest::<W>(plane, tail, levels)
    }

    #[inline(always)]
    fn add<const W: usize>(sums: &mut [i32; BLOCK], block: &[u8; BLOCK], levels: &[i8]) {
        let (levels, _) = levels.as_chunks::<BLOCK>();
        for k in 0..8 / W {
            for j in 0..BLOCK {
                let code = i16::from((block[j] >> (k * W)) & mask(W as u32));
                sums[j] += i32::from(code * i16::from(levels[k][j]));
            }
        }
    }

    /// What whole blocks of `plane` leave: a last block, whole or short, that dimensions do not fill.
    pub(super) fn rest<const W: usize>(plane: &[u8], tail: &[u8], levels: &[i8]) -> i32 {
        let per_block = BLOCK * 8 / W;
        let whole = (levels.len() / per_block).min(plane.len() / BLOCK);
        let (bytes, levels) = (&plane[whole * BLOCK..], &levels[whole * per_block..]);
        debug_assert!(bytes.len() <= BLOCK && bytes.len() >= tail.len(), "all but the last block are whole");
        let mut sum = 0;
        for (at, level) in levels.iter().enumerate() {
            let (k, j) = (at / bytes.len(), at % bytes.len());
            sum += i32::from((bytes[j] >> (k * W)) & mask(W as u32)) * i32::from(*level);
        }
        sum
    }

    /// A plane of 8 bits.
    #[inline(always)]
    #[cfg_attr(
        all(target_arch = "wasm32", target_feature = "simd128"),
        expect(dead_code, reason = "the twin of `simd`")
    )]
    pub(super) fn bytes(plane: &[u8], levels: &[i16]) -> i32 {
        plane.iter().zip(levels).map(|(code, level)| i32::from(*code) * i32::from(*level)).sum()
    }
}
