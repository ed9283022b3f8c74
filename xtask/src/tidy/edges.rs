//! Who may know whom: the dependencies between our crates, each allowed one by name. A new edge is a commit of its own, which
//! changes this table and says why.

use anyhow::{Context, Result};
use toml::Table;

use super::Finding;

/// (crate, crates of ours that it may depend on).
const ALLOWED: [(&str, &[&str]); 21] = [
    ("model", &[]),
    ("query", &["model"]),
    ("vector", &["model"]),
    // The leaf index is a part of it.
    ("segment", &["model", "vector"]),
    // What its answers leave unsure is verified by the plain evaluator; both read filters alike.
    ("text", &["model", "query"]),
    ("runtime", &["model"]),
    ("storage", &["model", "runtime"]),
    ("catalog", &["model", "runtime"]),
    ("wal", &["model", "runtime", "storage"]),
    ("gateway-worker", &["catalog", "model", "query", "runtime", "storage", "wal"]),
    // What executor and compactor mean by a stored row, they mean alike. (A clock is for its tests, which count and time reads.)
    ("stored", &["model", "query", "runtime", "segment", "storage", "text"]),
    ("executor-worker", &["model", "query", "runtime", "segment", "storage", "stored", "text", "vector", "wal"]),
    (
        "compactor-job",
        &["catalog", "model", "query", "runtime", "segment", "storage", "stored", "text", "vector", "wal"],
    ),
    // It measures the index against exact distances.
    ("bench-vector", &["model", "query", "vector"]),
    ("devstore", &[]),
    ("stack", &[]),
    ("xtask", &["stack"]),
    ("bench-text", &["model", "query", "text"]),
    ("contract-worker", &["catalog", "model", "query", "runtime", "storage", "vector", "wal"]),
    (
        "simulation",
        &[
            "catalog",
            "compactor-job",
            "executor-worker",
            "gateway-worker",
            "model",
            "query",
            "runtime",
            "storage",
            "stored",
            "wal",
        ],
    ),
    (
        "opal-tests",
        &[
            "catalog",
            "compactor-job",
            "devstore",
            "executor-worker",
            "gateway-worker",
            "model",
            "query",
            "runtime",
            "segment",
            "stack",
            "storage",
            "wal",
        ],
    ),
];

/// Crates that compute only: what would bring in I/O, a clock or randomness.
const PURE: [&str; 5] = ["model", "query", "segment", "text", "vector"];
const IMPURE: [&str; 9] =
    ["tokio", "futures", "futures-util", "async-trait", "getrandom", "rand", "fastrand", "chrono", "reqwest"];

/// Checks the dependencies of one `Cargo.toml`.
pub(super) fn check(file: &str, text: &str) -> Result<Vec<Finding>> {
    let manifest: Table = text.parse().with_context(|| format!("{file} is not TOML"))?;
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(|name| name.as_str());
    let name = name.with_context(|| format!("{file} names no package"))?;
    let Some((_, allowed)) = ALLOWED.iter().find(|(krate, _)| *krate == name) else {
        let reason =
            format!("crate `{name}` is not in the table of xtask/src/tidy/edges.rs: say there whom it may know");
        return Ok(vec![Finding { file: file.to_owned(), line: 1, reason }]);
    };
    let reasons = dependencies(&manifest).into_iter().filter_map(|dependency| {
        let reason = refusal(name, allowed, &dependency)?;
        let line = text.lines().position(|line| names_dependency(line, &dependency.name)).map_or(1, |line| line + 1);
        Some(Finding { file: file.to_owned(), line, reason })
    });
    Ok(reasons.collect())
}

struct Dependency {
    name: String,
    /// Only for tests of the crate.
    dev: bool,
    /// Only where the target is wasm32.
    wasm32: bool,
}

fn refusal(name: &str, allowed: &[&str], dependency: &Dependency) -> Option<String> {
    let Dependency { name: other, dev, wasm32 } = dependency;
    let ours = ALLOWED.iter().any(|(krate, _)| krate == other);
    if ours && !allowed.contains(&other.as_str()) && other != name {
        return Some(format!("`{name}` may not know `{other}`: see the table of xtask/src/tidy/edges.rs"));
    }
    if other == "worker" && !wasm32 {
        return Some(
            "`worker` belongs under cfg(target_arch = \"wasm32\"): tests call the handlers natively".to_owned(),
        );
    }
    // On wasm32 `getrandom` may be named to tell it, for somebody else's sake, where randomness would come from.
    let is_setting = *wasm32 && other == "getrandom";
    if PURE.contains(&name) && IMPURE.contains(&other.as_str()) && !dev && !is_setting {
        return Some(format!("`{name}` only computes: no async, no clock, no randomness, so no `{other}`"));
    }
    None
}

fn dependencies(manifest: &Table) -> Vec<Dependency> {
    let mut found = of_tables(manifest, false);
    for (target, tables) in manifest.get("target").and_then(|targets| targets.as_table()).into_iter().flatten() {
        let wasm32 = target.contains("wasm32") && !target.contains("not(");
        found.extend(tables.as_table().into_iter().flat_map(|tables| of_tables(tables, wasm32)));
    }
    found
}

fn of_tables(tables: &Table, wasm32: bool) -> Vec<Dependency> {
    let kinds = [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)];
    let entries = kinds.into_iter().filter_map(|(kind, dev)| Some((tables.get(kind)?.as_table()?, dev)));
    let named = |(name, value): (&String, &toml::Value), dev| {
        let name = value.get("package").and_then(|package| package.as_str()).unwrap_or(name).to_owned();
        Dependency { name, dev, wasm32 }
    };
    entries.flat_map(|(table, dev)| table.iter().map(move |entry| named(entry, dev))).collect()
}

fn names_dependency(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(text: &str, expect: &[(usize, &str)]) {
        let findings = check("x/Cargo.toml", text).unwrap();
        let got: Vec<_> = findings.iter().map(|finding| (finding.line, finding.reason.as_str())).collect();
        assert_eq!(got.len(), expect.len(), "{text}\n{got:?}");
        for ((line, reason), (expect_line, part)) in got.iter().zip(expect) {
            assert!(line == expect_line && reason.contains(part), "{text}\n{got:?}");
        }
    }

    #[test]
    fn directions() {
        let query = "[package]\nname = \"query\"\n[dependencies]\n";
        check_one(&format!("{query}model.workspace = true\n"), &[]);
        check_one(&format!("{query}wal.workspace = true\n"), &[(4, "`query` may not know `wal`")]);
        check_one(&format!("{query}log = {{ package = \"wal\", path = \"\" }}\n"), &[(1, "may not know `wal`")]);
        check_one(&format!("{query}serde = \"1\"\n[dev-dependencies]\nstorage = \"1\"\n"), &[(6, "`storage`")]);
        check_one(&format!("{query}futures-util = \"1\"\n"), &[(4, "only computes")]);
        check_one(&format!("{query}[dev-dependencies]\nfutures-util = \"1\"\n"), &[]);
    }

    #[test]
    fn binaries_do_not_import_each_other() {
        let text = "[package]\nname = \"gateway-worker\"\n[dependencies]\nexecutor-worker.workspace = true\n";
        check_one(text, &[(4, "may not know `executor-worker`")]);
    }

    #[test]
    fn worker_is_for_wasm32_only() {
        let package = "[package]\nname = \"runtime\"\n";
        check_one(&format!("{package}[dependencies]\nworker = \"0.8\"\n"), &[(4, "wasm32")]);
        check_one(
            &format!("{package}[target.\"cfg(target_arch = \\\"wasm32\\\")\".dependencies]\nworker = \"0.8\"\n"),
            &[],
        );
        let not = "[target.\"cfg(not(target_arch = \\\"wasm32\\\"))\".dependencies]\nworker = \"0.8\"\n";
        check_one(&format!("{package}{not}"), &[(4, "wasm32")]);
    }

    #[test]
    fn an_unknown_crate_is_asked_for_its_line_in_the_table() {
        check_one("[package]\nname = \"newcomer\"\n", &[(1, "not in the table")]);
    }
}
