//! Where an object lies in the bucket. Every key of the system is made here.

use crate::{CollectionId, Lsn};

/// The fragment that owns `lsn`: a computed name, so that claiming an LSN is creating this object.
pub fn fragment(collection: CollectionId, lsn: Lsn) -> String {
    format!("{collection}/log/{:016x}", lsn.0)
}

/// The prefix under which all fragments of a collection lie, in the order of their LSNs.
pub fn log_prefix(collection: CollectionId) -> String {
    format!("{collection}/log/")
}

/// Scratch objects of the start-up probe of a store; nothing else lies there.
pub fn probe(nonce: u128) -> String {
    format!("probe/{nonce:032x}")
}

/// The marker that the store of this name was probed and honours conditions; `store_name` is letters, digits, `.`, `-`.
pub fn probe_passed(store_name: &str) -> String {
    format!("probe/passed/{store_name}")
}
