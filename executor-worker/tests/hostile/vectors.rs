//! Tables of leaves and codes of rows, used as a search uses them. What is above them has checksums, they have none.

use crate::segments::{SPACES, rows};
use crate::{Target, fuzz, told};
use vector::codes::{self, LeafWriter};
use vector::probe::{self, Budget, Effort, Line};
use vector::{Clustering, Codec, Options, Rows, Table};

/// Plans of few reads and of many, for queries of any length.
pub(crate) fn use_table(table: &Table) {
    let dimension = table.codec().dimension;
    // Twice, as if there were two of it.
    let line = Line::of([table, table]);
    for number in [0.0, 0.5, 1e30] {
        let views = table.views(&table.frame().query(&vec![number; dimension]));
        let ranked = line.rank([&views[..], &views], 1.3);
        assert!(ranked.is_empty() == (table.leaves() == 0) && ranked.len() <= 2 * table.leaves());
        let Effort { leaves: usual, .. } = Effort::cold(dimension, 10);
        for budget in [usual, Budget { bytes: 900, ranges: 2 }, Budget { bytes: u64::MAX, ranges: usize::MAX }] {
            let plan = line.plan(&ranked, &budget);
            assert!(plan.iter().all(|(_, leaves)| leaves.start < leaves.end && leaves.end <= table.leaves()));
            assert!(plan.windows(2).all(|pair| (pair[0].0, pair[0].1.end) <= (pair[1].0, pair[1].1.start)));
        }
    }
    (0..table.leaves()).for_each(|leaf| assert_eq!(table.centroid(leaf).len(), dimension));
    assert!(table.bytes(0..table.leaves()).end >= u64::from(table.rows(0..table.leaves()).end));
    assert!(Table::decode(&table.encode()).is_ok());
}

/// Estimates the distances of a leaf's rows and chooses those to look at; copies the rows as an update does.
pub(crate) fn use_leaf(table: &Table, leaf: usize, codes: &[u8]) -> Result<(), String> {
    let (codec, rows) = (table.codec(), table.rows(leaf..leaf + 1));
    let query = table.frame().query(&vec![0.25; codec.dimension]);
    let mut estimates = Vec::new();
    told(codes::estimate(&query, codec, table.views(&query)[leaf], codes, rows.start, &mut estimates))?;
    assert!(estimates.iter().map(|estimate| estimate.row).eq(rows.clone()));
    let plan = probe::rows(estimates, &Effort::cold(codec.dimension, 3).rerank);
    assert!(plan.rows.iter().all(|row| rows.contains(row)));
    assert!(plan.ranges.iter().all(|range| rows.start <= range.start && range.end <= rows.end));
    let mut writer = LeafWriter::new(codec);
    (0..rows.len()).try_for_each(|row| told(writer.copy(codes, row)))?;
    assert!(writer.copy(codes, rows.len()).is_err());
    assert_eq!(writer.finish(), codes);
    Ok(())
}

#[test]
fn tables_without_a_checksum() {
    const DIMENSIONS: [usize; 4] = [1, 33, 140, 400];
    for (dimension, space) in DIMENSIONS.into_iter().zip(SPACES.into_iter().cycle()) {
        let rows = rows(0..40, dimension);
        let values: Vec<f32> = rows.iter().flat_map(|row| row.vector.iter().copied()).collect();
        let (codec, centroid_bits) = (Codec::of(dimension), Codec::centroid_bits(dimension));
        let options = Options { space, clustering: Clustering::of(8, 1, 1), codec, centroid_bits };
        let valid = vector::build(Rows::new(&values, dimension), &options).table.encode();
        let focus = 0..valid.len().min(64);
        let read = |bytes: &[u8]| told(Table::decode(bytes)).map(|table| use_table(&table));
        let (read, read_mended) = (Box::new(read), Box::new(read));
        fuzz(&Target { name: "table", valid, focus, is_sealed: false, read, read_mended }, DIMENSIONS.len());
    }
}
