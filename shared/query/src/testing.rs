//! Random values for this crate's property tests: few ids, keys and words, so that they meet.

use model::{
    Comparison, DocumentTest, Filter, Metadata, MetadataTest, MetadataValue, Operation, OperationKind, Record,
    RecordId, Scalar, SparseVector,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Length of every vector made here.
pub(crate) const DIMENSION: u32 = 3;

/// One of a dozen ids.
pub(crate) fn id() -> impl Strategy<Value = String> {
    (0..12).prop_map(|n| format!("id{n}"))
}

/// A vector with small coordinates, so that distances tie.
pub(crate) fn vector() -> impl Strategy<Value = Vec<f32>> {
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
pub(crate) fn record() -> impl Strategy<Value = Record> {
    let metadata = btree_map(key(), value(), 0..4).prop_map(|map: Metadata| (!map.is_empty()).then_some(map));
    (id(), vector(), option::of(text()), option::of(text()), metadata).prop_map(
        |(id, embedding, document, uri, metadata)| Record { id: RecordId(id), embedding, document, uri, metadata },
    )
}

/// Any operation that the gateway lets through, most of them insertions.
pub(crate) fn operation() -> impl Strategy<Value = Operation> {
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
pub(crate) fn filter() -> impl Strategy<Value = Filter> {
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
