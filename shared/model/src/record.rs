//! Records as readers see them and operations as writers send them.

use crate::{Metadata, MetadataPatch, RecordId};
use serde::{Deserialize, Serialize};

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
}
