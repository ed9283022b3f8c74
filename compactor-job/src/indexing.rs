//! The leaf index of a segment: which rows go into which leaf. Rows may be more than memory holds; what is computed of them
//! is a pure function of rows, space, seed, bounds and the index that it goes on from (`refile`), whatever the number
//! of threads.

use crate::refile::{self, Before};
use crate::spill::Spill;
use model::{Space, Words};
use std::io;
use std::ops::Range;
use vector::cluster::{balance, train};
use vector::codes::LeafWriter;
use vector::planes::DIMENSION_MAX;
use vector::{Assigner, Clustering, Codec, Frame, Groups, Rows, Table, build, normalise};

/// How indexes are built.
#[derive(Clone, Copy, Debug)]
pub struct Indexing {
    /// Segments get a leaf index whose codes would take more than this, in bytes.
    pub from_bytes: u64,
    /// Segments get a text index whose rows take at least this, in bytes. Of smaller ones a filter reads the rows themselves: one
    /// get. (Those of so many bytes wait for it in memory.)
    pub text_from_bytes: u64,
    /// How words of documents are indexed, for BM25, where documents are. They usually are not: a rank then looks through
    /// the rows.
    pub words: Option<Words>,
    /// Rows that a leaf should have.
    pub leaf_rows: u32,
    /// Threads that compute; with one, nothing runs beside the caller.
    pub threads: usize,
}

/// A segment whose vectors are scanned as codes reads so much: one object of them.
const FLAT_BYTES: u64 = 512 * 1024;
/// A segment that is filtered row by row reads so much, in one get.
const SCAN_BYTES: u64 = 512 * 1024;
/// Rows a leaf.
const LEAF_ROWS: u32 = 128;
/// Where whatever is random begins.
const SEED: u64 = 0x6f70_616c;
/// Rows whose vectors are looked at together.
pub(crate) const BATCH_ROWS: u32 = 16 * 1024;
/// Copies of the centroids while they are trained.
const CENTROIDS_HELD: usize = 4;

impl Indexing {
    /// As is good for most, on so many threads.
    pub fn on(threads: usize) -> Self {
        Indexing { from_bytes: FLAT_BYTES, text_from_bytes: SCAN_BYTES, words: None, leaf_rows: LEAF_ROWS, threads }
    }

    /// Whether a segment of so many rows gets a leaf index.
    pub(crate) fn is_worth_it(&self, rows: u64, dimension: usize) -> bool {
        dimension <= DIMENSION_MAX && rows * segment::codes::stride(dimension) as u64 > self.from_bytes
    }

    fn clustering(&self) -> Clustering {
        Clustering::of(self.leaf_rows, SEED, self.threads)
    }
}

/// What comes of clustering.
#[derive(Debug)]
pub(crate) struct Leaves {
    /// Of all leaves.
    pub(crate) table: Table,
    /// Numbers of the rows, leaf after leaf.
    pub(crate) order: Vec<u32>,
    /// For each leaf the one of the index before whose centroid it has; empty if there was none.
    pub(crate) places: Vec<Option<usize>>,
}

impl Leaves {
    /// The rows of leaf number `leaf`.
    pub(crate) fn members(&self, leaf: usize) -> &[u32] {
        let range = self.table.rows(leaf..leaf + 1);
        &self.order[range.start as usize..range.end as usize]
    }
}

/// Files `rows` in leaves: those of `before`, if there is one. Memory: about `memory_bytes`, and 12 bytes a row.
pub(crate) fn leaves(
    rows: &Spill,
    space: Space,
    before: Option<&Before>,
    indexing: &Indexing,
    memory_bytes: usize,
) -> io::Result<Leaves> {
    let clustering = indexing.clustering();
    let room = memory_bytes / (4 * rows.dimension());
    match before {
        Some(before) => refile::leaves(rows, before, &clustering, room),
        None => anew(rows, space, &clustering, room),
    }
}

/// Clusters all rows. `room`: vectors that memory holds.
fn anew(rows: &Spill, space: Space, clustering: &Clustering, room: usize) -> io::Result<Leaves> {
    let dimension = rows.dimension();
    let (frame, centroids) = trained(rows, space, clustering, room)?;
    let groups = {
        let assigner = Assigner::new(Rows::new(&centroids, dimension), clustering.threads);
        Groups::new(&labels(rows, space, &assigner, clustering.threads)?, centroids.len() / dimension)
    };
    let mut order = Vec::with_capacity(rows.len());
    let (mut sizes, mut means, mut radii) = (Vec::new(), Vec::new(), Vec::new());
    let room = stretch_room(room, CENTROIDS_HELD * groups.len());
    for leaves in stretches((0..groups.len()).map(|leaf| groups.of(leaf).len()), room) {
        let members = groups.of_all(leaves.clone());
        let of = |leaf: usize| std::iter::repeat_n(number(leaf - leaves.start), groups.of(leaf).len());
        let labels: Vec<u32> = leaves.clone().flat_map(of).collect();
        let values = vectors(rows, members.iter().copied(), space)?;
        let centroids = &centroids[leaves.start * dimension..leaves.end * dimension];
        let leaves = balance(Rows::new(&values, dimension), &labels, centroids, clustering);
        order.extend(leaves.order.iter().map(|at| members[*at as usize]));
        sizes.extend(leaves.rows);
        means.extend(leaves.centroids);
        radii.extend(leaves.radii);
    }
    let bits = Codec::centroid_bits(dimension);
    let table = Table::new(frame, Codec::of(dimension), bits, Rows::new(&means, dimension), &sizes, &radii);
    Ok(Leaves { table, order, places: Vec::new() })
}

/// A frame and centroids, from as large a sample of the rows as there is room for.
fn trained(rows: &Spill, space: Space, clustering: &Clustering, room: usize) -> io::Result<(Frame, Vec<f32>)> {
    let count = number(rows.len());
    let leaves = clustering.leaves(u64::from(count));
    let room = room.saturating_sub(CENTROIDS_HELD * leaves as usize).max(BATCH_ROWS as usize);
    let sample_rows_max = clustering.sample_rows_max.min(u32::try_from(room).unwrap_or(u32::MAX));
    let sample = vectors(rows, Clustering { sample_rows_max, ..*clustering }.sample(count), space)?;
    let sample = Rows::new(&sample, rows.dimension());
    Ok((build::frame(sample, space, clustering.seed), train(sample, leaves, clustering)))
}

/// Rows that are rearranged together, if `room` vectors fit into memory and so many of them are centroids: they are copied in
/// parts.
pub(crate) fn stretch_room(room: usize, centroids: usize) -> usize {
    room.saturating_sub(centroids) / 4 * 3
}

/// The codes of leaf number `leaf` of `leaves`.
pub(crate) fn encode(rows: &Spill, leaves: &Leaves, before: Option<&Before>, leaf: usize) -> io::Result<Vec<u8>> {
    let (table, members) = (&leaves.table, leaves.members(leaf));
    let copied = match before.zip(leaves.places.get(leaf).copied().flatten()) {
        Some((before, place)) => Some(before.leaf(place)?),
        None => None,
    };
    let place_of = |row: u32| copied.as_ref().and_then(|old| old.place_of(row));
    let others = members.iter().copied().filter(|row| place_of(*row).is_none());
    let values = vectors(rows, others, table.frame().space())?;
    let mut others = Rows::new(&values, rows.dimension()).iter();
    let (mut writer, centroid) = (LeafWriter::new(table.codec()), table.centroid(leaf));
    for row in members {
        match copied.as_ref().zip(place_of(*row)) {
            Some((old, at)) => writer.copy(old.codes(), at).expect("the leaf was checked when it was read"),
            None => writer.push(table.frame(), &centroid, others.next().expect("each of the others was read")),
        }
    }
    Ok(writer.finish())
}

/// The vectors of `members`, as clusters and codes want them.
pub(crate) fn vectors(rows: &Spill, members: impl IntoIterator<Item = u32>, space: Space) -> io::Result<Vec<f32>> {
    let mut values = Vec::new();
    rows.vectors(members, &mut values)?;
    if space == Space::Cosine {
        normalise(&mut values, rows.dimension());
    }
    Ok(values)
}

/// For each row the number of its centroid.
fn labels(rows: &Spill, space: Space, assigner: &Assigner, threads: usize) -> io::Result<Vec<u32>> {
    let mut labels = Vec::with_capacity(rows.len());
    for batch in batches(number(rows.len())) {
        let values = vectors(rows, batch, space)?;
        labels.extend(assigner.assign(Rows::new(&values, rows.dimension()), threads));
    }
    Ok(labels)
}

/// `0..count` in batches of rows that are looked at together.
fn batches(count: u32) -> impl Iterator<Item = Range<u32>> {
    (0..count).step_by(BATCH_ROWS as usize).map(move |start| start..count.min(start.saturating_add(BATCH_ROWS)))
}

/// Neighbours among things of these `sizes`, with `room` in each stretch, or one thing.
pub(crate) fn stretches(sizes: impl Iterator<Item = usize>, room: usize) -> Vec<Range<usize>> {
    let (mut stretches, mut stretch, mut size) = (Vec::new(), 0..0, 0);
    for more in sizes {
        if size + more > room && !stretch.is_empty() {
            stretches.push(stretch.clone());
            (stretch.start, size) = (stretch.end, 0);
        }
        (stretch.end, size) = (stretch.end + 1, size + more);
    }
    stretches.extend(Some(stretch).filter(|stretch| !stretch.is_empty()));
    stretches
}

pub(crate) fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a segment has fewer than 2^32 rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_hold_what_there_is_room_for() {
        let check = |sizes: &[usize], expect: &[Range<usize>]| {
            assert_eq!(stretches(sizes.iter().copied(), 10), expect, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[0, 3, 8], &[0..2, 2..3]);
        check(&[5, 5, 1, 20, 2], &[0..2, 2..3, 3..4, 4..5]);
    }
}
