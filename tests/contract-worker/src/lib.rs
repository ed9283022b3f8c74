//! A Worker that tries, inside workerd, what other tests can try natively only: the ports' contracts over the adapters for
//! Workers, and the SIMD kernels against their scalar twins.
//!
//! `GET /runtime`, `/storage`, `/races`, `/catalog` and `/kernels` each answer a JSON object with a line per promise, `"ok"` or how it
//! was broken, and status 500 if any was. `/catalog` empties the catalog.

#[cfg(target_arch = "wasm32")]
mod entry;
