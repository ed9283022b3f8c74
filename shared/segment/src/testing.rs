//! Rows and segments for tests.

use crate::row::Row;
use crate::{Builder, Built};
use model::{DeleteVectorPlace, DeleteVectorRef, Position, SegmentRef, SetHash};

/// SplitMix64: the tests need variety, not quality.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn text(&mut self) -> Option<String> {
        let texts = ["", "a", "ä€😀\u{0}", "two\nlines", "{\"a\":1}"];
        let choice = usize::try_from(self.below(7)).unwrap();
        texts.get(choice).map(|text| (*text).to_owned()).or_else(|| (choice == 5).then(|| "long ".repeat(300)))
    }

    /// A finite number of any magnitude, often an ordinary one.
    fn number(&mut self) -> f32 {
        let bits = u32::try_from(self.next() >> 32).unwrap();
        let any = f32::from_bits(bits);
        if bits.is_multiple_of(8) && any.is_finite() { any } else { (bits >> 8) as f32 / 8_388_608.0 - 1.0 }
    }
}

/// So many rows, of which some lack fields, and whose positions go up in steps small and large.
pub(crate) fn rows(seed: u64, count: usize, dimension: usize) -> Vec<Row> {
    let mut random = Random(seed);
    let mut position = random.below(3);
    let mut row = |number: usize| {
        let row = Row {
            position: Position(position),
            id: format!("{}{number}", random.text().unwrap_or_default()),
            vector: (0..dimension).map(|_| random.number()).collect(),
            document: random.text(),
            uri: random.text(),
            metadata: random.text(),
        };
        position += 1 + if random.below(10) == 0 { random.below(1 << 40) } else { random.below(3) };
        row
    };
    (0..count).map(&mut row).collect()
}

/// The segment of `rows`.
pub(crate) fn build(rows: &[Row], dimension: usize) -> Built {
    let mut builder = Builder::new(dimension);
    rows.iter().for_each(|row| builder.push(&row.view()));
    builder.finish("prefix".to_owned())
}

/// A segment as a manifest names it, of which so many rows are dead.
pub(crate) fn named(rows: u32, dead: u32) -> SegmentRef {
    let place = DeleteVectorPlace::Inline(String::new());
    SegmentRef {
        prefix: "prefix".to_owned(),
        rows,
        dimension: 1,
        head_bytes: 0,
        ids_at: 0,
        bytes: 0,
        set_hash: SetHash::default(),
        index: None,
        text: None,
        dead: (dead > 0).then_some(DeleteVectorRef { count: dead, place }),
    }
}
