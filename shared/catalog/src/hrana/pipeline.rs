//! One Hrana pipeline: statements -> request, reply -> results or the kind of failure. Pure.
//!
//! A pipeline is one batch and the end of the stream. Several statements are one transaction: each step runs only if
//! the one before it succeeded, and what did not reach its COMMIT is rolled back.

use bytes::Bytes;
use http::StatusCode;
use libsql_hrana::proto::{
    Batch, BatchCond, BatchCondList, BatchStep, BatchStreamReq, CloseStreamReq, Error, PipelineReqBody,
    PipelineRespBody, Stmt, StmtResult, StreamRequest, StreamResponse, StreamResult,
};

/// Longest excerpt of a reply that a message quotes, in characters.
const EXCERPT_CHARS_MAX: usize = 200;

/// Why a pipeline gave no results, by what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another writer was in the way, or too many requests: nothing was changed. Try again after a pause.
    Busy(String),
    /// No reply, or one of a gateway in between: what was changed is unknown. Try again only what may happen twice.
    Lost(String),
    /// A table or column is missing: nothing was changed. Run the migrations and try once more.
    Outdated(String),
    /// A UNIQUE constraint: nothing was changed.
    Taken,
    /// Everything else: trying again is useless.
    Refused(String),
}

/// The body of a request that runs `statements` atomically.
pub(super) fn request_body(statements: Vec<Stmt>) -> Bytes {
    let batch = StreamRequest::Batch(BatchStreamReq { batch: batch(statements) });
    let pipeline = PipelineReqBody { baton: None, requests: vec![batch, StreamRequest::Close(CloseStreamReq {})] };
    serde_json::to_vec(&pipeline).expect("Hrana requests have string keys only, so they are JSON").into()
}

fn batch(statements: Vec<Stmt>) -> Batch {
    let lone = statements.len() == 1;
    let mut steps: Vec<BatchStep> = Vec::with_capacity(statements.len() + 3);
    let begin = (!lone).then(|| Stmt::new("BEGIN IMMEDIATE", false));
    let commit = (!lone).then(|| Stmt::new("COMMIT", false));
    for stmt in begin.into_iter().chain(statements).chain(commit) {
        let condition = last_step(&steps).map(|step| BatchCond::Ok { step });
        steps.push(BatchStep { condition, stmt });
    }
    if let (false, Some(commit)) = (lone, last_step(&steps)) {
        let uncommitted = BatchCond::Not { cond: Box::new(BatchCond::Ok { step: commit }) };
        let condition = BatchCond::And(BatchCondList { conds: vec![BatchCond::Ok { step: 0 }, uncommitted] });
        steps.push(BatchStep { condition: Some(condition), stmt: Stmt::new("ROLLBACK", false) });
    }
    Batch { steps, replication_index: None }
}

#[expect(clippy::cast_possible_truncation, reason = "a batch has a handful of steps")]
fn last_step(steps: &[BatchStep]) -> Option<u32> {
    steps.len().checked_sub(1).map(|step| step as u32)
}

/// The results of `count` statements, in their order.
pub(super) fn results(status: StatusCode, body: &[u8], count: usize) -> Result<Vec<StmtResult>, Failure> {
    check_status(status, body)?;
    let reply: PipelineRespBody =
        serde_json::from_slice(body).map_err(|error| Failure::Refused(format!("not a Hrana reply: {error}")))?;
    let batch = match reply.results.into_iter().next() {
        Some(StreamResult::Ok { response: StreamResponse::Batch(batch) }) => batch.result,
        Some(StreamResult::Error { error }) => return Err(classify(&error)),
        _ => return Err(Failure::Refused("a Hrana reply without the batch's result".to_owned())),
    };
    if let Some(error) = batch.step_errors.iter().flatten().next() {
        return Err(classify(error));
    }
    let begin = usize::from(count > 1);
    let commit = 2 * begin;
    let done: Vec<StmtResult> = batch.step_results.into_iter().map_while(|result| result).collect();
    if done.len() != count + commit {
        return Err(Failure::Refused(format!("a Hrana reply of {} steps, expected {}", done.len(), count + commit)));
    }
    Ok(done.into_iter().skip(begin).take(count).collect())
}

fn check_status(status: StatusCode, body: &[u8]) -> Result<(), Failure> {
    let text = || {
        let excerpt: String = String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS_MAX).collect();
        format!("{status}: {excerpt}")
    };
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::TOO_MANY_REQUESTS => Err(Failure::Busy(text())),
        status if status.is_server_error() => Err(Failure::Lost(text())),
        _ => Err(Failure::Refused(text())),
    }
}

/// Whether a refusal means that the rows asked for are more than one reply holds.
pub(super) fn is_too_large(reason: &str) -> bool {
    reason.contains("RESPONSE_TOO_LARGE")
}

/// What a statement's error says. Only codes are contractual, but sqld gives one code to all constraints and none to
/// missing tables, so their messages (SQLite's own, which hold names from our SQL and never a user's text) decide.
fn classify(error: &Error) -> Failure {
    let text = format!("{}: {}", error.code, error.message);
    let says = |part: &str| error.message.contains(part);
    match error.code.as_str() {
        code if code.starts_with("SQLITE_BUSY") || code.starts_with("SQLITE_LOCKED") => Failure::Busy(text),
        // The write lock was taken from our transaction, which is rolled back with it.
        "TRANSACTION_BUSY" | "TRANSACTION_TIMEOUT" => Failure::Busy(text),
        "PROXY_ERROR" => Failure::Lost(text),
        _ if says("UNIQUE constraint failed") => Failure::Taken,
        _ if says("no such table") || says("no such column") || says("has no column named") => Failure::Outdated(text),
        _ => Failure::Refused(text),
    }
}
