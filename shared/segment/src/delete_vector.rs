//! Which rows of a segment are dead in a generation.

use crate::{SegmentError, damaged};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use model::SegmentRef;
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"OPALDEL1";
const TRAILER_BYTES: usize = 16;

/// A set of rows: a roaring bitmap, outside memory in its portable format and with a trailer behind it.
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

    /// Takes its rows out of `rows`.
    pub fn remove_from(&self, rows: &mut RoaringBitmap) {
        *rows -= &self.0;
    }

    /// Memory held, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.serialized_size()
    }

    /// As an object. Equal sets give equal bytes.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.0.serialized_size() + TRAILER_BYTES);
        self.0.serialize_into(&mut bytes).expect("memory takes any bytes");
        seal(bytes)
    }

    /// As text for a manifest.
    pub fn encode_inline(&self) -> String {
        STANDARD.encode(self.encode())
    }

    /// The inverse of [`DeleteVector::encode`]. Errors: not what was written, or not so many rows, or others, than `segment`
    /// has dead ones.
    pub fn decode(bytes: &[u8], segment: &SegmentRef) -> Result<Self, SegmentError> {
        let mut bitmap = unseal(bytes)?;
        let rows = RoaringBitmap::deserialize_from(&mut bitmap).map_err(damaged)?;
        let is_whole = bitmap.is_empty() && rows.len() == u64::from(segment.dead_rows());
        if is_whole && rows.max().is_none_or(|row| row < segment.rows) {
            Ok(DeleteVector(rows))
        } else {
            Err(damaged("a delete vector of another segment"))
        }
    }

    /// The inverse of [`DeleteVector::encode_inline`].
    pub fn decode_inline(text: &str, segment: &SegmentRef) -> Result<Self, SegmentError> {
        DeleteVector::decode(&STANDARD.decode(text).map_err(damaged)?, segment)
    }
}

/// Any reader of roaring bitmaps ignores what is behind them.
fn seal(mut bitmap: Vec<u8>) -> Bytes {
    let checksum = xxh3_64(&bitmap);
    bitmap.extend_from_slice(MAGIC);
    bitmap.extend_from_slice(&checksum.to_le_bytes());
    bitmap.into()
}

fn unseal(bytes: &[u8]) -> Result<&[u8], SegmentError> {
    let trailer = bytes.split_last_chunk::<TRAILER_BYTES>();
    let (bitmap, trailer) = trailer.ok_or_else(|| damaged("a delete vector is cut off"))?;
    let (magic, checksum) = trailer.split_at(MAGIC.len());
    if magic == MAGIC && checksum == xxh3_64(bitmap).to_le_bytes() {
        Ok(bitmap)
    } else {
        Err(damaged("a delete vector does not match its checksum"))
    }
}

impl FromIterator<u32> for DeleteVector {
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> Self {
        DeleteVector(rows.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    //! A set is read as it was written, and nothing else is read as a set.

    use super::*;
    use crate::testing::named;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    /// As the manifest of a segment of 200,000 rows names the vector.
    fn segment(dead: u32) -> SegmentRef {
        named(200_000, dead)
    }

    /// Rows close together, in runs and far apart.
    fn rows() -> impl Strategy<Value = Vec<u32>> {
        let run = (0..190_000_u32, 1..9_000_u32).prop_map(|(start, rows)| (start..start + rows).collect());
        prop_oneof![4 => btree_set(0..200_000_u32, 0..50).prop_map(|set| set.into_iter().collect()), 1 => run]
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(rows in rows()) {
            let vector: DeleteVector = rows.iter().copied().collect();
            let mut other_order = DeleteVector::default();
            prop_assert!(rows.iter().rev().all(|row| other_order.insert(*row)));
            prop_assert_eq!(vector.encode(), other_order.encode());
            let segment = segment(vector.len());
            prop_assert_eq!(&DeleteVector::decode(&vector.encode(), &segment).unwrap(), &vector);
            prop_assert_eq!(&DeleteVector::decode_inline(&vector.encode_inline(), &segment).unwrap(), &vector);
            prop_assert_eq!(vector.iter().collect::<Vec<_>>(), rows);
        }

        #[test]
        fn a_flipped_bit_anywhere_is_noticed(rows in rows(), at: prop::sample::Index, bit in 0..8_u8) {
            let vector: DeleteVector = rows.into_iter().collect();
            let mut bytes = vector.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(DeleteVector::decode(&bytes, &segment(vector.len())).is_err());
        }

        #[test]
        fn whatever_is_under_a_right_checksum_is_no_reason_to_panic(
            rows in rows(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut: prop::sample::Index,
        ) {
            let vector: DeleteVector = rows.into_iter().collect();
            let mut bitmap = unseal(&vector.encode()).unwrap().to_vec();
            bitmap.truncate(bitmap.len() - cut.index(bitmap.len()) / 8);
            for (at, byte) in changes {
                let at = at.index(bitmap.len());
                bitmap[at] = byte;
            }
            if let Ok(read) = DeleteVector::decode(&seal(bitmap), &segment(vector.len())) {
                prop_assert!(read.len() == vector.len() && read.iter().all(|row| row < 200_000));
            }
        }
    }

    #[test]
    fn a_vector_must_be_as_its_segment_has_it() {
        let encoded = |rows: &[u32]| rows.iter().copied().collect::<DeleteVector>().encode();
        let all_2_to_the_32 = {
            let mut bitmap = RoaringBitmap::full();
            bitmap.optimize();
            let mut bytes = Vec::new();
            bitmap.serialize_into(&mut bytes).unwrap();
            seal(bytes)
        };
        for (case, bytes, is_right) in [
            ("three rows", encoded(&[1, 5, 199_999]), true),
            ("two rows", encoded(&[1, 5]), false),
            ("a row that the segment does not have", encoded(&[1, 5, 200_000]), false),
            ("more rows than fit into their number", all_2_to_the_32, false),
            ("nothing", Bytes::new(), false),
            ("no bitmap", seal(Vec::new()), false),
            ("more behind the bitmap", seal([unseal(&encoded(&[1, 5, 9])).unwrap(), &[0]].concat()), false),
        ] {
            assert_eq!(DeleteVector::decode(&bytes, &segment(3)).is_ok(), is_right, "{case}");
        }
        assert!(DeleteVector::decode_inline("no base64", &segment(0)).is_err());
    }
}
