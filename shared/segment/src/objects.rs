//! The objects of a segment, while they are made.

use crate::head::{Head, Kind, Section};
use bytes::Bytes;
use model::SetHash;
use xxhash_rust::xxh3::xxh3_64;

/// An object of a segment.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its key behind the segment's prefix and a slash.
    pub name: String,
    /// What it holds.
    pub body: Bytes,
}

/// The name of the object number `part` of a kind that is objects of their own.
pub(crate) fn name(kind: Kind, part: u32) -> String {
    match kind {
        Kind::Rows => format!("rows-{part:04}.arrow"),
        Kind::Codes => format!("codes-{part:04}"),
        Kind::Leaves => format!("leaves-{part:04}"),
        Kind::Near => format!("near-{part:04}.arrow"),
        Kind::Terms => format!("terms-{part:04}"),
        kind => unreachable!("{kind:?} is a section of another object"),
    }
}

/// Objects that are complete, and what a table of sections says of them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) sections: Vec<Section>,
    /// Those that nobody has taken yet.
    pub(crate) finished: Vec<Part>,
    /// Size of all together.
    pub(crate) bytes: u64,
}

/// Objects of which no more will come.
pub(crate) struct Sealed {
    /// Those that nobody has taken yet; the one with the table is the last.
    pub(crate) parts: Vec<Part>,
    /// Size of that one.
    pub(crate) named_bytes: u32,
    /// Size of all together.
    pub(crate) bytes: u64,
}

impl Objects {
    /// Adds the next object of `kind`.
    pub(crate) fn push(&mut self, kind: Kind, body: Vec<u8>) {
        let part = self.sections.iter().filter(|section| section.kind == kind as u32).count();
        let part = u32::try_from(part).expect("a segment has few parts");
        let range = 0..body.len() as u64;
        self.bytes += range.end;
        self.sections.push(Section { kind: kind as u32, part, range, checksum: xxh3_64(&body) });
        self.finished.push(Part { name: name(kind, part), body: body.into() });
    }

    /// Adds a last object, `name`, which has `sections` and a table of them and of all other objects: see [`Head::seal`].
    pub(crate) fn seal(
        mut self,
        name: &str,
        (rows, dimension, set_hash): (u32, u32, SetHash),
        sections: &[(Kind, Vec<u8>)],
    ) -> Sealed {
        let body = Head::seal(rows, dimension, set_hash, sections, self.sections);
        let named_bytes = u32::try_from(body.len()).expect("what is read first is smaller than 4 GB");
        let bytes = self.bytes + body.len() as u64;
        self.finished.push(Part { name: name.to_owned(), body: body.into() });
        Sealed { parts: self.finished, named_bytes, bytes }
    }

    /// The objects that are complete: they are not kept.
    pub(crate) fn take(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.finished)
    }
}
