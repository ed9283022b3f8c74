//! A plan against an index: which bytes it needs, and which rows satisfy it.

use crate::attributes::{self, Stretch};
use crate::grams;
use crate::index::TextIndex;
use crate::pages::Source;
use crate::plan::{Leaf, Node, Plan};
use crate::rows::Union;
use crate::{TextError, damaged, schema, terms};
use model::limits;
use roaring::RoaringBitmap;
use std::io;
use std::ops::Range;
use tantivy::postings::{Postings, SegmentPostings, TermInfo};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, TERMINATED, Term};

/// How far a question got.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<T> {
    /// These ranges of the bundle are needed to go on, ascending, whole pages, neighbours joined: fetch them all at the
    /// same time, hand each to [`TextIndex::supply`], and ask again.
    Needs(Vec<Range<u64>>),
    /// The answer.
    Done(T),
}

/// Which rows of a segment satisfy a filter, as far as the index knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matches {
    /// They do.
    pub sure: RoaringBitmap,
    /// They may: [`query::CompiledFilter::matches`] says of each. No row is in both; rows in neither do not satisfy it.
    pub unsure: RoaringBitmap,
}

/// Rows that surely satisfy a condition, and those that possibly do, the sure ones among them.
#[derive(Clone, Debug)]
struct Bounds {
    sure: RoaringBitmap,
    possible: RoaringBitmap,
}

impl Bounds {
    fn exactly(rows: RoaringBitmap) -> Self {
        Bounds { sure: rows.clone(), possible: rows }
    }

    fn at_most(rows: RoaringBitmap) -> Self {
        Bounds { sure: RoaringBitmap::new(), possible: rows }
    }
}

/// A plan being carried out against one index.
///
/// A conjunction of any length needs as many dependent waves of reads as its slowest condition: none or one for metadata,
/// at most two for documents (dictionary, then postings).
pub struct Search<'a> {
    index: &'a TextIndex,
    plan: &'a Plan,
    bytes_max: u64,
    /// What is known of each leaf of the plan.
    done: Vec<Option<Bounds>>,
}

impl<'a> Search<'a> {
    /// Begins. Besides dictionaries it will read about `bytes_max` at most, which conditions share alike: one that would need
    /// more leaves rows unsure. Cost: nothing yet.
    pub fn new(index: &'a TextIndex, plan: &'a Plan, bytes_max: u64) -> Self {
        Search { index, plan, bytes_max, done: vec![None; plan.leaves.len()] }
    }

    /// Goes as far as the bytes in memory allow. After [`Step::Done`] it is over; a step says the same if asked again.
    ///
    /// Errors: the bundle is not what was written.
    pub fn step(&mut self) -> Result<Step<Matches>, TextError> {
        drop(self.index.pages.take_missed());
        let share = self.bytes_max / (self.plan.leaves.len() as u64).max(1);
        let lookup = Lookup { index: self.index, bytes_max: share };
        for (leaf, done) in self.plan.leaves.iter().zip(&mut self.done) {
            if done.is_none() {
                *done = in_memory(lookup.leaf(leaf))?;
            }
        }
        if self.done.iter().all(Option::is_some) {
            Ok(Step::Done(self.matches()))
        } else {
            Ok(Step::Needs(self.index.pages.take_missed()))
        }
    }

    fn matches(&self) -> Matches {
        let Bounds { sure, possible } = self.bounds(&self.plan.root);
        let unsure = possible - &sure;
        let first = self.index.rows.start;
        Matches { sure: shifted(sure, first), unsure: shifted(unsure, first) }
    }

    fn bounds(&self, node: &Node) -> Bounds {
        match node {
            Node::Leaf(leaf) => self.done[*leaf].clone().expect("all leaves are done"),
            Node::All(nodes) => nodes.iter().fold(Bounds::exactly(everything(self.index)), |mut all, node| {
                let Bounds { sure, possible } = self.bounds(node);
                all.sure &= sure;
                all.possible &= possible;
                all
            }),
            Node::Any(nodes) => nodes.iter().fold(Bounds::exactly(RoaringBitmap::new()), |mut any, node| {
                let Bounds { sure, possible } = self.bounds(node);
                any.sure |= sure;
                any.possible |= possible;
                any
            }),
            Node::Not(node) => {
                let Bounds { sure, possible } = self.bounds(node);
                let all = everything(self.index);
                Bounds { sure: &all - possible, possible: all - sure }
            }
            Node::AtMost(node) => Bounds::at_most(self.bounds(node).possible),
        }
    }
}

fn everything(index: &TextIndex) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    all.insert_range(0..index.row_count());
    all
}

/// Numbers within the segment for those within the index.
fn shifted(rows: RoaringBitmap, first: u32) -> RoaringBitmap {
    if first == 0 {
        return rows;
    }
    RoaringBitmap::from_sorted_iter(rows.iter().map(|row| row + first)).expect("they stay in order")
}

/// `None` while bytes are missing.
pub(crate) fn in_memory<T>(result: Result<T, Failure>) -> Result<Option<T>, TextError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(Failure::Io(error)) => Err(damaged(error)),
        Err(Failure::Text(error)) => Err(error),
    }
}

/// Why a look-up ended, missing bytes included.
pub(crate) enum Failure {
    Io(io::Error),
    Text(TextError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        Failure::Text(error)
    }
}

/// Tries every one, so that what they miss is missed in one wave; then fails if one did.
pub(crate) fn all_of<T, U>(items: &[T], each: impl FnMut(&T) -> io::Result<U>) -> io::Result<Vec<U>> {
    let results: Vec<io::Result<U>> = items.iter().map(each).collect();
    results.into_iter().collect()
}

/// Look-ups of single leaves; the bytes of one are bounded.
struct Lookup<'a> {
    index: &'a TextIndex,
    bytes_max: u64,
}

impl Lookup<'_> {
    fn leaf(&self, leaf: &Leaf) -> Result<Bounds, Failure> {
        match leaf {
            Leaf::Documents => self.term(terms::has_document()),
            Leaf::Terms { bounds, exact, key, types } => {
                let rows = self.terms(bounds)?;
                let is_indexed = self.index.options.types(key).contain(*types);
                Ok(match rows {
                    None => Bounds::at_most(everything(self.index)),
                    Some(rows) if is_indexed && *exact => Bounds::exactly(rows),
                    Some(rows) if is_indexed => Bounds::at_most(rows),
                    // What is not indexed may be anywhere.
                    Some(sure) => Bounds {
                        sure: if *exact { sure } else { RoaringBitmap::new() },
                        possible: everything(self.index),
                    },
                })
            }
            Leaf::Needle { .. } if !self.index.options.documents => {
                Ok(Bounds::at_most(self.term(terms::has_document())?.possible))
            }
            Leaf::Needle { bytes, exact } => match bytes[..] {
                [byte] => self.term(terms::has_byte(byte)),
                [first, second] => self.pair([first, second]),
                _ => self.needle(bytes, *exact),
            },
        }
    }

    /// The rows of one internal term.
    fn term(&self, term: Vec<u8>) -> Result<Bounds, Failure> {
        let behind = [&term[..], &[0]].concat();
        let rows = self.terms(&[term..behind])?;
        Ok(rows.map_or_else(|| Bounds::at_most(everything(self.index)), Bounds::exactly))
    }

    /// The rows of the terms in `bounds`; `None` if that is too much to read. One wave.
    fn terms(&self, bounds: &[Range<Vec<u8>>]) -> Result<Option<RoaringBitmap>, Failure> {
        let stretches: Vec<(Stretch, &Range<Vec<u8>>)> = bounds
            .iter()
            .flat_map(|bounds| self.index.directory.stretches(bounds).into_iter().map(move |stretch| (stretch, bounds)))
            .collect();
        let mut ranges: Vec<Range<u64>> = stretches.iter().map(|(stretch, _)| stretch.range()).collect();
        ranges.dedup();
        if ranges.iter().map(|range| range.end - range.start).sum::<u64>() > self.bytes_max {
            return Ok(None);
        }
        let read = all_of(&stretches, |(stretch, _)| self.index.pages.read(stretch.range()))?;
        let mut sum = Union::default();
        for (bytes, (stretch, bounds)) in read.iter().zip(&stretches) {
            attributes::collect(stretch, bytes, self.index.row_count(), bounds, &mut sum)?;
        }
        Ok(Some(sum.finish()))
    }

    /// The rows whose documents have these two bytes: those of all grams that begin with them. Two waves, both of
    /// neighbouring bytes.
    fn pair(&self, [first, second]: [u8; 2]) -> Result<Bounds, Failure> {
        let mut infos = Vec::new();
        let behind = second.checked_add(1).expect("text has no byte 255");
        let range = self.index.opened.grams.terms().range();
        let mut stream =
            range.ge(grams::as_text(&[first, second])).lt(grams::as_text(&[first, behind])).into_stream()?;
        while let Some((_, info)) = stream.next() {
            infos.push(info.clone());
        }
        if infos.iter().map(|info| info.postings_range.len() as u64).sum::<u64>() > self.bytes_max {
            return Ok(Bounds::at_most(self.term(terms::has_document())?.possible));
        }
        let mut rows = RoaringBitmap::new();
        for postings in all_of(&infos, |info| self.rows_of(info))? {
            rows |= postings;
        }
        Ok(Bounds::exactly(rows))
    }

    /// The rows whose documents have these three bytes or more. Two waves.
    fn needle(&self, needle: &[u8], exact: bool) -> Result<Bounds, Failure> {
        let offsets = offsets(needle.len() - (grams::GRAM_BYTES - 1));
        let dictionary = &self.index.opened.grams;
        let infos = all_of(&offsets, |offset| {
            let gram = grams::as_text(&needle[*offset..offset + grams::GRAM_BYTES]);
            dictionary.get_term_info(&Term::from_field_text(schema::grams_field(), &gram))
        })?;
        let Some(infos) = infos.into_iter().collect::<Option<Vec<TermInfo>>>() else {
            return Ok(Bounds::exactly(RoaringBitmap::new()));
        };
        if let [only] = &infos[..] {
            return Ok(Bounds::exactly(self.rows_of(only)?));
        }
        let mut costs = vec![NEVER; offsets[offsets.len() - 1] + 1];
        for (offset, info) in offsets.iter().zip(&infos) {
            costs[*offset] = READ_COST + self.cost(&info.postings_range) + self.cost(&info.positions_range);
        }
        let cover = grams::cover(&costs);
        if exact && cover.iter().map(|offset| costs[*offset] - READ_COST).sum::<u64>() <= self.bytes_max {
            let chosen: Vec<(usize, &TermInfo)> =
                offsets.iter().copied().zip(&infos).filter(|(offset, _)| cover.contains(offset)).collect();
            let option = IndexRecordOption::WithFreqsAndPositions;
            let postings = all_of(&chosen, |(_, info)| {
                let positions = self.index.opened.positions.read_bytes_slice(info.positions_range.clone());
                dictionary.read_postings_from_terminfo(info, option).and_then(|postings| positions.map(|_| postings))
            })?;
            let chosen = chosen.iter().map(|(offset, _)| *offset).zip(postings).collect();
            return Ok(Bounds::exactly(in_a_row(chosen, needle.len())));
        }
        self.candidates(infos)
    }

    /// The rows that have the rarest of these grams, wherever.
    fn candidates(&self, mut infos: Vec<TermInfo>) -> Result<Bounds, Failure> {
        infos.sort_unstable_by_key(|info| (info.doc_freq, info.postings_range.start));
        infos.dedup();
        let mut bytes = 0;
        infos.truncate(limits::TEXT_CANDIDATE_GRAMS);
        infos.retain(|info| {
            bytes += self.cost(&info.postings_range);
            bytes <= self.bytes_max
        });
        let mut rows = everything(self.index);
        for postings in all_of(&infos, |info| self.rows_of(info))? {
            rows &= postings;
        }
        Ok(Bounds::at_most(rows))
    }

    fn cost(&self, range: &Range<usize>) -> u64 {
        // Where the file begins is not known here: as if it were on a page's edge.
        let pages = self.index.pages.around(&(range.start as u64..range.end as u64));
        pages.end.saturating_sub(pages.start)
    }

    /// The rows of one gram.
    fn rows_of(&self, info: &TermInfo) -> io::Result<RoaringBitmap> {
        let mut postings = self.index.opened.grams.read_block_postings_from_terminfo(info, IndexRecordOption::Basic)?;
        let mut rows = Vec::with_capacity(crate::index(info.doc_freq.min(self.index.row_count())));
        while !postings.docs().is_empty() {
            rows.extend_from_slice(postings.docs());
            postings.advance();
        }
        RoaringBitmap::from_sorted_iter(rows).map_err(io::Error::other)
    }
}

/// A read more is worth so many bytes less.
const READ_COST: u64 = 32 * 1024;
/// More than all reads together, and few enough of it to add up.
const NEVER: u64 = 1 << 48;

/// Offsets of the grams of a needle that are looked up: all `count`, or of a long one as few as cover it.
fn offsets(count: usize) -> Vec<usize> {
    if count <= limits::TEXT_GRAMS_MAX {
        return (0..count).collect();
    }
    let mut offsets: Vec<usize> = (0..count).step_by(grams::GRAM_BYTES).collect();
    if offsets.last() != Some(&(count - 1)) {
        offsets.push(count - 1);
    }
    offsets
}

/// The documents that have all grams, each at its offset from one and the same place.
///
/// - `grams`: offset and postings with positions.
/// - `length`: more than any offset.
fn in_a_row(mut grams: Vec<(usize, SegmentPostings)>, length: usize) -> RoaringBitmap {
    grams.sort_by_key(|(_, postings)| postings.doc_freq());
    let mut rows = Vec::new();
    let Some(((_, lead), _)) = grams.split_first() else { return RoaringBitmap::new() };
    let mut row = lead.doc();
    let (mut starts, mut others) = (Vec::new(), Vec::new());
    while row != TERMINATED {
        let ahead = grams
            .iter_mut()
            .map(|(_, postings)| if postings.doc() < row { postings.seek(row) } else { postings.doc() });
        match ahead.max() {
            Some(doc) if doc > row => row = doc,
            _ => {
                if share_a_place(&mut grams, length, &mut starts, &mut others) {
                    rows.push(row);
                }
                row = grams[0].1.advance();
            }
        }
    }
    RoaringBitmap::from_sorted_iter(rows).expect("documents ascend")
}

/// Whether in the document at which all postings stand there is a place from which each gram is at its offset.
fn share_a_place(
    grams: &mut [(usize, SegmentPostings)],
    length: usize,
    starts: &mut Vec<u32>,
    others: &mut Vec<u32>,
) -> bool {
    for (number, (offset, postings)) in grams.iter_mut().enumerate() {
        let shift = u32::try_from(length - *offset).expect("needles are short");
        if number == 0 {
            postings.positions_with_offset(shift, starts);
        } else {
            postings.positions_with_offset(shift, others);
            starts.retain(|start| others.binary_search(start).is_ok());
        }
        if starts.is_empty() {
            return false;
        }
    }
    true
}
