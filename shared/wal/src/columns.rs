//! Operations <-> a sealed Arrow IPC stream: what fragments and packs have in common.
//!
//! A body is an Arrow IPC *stream* (any Arrow implementation opens it and ignores what follows) and a 16-byte trailer
//! that guards it: a magic and the XXH3-64 of all bytes before the trailer. `docs/formats.md` has each byte.

use crate::batch;
use arrow2::array::{Array, FixedSizeListArray, PrimitiveArray, Utf8Array};
use arrow2::chunk::Chunk;
use arrow2::datatypes::{DataType, Field, Metadata as SchemaMetadata, Schema};
use arrow2::io::ipc::{read, write};
use bytes::Bytes;
use model::{ContentHash, OperationKind, OperationView, SetHash, limits};
use std::borrow::Cow;
use std::io::Cursor;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The version this code writes and the only one it reads.
const VERSION: &str = "1";
const TRAILER_BYTES: usize = 16;
/// The message of length 0 that ends an Arrow IPC stream.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Why bytes are not the object they should be. None of these heals by reading again: the object is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Not the bytes that were written.
    #[error("damaged fragment: {0}")]
    Damaged(String),
    /// A version this code does not know.
    #[error("fragment of version {0}; this code reads version {VERSION}")]
    Version(String),
}

pub(crate) fn damaged(what: impl std::fmt::Display) -> FragmentError {
    FragmentError::Damaged(what.to_string())
}

/// What a batch of operations amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Number of operations.
    pub count: u32,
    /// Bytes of their ids, vectors, documents, URIs and metadata.
    pub bytes: u64,
    /// Sum of their hashes.
    pub set_hash: SetHash,
}

impl Contents {
    /// Counts, measures and hashes operations.
    pub fn of<'a>(operations: impl IntoIterator<Item = OperationView<'a>>) -> Self {
        let mut contents = Contents::default();
        for operation in operations {
            let texts = [Some(operation.id), operation.document, operation.uri, operation.metadata.as_deref()];
            let text_bytes = texts.into_iter().flatten().map(str::len).sum::<usize>();
            contents.count += 1;
            contents.bytes += (text_bytes + operation.embedding.map_or(0, size_of_val)) as u64;
            contents.set_hash = contents.set_hash.with(operation_hash(&operation));
        }
        contents
    }
}

/// XXH3-128 of an operation: kind, then each field behind a presence byte and a length.
fn operation_hash(operation: &OperationView<'_>) -> u128 {
    let text = |hasher: &mut Xxh3, text: Option<&str>| {
        if hash_presence(hasher, text.map(str::len)) {
            hasher.update(text.unwrap_or_default().as_bytes());
        }
    };
    let mut hasher = Xxh3::new();
    hasher.update(kind_name(operation.kind).as_bytes());
    text(&mut hasher, Some(operation.id));
    if hash_presence(&mut hasher, operation.embedding.map(size_of_val)) {
        hash_vector(&mut hasher, operation.embedding.unwrap_or_default());
    }
    text(&mut hasher, operation.document);
    text(&mut hasher, operation.uri);
    text(&mut hasher, operation.metadata.as_deref());
    hasher.digest128()
}

/// XXH3-128 of `parts`, each behind its length.
pub fn content_hash(parts: &[&[u8]]) -> ContentHash {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    ContentHash(hasher.digest128())
}

/// Hashes whether a field is there and, if so, its length in bytes; returns whether its bytes must follow.
fn hash_presence(hasher: &mut Xxh3, bytes: Option<usize>) -> bool {
    hasher.update(&[u8::from(bytes.is_some())]);
    if let Some(bytes) = bytes {
        hasher.update(&(bytes as u64).to_le_bytes());
    }
    bytes.is_some()
}

/// Hashes the little-endian bytes of `vector`, a block at a time.
fn hash_vector(hasher: &mut Xxh3, vector: &[f32]) {
    const BLOCK: usize = 64;
    for block in vector.chunks(BLOCK) {
        let mut bytes = [0; BLOCK * size_of::<f32>()];
        for (bytes, element) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(block) {
            *bytes = element.to_le_bytes();
        }
        hasher.update(&bytes[..size_of_val(block)]);
    }
}

pub(crate) const fn kind_name(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Add => "add",
        OperationKind::Update => "update",
        OperationKind::Upsert => "upsert",
        OperationKind::Delete => "delete",
    }
}

fn kind_of(name: &str) -> Option<OperationKind> {
    use OperationKind::{Add, Delete, Update, Upsert};
    [Add, Update, Upsert, Delete].into_iter().find(|kind| kind_name(*kind) == name)
}

/// A sealed stream of `operations` in one record batch. All vectors must have one length. Equal input gives equal bytes.
pub(crate) fn write(entries: SchemaMetadata, operations: &[OperationView<'_>], magic: &[u8; 8]) -> Bytes {
    let dimension = operations.iter().find_map(|operation| operation.embedding.map(<[f32]>::len));
    let schema = Schema { fields: fields(dimension), metadata: entries };
    let mut stream = schema_message(&schema);
    batch::append(&mut stream, operations, dimension);
    stream.extend_from_slice(&END_OF_STREAM);
    seal(stream, magic)
}

/// The start of a stream.
fn schema_message(schema: &Schema) -> Vec<u8> {
    let mut writer = write::StreamWriter::new(Vec::new(), write::WriteOptions { compression: None });
    writer.start(schema, None).expect("writing Arrow IPC to memory cannot fail");
    writer.into_inner()
}

/// A sealed stream with the record batches of `body`, which is one as well, under other entries. Cost: one copy.
pub(crate) fn with_entries(body: &[u8], entries: SchemaMetadata, magic: &[u8; 8]) -> Result<Bytes, FragmentError> {
    let stream = unseal(body, magic)?;
    let (metadata, batches) = schema_of(stream)?;
    let schema = Schema { metadata: entries, ..metadata.schema };
    let mut stream = schema_message(&schema);
    stream.reserve_exact(batches.len() + TRAILER_BYTES);
    stream.extend_from_slice(batches);
    Ok(seal(stream, magic))
}

fn seal(mut stream: Vec<u8>, magic: &[u8; 8]) -> Bytes {
    let checksum = xxh3_64(&stream);
    stream.extend_from_slice(magic);
    stream.extend_from_slice(&checksum.to_le_bytes());
    stream.into()
}

/// The Arrow stream of `body`, if the trailer says that it is what was written.
fn unseal<'a>(body: &'a [u8], magic: &[u8; 8]) -> Result<&'a [u8], FragmentError> {
    if body.len() > limits::FRAGMENT_BYTES_MAX {
        return Err(damaged(format_args!("{} bytes are more than any fragment has", body.len())));
    }
    let at = body.len().checked_sub(TRAILER_BYTES).ok_or_else(|| damaged("shorter than a trailer"))?;
    let (stream, trailer) = body.split_at(at);
    let (found, checksum) = trailer.split_at(magic.len());
    if found != magic {
        return Err(damaged("no trailer"));
    }
    if checksum != xxh3_64(stream).to_le_bytes() {
        return Err(damaged("checksum mismatch"));
    }
    Ok(stream)
}

/// The schema at the start of a stream, which is one that a writer writes, and what is behind it. The Arrow reader asks for as
/// much memory as the schema says it takes, and does not survive every schema.
fn schema_of(stream: &[u8]) -> Result<(read::StreamMetadata, &[u8]), FragmentError> {
    let cut_off = || damaged("the schema is cut off");
    let (_, batches) = batch::split_message(stream).ok_or_else(cut_off)?;
    let schema = &stream[..stream.len() - batches.len()];
    let metadata = read::read_stream_metadata(&mut Cursor::new(schema)).map_err(damaged)?;
    let dimension = metadata.schema.fields.iter().find_map(|field| match field.data_type {
        DataType::FixedSizeList(_, dimension) => Some(dimension),
        _ => None,
    });
    let is_ours = dimension != Some(0) && metadata.schema.fields == fields(dimension);
    if is_ours { Ok((metadata, batches)) } else { Err(damaged("other columns than operations have")) }
}

/// The entries and the columns of the stream in `body`, whose checksum is right. Cost: one copy of the data.
pub(crate) fn read(body: &[u8], magic: &[u8; 8]) -> Result<(Entries, Columns), FragmentError> {
    let (metadata, batches) = schema_of(unseal(body, magic)?)?;
    if !batch::lengths_are_true(batches) {
        return Err(damaged("a record batch is not as long as it says"));
    }
    let entries = Entries(metadata.schema.metadata.clone());
    let names: Vec<String> = metadata.schema.fields.iter().map(|field| field.name.clone()).collect();
    match read::StreamReader::new(Cursor::new(batches), metadata, None).next() {
        Some(Ok(read::StreamState::Some(chunk))) => Ok((entries, Columns::of(&names, &chunk)?)),
        Some(Err(error)) => Err(damaged(error)),
        _ => Err(damaged("no record batch")),
    }
}

/// What a stream says of itself: texts under names that begin with `opal.`.
pub(crate) struct Entries(SchemaMetadata);

impl Entries {
    /// Those at the start of a body, of which the rest may be missing. Nothing of the operations is checked.
    pub(crate) fn at_start(body: &[u8]) -> Result<Self, FragmentError> {
        Ok(Entries(schema_of(body)?.0.schema.metadata))
    }

    /// As a writer puts them down, with the version in front.
    pub(crate) fn written(entries: impl IntoIterator<Item = (&'static str, String)>) -> SchemaMetadata {
        let version = ("version", VERSION.to_owned());
        [version].into_iter().chain(entries).map(|(name, value)| (format!("opal.{name}"), value)).collect()
    }

    /// Errors: the version is another one than this code's.
    pub(crate) fn check_version(&self) -> Result<(), FragmentError> {
        let version = self.text("version")?;
        if version == VERSION { Ok(()) } else { Err(FragmentError::Version(version.to_owned())) }
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, FragmentError> {
        let text = self.0.get(&format!("opal.{name}")).map(String::as_str);
        text.ok_or_else(|| damaged(format_args!("no entry opal.{name}")))
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, FragmentError> {
        self.text(name)?.parse().map_err(|_| damaged(format_args!("opal.{name} is not a number")))
    }

    /// A value that `parse` makes of the text.
    pub(crate) fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, FragmentError> {
        parse(self.text(name)?).ok_or_else(|| damaged(format_args!("opal.{name}")))
    }
}

fn fields(dimension: Option<usize>) -> Vec<Field> {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let mut fields = vec![text("op", false), text("id", false)];
    if let Some(dimension) = dimension {
        fields.push(Field::new("embedding", vector_type(dimension), true));
    }
    fields.extend([text("document", true), text("uri", true), text("metadata", true)]);
    fields
}

fn vector_type(dimension: usize) -> DataType {
    DataType::FixedSizeList(Box::new(Field::new("item", DataType::Float32, false)), dimension)
}

/// The columns of a record batch, by checked type.
#[derive(Debug, PartialEq)]
pub(crate) struct Columns {
    kinds: Vec<OperationKind>,
    id: Utf8Array<i32>,
    embedding: Option<FixedSizeListArray>,
    document: Utf8Array<i32>,
    uri: Utf8Array<i32>,
    metadata: Utf8Array<i32>,
}

impl Columns {
    fn of(names: &[String], chunk: &Chunk<Box<dyn Array>>) -> Result<Self, FragmentError> {
        let column = |name: &str| names.iter().zip(chunk.arrays()).find(|(n, _)| *n == name).map(|(_, array)| array);
        let text = |name: &str| {
            let array = column(name).and_then(|array| array.as_any().downcast_ref::<Utf8Array<i32>>());
            array.cloned().ok_or_else(|| damaged(format_args!("no text column {name}")))
        };
        let embedding = match column("embedding") {
            None => None,
            Some(array) => Some(vectors(array.as_ref()).ok_or_else(|| damaged("embedding is not a list of f32"))?),
        };
        let kinds = text("op")?.values_iter().map(kind_of).collect::<Option<Vec<_>>>();
        Ok(Columns {
            kinds: kinds.ok_or_else(|| damaged("unknown op"))?,
            id: text("id")?,
            embedding,
            document: text("document")?,
            uri: text("uri")?,
            metadata: text("metadata")?,
        })
    }

    /// Number of operations.
    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(crate) fn operation(&self, row: usize) -> OperationView<'_> {
        let embedding = self.embedding.as_ref().filter(|list| list.is_valid(row));
        OperationView {
            kind: self.kinds[row],
            id: self.id.value(row),
            embedding: embedding.map(|list| &floats(list).expect("checked")[row * list.size()..][..list.size()]),
            document: self.document.get(row),
            uri: self.uri.get(row),
            metadata: self.metadata.get(row).map(Cow::Borrowed),
        }
    }
}

/// The column of vectors, if that is what `array` is.
fn vectors(array: &dyn Array) -> Option<FixedSizeListArray> {
    array.as_any().downcast_ref::<FixedSizeListArray>().filter(|list| floats(list).is_some()).cloned()
}

/// All vectors of a column, one behind the other.
fn floats(list: &FixedSizeListArray) -> Option<&[f32]> {
    Some(list.values().as_any().downcast_ref::<PrimitiveArray<f32>>()?.values().as_slice())
}
