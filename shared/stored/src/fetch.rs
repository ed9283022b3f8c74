//! Byte ranges of immutable objects -> bytes: coalesced, concurrent, and kept as long as there is room.

use crate::{StoredError, StoredReader};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use segment::row::{Row, RowView};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use storage::{ObjectStore, ReadError};

/// Ranges of one object that are no farther apart than this, in bytes, are read as one: a read takes as long as some hundred
/// kilobytes of it.
const GAP_BYTES: u64 = 192 * 1024;
/// Ranges are joined up to this size, in bytes: several connections bring more than one.
const JOINED_BYTES: u64 = 2 * 1024 * 1024;
/// Gets that are under way at once, where the store itself sets no bound (as [`storage::Lanes`] does in Workers).
const GETS_MAX: usize = 64;

/// A stretch of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// The object.
    pub key: String,
    /// Its bytes there.
    pub range: Range<u64>,
}

impl Block {
    /// Whether there is nothing to ask for: no section is empty, but a damaged head may say so.
    fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    fn holds(&self, other: &Block) -> bool {
        self.key == other.key && self.range.start <= other.range.start && other.range.end <= self.range.end
    }
}

/// Who knows how much room there is for blocks.
pub trait Room {
    /// How many bytes of blocks may be kept now.
    fn blocks_bytes(&self) -> usize;
}

/// So many, always.
impl Room for usize {
    fn blocks_bytes(&self) -> usize {
        *self
    }
}

/// What an isolate keeps of objects: stretches as they are, leaves that match their checksums, and rows that were looked at.
/// Objects never change, so nothing is ever out of date.
#[derive(Default)]
pub struct Blocks {
    kept: HashMap<Key, Kept>,
    bytes: usize,
    clock: u64,
}

/// What something is of that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Block(Block),
    /// Of the segment with this prefix.
    Leaf(Rc<str>, usize),
    /// Of the segment with this prefix. A row alone: its neighbours in the batch are seldom wanted with it, and take thirty
    /// times as much.
    Row(Rc<str>, u32),
}

struct Kept {
    body: Body,
    bytes: usize,
    used_at: u64,
}

#[derive(Clone)]
enum Body {
    Bytes(Bytes),
    Row(Rc<Row>),
}

/// What something takes that is kept, besides its bytes, about.
const KEPT_BYTES: usize = 200;

impl Blocks {
    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&mut self, key: &Key) -> Option<Bytes> {
        match self.body(key)? {
            Body::Bytes(body) => Some(body),
            Body::Row(_) => None,
        }
    }

    pub(crate) fn get_row(&mut self, key: &Key) -> Option<Rc<Row>> {
        match self.body(key)? {
            Body::Row(row) => Some(row),
            Body::Bytes(_) => None,
        }
    }

    fn body(&mut self, key: &Key) -> Option<Body> {
        self.clock += 1;
        let kept = self.kept.get_mut(key)?;
        kept.used_at = self.clock;
        Some(kept.body.clone())
    }

    pub(crate) fn insert(&mut self, key: Key, body: Bytes) {
        self.put(key, body.len(), Body::Bytes(body));
    }

    pub(crate) fn insert_row(&mut self, key: Key, row: &RowView<'_>) {
        self.put(key, row.bytes() + size_of::<Row>(), Body::Row(Rc::new(row.to_row())));
    }

    fn put(&mut self, key: Key, bytes: usize, body: Body) {
        self.clock += 1;
        let bytes = bytes + KEPT_BYTES;
        self.bytes += bytes;
        if let Some(old) = self.kept.insert(key, Kept { body, bytes, used_at: self.clock }) {
            self.bytes -= old.bytes;
        }
    }

    /// Drops what was used least recently until at most `bytes_max` are kept.
    pub fn fit(&mut self, bytes_max: usize) {
        if self.bytes <= bytes_max {
            return;
        }
        let mut by_age: Vec<(u64, usize)> = self.kept.values().map(|kept| (kept.used_at, kept.bytes)).collect();
        by_age.sort_unstable();
        // Somewhat more than it must be, so that a full cache is not sorted for every block.
        let (target, mut left, mut oldest) = (bytes_max - bytes_max / 8, self.bytes, 0);
        for (used_at, bytes) in by_age {
            if left <= target {
                break;
            }
            (left, oldest) = (left - bytes, used_at);
        }
        self.kept.retain(|_, kept| kept.used_at > oldest);
        self.bytes = left;
    }
}

impl<S: ObjectStore> StoredReader<'_, S> {
    /// The bytes of `blocks`, in their order; `check` sees those that were not kept before they are.
    ///
    /// Cost: that of [`StoredReader::read`] for those that were not kept.
    pub async fn fetch(
        &self,
        blocks: &[Block],
        check: impl Fn(usize, &[u8]) -> Result<(), StoredError>,
    ) -> Result<Vec<Bytes>, StoredError> {
        let keys: Vec<Key> = blocks.iter().cloned().map(Key::Block).collect();
        self.kept_or_read(&keys, |at| blocks[at].clone(), check).await
    }

    /// What `keys` stand for, in their order: what is not kept is read where `block` says.
    pub(crate) async fn kept_or_read(
        &self,
        keys: &[Key],
        block: impl Fn(usize) -> Block,
        check: impl Fn(usize, &[u8]) -> Result<(), StoredError>,
    ) -> Result<Vec<Bytes>, StoredError> {
        let mut bodies: Vec<Option<Bytes>> = {
            let mut kept = self.blocks.borrow_mut();
            keys.iter().map(|key| kept.get(key)).collect()
        };
        let missing: Vec<usize> = (0..keys.len()).filter(|at| bodies[*at].is_none()).collect();
        self.tell_found(keys.len() - missing.len());
        let blocks: Vec<Block> = missing.iter().map(|at| block(*at)).collect();
        for (at, body) in missing.into_iter().zip(self.read(&blocks).await?) {
            check(at, &body)?;
            self.blocks.borrow_mut().insert(keys[at].clone(), body.clone());
            bodies[at] = Some(body);
        }
        self.fit();
        Ok(bodies.into_iter().map(|body| body.expect("each was kept or read")).collect())
    }

    pub(crate) fn tell_found(&self, more: usize) {
        if let Some(tally) = self.tally {
            tally.kept.add(more);
        }
    }

    /// Drops what there is no room for.
    pub(crate) fn fit(&self) {
        self.blocks.borrow_mut().fit(self.room.blocks_bytes());
    }

    /// The bytes of `blocks`, in their order, from the bucket.
    ///
    /// Cost: a get for each run of blocks of one object that lie close together.
    ///
    /// Errors: [`StoredError::Missing`] if an object is not there or ends before a block does.
    pub async fn read(&self, blocks: &[Block]) -> Result<Vec<Bytes>, StoredError> {
        self.read_within(blocks, &[]).await
    }

    /// The same; what lies within one of `stretches` is read by one get.
    pub(crate) async fn read_within(&self, blocks: &[Block], stretches: &[Block]) -> Result<Vec<Bytes>, StoredError> {
        let mut sorted: Vec<usize> = (0..blocks.len()).filter(|at| !blocks[*at].is_empty()).collect();
        sorted.sort_by(|a, b| {
            let place = |at: &usize| (&blocks[*at].key, blocks[*at].range.start, blocks[*at].range.end);
            place(a).cmp(&place(b))
        });
        let gets = runs(&sorted, blocks, stretches)
            .into_iter()
            .map(|run| async move { Ok::<_, StoredError>((run, self.get_run(run, blocks).await?)) });
        let mut gets = std::pin::pin!(stream::iter(gets).buffer_unordered(GETS_MAX));
        let mut bodies = vec![Bytes::new(); blocks.len()];
        while let Some((run, parts)) = gets.try_next().await? {
            run.iter().zip(parts).for_each(|(at, part)| bodies[*at] = part);
        }
        Ok(bodies)
    }

    /// The blocks of a run, by one get.
    async fn get_run(&self, run: &[usize], blocks: &[Block]) -> Result<Vec<Bytes>, StoredError> {
        let first = &blocks[run[0]];
        let end = run.iter().map(|at| blocks[*at].range.end).max().expect("a run is not empty");
        let start = first.range.start;
        let body = match self.store.get_range(&first.key, start..end).await {
            Ok(Some(body)) if body.len() as u64 == end - start => body,
            Ok(_) => {
                return Err(StoredError::Missing(format!("{} is not there, or is shorter than it was", first.key)));
            }
            Err(ReadError::Unavailable(reason)) => return Err(StoredError::Unavailable(reason)),
            Err(ReadError::Refused(reason)) => return Err(StoredError::Corrupt(format!("{}: {reason}", first.key))),
        };
        let at = |position: u64| usize::try_from(position - start).expect("a run fits into memory");
        let part = |range: &Range<u64>| match run.len() {
            1 => body.clone(),
            // A copy: a slice would keep all of the run in memory.
            _ => Bytes::copy_from_slice(&body[at(range.start)..at(range.end)]),
        };
        Ok(run.iter().map(|number| part(&blocks[*number].range)).collect())
    }
}

/// Cuts `sorted` into runs that are read by one get each.
fn runs<'s>(sorted: &'s [usize], blocks: &[Block], stretches: &[Block]) -> Vec<&'s [usize]> {
    let mut runs = Vec::new();
    let mut start = 0;
    for next in 1..=sorted.len() {
        let goes_on = next < sorted.len() && {
            let (first, last, block) = (&blocks[sorted[start]], &blocks[sorted[next - 1]], &blocks[sorted[next]]);
            let is_close = || block.range.start <= last.range.end.saturating_add(GAP_BYTES);
            let is_joined = || stretches.iter().any(|stretch| stretch.holds(last) && stretch.holds(block));
            block.key == first.key
                && (is_close() || is_joined())
                && block.range.end.saturating_sub(first.range.start) <= JOINED_BYTES
        };
        if !goes_on {
            runs.push(&sorted[start..next]);
            start = next;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(key: &str, range: Range<u64>) -> Block {
        Block { key: key.to_owned(), range }
    }

    #[test]
    fn neighbours_are_read_together_and_others_alone() {
        let blocks = [
            block("a", 0..10),
            block("a", 10 + GAP_BYTES..20 + GAP_BYTES),
            block("a", 3 * GAP_BYTES..4 * GAP_BYTES),
            block("a", 4 * GAP_BYTES..JOINED_BYTES),
            block("a", JOINED_BYTES..3 * GAP_BYTES + JOINED_BYTES + 1),
            block("b", JOINED_BYTES..JOINED_BYTES + 1),
        ];
        let sorted = [0, 1, 2, 3, 4, 5];
        assert_eq!(runs(&sorted, &blocks, &[]), [&[0, 1][..], &[2, 3], &[4], &[5]]);
        let stretch = |range| [block("a", range)];
        assert_eq!(runs(&sorted, &blocks, &stretch(10..4 * GAP_BYTES)), [&[0, 1, 2, 3][..], &[4], &[5]]);
        assert_eq!(runs(&sorted, &blocks, &stretch(2 * GAP_BYTES..u64::MAX)), [&[0, 1][..], &[2, 3], &[4], &[5]]);
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let mut blocks = Blocks::default();
        let body = Bytes::from(vec![0; 1000]);
        let key = |n| Key::Block(block("a", n..n + 1));
        (0..10).for_each(|n| blocks.insert(key(n), body.clone()));
        assert!(blocks.get(&key(0)).is_some());
        blocks.fit(4 * 1200);
        assert!(blocks.bytes() <= 4 * 1200);
        let kept: Vec<u64> = (0..10).filter(|n| blocks.get(&key(*n)).is_some()).collect();
        assert_eq!(kept, [0, 8, 9]);
    }
}
