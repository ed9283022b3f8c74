//! A compiler for wasm32-unknown-unknown. rustup has the target's library where it can download it; elsewhere we compile the
//! library from source with a compiler that comes with its source. The rungs, in order:
//!
//! 1. the target is installed;
//! 2. `rustup target add`;
//! 3. Debian's own compiler, source and linker, installed by apt if we are root;
//! 4. the source that belongs to the installed compiler (rustup's component `rust-src`).
//!
//! A library that was compiled lies in the cache, in a sysroot of its own: nothing is written into the compiler's.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustc_build_sysroot::{BuildMode, SysrootBuilder, SysrootConfig};

use super::cache;
use crate::place::{self, Place};
use crate::sh;

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's packages: compiler, its source, cargo, a linker (the compiler comes without `rust-lld`).
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "cargo-web", "lld-22"];
/// What clippy for wasm32 needs besides.
const DEBIAN_CLIPPY: &str = "rust-web-clippy";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-22";

/// Set to `debian` to take that rung although the target is installed: to see what a machine without it sees.
const FORCE: &str = "OPAL_WASM_TOOLCHAIN";

/// A compiler that builds for wasm32, and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    rung: Rung,
    /// The sysroot that has the target's library, if it is not the compiler's own.
    sysroot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Installed,
    RustupAdded,
    Debian,
    Source,
}

impl Toolchain {
    /// A cargo that compiles for wasm32 with this toolchain: add the subcommand first, then call [`Toolchain::target`].
    pub(crate) fn cargo(&self) -> Command {
        if self.rung != Rung::Debian {
            return place::cargo();
        }
        let mut cargo = Command::new(DEBIAN_CARGO);
        cargo.env("RUSTC", DEBIAN_RUSTC).env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
        // What the cargo that runs us tells its children is about its own toolchain.
        for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTDOC", "LD_LIBRARY_PATH"] {
            cargo.env_remove(variable);
        }
        // `cargo clippy` looks for `cargo-clippy` and its driver in the path, where rustup's may come first.
        let path = std::env::var("PATH").unwrap_or_default();
        cargo.env("PATH", format!("/usr/bin:{path}"));
        cargo
    }

    /// Adds the target to a command from [`Toolchain::cargo`].
    pub(crate) fn target<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        cargo.args(["--target", TARGET]);
        if let Some(sysroot) = &self.sysroot {
            // A list in `--config` is appended to the flags of `.cargo/config.toml`; RUSTFLAGS would replace them.
            let flags = format!("target.{TARGET}.rustflags=[\"--sysroot={}\"]", sysroot.display());
            cargo.args(["--config", &flags]);
        }
        cargo
    }

    /// Makes sure that clippy is there for this compiler.
    pub(crate) fn obtain_clippy(&self) -> Result<()> {
        if self.rung == Rung::Debian && !Path::new("/usr/bin/clippy-driver").exists() {
            apt_install(&[DEBIAN_CLIPPY])?;
        }
        Ok(())
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.rung {
            Rung::Installed => "target of the installed Rust",
            Rung::RustupAdded => "target added by rustup",
            Rung::Debian => "Debian's compiler (rustc-web)",
            Rung::Source => "the installed Rust",
        })?;
        match &self.sysroot {
            Some(sysroot) => write!(f, ", standard library compiled into {}", sysroot.display()),
            None => Ok(()),
        }
    }
}

/// Takes the first rung that holds. Errors: the one command that must be run by root.
pub(crate) fn toolchain(place: &Place) -> Result<Toolchain> {
    let forced = std::env::var(FORCE).is_ok_and(|rung| rung == "debian");
    if !forced {
        if target_is_installed() {
            return Ok(Toolchain { rung: Rung::Installed, sysroot: None });
        }
        // What was compiled earlier is as good as rustup's, and spares a try at a network that may not be there.
        if !debian_sysroot(place).is_ok_and(|dir| dir.exists()) && rustup_adds_target() {
            return Ok(Toolchain { rung: Rung::RustupAdded, sysroot: None });
        }
    }
    match debian(place) {
        Ok(toolchain) => Ok(toolchain),
        Err(error) => from_installed_source(place).unwrap_or(Err(error)),
    }
}

fn target_is_installed() -> bool {
    let dir = sh::output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]));
    dir.is_ok_and(|dir| Path::new(&dir).exists())
}

fn rustup_adds_target() -> bool {
    if sh::output(Command::new("rustup").arg("--version")).is_err() {
        return false;
    }
    let added = sh::step("rustup: the wasm32 target", Command::new("rustup").args(["target", "add", TARGET]));
    added.is_ok() && target_is_installed()
}

fn debian(place: &Place) -> Result<Toolchain> {
    if !debian_is_installed() {
        apt_install(&DEBIAN_PACKAGES)?;
    }
    let sysroot = debian_sysroot(place)?;
    let source = Path::new("/usr/lib/rustlib/src/rust/library");
    let name = file_name(&sysroot);
    let sysroot = cache::obtain(place, &name, |dir| {
        let mut cargo = Command::new(DEBIAN_CARGO);
        cargo.env("RUSTC", DEBIAN_RUSTC).env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
        build_library(dir, source, cargo)
    })?;
    Ok(Toolchain { rung: Rung::Debian, sysroot: Some(sysroot) })
}

fn debian_is_installed() -> bool {
    let query = sh::output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status} "]).args(DEBIAN_PACKAGES));
    query.is_ok_and(|status| status.split_whitespace().all(|status| status == "installed"))
}

fn debian_sysroot(place: &Place) -> Result<PathBuf> {
    Ok(place.cache.join(format!("wasm32-std-debian-{}", version(DEBIAN_RUSTC)?)))
}

/// Rung 4; `None` if the installed compiler comes without its source.
fn from_installed_source(place: &Place) -> Option<Result<Toolchain>> {
    let sysroot = sh::output(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
    let source = Path::new(&sysroot).join("lib/rustlib/src/rust/library");
    source.exists().then(|| {
        let name = format!("wasm32-std-rust-{}", version("rustc")?);
        let sysroot = cache::obtain(place, &name, |dir| build_library(dir, &source, place::cargo()))?;
        Ok(Toolchain { rung: Rung::Source, sysroot: Some(sysroot) })
    })
}

/// Compiles the standard library from `source` into the sysroot `dir`: a minute or two.
fn build_library(dir: &Path, source: &Path, mut cargo: Command) -> Result<()> {
    eprintln!("== compiling Rust's standard library for {TARGET} (once, about a minute)");
    // Stable compilers refuse to compile the standard library unless told that this is a bootstrap.
    cargo.env("RUSTC_BOOTSTRAP", "1").current_dir(dir);
    SysrootBuilder::new(dir, TARGET)
        .build_mode(BuildMode::Build)
        .cargo(cargo)
        // For the link-time optimisation of the release profile.
        .rustflags(["-Cembed-bitcode=yes"])
        .sysroot_config(SysrootConfig::WithStd { std_features: vec!["panic-unwind".into()] })
        .build_from_source(source)?;
    let lib = dir.join("lib/rustlib").join(TARGET).join("lib");
    for entry in fs::read_dir(&lib).with_context(|| format!("cannot list {}", lib.display()))? {
        let path = entry?.path();
        let name = file_name(&path);
        if name.ends_with(".d") || name.starts_with("libcustom_local_sysroot") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Errors: the command that root must run, if we are not root or this is not Debian's kind of system.
fn apt_install(packages: &[&str]) -> Result<()> {
    let packages_text = packages.join(" ");
    if sh::output(Command::new("apt-get").arg("--version")).is_err() {
        bail!("Rust has no {TARGET} target here: run `rustup target add {TARGET}`");
    }
    if sh::output(Command::new("id").arg("-u"))? != "0" {
        bail!(
            "Rust has no {TARGET} target here. Run this as root, then try again:\n    \
             apt-get update && apt-get install -y --no-install-recommends {packages_text}"
        );
    }
    sh::step("apt-get update", apt().arg("update"))?;
    let install = ["install", "-y", "--no-install-recommends"];
    sh::step(&format!("apt-get install {packages_text}"), apt().args(install).args(packages))
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// `1.96.0-ac68faa20` of a compiler.
fn version(rustc: &str) -> Result<String> {
    let verbose = sh::output(Command::new(rustc).arg("-vV"))?;
    let field = |name| verbose.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim();
    let hash: String = field("commit-hash:").chars().take(9).collect();
    Ok(format!("{}-{hash}", field("release:")))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
