//! The native job beside the Workers, as a library: the program `opal-compactor` and the simulation are built from it.
//!
//! It knows the bucket, the catalog and the log, and nothing of the Workers. All of it is generic over the store, the
//! catalog and the clock, awaits on one thread, and asks no clock but [`runtime::Runtime`]; how old something in the
//! catalog is, the catalog alone says. In reading order:
//!
//! - [`journal`]: what it tells about itself while it works, and how it is asked to stop
//! - [`work`]: finds the collections that have something to compact
//! - [`compact`]: turns a log into segments, and small segments into larger ones
//! - [`indexing`]: files the rows of large segments in leaves; `refile`: in those of a segment that is merged; `texts`: builds
//!   the index of metadata and documents
//! - [`gc`]: deletes what no reader can need any more
//! - [`status`]: tells what is stored and what waits
//! - [`verify`]: proves that logs are what was written
//! - [`probe`]: tries whether a store may hold logs at all
//! - [`bucket`]: the object store, by the AWS SDK; [`database`]: the catalog's database, by the crate `libsql`

#![allow(async_fn_in_trait, reason = "the job does its I/O on one thread: no future here need be Send")]

pub mod bucket;
pub mod compact;
pub mod database;
pub mod gc;
pub mod indexing;
pub mod journal;
pub mod probe;
mod refile;
pub mod spill;
pub mod status;
#[cfg(test)]
mod testing;
mod texts;
pub mod tiers;
pub mod verify;
pub mod work;
mod writer;
