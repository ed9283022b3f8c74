//! The options that Miniflare runs with: the same Workers as under workerd, with an R2 binding for a bucket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::workerd::{COMPATIBILITY_DATE, executor, gateway_vars, module_names};
use crate::{BUCKET, Config, Ports, url};

/// The program, which Node runs.
const SCRIPT: &str = include_str!("miniflare.mjs");

/// The command that serves the Workers of `config`.
///
/// Writes its files into the data directory. Errors: a Worker was not built, or the directory is not writable.
pub(crate) fn command(config: &Config, ports: &Ports) -> Result<Command> {
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let file = config.data.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    };
    let script = write("miniflare.mjs", SCRIPT)?;
    let options = write("miniflare.json", &options(config, ports)?.to_string())?;
    // The kernel ends the runtime with us; workerd, which Miniflare starts, must end with Miniflare.
    let workerd = format!("#!/bin/sh\nexec setpriv --pdeathsig KILL '{}' \"$@\"\n", config.programs.workerd.display());
    let workerd = write("workerd.sh", &workerd)?;
    fs::set_permissions(&workerd, fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new("node");
    command.arg(script).arg(options);
    command.env("MINIFLARE_MODULES", &config.programs.miniflare).env("MINIFLARE_WORKERD_PATH", workerd);
    Ok(command)
}

fn options(config: &Config, ports: &Ports) -> Result<Value> {
    let names = (0..config.executors).map(executor);
    let executors: Map<String, Value> =
        names.enumerate().map(|(i, name)| (format!("EXECUTOR_{i}"), json!(name))).collect();
    let mut gateway = worker(config, "gateway", "gateway", gateway_vars(config, ports))?;
    gateway["serviceBindings"] = executors.into();
    let mut workers = vec![gateway];
    for i in 0..config.executors {
        workers.push(worker(config, &executor(i), "executor", Vec::new())?);
    }
    if config.contract_worker {
        let vars = vec![("CATALOG_URL".to_owned(), url(ports.catalog))];
        let mut contract = worker(config, "contract", "contract", vars)?;
        contract["unsafeDirectSockets"] = json!([{ "host": "127.0.0.1", "port": ports.contract }]);
        workers.push(contract);
    }
    Ok(json!({
        "host": "127.0.0.1",
        "port": ports.gateway,
        "r2Persist": config.data.join("r2"),
        // What `request.cf` holds is looked up on the internet otherwise.
        "cf": false,
        "workers": workers,
    }))
}

/// A Worker `name` of what was built as `built`, with the bucket and `vars`.
fn worker(config: &Config, name: &str, built: &str, vars: Vec<(String, String)>) -> Result<Value> {
    let dir = config.programs.worker(built);
    let module = |file: &String| {
        let kind = match Path::new(file).extension()?.to_str()? {
            "mjs" | "js" => "ESModule",
            "wasm" => "CompiledWasm",
            _ => return None,
        };
        Some(json!({ "type": kind, "path": dir.join(file) }))
    };
    let vars: Map<String, Value> = vars.into_iter().map(|(name, value)| (name, value.into())).collect();
    Ok(json!({
        "name": name,
        "compatibilityDate": COMPATIBILITY_DATE,
        "modulesRoot": dir,
        "modules": module_names(&dir)?.iter().filter_map(module).collect::<Vec<_>>(),
        "bindings": vars,
        "r2Buckets": { "BUCKET": BUCKET },
    }))
}
