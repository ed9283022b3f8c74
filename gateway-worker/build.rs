//! Tells the linker how much memory the Worker may have.

use std::env;

/// `limits::WORKER_MEMORY_BYTES`; a test compares the two.
const MEMORY_BYTES: usize = 96 << 20;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[expect(clippy::disallowed_methods, reason = "so cargo tells a build script what it builds for")]
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        println!("cargo::rustc-link-arg-cdylib=--max-memory={MEMORY_BYTES}");
    }
}
