//! The head object: magic, version and the table of sections, which is all that a reader must know by heart.

use crate::objects::name;
use crate::{SegmentError, damaged};
use model::SetHash;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// The name of the head object.
pub(crate) const HEAD: &str = "head";

const MAGIC: &[u8; 8] = b"OPALSEG1";
/// The version this code writes and the only one it reads.
pub(crate) const VERSION: u32 = 1;
/// Magic, version, rows, dimension, number of sections, set-hash.
const FIXED_BYTES: usize = 8 + 4 * 4 + 16;
const ENTRY_BYTES: usize = 32;
const SECTIONS_MAX: usize = 1 << 20;

/// What a section holds. Numbers that this code does not know are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// Where each batch of rows lies; part of what opens a segment.
    Batches = 1,
    /// The positions of all rows.
    Positions = 2,
    /// The Bloom filter of ids.
    IdFilter = 3,
    /// The index of ids.
    Ids = 4,
    /// A whole object `rows-{part}.arrow`.
    Rows = 5,
    /// A whole object `codes-{part}`.
    Codes = 6,
    /// The table of leaves, in the object `index`.
    Table = 7,
    /// Where each batch of rows in the order of leaves lies, in the object `index`.
    NearBatches = 8,
    /// A whole object `leaves-{part}`.
    Leaves = 9,
    /// A whole object `near-{part}.arrow`.
    Near = 10,
    /// What a reader must know of a bundle of the text index, in the object `text`.
    Hotcache = 11,
    /// A whole object `terms-{part}`.
    Terms = 12,
}

/// A section, as the table names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) kind: u32,
    /// Number among the objects of its kind; 0 for those that lie in the head object.
    pub(crate) part: u32,
    /// Where it lies in its object.
    pub(crate) range: Range<u64>,
    /// XXH3-64 of its bytes.
    pub(crate) checksum: u64,
}

/// The head as values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) rows: u32,
    pub(crate) dimension: u32,
    pub(crate) set_hash: SetHash,
    pub(crate) sections: Vec<Section>,
}

impl Head {
    /// Size of a head with so many sections, in bytes.
    pub(crate) const fn bytes(sections: usize) -> usize {
        FIXED_BYTES + sections * ENTRY_BYTES + 8
    }

    /// An object that begins with a table of `sections`, which follow, and of `objects`.
    pub(crate) fn seal(
        rows: u32,
        dimension: u32,
        set_hash: SetHash,
        sections: &[(Kind, Vec<u8>)],
        mut objects: Vec<Section>,
    ) -> Vec<u8> {
        let mut at = Head::bytes(sections.len() + objects.len()) as u64;
        let mut table = Vec::new();
        for (kind, body) in sections {
            let range = at..at + body.len() as u64;
            at = range.end;
            table.push(Section { kind: *kind as u32, part: 0, range, checksum: xxh3_64(body) });
        }
        table.append(&mut objects);
        let mut body = Head { rows, dimension, set_hash, sections: table }.encode();
        sections.iter().for_each(|(_, section)| body.extend_from_slice(section));
        body
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Head::bytes(self.sections.len()));
        bytes.extend_from_slice(MAGIC);
        let count = u32::try_from(self.sections.len()).expect("a segment has few sections");
        for number in [VERSION, self.rows, self.dimension, count] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.set_hash.0.to_le_bytes());
        for Section { kind, part, range, checksum } in &self.sections {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&part.to_le_bytes());
            for number in [range.start, range.end - range.start, *checksum] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The head at the start of `bytes`, of which the rest may be missing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let cut_off = || damaged("the head is cut off");
        if bytes.get(..8).ok_or_else(cut_off)? != MAGIC {
            return Err(damaged("not the head of a segment"));
        }
        let u32_at =
            |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|four| u32::from_le_bytes(*four));
        let version = u32_at(8).ok_or_else(cut_off)?;
        if version != VERSION {
            return Err(SegmentError::Version(version));
        }
        let count = crate::index(u32_at(20).ok_or_else(cut_off)?);
        if count > SECTIONS_MAX {
            return Err(damaged("more sections than a segment can have"));
        }
        let whole = bytes.get(..Head::bytes(count)).ok_or_else(cut_off)?;
        let (body, checksum) = whole.split_last_chunk::<8>().ok_or_else(cut_off)?;
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(damaged("the head does not match its checksum"));
        }
        let sections = body[FIXED_BYTES..].chunks_exact(ENTRY_BYTES).map(Section::decode).collect::<Option<_>>();
        let set_hash: [u8; 16] = *body[24..].first_chunk().ok_or_else(cut_off)?;
        let dimension = u32_at(16).ok_or_else(cut_off)?;
        if dimension == 0 {
            return Err(damaged("vectors without numbers"));
        }
        Ok(Head {
            rows: u32_at(12).ok_or_else(cut_off)?,
            dimension,
            set_hash: SetHash(u128::from_le_bytes(set_hash)),
            sections: sections.ok_or_else(|| damaged("a section ends before it begins"))?,
        })
    }

    /// The section of `kind` in the head object.
    pub(crate) fn section(&self, kind: Kind) -> Result<&Section, SegmentError> {
        let found = self.sections.iter().find(|section| section.kind == kind as u32);
        found.ok_or_else(|| damaged(format_args!("no section {kind:?}")))
    }

    /// The objects of these kinds, and what each must hash to: name, size in bytes and XXH3-64.
    pub(crate) fn objects<const N: usize>(&self, kinds: [Kind; N]) -> Vec<(String, u64, u64)> {
        let of_kind = |kind: Kind| {
            let parts = self.parts(kind).into_iter();
            parts.map(move |section| (name(kind, section.part), section.range.end, section.checksum))
        };
        kinds.into_iter().flat_map(of_kind).collect()
    }

    /// The sections of `kind` that are objects of their own, by part.
    pub(crate) fn parts(&self, kind: Kind) -> Vec<&Section> {
        self.sections.iter().filter(|section| section.kind == kind as u32).collect()
    }
}

impl Section {
    fn decode(entry: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| entry[at..].first_chunk().map(|eight| u64::from_le_bytes(*eight));
        let (start, length) = (u64_at(8)?, u64_at(16)?);
        Some(Section {
            kind: u32::from_le_bytes(*entry.first_chunk()?),
            part: u32::from_le_bytes(*entry[4..].first_chunk()?),
            range: start..start.checked_add(length)?,
            checksum: u64_at(24)?,
        })
    }

    /// `bytes`, if they are the section's.
    pub(crate) fn check<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], SegmentError> {
        if bytes.len() as u64 == self.range.end - self.range.start && xxh3_64(bytes) == self.checksum {
            Ok(bytes)
        } else {
            Err(damaged(format_args!("section {} does not match its checksum", self.kind)))
        }
    }
}

#[cfg(test)]
mod tests {
    //! A head is read as it was written; a head that was changed is an error.

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_head() -> impl Strategy<Value = Head> {
        let section = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>()).prop_map(
            |(kind, part, start, length, checksum)| {
                let start = u64::from(start) << 20;
                Section { kind, part, range: start..start + u64::from(length), checksum }
            },
        );
        (any::<u32>(), 1..u32::MAX, any::<u128>(), vec(section, 0..9)).prop_map(
            |(rows, dimension, set_hash, sections)| Head { rows, dimension, set_hash: SetHash(set_hash), sections },
        )
    }

    /// `head` with the checksum that its bytes now have.
    fn resealed(mut head: Vec<u8>) -> Vec<u8> {
        let at = head.len() - 8;
        let checksum = xxh3_64(&head[..at]);
        head[at..].copy_from_slice(&checksum.to_le_bytes());
        head
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(head in any_head(), rest in vec(any::<u8>(), 0..20)) {
            let bytes = head.encode();
            prop_assert_eq!(bytes.len(), Head::bytes(head.sections.len()));
            for length in 0..bytes.len() {
                prop_assert!(Head::decode(&bytes[..length]).is_err(), "{} bytes were accepted", length);
            }
            prop_assert_eq!(Head::decode(&[bytes, rest].concat()), Ok(head));
        }

        #[test]
        fn a_flipped_bit_anywhere_is_noticed(head in any_head(), at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = head.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Head::decode(&bytes).is_err());
            let _ = Head::decode(&resealed(bytes));
        }

        #[test]
        fn decode_survives_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
            prop_assert!(Head::decode(&bytes).is_err());
            prop_assert!(Head::decode(&[&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat()).is_err());
        }
    }

    #[test]
    fn numbers_that_no_head_has_are_errors() {
        let section = Section { kind: 9, part: 0, range: 5..7, checksum: 1 };
        let head = Head { rows: 1, dimension: 1, set_hash: SetHash(1), sections: vec![section] };
        let with = |at: usize, bytes: &[u8]| {
            let mut head = head.encode();
            head[at..at + bytes.len()].copy_from_slice(bytes);
            Head::decode(&resealed(head))
        };
        assert_eq!(with(0, b"OPALSEG1"), Ok(head.clone()));
        for (case, at, bytes) in [
            ("another magic", 0, &b"OPALSEG2"[..]),
            ("no dimension", 16, &[0; 4]),
            ("more sections than bytes", 20, &[2, 0, 0, 0]),
            ("four billion sections", 20, &[0xff; 4]),
            ("a section beyond all numbers", FIXED_BYTES + 8, &[0xff; 8]),
        ] {
            assert!(matches!(with(at, bytes), Err(SegmentError::Damaged(_))), "{case}");
        }
        assert_eq!(with(8, &[2, 0, 0, 0]), Err(SegmentError::Version(2)));
    }

    #[test]
    fn unknown_sections_are_passed_over() {
        let section = |kind, part| Section { kind, part, range: 0..1, checksum: u64::from(part) };
        let sections =
            vec![section(77, 0), section(Kind::Rows as u32, 0), section(78, 1), section(Kind::Rows as u32, 1)];
        let head = Head { rows: 1, dimension: 1, set_hash: SetHash(1), sections };
        let head = Head::decode(&head.encode()).unwrap();
        assert_eq!(head.parts(Kind::Rows).iter().map(|section| section.part).collect::<Vec<_>>(), [0, 1]);
        assert!(head.section(Kind::Batches).is_err());
    }
}
