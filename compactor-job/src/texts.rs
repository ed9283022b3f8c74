//! The text index of a segment under way: rows wait until they are worth one, then become indexes, one run of rows after the
//! other, beside the reading and uploading of rows if there are threads for it.

use crate::work::CompactError;
use model::{Metadata, Words, schema};
use segment::TextBuilder;
use segment::row::RowView;
use serde_json::{Value, json};
use std::mem;
use std::thread::{self, JoinHandle};
use text::{Builder, Built, Options, Row, Types};

/// Rows with so many bytes to index are handed over together.
const BATCH_BYTES: usize = 512 * 1024;
/// The least that an index is about, in bytes of documents and metadata.
const PART_BYTES_MIN: usize = 1024 * 1024;
/// An index is about the memory divided by this. Building takes about ten times as much; the rest is for what was read of a log
/// and for rows that wait for a leaf index.
const MEMORY_SHARES: usize = 64;

/// The rows of a segment on their way into its text index.
pub(crate) struct TextWriter {
    options: Options,
    part_bytes: usize,
    from_bytes: u64,
    /// Of all rows so far, with their vectors.
    bytes: u64,
    waiting: Vec<TextRow>,
    waiting_bytes: usize,
    /// What is being done with the rows before those.
    pub(crate) work: Option<Beside<Indexed>>,
    /// What was built of the rows before those.
    pub(crate) objects: TextBuilder,
}

/// What is indexed of a row.
pub(crate) struct TextRow {
    metadata: Option<String>,
    document: Option<String>,
    uri: Option<String>,
}

/// A builder that has taken some rows, and the indexes that they completed.
pub(crate) type Indexed = Result<(Builder, Vec<Built>), CompactError>;

impl TextWriter {
    /// Rows get an index if they take `from_bytes`, and until they do they are held in memory.
    pub(crate) fn new(options: Options, from_bytes: u64, memory_bytes: usize) -> Self {
        TextWriter {
            options,
            part_bytes: (memory_bytes / MEMORY_SHARES).max(PART_BYTES_MIN),
            from_bytes,
            bytes: 0,
            waiting: Vec::new(),
            waiting_bytes: 0,
            work: None,
            objects: TextBuilder::default(),
        }
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, row: &RowView<'_>) {
        let texts = [row.metadata, row.document, row.uri];
        self.bytes += row.bytes() as u64;
        self.waiting_bytes += size_of::<TextRow>() + texts.into_iter().flatten().map(str::len).sum::<usize>();
        let [metadata, document, uri] = texts.map(|text| text.map(str::to_owned));
        self.waiting.push(TextRow { metadata, document, uri });
    }

    /// Whether the rows so far are worth an index.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.bytes > 0 && self.bytes >= self.from_bytes
    }

    /// Whether rows wait that are to be indexed now.
    pub(crate) fn is_due(&self) -> bool {
        self.waiting_bytes >= BATCH_BYTES && self.is_worth_it()
    }

    /// The rows that wait.
    pub(crate) fn take_waiting(&mut self) -> Vec<TextRow> {
        self.waiting_bytes = 0;
        mem::take(&mut self.waiting)
    }

    /// For the first rows.
    pub(crate) fn builder(&self) -> Builder {
        Builder::new(self.options.clone(), self.part_bytes)
    }
}

/// Gives `rows` to `builder`. Errors: metadata that is none.
pub(crate) fn index(mut builder: Builder, rows: &[TextRow]) -> Indexed {
    let mut built = Vec::new();
    for row in rows {
        let metadata: Option<Metadata> = row.metadata.as_deref().map(serde_json::from_str).transpose()?;
        let (document, uri) = (row.document.as_deref(), row.uri.as_deref());
        built.extend(builder.push(&Row { metadata: metadata.as_ref(), document, uri }));
    }
    Ok((builder, built))
}

impl From<serde_json::Error> for CompactError {
    fn from(error: serde_json::Error) -> Self {
        CompactError::Broken(format!("the metadata of a row: {error}"))
    }
}

/// What a collection with this `schema` indexes: what filters may use, by the rule that the gateway refuses filters by, and
/// `words` of documents where these are indexed at all.
pub(crate) fn options(schema: &Value, words: Option<Words>) -> Options {
    let types = |schema: &Value, key: &str| {
        let is_on = |group: &str| schema::is_on(schema, key, group, &format!("{group}_inverted_index"));
        Types { string: is_on("string"), int: is_on("int"), float: is_on("float"), bool: is_on("bool") }
    };
    let defaults = types(&json!({ "defaults": schema["defaults"] }), "");
    let keys = schema["keys"].as_object().into_iter().flatten().filter(|(key, _)| *key != schema::DOCUMENT);
    let keys = keys.map(|(key, _)| (key.clone(), types(schema, key))).filter(|(_, own)| *own != defaults).collect();
    let documents = schema::is_on(schema, schema::DOCUMENT, "string", "fts_index");
    Options { defaults, keys, documents, words: words.filter(|_| documents) }
}

/// Work that runs on a thread of its own, or, where there is but one thread, was done at once.
pub(crate) enum Beside<T> {
    Done(T),
    Running(JoinHandle<T>),
}

impl<T: Send + 'static> Beside<T> {
    /// Begins with `work`.
    pub(crate) fn start(threads: usize, work: impl FnOnce() -> T + Send + 'static) -> Self {
        if threads <= 1 { Beside::Done(work()) } else { Beside::Running(thread::spawn(work)) }
    }

    /// Whether there is a result.
    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Beside::Done(_) => true,
            Beside::Running(thread) => thread.is_finished(),
        }
    }

    /// The result. Waits for it.
    pub(crate) fn finish(self) -> T {
        match self {
            Beside::Done(result) => result,
            Beside::Running(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn switch(enabled: bool) -> Value {
        json!({ "enabled": enabled, "config": {} })
    }

    #[test]
    fn what_a_schema_switches_off_is_not_indexed() {
        let check = |schema: Value, expect: Options| assert_eq!(options(&schema, None), expect, "{schema}");
        let keys = |key: &str, types: Types| BTreeMap::from([(key.to_owned(), types)]);
        let (all, on) = (Types::ALL, Options::default);
        for unknown in [json!({}), json!(null), json!([1]), json!({"keys": [], "defaults": {"int": 3}})] {
            check(unknown, on());
        }
        let document =
            |is_on: bool| json!({"string": {"fts_index": switch(is_on), "string_inverted_index": switch(false)}});
        let defaults = json!({"string": {"fts_index": switch(false), "string_inverted_index": switch(true)}});
        check(json!({"defaults": defaults, "keys": {"#document": document(true), "k": {}}}), on());
        check(json!({"defaults": {}, "keys": {"#document": document(false)}}), Options { documents: false, ..on() });
        check(json!({"defaults": defaults, "keys": {}}), Options { documents: false, ..on() });

        let text = json!({"string": {"string_inverted_index": switch(false)}});
        let expect = Options { keys: keys("k", Types { string: false, ..all }), ..on() };
        check(
            json!({"defaults": {}, "keys": {"k": text, "other": {"string": {"string_inverted_index": switch(true)}}}}),
            expect,
        );
        let numbers =
            json!({"int": {"int_inverted_index": switch(false)}, "float": {"float_inverted_index": switch(false)}});
        let off = Types { int: false, float: false, ..all };
        let expect = Options { defaults: off, keys: keys("k", Types { float: true, ..off }), ..on() };
        check(json!({"defaults": numbers, "keys": {"k": {"float": {"float_inverted_index": switch(true)}}}}), expect);
        let truth = json!({"bool": {"bool_inverted_index": switch(false)}});
        check(json!({"defaults": truth, "keys": {}}), Options { defaults: Types { bool: false, ..all }, ..on() });
    }
}
