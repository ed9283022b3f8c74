//! Whatever rows are built into a segment are found in it again: by number, by position, by id and by code. A segment that
//! was changed is an error or reads as before.

use super::*;
use crate::ids::{Found, IdIndex};
use crate::row::Row;
use crate::testing::{build, rows};
use crate::{Builder, Built, DeleteVector, IdHash};
use bytes::Bytes;
use model::{DeleteVectorPlace, DeleteVectorRef};
use proptest::prelude::*;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// The objects of a segment, as a bucket has them.
type Objects = BTreeMap<String, Bytes>;

fn objects(built: &Built) -> Objects {
    built.parts.iter().map(|part| (part.name.clone(), part.body.clone())).collect()
}

fn get<'o>(objects: &'o Objects, part: &str, range: &Range<u64>) -> Result<&'o [u8], SegmentError> {
    let stretch = objects.get(part).and_then(|body| body.get(index(range.start)..index(range.end)));
    stretch.ok_or_else(|| damaged("not there"))
}

/// Everything that a segment says, read as readers do.
#[derive(Debug, PartialEq)]
struct Contents {
    rows: Vec<Row>,
    positions: Vec<Position>,
    /// Of the ids that were asked for.
    found: Vec<Option<u32>>,
    codes: Vec<Vec<u8>>,
}

fn read(objects: &Objects, named: &SegmentRef, ids: &[String]) -> Result<Contents, SegmentError> {
    let in_head = |place: Place| get(objects, &place.part, &place.range);
    let segment = Segment::open(in_head(head_place(named))?)?;
    let mut rows = Vec::new();
    for number in 0..segment.batches() {
        let place = segment.batch(number);
        let batch = segment.decode_batch(&place, get(objects, &place.part, &place.range)?)?;
        rows.extend(place.rows.map(|row| batch.row(row).to_row()));
    }
    let positions = segment.decode_positions(in_head(segment.positions_place()?)?)?;
    let filter = segment.decode_filter(in_head(segment.filter_place()?)?)?;
    let index = IdIndex { at: named.ids_at, rows: named.rows };
    let mut found = Vec::new();
    for id in ids {
        let row = look_up(objects, &index, IdHash::of(id))?;
        assert!(row.is_none() || filter.may_contain(IdHash::of(id)), "the filter does not know {id}");
        found.push(row);
    }
    let mut codes = Vec::new();
    for part in 0..codes_parts(named) {
        let (place, rows) = codes_place(named, part);
        let body = get(objects, &place.part, &place.range)?;
        segment.check_codes(part, body)?;
        codes.extend(crate::codes::in_part(body, segment.dimension(), rows.end - rows.start)?.map(<[u8]>::to_vec));
    }
    Ok(Contents { rows, positions, found, codes })
}

fn look_up(objects: &Objects, ids: &IdIndex, hash: IdHash) -> Result<Option<u32>, SegmentError> {
    for spread in 0.. {
        let range = ids.range(hash, spread);
        match ids.find(hash, range.start, get(objects, IDS_PART, &range)?)? {
            Found::Row(row) => return Ok(Some(row)),
            Found::Absent => return Ok(None),
            Found::Beyond => {}
        }
    }
    unreachable!("the whole index is no end of places")
}

/// Builds a segment and reads it back in every way. Returns it, to be looked at.
fn check(rows: &[Row], dimension: usize) -> Built {
    let built = build(rows, dimension);
    let (objects, named) = (objects(&built), &built.segment);
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).chain(["not there".to_owned()]).collect();
    let contents = read(&objects, named, &ids).unwrap();
    assert_eq!(contents.rows, rows);
    assert_eq!(contents.positions, rows.iter().map(|row| row.position).collect::<Vec<_>>());
    let numbers = 0..u32::try_from(rows.len()).unwrap();
    assert_eq!(contents.found, numbers.clone().map(Some).chain([None]).collect::<Vec<_>>());
    assert_eq!(contents.codes.len(), rows.len());

    let head = &objects[HEAD];
    let segment = Segment::open(head).unwrap();
    for number in numbers {
        assert!(segment.batch_of(number).rows.contains(&number));
    }
    let set_hash = rows.iter().fold(SetHash::default(), |sum, row| sum.with(row.view().hash()));
    assert_eq!((named.rows as usize, named.dimension as usize), (rows.len(), dimension));
    assert_eq!((segment.rows(), segment.dimension(), segment.set_hash()), (named.rows, dimension, set_hash));
    assert_eq!((named.set_hash, named.live_rows()), (set_hash, named.rows));
    assert_eq!(named.bytes, objects.values().map(|body| body.len() as u64).sum::<u64>());
    let besides_head = objects.iter().filter(|(name, _)| *name != HEAD);
    let mut told = segment.objects();
    told.sort();
    let expected = besides_head.map(|(name, body)| (name.clone(), body.len() as u64, xxh3_64(body)));
    assert_eq!(told, expected.collect::<Vec<_>>());
    built
}

/// How many objects have names that begin with this.
fn count(built: &Built, name: &str) -> usize {
    built.parts.iter().filter(|part| part.name.starts_with(name)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_built_reads_back(
        seed: u64,
        (count, dimension) in prop_oneof![(1..40_usize, 1..=300_usize), (1..3_000_usize, 1..20_usize)],
    ) {
        check(&rows(seed, count, dimension), dimension);
    }

    #[test]
    fn equal_rows_give_equal_bytes_whenever_parts_are_taken(seed: u64, count in 1..3_000_usize) {
        let rows = rows(seed, count, 40);
        let all = build(&rows, 40);
        let mut builder = Builder::new(40);
        let mut parts = Vec::new();
        for row in &rows {
            builder.push(&row.view());
            parts.append(&mut builder.take_parts());
        }
        let rest = builder.finish("prefix".to_owned());
        parts.extend(rest.parts);
        prop_assert_eq!(&rest.segment, &all.segment);
        let parts = parts.into_iter().map(|part| (part.name, part.body)).collect::<Objects>();
        prop_assert_eq!(parts, objects(&all));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_flipped_bit_is_noticed_or_changes_nothing(seed in 0..50_u64, at: prop::sample::Index, bit in 0..8_u8) {
        let rows = rows(seed, 5, 3);
        let built = build(&rows, 3);
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let mut objects = objects(&built);
        let sound = read(&objects, &built.segment, &ids).unwrap();
        let names: Vec<String> = objects.iter().flat_map(|(name, body)| vec![name.clone(); body.len().min(5_000)]).collect();
        let name = at.get(&names);
        let mut body = objects[name].to_vec();
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        objects.insert(name.clone(), body.into());
        match read(&objects, &built.segment, &ids) {
            Err(_) => {}
            // An Arrow file says what it holds once more at its start and at its end, for others.
            Ok(contents) => {
                prop_assert!(name.starts_with("rows"), "byte {} of {}", at, name);
                prop_assert_eq!(contents, sound);
            }
        }
    }
}

#[test]
fn one_row_is_a_segment() {
    let built = check(&rows(1, 1, 1), 1);
    assert_eq!(built.parts.len(), 3);
}

#[test]
fn many_rows_are_several_batches_and_parts_and_pages_of_ids() {
    let built = check(&rows(1, 1_500, 300), 300);
    assert!(count(&built, "rows-") > 3 && count(&built, "codes-") > 3);
    let built = check(&rows(2, 3_000, 1), 1);
    let segment = Segment::open(&objects(&built)[HEAD]).unwrap();
    assert!(segment.batches() > 5, "small rows are not too many for a batch");
}

#[test]
fn a_large_row_is_a_batch_of_its_own() {
    let mut rows = rows(1, 5, 2);
    rows[2].document = Some("x".repeat(1 << 20));
    let built = check(&rows, 2);
    assert_eq!(count(&built, "rows-"), 2);
}

#[test]
fn no_rows_are_a_segment_too() {
    let built = check(&[], 3);
    assert_eq!(built.parts.len(), 1);
}

#[test]
fn a_head_that_ends_early_is_an_error() {
    let built = build(&rows(1, 5, 2), 2);
    let head = &objects(&built)[HEAD];
    for length in 0..built.segment.head_bytes as usize {
        assert!(Segment::open(&head[..length]).is_err(), "{length} bytes were accepted");
    }
}

#[test]
fn a_batch_is_read_as_itself_only() {
    let built = build(&rows(1, 1_200, 2), 2);
    let objects = objects(&built);
    let segment = Segment::open(&objects[HEAD]).unwrap();
    let (first, second) = (segment.batch(0), segment.batch(1));
    let bytes = |place: &BatchPlace| get(&objects, &place.part, &place.range).unwrap();
    assert!(segment.decode_batch(&first, bytes(&first)).is_ok());
    assert!(segment.decode_batch(&second, bytes(&first)).is_err());
    assert!(segment.decode_batch(&first, &bytes(&first)[1..]).is_err());
}

#[test]
fn a_head_with_other_rows_than_its_batches_is_an_error() {
    let built = build(&rows(1, 5, 2), 2);
    let body = &objects(&built)[HEAD];
    let with_rows = |rows: u32| {
        let head = Head { rows, ..Head::decode(body).unwrap() }.encode();
        Segment::open(&[&head[..], &body[head.len()..]].concat()).map(|segment| segment.rows())
    };
    assert_eq!(with_rows(5), Ok(5));
    assert!(with_rows(6).is_err() && with_rows(4).is_err() && with_rows(0).is_err());
}

/// The rows of the golden files.
fn golden_rows() -> Vec<Row> {
    let row = |position: u64, id: &str, vector: [f32; 3]| Row {
        position: Position(position),
        id: id.to_owned(),
        vector: vector.to_vec(),
        document: None,
        uri: None,
        metadata: None,
    };
    vec![
        Row {
            document: Some("hello".to_owned()),
            uri: Some("file:///a".to_owned()),
            metadata: Some(r#"{"f":1.0,"n":1}"#.to_owned()),
            ..row(0, "a", [1.0, -2.5, 0.25])
        },
        Row { document: Some(String::new()), ..row(1, "ä", [0.0, 0.0, 0.0]) },
        Row { metadata: Some(r#"{"s":"x"}"#.to_owned()), ..row(1 << 20, "c", [1e-3, 2e10, -3.0]) },
        row((1 << 20) + 300, "", [0.1, 0.2, 0.3]),
    ]
}

/// What the first version has written must be readable for ever.
#[test]
fn golden_segment_reads_as_written() {
    let golden = |name: &str| {
        let path = format!("{}/testdata/v1/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("the golden files are part of the source")
    };
    let dead: DeleteVector = [1, 3].into_iter().collect();
    let mut built = check(&golden_rows(), 3);
    built.segment.dead = Some(DeleteVectorRef { count: 2, place: DeleteVectorPlace::Inline(dead.encode_inline()) });
    let mut written = objects(&built);
    written.insert("delete-vector".to_owned(), dead.encode());
    written.insert("segment.json".to_owned(), serde_json::to_string_pretty(&built.segment).unwrap().into());
    let as_golden: Objects = written.keys().map(|name| (name.clone(), golden(name).into())).collect();
    assert!(written == as_golden, "the format changed: see docs/formats.md");

    let named: SegmentRef = serde_json::from_slice(&as_golden["segment.json"]).unwrap();
    let ids = ["a", "ä", "c", "", "b"].map(str::to_owned);
    let contents = read(&as_golden, &named, &ids).unwrap();
    assert_eq!(contents.rows, golden_rows());
    assert_eq!(contents.found, [Some(0), Some(1), Some(2), Some(3), None]);
    assert_eq!(DeleteVector::decode(&as_golden["delete-vector"], &named), Ok(dead.clone()));
    let Some(DeleteVectorRef { place: DeleteVectorPlace::Inline(text), .. }) = &named.dead else { panic!("{named:?}") };
    assert_eq!(DeleteVector::decode_inline(text, &named), Ok(dead));
}
