//! Reads a log: its tail up to the first LSN that does not exist, a part of it again, or a single header.

use crate::columns::damaged;
use crate::fragment::{self, Fragment, FragmentHeader, HEADER_BYTES_MAX};
use crate::pack::{self, PackId};
use crate::tail::EndSearch;
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, FuturesOrdered, Stream, StreamExt};
use model::{CollectionId, LogEnd, Lsn, keys, limits};
use std::pin::pin;
use storage::{ObjectStore, ReadError};

/// Why the log could not be read.
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

/// An object that holds some of the fragments that a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Fragment(Lsn),
    Pack(PackId),
}

/// Which packs a reader may expect.
#[derive(Clone, Copy)]
struct Packs {
    /// Up to this level.
    level: u32,
    /// Below this LSN.
    packed: Lsn,
}

impl Packs {
    /// Those of a log that ends at `end`: where its writers have packed it, and its fragments are not too large for it.
    fn of(end: &LogEnd) -> Self {
        let average = end.bytes / end.next.0.max(1);
        let fits = |level: &u32| average.saturating_mul(PackId::length(*level)) <= 2 * limits::PACK_BYTES_MAX;
        Packs { level: (1..=limits::PACK_LEVELS).rev().find(fits).unwrap_or(0), packed: end.packed }
    }

    /// The objects to ask for when `lsns`, ascending, are wanted, with what is wanted of each. A pack is taken when at
    /// least a quarter of it is wanted.
    fn plan<'a>(&self, mut lsns: &'a [Lsn]) -> Vec<(Piece, &'a [Lsn])> {
        let mut pieces = Vec::new();
        while let Some(&first) = lsns.first() {
            let packs = (1..=self.level).rev().map(|level| PackId::around(level, first));
            let wanted = |pack: PackId| (pack, lsns.partition_point(|lsn| *lsn < pack.lsns().end));
            let is_worth_it = |&(pack, wanted): &(PackId, usize)| {
                pack.lsns().end <= self.packed && wanted as u64 * 4 >= PackId::length(pack.level)
            };
            let (piece, count) = match packs.map(wanted).find(is_worth_it) {
                Some((pack, wanted)) => (Piece::Pack(pack), wanted),
                None => (Piece::Fragment(first), 1),
            };
            let (wanted, rest) = lsns.split_at(count);
            pieces.push((piece, wanted));
            lsns = rest;
        }
        pieces
    }
}

impl<S: ObjectStore> Reader<'_, S> {
    /// Hands every fragment from `from` on to `take`, in order, and returns the end: an LSN that was absent when it was
    /// probed, which was after this call began. So whatever was acknowledged before the call has been handed out.
    ///
    /// Each fragment's checksum, set-hash, LSN and predecessor are checked before it is handed out.
    ///
    /// Cost: one get for each fragment, and gets of what turns out absent: one if nothing is new, else up to
    /// [`limits::CONNECTIONS_MAX`]. A reader that begins at the start of a log expects it to be long and asks for that
    /// many fragments at a time; any other expects nothing new and asks for one first. Of a log that turns out to be
    /// long the end is searched (see [`EndSearch`]), and what lies before it is read in packs, where there are.
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
        let take = async |fragments: Vec<Fragment>| {
            fragments.into_iter().for_each(&mut take);
            Ok(())
        };
        self.read_together(from, limit, take).await
    }

    /// The same, but what comes from one object is handed out together, and nothing more is handed out until it was taken.
    /// An error of `take` ends the reading.
    pub async fn read_together<E: From<TailError>>(
        &self,
        from: LogEnd,
        limit: Lsn,
        mut take: impl AsyncFnMut(Vec<Fragment>) -> Result<(), E>,
    ) -> Result<LogEnd, E> {
        let mut end = from;
        if from != LogEnd::EMPTY && end.next < limit {
            let Some(fragment) = self.fragment(end.next).await? else { return Ok(end) };
            end = self.link(end, &fragment)?;
            take(vec![fragment]).await?;
        }
        loop {
            let next = (end.next.0..limit.0).take(limits::CONNECTIONS_MAX).map(|lsn| Piece::Fragment(Lsn(lsn)));
            let mut ahead = pin!(self.ahead(next));
            while let Some((piece, body)) = ahead.next().await.transpose()? {
                let Some(body) = body else { return Ok(end) };
                let fragments = self.decode(piece, &body)?;
                for fragment in &fragments {
                    end = self.link(end, fragment)?;
                }
                take(fragments).await?;
            }
            if end.next >= limit {
                return Ok(end);
            }
            let far = self.find_next(end.next).await?.min(limit);
            let last = self.header(Lsn(far.0 - 1)).await?.map_or(end, |header| header.as_end());
            let lsns: Vec<Lsn> = (end.next.0..far.0).map(Lsn).collect();
            self.pieces(&lsns, Packs::of(&last), &mut end, &mut take).await?;
        }
    }

    /// Hands the fragments `lsns`, ascending and all read before, to `take` again, in order. `end`: where the log was
    /// last seen to end, which tells where to expect packs.
    ///
    /// Errors: [`TailError::Broken`] if one is not there any more. Cost: one get for each, or for a pack of them.
    pub async fn fragments(&self, lsns: &[Lsn], end: &LogEnd, take: impl FnMut(Fragment)) -> Result<(), TailError> {
        self.again(lsns, Packs::of(end), take).await
    }

    /// The same, by packs of at most `level` wherever they would be.
    pub(crate) async fn fragments_by_packs(
        &self,
        lsns: &[Lsn],
        level: u32,
        take: impl FnMut(Fragment),
    ) -> Result<(), TailError> {
        self.again(lsns, Packs { level, packed: Lsn(u64::MAX) }, take).await
    }

    async fn again(&self, lsns: &[Lsn], packs: Packs, mut take: impl FnMut(Fragment)) -> Result<(), TailError> {
        // Nothing is known of the fragment before the first.
        let mut end = LogEnd { next: Lsn(u64::MAX), ..LogEnd::EMPTY };
        let mut take = async |fragments: Vec<Fragment>| {
            fragments.into_iter().for_each(&mut take);
            Ok(())
        };
        self.pieces(lsns, packs, &mut end, &mut take).await
    }

    async fn pieces<E: From<TailError>>(
        &self,
        lsns: &[Lsn],
        packs: Packs,
        end: &mut LogEnd,
        take: &mut impl AsyncFnMut(Vec<Fragment>) -> Result<(), E>,
    ) -> Result<(), E> {
        let plan = packs.plan(lsns);
        let mut wanted = plan.iter().map(|(_, lsns)| *lsns);
        let mut ahead = pin!(self.ahead(plan.iter().map(|(piece, _)| *piece)));
        while let Some((piece, body)) = ahead.next().await.transpose()? {
            let lsns = wanted.next().expect("as many pieces as planned");
            let fragments = match (body, piece) {
                (Some(body), piece) => self.decode(piece, &body)?,
                (None, Piece::Fragment(lsn)) => {
                    let key = keys::fragment(self.collection, lsn);
                    return Err(TailError::Broken { key, reason: "gone".into() }.into());
                }
                (None, Piece::Pack(pack)) => {
                    let smaller = Packs { level: pack.level - 1, ..packs };
                    Box::pin(self.pieces(lsns, smaller, end, take)).await?;
                    continue;
                }
            };
            let is_wanted = |fragment: &Fragment| lsns.binary_search(&fragment.header.lsn).is_ok();
            let fragments: Vec<Fragment> = fragments.into_iter().filter(is_wanted).collect();
            for fragment in &fragments {
                if end.next != fragment.header.lsn {
                    // After a gap there is no predecessor to compare with.
                    let (next, last_nonce) = (fragment.header.lsn, fragment.header.previous);
                    *end = LogEnd { next, last_nonce, ..LogEnd::EMPTY };
                }
                *end = self.link(*end, fragment)?;
            }
            take(fragments).await?;
        }
        Ok(())
    }

    /// The first LSN from `base` on that does not exist. Cost: see [`EndSearch`]; the probes are HEADs.
    pub async fn find_next(&self, base: Lsn) -> Result<Lsn, TailError> {
        let mut search = EndSearch::from(base);
        loop {
            if let Some(next) = search.found() {
                return Ok(next);
            }
            let wave = search.wave();
            let found = try_join_all(wave.iter().map(|lsn| self.exists(*lsn))).await?;
            wave.into_iter().zip(found).for_each(|(lsn, exists)| search.observe(lsn, exists));
        }
    }

    async fn exists(&self, lsn: Lsn) -> Result<bool, TailError> {
        let key = keys::fragment(self.collection, lsn);
        let size = self.store.head(&key).await.map_err(|error| unreadable(key, error))?;
        Ok(size.is_some())
    }

    /// The header at `lsn`; `None` if there is no object. Cost: one ranged get.
    pub async fn header(&self, lsn: Lsn) -> Result<Option<FragmentHeader>, TailError> {
        let key = keys::fragment(self.collection, lsn);
        let start = match self.store.get_range(&key, 0..HEADER_BYTES_MAX).await {
            Ok(Some(start)) => start,
            Ok(None) => return Ok(None),
            Err(error) => return Err(unreadable(key, error)),
        };
        match fragment::decode_header(&start) {
            Ok(header) if header.lsn == lsn && header.collection == self.collection => Ok(Some(header)),
            Ok(_) => Err(TailError::Broken { key, reason: "the header names another fragment".to_owned() }),
            Err(error) => Err(TailError::Broken { key, reason: error.to_string() }),
        }
    }

    /// The bodies of `pieces` in order; `None` of one that is not there. Several are asked for at once, fewer the larger
    /// they are, so that those that wait for their turn have about [`limits::READ_AHEAD_BYTES`].
    fn ahead(
        &self,
        pieces: impl Iterator<Item = Piece>,
    ) -> impl Stream<Item = Result<(Piece, Option<Bytes>), TailError>> {
        // Before any was seen they might be as large as clients make them.
        let start = (pieces, FuturesOrdered::new(), limits::READ_AHEAD_BYTES / 2);
        stream::unfold(start, move |(mut pieces, mut asked, mut bytes)| async move {
            let width = (limits::READ_AHEAD_BYTES / bytes).clamp(1, limits::CONNECTIONS_MAX);
            while asked.len() < width
                && let Some(piece) = pieces.next()
            {
                asked.push_back(async move { Ok((piece, self.body(piece).await?)) });
            }
            let body = asked.next().await?;
            if let Ok((_, Some(body))) = &body {
                bytes = body.len().max(bytes / 2).max(1);
            }
            Some((body, (pieces, asked, bytes)))
        })
    }

    fn key(&self, piece: Piece) -> String {
        match piece {
            Piece::Fragment(lsn) => keys::fragment(self.collection, lsn),
            Piece::Pack(pack) => keys::pack(self.collection, pack.level, pack.first),
        }
    }

    async fn body(&self, piece: Piece) -> Result<Option<Bytes>, TailError> {
        let key = self.key(piece);
        self.store.get(&key).await.map_err(|error| unreadable(key, error))
    }

    fn decode(&self, piece: Piece, body: &[u8]) -> Result<Vec<Fragment>, TailError> {
        let decoded = match piece {
            Piece::Fragment(lsn) => fragment::decode(body).and_then(|fragment| {
                let named = (fragment.header.collection, fragment.header.lsn) == (self.collection, lsn);
                if named { Ok(vec![fragment]) } else { Err(damaged("the header names another fragment")) }
            }),
            Piece::Pack(pack) => pack::decode(body, self.collection, pack),
        };
        decoded.map_err(|error| TailError::Broken { key: self.key(piece), reason: error.to_string() })
    }

    /// The fragment at `lsn`; `None` if there is none.
    async fn fragment(&self, lsn: Lsn) -> Result<Option<Fragment>, TailError> {
        let piece = Piece::Fragment(lsn);
        let Some(body) = self.body(piece).await? else { return Ok(None) };
        Ok(self.decode(piece, &body)?.pop())
    }

    /// The end behind `fragment`, which lies at `end`, if it was written there.
    fn link(&self, end: LogEnd, fragment: &Fragment) -> Result<LogEnd, TailError> {
        assert_eq!(fragment.header.lsn, end.next, "pieces are asked for and decoded in order");
        if fragment.header.previous != end.last_nonce {
            let key = keys::fragment(self.collection, end.next);
            return Err(TailError::Broken { key, reason: "the fragment before it was replaced".to_owned() });
        }
        Ok(fragment.header.as_end())
    }
}

fn unreadable(key: String, error: ReadError) -> TailError {
    match error {
        ReadError::Unavailable(reason) => TailError::Unavailable(reason),
        ReadError::Refused(reason) => TailError::Broken { key, reason },
    }
}

#[cfg(test)]
mod tests;
