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
    for (dimension, bits, bytes) in [(384, 4, 192), (100, 8, 100), (100, 7, 88), (1536, 2, 384), (1, 1, 1), (9, 3, 5)] {
        assert_eq!(code_bytes(dimension, bits), bytes, "{dimension} dimensions of {bits} bits");
    }
}

#[test]
fn queries_without_finite_levels_are_zero() {
    for x in [0.0, f32::MIN_POSITIVE / 4.0, f32::INFINITY, f32::NAN] {
        let query = QueryLevels::new(&[x, -x]);
        assert!(query.narrow.iter().all(|level| i32::from(*level).abs() <= 127), "{x}");
    }
}
