//! Which rows of a segment are dead in a generation.

use crate::{SegmentError, damaged};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use roaring::RoaringBitmap;

/// A set of rows: a roaring bitmap, in its portable format outside memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteVector(RoaringBitmap);

impl DeleteVector {
    /// Whether `row` is dead.
    pub fn contains(&self, row: u32) -> bool {
        self.0.contains(row)
    }

    /// Declares `row` dead; returns whether it was alive.
    pub fn insert(&mut self, row: u32) -> bool {
        self.0.insert(row)
    }

    /// Number of dead rows.
    pub fn len(&self) -> u32 {
        u32::try_from(self.0.len()).expect("a segment has fewer than 2^32 rows")
    }

    /// Whether all rows live.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The dead rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter()
    }

    /// Memory held, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.serialized_size()
    }

    /// As an object.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        self.0.serialize_into(&mut bytes).expect("memory takes any bytes");
        bytes.into()
    }

    /// As text for a manifest.
    pub fn encode_inline(&self) -> String {
        STANDARD.encode(self.encode())
    }

    /// The inverse of [`DeleteVector::encode`]. `count`: how many rows it must have.
    pub fn decode(bytes: &[u8], count: u32) -> Result<Self, SegmentError> {
        let vector = DeleteVector(RoaringBitmap::deserialize_from(bytes).map_err(damaged)?);
        if vector.len() == count { Ok(vector) } else { Err(damaged("a delete vector of another length")) }
    }

    /// The inverse of [`DeleteVector::encode_inline`].
    pub fn decode_inline(text: &str, count: u32) -> Result<Self, SegmentError> {
        DeleteVector::decode(&STANDARD.decode(text).map_err(damaged)?, count)
    }
}

impl FromIterator<u32> for DeleteVector {
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> Self {
        DeleteVector(rows.into_iter().collect())
    }
}
