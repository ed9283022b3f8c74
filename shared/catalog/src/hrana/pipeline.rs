//! One Hrana pipeline: statements -> request, reply -> outcomes or the kind of failure. Pure.
//!
//! A pipeline is one batch and the end of the stream. Several statements are one transaction: each step runs only if
//! the one before it succeeded, and what did not reach its COMMIT is rolled back.

use crate::database::{Failure, Outcome, SqlValue, Statement};
use bytes::Bytes;
use http::StatusCode;
use libsql_hrana::proto::{
    Batch, BatchCond, BatchCondList, BatchStep, BatchStreamReq, CloseStreamReq, Error, PipelineReqBody,
    PipelineRespBody, Stmt, StmtResult, StreamRequest, StreamResponse, StreamResult, Value,
};

/// The body of a request that runs `statements` atomically.
pub(super) fn request_body(statements: &[Statement]) -> Bytes {
    let batch = StreamRequest::Batch(BatchStreamReq { batch: batch(statements) });
    let pipeline = PipelineReqBody { baton: None, requests: vec![batch, StreamRequest::Close(CloseStreamReq {})] };
    serde_json::to_vec(&pipeline).expect("Hrana requests have string keys only, so they are JSON").into()
}

fn batch(statements: &[Statement]) -> Batch {
    let lone = statements.len() == 1;
    let mut steps: Vec<BatchStep> = Vec::with_capacity(statements.len() + 3);
    let begin = (!lone).then(|| Stmt::new("BEGIN IMMEDIATE", false));
    let commit = (!lone).then(|| Stmt::new("COMMIT", false));
    for stmt in begin.into_iter().chain(statements.iter().map(sent)).chain(commit) {
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

/// The outcomes of `count` statements, in their order.
pub(super) fn outcomes(status: StatusCode, body: &[u8], count: usize) -> Result<Vec<Outcome>, Failure> {
    if status != StatusCode::OK {
        return Err(Failure::of_reply(status.as_u16(), &String::from_utf8_lossy(body)));
    }
    let reply: PipelineRespBody =
        serde_json::from_slice(body).map_err(|error| Failure::Refused(format!("not a Hrana reply: {error}")))?;
    let batch = match reply.results.into_iter().next() {
        Some(StreamResult::Ok { response: StreamResponse::Batch(batch) }) => batch.result,
        Some(StreamResult::Error { error }) => return Err(said(&error)),
        _ => return Err(Failure::Refused("a Hrana reply without the batch's result".to_owned())),
    };
    if let Some(error) = batch.step_errors.iter().flatten().next() {
        return Err(said(error));
    }
    let begin = usize::from(count > 1);
    let commit = 2 * begin;
    let done: Vec<StmtResult> = batch.step_results.into_iter().map_while(|result| result).collect();
    if done.len() != count + commit {
        return Err(Failure::Refused(format!("a Hrana reply of {} steps, expected {}", done.len(), count + commit)));
    }
    done.into_iter().skip(begin).take(count).map(outcome).collect()
}

fn said(error: &Error) -> Failure {
    Failure::of_database(format!("{}: {}", error.code, error.message))
}

fn sent(statement: &Statement) -> Stmt {
    let mut stmt = Stmt::new(statement.sql.as_str(), statement.is_query);
    stmt.args.extend(statement.args.iter().map(|value| match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(value) => Value::Integer { value: *value },
        SqlValue::Text(text) => Value::Text { value: text.as_str().into() },
    }));
    stmt
}

fn outcome(result: StmtResult) -> Result<Outcome, Failure> {
    let value = |value| match value {
        Value::None | Value::Null => Ok(SqlValue::Null),
        Value::Integer { value } => Ok(SqlValue::Integer(value)),
        Value::Text { value } => Ok(SqlValue::Text(value.as_ref().to_owned())),
        Value::Float { .. } | Value::Blob { .. } => Err(Failure::Refused("a value of a strange type".to_owned())),
    };
    let rows = result.rows.into_iter().map(|row| row.values.into_iter().map(value).collect());
    Ok(Outcome { rows: rows.collect::<Result<_, _>>()?, changed: result.affected_row_count })
}
