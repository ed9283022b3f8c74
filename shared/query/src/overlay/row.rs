//! What a record holds besides its vector, in as little memory as is simple.

use super::pieces::Parts;
use crate::eval::Fields;
use crate::plan::{Hit, Include, PlanError};
use model::metadata::apply_patch;
use model::{Metadata, MetadataPatch, MetadataValue, OperationView};

/// What an allocator spends on one allocation, about, in bytes.
pub(super) const ALLOCATION_BYTES: usize = 8;

/// What a record holds besides its id and its vector.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// [`crate::kernel::norm`] of its vector.
    pub(super) norm: f32,
    pub(super) document: Option<Box<str>>,
    pub(super) uri: Option<Box<str>>,
    pub(super) attributes: Attributes,
}

impl Row {
    /// Takes what `operation` carries of `parts`. Errors: `Corrupt` if metadata is not what writers write.
    pub(super) fn change(&mut self, operation: &OperationView<'_>, parts: Parts) -> Result<(), PlanError> {
        if let Some(document) = operation.document.filter(|_| parts.has(Parts::DOCUMENT)) {
            self.document = Some(document.into());
        }
        if let Some(uri) = operation.uri.filter(|_| parts.has(Parts::URI)) {
            self.uri = Some(uri.into());
        }
        if parts.has(Parts::METADATA) {
            let patch = operation.metadata_patch();
            let broken = |error| PlanError::Corrupt(format!("the log holds metadata that cannot be read: {error}"));
            self.attributes.patch(patch.map_err(broken)?.unwrap_or_default());
        }
        Ok(())
    }

    /// Estimate of the memory it holds besides itself, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let texts = [&self.document, &self.uri].into_iter().flatten();
        texts.map(|text| text.len() + ALLOCATION_BYTES).sum::<usize>() + self.attributes.heap_bytes()
    }

    /// A copy of its metadata. As in Chroma, which keeps the URI there and hides it, a record that has nothing else has
    /// an empty map; one without a URI has none.
    pub(super) fn metadata(&self) -> Option<Metadata> {
        self.attributes.to_metadata().or_else(|| self.uri.as_ref().map(|_| Metadata::new()))
    }

    /// A hit with the included fields.
    pub(super) fn hit(&self, id: &str, vector: Option<&[f32]>, distance: Option<f32>, include: Include) -> Hit {
        Hit {
            id: id.to_owned(),
            distance,
            embedding: vector.filter(|_| include.embeddings).map(<[f32]>::to_vec),
            document: self.document.as_deref().filter(|_| include.documents).map(str::to_owned),
            uri: self.uri.as_deref().filter(|_| include.uris).map(str::to_owned),
            metadata: if include.metadatas { self.metadata() } else { None },
        }
    }
}

/// Memory that a hit holds, about, in bytes.
pub(super) fn hit_bytes(hit: &Hit) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + ALLOCATION_BYTES);
    let entry_bytes =
        |(key, value): (&String, &MetadataValue)| 2 * size_of::<MetadataValue>() + key.len() + value_heap_bytes(value);
    size_of::<Hit>()
        + hit.id.len()
        + ALLOCATION_BYTES
        + hit.embedding.as_ref().map_or(0, |vector| size_of_val(&vector[..]))
        + text(&hit.document)
        + text(&hit.uri)
        + hit.metadata.iter().flatten().map(entry_bytes).sum::<usize>()
}

impl Fields for Row {
    fn metadata(&self, key: &str) -> Option<&MetadataValue> {
        self.attributes.get(key)
    }

    fn document(&self) -> Option<&str> {
        self.document.as_deref()
    }

    fn uri(&self) -> Option<&str> {
        self.uri.as_deref()
    }
}

/// Metadata as a sorted array: a B-tree node has room for eleven entries, and few records use it.
#[derive(Debug, Default)]
pub(super) struct Attributes(Box<[(Box<str>, MetadataValue)]>);

impl Attributes {
    fn get(&self, key: &str) -> Option<&MetadataValue> {
        let at = self.0.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Sets and removes keys.
    pub(super) fn patch(&mut self, patch: MetadataPatch) {
        if patch.is_empty() {
            return;
        }
        let old = std::mem::take(self).0.into_iter();
        let mut metadata: Metadata = old.map(|(key, value)| (key.into_string(), value)).collect();
        apply_patch(&mut metadata, patch);
        // A map yields its keys in order, which is what `get` searches by.
        self.0 = metadata.into_iter().map(|(key, value)| (key.into_boxed_str(), value)).collect();
    }

    /// A copy; `None` if there is nothing.
    pub(super) fn to_metadata(&self) -> Option<Metadata> {
        let entries = self.0.iter().map(|(key, value)| (key.to_string(), value.clone()));
        (!self.0.is_empty()).then(|| entries.collect())
    }

    fn heap_bytes(&self) -> usize {
        let entry_bytes = |(key, value): &(Box<str>, MetadataValue)| {
            size_of::<(Box<str>, MetadataValue)>() + key.len() + ALLOCATION_BYTES + value_heap_bytes(value)
        };
        self.0.iter().map(entry_bytes).sum()
    }
}

fn value_heap_bytes(value: &MetadataValue) -> usize {
    let text = |text: &String| text.len() + ALLOCATION_BYTES;
    let texts = |texts: &Vec<String>| texts.iter().map(|t| size_of::<String>() + text(t)).sum();
    match value {
        MetadataValue::Bool(_) | MetadataValue::Int(_) | MetadataValue::Float(_) => 0,
        MetadataValue::Str(value) => text(value),
        MetadataValue::Bools(values) => values.len(),
        MetadataValue::Ints(values) => size_of_val(&values[..]),
        MetadataValue::Floats(values) => size_of_val(&values[..]),
        MetadataValue::Strs(values) => texts(values),
        MetadataValue::Sparse(vector) => {
            size_of_val(&vector.indices[..]) + size_of_val(&vector.values[..]) + vector.tokens.as_ref().map_or(0, texts)
        }
    }
}
