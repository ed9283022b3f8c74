//! Records as readers see them and operations as writers send them.

use crate::{Metadata, MetadataPatch, RecordId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What a user stores under one id.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The user's id.
    pub id: RecordId,
    /// `[f32; dimension]`.
    pub embedding: Vec<f32>,
    /// The text; `None` if it was never set.
    pub document: Option<String>,
    /// Where the original lies; `None` if it was never set.
    pub uri: Option<String>,
    /// Never empty: no metadata is `None`.
    pub metadata: Option<Metadata>,
}

/// What one operation does to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Creates the record; does nothing if it is there.
    Add,
    /// Changes the record; does nothing if it is not there.
    Update,
    /// Changes the record or creates it.
    Upsert,
    /// Removes the record; does nothing if it is not there.
    Delete,
}

/// One change to one record, in the order of the log.
///
/// `None` in a field leaves that field as it is; add and upsert always carry an embedding, delete nothing but the id.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// What is done.
    pub kind: OperationKind,
    /// To which record.
    pub id: RecordId,
    /// The new vector, finite, of the collection's dimension.
    pub embedding: Option<Vec<f32>>,
    /// The new text.
    pub document: Option<String>,
    /// The new URI.
    pub uri: Option<String>,
    /// Metadata keys to set and to remove.
    pub metadata: Option<MetadataPatch>,
}

impl Operation {
    /// The deletion of `id`.
    pub fn delete(id: RecordId) -> Self {
        Operation { kind: OperationKind::Delete, id, embedding: None, document: None, uri: None, metadata: None }
    }

    /// The same, borrowed. Cost: the metadata is written as JSON.
    pub fn view(&self) -> OperationView<'_> {
        let metadata = |patch| serde_json::to_string(patch).expect("metadata has string keys and finite numbers");
        OperationView {
            kind: self.kind,
            id: self.id.as_str(),
            embedding: self.embedding.as_deref(),
            document: self.document.as_deref(),
            uri: self.uri.as_deref(),
            metadata: self.metadata.as_ref().map(|patch| Cow::Owned(metadata(patch))),
        }
    }
}

/// An [`Operation`] that lies elsewhere, as a row of columns. Its metadata is parsed by whoever needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationView<'a> {
    /// As [`Operation::kind`].
    pub kind: OperationKind,
    /// As [`Operation::id`].
    pub id: &'a str,
    /// As [`Operation::embedding`].
    pub embedding: Option<&'a [f32]>,
    /// As [`Operation::document`].
    pub document: Option<&'a str>,
    /// As [`Operation::uri`].
    pub uri: Option<&'a str>,
    /// As [`Operation::metadata`], in JSON.
    pub metadata: Option<Cow<'a, str>>,
}

impl OperationView<'_> {
    /// The metadata keys to set and to remove. Errors: they are no JSON object of metadata values.
    pub fn metadata_patch(&self) -> Result<Option<MetadataPatch>, serde_json::Error> {
        self.metadata.as_deref().map(serde_json::from_str).transpose()
    }

    /// A copy. Errors: as [`OperationView::metadata_patch`].
    pub fn to_operation(&self) -> Result<Operation, serde_json::Error> {
        Ok(Operation {
            kind: self.kind,
            id: self.id.into(),
            embedding: self.embedding.map(<[f32]>::to_vec),
            document: self.document.map(str::to_owned),
            uri: self.uri.map(str::to_owned),
            metadata: self.metadata_patch()?,
        })
    }
}
