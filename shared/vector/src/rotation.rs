//! A random rotation that is quick to apply: after it no direction of space is special, so that every dimension carries about
//! the same share of a vector and codes may treat them alike.
//!
//! Source: Hadamard transforms with random signs (Ailon and Chazelle, 2009), as RaBitQ uses them (Gao and Long, SIGMOD 2024,
//! arXiv:2405.12497). A length that is no power of two is covered by two transforms that overlap, so that it stays as it is.

use crate::random::Random;

const ROUNDS: usize = 3;

/// An orthogonal map of `[f32; dimension]`, the same for equal `(dimension, seed)`.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// ±1 for each dimension and round.
    signs: Vec<f32>,
    dimension: usize,
    /// The largest power of two that is not above `dimension`.
    width: usize,
}

impl Rotation {
    /// Panics if `dimension` is 0.
    pub fn new(dimension: usize, seed: u64) -> Self {
        assert!(dimension > 0, "a vector has at least one number");
        let mut random = Random::new(seed, 0x726f_7461_7465);
        let signs = (0..ROUNDS * dimension).map(|_| if random.next() >> 63 == 0 { 1.0 } else { -1.0 }).collect();
        Rotation { signs, dimension, width: 1 << dimension.ilog2() }
    }

    /// Rotates `vector` where it lies. Cost: `O(d log d)`. Panics if it has another length.
    pub fn apply(&self, vector: &mut [f32]) {
        assert_eq!(vector.len(), self.dimension, "a rotation is for vectors of one length");
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has AVX2, as was just asked.
            unsafe { self.apply_avx2(vector) };
            return;
        }
        self.apply_plain(vector);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn apply_avx2(&self, vector: &mut [f32]) {
        self.apply_plain(vector);
    }

    #[inline(always)]
    fn apply_plain(&self, vector: &mut [f32]) {
        #[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
        let scale = (self.width as f32).sqrt().recip();
        for signs in self.signs.chunks_exact(self.dimension) {
            vector.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
            hadamard(&mut vector[..self.width], scale);
            if self.width < self.dimension {
                hadamard(&mut vector[self.dimension - self.width..], scale);
            }
        }
    }
}

/// The Walsh–Hadamard transform, scaled so that lengths are kept.
#[inline(always)]
fn hadamard(values: &mut [f32], scale: f32) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    values.iter_mut().for_each(|x| *x *= scale);
}

#[cfg(test)]
mod tests {
    //! A rotation keeps products, spreads what is concentrated, and is the same every time.

    use super::*;
    use proptest::prelude::*;

    fn rotated(vector: &[f32], seed: u64) -> Vec<f32> {
        let mut vector = vector.to_vec();
        Rotation::new(vector.len(), seed).apply(&mut vector);
        vector
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    proptest! {
        #[test]
        fn products_are_kept(pair in prop::collection::vec((-1.0_f32..1.0, -1.0_f32..1.0), 1..300), seed: u64) {
            let (a, b): (Vec<f32>, Vec<f32>) = pair.into_iter().unzip();
            let (ra, rb) = (rotated(&a, seed), rotated(&b, seed));
            let scale = (dot(&a, &a) * dot(&b, &b)).sqrt();
            prop_assert!((dot(&ra, &rb) - dot(&a, &b)).abs() <= 1e-5 * scale + 1e-12);
            prop_assert_eq!(ra, rotated(&a, seed));
        }
    }

    #[test]
    fn one_loud_dimension_is_spread_over_all() {
        for dimension in [64, 100, 384, 1536] {
            for loud in [0, dimension / 2, dimension - 1] {
                let mut vector = vec![0.0; dimension];
                vector[loud] = 1.0;
                let most = rotated(&vector, 7).iter().map(|x| x.abs()).fold(0.0, f32::max);
                assert!(most < 6.0 / (dimension as f32).sqrt(), "{dimension} {loud}: {most}");
            }
        }
    }
}
