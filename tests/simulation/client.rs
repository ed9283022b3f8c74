//! Clients: what they ask for, as HTTP, and what they make of the answer.

use crate::check::{line, marker};
use crate::history::{Action, CallId, Change, Outcome};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use model::{CollectionId, OperationKind};
use runtime::SimulatedRuntime;
use serde_json::{Map, Value, json};

/// The path of everything in the default database.
pub(crate) const COLLECTIONS: &str = "/api/v2/tenants/default_tenant/databases/default_database/collections";

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// Of 100 calls, so many delete by filter.
    pub(crate) deletions: u64,
    /// So many records there are at most: few, so that writes meet; several, so that there are several segments.
    pub(crate) ids: usize,
}

const IDS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const N_MAX: u64 = 3;
const X_MAX: u64 = 4;

/// Something to ask for; `token`: the number of the call.
pub(crate) fn draw(runtime: &SimulatedRuntime, habits: &Habits, token: CallId) -> Action {
    let ids = &IDS[..habits.ids];
    if runtime.chance(10 * habits.deletions) {
        return Action::DeleteWhere(small(runtime, N_MAX));
    }
    match runtime.below(100) {
        0..35 => Action::Write(changes(runtime, ids, OperationKind::Upsert)),
        35..45 => Action::Write(changes(runtime, ids, OperationKind::Add)),
        45..58 => Action::Write(changes(runtime, ids, OperationKind::Update)),
        58..66 => {
            let delete = |id: String| Change { kind: OperationKind::Delete, id, n: None, x: None };
            Action::Write(std::iter::once(marker(token)).chain(some_ids(runtime, ids)).map(delete).collect())
        }
        66..78 => Action::Get { ids: None, n: None },
        78..82 => Action::Get { ids: Some(some_ids(runtime, ids)), n: None },
        82..90 => Action::Get { ids: None, n: Some(small(runtime, N_MAX)) },
        90..94 => Action::Count,
        _ => Action::Query(small(runtime, X_MAX)),
    }
}

/// A write that every world must be able to do in the end.
pub(crate) fn last_changes() -> Vec<Change> {
    vec![Change { kind: OperationKind::Upsert, id: IDS[0].to_owned(), n: Some(0), x: Some(0) }]
}

#[expect(clippy::cast_possible_wrap, reason = "below a small limit")]
fn small(runtime: &SimulatedRuntime, limit: u64) -> i64 {
    runtime.below(limit) as i64
}

/// One, two or three of them.
fn some_ids(runtime: &SimulatedRuntime, ids: &[&str]) -> Vec<String> {
    let begin = runtime.below(ids.len() as u64);
    let ids = ids.iter().cycle().skip(usize::try_from(begin).unwrap_or(0));
    ids.take(*runtime.pick(&[1, 1, 2, 3])).map(|id| (*id).to_owned()).collect()
}

fn changes(runtime: &SimulatedRuntime, ids: &[&str], kind: OperationKind) -> Vec<Change> {
    let needs_vector = kind != OperationKind::Update;
    let change = |id| Change {
        kind,
        id,
        n: runtime.chance(700).then(|| small(runtime, N_MAX)),
        x: (needs_vector || runtime.chance(500)).then(|| small(runtime, X_MAX)),
    };
    // An update has vectors for all of its records or for none.
    let mut changes: Vec<Change> = some_ids(runtime, ids).into_iter().map(change).collect();
    let x = changes[0].x;
    changes.iter_mut().filter(|change| change.x.is_some() != x.is_some()).for_each(|change| change.x = x);
    changes
}

/// The request for `action`.
pub(crate) fn request(collection: CollectionId, action: &Action, token: CallId) -> Request<Bytes> {
    let everything = json!(["metadatas", "documents", "embeddings"]);
    let (method, verb, body) = match action {
        Action::Write(changes) => ("POST", verb(changes[0].kind), batch(changes, token)),
        Action::DeleteWhere(n) => ("POST", "delete", json!({ "where": { "n": n } })),
        Action::Get { ids, n } => {
            let filter = n.map(|n| json!({ "n": n }));
            ("POST", "get", json!({ "ids": ids, "where": filter, "include": everything }))
        }
        Action::Count => ("GET", "count", Value::Null),
        Action::Query(x) => {
            let include = json!(["metadatas", "documents", "embeddings", "distances"]);
            ("POST", "query", json!({ "query_embeddings": [[x, 0]], "n_results": 100, "include": include }))
        }
    };
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(format!("{COLLECTIONS}/{collection}/{verb}"));
    request.body(body).expect("a valid request")
}

fn verb(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Add => "add",
        OperationKind::Update => "update",
        OperationKind::Upsert => "upsert",
        OperationKind::Delete => "delete",
    }
}

/// A batch; each of its records carries the token, a document if it is inserted, and what else changes.
fn batch(changes: &[Change], token: CallId) -> Value {
    let ids: Vec<&str> = changes.iter().map(|change| change.id.as_str()).collect();
    if changes[0].kind == OperationKind::Delete {
        return json!({ "ids": ids });
    }
    let metadata = |change: &Change| {
        let mut metadata = Map::from_iter([("w".to_owned(), json!(token))]);
        metadata.extend(change.n.map(|n| ("n".to_owned(), json!(n))));
        metadata
    };
    let metadatas: Vec<Map<String, Value>> = changes.iter().map(metadata).collect();
    let mut body = json!({ "ids": ids, "metadatas": metadatas });
    if changes[0].x.is_some() {
        body["embeddings"] = changes.iter().map(|change| json!([change.x, 1])).collect();
    }
    if changes[0].kind != OperationKind::Update {
        body["documents"] = ids.iter().map(|_| json!(format!("text {token}"))).collect();
    }
    body
}

/// What the client learns. Errors: an answer that no fault of store, catalog or network excuses.
pub(crate) fn outcome(action: &Action, response: &Response<Bytes>) -> Result<Outcome, String> {
    let text = String::from_utf8_lossy(response.body());
    let body: Value = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
    let status = response.status();
    if status.is_success() {
        return Ok(match action {
            Action::Write(_) => Outcome::Acknowledged { deleted: None },
            Action::DeleteWhere(_) => Outcome::Acknowledged { deleted: body["deleted"].as_u64() },
            read => Outcome::Answer(lines(read, &body)),
        });
    }
    let says_nothing_happened = ["Nothing was written", "nothing was deleted"].iter().any(|word| text.contains(word));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Ok(Outcome::Refused),
        StatusCode::SERVICE_UNAVAILABLE if says_nothing_happened => Ok(Outcome::Refused),
        StatusCode::SERVICE_UNAVAILABLE => Ok(Outcome::Unknown),
        _ => Err(format!("{action:?} was answered {status}: {text}")),
    }
}

fn lines(action: &Action, body: &Value) -> Vec<String> {
    match action {
        Action::Count => vec![body.to_string()],
        Action::Query(_) => {
            let of = |field: &str| body[field][0].clone();
            let rows = rows(&of("ids"), &of("metadatas"), &of("embeddings"), &of("documents"));
            let at = |(index, row)| format!("{row} at {}", body["distances"][0][index].as_f64().unwrap_or(f64::NAN));
            let mut lines: Vec<String> = rows.into_iter().enumerate().map(at).collect();
            lines.sort_unstable();
            lines
        }
        _ => rows(&body["ids"], &body["metadatas"], &body["embeddings"], &body["documents"]),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "small integers")]
fn rows(ids: &Value, metadatas: &Value, embeddings: &Value, documents: &Value) -> Vec<String> {
    let row = |(index, id): (usize, &Value)| {
        let metadata = &metadatas[index];
        let x = embeddings[index][0].as_f64().unwrap_or(f64::NAN) as f32;
        let token = metadata["w"].as_u64().unwrap_or(u64::MAX);
        line(id.as_str().unwrap_or("?"), token, metadata["n"].as_i64(), x, documents[index].as_str().unwrap_or(""))
    };
    ids.as_array().into_iter().flatten().enumerate().map(row).collect()
}
