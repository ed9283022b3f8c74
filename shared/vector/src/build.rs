//! An index of rows that are in memory: the three steps in one.

use crate::codes::{self, Codec, Frame};
use crate::{Clustering, Leaves, Rows, Table, cluster, kmeans, parallel};
use model::Space;

/// How an index is built.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How distances are measured.
    pub space: Space,
    /// How rows are clustered.
    pub clustering: Clustering,
    /// How rows are coded.
    pub codec: Codec,
    /// Bits a dimension of a centroid in the table.
    pub centroid_bits: u32,
}

/// An index: what to store.
#[derive(Clone, Debug)]
pub struct Index {
    /// What a query reads first.
    pub table: Table,
    /// The part of leaves.
    pub codes: Vec<u8>,
    /// Row `i` of the index is row `order[i]` of what was given.
    pub order: Vec<u32>,
}

/// Builds the index of `rows`, which have unit length if the space is cosine (see [`crate::normalise`]).
///
/// Memory: that of [`cluster::cluster`], then the codes. Cost: seconds for each 100,000 rows of 384 numbers.
pub fn build(rows: Rows<'_>, options: &Options) -> Index {
    let leaves = cluster::cluster(rows, &options.clustering);
    index(rows, leaves, options)
}

/// The index of `rows` that were clustered into `leaves`.
pub fn index(rows: Rows<'_>, leaves: Leaves, options: &Options) -> Index {
    let frame = frame(rows, options.space, options.clustering.seed);
    let centroids = Rows::new(&leaves.centroids, rows.dimension());
    let table = Table::new(frame, options.codec, options.centroid_bits, centroids, &leaves.rows, &leaves.radii);
    let codes = encode(rows, &table, &leaves, options.clustering.threads);
    Index { table, codes, order: leaves.order }
}

/// Rows whose mean is near enough to that of all.
const MEAN_ROWS: usize = 65_536;

/// The frame for `rows`, or a sample of them.
pub fn frame(rows: Rows<'_>, space: Space, seed: u64) -> Frame {
    let some = rows.len().div_ceil(MEAN_ROWS).max(1);
    let mean = kmeans::mean(rows.iter().step_by(some), rows.dimension());
    let squares = rows.iter().step_by(some).map(|row| f64::from(codes::dot(row, row))).sum::<f64>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "about the length of rows")]
    let length = (squares / rows.len().div_ceil(some).max(1) as f64).sqrt() as f32;
    Frame::new(space, mean, length, seed)
}

fn encode(rows: Rows<'_>, table: &Table, leaves: &Leaves, threads: usize) -> Vec<u8> {
    let leaf = |leaf: usize| {
        let members = table.rows(leaf..leaf + 1);
        let members = &leaves.order[members.start as usize..members.end as usize];
        let rows = members.iter().map(|row| rows.get(*row as usize));
        codes::encode_leaf(table.frame(), table.codec(), &table.centroid(leaf), rows)
    };
    parallel::map(threads, table.leaves(), leaf).concat()
}
