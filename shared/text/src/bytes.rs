//! Numbers in bytes: little-endian, or LEB128, seven bits a byte and the lowest first.

use crate::{TextError, damaged};

/// Reads from the front of bytes that may be anything.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'b>(pub(crate) &'b [u8]);

impl<'b> Cursor<'b> {
    pub(crate) fn take(&mut self, length: usize) -> Result<&'b [u8], TextError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| damaged("bytes are cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], TextError> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or_else(|| damaged("a number is cut off"))?;
        self.0 = rest;
        Ok(*chunk)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, TextError> {
        self.chunk().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, TextError> {
        self.chunk().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, TextError> {
        self.chunk().map(u64::from_le_bytes)
    }

    /// A number of up to 63 bits.
    pub(crate) fn leb(&mut self) -> Result<u64, TextError> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.u8()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged("a number without end"))
    }

    /// As many bytes as the number before them says.
    pub(crate) fn run(&mut self) -> Result<&'b [u8], TextError> {
        let length = self.leb()?;
        self.take(crate::index(length))
    }

    pub(crate) fn text(&mut self) -> Result<&'b str, TextError> {
        std::str::from_utf8(self.run()?).map_err(damaged)
    }
}

pub(crate) fn put_leb(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(crate) fn put_run(out: &mut Vec<u8>, bytes: &[u8]) {
    put_leb(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn leb_inverts_put_leb(number in 0..1_u64 << 63, rest: Vec<u8>) {
            let mut bytes = Vec::new();
            put_leb(&mut bytes, number);
            for length in 0..bytes.len() {
                prop_assert!(Cursor(&bytes[..length]).leb().is_err());
            }
            bytes.extend_from_slice(&rest);
            let mut cursor = Cursor(&bytes);
            prop_assert_eq!(cursor.leb(), Ok(number));
            prop_assert_eq!(cursor.0, &rest);
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes: Vec<u8>) {
            let _ = Cursor(&bytes).leb();
            let _ = Cursor(&bytes).text();
        }
    }

    #[test]
    fn a_number_without_end_is_an_error() {
        assert!(Cursor(&[0xff; 100]).leb().is_err());
    }
}
