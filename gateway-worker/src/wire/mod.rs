//! Chroma's JSON to our values and back, and errors to statuses: everything the API promises on the wire.
//!
//! Pure: bytes and values in, values and bytes out; no I/O, no clock, no randomness. Only this module knows a status
//! code, an error name or a member of a body. In reading order:
//!
//! - [`error`]: [`ApiError`], what a request is answered that cannot be answered otherwise
//! - [`body`]: bodies, content types, sizes and query strings
//! - [`names`]: what tenants, databases, collections and metadata keys may be called
//! - [`configuration`], [`schema`]: how a collection is indexed, as requests say it and answers show it
//! - [`collections`]: bodies of create and update, the collection object
//! - [`tenants`]: bodies about tenants and databases
//! - [`where_clause`]: `where` and `where_document` to a [`model::Filter`]
//! - [`records`]: bodies of add, update, upsert, delete, get and query; [`embeddings`]: their vectors
//! - [`unbuilt`]: bodies of what is not built yet
//! - [`responses`]: every 2xx body
//!
//! A write goes `records::add` (400, 422), the collection's row (404), `Batch::check_dimension` (400), the dimension if
//! there was none, `Batch::into_operations` (400, 501), and then the log: in the order in which Chroma's server checks.

pub mod body;
pub mod collections;
pub mod configuration;
pub mod embeddings;
pub mod error;
pub mod names;
pub mod records;
pub mod responses;
pub mod schema;
pub mod tenants;
pub mod unbuilt;
pub mod where_clause;

pub use error::ApiError;
