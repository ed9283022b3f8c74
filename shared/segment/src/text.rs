//! The objects of a segment's text index: what they are called and how they are found. What they mean the crate `text` knows.
//!
//! Each run of rows has a *bundle*, the object `terms-NNNN`, of which readers fetch ranges, and a *hotcache*, which tells them
//! which. `text` has the hotcaches of all bundles, and is read first, as a whole.

use crate::head::{Head, Kind};
use crate::objects::{Objects, Part, Sealed, name};
use crate::reader::Place;
use crate::{SegmentError, damaged, index};
use model::{SetHash, TextRef};
use std::ops::Range;

/// The name of the object with the hotcaches.
const TEXT: &str = "text";

/// Makes the objects of a text index.
///
/// Memory: the bundles that nobody has taken yet, and the hotcaches.
#[derive(Default)]
pub struct TextBuilder {
    hotcaches: Vec<(Kind, Vec<u8>)>,
    objects: Objects,
}

impl TextBuilder {
    /// Adds what was built of the next run of rows.
    pub fn push(&mut self, bundle: Vec<u8>, hotcache: Vec<u8>) {
        self.objects.push(Kind::Terms, bundle);
        self.hotcaches.push((Kind::Hotcache, hotcache));
    }

    /// The objects that are complete: they are not kept.
    pub fn take_parts(&mut self) -> Vec<Part> {
        self.objects.take()
    }

    /// The rest of the objects, and what a manifest says of the index: of a segment with so many rows of this dimension, and the
    /// sum of their hashes.
    pub fn finish(self, rows: u32, dimension: u32, set_hash: SetHash) -> BuiltText {
        let sealed = self.objects.seal(TEXT, (rows, dimension, set_hash), &self.hotcaches);
        let Sealed { parts, named_bytes, bytes } = sealed;
        BuiltText { parts, named: TextRef { bytes: named_bytes }, bytes }
    }
}

/// A whole text index.
#[derive(Debug)]
pub struct BuiltText {
    /// The objects that were not taken yet, `text` last.
    pub parts: Vec<Part>,
    /// What a manifest says of it.
    pub named: TextRef,
    /// Size of all objects together.
    pub bytes: u64,
}

/// Where the object `text` of a segment is, which [`TextHead::open`] wants.
pub fn text_place(named: &TextRef) -> Place {
    Place { part: TEXT.to_owned(), range: 0..u64::from(named.bytes) }
}

/// An opened object `text`.
#[derive(Clone, Debug)]
pub struct TextHead {
    head: Head,
}

impl TextHead {
    /// The index whose object `text` is `body`. Errors: that is not what was written; of the hotcaches themselves nothing is
    /// looked at but whether there is one for each bundle.
    pub fn open(body: &[u8]) -> Result<Self, SegmentError> {
        let head = Head::decode(body)?;
        let text = TextHead { head };
        let places = text.hotcache_places();
        if places.len() != text.head.parts(Kind::Terms).len() {
            return Err(damaged("a bundle without hotcache, or the other way about"));
        }
        match places.iter().all(|range| range.end <= body.len()) {
            true => Ok(text),
            false => Err(damaged("the text index is cut off")),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.head.rows
    }

    /// Sum of the hashes of all rows.
    pub fn set_hash(&self) -> SetHash {
        self.head.set_hash
    }

    /// Where in the object `text` the hotcache of each bundle is.
    pub fn hotcache_places(&self) -> Vec<Range<usize>> {
        let sections = self.head.parts(Kind::Hotcache);
        sections.iter().map(|section| index(section.range.start)..index(section.range.end)).collect()
    }

    /// The name of bundle number `part`.
    pub fn bundle(part: u32) -> String {
        name(Kind::Terms, part)
    }

    /// All bundles, and what each must hash to: name, size in bytes and XXH3-64.
    pub fn objects(&self) -> Vec<(String, u64, u64)> {
        self.head.objects([Kind::Terms])
    }

    /// Checks bundle number `part`, as a whole. Errors: there is none, or it is not what was written.
    pub fn check_bundle(&self, part: u32, body: &[u8]) -> Result<(), SegmentError> {
        let sections = self.head.parts(Kind::Terms);
        let section = sections.get(index(part)).ok_or_else(|| damaged("no such bundle"))?;
        section.check(body).map(drop)
    }
}

#[cfg(test)]
mod tests {
    //! What goes in comes out; what was changed is refused.

    use super::*;

    #[test]
    fn hotcaches_are_found_and_bundles_are_named() {
        let mut builder = TextBuilder::default();
        builder.push(vec![1; 10], vec![2; 3]);
        let taken = builder.take_parts();
        builder.push(vec![3; 20], vec![4; 5]);
        let built = builder.finish(7, 2, SetHash(9));
        let names: Vec<&str> = taken.iter().chain(&built.parts).map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["terms-0000", "terms-0001", "text"]);

        let body = &built.parts[1].body;
        assert_eq!(text_place(&built.named).range, 0..body.len() as u64);
        assert_eq!(built.bytes, 30 + body.len() as u64);
        let text = TextHead::open(body).unwrap();
        assert_eq!((text.rows(), text.set_hash()), (7, SetHash(9)));
        let hotcaches: Vec<&[u8]> = text.hotcache_places().into_iter().map(|range| &body[range]).collect();
        assert_eq!(hotcaches, [&[2; 3][..], &[4; 5]]);
        let objects = text.objects();
        assert_eq!(
            objects.iter().map(|(name, size, _)| (name.as_str(), *size)).collect::<Vec<_>>(),
            [("terms-0000", 10), ("terms-0001", 20)]
        );
        assert_eq!(TextHead::bundle(1), "terms-0001");
        assert_eq!(text.check_bundle(1, &[3; 20]), Ok(()));
        assert!(text.check_bundle(1, &[1; 20]).is_err() && text.check_bundle(2, &[]).is_err());
        assert!(TextHead::open(&body[..body.len() - 1]).is_err());
        for bit in 0..Head::bytes(4) * 8 {
            let mut body = body.to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            assert!(TextHead::open(&body).is_err(), "bit {bit}");
        }
    }
}
