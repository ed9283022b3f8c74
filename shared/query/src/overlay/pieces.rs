//! Where in the log the fields of a record are: a few bytes a record, so that its payload need not stay in memory.

use super::row::ALLOCATION_BYTES;
use model::{Lsn, OperationView};

/// A set of a record's parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(u8);

impl Parts {
    pub(super) const NONE: Parts = Parts(0);
    pub(super) const VECTOR: Parts = Parts(1);
    pub(super) const DOCUMENT: Parts = Parts(2);
    pub(super) const URI: Parts = Parts(4);
    pub(super) const METADATA: Parts = Parts(8);
    /// All but the vector.
    pub(super) const PAYLOAD: Parts = Parts(2 | 4 | 8);

    /// What `operation` carries.
    pub(super) fn of(operation: &OperationView<'_>) -> Parts {
        Parts::NONE
            .with(Parts::VECTOR, operation.embedding.is_some())
            .with(Parts::DOCUMENT, operation.document.is_some())
            .with(Parts::URI, operation.uri.is_some())
            .with(Parts::METADATA, operation.metadata.is_some())
    }

    /// Together with `other`, if so.
    pub(super) fn with(self, other: Parts, wanted: bool) -> Parts {
        if wanted { Parts(self.0 | other.0) } else { self }
    }

    pub(super) fn and(self, other: Parts) -> Parts {
        Parts(self.0 & other.0)
    }

    pub(super) fn without(self, other: Parts) -> Parts {
        Parts(self.0 & !other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, other: Parts) -> bool {
        !self.and(other).is_empty()
    }
}

/// Where a piece of a record is read again. Stored rows come before the log, which lies over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The group of this number of the stored rows that were taken up into the overlay: up to [`STORED_GROUP`] of them.
    Stored(u64),
    /// A fragment.
    Log(Lsn),
}

/// Number of stored rows that are read again together.
pub const STORED_GROUP: usize = 64;

/// An operation's place in the log, or a stored row's among those taken up, and which parts of its record are taken from
/// it: whether it is in the log (1 bit), LSN or group (39 bits), index in the fragment or group (20 bits), parts (4 bits).
/// Orders as [`Origin`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece(u64);

impl Piece {
    const LOG: u64 = 1 << 39;

    pub(super) fn new(lsn: Lsn, index: usize, parts: Parts) -> Self {
        assert!(lsn.0 < Self::LOG && index < 1 << 20, "no log is as long as that");
        Piece((lsn.0 | Self::LOG) << 24 | (index as u64) << 4 | u64::from(parts.0))
    }

    /// Number `ordinal` of the stored rows that were taken up.
    pub(super) fn stored(ordinal: usize, parts: Parts) -> Self {
        let (group, index) = (ordinal / STORED_GROUP, ordinal % STORED_GROUP);
        Piece((group as u64) << 24 | (index as u64) << 4 | u64::from(parts.0))
    }

    pub(super) fn origin(self) -> Origin {
        let number = self.0 >> 24;
        if number & Self::LOG == 0 { Origin::Stored(number) } else { Origin::Log(Lsn(number & !Self::LOG)) }
    }

    pub(super) fn index(self) -> usize {
        (self.0 >> 4 & 0xf_ffff) as usize
    }

    pub(super) fn parts(self) -> Parts {
        Parts((self.0 & 0xf) as u8)
    }

    /// As far as it is in `parts`.
    pub(super) fn only(self, parts: Parts) -> Piece {
        Piece(self.0 & !0xf | u64::from(self.parts().and(parts).0))
    }
}

/// The pieces a record is made of, in the order of the log: a vector, document and URI are in one piece each, metadata
/// merges from several. Most records have one.
#[derive(Clone, Debug)]
pub(super) enum Pieces {
    One(Piece),
    Many(Vec<Piece>),
}

impl Pieces {
    pub(super) fn as_slice(&self) -> &[Piece] {
        match self {
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// Takes the next operation of the record: what it carries replaces what was there, but for metadata.
    pub(super) fn push(&mut self, piece: Piece) {
        if piece.parts().is_empty() {
            return;
        }
        let mut pieces = match std::mem::replace(self, Pieces::One(piece)) {
            Pieces::One(first) => vec![first],
            Pieces::Many(pieces) => pieces,
        };
        let mut replaced = piece.parts().without(Parts::METADATA);
        let mut some_empty = false;
        for old in pieces.iter_mut().rev() {
            if replaced.is_empty() {
                break;
            }
            let found = old.parts().and(replaced);
            *old = old.only(old.parts().without(found));
            some_empty |= old.parts().is_empty();
            replaced = replaced.without(found);
        }
        if some_empty {
            pieces.retain(|piece| !piece.parts().is_empty());
        }
        if !pieces.is_empty() {
            pieces.push(piece);
            *self = Pieces::Many(pieces);
        }
    }

    /// Memory held, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Pieces::One(_) => 0,
            Pieces::Many(pieces) => pieces.capacity() * size_of::<Piece>() + ALLOCATION_BYTES,
        }
    }
}
