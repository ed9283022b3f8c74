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

/// The positions in a section of `rows` rows. Memory: eight bytes a row.
pub fn decode(section: &[u8], rows: u32) -> Result<Vec<Position>, SegmentError> {
    let mut positions = Vec::with_capacity(crate::index(rows));
    let (mut last, mut number, mut shift) = (0_u64, 0_u64, 0);
    for byte in section {
        if shift > 63 {
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
