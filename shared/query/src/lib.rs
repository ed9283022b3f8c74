//! Reads as values: what the gateway asks an executor ([`plan`]), and how it is answered over rows in memory:
//! [`eval`] filters, [`kernel`] measures, [`top_k`] ranks, [`relevance`] counts words, [`overlay`] keeps what the log says.
//!
//! It knows `model` only: no async, no clock, no randomness, no store.
//!
//! ```
//! use model::{CollectionId, Lsn, Manifest, Operation, OperationKind, Space};
//! use query::{Include, Overlay, Read, Source};
//! # fn main() -> Result<(), query::PlanError> {
//! let add = |id: &str, embedding: Vec<f32>| Operation {
//!     kind: OperationKind::Add,
//!     embedding: Some(embedding),
//!     ..Operation::delete(id.into())
//! };
//! let mut records = Overlay::default();
//! let log = [add("a", vec![0.0, 0.0]), add("b", vec![3.0, 4.0])];
//! records.apply(Lsn(0), log.iter().map(Operation::view))?;
//!
//! let collection = CollectionId::from_u128(7);
//! let manifest = Manifest::default();
//! let source = Source { collection, generation: 0, manifest, dimension: Some(2), space: Space::L2, ef_search: 100 };
//! let nearest = Read::Query {
//!     vectors: vec![vec![3.0, 3.0]],
//!     n_results: 1,
//!     ids: None,
//!     filter: None,
//!     include: Include::default(),
//! };
//! let (hits, _) = records.answer(&source, &nearest)?;
//! assert_eq!((hits[0][0].id.as_str(), hits[0][0].distance), ("b", Some(1.0)));
//! # Ok(())
//! # }
//! ```

pub mod eval;
pub mod kernel;
pub mod overlay;
pub mod plan;
pub mod relevance;
pub mod top_k;

#[cfg(any(test, feature = "test-util"))]
pub mod testing;

pub use eval::{CompiledFilter, Fields, FilterError};
pub use overlay::{Begun, NothingStored, Origin, Overlay, Rival, STORED_GROUP, Scan, Stored, StoredRow};
pub use plan::{Answer, Explain, ExplainedRead, Hit, Include, PlanError, QueryPlan, Read, ReadLevel, Source};
pub use relevance::{Counted, Counter, Counts, Statistics};
pub use top_k::TopK;
