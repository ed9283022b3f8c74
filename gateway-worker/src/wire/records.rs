//! Bodies of the record routes: add, update, upsert and delete to operations, get and query to reads.

use super::embeddings::{self, Embeddings, Fault};
use super::schema::{self, HIDDEN_PREFIX};
use super::{ApiError, body, names, where_clause};
use model::bounded::{self, Map};
use model::{CollectionRow, MetadataPatch, MetadataValue, Operation, OperationKind, RecordId, limits};
use query::{Include, Read};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::HashSet;

#[cfg(test)]
mod tests;

/// Metadata key under which filters and writes know the document.
const DOCUMENT_KEY: &str = "chroma:document";
/// Metadata key under which filters and writes know the URI.
const URI_KEY: &str = "chroma:uri";
/// `n_results` of a query that does not say.
const N_RESULTS_DEFAULT: u32 = 10;

#[derive(Deserialize)]
struct AddBody {
    #[serde(deserialize_with = "bounded::vec")]
    ids: Vec<String>,
    #[serde(deserialize_with = "embeddings::required")]
    embeddings: Embeddings,
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    documents: Option<Vec<Option<String>>>,
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    uris: Option<Vec<Option<String>>>,
    #[serde(default, deserialize_with = "without_removals")]
    metadatas: Option<Vec<Option<MetadataPatch>>>,
}

#[derive(Deserialize)]
struct UpsertBody {
    #[serde(deserialize_with = "bounded::vec")]
    ids: Vec<String>,
    #[serde(deserialize_with = "embeddings::required")]
    embeddings: Embeddings,
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    documents: Option<Vec<Option<String>>>,
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    uris: Option<Vec<Option<String>>>,
    #[serde(default, deserialize_with = "patches")]
    metadatas: Option<Vec<Option<MetadataPatch>>>,
}

#[derive(Deserialize)]
struct UpdateBody {
    #[serde(deserialize_with = "bounded::vec")]
    ids: Vec<String>,
    embeddings: Option<Embeddings>,
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    documents: Option<Vec<Option<String>>>,
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    uris: Option<Vec<Option<String>>>,
    #[serde(default, deserialize_with = "patches")]
    metadatas: Option<Vec<Option<MetadataPatch>>>,
}

/// The metadata of all records.
fn patches<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<Option<MetadataPatch>>>, D::Error> {
    let metadatas: Option<Vec<Option<Map<_>>>> = bounded::optional_vec(d)?;
    Ok(metadatas.map(|list| list.into_iter().map(|patch| patch.map(|Map(patch)| patch)).collect()))
}

/// What a new record's metadata must be: a null removes a key, and there is nothing to remove yet.
fn without_removals<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<Option<MetadataPatch>>>, D::Error> {
    let metadatas = patches(d)?;
    let patches = metadatas.iter().flatten().enumerate().filter_map(|(index, patch)| Some((index, patch.as_ref()?)));
    for (index, patch) in patches {
        if let Some((key, _)) = patch.iter().find(|(_, value)| value.is_none()) {
            let message = format!("invalid type: null under `{key}` of metadata {index}, expected a metadata value");
            return Err(serde::de::Error::custom(message));
        }
    }
    Ok(metadatas)
}

/// The records of one write, as columns. Each record is sound in itself; whether they fit together and into the
/// collection is asked next, in this order: [`Batch::check_dimension`], [`Batch::into_operations`].
#[derive(Debug)]
pub struct Batch {
    kind: OperationKind,
    ids: Vec<String>,
    embeddings: Option<Vec<Option<Vec<f32>>>>,
    documents: Option<Vec<Option<String>>>,
    uris: Option<Vec<Option<String>>>,
    metadatas: Option<Vec<Option<MetadataPatch>>>,
    dimension: Option<u32>,
}

/// Reads an add. Errors: as [`body::parse`]; 400 for vectors and metadata that no record can have.
pub fn add(content_type: Option<&str>, body: &[u8]) -> Result<Batch, ApiError> {
    let AddBody { ids, embeddings, documents, uris, metadatas } = body::parse(content_type, body)?;
    Batch::checked(OperationKind::Add, ids, Some(embeddings), documents, uris, metadatas)
}

/// Reads an upsert. Errors: as [`add`].
pub fn upsert(content_type: Option<&str>, body: &[u8]) -> Result<Batch, ApiError> {
    let UpsertBody { ids, embeddings, documents, uris, metadatas } = body::parse(content_type, body)?;
    Batch::checked(OperationKind::Upsert, ids, Some(embeddings), documents, uris, metadatas)
}

/// Reads an update. Errors: as [`add`].
pub fn update(content_type: Option<&str>, body: &[u8]) -> Result<Batch, ApiError> {
    let UpdateBody { ids, embeddings, documents, uris, metadatas } = body::parse(content_type, body)?;
    Batch::checked(OperationKind::Update, ids, embeddings, documents, uris, metadatas)
}

impl Batch {
    fn checked(
        kind: OperationKind,
        ids: Vec<String>,
        embeddings: Option<Embeddings>,
        documents: Option<Vec<Option<String>>>,
        uris: Option<Vec<Option<String>>>,
        metadatas: Option<Vec<Option<MetadataPatch>>>,
    ) -> Result<Batch, ApiError> {
        let fault = embeddings.as_ref().and_then(|embeddings| embeddings.fault.as_ref());
        let mut complaints = Vec::new();
        match fault {
            Some(Fault::Encoding(message)) => return Err(ApiError::invalid_argument(message.as_str())),
            Some(Fault::Vector(why)) => complaints.push(("embeddings", why.clone())),
            Some(Fault::Dimensions) | None => {}
        }
        let bad_metadata = metadatas.iter().flatten().position(|patch| patch.as_ref().is_some_and(|p| !is_sound(p)));
        if let Some(index) = bad_metadata {
            complaints.push(("metadatas", format!("Invalid metadata at index {index}")));
        }
        names::refuse_if_any(&complaints)?;
        if fault.is_some() {
            return Err(inconsistent_dimensions());
        }
        let dimension = embeddings.as_ref().and_then(|embeddings| embeddings.dimension);
        let embeddings = embeddings.map(|embeddings| embeddings.vectors);
        Ok(Batch { kind, ids, embeddings, documents, uris, metadatas, dimension })
    }

    /// Length of every vector of the batch; `None` if it has none. If the collection has no dimension yet, this becomes
    /// it, also when the batch turns out to change nothing.
    pub fn dimension(&self) -> Option<u32> {
        self.dimension
    }

    /// 400 if the collection's vectors have another length.
    pub fn check_dimension(&self, of_row: Option<u32>) -> Result<(), ApiError> {
        self.dimension.map_or(Ok(()), |got| check_dimension(of_row, got))
    }

    /// The operations, one per record, in the order sent; none is a write of nothing.
    ///
    /// Errors: 400 for columns of different lengths, an empty id, more than [`limits::FRAGMENT_OPERATIONS_MAX`] records;
    /// 501 for sparse vectors; 413 if there is no memory for the operations and the fragment that is made of them.
    pub fn into_operations(self) -> Result<Vec<Operation>, ApiError> {
        let count = self.ids.len();
        self.check_lengths()?;
        if self.ids.iter().any(String::is_empty) {
            return Err(ApiError::invalid_argument("Empty ID, ID must have at least one character"));
        }
        check_count(count)?;
        self.check_no_sparse()?;
        bounded::check_room_for(self.fragment_bytes()).map_err(|_| ApiError::out_of_memory())?;
        let mut embeddings = column(self.embeddings, count);
        let mut documents = column(self.documents, count);
        let mut uris = column(self.uris, count);
        let mut metadatas = column(self.metadatas, count);
        let mut next = |id: String| {
            let operation = Operation {
                kind: self.kind,
                id: RecordId(id),
                embedding: embeddings.next().flatten(),
                document: documents.next().flatten(),
                uri: uris.next().flatten(),
                metadata: None,
            };
            with_metadata(operation, metadatas.next().flatten().unwrap_or_default())
        };
        Ok(self.ids.into_iter().map(&mut next).collect())
    }

    fn check_lengths(&self) -> Result<(), ApiError> {
        let count = self.ids.len();
        let fits = |length: Option<usize>| length.is_none_or(|length| length == count);
        let consistent = fits(self.embeddings.as_ref().map(Vec::len))
            && fits(self.documents.as_ref().map(Vec::len))
            && fits(self.uris.as_ref().map(Vec::len))
            && fits(self.metadatas.as_ref().map(Vec::len));
        if consistent {
            return Ok(());
        }
        Err(ApiError::invalid_argument("Inconsistent number of IDs, embeddings, documents, URIs and metadatas"))
    }

    /// Bytes of the operations' own and of their fragment, at most.
    fn fragment_bytes(&self) -> usize {
        /// An operation's columns besides what it says itself: its kind, five offsets, four bits.
        const ROW_BYTES: usize = 32;
        let text = |column: &Option<Vec<Option<String>>>| column.iter().flatten().flatten().map(String::len).sum();
        let vector = self.dimension.map_or(0, |dimension| dimension as usize * size_of::<f32>());
        let rows = self.ids.len() * (size_of::<Operation>() + ROW_BYTES + vector);
        let ids: usize = self.ids.iter().map(String::len).sum();
        let (documents, uris): (usize, usize) = (text(&self.documents), text(&self.uris));
        // As text beside the fragment and in it.
        let metadata: usize = self.metadatas.iter().flatten().flatten().map(|patch| 2 * metadata_bytes(patch)).sum();
        rows + ids + documents + uris + metadata
    }

    fn check_no_sparse(&self) -> Result<(), ApiError> {
        let mut values = self.metadatas.iter().flatten().flatten().flatten();
        match values.find(|(_, value)| matches!(value, Some(MetadataValue::Sparse(_)))) {
            None => Ok(()),
            Some((key, _)) => {
                let message = format!("Unimplemented: Sparse vector is not supported for local chroma: {key}");
                Err(ApiError::unimplemented(message))
            }
        }
    }
}

/// Bytes of the JSON of `patch`, about.
fn metadata_bytes(patch: &MetadataPatch) -> usize {
    /// Of the longest number with its comma, or of quotes, colon and comma.
    const VALUE_BYTES: usize = 25;
    let text = |text: &String| text.len() + VALUE_BYTES;
    let value = |value: &MetadataValue| match value {
        MetadataValue::Str(value) => text(value),
        MetadataValue::Strs(values) => values.iter().map(text).sum(),
        MetadataValue::Bools(values) => values.len() * VALUE_BYTES,
        MetadataValue::Ints(values) => values.len() * VALUE_BYTES,
        MetadataValue::Floats(values) => values.len() * VALUE_BYTES,
        _ => VALUE_BYTES,
    };
    patch.iter().map(|(key, change)| text(key) + change.as_ref().map_or(VALUE_BYTES, value)).sum()
}

/// The elements of a column, or as many times nothing.
fn column<T>(column: Option<Vec<Option<T>>>, count: usize) -> impl Iterator<Item = Option<T>> {
    let missing = if column.is_some() { 0 } else { count };
    column.into_iter().flatten().chain(std::iter::repeat_with(|| None).take(missing))
}

/// Whether a record can have this metadata, or have it laid over its own.
fn is_sound(patch: &MetadataPatch) -> bool {
    patch.iter().all(|(key, value)| {
        // Nothing but text can become the document or the URI, and neither can be removed.
        let fits_slot = !(key == DOCUMENT_KEY || key == URI_KEY) || matches!(value, Some(MetadataValue::Str(_)));
        names::check_metadata_key(key).is_ok() && fits_slot && value.as_ref().is_none_or(is_sound_value)
    })
}

fn is_sound_value(value: &MetadataValue) -> bool {
    match value {
        MetadataValue::Sparse(vector) => {
            vector.indices.len() == vector.values.len()
                && vector.tokens.as_ref().is_none_or(|tokens| tokens.len() == vector.indices.len())
                && vector.indices.is_sorted_by(|a, b| a < b)
        }
        _ => true,
    }
}

/// The operation with `patch`, whose `chroma:document` and `chroma:uri` go where they are stored unless the request
/// gave the field itself. An empty array has no type: it removes its key.
fn with_metadata(mut operation: Operation, mut patch: MetadataPatch) -> Operation {
    for (key, slot) in [(DOCUMENT_KEY, &mut operation.document), (URI_KEY, &mut operation.uri)] {
        if let Some(Some(MetadataValue::Str(text))) = patch.remove(key) {
            slot.get_or_insert(text);
        }
    }
    for value in patch.values_mut() {
        if value.as_ref().is_some_and(MetadataValue::is_empty_array) {
            *value = None;
        }
    }
    if operation.kind == OperationKind::Add {
        patch.retain(|_, value| value.is_some());
    }
    operation.metadata = (!patch.is_empty()).then_some(patch);
    operation
}

/// 400 if vectors of length `got` do not go with a collection of dimension `of_row`; `None` goes with all.
pub fn check_dimension(of_row: Option<u32>, got: u32) -> Result<(), ApiError> {
    match of_row {
        Some(expected) if expected != got => Err(ApiError::invalid_argument(format!(
            "Collection expecting embedding with dimension of {expected}, got {got}"
        ))),
        _ => Ok(()),
    }
}

fn inconsistent_dimensions() -> ApiError {
    ApiError::invalid_argument("Inconsistent dimensions in provided embeddings")
}

/// 400 if `records` are more than one fragment holds.
pub fn check_count(records: usize) -> Result<(), ApiError> {
    if records <= limits::FRAGMENT_OPERATIONS_MAX {
        return Ok(());
    }
    let max = limits::FRAGMENT_OPERATIONS_MAX;
    Err(ApiError::invalid_argument(format!("A request can write at most {max} records, got {records}")))
}

#[derive(Deserialize)]
struct DeleteBody {
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    ids: Option<Vec<String>>,
    r#where: Option<Value>,
    where_document: Option<Value>,
    limit: Option<u32>,
}

/// What a delete asks for.
#[derive(Debug, PartialEq)]
pub enum Delete {
    /// Nothing: the answer is `deleted: 0`.
    Nothing,
    /// These records, whether they are there or not.
    Ids {
        /// A deletion for each different id.
        operations: Vec<Operation>,
        /// What to answer: the number of ids in the request, repetitions and absent ones included.
        deleted: u64,
    },
    /// The records that this [`Read::Match`] finds.
    Matching(Read),
}

/// Reads a delete. Errors: as [`body::parse`]; 400 for filters, `ids: []` alone, a limit without a filter.
pub fn delete(content_type: Option<&str>, body: &[u8]) -> Result<Delete, ApiError> {
    let request: DeleteBody = body::parse_values(content_type, body)?;
    let filter = where_clause::parse(request.r#where.as_ref(), request.where_document.as_ref())?;
    let limit = request.limit.map(u64::from);
    match (request.ids, filter) {
        (ids, Some(filter)) => Ok(Delete::Matching(Read::Match { ids, filter: Some(filter), limit })),
        (Some(ids), None) if ids.is_empty() => {
            Err(ApiError::invalid_argument("Validation error: ids, where: Either ids or where must be specified"))
        }
        (_, None) if limit.is_some() => Err(ApiError::invalid_argument(
            "Validation error: limit, where: limit can only be specified when a where clause is provided",
        )),
        (Some(ids), None) => deletion_of(ids),
        (None, None) => Ok(Delete::Nothing),
    }
}

fn deletion_of(ids: Vec<String>) -> Result<Delete, ApiError> {
    check_count(ids.len())?;
    let deleted = ids.len() as u64;
    let mut seen: HashSet<&str> = HashSet::with_capacity(ids.len());
    // No record has an empty id: there is nothing to delete, yet it counts.
    let different = ids.iter().filter(|id| !id.is_empty() && seen.insert(id));
    let operations = different.map(|id| Operation::delete(RecordId(id.clone()))).collect();
    Ok(Delete::Ids { operations, deleted })
}

/// A member of `include`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// Of a query; without meaning for a get.
    Distances,
    /// The texts.
    Documents,
    /// The vectors.
    Embeddings,
    /// The metadata.
    Metadatas,
    /// The URIs.
    Uris,
}

/// `include` as it was sent: answers repeat it, repetitions and all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct IncludeList(Vec<Field>);

impl IncludeList {
    fn of_get() -> Self {
        IncludeList(vec![Field::Documents, Field::Metadatas])
    }

    fn of_query() -> Self {
        IncludeList(vec![Field::Documents, Field::Metadatas, Field::Distances])
    }

    /// Whether the answer carries `field`.
    pub fn has(&self, field: Field) -> bool {
        self.0.contains(&field)
    }

    fn of_record(&self) -> Include {
        Include {
            embeddings: self.has(Field::Embeddings),
            documents: self.has(Field::Documents),
            uris: self.has(Field::Uris),
            metadatas: self.has(Field::Metadatas),
        }
    }
}

/// A get or a query.
#[derive(Debug, PartialEq)]
pub struct ReadRequest {
    /// What the executor is asked.
    pub read: Read,
    /// What the answer must show.
    pub include: IncludeList,
    /// Length of a query's vectors; `None` for a get, and for a query without vectors.
    dimension: Option<u32>,
}

#[derive(Deserialize)]
struct GetBody {
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    ids: Option<Vec<String>>,
    r#where: Option<Value>,
    where_document: Option<Value>,
    limit: Option<u32>,
    offset: Option<u32>,
    #[serde(default = "IncludeList::of_get")]
    include: IncludeList,
}

/// Reads a get. Errors: as [`body::parse`]; 400 for filters.
pub fn get(content_type: Option<&str>, body: &[u8]) -> Result<ReadRequest, ApiError> {
    let request: GetBody = body::parse_values(content_type, body)?;
    let read = Read::Get {
        ids: request.ids,
        filter: where_clause::parse(request.r#where.as_ref(), request.where_document.as_ref())?,
        limit: request.limit.map(u64::from),
        offset: request.offset.map_or(0, u64::from),
        include: request.include.of_record(),
    };
    Ok(ReadRequest { read, include: request.include, dimension: None })
}

#[derive(Deserialize)]
struct QueryBody {
    #[serde(deserialize_with = "embeddings::arrays")]
    query_embeddings: Vec<Vec<f32>>,
    n_results: Option<u32>,
    #[serde(default, deserialize_with = "bounded::optional_vec")]
    ids: Option<Vec<String>>,
    r#where: Option<Value>,
    where_document: Option<Value>,
    #[serde(default = "IncludeList::of_query")]
    include: IncludeList,
}

/// Reads a query. Errors: as [`body::parse`]; 400 for filters, vectors of different lengths or that are not finite.
pub fn query(content_type: Option<&str>, body: &[u8]) -> Result<ReadRequest, ApiError> {
    let request: QueryBody = body::parse_values(content_type, body)?;
    let filter = where_clause::parse(request.r#where.as_ref(), request.where_document.as_ref())?;
    let dimension = common_dimension(&request.query_embeddings)?;
    let read = Read::Query {
        vectors: request.query_embeddings,
        n_results: u64::from(request.n_results.unwrap_or(N_RESULTS_DEFAULT)),
        ids: request.ids,
        filter,
        include: request.include.of_record(),
    };
    Ok(ReadRequest { read, include: request.include, dimension })
}

fn common_dimension(vectors: &[Vec<f32>]) -> Result<Option<u32>, ApiError> {
    let Some(first) = vectors.first() else { return Ok(None) };
    if vectors.iter().any(|vector| vector.len() != first.len()) {
        return Err(inconsistent_dimensions());
    }
    if !vectors.iter().all(|vector| embeddings::all_finite(vector)) {
        let message = "Validation error: query_embeddings: Embeddings must not contain NaN or Infinity values";
        return Err(ApiError::invalid_argument(message));
    }
    Ok(Some(u32::try_from(first.len()).unwrap_or(u32::MAX)))
}

impl ReadRequest {
    /// 400 if the collection cannot be read so: other dimension, or a filter on what its schema has switched off.
    pub fn check(&self, row: &CollectionRow) -> Result<(), ApiError> {
        if let Some(got) = self.dimension {
            check_dimension(row.dimension, got)?;
        }
        check_read(&self.read, row)
    }
}

/// 400 if `read` filters on what the collection's schema has switched off.
pub fn check_read(read: &Read, row: &CollectionRow) -> Result<(), ApiError> {
    read.filter().map_or(Ok(()), |filter| schema::check_filter(&row.schema, filter))
}

/// Whether clients see this metadata key.
pub(super) fn is_visible(key: &str) -> bool {
    !key.starts_with(HIDDEN_PREFIX)
}
