//! Metadata: small typed values under string keys, exactly as JSON spelled them.

use crate::bounded;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A record's or a collection's metadata.
pub type Metadata = BTreeMap<String, MetadataValue>;

/// Changes to metadata, key by key: `Some` sets, `None` removes, keys not named stay.
pub type MetadataPatch = BTreeMap<String, Option<MetadataValue>>;

/// One metadata value. `1` stays an integer and `1.0` a float; arrays are homogeneous.
///
/// Numbers: an integer outside `i64` is a float; an array with integers and floats is a float array.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MetadataValue {
    /// `true` or `false`; never equal to 1 or 0.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// Any other finite number.
    Float(f64),
    /// Text.
    Str(String),
    /// An array of booleans.
    Bools(Vec<bool>),
    /// An array of integers.
    Ints(Vec<i64>),
    /// An array of floats.
    Floats(Vec<f64>),
    /// An array of strings.
    Strs(Vec<String>),
    /// A sparse vector: `{"#type": "sparse_vector", …}`.
    Sparse(SparseVector),
}

/// Weights under strictly ascending dimensions; `tokens`, if any, name the dimensions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "#type", rename = "sparse_vector")]
pub struct SparseVector {
    /// Dimensions, strictly ascending.
    #[serde(deserialize_with = "bounded::vec")]
    pub indices: Vec<u32>,
    /// As many weights.
    #[serde(deserialize_with = "bounded::vec")]
    pub values: Vec<f32>,
    /// As many names, if given.
    #[serde(default, deserialize_with = "bounded::optional_vec", skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<String>>,
}

impl MetadataValue {
    /// Whether this is an array without elements, which has no type and is not stored.
    pub fn is_empty_array(&self) -> bool {
        match self {
            MetadataValue::Bools(v) => v.is_empty(),
            MetadataValue::Ints(v) => v.is_empty(),
            MetadataValue::Floats(v) => v.is_empty(),
            MetadataValue::Strs(v) => v.is_empty(),
            _ => false,
        }
    }

    /// The user-facing name of the value's type, as error messages spell it.
    pub fn type_name(&self) -> &'static str {
        match self {
            MetadataValue::Bool(_) => "Bool",
            MetadataValue::Int(_) => "Int",
            MetadataValue::Float(_) => "Float",
            MetadataValue::Str(_) => "Str",
            MetadataValue::Bools(_) => "BoolArray",
            MetadataValue::Ints(_) => "IntArray",
            MetadataValue::Floats(_) => "FloatArray",
            MetadataValue::Strs(_) => "StringArray",
            MetadataValue::Sparse(_) => "SparseVector",
        }
    }
}

/// Lays `patch` over `metadata`.
pub fn apply_patch(metadata: &mut Metadata, patch: MetadataPatch) {
    for (key, change) in patch {
        match change {
            Some(value) => metadata.insert(key, value),
            None => metadata.remove(&key),
        };
    }
}

impl<'de> Deserialize<'de> for MetadataValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = MetadataValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bool, a number, a string, an array of one of these, or a sparse vector")
    }

    fn visit_bool<E>(self, value: bool) -> Result<MetadataValue, E> {
        Ok(MetadataValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<MetadataValue, E> {
        Ok(MetadataValue::Int(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "integers beyond i64 become floats, as in Chroma")]
    fn visit_u64<E>(self, value: u64) -> Result<MetadataValue, E> {
        Ok(i64::try_from(value).map_or(MetadataValue::Float(value as f64), MetadataValue::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<MetadataValue, E> {
        Ok(MetadataValue::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<MetadataValue, E> {
        Ok(MetadataValue::Str(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<MetadataValue, E> {
        Ok(MetadataValue::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MetadataValue, A::Error> {
        let mut array = Some(MetadataValue::Strs(Vec::new()));
        while let Some(element) = seq.next_element::<MetadataValue>()? {
            // After an element that does not fit the others are still read: what is not JSON is told first.
            array = array.map(|array| appended(array, element)).transpose().map_err(de::Error::custom)?.flatten();
        }
        array.ok_or_else(|| de::Error::custom("arrays hold values of one type: bools, numbers or strings"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MetadataValue, A::Error> {
        SparseVector::deserialize(de::value::MapAccessDeserializer::new(map)).map(MetadataValue::Sparse)
    }
}

/// The typed array `array` with one more element; `None` if their types differ or the element is an array itself.
#[expect(clippy::cast_precision_loss, reason = "a mixed array is a float array, as in Chroma")]
fn appended(array: MetadataValue, element: MetadataValue) -> Result<Option<MetadataValue>, bounded::NoRoom> {
    use MetadataValue::{Bool, Bools, Float, Floats, Int, Ints, Str, Strs};
    /// `list` with `element`, as the variant `array`.
    fn with<T>(
        array: impl Fn(Vec<T>) -> MetadataValue,
        mut list: Vec<T>,
        element: T,
    ) -> Result<Option<MetadataValue>, bounded::NoRoom> {
        bounded::push(&mut list, element)?;
        Ok(Some(array(list)))
    }
    match (array, element) {
        (Strs(list), Bool(first)) if list.is_empty() => with(Bools, Vec::new(), first),
        (Strs(list), Int(first)) if list.is_empty() => with(Ints, Vec::new(), first),
        (Strs(list), Float(first)) if list.is_empty() => with(Floats, Vec::new(), first),
        (Strs(list), Str(element)) => with(Strs, list, element),
        (Bools(list), Bool(element)) => with(Bools, list, element),
        (Ints(list), Int(element)) => with(Ints, list, element),
        (Ints(list), Float(element)) => {
            bounded::check_room_for(list.len() * size_of::<f64>())?;
            with(Floats, list.into_iter().map(|int| int as f64).collect(), element)
        }
        (Floats(list), Int(element)) => with(Floats, list, element as f64),
        (Floats(list), Float(element)) => with(Floats, list, element),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expect: &str) {
        let value: MetadataValue = serde_json::from_str(json).expect("valid metadata value");
        assert_eq!(serde_json::to_string(&value).unwrap(), expect);
    }

    #[test]
    fn values_keep_their_json_spelling() {
        check("1", "1");
        check("1.0", "1.0");
        check("-9223372036854775808", "-9223372036854775808");
        check("9223372036854775808", "9.223372036854776e+18");
        check("true", "true");
        check(r#""1""#, r#""1""#);
        check("[1,2]", "[1,2]");
        check("[1,2.5]", "[1.0,2.5]");
        let sparse = r##"{"#type":"sparse_vector","indices":[1],"values":[0.5]}"##;
        check(sparse, sparse);
    }

    #[test]
    fn shapes_without_a_type_are_refused() {
        for json in ["null", "[1,\"a\"]", "[[1]]", "[true,1]", "[null]", "{}", r#"{"a":1}"#] {
            assert!(serde_json::from_str::<MetadataValue>(json).is_err(), "{json} was accepted");
        }
    }

    #[test]
    fn patch_sets_removes_and_keeps() {
        let mut metadata: Metadata = serde_json::from_str(r#"{"a":1,"b":2,"c":3}"#).unwrap();
        apply_patch(&mut metadata, serde_json::from_str(r#"{"a":"x","b":null}"#).unwrap());
        assert_eq!(serde_json::to_string(&metadata).unwrap(), r#"{"a":"x","c":3}"#);
    }
}
