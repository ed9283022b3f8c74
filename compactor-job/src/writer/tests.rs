//! A segment has the text index that it should have, the same with any number of threads; whatever becomes of it is noticed.

use super::*;
use crate::compact::Stats;
use crate::indexing::Indexing;
use crate::spill::Scratch;
use crate::testing::new_collection;
use crate::tiers::SEGMENTS_MAX;
use crate::verify;
use bytes::Bytes;
use catalog::{MemoryCatalog, PublishFrom};
use model::{CollectionId, Manifest, Position, Words};
use roaring::RoaringBitmap;
use runtime::ManualRuntime;
use segment::TextHead;
use segment::row::Row;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use storage::{MemoryStore, Observed, PutMode, Reads};
use stored::{Base, Place, StoredReader, WordIndexes};
use text::{Keywords, TextIndex};

const ID: CollectionId = CollectionId::from_u128(7);

struct World {
    store: MemoryStore,
    catalog: MemoryCatalog,
    runtime: ManualRuntime,
}

impl World {
    async fn new() -> World {
        let runtime = ManualRuntime::default();
        let clock = runtime.clone();
        let catalog = MemoryCatalog::with_clock(move || clock.now());
        catalog.create_collection(new_collection(ID)).await.unwrap();
        World { store: MemoryStore::default(), catalog, runtime }
    }

    async fn write(&self, rows: &[Row], indexing: Indexing) -> Result<SegmentRef, CompactError> {
        let compactor = Compactor {
            store: &self.store,
            catalog: &self.catalog,
            runtime: &self.runtime,
            memory_bytes: 1 << 20,
            scratch: Scratch { directory: std::env::temp_dir(), memory_bytes: 1 << 20 },
            indexing,
            segments_max: SEGMENTS_MAX,
            is_stopped: &|| false,
            stats: Stats::default(),
        };
        let row = self.catalog.get_collection_by_id(ID).await.unwrap();
        let mut writer = compactor.writer(&row, 2, rows.len() as u64);
        for row in rows {
            compactor.push(&mut writer, &row.view()).await?;
        }
        compactor.finish(writer, None).await
    }

    /// Makes `segment` all that the collection has.
    async fn publish(&self, segment: &SegmentRef) {
        let (records, set_hash) = (u64::from(segment.rows), segment.set_hash);
        let manifest = Manifest { records, set_hash, segments: vec![segment.clone()], ..Manifest::default() };
        let row = self.catalog.get_collection_by_id(ID).await.unwrap();
        let from = PublishFrom { generation: row.generation, gc_epoch: row.gc_epoch };
        assert!(self.catalog.publish(ID, from, &manifest).await.unwrap());
    }

    /// What is wrong with what is published.
    async fn broken(&self) -> Vec<String> {
        let reports = verify::collections(&self.store, &self.catalog, None, 1 << 30).await.unwrap();
        reports.into_iter().flat_map(|report| report.broken).collect()
    }

    async fn put(&self, key: &str, body: impl Into<Bytes>) {
        self.store.put(key, body.into(), PutMode::Overwrite).await.unwrap();
    }

    /// All objects by their names within the segment.
    async fn objects(&self, segment: &SegmentRef) -> BTreeMap<String, Bytes> {
        let mut objects = BTreeMap::new();
        for key in self.store.list(&segment.prefix, None).await.unwrap() {
            let body = self.store.get(&key).await.unwrap().unwrap();
            objects.insert(key[segment.prefix.len() + 1..].to_owned(), body);
        }
        objects
    }
}

/// Rows with a document of `words` words, or with metadata, or with both.
fn rows(count: u64, words: u64) -> Vec<Row> {
    let word = |row: u64, at: u64| format!("{:x} ", (row * 977 + at).wrapping_mul(0x9e37_79b9) % 5_000);
    let row = |number: u64| Row {
        position: Position(number),
        id: format!("id {number}"),
        vector: vec![number as f32, 1.0],
        document: (!number.is_multiple_of(3)).then(|| (0..words).map(|at| word(number, at)).collect()),
        uri: number.is_multiple_of(7).then(|| format!("file://{number}")),
        metadata: (number % 3 < 2).then(|| format!(r#"{{"number":{number},"parity":"{}"}}"#, number % 2)),
    };
    (0..count).map(row).collect()
}

fn always(threads: usize) -> Indexing {
    Indexing { text_from_bytes: 0, ..Indexing::on(threads) }
}

#[tokio::test]
async fn a_text_index_is_of_all_rows_and_the_same_with_any_number_of_threads() {
    let rows = rows(2_500, 250);
    let mut written = Vec::new();
    for threads in [1, 2] {
        let world = World::new().await;
        let segment = world.write(&rows, always(threads)).await.unwrap();
        let objects = world.objects(&segment).await;
        assert_eq!(segment.bytes, objects.values().map(|body| body.len() as u64).sum::<u64>());
        written.push((segment.text, objects));
    }
    assert!(written[0] == written[1], "threads change what is written");

    let (named, objects) = written.remove(0);
    let text = &objects["text"];
    assert_eq!(named, Some(TextRef { bytes: u32::try_from(text.len()).unwrap() }));
    let head = TextHead::open(text).unwrap();
    assert!(head.objects().len() > 1, "rows of more than one part");
    let open = |place: std::ops::Range<usize>| TextIndex::open(&text[place]).unwrap();
    let runs = head.hotcache_places().into_iter().flat_map(|place| open(place).rows());
    assert!(runs.eq(0..2_500));
}

#[tokio::test]
async fn a_segment_has_a_text_index_if_its_rows_are_more_than_one_get() {
    let (world, rows) = (World::new().await, rows(10, 3));
    let bytes: usize = rows.iter().map(|row| row.view().bytes()).sum();
    for (text_from_bytes, expect) in [(bytes, true), (bytes + 1, false)] {
        let indexing = Indexing { text_from_bytes: text_from_bytes as u64, ..Indexing::on(1) };
        let segment = world.write(&rows, indexing).await.unwrap();
        let objects = world.objects(&segment).await;
        assert_eq!((segment.text.is_some(), objects.contains_key("text")), (expect, expect));
        world.store.delete(&format!("{}/text", segment.prefix)).await.unwrap();
        world.store.delete(&format!("{}/terms-0000", segment.prefix)).await.unwrap();
    }
}

#[tokio::test]
async fn metadata_that_is_none_is_damage() {
    let mut rows = rows(1, 1);
    rows[0].metadata = Some("{".to_owned());
    for threads in [1, 2] {
        let written = World::new().await.write(&rows, always(threads)).await;
        assert!(matches!(written, Err(CompactError::Broken(_))), "{written:?}");
    }
}

/// Bits all over its objects are flipped.
#[tokio::test]
async fn verify_finds_a_text_index_that_is_not_what_was_written() {
    let world = World::new().await;
    let segment = world.write(&rows(30, 5), always(1)).await.unwrap();
    world.publish(&segment).await;
    assert_eq!(world.broken().await, [""; 0]);
    for (name, body) in world.objects(&segment).await {
        if name != "text" && name != "terms-0000" {
            continue;
        }
        let key = format!("{}/{name}", segment.prefix);
        for at in (0..body.len()).step_by(1 + body.len() / 500) {
            let mut damaged = body.to_vec();
            damaged[at] ^= 1 << (at % 8);
            world.put(&key, damaged).await;
            assert_ne!(world.broken().await, [""; 0], "byte {at} of {name}");
        }
        world.put(&key, body).await;
    }
    assert_eq!(world.broken().await, [""; 0]);
}

#[tokio::test]
async fn verify_finds_the_text_index_of_other_rows() {
    let world = World::new().await;
    let other = world.write(&rows(29, 5), always(1)).await.unwrap();
    let of_others = world.objects(&other).await;
    for name in of_others.keys() {
        world.store.delete(&format!("{}/{name}", other.prefix)).await.unwrap();
    }
    let segment = world.write(&rows(30, 5), always(1)).await.unwrap();
    for name in ["text", "terms-0000"] {
        world.put(&format!("{}/{name}", segment.prefix), of_others[name].clone()).await;
    }
    world.publish(&SegmentRef { text: other.text, ..segment.clone() }).await;
    assert_eq!(world.broken().await, [format!("{} has the text index of another segment", segment.prefix)]);
}

impl World {
    /// A segment of `rows` with indexed words, if `words`. (By itself each would have the same name.)
    async fn write_as(&self, name: &str, rows: &[Row], words: Option<Words>) -> SegmentRef {
        let segment = self.write(rows, Indexing { words, ..always(1) }).await.unwrap();
        for (object, body) in self.objects(&segment).await {
            self.put(&format!("{name}/{object}"), body).await;
            self.store.delete(&format!("{}/{object}", segment.prefix)).await.unwrap();
        }
        SegmentRef { prefix: name.to_owned(), ..segment }
    }

    /// The best five rows of `segments` for `text`, of those that `is_among` names, in how many waves they were found, and which
    /// segments are not indexed.
    async fn rank(&self, segments: &[SegmentRef], text: &str, is_among: fn(Place) -> bool) -> (Ranked, u32, Vec<u32>) {
        let reads = Rc::<Reads>::default();
        let store = Observed::new(self.store.clone(), Rc::clone(&reads));
        let base = Base::new(Manifest { segments: segments.to_vec(), ..Manifest::default() }, None);
        let stored = StoredReader { store: &store, blocks: &RefCell::default(), room: &0, tally: None };
        stored.open_texts(&base).await.unwrap();
        let rows = |number: u32| (0..segments[number as usize].rows).map(move |row| Place { segment: number, row });
        let among = |number: u32| rows(number).filter(|place| is_among(*place)).map(|place| place.row);
        let among: Vec<RoaringBitmap> = (0..).zip(segments).map(|(number, _)| among(number).collect()).collect();
        let keywords = Keywords::new(text, Words::default());
        let words = WordIndexes::new(&base, &keywords);
        let all = stored.word_statistics(&words).await.unwrap();
        let ranked = stored.best(&words, 5, &all, &among).await.unwrap();
        (ranked, reads.answered().iter().map(|read| read.wave).max().unwrap_or(0), words.unindexed)
    }
}

/// Rows and their scores.
type Ranked = Vec<(Place, f32)>;

/// How rows are divided into segments makes no difference to scores, and three waves find them.
#[tokio::test]
async fn the_best_documents_are_those_of_all_segments() {
    let (world, mut rows) = (World::new().await, rows(300, 20));
    for (row, more) in rows.iter_mut().zip(["oak", "oak oak ash", "", "elm"].into_iter().cycle()) {
        row.document = row.document.take().map(|text| text + more);
    }
    let words = Some(Words::default());
    let whole = [world.write_as("whole", &rows, words).await];
    let halves =
        [world.write_as("first", &rows[..100], words).await, world.write_as("second", &rows[100..], words).await];
    let all: fn(Place) -> bool = |_| true;
    for text in ["oak", "Ash and elm", "oak ash elm oak", "nowhere", ""] {
        let (of_whole, waves, unindexed) = world.rank(&whole, text, all).await;
        assert!(waves <= 3 && unindexed.is_empty(), "{text}: {waves} waves");
        let (of_halves, waves, _) = world.rank(&halves, text, all).await;
        assert!(waves <= 3, "{text}: {waves} waves");
        let in_whole = |(place, score): &(Place, f32)| (place.row + 100 * place.segment, *score);
        let rows = |ranked: &Ranked| ranked.iter().map(in_whole).collect::<Vec<_>>();
        assert_eq!(rows(&of_whole), rows(&of_halves), "{text}");
        assert_eq!(of_whole.is_empty(), !text.to_lowercase().contains(['o', 'e']) || text == "nowhere", "{text}");
        assert!(of_whole.is_sorted_by(|a, b| a.1 >= b.1), "{text}: {of_whole:?}");
    }
    let (few, ..) = world.rank(&halves, "oak", |place| place.segment == 1 && place.row < 8).await;
    assert!(few.len() < 5 && few.iter().all(|(place, _)| place.segment == 1 && place.row < 8), "{few:?}");

    let without = world.write_as("without", &rows[..30], None).await;
    let (ranked, _, unindexed) = world.rank(&[without, halves[1].clone()], "oak", all).await;
    assert_eq!(unindexed, [0]);
    assert!(ranked.iter().all(|(place, _)| place.segment == 1));
}
