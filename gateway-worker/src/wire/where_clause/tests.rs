//! Both clauses: what each operator becomes, and everything that is refused. A case is a line.

use super::*;
use serde_json::json;

#[track_caller]
fn check(clause: &str, expect: Filter) {
    let clause = serde_json::from_str(clause).expect("the test's own JSON");
    assert_eq!(parse(Some(&clause), None), Ok(Some(expect)));
}

#[track_caller]
fn check_document(clause: &str, expect: Filter) {
    let clause = serde_json::from_str(clause).expect("the test's own JSON");
    assert_eq!(parse(None, Some(&clause)), Ok(Some(expect)));
}

fn compare(comparison: Comparison, scalar: Scalar) -> Filter {
    metadata("k", MetadataTest::Compare(comparison, scalar))
}

fn text(text: &str) -> Scalar {
    Scalar::Str(text.into())
}

#[test]
fn comparisons() {
    check(r#"{"k":1}"#, compare(Comparison::Eq, Scalar::Int(1)));
    check(r#"{"k":1.0}"#, compare(Comparison::Eq, Scalar::Float(1.0)));
    check(r#"{"k":"x"}"#, compare(Comparison::Eq, text("x")));
    check(r#"{"k":{"$eq":true}}"#, compare(Comparison::Eq, Scalar::Bool(true)));
    check(r#"{"k":{"$ne":"x"}}"#, compare(Comparison::Ne, text("x")));
    check(r#"{"k":{"$gt":1}}"#, compare(Comparison::Gt, Scalar::Int(1)));
    check(r#"{"k":{"$gte":1.5}}"#, compare(Comparison::Gte, Scalar::Float(1.5)));
    check(r#"{"k":{"$lt":-1}}"#, compare(Comparison::Lt, Scalar::Int(-1)));
    check(r#"{"k":{"$lte":1e20}}"#, compare(Comparison::Lte, Scalar::Float(1e20)));
    check(r#"{"k":-9223372036854775808}"#, compare(Comparison::Eq, Scalar::Int(i64::MIN)));
    check(r#"{"k":100000000000000000000}"#, compare(Comparison::Eq, Scalar::Float(1e20)));
}

#[test]
fn any_key_may_be_asked_for() {
    for key in ["", "#x", "#id", "#embedding", "chroma:document", "chroma:uri", "#document"] {
        let clause = json!({ key: 1 });
        let expect = metadata(key, MetadataTest::Compare(Comparison::Eq, Scalar::Int(1)));
        assert_eq!(parse(Some(&clause), None), Ok(Some(expect)));
    }
}

#[test]
fn lists_have_the_type_of_their_first_element() {
    check(r#"{"k":{"$in":[1,2]}}"#, metadata("k", MetadataTest::In(vec![Scalar::Int(1), Scalar::Int(2)])));
    check(r#"{"k":{"$in":[1.5,1]}}"#, metadata("k", MetadataTest::In(vec![Scalar::Float(1.5), Scalar::Float(1.0)])));
    check(r#"{"k":{"$nin":["a"]}}"#, metadata("k", MetadataTest::NotIn(vec![text("a")])));
    check(
        r#"{"k":{"$nin":[true,false]}}"#,
        metadata("k", MetadataTest::NotIn(vec![Scalar::Bool(true), Scalar::Bool(false)])),
    );
}

#[test]
fn elements_of_arrays() {
    check(r#"{"k":{"$contains":1.0}}"#, metadata("k", MetadataTest::Contains(Scalar::Float(1.0))));
    check(r#"{"k":{"$not_contains":"x"}}"#, metadata("k", MetadataTest::NotContains(text("x"))));
}

#[test]
fn the_document_within_where() {
    check(r##"{"#document":{"$contains":"x"}}"##, Filter::Document(DocumentTest::Contains("x".into())));
    check(r##"{"#document":{"$not_contains":""}}"##, Filter::Document(DocumentTest::NotContains(String::new())));
    check(r##"{"#document":{"$regex":"("}}"##, Filter::Document(DocumentTest::Regex("(".into())));
    check(r##"{"#document":{"$not_regex":"x"}}"##, Filter::Document(DocumentTest::NotRegex("x".into())));
}

#[test]
fn junctions_nest() {
    check(r#"{"$and":[]}"#, Filter::And(vec![]));
    check(r#"{"$or":[{"k":1}]}"#, Filter::Or(vec![compare(Comparison::Eq, Scalar::Int(1))]));
    check(
        r#"{"$and":[{"$or":[]},{"k":1}]}"#,
        Filter::And(vec![Filter::Or(vec![]), compare(Comparison::Eq, Scalar::Int(1))]),
    );
    check_document(
        r#"{"$or":[{"$contains":"a"}]}"#,
        Filter::Or(vec![Filter::Document(DocumentTest::Contains("a".into()))]),
    );
}

#[test]
fn both_clauses_must_hold() {
    assert_eq!(parse(None, None), Ok(None));
    let filter = parse(Some(&json!({"k": 1})), Some(&json!({"$regex": "a.b"})));
    let document = Filter::Document(DocumentTest::Regex("a.b".into()));
    assert_eq!(filter, Ok(Some(Filter::And(vec![compare(Comparison::Eq, Scalar::Int(1)), document]))));
}

#[test]
fn malformed_where_is_refused() {
    let clauses = [
        json!({}),
        json!([]),
        json!("x"),
        json!(3),
        json!(true),
        json!(null),
        json!({"a": null}),
        json!({"a": 1, "b": 2}),
        json!({"a": {}}),
        json!({"a": {"$eq": 1, "$ne": 2}}),
        json!({"a": {"$foo": 1}}),
        json!({"$not": {"a": 1}}),
        json!({"a": [1]}),
        json!({"a": {"$eq": [1]}}),
        json!({"a": {"$eq": null}}),
        json!({"a": {"$gt": "x"}}),
        json!({"a": {"$lte": true}}),
        json!({"a": {"$in": []}}),
        json!({"a": {"$in": [1, 1.5]}}),
        json!({"a": {"$in": [1, "x"]}}),
        json!({"a": {"$in": ["x", 1]}}),
        json!({"a": {"$in": [true, 1]}}),
        json!({"a": {"$in": [null]}}),
        json!({"a": {"$in": [[1]]}}),
        json!({"a": {"$in": 1}}),
        json!({"a": {"$nin": []}}),
        json!({"a": {"$contains": [1]}}),
        json!({"a": {"$contains": null}}),
        json!({"a": {"$regex": "x"}}),
        json!({"$and": {}}),
        json!({"$and": [{}]}),
        json!({"$and": null}),
        json!({"$and": [], "$or": []}),
        json!({"#document": {"$contains": 1}}),
        json!({"$contains": "x"}),
        json!({"$foo": "x"}),
        json!({"a": u64::MAX}),
        json!({"a": {"$in": [u64::MAX]}}),
        json!({"a": {"$in": [1, u64::MAX]}}),
        json!({"a": {"$eq": {"#type": "sparse_vector", "indices": [1], "values": [1.0]}}}),
    ];
    for clause in clauses {
        assert_eq!(parse(Some(&clause), None), Err(ApiError::invalid_argument("Invalid where clause")), "{clause}");
    }
}

#[test]
fn malformed_where_document_is_refused() {
    let clauses = [
        json!({}),
        json!([]),
        json!("x"),
        json!({"$contains": 1}),
        json!({"$contains": "x", "$regex": "y"}),
        json!({"$foo": "x"}),
        json!({"$and": {}}),
        json!({"$eq": "x"}),
        json!({"$contains": null}),
        json!({"i": 1}),
        json!({"$and": [{"i": 1}]}),
        json!({"$contains": ["x"]}),
        json!({"#document": {"$contains": "x"}}),
    ];
    for clause in clauses {
        let expect = Err(ApiError::invalid_argument("Invalid where document clause"));
        assert_eq!(parse(None, Some(&clause)), expect, "{clause}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| (1..depth).fold(json!({"k": 1}), |clause, _| json!({ "$and": [clause] }));
    assert!(parse(Some(&nested(limits::FILTER_DEPTH_MAX)), None).is_ok());
    assert!(parse(Some(&nested(limits::FILTER_DEPTH_MAX + 1)), None).is_err());
    let document = json!({"$contains": "x"});
    assert!(parse(Some(&nested(limits::FILTER_DEPTH_MAX - 1)), Some(&document)).is_ok());
    assert!(parse(Some(&nested(limits::FILTER_DEPTH_MAX)), Some(&document)).is_err());
}

#[test]
fn regular_expressions_are_bounded() {
    let with = |count: usize| json!({ "$or": vec![json!({"$regex": "x"}); count] });
    assert!(parse(None, Some(&with(limits::FILTER_REGEXES_MAX))).is_ok());
    let error = parse(None, Some(&with(limits::FILTER_REGEXES_MAX + 1))).expect_err("one too many");
    assert!(error.message.contains("at most 16 regular expressions"), "{error:?}");
}
