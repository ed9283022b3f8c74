//! The leaf index of a segment: which rows go into which leaf. Rows may be more than memory holds; what is computed of them
//! is a pure function of rows, space and seed, whatever the number of threads.

use crate::spill::Spill;
use model::Space;
use std::io;
use vector::cluster::{balance, train};
use vector::planes::DIMENSION_MAX;
use vector::{Assigner, Clustering, Codec, Rows, Table, build, codes, normalise};

/// How leaf indexes are built.
#[derive(Clone, Copy, Debug)]
pub struct Indexing {
    /// Segments get one whose codes would take more than this, in bytes.
    pub from_bytes: u64,
    /// Threads that compute; with one, nothing runs beside the caller.
    pub threads: usize,
}

/// A segment whose vectors are scanned as codes reads so much: one object of them.
const FLAT_BYTES: u64 = 512 * 1024;
/// Rows a leaf.
const LEAF_ROWS: u32 = 128;
/// Where whatever is random begins.
const SEED: u64 = 0x6f70_616c;
/// Rows whose vectors are looked at together.
const BATCH_ROWS: u32 = 16 * 1024;

impl Indexing {
    /// As is good for most, on so many threads.
    pub fn on(threads: usize) -> Self {
        Indexing { from_bytes: FLAT_BYTES, threads }
    }

    /// Whether a segment of so many rows gets a leaf index.
    pub(crate) fn is_worth_it(&self, rows: u64, dimension: usize) -> bool {
        dimension <= DIMENSION_MAX && rows * segment::codes::stride(dimension) as u64 > self.from_bytes
    }
}

/// What comes of clustering.
#[derive(Debug)]
pub(crate) struct Leaves {
    /// Of all leaves.
    pub(crate) table: Table,
    /// Numbers of the rows, leaf after leaf.
    pub(crate) order: Vec<u32>,
}

/// Files `rows` in leaves. Memory: twice `memory_bytes` at most, or what the centroids and 12 bytes a row take.
pub(crate) fn leaves(rows: &Spill, space: Space, threads: usize, memory_bytes: usize) -> io::Result<Leaves> {
    let dimension = rows.dimension();
    let count = u32::try_from(rows.len()).expect("a segment has fewer than 2^32 rows");
    let room = (memory_bytes / (4 * dimension)).max(BATCH_ROWS as usize);
    let mut clustering = Clustering::of(LEAF_ROWS, SEED, threads);
    clustering.sample_rows_max = clustering.sample_rows_max.min(u32::try_from(room / 4).unwrap_or(u32::MAX));

    let sample = vectors(rows, clustering.sample(count), space)?;
    let sample = Rows::new(&sample, dimension);
    let frame = build::frame(sample, space, SEED);
    let centroids = train(sample, clustering.leaves(u64::from(count)), &clustering);
    let labels = labels(rows, space, &centroids, threads)?;

    let mut order = Vec::with_capacity(rows.len());
    let (mut sizes, mut means, mut radii) = (Vec::new(), Vec::new(), Vec::new());
    for Stretch { members, labels, centroids } in stretches(&labels, &centroids, dimension, room / 2) {
        let values = vectors(rows, members.iter().copied(), space)?;
        let leaves = balance(Rows::new(&values, dimension), &labels, centroids, &clustering);
        order.extend(leaves.order.iter().map(|at| members[*at as usize]));
        sizes.extend(leaves.rows);
        means.extend(leaves.centroids);
        radii.extend(leaves.radii);
    }
    let bits = Codec::centroid_bits(dimension);
    let table = Table::new(frame, Codec::of(dimension), bits, Rows::new(&means, dimension), &sizes, &radii);
    Ok(Leaves { table, order })
}

/// The codes of leaf number `leaf`, whose rows are `members`.
pub(crate) fn encode(rows: &Spill, table: &Table, leaf: usize, members: &[u32]) -> io::Result<Vec<u8>> {
    let values = vectors(rows, members.iter().copied(), table.frame().space())?;
    let values = Rows::new(&values, rows.dimension());
    Ok(codes::encode_leaf(table.frame(), table.codec(), &table.centroid(leaf), values.iter()))
}

/// The vectors of `members`, as clusters and codes want them.
fn vectors(rows: &Spill, members: impl IntoIterator<Item = u32>, space: Space) -> io::Result<Vec<f32>> {
    let mut values = Vec::new();
    rows.vectors(members, &mut values)?;
    if space == Space::Cosine {
        normalise(&mut values, rows.dimension());
    }
    Ok(values)
}

/// For each row the number of its centroid.
fn labels(rows: &Spill, space: Space, centroids: &[f32], threads: usize) -> io::Result<Vec<u32>> {
    let assigner = Assigner::new(Rows::new(centroids, rows.dimension()), threads);
    let count = u32::try_from(rows.len()).expect("a segment has fewer than 2^32 rows");
    let mut labels = Vec::with_capacity(rows.len());
    for start in (0..count).step_by(BATCH_ROWS as usize) {
        let end = count.min(start.saturating_add(BATCH_ROWS));
        let values = vectors(rows, start..end, space)?;
        labels.extend(assigner.assign(Rows::new(&values, rows.dimension()), threads));
    }
    Ok(labels)
}

/// Rows of some neighbouring centroids.
struct Stretch<'c> {
    members: Vec<u32>,
    /// Of the members, counted from the first centroid of the stretch.
    labels: Vec<u32>,
    centroids: &'c [f32],
}

/// All rows, with some `room` of them in each stretch.
fn stretches<'c>(labels: &[u32], centroids: &'c [f32], dimension: usize, room: usize) -> Vec<Stretch<'c>> {
    let count = centroids.len() / dimension;
    let mut starts = vec![0_usize; count + 1];
    labels.iter().for_each(|label| starts[*label as usize + 1] += 1);
    (0..count).for_each(|at| starts[at + 1] += starts[at]);
    let mut next = starts.clone();
    let mut sorted = vec![0_u32; labels.len()];
    for (row, label) in (0..).zip(labels) {
        sorted[next[*label as usize]] = row;
        next[*label as usize] += 1;
    }
    let (mut stretches, mut first) = (Vec::new(), 0);
    while first < count {
        let end =
            (first + 1..=count).take_while(|end| starts[*end] - starts[first] <= room).last().unwrap_or(first + 1);
        let members = sorted[starts[first]..starts[end]].to_vec();
        let own = |row: &u32| labels[*row as usize] - u32::try_from(first).expect("few centroids");
        stretches.push(Stretch {
            labels: members.iter().map(own).collect(),
            members,
            centroids: &centroids[first * dimension..end * dimension],
        });
        first = end;
    }
    stretches
}
