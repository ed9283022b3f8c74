//! Ids to places, places to rows, and all rows in the order of their positions.

use crate::base::{Base, OpenSegment, Place};
use crate::fetch::{Block, Blocks, Key, Room};
use crate::leaves::Slots;
use crate::{StoredError, Tally};
use bytes::Bytes;
use futures_util::future::{join, join3};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::{DeleteVectorPlace, Position, SegmentRef, limits};
use segment::ids::{Found, IdIndex};
use segment::row::{Row, RowView};
use segment::{BatchPlace, DeleteVector, IDS_PART, IdHash, RowBatch, Segment, SegmentError};
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use storage::ObjectStore;

/// Ids from which on it is worth while to have a filter, which tells what is not there.
const IDS_WITHOUT_FILTER: usize = 8;
/// Batches that are read together when rows are read by place.
const BATCHES_TOGETHER: usize = 96;
/// Rows that are looked at by place are kept if they take less than one part in so many of what there is room for: more would
/// drive out what is wanted more often.
const KEPT_SHARE: u64 = 2;

/// Reads the segments of a base.
#[derive(Clone, Copy)]
pub struct StoredReader<'a, S> {
    /// The bucket; reads may be repeated below this.
    pub store: &'a S,
    /// What was read before and is kept.
    pub blocks: &'a RefCell<Blocks>,
    /// How many of their bytes may be kept.
    pub room: &'a dyn Room,
    /// Where it is counted what was kept, if anybody wants to know.
    pub tally: Option<&'a Tally>,
}

impl<S: ObjectStore> StoredReader<'_, S> {
    /// Opens all segments: heads and delete vectors. Cost: a get for each that is not known yet, all at once.
    pub async fn open(&self, base: &Base) -> Result<(), StoredError> {
        self.open_beside(base, &[]).await.map(drop)
    }

    /// The bytes of `blocks`, and in the same wave what opens all segments: of small segments by the same gets.
    async fn open_beside(&self, base: &Base, blocks: &[Block]) -> Result<Vec<Bytes>, StoredError> {
        let (bodies, opened) = join(self.read_heads(base, blocks, |_| true), self.open_dead(base)).await;
        opened?;
        bodies
    }

    /// Opens what a search needs: leaf indexes, heads of segments without one, or of all if rows may be looked at that no leaf
    /// named, as where there is a filter, and delete vectors. Cost: a get for each that is not known yet, all at once.
    pub async fn open_searched(&self, base: &Base, all_heads: bool) -> Result<(), StoredError> {
        let heads = self.read_heads(base, &[], |segment| all_heads || segment.named.index.is_none());
        let (indexes, heads, dead) = join3(self.read_indexes(base), heads, self.open_dead(base)).await;
        indexes.and(heads.map(drop)).and(dead)
    }

    /// Opens what [`StoredReader::visit`] needs of the same arguments, if a search has opened the rest. Cost: a get for each head
    /// that is not known yet, all at once.
    pub async fn open_for(&self, base: &Base, places: &[Place], slots: &Slots) -> Result<(), StoredError> {
        let by_row: BTreeSet<u32> =
            places.iter().filter(|place| slots.get(place).is_none()).map(|place| place.segment).collect();
        let is_wanted = |segment: &OpenSegment| {
            by_row.iter().any(|number| std::ptr::eq(&*base.segments[*number as usize], segment))
        };
        self.read_heads(base, &[], is_wanted).await.map(drop)
    }

    /// The bytes of `blocks`, and beside them the heads that are wanted and not known.
    async fn read_heads(
        &self,
        base: &Base,
        blocks: &[Block],
        is_wanted: impl Fn(&OpenSegment) -> bool,
    ) -> Result<Vec<Bytes>, StoredError> {
        let segments = base.numbered().map(|(_, segment)| segment);
        let missing: Vec<&OpenSegment> =
            segments.filter(|segment| is_wanted(segment) && segment.head.get().is_none()).collect();
        let heads = missing.iter().map(|segment| {
            let place = segment::head_place(&segment.named);
            segment.block(&place.part, place.range)
        });
        let all: Vec<Block> = blocks.iter().cloned().chain(heads).collect();
        let mut bodies = self.fetch(&all, unchecked).await?;
        for (segment, body) in missing.into_iter().zip(bodies.split_off(blocks.len())) {
            let head = Segment::open(&body).map_err(|error| segment.damaged(&error))?;
            let is_same = (head.rows(), head.dimension()) == (segment.named.rows, segment.named.dimension as usize);
            if !is_same || head.set_hash() != segment.named.set_hash {
                return Err(StoredError::Corrupt(format!("{} is another segment", segment.named.prefix)));
            }
            // Another request may have opened it meanwhile: that says the same.
            let _ = segment.head.set(head);
        }
        Ok(bodies)
    }

    /// Decodes the delete vectors that are in the manifest and reads those that are objects.
    pub(crate) async fn open_dead(&self, base: &Base) -> Result<(), StoredError> {
        for (number, segment) in base.numbered() {
            let dead = &base.dead[number as usize];
            if dead.get().is_none()
                && let named = &base.manifest.segments[number as usize]
                && let Some(text) = inline_dead(named)
            {
                let vector = DeleteVector::decode_inline(text, named);
                let _ = dead.set(vector.map_err(|error| segment.damaged(&error))?);
            }
        }
        self.read_dead(base).await
    }

    async fn read_dead(&self, base: &Base) -> Result<(), StoredError> {
        let missing = base.numbered().filter(|(number, _)| base.dead[*number as usize].get().is_none());
        let reads = missing.map(|(number, segment)| async move {
            let named = &base.manifest.segments[number as usize];
            let vector = match named.dead.as_ref().map(|dead| &dead.place) {
                None => DeleteVector::default(),
                Some(DeleteVectorPlace::Inline(_)) => unreachable!("an inline vector was decoded before"),
                Some(DeleteVectorPlace::Object(key)) => {
                    let body = self.whole(key).await?;
                    DeleteVector::decode(&body, named).map_err(|error| segment.damaged(&error))?
                }
            };
            Ok::<_, StoredError>((number, vector))
        });
        let mut reads = std::pin::pin!(stream::iter(reads).buffer_unordered(limits::CONNECTIONS_MAX));
        while let Some((number, vector)) = reads.try_next().await? {
            let _ = base.dead[number as usize].set(vector);
        }
        Ok(())
    }

    async fn whole(&self, key: &str) -> Result<Bytes, StoredError> {
        match self.store.get(key).await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(StoredError::Missing(format!("{key} is not there"))),
            Err(storage::ReadError::Unavailable(reason)) => Err(StoredError::Unavailable(reason)),
            Err(storage::ReadError::Refused(reason)) => Err(StoredError::Corrupt(format!("{key}: {reason}"))),
        }
    }

    /// The places of those of `ids` that are live in this generation, without repetition.
    ///
    /// Cost: a get for each segment, or for each stretch of its id index; for many ids the filters before them.
    pub async fn locate(&self, base: &Base, ids: &[&str]) -> Result<HashMap<String, Place>, StoredError> {
        if base.is_empty() || ids.is_empty() {
            return Ok(HashMap::new());
        }
        if ids.len() > IDS_WITHOUT_FILTER {
            self.read_filters(base).await?;
        }
        let hashes: HashMap<IdHash, &str> = ids.iter().map(|id| (IdHash::of(id), *id)).collect();
        let mut asked: Vec<(u32, IdHash, u32)> = Vec::new();
        for (number, segment) in base.numbered() {
            let may_be_there = |hash: &&IdHash| segment.filter.get().is_none_or(|filter| filter.may_contain(**hash));
            asked.extend(hashes.keys().filter(may_be_there).map(|hash| (number, *hash, 0)));
        }
        let mut found = HashMap::new();
        while !asked.is_empty() {
            let blocks: Vec<Block> = asked
                .iter()
                .map(|(number, hash, spread)| id_block(base, *number, *hash, *spread, asked.len()))
                .collect();
            let mut distinct = blocks.clone();
            distinct.sort_by(|a, b| (&a.key, a.range.start).cmp(&(&b.key, b.range.start)));
            distinct.dedup();
            let bodies = self.open_beside(base, &distinct).await?;
            let bodies: HashMap<&Block, Bytes> = distinct.iter().zip(bodies).collect();
            let mut beyond = Vec::new();
            for ((number, hash, spread), block) in asked.into_iter().zip(&blocks) {
                let segment = &base.segments[number as usize];
                let index = index_of(segment);
                match index.find(hash, block.range.start, &bodies[block]).map_err(|e| segment.damaged(&e))? {
                    Found::Row(row) if base.is_live(Place { segment: number, row }) => {
                        found.insert(hashes[&hash].to_owned(), Place { segment: number, row });
                    }
                    Found::Row(_) | Found::Absent => {}
                    Found::Beyond => beyond.push((number, hash, spread + 1)),
                }
            }
            asked = beyond;
        }
        Ok(found)
    }

    async fn read_filters(&self, base: &Base) -> Result<(), StoredError> {
        self.read_sections(base, |segment| &segment.filter, Segment::filter_place, Segment::decode_filter).await
    }

    /// Reads the positions of all rows. Cost: a get for each segment where they are not known yet.
    pub async fn read_positions(&self, base: &Base) -> Result<(), StoredError> {
        self.read_sections(base, |segment| &segment.positions, Segment::positions_place, Segment::decode_positions)
            .await
    }

    /// Reads one section of each segment into the `cell` for it, where that is empty.
    async fn read_sections<T>(
        &self,
        base: &Base,
        cell: fn(&OpenSegment) -> &OnceCell<T>,
        place: fn(&Segment) -> Result<segment::Place, SegmentError>,
        decode: fn(&Segment, &[u8]) -> Result<T, SegmentError>,
    ) -> Result<(), StoredError> {
        self.open(base).await?;
        let all = base.numbered().map(|(_, segment)| segment);
        let missing: Vec<&OpenSegment> = all.filter(|segment| cell(segment).get().is_none()).collect();
        let block = |segment: &&OpenSegment| {
            let place = place(segment.head()).map_err(|error| segment.damaged(&error))?;
            Ok(segment.block(&place.part, place.range))
        };
        let blocks = missing.iter().map(block).collect::<Result<Vec<_>, StoredError>>()?;
        for (segment, body) in missing.iter().zip(self.fetch(&blocks, unchecked).await?) {
            let section = decode(segment.head(), &body).map_err(|error| segment.damaged(&error))?;
            let _ = cell(segment).set(section);
        }
        Ok(())
    }

    /// Reads an object of each segment that has it, where its `cell` is empty: it is at `place`, and `open` says what it holds.
    pub(crate) async fn open_each<T>(
        &self,
        base: &Base,
        cell: fn(&OpenSegment) -> &OnceCell<T>,
        place: fn(&SegmentRef) -> Option<segment::Place>,
        open: fn(&OpenSegment, &[u8]) -> Result<T, StoredError>,
    ) -> Result<(), StoredError> {
        let all = base.numbered().map(|(_, segment)| segment);
        let missing = all.filter(|segment| cell(segment).get().is_none());
        let (segments, blocks): (Vec<&OpenSegment>, Vec<Block>) = missing
            .filter_map(|segment| {
                let place = place(&segment.named)?;
                Some((segment, segment.block(&place.part, place.range)))
            })
            .unzip();
        for (segment, body) in segments.into_iter().zip(self.read(&blocks).await?) {
            let _ = cell(segment).set(open(segment, &body)?);
        }
        Ok(())
    }

    /// Hands the rows at `places`, ascending and without repetition, to `take`: in that order if `slots` is empty. Where
    /// `slots` says that a row lies in a leaf index as well, it is read there. Segments, or their indexes, are open.
    ///
    /// Cost: a get for each run of neighbouring batches with rows that are not kept, and for each stretch that is to be read at once;
    /// memory for 96 batches.
    pub async fn visit<E: From<StoredError>>(
        &self,
        base: &Base,
        places: &[Place],
        slots: &Slots,
        take: impl FnMut(Place, &RowView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = places.len() as u64 * base.row_bytes();
        let are_kept = bytes <= self.room.blocks_bytes() as u64 / KEPT_SHARE;
        self.visit_all(base, places, slots, are_kept, take).await
    }

    /// As [`StoredReader::visit`] without slots, but no row is kept that was not before: for whoever looks for a few among many.
    pub async fn look_through<E: From<StoredError>>(
        &self,
        base: &Base,
        places: &[Place],
        take: impl FnMut(Place, &RowView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.visit_all(base, places, &Slots::new(), false, take).await
    }

    async fn visit_all<E: From<StoredError>>(
        &self,
        base: &Base,
        places: &[Place],
        slots: &Slots,
        are_kept: bool,
        mut take: impl FnMut(Place, &RowView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut visits, stretches) = (self.visits(base, places, slots), slots.stretches(base));
        while !visits.is_empty() {
            let is_within = |visit: &Visit, batches: &mut usize| {
                *batches += usize::from(matches!(visit, Visit::Batch { .. }));
                *batches <= BATCHES_TOGETHER
            };
            let mut batches = 0;
            let count = visits.iter().take_while(|visit| is_within(visit, &mut batches)).count();
            let later = visits.split_off(count);
            let blocks: Vec<Block> = visits.iter().filter_map(|visit| visit.block(base)).collect();
            let mut bodies = self.read_within(&blocks, &stretches).await?.into_iter();
            for visit in visits {
                match visit {
                    Visit::Kept(place, row) => take(place, &row.view())?,
                    Visit::Batch { segment: number, is_near, place, rows } => {
                        let segment = &base.segments[number as usize];
                        let body = bodies.next().expect("as many bodies as batches");
                        let batch = match is_near {
                            true => segment.index().decode_near_batch(&place, &body),
                            false => segment.head().decode_batch(&place, &body),
                        };
                        let batch = batch.map_err(|error| segment.damaged(&error))?;
                        for (place, at) in rows {
                            let row = batch.row(at);
                            if are_kept {
                                self.keep(base, place, &row);
                            }
                            take(place, &row)?;
                        }
                    }
                }
            }
            self.fit();
            visits = later;
        }
        Ok(())
    }

    /// Keeps a row, so that [`StoredReader::visit`] need not read it.
    fn keep(&self, base: &Base, place: Place, row: &RowView<'_>) {
        self.blocks.borrow_mut().insert_row(row_key(base, place), row);
    }

    /// What there is to visit, in the order of rows: each batch once, and rows that are kept.
    fn visits(&self, base: &Base, places: &[Place], slots: &Slots) -> Vec<Visit> {
        let mut rows: Vec<(u32, bool, u32, Place)> = places
            .iter()
            .map(|place| {
                let slot = slots.get(place);
                (place.segment, slot.is_some(), slot.unwrap_or(place.row), *place)
            })
            .collect();
        if !slots.is_empty() {
            rows.sort_unstable();
        }
        let mut kept = self.blocks.borrow_mut();
        let mut visits: Vec<Visit> = Vec::new();
        for (segment, is_near, at, place) in rows {
            if let Some(row) = kept.get_row(&row_key(base, place)) {
                self.tell_found(1);
                visits.push(Visit::Kept(place, row));
            } else if let Some(Visit::Batch { rows, .. }) =
                visits.last_mut().filter(|last| last.is_with(segment, is_near, at))
            {
                rows.push((place, at));
            } else {
                let open = &base.segments[segment as usize];
                let batch = if is_near { open.index().near_batch_of(at) } else { open.head().batch_of(at) };
                visits.push(Visit::Batch { segment, is_near, place: batch, rows: vec![(place, at)] });
            }
        }
        visits
    }
}

/// A row that is kept, or a batch and which of its rows are looked at: where they are in their segment, and their numbers
/// among the rows of the batches.
enum Visit {
    Kept(Place, Rc<Row>),
    Batch { segment: u32, is_near: bool, place: BatchPlace, rows: Vec<(Place, u32)> },
}

impl Visit {
    /// Whether it is the batch that has this row.
    fn is_with(&self, number: u32, near: bool, at: u32) -> bool {
        match self {
            Visit::Kept(..) => false,
            Visit::Batch { segment, is_near, place, .. } => {
                (*segment, *is_near) == (number, near) && place.rows.contains(&at)
            }
        }
    }

    fn block(&self, base: &Base) -> Option<Block> {
        match self {
            Visit::Kept(..) => None,
            Visit::Batch { segment, place, .. } => Some(base.segments[*segment as usize].batch_block(place)),
        }
    }
}

fn row_key(base: &Base, place: Place) -> Key {
    Key::Row(Rc::clone(&base.segments[place.segment as usize].prefix), place.row)
}

/// What says itself whether it is right, when it is decoded.
fn unchecked(_at: usize, _body: &[u8]) -> Result<(), StoredError> {
    Ok(())
}

/// Goes through all live rows of a base in the order of their positions.
pub struct RowScan<'b> {
    base: &'b Base,
    cursors: Vec<Cursor<'b>>,
    /// Number of the cursor whose row is looked at.
    current: Option<usize>,
}

impl<'b> RowScan<'b> {
    /// Before the first row; all segments are open.
    pub fn new(base: &'b Base) -> Self {
        let cursors = base.numbered().map(|(number, segment)| Cursor::new(number, segment)).collect();
        RowScan { base, cursors, current: None }
    }

    /// Goes on to the next row. Cost: as far as it goes, every byte of rows; memory for some megabytes. Nothing is kept.
    pub async fn next<S: ObjectStore>(&mut self, reader: &StoredReader<'_, S>) -> Result<Option<Place>, StoredError> {
        loop {
            if let Some(current) = self.current.take() {
                self.cursors[current].advance();
            }
            for cursor in &mut self.cursors {
                if cursor.must_read() {
                    let blocks = cursor.next_blocks();
                    cursor.take_up(reader.read(&blocks).await?)?;
                }
            }
            let positions = self.cursors.iter().enumerate();
            let positions = positions.filter_map(|(number, cursor)| Some((cursor.position()?, number)));
            let Some((_, number)) = positions.min() else { return Ok(None) };
            self.current = Some(number);
            let place = self.cursors[number].place();
            if self.base.is_live(place) {
                return Ok(Some(place));
            }
        }
    }

    /// The row at which it is.
    pub fn row(&self) -> RowView<'_> {
        let cursor = &self.cursors[self.current.expect("there is a row")];
        cursor.batch().row(cursor.row)
    }
}

fn inline_dead(named: &SegmentRef) -> Option<&str> {
    match &named.dead.as_ref()?.place {
        DeleteVectorPlace::Inline(text) => Some(text),
        DeleteVectorPlace::Object(_) => None,
    }
}

fn index_of(segment: &OpenSegment) -> IdIndex {
    IdIndex { at: segment.named.ids_at, rows: segment.named.rows }
}

/// Where to look for `hash`: its own stretch, or all of the index if what is `asked` for would be most of it.
fn id_block(base: &Base, number: u32, hash: IdHash, spread: u32, asked: usize) -> Block {
    let segment = &base.segments[number as usize];
    let (own, whole) = (index_of(segment).range(hash, spread), index_of(segment).whole());
    let bytes = (own.end - own.start).saturating_mul(asked as u64);
    let range = if bytes >= whole.end - whole.start { whole } else { own };
    Block { key: segment.key(IDS_PART), range }
}

fn decode(segment: &OpenSegment, place: &BatchPlace, body: &Bytes) -> Result<RowBatch, StoredError> {
    segment.head().decode_batch(place, body).map_err(|error| segment.damaged(&error))
}

/// How far a scan over one segment has come.
struct Cursor<'b> {
    number: u32,
    segment: &'b OpenSegment,
    next_batch: usize,
    /// How many batches to read at once: more and more, as a scan that goes on will go on.
    together: usize,
    asked: Vec<BatchPlace>,
    read: VecDeque<RowBatch>,
    row: u32,
}

impl<'b> Cursor<'b> {
    const TOGETHER_MAX: usize = 64;

    fn new(number: u32, segment: &'b OpenSegment) -> Self {
        Cursor { number, segment, next_batch: 0, together: 4, asked: Vec::new(), read: VecDeque::new(), row: 0 }
    }

    fn must_read(&self) -> bool {
        self.read.is_empty() && self.next_batch < self.segment.head().batches()
    }

    fn next_blocks(&mut self) -> Vec<Block> {
        let end = self.segment.head().batches().min(self.next_batch + self.together);
        self.asked = (self.next_batch..end).map(|number| self.segment.head().batch(number)).collect();
        self.next_batch = end;
        self.together = (self.together * 2).min(Self::TOGETHER_MAX);
        self.asked.iter().map(|place| self.segment.batch_block(place)).collect()
    }

    fn take_up(&mut self, bodies: Vec<Bytes>) -> Result<(), StoredError> {
        for (place, body) in self.asked.iter().zip(bodies) {
            self.read.push_back(decode(self.segment, place, &body)?);
        }
        Ok(())
    }

    fn batch(&self) -> &RowBatch {
        self.read.front().expect("a cursor with a position has a batch")
    }

    fn place(&self) -> Place {
        Place { segment: self.number, row: self.row }
    }

    fn position(&self) -> Option<Position> {
        self.read.front().map(|batch| batch.row(self.row).position)
    }

    fn advance(&mut self) {
        self.row += 1;
        if self.row == self.batch().rows().end {
            self.read.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
