//! Immutable index segments: what a compaction makes of records, and how a reader finds a few of them again.
//!
//! It knows `model` only: no async, no clock, no randomness, no store. The reader names byte ranges of a segment's parts
//! and later decodes what they hold. In reading order:
//!
//! - [`row`]: a record with its position, as segments store it
//! - [`Builder`]: rows in the order of their positions -> parts and the [`model::SegmentRef`] that names them
//! - [`Segment`]: an opened head; which bytes hold what
//! - [`rows`], [`ids`], [`positions`], [`codes`], [`delete_vector`]: a section each
//!
//! A segment is a few objects under one prefix: `head` (magic, table of all sections, checksums, then the sections that are
//! small), `rows-0000.arrow`, … (Arrow IPC files) and `codes-0000`, … (vectors in a quarter of their size). Sections are
//! found by the table, so that others can be added. `docs/formats.md` has each byte.
//!
//! ```
//! use model::Position;
//! use segment::{Builder, Segment, row::RowView};
//! let mut builder = Builder::new(2);
//! for (position, id) in [(3, "a"), (7, "b")] {
//!     builder.push(&RowView { position: Position(position), id, vector: &[1.0, 2.0], document: None, uri: None, metadata: None });
//! }
//! let built = builder.finish("prefix".to_owned());
//! let head = &built.parts.iter().find(|part| part.name == "head").unwrap().body;
//! let segment = Segment::open(&head[..built.segment.head_bytes as usize]).unwrap();
//! let place = segment.batch_of(1);
//! let part = &built.parts.iter().find(|part| part.name == place.part).unwrap().body;
//! let batch = segment.decode_batch(&place, &part[place.range.start as usize..place.range.end as usize]).unwrap();
//! assert_eq!(batch.row(1).id, "b");
//! ```

mod batches;
mod builder;
pub mod codes;
pub mod delete_vector;
mod head;
pub mod ids;
mod leaves;
mod objects;
pub mod positions;
mod reader;
pub mod row;
pub mod rows;
#[cfg(test)]
mod testing;
mod text;

pub use batches::BatchPlace;
pub use builder::{Builder, Built};
pub use delete_vector::DeleteVector;
pub use ids::IdHash;
pub use leaves::{BuiltIndex, IndexBuilder, Leaf, LeafIndex, index_place};
pub use objects::Part;
pub use reader::{IDS_PART, Place, Segment, codes_parts, codes_place, head_place};
pub use rows::RowBatch;
pub use text::{BuiltText, TextBuilder, TextHead, text_place};

/// Why bytes are not the part of a segment that they should be. None of these heals by reading again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not the bytes that were written.
    #[error("damaged segment: {0}")]
    Damaged(String),
    /// A version this code does not know.
    #[error("segment of version {0}; this code reads version {version}", version = head::VERSION)]
    Version(u32),
}

pub(crate) fn damaged(what: impl std::fmt::Display) -> SegmentError {
    SegmentError::Damaged(what.to_string())
}

/// A length or number of this segment as one of memory: they were checked to be small when they came.
pub(crate) fn index(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}
