//! The file of an object: its body, then what is known about it, so that both appear in one atomic step.
//!
//! ```text
//! body | description: JSON | description length: u64 little-endian | b"DEVSTORE"
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::digest::{ChecksumKind, Checksums};

const MAGIC: &[u8; 8] = b"DEVSTORE";
const FOOTER_BYTES: usize = 16;
/// S3 allows 2 KB of user metadata; a description beyond this is a damaged file.
const DESCRIPTION_BYTES_MAX: u64 = 64 * 1024;
/// Nearly every description fits, so that opening an object costs one read.
const TAIL_BYTES: u64 = 2048;

/// What is known about an object besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// Length of the body.
    pub(crate) size: u64,
    /// Without quotes.
    pub(crate) etag: String,
    #[serde(default, skip_serializing_if = "Checksums::is_empty")]
    pub(crate) checksums: Checksums,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum_kind: Option<ChecksumKind>,
    #[serde(flatten)]
    pub(crate) attributes: Attributes,
}

/// What the client said about an object when it wrote it, given back as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache_control: Option<String>,
    /// User metadata: `x-amz-meta-*` without that prefix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) user: BTreeMap<String, String>,
}

/// An object that is open for reading. It stays readable, whole and the same, whatever happens to its key.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) file: File,
    pub(crate) description: Description,
    pub(crate) modified: SystemTime,
}

impl Object {
    /// Opens the object in the file `path`.
    ///
    /// Errors: `NotFound`; `InvalidData` if the file is not a whole object. Cost: one read of 2 KB.
    pub(crate) fn open(path: &Path) -> io::Result<Object> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let description = read_description(&file, metadata.len())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Object { file, description, modified: whole_seconds(metadata.modified()?) })
    }
}

/// Appends the description to a body, which makes the file a whole object.
pub(crate) fn write_description(file: &mut File, description: &Description) -> io::Result<()> {
    let mut end = serde_json::to_vec(description)?;
    let description_bytes = end.len() as u64;
    end.extend_from_slice(&description_bytes.to_le_bytes());
    end.extend_from_slice(MAGIC);
    file.write_all(&end)
}

fn read_description(file: &File, file_bytes: u64) -> io::Result<Description> {
    let tail = read_range(file, file_bytes.saturating_sub(TAIL_BYTES)..file_bytes)?;
    let (before_footer, footer) = tail.split_last_chunk::<FOOTER_BYTES>().ok_or_else(|| damaged("it is too short"))?;
    let (length, magic) = footer.split_at(size_of::<u64>());
    let description_bytes = u64::from_le_bytes(length.try_into().expect("split at eight bytes"));
    let end = file_bytes - FOOTER_BYTES as u64;
    if magic != MAGIC || description_bytes > end.min(DESCRIPTION_BYTES_MAX) {
        return Err(damaged("it has no footer"));
    }
    let description: Description = match before_footer.len().checked_sub(length_in_memory(description_bytes)) {
        Some(start) => serde_json::from_slice(&before_footer[start..])?,
        None => serde_json::from_slice(&read_range(file, end - description_bytes..end)?)?,
    };
    if description.size != end - description_bytes {
        return Err(damaged("its body is not as long as its description says"));
    }
    Ok(description)
}

/// Reads `range` of a file, bounded by the callers.
pub(crate) fn read_range(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length_in_memory(range.end - range.start)];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

fn length_in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("callers read pieces that fit in memory")
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a whole object: {why}"))
}

/// HTTP dates, which clients send back in conditions, have no fractions of seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}
