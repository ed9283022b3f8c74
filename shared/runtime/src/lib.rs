//! Ports for what a program takes from the world besides storage: the present, randomness, sleep and outgoing HTTP.
//!
//! It knows nothing of stores, catalogs or records. In reading order: [`Runtime`], [`Http`], [`within`], [`beating`], [`Backoff`];
//! then an adapter per platform, chosen by target: `WorkerRuntime` on wasm32, [`NativeRuntime`] elsewhere, and, for
//! tests, `SimulatedRuntime`: virtual time and a seed.
//!
//! ```
//! use runtime::{Backoff, NativeRuntime, Runtime};
//! let runtime = NativeRuntime::new();
//! assert_ne!(runtime.random(), runtime.random());
//! assert!(Backoff::default().next_ms(&runtime).is_some());
//! ```

#![allow(async_fn_in_trait, reason = "isolates have one thread: no future here need be Send")]

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::HeaderName;
use model::{Timestamp, limits};
use std::pin::{Pin, pin};

#[cfg(any(test, feature = "test-util"))]
mod manual;
#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(any(test, feature = "test-util"))]
mod simulated;
#[cfg(target_arch = "wasm32")]
mod worker;
#[cfg(target_arch = "wasm32")]
mod worker_http;

#[cfg(any(test, feature = "test-util"))]
pub use manual::ManualRuntime;
#[cfg(not(target_arch = "wasm32"))]
pub use native::NativeRuntime;
#[cfg(any(test, feature = "test-util"))]
pub use simulated::SimulatedRuntime;
#[cfg(target_arch = "wasm32")]
pub use worker::WorkerRuntime;
#[cfg(target_arch = "wasm32")]
pub use worker_http::{
    RequestError, announced_length, discard_body, http_response, request_body, request_head, worker_response,
};

/// The W3C header that joins the requests that one user's request causes.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The present, randomness and sleep.
pub trait Runtime: Clone {
    /// The present by this machine's clock. On Workers it stands still between two awaits.
    fn now(&self) -> Timestamp;

    /// 128 bits that nobody can guess or repeat.
    fn random(&self) -> u128;

    /// Returns after about `ms` milliseconds.
    async fn sleep(&self, ms: u64);
}

/// Outgoing HTTP.
pub trait Http {
    /// Sends `request` once and returns the reply with its whole body.
    ///
    /// Whether a request that ended in an error has had its effect is unknown, unless the error says otherwise.
    async fn fetch(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError>;
}

/// No reply.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request could not be built: repeating it is useless, and nothing was sent.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The connection failed before or after the request was sent: its effect is unknown.
    #[error("no reply: {0}")]
    NoReply(String),
}

/// Linear memory of the isolate, in bytes: it never shrinks. 0 where there is no such thing.
pub fn memory_bytes() -> u64 {
    #[cfg(target_arch = "wasm32")]
    let pages = core::arch::wasm32::memory_size::<0>() as u64;
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0;
    pages * (64 * 1024)
}

/// The result of `future`, or `None` if it takes longer than `ms` milliseconds; it is then dropped.
pub async fn within<R: Runtime, T>(runtime: &R, ms: u64, future: impl Future<Output = T>) -> Option<T> {
    match select(pin!(future), pin!(runtime.sleep(ms))).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(((), _)) => None,
    }
}

/// The result of `future`. `beat` is called first, and again whenever `every_ms` milliseconds have passed: so that others
/// see that somebody still works on it. (Pinned already: a large future would be kept twice.)
pub async fn beating<R: Runtime, F: Future>(
    runtime: &R,
    every_ms: u64,
    beat: impl Fn(),
    mut future: Pin<&mut F>,
) -> F::Output {
    loop {
        beat();
        match select(future.as_mut(), pin!(runtime.sleep(every_ms))).await {
            Either::Left((value, _)) => return value,
            Either::Right(_) => {}
        }
    }
}

/// Pauses between tries: doubling from [`limits::BACKOFF_MS`], half of each drawn at random so that rivals part.
#[derive(Clone, Debug)]
pub struct Backoff {
    next_ms: u64,
    left: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::tries(u32::MAX)
    }
}

impl Backoff {
    /// Pauses for an operation that may be tried `tries` times: one pause fewer.
    pub fn tries(tries: u32) -> Self {
        Backoff { next_ms: limits::BACKOFF_MS, left: tries.saturating_sub(1) }
    }

    /// The next pause in ms; `None` when all tries are used up.
    #[expect(clippy::cast_possible_truncation, reason = "any 64 of the 128 random bits will do")]
    pub fn next_ms(&mut self, runtime: &impl Runtime) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.next_ms;
        self.next_ms = (pause * 2).min(limits::BACKOFF_MAX_MS);
        Some(pause / 2 + runtime.random() as u64 % (pause / 2 + 1))
    }

    /// Sleeps for the next pause; `false` when all tries are used up.
    pub async fn pause(&mut self, runtime: &impl Runtime) -> bool {
        match self.next_ms(runtime) {
            Some(ms) => {
                runtime.sleep(ms).await;
                true
            }
            None => false,
        }
    }
}
