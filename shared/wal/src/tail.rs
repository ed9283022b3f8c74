//! Which LSNs to probe for the end of the log. Existence is monotone above the gc floor: if n exists, all before it do.

use model::{Lsn, limits};

/// A search for the first LSN that does not exist, by waves of existence probes.
///
/// Galloping: waves reach four times farther each until one finds nothing, then narrow the gap by an even split. A log
/// of n fragments above the start takes about log₄(n) probes in waves of [`limits::CONNECTIONS_MAX`].
#[derive(Clone, Debug)]
pub struct EndSearch {
    /// Everything below exists.
    low: u64,
    /// The lowest LSN seen absent.
    high: Option<u64>,
    /// How far the next galloping probe reaches beyond `low`.
    reach: u64,
}

impl EndSearch {
    /// A search that starts from `base`, before which everything exists or is compacted.
    pub fn from(base: Lsn) -> Self {
        EndSearch { low: base.0, high: None, reach: 1 }
    }

    /// The end, once it is known.
    pub fn found(&self) -> Option<Lsn> {
        (self.high == Some(self.low)).then_some(Lsn(self.low))
    }

    /// The LSNs to probe next, all at once; empty when the end is known.
    pub fn wave(&self) -> Vec<Lsn> {
        let width = limits::CONNECTIONS_MAX as u64;
        match self.high {
            None => {
                (0..width).map(|i| Lsn(self.low + self.reach * 4u64.pow(u32::try_from(i).unwrap_or(0)) - 1)).collect()
            }
            Some(high) => {
                let gap = high - self.low;
                let probes = width.min(gap);
                // Where the gap is as small as the wave every LSN in it is probed.
                (1..=probes).map(|i| Lsn(self.low + gap * i / (probes + u64::from(gap > probes)) - 1)).collect()
            }
        }
    }

    /// Takes the outcome of one probe of a wave, in any order.
    pub fn observe(&mut self, lsn: Lsn, exists: bool) {
        if exists {
            self.reach = self.reach.max((lsn.0 + 1 - self.low).saturating_mul(4));
            self.low = self.low.max(lsn.0 + 1);
        } else {
            self.high = Some(self.high.map_or(lsn.0, |high| high.min(lsn.0)));
        }
        // A fragment that appeared between two probes of a wave: what exists outweighs what was absent before.
        self.high = self.high.filter(|high| *high >= self.low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn waves_to_find(base: u64, end: u64) -> usize {
        let mut search = EndSearch::from(Lsn(base));
        for waves in 0.. {
            if let Some(found) = search.found() {
                assert_eq!(found, Lsn(end));
                return waves;
            }
            let wave = search.wave();
            assert!(!wave.is_empty() && wave.len() <= limits::CONNECTIONS_MAX);
            wave.into_iter().for_each(|lsn| search.observe(lsn, lsn.0 < end));
        }
        unreachable!()
    }

    #[test]
    fn finds_every_end() {
        for base in [0, 1, 1000] {
            for length in (0..3000).chain([100_000, 12_345_678]) {
                waves_to_find(base, base + length);
            }
        }
    }

    #[test]
    fn an_empty_log_takes_one_wave_and_a_long_one_few() {
        assert_eq!(waves_to_find(0, 0), 1);
        assert!(waves_to_find(0, 100) <= 4);
        assert!(waves_to_find(0, 100_000) <= 9, "{}", waves_to_find(0, 100_000));
    }

    #[test]
    fn a_fragment_that_appears_in_the_middle_of_a_wave_does_not_confuse() {
        let mut search = EndSearch::from(Lsn(0));
        search.observe(Lsn(0), false);
        search.observe(Lsn(3), true);
        assert_eq!(search.found(), None);
        assert!(search.wave().into_iter().all(|lsn| lsn >= Lsn(4)));
    }
}
