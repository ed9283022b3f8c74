//! Reads the tail of a log, in order, up to the first LSN that does not exist.

use crate::fragment::{self, Fragment};
use futures_util::stream::{self, FuturesOrdered, Stream, StreamExt};
use model::{CollectionId, LogEnd, Lsn, keys, limits};
use std::pin::pin;
use storage::{ObjectStore, ReadError};

/// Why the tail could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TailError {
    /// The store did not answer: the same read may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// An object of the log is not what was written there, or the store refuses to serve us. Nothing from it on was used.
    #[error("{key}: {reason}")]
    Broken {
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the log of one collection.
#[derive(Clone, Copy)]
pub struct Reader<'a, S> {
    /// The bucket, without any cache in front.
    pub store: &'a S,
    /// Whose log.
    pub collection: CollectionId,
}

impl<S: ObjectStore> Reader<'_, S> {
    /// Hands every fragment from `from` on to `take`, in order, and returns the end: an LSN that was absent when it was
    /// probed, which was after this call began. So whatever was acknowledged before the call has been handed out.
    ///
    /// Each fragment's checksum, set-hash, LSN and predecessor are checked before it is handed out.
    ///
    /// Cost: one get for each fragment, and gets of what turns out absent: one if nothing is new, else up to
    /// [`limits::CONNECTIONS_MAX`]. A reader that begins at the start of a log expects it to be long and asks for that
    /// many fragments at a time; any other expects nothing new and asks for one first.
    pub async fn read(&self, from: LogEnd, take: impl FnMut(Fragment)) -> Result<LogEnd, TailError> {
        self.read_until(from, Lsn(u64::MAX), take).await
    }

    /// As [`Reader::read`], but looks at nothing from `limit` on: the end it returns may be `limit`, unprobed.
    pub async fn read_until(
        &self,
        from: LogEnd,
        limit: Lsn,
        mut take: impl FnMut(Fragment),
    ) -> Result<LogEnd, TailError> {
        let mut end = from;
        if from != LogEnd::EMPTY && end.next < limit {
            let Some(fragment) = self.fragment(end.next).await? else { return Ok(end) };
            end = self.link(end, &fragment)?;
            take(fragment);
        }
        let mut ahead = pin!(self.ahead((end.next.0..limit.0).map(Lsn)));
        while let Some(fragment) = ahead.next().await {
            let Some(fragment) = fragment? else { break };
            end = self.link(end, &fragment)?;
            take(fragment);
        }
        Ok(end)
    }

    /// Hands the fragments `lsns`, ascending and all read before, to `take` again, in order.
    ///
    /// Errors: [`TailError::Broken`] if one is not there any more. Cost: one get for each.
    pub async fn fragments(&self, lsns: &[Lsn], mut take: impl FnMut(Fragment)) -> Result<(), TailError> {
        let mut ahead = pin!(self.ahead(lsns.iter().copied()));
        let mut end = LogEnd::EMPTY;
        for &lsn in lsns {
            let gone = || TailError::Broken { key: keys::fragment(self.collection, lsn), reason: "gone".to_owned() };
            let fragment = ahead.next().await.transpose()?.flatten().ok_or_else(gone)?;
            if end.next != lsn {
                // After a gap there is no predecessor to compare with.
                end = LogEnd { next: lsn, last_nonce: fragment.header.previous, ..LogEnd::EMPTY };
            }
            end = self.link(end, &fragment)?;
            take(fragment);
        }
        Ok(())
    }

    /// The fragments `lsns` in order. Several are asked for at once, fewer the larger they are, so that those that wait
    /// for their turn have about [`limits::READ_AHEAD_BYTES`].
    fn ahead(&self, lsns: impl Iterator<Item = Lsn>) -> impl Stream<Item = Result<Option<Fragment>, TailError>> {
        // Before any was seen they might be as large as clients make them.
        let start = (lsns, FuturesOrdered::new(), limits::READ_AHEAD_BYTES / 2);
        stream::unfold(start, async |(mut lsns, mut asked, mut bytes)| {
            let width = (limits::READ_AHEAD_BYTES / bytes).clamp(1, limits::CONNECTIONS_MAX);
            while asked.len() < width
                && let Some(lsn) = lsns.next()
            {
                asked.push_back(self.fragment(lsn));
            }
            let fragment = asked.next().await?;
            if let Ok(Some(fragment)) = &fragment {
                bytes = fragment.bytes.max(bytes / 2).max(1);
            }
            Some((fragment, (lsns, asked, bytes)))
        })
    }

    /// The fragment at `lsn`; `None` if there is none.
    async fn fragment(&self, lsn: Lsn) -> Result<Option<Fragment>, TailError> {
        let key = keys::fragment(self.collection, lsn);
        let body = match self.store.get(&key).await {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(None),
            Err(ReadError::Unavailable(reason)) => return Err(TailError::Unavailable(reason)),
            Err(ReadError::Refused(reason)) => return Err(TailError::Broken { key, reason }),
        };
        match fragment::decode(&body) {
            Ok(fragment) => Ok(Some(fragment)),
            Err(error) => Err(TailError::Broken { key, reason: error.to_string() }),
        }
    }

    /// The end behind `fragment`, if it is the one that follows `end`.
    fn link(&self, end: LogEnd, fragment: &Fragment) -> Result<LogEnd, TailError> {
        let header = &fragment.header;
        let broken = |reason: &str| TailError::Broken {
            key: keys::fragment(self.collection, end.next),
            reason: reason.to_owned(),
        };
        if (header.collection, header.lsn) != (self.collection, end.next) {
            return Err(broken("the header names another fragment"));
        }
        if header.previous != end.last_nonce {
            return Err(broken("the fragment before it was replaced"));
        }
        Ok(header.as_end())
    }
}

#[cfg(test)]
mod tests;
