//! The order itself is checked against a literal reading of its definition, the sums against f64 within the bound
//! that theory gives, and the SIMD twin (elsewhere, inside workerd) by `self_check`.

use super::*;
use proptest::prelude::*;

/// The definition, word for word: element `i` to lane `i mod 32`, then fold in halves.
fn by_definition(a: &[f32], b: &[f32], term: fn(f32, f32) -> f32) -> f32 {
    let mut lanes = vec![0.0_f32; 32];
    for i in 0..a.len() {
        lanes[i % 32] += term(a[i], b[i]);
    }
    while lanes.len() > 1 {
        let upper = lanes.split_off(lanes.len() / 2);
        lanes.iter_mut().zip(upper).for_each(|(lane, other)| *lane += other);
    }
    lanes[0]
}

fn difference_squared(x: f32, y: f32) -> f32 {
    (x - y) * (x - y)
}

#[track_caller]
fn check_order(a: &[f32], b: &[f32]) {
    let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
    assert!(same(dot(a, b), by_definition(a, b, |x, y| x * y)), "dot of {a:?} and {b:?}");
    assert!(same(squared_l2(a, b), by_definition(a, b, difference_squared)), "squared_l2 of {a:?} and {b:?}");
}

#[test]
fn order_is_the_documented_one() {
    let mut random = SplitMix(1);
    for dimension in (0..=130).chain([384, 1023]) {
        for style in 0..STYLES {
            let mut vector = || (0..dimension).map(|_| random.element(style)).collect::<Vec<_>>();
            check_order(&vector(), &vector());
        }
    }
}

#[test]
fn order_matters_where_it_can() {
    // Lane 0 sees 1e8, then 1, then −1e8: the 1 is lost. Added in another order it would stay.
    let mut a = vec![0.0; 65];
    (a[0], a[32], a[64]) = (1e8, 1.0, -1e8);
    assert_eq!(dot(&a, &[1.0; 65]), 0.0);
    (a[32], a[33]) = (0.0, 1.0);
    assert_eq!(dot(&a, &[1.0; 65]), 1.0);
}

#[test]
fn kernels_agree_with_their_scalar_twin() {
    for seed in 0..2 {
        self_check(seed).unwrap();
    }
}

#[test]
#[should_panic(expected = "one length")]
fn lengths_that_differ_are_a_bug() {
    dot(&[1.0], &[1.0, 2.0]);
}

#[track_caller]
fn check_distance(space: Space, a: &[f32], b: &[f32], expect: f32) {
    let got = Measure::new(space, a).distance(b);
    assert_eq!(got.to_bits(), expect.to_bits(), "{space:?} from {a:?} to {b:?}: {got}, not {expect}");
}

#[test]
fn distances_are_those_of_chroma() {
    use Space::{Cosine, Ip, L2};
    check_distance(L2, &[1.0, 2.0], &[4.0, 6.0], 25.0);
    check_distance(L2, &[1.0, 2.0], &[1.0, 2.0], 0.0);
    check_distance(Ip, &[1.0, 2.0], &[3.0, 4.0], -10.0);
    check_distance(Cosine, &[1.0, 0.0], &[0.0, 5.0], 1.0);
    check_distance(Cosine, &[3.0, 4.0], &[6.0, 8.0], 0.0);
    check_distance(Cosine, &[3.0, 4.0], &[-3.0, -4.0], 2.0);
    check_distance(Cosine, &[0.0, 0.0], &[1.0, 2.0], 1.0);
    check_distance(Cosine, &[1.0, 2.0], &[-0.0, 0.0], 1.0);
}

#[test]
fn distances_without_a_value_are_the_farthest() {
    use Space::{Cosine, Ip, L2};
    check_distance(L2, &[3e38, 0.0], &[-3e38, 0.0], f32::INFINITY);
    check_distance(Ip, &[3e38, 3e38], &[3e38, -3e38], f32::INFINITY);
    check_distance(Ip, &[3e38], &[3e38], f32::NEG_INFINITY);
    check_distance(Cosine, &[3e38], &[3e38], f32::INFINITY);
    // Too short to have a direction in f32.
    check_distance(Cosine, &[1e-30], &[1e-30], 1.0);
}

fn vectors() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    (1usize..200).prop_flat_map(|n| {
        let vector = prop::collection::vec(-100.0f32..100.0, n);
        (vector.clone(), vector)
    })
}

proptest! {
    /// Each result is off by at most (depth of the sum + 3 roundings a term) · ε of the sum of magnitudes.
    #[test]
    fn sums_are_near_the_exact_ones((a, b) in vectors()) {
        let pairs = || a.iter().zip(&b).map(|(x, y)| (f64::from(*x), f64::from(*y)));
        let bound = |magnitude: f64| (a.len().div_ceil(LANES) + 8) as f64 * f64::from(f32::EPSILON) * magnitude;
        let (exact, magnitude) = pairs().fold((0.0, 0.0), |(s, m), (x, y)| (s + x * y, m + (x * y).abs()));
        prop_assert!((f64::from(dot(&a, &b)) - exact).abs() <= bound(magnitude));
        let exact: f64 = pairs().map(|(x, y)| (x - y) * (x - y)).sum();
        prop_assert!((f64::from(squared_l2(&a, &b)) - exact).abs() <= bound(exact));
    }

    #[test]
    fn distances_are_symmetric_and_norms_may_be_kept((a, b) in vectors()) {
        for space in [Space::L2, Space::Cosine, Space::Ip] {
            let there = Measure::new(space, &a).distance(&b);
            prop_assert_eq!(there.to_bits(), Measure::new(space, &b).distance(&a).to_bits());
            prop_assert_eq!(there.to_bits(), Measure::new(space, &a).distance_with_norm(&b, norm(&b)).to_bits());
        }
    }
}
