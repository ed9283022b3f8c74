//! Changes of bytes: those that damage makes, and those that somebody makes who knows where numbers stand.

use std::ops::Range;

/// SplitMix64 (Steele, Lea and Flood): the tests need variety, not quality.
pub(crate) struct Random(u64);

impl Random {
    /// Numbers that are the same for the same change of the same bytes.
    pub(crate) fn of(name: &str, change: u64) -> Self {
        let name = name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Random(name.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ change.wrapping_mul(0xc4ce_b9fe_1a85_ec53))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 32).expect("it has 32 bits") % bound.max(1)
    }

    /// One of `all`.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// `valid` with some changes, three of four of them in `focus`.
pub(crate) fn mutate(random: &mut Random, valid: &[u8], focus: &Range<usize>) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for _ in 0..random.pick(&[1, 1, 2, 3, 5]) {
        change(random, &mut bytes, focus);
    }
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, focus: &Range<usize>) {
    let at = place(random, bytes.len(), focus);
    if at >= bytes.len() {
        return bytes.push(random.next().to_le_bytes()[0]);
    }
    let length = random.pick(&[1, 2, 4, 8, 12, 20, 32, 64]).min(bytes.len() - at);
    match random.below(12) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = random.pick(&[0, 1, 0x30, 0x39, 0x7f, 0x80, 0xff]),
        3 => bytes[at] = random.next().to_le_bytes()[0],
        4..=7 => put_number(random, bytes, at),
        8 => bytes.splice(at..at, [random.pick(&[0, 0xff, 7])].repeat(length)).for_each(drop),
        9 => bytes.drain(at..at + length).for_each(drop),
        10 => {
            let from = place(random, bytes.len() - length + 1, focus).min(bytes.len() - length);
            bytes.copy_within(from..from + length, at);
        }
        _ => bytes.truncate(at),
    }
}

/// An offset up to `length`.
fn place(random: &mut Random, length: usize, focus: &Range<usize>) -> usize {
    let at = if random.below(4) == 0 { random.below(length + 1) } else { focus.start + random.below(focus.len()) };
    // Numbers stand at multiples of four, more often than not.
    let at = if random.below(2) == 0 { at } else { at & !3 };
    at.min(length)
}

/// Writes a number of one to eight bytes: small, large, about a power of two, about what stood there, about the length of all;
/// or one that is not a number.
fn put_number(random: &mut Random, bytes: &mut [u8], at: usize) {
    let width = random.pick(&[1, 2, 4, 4, 4, 8, 8]).min(bytes.len() - at);
    let mut old = [0; 8];
    old[..width].copy_from_slice(&bytes[at..at + width]);
    let little = random.next() % 9;
    let number = match random.below(7) {
        0 => random.next(),
        1 => little,
        2 => u64::MAX >> random.below(64),
        3 => (1_u64 << random.below(64)).wrapping_add(little).wrapping_sub(4),
        4 => u64::from_le_bytes(old).wrapping_add(little).wrapping_sub(4),
        5 => (bytes.len() as u64 + little).wrapping_sub(4),
        _ => u64::from(random.pick(&[f32::NAN, f32::INFINITY, -0.0, f32::MAX, f32::MIN_POSITIVE, -1.0]).to_bits()),
    };
    bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
}
