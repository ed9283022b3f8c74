//! The manifest of a generation: which segments hold what is compacted, and where the log goes on behind them.

use crate::{LogEnd, Lsn, SetHash};
use serde::{Deserialize, Serialize};

/// What a catalog row points to: one version of a collection's index. Its default is that of a collection of which
/// nothing is compacted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where the log ends for whoever has read the segments: `compacted.next` is the watermark. A writer builds on this
    /// instead of the fragment before it, which may be collected.
    pub compacted: LogEnd,
    /// Sum of [`SegmentRef::live_rows`].
    pub records: u64,
    /// Sum of the hashes of all live rows: that of the records after all operations below the watermark.
    pub set_hash: SetHash,
    /// In the order in which they were made. An id is live in one of them at most.
    pub segments: Vec<SegmentRef>,
}

impl Manifest {
    /// First LSN that is not compacted.
    pub const fn watermark(&self) -> Lsn {
        self.compacted.next
    }
}

/// A live segment, as a manifest names it. It carries what a cold reader needs to ask for the right bytes at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// Its parts lie at `{prefix}/{part}`: see [`crate::keys::segment`].
    pub prefix: String,
    /// Number of rows, dead ones included.
    pub rows: u32,
    /// Length of every vector.
    pub dimension: u32,
    /// So many bytes from the start of the head object hold all that is needed to open the segment.
    pub head_bytes: u32,
    /// Where the id index begins in the head object, in bytes.
    pub ids_at: u64,
    /// Size of all parts together, in bytes.
    pub bytes: u64,
    /// Sum of the hashes of all rows, dead ones included.
    pub set_hash: SetHash,
    /// Its leaf index, if it has one; else it has codes of all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexRef>,
    /// Its text index, if it has one; else filters look at all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextRef>,
    /// Rows that are dead in this generation; `None` if all live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<DeleteVectorRef>,
}

impl SegmentRef {
    /// Number of rows that are not dead.
    pub fn live_rows(&self) -> u32 {
        self.rows - self.dead_rows()
    }

    /// Number of dead rows.
    pub fn dead_rows(&self) -> u32 {
        self.dead.as_ref().map_or(0, |dead| dead.count)
    }
}

/// The leaf index of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRef {
    /// Size of its object `index`, which a search reads first, in bytes.
    pub bytes: u32,
}

/// The text index of a segment: of metadata and documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextRef {
    /// Size of its object `text`, which a filter reads first, in bytes.
    pub bytes: u32,
}

/// Where the delete vector of a segment is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteVectorRef {
    /// Number of dead rows.
    pub count: u32,
    /// The bitmap.
    #[serde(flatten)]
    pub place: DeleteVectorPlace,
}

/// A small bitmap is in the manifest itself, a larger one an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteVectorPlace {
    /// The bytes of the object that it would be, as base64.
    Inline(String),
    /// The key of an object that is the bitmap: `docs/formats.md` has its bytes.
    Object(String),
}
