//! What `where` and `where_document` say, parsed and checked.

use serde::{Deserialize, Serialize};

/// A condition on a record. `where` and `where_document` of one request are joined by [`Filter::And`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// All hold; an empty list holds for every record.
    And(Vec<Filter>),
    /// At least one holds; an empty list holds for none.
    Or(Vec<Filter>),
    /// A test of the metadata value under `key`. `chroma:document` and `chroma:uri` name the document and the URI.
    Metadata {
        /// The metadata key.
        key: String,
        /// What its value must satisfy.
        test: MetadataTest,
    },
    /// A test of the document.
    Document(DocumentTest),
}

/// A test of one metadata value.
///
/// A missing key, or a value of another type, fails every test except the negated ones (`Ne`, `NotIn`, `NotContains`),
/// which it passes. Integers and floats compare by numeric value, exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataTest {
    /// Comparison of a scalar value; arrays never satisfy it.
    Compare(Comparison, Scalar),
    /// The scalar value equals one of these (non-empty, homogeneous).
    In(Vec<Scalar>),
    /// It equals none of these.
    NotIn(Vec<Scalar>),
    /// The array value has this element, of exactly this type.
    Contains(Scalar),
    /// It has no such element.
    NotContains(Scalar),
}

/// How a value relates to the operand. The four orders take numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal, or missing.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

/// An operand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// Any other finite number.
    Float(f64),
    /// Text.
    Str(String),
}

/// A test of a record's document. A record without one passes the negated tests only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentTest {
    /// Has this text, byte for byte, somewhere in it.
    Contains(String),
    /// Does not have it.
    NotContains(String),
    /// This regular expression (syntax of the `regex` crate, unanchored) matches somewhere in it.
    Regex(String),
    /// It matches nowhere.
    NotRegex(String),
}
