//! The parts of a segment and of its leaf index.

use crate::mutate::Random;
use crate::{Target, fuzz, seals, told, vectors};
use model::{Position, SegmentRef, SetHash, Space, Words};
use segment::codes::CodeQuery;
use segment::ids::{Found, IdIndex};
use segment::row::Row;
use segment::{
    BatchPlace, Builder, DeleteVector, IdHash, IndexBuilder, LeafIndex, RowBatch, Segment, TextBuilder, codes,
};
use std::collections::BTreeMap;
use std::ops::Range;
use vector::{Clustering, Codec, Options, Rows};

pub(crate) const SPACES: [Space; 3] = [Space::L2, Space::Cosine, Space::Ip];

/// A segment, and its objects by name.
pub(crate) struct Stored {
    pub(crate) named: SegmentRef,
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
}

/// Rows with these numbers, some of them without text or with much.
pub(crate) fn rows(numbers: Range<u64>, dimension: usize) -> Vec<Row> {
    let mut random = Random::of("rows", numbers.start);
    let mut row = |number: u64| {
        let document = [None, Some("".to_owned()), Some(format!("word {number}")), Some("much ".repeat(40))];
        Row {
            position: Position(number * 100),
            id: format!("r{number}"),
            vector: (0..dimension).map(|_| random.below(2_001) as f32 / 1e3 - 1.0).collect(),
            document: document[random.below(4)].clone(),
            uri: number.is_multiple_of(5).then(|| "file:///a".to_owned()),
            metadata: (!number.is_multiple_of(3)).then(|| format!("{{\"n\":{number}}}")),
        }
    };
    numbers.map(&mut row).collect()
}

/// The segment of `rows` with codes.
pub(crate) fn flat(prefix: &str, rows: &[Row], dimension: usize) -> Stored {
    stored(prefix, Builder::new(dimension), rows)
}

fn stored(prefix: &str, mut builder: Builder, rows: &[Row]) -> Stored {
    rows.iter().for_each(|row| builder.push(&row.view()));
    let built = builder.finish(prefix.to_owned());
    let objects = built.parts.into_iter().map(|part| (part.name, part.body.to_vec())).collect();
    Stored { named: built.segment, objects }
}

/// The segment of `rows` with a leaf index.
pub(crate) fn indexed(prefix: &str, rows: &[Row], dimension: usize, space: Space) -> Stored {
    let mut values: Vec<f32> = rows.iter().flat_map(|row| row.vector.iter().copied()).collect();
    if space == Space::Cosine {
        vector::normalise(&mut values, dimension);
    }
    let (codec, centroid_bits) = (Codec::of(dimension), Codec::centroid_bits(dimension));
    let options = Options { space, clustering: Clustering::of(16, 1, 1), codec, centroid_bits };
    let vector::Index { table, order, codes } = vector::build(Rows::new(&values, dimension), &options);
    let mut builder = IndexBuilder::new(table);
    for leaf in 0..builder.table().leaves() {
        let slots = builder.table().rows(leaf..leaf + 1);
        let slots = slots.start as usize..slots.end as usize;
        let codes = &codes[slots.start * codec.row_bytes()..slots.end * codec.row_bytes()];
        builder.push(codes, order[slots].iter().map(|number| (*number, rows[*number as usize].view())));
    }
    let index = builder.finish();
    let Stored { named, mut objects } = stored(prefix, Builder::without_codes(dimension), rows);
    objects.extend(index.parts.into_iter().map(|part| (part.name, part.body.to_vec())));
    Stored { named: SegmentRef { index: Some(index.named), ..named }, objects }
}

/// The same segment with a text index, words included, in two bundles.
pub(crate) fn with_text(stored: Stored, rows: &[Row]) -> Stored {
    let Stored { named, mut objects } = stored;
    let options = text::Options { words: Some(Words::default()), ..text::Options::default() };
    let (mut builder, mut text) = (text::Builder::new(options, 2_000), TextBuilder::default());
    for row in rows {
        let metadata = row.metadata.as_deref().map(|json| serde_json::from_str(json).expect("it is JSON"));
        let (document, uri) = (row.document.as_deref(), row.uri.as_deref());
        let full = builder.push(&text::Row { metadata: metadata.as_ref(), document, uri });
        full.into_iter().for_each(|built| text.push(built.bundle, built.hotcache));
    }
    builder.finish().into_iter().for_each(|built| text.push(built.bundle, built.hotcache));
    let built = text.finish(named.rows, named.dimension, named.set_hash);
    objects.extend(built.parts.into_iter().map(|part| (part.name, part.body.to_vec())));
    assert!(objects.contains_key("terms-0001"), "one bundle has all rows");
    Stored { named: SegmentRef { text: Some(built.named), ..named }, objects }
}

fn stretch<'b>(bytes: &'b [u8], range: &Range<u64>) -> Result<&'b [u8], String> {
    let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    range.and_then(|(start, end)| bytes.get(start..end)).ok_or_else(|| "cut off".to_owned())
}

/// Reads all that there is in an object `head`.
fn read_head(named: &SegmentRef, head: &[u8]) -> Result<(), String> {
    let ids = IdIndex { at: named.ids_at, rows: named.rows };
    for id in ["r0", "r17", "other"] {
        let hash = IdHash::of(id);
        for range in [ids.range(hash, 0), ids.range(hash, 3), ids.whole()] {
            let found = stretch(head, &range).map(|bytes| ids.find(hash, range.start, bytes));
            assert!(!matches!(found, Ok(Ok(Found::Row(row))) if row >= named.rows), "a row that is not there");
        }
    }
    let segment = told(Segment::open(&head[..head.len().min(named.head_bytes as usize)]))?;
    let places: Vec<BatchPlace> = (0..segment.batches()).map(|number| segment.batch(number)).collect();
    assert_eq!(places.iter().map(|place| place.rows.len() as u64).sum::<u64>(), u64::from(segment.rows()));
    if let Some(last) = segment.rows().checked_sub(1) {
        assert!([0, last / 2, last].into_iter().all(|row| segment.batch_of(row).rows.contains(&row)));
    }
    assert!(segment.objects().len() * 16 <= head.len() && segment.bytes() > 0);
    let place = told(segment.positions_place())?;
    let positions = told(segment.decode_positions(stretch(head, &place.range)?))?;
    assert!(positions.len() == segment.rows() as usize && positions.is_sorted());
    let filter = told(segment.decode_filter(stretch(head, &told(segment.filter_place())?.range)?))?;
    filter.may_contain(IdHash::of("r17"));
    let entries = told(ids.entries(stretch(head, &ids.whole())?))?;
    assert!(entries.iter().all(|(_, row)| *row < named.rows));
    Ok(())
}

/// Uses all rows of a batch.
fn use_batch(place: &BatchPlace, batch: &RowBatch, dimension: usize) {
    assert_eq!(batch.rows(), place.rows);
    for row in place.rows.clone().map(|row| batch.row(row)) {
        assert_eq!(row.vector.len(), dimension);
        let _ = (row.bytes(), row.hash(), row.to_row(), row.to_record());
    }
}

const DIMENSION: usize = 5;
const ROWS: u64 = 60;

fn sample() -> Stored {
    flat("flat", &rows(0..ROWS, DIMENSION), DIMENSION)
}

#[test]
fn heads() {
    let Stored { named, objects } = sample();
    let head = &objects["head"];
    let front = 0..named.head_bytes as usize;
    let [positions, filter, ids] = [2, 3, seals::IDS].map(|kind| seals::section(head, kind));
    let parts = [("head", front), ("positions", positions), ("filter", filter), ("ids", ids)];
    for (name, focus) in parts {
        let read_mended = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            seals::mend_head(&mut bytes);
            read_head(&named, &bytes)
        };
        let read = Box::new(|bytes: &[u8]| read_head(&named, bytes));
        let valid = head.clone();
        fuzz(&Target { name, valid, focus, is_sealed: true, read, read_mended: Box::new(read_mended) }, 1);
    }
}

#[test]
fn batches_of_rows() {
    let Stored { objects, .. } = sample();
    let (head, file) = (&objects["head"], &objects["rows-0000.arrow"]);
    let segment = Segment::open(head).unwrap();
    let place = segment.batch(0);
    let read_by = |segment: &Segment, message: &[u8]| {
        let place = segment.batch(0);
        use_batch(&place, &told(segment.decode_batch(&place, message))?, DIMENSION);
        Ok(())
    };
    let read_mended = |message: &[u8]| {
        let head = seals::with_first_batch(head, seals::BATCHES, message);
        read_by(&told(Segment::open(&head))?, message)
    };
    let valid = stretch(file, &place.range).unwrap().to_vec();
    // The message; behind it the columns.
    let focus = 0..700.min(valid.len());
    let read = Box::new(|message: &[u8]| read_by(&segment, message));
    fuzz(&Target { name: "rows", valid, focus, is_sealed: true, read, read_mended: Box::new(read_mended) }, 1);
}

#[test]
fn parts_of_codes() {
    let Stored { named, objects } = sample();
    let head = &objects["head"];
    let segment = Segment::open(head).unwrap();
    let read_by = |segment: &Segment, part: &[u8]| {
        told(segment.check_codes(0, part))?;
        for code in told(codes::in_part(part, DIMENSION, named.rows))? {
            for (space, query) in SPACES.iter().zip([[0.0; DIMENSION], [1e30; DIMENSION], [-0.5; DIMENSION]]) {
                let bounds = CodeQuery::new(*space, &query).bounds(code);
                assert!(!bounds.lower.is_nan() && !bounds.upper.is_nan());
            }
        }
        Ok(())
    };
    let read_mended = |part: &[u8]| {
        let head = seals::with_object(head, seals::CODES, part);
        read_by(&told(Segment::open(&head))?, part)
    };
    let valid = objects["codes-0000"].clone();
    let focus = 0..valid.len();
    let read = Box::new(|part: &[u8]| read_by(&segment, part));
    fuzz(&Target { name: "codes", valid, focus, is_sealed: true, read, read_mended: Box::new(read_mended) }, 1);
}

/// A segment of 200,000 rows of which so many are dead.
fn with_dead(count: u32) -> SegmentRef {
    let place = model::DeleteVectorPlace::Inline(String::new());
    let dead = Some(model::DeleteVectorRef { count, place });
    let prefix = "prefix".to_owned();
    let (dimension, head_bytes, ids_at, bytes) = (1, 0, 0, 0);
    SegmentRef {
        prefix,
        rows: 200_000,
        dimension,
        head_bytes,
        ids_at,
        bytes,
        set_hash: SetHash::default(),
        index: None,
        text: None,
        dead,
    }
}

#[test]
fn delete_vectors() {
    // As a roaring bitmap has them: few, many, and in a row.
    let sets: [Vec<u32>; 3] = [
        vec![1, 5, 70_000],
        (0..120_000).filter(|row| row % 7 > 2).collect(),
        (9..9_000).chain(80_000..80_010).collect(),
    ];
    for rows in sets {
        let vector: DeleteVector = rows.into_iter().collect();
        let named = with_dead(vector.len());
        let check = |vector: DeleteVector| {
            assert!(vector.len() == named.dead_rows() && vector.iter().all(|row| row < named.rows));
        };
        let read = |bytes: &[u8]| told(DeleteVector::decode(bytes, &named)).map(check);
        let read_mended = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            seals::mend_trailer(&mut bytes, b"OPALDEL1");
            read(&bytes)
        };
        let valid = vector.encode().to_vec();
        let focus = 0..valid.len().min(64);
        let (read, read_mended) = (Box::new(read), Box::new(read_mended));
        fuzz(&Target { name: "delete vector", valid, focus, is_sealed: true, read, read_mended }, 3);
        let read = |text: &[u8]| told(DeleteVector::decode_inline(&String::from_utf8_lossy(text), &named)).map(check);
        let valid = vector.encode_inline().into_bytes();
        let focus = 0..valid.len().min(64);
        let (read, read_mended) = (Box::new(read), Box::new(read));
        fuzz(&Target { name: "inline delete vector", valid, focus, is_sealed: true, read, read_mended }, 3);
    }
}

/// Every kind of codes: 8, 4, 3, 2 and 1 bits a dimension.
const DIMENSIONS: [usize; 5] = [5, 40, 130, 330, 1_201];

fn indexes() -> impl Iterator<Item = (usize, Stored)> {
    let space = SPACES.into_iter().cycle();
    DIMENSIONS
        .into_iter()
        .zip(space)
        .map(|(dimension, space)| (dimension, indexed("near", &rows(0..50, dimension), dimension, space)))
}

/// Uses all that an index says of where things are.
fn use_index(index: &LeafIndex) {
    vectors::use_table(index.table());
    for leaf in 0..index.table().leaves() {
        let place = index.leaf_place(leaf);
        assert!(place.range.start < place.range.end);
    }
    let places: Vec<BatchPlace> = (0..index.near_batches()).map(|number| index.near_batch(number)).collect();
    assert_eq!(places.iter().map(|place| place.rows.len() as u64).sum::<u64>(), u64::from(index.rows()));
    if let Some(last) = index.rows().checked_sub(1) {
        assert!([0, last / 2, last].into_iter().all(|slot| index.near_batch_of(slot).rows.contains(&slot)));
    }
    let _ = (index.objects(), index.bytes(), index.near_row_bytes());
}

#[test]
fn objects_with_a_table_of_leaves() {
    for (_, Stored { objects, .. }) in indexes() {
        let read = |body: &[u8]| told(LeafIndex::open(body)).map(|index| use_index(&index));
        let read_mended = |body: &[u8]| {
            let mut body = body.to_vec();
            seals::mend_head(&mut body);
            read(&body)
        };
        let valid = objects["index"].clone();
        let focus = 0..valid.len();
        let (read, read_mended) = (Box::new(read), Box::new(read_mended));
        fuzz(&Target { name: "index", valid, focus, is_sealed: true, read, read_mended }, DIMENSIONS.len());
    }
}

#[test]
fn leaves() {
    for (_, Stored { objects, .. }) in indexes() {
        let index = LeafIndex::open(&objects["index"]).unwrap();
        let read = |bytes: &[u8]| {
            let leaf = told(index.decode_leaf(1, bytes))?;
            let rows = index.table().rows(1..2);
            assert!((0..rows.len()).all(|at| leaf.row(at) < index.rows()));
            vectors::use_leaf(index.table(), 1, leaf.codes)
        };
        let read_mended = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            seals::mend_end(&mut bytes);
            read(&bytes)
        };
        let place = index.leaf_place(1);
        let valid = stretch(&objects[&place.part], &place.range).unwrap().to_vec();
        let focus = 0..valid.len();
        let (read, read_mended) = (Box::new(read), Box::new(read_mended));
        fuzz(&Target { name: "leaf", valid, focus, is_sealed: true, read, read_mended }, DIMENSIONS.len());
    }
}

#[test]
fn batches_of_near_rows() {
    let (dimension, Stored { objects, .. }) = indexes().next().unwrap();
    let index = LeafIndex::open(&objects["index"]).unwrap();
    let read_by = |index: &LeafIndex, message: &[u8]| {
        let place = index.near_batch(0);
        use_batch(&place, &told(index.decode_near_batch(&place, message))?, dimension);
        Ok(())
    };
    let read_mended = |message: &[u8]| {
        let body = seals::with_first_batch(&objects["index"], seals::NEAR_BATCHES, message);
        read_by(&told(LeafIndex::open(&body))?, message)
    };
    let valid = stretch(&objects["near-0000.arrow"], &index.near_batch(0).range).unwrap().to_vec();
    let focus = 0..700.min(valid.len());
    let read = Box::new(|message: &[u8]| read_by(&index, message));
    fuzz(&Target { name: "near rows", valid, focus, is_sealed: true, read, read_mended: Box::new(read_mended) }, 1);
}
