//! What ranks documents by words, for rows that no index of words knows: how they are counted, and what is known of all.

use crate::plan::PlanError;
use model::limits;
use std::ops::AddAssign;

/// Counts documents for a rank: the crate that knows how text becomes words has one.
pub trait Counter {
    /// What the document's score depends on.
    fn count(&self, document: &str) -> Counted;
}

/// What the score of a document depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Words that it has.
    pub length: u64,
    /// How often it has each of the keywords.
    pub times: Box<[u32]>,
}

impl Counted {
    /// Whether it has any of the keywords: others have no score.
    pub fn is_hit(&self) -> bool {
        self.times.iter().any(|times| *times > 0)
    }
}

/// The documents that have a keyword, each with what it is known by: as many as there is memory for.
#[derive(Debug)]
pub struct Counts<K> {
    /// In the order in which they came.
    pub all: Vec<(K, Counted)>,
    bytes: usize,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts { all: Vec::new(), bytes: 0 }
    }
}

impl<K> Counts<K> {
    /// Errors: [`PlanError::TooLarge`] if all together are more than [`limits::RANK_COUNTS_BYTES_MAX`].
    pub fn push(&mut self, known_by: K, counted: Counted) -> Result<(), PlanError> {
        self.bytes += size_of::<(K, Counted)>() + size_of_val(&*counted.times);
        if self.bytes > limits::RANK_COUNTS_BYTES_MAX {
            let what = "too many documents have these words that are not indexed: ask for fewer or rarer words";
            return Err(PlanError::TooLarge(what.to_owned()));
        }
        self.all.push((known_by, counted));
        Ok(())
    }
}

/// What the scores of all depend on. Sum it over everything there is, so that scores do not depend on how rows are divided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Rows, with or without a document.
    pub rows: u64,
    /// Words of all documents.
    pub words: u64,
    /// Documents that have a keyword, for each keyword; none where no document was counted.
    pub documents: Vec<u64>,
}

impl Statistics {
    /// Adds a row and what its document came to, if it has one.
    pub fn add(&mut self, counted: Option<&Counted>) {
        let of_row = Statistics {
            rows: 1,
            words: counted.map_or(0, |counted| counted.length),
            documents: counted.iter().flat_map(|counted| &*counted.times).map(|times| u64::from(*times > 0)).collect(),
        };
        *self += &of_row;
    }
}

impl AddAssign<&Statistics> for Statistics {
    fn add_assign(&mut self, other: &Statistics) {
        self.rows += other.rows;
        self.words += other.words;
        if self.documents.len() < other.documents.len() {
            self.documents.resize(other.documents.len(), 0);
        }
        self.documents.iter_mut().zip(&other.documents).for_each(|(sum, more)| *sum += more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(times: &[u32]) -> Counted {
        Counted { length: 7, times: times.into() }
    }

    #[test]
    fn rows_without_a_document_count_as_rows() {
        let mut statistics = Statistics::default();
        statistics.add(None);
        assert_eq!(statistics, Statistics { rows: 1, words: 0, documents: vec![] });
        statistics.add(Some(&counted(&[0, 3])));
        statistics.add(Some(&counted(&[1, 1])));
        assert_eq!(statistics, Statistics { rows: 3, words: 14, documents: vec![1, 2] });
    }

    #[test]
    fn there_is_no_more_counted_than_there_is_memory_for() {
        let mut counts = Counts::default();
        let most = limits::RANK_COUNTS_BYTES_MAX / (4 * 64);
        let pushed = (0..most).find_map(|number| counts.push(number, counted(&[1; 64])).err());
        assert!(matches!(pushed, Some(PlanError::TooLarge(_))));
        assert!(counts.all.len() > most / 2);
    }
}
