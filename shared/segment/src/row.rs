//! A record as segments store it.

use model::{Metadata, Position, Record};
use xxhash_rust::xxh3::Xxh3;

/// A row: a record and the position of its first insert, by which `get` orders.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Of the operation that created the record.
    pub position: Position,
    /// The user's id.
    pub id: String,
    /// `[f32; dimension]`, finite.
    pub vector: Vec<f32>,
    /// The text.
    pub document: Option<String>,
    /// Where the original lies.
    pub uri: Option<String>,
    /// Metadata as a JSON object with ascending keys; never an empty one.
    pub metadata: Option<String>,
}

/// A [`Row`] that lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowView<'a> {
    /// As [`Row::position`].
    pub position: Position,
    /// As [`Row::id`].
    pub id: &'a str,
    /// As [`Row::vector`].
    pub vector: &'a [f32],
    /// As [`Row::document`].
    pub document: Option<&'a str>,
    /// As [`Row::uri`].
    pub uri: Option<&'a str>,
    /// As [`Row::metadata`].
    pub metadata: Option<&'a str>,
}

impl Row {
    /// The row of `record`.
    pub fn new(position: Position, record: Record) -> Self {
        let json = |metadata: Metadata| serde_json::to_string(&metadata).expect("metadata has string keys");
        let Record { id, embedding, document, uri, metadata } = record;
        let metadata = metadata.filter(|metadata| !metadata.is_empty()).map(json);
        Row { position, id: id.0, vector: embedding, document, uri, metadata }
    }

    /// The same, borrowed.
    pub fn view(&self) -> RowView<'_> {
        RowView {
            position: self.position,
            id: &self.id,
            vector: &self.vector,
            document: self.document.as_deref(),
            uri: self.uri.as_deref(),
            metadata: self.metadata.as_deref(),
        }
    }
}

impl RowView<'_> {
    /// A copy.
    pub fn to_row(&self) -> Row {
        Row {
            position: self.position,
            id: self.id.to_owned(),
            vector: self.vector.to_vec(),
            document: self.document.map(str::to_owned),
            uri: self.uri.map(str::to_owned),
            metadata: self.metadata.map(str::to_owned),
        }
    }

    /// The record. Errors: its metadata is not what was written.
    pub fn to_record(&self) -> Result<Record, serde_json::Error> {
        Ok(Record {
            id: self.id.into(),
            embedding: self.vector.to_vec(),
            document: self.document.map(str::to_owned),
            uri: self.uri.map(str::to_owned),
            metadata: self.metadata.map(serde_json::from_str).transpose()?,
        })
    }

    /// Size of what it holds, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = [Some(self.id), self.document, self.uri, self.metadata];
        size_of_val(self.vector) + texts.into_iter().flatten().map(str::len).sum::<usize>() + size_of::<u64>()
    }

    /// XXH3-128 of all of it: position, then each field behind a presence byte and its length. Sums of these tell whether
    /// segments hold the rows that they should.
    pub fn hash(&self) -> u128 {
        let mut hasher = Xxh3::new();
        hasher.update(&self.position.0.to_le_bytes());
        hasher.update(&(self.vector.len() as u64).to_le_bytes());
        for number in self.vector {
            hasher.update(&number.to_le_bytes());
        }
        for text in [Some(self.id), self.document, self.uri, self.metadata] {
            hasher.update(&[u8::from(text.is_some())]);
            if let Some(text) = text {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        hasher.digest128()
    }
}
