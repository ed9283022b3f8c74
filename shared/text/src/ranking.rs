//! The best documents for some words, by BM25.

use crate::index::TextIndex;
use crate::search::{Failure, Step, all_of, in_memory};
use crate::{TextError, damaged, schema};
use model::limits;
use roaring::RoaringBitmap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::AddAssign;
use tantivy::Term;
use tantivy::postings::TermInfo;
use tantivy::query::{Bm25StatisticsProvider, BooleanQuery, EnableScoring, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};

/// What BM25 must know of all documents. Sum it over all indexes, so that scores do not depend on how rows are divided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Rows, with or without a document.
    pub rows: u64,
    /// Words of all documents.
    pub words: u64,
    /// Documents that have a word, for each word asked for.
    pub documents: BTreeMap<String, u64>,
}

impl AddAssign<&Statistics> for Statistics {
    fn add_assign(&mut self, other: &Statistics) {
        self.rows += other.rows;
        self.words += other.words;
        for (word, count) in &other.documents {
            *self.documents.entry(word.clone()).or_default() += count;
        }
    }
}

/// Tantivy asserts that no word is in more documents than there are, and divides by the number of rows.
impl Bm25StatisticsProvider for Statistics {
    fn total_num_tokens(&self, _: Field) -> tantivy::Result<u64> {
        Ok(self.words)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.documents.values().copied().fold(self.rows.max(1), u64::max))
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        let count = term.value().as_str().and_then(|word| self.documents.get(word)).copied();
        Ok(count.unwrap_or(0))
    }
}

/// A row and what BM25 says of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Its number in the segment.
    pub row: u32,
    /// The higher, the better.
    pub score: f32,
}

/// A text being looked for in one index: any of its words, the rarer the better.
pub struct Ranking<'a> {
    index: &'a TextIndex,
    words: Vec<String>,
}

impl<'a> Ranking<'a> {
    /// Begins, with up to [`limits::TEXT_WORDS_MAX`] different words of `text`, cut as those of the documents were.
    /// `None` if the words of documents are not indexed.
    pub fn new(index: &'a TextIndex, text: &str) -> Option<Self> {
        let mut analyzer = schema::analyzer(index.options.words?);
        let mut stream = analyzer.token_stream(text);
        let mut words = BTreeSet::new();
        while words.len() < limits::TEXT_WORDS_MAX && stream.advance() {
            words.insert(stream.token().text.clone());
        }
        Some(Ranking { index, words: words.into_iter().collect() })
    }

    /// This index's part of the statistics. One wave: dictionary, and the lengths of documents (a byte a row).
    pub fn statistics(&self) -> Result<Step<Statistics>, TextError> {
        drop(self.index.pages.take_missed());
        let infos = self.infos();
        let lengths = self.index.opened.segment().get_fieldnorms_reader(schema::words_field());
        match in_memory(infos)? {
            Some(infos) if lengths.is_ok() || self.words.is_empty() => {
                let count = |(word, info): (&String, &Option<TermInfo>)| {
                    (word.clone(), info.as_ref().map_or(0, |info| u64::from(info.doc_freq)))
                };
                Ok(Step::Done(Statistics {
                    rows: u64::from(self.index.row_count()),
                    words: self.index.opened.words.total_num_tokens(),
                    documents: self.words.iter().zip(&infos).map(count).collect(),
                }))
            }
            _ => self.needs(lengths.err()),
        }
    }

    /// The `k` best rows of this index, by descending score, then row; of `among` only, if given. One wave after that of
    /// [`Ranking::statistics`]: the postings.
    pub fn top(
        &self,
        k: usize,
        statistics: &Statistics,
        among: Option<&RoaringBitmap>,
    ) -> Result<Step<Vec<Scored>>, TextError> {
        drop(self.index.pages.take_missed());
        let lengths = self.index.opened.segment().get_fieldnorms_reader(schema::words_field());
        let postings = self.infos().and_then(|infos| {
            let found: Vec<TermInfo> = infos.into_iter().flatten().collect();
            let option = IndexRecordOption::WithFreqs;
            let read = |info: &TermInfo| self.index.opened.words.read_block_postings_from_terminfo(info, option);
            Ok(all_of(&found, read)?.len())
        });
        match in_memory(postings)? {
            Some(0) => Ok(Step::Done(Vec::new())),
            Some(_) if lengths.is_ok() && k > 0 => self.best(k, statistics, among).map(Step::Done),
            Some(_) if k == 0 => Ok(Step::Done(Vec::new())),
            _ => self.needs(lengths.err()),
        }
    }

    fn infos(&self) -> Result<Vec<Option<TermInfo>>, Failure> {
        let info = |word: &String| self.index.opened.words.get_term_info(&term(word));
        Ok(all_of(&self.words, info)?)
    }

    /// The missing bytes; if there are none, it was an error that reading would not heal.
    fn needs<T>(&self, error: Option<tantivy::TantivyError>) -> Result<Step<T>, TextError> {
        let missed = self.index.pages.take_missed();
        match error {
            Some(error) if missed.is_empty() => Err(damaged(error)),
            _ => Ok(Step::Needs(missed)),
        }
    }

    fn best(&self, k: usize, statistics: &Statistics, among: Option<&RoaringBitmap>) -> Result<Vec<Scored>, TextError> {
        let one = |word: &String| Box::new(TermQuery::new(term(word), IndexRecordOption::WithFreqs)) as Box<dyn Query>;
        let union = BooleanQuery::union(self.words.iter().map(one).collect());
        let scoring = EnableScoring::enabled_from_statistics_provider(statistics, &self.index.opened.searcher);
        let union = union.weight(scoring).map_err(damaged)?;
        // The worst on top: the lowest score, and of equal ones the highest row. Scores are positive, so that their bits
        // are in their order.
        let mut best: BinaryHeap<(Reverse<u32>, u32)> = BinaryHeap::new();
        let first = self.index.rows.start;
        let mut threshold = 0.0;
        let mut offer = |row: u32, score: f32| {
            if among.is_none_or(|among| among.contains(row + first)) {
                best.push((Reverse(score.to_bits()), row));
                if best.len() > k {
                    best.pop();
                }
                if let Some((Reverse(worst), _)) = best.peek().filter(|_| best.len() == k) {
                    threshold = f32::from_bits(*worst);
                }
            }
            threshold
        };
        union.for_each_pruning(0.0, self.index.opened.segment(), &mut offer).map_err(damaged)?;
        let scored = |(Reverse(score), row)| Scored { row: row + first, score: f32::from_bits(score) };
        Ok(best.into_sorted_vec().into_iter().map(scored).collect())
    }
}

fn term(word: &str) -> Term {
    Term::from_field_text(schema::words_field(), word)
}
