//! One compiled crate to one Worker directory.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wasm_bindgen_cli_support::Bindgen;

/// The entry point of every Worker.
const SHIM: &str = include_str!("worker.mjs");
/// What a Worker directory was made from, so that it is made again only if that changed.
const STAMP: &str = "stamp";
/// Changes when this module makes something else from the same input.
const RECIPE: &str = "wasm-bindgen 0.2.130, recipe 1";

/// Makes the Worker directory `dir` from the module `wasm`; says whether there was anything to do.
pub(super) fn package(wasm: &Path, dir: &Path) -> Result<bool> {
    let bytes = fs::read(wasm).with_context(|| format!("cannot read {}", wasm.display()))?;
    let stamp = stamp(&bytes);
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|last| last == stamp) {
        return Ok(false);
    }
    let unfinished = dir.with_extension("unfinished");
    remove_if_there(&unfinished)?;
    fs::create_dir_all(&unfinished).with_context(|| format!("cannot create {}", unfinished.display()))?;
    bind(bytes, &unfinished).with_context(|| format!("cannot package {}", wasm.display()))?;
    fs::write(unfinished.join("worker.mjs"), SHIM)?;
    fs::write(unfinished.join(STAMP), stamp)?;
    remove_if_there(dir)?;
    fs::rename(&unfinished, dir).with_context(|| format!("cannot name {}", dir.display()))?;
    Ok(true)
}

/// `index.js` and `index_bg.wasm`, with the function that instantiates the module anew after a panic.
fn bind(wasm: Vec<u8>, dir: &Path) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_bytes("index", wasm).module(true)?;
    bindgen.typescript(false).reset_state_function(true).force_enable_abort_handler(true);
    bindgen.generate(dir)?;
    let index = dir.join("index.js");
    let text = fs::read_to_string(&index)?;
    ensure!(text.contains("import source "), "wasm-bindgen's index.js imports its module in another way than we know");
    // Source-phase imports are not in workerd yet; there a plain import of a .wasm gives the same compiled module.
    fs::write(&index, text.replace("import source ", "import "))?;
    Ok(())
}

fn stamp(wasm: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    (wasm, SHIM, RECIPE).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn remove_if_there(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}
