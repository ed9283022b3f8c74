//! Where an object lies in the bucket. Every key of the system is made here.

use crate::{CollectionId, ContentHash, Lsn, Nonce};

/// The fragment that owns `lsn`: a computed name, so that claiming an LSN is creating this object.
pub fn fragment(collection: CollectionId, lsn: Lsn) -> String {
    format!("{collection}/log/{:016x}", lsn.0)
}

/// The prefix under which all fragments of a collection lie, in the order of their LSNs.
pub fn log_prefix(collection: CollectionId) -> String {
    format!("{collection}/log/")
}

/// The pack of `level` (1, 2, …) whose first fragment is `first`: a copy of fragments that exist, under a computed name.
pub fn pack(collection: CollectionId, level: u32, first: Lsn) -> String {
    format!("{collection}/pack/{level}/{:016x}", first.0)
}

/// Where the parts of a new segment go, each at `{prefix}/{part}`: a random name, so that nobody takes another's objects for
/// his. `gc_epoch` is that of the row the compactor started from.
pub fn segment(collection: CollectionId, gc_epoch: u64, nonce: Nonce) -> String {
    format!("{}{gc_epoch:08x}-{nonce}", segments_prefix(collection))
}

/// The prefix under which all segments of a collection lie.
pub fn segments_prefix(collection: CollectionId) -> String {
    format!("{collection}/seg/")
}

/// A new delete vector, named as a segment is.
pub fn delete_vector(collection: CollectionId, gc_epoch: u64, nonce: Nonce) -> String {
    format!("{}{gc_epoch:08x}-{nonce}", delete_vectors_prefix(collection))
}

/// The prefix under which all delete vectors of a collection lie.
pub fn delete_vectors_prefix(collection: CollectionId) -> String {
    format!("{collection}/del/")
}

/// The gc epoch in the key of a segment's part or a delete vector; `None` for any other key.
pub fn gc_epoch_of(key: &str) -> Option<u64> {
    let mut parts = key.split('/').skip(1);
    let name = parts.next().filter(|kind| matches!(*kind, "seg" | "del")).and_then(|_| parts.next())?;
    u64::from_str_radix(name.split_once('-')?.0, 16).ok()
}

/// The LSN in the key of a fragment, the first one in the key of a pack; `None` for any other key.
pub fn lsn_of(key: &str) -> Option<Lsn> {
    let mut parts = key.split('/').skip(1);
    let digits = match (parts.next()?, parts.next()?, parts.next()) {
        ("log", digits, None) => digits,
        ("pack", _, Some(digits)) if parts.next().is_none() => digits,
        _ => return None,
    };
    let is_computed = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_computed.then(|| u64::from_str_radix(digits, 16).ok().map(Lsn)).flatten()
}

/// The level in the key of a pack; `None` for any other key.
pub fn pack_level_of(key: &str) -> Option<u32> {
    let mut parts = key.split('/').skip(1);
    parts.next().filter(|kind| *kind == "pack").and_then(|_| parts.next())?.parse().ok()
}

/// The collection whose marker the key is; `None` for any other key.
pub fn dirty_collection_of(key: &str) -> Option<CollectionId> {
    key.strip_prefix(DIRTY_PREFIX).and_then(CollectionId::parse)
}

/// The prefix under which everything of a collection lies but its marker.
pub fn collection_prefix(collection: CollectionId) -> String {
    format!("{collection}/")
}

/// The prefix under which all packs of a collection lie.
pub fn packs_prefix(collection: CollectionId) -> String {
    format!("{collection}/pack/")
}

/// The prefix under which all idempotency keys of a collection lie.
pub fn idempotency_prefix(collection: CollectionId) -> String {
    format!("{collection}/idem/")
}

/// The prefix of all markers for the compactor.
pub const DIRTY_PREFIX: &str = "dirty/";

/// The marker that tells the compactor of a collection that was written to.
pub fn dirty(collection: CollectionId) -> String {
    format!("dirty/{collection}")
}

/// What is known of an idempotency key in use.
pub fn idempotency(collection: CollectionId, key: ContentHash) -> String {
    format!("{collection}/idem/{key}")
}

/// Scratch objects of the start-up probe of a store; nothing else lies there.
pub fn probe(nonce: u128) -> String {
    format!("probe/{nonce:032x}")
}

/// The marker that the store of this name was probed and honours conditions; `store_name` is letters, digits, `.`, `-`.
pub fn probe_passed(store_name: &str) -> String {
    format!("probe/passed/{store_name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_what_they_were_made_of() {
        let id = CollectionId::from_u128(7);
        assert_eq!(lsn_of(&fragment(id, Lsn(255))), Some(Lsn(255)));
        let pack = pack(id, 2, Lsn(256));
        assert_eq!((lsn_of(&pack), pack_level_of(&pack)), (Some(Lsn(256)), Some(2)));
        assert_eq!(gc_epoch_of(&delete_vector(id, 31, Nonce(1))), Some(31));
        assert_eq!(gc_epoch_of(&format!("{}/head", segment(id, 31, Nonce(1)))), Some(31));
        assert_eq!(dirty_collection_of(&dirty(id)), Some(id));
        for other in ["", "a/log", "a/log/1", "a/log/+00000000000000ff", "a/pack/1", "a/seg/x", "dirty/x"] {
            let read = (lsn_of(other), gc_epoch_of(other), dirty_collection_of(other));
            assert_eq!(read, (None, None, None), "{other}");
        }
    }
}
