//! Stacks for tests, and ways to talk to them.

mod api;
mod bucket;
mod edge_cache;
mod ports;
pub(crate) mod processes;
mod scripts;
mod stacks;

pub(crate) use api::{Api, Collection, Reply, records, unique_name};
pub(crate) use bucket::{Bucket, fragment_key};
pub(crate) use edge_cache::EdgeCache;
pub(crate) use ports::{aws_store, libsql_catalog, tokio_runtime};
pub(crate) use scripts::{node, python};
pub(crate) use stacks::{own_stack, own_stack_with, run_compactor, shared_stack, shared_url};
