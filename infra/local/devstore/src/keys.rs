//! Object keys and the file names that stand for them. Pure.
//!
//! A key's components (split at `/`) become directories and its last component a file, so that a listing walks only
//! what it shows. Every name ends in two bytes that say what it is, so that `a`, `a/` and `a/b` live side by side and
//! no component is ever `.` or `..`:
//!
//! | name | stands for |
//! | --- | --- |
//! | `NAME.o` | the object whose key ends in `NAME` |
//! | `NAME.d` | the keys that go on with `NAME/` |
//! | `NAME.c` | the keys that go on with `NAME` and no `/` yet: a component longer than a file name may be |
//!
//! A component is cut after every [`CHUNK_BYTES`] bytes. What was cut is always `.c`, even if nothing follows, so all
//! keys that share those bytes lie in one directory and a walk in name order meets keys in byte order.
//! `%` and NUL, which no file name holds, are written `%25` and `%00`. Case is kept: the file system must keep it too.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Bytes of a component after which it is cut; escaped to three bytes each they still fit in a 255 byte name.
const CHUNK_BYTES: usize = 80;

/// What a file name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An object.
    Object,
    /// A directory: its keys go on with this component and a `/`.
    Directory,
    /// A directory: its keys go on inside the same component.
    Chunk,
}

impl Kind {
    fn suffix(self) -> &'static [u8] {
        match self {
            Kind::Object => b".o",
            Kind::Directory => b".d",
            Kind::Chunk => b".c",
        }
    }
}

/// Path of an object's file, relative to its bucket. At most about 3,200 bytes long for a key of 1,024 bytes.
pub(crate) fn path_of(key: &str) -> PathBuf {
    let (directories, last) = key.as_bytes().split_at(directories_len(key.as_bytes()));
    let mut path = directory_of(directories);
    push_component(&mut path, last, Kind::Object);
    path
}

/// Directory, relative to the bucket, that holds all keys beginning with `prefix`, which ends in `/` or is empty.
pub(crate) fn directory_of(prefix: &[u8]) -> PathBuf {
    let mut path = PathBuf::new();
    for component in prefix.split_inclusive(|byte| *byte == b'/') {
        push_component(&mut path, &component[..component.len() - 1], Kind::Directory);
    }
    path
}

/// Length of the part of a key or prefix that names directories: up to and with its last `/`.
pub(crate) fn directories_len(key: &[u8]) -> usize {
    key.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1)
}

/// What a file name adds to the keys below its directory, and what it is; `None` if it is not one of ours.
pub(crate) fn parse_name(name: &OsStr) -> Option<(Vec<u8>, Kind)> {
    let (escaped, suffix) = name.as_bytes().split_last_chunk::<2>()?;
    let kind = match suffix {
        b".o" => Kind::Object,
        b".d" => Kind::Directory,
        b".c" => Kind::Chunk,
        _ => return None,
    };
    let mut part = unescape(escaped)?;
    if kind == Kind::Directory {
        part.push(b'/');
    }
    Some((part, kind))
}

fn push_component(path: &mut PathBuf, component: &[u8], kind: Kind) {
    let (chunks, rest) = component.as_chunks::<CHUNK_BYTES>();
    for chunk in chunks {
        path.push(name_of(chunk, Kind::Chunk));
    }
    path.push(name_of(rest, kind));
}

fn name_of(part: &[u8], kind: Kind) -> OsString {
    let mut name = Vec::with_capacity(part.len() + 2);
    for byte in part {
        match byte {
            b'%' => name.extend_from_slice(b"%25"),
            0 => name.extend_from_slice(b"%00"),
            byte => name.push(*byte),
        }
    }
    name.extend_from_slice(kind.suffix());
    OsString::from_vec(name)
}

fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    let mut part = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            part.push(*byte);
            continue;
        }
        let (code, tail) = rest.split_first_chunk::<2>()?;
        rest = tail;
        part.push(match code {
            b"25" => b'%',
            b"00" => 0,
            _ => return None,
        });
    }
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key_of(path: &std::path::Path) -> Vec<u8> {
        path.iter().flat_map(|name| parse_name(name).expect("one of our names").0).collect()
    }

    #[test]
    fn names_can_be_read() {
        let check = |key: &str, path: &str| assert_eq!(path_of(key), PathBuf::from(path));
        check("a", "a.o");
        check("a/", "a.d/.o");
        check("a/b", "a.d/b.o");
        check("/", ".d/.o");
        check("../../etc", "...d/...d/etc.o");
        check("100%", "100%25.o");
        check("nul\0", "nul%00.o");
    }

    #[test]
    fn a_component_of_exactly_one_chunk_lies_beside_the_longer_ones() {
        let chunk = "x".repeat(CHUNK_BYTES);
        assert_eq!(path_of(&chunk), PathBuf::from(format!("{chunk}.c/.o")));
        assert_eq!(path_of(&format!("{chunk}/b")), PathBuf::from(format!("{chunk}.c/.d/b.o")));
        assert_eq!(path_of(&format!("{chunk}y")), PathBuf::from(format!("{chunk}.c/y.o")));
    }

    #[test]
    fn the_worst_keys_fit() {
        for unit in ["/", "\0", "%", "%/", "a/", "aa", "é"] {
            let path = path_of(&unit.repeat(1024 / unit.len()));
            assert!(path.as_os_str().len() < 3400, "{unit:?}");
            assert!(path.iter().all(|name| name.len() <= 255), "{unit:?}");
        }
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for name in ["", "o", "lost+found", "a%.o", "a%2.o", "a%41.o"] {
            assert_eq!(parse_name(OsStr::new(name)), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_path_leads_back_to_its_key(key in "[a-zA-Z%./\0é-]{1,300}") {
            prop_assert_eq!(key_of(&path_of(&key)), key.as_bytes());
        }

        #[test]
        fn keys_have_paths_of_their_own(a in "[a%./]{1,6}", b in "[a%./]{1,6}") {
            prop_assert_eq!(path_of(&a) == path_of(&b), a == b);
        }
    }
}
