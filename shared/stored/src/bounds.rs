//! What codes say of a distance encloses what the kernel computes, to the bit; and not much more than that.
//!
//! Here, because this is the crate that knows both `segment` and `query`.

use model::{Position, Space};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use query::kernel::Measure;
use segment::Builder;
use segment::codes::{self, Bounds, CodeQuery};
use segment::row::RowView;

const SPACES: [Space; 3] = [Space::L2, Space::Cosine, Space::Ip];

/// The code of a row with this vector.
fn code(vector: &[f32]) -> Vec<u8> {
    let mut builder = Builder::new(vector.len());
    let position = Position(0);
    builder.push(&RowView { position, id: "a", vector, document: None, uri: None, metadata: None });
    let built = builder.finish(String::new());
    let part = built.parts.iter().find(|part| part.name == "codes-0000").expect("one row is one part");
    let code = codes::in_part(&part.body, vector.len(), 1).expect("of one row").next();
    code.expect("of one row").to_vec()
}

fn bounds(space: Space, query: &[f32], row: &[f32]) -> Bounds {
    CodeQuery::new(space, query).bounds(&code(row))
}

fn encloses(bounds: Bounds, distance: f32) -> bool {
    bounds.lower <= distance && distance <= bounds.upper
}

/// Vectors of one kind each: what is easy, and where sums cancel, overflow, vanish or tie.
fn vector(dimension: usize) -> impl Strategy<Value = Vec<f32>> {
    let ordinary = -1.0..1.0_f32;
    let sparse = prop_oneof![3 => Just(0.0_f32), 1 => ordinary.clone()];
    let magnitude = select(vec![
        1e-45_f32, 1e-38, 1e-30, 1e-24, 1e-23, 1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-10, 1.0, 255.0, 1e10, 1e17, 1e18,
        1e19, 1e20, 1e30, 1e36, 3e38,
    ]);
    let scaled = (vec(ordinary.clone(), dimension), magnitude.clone())
        .prop_map(|(vector, scale)| vector.into_iter().map(|x| x * scale).collect());
    let far_off =
        (vec(ordinary.clone(), dimension), magnitude.clone(), ordinary.clone()).prop_map(|(vector, far, spread)| {
            vector.into_iter().map(|x| (far + far * 1e-3 * spread * x).min(3e38)).collect()
        });
    let one_large = (vec(ordinary.clone(), dimension), any::<prop::sample::Index>(), magnitude.clone()).prop_map(
        |(mut vector, at, large)| {
            let at = at.index(vector.len());
            vector[at] = large;
            vector
        },
    );
    let constant =
        (magnitude, any::<bool>()).prop_map(move |(x, is_negative)| vec![if is_negative { -x } else { x }; dimension]);
    let any_magnitude = any::<f32>().prop_map(|x| if x.is_finite() { x } else { 1.0 });
    prop_oneof![
        4 => vec(ordinary, dimension),
        4 => scaled,
        2 => far_off,
        2 => one_large,
        1 => constant,
        1 => vec(any_magnitude, dimension),
        1 => vec(sparse, dimension),
        1 => Just(vec![0.0; dimension]),
    ]
}

/// A query and a row: strangers, the same, opposites, or the same but for one number.
fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    let dimension = prop_oneof![4 => 1..40_usize, 1 => 1..1_000_usize];
    let vectors = dimension.prop_flat_map(|dimension| (vector(dimension), vector(dimension), 0..6_u8));
    vectors.prop_map(|(query, row, kind)| match kind {
        0 => (query.clone(), query),
        1 => (query.clone(), query.into_iter().map(|x| -x).collect()),
        2 => {
            let mut near = query.clone();
            near[0] = row[0];
            (query, near)
        }
        _ => (query, row),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn bounds_enclose_what_the_kernel_computes((query, row) in pair()) {
        for space in SPACES {
            let (bounds, distance) = (bounds(space, &query, &row), Measure::new(space, &query).distance(&row));
            prop_assert!(encloses(bounds, distance), "{:?}: {:?} without {:e}", space, bounds, distance);
        }
    }
}

/// Bounds of random vectors of length 1 are so close that few others must be looked at: within 1 % of the whole range of
/// distances.
#[test]
fn bounds_of_ordinary_vectors_are_close() {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    // The sum of four is distributed nearly as embeddings are.
    let mut unit = |dimension: usize| -> Vec<f32> {
        let vector: Vec<f32> = (0..dimension).map(|_| random() + random() + random() + random()).collect();
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.into_iter().map(|x| x / norm).collect()
    };
    for (dimension, width_max) in [(2, 1e-4), (16, 0.007), (128, 0.01), (384, 0.01), (768, 0.01), (1_536, 0.01)] {
        for _ in 0..50 {
            let (query, row) = (unit(dimension), unit(dimension));
            for (space, range) in [(Space::L2, 4.0), (Space::Cosine, 2.0), (Space::Ip, 2.0)] {
                let bounds = bounds(space, &query, &row);
                let width = (bounds.upper - bounds.lower) / range;
                assert!(width < width_max, "{space:?} in {dimension}: {bounds:?} is {width} of the range");
                let distance = Measure::new(space, &query).distance(&row);
                assert!(encloses(bounds, distance), "{space:?} in {dimension}: {bounds:?} without {distance}");
            }
        }
    }
}

/// Where nothing can be said, or everything, it is not said otherwise.
#[test]
fn bounds_of_extreme_vectors_are_what_is_known_of_them() {
    let known = |bounds: Bounds| (bounds.lower, bounds.upper);
    assert_eq!(known(bounds(Space::Cosine, &[1.0, 2.0], &[0.0, 0.0])), (1.0, 1.0));
    assert_eq!(known(bounds(Space::Cosine, &[1e-30, 2e-30], &[1.0, 1.0])), (1.0, 1.0));
    let nothing = (f32::NEG_INFINITY, f32::INFINITY);
    assert_eq!(known(bounds(Space::Cosine, &[1e30, 2e30], &[1.0, 1.0])), nothing);
    assert_eq!(known(bounds(Space::Ip, &[1e30, -1e30], &[1e30, 1e30])), nothing);
    // All squares overflow: so does the distance, which is the farthest then.
    let far = bounds(Space::L2, &[1e30, 2e30], &[-1e30, 1.0]);
    assert!(far.lower >= f32::MAX && far.upper == f32::INFINITY, "{far:?}");
    let same = bounds(Space::L2, &[0.5; 9], &[0.5; 9]);
    assert!(same.lower <= 0.0 && same.upper < 1e-4, "{same:?}");
}
