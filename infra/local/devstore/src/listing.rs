//! Listing a bucket: a walk over its directories in the byte order of keys.
//!
//! Cost of a page: the names in every directory that it enters, and 2 KB of every object that it shows; no bodies.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::SystemTime;

use crate::keys::{self, Kind};
use crate::object::Description;
use crate::store::open_existing;

/// Which keys to list.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) prefix: Vec<u8>,
    /// Keys that share what comes up to and with the first delimiter after the prefix are shown as one. Not empty.
    pub(crate) delimiter: Option<Vec<u8>>,
    pub(crate) after: After,
    /// Number of items, keys and common prefixes, at most.
    pub(crate) items_max: usize,
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// At the keys beyond this one; beyond the empty key are all.
    Key(Vec<u8>),
    /// At the keys beyond all that begin with this.
    Prefix(Vec<u8>),
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Object { key: Vec<u8>, description: Box<Description>, modified: SystemTime },
    Prefix(Vec<u8>),
}

/// Some items in byte order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Page {
    pub(crate) items: Vec<Item>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<After>,
}

impl After {
    /// Whether `key` is still to come.
    fn admits(&self, key: &[u8]) -> bool {
        match self {
            After::Key(last) => key > last.as_slice(),
            After::Prefix(shown) => key > shown.as_slice() && !key.starts_with(shown),
        }
    }

    /// Whether a key that begins with `start` may still be to come.
    fn admits_some(&self, start: &[u8]) -> bool {
        let (After::Key(seen) | After::Prefix(seen)) = self;
        let may_go_on = match self {
            After::Key(_) => seen.starts_with(start),
            After::Prefix(_) => seen.starts_with(start) && seen != start,
        };
        may_go_on || self.admits(start)
    }
}

/// Lists a bucket in the directory `bucket`. Objects that come or go meanwhile may be shown or not.
pub(crate) fn list(bucket: &Path, query: &Query) -> io::Result<Page> {
    let mut walk = Walk { query, after: query.after.clone(), items: Vec::new(), more: false };
    if query.items_max > 0 {
        let start = &query.prefix[..keys::directories_len(&query.prefix)];
        let _ = walk.directory(&bucket.join(keys::directory_of(start)), start)?;
    }
    let next = walk.more.then_some(walk.after);
    Ok(Page { items: walk.items, next })
}

struct Walk<'q> {
    query: &'q Query,
    after: After,
    items: Vec<Item>,
    more: bool,
}

impl Walk<'_> {
    /// Visits what lies in `directory`, whose keys begin with `start`, until the page is full.
    fn directory(&mut self, directory: &Path, start: &[u8]) -> io::Result<ControlFlow<()>> {
        for (part, kind, name) in sorted_entries(directory)? {
            let key = [start, &part].concat();
            let flow = match kind {
                Kind::Object => self.object(key, &directory.join(name))?,
                Kind::Directory | Kind::Chunk if self.may_hold(&key) => self.directory(&directory.join(name), &key)?,
                Kind::Directory | Kind::Chunk => ControlFlow::Continue(()),
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn object(&mut self, key: Vec<u8>, path: &Path) -> io::Result<ControlFlow<()>> {
        if !key.starts_with(&self.query.prefix) || !self.after.admits(&key) {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(object) = open_existing(path)? else {
            return Ok(ControlFlow::Continue(()));
        };
        if self.items.len() == self.query.items_max {
            self.more = true;
            return Ok(ControlFlow::Break(()));
        }
        if let Some(prefix) = self.common_prefix(&key) {
            self.after = After::Prefix(prefix.clone());
            self.items.push(Item::Prefix(prefix));
        } else {
            self.after = After::Key(key.clone());
            self.items.push(Item::Object { key, description: Box::new(object.description), modified: object.modified });
        }
        Ok(ControlFlow::Continue(()))
    }

    fn may_hold(&self, start: &[u8]) -> bool {
        let prefix = &self.query.prefix;
        (start.starts_with(prefix) || prefix.starts_with(start)) && self.after.admits_some(start)
    }

    fn common_prefix(&self, key: &[u8]) -> Option<Vec<u8>> {
        let delimiter = self.query.delimiter.as_ref()?;
        let from = self.query.prefix.len();
        let at = key[from..].windows(delimiter.len()).position(|window| window == delimiter)?;
        Some(key[..from + at + delimiter.len()].to_vec())
    }
}

/// What a directory holds, in the byte order of the keys below it. A directory that is gone holds nothing.
fn sorted_entries(directory: &Path) -> io::Result<Vec<(Vec<u8>, Kind, OsString)>> {
    let names = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let mut entries = Vec::new();
    for name in names {
        let name = name?.file_name();
        if let Some((part, kind)) = keys::parse_name(&name) {
            entries.push((part, kind, name));
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

#[cfg(test)]
mod tests;
