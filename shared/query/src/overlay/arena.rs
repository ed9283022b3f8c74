//! Vectors of one dimension, one behind the other.

use crate::plan::PlanError;

/// Numbers in a chunk, about: 1 MiB of them, so that growing neither copies much nor leaves much unused.
/// Tests fill several chunks with few vectors.
const CHUNK_NUMBERS: usize = if cfg!(test) { 24 } else { 1 << 18 };

/// Numbered vectors in a few large allocations. The first one grows by doubling, so that a small collection stays
/// small; the others are made in full.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// 0 until the first vector is seen.
    dimension: usize,
    chunks: Vec<Vec<f32>>,
}

impl Arena {
    /// Length of every vector, once one was seen.
    pub(super) fn dimension(&self) -> Option<usize> {
        (self.dimension > 0).then_some(self.dimension)
    }

    /// Makes `length` the dimension if there is none. Errors: `Corrupt` if it is another.
    pub(super) fn settle_dimension(&mut self, length: usize) -> Result<(), PlanError> {
        if self.dimension == 0 {
            self.dimension = length;
        }
        if length == 0 || length != self.dimension {
            let expected = self.dimension;
            return Err(PlanError::Corrupt(format!("the log holds vectors of dimension {expected} and {length}")));
        }
        Ok(())
    }

    /// Appends a vector of the settled dimension. Errors: `TooLarge` if memory is out.
    pub(super) fn push(&mut self, vector: &[f32]) -> Result<(), PlanError> {
        assert_eq!(vector.len(), self.dimension, "the dimension is settled before a vector is stored");
        let chunk_len = self.rows_per_chunk() * self.dimension;
        if self.chunks.last().is_none_or(|last| last.len() == chunk_len) {
            self.chunks.push(Vec::new());
        }
        let is_first = self.chunks.len() == 1;
        let last = self.chunks.last_mut().expect("one was pushed");
        let reserved = match last.is_empty() && !is_first {
            true => last.try_reserve_exact(chunk_len),
            false => last.try_reserve(self.dimension),
        };
        reserved.map_err(|_| PlanError::TooLarge("the collection's vectors do not fit into memory".into()))?;
        last.extend_from_slice(vector);
        Ok(())
    }

    /// Vector number `row`.
    pub(super) fn get(&self, row: usize) -> &[f32] {
        let (chunk, start) = self.place(row);
        &self.chunks[chunk][start..start + self.dimension]
    }

    /// Replaces vector number `row`.
    pub(super) fn set(&mut self, row: usize, vector: &[f32]) {
        let (chunk, start) = self.place(row);
        self.chunks[chunk][start..start + self.dimension].copy_from_slice(vector);
    }

    /// Copies vector number `from` to number `to`, which is not above it.
    pub(super) fn move_up(&mut self, from: usize, to: usize) {
        let ((from_chunk, from), (to_chunk, to)) = (self.place(from), self.place(to));
        if from_chunk == to_chunk {
            return self.chunks[from_chunk].copy_within(from..from + self.dimension, to);
        }
        let (left, right) = self.chunks.split_at_mut(from_chunk);
        left[to_chunk][to..to + self.dimension].copy_from_slice(&right[0][from..from + self.dimension]);
    }

    /// Keeps the first `rows` vectors.
    pub(super) fn truncate(&mut self, rows: usize) {
        if self.dimension == 0 {
            return;
        }
        let (chunk, len) = self.place(rows);
        self.chunks.truncate(if len == 0 { chunk } else { chunk + 1 });
        if let Some(last) = self.chunks.get_mut(chunk) {
            last.truncate(len);
        }
    }

    /// Drops the last chunk and returns how many vectors are left.
    pub(super) fn drop_chunk(&mut self) -> usize {
        self.chunks.pop();
        self.chunks.len() * self.rows_per_chunk()
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<f32>()).sum()
    }

    fn rows_per_chunk(&self) -> usize {
        (CHUNK_NUMBERS / self.dimension).max(1)
    }

    /// Chunk and index in it at which vector number `row` starts.
    fn place(&self, row: usize) -> (usize, usize) {
        let rows_per_chunk = self.rows_per_chunk();
        (row / rows_per_chunk, row % rows_per_chunk * self.dimension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(row: usize, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|i| (row * 7 + i) as f32).collect()
    }

    /// Fills an arena of several chunks, keeps every `stride`-th vector, and appends again.
    #[track_caller]
    fn check(dimension: usize, rows: usize, stride: usize) {
        let mut arena = Arena::default();
        arena.settle_dimension(dimension).unwrap();
        (0..rows).for_each(|row| arena.push(&vector(row, dimension)).unwrap());
        let kept: Vec<usize> = (0..rows).step_by(stride).collect();
        kept.iter().enumerate().for_each(|(to, from)| arena.move_up(*from, to));
        arena.truncate(kept.len());
        arena.push(&vector(rows, dimension)).unwrap();
        for (row, number) in kept.iter().chain([&rows]).enumerate() {
            assert_eq!(arena.get(row), vector(*number, dimension), "row {row}");
        }
        assert!(arena.bytes() <= (kept.len() + 1) * dimension * 4 + CHUNK_NUMBERS * 8, "{} bytes kept", arena.bytes());
    }

    #[test]
    fn vectors_keep_their_place_over_chunks() {
        check(3, 10, 3);
        check(1 << 16, 13, 1);
        check(1 << 16, 13, 3);
        check(1000, 1000, 2);
        check(CHUNK_NUMBERS + 1, 3, 2);
    }

    #[test]
    fn another_dimension_is_an_error() {
        let mut arena = Arena::default();
        assert_eq!(arena.dimension(), None);
        assert!(arena.settle_dimension(0).is_err());
        arena.settle_dimension(2).unwrap();
        assert!(arena.settle_dimension(3).is_err());
        assert_eq!(arena.dimension(), Some(2));
    }
}
