//! Ids and numbers that must not be swapped with one another.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A collection, for ever: a name can be given to another collection later, its id cannot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CollectionId(Uuid);

impl CollectionId {
    /// The id with these 128 bits.
    pub const fn from_u128(bits: u128) -> Self {
        CollectionId(Uuid::from_u128(bits))
    }

    /// A version 4 id from 128 random bits, of which six give way to version and variant.
    pub fn from_random(bits: u128) -> Self {
        CollectionId(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
    }

    /// Reads any of the usual spellings of a UUID; `None` for everything else.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(CollectionId)
    }

    /// The 128 bits, as routing hashes them.
    pub const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The user's own id of a record: any non-empty string, unique within its collection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(pub String);

impl RecordId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RecordId {
    fn from(text: &str) -> Self {
        RecordId(text.to_owned())
    }
}

impl std::borrow::Borrow<str> for RecordId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Log sequence number: the contiguous number of a fragment in its collection's log, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The first fragment of a log.
    pub const ZERO: Lsn = Lsn(0);

    /// The LSN after this one.
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    /// The LSN before this one; `None` for the first.
    pub const fn previous(self) -> Option<Lsn> {
        match self.0.checked_sub(1) {
            Some(lsn) => Some(Lsn(lsn)),
            None => None,
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of an operation in the log: `lsn · 2^20 + index in the fragment`. Orders all operations of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Bits of a position that count operations within one fragment.
    pub const INDEX_BITS: u32 = 20;

    /// The position of operation `index` of fragment `lsn`; `index` must be below `2^20`.
    pub fn new(lsn: Lsn, index: u32) -> Self {
        assert!(index < 1 << Self::INDEX_BITS, "a fragment holds fewer than 2^20 operations");
        Position(lsn.0 << Self::INDEX_BITS | u64::from(index))
    }

    /// The fragment this operation stands in.
    pub const fn lsn(self) -> Lsn {
        Lsn(self.0 >> Self::INDEX_BITS)
    }
}

/// 128 random bits that tell one fragment body from every other. Zero stands before the first fragment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "hex128")] pub u128);

impl Nonce {
    /// The predecessor of the first fragment of a log.
    pub const GENESIS: Nonce = Nonce(0);
}

/// Order-independent sum of record hashes: equal for equal multisets of operations, wherever they are stored.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetHash(#[serde(with = "hex128")] pub u128);

impl SetHash {
    /// The hash of the multiset with one more element, whose own hash is `element`.
    #[must_use]
    pub const fn with(self, element: u128) -> SetHash {
        SetHash(self.0.wrapping_add(element))
    }
}

/// 128 bits that stand for a text or a body: equal ones have equal hashes, and nobody meets two others that have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(#[serde(with = "hex128")] pub u128);

/// Where a log ends, as far as somebody has seen: everything before `next` exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// First LSN not seen to exist.
    pub next: Lsn,
    /// Nonce of the fragment before it; [`Nonce::GENESIS`] if there is none.
    pub last_nonce: Nonce,
    /// Creation time of the fragment before it: times along a log never decrease.
    pub last_created_at: Timestamp,
    /// Operations in the log so far.
    #[serde(default)]
    pub operations: u64,
    /// Bytes of their ids, vectors, documents, URIs and metadata.
    #[serde(default)]
    pub bytes: u64,
    /// Below this every run of sixteen fragments is in a pack or too large for one, as far as the last writer knew.
    #[serde(default)]
    pub packed: Lsn,
}

impl LogEnd {
    /// The end of a log in which nothing was written.
    pub const EMPTY: LogEnd = LogEnd {
        next: Lsn::ZERO,
        last_nonce: Nonce::GENESIS,
        last_created_at: Timestamp(0),
        operations: 0,
        bytes: 0,
        packed: Lsn::ZERO,
    };
}

macro_rules! hex128_text {
    ($type:ident) => {
        impl $type {
            /// Reads 32 hexadecimal digits; `None` for everything else.
            pub fn parse(text: &str) -> Option<Self> {
                hex128::parse(text).map($type)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
hex128_text!(Nonce);
hex128_text!(ContentHash);
hex128_text!(SetHash);

/// 128 bits as 32 hexadecimal digits: JSON numbers lose bits in most readers.
mod hex128 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn parse(text: &str) -> Option<u128> {
        let digits_only = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits_only.then(|| u128::from_str_radix(text, 16).ok()).flatten()
    }

    pub(super) fn serialize<S: Serializer>(bits: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{bits:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("expected 32 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_order_by_lsn_then_index() {
        assert!(Position::new(Lsn(1), 0) > Position::new(Lsn(0), (1 << 20) - 1));
        assert_eq!(Position::new(Lsn(9), 5).lsn(), Lsn(9));
    }

    #[test]
    fn nonce_text_reads_back() {
        let nonce = Nonce(0x0123_4567_89ab_cdef);
        assert_eq!(Nonce::parse(&nonce.to_string()), Some(nonce));
        assert_eq!(Nonce::parse("+0000000000000000000000000000001"), None);
        assert_eq!(Nonce::parse("1"), None);
    }

    #[test]
    fn random_collection_ids_are_version_4() {
        assert_eq!(CollectionId::from_random(u128::MAX).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
