//! The best documents for some words, over all segments of a version.

use crate::base::{Base, OpenSegment, Place};
use crate::fetch::Block;
use crate::{StoredError, StoredReader};
use roaring::RoaringBitmap;
use segment::TextHead;
use std::cmp::Ordering;
use storage::ObjectStore;
use text::{Ranking, Scored, Statistics, Step, TextError, TextIndex};

/// What BM25 says of stored rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranked {
    /// The best rows and their scores, best first; of equal ones the first by place.
    pub rows: Vec<(Place, f32)>,
    /// Segments, by number, of which words of documents are not indexed: none of their rows was looked at.
    pub unindexed: Vec<u32>,
}

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
    /// The `k` best rows of those in `among`, by segment, for any of the words of `text`. Text indexes are open.
    ///
    /// Scores are those of BM25 over the rows of all segments: how rows are divided makes no difference. Rows that no longer
    /// live count as long as they are stored. Cost: two waves, of dictionaries with lengths (a byte a row), and of postings.
    pub async fn rank(
        &self,
        base: &Base,
        text: &str,
        k: usize,
        among: &[RoaringBitmap],
    ) -> Result<Ranked, StoredError> {
        let (parts, unindexed) = parts(base, text);
        let mut all = Statistics::default();
        for of_part in self.answers(&parts, |part| part.ranking.statistics()).await? {
            all += &of_part;
        }
        let top = |part: &Part<'_>| part.ranking.top(k, &all, Some(&among[part.number as usize]));
        let tops = self.answers(&parts, top).await?;
        let place = |part: &Part<'_>, Scored { row, score }| (Place { segment: part.number, row }, score);
        let mut rows: Vec<(Place, f32)> = (parts.iter().zip(tops))
            .flat_map(|(part, top)| top.into_iter().map(move |scored| place(part, scored)))
            .collect();
        rows.sort_unstable_by(best_first);
        rows.truncate(k);
        Ok(Ranked { rows, unindexed })
    }

    /// What `ask` says of each of `parts`, with what it must know of them read, of all together.
    async fn answers<T>(
        &self,
        parts: &[Part<'_>],
        ask: impl Fn(&Part<'_>) -> Result<Step<T>, TextError>,
    ) -> Result<Vec<T>, StoredError> {
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
            for ((part, block), body) in asking.into_iter().zip(&blocks).zip(self.read(&blocks).await?) {
                let supplied = part.index.supply(block.range.clone(), body.into());
                supplied.map_err(|error| part.segment.damaged_text(&error))?;
            }
        }
    }
}

/// The indexes of words in `base`, and the segments that have none.
fn parts<'a>(base: &'a Base, text: &str) -> (Vec<Part<'a>>, Vec<u32>) {
    let (mut parts, mut unindexed) = (Vec::new(), Vec::new());
    for (number, segment) in (0..).zip(&base.segments) {
        let of_part = |(part, index): (u32, &'a TextIndex)| {
            let bundle = segment.key(&TextHead::bundle(part));
            Some(Part { number, segment, bundle, index, ranking: Ranking::new(index, text)? })
        };
        match (0..).zip(segment.texts()).map(of_part).collect::<Option<Vec<_>>>() {
            Some(of_segment) if !of_segment.is_empty() => parts.extend(of_segment),
            _ => unindexed.push(number),
        }
    }
    (parts, unindexed)
}

fn best_first((a_place, a): &(Place, f32), (b_place, b): &(Place, f32)) -> Ordering {
    b.total_cmp(a).then(a_place.cmp(b_place))
}
