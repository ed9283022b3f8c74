//! End-to-end tests: the real clients and raw HTTP against the Workers under `workerd serve`, devstore and sqld.
//!
//! `cargo xtask test` builds what they run and tells them where it is. In reading order: [`harness`], the stack that tests
//! share and how to talk to it; [`clients`], Chroma's own Python and JavaScript clients; [`wire`], the HTTP contract byte
//! for byte; [`read_your_writes`], [`vectors`], [`crashes`], [`outages`], [`faults`], [`executors`], [`damage`], [`memory`], [`cold_queries`]: what holds whatever happens; [`open_data`],
//! [`counts`]: what lies in the bucket and what a request costs; [`contracts`]: the ports on the real services; [`miniflare`]: store and client on an R2 binding; [`catalog_failures`]: the catalog's
//! adapter on an sqld that is killed, stopped, locked, raced for.
//!
//! `OPAL_E2E_URL=http://127.0.0.1:8000` runs the tests that share a stack against another server instead. With the
//! original server behind it this shows whether a test asks for what Chroma does.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "this is a test: it waits for real processes, reads its settings from the environment, and fails by panics"
)]

mod catalog_failures;
mod clients;
mod cold_queries;
mod contracts;
mod counts;
mod crashes;
mod damage;
mod executors;
mod faults;
mod harness;
mod memory;
mod miniflare;
mod open_data;
mod outages;
mod read_your_writes;
mod vectors;
mod wire;
