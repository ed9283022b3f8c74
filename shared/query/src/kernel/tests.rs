//! Distances are checked against a literal reading of their definition and against f64 within the bound that theory gives,
//! and the SIMD twin (elsewhere, inside workerd) by `self_check`.

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
    #[test]
    fn distances_are_symmetric_and_norms_may_be_kept((a, b) in vectors()) {
        for space in [Space::L2, Space::Cosine, Space::Ip] {
            let there = Measure::new(space, &a).distance(&b);
            prop_assert_eq!(there.to_bits(), Measure::new(space, &b).distance(&a).to_bits());
            prop_assert_eq!(there.to_bits(), Measure::new(space, &a).distance_with_norm(&b, norm(&b)).to_bits());
        }
    }
}

const CASES: u64 = 100_000;
const SPACES: [Space; 3] = [Space::L2, Space::Ip, Space::Cosine];

/// Two vectors with whatever makes sums hard: magnitudes far apart, zeros, vectors that are equal, opposite or all but
/// equal, products that cancel. Most have up to 64 numbers, some 4,096.
fn hard_pair(random: &mut SplitMix) -> (Vec<f32>, Vec<f32>) {
    let longest = [16, 64, 64, 64, 64, 64, 300, if random.below(10) == 0 { 4_096 } else { 64 }][random.below(8)];
    let dimension = 1 + random.below(longest);
    let mut vector = || {
        // Half of all have ordinary numbers, scaled by up to 10^±18.
        let style = u32::try_from(random.below(2 * STYLES as usize)).unwrap();
        let style = if style < STYLES { style } else { 0 };
        let scale = if style == 0 { 10_f32.powi(i32::try_from(random.below(37)).unwrap() - 18) } else { 1.0 };
        (0..dimension).map(|_| random.element(style) * scale).collect::<Vec<f32>>()
    };
    let (a, b) = (vector(), vector());
    let of_a: Vec<f32> = match random.below(8) {
        0 => a.clone(),
        1 => a.iter().map(|x| -x).collect(),
        2 => a.iter().map(|x| x * (1.0 + 1e-6 * random.ordinary())).collect(),
        3 => (0..dimension)
            .map(|i| if 2 * i < dimension { a[dimension - 1 - i] } else { -a[dimension - 1 - i] })
            .collect(),
        4 => a.iter().map(|x| if random.below(3) == 0 { 0.0 } else { *x }).collect(),
        _ => b,
    };
    (a, of_a)
}

/// The table of distances, word for word.
fn distance_by_definition(space: Space, a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| by_definition(a, b, |x, y| x * y);
    let (a_norm, b_norm) = (dot(a, a).sqrt(), dot(b, b).sqrt());
    let distance = match space {
        Space::L2 => by_definition(a, b, difference_squared),
        Space::Ip => 1.0 - dot(a, b),
        Space::Cosine if a_norm == 0.0 || b_norm == 0.0 => 1.0,
        Space::Cosine => 1.0 - dot(a, b) / (a_norm * b_norm),
    };
    if distance.is_nan() { f32::INFINITY } else { distance }
}

/// The distance in f64, and how far off the kernel's may be; `None` where its sums or norms leave the range in which f32 is
/// exact to rounding.
///
/// The bound is `d · 2⁻²⁴ · Σ|terms|`: of l2 the squares, of ip 1 and the products, of cosine 1 and the products of the
/// directions. Below seven dimensions a difference, its square, two norms and a quotient are rounded more often than `d`
/// times. What products lose at the lower end of f32's range comes on top.
fn in_f64(space: Space, a: &[f32], b: &[f32]) -> Option<(f64, f64)> {
    let sum = |a: &[f32], b: &[f32], term: fn(f64, f64) -> f64| {
        a.iter().zip(b).map(|(x, y)| term(f64::from(*x), f64::from(*y))).sum::<f64>()
    };
    let product = |x: f64, y: f64| x * y;
    let absolute = |x: f64, y: f64| (x * y).abs();
    let underflow = a.len() as f64 * 2_f64.powi(-149);
    let (squares, others) = (sum(a, a, product), sum(b, b, product));
    let lengths = (squares * others).sqrt();
    let (distance, terms, underflow) = match space {
        Space::L2 => {
            let distance = sum(a, b, |x, y| (x - y) * (x - y));
            (distance, distance, underflow)
        }
        Space::Ip => (1.0 - sum(a, b, product), 1.0 + sum(a, b, absolute), underflow),
        Space::Cosine if squares == 0.0 || others == 0.0 => return Some((1.0, 0.0)),
        Space::Cosine => {
            let is_in_range = |squares: f64| (1e-38..1e38).contains(&squares);
            let underflow = if is_in_range(squares) && is_in_range(others) { underflow } else { return None };
            let terms = 1.0 + sum(a, b, absolute) / lengths;
            (1.0 - sum(a, b, product) / lengths, terms, underflow * (1.0 / squares + 1.0 / others))
        }
    };
    let rounding = a.len().max(7) as f64 * 2_f64.powi(-24) * terms;
    (terms < f64::from(f32::MAX) / 2.0).then_some((distance, rounding + underflow))
}

#[test]
fn distances_are_their_definitions_to_the_bit_and_near_the_truth() {
    let mut random = SplitMix(5);
    let (mut bounded, mut rounded) = ([0; 3], [0; 3]);
    for case in 0..CASES {
        let (a, b) = hard_pair(&mut random);
        let number = random.below(SPACES.len());
        let space = SPACES[number];
        let got = Measure::new(space, &a).distance(&b);
        let expected = distance_by_definition(space, &a, &b);
        assert_eq!(got.to_bits(), expected.to_bits(), "case {case}: {space:?} {got}, not {expected}");
        let Some((truth, bound)) = in_f64(space, &a, &b) else { continue };
        let error = (f64::from(got) - truth).abs();
        assert!(error <= bound, "case {case}: {space:?} {got} for {truth} is off by {:.2} bounds", error / bound);
        bounded[number] += 1;
        rounded[number] += u64::from(error > 0.0);
    }
    println!("of {CASES} distances, {SPACES:?} had a bound: {bounded:?}; were rounded: {rounded:?}");
    assert!(bounded.iter().all(|cases| *cases > CASES / 6) && rounded.iter().all(|cases| *cases > CASES / 12));
}
