//! What of the rows is indexed, and how.

use crate::bytes::{Cursor, put_leb, put_run};
use crate::{TextError, damaged};
use model::{Language, Words};
use std::collections::BTreeMap;

/// What is indexed. What is not can still be filtered by: every row must then be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Types of values that are indexed under keys that [`Options::keys`] does not name.
    pub defaults: Types,
    /// The same by key. The URI's key is `chroma:uri`.
    pub keys: BTreeMap<String, Types>,
    /// Whether the grams of documents are, for `$contains` and `$regex`.
    pub documents: bool,
    /// How the words of documents are, for BM25; `None`: they are not.
    pub words: Option<Words>,
}

impl Default for Options {
    /// Everything by which users can filter, and no words.
    fn default() -> Self {
        Options { defaults: Types::ALL, keys: BTreeMap::new(), documents: true, words: None }
    }
}

/// Types of metadata values; an array counts as what its elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of four, by name")]
pub struct Types {
    /// Texts.
    pub string: bool,
    /// Whole numbers.
    pub int: bool,
    /// Other numbers.
    pub float: bool,
    /// Truth values.
    pub bool: bool,
}

impl Types {
    /// All of them.
    pub const ALL: Types = Types { string: true, int: true, float: true, bool: true };
    /// None of them.
    pub const NONE: Types = Types { string: false, int: false, float: false, bool: false };

    fn bits(self) -> u8 {
        let flags = [self.string, self.int, self.float, self.bool];
        flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag))
    }

    fn from_bits(bits: u8) -> Self {
        let flag = |bit: u8| bits >> bit & 1 == 1;
        Types { string: flag(0), int: flag(1), float: flag(2), bool: flag(3) }
    }

    pub(crate) fn or(self, other: Types) -> Types {
        Types::from_bits(self.bits() | other.bits())
    }

    /// Whether all of `other` are among them.
    pub(crate) fn contain(self, other: Types) -> bool {
        other.bits() & !self.bits() == 0
    }
}

const DOCUMENTS: u8 = 1;
const WORDS: u8 = 2;

fn decode_language(code: u8) -> Result<Option<Language>, TextError> {
    let known = || Language::ALL.into_iter().find(|language| *language as u8 == code);
    if code == 0 { Ok(None) } else { known().map(Some).ok_or_else(|| damaged("an unknown language")) }
}

impl Options {
    /// The types that are indexed under `key`.
    pub(crate) fn types(&self, key: &str) -> Types {
        self.keys.get(key).copied().unwrap_or(self.defaults)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let words = self.words.unwrap_or_default();
        let code = |language: Option<Language>| language.map_or(0, |language| language as u8);
        out.push(if self.documents { DOCUMENTS } else { 0 } | if self.words.is_some() { WORDS } else { 0 });
        out.extend([code(words.stem), code(words.stop_words), self.defaults.bits()]);
        put_leb(out, self.keys.len() as u64);
        for (key, types) in &self.keys {
            put_run(out, key.as_bytes());
            out.push(types.bits());
        }
    }

    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, TextError> {
        let flags = cursor.u8()?;
        let words = Words { stem: decode_language(cursor.u8()?)?, stop_words: decode_language(cursor.u8()?)? };
        let defaults = Types::from_bits(cursor.u8()?);
        let mut keys = BTreeMap::new();
        for _ in 0..cursor.leb()? {
            keys.insert(cursor.text()?.to_owned(), Types::from_bits(cursor.u8()?));
        }
        let words = (flags & WORDS != 0).then_some(words);
        Ok(Options { defaults, keys, documents: flags & DOCUMENTS != 0, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_inverts_encode() {
        for bits in 0..16 {
            let stem = Language::ALL.get(usize::from(bits)).copied();
            let options = Options {
                defaults: Types::from_bits(bits),
                keys: BTreeMap::from([("a".to_owned(), Types::from_bits(15 - bits)), (String::new(), Types::NONE)]),
                documents: bits % 2 == 0,
                words: (bits % 3 > 0).then_some(Words { stem, stop_words: None }),
            };
            let mut bytes = Vec::new();
            options.encode(&mut bytes);
            assert_eq!(Options::decode(&mut Cursor(&bytes)), Ok(options));
            for length in 0..bytes.len() {
                assert!(Options::decode(&mut Cursor(&bytes[..length])).is_err());
            }
        }
        assert!(decode_language(19).is_err());
        assert_eq!(decode_language(18), Ok(Some(Language::Turkish)));
    }
}
