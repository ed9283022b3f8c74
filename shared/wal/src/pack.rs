//! Packs: 16, 256 or 4,096 consecutive fragments in one object, so that a long tail takes few requests.
//!
//! A pack is an additional copy under a computed name and never a reason to delete a fragment earlier. It has the
//! operations of all of its fragments in one record batch and their headers beside them: a reader checks each fragment as
//! if it had come alone.

use crate::claim::RowView;
use crate::columns::{self, Columns, Entries, FragmentError, damaged};
use crate::fragment::{Fragment, FragmentHeader};
use crate::reader::{Reader, TailError};
use bytes::Bytes;
use futures_util::future::try_join;
use model::{CollectionId, LogEnd, Lsn, Nonce, OperationView, SetHash, Timestamp, keys, limits};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use storage::{ObjectStore, PutError, PutMode};

const MAGIC: &[u8; 8] = b"OPALPCK1";

/// Which fragments a pack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackId {
    /// From 1 to [`limits::PACK_LEVELS`].
    pub level: u32,
    /// A multiple of the pack's length.
    pub first: Lsn,
}

impl PackId {
    /// Number of fragments in a pack of `level`.
    pub const fn length(level: u32) -> u64 {
        limits::PACK_FANOUT.pow(level)
    }

    /// The pack of `level` that holds `lsn`.
    pub const fn around(level: u32, lsn: Lsn) -> Self {
        PackId { level, first: Lsn(lsn.0 - lsn.0 % PackId::length(level)) }
    }

    /// The pack at `key`; `None` if that is no pack's.
    pub fn of_key(key: &str) -> Option<Self> {
        let level = keys::pack_level_of(key).filter(|level| (1..=limits::PACK_LEVELS).contains(level))?;
        Some(PackId { level, first: keys::lsn_of(key)? })
    }

    /// The fragments in it.
    pub const fn lsns(self) -> Range<Lsn> {
        self.first..Lsn(self.first.0 + PackId::length(self.level))
    }
}

/// What a pack keeps of a fragment's header; the rest follows from the fragment before.
#[derive(Serialize, Deserialize)]
struct Entry {
    nonce: Nonce,
    count: u32,
    bytes: u64,
    set_hash: SetHash,
    created_at: Timestamp,
    packed: Lsn,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requests: Vec<crate::KeyedRequest>,
}

/// The body of the pack of `fragments`, which follow one another. Equal input gives equal bytes.
pub fn encode(id: PackId, fragments: &[Fragment]) -> Bytes {
    assert!(
        fragments.len() as u64 == PackId::length(id.level) && follow_one_another(fragments),
        "a pack holds a whole run of fragments"
    );
    let first = &fragments[0];
    let entry = |fragment: &Fragment| Entry {
        nonce: fragment.header.nonce,
        count: fragment.header.count,
        bytes: fragment.bytes,
        set_hash: fragment.header.set_hash,
        created_at: fragment.header.created_at,
        packed: fragment.header.packed,
        requests: fragment.header.requests.clone(),
    };
    let headers: Vec<Entry> = fragments.iter().map(entry).collect();
    let entries = Entries::written([
        ("collection", first.header.collection.to_string()),
        ("level", id.level.to_string()),
        ("first_lsn", id.first.to_string()),
        ("previous_nonce", first.header.previous.to_string()),
        ("log_operations", (first.header.log_operations - u64::from(first.header.count)).to_string()),
        ("log_bytes", (first.header.log_bytes - first.bytes).to_string()),
        ("fragments", serde_json::to_string(&headers).expect("hashes and numbers are JSON")),
    ]);
    let operations: Vec<OperationView<'_>> = fragments.iter().flat_map(Fragment::operations).collect();
    columns::write(entries, &operations, MAGIC)
}

fn follow_one_another(fragments: &[Fragment]) -> bool {
    fragments.windows(2).all(|pair| {
        let (before, after) = (&pair[0].header, &pair[1].header);
        after.lsn == before.lsn.next() && after.previous == before.nonce
    })
}

/// The fragments in the pack `body`, after all that each says of itself was found right. Cost: one copy of the data.
pub fn decode(body: &[u8], collection: CollectionId, id: PackId) -> Result<Vec<Fragment>, FragmentError> {
    let (entries, columns) = columns::read(body, MAGIC)?;
    entries.check_version()?;
    let named =
        (entries.parsed("collection", CollectionId::parse)?, entries.number("level")?, entries.number("first_lsn")?);
    if named != (collection, u64::from(id.level), id.first.0) {
        return Err(damaged("the pack names others"));
    }
    let headers: Vec<Entry> = serde_json::from_str(entries.text("fragments")?).map_err(damaged)?;
    if headers.len() as u64 != PackId::length(id.level) {
        return Err(damaged("the pack has another number of fragments"));
    }
    let before = LogEnd {
        next: id.first,
        last_nonce: entries.parsed("previous_nonce", Nonce::parse)?,
        operations: entries.number("log_operations")?,
        bytes: entries.number("log_bytes")?,
        ..LogEnd::EMPTY
    };
    fragments_of(headers, collection, before, Arc::new(columns))
}

fn fragments_of(
    headers: Vec<Entry>,
    collection: CollectionId,
    mut end: LogEnd,
    columns: Arc<Columns>,
) -> Result<Vec<Fragment>, FragmentError> {
    let mut fragments = Vec::with_capacity(headers.len());
    let mut row: usize = 0;
    for entry in headers {
        let header = FragmentHeader {
            collection,
            lsn: end.next,
            nonce: entry.nonce,
            previous: end.last_nonce,
            count: entry.count,
            set_hash: entry.set_hash,
            created_at: entry.created_at,
            log_operations: end.operations.saturating_add(u64::from(entry.count)),
            log_bytes: end.bytes.saturating_add(entry.bytes),
            packed: entry.packed,
            requests: entry.requests,
        };
        end = header.as_end();
        let rows = row..row.saturating_add(entry.count as usize);
        row = rows.end;
        fragments.push(Fragment::checked(header, Arc::clone(&columns), rows)?);
    }
    if row == columns.len() { Ok(fragments) } else { Err(damaged("more operations than the headers count")) }
}

/// Folds fragments into packs.
#[derive(Clone, Copy)]
pub struct Packer<'a, S> {
    /// The bucket.
    pub store: &'a S,
    /// Whose log.
    pub collection: CollectionId,
}

/// Why a pack was not written. Nobody needs it: the next writer at such a place tries again.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] TailError),
    /// The pack could not be put.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl<S: ObjectStore> Packer<'_, S> {
    /// Folds what ends at `end`, if the last fragment before it completes a pack. Fragments below `row`'s watermark are
    /// left alone, as are runs of more than [`limits::PACK_BYTES_MAX`] bytes. Returns up to where runs of sixteen are
    /// packed or too large for it, as far as this is known now.
    ///
    /// `row` must be fresh: below its gc floor fragments may be gone in any order.
    ///
    /// Cost: nothing for fifteen fragments out of sixteen; then two ranged gets and, if the run is small enough, sixteen
    /// gets and a put; the same for each higher level that is completed and each of up to
    /// [`limits::PACK_CATCH_UP_MAX`] earlier runs that others have left unpacked.
    pub async fn fold_before(&self, end: &LogEnd, row: RowView) -> Result<Lsn, PackError> {
        let mut packed = end.packed.max(row.compacted.next);
        if !end.next.0.is_multiple_of(limits::PACK_FANOUT) {
            return Ok(packed);
        }
        let last = PackId::around(1, Lsn(end.next.0 - 1));
        let earliest = last.first.0.saturating_sub((limits::PACK_CATCH_UP_MAX - 1) * limits::PACK_FANOUT);
        // A run that was overtaken by too many others stays as it is.
        packed = Lsn(packed.0.max(earliest).next_multiple_of(limits::PACK_FANOUT));
        while packed < end.next {
            self.fold(PackId { level: 1, first: packed }).await?;
            packed = Lsn(packed.0 + limits::PACK_FANOUT);
        }
        for level in 2..=limits::PACK_LEVELS {
            let pack = PackId::around(level, Lsn(end.next.0 - 1));
            if pack.lsns().end != end.next || pack.first < row.compacted.next {
                break;
            }
            self.fold(pack).await?;
        }
        Ok(packed)
    }

    /// Writes the pack `id` unless it is too large.
    async fn fold(&self, id: PackId) -> Result<(), PackError> {
        let reader = Reader { store: self.store, collection: self.collection };
        let lsns = id.lsns();
        let last = Lsn(lsns.end.0 - 1);
        let (Some(start), Some(end)) = try_join(reader.header(lsns.start), reader.header(last)).await? else {
            // Collected meanwhile: nobody reads it any more.
            return Ok(());
        };
        if end.log_bytes.saturating_sub(start.log_bytes) > limits::PACK_BYTES_MAX {
            return Ok(());
        }
        let lsns: Vec<Lsn> = (lsns.start.0..lsns.end.0).map(Lsn).collect();
        let mut fragments = Vec::new();
        reader.fragments_by_packs(&lsns, id.level - 1, |fragment| fragments.push(fragment)).await?;
        let body = encode(id, &fragments);
        match self.store.put(&keys::pack(self.collection, id.level, id.first), body, PutMode::Create).await {
            // Whoever was first has packed the same fragments.
            Ok(_) | Err(PutError::Precondition) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
