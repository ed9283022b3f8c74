//! Products of planes with levels: a definition, and the same in instructions of AVX2 and simd128.

use super::{BLOCK, mask};

/// Adds to each product `2^shift` times that of its plane of `W` bits, 1, 2 or 4, with the levels that were lined up for it.
pub(super) fn add_products<'p, const W: u32, P: Iterator<Item = (&'p [u8], &'p mut i32)>>(
    planes: P,
    levels: &[[i8; BLOCK]],
    shift: u32,
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2, as was just asked.
        unsafe { avx2::add_products::<W, P>(planes, levels, shift) };
        return;
    }
    planes.for_each(|(plane, product)| *product += best::plane::<W>(plane, levels) << shift);
}

/// `Σ planeⱼ · levelⱼ` of a plane of 8 bits. (Compilers vectorise it.)
pub(super) fn bytes(plane: &[u8], levels: &[i16]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2, as was just asked.
        return unsafe { avx2::bytes(plane, levels) };
    }
    best::bytes(plane, levels)
}

/// The block at the end of a plane, filled up with zeros; `None` if all blocks are whole.
#[inline(always)]
fn last_block(tail: &[u8]) -> Option<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    block[..tail.len()].copy_from_slice(tail);
    (!tail.is_empty()).then_some(block)
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd as best;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use scalar as best;

/// In plain Rust: the definition.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod scalar {
    use super::{BLOCK, last_block, mask};

    pub(super) fn plane<const W: u32>(plane: &[u8], levels: &[[i8; BLOCK]]) -> i32 {
        let (blocks, tail) = plane.as_chunks::<BLOCK>();
        let blocks = blocks.iter().copied().chain(last_block(tail));
        let block = |(block, levels): ([u8; BLOCK], &[[i8; BLOCK]])| {
            let of_shifts = (0..8).step_by(W as usize).zip(levels);
            of_shifts
                .map(|(shift, levels)| masked_product(block.map(|byte| (byte >> shift) & mask(W)), levels))
                .sum::<i32>()
        };
        blocks.zip(levels.chunks_exact(8 / W as usize)).map(block).sum()
    }

    fn masked_product(codes: [u8; BLOCK], levels: &[i8; BLOCK]) -> i32 {
        codes.iter().zip(levels).map(|(code, level)| i32::from(*code) * i32::from(*level)).sum()
    }

    #[inline(always)]
    pub(super) fn bytes(plane: &[u8], levels: &[i16]) -> i32 {
        plane.iter().zip(levels).map(|(code, level)| i32::from(*code) * i32::from(*level)).sum()
    }
}

/// In AVX2 instructions: compilers do not find products of bytes by themselves.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BLOCK, last_block, mask, scalar};
    use core::arch::x86_64::{
        __m128i, __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32, _mm256_add_epi32,
        _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
        _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_setr_epi32, _mm256_setzero_si256, _mm256_srlv_epi32,
    };

    #[target_feature(enable = "avx2")]
    pub(super) fn add_products<'p, const W: u32, P: Iterator<Item = (&'p [u8], &'p mut i32)>>(
        planes: P,
        levels: &[[i8; BLOCK]],
        shift: u32,
    ) {
        for (plane, product) in planes {
            let (blocks, tail) = plane.as_chunks::<BLOCK>();
            let mut levels = levels.chunks_exact(8 / W as usize);
            let mut sums = _mm256_setzero_si256();
            for (block, levels) in blocks.iter().zip(&mut levels) {
                sums = add_block::<W>(sums, block, levels);
            }
            if let (Some(block), Some(levels)) = (last_block(tail), levels.next()) {
                sums = add_block::<W>(sums, &block, levels);
            }
            *product += total(sums) << shift;
        }
    }

    /// Two shifts at once: one in each half of a register. Sums of two products stay within 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_block<const W: u32>(mut sums: __m256i, block: &[u8; BLOCK], levels: &[[i8; BLOCK]]) -> __m256i {
        let mask = _mm256_set1_epi8(mask(W).cast_signed());
        // SAFETY: the block has the 16 bytes that are read, and nothing need be aligned.
        let block = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(block.as_ptr().cast::<__m128i>()) });
        let (pairs, _) = levels.as_chunks::<2>();
        for (at, pair) in (0..).zip(pairs) {
            let (low, high) = (2 * at * W.cast_signed(), (2 * at + 1) * W.cast_signed());
            let shifts = _mm256_setr_epi32(low, low, low, low, high, high, high, high);
            let codes = _mm256_and_si256(_mm256_srlv_epi32(block, shifts), mask);
            // SAFETY: as above, of 32 bytes.
            let levels = unsafe { _mm256_loadu_si256(pair.as_ptr().cast::<__m256i>()) };
            let sums_of_two = _mm256_maddubs_epi16(codes, levels);
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(sums_of_two, _mm256_set1_epi16(1)));
        }
        sums
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn total(sums: __m256i) -> i32 {
        let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn bytes(plane: &[u8], levels: &[i16]) -> i32 {
        scalar::bytes(plane, levels)
    }
}

/// In simd128 instructions. The relaxed product of bytes has one result on every machine as long as its second operand is below
/// 128 and no sum of two products leaves 16 bits: `2 · 15 · 127` does not.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd {
    use super::{BLOCK, last_block, mask};
    #[cfg(not(target_feature = "relaxed-simd"))]
    use core::arch::wasm32::{i8x16_shuffle, i16x8_extmul_high_i8x16, i16x8_extmul_low_i8x16};
    use core::arch::wasm32::{
        i16x8_add, i16x8_extend_high_u8x16, i16x8_extend_low_u8x16, i32x4_add, i32x4_dot_i16x8,
        i32x4_extadd_pairwise_i16x8, i32x4_extract_lane, i32x4_splat, u8x16_splat, u16x8_shr, v128, v128_and,
        v128_load,
    };

    #[inline(always)]
    pub(super) fn plane<const W: u32>(plane: &[u8], levels: &[[i8; BLOCK]]) -> i32 {
        let (blocks, tail) = plane.as_chunks::<BLOCK>();
        let mut levels = levels.chunks_exact(8 / W as usize);
        let mut sums = i32x4_splat(0);
        for (block, levels) in blocks.iter().zip(&mut levels) {
            sums = add_block::<W>(sums, block, levels);
        }
        if let (Some(block), Some(levels)) = (last_block(tail), levels.next()) {
            sums = add_block::<W>(sums, &block, levels);
        }
        total(sums)
    }

    /// Sums of a block stay within 16 bits: of 8, 4 or 2 sums of two products they are `16 · 127`, `8 · 3 · 127` or
    /// `4 · 15 · 127` at most. Bits that a shift of 16 brings from the next byte are masked out.
    #[inline(always)]
    fn add_block<const W: u32>(sums: v128, block: &[u8; BLOCK], levels: &[[i8; BLOCK]]) -> v128 {
        let block = load(block.as_ptr());
        let of_shift = |(at, levels): (u32, &[i8; BLOCK])| {
            let codes = v128_and(u16x8_shr(block, at * W), u8x16_splat(mask(W)));
            sums_of_two(load(levels.as_ptr().cast()), codes)
        };
        let of_block = (0..).zip(levels).map(of_shift).reduce(|sum, more| i16x8_add(sum, more));
        of_block.map_or(sums, |narrow| i32x4_add(sums, i32x4_extadd_pairwise_i16x8(narrow)))
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
        let rest = rest.iter().zip(&levels[blocks.len() * BLOCK..]);
        total(i32x4_add(sums[0], sums[1])) + rest.map(|(code, level)| i32::from(*code) * i32::from(*level)).sum::<i32>()
    }

    #[inline(always)]
    fn load(bytes: *const u8) -> v128 {
        // SAFETY: every caller points at 16 bytes of an array, and `v128_load` asks for no alignment.
        unsafe { v128_load(bytes.cast()) }
    }

    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    fn sums_of_two(levels: v128, codes: v128) -> v128 {
        core::arch::wasm32::i16x8_relaxed_dot_i8x16_i7x16(levels, codes)
    }

    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    fn sums_of_two(levels: v128, codes: v128) -> v128 {
        let (low, high) = (i16x8_extmul_low_i8x16(levels, codes), i16x8_extmul_high_i8x16(levels, codes));
        let even = i8x16_shuffle::<0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29>(low, high);
        let odd = i8x16_shuffle::<2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31>(low, high);
        i16x8_add(even, odd)
    }

    #[inline(always)]
    fn total(sums: v128) -> i32 {
        let halves = i32x4_extract_lane::<0>(sums) + i32x4_extract_lane::<1>(sums);
        halves + i32x4_extract_lane::<2>(sums) + i32x4_extract_lane::<3>(sums)
    }
}
