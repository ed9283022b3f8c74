//! The best documents for some words, by BM25.

use crate::index::TextIndex;
use crate::search::{Failure, Step, all_of, in_memory};
use crate::{TextError, damaged, schema};
use model::{Words, limits};
use query::{Counted, Counter, Statistics};
use roaring::RoaringBitmap;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use tantivy::Term;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::TermInfo;
use tantivy::query::{Bm25StatisticsProvider, Bm25Weight, BooleanQuery, EnableScoring, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::tokenizer::{TextAnalyzer, TokenStream};

/// Words that documents are ranked by: any of them, the rarer the better.
pub struct Keywords {
    options: Words,
    analyzer: RefCell<TextAnalyzer>,
    /// Ascending.
    words: Vec<String>,
}

impl Keywords {
    /// Up to [`limits::TEXT_WORDS_MAX`] different words of `text`, cut as those of the documents.
    pub fn new(text: &str, options: Words) -> Self {
        let mut analyzer = schema::analyzer(options);
        let mut words = BTreeSet::new();
        let mut stream = analyzer.token_stream(text);
        while words.len() < limits::TEXT_WORDS_MAX && stream.advance() {
            words.insert(stream.token().text.clone());
        }
        drop(stream);
        Keywords { options, analyzer: RefCell::new(analyzer), words: words.into_iter().collect() }
    }

    /// What scores a document that no index knows.
    pub fn scorer(&self, all: &Statistics) -> Scorer {
        let known = Known { keywords: self, all };
        let weight =
            |number: usize| Bm25Weight::for_one_term(known.documents(number), known.rows(), known.mean_words());
        Scorer((0..self.words.len()).map(weight).collect())
    }
}

impl Counter for Keywords {
    fn count(&self, document: &str) -> Counted {
        let (mut length, mut times) = (0, vec![0_u32; self.words.len()]);
        self.analyzer.borrow_mut().token_stream(document).process(&mut |token| {
            length += 1;
            if let Ok(number) = self.words.binary_search(&token.text) {
                times[number] = times[number].saturating_add(1);
            }
        });
        Counted { length, times: times.into() }
    }
}

/// BM25 of documents that were counted: what a [`Ranking`] would say of them, but for the order in which it adds.
pub struct Scorer(Vec<Bm25Weight>);

impl Scorer {
    /// The score of a document: 0 if it has none of the words.
    pub fn score(&self, counted: &Counted) -> f32 {
        let length = FieldNormReader::fieldnorm_to_id(u32::try_from(counted.length).unwrap_or(u32::MAX));
        let of_word =
            |(weight, times): (&Bm25Weight, &u32)| if *times == 0 { 0.0 } else { weight.score(length, *times) };
        self.0.iter().zip(&counted.times).map(of_word).sum()
    }
}

/// Statistics as tantivy asks for them.
struct Known<'a> {
    keywords: &'a Keywords,
    all: &'a Statistics,
}

impl Known<'_> {
    fn documents(&self, number: usize) -> u64 {
        self.all.documents.get(number).copied().unwrap_or(0)
    }

    /// Tantivy asserts that no word is in more documents than there are, and divides by their number.
    fn rows(&self) -> u64 {
        self.all.documents.iter().copied().fold(self.all.rows.max(1), u64::max)
    }

    #[expect(clippy::cast_precision_loss, reason = "as tantivy does")]
    fn mean_words(&self) -> f32 {
        self.all.words as f32 / self.rows() as f32
    }
}

impl Bm25StatisticsProvider for Known<'_> {
    fn total_num_tokens(&self, _: Field) -> tantivy::Result<u64> {
        Ok(self.all.words)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.rows())
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        let of_word = |word: &str| self.keywords.words.binary_search_by(|own| own.as_str().cmp(word)).ok();
        Ok(term.value().as_str().and_then(of_word).map_or(0, |number| self.documents(number)))
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

/// Words being looked for in one index.
pub struct Ranking<'a> {
    index: &'a TextIndex,
    keywords: &'a Keywords,
}

impl<'a> Ranking<'a> {
    /// Begins. `None` if the words of documents are not indexed, or otherwise than those of `keywords`.
    pub fn new(index: &'a TextIndex, keywords: &'a Keywords) -> Option<Self> {
        (index.options.words? == keywords.options).then_some(Ranking { index, keywords })
    }

    /// This index's part of the statistics. One wave: dictionary, and the lengths of documents (a byte a row).
    pub fn statistics(&self) -> Result<Step<Statistics>, TextError> {
        drop(self.index.pages.take_missed());
        let infos = self.infos();
        let lengths = self.index.opened.segment().get_fieldnorms_reader(schema::words_field());
        match in_memory(infos)? {
            Some(infos) if lengths.is_ok() || self.keywords.words.is_empty() => {
                let documents = |info: &Option<TermInfo>| info.as_ref().map_or(0, |info| u64::from(info.doc_freq));
                Ok(Step::Done(Statistics {
                    rows: u64::from(self.index.row_count()),
                    words: self.index.opened.words.total_num_tokens(),
                    documents: infos.iter().map(documents).collect(),
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
        Ok(all_of(&self.keywords.words, info)?)
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
        let union = BooleanQuery::union(self.keywords.words.iter().map(one).collect());
        let known = Known { keywords: self.keywords, all: statistics };
        let scoring = EnableScoring::enabled_from_statistics_provider(&known, &self.index.opened.searcher);
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
