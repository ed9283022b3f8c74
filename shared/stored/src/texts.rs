//! Text indexes: which stored rows may satisfy a filter.

use crate::base::{Base, Hidden, OpenSegment};
use crate::fetch::Block;
use crate::{StoredError, StoredReader};
use bytes::Bytes;
use model::{SegmentRef, limits};
use segment::TextHead;
use storage::ObjectStore;
use text::{Matches, Plan, Search, Step, TextError, TextIndex};

/// Bytes that the search of one index may read, at least, however many others there are.
const SHARE_BYTES_MIN: u64 = 1 << 20;

impl OpenSegment {
    /// Its text index, by runs of rows; none if it has none. Panics unless [`StoredReader::open_texts`] has succeeded.
    pub fn texts(&self) -> &[TextIndex] {
        self.named.text.as_ref().map_or(&[], |_| self.texts.get().expect("text indexes were opened"))
    }

    pub(crate) fn damaged_text(&self, error: &TextError) -> StoredError {
        StoredError::Corrupt(format!("{}: {error}", self.named.prefix))
    }

    fn open_texts(&self, body: &[u8]) -> Result<Vec<TextIndex>, StoredError> {
        let head = TextHead::open(body).map_err(|error| self.damaged(&error))?;
        let mut rows = 0;
        let mut open = |place| {
            let index = TextIndex::open(&body[place]).map_err(|error| self.damaged_text(&error))?;
            let is_next = index.rows().start == rows;
            rows = index.rows().end;
            Ok((index, is_next))
        };
        let opened = head.hotcache_places().into_iter().map(&mut open).collect::<Result<Vec<_>, StoredError>>()?;
        let named = (self.named.rows, self.named.set_hash);
        if (head.rows(), head.set_hash()) != named || rows != named.0 || opened.iter().any(|(_, is_next)| !is_next) {
            return Err(self.not_ours("text index"));
        }
        Ok(opened.into_iter().map(|(index, _)| index).collect())
    }
}

impl<S: ObjectStore> StoredReader<'_, S> {
    /// Opens the text indexes of all segments that have one. Cost: a get for each that is not known yet, all at once.
    pub async fn open_texts(&self, base: &Base) -> Result<(), StoredError> {
        let place = |named: &SegmentRef| named.text.as_ref().map(segment::text_place);
        self.open_each(base, |segment| &segment.texts, place, OpenSegment::open_texts).await
    }
}

/// A filter being looked up in all text indexes of a base, which are open.
///
/// Who drives it reads what [`FilterSearch::step`] names, hands it to [`FilterSearch::supply`], and asks again: at most twice,
/// however many indexes and conditions there are, unless another search makes the indexes forget what they know.
pub struct FilterSearch<'a> {
    runs: Vec<Run<'a>>,
    matches: Vec<Matches>,
}

/// An index that is not done.
struct Run<'a> {
    /// Number of its segment.
    number: usize,
    segment: &'a OpenSegment,
    /// The object that it names bytes of.
    bundle: String,
    index: &'a TextIndex,
    search: Search<'a>,
}

impl<'a> FilterSearch<'a> {
    /// Begins. Segments without a text index leave all their rows unsure. Panics unless [`StoredReader::open_texts`] has
    /// succeeded.
    pub fn new(base: &'a Base, plan: &'a Plan) -> Self {
        let (mut runs, mut matches) = (Vec::new(), Vec::new());
        for (number, segment) in base.segments.iter().enumerate() {
            let mut none = Matches::default();
            if segment.named.text.is_none() {
                none.unsure.insert_range(0..segment.named.rows);
            }
            matches.push(none);
            runs.extend((0..).zip(segment.texts()).map(|(part, index)| (number, &**segment, part, index)));
        }
        let share = (limits::TEXT_SEARCH_BYTES_MAX / (runs.len() as u64).max(1)).max(SHARE_BYTES_MIN);
        let run = |(number, segment, part, index): (usize, &'a OpenSegment, u32, &'a TextIndex)| Run {
            number,
            segment,
            bundle: segment.key(&TextHead::bundle(part)),
            index,
            search: Search::new(index, plan, share),
        };
        FilterSearch { runs: runs.into_iter().map(run).collect(), matches }
    }

    /// What must be read to go on; nothing if it is over. Errors: an index is not what was written.
    pub fn step(&mut self) -> Result<Vec<Block>, StoredError> {
        let mut blocks = Vec::new();
        let mut left = Vec::new();
        for mut run in std::mem::take(&mut self.runs) {
            match run.search.step().map_err(|error| run.segment.damaged_text(&error))? {
                Step::Needs(ranges) => {
                    blocks.extend(ranges.into_iter().map(|range| Block { key: run.bundle.clone(), range }));
                    left.push(run);
                }
                Step::Done(Matches { sure, unsure }) => {
                    self.matches[run.number].sure |= sure;
                    self.matches[run.number].unsure |= unsure;
                }
            }
        }
        self.runs = left;
        Ok(blocks)
    }

    /// Takes the bytes of blocks that a step named. Errors: they are not what was written.
    pub fn supply(&self, blocks: &[Block], bodies: Vec<Bytes>) -> Result<(), StoredError> {
        for (block, body) in blocks.iter().zip(bodies) {
            let run = self.runs.iter().find(|run| run.bundle == block.key).expect("a step named the block");
            let supplied = run.index.supply(block.range.clone(), body.into());
            supplied.map_err(|error| run.segment.damaged_text(&error))?;
        }
        Ok(())
    }

    /// For each segment the rows that satisfy the filter, and those of which it is not known, once a step names nothing.
    pub fn finish(self) -> Vec<Matches> {
        self.matches
    }
}

impl Base {
    /// Bytes that text indexes keep.
    fn text_bytes(&self) -> usize {
        self.segments.iter().flat_map(|segment| segment.texts.get()).flatten().map(TextIndex::bytes).sum()
    }

    /// Gives back what text indexes keep if that is more than `bytes_max`. Searches that are under way read again what they need.
    pub fn fit_texts(&self, bytes_max: usize) {
        if self.text_bytes() > bytes_max {
            self.segments.iter().flat_map(|segment| segment.texts.get()).flatten().for_each(TextIndex::forget);
        }
    }

    /// Takes the rows that do not live in this generation, and those in `hidden`, out of `matches`, which are by segment. Panics
    /// unless [`StoredReader::open`] has succeeded.
    pub fn remove_invisible(&self, hidden: &Hidden, matches: &mut [Matches]) {
        for (number, Matches { sure, unsure }) in (0..).zip(matches) {
            for rows in [sure, unsure] {
                self.dead(number).remove_from(rows);
                hidden.of(number).remove_from(rows);
            }
        }
    }
}
