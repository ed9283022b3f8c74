//! Where the programs are. `cargo xtask` obtains and builds them and tells tests by environment variables; this is the one
//! place that knows the variables' names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::Runtime;

/// Names of the environment variables by which `cargo xtask test` tells where things are.
pub mod env {
    /// The `workerd` binary.
    pub const WORKERD: &str = "OPAL_WORKERD";
    /// The `sqld` binary.
    pub const SQLD: &str = "OPAL_SQLD";
    /// The `devstore` binary.
    pub const DEVSTORE: &str = "OPAL_DEVSTORE";
    /// The `opal-compactor` binary; only for stacks that compact.
    pub const COMPACTOR: &str = "OPAL_COMPACTOR";
    /// A `node_modules` directory that has `miniflare`; only for stacks that run it.
    pub const MINIFLARE: &str = "OPAL_MINIFLARE";
    /// The directory of the built Workers: `gateway/`, `executor/`, `contract/`, each with a `worker.mjs`.
    pub const WORKERS_DIR: &str = "OPAL_WORKERS_DIR";
    /// A Python that can import `chromadb`, `pyarrow` and `numpy`.
    pub const PYTHON: &str = "OPAL_PYTHON";
    /// A `node_modules` directory that has `chromadb`.
    pub const NODE_MODULES: &str = "OPAL_NODE_MODULES";
}

/// What a stack runs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The `workerd` binary.
    pub workerd: PathBuf,
    /// The `sqld` binary.
    pub sqld: PathBuf,
    /// The `devstore` binary.
    pub devstore: PathBuf,
    /// The `opal-compactor` binary; may be empty where no stack compacts.
    pub compactor: PathBuf,
    /// A `node_modules` directory that has `miniflare`; may be empty where no stack runs it.
    pub miniflare: PathBuf,
    /// The directory of the built Workers.
    pub workers: PathBuf,
}

impl Programs {
    /// Reads the variables of [`mod@env`]. Errors: a sentence naming the variable that is missing.
    pub fn from_env() -> Result<Self> {
        Ok(Self {
            workerd: path(env::WORKERD)?,
            sqld: path(env::SQLD)?,
            devstore: path(env::DEVSTORE)?,
            compactor: std::env::var_os(env::COMPACTOR).unwrap_or_default().into(),
            miniflare: std::env::var_os(env::MINIFLARE).unwrap_or_default().into(),
            workers: path(env::WORKERS_DIR)?,
        })
    }

    /// The variables from which [`Programs::from_env`] reads these paths.
    pub fn to_env(&self) -> Vec<(&'static str, OsString)> {
        vec![
            (env::WORKERD, self.workerd.clone().into()),
            (env::SQLD, self.sqld.clone().into()),
            (env::DEVSTORE, self.devstore.clone().into()),
            (env::COMPACTOR, self.compactor.clone().into()),
            (env::MINIFLARE, self.miniflare.clone().into()),
            (env::WORKERS_DIR, self.workers.clone().into()),
        ]
    }

    /// Errors: a sentence naming what is not there.
    pub(crate) fn check(&self, runtime: Runtime) -> Result<()> {
        let other = match runtime {
            Runtime::Workerd => &self.devstore,
            Runtime::Miniflare => &self.miniflare,
        };
        for path in [&self.workerd, &self.sqld, other, &self.workers] {
            if !path.exists() {
                bail!("{} is missing: `cargo xtask build` and `cargo xtask tools` make it", path.display());
            }
        }
        Ok(())
    }

    /// The directory of one built Worker: `gateway`, `executor` or `contract`.
    pub(crate) fn worker(&self, name: &str) -> PathBuf {
        self.workers.join(name)
    }
}

/// The official clients that end-to-end tests run.
#[derive(Clone, Debug)]
pub struct Clients {
    /// A Python that can import `chromadb`, `pyarrow` and `numpy`.
    pub python: PathBuf,
    /// A `node_modules` directory that has `chromadb`.
    pub node_modules: PathBuf,
}

impl Clients {
    /// Reads the variables of [`mod@env`]. Errors: a sentence naming the variable that is missing.
    pub fn from_env() -> Result<Self> {
        Ok(Self { python: path(env::PYTHON)?, node_modules: path(env::NODE_MODULES)? })
    }

    /// The variables from which [`Clients::from_env`] reads these paths.
    pub fn to_env(&self) -> Vec<(&'static str, OsString)> {
        vec![(env::PYTHON, self.python.clone().into()), (env::NODE_MODULES, self.node_modules.clone().into())]
    }
}

fn path(variable: &str) -> Result<PathBuf> {
    let value = std::env::var_os(variable)
        .with_context(|| format!("{variable} is not set: run the tests by `cargo xtask test`, which sets it"))?;
    Ok(Path::new(&value).to_owned())
}
