//! Carries out what [`crate::claim`] decides.

use crate::claim::{Claim, ClaimError, PutReply, RowView, Step};
use crate::columns::Contents;
use crate::fragment::{self, FragmentHeader, KeyedRequest};
use crate::reader::{Reader, TailError};
use bytes::Bytes;
use futures_util::future::join;
use model::safeguard::{Safeguard, holds};
use model::{CollectionId, LogEnd, Lsn, Nonce, Operation, Timestamp, keys};
use runtime::{Backoff, Runtime};
use std::cell::RefCell;
use storage::{ObjectStore, PutError, PutMode};

/// Reads a collection's catalog row anew, from the primary.
pub trait RowSource {
    /// The row as it is now; `requested_at` is the time before the request was sent.
    async fn refresh(&self) -> Result<RowView, RefreshError>;

    /// The latest end of the log that anybody of this isolate has seen, at no cost. It saves a writer that lost its
    /// claim the walk to where the winners are.
    fn known_end(&self) -> Option<LogEnd> {
        None
    }
}

/// Why there is no fresh row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The collection was deleted: what was written to its log is gone with it.
    #[error("the collection was deleted")]
    Deleted,
    /// The catalog did not answer: try again.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written: another writer was there first. Only with [`Append::exactly`]: decide again.
    #[error("another writer has fragment {0}")]
    Conflict(Lsn),
    /// Nothing was written: what was believed of the end of the log is too old. Forget it and begin anew.
    #[error("the believed end of the log is below its gc floor")]
    StaleEnd,
    /// Nothing was written; the same batch may be sent again.
    #[error("{0}")]
    NotWritten(String),
    /// It may or may not be durable: read before sending it again.
    #[error("{0}")]
    Unknown(String),
    /// The collection was deleted meanwhile.
    #[error("the collection was deleted")]
    Deleted,
    /// An object of the log is not what was written, or the store refuses to serve us.
    #[error("{key}: {reason}")]
    Broken {
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An append under way: plain data, so that another request may go on with it when the one that began it stops.
#[derive(Debug)]
pub struct Append {
    /// Until they are encoded for the first time.
    operations: Vec<Operation>,
    contents: Contents,
    request: Option<KeyedRequest>,
    claim: Claim,
    /// Empty until the first one is made.
    body: Bytes,
    /// Whether the row was read since the operations were settled.
    revalidated: bool,
}

impl Append {
    /// All of `operations` as one fragment at `end`, or behind it if that is taken.
    ///
    /// `row` is the row as last seen. Whoever's operations these are must have asked before: an acknowledgement proves
    /// that the collection was not deleted before this call.
    pub fn anywhere(operations: Vec<Operation>, end: LogEnd, row: RowView, deadline: Timestamp) -> Self {
        Append::new(operations, Claim::anywhere(end, row, deadline))
    }

    /// All of `operations` as one fragment at `end` or nowhere: they were decided by reading everything before it.
    pub fn exactly(operations: Vec<Operation>, end: LogEnd, row: RowView, deadline: Timestamp) -> Self {
        Append::new(operations, Claim::exactly(end, row, deadline))
    }

    /// With what is remembered of the request, so that it is not carried out twice.
    #[must_use]
    pub fn keyed(self, request: Option<KeyedRequest>) -> Self {
        Append { request, ..self }
    }

    fn new(operations: Vec<Operation>, claim: Claim) -> Self {
        let contents = Contents::of(operations.iter().map(Operation::view));
        Append { operations, contents, request: None, claim, body: Bytes::new(), revalidated: false }
    }

    /// To be called by whoever goes on with what another request stopped doing.
    pub fn resume(&mut self) {
        self.claim.resume();
    }

    /// To be called when it ended with [`AppendError::StaleEnd`]: nothing of it was written, and it begins at `end`.
    pub fn begin_again(&mut self, end: LogEnd, row: RowView, deadline: Timestamp) {
        self.claim = Claim::anywhere(end, row, deadline);
    }

    fn step(&mut self, now: Timestamp) -> Step {
        match self.claim.step(now) {
            // A success counts only when the row was seen during this write.
            Step::Done(Ok(_)) if !self.revalidated && now < self.claim.deadline() => Step::RefreshRow,
            Step::Done(Ok(_)) if !self.revalidated => Step::Done(Err(ClaimError::Unknown)),
            step => step,
        }
    }

    fn report_row(&mut self, row: Result<RowView, RefreshError>) -> Result<(), AppendError> {
        match row {
            Ok(row) => self.claim.row(row),
            Err(RefreshError::Deleted) => return Err(AppendError::Deleted),
            Err(RefreshError::Unavailable(_)) => return Ok(()),
        }
        self.revalidated = true;
        Ok(())
    }

    /// A body of its own for each LSN and each try of another one: the nonce says whose put succeeded.
    fn encode(&mut self, collection: CollectionId, end: &LogEnd, nonce: Nonce, now: Timestamp) {
        let mut header = FragmentHeader::behind(end, collection, nonce, now, &self.contents);
        header.requests.extend(self.request.clone());
        self.claim.body(&header);
        self.body = if self.body.is_empty() {
            fragment::encode(&header, &std::mem::take(&mut self.operations))
        } else {
            fragment::with_header(&self.body, &header).expect("a body made here is sound")
        };
    }
}

/// Appends to the log of one collection.
#[derive(Clone, Copy)]
pub struct Writer<'a, S, R, V> {
    /// The bucket. Puts must not be repeated below this: the claim decides what an unclear reply means.
    pub store: &'a S,
    /// Clock, randomness and sleep.
    pub runtime: &'a R,
    /// The catalog's row.
    pub rows: &'a V,
    /// Whose log.
    pub collection: CollectionId,
}

impl<S: ObjectStore, R: Runtime, V: RowSource> Writer<'_, S, R, V> {
    /// Appends `operations` as one fragment behind all others, wherever that is. See [`Writer::find_end`] and
    /// [`Writer::carry_out`].
    pub async fn append(
        &self,
        operations: Vec<Operation>,
        row: RowView,
        deadline: Timestamp,
    ) -> Result<LogEnd, AppendError> {
        let end = self.find_end(row.compacted).await?;
        let append = RefCell::new(Append::anywhere(operations, end, row, deadline));
        self.carry_out(&append, || true).await.expect("nobody else goes on with it")
    }

    /// Carries out an append: all of its operations or none. Returns the end of the log behind it; `None` as soon as
    /// `is_mine` says that another request has taken over.
    ///
    /// Beside the first put the row is read again, so that an acknowledgement also proves that the collection was not
    /// deleted before the write began.
    ///
    /// Cost, warm and uncontended: one put and, beside it, one catalog read.
    pub async fn carry_out(
        &self,
        append: &RefCell<Append>,
        is_mine: impl Fn() -> bool,
    ) -> Option<Result<LogEnd, AppendError>> {
        let mut backoff = Backoff::default();
        while is_mine() {
            let now = self.runtime.now();
            let step = append.borrow_mut().step(now);
            let pause = match step {
                Step::Done(result) => return Some(result.map_err(AppendError::from)),
                Step::Encode(end) => {
                    let nonce = if holds(Safeguard::FreshNonce) { Nonce(self.runtime.random()) } else { Nonce(1) };
                    append.borrow_mut().encode(self.collection, &end, nonce, now);
                    Ok(false)
                }
                Step::Put(lsn) => self.put(lsn, append).await,
                Step::Look(lsn) => self.look(lsn, append).await,
                Step::RefreshRow => {
                    let row = self.rows.refresh().await;
                    let answered = row.is_ok();
                    append.borrow_mut().report_row(row).map(|()| !answered)
                }
            };
            match pause {
                Ok(true) => drop(backoff.pause(self.runtime).await),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// Puts the body, the first time with a look at the row beside it. Returns whether a pause is due.
    async fn put(&self, lsn: Lsn, append: &RefCell<Append>) -> Result<bool, AppendError> {
        let (body, revalidated) = {
            let append = append.borrow();
            (append.body.clone(), append.revalidated)
        };
        let reply = if revalidated {
            self.put_body(lsn, body).await
        } else {
            let (reply, row) = join(self.put_body(lsn, body), self.rows.refresh()).await;
            append.borrow_mut().report_row(row)?;
            reply
        };
        Ok(append.borrow_mut().claim.put(reply?))
    }

    async fn put_body(&self, lsn: Lsn, body: Bytes) -> Result<PutReply, AppendError> {
        let key = keys::fragment(self.collection, lsn);
        match self.store.put(&key, body, PutMode::Create).await {
            Ok(_) => Ok(PutReply::Written),
            Err(PutError::Precondition) => Ok(PutReply::Taken),
            Err(PutError::Busy(_)) => Ok(PutReply::Busy),
            Err(PutError::Indeterminate(_)) => Ok(PutReply::Unknown),
            Err(PutError::Refused(reason)) => Err(AppendError::Broken { key, reason }),
        }
    }

    /// Looks at what is at `lsn`. Returns whether a pause is due.
    async fn look(&self, lsn: Lsn, append: &RefCell<Append>) -> Result<bool, AppendError> {
        let header = match self.header(lsn).await {
            Ok(header) => header,
            Err(AppendError::NotWritten(_)) => return Ok(true),
            Err(broken) => return Err(broken),
        };
        let claim = &mut append.borrow_mut().claim;
        claim.looked(header.as_ref());
        if let Some(end) = self.rows.known_end() {
            claim.skip_to(end);
        }
        // A put that vanished: the store is in trouble, and the put may still be on its way.
        Ok(header.is_none())
    }

    /// The header at `lsn`; `None` if there is no object. Cost: one ranged get. Errors: as of an append that left nothing
    /// behind.
    pub async fn header(&self, lsn: Lsn) -> Result<Option<FragmentHeader>, AppendError> {
        Ok(self.reader().header(lsn).await?)
    }

    /// The end of the log: the first LSN that does not exist behind what is `compacted`, and its predecessor's header.
    ///
    /// Cost: see [`Reader::find_next`], and one ranged get if it is not where compaction ended, whose fragments may be
    /// collected. Errors: as of an append that left nothing behind.
    pub async fn find_end(&self, compacted: LogEnd) -> Result<LogEnd, AppendError> {
        let next = self.reader().find_next(compacted.next).await?;
        let last = next.previous().filter(|_| next > compacted.next);
        let Some(last) = last else { return Ok(compacted) };
        self.header(last).await?.map(|header| header.as_end()).ok_or(AppendError::StaleEnd)
    }

    fn reader(&self) -> Reader<'_, S> {
        Reader { store: self.store, collection: self.collection }
    }
}

/// A read that failed before anything was put.
impl From<TailError> for AppendError {
    fn from(error: TailError) -> Self {
        match error {
            TailError::Unavailable(reason) => AppendError::NotWritten(reason),
            TailError::Broken { key, reason } => AppendError::Broken { key, reason },
        }
    }
}

impl From<ClaimError> for AppendError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Conflict(lsn) => AppendError::Conflict(lsn),
            ClaimError::StaleEnd => AppendError::StaleEnd,
            ClaimError::NotWritten => AppendError::NotWritten(error.to_string()),
            ClaimError::Unknown => AppendError::Unknown(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
