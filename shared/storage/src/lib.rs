//! The object store: a narrow port, its adapters, decorators that add behaviour, and the contract all of them keep.
//!
//! It knows keys and bytes and none of Opal's types (of `model` only the limits). In reading order: [`ObjectStore`], [`PutMode`], the errors;
//! [`MemoryStore`], [`S3Store`] and, in Workers, `R2Store`, of which `BoundStore` takes the one that is configured; [`Retry`], [`Lanes`], [`Observed`],
//! [`Edge`] (with, in Workers, `CacheApi`) and (for tests) `Faulty`; `contract`, the suite that every adapter passes; [`probe`], which refuses a store that ignores
//! conditions; [`races`], which finds one that honours them only as long as nobody hurries.
//!
//! ```
//! # futures_util::future::FutureExt::now_or_never(async {
//! use storage::{MemoryStore, ObjectStore, PutError, PutMode};
//! let store = MemoryStore::default();
//! store.put("a", "1".into(), PutMode::Create).await.unwrap();
//! assert!(matches!(store.put("a", "2".into(), PutMode::Create).await, Err(PutError::Precondition)));
//! assert_eq!(store.get("a").await.unwrap().unwrap().as_ref(), b"1");
//! # });
//! ```

#![allow(async_fn_in_trait, reason = "isolates have one thread: no future here need be Send")]

use bytes::Bytes;
use model::limits;
use std::ops::Range;

#[cfg(target_arch = "wasm32")]
mod bound;
#[cfg(target_arch = "wasm32")]
mod cache_api;
#[cfg(any(test, feature = "test-util"))]
pub mod contract;
mod edge;
#[cfg(any(test, feature = "test-util"))]
mod faulty;
mod lanes;
mod memory;
mod observed;
mod probe;
#[cfg(target_arch = "wasm32")]
mod r2;
#[cfg(any(test, target_arch = "wasm32"))]
mod r2_errors;
mod races;
mod retry;
mod s3;

#[cfg(target_arch = "wasm32")]
pub use bound::BoundStore;
#[cfg(target_arch = "wasm32")]
pub use cache_api::CacheApi;
pub use edge::{Edge, EdgeCache};
#[cfg(any(test, feature = "test-util"))]
pub use faulty::{Counts, Fate, Fault, Faulty, OperationKind};
pub use lanes::Lanes;
pub use memory::MemoryStore;
pub use observed::{Observed, ObservedRead, Reads};
pub use probe::{ProbeError, probe};
#[cfg(target_arch = "wasm32")]
pub use r2::R2Store;
pub use races::{RaceReport, races};
pub use retry::Retry;
pub use s3::{S3Config, S3ConfigError, S3Store};

/// A bucket. None of the methods retries by itself (see [`Retry`]); each is one request, but for a listing that the store
/// cuts short.
///
/// Keys are UTF-8 text of 1 to 1,024 bytes without segments `.` and `..`, which URLs cannot carry: others are refused.
/// A change is visible to everyone as soon as it was confirmed, and so is its absence before: no cache lies between.
pub trait ObjectStore {
    /// The whole object; `None` if there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError>;

    /// The bytes `range` of the object, fewer if it ends before; `None` if there is no object.
    /// A range that begins beyond the end gives no bytes. Panics if the range is empty: there is nothing to ask for.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError>;

    /// Size in bytes; `None` if there is no object. The reply has no text, so a bucket that is not there looks like an
    /// object that is not there.
    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError>;

    /// Writes the object if `mode` allows it. A success is durable. The body is sent with a checksum: a store that
    /// receives it damaged refuses it.
    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError>;

    /// Keys under `prefix` after `start_after`, in byte order: at most 1,000, fewer only at the end.
    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError>;

    /// Removes the object; removing nothing is a success.
    async fn delete(&self, key: &str) -> Result<(), PutError>;
}

/// Under which condition a put may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// Always.
    Overwrite,
    /// Only if there is no object: of any number of racing creators one wins.
    Create,
    /// Only if the object's content is still this one; if there is no object it fails like any other condition.
    Update(Etag),
}

/// The store's name for one content of one object. Equal contents may have equal names, also at different times: it tells
/// that a content was replaced, not that nothing happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(pub String);

/// A read that gave nothing. Reads may always be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Timeout, lost connection, 429 or 5xx: try again.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// The store understood and refused (credentials, bucket), or no store can name the key: trying again is useless.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// A put or delete that was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// 412: the condition does not hold. This request wrote nothing; an earlier one with a lost reply may have.
    #[error("the condition does not hold")]
    Precondition,
    /// 409 or 429: this request wrote nothing, and the same one may succeed after a pause.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// Timeout, lost connection, 5xx: it may or may not have been written, now or later. Read before going on.
    #[error("the store did not answer: {0}")]
    Indeterminate(String),
    /// The store understood and refused (credentials, bucket, damaged body), or no store can name the key: nothing was
    /// written.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// A borrowed store is a store: decorators may borrow what they decorate.
impl<S: ObjectStore> ObjectStore for &S {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        (**self).get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        (**self).get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        (**self).head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        (**self).put(key, body, mode).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        (**self).list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        (**self).delete(key).await
    }
}

/// Most keys in one listing (S3's own bound).
pub const LIST_KEYS_MAX: usize = 1_000;

/// Why no store can have an object of this name, if so: what every adapter refuses before it asks.
pub fn key_error(key: &str) -> Option<String> {
    if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
        return Some(format!("a key has 1 to {} bytes, got {}", limits::KEY_BYTES_MAX, key.len()));
    }
    let is_dots = |segment| matches!(segment, "." | "..");
    key.split('/').any(is_dots).then(|| format!("a URL cannot carry the key {key:?}"))
}

/// What a store answers to a range of an object with this body.
pub fn part_of(body: &Bytes, range: &Range<u64>) -> Bytes {
    assert!(range.start < range.end, "an empty range asks for nothing");
    let index = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(body.len());
    body.slice(index(range.start)..index(range.end))
}
