//! The values of Opal: what users store, how it is named, and every bound in the system.
//!
//! This crate knows nothing: no I/O, no clock, no randomness, no other crate of ours. Read it in this order:
//!
//! - [`id`]: [`CollectionId`], [`RecordId`], [`Lsn`], [`Position`], [`Nonce`], [`SetHash`],
//!   [`ContentHash`], [`LogEnd`]
//! - [`metadata`]: [`MetadataValue`], [`Metadata`], [`MetadataPatch`]
//! - [`record`]: [`Record`] as readers see it, [`Operation`] as writers send it
//! - [`filter`]: [`Filter`], what `where` and `where_document` say
//! - [`collection`]: [`CollectionRow`], the catalog's one row per collection; [`schema`]: what it indexes; [`manifest`]: the index version it points to
//! - [`words`]: [`Words`], how text becomes words
//! - [`keys`]: where an object lies in the bucket
//! - [`limits`]: every bound: value, unit, reason; [`bounded`]: lists and maps that stop growing when memory ends
//! - [`safeguard`]: the rules that keep the log exact, by name
//!
//! ```
//! use model::{CollectionId, Lsn, keys};
//! let id = CollectionId::from_u128(7);
//! assert_eq!(keys::fragment(id, Lsn(255)), "00000000-0000-0000-0000-000000000007/log/00000000000000ff");
//! ```

pub mod bounded;
pub mod collection;
pub mod filter;
pub mod id;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod metadata;
pub mod record;
pub mod safeguard;
pub mod schema;
pub mod time;
pub mod words;

pub use collection::{CollectionRow, Configuration, Space};
pub use filter::{Comparison, DocumentTest, Filter, MetadataTest, Scalar};
pub use id::{CollectionId, ContentHash, LogEnd, Lsn, Nonce, Position, RecordId, SetHash};
pub use manifest::{DeleteVectorPlace, DeleteVectorRef, IndexRef, Manifest, SegmentRef, TextRef};
pub use metadata::{Metadata, MetadataPatch, MetadataValue, SparseVector};
pub use record::{Operation, OperationKind, OperationView, Record};
pub use safeguard::Safeguard;
pub use time::Timestamp;
pub use words::{Language, Words};
