//! Estimates are compared with exact distances in f64: near, without bias, and seldom further off than they say.

use super::*;
use crate::random::Random;
use proptest::prelude::*;

/// Sums of a few uniform numbers around a centre of `offset`: not normal, not centred.
fn vectors(count: usize, dimension: usize, offset: f32, random: &mut Random) -> Vec<f32> {
    let mut one = || (0..3).map(|_| f32::from(random.byte()) / 256.0 - 0.5).sum::<f32>();
    (0..count * dimension).map(|at| one() + offset * ((at % dimension) % 3) as f32).collect()
}

fn exact(space: Space, a: &[f32], b: &[f32]) -> f64 {
    let sum =
        |term: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| term(f64::from(*a), f64::from(*b))).sum::<f64>();
    let product = sum(&|a, b| a * b);
    match space {
        Space::L2 => sum(&|a, b| (a - b) * (a - b)),
        Space::Ip => 1.0 - product,
        Space::Cosine => 1.0 - product / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt(),
    }
}

/// (error, what it was said to be, distance) of every pair of a row and a query.
fn errors(space: Space, codec: Codec, offset: f32, seed: u64) -> Vec<(f64, f64, f64)> {
    let mut random = Random::new(seed, 9);
    let dimension = codec.dimension;
    let (mut rows, queries) =
        (vectors(64, dimension, offset, &mut random), vectors(16, dimension, offset, &mut random));
    if space == Space::Cosine {
        crate::normalise(&mut rows, dimension);
    }
    let frame = crate::build::frame(crate::Rows::new(&rows, dimension), space, seed);
    let centroid = frame.place(&rows[..dimension]).iter().map(|x| x * 0.5).collect::<Vec<f32>>();
    let squares = dot(&centroid, &centroid);
    let codes = encode_leaf(&frame, codec, &centroid, rows.chunks_exact(dimension));
    let mut all = Vec::new();
    for query in queries.chunks_exact(dimension) {
        let placed = frame.query(query);
        let mut rotated = query.to_vec();
        if space == Space::Cosine {
            crate::normalise(&mut rotated, dimension);
        }
        let product = match space {
            Space::Ip => {
                let zero = frame.place(&vec![0.0; dimension]);
                let moved: Vec<f32> = frame.place(&rotated).iter().zip(&zero).map(|(x, zero)| x - zero).collect();
                dot(&moved, &centroid) / placed.unit
            }
            _ => dot(&frame.place(&rotated), &centroid),
        };
        let mut estimates = Vec::new();
        estimate(&placed, codec, placed.view(product, squares, 0.0), &codes, 7, &mut estimates).unwrap();
        for (row, estimate) in rows.chunks_exact(dimension).zip(estimates) {
            let exact = exact(space, row, query);
            all.push((f64::from(estimate.distance) - exact, f64::from(estimate.error), exact));
        }
    }
    all
}

#[test]
fn estimates_are_near_and_say_how_near() {
    for space in [Space::L2, Space::Cosine, Space::Ip] {
        for (dimension, offset) in [(96, 0.0), (384, 0.0), (384, 0.2), (700, 0.1)] {
            for bits in 1..=8 {
                let errors = errors(space, Codec { dimension, bits }, offset, 5);
                let count = errors.len() as f64;
                let beyond =
                    |times: f64| errors.iter().filter(|(error, said, _)| error.abs() > times * said).count() as f64;
                let case = format!("{space:?}, {dimension} dimensions, {bits} bits");
                // What the query's own rounding adds is not said; it shows where codes are finest.
                let times = if bits > 5 { 6.0 } else { 4.0 };
                assert!(beyond(times) / count < 0.01, "{case}: {} of {count} are off by {times} times", beyond(times));
                let said: f64 = errors.iter().map(|(_, said, _)| said).sum::<f64>() / count;
                let bias = errors.iter().map(|(error, _, _)| error).sum::<f64>() / count;
                assert!(bias.abs() < 0.5 * said + 1e-4, "{case}: bias {bias}, said {said}");
            }
        }
    }
}

#[test]
fn a_bit_more_halves_the_error() {
    let of = |bits| errors(Space::L2, Codec { dimension: 384, bits }, 0.0, 3);
    let mean = |bits| of(bits).iter().map(|(error, _, _)| error.abs()).sum::<f64>();
    for bits in 2..=6 {
        assert!(mean(bits) < 0.7 * mean(bits - 1), "{bits} bits");
    }
}

#[test]
fn rows_without_length_have_the_distance_one_in_cosine_space() {
    let frame = Frame::new(Space::Cosine, vec![0.1; 32], 1.0, 1);
    let codec = Codec { dimension: 32, bits: 8 };
    let centroid = vec![0.0; 32];
    let codes = encode_leaf(&frame, codec, &centroid, [[0.0; 32].as_slice()].into_iter());
    let query = frame.query(&[1.0; 32]);
    let mut estimates = Vec::new();
    estimate(&query, codec, query.view(0.0, 0.0, 0.0), &codes, 0, &mut estimates).unwrap();
    assert!((estimates[0].distance - 1.0).abs() < 0.01, "{estimates:?}");
}

proptest! {
    #[test]
    fn codes_of_any_bytes_are_rows_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600), bits in 1..=8_u32, dimension in 1..40_usize) {
        let codec = Codec { dimension, bits };
        let query = Frame::new(Space::L2, vec![0.0; dimension], 1.0, 1).query(&vec![1.0; dimension]);
        let mut estimates = Vec::new();
        let result = estimate(&query, codec, query.view(1.0, 1.0, 0.0), &bytes, 3, &mut estimates);
        prop_assert_eq!(result.is_ok(), bytes.len().is_multiple_of(codec.row_bytes()));
        prop_assert_eq!(estimates.len(), if result.is_ok() { bytes.len() / codec.row_bytes() } else { 0 });
    }

    #[test]
    fn any_finite_row_is_coded(rows in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 6), bits in 1..=8_u32) {
        let frame = Frame::new(Space::Ip, vec![0.0; 3], 1.0, 1);
        let codec = Codec { dimension: 3, bits };
        prop_assert_eq!(encode_leaf(&frame, codec, &[0.5; 3], rows.chunks_exact(3)).len(), 2 * codec.row_bytes());
    }
}
