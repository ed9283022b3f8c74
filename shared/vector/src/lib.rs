//! The approximate-nearest-neighbour index of a segment: how rows are filed in leaves, coded, found again and estimated.

pub mod assign;
pub mod build;
pub mod cluster;
pub mod codes;
mod kmeans;
mod lanes;
mod order;
mod parallel;
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
