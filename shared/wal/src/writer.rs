//! Carries out what [`crate::claim`] decides.

use crate::claim::{Claim, ClaimError, PutReply, RowView, Step};
use crate::fragment::{self, FragmentHeader, HEADER_BYTES_MAX};
use crate::tail::EndSearch;
use bytes::Bytes;
use futures_util::future::{join, join_all};
use model::{CollectionId, LogEnd, Lsn, Nonce, Operation, SetHash, Timestamp, keys};
use runtime::{Backoff, Runtime};
use storage::{ObjectStore, PutError, PutMode, ReadError};

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

/// Where a batch may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// To the first free LSN. `Some`: where the end was last seen, which saves finding it.
    Anywhere(Option<LogEnd>),
    /// To this LSN or nowhere: the batch was decided by reading everything before it.
    Exactly(LogEnd),
}

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written: another writer was there first. Only with [`Placement::Exactly`]: decide again.
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
    /// Appends `operations` as one fragment: all of them or none. Returns the end of the log behind it.
    ///
    /// `row` is the row as last seen. Beside the first put it is read again, so that an acknowledgement also proves
    /// that the collection was not deleted before the write began.
    ///
    /// Cost, warm and uncontended: one put and, beside it, one catalog read. Cold: about log₄ of the log's length in
    /// HEADs, five at a time, and one ranged get first.
    pub async fn append(
        &self,
        operations: &[Operation],
        row: RowView,
        placement: Placement,
        deadline: Timestamp,
    ) -> Result<LogEnd, AppendError> {
        let mut claim = match placement {
            Placement::Exactly(end) => Claim::exactly(end, row, deadline),
            Placement::Anywhere(Some(end)) => Claim::anywhere(end, row, deadline),
            Placement::Anywhere(None) => Claim::anywhere(self.find_end(row.watermark).await?, row, deadline),
        };
        let set_hash = fragment::set_hash(operations);
        let mut body = Bytes::new();
        let mut backoff = Backoff::default();
        let mut revalidated = false;
        loop {
            let mut step = Some(claim.step(self.runtime.now()));
            while let Some(now) = step.take() {
                match now {
                    Step::Encode(end) => body = self.encode(operations, set_hash, end, &mut claim),
                    Step::Put(lsn) if !revalidated => {
                        let (reply, row) = join(self.put(lsn, &body), self.rows.refresh()).await;
                        revalidated = self.report_row(row, &mut claim)?;
                        step = claim.put(reply?);
                    }
                    Step::Put(lsn) => step = claim.put(self.put(lsn, &body).await?),
                    Step::Look(lsn) => step = self.look(lsn, &mut claim).await?,
                    Step::RefreshRow => {
                        revalidated = self.report_row(self.rows.refresh().await, &mut claim)?;
                        step = (!revalidated).then_some(Step::Pause);
                    }
                    Step::Pause => drop(backoff.pause(self.runtime).await),
                    // A success counts only when the row was seen during this write.
                    Step::Done(Ok(_)) if !revalidated && self.runtime.now() < deadline => step = Some(Step::RefreshRow),
                    Step::Done(Ok(_)) if !revalidated => {
                        return Err(AppendError::Unknown("the catalog did not answer in time".to_owned()));
                    }
                    Step::Done(result) => return result.map_err(AppendError::from),
                }
            }
        }
    }

    fn report_row(&self, row: Result<RowView, RefreshError>, claim: &mut Claim) -> Result<bool, AppendError> {
        match row {
            Ok(row) => claim.row(row),
            Err(RefreshError::Deleted) => return Err(AppendError::Deleted),
            Err(RefreshError::Unavailable(_)) => return Ok(false),
        }
        Ok(true)
    }

    /// A body of its own for each LSN and each try of another one: the nonce says whose put succeeded.
    fn encode(&self, operations: &[Operation], set_hash: SetHash, end: LogEnd, claim: &mut Claim) -> Bytes {
        let header = FragmentHeader {
            collection: self.collection,
            lsn: end.next,
            nonce: Nonce(self.runtime.random()),
            previous: end.last_nonce,
            count: u32::try_from(operations.len()).expect("a batch is below 2^20 operations"),
            set_hash,
            created_at: self.runtime.now().max(end.last_created_at),
        };
        claim.body(header.nonce, header.set_hash, header.created_at);
        fragment::encode(&header, operations)
    }

    async fn put(&self, lsn: Lsn, body: &Bytes) -> Result<PutReply, AppendError> {
        let key = keys::fragment(self.collection, lsn);
        match self.store.put(&key, body.clone(), PutMode::Create).await {
            Ok(_) => Ok(PutReply::Written),
            Err(PutError::Precondition) => Ok(PutReply::Taken),
            Err(PutError::Busy(_)) => Ok(PutReply::Busy),
            Err(PutError::Indeterminate(_)) => Ok(PutReply::Unknown),
            Err(PutError::Refused(reason)) => Err(AppendError::Broken { key, reason }),
        }
    }

    async fn look(&self, lsn: Lsn, claim: &mut Claim) -> Result<Option<Step>, AppendError> {
        match self.header(lsn).await {
            Ok(header) => {
                claim.looked(header.as_ref());
                if let Some(end) = self.rows.known_end() {
                    claim.skip_to(end);
                }
                // A put that vanished: the store is in trouble, and the put may still be on its way.
                Ok(header.is_none().then_some(Step::Pause))
            }
            Err(AppendError::NotWritten(_)) => Ok(Some(Step::Pause)),
            Err(broken) => Err(broken),
        }
    }

    /// The header at `lsn`; `None` if there is no object.
    async fn header(&self, lsn: Lsn) -> Result<Option<FragmentHeader>, AppendError> {
        let key = keys::fragment(self.collection, lsn);
        let Some(start) =
            self.store.get_range(&key, 0..HEADER_BYTES_MAX).await.map_err(|error| unreadable(&key, error))?
        else {
            return Ok(None);
        };
        match fragment::decode_header(&start) {
            Ok(header) if header.lsn == lsn && header.collection == self.collection => Ok(Some(header)),
            Ok(_) => Err(AppendError::Broken { key, reason: "the header names another fragment".to_owned() }),
            Err(error) => Err(AppendError::Broken { key, reason: error.to_string() }),
        }
    }

    /// The end of the log: the first LSN at or after `watermark` that does not exist, and its predecessor's header.
    async fn find_end(&self, watermark: Lsn) -> Result<LogEnd, AppendError> {
        let mut search = EndSearch::from(watermark);
        let next = loop {
            if let Some(end) = search.found() {
                break end;
            }
            let wave = search.wave();
            let sizes = join_all(wave.iter().map(|lsn| self.exists(*lsn))).await;
            for (lsn, exists) in wave.into_iter().zip(sizes) {
                search.observe(lsn, exists?);
            }
        };
        let Some(last) = next.previous() else { return Ok(LogEnd::EMPTY) };
        let header = self.header(last).await?;
        header.map(|header| header.as_end()).ok_or(AppendError::StaleEnd)
    }

    async fn exists(&self, lsn: Lsn) -> Result<bool, AppendError> {
        let key = keys::fragment(self.collection, lsn);
        let size = self.store.head(&key).await.map_err(|error| unreadable(&key, error))?;
        Ok(size.is_some())
    }
}

/// A read that failed before anything was put.
fn unreadable(key: &str, error: ReadError) -> AppendError {
    match error {
        ReadError::Unavailable(reason) => AppendError::NotWritten(reason),
        ReadError::Refused(reason) => AppendError::Broken { key: key.to_owned(), reason },
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
