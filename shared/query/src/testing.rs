//! Random values for property tests: few ids, keys and words, so that they meet; and what answers must be.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::CompiledFilter;
use crate::kernel::Measure;
use crate::plan::{Hit, Include, PlanError, Read};
use model::metadata::apply_patch;
use model::{
    Comparison, DocumentTest, Filter, Metadata, MetadataTest, MetadataValue, Operation, OperationKind, Record,
    RecordId, Scalar, Space, SparseVector, Words,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};

/// Length of every vector made here.
pub const DIMENSION: u32 = 3;

/// One of a dozen ids.
pub fn id() -> impl Strategy<Value = String> {
    (0..12).prop_map(|n| format!("id{n}"))
}

/// A vector with small coordinates, so that distances tie.
pub fn vector() -> impl Strategy<Value = Vec<f32>> {
    vec((-2i8..3).prop_map(f32::from), DIMENSION as usize)
}

fn text() -> impl Strategy<Value = String> {
    "[abä\n]{0,4}"
}

/// Around zero and around every edge of exactness.
fn int() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -2i64..3, 1 => select(vec![i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX, 1 << 53, (1 << 53) + 1])]
}

/// As [`int`], with neighbours; only multiples of 2⁻⁶⁰.
fn float() -> impl Strategy<Value = f64> {
    let two_63 = 2_f64.powi(63);
    let edges = vec![two_63, -two_63, two_63.next_down(), (-two_63).next_down(), 2_f64.powi(53), 1e300, -1e300, -0.0];
    prop_oneof![4 => (-5i8..6).prop_map(|halves| f64::from(halves) / 2.0), 1 => select(edges)]
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<bool>().prop_map(Scalar::Bool),
        int().prop_map(Scalar::Int),
        float().prop_map(Scalar::Float),
        text().prop_map(Scalar::Str),
    ]
}

fn value() -> impl Strategy<Value = MetadataValue> {
    let sparse = SparseVector { indices: vec![1], values: vec![0.5], tokens: None };
    prop_oneof![
        any::<bool>().prop_map(MetadataValue::Bool),
        int().prop_map(MetadataValue::Int),
        float().prop_map(MetadataValue::Float),
        text().prop_map(MetadataValue::Str),
        vec(any::<bool>(), 1..3).prop_map(MetadataValue::Bools),
        vec(int(), 1..3).prop_map(MetadataValue::Ints),
        vec(float(), 1..3).prop_map(MetadataValue::Floats),
        vec(text(), 1..3).prop_map(MetadataValue::Strs),
        Just(MetadataValue::Sparse(sparse)),
    ]
}

fn key() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

/// A record of dimension [`DIMENSION`].
pub fn record() -> impl Strategy<Value = Record> {
    let metadata = btree_map(key(), value(), 0..4).prop_map(|map: Metadata| (!map.is_empty()).then_some(map));
    (id(), vector(), option::of(text()), option::of(text()), metadata).prop_map(
        |(id, embedding, document, uri, metadata)| Record { id: RecordId(id), embedding, document, uri, metadata },
    )
}

/// Any operation that the gateway lets through, most of them insertions.
pub fn operation() -> impl Strategy<Value = Operation> {
    use OperationKind::{Add, Delete, Update, Upsert};
    let patch = option::of(btree_map(key(), option::of(value()), 0..4));
    let fields = (option::of(text()), option::of(text()), patch);
    let kind = select(vec![Add, Add, Update, Update, Upsert, Upsert, Delete]);
    (kind, id(), vector(), any::<bool>(), fields).prop_map(|(kind, id, vector, moves, (document, uri, metadata))| {
        let id = RecordId(id);
        match kind {
            Delete => Operation::delete(id),
            Update => Operation { kind, id, embedding: moves.then_some(vector), document, uri, metadata },
            Add | Upsert => Operation { kind, id, embedding: Some(vector), document, uri, metadata },
        }
    })
}

fn metadata_test() -> impl Strategy<Value = MetadataTest> {
    use Comparison::{Eq, Gt, Gte, Lt, Lte, Ne};
    prop_oneof![
        3 => (select(vec![Eq, Ne, Gt, Gte, Lt, Lte]), scalar()).prop_map(|(how, with)| MetadataTest::Compare(how, with)),
        1 => vec(scalar(), 1..4).prop_map(MetadataTest::In),
        1 => vec(scalar(), 1..4).prop_map(MetadataTest::NotIn),
        1 => scalar().prop_map(MetadataTest::Contains),
        1 => scalar().prop_map(MetadataTest::NotContains),
    ]
}

fn document_test() -> impl Strategy<Value = DocumentTest> {
    let pattern = || select(vec!["a", "^b", "a.b", "(?s)a.", "[^a]$", "ä|bb", ""]).prop_map(str::to_owned);
    prop_oneof![
        text().prop_map(DocumentTest::Contains),
        text().prop_map(DocumentTest::NotContains),
        pattern().prop_map(DocumentTest::Regex),
        pattern().prop_map(DocumentTest::NotRegex),
    ]
}

/// A filter of a few levels.
pub fn filter() -> impl Strategy<Value = Filter> {
    let special = select(vec!["chroma:document", "chroma:uri", "#id"]).prop_map(str::to_owned);
    let leaf = prop_oneof![
        6 => (key(), metadata_test()).prop_map(|(key, test)| Filter::Metadata { key, test }),
        1 => (special, metadata_test()).prop_map(|(key, test)| Filter::Metadata { key, test }),
        2 => document_test().prop_map(Filter::Document),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Filter::And), vec(inner, 0..4).prop_map(Filter::Or)]
    })
}

/// The model: records in a list, in order.
#[derive(Clone, Debug, Default)]
pub struct Plain(pub Vec<Record>);

impl Plain {
    /// Applies the next operation of the log.
    pub fn apply(&mut self, operation: Operation) {
        let at = self.0.iter().position(|record| record.id == operation.id);
        match (operation.kind, at) {
            (OperationKind::Delete, Some(at)) => drop(self.0.remove(at)),
            (OperationKind::Delete | OperationKind::Update, None) | (OperationKind::Add, Some(_)) => {}
            (_, at) => {
                let (id, metadata) = (operation.id.clone(), None);
                let blank = Record { id, embedding: vec![], document: None, uri: None, metadata };
                let at = at.unwrap_or_else(|| {
                    self.0.push(blank);
                    self.0.len() - 1
                });
                Self::change(&mut self.0[at], operation);
            }
        }
    }

    fn change(record: &mut Record, operation: Operation) {
        record.embedding = operation.embedding.unwrap_or(std::mem::take(&mut record.embedding));
        record.document = operation.document.or(record.document.take());
        record.uri = operation.uri.or(record.uri.take());
        let mut metadata = record.metadata.take().unwrap_or_default();
        apply_patch(&mut metadata, operation.metadata.unwrap_or_default());
        record.metadata = (!metadata.is_empty()).then_some(metadata);
    }

    fn select<'a>(&'a self, ids: &Option<Vec<String>>, filter: &Option<Filter>) -> Vec<&'a Record> {
        let is_named = |record: &Record| ids.as_ref().is_none_or(|ids| ids.contains(&record.id.0));
        let filter = filter.as_ref().map(|filter| CompiledFilter::compile(filter).unwrap());
        let passes = |record: &Record| filter.as_ref().is_none_or(|filter| filter.matches(record));
        self.0.iter().filter(|record| is_named(record) && passes(record)).collect()
    }

    /// Hits and count, as of [`crate::Overlay::answer`].
    pub fn answer(&self, space: Space, read: &Read) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
        match read {
            Read::Count => Ok((vec![], self.0.len() as u64)),
            Read::Get { ids, filter, limit, offset, include } => {
                let mut records = self.select(ids, filter);
                records.drain(..records.len().min(count(*offset)));
                records.truncate(limit.map_or(usize::MAX, count));
                Ok((vec![records.into_iter().map(|record| hit(record, None, *include)).collect()], 0))
            }
            Read::Match { ids, filter, limit } => {
                let mut records = self.select(ids, filter);
                records.truncate(limit.map_or(usize::MAX, count));
                let hits: Vec<Hit> = records.into_iter().map(|r| hit(r, None, Include::default())).collect();
                Ok((vec![hits.clone()], hits.len() as u64))
            }
            Read::Query { vectors, n_results, ids, filter, include } => {
                let unknown = |id: &String| !self.0.iter().any(|record| record.id.0 == *id);
                if filter.is_none() && ids.iter().flatten().any(unknown) {
                    return Err(PlanError::UnknownId);
                }
                let records = self.select(ids, filter);
                let rank = |vector: &Vec<f32>| {
                    let distance = |r: &Record| Measure::new(space, vector).distance(&r.embedding);
                    let mut hits: Vec<Hit> = records.iter().map(|r| hit(r, Some(distance(r)), *include)).collect();
                    hits.sort_by(|a, b| a.distance.unwrap().total_cmp(&b.distance.unwrap()));
                    hits.truncate(count(*n_results));
                    hits
                };
                Ok((vectors.iter().map(rank).collect(), 0))
            }
            Read::Rank { text, words, n_results, ids, filter, include } => {
                assert_eq!(*words, Words::default(), "a model without languages");
                let scores = self.scores(text);
                let records = self.select(ids, filter).into_iter();
                let mut hits: Vec<(f64, &Record)> =
                    records.filter_map(|record| Some((*scores.get(&record.id.0)?, record))).collect();
                hits.sort_by(|a, b| b.0.total_cmp(&a.0));
                hits.truncate(count(*n_results));
                #[expect(clippy::cast_possible_truncation, reason = "scores are small")]
                let hits = hits.into_iter().map(|(score, record)| hit(record, Some(-score as f32), *include));
                Ok((vec![hits.collect()], 0))
            }
        }
    }

    /// [`bm25`] of the records whose documents have any word of `text`, by id.
    fn scores(&self, text: &str) -> BTreeMap<String, f64> {
        let scores = bm25(self.0.iter().map(|record| record.document.as_deref()), text);
        let all = self.0.iter().map(|record| record.id.0.clone()).zip(scores);
        all.filter(|(_, score)| *score > 0.0).collect()
    }
}

/// BM25 of documents for the words of `text`: the formula of Robertson and others, with k1 = 1.2 and b = 0.75. Those without a
/// document count as well.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub fn bm25<'d>(documents: impl Iterator<Item = Option<&'d str>>, text: &str) -> Vec<f64> {
    let documents: Vec<Vec<String>> = documents.map(|document| cut(document.unwrap_or(""))).collect();
    let keywords: BTreeSet<String> = cut(text).into_iter().collect();
    let mean = documents.iter().map(Vec::len).sum::<usize>() as f64 / documents.len() as f64;
    let of_word = |document: &Vec<String>, keyword: &String| {
        let times = document.iter().filter(|word| *word == keyword).count() as f64;
        let having = documents.iter().filter(|document| document.contains(keyword)).count() as f64;
        let rarity = (1.0 + (documents.len() as f64 - having + 0.5) / (having + 0.5)).ln();
        let length = 1.2 * (0.25 + 0.75 * document.len() as f64 / mean);
        if times == 0.0 { 0.0 } else { rarity * 2.2 * times / (times + length) }
    };
    let score = |document: &Vec<String>| keywords.iter().map(|keyword| of_word(document, keyword)).sum::<f64>();
    documents.iter().map(score).collect()
}

/// The words of `text`, in lower case.
fn cut(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

fn hit(record: &Record, distance: Option<f32>, include: Include) -> Hit {
    Hit {
        id: record.id.0.clone(),
        distance,
        embedding: if include.embeddings { Some(record.embedding.clone()) } else { None },
        document: if include.documents { record.document.clone() } else { None },
        uri: if include.uris { record.uri.clone() } else { None },
        metadata: if include.metadatas {
            record.metadata.clone().or_else(|| record.uri.as_ref().map(|_| Metadata::new()))
        } else {
            None
        },
    }
}

/// Any choice of fields.
pub fn include() -> impl Strategy<Value = Include> {
    any::<[bool; 4]>().prop_map(|[embeddings, documents, uris, metadatas]| Include {
        embeddings,
        documents,
        uris,
        metadatas,
    })
}

/// A few of the words that documents have, and others; any choice among records.
pub fn rank() -> impl Strategy<Value = Read> {
    ("[abä\n ]{0,6}", 0u64..8, option::of(vec(id(), 0..5)), option::of(filter()), include()).prop_map(
        |(text, n_results, ids, filter, include)| {
            let words = Words::default();
            Read::Rank { text, words, n_results, ids, filter, include }
        },
    )
}

/// Any read but a rank, which is no overlay's to answer.
pub fn read() -> impl Strategy<Value = Read> {
    let ids = || option::of(vec(id(), 0..5));
    let filter = || option::of(filter());
    let limit = || option::of(0u64..8);
    let get = (ids(), filter(), limit(), 0u64..8, include())
        .prop_map(|(ids, filter, limit, offset, include)| Read::Get { ids, filter, limit, offset, include });
    let matching = (ids(), filter(), limit()).prop_map(|(ids, filter, limit)| Read::Match { ids, filter, limit });
    let query = (vec(vector(), 0..3), 0u64..8, ids(), filter(), include()).prop_map(
        |(vectors, n_results, ids, filter, include)| Read::Query { vectors, n_results, ids, filter, include },
    );
    prop_oneof![1 => Just(Read::Count), 3 => get, 2 => matching, 4 => query]
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
