//! Tails and segments that are larger than an executor's memory: what their reads answer, and how much memory, how many reads
//! and bytes they take. One test in a program of its own, because it counts every allocation of the process.

use bytes::Bytes;
use executor_worker::cache::Cache;
use executor_worker::{Executor, Tally};
use model::{
    CollectionId, Comparison, Filter, IndexRef, LogEnd, Lsn, Manifest, MetadataTest, MetadataValue, Operation,
    OperationKind, Position, Record, Scalar, SegmentRef, Space, Timestamp, limits,
};
use query::kernel::Measure;
use query::{Hit, Include, PlanError, QueryPlan, Read, ReadLevel, Source, TopK};
use runtime::{NativeRuntime, Runtime};
use segment::row::Row;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use storage::{Etag, MemoryStore, ObjectStore, PutError, PutMode, ReadError};
use vector::{Clustering, Codec, Options, Rows as Vectors};
use wal::{Reader, RefreshError, RowSource, RowView, Writer};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a Worker's 96 MiB leave when its code's own data are taken off.
const MEMORY_BYTES: usize = 90 * 1024 * 1024;
const COLLECTION: CollectionId = CollectionId::from_u128(1);
const DIMENSION: usize = 384;

/// A bucket whose replies are copies, as those of a real one are, and take turns with other requests.
#[derive(Default)]
struct Remote {
    inner: MemoryStore,
    gets: Cell<usize>,
    bytes: Cell<usize>,
}

impl Remote {
    fn delivered(&self, body: Option<Bytes>) -> Option<Bytes> {
        let body = body.map(|body| Bytes::copy_from_slice(&body));
        self.gets.set(self.gets.get() + 1);
        self.bytes.set(self.bytes.get() + body.as_ref().map_or(0, Bytes::len));
        body
    }
}

impl ObjectStore for Remote {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        tokio::task::yield_now().await;
        Ok(self.delivered(self.inner.get(key).await?))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        tokio::task::yield_now().await;
        Ok(self.delivered(self.inner.get_range(key, range).await?))
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.inner.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        self.inner.put(key, body, mode).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.inner.list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.inner.delete(key).await
    }
}

struct Rows(NativeRuntime);

impl RowSource for Rows {
    async fn refresh(&self) -> Result<RowView, RefreshError> {
        Ok(RowView { gc_floor: Lsn(0), compacted: LogEnd::EMPTY, requested_at: self.0.now() })
    }
}

/// The vector that write number `n` carries.
fn vector(n: usize) -> Vec<f32> {
    let mut state = n as u64 + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 1e7
    };
    std::iter::repeat_with(next).take(DIMENSION).collect()
}

fn upsert(id: usize, n: usize) -> Operation {
    let metadata = [("n".to_owned(), Some(MetadataValue::Int(n as i64)))];
    Operation {
        kind: OperationKind::Upsert,
        embedding: Some(vector(n)),
        document: Some(format!("text {n} ").repeat(20)),
        metadata: Some(metadata.into()),
        ..Operation::delete(format!("record-{id}").as_str().into())
    }
}

/// A log of `writes` upserts of `records` ids, so many in a fragment.
async fn log(writes: usize, records: usize, batch: usize) -> Remote {
    let (store, runtime) = (Remote::default(), NativeRuntime::new());
    let rows = Rows(runtime.clone());
    let writer = Writer { store: &store.inner, runtime: &runtime, rows: &rows, collection: COLLECTION };
    for first in (0..writes).step_by(batch) {
        let operations: Vec<Operation> = (first..first + batch).map(|n| upsert(n % records, n)).collect();
        let row = rows.refresh().await.expect("always there");
        writer.append(operations, row, Timestamp(u64::MAX)).await.expect("written");
    }
    store
}

/// The row of the record that write number `n` writes first.
fn row(n: usize, batch: usize) -> Row {
    let Operation { id, embedding, document, uri, .. } = upsert(n, n);
    let metadata = Some([("n".to_owned(), MetadataValue::Int(n as i64))].into());
    let record = Record { id, embedding: embedding.expect("an upsert has one"), document, uri, metadata };
    let index = u32::try_from(n % batch).expect("few operations a fragment");
    Row::new(Position::new(Lsn((n / batch) as u64), index), record)
}

/// A segment of the records that were written first by these writes.
async fn segment(store: &Remote, writes: Range<usize>, batch: usize, is_indexed: bool) -> SegmentRef {
    let prefix = format!("segment-{}", writes.start);
    let index = if is_indexed { Some(index(store, &prefix, writes.clone(), batch).await) } else { None };
    let new = if is_indexed { segment::Builder::without_codes } else { segment::Builder::new };
    let mut builder = new(DIMENSION);
    for n in writes {
        builder.push(&row(n, batch).view());
        upload(store, &prefix, builder.take_parts()).await;
    }
    let built = builder.finish(prefix.clone());
    upload(store, &prefix, built.parts).await;
    SegmentRef { index, ..built.segment }
}

/// The leaf index of such a segment.
async fn index(store: &Remote, prefix: &str, writes: Range<usize>, batch: usize) -> IndexRef {
    let values: Vec<f32> = writes.clone().flat_map(vector).collect();
    let (rows, codec) = (Vectors::new(&values, DIMENSION), Codec::of(DIMENSION));
    let (clustering, centroid_bits) = (Clustering::of(128, 1, 2), Codec::centroid_bits(DIMENSION));
    let built = vector::build(rows, &Options { space: Space::L2, clustering, codec, centroid_bits });
    let mut builder = segment::IndexBuilder::new(built.table);
    for leaf in 0..builder.table().leaves() {
        let slots = builder.table().rows(leaf..leaf + 1);
        let slots = slots.start as usize..slots.end as usize;
        let numbers = &built.order[slots.clone()];
        let rows: Vec<Row> = numbers.iter().map(|number| row(writes.start + *number as usize, batch)).collect();
        let codes = &built.codes[slots.start * codec.row_bytes()..slots.end * codec.row_bytes()];
        builder.push(codes, numbers.iter().copied().zip(rows.iter().map(Row::view)));
        upload(store, prefix, builder.take_parts()).await;
    }
    let built = builder.finish();
    upload(store, prefix, built.parts).await;
    built.named
}

async fn upload(store: &Remote, prefix: &str, parts: Vec<segment::Part>) {
    for part in parts {
        store.put(&format!("{prefix}/{}", part.name), part.body, PutMode::Create).await.expect("memory takes anything");
    }
}

/// The manifest of two segments that hold the first so many writes, each the first of its record.
async fn compacted(store: &Remote, writes: usize, batch: usize, is_indexed: bool) -> Manifest {
    let reader = Reader { store: &store.inner, collection: COLLECTION };
    let watermark = Lsn((writes / batch) as u64);
    let compacted = reader.read_until(LogEnd::EMPTY, watermark, drop).await.expect("the log is sound");
    let middle = writes / 3 * 2;
    let first = segment(store, 0..middle, batch, is_indexed).await;
    let segments = vec![first, segment(store, middle..writes, batch, is_indexed).await];
    Manifest { compacted, records: writes as u64, segments, ..Manifest::default() }
}

/// What is written, and how much of it is compacted.
struct Shape {
    name: &'static str,
    writes: usize,
    records: usize,
    batch: usize,
    /// The first so many writes are in segments.
    compacted: usize,
    /// Whether these have leaf indexes.
    is_indexed: bool,
}

struct World {
    name: &'static str,
    store: Remote,
    manifest: Manifest,
    /// The last write of each record.
    last: Vec<usize>,
    base_bytes: usize,
}

impl World {
    async fn new(Shape { name, writes, records, batch, compacted: stored, is_indexed }: Shape) -> Self {
        let store = log(writes, records, batch).await;
        let manifest = match stored {
            0 => Manifest::default(),
            _ => compacted(&store, stored, batch, is_indexed).await,
        };
        let last = (0..records).map(|id| (id..writes).step_by(records).next_back().expect("each is written")).collect();
        World { name, store, manifest, last, base_bytes: HELD.load(Relaxed) }
    }

    async fn ask(&self, cache: &Cache, read: &Read) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
        let source = Source {
            collection: COLLECTION,
            manifest: self.manifest.clone(),
            generation: 0,
            dimension: Some(384),
            space: Space::L2,
            ef_search: 100,
        };
        let executor = Executor { store: &self.store, runtime: NativeRuntime::new(), cache, tally: Tally::default() };
        let plan = QueryPlan { source, read: read.clone(), level: ReadLevel::default(), explain: false };
        executor.run(&plan).await.map(|answer| (answer.hits, answer.count))
    }

    /// Asks four times at once, says what that took, and gives one of the answers, which are all equal.
    async fn four_times(&self, what: &str, cache: &Cache, read: &Read) -> (Vec<Vec<Hit>>, u64) {
        let answers = self.measured(what, async {
            let ask = || self.ask(cache, read);
            futures_util::future::join_all([ask(), ask(), ask(), ask()]).await
        });
        let mut answers = answers.await.into_iter().map(|answer| answer.expect("answered"));
        let first = answers.next().expect("four of them");
        assert!(answers.all(|answer| answer == first), "{what}: answers differ");
        first
    }

    async fn once(&self, what: &str, cache: &Cache, read: &Read) -> (Vec<Vec<Hit>>, u64) {
        self.measured(what, self.ask(cache, read)).await.expect("answered")
    }

    async fn measured<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        self.store.gets.set(0);
        self.store.bytes.set(0);
        PEAK.store(HELD.load(Relaxed), Relaxed);
        let result = work.await;
        let (gets, megabytes) = (self.store.gets.get(), self.store.bytes.get() / 1_000_000);
        let peak = PEAK.load(Relaxed) - self.base_bytes;
        println!("{}, {what}: {gets} reads, {megabytes} MB, peak {} MB", self.name, peak / 1_000_000);
        assert!(peak <= MEMORY_BYTES, "{}, {what}: {peak} bytes", self.name);
        result
    }

    /// The ids nearest to `query`, by looking at all records.
    fn nearest(&self, query: &[f32], k: usize, passes: impl Fn(usize) -> bool) -> Vec<String> {
        let (measure, mut nearest) = (Measure::new(Space::L2, query), TopK::new(k));
        for (id, n) in self.last.iter().enumerate().filter(|(_, n)| passes(**n)) {
            nearest.push(measure.distance(&vector(*n)), id);
        }
        nearest.into_sorted().iter().map(|hit| format!("record-{}", hit.row)).collect()
    }
}

fn ids(list: &[Hit]) -> Vec<String> {
    list.iter().map(|hit| hit.id.clone()).collect()
}

const ALL: Include = Include { embeddings: true, documents: true, uris: true, metadatas: true };

fn below(n: usize) -> Filter {
    let test = MetadataTest::Compare(Comparison::Lt, Scalar::Int(n as i64));
    Filter::Metadata { key: "n".to_owned(), test }
}

async fn check(shape: Shape) {
    let Shape { writes, records, .. } = shape;
    let world = World::new(shape).await;
    let query =
        |filter| Read::Query { vectors: vec![vector(writes / 2)], n_results: 10, ids: None, filter, include: ALL };
    let get =
        |ids: Option<Vec<String>>, filter, limit, offset, include| Read::Get { ids, filter, limit, offset, include };

    let cache = Cache::default();
    let (hits, _) = world.four_times("four cold queries", &cache, &query(None)).await;
    assert_eq!(ids(&hits[0]), world.nearest(&vector(writes / 2), 10, |_| true));
    assert_eq!(hits[0][0].embedding, Some(vector(writes / 2)));
    assert_eq!(world.four_times("four warm counts", &cache, &Read::Count).await.1, records as u64);
    world.once("warm query", &cache, &query(None)).await;
    let (hits, _) = world.once("warm filtered query", &cache, &query(Some(below(writes / 4)))).await;
    assert_eq!(ids(&hits[0]), world.nearest(&vector(writes / 2), 10, |n| n < writes / 4));

    let some: Vec<String> = [records - 1, 7, records / 2].iter().map(|n| format!("record-{n}")).collect();
    let (hits, _) = world.once("warm get of three ids", &cache, &get(Some(some.clone()), None, None, 0, ALL)).await;
    assert_eq!(ids(&hits[0]), [&some[1], &some[2], &some[0]].map(String::clone));
    for (hit, id) in hits[0].iter().zip([7, records / 2, records - 1]) {
        let expect = upsert(id, world.last[id]);
        assert_eq!((&hit.embedding, &hit.document), (&expect.embedding, &expect.document));
    }
    let page = get(None, Some(below(writes)), Some(5), records as u64 - 7, ALL);
    let (hits, _) = world.once("warm page of what a filter leaves", &cache, &page).await;
    assert_eq!(ids(&hits[0]), (records - 7..records - 2).map(|id| format!("record-{id}")).collect::<Vec<_>>());

    drop(cache);
    let cache = Cache::default();
    world.once("cold count", &cache, &Read::Count).await;
    let all = world.measured("everything at once", world.ask(&cache, &get(None, None, None, 0, ALL))).await;
    let fits = records * DIMENSION * 4 < limits::ANSWER_BYTES_MAX;
    assert!(matches!(&all, Err(PlanError::TooLarge(why)) if why.contains("limit")) || fits, "{all:?}");
}

#[tokio::test]
async fn reads_keep_to_the_memory_they_have() {
    for shape in [
        Shape {
            name: "100,000 records in batches of 100",
            writes: 100_000,
            records: 100_000,
            batch: 100,
            compacted: 0,
            is_indexed: false,
        },
        Shape {
            name: "10,000 single writes",
            writes: 10_000,
            records: 9_000,
            batch: 1,
            compacted: 0,
            is_indexed: false,
        },
        Shape {
            name: "100,000 records in segments, 2,000 of them written again",
            writes: 102_000,
            records: 100_000,
            batch: 100,
            compacted: 100_000,
            is_indexed: false,
        },
    ] {
        check(shape).await;
    }
    check_indexed().await;
}

/// Large segments, searched by their leaves.
async fn check_indexed() {
    let world = World::new(Shape {
        name: "50,000 records in leaves, 1,000 of them written again",
        writes: 51_000,
        records: 50_000,
        batch: 100,
        compacted: 50_000,
        is_indexed: true,
    })
    .await;
    let query = |vectors: Vec<Vec<f32>>, n_results| Read::Query {
        vectors,
        n_results,
        ids: None,
        filter: None,
        include: Include { embeddings: false, ..ALL },
    };
    let cache = Cache::default();
    let (hits, _) = world.four_times("four cold queries", &cache, &query(vec![vector(30_000)], 10)).await;
    assert_eq!((hits[0].len(), hits[0][0].id.as_str(), hits[0][0].distance), (10, "record-30000", Some(0.0)));
    let (hits, _) = world.once("warm query", &cache, &query(vec![vector(7_000)], 10)).await;
    assert_eq!(hits[0][0].id, "record-7000");
    let many: Vec<Vec<f32>> = (0..64).map(|n| vector(3_000 + n * 700)).collect();
    let (hits, _) = world.once("64 vectors at once", &cache, &query(many, 10)).await;
    assert!(hits.iter().zip(0..).all(|(hits, n)| hits[0].id == format!("record-{}", 3_000 + n * 700)));
    let (hits, _) = world.once("2,000 results", &cache, &query(vec![vector(9_000)], 2_000)).await;
    assert_eq!((hits[0].len(), hits[0][0].id.as_str()), (2_000, "record-9000"));
}
