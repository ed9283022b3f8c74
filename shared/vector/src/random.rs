//! Numbers that look random and are the same in every run.

/// A small generator (Steele, Lea and Flood's SplitMix64), enough for sampling and signs.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream `stream` of `seed`; streams of one seed are unlike.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let high = (u64::from(bound) * (self.next() >> 32)) >> 32;
        u32::try_from(high).expect("it is below `bound`")
    }

    /// `count` different numbers below `bound`, ascending; all of them if there are no more. Floyd's method would keep a set;
    /// selection sampling needs none and is linear in `bound`.
    pub(crate) fn sample(&mut self, bound: u32, count: u32) -> Vec<u32> {
        let mut chosen = Vec::with_capacity(count.min(bound) as usize);
        let mut wanted = count.min(bound);
        for number in 0..bound {
            if self.below(bound - number) < wanted {
                chosen.push(number);
                wanted -= 1;
            }
        }
        chosen
    }
}
