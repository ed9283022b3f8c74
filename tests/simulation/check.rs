//! Whether a history can have been: whether some order of its calls explains every answer and keeps real time.
//!
//! The log gives that order away, so no search is needed. Fragment by fragment a plain list of records is brought up to
//! date; each write has its place in the log, and a read must match the records behind some fragment that it may have
//! seen. Taking for each read the first such place that the calls before it allow is as good as any other choice.

use crate::history::{Action, Call, CallId, Moment, Outcome};
use crate::ledger::Entry;
use model::{MetadataValue, Operation, OperationKind};
use std::collections::HashMap;

/// What is wrong with `calls` on a collection whose log is `log`, if anything is.
pub(crate) fn check(calls: &[(CallId, Call)], log: &[Entry]) -> Result<(), String> {
    let by_id: HashMap<CallId, &Call> = calls.iter().map(|(id, call)| (*id, call)).collect();
    let places = places(&by_id, log)?;
    let states = states(log);
    for (id, call) in calls {
        check_presence(*id, call, places.get(id))?;
    }
    check_order(&by_id, &places)?;
    for (id, call) in calls {
        if let (Action::DeleteWhere(n), Some(place)) = (&call.action, places.get(id)) {
            check_deletion(*id, call, *n, &states[place.lsn], &log[place.lsn])?;
        }
    }
    check_reads(calls, &places, &states)
}

/// Where a write stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    lsn: usize,
    /// Among the writes that share the fragment.
    index: usize,
}

/// The place of each write in the log. Errors: a batch that is there in part or twice, or that nobody sent.
fn places(calls: &HashMap<CallId, &Call>, log: &[Entry]) -> Result<HashMap<CallId, Place>, String> {
    let mut places = HashMap::new();
    for (lsn, entry) in log.iter().enumerate() {
        for (index, (token, batch)) in batches(&entry.operations).into_iter().enumerate() {
            let id = token.or(entry.sender).ok_or_else(|| format!("nobody sent fragment {lsn}"))?;
            let call = calls.get(&id).ok_or_else(|| format!("fragment {lsn} holds call {id}, which nobody made"))?;
            let is_whole = match &call.action {
                Action::Write(changes) => {
                    let sent = changes.iter().map(|change| (change.kind, change.id.as_str()));
                    sent.eq(batch.iter().map(|operation| (operation.kind, operation.id.as_str())))
                }
                Action::DeleteWhere(_) => token.is_none() && batch.len() == entry.operations.len(),
                _ => false,
            };
            if !is_whole {
                return Err(format!("fragment {lsn} does not hold call {id} as it was sent: {batch:?}"));
            }
            if let Some(first) = places.insert(id, Place { lsn, index }) {
                return Err(format!("call {id} stands twice in the log: {first:?} and fragment {lsn}"));
            }
        }
    }
    Ok(places)
}

/// The id that a batch of deletions begins with: there is no such record.
pub(crate) fn marker(token: CallId) -> String {
    format!("token-{token}")
}

/// The batches in a fragment, each under its token; those without are deletions by filter.
fn batches(operations: &[Operation]) -> Vec<(Option<CallId>, Vec<&Operation>)> {
    let mut batches: Vec<(Option<CallId>, Vec<&Operation>)> = Vec::new();
    for operation in operations {
        let marked = operation.id.as_str().strip_prefix("token-").and_then(|token| token.parse().ok());
        let token = marked.or_else(|| token_of(operation));
        let last = batches.last_mut().filter(|(of, batch)| {
            *of == token || token.is_none() && batch.iter().all(|before| before.kind == OperationKind::Delete)
        });
        match last {
            Some((_, batch)) => batch.push(operation),
            None => batches.push((token, vec![operation])),
        }
    }
    batches
}

fn token_of(operation: &Operation) -> Option<CallId> {
    match operation.metadata.as_ref()?.get("w")?.as_ref()? {
        MetadataValue::Int(token) => usize::try_from(*token).ok(),
        _ => None,
    }
}

fn check_presence(id: CallId, call: &Call, place: Option<&Place>) -> Result<(), String> {
    let removes_nothing = call.outcome == Outcome::Acknowledged { deleted: Some(0) };
    match (&call.outcome, place) {
        (Outcome::Acknowledged { .. }, None) if !removes_nothing => {
            Err(format!("call {id} was acknowledged and is not in the log: {:?}", call.action))
        }
        (Outcome::Refused, Some(place)) => Err(format!("call {id} was refused and is in the log at {place:?}")),
        _ => Ok(()),
    }
}

fn check_order(calls: &HashMap<CallId, &Call>, places: &HashMap<CallId, Place>) -> Result<(), String> {
    for (earlier, place) in places {
        for (later, after) in places {
            if is_done_before(calls[earlier], calls[later].began) && place >= after {
                return Err(format!("call {earlier} at {place:?} ended before call {later} at {after:?} began"));
            }
        }
    }
    Ok(())
}

/// Whether the client knew that the write is durable.
fn is_done_before(write: &Call, moment: Moment) -> bool {
    matches!(write.outcome, Outcome::Acknowledged { .. }) && write.ended.is_some_and(|ended| ended < moment)
}

fn check_deletion(id: CallId, call: &Call, n: i64, before: &State, entry: &Entry) -> Result<(), String> {
    let mut matching: Vec<&str> = before.0.iter().filter(|row| row.n == Some(n)).map(|row| row.id.as_str()).collect();
    let mut deleted: Vec<&str> = entry.operations.iter().map(|operation| operation.id.as_str()).collect();
    matching.sort_unstable();
    deleted.sort_unstable();
    if matching != deleted {
        return Err(format!("call {id} deletes {deleted:?} where n = {n} matches {matching:?}"));
    }
    match call.outcome {
        Outcome::Acknowledged { deleted: Some(told) } if told != matching.len() as u64 => {
            Err(format!("call {id} deleted {} records and said {told}", matching.len()))
        }
        _ => Ok(()),
    }
}

/// Each read takes the first state that matches and that is not before what it must have seen.
fn check_reads(calls: &[(CallId, Call)], places: &HashMap<CallId, Place>, states: &[State]) -> Result<(), String> {
    let mut reads: Vec<(&Call, usize)> = Vec::new();
    let mut in_order: Vec<&(CallId, Call)> = calls.iter().collect();
    in_order.sort_by_key(|(_, call)| call.began);
    for (id, call) in in_order {
        let Some(ended) = call.ended else { continue };
        let expect = |state: &State| match (&call.action, &call.outcome) {
            (Action::DeleteWhere(n), Outcome::Acknowledged { deleted: Some(0) }) => {
                Some(state.0.iter().all(|row| row.n != Some(*n)))
            }
            (action, Outcome::Answer(lines)) => Some(*lines == state.answer(action)),
            _ => None,
        };
        if expect(&states[0]).is_none() {
            continue;
        }
        let written = |of: &dyn Fn(&Call) -> bool| {
            let of_call = |id: &CallId| calls.iter().find(|(other, _)| other == id).is_some_and(|(_, call)| of(call));
            places.iter().filter(move |(id, _)| of_call(id)).map(|(_, place)| place.lsn).collect::<Vec<_>>()
        };
        let seen = written(&|write| is_done_before(write, call.began)).into_iter().map(|lsn| lsn + 1).max();
        let unseen = written(&|write| write.began > ended).into_iter().min();
        let before = reads.iter().filter(|(read, _)| read.ended.is_some_and(|ended| ended < call.began));
        let low = before.map(|(_, at)| *at).chain(seen).max().unwrap_or(0);
        let high = unseen.unwrap_or(states.len() - 1);
        let found = (low..=high).find(|at| expect(&states[*at]) == Some(true));
        let Some(at) = found else {
            let expected: Vec<String> =
                (low..=high).map(|at| format!("{at}: {:?}", states[at].answer(&call.action))).collect();
            return Err(format!("call {id}, {:?}, saw {:?}; expected {expected:#?}", call.action, call.outcome));
        };
        reads.push((call, at));
    }
    Ok(())
}

/// The records of a collection in the order of their insertion.
#[derive(Clone, Debug, Default)]
struct State(Vec<Row>);

#[derive(Clone, Debug)]
struct Row {
    id: String,
    token: CallId,
    n: Option<i64>,
    x: f32,
    document: String,
}

/// The state before the first fragment and behind each.
fn states(log: &[Entry]) -> Vec<State> {
    let mut states = vec![State::default()];
    for entry in log {
        let mut state = states[states.len() - 1].clone();
        entry.operations.iter().for_each(|operation| state.apply(operation));
        states.push(state);
    }
    states
}

impl State {
    fn apply(&mut self, operation: &Operation) {
        let at = self.0.iter().position(|row| row.id == operation.id.as_str());
        match (operation.kind, at) {
            (OperationKind::Add | OperationKind::Upsert, None) => {
                let id = operation.id.as_str().to_owned();
                self.0.push(Row { id, token: 0, n: None, x: 0.0, document: String::new() });
                let last = self.0.len() - 1;
                self.0[last].change(operation);
            }
            (OperationKind::Update | OperationKind::Upsert, Some(at)) => self.0[at].change(operation),
            (OperationKind::Delete, Some(at)) => drop(self.0.remove(at)),
            (OperationKind::Add, Some(_)) | (OperationKind::Update | OperationKind::Delete, None) => {}
        }
    }

    /// What a read of these records answers.
    fn answer(&self, action: &Action) -> Vec<String> {
        match action {
            Action::Get { ids, n } => {
                let rows = self.0.iter().filter(|row| ids.as_ref().is_none_or(|ids| ids.contains(&row.id)));
                rows.filter(|row| n.is_none() || row.n == *n).map(Row::line).collect()
            }
            Action::Count => vec![self.0.len().to_string()],
            Action::Query(x) => {
                let mut lines: Vec<String> = self.0.iter().map(|row| row.line_at_distance(*x)).collect();
                lines.sort_unstable();
                lines
            }
            Action::Write(_) | Action::DeleteWhere(_) => Vec::new(),
        }
    }
}

impl Row {
    fn change(&mut self, operation: &Operation) {
        if let Some(vector) = &operation.embedding {
            self.x = vector[0];
        }
        if let Some(document) = &operation.document {
            self.document.clone_from(document);
        }
        if let Some(token) = token_of(operation) {
            self.token = token;
        }
        let n = operation.metadata.as_ref().and_then(|metadata| metadata.get("n"));
        if let Some(Some(MetadataValue::Int(n))) = n {
            self.n = Some(*n);
        }
    }

    fn line(&self) -> String {
        line(&self.id, self.token as u64, self.n, self.x, &self.document)
    }

    fn line_at_distance(&self, x: i64) -> String {
        #[expect(clippy::cast_precision_loss, reason = "coordinates are small")]
        let along = self.x - x as f32;
        format!("{} at {}", self.line(), along * along + 1.0)
    }
}

/// A record in one line.
pub(crate) fn line(id: &str, token: u64, n: Option<i64>, x: f32, document: &str) -> String {
    format!("{id} w={token} n={n:?} x={x} {document:?}")
}
