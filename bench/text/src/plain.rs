//! The same records in tantivy as it comes: a text field with positions and a JSON field, both also stored.

use crate::{Line, mb};
use anyhow::{Context, Result};
use std::time::Instant;
use tantivy::directory::RamDirectory;
use tantivy::index::SegmentComponent;
use tantivy::schema::{FAST, JsonObjectOptions, OwnedValue, STORED, STRING, Schema, TEXT};
use tantivy::{HasLen, Index, IndexSettings, TantivyDocument};

pub(crate) fn print(lines: &[Line]) -> Result<()> {
    let mut schema = Schema::builder();
    let text = schema.add_text_field("text", TEXT | STORED);
    let metadata = schema.add_json_field("metadata", JsonObjectOptions::from(STRING | FAST | STORED));
    let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
    let index = Index::builder().schema(schema.build()).settings(settings);
    let mut writer = index.single_segment_index_writer::<TantivyDocument>(RamDirectory::create(), 64 << 20)?;
    #[expect(clippy::disallowed_methods, reason = "a bench measures")]
    let start = Instant::now();
    for line in lines {
        let mut document = TantivyDocument::default();
        document.add_text(text, &line.document);
        if let OwnedValue::Object(values) = OwnedValue::from(serde_json::to_value(&line.metadata)?) {
            document.add_object(metadata, values.into_iter().collect());
        }
        writer.add_document(document)?;
    }
    let index = writer.finalize()?;
    let seconds = start.elapsed().as_secs_f64();
    let segments = index.searchable_segments()?;
    let segment = segments.first().context("it has one segment")?;
    println!("\ntantivy's defaults, {:.0} rows/s:", lines.len() as f64 / seconds);
    use SegmentComponent::{FastFields, FieldNorms, Positions, Postings, Store, Terms};
    for component in [Terms, Postings, Positions, FieldNorms, FastFields, Store] {
        println!("- {component:?}: {}", mb(segment.open_read(component.clone())?.len()));
    }
    Ok(())
}
