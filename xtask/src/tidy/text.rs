//! Rules on lines of text.

use super::Finding;

/// Files that may name the vendor's crate, by prefix: adapters (entry points are named by `entry.rs`). This rule's own tests
/// quote what it refuses.
const WORKER_FILES: [&str; 6] = [
    "shared/runtime/src/",
    "shared/storage/src/bound.rs",
    "shared/storage/src/cache_api.rs",
    "shared/storage/src/r2.rs",
    "tests/contract-worker/",
    "xtask/src/tidy/",
];

/// Crates that run in an isolate, where one request cannot wake another.
const ISOLATE_CRATES: [&str; 3] = ["gateway-worker/src/", "executor-worker/src/", "shared/"];

/// Waiting on another request's signal: workerd kills the waiter ("code had hung"), then spins.
const CROSS_REQUEST_WAITS: [&str; 10] = [
    "tokio::sync",
    "futures::channel",
    "futures_channel",
    "futures_util::lock",
    "futures::lock",
    "async_lock",
    "async_channel",
    "oneshot::",
    "Notify",
    "Semaphore",
];

/// Crates that only compute.
const PURE_CRATES: [&str; 4] = ["shared/model/src/", "shared/query/src/", "shared/segment/src/", "shared/vector/src/"];

// In pieces, so that this file does not break its own rules.
const HOME_DIRECTORIES: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
const REGISTRIES: [&str; 7] = [
    concat!("crates", ".io"),
    concat!("npm", "js.org"),
    concat!("npm", "js.com"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("static.rust", "-lang.org"),
    concat!("deb.debian", ".org"),
];
const UNDONE: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!(")];

/// Fixed bytes that tests compare with may be binary; so may pictures of the documentation.
pub(super) fn binary(file: &str) -> Option<Finding> {
    let expected = file.contains("testdata/") || file.starts_with("docs/") || file.contains("proptest-regressions/");
    (!expected).then(|| Finding {
        file: file.to_owned(),
        line: 1,
        reason: "not text: no binaries outside testdata/ and docs/".into(),
    })
}

/// All rules on a text file.
pub(super) fn check(file: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |line: usize, reason: String| findings.push(Finding { file: file.to_owned(), line, reason });
    if file.ends_with("src/lib.rs") || file.ends_with("src/main.rs") {
        crate_root(text).into_iter().for_each(|reason| report(1, reason));
    }
    let code_ends = if is_test_file(file) { 0 } else { product_lines(text) };
    for (index, line) in text.lines().enumerate() {
        any_line(file, line).into_iter().for_each(|reason| report(index + 1, reason));
        if file.ends_with(".rs") && !line.trim_start().starts_with("//") {
            rust_line(file, line, index < code_ends).into_iter().for_each(|reason| report(index + 1, reason));
        }
    }
    findings
}

fn any_line(file: &str, line: &str) -> Option<String> {
    if let Some(word) = UNDONE.into_iter().find(|word| line.contains(word)) {
        return Some(format!("`{word}`: do it, or open an issue"));
    }
    // The lock file names the registry by its address; cargo writes it.
    if file != "Cargo.lock"
        && let Some(host) = REGISTRIES.into_iter().find(|host| line.contains(host))
    {
        return Some(format!(
            "`{host}`: registries are reached through their clients, whose settings are the machine's"
        ));
    }
    let dir = HOME_DIRECTORIES.into_iter().find(|dir| is_absolute_path(line, dir))?;
    Some(format!("`{dir}…`: a path of one machine"))
}

fn rust_line(file: &str, line: &str, product: bool) -> Option<String> {
    let may_name_worker = file.ends_with("/entry.rs") || WORKER_FILES.iter().any(|place| file.starts_with(place));
    if !may_name_worker && names_crate(line, "worker") {
        return Some("`worker::` outside entry.rs and the adapters: vendor types stop there".into());
    }
    if !product {
        return None;
    }
    if ISOLATE_CRATES.iter().any(|place| file.starts_with(place))
        && let Some(word) = CROSS_REQUEST_WAITS.into_iter().find(|word| contains_word(line, word))
    {
        return Some(format!(
            "`{word}` in an isolate: one request cannot wake another, a waiter polls plain data with a timer"
        ));
    }
    let waits = contains_word(line, "async fn") || line.contains(".await");
    if waits && PURE_CRATES.iter().any(|place| file.starts_with(place)) {
        return Some("async in a crate that only computes: reads are named here and done by the caller".into());
    }
    None
}

fn crate_root(text: &str) -> Option<String> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let sentence = first.strip_prefix("//!").unwrap_or_default().trim();
    (sentence.len() < 20).then(|| "a crate opens with what it is for: `//! …`".to_owned())
}

fn is_test_file(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.starts_with("tests/") || file.contains("/tests/")
}

/// How many lines come before the tests at the end of a file.
fn product_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = |pair: &[&str]| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ") && pair[1].ends_with('{')
    };
    lines.windows(2).position(tests).unwrap_or(lines.len())
}

/// Whether the line names the crate `krate` at the start of a path.
fn names_crate(line: &str, krate: &str) -> bool {
    let path = format!("{krate}::");
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        // `::worker::` at the start of a path is the crate too; `runtime::worker::` is not.
        let rooted = line[..at].ends_with("::")
            && !line[..at - 2].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>');
        rooted || !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn contains_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let starts_inside = line[..at].ends_with(part_of_name);
        let ends_inside = word.ends_with(part_of_name) && line[at + word.len()..].starts_with(part_of_name);
        !starts_inside && !ends_inside
    })
}

/// Whether the line names something in `dir`, as a path from the root and not as the tail of a longer path or address.
fn is_absolute_path(line: &str, dir: &str) -> bool {
    line.match_indices(dir)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~}*/)".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(file: &str, line: &str, expect: Option<&str>) {
        let findings = check(file, line);
        let reasons: Vec<_> = findings.iter().map(|finding| finding.reason.as_str()).collect();
        match expect {
            None => assert!(reasons.is_empty(), "{file}: {line}: {reasons:?}"),
            Some(part) => assert!(reasons.len() == 1 && reasons[0].contains(part), "{file}: {line}: {reasons:?}"),
        }
    }

    #[test]
    fn vendor_types_stop_at_the_entry() {
        let vendor = Some("vendor types");
        check_line("gateway-worker/src/routes.rs", "use worker::Env;", vendor);
        check_line("gateway-worker/src/routes.rs", "fn f(e: ::worker::Env) {}", vendor);
        check_line("gateway-worker/src/entry.rs", "use worker::Env;", None);
        check_line("shared/storage/src/r2.rs", "use worker::Env;", None);
        check_line("shared/storage/src/s3.rs", "use worker::Env;", vendor);
        check_line("tests/src/lib.rs", "//! A crate for the tests of everything.\nuse gateway_worker::Gateway;", None);
        check_line("gateway-worker/src/routes.rs", "use runtime::worker::Clock;", None);
        check_line("gateway-worker/src/routes.rs", "// unlike worker::Env", None);
    }

    #[test]
    fn nobody_waits_for_another_request() {
        let waits = Some("cannot wake another");
        check_line("gateway-worker/src/group.rs", "use tokio::sync::Mutex;", waits);
        check_line("shared/wal/src/writer.rs", "let n = Notify::new();", waits);
        check_line("shared/wal/src/writer.rs", "let (tx, rx) = oneshot::channel();", waits);
        check_line("shared/wal/src/writer.rs", "fn Notifying() {}", None);
        check_line("infra/local/devstore/src/store.rs", "use tokio::sync::Mutex;", None);
        check_line("shared/wal/src/writer.rs", "#[cfg(test)]\nmod tests {\n    use tokio::sync::Mutex;\n}", None);
        check_line("shared/wal/src/writer/tests.rs", "use tokio::sync::Mutex;", None);
    }

    #[test]
    fn pure_crates_do_not_wait() {
        check_line("shared/query/src/eval.rs", "async fn f() {}", Some("only computes"));
        check_line("shared/query/src/eval.rs", "let x = f().await;", Some("only computes"));
        check_line("shared/wal/src/reader.rs", "let x = f().await;", None);
    }

    #[test]
    fn nothing_of_one_machine() {
        let dir = concat!("/wo", "rk/");
        check_line("docs/a.md", &format!("see {dir}x"), Some("one machine"));
        check_line("docs/a.md", &format!("`{dir}x`"), Some("one machine"));
        check_line("docs/a.md", &format!("see src{dir}x"), None);
        check_line("docs/a.md", concat!("from crates", ".io"), Some("registries"));
        check_line("Cargo.lock", concat!("from crates", ".io"), None);
    }

    #[test]
    fn nothing_undone() {
        check_line("docs/a.md", concat!("TO", "DO: later"), Some("do it"));
    }

    #[test]
    fn a_crate_says_what_it_is_for() {
        check_line("shared/wal/src/lib.rs", "//! The write-ahead log: claims and fragments.", None);
        check_line("shared/wal/src/lib.rs", "//! .", Some("what it is for"));
        check_line("shared/wal/src/lib.rs", "pub mod claim;", Some("what it is for"));
    }

    #[test]
    fn binaries_belong_to_testdata() {
        assert!(binary("xtask/tool").is_some());
        assert!(binary("shared/wal/testdata/v1/fragment.arrow").is_none());
    }
}
