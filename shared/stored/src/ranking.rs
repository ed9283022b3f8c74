//! The best documents for some words, over all segments of a version.

use crate::StoredReader;
use crate::base::{Base, OpenSegment, Place};
use crate::fetch::Block;
use model::limits;
use query::{PlanError, Statistics};
use roaring::RoaringBitmap;
use segment::TextHead;
use std::cell::Cell;
use std::cmp::Ordering;
use storage::ObjectStore;
use text::{Keywords, Ranking, Scored, Step, TextError, TextIndex};

/// The text indexes of a base in which some words are looked up.
pub struct WordIndexes<'a> {
    parts: Vec<Part<'a>>,
    /// Bytes that may still be read.
    bytes_left: Cell<u64>,
    /// The segments, by number, of which words of documents are not indexed, or otherwise.
    pub unindexed: Vec<u32>,
}

const TOO_COMMON: &str = "the words are in more documents than can be ranked at once: ask for fewer or rarer words";

/// A text index of which words are looked up.
struct Part<'a> {
    /// Of its segment.
    number: u32,
    segment: &'a OpenSegment,
    /// The object that it names bytes of.
    bundle: String,
    index: &'a TextIndex,
    ranking: Ranking<'a>,
}

impl<S: ObjectStore> StoredReader<'_, S> {
    /// What scores depend on, of all rows that `words` knows. Rows that no longer live count as long as they are stored.
    ///
    /// Errors: as of reading; [`PlanError::TooLarge`] if all together would take more than [`limits::TEXT_RANK_BYTES_MAX`]. Cost: one
    /// wave, of dictionaries with lengths (a byte a row).
    pub async fn word_statistics(&self, words: &WordIndexes<'_>) -> Result<Statistics, PlanError> {
        let mut all = Statistics::default();
        for of_part in self.answers(words, |part| part.ranking.statistics()).await? {
            all += &of_part;
        }
        Ok(all)
    }

    /// The `k` best rows by BM25 of those that `words` knows and `among` names, by segment: best first, of equal ones the first
    /// by place.
    ///
    /// - `all`: of everything, so that how rows are divided makes no difference.
    ///
    /// Errors: as of [`StoredReader::word_statistics`]. Cost: one wave, of postings.
    pub async fn best(
        &self,
        words: &WordIndexes<'_>,
        k: usize,
        all: &Statistics,
        among: &[RoaringBitmap],
    ) -> Result<Vec<(Place, f32)>, PlanError> {
        let top = |part: &Part<'_>| part.ranking.top(k, all, Some(&among[part.number as usize]));
        let tops = self.answers(words, top).await?;
        let place = |part: &Part<'_>, Scored { row, score }| (Place { segment: part.number, row }, score);
        let mut rows: Vec<(Place, f32)> = (words.parts.iter().zip(tops))
            .flat_map(|(part, top)| top.into_iter().map(move |scored| place(part, scored)))
            .collect();
        rows.sort_unstable_by(best_first);
        rows.truncate(k);
        Ok(rows)
    }

    /// What `ask` says of each part of `words`, with what it must know of them read, of all together.
    async fn answers<T>(
        &self,
        WordIndexes { parts, bytes_left, .. }: &WordIndexes<'_>,
        ask: impl Fn(&Part<'_>) -> Result<Step<T>, TextError>,
    ) -> Result<Vec<T>, PlanError> {
        let mut answers: Vec<Option<T>> = parts.iter().map(|_| None).collect();
        loop {
            let (mut asking, mut blocks) = (Vec::new(), Vec::new());
            for (part, answer) in parts.iter().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
                match ask(part).map_err(|error| part.segment.damaged_text(&error))? {
                    Step::Done(done) => *answer = Some(done),
                    Step::Needs(ranges) => {
                        asking.extend(ranges.iter().map(|_| part));
                        blocks.extend(ranges.into_iter().map(|range| Block { key: part.bundle.clone(), range }));
                    }
                }
            }
            if blocks.is_empty() {
                return Ok(answers.into_iter().flatten().collect());
            }
            let bytes: u64 = blocks.iter().map(|block| block.range.end - block.range.start).sum();
            let left = bytes_left.get().checked_sub(bytes);
            bytes_left.set(left.ok_or_else(|| PlanError::TooLarge(TOO_COMMON.to_owned()))?);
            for ((part, block), body) in asking.into_iter().zip(&blocks).zip(self.read(&blocks).await?) {
                let supplied = part.index.supply(block.range.clone(), body.into());
                supplied.map_err(|error| part.segment.damaged_text(&error))?;
            }
        }
    }
}

impl<'a> WordIndexes<'a> {
    /// Those of `base`, whose text indexes are open.
    pub fn new(base: &'a Base, keywords: &'a Keywords) -> Self {
        let (mut parts, mut unindexed) = (Vec::new(), Vec::new());
        for (number, segment) in (0..).zip(&base.segments) {
            let of_part = |(part, index): (u32, &'a TextIndex)| {
                let bundle = segment.key(&TextHead::bundle(part));
                Some(Part { number, segment, bundle, index, ranking: Ranking::new(index, keywords)? })
            };
            match (0..).zip(segment.texts()).map(of_part).collect::<Option<Vec<_>>>() {
                Some(of_segment) if !of_segment.is_empty() => parts.extend(of_segment),
                _ => unindexed.push(number),
            }
        }
        WordIndexes { parts, bytes_left: Cell::new(limits::TEXT_RANK_BYTES_MAX), unindexed }
    }
}

fn best_first((a_place, a): &(Place, f32), (b_place, b): &(Place, f32)) -> Ordering {
    b.total_cmp(a).then(a_place.cmp(b_place))
}
