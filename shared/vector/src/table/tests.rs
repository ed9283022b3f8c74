//! A table is read as it was written, bytes that are none are refused, and centroids come back about where they were.

use super::*;
use crate::random::Random;
use proptest::collection::vec;
use proptest::prelude::*;

fn vectors(count: usize, dimension: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, 0);
    (0..count * dimension).map(|_| f32::from(random.byte()) / 128.0 - 1.0).collect()
}

fn table(space: Space, dimension: usize, bits: u32, rows: &[u32], seed: u64) -> Table {
    let centroids = vectors(rows.len(), dimension, seed);
    let frame = Frame::new(space, vectors(1, dimension, seed + 1), 1.5, seed);
    Table::new(frame, Codec::of(dimension), bits, Rows::new(&centroids, dimension), rows, &vec![0.5; rows.len()])
}

prop_compose! {
    fn any_table()(space in prop::sample::select(&SPACES[..]), dimension in 1..70_usize, bits in 1..=8_u32,
        rows in vec(0..300_u32, 0..20), seed in 0..1000_u64) -> Table {
        table(space, dimension, bits, &rows, seed)
    }
}

proptest! {
    #[test]
    fn decode_inverts_encode(table in any_table()) {
        let bytes = table.encode();
        prop_assert_eq!(bytes.len(), table.encoded_len());
        let decoded = Table::decode(&bytes).unwrap();
        prop_assert_eq!(decoded.encode(), bytes);
        let query = table.frame().query(&vectors(1, table.codec().dimension, 5));
        prop_assert_eq!(decoded.views(&query), table.views(&query));
    }

    #[test]
    fn a_table_that_is_cut_off_or_too_long_is_an_error(table in any_table(), cut: prop::sample::Index) {
        let mut bytes = table.encode();
        prop_assert!(Table::decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(Table::decode(&bytes).is_err());
    }

    #[test]
    fn decode_and_use_survive_any_bytes(table in any_table(), at: prop::sample::Index, to: [u8; 4]) {
        let mut bytes = table.encode();
        let at = at.index(bytes.len());
        let end = (at + 4).min(bytes.len());
        bytes[at..end].copy_from_slice(&to[..end - at]);
        if let Ok(table) = Table::decode(&bytes) {
            let query = table.frame().query(&vectors(1, table.codec().dimension, 5));
            let line = crate::probe::Line::of([&table]);
            let ranked = line.rank([&table.views(&query)[..]], 1.5);
            let plan = line.plan(&ranked, &crate::probe::Budget { bytes: 5_000, ranges: 3 });
            prop_assert!(plan.iter().all(|(_, leaves)| leaves.end <= table.leaves()));
        }
    }

    #[test]
    fn bytes_are_no_table(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Table::decode(&bytes).is_err());
    }
}

#[test]
fn centroids_come_back_about_where_they_were() {
    let dimension = 100;
    let centroids = vectors(8, dimension, 3);
    for (bits, lost) in [(1, 0.45), (2, 0.2), (4, 0.015), (8, 0.0002)] {
        let table = table(Space::L2, dimension, bits, &[1; 8], 3);
        for (leaf, centroid) in Rows::new(&centroids, dimension).iter().enumerate() {
            let placed = table.frame().place(centroid);
            let squared = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            let share = squared(&placed, &table.centroid(leaf)) / squared(&placed, &vec![0.0; dimension]);
            assert!(share < lost, "{bits} bits lose {share}");
        }
    }
}

/// A table and a leaf as they were first written. Whoever changes their bytes changes the version, and keeps these readable.
#[test]
fn the_first_version_is_written_and_read_as_ever() {
    let table = table(Space::Cosine, 21, 3, &[3, 0, 200], 1);
    let rows = vectors(3, 21, 9);
    let leaf =
        codes::encode_leaf(table.frame(), Codec { dimension: 21, bits: 7 }, &table.centroid(0), rows.chunks_exact(21));
    assert!(table.encode() == include_bytes!("../../testdata/v1/table"), "the table has other bytes");
    assert!(leaf == include_bytes!("../../testdata/v1/leaf"), "the leaf has other bytes");
    assert_eq!(Table::decode(include_bytes!("../../testdata/v1/table")).unwrap().encode(), table.encode());
}
