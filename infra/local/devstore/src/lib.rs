//! An S3 server for the local stack and for tests: one file per object, atomic conditional puts, crash-safe,
//! counters that say what a program asked of it, and levers that make it slow, busy or forgetful.
//!
//! It speaks S3's protocol by the crate `s3s` and knows nothing of what is stored in it. It is made for one machine
//! and one process per data directory, not for production.
//!
//! In reading order: [`Config`] and [`Server`] start it; `keys` and `object` say how an object lies on the disk, `store`
//! how it gets there whole or not at all, `listing` and `upload` the rest of the backend; `s3` and `wire` translate;
//! `observe` is what every request passes, with its bodies by `taps`; [`counters`] is what is counted, `faults` what goes
//! wrong on purpose, `admin` where one is read and the other set.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! let server = devstore::Server::start(devstore::Config {
//!     data: "target/devstore".into(),
//!     listen: ([127, 0, 0, 1], 0).into(),
//!     admin: ([127, 0, 0, 1], 0).into(),
//!     bucket: "opal".into(),
//!     access_key_id: "local".into(),
//!     secret_access_key: "local".into(),
//!     fsync: true,
//! })
//! .await?;
//! println!("S3 at http://{}", server.listen());
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

mod admin;
mod body;
pub mod counters;
mod digest;
mod faults;
mod keys;
mod link;
mod listing;
mod object;
mod observe;
mod s3;
mod server;
mod store;
mod taps;
mod upload;
mod wire;

pub use server::{Config, Server};
