//! The stored rows of a collection: the segments that a manifest names, read from the bucket, and the log laid over them.
//!
//! Executor and compactor read through it, so that both mean the same. It knows `model`, `storage`, `segment` (which bytes
//! hold what) and of `query` the overlay; it has no clock and remembers nothing that it is not given. In reading order:
//!
//! - [`Base`]: the segments of a manifest, opened as they are needed; [`Place`]: a row of one of them
//! - [`StoredReader`]: ids to places, places to rows, all rows in order: the file of this crate that awaits, with `fetch`
//! - [`FilterSearch`]: which rows may satisfy a filter, by text indexes; [`WordIndexes`]: which have the best documents for some
//!   words
//! - [`Blocks`]: what is kept of objects
//! - [`Layer`]: what a log changes of a base, and nothing else

#![allow(async_fn_in_trait, reason = "isolates have one thread: no future here need be Send")]

mod base;
#[cfg(test)]
mod bounds;
mod fetch;
mod layer;
mod leaves;
mod ranking;
mod reader;
mod tally;
mod texts;

pub use base::{Base, Hidden, OpenSegment, Place, as_row, as_upsert};
pub use fetch::{Block, Blocks, Room};
pub use layer::{Fact, Facts, Layer, Questions, Wanted};
pub use leaves::Slots;
pub use ranking::WordIndexes;
pub use reader::{RowScan, StoredReader};
pub use tally::{Count, Tally};
pub use texts::FilterSearch;

/// Why stored rows could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// The store did not answer: the same read may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// An object that the manifest names is not there: the manifest is old, or data is damaged.
    #[error("{0}")]
    Missing(String),
    /// Stored bytes are not what was written, or the store refuses to serve them.
    #[error("{0}")]
    Corrupt(String),
}

/// The same for whoever asked.
impl From<StoredError> for query::PlanError {
    fn from(error: StoredError) -> Self {
        match error {
            StoredError::Unavailable(reason) => query::PlanError::Unavailable(reason),
            StoredError::Missing(reason) => query::PlanError::Missing(reason),
            StoredError::Corrupt(reason) => query::PlanError::Corrupt(reason),
        }
    }
}
