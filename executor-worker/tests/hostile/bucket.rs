//! Reads of a collection some of whose objects somebody has changed: what an executor answers is right, or an error.

use crate::mutate::{Random, mutate};
use crate::segments::{SPACES, Stored, flat, indexed, rows, with_text};
use crate::{changes, logs, seals, survive};
use executor_worker::cache::Cache;
use executor_worker::{Executor, Tally};
use futures_util::FutureExt;
use model::{
    CollectionId, Comparison, DeleteVectorPlace, DeleteVectorRef, DocumentTest, Filter, LogEnd, Lsn, Manifest,
    MetadataTest, Nonce, Operation, OperationKind, Scalar, SegmentRef, Space, Words, keys,
};
use query::{Answer, Include, PlanError, QueryPlan, Read, ReadLevel, Source};
use runtime::ManualRuntime;
use segment::{DeleteVector, LeafIndex, Segment};
use std::collections::BTreeMap;
use std::ops::Range;
use storage::{MemoryStore, ObjectStore, PutMode};

const COLLECTION: CollectionId = CollectionId::from_u128(7);
const DIMENSION: usize = 5;
/// The last fragment that is compacted, and the end behind it.
const END: LogEnd = LogEnd { next: Lsn(3), last_nonce: Nonce(9), operations: 200, ..LogEnd::EMPTY };

/// A segment with codes, one with a leaf index, dead rows in both, and a fragment above them.
struct World {
    objects: BTreeMap<String, Vec<u8>>,
    source: Source,
    reads: Vec<Read>,
}

impl World {
    fn new(space: Space) -> Self {
        let flat = flat("flat", &rows(0..40, DIMENSION), DIMENSION);
        let filed = rows(40..240, DIMENSION);
        let indexed = with_text(indexed("near", &filed, DIMENSION, space), &filed);
        let few = DeleteVector::from_iter([3, 4, 17]);
        let many = DeleteVector::from_iter((0..200).filter(|row| row % 3 == 1));
        let dead = |rows: &DeleteVector, place| Some(DeleteVectorRef { count: rows.len(), place });
        let inline = dead(&few, DeleteVectorPlace::Inline(few.encode_inline()));
        let object = dead(&many, DeleteVectorPlace::Object("dead".to_owned()));
        let mut objects = BTreeMap::from([("dead".to_owned(), many.encode().to_vec())]);
        for Stored { named, objects: parts } in [&flat, &indexed] {
            objects.extend(parts.iter().map(|(name, body)| (format!("{}/{name}", named.prefix), body.clone())));
        }
        let (_, fragment) = logs::encoded(COLLECTION, &END, &operations());
        objects.insert(keys::fragment(COLLECTION, END.next), fragment);
        let segments = vec![SegmentRef { dead: inline, ..flat.named }, SegmentRef { dead: object, ..indexed.named }];
        let records = segments.iter().map(|segment| u64::from(segment.live_rows())).sum();
        let manifest = Manifest { compacted: END, records, segments, ..Manifest::default() };
        let dimension = Some(DIMENSION.try_into().expect("it is small"));
        let source = Source { collection: COLLECTION, generation: 1, manifest, dimension, space, ef_search: 100 };
        World { objects, source, reads: reads() }
    }

    /// What a cold executor answers to each of the reads.
    fn answers(&self, objects: &BTreeMap<String, Vec<u8>>) -> Vec<Result<Answer, PlanError>> {
        let store = MemoryStore::default();
        let put = async |(key, body): (&String, &Vec<u8>)| {
            store.put(key, body.clone().into(), PutMode::Create).await.expect("memory takes anything");
        };
        objects.iter().for_each(|object| put(object).now_or_never().expect("nothing waits"));
        let ask = |read: &Read| {
            let (cache, tally) = (Cache::default(), Tally::default());
            let executor = Executor { store: &store, runtime: ManualRuntime::default(), cache: &cache, tally };
            let plan = QueryPlan {
                source: self.source.clone(),
                read: read.clone(),
                level: ReadLevel::default(),
                explain: false,
            };
            executor.run(&plan).now_or_never().expect("nothing waits for long")
        };
        self.reads.iter().map(ask).collect()
    }

    /// All objects, one of them changed; with checksums that fit if it `is_mended`.
    fn changed(&self, random: &mut Random, is_mended: bool) -> BTreeMap<String, Vec<u8>> {
        let mut objects = self.objects.clone();
        let keys: Vec<&String> = self.objects.keys().collect();
        let key = random.pick(&keys);
        let valid = &self.objects[key];
        let range = self.checked_range(random, key).unwrap_or(0..valid.len());
        let is_all = range == (0..valid.len());
        let mut bytes = mutate(random, &valid[range.clone()], &(0..range.len().min(700)));
        if !is_all || key.contains("near-") || key.contains("rows-") {
            // What follows keeps its place.
            bytes.resize(range.len(), 0);
        }
        if is_mended {
            self.mend(&mut objects, key, &mut bytes);
        }
        objects.get_mut(key).expect("it is one of them").splice(range, bytes);
        objects
    }

    /// A stretch of the object that has a checksum of its own, where objects have several.
    fn checked_range(&self, random: &mut Random, key: &str) -> Option<Range<usize>> {
        let small = |range: Range<u64>| usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let index = || LeafIndex::open(&self.objects["near/index"]).unwrap();
        match key.split_once('/')? {
            ("near", "leaves-0000") => Some(small(index().leaf_place(random.below(index().table().leaves())).range)),
            ("near", "near-0000.arrow") => Some(small(index().near_batch(0).range)),
            (segment, "rows-0000.arrow") => {
                let segment = Segment::open(&self.objects[&format!("{segment}/head")]).unwrap();
                Some(small(segment.batch(0).range))
            }
            _ => None,
        }
    }

    /// Makes all checksums fit that are over `bytes`, which are to stand in the object at `key`.
    fn mend(&self, objects: &mut BTreeMap<String, Vec<u8>>, key: &str, bytes: &mut [u8]) {
        let mut with = |head: &str, change: &dyn Fn(&[u8]) -> Vec<u8>| {
            let changed = change(&self.objects[head]);
            objects.insert(head.to_owned(), changed);
        };
        match key.split_once('/') {
            // Nothing is promised of text indexes that are forged, which checksums do not tell from others.
            Some((_, "text" | "terms-0000" | "terms-0001")) => {}
            Some((_, "head" | "index")) => seals::mend_head(bytes),
            Some(("near", "leaves-0000")) => seals::mend_end(bytes),
            Some(("near", "near-0000.arrow")) => {
                with("near/index", &|head| seals::with_first_batch(head, seals::NEAR_BATCHES, bytes));
            }
            Some((segment, "rows-0000.arrow")) => {
                with(&format!("{segment}/head"), &|head| seals::with_first_batch(head, seals::BATCHES, bytes));
            }
            Some((_, "codes-0000")) => with("flat/head", &|head| seals::with_object(head, seals::CODES, bytes)),
            Some(_) => seals::mend_trailer(bytes, b"OPALFRG1"),
            None => seals::mend_trailer(bytes, b"OPALDEL1"),
        }
    }
}

/// What was written after the compaction: a record more, one changed, one deleted.
fn operations() -> Vec<Operation> {
    let upsert = |id: &str| Operation {
        kind: OperationKind::Upsert,
        embedding: Some(vec![0.3; DIMENSION]),
        document: Some("new".to_owned()),
        ..Operation::delete(id.into())
    };
    vec![upsert("new"), upsert("r50"), Operation::delete("r7".into())]
}

fn reads() -> Vec<Read> {
    let include = Include { embeddings: true, documents: true, uris: true, metadatas: true };
    let test = |bound| MetadataTest::Compare(Comparison::Lt, Scalar::Int(bound));
    let below = |bound| Filter::Metadata { key: "n".to_owned(), test: test(bound) };
    let (filter, words) = (below(60), Filter::Document(DocumentTest::Contains("word 1".to_owned())));
    let vectors = vec![vec![0.1; DIMENSION], vec![0.9, -0.9, 0.0, 0.5, -0.5]];
    let query = |filter, n_results| Read::Query { vectors: vectors.clone(), n_results, ids: None, filter, include };
    let rank = |ids, filter| {
        let (text, words) = ("Word much new 17".to_owned(), Words::default());
        Read::Rank { text, words, n_results: 50, ids, filter, include }
    };
    let get = |ids, filter, limit, offset| Read::Get { ids, filter, limit, offset, include };
    let ids = ["r1", "r50", "r7", "r200", "new", "none"].map(str::to_owned).to_vec();
    vec![
        query(None, 10),
        query(None, 300),
        query(Some(filter.clone()), 5),
        query(Some(Filter::And(vec![below(220), words.clone()])), 5),
        query(Some(below(220)), 5),
        get(None, Some(words), None, 0),
        rank(None, None),
        rank(None, Some(filter.clone())),
        rank(Some(ids.clone()), None),
        get(Some(ids), None, None, 0),
        get(None, None, Some(20), 30),
        get(None, Some(filter), Some(9), 2),
        Read::Count,
    ]
}

#[test]
fn a_damaged_bucket_is_noticed_by_whoever_reads_the_damage() {
    for space in SPACES {
        let world = World::new(space);
        let truth = world.answers(&world.objects);
        assert!(truth.iter().all(Result::is_ok), "{truth:?}");
        let bytes: usize = world.objects.values().map(Vec::len).sum();
        let name = format!("{space:?}");
        let (mut noticed, all) = (0, changes(100));
        for change in 0..all {
            let objects = world.changed(&mut Random::of(&name, change), false);
            let answers = survive(&name, change, 8 * bytes, || world.answers(&objects));
            let is_right = |(answer, truth): (&Result<_, PlanError>, &_)| answer.is_err() || answer == truth;
            assert!(answers.iter().zip(&truth).all(is_right), "{name}: change {change} leads to a wrong answer");
            noticed += u64::from(answers.iter().any(Result::is_err));
            let objects = world.changed(&mut Random::of(&name, change), true);
            survive(&name, change, 8 * bytes, || world.answers(&objects));
        }
        println!("{name}: {noticed} of {all} changes are noticed by some read");
        assert!(noticed * 2 > all, "{noticed} of {all}: the others lie where none of these reads looks");
    }
}
