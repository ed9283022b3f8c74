//! Vectors of a write: arrays of numbers or base64 of little-endian f32, decoded and checked while they are read, so
//! that no second representation of the bulk of a request is ever in memory.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::bounded::{self, List, NoRoom};
use model::limits;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use std::fmt;

#[cfg(test)]
mod tests;

/// The vectors of a request. If there is a [`Fault`], the vectors after it were dropped.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Embeddings {
    /// One per record; `None` where the request says null.
    pub(super) vectors: Vec<Option<Vec<f32>>>,
    /// Length of all of them; `None` if all are null.
    pub(super) dimension: Option<u32>,
    /// What is wrong with them first, in the order in which Chroma's server looks.
    pub(super) fault: Option<Fault>,
    kind: Option<Kind>,
}

/// Why well-formed JSON is no usable vector (400). The earlier variant is the one that is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Not base64, or not base64 of finite floats: the whole message.
    Encoding(String),
    /// A vector that no collection can hold: a complaint about the member `embeddings`.
    Vector(String),
    /// Vectors of different lengths.
    Dimensions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Base64,
}

/// Whether a write's vectors must all be there, for `deserialize_with`.
pub(super) fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Embeddings, D::Error> {
    let embeddings = Embeddings::deserialize(deserializer)?;
    if embeddings.fault.is_none() && embeddings.vectors.iter().any(Option::is_none) {
        return Err(de::Error::custom("invalid type: null, expected an array of numbers or a base64 string"));
    }
    Ok(embeddings)
}

impl<'de> Deserialize<'de> for Embeddings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AllVisitor)
    }
}

struct AllVisitor;

impl<'de> Visitor<'de> for AllVisitor {
    type Value = Embeddings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of vectors: arrays of numbers, or base64 strings of little-endian f32")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Embeddings, A::Error> {
        let mut all = Embeddings::default();
        while let Some(element) =
            seq.next_element_seed(ElementSeed { capacity: all.dimension.unwrap_or(0) as usize })?
        {
            bounded::check_room().map_err(de::Error::custom)?;
            all.push(element).map_err(de::Error::custom)?;
        }
        Ok(all)
    }
}

impl Embeddings {
    /// Takes one more vector; `Err` if it makes the request one of another shape (422).
    fn push(&mut self, element: Option<Element>) -> Result<(), &'static str> {
        let Some(Element { kind, vector }) = element else {
            return bounded::push(&mut self.vectors, None).map_err(|_| NoRoom::TEXT);
        };
        if *self.kind.get_or_insert(kind) != kind {
            return Err("embeddings are arrays of numbers or base64 strings, not both");
        }
        match vector.and_then(|vector| self.checked(vector)) {
            Ok(vector) if self.fault.is_none() => {
                return bounded::push(&mut self.vectors, Some(vector)).map_err(|_| NoRoom::TEXT);
            }
            Ok(_) => {}
            Err(fault) => self.fault = Some(self.fault.take().map_or(fault.clone(), |first| first.min(fault))),
        }
        Ok(())
    }

    fn checked(&mut self, vector: Vec<f32>) -> Result<Vec<f32>, Fault> {
        if vector.is_empty() {
            return Err(Fault::Vector("Each embedding must have at least 1 dimension".into()));
        }
        if vector.len() > limits::DIMENSION_MAX {
            let message = format!("Each embedding must have at most {} dimensions", limits::DIMENSION_MAX);
            return Err(Fault::Vector(message));
        }
        if !all_finite(&vector) {
            return Err(Fault::Vector("Embeddings must not contain NaN or Infinity values".into()));
        }
        let dimension = u32::try_from(vector.len()).expect("a bounded length fits");
        if *self.dimension.get_or_insert(dimension) != dimension {
            return Err(Fault::Dimensions);
        }
        Ok(vector)
    }
}

/// Whether no value is infinite or NaN. Without early exit, so that it vectorises: nearly every vector is all finite.
pub(super) fn all_finite(vector: &[f32]) -> bool {
    vector.iter().fold(true, |finite, x| finite & x.is_finite())
}

struct Element {
    kind: Kind,
    vector: Result<Vec<f32>, Fault>,
}

/// Reads one vector; `capacity` is the length of those before it.
struct ElementSeed {
    capacity: usize,
}

impl<'de> DeserializeSeed<'de> for ElementSeed {
    type Value = Option<Element>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Element>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ElementSeed {
    type Value = Option<Element>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers or a base64 string")
    }

    fn visit_unit<E>(self) -> Result<Option<Element>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Element>, E> {
        Ok(Some(Element { kind: Kind::Base64, vector: decode(text).map_err(Fault::Encoding) }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Element>, A::Error> {
        let mut vector = Vec::with_capacity(self.capacity);
        while let Some(x) = seq.next_element::<f64>()? {
            // One too many is kept to tell that there are too many.
            if vector.len() <= limits::DIMENSION_MAX {
                vector.push(narrowed(x));
            }
        }
        Ok(Some(Element { kind: Kind::Array, vector: Ok(vector) }))
    }
}

/// The nearest f32, infinite if there is none: as Chroma reads numbers, which tells 1e39 from what is not a number.
#[expect(clippy::cast_possible_truncation, reason = "narrowing is the purpose")]
fn narrowed(x: f64) -> f32 {
    x as f32
}

/// Vectors of a query: arrays only, for `deserialize_with`.
pub(super) fn arrays<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<f32>>, D::Error> {
    let arrays: Vec<List<Narrowed>> = bounded::vec(deserializer)?;
    Ok(arrays.into_iter().map(|array| array.0.into_iter().map(|Narrowed(x)| x).collect()).collect())
}

struct Narrowed(f32);

impl<'de> Deserialize<'de> for Narrowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(|x| Narrowed(narrowed(x)))
    }
}

/// Characters of base64 decoded at once: 192 floats, on the stack.
const CHUNK_CHARS: usize = 1024;
const CHUNK_BYTES: usize = CHUNK_CHARS / 4 * 3;

/// The vector that `text` encodes, or what is wrong with it.
fn decode(text: &str) -> Result<Vec<f32>, String> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(text.len() / 16 * 3 + 3).map_err(|_| NoRoom::TEXT)?;
    let mut buffer = [0; CHUNK_BYTES];
    let chunks = text.as_bytes().chunks(CHUNK_CHARS);
    let last = chunks.len().saturating_sub(1);
    for (index, chunk) in chunks.enumerate() {
        let bytes = match STANDARD.decode_slice(chunk, &mut buffer) {
            Ok(length) if index == last || length == CHUNK_BYTES => &buffer[..length],
            _ => return Err(encoding_error(text, vector)),
        };
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(encoding_error(text, vector));
        }
        vector.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
    }
    match vector.iter().position(|x| !x.is_finite()) {
        None => Ok(vector),
        Some(index) => Err(format!("Non-finite float value at embedding index {index}: {}", vector[index])),
    }
}

/// Decodes once more, whole, where `decoded` was: the message names places in the whole text.
fn encoding_error(text: &str, decoded: Vec<f32>) -> String {
    drop(decoded);
    match STANDARD.decode(text) {
        Ok(bytes) => format!(
            "Invalid byte length: {} bytes cannot be converted to f32 values (must be divisible by 4)",
            bytes.len()
        ),
        Err(error) => format!("Invalid base64 string: {error}"),
    }
}
