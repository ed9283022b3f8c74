//! How many reads things take, and what is said of objects that are missing or damaged. That the answers are right, whatever
//! is compacted when, is what the equivalence of compactions in `tests/simulation` shows.

use super::*;
use crate::layer::Questions;
use futures_util::FutureExt;
use model::{DeleteVectorRef, Manifest};
use runtime::{ManualRuntime, Runtime, SimulatedRuntime};
use segment::{Builder, row::Row};
use std::rc::Rc;
use storage::{Fate, Fault, Faulty, MemoryStore, OperationKind, PutMode};

const DIMENSION: usize = 2;
/// So many rows fill two batches and a half, as each takes more than a kilobyte.
const ROWS: u32 = 150;

struct Bucket<R> {
    store: Faulty<MemoryStore, R>,
    blocks: RefCell<Blocks>,
    manifest: Manifest,
}

/// Row number `row` of segment number `segment`.
fn row(segment: u32, row: u32) -> Row {
    Row {
        position: Position(u64::from(row * 10 + segment)),
        id: id(segment, row),
        vector: vec![1.0; DIMENSION],
        document: Some("x".repeat(1_100)),
        uri: None,
        metadata: None,
    }
}

fn id(segment: u32, row: u32) -> String {
    format!("{segment}/{row}")
}

impl<R: Runtime> Bucket<R> {
    /// Segments of so many rows; all of their rows with numbers in `dead` are dead.
    async fn with(runtime: R, segments: &[u32], dead: &[u32]) -> Self {
        let store = Faulty::new(MemoryStore::default(), runtime);
        let mut bucket = Bucket { store, blocks: RefCell::default(), manifest: Manifest::default() };
        for (number, rows) in (0..).zip(segments) {
            let mut builder = Builder::new(DIMENSION);
            (0..*rows).for_each(|at| builder.push(&row(number, at).view()));
            let built = builder.finish(format!("segment-{number}"));
            let mut named = built.segment;
            for part in built.parts {
                bucket.put(&format!("{}/{}", named.prefix, part.name), part.body).await;
            }
            if !dead.is_empty() {
                let vector: DeleteVector = dead.iter().copied().collect();
                let key = format!("dead-{number}");
                bucket.put(&key, vector.encode()).await;
                named.dead = Some(DeleteVectorRef { count: vector.len(), place: DeleteVectorPlace::Object(key) });
            }
            bucket.manifest.segments.push(named);
        }
        bucket.store.reset_counts();
        bucket
    }

    async fn put(&self, key: &str, body: Bytes) {
        self.store.store().put(key, body, PutMode::Overwrite).await.expect("memory takes anything");
    }

    fn base(&self) -> Base {
        Base::new(self.manifest.clone(), None)
    }

    fn reader(&self) -> StoredReader<'_, Faulty<MemoryStore, R>> {
        StoredReader { store: &self.store, blocks: &self.blocks, room: &usize::MAX, tally: None }
    }

    /// How many reads there were since this was asked last.
    fn reads(&self) -> u64 {
        let reads = self.store.counts().total();
        self.store.reset_counts();
        reads
    }
}

fn bucket(segments: &[u32], dead: &[u32]) -> Bucket<ManualRuntime> {
    now(Bucket::with(ManualRuntime::default(), segments, dead))
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing waits")
}

fn place(segment: u32, row: u32) -> Place {
    Place { segment, row }
}

/// The ids of the rows at `places`.
fn visited<R: Runtime>(bucket: &Bucket<R>, base: &Base, places: &[Place]) -> Result<Vec<String>, StoredError> {
    let mut ids = Vec::new();
    now(bucket.reader().visit(base, places, &Slots::new(), |_, row: &RowView<'_>| {
        ids.push(row.id.to_owned());
        Ok::<(), StoredError>(())
    }))?;
    Ok(ids)
}

#[test]
fn opening_takes_a_get_for_each_segment_and_nothing_the_second_time() {
    let bucket = bucket(&[ROWS, 1, 5], &[]);
    let base = bucket.base();
    now(bucket.reader().open(&base)).unwrap();
    assert_eq!(bucket.reads(), 3);
    now(bucket.reader().open(&base)).unwrap();
    assert_eq!(bucket.reads(), 0);
    // The next generation shares what it still names.
    let next = Base::new(bucket.manifest.clone(), Some(&base));
    now(bucket.reader().open(&next)).unwrap();
    assert_eq!(bucket.reads(), 0);
}

#[test]
fn a_delete_vector_takes_one_get_more_unless_it_is_in_the_manifest() {
    let mut bucket = bucket(&[ROWS, 30], &[3, 17]);
    let base = bucket.base();
    now(bucket.reader().open(&base)).unwrap();
    assert_eq!(bucket.reads(), 4);
    assert!(base.is_live(place(0, 4)) && !base.is_live(place(1, 17)));

    let vector: DeleteVector = [3, 4].into_iter().collect();
    for segment in &mut bucket.manifest.segments {
        let place = DeleteVectorPlace::Inline(vector.encode_inline());
        segment.dead = Some(DeleteVectorRef { count: 2, place });
    }
    let base = bucket.base();
    now(bucket.reader().open(&base)).unwrap();
    assert_eq!(bucket.reads(), 0, "heads are kept");
    assert!(!base.is_live(place(0, 4)) && base.is_live(place(1, 17)));
}

#[test]
fn locating_few_ids_takes_a_get_for_each_segment() {
    let bucket = bucket(&[ROWS, 30], &[3]);
    let base = bucket.base();
    now(bucket.reader().open(&base)).unwrap();
    bucket.reads();
    let wanted = [id(0, 7), id(1, 8), id(0, 3), "not there".to_owned()];
    let ids: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let found = now(bucket.reader().locate(&base, &ids)).unwrap();
    assert_eq!(found, HashMap::from([(id(0, 7), place(0, 7)), (id(1, 8), place(1, 8))]));
    assert_eq!(bucket.reads(), 2);
    now(bucket.reader().locate(&base, &ids)).unwrap();
    assert_eq!(bucket.reads(), 0, "what was read is kept");
}

#[test]
fn many_ids_are_looked_up_where_the_filter_says_they_may_be() {
    let bucket = bucket(&[ROWS, ROWS, 30], &[]);
    let base = bucket.base();
    now(bucket.reader().open(&base)).unwrap();
    bucket.reads();
    let wanted: Vec<String> = (0..30).map(|row| id(1, row)).collect();
    let ids: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let found = now(bucket.reader().locate(&base, &ids)).unwrap();
    assert_eq!(found.len(), 30);
    assert_eq!(bucket.reads(), 3 + 1, "three filters and one index");
    let absent: Vec<String> = (0..30).map(|row| id(7, row)).collect();
    let ids: Vec<&str> = absent.iter().map(String::as_str).collect();
    assert_eq!(now(bucket.reader().locate(&base, &ids)), Ok(HashMap::new()));
    assert_eq!(bucket.reads(), 0);
}

/// A cold reader does not wait for heads before it asks for what the manifest tells it the place of.
#[test]
fn ids_are_located_in_one_wave_with_the_heads() {
    let world = SimulatedRuntime::new(1);
    let runtime = world.clone();
    let took_ms = Rc::new(RefCell::new(None));
    let took = took_ms.clone();
    world.spawn(async move {
        let bucket = Bucket::with(runtime.clone(), &[ROWS, 30], &[]).await;
        bucket.store.fates(|_, _| Fate { there_ms: 10, ..Fate::default() });
        let (base, begun) = (bucket.base(), runtime.now());
        let found = bucket.reader().locate(&base, &[&id(1, 8)]).await.unwrap();
        assert_eq!(found, HashMap::from([(id(1, 8), place(1, 8))]));
        *took.borrow_mut() = Some((runtime.now().ms_since(begun), bucket.reads()));
    });
    assert!(world.run(10_000));
    // Of small segments heads and ids lie so close together that one get brings both.
    assert_eq!(took_ms.take(), Some((10, 2)));
}

/// Heads and delete vectors.
#[test]
fn segments_are_opened_in_one_wave() {
    let world = SimulatedRuntime::new(1);
    let runtime = world.clone();
    let took_ms = Rc::new(RefCell::new(None));
    let took = took_ms.clone();
    world.spawn(async move {
        let bucket = Bucket::with(runtime.clone(), &[ROWS, 30, 20, 40], &[7]).await;
        bucket.store.fates(|_, _| Fate { there_ms: 10, ..Fate::default() });
        let (base, begun) = (bucket.base(), runtime.now());
        bucket.reader().open(&base).await.unwrap();
        *took.borrow_mut() = Some((runtime.now().ms_since(begun), bucket.reads()));
    });
    assert!(world.run(10_000));
    assert_eq!(took_ms.take(), Some((10, 8)));
}

#[test]
fn rows_by_place_take_a_get_for_each_run_of_batches() {
    let bucket = bucket(&[ROWS * 4, 5], &[]);
    let base = bucket.base();
    now(bucket.reader().open(&base)).unwrap();
    bucket.reads();
    let head = base.segments[0].head();
    let far = head.batch(6).rows.start;
    assert!(head.batch(6).range.start - head.batch(1).range.end > 64 * 1024);
    for (rows, reads, case) in [
        (vec![place(0, 0)], 1, "one row"),
        (vec![place(0, 1), place(0, 2)], 1, "rows of the same batch"),
        (vec![place(0, 0), place(0, 2)], 0, "rows that are kept"),
        (vec![place(0, 0), place(0, ROWS / 2), place(1, 4)], 2, "the next batch, and another segment"),
        (vec![place(0, 3), place(0, far), place(0, far + 1)], 2, "a batch far off"),
        (vec![], 0, "nothing"),
    ] {
        let expected: Vec<String> = rows.iter().map(|at| id(at.segment, at.row)).collect();
        assert_eq!(visited(&bucket, &base, &rows).unwrap(), expected, "{case}");
        assert_eq!(bucket.reads(), reads, "{case}");
    }

    let bucket = Bucket { blocks: RefCell::default(), ..bucket };
    let all: Vec<Place> = (0..ROWS * 4).map(|row| place(0, row)).collect();
    assert_eq!(visited(&bucket, &base, &all).unwrap().len(), all.len());
    assert_eq!(bucket.reads(), 1, "neighbours are read together");
}

/// A damaged head may name any stretch, and stores refuse to be asked for nothing.
#[test]
fn stretches_that_no_object_has_are_nothing_or_missing() {
    let bucket = bucket(&[5], &[]);
    let fetch = |range| now(bucket.reader().read(&[Block { key: "segment-0/head".to_owned(), range }]));
    assert_eq!(fetch(7..7), Ok(vec![Bytes::new()]));
    assert!(matches!(fetch(u64::MAX - 1..u64::MAX), Err(StoredError::Missing(_))));
    assert!(matches!(fetch(0..u64::MAX), Err(StoredError::Missing(_))));
}

#[test]
fn positions_take_a_get_for_each_segment_once() {
    let bucket = bucket(&[20, 30], &[3]);
    let base = bucket.base();
    now(bucket.reader().open(&base)).unwrap();
    bucket.reads();
    now(bucket.reader().read_positions(&base)).unwrap();
    now(bucket.reader().read_positions(&base)).unwrap();
    assert_eq!(bucket.reads(), 2);
    let live = |segment: u32, rows: u32| (0..rows).filter(|at| *at != 3).map(move |at| place(segment, at));
    let mut expected: Vec<(Position, Place)> =
        live(0, 20).chain(live(1, 30)).map(|at| (row(at.segment, at.row).position, at)).collect();
    expected.sort();
    assert_eq!(base.in_order().collect::<Vec<_>>(), expected);
    let (mut scan, mut scanned) = (RowScan::new(&base), Vec::new());
    while let Some(at) = now(scan.next(&bucket.reader())).unwrap() {
        scanned.push((scan.row().position, at));
    }
    assert_eq!(scanned, expected);
}

/// Reads everything there is of a bucket with one segment, by a reader that has read nothing before.
fn read_all(bucket: &Bucket<ManualRuntime>) -> Result<(), StoredError> {
    bucket.blocks.borrow_mut().fit(0);
    let (base, reader) = (bucket.base(), bucket.reader());
    let known = now(reader.locate(&base, &[&id(0, 7)]))?;
    assert_eq!(known, HashMap::from([(id(0, 7), place(0, 7))]));
    let many: Vec<String> = (0..20).map(|row| id(0, row)).collect();
    let questions: Questions = many.iter().map(|id| (id.clone(), true)).collect();
    assert_eq!(now(reader.facts(&base, &questions))?.len(), 19, "row 3 is dead");
    now(reader.read_positions(&base))?;
    let mut scan = RowScan::new(&base);
    while now(scan.next(&reader))?.is_some() {}
    let (codes, rows) = segment::codes_place(&bucket.manifest.segments[0], 0);
    let body = now(reader.read(&[base.segments[0].block(&codes.part, codes.range)]))?;
    let open = &base.segments[0];
    open.head().check_codes(0, &body[0]).map_err(|error| open.damaged(&error))?;
    assert_eq!(rows, 0..ROWS);
    Ok(())
}

#[test]
fn an_object_that_is_not_there_or_too_short_is_missing_and_named() {
    let sound = bucket(&[ROWS], &[3]);
    assert_eq!(read_all(&sound), Ok(()));
    for key in ["segment-0/head", "segment-0/rows-0000.arrow", "segment-0/codes-0000", "dead-0"] {
        let bucket = bucket(&[ROWS], &[3]);
        let store = bucket.store.store();
        let body = now(store.get(key)).unwrap().unwrap();
        now(store.delete(key)).unwrap();
        let is_missing = |outcome| matches!(outcome, Err(StoredError::Missing(why)) if why.contains(key));
        assert!(is_missing(read_all(&bucket)), "{key}");
        // A delete vector is read whole, whatever its length: it is damaged then.
        if key != "dead-0" {
            now(bucket.put(key, body.slice(..body.len() / 3)));
            assert!(is_missing(read_all(&bucket)), "a third of {key}");
        }
        now(bucket.put(key, body));
        assert_eq!(read_all(&bucket), Ok(()), "{key} again");
    }
}

#[test]
fn damage_is_named_by_the_prefix_of_its_segment() {
    let sound = bucket(&[ROWS], &[3]);
    let base = sound.base();
    now(sound.reader().open(&base)).unwrap();
    let head = base.segments[0].head();
    let start = |place: segment::Place| (place.part, place.range.start);
    let places = [
        ("the head", ("head".to_owned(), 13)),
        ("the directory of batches", ("head".to_owned(), u64::from(sound.manifest.segments[0].head_bytes) - 1)),
        ("positions", start(head.positions_place().unwrap())),
        ("the filter", start(head.filter_place().unwrap())),
        ("the id index", ("head".to_owned(), sound.manifest.segments[0].ids_at + 3)),
        ("rows", (head.batch(1).part, head.batch(1).range.start + 500)),
        ("codes", ("codes-0000".to_owned(), 77)),
    ];
    let in_segment = places.map(|(case, (part, at))| (case, format!("segment-0/{part}"), at));
    for (case, key, at) in in_segment.into_iter().chain([("the delete vector", "dead-0".to_owned(), 3)]) {
        let bucket = bucket(&[ROWS], &[3]);
        let mut body = now(bucket.store.store().get(&key)).unwrap().unwrap().to_vec();
        body[usize::try_from(at).unwrap()] ^= 4;
        now(bucket.put(&key, body.into()));
        let outcome = read_all(&bucket);
        let is_named = matches!(&outcome, Err(StoredError::Corrupt(why)) if why.contains("segment-0"));
        assert!(is_named, "{case}: {outcome:?}");
    }
}

#[test]
fn what_the_manifest_says_must_be_what_the_head_says() {
    type Change = fn(&mut SegmentRef);
    let changes: [(&str, Change); 5] = [
        ("rows", |segment| segment.rows += 1),
        ("dimension", |segment| segment.dimension += 1),
        ("set-hash", |segment| segment.set_hash = segment.set_hash.with(1)),
        ("the size of the head", |segment| segment.head_bytes -= 1),
        ("dead rows", |segment| {
            segment.dead.as_mut().unwrap().count += 1;
        }),
    ];
    for (case, change) in changes {
        let mut bucket = bucket(&[ROWS], &[3]);
        change(&mut bucket.manifest.segments[0]);
        let outcome = now(bucket.reader().open(&bucket.base()));
        let is_named = matches!(&outcome, Err(StoredError::Corrupt(why)) if why.contains("segment-0"));
        assert!(is_named, "{case}: {outcome:?}");
    }
}

#[test]
fn a_store_that_does_not_answer_is_no_damage() {
    let bucket = bucket(&[ROWS], &[3]);
    for kind in [OperationKind::GetRange, OperationKind::Get] {
        bucket.store.inject(kind, Fault::Refused);
        assert!(matches!(read_all(&bucket), Err(StoredError::Unavailable(_))));
        assert_eq!(read_all(&bucket), Ok(()));
    }
}
