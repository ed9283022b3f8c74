//! How text becomes words, for ranking documents by them.

use serde::{Deserialize, Serialize};

/// How text becomes words: cut at what is neither letter nor digit, in lower case, none longer than 40 bytes, and then:
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// Reduced to their stems as in this language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<Language>,
    /// Without the stop words of this language; a language whose stop words tantivy does not know has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_words: Option<Language>,
}

/// A language whose grammar tantivy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[expect(missing_docs, reason = "they say themselves what they are")]
pub enum Language {
    Arabic = 1,
    Danish,
    Dutch,
    English,
    Finnish,
    French,
    German,
    Greek,
    Hungarian,
    Italian,
    Norwegian,
    Portuguese,
    Romanian,
    Russian,
    Spanish,
    Swedish,
    Tamil,
    Turkish,
}

impl Language {
    /// All of them, by their numbers.
    pub const ALL: [Language; 18] = [
        Language::Arabic,
        Language::Danish,
        Language::Dutch,
        Language::English,
        Language::Finnish,
        Language::French,
        Language::German,
        Language::Greek,
        Language::Hungarian,
        Language::Italian,
        Language::Norwegian,
        Language::Portuguese,
        Language::Romanian,
        Language::Russian,
        Language::Spanish,
        Language::Swedish,
        Language::Tamil,
        Language::Turkish,
    ];
}
