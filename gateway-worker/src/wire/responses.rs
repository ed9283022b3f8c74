//! Every 2xx body. Answers with records are streamed from the executor's answer: nothing is copied into JSON values.

use super::records::{Field, IncludeList, is_visible};
use bytes::Bytes;
use catalog::DatabaseRow;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use model::{Metadata, Timestamp, limits};
use query::{Answer, Explain, Hit};
use serde::{Serialize, Serializer};
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// The version of Chroma's API, as its servers report it.
const API_VERSION: &str = "1.0.0";

/// A JSON answer.
pub fn json(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The JSON of a value that has one: strings as keys, no failing `Serialize`.
pub(super) fn to_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("answers are JSON").into()
}

/// `{}`: done, nothing to tell.
pub fn empty() -> Bytes {
    Bytes::from_static(b"{}")
}

/// The answer to a get.
pub fn get(answer: &Answer, include: &IncludeList) -> Bytes {
    let hits = answer.hits.first().map_or(&[][..], Vec::as_slice);
    to_bytes(&GetAnswer {
        ids: Column(hits, id),
        embeddings: include.has(Field::Embeddings).then_some(Column(hits, embedding)),
        documents: include.has(Field::Documents).then_some(Column(hits, document)),
        uris: include.has(Field::Uris).then_some(Column(hits, uri)),
        metadatas: include.has(Field::Metadatas).then_some(Column(hits, metadata)),
        include,
        explain: answer.explain.as_ref(),
    })
}

/// The answer to a query: as for a get, a list for each vector, and distances.
pub fn query(answer: &Answer, include: &IncludeList) -> Bytes {
    let hits = answer.hits.as_slice();
    to_bytes(&QueryAnswer {
        ids: Columns(hits, id),
        embeddings: include.has(Field::Embeddings).then_some(Columns(hits, embedding)),
        documents: include.has(Field::Documents).then_some(Columns(hits, document)),
        uris: include.has(Field::Uris).then_some(Columns(hits, uri)),
        metadatas: include.has(Field::Metadatas).then_some(Columns(hits, metadata)),
        distances: include.has(Field::Distances).then_some(Columns(hits, distance)),
        include,
        explain: answer.explain.as_ref(),
    })
}

#[derive(Serialize)]
struct GetAnswer<'a> {
    ids: Column<'a, &'a str>,
    embeddings: Option<Column<'a, Option<&'a [f32]>>>,
    documents: Option<Column<'a, Option<&'a str>>>,
    uris: Option<Column<'a, Option<&'a str>>>,
    metadatas: Option<Column<'a, Option<Visible<'a>>>>,
    include: &'a IncludeList,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<&'a Explain>,
}

#[derive(Serialize)]
struct QueryAnswer<'a> {
    ids: Columns<'a, &'a str>,
    embeddings: Option<Columns<'a, Option<&'a [f32]>>>,
    documents: Option<Columns<'a, Option<&'a str>>>,
    uris: Option<Columns<'a, Option<&'a str>>>,
    metadatas: Option<Columns<'a, Option<Visible<'a>>>>,
    distances: Option<Columns<'a, Option<f32>>>,
    include: &'a IncludeList,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<&'a Explain>,
}

/// One field of all hits.
struct Column<'a, T>(&'a [Hit], fn(&'a Hit) -> T);

impl<T: Serialize> Serialize for Column<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// One field of all hits of each vector.
struct Columns<'a, T>(&'a [Vec<Hit>], fn(&'a Hit) -> T);

impl<T: Serialize> Serialize for Columns<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|hits| Column(hits, self.1)))
    }
}

/// Metadata without the keys that are the system's own.
struct Visible<'a>(&'a Metadata);

impl Serialize for Visible<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(key, _)| is_visible(key)))
    }
}

fn id(hit: &Hit) -> &str {
    &hit.id
}

fn embedding(hit: &Hit) -> Option<&[f32]> {
    hit.embedding.as_deref()
}

fn document(hit: &Hit) -> Option<&str> {
    hit.document.as_deref()
}

fn uri(hit: &Hit) -> Option<&str> {
    hit.uri.as_deref()
}

fn metadata(hit: &Hit) -> Option<Visible<'_>> {
    hit.metadata.as_ref().map(Visible)
}

fn distance(hit: &Hit) -> Option<f32> {
    hit.distance
}

/// The answer to a count: of records, of collections.
pub fn count(count: u64) -> Bytes {
    to_bytes(&count)
}

/// The answer to a delete.
pub fn deleted(deleted: u64) -> Bytes {
    #[derive(Serialize)]
    struct Deleted {
        deleted: u64,
    }
    to_bytes(&Deleted { deleted })
}

/// The answer to a question for the state of the index: operations in segments, and in all.
pub fn indexing_status(indexed: u64, total: u64) -> Bytes {
    #[derive(Serialize)]
    struct Status {
        op_indexing_progress: f32,
        num_unindexed_ops: u64,
        num_indexed_ops: u64,
        total_ops: u64,
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a share, for people")]
    let progress = if total == 0 { 1.0 } else { (indexed as f64 / total as f64) as f32 };
    to_bytes(&Status {
        op_indexing_progress: progress,
        num_unindexed_ops: total.saturating_sub(indexed),
        num_indexed_ops: indexed,
        total_ops: total,
    })
}

/// The answer to a reset.
pub fn reset() -> Bytes {
    to_bytes(&true)
}

/// The answer to a heartbeat, in nanoseconds; the clock has milliseconds.
pub fn heartbeat(now: Timestamp) -> Bytes {
    #[derive(Serialize)]
    struct Heartbeat {
        #[serde(rename = "nanosecond heartbeat")]
        nanoseconds: u64,
    }
    to_bytes(&Heartbeat { nanoseconds: now.0.saturating_mul(1_000_000) })
}

/// The API's version, a JSON string.
pub fn version() -> Bytes {
    to_bytes(&API_VERSION)
}

/// What clients ask before they write.
pub fn preflight() -> Bytes {
    #[derive(Serialize)]
    struct Preflight {
        max_batch_size: u64,
        supports_base64_encoding: bool,
    }
    to_bytes(&Preflight { max_batch_size: limits::BATCH_RECORDS_MAX, supports_base64_encoding: true })
}

/// The body of a health check: 200 if both are ready, else 503.
pub fn healthcheck(executor_ready: bool, log_ready: bool) -> (StatusCode, Bytes) {
    #[derive(Serialize)]
    struct Health {
        is_executor_ready: bool,
        is_log_client_ready: bool,
    }
    let status = if executor_ready && log_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, to_bytes(&Health { is_executor_ready: executor_ready, is_log_client_ready: log_ready }))
}

/// Who the caller is, and where it may go.
pub fn identity(user_id: &str, tenant: &str, databases: &[&str]) -> Bytes {
    #[derive(Serialize)]
    struct Identity<'a> {
        user_id: &'a str,
        tenant: &'a str,
        databases: &'a [&'a str],
    }
    to_bytes(&Identity { user_id, tenant, databases })
}

/// A tenant.
pub fn tenant(name: &str) -> Bytes {
    #[derive(Serialize)]
    struct Tenant<'a> {
        name: &'a str,
        resource_name: Option<&'a str>,
    }
    to_bytes(&Tenant { name, resource_name: None })
}

#[derive(Serialize)]
struct Database<'a> {
    id: Uuid,
    name: &'a str,
    tenant: &'a str,
}

impl<'a> From<&'a DatabaseRow> for Database<'a> {
    fn from(row: &'a DatabaseRow) -> Self {
        Database { id: Uuid::from_u128(row.id), name: &row.name, tenant: &row.tenant }
    }
}

/// A database.
pub fn database(row: &DatabaseRow) -> Bytes {
    to_bytes(&Database::from(row))
}

/// A listing of databases.
pub fn databases(rows: &[DatabaseRow]) -> Bytes {
    to_bytes(&rows.iter().map(Database::from).collect::<Vec<_>>())
}
