//! Who owns the next LSN: the rules of claiming and acknowledging as a pure state machine.
//!
//! The writer asks for the next [`Step`], carries it out, and reports what it saw. The rules, each of which loses or
//! doubles data when left out:
//!
//! 1. **Fresh row**: an LSN is put only on a catalog row requested at most [`limits::CLAIM_ROW_AGE_MAX_MS`] ago whose gc
//!    floor is not above it. That its predecessor exists is no evidence by itself: garbage collection is unordered.
//! 2. **Look**: after anything but a clear success the object at the LSN is looked at. Own nonce *and* set-hash: it is
//!    ours, whatever the replies said. Another body: that LSN is lost, the next one is tried with a fresh body.
//! 3. **Same LSN**: until a look has shown another body, no other LSN is tried: nothing there means the *same body* again.
//! 4. **Check after the reply**: success is acknowledged only on a row requested less than [`limits::ANSWER_ROW_AGE_MAX_MS`]
//!    before, with the gc floor still not above the LSN; a floor above it means that nobody can tell any more.

use crate::fragment::FragmentHeader;
use model::safeguard::{Safeguard, holds};
use model::{LogEnd, Lsn, Nonce, SetHash, Timestamp, limits};

/// What a claim needs of a collection's catalog row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowView {
    /// First LSN that may not be deleted.
    pub gc_floor: Lsn,
    /// What is compacted: where the log ends for whoever reads none of its fragments.
    pub compacted: LogEnd,
    /// When the row was asked for (not when it came).
    pub requested_at: Timestamp,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the row from the catalog and report it with [`Claim::row`].
    RefreshRow,
    /// Make a fresh body (new nonce) for the LSN `end.next` and announce it with [`Claim::body`].
    Encode(LogEnd),
    /// Put the announced body if there is no object; report with [`Claim::put`].
    Put(Lsn),
    /// Read the header at this LSN; report with [`Claim::looked`].
    Look(Lsn),
    /// It is over.
    Done(Result<LogEnd, ClaimError>),
}

/// How a put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutReply {
    /// Written by this request.
    Written,
    /// There is an object already.
    Taken,
    /// Certainly not written by this request; the same one may be repeated.
    Busy,
    /// May or may not have been written.
    Unknown,
}

/// Why a claim ended without an LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Nothing was written: another body has the one LSN that was wanted. Only with [`Claim::exactly`].
    #[error("another writer has fragment {0}")]
    Conflict(Lsn),
    /// Nothing was written: the end that was believed lies below the gc floor. Find the end anew.
    #[error("the believed end of the log is below its gc floor")]
    StaleEnd,
    /// Nothing was written, and no time or no try is left: the store did not answer, or others took every LSN.
    #[error("no fragment could be claimed in time")]
    NotWritten,
    /// It may or may not be durable, and cannot be found out any more or in time.
    #[error("the write may or may not be durable")]
    Unknown,
}

/// One attempt to append one batch to one log.
#[derive(Clone, Debug)]
pub struct Claim {
    end: LogEnd,
    exactly: bool,
    row: RowView,
    deadline: Timestamp,
    attempts: u32,
    body: Option<Body>,
    state: State,
}

/// What tells a body from every other, and the end of the log behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Body {
    nonce: Nonce,
    set_hash: SetHash,
    end: LogEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The body at hand, if any, was certainly not written: it may be put, or replaced by another one.
    Free,
    /// A put of the body at hand was answered with "taken" or not clearly. `doubt`: it may have been written.
    Look {
        doubt: bool,
    },
    /// The last look found nothing: the same body must be put again.
    Again,
    /// The body at hand is in the log.
    Written,
    Done(Result<LogEnd, ClaimError>),
}

impl Claim {
    /// A claim of the first free LSN from `end` on.
    pub fn anywhere(end: LogEnd, row: RowView, deadline: Timestamp) -> Self {
        Claim { end, exactly: false, row, deadline, attempts: 0, body: None, state: State::Free }
    }

    /// A claim of `end.next` or nothing: for what was decided by reading everything before it.
    pub fn exactly(end: LogEnd, row: RowView, deadline: Timestamp) -> Self {
        Claim { exactly: true, ..Claim::anywhere(end, row, deadline) }
    }

    /// When it ends, whatever was reached.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// What to do at `now`. Asking again without a report gives the same answer, but for the deadline.
    pub fn step(&mut self, now: Timestamp) -> Step {
        if let Some(result) = self.verdict(now) {
            self.state = State::Done(result);
        }
        let lsn = self.end.next;
        match self.state {
            State::Done(result) => Step::Done(result),
            State::Free | State::Again if !self.row_is_fresh(now) => Step::RefreshRow,
            State::Free if self.body.is_none() => Step::Encode(self.end),
            State::Free | State::Again => Step::Put(lsn),
            State::Look { .. } => Step::Look(lsn),
            State::Written => Step::RefreshRow,
        }
    }

    fn row_is_fresh(&self, now: Timestamp) -> bool {
        now.ms_since(self.row.requested_at) <= limits::CLAIM_ROW_AGE_MAX_MS || !holds(Safeguard::FreshRowBeforeClaim)
    }

    /// The end of the claim, if its state, the row and the time decide it.
    fn verdict(&self, now: Timestamp) -> Option<Result<LogEnd, ClaimError>> {
        let collected = self.row.gc_floor > self.end.next;
        let late = now >= self.deadline;
        match self.state {
            State::Done(result) => Some(result),
            State::Written if !holds(Safeguard::CheckAfterReply) => Some(Ok(self.end_with_body())),
            State::Written if collected => Some(Err(ClaimError::Unknown)),
            State::Written if now.ms_since(self.row.requested_at) < limits::ANSWER_ROW_AGE_MAX_MS => {
                Some(Ok(self.end_with_body()))
            }
            State::Free if collected => Some(Err(ClaimError::StaleEnd)),
            State::Free if late || self.is_exhausted() => Some(Err(ClaimError::NotWritten)),
            State::Look { doubt: false } if late => Some(Err(ClaimError::NotWritten)),
            State::Written | State::Look { .. } | State::Again if late || collected => Some(Err(ClaimError::Unknown)),
            _ => None,
        }
    }

    /// Whether another body would be one too many.
    fn is_exhausted(&self) -> bool {
        self.body.is_none() && self.attempts >= limits::CLAIM_ATTEMPTS_MAX
    }

    fn end_with_body(&self) -> LogEnd {
        self.body.expect("only an announced body is ever written").end
    }

    /// Goes on in place of a request that stopped at a moment nobody knows: its last put may be on its way.
    pub fn resume(&mut self) {
        if self.body.is_some() && matches!(self.state, State::Free | State::Again | State::Look { .. }) {
            self.state = State::Look { doubt: true };
        }
    }

    /// Goes on from `end`, which somebody of this isolate saw, instead of walking there LSN by LSN. Only while no body is
    /// at hand, only forward, and never for a claim of one certain LSN.
    pub fn skip_to(&mut self, end: LogEnd) {
        if self.state == State::Free && self.body.is_none() && !self.exactly && end.next > self.end.next {
            self.end = end;
        }
    }

    /// Reports the row as re-read; an older one than is known changes nothing.
    pub fn row(&mut self, row: RowView) {
        if row.requested_at >= self.row.requested_at {
            self.row = row;
        }
    }

    /// Announces the body made for [`Step::Encode`].
    pub fn body(&mut self, header: &FragmentHeader) {
        assert_eq!(header.lsn, self.end.next, "a body is made for the LSN that is claimed");
        self.body = Some(Body { nonce: header.nonce, set_hash: header.set_hash, end: header.as_end() });
        self.attempts += 1;
    }

    /// Reports how the put ended. Returns whether to wait a moment before the next step.
    #[must_use]
    pub fn put(&mut self, reply: PutReply) -> bool {
        let in_doubt = self.state == State::Again;
        match reply {
            PutReply::Written => self.state = State::Written,
            PutReply::Taken => self.state = State::Look { doubt: in_doubt },
            PutReply::Unknown if !holds(Safeguard::SameLsn) => {
                (self.end, self.body, self.state) = (self.end_with_body(), None, State::Free);
            }
            PutReply::Unknown => self.state = State::Look { doubt: true },
            // What an earlier try of the same body did is as unknown as before.
            PutReply::Busy => {}
        }
        reply == PutReply::Busy
    }

    /// Reports the header found at the LSN: `None` if there is no object.
    pub fn looked(&mut self, header: Option<&FragmentHeader>) {
        let own = self.body.map(|body| (body.nonce, body.set_hash));
        match header {
            None if !holds(Safeguard::SameBody) => (self.body, self.state) = (None, State::Free),
            None => self.state = State::Again,
            Some(header) if Some((header.nonce, header.set_hash)) == own => self.state = State::Written,
            Some(header) if self.exactly => self.state = State::Done(Err(ClaimError::Conflict(header.lsn))),
            Some(header) => {
                self.end = header.as_end();
                self.body = None;
                self.state = State::Free;
            }
        }
    }
}

#[cfg(test)]
mod tests;
