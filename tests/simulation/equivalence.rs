//! Whatever is compacted, merged, rebuilt and collected, and whenever: reads answer exactly as a plain list of records, at
//! every read level as far as it promises; and what is stored is what the manifest says.
//!
//! Random operations and reads (few ids, so that they meet), with compactions, merges and garbage collection at random
//! points in between; executors that are warm, that are cold, and that know an old row.

use catalog::{Catalog, Maintenance, MemoryCatalog, NewCollection};
use compactor_job::compact::{Compactor, Stats};
use compactor_job::gc::{Effect, Gc, GcSettings};
use compactor_job::indexing::Indexing;
use compactor_job::journal::Stop;
use compactor_job::spill::Scratch;
use compactor_job::tiers::SEGMENTS_MAX;
use compactor_job::verify;
use compactor_job::work::Compact;
use executor_worker::{Executor, Tally, cache::Cache};
use futures_util::FutureExt;
use model::{
    CollectionId, CollectionRow, Configuration, Language, Operation, OperationKind, RecordId, Space, Timestamp, Words,
    limits,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use query::kernel::Measure;
use query::testing::{self, DIMENSION, Plain};
use query::{Hit, Include, PlanError, QueryPlan, Read, ReadLevel, Source};
use runtime::Runtime;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use storage::MemoryStore;
use wal::{RefreshError, RowSource, RowView, Writer};

const ID: CollectionId = CollectionId::from_u128(7);

/// A clock that goes on when it is told, and numbers that never repeat.
#[derive(Clone, Default)]
struct World {
    now_ms: Rc<Cell<u64>>,
    drawn: Rc<Cell<u128>>,
}

impl Runtime for World {
    fn now(&self) -> Timestamp {
        Timestamp(self.now_ms.get())
    }

    fn random(&self) -> u128 {
        self.drawn.set(self.drawn.get() + 1);
        self.drawn.get()
    }

    async fn sleep(&self, ms: u64) {
        self.now_ms.set(self.now_ms.get() + ms);
    }
}

/// Leaves of few rows, so that the few there are fill some, and merges keep, split and dissolve them.
const INDEXING: Indexing = Indexing { from_bytes: 0, text_from_bytes: 0, words: None, leaf_rows: 2, threads: 1 };

/// One of the things that happen to a collection.
#[derive(Clone, Debug)]
enum Event {
    /// A request is written.
    Write(Vec<Operation>),
    /// A large request: its rows fill several batches.
    WriteLarge(Vec<Operation>),
    /// The compactor has so many bytes of memory, and segments get a leaf index from so many bytes of codes on, and a text index
    /// from so many bytes of rows, perhaps with words.
    Compact(usize, u64, Option<Words>),
    /// Everything that is older than so many ms is collected; D has passed.
    Collect(u64),
    /// A read, with the row as it was so many events ago, by a warm executor or a cold one.
    Read(Read, usize, bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => vec(testing::operation(), 1..6).prop_map(Event::Write),
        1 => vec(testing::operation(), 1..12).prop_map(Event::WriteLarge),
        3 => (select(vec![1_usize, 4_000, 1 << 30]), select(vec![0, 100, u64::MAX]), words())
            .prop_map(|(memory_bytes, from_bytes, words)| Event::Compact(memory_bytes, from_bytes, words)),
        1 => select(vec![0_u64, 60_000]).prop_map(Event::Collect),
        8 => (testing::read(), 0usize..4, any::<bool>()).prop_map(|(read, age, cold)| Event::Read(read, age, cold)),
        2 => (testing::rank(), 0usize..4, any::<bool>()).prop_map(|(read, age, cold)| Event::Read(read, age, cold)),
    ]
}

/// None, those of ranks, or others.
fn words() -> impl Strategy<Value = Option<Words>> {
    let stemmed = Words { stem: Some(Language::English), stop_words: None };
    select(vec![None, Some(Words::default()), Some(stemmed)])
}

struct Collection {
    world: World,
    store: MemoryStore,
    catalog: MemoryCatalog,
    warm: Cache,
    plain: Plain,
    /// What was compacted last, with the row that says so.
    rows: Vec<CollectionRow>,
    compacted: Plain,
    /// Merges whose leaf index went on from another.
    kept_indexes: u64,
}

/// The row as it is now.
struct Rows<'a>(&'a Collection);

impl RowSource for Rows<'_> {
    async fn refresh(&self) -> Result<RowView, RefreshError> {
        let row = self.0.row().await;
        let requested_at = self.0.world.now();
        Ok(RowView { gc_floor: row.gc_floor, compacted: row.manifest.compacted, requested_at })
    }
}

impl Collection {
    async fn new(space: Space, dimension: u32) -> Self {
        let world = World::default();
        let clock = world.clone();
        let catalog = MemoryCatalog::with_clock(move || clock.now());
        let new = NewCollection {
            id: ID,
            tenant: catalog::DEFAULT_TENANT.to_owned(),
            database: catalog::DEFAULT_DATABASE.to_owned(),
            name: "c".to_owned(),
            metadata: None,
            configuration: Configuration { space, ..Configuration::default() },
            schema: serde_json::json!({}),
            get_or_create: false,
        };
        catalog.create_collection(new).await.expect("a new name");
        let row = catalog.set_dimension(ID, dimension).await.expect("it is there");
        Collection {
            world,
            store: MemoryStore::default(),
            catalog,
            warm: Cache::default(),
            plain: Plain::default(),
            rows: vec![row],
            compacted: Plain::default(),
            kept_indexes: 0,
        }
    }

    async fn row(&self) -> CollectionRow {
        self.catalog.get_collection_by_id(ID).await.expect("it lives")
    }

    async fn write(&mut self, operations: Vec<Operation>) {
        let writer = Writer { store: &self.store, runtime: &self.world, rows: &Rows(self), collection: ID };
        let row = writer.rows.refresh().await.expect("always there");
        writer.append(operations.clone(), row, Timestamp(u64::MAX)).await.expect("written");
        operations.into_iter().for_each(|operation| self.plain.apply(operation));
    }

    async fn compact(&mut self, memory_bytes: usize, from_bytes: u64, words: Option<Words>) {
        let indexing = Indexing { from_bytes, text_from_bytes: from_bytes, words, ..INDEXING };
        self.compact_as(memory_bytes, indexing).await;
    }

    async fn compact_as(&mut self, memory_bytes: usize, indexing: Indexing) {
        let compactor = Compactor {
            store: &self.store,
            catalog: &self.catalog,
            runtime: &self.world,
            memory_bytes,
            scratch: Scratch { directory: std::env::temp_dir(), memory_bytes },
            indexing,
            segments_max: SEGMENTS_MAX,
            is_stopped: &|| false,
            stats: Stats::default(),
        };
        compactor.compact(ID).await.expect("compacted");
        self.kept_indexes += compactor.stats.kept_indexes.get();
        let row = self.row().await;
        assert_eq!(row.manifest.records, self.plain.0.len() as u64);
        self.rows.push(row);
        self.compacted = self.plain.clone();
    }

    async fn collect(&mut self, grace_ms: u64) {
        for _ in 0..3 {
            self.world.sleep(limits::GC_DELAY_MS + 1_000).await;
            let gc = Gc {
                store: &self.store,
                catalog: &self.catalog,
                runtime: &self.world,
                journal: &(),
                stop: &Stop::default(),
                holder: 1,
                settings: GcSettings { grace_ms, delay_ms: limits::GC_DELAY_MS, effect: Effect::Delete },
            };
            let upkeep = self.catalog.upkeep(ID).await.expect("it is there");
            gc.collection(&upkeep).await.expect("collected");
        }
        self.rows = vec![self.row().await];
    }

    async fn ask(
        &self,
        cache: &Cache,
        row: &CollectionRow,
        read: &Read,
        level: ReadLevel,
    ) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
        let source = Source {
            collection: ID,
            generation: row.generation,
            manifest: row.manifest.clone(),
            dimension: row.dimension,
            space: row.configuration.space,
            ef_search: 100,
        };
        let executor = Executor { store: &self.store, runtime: self.world.clone(), cache, tally: Tally::default() };
        let answer = executor.run(&QueryPlan { source, read: read.clone(), level, explain: false }).await?;
        Ok((answer.hits, answer.count))
    }

    /// Reads with the row that was known `age` compactions ago, and at the lowest level with the newest one.
    async fn check(&self, read: &Read, age: usize, is_cold: bool) -> Result<(), TestCaseError> {
        let space = self.rows[0].configuration.space;
        let row = &self.rows[self.rows.len() - 1 - age.min(self.rows.len() - 1)];
        let cold = Cache::default();
        let cache = if is_cold { &cold } else { &self.warm };
        let answer = self.ask(cache, row, read, ReadLevel::IndexAndWal).await;
        if let Read::Rank { .. } = read {
            return is_ranked(answer.expect("an answer").0, &self.plain, read);
        }
        prop_assert_eq!(answer, self.plain.answer(space, read), "{:?} under generation {}", read, row.generation);
        let newest = &self.rows[self.rows.len() - 1];
        let answer = self.ask(cache, newest, read, ReadLevel::IndexOnly).await;
        prop_assert_eq!(answer, self.compacted.answer(space, read), "{:?} of the index alone", read);
        Ok(())
    }
}

/// Whether these are hits of a rank, as many as there are, best first. (What was deleted counts for scores until it is merged
/// away, so that scores are not those of the model.)
fn is_ranked(mut lists: Vec<Vec<Hit>>, plain: &Plain, read: &Read) -> Result<(), TestCaseError> {
    let hits = lists.pop().expect("a list");
    prop_assert!(lists.is_empty() && hits.is_sorted_by_key(|hit| hit.distance), "{:?}", hits);
    let Read::Rank { n_results, .. } = read else { unreachable!("it is a rank") };
    let mut unlimited = read.clone();
    if let Read::Rank { n_results, .. } = &mut unlimited {
        *n_results = u64::MAX;
    }
    let mut all = plain.answer(Space::L2, &unlimited).expect("an answer").0.concat();
    let wanted = all.len().min(usize::try_from(*n_results).expect("it is small"));
    prop_assert_eq!(hits.len(), wanted, "{:?}", read);
    all.iter_mut().for_each(|hit| hit.distance = None);
    for hit in hits {
        let hit = Hit { distance: None, ..hit };
        let at = all.iter().position(|other| *other == hit);
        prop_assert!(at.is_some(), "{:?}: {:?}", read, hit);
        at.map(|at| all.swap_remove(at));
    }
    Ok(())
}

impl Collection {
    /// Log, packs, segments and manifest hold the same records.
    async fn verify(&self) -> Result<(), TestCaseError> {
        let reports = verify::collections(&self.store, &self.catalog, None, 1 << 30).await.expect("readable");
        prop_assert_eq!(reports.len(), 1);
        prop_assert!(reports[0].broken.is_empty(), "{:?}", reports[0]);
        Ok(())
    }
}

/// A document that makes rows so large that few fit into a batch.
fn enlarged(mut operation: Operation) -> Operation {
    if let Some(document) = &mut operation.document {
        *document = document.clone() + &"long ".repeat(5_000);
    }
    operation
}

async fn lives_through(space: Space, events: Vec<Event>) -> Result<u64, TestCaseError> {
    let mut collection = Collection::new(space, DIMENSION).await;
    for event in events {
        match event {
            Event::Write(operations) => collection.write(operations).await,
            Event::WriteLarge(operations) => {
                collection.write(operations.into_iter().map(enlarged).collect()).await;
            }
            Event::Compact(memory_bytes, from_bytes, words) => {
                collection.compact(memory_bytes, from_bytes, words).await;
            }
            Event::Collect(grace_ms) => collection.collect(grace_ms).await,
            Event::Read(read, age, is_cold) => collection.check(&read, age, is_cold).await?,
        }
    }
    collection.verify().await?;
    Ok(collection.kept_indexes)
}

/// Adds of six new records at a time and deletes of some before, each followed by a compaction and a read. (There are never more
/// records than searches look at in full.)
#[test]
fn merges_that_go_on_from_leaf_indexes_change_no_answer() {
    let vector = |n: u8| vec![f32::from(n % 11), f32::from(n % 7), f32::from(n % 3)];
    let delete = |n: u8| Operation::delete(RecordId(format!("id{n}")));
    let add = |n: u8| Operation { kind: OperationKind::Add, embedding: Some(vector(n)), ..delete(n) };
    let read = Read::Query {
        vectors: vec![vector(5), vector(77)],
        n_results: 7,
        ids: None,
        filter: None,
        include: Include::default(),
    };
    for space in [Space::L2, Space::Cosine, Space::Ip] {
        let round = |round: u8| {
            let deletes = (round.saturating_sub(4) * 6..round * 6).filter(|n| n % 13 == round % 13).map(delete);
            let operations = deletes.chain((round * 6..(round + 1) * 6).map(add)).collect();
            [Event::Write(operations), Event::Compact(1 << 30, 0, None), Event::Read(read.clone(), 0, false)]
        };
        let lived = lives_through(space, (0..20).flat_map(round).collect()).now_or_never().expect("nothing waits");
        let kept = lived.expect("the same answers");
        assert!(kept >= 5, "{kept} merges went on from an index");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn compaction_changes_no_answer(
        space in select(vec![Space::L2, Space::Cosine, Space::Ip]),
        events in vec(event(), 1..40),
    ) {
        lives_through(space, events).now_or_never().expect("nothing waits")?;
    }
}

/// What a strategy makes, the same in every run.
fn drawn<T>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("a value").current()).collect()
}

/// So many upserts of random records under numbered ids.
fn random_upserts(first: usize, records: &[model::Record]) -> Vec<Operation> {
    let upsert = |(number, record): (usize, &model::Record)| {
        let model::Record { embedding, document, uri, metadata, .. } = record.clone();
        let metadata = metadata.map(|all| all.into_iter().map(|(key, value)| (key, Some(value))).collect());
        let id = RecordId(format!("{}", first + number));
        Operation { kind: OperationKind::Upsert, id, embedding: Some(embedding), document, uri, metadata }
    };
    records.iter().enumerate().map(upsert).collect()
}

/// More rows than are measured at once, in a segment with leaves, in one with codes, in one without a text index and in the log:
/// reads by filters answer exactly, and queries by filters find as many as there are, the nearest ones.
#[test]
fn filters_among_many_rows_find_what_there_is() {
    let records = drawn(testing::record(), 1_900);
    let (filters, vectors) = (drawn(testing::filter(), 300), drawn(testing::vector(), 300));
    let life = async {
        let mut collection = Collection::new(Space::L2, DIMENSION).await;
        for (rows, from_bytes) in [(0..1_200, 0), (1_200..1_700, u64::MAX), (1_650..1_800, 0), (1_750..1_850, 0)] {
            for first in rows.clone().step_by(100) {
                collection.write(random_upserts(first, &records[first..rows.end.min(first + 100)])).await;
            }
            let deletes = (rows.start..rows.end).step_by(9).map(|n| Operation::delete(RecordId(format!("{n}"))));
            collection.write(deletes.collect()).await;
            if rows.end < 1_850 {
                collection.compact_as(1 << 30, Indexing { from_bytes, ..INDEXING }).await;
            }
        }
        let manifest = collection.row().await.manifest;
        let kinds: Vec<_> = manifest.segments.iter().map(|s| (s.index.is_some(), s.text.is_some())).collect();
        assert_eq!(kinds, [(true, true), (false, true), (true, true)]);
        let (mut wanted, mut found) = (0, 0);
        for (filter, vector) in filters.into_iter().zip(vectors) {
            let filter = Some(filter);
            let include = Include { documents: true, ..Include::default() };
            let all = Read::Get { ids: None, filter: filter.clone(), limit: None, offset: 0, include };
            let page = Read::Get { ids: None, filter: filter.clone(), limit: Some(7), offset: 5, include };
            let matches = Read::Match { ids: None, filter: filter.clone(), limit: None };
            for read in [all, page, matches] {
                collection.check(&read, 0, found % 2 == 0).await?;
            }
            let read = Read::Query { vectors: vec![vector], n_results: 10, ids: None, filter, include };
            let (space, row) = (Space::L2, collection.row().await);
            let answer = collection.ask(&Cache::default(), &row, &read, ReadLevel::IndexAndWal).await;
            let distances = |answer: Result<(Vec<Vec<Hit>>, u64), PlanError>| -> Vec<Option<f32>> {
                answer.expect("an answer").0.concat().iter().map(|hit| hit.distance).collect()
            };
            let (answer, exact) = (distances(answer), distances(collection.plain.answer(space, &read)));
            prop_assert_eq!(answer.len(), exact.len(), "{:?}", read);
            wanted += exact.len();
            found += answer.iter().zip(&exact).filter(|(answer, exact)| answer == exact).count();
        }
        assert!(found * 100 >= wanted * 99, "{found} of {wanted} are the nearest");
        collection.verify().await
    };
    life.now_or_never().expect("nothing waits").expect("the same answers");
}

/// Documents in a segment with indexed words, in one whose words are indexed otherwise, in one without an index and in the log:
/// as long as nothing was changed, scores are those of all of them together.
#[test]
fn ranks_score_documents_alike_wherever_they_lie() {
    let records = drawn(testing::record(), 1_300);
    let ranks = drawn(testing::rank(), 300);
    let stemmed = Words { stem: Some(Language::English), stop_words: None };
    let stages = [(0..600, 0, Some(Words::default())), (600..900, 0, Some(stemmed)), (900..1_100, u64::MAX, None)];
    let life = async {
        let mut collection = Collection::new(Space::L2, DIMENSION).await;
        for (rows, text_from_bytes, words) in stages {
            for first in rows.clone().step_by(100) {
                collection.write(random_upserts(first, &records[first..first + 100])).await;
            }
            let indexing = Indexing { text_from_bytes, words, ..INDEXING };
            collection.compact_as(1 << 30, indexing).await;
        }
        for first in (1_100..1_300).step_by(100) {
            collection.write(random_upserts(first, &records[first..first + 100])).await;
        }
        let has_text: Vec<bool> = collection.row().await.manifest.segments.iter().map(|s| s.text.is_some()).collect();
        assert_eq!(has_text, [true, true, false]);
        let mut scored = 0;
        for (number, read) in ranks.into_iter().enumerate() {
            collection.check(&read, 0, number % 2 == 0).await?;
            let row = collection.row().await;
            let answer = collection.ask(&Cache::default(), &row, &read, ReadLevel::IndexAndWal).await;
            let (answer, plain) = (answer.expect("an answer").0, collection.plain.answer(Space::L2, &read));
            for (hit, best) in answer.concat().iter().zip(plain.expect("an answer").0.concat()) {
                let off = hit.distance.zip(best.distance).map_or(f32::NAN, |(own, best)| (own - best).abs());
                prop_assert!(off < 1e-4, "{:?}: {:?} where {:?} is best", read, hit, best);
                scored += 1;
            }
        }
        assert!(scored > 200, "{scored} were found");
        collection.verify().await
    };
    life.now_or_never().expect("nothing waits").expect("the same answers");
}

const SPACES: [Space; 3] = [Space::L2, Space::Cosine, Space::Ip];

/// Vectors whose sums are rounded: of any magnitude, some of them zero, some the same as others.
fn uneven(number: u64, dimension: u32) -> Vec<f32> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let scale = [1e-12, 1e-3, 1.0, 1.0, 1.0, 7.0, 1e9, 0.0][usize::try_from(number % 8).expect("it is small")];
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / 8_388_608.0 - 1.0) * scale
    };
    (0..dimension).map(|_| next()).collect()
}

fn upserts(numbers: Range<u64>, dimension: u32) -> Vec<Operation> {
    let upsert = |number: u64| Operation {
        kind: OperationKind::Upsert,
        // Each vector twice.
        embedding: Some(uneven(number / 2, dimension)),
        ..Operation::delete(format!("{number}").as_str().into())
    };
    numbers.map(upsert).collect()
}

/// Wherever a row lies (in a segment with codes, in one with leaves, in the log), its vector comes back as it was written,
/// and its distance is that of the kernel, to the bit.
#[test]
fn distances_are_the_kernels_to_the_bit_wherever_a_row_lies() {
    let include = Include { embeddings: true, ..Include::default() };
    let mut seen = [0; 3];
    for (space, dimension) in SPACES.into_iter().flat_map(|space| [1, 7, 33, 384, 1_100].map(|d| (space, d))) {
        let life = async {
            let mut collection = Collection::new(space, dimension).await;
            collection.write(upserts(0..200, dimension)).await;
            collection.compact(1 << 30, u64::MAX, None).await;
            collection.write(upserts(200..600, dimension)).await;
            collection.compact(1 << 30, 0, None).await;
            collection.write(upserts(600..650, dimension)).await;
            let row = collection.row().await;
            let has_index: Vec<bool> = row.manifest.segments.iter().map(|segment| segment.index.is_some()).collect();
            assert_eq!(has_index, [false, true]);
            let vectors = [3, 4, 1_001, 1_002, 1_003].map(|number| uneven(number, dimension)).to_vec();
            let read = Read::Query { vectors: vectors.clone(), n_results: 150, ids: None, filter: None, include };
            let answer = collection.ask(&Cache::default(), &row, &read, ReadLevel::IndexAndWal).await;
            (vectors, answer.expect("readable").0)
        };
        let (vectors, lists) = life.now_or_never().expect("nothing waits");
        for (vector, hits) in vectors.iter().zip(&lists) {
            assert_eq!(hits.len(), 150);
            for hit in hits {
                let number: u64 = hit.id.parse().expect("an id is a number");
                let (stored, bits) = (uneven(number / 2, dimension), |x: f32| x.to_bits());
                let returned = hit.embedding.iter().flatten().copied();
                assert!(returned.map(bits).eq(stored.iter().copied().map(bits)), "{number} has another vector");
                let expected = Measure::new(space, vector).distance(&stored);
                assert_eq!(hit.distance.map(bits), Some(bits(expected)), "{space:?} {dimension} {number}");
                seen[[0..200, 200..600, 600..650].iter().position(|place| place.contains(&number)).expect("one")] += 1;
            }
        }
    }
    println!("distances of rows in a flat segment, in leaves, in the log: {seen:?}");
    assert!(seen.iter().all(|count| *count > 500), "{seen:?}");
}
