//! Plans and answers cross from one Worker to another as JSON: what is read is what was said, to the bit.

use super::*;
use crate::testing;
use proptest::prelude::*;

fn plan(filter: Option<Filter>, vectors: Vec<Vec<f32>>) -> QueryPlan {
    let source = Source {
        collection: CollectionId::from_u128(7),
        generation: 3,
        manifest: Manifest::default(),
        dimension: Some(2),
        space: Space::Cosine,
        ef_search: 200,
    };
    let include = Include { embeddings: true, ..Include::default() };
    QueryPlan {
        source,
        read: Read::Query { vectors, n_results: u64::MAX, ids: None, filter, include },
        level: ReadLevel::default(),
        explain: true,
    }
}

#[track_caller]
fn check_crosses<T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug>(value: &T) {
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value, "{json}");
}

/// Levels of a filter that fit into a plan: the JSON parser reads 127 levels, one of a filter takes two of them, and
/// the plan around it and the leaf a few more.
const FILTER_LEVELS: usize = 56;

#[test]
fn deep_filters_cross() {
    let mut filter = Filter::Metadata { key: "k".into(), test: model::MetadataTest::In(vec![model::Scalar::Int(1)]) };
    for _ in 1..FILTER_LEVELS {
        filter = Filter::And(vec![filter]);
    }
    check_crosses(&plan(Some(filter), vec![]));
}

#[test]
fn vectors_that_are_not_base64_of_floats_are_refused() {
    for vector in ["AAA=", "?", "AAAAAAAA="] {
        assert!(serde_json::from_str::<Hit>(&format!(r#"{{"id":"a","embedding":"{vector}"}}"#)).is_err());
    }
}

proptest! {
    #[test]
    fn plans_and_answers_cross_unchanged(
        filter in testing::filter(),
        numbers in prop::collection::vec(any::<i32>().prop_map(|n| n as f32 * 1e-7), 3),
        distance in (0u32..0x7f80_0000).prop_map(f32::from_bits),
        record in testing::record(),
    ) {
        check_crosses(&plan(Some(filter), vec![numbers.clone(), vec![]]));
        let hit = Hit {
            id: record.id.0,
            distance: Some(distance),
            embedding: Some(numbers),
            document: record.document,
            uri: None,
            metadata: record.metadata,
        };
        check_crosses(&Answer { end: LogEnd::EMPTY, hits: vec![vec![hit]], count: 1, explain: Some(Explain::default()) });
    }
}
