//! Metadata as terms: byte strings whose order is that of the numbers in them.
//!
//! A term is a key, a kind, and a value. The key is its length (a byte, up to 127) and its bytes; a longer one is the byte
//! 255 and its XXH3-128, so that an answer about it must be verified. What the index knows of documents are terms as well,
//! under the byte 254, which begins no key.

use model::{Metadata, MetadataValue, Scalar};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_128;

/// Longest key, and longest text as a value, that a term holds as it is, in bytes.
const INLINE_BYTES_MAX: usize = 127;
const INTERNAL: u8 = 254;
const HASHED_KEY: u8 = 255;

/// The key under which a filter names the URI, and its terms are.
pub(crate) const URI_KEY: &str = "chroma:uri";
/// The key under which a filter names the document.
pub(crate) const DOCUMENT_KEY: &str = "chroma:document";

/// What a term's value is. Ints and floats share a kind, because comparisons do not tell them apart; as elements of arrays
/// they do not, because `$contains` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Bool = 1,
    Number = 2,
    Text = 3,
    TextHash = 4,
    BoolElement = 5,
    IntElement = 6,
    FloatElement = 7,
    TextElement = 8,
    TextElementHash = 9,
}

/// A term, and whether whoever has it surely has the value: not if it only has the hash of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Term {
    pub(crate) bytes: Vec<u8>,
    pub(crate) exact: bool,
}

/// The term of all rows with a document.
pub(crate) fn has_document() -> Vec<u8> {
    vec![INTERNAL, 0]
}

/// The term of the rows whose documents have this byte.
pub(crate) fn has_byte(byte: u8) -> Vec<u8> {
    vec![INTERNAL, 1, byte]
}

/// The terms of a value.
pub(crate) fn of_value(key: &str, value: &MetadataValue) -> Vec<Term> {
    match value {
        MetadataValue::Bool(v) => vec![of_bool(key, Kind::Bool, *v)],
        MetadataValue::Int(v) => vec![of_number(key, Kind::Number, int_order(*v))],
        MetadataValue::Float(v) => {
            float_order(*v).map(|order| of_number(key, Kind::Number, order)).into_iter().collect()
        }
        MetadataValue::Str(v) => vec![of_text(key, [Kind::Text, Kind::TextHash], v)],
        MetadataValue::Bools(array) => array.iter().map(|v| of_bool(key, Kind::BoolElement, *v)).collect(),
        MetadataValue::Ints(array) => array.iter().map(|v| of_number(key, Kind::IntElement, int_order(*v))).collect(),
        MetadataValue::Floats(array) => {
            let orders = array.iter().filter_map(|v| float_order(*v));
            orders.map(|order| of_number(key, Kind::FloatElement, order)).collect()
        }
        MetadataValue::Strs(array) => {
            array.iter().map(|v| of_text(key, [Kind::TextElement, Kind::TextElementHash], v)).collect()
        }
        MetadataValue::Sparse(_) => Vec::new(),
    }
}

/// The URI's term.
pub(crate) fn of_uri(uri: &str) -> Term {
    of_text(URI_KEY, [Kind::Text, Kind::TextHash], uri)
}

/// The metadata that a filter can see: the two special keys name something else.
pub(crate) fn visible(metadata: &Metadata) -> impl Iterator<Item = (&String, &MetadataValue)> {
    metadata.iter().filter(|(key, _)| !matches!(key.as_str(), URI_KEY | DOCUMENT_KEY))
}

/// The term of scalars equal to `operand`; none equals a NaN.
pub(crate) fn equal_to(key: &str, operand: &Scalar) -> Option<Term> {
    match operand {
        Scalar::Bool(v) => Some(of_bool(key, Kind::Bool, *v)),
        Scalar::Int(v) => Some(of_number(key, Kind::Number, int_order(*v))),
        Scalar::Float(v) => Some(of_number(key, Kind::Number, float_order(*v)?)),
        Scalar::Str(v) => Some(of_text(key, [Kind::Text, Kind::TextHash], v)),
    }
}

/// The term of arrays that have `element`.
pub(crate) fn with_element(key: &str, element: &Scalar) -> Option<Term> {
    match element {
        Scalar::Bool(v) => Some(of_bool(key, Kind::BoolElement, *v)),
        Scalar::Int(v) => Some(of_number(key, Kind::IntElement, int_order(*v))),
        Scalar::Float(v) => Some(of_number(key, Kind::FloatElement, float_order(*v)?)),
        Scalar::Str(v) => Some(of_text(key, [Kind::TextElement, Kind::TextElementHash], v)),
    }
}

/// Bounds of the terms of numbers under `key`: all, and those below, up to, from, and above `operand`.
#[derive(Clone, Debug)]
pub(crate) struct NumberBounds {
    pub(crate) below: Range<Vec<u8>>,
    pub(crate) up_to: Range<Vec<u8>>,
    pub(crate) from: Range<Vec<u8>>,
    pub(crate) above: Range<Vec<u8>>,
    /// Whether the key is in the terms as it is.
    pub(crate) exact: bool,
}

/// `None` if `operand` is no number, or a NaN: nothing compares to it.
pub(crate) fn number_bounds(key: &str, operand: &Scalar) -> Option<NumberBounds> {
    let order = match operand {
        Scalar::Int(v) => int_order(*v),
        Scalar::Float(v) => float_order(*v)?,
        Scalar::Bool(_) | Scalar::Str(_) => return None,
    };
    let (first, exact) = prefix(key, Kind::Number);
    let mut end = first.clone();
    *end.last_mut().expect("a prefix ends with a kind") += 1;
    let at = [&first[..], &order].concat();
    // All terms of numbers are of one length: this one is just above `at`.
    let behind = [&at[..], &[0]].concat();
    Some(NumberBounds {
        below: first.clone()..at.clone(),
        up_to: first..behind.clone(),
        from: at..end.clone(),
        above: behind..end,
        exact,
    })
}

/// What terms of numbers under one key begin with; `None` for any other term.
pub(crate) fn number_prefix(term: &[u8]) -> Option<&[u8]> {
    let key = match *term.first()? {
        HASHED_KEY => 16,
        INTERNAL => return None,
        length => usize::from(length),
    };
    let prefix = term.get(..key + 2)?;
    (prefix.last() == Some(&(Kind::Number as u8))).then_some(prefix)
}

fn prefix(key: &str, kind: Kind) -> (Vec<u8>, bool) {
    let exact = key.len() <= INLINE_BYTES_MAX;
    let mut bytes = Vec::with_capacity(key.len().min(INLINE_BYTES_MAX) + 12);
    match u8::try_from(key.len()) {
        Ok(length) if exact => {
            bytes.push(length);
            bytes.extend_from_slice(key.as_bytes());
        }
        _ => {
            bytes.push(HASHED_KEY);
            bytes.extend_from_slice(&xxh3_128(key.as_bytes()).to_be_bytes());
        }
    }
    bytes.push(kind as u8);
    (bytes, exact)
}

fn of_bool(key: &str, kind: Kind, value: bool) -> Term {
    let (mut bytes, exact) = prefix(key, kind);
    bytes.push(u8::from(value));
    Term { bytes, exact }
}

fn of_number(key: &str, kind: Kind, order: NumberOrder) -> Term {
    let (mut bytes, exact) = prefix(key, kind);
    bytes.extend_from_slice(&order);
    Term { bytes, exact }
}

fn of_text(key: &str, [inline, hashed]: [Kind; 2], value: &str) -> Term {
    let is_short = value.len() <= INLINE_BYTES_MAX;
    let (mut bytes, exact) = prefix(key, if is_short { inline } else { hashed });
    if is_short {
        bytes.extend_from_slice(value.as_bytes());
    } else {
        bytes.extend_from_slice(&xxh3_128(value.as_bytes()).to_be_bytes());
    }
    Term { bytes, exact: exact && is_short }
}

/// A number as bytes in numeric order, equal for equal numbers: the largest f64 that is not above it, and what is left,
/// which is a whole number below 1,024 as no `i64` is further from the float below it.
type NumberOrder = [u8; 10];

fn int_order(int: i64) -> NumberOrder {
    #[expect(clippy::cast_precision_loss, reason = "what is lost is what is left")]
    let near = int as f64;
    let floor = if exact_whole(near) > i128::from(int) { near.next_down() } else { near };
    let left = i128::from(int) - exact_whole(floor);
    order(floor, u16::try_from(left).expect("an i64 is less than 1,024 above the next float"))
}

/// `None` for a NaN.
fn float_order(float: f64) -> Option<NumberOrder> {
    (!float.is_nan()).then(|| order(float, 0))
}

#[expect(clippy::cast_possible_truncation, reason = "whole, and no larger than 2^63")]
fn exact_whole(float: f64) -> i128 {
    float as i128
}

fn order(float: f64, left: u16) -> NumberOrder {
    let bits = (float + 0.0).to_bits(); // adding 0 makes -0 equal to 0
    let ordered = if float < 0.0 { !bits } else { bits | (1 << 63) };
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&ordered.to_be_bytes());
    bytes[8..].copy_from_slice(&left.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    /// The whole part, and whether anything is above it.
    fn exact(scalar: &Scalar) -> Option<(i128, Ordering)> {
        match scalar {
            Scalar::Int(v) => Some((i128::from(*v), Ordering::Equal)),
            Scalar::Float(v) if v.abs() < 1e30 => Some((exact_whole(v.floor()), v.fract().partial_cmp(&0.0)?)),
            _ => None,
        }
    }

    fn number() -> impl Strategy<Value = Scalar> {
        let near = |int: i64| (Just(int), -3..4_i64).prop_map(|(int, step)| int.saturating_add(step));
        let edges = (0..63_u32, any::<bool>()).prop_map(|(bit, sign)| if sign { -(1_i64 << bit) } else { 1 << bit });
        let int = prop_oneof![any::<i64>(), edges, Just(i64::MIN), Just(i64::MAX)]
            .prop_flat_map(move |int| near(int).boxed());
        #[expect(clippy::cast_precision_loss)]
        let float = int.clone().prop_map(|int| int as f64);
        let around = (float, -2..3_i32).prop_map(|(float, step)| match step {
            -2 => float - 0.5,
            -1 => float.next_down(),
            1 => float.next_up(),
            2 => float + 0.5,
            _ => float,
        });
        prop_oneof![int.prop_map(Scalar::Int), around.prop_map(Scalar::Float)]
    }

    fn order_of(scalar: &Scalar) -> NumberOrder {
        match scalar {
            Scalar::Int(v) => int_order(*v),
            Scalar::Float(v) => float_order(*v).unwrap(),
            _ => unreachable!("numbers only"),
        }
    }

    proptest! {
        #[test]
        fn order_of_bytes_is_order_of_numbers(a in number(), b in number()) {
            let (exact_a, exact_b) = (exact(&a).unwrap(), exact(&b).unwrap());
            if exact_a.0 != exact_b.0 || exact_a.1 == Ordering::Equal || exact_b.1 == Ordering::Equal {
                let expect = exact_a.0.cmp(&exact_b.0).then(exact_a.1.cmp(&exact_b.1));
                prop_assert_eq!(order_of(&a).cmp(&order_of(&b)), expect, "{:?} {:?}", a, b);
            }
        }
    }

    #[test]
    fn zeros_are_equal_and_infinities_at_the_ends() {
        assert_eq!(float_order(-0.0), Some(int_order(0)));
        assert!(float_order(f64::NEG_INFINITY).unwrap() < int_order(i64::MIN));
        assert!(float_order(f64::INFINITY).unwrap() > int_order(i64::MAX));
        assert_eq!(float_order(f64::NAN), None);
    }

    #[test]
    fn no_key_is_the_beginning_of_another() {
        let of = |key: &str| prefix(key, Kind::Text).0;
        let keys = ["", "a", "aa", "\u{0}", "\u{1}a", &"x".repeat(127), &"x".repeat(128), &"x".repeat(129)];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert!(!of(a).starts_with(&of(b)) && !of(b).starts_with(&of(a)), "{a:?} {b:?}");
            }
        }
        assert!(keys.iter().all(|key| of(key)[0] != INTERNAL));
    }
}
