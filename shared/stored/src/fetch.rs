//! Byte ranges of immutable objects -> bytes: coalesced, concurrent, and kept as long as there is room.

use crate::{StoredError, StoredReader};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::limits;
use std::collections::HashMap;
use std::ops::Range;
use storage::{ObjectStore, ReadError};

/// Ranges of one object that are no farther apart than this, in bytes, are read as one: a read takes as long as some hundred
/// kilobytes of it.
const GAP_BYTES: u64 = 128 * 1024;
/// Ranges are joined up to this size, in bytes: several connections bring more than one.
const JOINED_BYTES: u64 = 1024 * 1024;

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

/// The blocks that an isolate keeps: objects never change, so none is ever out of date.
#[derive(Default)]
pub struct Blocks {
    kept: HashMap<Block, Kept>,
    bytes: usize,
    clock: u64,
}

struct Kept {
    body: Bytes,
    used_at: u64,
}

/// What a kept block takes besides its bytes, about.
const KEPT_BYTES: usize = 200;

impl Blocks {
    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn get(&mut self, block: &Block) -> Option<Bytes> {
        self.clock += 1;
        let kept = self.kept.get_mut(block)?;
        kept.used_at = self.clock;
        Some(kept.body.clone())
    }

    fn insert(&mut self, block: Block, body: Bytes) {
        self.clock += 1;
        self.bytes += body.len() + KEPT_BYTES;
        if let Some(old) = self.kept.insert(block, Kept { body, used_at: self.clock }) {
            self.bytes -= old.body.len() + KEPT_BYTES;
        }
    }

    /// Drops what was used least recently until at most `bytes_max` are kept.
    pub fn fit(&mut self, bytes_max: usize) {
        if self.bytes <= bytes_max {
            return;
        }
        let mut by_age: Vec<(u64, usize)> =
            self.kept.values().map(|kept| (kept.used_at, kept.body.len() + KEPT_BYTES)).collect();
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
    /// The bytes of `blocks`, in their order.
    ///
    /// Cost: a get for each run of blocks of one object that are not kept and lie close together, at most
    /// [`limits::CONNECTIONS_MAX`] at a time.
    ///
    /// Errors: [`StoredError::Missing`] if an object is not there or ends before a block does.
    pub async fn fetch(&self, blocks: &[Block]) -> Result<Vec<Bytes>, StoredError> {
        let mut bodies: Vec<Option<Bytes>> = {
            let mut kept = self.blocks.borrow_mut();
            blocks.iter().map(|block| kept.get(block).or_else(|| block.is_empty().then(Bytes::new))).collect()
        };
        let mut missing: Vec<usize> = (0..blocks.len()).filter(|at| bodies[*at].is_none()).collect();
        missing.sort_by(|a, b| {
            let place = |at: &usize| (&blocks[*at].key, blocks[*at].range.start, blocks[*at].range.end);
            place(a).cmp(&place(b))
        });
        let runs = runs(&missing, blocks);
        let gets =
            runs.into_iter().map(|run| async move { Ok::<_, StoredError>((run, self.get_run(run, blocks).await?)) });
        let mut gets = std::pin::pin!(stream::iter(gets).buffer_unordered(limits::CONNECTIONS_MAX));
        while let Some((run, parts)) = gets.try_next().await? {
            for (at, part) in run.iter().zip(parts) {
                self.blocks.borrow_mut().insert(blocks[*at].clone(), part.clone());
                bodies[*at] = Some(part);
            }
        }
        self.blocks.borrow_mut().fit(self.room.blocks_bytes());
        Ok(bodies.into_iter().map(|body| body.expect("each block was kept or fetched")).collect())
    }

    /// The same of blocks that the caller keeps in another form: they are not kept here as well.
    pub(crate) async fn fetch_once(&self, blocks: &[Block]) -> Result<Vec<Bytes>, StoredError> {
        let kept = std::cell::RefCell::default();
        StoredReader { store: self.store, blocks: &kept, room: &0 }.fetch(blocks).await
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
fn runs<'s>(sorted: &'s [usize], blocks: &[Block]) -> Vec<&'s [usize]> {
    let mut runs = Vec::new();
    let mut start = 0;
    for next in 1..=sorted.len() {
        let goes_on = next < sorted.len() && {
            let (first, last, block) = (&blocks[sorted[start]], &blocks[sorted[next - 1]], &blocks[sorted[next]]);
            block.key == first.key
                && block.range.start <= last.range.end.saturating_add(GAP_BYTES)
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
        assert_eq!(runs(&sorted, &blocks), [&[0, 1][..], &[2, 3], &[4], &[5]]);
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let mut blocks = Blocks::default();
        let body = Bytes::from(vec![0; 1000]);
        (0..10).for_each(|n| blocks.insert(block("a", n..n + 1), body.clone()));
        assert!(blocks.get(&block("a", 0..1)).is_some());
        blocks.fit(4 * 1200);
        assert!(blocks.bytes() <= 4 * 1200);
        let kept: Vec<u64> = (0..10).filter(|n| blocks.get(&block("a", *n..n + 1)).is_some()).collect();
        assert_eq!(kept, [0, 8, 9]);
    }
}
