//! The approximate-nearest-neighbour index of a segment: how rows are filed in leaves, coded, found again and estimated.
//!
//! It knows `model` only: no store, no clock, no randomness but seeds; equal rows and seeds give equal bytes whatever the number of
//! threads. In reading order:
//!
//! - [`cluster`]: rows -> leaves of about equal size, neighbours side by side ([`Clustering`]; [`Assigner`] files rows)
//! - [`codes`]: a row as a few bits a dimension relative to its leaf's centroid ([`Codec`]), in a rotated frame ([`Frame`]), and
//!   distances estimated from that with an error bound ([`Estimate`]); [`planes`]: the bits, and the kernels
//! - [`table`]: the centroids and where leaves lie: what a query reads first ([`Table`])
//! - [`probe`]: which leaves a query reads, and which rows exactly ([`probe::Effort`])
//! - [`update`]: new rows into an index that is there; [`build`](mod@build): all of it for rows in memory
//!
//! A query: [`Frame::query`], [`Table::views`], [`probe::Line`]: its `rank` and `plan`; read the byte ranges of leaves;
//! [`codes::estimate`] for each; [`probe::rows`]; read these rows and compare them exactly, which is not done here.
//!
//! ```
//! use model::Space;
//! use vector::{Clustering, Codec, Options, Rows, codes, probe};
//! // 3,000 rows in a plane.
//! let values: Vec<f32> = (0..6000_u32).map(|at| (at * 7919 % 1009) as f32).collect();
//! let (rows, codec) = (Rows::new(&values, 2), Codec::of(2));
//! let clustering = Clustering::of(64, 1, 1);
//! let index = vector::build(rows, &Options { space: Space::L2, clustering, codec, centroid_bits: 8 });
//!
//! let (query, effort) = (index.table.frame().query(&[500.0, 500.0]), probe::Effort::cold(2, 10));
//! let views = index.table.views(&query);
//! let line = probe::Line::of([&index.table]);
//! let ranked = line.rank([&views[..]], effort.ratio);
//! let mut estimates = Vec::new();
//! for leaf in line.plan(&ranked, &effort.leaves).into_iter().flat_map(|(_, leaves)| leaves) {
//!     let bytes = index.table.bytes(leaf..leaf + 1);
//!     let codes = &index.codes[bytes.start as usize..bytes.end as usize];
//!     let first_row = index.table.rows(leaf..leaf + 1).start;
//!     codes::estimate(&query, codec, views[leaf], codes, first_row, &mut estimates).unwrap();
//! }
//! let plan = probe::rows(estimates, &effort.rerank);
//! let exact = |row: &[f32]| row.iter().map(|x| (x - 500.0) * (x - 500.0)).sum::<f32>();
//! let found = plan.rows.iter().map(|row| exact(rows.get(index.order[*row as usize] as usize))).reduce(f32::min);
//! assert_eq!(found, rows.iter().map(exact).reduce(f32::min));
//! ```

pub mod assign;
pub mod build;
pub mod cluster;
pub mod codes;
mod kmeans;
mod lanes;
mod order;
pub mod parallel;
pub mod planes;
pub mod probe;
mod random;
mod rotation;
mod rows;
mod stretches;
pub mod table;
pub mod update;

pub use assign::Assigner;
pub use build::{Index, Options, build};
pub use cluster::{Clustering, Leaves};
pub use codes::{Codec, Estimate, Frame, Query};
pub use kmeans::Groups;
pub use rotation::Rotation;
pub use rows::{Rows, normalise};
pub use table::Table;

/// Why bytes are not the index that they should be. None of these heals by reading again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// Not the bytes that were written.
    #[error("damaged index of vectors: {0}")]
    Damaged(&'static str),
    /// A version this code does not know.
    #[error("index of vectors of version {0}; this code reads version {version}", version = table::VERSION)]
    Version(u32),
}

/// A count of this segment, of which rows are numbered by u32.
pub(crate) fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a segment has fewer than 2^32 rows")
}

/// A number of this segment as one of memory: they were checked to be small when they came.
pub(crate) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
