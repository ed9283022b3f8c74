//! One fragment: a batch of operations <-> bytes, in the form of `columns`.

use crate::columns::{self, Columns, Contents, Entries, FragmentError, damaged};
use arrow2::datatypes::Metadata as SchemaMetadata;
use bytes::Bytes;
use model::{CollectionId, ContentHash, LogEnd, Lsn, Nonce, Operation, OperationView, SetHash, Timestamp};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"OPALFRG1";

/// So many bytes from the start of any fragment hold its header: the schema has six fields and some short entries.
pub const HEADER_BYTES_MAX: u64 = 8 * 1024;

/// What a fragment says of itself, besides its operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Whose log it belongs to.
    pub collection: CollectionId,
    /// Its number there.
    pub lsn: Lsn,
    /// Tells this body from every other body, also from one with the same operations.
    pub nonce: Nonce,
    /// The nonce of the fragment before: a reader notices when one was replaced.
    pub previous: Nonce,
    /// Number of operations.
    pub count: u32,
    /// Sum of the hashes of its operations.
    pub set_hash: SetHash,
    /// When it was made: the writer's clock, but never before its predecessor.
    pub created_at: Timestamp,
    /// Operations in the log up to and with this fragment.
    pub log_operations: u64,
    /// Bytes of those operations, as [`Contents::bytes`] has them.
    pub log_bytes: u64,
    /// Below this LSN every run of sixteen fragments is in a pack or too large for one, as far as the writer knew.
    pub packed: Lsn,
    /// The requests in it that came with an idempotency key.
    pub requests: Vec<KeyedRequest>,
}

/// A request that came with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedRequest {
    /// Hash of the key.
    pub key: ContentHash,
    /// Hash of the request: the same key on another one is an error.
    pub request: ContentHash,
    /// What it was answered: how many records a delete removed.
    pub deleted: u64,
}

impl FragmentHeader {
    /// The header of a body with `contents` that goes behind `end`.
    pub fn behind(end: &LogEnd, collection: CollectionId, nonce: Nonce, now: Timestamp, contents: &Contents) -> Self {
        FragmentHeader {
            collection,
            lsn: end.next,
            nonce,
            previous: end.last_nonce,
            count: contents.count,
            set_hash: contents.set_hash,
            created_at: now.max(end.last_created_at),
            log_operations: end.operations + u64::from(contents.count),
            log_bytes: end.bytes + contents.bytes,
            packed: end.packed,
            requests: Vec::new(),
        }
    }

    /// The end of the log for whoever saw this fragment as its last.
    pub fn as_end(&self) -> LogEnd {
        LogEnd {
            next: self.lsn.next(),
            last_nonce: self.nonce,
            last_created_at: self.created_at,
            operations: self.log_operations,
            bytes: self.log_bytes,
            packed: self.packed,
        }
    }
}

/// A decoded fragment whose checksum, set-hash and count were right. Copies share what they hold.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// What it says of itself.
    pub header: FragmentHeader,
    /// Bytes of its operations, as [`Contents::bytes`] has them.
    pub bytes: u64,
    /// Of its own object or of a pack.
    columns: Arc<Columns>,
    rows: Range<usize>,
}

impl Fragment {
    /// The rows of `columns` that are the fragment's, if `header` counts and hashes them right.
    pub(crate) fn checked(
        header: FragmentHeader,
        columns: Arc<Columns>,
        rows: Range<usize>,
    ) -> Result<Self, FragmentError> {
        if rows.end > columns.len() {
            return Err(damaged("fewer operations than the header counts"));
        }
        let found = Contents::of(rows.clone().map(|row| columns.operation(row)));
        if (found.count, found.set_hash) != (header.count, header.set_hash) {
            return Err(damaged("count or set-hash differ from the header"));
        }
        Ok(Fragment { header, bytes: found.bytes, columns, rows })
    }

    /// The operations, in the order in which they take effect.
    pub fn operations(&self) -> impl Iterator<Item = OperationView<'_>> {
        self.rows.clone().map(|row| self.columns.operation(row))
    }

    /// Operation number `index`; `None` if there are not so many.
    pub fn operation(&self, index: usize) -> Option<OperationView<'_>> {
        self.rows.clone().nth(index).map(|row| self.columns.operation(row))
    }

    /// A copy of the operations. Errors: `Damaged` if metadata is not what writers write.
    pub fn to_operations(&self) -> Result<Vec<Operation>, FragmentError> {
        self.operations().map(|operation| operation.to_operation().map_err(damaged)).collect()
    }
}

/// The body of a fragment. All vectors must have one length; `header` must count and hash `operations`. Equal input
/// gives equal bytes. Cost: one copy of the data.
pub fn encode(header: &FragmentHeader, operations: &[Operation]) -> Bytes {
    assert_eq!(header.count as usize, operations.len(), "a header counts its fragment's operations");
    let operations: Vec<OperationView<'_>> = operations.iter().map(Operation::view).collect();
    columns::write(entries_of(header), &operations, MAGIC)
}

/// The body of a fragment with the operations of `body`, which is one as well, under another header.
pub fn with_header(body: &[u8], header: &FragmentHeader) -> Result<Bytes, FragmentError> {
    columns::with_entries(body, entries_of(header), MAGIC)
}

fn entries_of(header: &FragmentHeader) -> SchemaMetadata {
    let requests = serde_json::to_string(&header.requests).expect("hashes and numbers are JSON");
    Entries::written([
        ("collection", header.collection.to_string()),
        ("lsn", header.lsn.to_string()),
        ("nonce", header.nonce.to_string()),
        ("previous_nonce", header.previous.to_string()),
        ("count", header.count.to_string()),
        ("set_hash", header.set_hash.to_string()),
        ("created_at_ms", header.created_at.0.to_string()),
        ("log_operations", header.log_operations.to_string()),
        ("log_bytes", header.log_bytes.to_string()),
        ("packed", header.packed.to_string()),
        ("requests", requests),
    ])
}

/// The header alone, from the first [`HEADER_BYTES_MAX`] bytes of a fragment (or more). The operations are not checked.
pub fn decode_header(start: &[u8]) -> Result<FragmentHeader, FragmentError> {
    header_of(&Entries::at_start(start)?)
}

fn header_of(entries: &Entries) -> Result<FragmentHeader, FragmentError> {
    entries.check_version()?;
    Ok(FragmentHeader {
        collection: entries.parsed("collection", CollectionId::parse)?,
        lsn: Lsn(entries.number("lsn")?),
        nonce: entries.parsed("nonce", Nonce::parse)?,
        previous: entries.parsed("previous_nonce", Nonce::parse)?,
        count: entries.number("count")?.try_into().map_err(damaged)?,
        set_hash: entries.parsed("set_hash", SetHash::parse)?,
        created_at: Timestamp(entries.number("created_at_ms")?),
        log_operations: entries.number("log_operations")?,
        log_bytes: entries.number("log_bytes")?,
        packed: Lsn(entries.number("packed")?),
        requests: serde_json::from_str(entries.text("requests")?).map_err(damaged)?,
    })
}

/// The fragment in `body`, after its checksum, its count and its set-hash were found right. Cost: one copy of the data.
pub fn decode(body: &[u8]) -> Result<Fragment, FragmentError> {
    let (entries, columns) = columns::read(body, MAGIC)?;
    let rows = 0..columns.len();
    Fragment::checked(header_of(&entries)?, Arc::new(columns), rows)
}

#[cfg(test)]
mod tests;
