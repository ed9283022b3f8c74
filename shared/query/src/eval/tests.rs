//! Cases from Chroma's documented behaviour, a line each; then random filters on random records against a second
//! evaluator, written from the same page but differently: it decides each operator by itself instead of negating, and
//! compares numbers as fixed-point fractions in i128.

use super::*;
use crate::testing;
use model::Record;
use proptest::prelude::*;

#[track_caller]
fn check(record: &Record, filter: &Filter, expect: bool) {
    assert_eq!(CompiledFilter::compile(filter).unwrap().matches(record), expect, "{filter:?} of {record:?}");
}

fn record(metadata: &str) -> Record {
    Record {
        id: "a".into(),
        embedding: vec![1.0],
        document: Some("The quick\nbrown fox".into()),
        uri: Some("s3://a/b".into()),
        metadata: serde_json::from_str(metadata).unwrap(),
    }
}

/// `test` in JSON, as it crosses the wire.
fn on(key: &str, test: &str) -> Filter {
    Filter::Metadata { key: key.into(), test: serde_json::from_str(test).unwrap() }
}

#[track_caller]
fn check_value(value: &str, test: &str, expect: bool) {
    check(&record(&format!(r#"{{"k":{value}}}"#)), &on("k", test), expect);
}

#[test]
fn missing_keys_and_other_types_pass_negated_tests_only() {
    for operator in ["eq", "gt", "gte", "lt", "lte"] {
        check(&record("{}"), &on("k", &format!(r#"{{"compare":["{operator}",{{"int":1}}]}}"#)), false);
        check_value(r#""1""#, &format!(r#"{{"compare":["{operator}",{{"int":1}}]}}"#), false);
        check_value("[1]", &format!(r#"{{"compare":["{operator}",{{"int":1}}]}}"#), false);
    }
    for (test, expect) in [("in", false), ("not_in", true)] {
        check(&record("{}"), &on("k", &format!(r#"{{"{test}":[{{"int":1}}]}}"#)), expect);
        check_value("true", &format!(r#"{{"{test}":[{{"int":1}}]}}"#), expect);
        check_value("[1]", &format!(r#"{{"{test}":[{{"int":1}}]}}"#), expect);
    }
    for (test, expect) in [("contains", false), ("not_contains", true)] {
        check(&record("{}"), &on("k", &format!(r#"{{"{test}":{{"int":1}}}}"#)), expect);
        check_value("1", &format!(r#"{{"{test}":{{"int":1}}}}"#), expect);
        check_value("[1.0]", &format!(r#"{{"{test}":{{"int":1}}}}"#), expect);
        check_value("[2,1]", &format!(r#"{{"{test}":{{"int":1}}}}"#), !expect);
    }
    check(&record("{}"), &on("k", r#"{"compare":["ne",{"int":1}]}"#), true);
    check_value("[1]", r#"{"compare":["ne",{"int":1}]}"#, true);
    check_value("true", r#"{"compare":["ne",{"int":1}]}"#, true);
}

#[test]
fn numbers_compare_by_value() {
    check_value("1", r#"{"compare":["eq",{"float":1.0}]}"#, true);
    check_value("1.0", r#"{"in":[{"int":2},{"int":1}]}"#, true);
    check_value("1", r#"{"in":[{"float":1.0}]}"#, true);
    check_value("1", r#"{"compare":["lt",{"float":1.5}]}"#, true);
    check_value("-1", r#"{"compare":["gt",{"float":-1.5}]}"#, true);
    check_value("-0.0", r#"{"in":[{"int":0}]}"#, true);
    check_value("true", r#"{"compare":["eq",{"int":1}]}"#, false);
    check_value(r#""1""#, r#"{"compare":["eq",{"int":1}]}"#, false);
    check_value("[1.5,2]", r#"{"contains":{"float":2.0}}"#, true);
}

#[track_caller]
fn check_order(int: i64, float: f64, expect: Option<Ordering>) {
    assert_eq!(numeric_order(Value::Int(int), Value::Float(float)), expect, "{int} and {float}");
    assert_eq!(numeric_order(Value::Float(float), Value::Int(int)), expect.map(Ordering::reverse), "{float} and {int}");
}

#[test]
fn large_numbers_are_not_rounded() {
    use Ordering::{Equal, Greater, Less};
    check_order(i64::MAX, TWO_63, Some(Less));
    check_order(i64::MAX, TWO_63.next_down(), Some(Greater));
    check_order(i64::MIN, -TWO_63, Some(Equal));
    check_order(i64::MIN, (-TWO_63).next_down(), Some(Greater));
    check_order(i64::MIN, (-TWO_63).next_up(), Some(Less));
    check_order((1 << 53) + 1, 9_007_199_254_740_992.0, Some(Greater));
    check_order(0, f64::MIN_POSITIVE, Some(Less));
    check_order(0, -f64::from_bits(1), Some(Greater));
    check_order(0, -0.0, Some(Equal));
    check_order(0, f64::INFINITY, Some(Less));
    check_order(0, f64::NEG_INFINITY, Some(Greater));
    check_order(0, f64::NAN, None);
}

/// Chroma's single-node server cuts a float to an integer before it compares it with one.
#[test]
fn a_float_is_not_cut_to_compare_it_with_an_integer() {
    let zero = record(r#"{"n":0}"#);
    let test = |json: &str| Filter::Metadata { key: "n".into(), test: serde_json::from_str(json).unwrap() };
    check(&zero, &test(r#"{"compare":["eq",{"float":0.5}]}"#), false);
    check(&zero, &test(r#"{"compare":["lt",{"float":0.5}]}"#), true);
    check(&zero, &test(r#"{"compare":["gte",{"float":0.5}]}"#), false);
    check(&zero, &test(r#"{"compare":["ne",{"float":1e-300}]}"#), true);
    check(&zero, &test(r#"{"in":[{"float":0.5},{"float":-0.5}]}"#), false);
    let most = record(r#"{"n":9223372036854775807}"#);
    check(&most, &test(r#"{"compare":["eq",{"float":1e300}]}"#), false);
}

#[test]
fn document_tests_are_exact() {
    let text = |json: &str| Filter::Document(serde_json::from_str(json).unwrap());
    let stored = record("{}");
    check(&stored, &text(r#"{"contains":"quick"}"#), true);
    check(&stored, &text(r#"{"contains":"Quick"}"#), false);
    check(&stored, &text(r#"{"contains":"qu%k"}"#), false);
    check(&stored, &text(r#"{"contains":""}"#), true);
    check(&stored, &text(r#"{"not_contains":""}"#), false);
    check(&stored, &text(r#"{"regex":"quick.brown"}"#), false);
    check(&stored, &text(r#"{"regex":"(?s)quick.brown"}"#), true);
    check(&stored, &text(r#"{"regex":"(?i)QUICK"}"#), true);
    check(&stored, &text(r#"{"not_regex":"^quick"}"#), true);
    let bare = Record { document: None, ..stored };
    check(&bare, &text(r#"{"contains":""}"#), false);
    check(&bare, &text(r#"{"not_contains":""}"#), true);
    check(&bare, &text(r#"{"regex":""}"#), false);
    check(&bare, &text(r#"{"not_regex":"x"}"#), true);
}

#[test]
fn special_keys_name_document_and_uri() {
    let stored = record(r#"{"chroma:document":"hidden"}"#);
    check(&stored, &on("chroma:document", r#"{"compare":["eq",{"str":"The quick\nbrown fox"}]}"#), true);
    check(&stored, &on("chroma:document", r#"{"compare":["eq",{"str":"hidden"}]}"#), false);
    check(&stored, &on("chroma:uri", r#"{"in":[{"str":"s3://a/b"}]}"#), true);
    check(&stored, &on("chroma:uri", r#"{"contains":{"str":"s3"}}"#), false);
    check(&stored, &on("chroma:uri", r#"{"not_contains":{"str":"s3"}}"#), true);
    check(&stored, &on("#id", r#"{"compare":["eq",{"str":"a"}]}"#), false);
}

#[test]
fn empty_and_holds_empty_or_does_not() {
    check(&record("{}"), &Filter::And(vec![]), true);
    check(&record("{}"), &Filter::Or(vec![]), false);
}

#[track_caller]
fn check_error(pattern: &str, expect: &str) {
    let filter = Filter::And(vec![Filter::Document(DocumentTest::NotRegex(pattern.into()))]);
    let error = CompiledFilter::compile(&filter).unwrap_err().to_string();
    assert!(error.starts_with(expect), "{pattern}: {error}");
}

#[test]
fn bad_patterns_are_explained() {
    check_error("(?=x)", "Regex syntax errror: regex parse error:");
    check_error(r"(a)\1", "Regex syntax errror: regex parse error:");
    check_error("(", "Regex syntax errror: regex parse error:");
    check_error(r"\w{1000}", "Regex too large: ");
}

/// The second evaluator.
fn naive(filter: &Filter, record: &Record) -> bool {
    match filter {
        Filter::And(filters) => !filters.iter().any(|filter| !naive(filter, record)),
        Filter::Or(filters) => filters.iter().filter(|filter| naive(filter, record)).count() > 0,
        Filter::Metadata { key, test } => naive_test(&naive_value(key, record), test),
        Filter::Document(test) => match (test, &record.document) {
            (DocumentTest::Contains(_) | DocumentTest::Regex(_), None) => false,
            (DocumentTest::NotContains(_) | DocumentTest::NotRegex(_), None) => true,
            (DocumentTest::Contains(text), Some(document)) => naive_find(document, text),
            (DocumentTest::NotContains(text), Some(document)) => !naive_find(document, text),
            (DocumentTest::Regex(pattern), Some(document)) => Regex::new(pattern).unwrap().is_match(document),
            (DocumentTest::NotRegex(pattern), Some(document)) => !Regex::new(pattern).unwrap().is_match(document),
        },
    }
}

fn naive_find(document: &str, text: &str) -> bool {
    (0..=document.len()).any(|at| document.as_bytes()[at..].starts_with(text.as_bytes()))
}

fn naive_value(key: &str, record: &Record) -> Option<MetadataValue> {
    match key {
        "chroma:document" => record.document.clone().map(MetadataValue::Str),
        "chroma:uri" => record.uri.clone().map(MetadataValue::Str),
        _ => record.metadata.as_ref()?.get(key).cloned(),
    }
}

fn naive_test(value: &Option<MetadataValue>, test: &MetadataTest) -> bool {
    let order = |operand: &Scalar| value.as_ref().and_then(|value| naive_order(value, operand));
    match test {
        MetadataTest::Compare(Comparison::Eq, operand) => order(operand) == Some(Ordering::Equal),
        MetadataTest::Compare(Comparison::Ne, operand) => order(operand) != Some(Ordering::Equal),
        MetadataTest::Compare(_, Scalar::Bool(_) | Scalar::Str(_)) => false,
        MetadataTest::Compare(comparison, operand) => order(operand).is_some_and(|order| match comparison {
            Comparison::Gt => order == Ordering::Greater,
            Comparison::Gte => order != Ordering::Less,
            Comparison::Lt => order == Ordering::Less,
            _ => order != Ordering::Greater,
        }),
        MetadataTest::In(operands) => operands.iter().any(|operand| order(operand) == Some(Ordering::Equal)),
        MetadataTest::NotIn(operands) => operands.iter().all(|operand| order(operand) != Some(Ordering::Equal)),
        MetadataTest::Contains(element) => value.as_ref().is_some_and(|value| naive_elements(value).contains(element)),
        MetadataTest::NotContains(element) => {
            value.is_none() || !naive_elements(value.as_ref().unwrap()).contains(element)
        }
    }
}

fn naive_elements(value: &MetadataValue) -> Vec<Scalar> {
    match value.clone() {
        MetadataValue::Bools(elements) => elements.into_iter().map(Scalar::Bool).collect(),
        MetadataValue::Ints(elements) => elements.into_iter().map(Scalar::Int).collect(),
        MetadataValue::Floats(elements) => elements.into_iter().map(Scalar::Float).collect(),
        MetadataValue::Strs(elements) => elements.into_iter().map(Scalar::Str).collect(),
        _ => vec![],
    }
}

fn naive_order(value: &MetadataValue, operand: &Scalar) -> Option<Ordering> {
    match (value, operand) {
        (MetadataValue::Bool(a), Scalar::Bool(b)) => Some(a.cmp(b)),
        (MetadataValue::Str(a), Scalar::Str(b)) => Some(a.cmp(b)),
        (MetadataValue::Float(a), Scalar::Float(b)) => a.partial_cmp(b),
        (MetadataValue::Int(a), Scalar::Int(b)) => Some(int_units(*a).cmp(&int_units(*b))),
        (MetadataValue::Int(a), Scalar::Float(b)) => Some(int_units(*a).cmp(&float_units(*b))),
        (MetadataValue::Float(a), Scalar::Int(b)) => Some(float_units(*a).cmp(&int_units(*b))),
        _ => None,
    }
}

/// An integer in units of 2⁻⁶⁰.
fn int_units(int: i64) -> i128 {
    i128::from(int) << 60
}

/// A float in units of 2⁻⁶⁰ (the test's floats have no finer bits); beyond `i64` one is as good as another.
#[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^125")]
fn float_units(float: f64) -> i128 {
    let scaled = float.clamp(-2_f64.powi(64), 2_f64.powi(64)) * 2_f64.powi(60);
    assert_eq!(scaled.fract(), 0.0, "{float} is not a multiple of the unit");
    scaled as i128
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn filters_agree_with_a_second_evaluator(record in testing::record(), filter in testing::filter()) {
        prop_assert_eq!(CompiledFilter::compile(&filter).unwrap().matches(&record), naive(&filter, &record));
    }
}
