//! The tantivy index of documents: its two fields, and how text becomes their terms.

use crate::grams::{self, Grams};
use crate::options::Options;
use model::{Language, Words};
use tantivy::IndexSettings;
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{
    self, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer, TokenizerManager,
};

const WORDS_TOKENIZER: &str = "opal_words";
/// Longest word that is indexed, in bytes.
const WORD_BYTES_MAX: usize = 40;

/// Grams of documents, with positions and without lengths.
pub(crate) fn grams_field() -> Field {
    Field::from_field_id(0)
}

/// Words of documents, with frequencies and lengths, which is what BM25 needs.
pub(crate) fn words_field() -> Field {
    Field::from_field_id(1)
}

pub(crate) fn schema() -> Schema {
    let text = |tokenizer: &str, option, lengths| {
        let indexing = TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(option);
        TextOptions::default().set_indexing_options(indexing.set_fieldnorms(lengths))
    };
    let mut schema = Schema::builder();
    let grams = schema.add_text_field("grams", text(grams::TOKENIZER, IndexRecordOption::WithFreqsAndPositions, false));
    let words = schema.add_text_field("words", text(WORDS_TOKENIZER, IndexRecordOption::WithFreqs, true));
    debug_assert!((grams, words) == (grams_field(), words_field()), "fields are numbered as they are added");
    schema.build()
}

/// No threads: there are none on wasm32, and nothing is stored that they could compress.
pub(crate) fn settings() -> IndexSettings {
    IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() }
}

pub(crate) fn tokenizers(options: &Options) -> TokenizerManager {
    let tokenizers = TokenizerManager::default();
    tokenizers.register(grams::TOKENIZER, Grams::default());
    tokenizers.register(WORDS_TOKENIZER, analyzer(options.words.unwrap_or_default()));
    tokenizers
}

pub(crate) fn analyzer(words: Words) -> TextAnalyzer {
    let plain = TextAnalyzer::builder(SimpleTokenizer::default());
    let mut analyzer = plain.filter(RemoveLongFilter::limit(WORD_BYTES_MAX)).filter(LowerCaser).dynamic();
    if let Some(filter) = words.stop_words.and_then(|language| StopWordFilter::new(in_tantivy(language))) {
        analyzer = analyzer.filter_dynamic(filter);
    }
    if let Some(language) = words.stem {
        analyzer = analyzer.filter_dynamic(Stemmer::new(in_tantivy(language)));
    }
    analyzer.build()
}

fn in_tantivy(language: Language) -> tokenizer::Language {
    match language {
        Language::Arabic => tokenizer::Language::Arabic,
        Language::Danish => tokenizer::Language::Danish,
        Language::Dutch => tokenizer::Language::Dutch,
        Language::English => tokenizer::Language::English,
        Language::Finnish => tokenizer::Language::Finnish,
        Language::French => tokenizer::Language::French,
        Language::German => tokenizer::Language::German,
        Language::Greek => tokenizer::Language::Greek,
        Language::Hungarian => tokenizer::Language::Hungarian,
        Language::Italian => tokenizer::Language::Italian,
        Language::Norwegian => tokenizer::Language::Norwegian,
        Language::Portuguese => tokenizer::Language::Portuguese,
        Language::Romanian => tokenizer::Language::Romanian,
        Language::Russian => tokenizer::Language::Russian,
        Language::Spanish => tokenizer::Language::Spanish,
        Language::Swedish => tokenizer::Language::Swedish,
        Language::Tamil => tokenizer::Language::Tamil,
        Language::Turkish => tokenizer::Language::Turkish,
    }
}
