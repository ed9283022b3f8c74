//! What ranks documents by words, for rows that no index of words knows: how they are counted, and what is known of all.

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
