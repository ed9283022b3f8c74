//! Whether a record satisfies a filter, exactly as Chroma's single-node server would say.

use memchr::memmem::Finder;
use model::{Comparison, DocumentTest, Filter, MetadataTest, MetadataValue, Record, Scalar, limits};
use regex::{Regex, RegexBuilder};
use std::cmp::Ordering;
use std::collections::HashSet;

/// What a filter sees of a record, wherever it is stored.
pub trait Fields {
    /// The value under a metadata key; `None` if the record has none.
    fn metadata(&self, key: &str) -> Option<&MetadataValue>;
    /// The text; `None` if it was never set.
    fn document(&self) -> Option<&str>;
    /// The URI; `None` if it was never set.
    fn uri(&self) -> Option<&str>;
}

impl Fields for Record {
    fn metadata(&self, key: &str) -> Option<&MetadataValue> {
        self.metadata.as_ref()?.get(key)
    }

    fn document(&self) -> Option<&str> {
        self.document.as_deref()
    }

    fn uri(&self) -> Option<&str> {
        self.uri.as_deref()
    }
}

/// Why a filter cannot be evaluated. Both are answered with 400 and this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not a regular expression of the crate `regex`. The spelling is that of Chroma's server.
    #[error("Regex syntax errror: {0}")]
    Syntax(String),
    /// Compiled, it would be larger than [`limits::REGEX_BYTES_MAX`].
    #[error("Regex too large: its compiled form exceeds {} bytes", limits::REGEX_BYTES_MAX)]
    TooLarge,
}

/// A filter, ready to be evaluated for many records.
///
/// A missing key, and a value of another type, fail every test except the negated ones, which they pass. Numbers
/// compare by value, exactly, whether integer or float; booleans are no numbers; arrays have elements but are never
/// equal to anything. The keys `chroma:document` and `chroma:uri` name the document and the URI.
#[derive(Clone, Debug)]
pub struct CompiledFilter(Node);

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Compare(Key, Comparison, Scalar),
    In(Key, ScalarSet),
    HasElement(Key, Scalar),
    HasText(Finder<'static>),
    HasMatch(Regex),
}

impl CompiledFilter {
    /// Prepares `filter`: regular expressions are compiled, needles and sets indexed, once.
    pub fn compile(filter: &Filter) -> Result<Self, FilterError> {
        compile(filter).map(CompiledFilter)
    }

    /// Whether the record satisfies the filter.
    ///
    /// Cost: linear in the lengths of filter and document, whatever the regular expressions; no allocation beyond
    /// what those keep for re-use.
    pub fn matches(&self, record: &impl Fields) -> bool {
        matches(&self.0, record)
    }
}

fn compile(filter: &Filter) -> Result<Node, FilterError> {
    Ok(match filter {
        Filter::And(filters) => Node::All(filters.iter().map(compile).collect::<Result<_, _>>()?),
        Filter::Or(filters) => Node::Any(filters.iter().map(compile).collect::<Result<_, _>>()?),
        Filter::Metadata { key, test } => compile_metadata(Key::new(key), test),
        Filter::Document(DocumentTest::Contains(text)) => has_text(text),
        Filter::Document(DocumentTest::NotContains(text)) => not(has_text(text)),
        Filter::Document(DocumentTest::Regex(pattern)) => has_match(pattern)?,
        Filter::Document(DocumentTest::NotRegex(pattern)) => not(has_match(pattern)?),
    })
}

/// Negated tests are the negation of the plain ones: that is why missing keys and other types pass them.
fn compile_metadata(key: Key, test: &MetadataTest) -> Node {
    match test {
        MetadataTest::Compare(Comparison::Ne, operand) => not(Node::Compare(key, Comparison::Eq, operand.clone())),
        MetadataTest::Compare(comparison, operand) => Node::Compare(key, *comparison, operand.clone()),
        MetadataTest::In(operands) => Node::In(key, ScalarSet::new(operands)),
        MetadataTest::NotIn(operands) => not(Node::In(key, ScalarSet::new(operands))),
        MetadataTest::Contains(element) => Node::HasElement(key, element.clone()),
        MetadataTest::NotContains(element) => not(Node::HasElement(key, element.clone())),
    }
}

fn not(node: Node) -> Node {
    Node::Not(Box::new(node))
}

fn has_text(text: &str) -> Node {
    Node::HasText(Finder::new(text).into_owned())
}

fn has_match(pattern: &str) -> Result<Node, FilterError> {
    let regex =
        RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).dfa_size_limit(limits::REGEX_BYTES_MAX).build();
    regex.map(Node::HasMatch).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => FilterError::TooLarge,
        error => FilterError::Syntax(error.to_string()),
    })
}

fn matches(node: &Node, record: &impl Fields) -> bool {
    match node {
        Node::All(nodes) => nodes.iter().all(|node| matches(node, record)),
        Node::Any(nodes) => nodes.iter().any(|node| matches(node, record)),
        Node::Not(node) => !matches(node, record),
        Node::Compare(key, comparison, operand) => {
            key.scalar(record).is_some_and(|value| compares(value, *comparison, operand.into()))
        }
        Node::In(key, set) => key.scalar(record).is_some_and(|value| set.contains(value)),
        Node::HasElement(key, element) => key.array(record).is_some_and(|array| has_element(array, element)),
        Node::HasText(finder) => record.document().is_some_and(|text| finder.find(text.as_bytes()).is_some()),
        Node::HasMatch(regex) => record.document().is_some_and(|text| regex.is_match(text)),
    }
}

/// Where a test finds its value.
#[derive(Clone, Debug)]
enum Key {
    Document,
    Uri,
    Metadata(String),
}

impl Key {
    fn new(key: &str) -> Self {
        match key {
            "chroma:document" => Key::Document,
            "chroma:uri" => Key::Uri,
            _ => Key::Metadata(key.to_owned()),
        }
    }

    /// The record's value, if it is a scalar.
    fn scalar<'r>(&self, record: &'r impl Fields) -> Option<Value<'r>> {
        match self {
            Key::Document => record.document().map(Value::Str),
            Key::Uri => record.uri().map(Value::Str),
            Key::Metadata(key) => Value::scalar(record.metadata(key)?),
        }
    }

    /// The record's value, whatever it is; document and URI are never arrays.
    fn array<'r>(&self, record: &'r impl Fields) -> Option<&'r MetadataValue> {
        match self {
            Key::Document | Key::Uri => None,
            Key::Metadata(key) => record.metadata(key),
        }
    }
}

/// A scalar, borrowed from a record or a filter.
#[derive(Clone, Copy)]
enum Value<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
}

impl<'a> Value<'a> {
    fn scalar(value: &'a MetadataValue) -> Option<Self> {
        match value {
            MetadataValue::Bool(v) => Some(Value::Bool(*v)),
            MetadataValue::Int(v) => Some(Value::Int(*v)),
            MetadataValue::Float(v) => Some(Value::Float(*v)),
            MetadataValue::Str(v) => Some(Value::Str(v)),
            _ => None,
        }
    }
}

impl<'a> From<&'a Scalar> for Value<'a> {
    fn from(scalar: &'a Scalar) -> Self {
        match scalar {
            Scalar::Bool(v) => Value::Bool(*v),
            Scalar::Int(v) => Value::Int(*v),
            Scalar::Float(v) => Value::Float(*v),
            Scalar::Str(v) => Value::Str(v),
        }
    }
}

fn compares(value: Value<'_>, comparison: Comparison, operand: Value<'_>) -> bool {
    match comparison {
        Comparison::Eq => equal(value, operand),
        Comparison::Ne => !equal(value, operand),
        Comparison::Gt => numeric_order(value, operand).is_some_and(Ordering::is_gt),
        Comparison::Gte => numeric_order(value, operand).is_some_and(Ordering::is_ge),
        Comparison::Lt => numeric_order(value, operand).is_some_and(Ordering::is_lt),
        Comparison::Lte => numeric_order(value, operand).is_some_and(Ordering::is_le),
    }
}

fn equal(a: Value<'_>, b: Value<'_>) -> bool {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        _ => numeric_order(a, b) == Some(Ordering::Equal),
    }
}

/// The order of two numbers by their exact values; `None` if either is no number.
fn numeric_order(a: Value<'_>, b: Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(&b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(&b),
        (Value::Int(a), Value::Float(b)) => int_to_float(a, b),
        (Value::Float(a), Value::Int(b)) => int_to_float(b, a).map(Ordering::reverse),
        _ => None,
    }
}

/// 2⁶³, the least float above every `i64`; its negation is `i64::MIN`.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// How `int` stands to `float`, without rounding either; `None` for a NaN.
fn int_to_float(int: i64, float: f64) -> Option<Ordering> {
    match whole_part(float) {
        Some(whole) => int.cmp(&whole).then(0.0_f64.partial_cmp(&float.fract())?).into(),
        None => 0.0_f64.partial_cmp(&float),
    }
}

/// `float` without its fraction; `None` if that is outside `i64`, or for a NaN.
#[expect(clippy::cast_possible_truncation, reason = "in range, where a truncated float is exact")]
fn whole_part(float: f64) -> Option<i64> {
    (-TWO_63..TWO_63).contains(&float).then_some(float as i64)
}

/// Whether `array` is one, with an element of exactly the type and value of `element`.
fn has_element(array: &MetadataValue, element: &Scalar) -> bool {
    match (array, element) {
        (MetadataValue::Bools(array), Scalar::Bool(element)) => array.contains(element),
        (MetadataValue::Ints(array), Scalar::Int(element)) => array.contains(element),
        (MetadataValue::Floats(array), Scalar::Float(element)) => array.contains(element),
        (MetadataValue::Strs(array), Scalar::Str(element)) => array.contains(element),
        _ => false,
    }
}

/// The operands of `$in`: one look-up a record, however many there are.
#[derive(Clone, Debug)]
struct ScalarSet {
    strings: HashSet<String>,
    others: HashSet<OtherKey>,
}

/// A scalar that is not a string, so that equal numbers are equal keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum OtherKey {
    Bool(bool),
    /// Every number that is an `i64`, also if it was spelled as a float.
    Int(i64),
    /// The bits of any other.
    Float(u64),
}

impl ScalarSet {
    fn new(scalars: &[Scalar]) -> Self {
        let mut set = ScalarSet { strings: HashSet::new(), others: HashSet::new() };
        for scalar in scalars {
            match scalar.into() {
                Value::Str(text) => set.strings.insert(text.to_owned()),
                other => OtherKey::new(other).is_some_and(|key| set.others.insert(key)),
            };
        }
        set
    }

    fn contains(&self, value: Value<'_>) -> bool {
        match value {
            Value::Str(text) => self.strings.contains(text),
            other => OtherKey::new(other).is_some_and(|key| self.others.contains(&key)),
        }
    }
}

impl OtherKey {
    /// `None` for strings, and for a NaN, which equals nothing.
    fn new(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Bool(v) => Some(OtherKey::Bool(v)),
            Value::Int(v) => Some(OtherKey::Int(v)),
            Value::Float(v) if v.is_nan() => None,
            Value::Float(v) => Some(match whole_part(v) {
                Some(whole) if v.fract() == 0.0 => OtherKey::Int(whole),
                _ => OtherKey::Float(v.to_bits()),
            }),
            Value::Str(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
