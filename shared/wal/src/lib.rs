//! The write-ahead log: a prefix of immutable fragments in the bucket, one for each write, numbered without gaps.
//!
//! It knows `model` and `storage`, and the catalog only as somebody who can re-read a row ([`RowSource`]). In reading order:
//!
//! - [`fragment`]: a batch of operations <-> bytes (Arrow IPC), with nonce, set-hash and the predecessor's nonce
//! - [`claim`]: the pure state machine of "who owns the next LSN": when to put, look, re-read the row, acknowledge
//! - [`tail`]: which keys to probe for the end of the log, pure as well
//! - [`Writer`] and [`Reader`]: they await; [`pack`]: fragments folded together, and [`Packer`], who folds them
//!
//! ```
//! # use futures_util::FutureExt;
//! # let runtime = runtime::NativeRuntime::new();
//! # async {
//! use model::{CollectionId, LogEnd, Operation};
//! use wal::{Reader, RowView, Writer};
//! let store = storage::MemoryStore::default();
//! let id = CollectionId::from_u128(1);
//! # struct Rows; impl wal::RowSource for Rows { async fn refresh(&self) -> Result<RowView, wal::RefreshError> { unreachable!() } }
//! # let (rows, row, deadline) = (Rows, RowView { gc_floor: model::Lsn(0), compacted: LogEnd::EMPTY, requested_at: model::Timestamp(0) }, model::Timestamp(1));
//! let writer = Writer { store: &store, runtime: &runtime, rows: &rows, collection: id };
//! let operations = vec![Operation::delete("a".into())];
//! let end = writer.append(operations, row, deadline).await.unwrap();
//! let mut seen = Vec::new();
//! Reader { store: &store, collection: id }.read(LogEnd::EMPTY, |fragment| seen.push(fragment)).await.unwrap();
//! # };
//! ```

#![allow(async_fn_in_trait, reason = "isolates have one thread: no future here need be Send")]

mod batch;
pub mod claim;
mod columns;
pub mod fragment;
pub mod pack;
mod reader;
pub mod tail;
mod writer;

pub use claim::RowView;
pub use columns::{Contents, FragmentError, content_hash};
pub use fragment::{Fragment, FragmentHeader, KeyedRequest};
pub use pack::Packer;
pub use reader::{Reader, TailError};
pub use writer::{Append, AppendError, RefreshError, RowSource, Writer};
