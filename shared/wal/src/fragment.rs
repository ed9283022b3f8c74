//! One fragment: a batch of operations <-> bytes.
//!
//! A body is an Arrow IPC *stream* (any Arrow implementation opens it and ignores what follows) and a 16-byte trailer
//! that guards it: the magic `OPALFRG1` and the XXH3-64 of all bytes before the trailer. `docs/formats.md` has each byte.

use crate::batch;
use arrow2::array::{Array, FixedSizeListArray, PrimitiveArray, Utf8Array};
use arrow2::chunk::Chunk;
use arrow2::datatypes::{DataType, Field, Metadata as SchemaMetadata, Schema};
use arrow2::io::ipc::{read, write};
use bytes::Bytes;
use model::{CollectionId, LogEnd, Lsn, Nonce, Operation, OperationKind, OperationView, SetHash, Timestamp, limits};
use std::borrow::Cow;
use std::io::Cursor;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The version this code writes and the only one it reads.
const VERSION: &str = "1";
const MAGIC: &[u8; 8] = b"OPALFRG1";
const TRAILER_BYTES: usize = 16;
/// The message of length 0 that ends an Arrow IPC stream.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// So many bytes from the start of any fragment hold its header: the schema has six fields and nine short entries.
pub const HEADER_BYTES_MAX: u64 = 8 * 1024;

/// What a fragment says of itself, besides its operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Whose log it belongs to.
    pub collection: CollectionId,
    /// Its number there.
    pub lsn: Lsn,
    /// Tells this body from every other body, also from one with the same operations.
    pub nonce: Nonce,
    /// The nonce of the fragment before: a reader notices when one was replaced.
    pub previous: Nonce,
    /// Number of operations.
    pub count: u32,
    /// Sum of the hashes of its operations.
    pub set_hash: SetHash,
    /// When it was made: the writer's clock, but never before its predecessor.
    pub created_at: Timestamp,
}

impl FragmentHeader {
    /// The end of the log for whoever saw this fragment as its last.
    pub fn as_end(&self) -> LogEnd {
        LogEnd { next: self.lsn.next(), last_nonce: self.nonce, last_created_at: self.created_at }
    }
}

/// A decoded fragment whose checksum, set-hash and count were right.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// What it says of itself.
    pub header: FragmentHeader,
    /// Size of the object, in bytes.
    pub bytes: usize,
    /// One for each record batch; as a rule there is one.
    batches: Vec<Columns>,
}

impl Fragment {
    /// The operations, in the order in which they take effect.
    pub fn operations(&self) -> impl Iterator<Item = OperationView<'_>> {
        self.batches.iter().flat_map(|batch| (0..batch.id.len()).map(|row| batch.operation(row)))
    }

    /// Operation number `index`; `None` if there are not so many.
    pub fn operation(&self, index: usize) -> Option<OperationView<'_>> {
        let mut row = index;
        for batch in &self.batches {
            if row < batch.id.len() {
                return Some(batch.operation(row));
            }
            row -= batch.id.len();
        }
        None
    }

    /// A copy of the operations. Errors: `Damaged` if metadata is not what writers write.
    pub fn to_operations(&self) -> Result<Vec<Operation>, FragmentError> {
        self.operations().map(|operation| operation.to_operation().map_err(damaged)).collect()
    }
}

/// Why bytes are not the fragment they should be. None of these heals by reading again: the object is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Not the bytes that were written.
    #[error("damaged fragment: {0}")]
    Damaged(String),
    /// A version this code does not know.
    #[error("fragment of version {0}; this code reads version {VERSION}")]
    Version(String),
}

fn damaged(what: impl std::fmt::Display) -> FragmentError {
    FragmentError::Damaged(what.to_string())
}

/// The sum of the hashes of `operations`.
pub fn set_hash(operations: &[Operation]) -> SetHash {
    operations.iter().fold(SetHash::default(), |sum, operation| sum.with(operation_hash(&operation.view())))
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

/// The body of a fragment. All vectors must have one length; `header.count` and `header.set_hash` must be those of
/// `operations`. Equal input gives equal bytes. Cost: one copy of the data.
pub fn encode(header: &FragmentHeader, operations: &[Operation]) -> Bytes {
    assert_eq!(header.count as usize, operations.len(), "a header counts its fragment's operations");
    let dimension = operations.iter().find_map(|operation| operation.embedding.as_ref().map(Vec::len));
    let schema = Schema { fields: fields(dimension), metadata: header_entries(header) };
    let mut writer = write::StreamWriter::new(Vec::new(), write::WriteOptions { compression: None });
    writer.start(&schema, None).expect("writing Arrow IPC to memory cannot fail");
    let mut body = writer.into_inner();
    let views: Vec<_> = operations.iter().map(Operation::view).collect();
    batch::append(&mut body, &views, dimension);
    body.extend_from_slice(&END_OF_STREAM);
    let checksum = xxh3_64(&body);
    body.extend_from_slice(MAGIC);
    body.extend_from_slice(&checksum.to_le_bytes());
    body.into()
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

fn header_entries(header: &FragmentHeader) -> SchemaMetadata {
    let entries = [
        ("version", VERSION.to_owned()),
        ("collection", header.collection.to_string()),
        ("lsn", header.lsn.to_string()),
        ("nonce", header.nonce.to_string()),
        ("previous_nonce", header.previous.to_string()),
        ("count", header.count.to_string()),
        ("set_hash", header.set_hash.to_string()),
        ("created_at_ms", header.created_at.0.to_string()),
    ];
    entries.into_iter().map(|(name, value)| (format!("opal.{name}"), value)).collect()
}

/// The header alone, from the first [`HEADER_BYTES_MAX`] bytes of a fragment (or more). The operations are not checked.
pub fn decode_header(start: &[u8]) -> Result<FragmentHeader, FragmentError> {
    let metadata = read::read_stream_metadata(&mut Cursor::new(start)).map_err(damaged)?;
    header_of(&metadata.schema.metadata)
}

fn header_of(entries: &SchemaMetadata) -> Result<FragmentHeader, FragmentError> {
    let entry = |name: &str| {
        entries
            .get(&format!("opal.{name}"))
            .map(String::as_str)
            .ok_or_else(|| damaged(format_args!("no entry opal.{name}")))
    };
    let number =
        |name: &str| entry(name)?.parse::<u64>().map_err(|_| damaged(format_args!("opal.{name} is not a number")));
    if entry("version")? != VERSION {
        return Err(FragmentError::Version(entry("version")?.to_owned()));
    }
    Ok(FragmentHeader {
        collection: CollectionId::parse(entry("collection")?).ok_or_else(|| damaged("opal.collection"))?,
        lsn: Lsn(number("lsn")?),
        nonce: Nonce::parse(entry("nonce")?).ok_or_else(|| damaged("opal.nonce"))?,
        previous: Nonce::parse(entry("previous_nonce")?).ok_or_else(|| damaged("opal.previous_nonce"))?,
        count: number("count")?.try_into().map_err(|_| damaged("opal.count"))?,
        set_hash: SetHash::parse(entry("set_hash")?).ok_or_else(|| damaged("opal.set_hash"))?,
        created_at: Timestamp(number("created_at_ms")?),
    })
}

/// The fragment in `body`, after its checksum, its count and its set-hash were found right. Cost: one copy of the data.
pub fn decode(body: &[u8]) -> Result<Fragment, FragmentError> {
    let stream = checked_stream(body)?;
    let mut cursor = Cursor::new(stream);
    let metadata = read::read_stream_metadata(&mut cursor).map_err(damaged)?;
    let header = header_of(&metadata.schema.metadata)?;
    let names: Vec<String> = metadata.schema.fields.iter().map(|field| field.name.clone()).collect();
    let mut batches = Vec::new();
    for state in read::StreamReader::new(cursor, metadata, None) {
        let read::StreamState::Some(chunk) = state.map_err(damaged)? else { break };
        batches.push(Columns::of(&names, &chunk)?);
    }
    let fragment = Fragment { header, bytes: body.len(), batches };
    let (mut count, mut sum) = (0, SetHash::default());
    for operation in fragment.operations() {
        count += 1;
        sum = sum.with(operation_hash(&operation));
    }
    let whole = count == fragment.header.count && sum == fragment.header.set_hash;
    if whole { Ok(fragment) } else { Err(damaged("count or set-hash differ from the header")) }
}

/// The Arrow stream of `body`, if the trailer says that it is what was written.
fn checked_stream(body: &[u8]) -> Result<&[u8], FragmentError> {
    if body.len() > limits::FRAGMENT_BYTES_MAX {
        return Err(damaged(format_args!("{} bytes are more than any fragment has", body.len())));
    }
    let at = body.len().checked_sub(TRAILER_BYTES).ok_or_else(|| damaged("shorter than a trailer"))?;
    let (stream, trailer) = body.split_at(at);
    let (magic, checksum) = trailer.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(damaged("no trailer"));
    }
    if checksum != xxh3_64(stream).to_le_bytes() {
        return Err(damaged("checksum mismatch"));
    }
    Ok(stream)
}

/// The columns of one record batch, by checked type. Copies share what they hold.
#[derive(Clone, Debug)]
struct Columns {
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

    fn operation(&self, row: usize) -> OperationView<'_> {
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

#[cfg(test)]
mod tests;
