//! A bucket as files on the disk against a sorted list of its keys: every query must give the same lines, however the
//! keys are cut into directories and however the pages fall.

use std::collections::BTreeSet;
use std::fs::File;

use proptest::prelude::*;

use super::*;
use crate::object::write_description;

/// A directory of its own, removed when the test ends.
struct TempDir(std::path::PathBuf);

impl TempDir {
    fn new() -> TempDir {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).unwrap();
        let path = std::env::temp_dir().join(format!("devstore-{}", crate::digest::hex(&nonce)));
        fs::create_dir(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bucket_of<'a>(keys: impl IntoIterator<Item = &'a String>) -> TempDir {
    let bucket = TempDir::new();
    for key in keys {
        let path = bucket.0.join(keys::path_of(key));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_description(&mut File::create(path).unwrap(), &Description::default()).unwrap();
    }
    bucket
}

fn line(item: &Item) -> String {
    match item {
        Item::Object { key, .. } => String::from_utf8_lossy(key).into_owned(),
        Item::Prefix(prefix) => format!("{}…", String::from_utf8_lossy(prefix)),
    }
}

/// All pages of a query, as lines.
fn listed(bucket: &TempDir, query: &Query) -> Vec<String> {
    let mut query = query.clone();
    let mut lines = Vec::new();
    loop {
        let page = list(&bucket.0, &query).unwrap();
        assert!(page.items.len() <= query.items_max);
        lines.extend(page.items.iter().map(line));
        match page.next {
            Some(after) => query.after = after,
            None => return lines,
        }
    }
}

/// The same from a sorted list of keys, by S3's definition.
fn expected(keys: &BTreeSet<String>, query: &Query) -> Vec<String> {
    let prefix = std::str::from_utf8(&query.prefix).unwrap();
    let After::Key(after) = &query.after else { unreachable!("tests start after keys") };
    let mut lines = Vec::new();
    for key in keys.iter().filter(|key| key.as_bytes() > after.as_slice()) {
        let Some(rest) = key.strip_prefix(prefix) else { continue };
        let delimiter = query.delimiter.as_ref().map(|delimiter| std::str::from_utf8(delimiter).unwrap());
        let cut = delimiter.and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len()));
        lines.push(cut.map_or(key.clone(), |cut| format!("{prefix}{}…", &rest[..cut])));
    }
    lines.dedup();
    lines
}

#[test]
fn neighbours_of_the_slash_are_in_byte_order() {
    let keys: BTreeSet<String> =
        ["a", "a!", "a-b", "a/", "a//", "a/b", "a/b/c", "a0", "aa", "A", "/", "é"].map(String::from).into();
    let bucket = bucket_of(&keys);
    let query = Query { prefix: Vec::new(), delimiter: None, after: After::Key(Vec::new()), items_max: 1 };
    assert_eq!(listed(&bucket, &query), keys.into_iter().collect::<Vec<_>>());
}

#[test]
fn directories_without_objects_are_not_shown() {
    let bucket = bucket_of(&["a/b".to_owned()]);
    fs::remove_file(bucket.0.join(keys::path_of("a/b"))).unwrap();
    fs::create_dir(bucket.0.join("lost+found")).unwrap();
    let query =
        Query { prefix: Vec::new(), delimiter: Some(b"/".to_vec()), after: After::Key(Vec::new()), items_max: 10 };
    assert_eq!(list(&bucket.0, &query).unwrap(), Page { items: Vec::new(), next: None });
}

/// Keys of a few letters, so that they are each other's directories, and long runs, so that components are cut.
fn some_key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab/!0%]{1,5}",
        ("[ab/]{0,2}", 78..83_usize, "[ab/!0]{0,2}").prop_map(|(start, run, end)| start + &"x".repeat(run) + &end),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_lists_what_a_sorted_list_would(
        keys in prop::collection::btree_set(some_key(), 0..30),
        prefix in prop_oneof![Just(String::new()), "[ab/!]{1,3}", some_key()],
        delimiter in prop_oneof![Just(None), Just(Some("/")), Just(Some("b")), Just(Some("/a"))],
        after in prop_oneof![Just(String::new()), some_key()],
        items_max in 1..5_usize,
    ) {
        let bucket = bucket_of(&keys);
        let query = Query {
            prefix: prefix.into_bytes(),
            delimiter: delimiter.map(|delimiter| delimiter.as_bytes().to_vec()),
            after: After::Key(after.into_bytes()),
            items_max,
        };
        prop_assert_eq!(listed(&bucket, &query), expected(&keys, &query));
    }
}
