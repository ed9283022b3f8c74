//! Where an object lies in the bucket. Every key of the system is made here.

use crate::{CollectionId, ContentHash, Lsn};

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
