//! Sets of rows: collected in ascending order, stored as gaps or as a roaring bitmap, whichever is smaller.

use crate::bytes::{Cursor, put_leb, put_run};
use crate::{TextError, damaged};
use roaring::RoaringBitmap;

const GAPS: u8 = 0;
const BITMAP: u8 = 1;
/// Below so many rows gaps are never larger than a bitmap.
const BITMAP_ROWS_MIN: u32 = 16;

/// The rows in which something occurs, collected as they come. Memory: a byte or two a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowList {
    /// For each row its distance from the one before, less one.
    gaps: Vec<u8>,
    count: u32,
    next: u32,
}

impl RowList {
    /// Adds `row`, which is the last one added or above it.
    pub(crate) fn push(&mut self, row: u32) {
        if row >= self.next {
            put_leb(&mut self.gaps, u64::from(row - self.next));
            self.count += 1;
            self.next = row + 1;
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.gaps.capacity()
    }

    pub(crate) const NEW: RowList = RowList { gaps: Vec::new(), count: 0, next: 0 };

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows, ascending.
    pub(crate) fn rows(&self) -> Vec<u32> {
        let mut rows = Vec::new();
        each_gap(&mut Cursor(&self.gaps), self.count, u32::MAX, |row| rows.push(row)).expect("they were just written");
        rows
    }

    fn bitmap(&self) -> RoaringBitmap {
        let mut bitmap = RoaringBitmap::from_sorted_iter(self.rows()).expect("they ascend");
        bitmap.optimize();
        bitmap
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let bitmap = (self.count >= BITMAP_ROWS_MIN).then(|| self.bitmap());
        match bitmap.filter(|bitmap| bitmap.serialized_size() < self.gaps.len()) {
            Some(bitmap) => {
                out.push(BITMAP);
                let mut bytes = Vec::with_capacity(bitmap.serialized_size());
                bitmap.serialize_into(&mut bytes).expect("memory takes any bytes");
                put_run(out, &bytes);
            }
            None => {
                out.push(GAPS);
                put_leb(out, u64::from(self.count));
                out.extend_from_slice(&self.gaps);
            }
        }
    }
}

/// The sum of stored sets. Memory: 4 bytes a row of short sets until it is finished.
#[derive(Debug, Default)]
pub(crate) struct Union {
    loose: Vec<u32>,
    bitmap: RoaringBitmap,
}

impl Union {
    /// Adds the set that comes next. Errors: it is none, or has a row that is not below `rows`.
    pub(crate) fn add(&mut self, cursor: &mut Cursor<'_>, rows: u32) -> Result<(), TextError> {
        match cursor.u8()? {
            GAPS => {
                let count = u32::try_from(cursor.leb()?).map_err(damaged)?;
                each_gap(cursor, count, rows, |row| self.loose.push(row))
            }
            BITMAP => {
                let mut bytes = cursor.run()?;
                let bitmap = RoaringBitmap::deserialize_from(&mut bytes).map_err(damaged)?;
                if !bytes.is_empty() || bitmap.max().is_some_and(|row| row >= rows) {
                    return Err(damaged("a set of other rows"));
                }
                self.bitmap |= bitmap;
                Ok(())
            }
            _ => Err(damaged("neither gaps nor a bitmap")),
        }
    }

    pub(crate) fn finish(mut self) -> RoaringBitmap {
        self.loose.sort_unstable();
        self.loose.dedup();
        self.bitmap | RoaringBitmap::from_sorted_iter(self.loose).expect("sorted just now")
    }
}

/// Passes over the set that comes next.
pub(crate) fn skip(cursor: &mut Cursor<'_>) -> Result<(), TextError> {
    match cursor.u8()? {
        GAPS => {
            for _ in 0..cursor.leb()? {
                cursor.leb()?;
            }
            Ok(())
        }
        BITMAP => cursor.run().map(drop),
        _ => Err(damaged("neither gaps nor a bitmap")),
    }
}

fn each_gap(cursor: &mut Cursor<'_>, count: u32, rows: u32, mut row: impl FnMut(u32)) -> Result<(), TextError> {
    let mut next = 0_u64;
    for _ in 0..count {
        let this = next + cursor.leb()?;
        row(u32::try_from(this).ok().filter(|row| *row < rows).ok_or_else(|| damaged("a row beyond the last"))?);
        next = this + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn any_rows() -> impl Strategy<Value = BTreeSet<u32>> {
        let dense = (0..70_000_u32, 0..9_000_u32).prop_map(|(start, count)| (start..start + count).collect());
        prop_oneof![btree_set(any::<u32>().prop_map(|row| row >> 1), 0..300), btree_set(0..300_u32, 0..300), dense]
    }

    fn encoded(rows: &BTreeSet<u32>) -> Vec<u8> {
        let mut list = RowList::default();
        for row in rows {
            list.push(*row);
            list.push(*row);
        }
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_union_of_encoded_lists_is_that_of_sets(sets in vec(any_rows(), 0..4)) {
            let mut union = Union::default();
            for set in &sets {
                let bytes = encoded(set);
                let mut cursor = Cursor(&bytes);
                union.add(&mut cursor, u32::MAX).unwrap();
                prop_assert!(cursor.0.is_empty());
                let mut cursor = Cursor(&bytes);
                skip(&mut cursor).unwrap();
                prop_assert!(cursor.0.is_empty());
                if let Some(last) = set.last() {
                    prop_assert!(Union::default().add(&mut Cursor(&bytes), *last).is_err());
                }
            }
            let expect: BTreeSet<u32> = sets.into_iter().flatten().collect();
            prop_assert!(union.finish().iter().eq(expect));
        }

        #[test]
        fn any_bytes_are_a_set_or_an_error(bytes in vec(any::<u8>(), 0..100)) {
            let _ = Union::default().add(&mut Cursor(&bytes), 100);
            let _ = skip(&mut Cursor(&bytes));
        }
    }
}
