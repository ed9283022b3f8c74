//! `where` and `where_document` to a [`Filter`].
//!
//! What comes out is well-formed: bounded depth, orders over numbers only, lists non-empty and of one type. Whether its
//! regular expressions compile is for the query crate to say (`CompiledFilter::compile`, answered 400), and whether its
//! keys may be filtered for the collection's schema ([`super::schema::check_filter`]).

use super::ApiError;
use model::{Comparison, DocumentTest, Filter, MetadataTest, Scalar, limits};
use serde_json::{Map, Value};

#[cfg(test)]
mod tests;

/// The filter of a request; `None` if neither clause is given.
///
/// - `clause`, `document_clause`: the members `where` and `where_document`, `None` if absent or null.
///
/// Errors: 400 "Invalid where clause", 400 "Invalid where document clause", 400 for more than
/// [`limits::FILTER_REGEXES_MAX`] regular expressions.
pub fn parse(clause: Option<&Value>, document_clause: Option<&Value>) -> Result<Option<Filter>, ApiError> {
    let invalid = |what: &'static str| move || ApiError::invalid_argument(what);
    // Joining the two takes a level of its own.
    let depth = if clause.is_some() && document_clause.is_some() { 2 } else { 1 };
    let metadata =
        clause.map(|clause| metadata_clause(clause, depth).ok_or_else(invalid("Invalid where clause"))).transpose()?;
    let document = document_clause
        .map(|clause| self::document_clause(clause, depth).ok_or_else(invalid("Invalid where document clause")))
        .transpose()?;
    let filter = match (metadata, document) {
        (Some(metadata), Some(document)) => Some(Filter::And(vec![metadata, document])),
        (metadata, document) => metadata.or(document),
    };
    if filter.as_ref().is_some_and(|filter| regexes(filter) > limits::FILTER_REGEXES_MAX) {
        let max = limits::FILTER_REGEXES_MAX;
        return Err(ApiError::invalid_argument(format!("A filter can have at most {max} regular expressions")));
    }
    Ok(filter)
}

/// How many regular expressions a filter has.
fn regexes(filter: &Filter) -> usize {
    match filter {
        Filter::And(filters) | Filter::Or(filters) => filters.iter().map(regexes).sum(),
        Filter::Document(DocumentTest::Regex(_) | DocumentTest::NotRegex(_)) => 1,
        Filter::Document(_) | Filter::Metadata { .. } => 0,
    }
}

fn metadata_clause(clause: &Value, depth: usize) -> Option<Filter> {
    let (key, value) = only_member(clause.as_object()?)?;
    match key {
        "$and" => clauses(value, depth, metadata_clause).map(Filter::And),
        "$or" => clauses(value, depth, metadata_clause).map(Filter::Or),
        _ if key.starts_with('$') => None,
        _ => match value {
            Value::Object(test) => key_test(key, only_member(test)?),
            literal => Some(metadata(key, MetadataTest::Compare(Comparison::Eq, scalar(literal)?))),
        },
    }
}

fn document_clause(clause: &Value, depth: usize) -> Option<Filter> {
    match only_member(clause.as_object()?)? {
        ("$and", value) => clauses(value, depth, document_clause).map(Filter::And),
        ("$or", value) => clauses(value, depth, document_clause).map(Filter::Or),
        (operator, operand) => document_test(operator, operand).map(Filter::Document),
    }
}

fn clauses(list: &Value, depth: usize, clause: fn(&Value, usize) -> Option<Filter>) -> Option<Vec<Filter>> {
    if depth >= limits::FILTER_DEPTH_MAX {
        return None;
    }
    list.as_array()?.iter().map(|value| clause(value, depth + 1)).collect()
}

fn only_member(object: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut members = object.iter();
    match (members.next(), members.next()) {
        (Some((key, value)), None) => Some((key, value)),
        _ => None,
    }
}

/// `{"key": {"$op": operand}}`. On `#document` text operators search the document; all others see a metadata key.
fn key_test(key: &str, (operator, operand): (&str, &Value)) -> Option<Filter> {
    if key == "#document"
        && let Some(test) = document_test(operator, operand)
    {
        return Some(Filter::Document(test));
    }
    let test = match operator {
        "$eq" => MetadataTest::Compare(Comparison::Eq, scalar(operand)?),
        "$ne" => MetadataTest::Compare(Comparison::Ne, scalar(operand)?),
        "$gt" => MetadataTest::Compare(Comparison::Gt, number(operand)?),
        "$gte" => MetadataTest::Compare(Comparison::Gte, number(operand)?),
        "$lt" => MetadataTest::Compare(Comparison::Lt, number(operand)?),
        "$lte" => MetadataTest::Compare(Comparison::Lte, number(operand)?),
        "$in" => MetadataTest::In(list(operand)?),
        "$nin" => MetadataTest::NotIn(list(operand)?),
        // The document has no elements, so its `$contains` takes text only.
        "$contains" if key != "#document" => MetadataTest::Contains(scalar(operand)?),
        "$not_contains" if key != "#document" => MetadataTest::NotContains(scalar(operand)?),
        _ => return None,
    };
    Some(metadata(key, test))
}

fn metadata(key: &str, test: MetadataTest) -> Filter {
    Filter::Metadata { key: key.to_owned(), test }
}

fn document_test(operator: &str, operand: &Value) -> Option<DocumentTest> {
    let text = operand.as_str()?.to_owned();
    match operator {
        "$contains" => Some(DocumentTest::Contains(text)),
        "$not_contains" => Some(DocumentTest::NotContains(text)),
        "$regex" => Some(DocumentTest::Regex(text)),
        "$not_regex" => Some(DocumentTest::NotRegex(text)),
        _ => None,
    }
}

/// A literal. Integers between `i64::MAX` and `u64::MAX` are refused, as by Chroma; larger ones are floats.
fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Bool(value) => Some(Scalar::Bool(*value)),
        Value::String(text) => Some(Scalar::Str(text.clone())),
        Value::Number(_) => number(value),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn number(value: &Value) -> Option<Scalar> {
    match value {
        Value::Number(number) if number.is_f64() => number.as_f64().map(Scalar::Float),
        Value::Number(number) => number.as_i64().map(Scalar::Int),
        _ => None,
    }
}

/// The operand of `$in`: the first element says the type of all; among floats there may be integers.
fn list(value: &Value) -> Option<Vec<Scalar>> {
    let values = value.as_array()?;
    let like_first: fn(&Value) -> Option<Scalar> = match scalar(values.first()?)? {
        Scalar::Bool(_) => |value| value.as_bool().map(Scalar::Bool),
        Scalar::Str(_) => |value| value.as_str().map(|text| Scalar::Str(text.to_owned())),
        Scalar::Int(_) => |value| value.as_i64().map(Scalar::Int),
        Scalar::Float(_) => |value| value.as_f64().map(Scalar::Float),
    };
    values.iter().map(like_first).collect()
}
