//! The real server over real HTTP, with requests signed by an S3 client that is not ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "what is held back is measured by the machine's clock")]
#![allow(unreachable_pub, reason = "modules share helpers")]

mod client;
mod conditions;
mod crash;
mod faults;
mod listing;
mod multipart;
mod objects;
mod traces;
