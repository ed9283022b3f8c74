//! The positions of all rows, ascending, in a byte or two each.

use crate::{SegmentError, damaged};
use model::Position;

/// Appends numbers as LEB128: seven bits a byte, the lowest first.
fn write(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

/// Positions that are written as differences to the one before.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    last: u64,
}

impl Writer {
    /// Appends the next position, which is above the last one.
    pub(crate) fn push(&mut self, position: Position) {
        assert!(self.bytes.is_empty() || position.0 > self.last, "rows come in the order of their positions");
        write(&mut self.bytes, position.0 - self.last);
        self.last = position.0;
    }
}

/// The positions in a section of `rows` rows. Memory: eight bytes a row, and no more than that for each byte of the section.
pub fn decode(section: &[u8], rows: u32) -> Result<Vec<Position>, SegmentError> {
    let mut positions = Vec::with_capacity(crate::index(rows).min(section.len()));
    let (mut last, mut number, mut shift) = (0_u64, 0_u64, 0);
    for byte in section {
        // Of the tenth byte one bit is left.
        if shift > 63 || (shift == 63 && *byte > 1) {
            return Err(damaged("a position is too long"));
        }
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            last = last.wrapping_add(number);
            positions.push(Position(last));
            (number, shift) = (0, 0);
        }
    }
    let is_ascending = positions.windows(2).all(|pair| pair[0] < pair[1]);
    if positions.len() == crate::index(rows) && shift == 0 && is_ascending {
        Ok(positions)
    } else {
        Err(damaged("positions do not count up as they should"))
    }
}

#[cfg(test)]
mod tests {
    //! Positions are read as they were written, and nothing else is read as so many ascending positions.

    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    fn encode(positions: &[u64]) -> Vec<u8> {
        let mut writer = Writer::default();
        positions.iter().for_each(|position| writer.push(Position(*position)));
        writer.bytes
    }

    fn any_position() -> impl Strategy<Value = u64> {
        prop_oneof![0..300_u64, any::<u64>(), (0..64_u32).prop_map(|bits| u64::MAX >> bits)]
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(positions in btree_set(any_position(), 0..50)) {
            let positions: Vec<u64> = positions.into_iter().collect();
            let expected: Vec<Position> = positions.iter().copied().map(Position).collect();
            prop_assert_eq!(decode(&encode(&positions), u32::try_from(positions.len()).unwrap()), Ok(expected));
        }

        #[test]
        fn any_bytes_are_ascending_positions_or_an_error(section in vec(any::<u8>(), 0..60), rows in 0..40_u32) {
            if let Ok(positions) = decode(&section, rows) {
                prop_assert_eq!(positions.len(), rows as usize);
                prop_assert!(positions.is_sorted_by(|a, b| a < b));
            }
        }
    }

    #[test]
    fn other_bytes_are_errors() {
        let most = [[0xff; 9].as_slice(), &[1]].concat();
        for (case, section, rows, expected) in [
            ("the highest position", most.clone(), 1, Some(vec![Position(u64::MAX)])),
            ("one row more", vec![1, 2], 3, None),
            ("one row less", vec![1, 2], 1, None),
            ("far more rows than bytes", vec![1, 2], u32::MAX, None),
            ("the same position twice", vec![1, 0], 2, None),
            ("around the end of all numbers", [most, vec![2]].concat(), 2, None),
            ("a number of 65 bits", [[0xff; 9].as_slice(), &[2]].concat(), 1, None),
            ("a number of 71 bits", [[0x80; 10].as_slice(), &[1]].concat(), 1, None),
            ("half a number", vec![1, 0x80], 1, None),
        ] {
            assert_eq!(decode(&section, rows).ok(), expected, "{case}");
        }
    }
}
