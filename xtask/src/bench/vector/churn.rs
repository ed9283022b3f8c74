//! Recall after a third of the records were replaced and a fifth deleted, over as many segments as that left.

use std::ops::Range;

use anyhow::Result;
use serde_json::json;

use super::super::collection::Collection;
use super::super::compactor::Compactor;
use super::super::records::{Records, encoded};
use super::case::Case;

const WRITERS: usize = 4;
/// Ids that are deleted by one request.
const DELETED_AT_ONCE: usize = 1_000;

/// Who changes, by rows of the case: the first are replaced by vectors that lie behind all, the next are deleted.
pub(super) struct Churn {
    /// Records at first.
    first: usize,
    replaced: usize,
    deleted: usize,
}

impl Churn {
    /// Three tenths replaced, two tenths deleted, of as many records as there are new vectors for.
    pub(super) fn of(case: &Case) -> Churn {
        let first = case.records.len() * 10 / 13;
        Churn { first, replaced: first * 3 / 10, deleted: first * 2 / 10 }
    }

    /// The rows whose vectors are alive at the end.
    pub(super) fn alive(&self) -> [Range<usize>; 2] {
        [self.replaced + self.deleted..self.first, self.first..self.first + self.replaced]
    }

    /// The row whose vector a record has at the end.
    pub(super) fn row_of(&self, record: usize) -> Option<usize> {
        match record {
            record if record < self.replaced => Some(self.first + record),
            record if record < self.replaced + self.deleted => None,
            record => (record < self.first).then_some(record),
        }
    }

    /// Makes it happen, in so many steps, each of them compacted; in none, all is compacted at once.
    pub(super) fn happen(
        &self,
        case: &Case,
        collection: &Collection,
        compactor: &Compactor<'_>,
        steps: usize,
        memory: u32,
    ) -> Result<()> {
        case.write(collection, 0..self.first)?;
        if steps > 0 {
            compactor.compact(&collection.id, memory)?;
        }
        for step in 0..steps.max(1) {
            let part = |count: usize| count * step / steps.max(1)..count * (step + 1) / steps.max(1);
            collection.send_all("update", &self.updates(case, part(self.replaced)), WRITERS)?;
            let ids: Vec<String> = part(self.deleted).map(|record| Records::id(self.replaced + record)).collect();
            let bodies = ids.chunks(DELETED_AT_ONCE).map(|ids| json!({ "ids": ids }).to_string().into_bytes());
            collection.send_all("delete", &bodies.collect::<Vec<_>>(), WRITERS)?;
            compactor.compact(&collection.id, memory)?;
        }
        collection.expect(self.first - self.deleted)
    }

    fn updates(&self, case: &Case, records: Range<usize>) -> Vec<Vec<u8>> {
        let records: Vec<usize> = records.collect();
        let body = |records: &[usize]| {
            let ids: Vec<String> = records.iter().map(|record| Records::id(*record)).collect();
            let vectors = records.iter().map(|record| encoded(&case.records.vectors[self.first + record]));
            json!({ "ids": ids, "embeddings": vectors.collect::<Vec<_>>() }).to_string().into_bytes()
        };
        records.chunks(case.batch()).map(body).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alive_has_a_row_that_is() {
        let churn = Churn { first: 10, replaced: 3, deleted: 2 };
        let mut rows: Vec<usize> = (0..12).filter_map(|record| churn.row_of(record)).collect();
        rows.sort_unstable();
        assert_eq!(rows, churn.alive().into_iter().flatten().collect::<Vec<_>>());
    }
}
