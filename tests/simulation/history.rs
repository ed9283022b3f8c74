//! What clients did and saw, in the order in which it happened.

use model::CollectionId;
use std::cell::RefCell;

/// The number of a call, from 0.
pub(crate) type CallId = usize;

/// A point in the history: each begin and each end of a call has one of its own.
pub(crate) type Moment = usize;

/// A request and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) collection: CollectionId,
    pub(crate) action: Action,
    pub(crate) began: Moment,
    /// `None` while it runs and for ever if nobody waited for its end.
    pub(crate) ended: Option<Moment>,
    pub(crate) outcome: Outcome,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// A batch under a token of its own, which each of its operations carries.
    Write(Vec<Change>),
    /// Delete the records whose `n` is this.
    DeleteWhere(i64),
    /// All records, or those with these ids, or those whose `n` is this.
    Get {
        ids: Option<Vec<String>>,
        n: Option<i64>,
    },
    Count,
    /// All records by their distance from `[x, 0]`.
    Query(i64),
}

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) kind: model::OperationKind,
    pub(crate) id: String,
    pub(crate) n: Option<i64>,
    pub(crate) x: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It may have happened, may yet, or never will.
    Unknown,
    /// It did not happen and never will.
    Refused,
    /// It is durable; a delete says how many records it removed.
    Acknowledged { deleted: Option<u64> },
    /// Records as lines of text, in the order of the answer.
    Answer(Vec<String>),
}

/// Every call of an execution.
#[derive(Default)]
pub(crate) struct History {
    calls: RefCell<Vec<Call>>,
    moments: RefCell<Moment>,
}

impl History {
    fn moment(&self) -> Moment {
        let mut moments = self.moments.borrow_mut();
        *moments += 1;
        *moments
    }

    /// The number that the next call will have.
    pub(crate) fn next(&self) -> CallId {
        self.calls.borrow().len()
    }

    pub(crate) fn begin(&self, collection: CollectionId, action: Action) -> CallId {
        let began = self.moment();
        let mut calls = self.calls.borrow_mut();
        calls.push(Call { collection, action, began, ended: None, outcome: Outcome::Unknown });
        calls.len() - 1
    }

    pub(crate) fn end(&self, call: CallId, outcome: Outcome) {
        let ended = self.moment();
        let call = &mut self.calls.borrow_mut()[call];
        (call.ended, call.outcome) = (Some(ended), outcome);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }
}
