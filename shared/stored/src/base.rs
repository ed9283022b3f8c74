//! The segments of a manifest, as far as they were opened, and places in them.

use crate::StoredError;
use crate::fetch::Block;
use model::{Manifest, OperationKind, OperationView, Position, SegmentRef};
use segment::ids::IdFilter;
use segment::row::RowView;
use segment::{BatchPlace, DeleteVector, LeafIndex, Segment, SegmentError};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;
use text::TextIndex;

/// A stored row: number of its segment in the manifest, and its row there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Number of its segment.
    pub segment: u32,
    /// Its number there.
    pub row: u32,
}

impl Place {
    /// As one number, in the same order.
    pub fn number(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.row)
    }

    /// The inverse of [`Place::number`].
    pub fn of_number(number: u64) -> Self {
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("it is masked");
        Place { segment: half(number >> 32), row: half(number) }
    }
}

/// Rows that a log hides, for each segment.
#[derive(Clone, Debug)]
pub struct Hidden(Vec<DeleteVector>);

impl Hidden {
    /// No row.
    pub fn nothing(segments: usize) -> Self {
        Hidden(vec![DeleteVector::default(); segments])
    }

    /// Whether the row is hidden.
    pub fn contains(&self, place: Place) -> bool {
        self.0[place.segment as usize].contains(place.row)
    }

    /// Hides the row.
    pub fn insert(&mut self, place: Place) {
        self.0[place.segment as usize].insert(place.row);
    }

    /// Number of hidden rows.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|rows| u64::from(rows.len())).sum()
    }

    /// Whether no row is hidden.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hidden rows of segment number `segment`.
    pub fn of(&self, segment: u32) -> &DeleteVector {
        &self.0[segment as usize]
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(DeleteVector::bytes).sum()
    }
}

/// A segment, and what was read of it so far. It never changes, so versions share it.
pub struct OpenSegment {
    /// As the manifest names it; its delete vector may be an older one.
    pub named: SegmentRef,
    /// The prefix, to be shared by what is kept of it.
    pub(crate) prefix: Rc<str>,
    pub(crate) head: OnceCell<Segment>,
    pub(crate) filter: OnceCell<IdFilter>,
    pub(crate) positions: OnceCell<Vec<Position>>,
    pub(crate) index: OnceCell<LeafIndex>,
    /// Of each run of its rows.
    pub(crate) texts: OnceCell<Vec<TextIndex>>,
}

impl OpenSegment {
    fn new(named: SegmentRef) -> Self {
        OpenSegment {
            prefix: named.prefix.as_str().into(),
            named,
            head: OnceCell::new(),
            filter: OnceCell::new(),
            positions: OnceCell::new(),
            index: OnceCell::new(),
            texts: OnceCell::new(),
        }
    }

    /// What is wrong with the segment, for whoever reads it.
    pub fn damaged(&self, error: &SegmentError) -> StoredError {
        StoredError::Corrupt(format!("{}: {error}", self.named.prefix))
    }

    /// What is wrong where an object of this segment tells of other rows.
    pub(crate) fn not_ours(&self, what: &str) -> StoredError {
        StoredError::Corrupt(format!("{} has the {what} of another segment", self.named.prefix))
    }

    pub(crate) fn key(&self, part: &str) -> String {
        format!("{}/{part}", self.named.prefix)
    }

    /// A stretch of one of its parts.
    pub fn block(&self, part: &str, range: Range<u64>) -> Block {
        Block { key: self.key(part), range }
    }

    pub(crate) fn batch_block(&self, place: &BatchPlace) -> Block {
        self.block(&place.part, place.range.clone())
    }

    /// What opening it told. Panics unless [`crate::StoredReader::open`] has succeeded.
    pub fn head(&self) -> &Segment {
        self.head.get().expect("the segment was opened")
    }

    pub(crate) fn positions(&self) -> &[Position] {
        self.positions.get().expect("positions were read")
    }

    fn bytes(&self) -> usize {
        let positions = self.positions.get().map_or(0, |positions| size_of_val(&positions[..]));
        let head = self.head.get().map_or(0, Segment::bytes);
        let index = self.index.get().map_or(0, LeafIndex::bytes);
        let texts = self.texts.get().into_iter().flatten().map(TextIndex::bytes).sum::<usize>();
        positions + head + index + texts + self.filter.get().map_or(0, IdFilter::bytes) + size_of::<Self>()
    }
}

/// The segments of a manifest.
pub struct Base {
    /// As it is.
    pub manifest: Manifest,
    /// In its order.
    pub segments: Vec<Rc<OpenSegment>>,
    pub(crate) dead: Vec<OnceCell<DeleteVector>>,
}

impl Base {
    /// Those of `manifest`; what `before` has read of the same ones is kept.
    pub fn new(manifest: Manifest, before: Option<&Base>) -> Self {
        let known = |named: &SegmentRef| {
            let all = before.into_iter().flat_map(|base| &base.segments);
            all.clone().find(|segment| segment.named.prefix == named.prefix).map(Rc::clone)
        };
        let open = |named: &SegmentRef| known(named).unwrap_or_else(|| Rc::new(OpenSegment::new(named.clone())));
        let segments: Vec<Rc<OpenSegment>> = manifest.segments.iter().map(open).collect();
        let dead = vec![OnceCell::new(); segments.len()];
        Base { manifest, segments, dead }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let dead = self.dead.iter().filter_map(OnceCell::get).map(DeleteVector::bytes).sum::<usize>();
        self.segments.iter().map(|segment| segment.bytes()).sum::<usize>() + dead
    }

    /// Size of all segments, in bytes.
    pub(crate) fn bytes_stored(&self) -> u64 {
        self.manifest.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// What a row takes in the store, in bytes: on average, and with all that leads to it.
    pub(crate) fn row_bytes(&self) -> u64 {
        let rows = self.manifest.segments.iter().map(|segment| u64::from(segment.rows)).sum::<u64>();
        self.bytes_stored() / rows.max(1)
    }

    /// The dead rows of segment number `segment`. Panics unless [`crate::StoredReader::open`] has succeeded.
    pub fn dead(&self, segment: u32) -> &DeleteVector {
        self.dead[segment as usize].get().expect("the segment was opened")
    }

    /// Whether a row lives in this generation. Panics unless [`crate::StoredReader::open`] has succeeded.
    pub fn is_live(&self, place: Place) -> bool {
        !self.dead(place.segment).contains(place.row)
    }

    /// The position of a row. Panics unless [`crate::StoredReader::read_positions`] has succeeded.
    pub fn position(&self, place: Place) -> Position {
        self.segments[place.segment as usize].positions()[place.row as usize]
    }

    /// The positions of all live rows, ascending, with their places: as many as are asked for. Panics unless
    /// [`crate::StoredReader::read_positions`] has succeeded.
    pub fn in_order(&self) -> impl Iterator<Item = (Position, Place)> {
        let mut at = vec![0_u32; self.segments.len()];
        std::iter::from_fn(move || {
            loop {
                let heads = self.numbered().filter_map(|(number, segment)| {
                    let row = at[number as usize];
                    let position = segment.positions().get(row as usize)?;
                    Some((*position, Place { segment: number, row }))
                });
                let (position, place) = heads.min()?;
                at[place.segment as usize] += 1;
                if self.is_live(place) {
                    return Some((position, place));
                }
            }
        })
    }

    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u32, &OpenSegment)> {
        (0..).zip(self.segments.iter().map(|segment| &**segment))
    }
}

/// The inverse of [`as_upsert`]. Panics if it carries no vector.
pub fn as_row<'a>(position: Position, upsert: &'a OperationView<'_>) -> RowView<'a> {
    RowView {
        position,
        id: upsert.id,
        vector: upsert.embedding.expect("an insertion carries a vector"),
        document: upsert.document,
        uri: upsert.uri,
        metadata: upsert.metadata.as_deref(),
    }
}

/// What a row would have been written as.
pub fn as_upsert<'a>(row: &RowView<'a>) -> OperationView<'a> {
    OperationView {
        kind: OperationKind::Upsert,
        id: row.id,
        embedding: Some(row.vector),
        document: row.document,
        uri: row.uri,
        metadata: row.metadata.map(Cow::Borrowed),
    }
}
