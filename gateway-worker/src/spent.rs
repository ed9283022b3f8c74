//! How long a request waited, and for what.

use http::HeaderValue;
use runtime::Runtime;
use std::cell::Cell;
use std::pin::Pin;

/// Milliseconds that a request waited. What it waits for at the same time counts for both.
#[derive(Debug, Default)]
pub struct Spent {
    catalog_ms: Cell<u64>,
    executors_ms: Cell<u64>,
}

impl Spent {
    /// The result of `call`, which asks the catalog.
    pub(crate) fn on_catalog<T>(
        &self,
        runtime: &impl Runtime,
        call: impl Future<Output = T>,
    ) -> impl Future<Output = T> {
        timed(&self.catalog_ms, runtime, Box::pin(call))
    }

    /// The result of `call`, which asks the executors.
    pub(crate) fn on_executors<T>(
        &self,
        runtime: &impl Runtime,
        call: impl Future<Output = T>,
    ) -> impl Future<Output = T> {
        timed(&self.executors_ms, runtime, Box::pin(call))
    }

    /// The header `Server-Timing` (W3C) of a request that took so long in all. Workers' clocks stand still while they
    /// compute: these are times of waiting.
    pub(crate) fn server_timing(&self, total_ms: u64) -> HeaderValue {
        let (catalog, executors) = (self.catalog_ms.get(), self.executors_ms.get());
        let text = format!("catalog;dur={catalog}, executors;dur={executors}, total;dur={total_ms}");
        HeaderValue::try_from(text).expect("digits and letters")
    }
}

/// `call` is boxed: an async function has room for what it is given twice.
async fn timed<F: Future>(spent: &Cell<u64>, runtime: &impl Runtime, call: Pin<Box<F>>) -> F::Output {
    let begun = runtime.now();
    let result = call.await;
    spent.set(spent.get() + runtime.now().ms_since(begun));
    result
}
