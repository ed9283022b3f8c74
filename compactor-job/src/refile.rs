//! The leaf index of a merge that goes on from the index of one of its inputs: the rows of that one stay in their leaves, all
//! others are filed there, and only leaves that this makes too full or too empty are rearranged ([`vector::update`]).

use crate::indexing::{self, Leaves, number, stretches, vectors};
use crate::spill::Spill;
use crate::spill::{Bytes, Scratch};
use model::SegmentRef;
use std::io;
use vector::{Assigner, Clustering, Groups, Rows, Table, update};

/// Goes on from an index if at least one in so many rows of the new one is there.
const KEPT_SHARE: u64 = 4;
/// Builds anew if more than three in so many rows of the index are dead.
const DEAD_SHARE: u64 = 10;

/// Which of `inputs` has the leaf index that the one of all live rows goes on from; `None` if that is built anew.
pub(crate) fn goes_on_from(inputs: &[SegmentRef]) -> Option<usize> {
    let rows: u64 = inputs.iter().map(|input| u64::from(input.live_rows())).sum();
    let (at, largest) = inputs.iter().enumerate().max_by_key(|(_, input)| input.live_rows())?;
    let is_kept = u64::from(largest.live_rows()) * KEPT_SHARE >= rows;
    let is_alive = u64::from(largest.dead_rows()) * DEAD_SHARE <= u64::from(largest.rows) * 3;
    (largest.index.is_some() && is_kept && is_alive).then_some(at)
}

/// The leaf index of an input, its rows numbered as in the new segment.
#[derive(Debug)]
pub(crate) struct Before {
    table: Table,
    /// Leaf after leaf: the new numbers of its rows ([`u32::MAX`]: dead), then their codes.
    leaves: Bytes,
}

impl Before {
    /// An index whose leaves are yet to come.
    pub(crate) fn new(table: Table, scratch: Scratch) -> Self {
        Before { table, leaves: Bytes::new(scratch) }
    }

    /// Appends the next leaf. Errors: the disk is full.
    pub(crate) fn push(&mut self, numbers: impl Iterator<Item = u32>, codes: &[u8]) -> io::Result<()> {
        let numbers: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        self.leaves.append(&numbers)?;
        self.leaves.append(codes)
    }

    /// Memory held by the leaves, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.leaves.memory_bytes()
    }

    /// Leaf number `leaf`.
    pub(crate) fn leaf(&self, leaf: usize) -> io::Result<OldLeaf> {
        let rows = self.table.rows(leaf..leaf + 1);
        let row_bytes = (4 + self.table.codec().row_bytes()) as u64;
        let range = u64::from(rows.start) * row_bytes..u64::from(rows.end) * row_bytes;
        self.leaves.with(range, |bytes| {
            let (numbers, codes) = bytes.split_at(4 * rows.len());
            let numbers = numbers.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four));
            let mut places: Vec<(u32, usize)> = numbers.zip(0..).collect();
            places.sort_unstable();
            OldLeaf { places, codes: codes.to_vec() }
        })
    }
}

/// A leaf of an index before.
pub(crate) struct OldLeaf {
    /// New numbers of its rows, ascending, and their places here.
    places: Vec<(u32, usize)>,
    codes: Vec<u8>,
}

impl OldLeaf {
    /// Which row of the leaf `row` was.
    pub(crate) fn place_of(&self, row: u32) -> Option<usize> {
        let at = self.places.binary_search_by_key(&row, |(row, _)| *row).ok()?;
        Some(self.places[at].1)
    }

    /// The codes of all its rows.
    pub(crate) fn codes(&self) -> &[u8] {
        &self.codes
    }
}

/// Whether so many rows would fill the leaves of `table` half as they should: after many deletes they do not.
pub(crate) fn fills(table: &Table, rows: u32, leaf_rows: u32) -> bool {
    u64::from(rows) * 2 >= table.leaves() as u64 * u64::from(leaf_rows)
}

/// Files `rows` in the leaves of `before`. `room`: vectors that memory holds.
pub(crate) fn leaves(rows: &Spill, before: &Before, clustering: &Clustering, room: usize) -> io::Result<Leaves> {
    let table = &before.table;
    let values = update::centroids(table);
    let centroids = Rows::new(&values, rows.dimension());
    let groups = Groups::new(&labels(rows, before, centroids, clustering.threads)?, table.leaves());
    let counts: Vec<u32> = (0..groups.len()).map(|leaf| number(groups.of(leaf).len())).collect();
    let affected = update::affected(centroids, &counts, clustering);
    let mut made = Making { before: table, groups: &groups, affected: &affected, next: 0, leaves: empty(table) };
    let room = indexing::stretch_room(room, 2 * groups.len());
    for stretch in stretches(affected.iter().map(|leaf| counts[*leaf as usize] as usize), room) {
        let places = &affected[stretch];
        let members: Vec<u32> = places.iter().flat_map(|leaf| groups.of(*leaf as usize)).copied().collect();
        let label = |leaf: &u32| std::iter::repeat_n(*leaf, counts[*leaf as usize] as usize);
        let labels: Vec<u32> = places.iter().flat_map(label).collect();
        let values = placed(rows, members.iter().copied(), table)?;
        let values = Rows::new(&values, rows.dimension());
        for leaf in update::rearrange(centroids, places, values, &labels, clustering) {
            made.keep_until(leaf.place as usize);
            let rows: Vec<u32> = leaf.members.iter().map(|at| members[*at as usize]).collect();
            made.push(leaf.place as usize, leaf.centroid.map(|centroid| (centroid, leaf.radius)), &rows);
        }
    }
    made.keep_until(table.leaves());
    Ok(made.leaves)
}

fn empty(table: &Table) -> Leaves {
    Leaves { table: table.emptied(), order: Vec::new(), places: Vec::new() }
}

/// For each row the leaf it is in, or, if it is in none, that of the nearest centroid.
fn labels(rows: &Spill, before: &Before, centroids: Rows<'_>, threads: usize) -> io::Result<Vec<u32>> {
    const NONE: u32 = u32::MAX;
    let mut labels = vec![NONE; rows.len()];
    for leaf in 0..before.table.leaves() {
        let old = before.leaf(leaf)?;
        let live = old.places.iter().filter(|(row, _)| *row != u32::MAX);
        live.for_each(|(row, _)| labels[*row as usize] = number(leaf));
    }
    let added: Vec<u32> = (0..number(rows.len())).filter(|row| labels[*row as usize] == NONE).collect();
    if added.is_empty() {
        return Ok(labels);
    }
    let assigner = Assigner::new(centroids, threads);
    for batch in added.chunks(indexing::BATCH_ROWS as usize) {
        let values = placed(rows, batch.iter().copied(), &before.table)?;
        let found = assigner.assign(Rows::new(&values, rows.dimension()), threads);
        batch.iter().zip(found).for_each(|(row, leaf)| labels[*row as usize] = leaf);
    }
    Ok(labels)
}

/// The vectors of `members`, as the table's frame sees them.
fn placed(rows: &Spill, members: impl IntoIterator<Item = u32>, table: &Table) -> io::Result<Vec<f32>> {
    let mut values = vectors(rows, members, table.frame().space())?;
    for vector in values.chunks_exact_mut(rows.dimension()) {
        vector.copy_from_slice(&table.frame().place(vector));
    }
    Ok(values)
}

/// New leaves in the order of the old ones.
struct Making<'a> {
    before: &'a Table,
    groups: &'a Groups,
    /// Leaves that are rearranged, ascending.
    affected: &'a [u32],
    /// The first old leaf that was not looked at.
    next: usize,
    leaves: Leaves,
}

impl Making<'_> {
    /// Takes over the leaves before `place` that are not rearranged.
    fn keep_until(&mut self, place: usize) {
        for leaf in self.next..place {
            if self.affected.binary_search(&number(leaf)).is_err() {
                let groups = self.groups;
                self.push(leaf, None, groups.of(leaf));
            }
        }
        self.next = self.next.max(place);
    }

    /// Appends a leaf with the centroid of leaf `place`, or with a new one and its radius.
    fn push(&mut self, place: usize, centroid: Option<(Vec<f32>, f32)>, members: &[u32]) {
        let Leaves { table, order, places } = &mut self.leaves;
        places.push(centroid.is_none().then_some(place));
        match centroid {
            Some((centroid, radius)) => table.push(&centroid, radius, number(members.len())),
            None => table.push_from(self.before, place, number(members.len())),
        }
        order.extend(members);
    }
}

#[cfg(test)]
mod tests;
