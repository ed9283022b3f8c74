//! The metadata and full-text index of a segment: rows -> bytes, and a filter -> the byte ranges to read -> rows.
//!
//! It knows `model` and `query` only: no async, no clock, no store. In reading order:
//!
//! - [`Options`]: what is indexed; [`Builder`]: rows -> [`Built`], a bundle (an object) and its hotcache (for the head)
//! - [`TextIndex`]: an opened hotcache, and the pages of the bundle that are in memory
//! - [`Plan`]: a `model::Filter` as look-ups; [`Search`]: a plan against an index, step by step, until [`Matches`]
//! - [`Keywords`], [`Ranking`]: the best documents for some words, by BM25
//!
//! Grams and words of documents are a tantivy index. Metadata is in blocks of our own, because whoever knows a term then
//! knows what to read without a dictionary in between. `docs/formats.md` has each byte, and
//! `docs/decisions/0007-text-index.md` says why.
//!
//! ```
//! use model::{DocumentTest, Filter, limits};
//! use text::{Builder, Options, Plan, Row, Search, Step, TextIndex};
//! # fn main() -> Result<(), text::TextError> {
//! let mut builder = Builder::new(Options::default(), limits::TEXT_PART_BYTES_MAX);
//! for text in ["a gateway", "an executor", "the gateways"] {
//!     assert!(builder.push(&Row { document: Some(text), ..Row::default() }).is_none());
//! }
//! let built = builder.finish().expect("there are rows");
//!
//! let index = TextIndex::open(&built.hotcache)?;
//! let plan = Plan::compile(&Filter::Document(DocumentTest::Contains("gateway".to_owned()))).expect("it is no pattern");
//! let mut search = Search::new(&index, &plan, 1 << 20);
//! let matches = loop {
//!     match search.step()? {
//!         Step::Done(matches) => break matches,
//!         Step::Needs(ranges) => {
//!             for range in ranges {
//!                 let bytes = built.bundle[range.start as usize..range.end as usize].to_vec();
//!                 index.supply(range, bytes)?;
//!             }
//!         }
//!     }
//! };
//! assert_eq!(matches.sure.iter().collect::<Vec<_>>(), [0, 2]);
//! assert!(matches.unsure.is_empty());
//! # Ok(())
//! # }
//! ```

mod attributes;
mod builder;
mod bytes;
mod files;
mod grams;
mod hotcache;
mod index;
mod options;
mod pages;
mod pattern;
mod plan;
mod ranking;
mod rows;
mod schema;
mod search;
mod terms;

pub use builder::{Builder, Built, Row};
pub use index::TextIndex;
pub use options::{Options, Types};
pub use plan::Plan;
pub use ranking::{Keywords, Ranking, Scored, Scorer};
pub use search::{Matches, Search, Step};

/// Why bytes are not the index that they should be. None of these heals by reading again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Not the bytes that were written.
    #[error("damaged text index: {0}")]
    Damaged(String),
    /// A version this code does not know.
    #[error("text index of version {0}; this code reads version {version}", version = hotcache::VERSION)]
    Version(u32),
}

pub(crate) fn damaged(what: impl std::fmt::Display) -> TextError {
    TextError::Damaged(what.to_string())
}

/// A length or number as one of memory; one that memory does not have becomes one that nothing has.
pub(crate) fn index(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}
