//! A leaf index has the segment's rows once more; whatever is changed in it is an error.

use super::*;
use crate::row::Row;
use crate::testing::rows;
use bytes::Bytes;
use model::Space;
use std::collections::BTreeMap;
use vector::{Clustering, Codec, Options, Rows, codes};

type Objects = BTreeMap<String, Bytes>;

/// The index of `rows`, which all have vectors of `dimension` numbers.
fn build(rows: &[Row], dimension: usize) -> (Objects, IndexRef) {
    let values: Vec<f32> = rows.iter().flat_map(|row| row.vector.iter().map(|x| x.clamp(-1e6, 1e6))).collect();
    let values = Rows::new(&values, dimension);
    let codec = Codec::of(dimension);
    let options = Options { space: Space::L2, clustering: Clustering::of(16, 7, 1), codec, centroid_bits: 4 };
    let vector::Index { table, order, .. } = vector::build(values, &options);
    let mut builder = IndexBuilder::new(table);
    let mut objects = Objects::new();
    for leaf in 0..builder.table().leaves() {
        let numbers =
            &order[leaf_rows(builder.table(), leaf).start as usize..leaf_rows(builder.table(), leaf).end as usize];
        let vectors: Vec<&[f32]> = numbers.iter().map(|number| values.get(*number as usize)).collect();
        let table = builder.table();
        let codes = codes::encode_leaf(table.frame(), codec, &table.centroid(leaf), vectors.into_iter());
        builder.push(&codes, numbers.iter().map(|number| (*number, rows[*number as usize].view())));
        objects.extend(builder.take_parts().into_iter().map(|part| (part.name, part.body)));
    }
    let built = builder.finish();
    objects.extend(built.parts.into_iter().map(|part| (part.name, part.body)));
    assert_eq!(built.bytes, objects.values().map(|body| body.len() as u64).sum::<u64>());
    (objects, built.named)
}

fn get<'o>(objects: &'o Objects, part: &str, range: &Range<u64>) -> Result<&'o [u8], SegmentError> {
    let stretch = objects.get(part).and_then(|body| body.get(index(range.start)..index(range.end)));
    stretch.ok_or_else(|| damaged("not there"))
}

/// All rows with their numbers in the segment, in the order of the leaves.
fn read(objects: &Objects, named: &IndexRef) -> Result<Vec<(u32, Row)>, SegmentError> {
    let place = index_place(named);
    let opened = LeafIndex::open(get(objects, &place.part, &place.range)?)?;
    let mut numbers = Vec::new();
    for leaf in 0..opened.table().leaves() {
        let place = opened.leaf_place(leaf);
        let read = opened.decode_leaf(leaf, get(objects, &place.part, &place.range)?)?;
        let rows = leaf_rows(opened.table(), leaf);
        assert_eq!(read.codes.len(), rows.len() * opened.table().codec().row_bytes());
        numbers.extend((0..rows.len()).map(|at| read.row(at)));
    }
    let mut rows = Vec::new();
    for batch in (0..opened.near_batches()).map(|number| opened.near_batch(number)) {
        let read = opened.decode_near_batch(&batch, get(objects, &batch.part, &batch.range)?)?;
        for slot in batch.rows.clone() {
            assert_eq!(opened.near_batch_of(slot), batch);
            rows.push((numbers[slot as usize], read.row(slot).to_row()));
        }
    }
    Ok(rows)
}

#[test]
fn whatever_is_indexed_reads_back() {
    for (count, dimension) in [(1, 1), (40, 3), (3_000, 4), (700, 100)] {
        let rows = rows(count as u64, count, dimension);
        let (objects, named) = build(&rows, dimension);
        let mut found = read(&objects, &named).unwrap();
        let place = index_place(&named);
        let opened = LeafIndex::open(get(&objects, &place.part, &place.range).unwrap()).unwrap();
        assert_eq!((index(opened.rows()), opened.dimension()), (count, dimension));
        assert_eq!(opened.set_hash(), rows.iter().fold(SetHash::default(), |sum, row| sum.with(row.view().hash())));
        let mut told = opened.objects();
        told.sort();
        let others = objects.iter().filter(|(name, _)| *name != INDEX);
        let others: Vec<_> = others.map(|(name, body)| (name.clone(), body.len() as u64, xxh3_64(body))).collect();
        assert_eq!(told, others);
        found.sort_by_key(|(number, _)| *number);
        assert!(found.iter().map(|(number, _)| *number).eq(0..u32::try_from(count).unwrap()), "each row once");
        assert_eq!(found.into_iter().map(|(_, row)| row).collect::<Vec<_>>(), rows);
    }
}

#[test]
fn leaves_and_rows_fill_several_objects() {
    let rows = rows(5, 6_000, 4);
    let (objects, _) = build(&rows, 4);
    let count = |name: &str| objects.keys().filter(|key| key.starts_with(name)).count();
    assert!(count("leaves-") > 1 && count("near-") > 1, "{:?}", objects.keys());
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let rows = rows(3, 60, 3);
    let (objects, named) = build(&rows, 3);
    let whole = read(&objects, &named).unwrap();
    for (name, body) in &objects {
        for at in (0..body.len()).step_by(body.len() / 200 + 1) {
            let mut changed = body.to_vec();
            changed[at] ^= 1 << (at % 8);
            let mut objects = objects.clone();
            objects.insert(name.clone(), changed.into());
            // Headers and footers of Arrow files are not read.
            assert!(
                read(&objects, &named).is_err()
                    || name.starts_with("near-") && read(&objects, &named).as_ref() == Ok(&whole),
                "{name}, byte {at}"
            );
        }
    }
}

#[test]
fn whatever_is_cut_off_is_an_error() {
    let (objects, named) = build(&rows(3, 60, 3), 3);
    let index_body = &objects[INDEX];
    for length in (0..index_body.len()).step_by(7) {
        assert!(LeafIndex::open(&index_body[..length]).is_err(), "{length} bytes");
    }
    let opened = LeafIndex::open(index_body).unwrap();
    let place = opened.leaf_place(0);
    let leaf = get(&objects, &place.part, &place.range).unwrap();
    for length in 0..leaf.len() {
        assert!(opened.decode_leaf(0, &leaf[..length]).is_err(), "{length} bytes");
    }
    assert_eq!(named.bytes as usize, index_body.len());
}
