//! The configuration that `workerd serve` reads: services, their modules and bindings, sockets.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{ACCESS_KEY_ID, BUCKET, Config, Ports, REGION, SECRET_ACCESS_KEY, address, url};

/// The runtime behaviour that the Workers are built for. The `wrangler.toml` files name the same date.
pub const COMPATIBILITY_DATE: &str = "2026-04-01";

/// A Worker's entry point; the other modules lie beside and below it.
const ENTRY: &str = "worker.mjs";

/// Renders the configuration of gateway, executors and, if asked for, contract Worker.
///
/// Errors: a Worker was not built.
pub(crate) fn config_text(config: &Config, ports: &Ports) -> Result<String> {
    let mut services = vec![INTERNET.to_owned()];
    let mut sockets = vec![socket("gateway", ports.gateway)];
    let workers = &config.programs;
    let edge = config.edge_cache.map(|_| EDGE_CACHE);
    services.push(service("gateway", &workers.worker("gateway"), &gateway_bindings(config, ports), None)?);
    for i in 0..config.executors {
        services.push(match config.foreign_executors.iter().find(|(number, _)| *number == i) {
            Some((_, port)) => foreign(&executor(i), *port),
            None => service(&executor(i), &workers.worker("executor"), &executor_bindings(config, ports), edge)?,
        });
    }
    services.extend(config.edge_cache.map(|port| foreign(EDGE_CACHE, port)));
    if config.contract_worker {
        let mut bindings = store_bindings(ports);
        bindings.push(text("CATALOG_URL", &url(ports.catalog)));
        services.push(service("contract", &workers.worker("contract"), &bindings, None)?);
        sockets.push(socket("contract", ports.contract));
    }
    Ok(format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\nconst config :Workerd.Config = (\n  services = [\n{}\n  ],\n  \
         sockets = [\n{}\n  ],\n);\n",
        services.join(",\n"),
        sockets.join(",\n"),
    ))
}

/// Store and catalog are on loopback, which workerd counts as private and refuses by default.
const INTERNET: &str =
    r#"    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true)))"#;

/// Name of the service behind the Cache API.
const EDGE_CACHE: &str = "edge-cache";

fn gateway_bindings(config: &Config, ports: &Ports) -> Vec<String> {
    let mut bindings = store_bindings(ports);
    bindings.extend(gateway_vars(config, ports).iter().map(|(name, value)| text(name, value)));
    bindings.extend(
        (0..config.executors).map(|i| format!("(name = \"EXECUTOR_{i}\", service = {})", quoted(&executor(i)))),
    );
    bindings
}

/// The gateway's text bindings, but for the store's.
pub(crate) fn gateway_vars(config: &Config, ports: &Ports) -> Vec<(String, String)> {
    let mut vars = vec![
        ("CATALOG_URL".to_owned(), url(ports.catalog)),
        ("ALLOW_RESET".to_owned(), config.allow_reset.to_string()),
        ("EXECUTORS".to_owned(), config.executors.to_string()),
    ];
    vars.extend(config.catalog_token.iter().map(|token| ("CATALOG_TOKEN".to_owned(), token.clone())));
    vars.retain(|(name, _)| config.gateway_vars.iter().all(|(own, _)| own != name));
    vars.extend(config.gateway_vars.iter().cloned());
    vars
}

fn executor_bindings(config: &Config, ports: &Ports) -> Vec<String> {
    let mut bindings = store_bindings(ports);
    bindings.extend(config.edge_cache.map(|_| text("EDGE_CACHE_URL", "http://opal.example")));
    bindings
}

fn store_bindings(ports: &Ports) -> Vec<String> {
    vec![
        text("S3_ENDPOINT", &url(ports.store)),
        text("S3_BUCKET", BUCKET),
        text("S3_REGION", REGION),
        text("S3_ACCESS_KEY_ID", ACCESS_KEY_ID),
        text("S3_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
    ]
}

/// Name of an executor's service.
pub(crate) fn executor(i: u16) -> String {
    format!("executor-{i}")
}

/// Whatever listens on `port`.
fn foreign(name: &str, port: u16) -> String {
    format!("    (name = {}, external = (address = {}, http = ()))", quoted(name), quoted(&address(port)))
}

/// A Worker; what it puts into caches goes to the service `edge_cache`, if there is one.
fn service(name: &str, dir: &Path, bindings: &[String], edge_cache: Option<&str>) -> Result<String> {
    let mut out = format!("    (name = {}, worker = (\n      modules = [\n", quoted(name));
    for module in modules(dir)? {
        writeln!(out, "        {module},").expect("writing to a String cannot fail");
    }
    writeln!(out, "      ],\n      compatibilityDate = {},", quoted(COMPATIBILITY_DATE)).expect("as above");
    writeln!(out, "      bindings = [\n        {},\n      ],", bindings.join(",\n        ")).expect("as above");
    if let Some(cache) = edge_cache {
        writeln!(out, "      cacheApiOutbound = {},", quoted(cache)).expect("as above");
    }
    out.push_str("      globalOutbound = \"internet\"))");
    Ok(out)
}

fn modules(dir: &Path) -> Result<Vec<String>> {
    let names = module_names(dir)?;
    let dir = fs::canonicalize(dir)?;
    Ok(names.iter().filter_map(|name| module(&dir, name)).collect())
}

/// The files of a built Worker, the entry point first, named by their paths below `dir`.
pub(crate) fn module_names(dir: &Path) -> Result<Vec<String>> {
    if !dir.exists() {
        bail!("the Worker {} is not built: run `cargo xtask build`", dir.display());
    }
    let mut names = Vec::new();
    collect_files(dir, "", &mut names)?;
    names.sort_by_key(|name| (name != ENTRY, name.clone()));
    if names.first().is_none_or(|name| name != ENTRY) {
        bail!("{} has no {ENTRY}: run `cargo xtask build`", dir.display());
    }
    Ok(names)
}

fn collect_files(dir: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect_files(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

fn module(dir: &Path, name: &str) -> Option<String> {
    let kind = match Path::new(name).extension()?.to_str()? {
        "mjs" | "js" => "esModule",
        "wasm" => "wasm",
        _ => return None,
    };
    Some(format!("(name = {}, {kind} = embed {})", quoted(name), quoted(&dir.join(name).to_string_lossy())))
}

fn socket(service: &str, port: u16) -> String {
    format!("    (name = {0}, address = {1}, http = (), service = {0})", quoted(service), quoted(&address(port)))
}

fn text(name: &str, value: &str) -> String {
    format!("(name = {}, text = {})", quoted(name), quoted(value))
}

/// A Cap'n Proto text literal.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_ascii_control() => {
                write!(out, "\\x{:02x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Programs;

    #[test]
    fn quoted_text_cannot_leave_its_quotes() {
        for (text, expect) in [("plain", r#""plain""#), ("a\"b\\c", r#""a\"b\\c""#), ("l\nx\u{1}", r#""l\nx\x01""#)] {
            assert_eq!(quoted(text), expect);
        }
    }

    #[test]
    fn every_executor_is_served_and_bound_and_the_entry_point_comes_first() {
        let workers = std::env::temp_dir().join(format!("opal-workers-{}", std::process::id()));
        for file in [
            "gateway/index.js",
            "gateway/worker.mjs",
            "gateway/snippets/a/b.js",
            "gateway/stamp",
            "executor/worker.mjs",
        ] {
            fs::create_dir_all(workers.join(file).parent().unwrap()).unwrap();
            fs::write(workers.join(file), "").unwrap();
        }
        let nowhere = Path::new("/nowhere");
        let programs = Programs {
            workerd: nowhere.into(),
            sqld: nowhere.into(),
            devstore: nowhere.into(),
            compactor: nowhere.into(),
            miniflare: nowhere.into(),
            workers,
        };
        let mut config = Config::new(programs, nowhere);
        config.executors = 3;
        let ports = Ports { gateway: 8000, contract: 0, inspector: 0, store: 1, store_admin: 2, catalog: 3 };
        let text = config_text(&config, &ports).unwrap();
        for i in 0..3 {
            assert!(text.contains(&format!("(name = \"executor-{i}\", worker")), "{text}");
            assert!(text.contains(&format!("(name = \"EXECUTOR_{i}\", service = \"executor-{i}\")")), "{text}");
        }
        assert!(text.contains("name = \"EXECUTORS\", text = \"3\""), "{text}");
        assert!(text.find("worker.mjs").unwrap() < text.find("index.js").unwrap(), "{text}");
        assert!(text.contains("\"snippets/a/b.js\", esModule") && !text.contains("stamp"), "{text}");

        config.contract_worker = true;
        assert!(config_text(&config, &ports).unwrap_err().to_string().contains("not built"));
    }
}
