//! The query executor: runs a plan over what the bucket holds of a collection and answers exactly.
//!
//! It never reads the catalog (the plan carries the collection's row) and never writes anything. In reading order:
//! [`Executor::run`], a read from plan to answer; `filters`, which stored rows satisfy a filter; `search`, what they contribute, by `leaves` or `ranks`; [`cache`], what an isolate remembers between requests; [`Executor::handle`], the
//! same over HTTP; `entry`, the Worker around it.
//!
//! The log above the segments is laid out in memory once, as far as there is room, and from then on only what is new is
//! read; what did not fit is read again by those who ask for it.

pub mod cache;
#[cfg(target_arch = "wasm32")]
mod entry;
mod filters;
mod leaves;
mod ranks;
mod search;

use bytes::Bytes;
use cache::{Cache, Pulse, Tail, Version};
use filters::Passing;
use futures_util::future::join;
use http::{Request, Response, StatusCode};
use model::safeguard::{Safeguard, holds};
use model::{LogEnd, Lsn, limits};
use query::{
    Answer, Begun, Explain, ExplainedRead, Hit, Origin, PlanError, QueryPlan, Read, ReadLevel, STORED_GROUP, Scan,
};
use runtime::Runtime;
use search::{Search, codes_parts};
use segment::row::{Row, RowView};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::pin::pin;
use storage::{ObjectStore, ObservedRead};
pub use stored::Tally;
use stored::{Base, Place, Slots, StoredError, StoredReader, Wanted, as_upsert};
use text::{Keywords, Matches};
use wal::{Fragment, Reader, TailError};

/// An executor for the length of one request.
pub struct Executor<'a, S, R> {
    /// The bucket; reads may be repeated below this.
    pub store: S,
    /// Time to wait in.
    pub runtime: R,
    /// What the isolate remembers.
    pub cache: &'a Cache,
    /// What the request came to; begins empty.
    pub tally: Tally,
}

impl<S: ObjectStore, R: Runtime> Executor<'_, S, R> {
    /// Answers `plan`. At the default level the answer is as of an end of the log that was seen after this call began:
    /// every write acknowledged before is in it.
    ///
    /// Cost: the log is read from where this isolate last saw its end: one 404 if nothing was written since. Of what is
    /// not in memory, the parts of segments and the fragments that hold what the plan asks for. No fragment at
    /// [`ReadLevel::IndexOnly`]; at [`ReadLevel::IndexAndBoundedWal`] none beyond [`limits::BOUNDED_READ_FRAGMENTS`] that is
    /// not known yet.
    pub async fn run(&self, plan: &QueryPlan) -> Result<Answer, PlanError> {
        let version = self.cache.version(&plan.source);
        let pulse = Pulse::default();
        let answer = pin!(async {
            match plan.level {
                ReadLevel::IndexOnly => {
                    let tail = RefCell::new(Tail::above(&version.base));
                    let matches = self.prefetch(plan, &version, &pulse).await?;
                    self.answer(plan, &version, &tail, matches, &pulse).await
                }
                _ => self.run_on(plan, &version, &pulse).await,
            }
        });
        let mut answer = pulse.during(&self.runtime, answer).await;
        if let (true, Ok(answer)) = (plan.explain, &mut answer) {
            answer.explain = Some(explain(&self.tally));
        }
        let is_at_fault = matches!(answer, Err(PlanError::Corrupt(_) | PlanError::Missing(_)));
        if is_at_fault || version.tail.borrow().check().is_err() {
            // Should what was remembered be at fault, the next read does not rest on it.
            self.cache.forget(plan.source.collection);
        }
        self.cache.shrink(&version);
        answer
    }

    async fn run_on(&self, plan: &QueryPlan, version: &Version, pulse: &Pulse) -> Result<Answer, PlanError> {
        let (end, is_quiet) = {
            let tail = version.tail.borrow();
            (tail.end, tail.is_quiet)
        };
        // What is stored is asked for while the log is looked at. If nothing was written of late, nothing is likely to have
        // been: then all of the answer is made meanwhile, and stands if that proves true.
        let early = async {
            let matches = self.prefetch(plan, version, pulse).await?;
            Ok::<Early, PlanError>(match is_quiet {
                true => Early::Answered(self.answer(plan, version, &version.tail, matches, pulse).await),
                false => Early::Prepared(matches),
            })
        };
        let (caught_up, early) = join(Box::pin(self.catch_up(plan, version, pulse)), Box::pin(early)).await;
        caught_up?;
        let matches = match early? {
            Early::Prepared(matches) => matches,
            Early::Answered(answer) if version.tail.borrow().end == end => return answer,
            Early::Answered(_) => self.prefetch(plan, version, pulse).await?,
        };
        self.answer(plan, version, &version.tail, matches, pulse).await
    }

    /// Answers from `version` and the log in `tail`, as far as that was read. `matches`: what text indexes say of the filter.
    async fn answer(
        &self,
        plan: &QueryPlan,
        version: &Version,
        tail: &RefCell<Tail>,
        matches: Option<Vec<Matches>>,
        pulse: &Pulse,
    ) -> Result<Answer, PlanError> {
        let keywords = match &plan.read {
            Read::Rank { text, words, .. } => Some(Keywords::new(text, *words)),
            _ => None,
        };
        let (end, begun) = {
            let tail = tail.borrow();
            tail.check()?;
            (tail.end, begin(plan, &version.base, &tail, matches, keywords.as_ref())?)
        };
        let (hits, count) = match begun {
            Beginning::Answered(hits, count) => (hits, count),
            Beginning::Scan(scan, search) => {
                Box::pin(self.go_on(plan, version, tail, &end, (*scan, *search), pulse)).await?
            }
        };
        Ok(Answer { end, hits, count, explain: None })
    }

    async fn go_on(
        &self,
        plan: &QueryPlan,
        version: &Version,
        tail: &RefCell<Tail>,
        end: &LogEnd,
        (mut scan, mut search): (Scan<'_>, Search<'_>),
        pulse: &Pulse,
    ) -> Result<(Vec<Vec<Hit>>, u64), PlanError> {
        let mut slots = Slots::new();
        if let Some(keywords) = search.keywords {
            // What is in the log counts for the score of each document.
            self.read_log(&mut scan, plan, version, tail, end, pulse).await?;
            let _permit = self.cache.permit(stored_bytes(plan, &version.base), pulse, &self.runtime).await?;
            Box::pin(self.ranked(&mut search, keywords, &mut scan)).await?;
        } else if !version.base.is_empty() {
            let _permit = self.cache.permit(stored_bytes(plan, &version.base), pulse, &self.runtime).await?;
            let rivals;
            (rivals, slots) = Box::pin(self.rivals(&mut search)).await?;
            scan.compete(rivals);
        }
        self.read_log(&mut scan, plan, version, tail, end, pulse).await?;
        let places: Vec<Place> = scan.wanted_rows().into_iter().map(Place::of_number).collect();
        self.stored().open_for(&version.base, &places, &slots).await?;
        let give = |place: Place, row: &segment::row::RowView<'_>| scan.give(place.number(), &as_upsert(row));
        self.stored().visit(&version.base, &places, &slots, give).await?;
        scan.finish()
    }

    /// Lets `scan` have what it asks for of the log.
    async fn read_log(
        &self,
        scan: &mut Scan<'_>,
        plan: &QueryPlan,
        version: &Version,
        tail: &RefCell<Tail>,
        end: &LogEnd,
        pulse: &Pulse,
    ) -> Result<(), PlanError> {
        let must_read = !tail.borrow().layer.overlay.holds_all_of(&plan.read);
        let bytes = scan_bytes(&tail.borrow());
        let _permit = if must_read { Some(self.cache.permit(bytes, pulse, &self.runtime).await?) } else { None };
        Box::pin(self.read_again(scan, version, tail, end, &self.reader(plan))).await
    }

    fn stored(&self) -> StoredReader<'_, S> {
        StoredReader { store: &self.store, blocks: &self.cache.blocks, room: self.cache, tally: Some(&self.tally) }
    }

    fn reader(&self, plan: &QueryPlan) -> Reader<'_, S> {
        Reader { store: &self.store, collection: plan.source.collection }
    }

    /// Asks for what the read will need of segments, beside the log: it goes into the cache. Returns what text indexes say of
    /// its filter, if it has one and names no ids.
    async fn prefetch(
        &self,
        plan: &QueryPlan,
        version: &Version,
        pulse: &Pulse,
    ) -> Result<Option<Vec<Matches>>, PlanError> {
        let (base, stored) = (&version.base, self.stored());
        if base.is_empty() {
            return Ok(None);
        }
        let filter = match &plan.read {
            Read::Count => return Ok(None),
            read if let Some(ids) = read.ids() => {
                let ids: Vec<&str> = ids.iter().take(PREFETCHED_IDS).map(String::as_str).collect();
                stored.locate(base, &ids).await?;
                return Ok(None);
            }
            read => read.filter(),
        };
        let open = async {
            match &plan.read {
                Read::Query { vectors, .. } => {
                    stored.open_searched(base, filter.is_some()).await?;
                    match &vectors[..] {
                        [vector] if filter.is_some_and(|filter| !version.knows(filter)) => {
                            let leaves = self.expect_leaves(base, &plan.source, vector, plan.read.n_results(), pulse);
                            let (leaves, codes) = join(Box::pin(leaves), Box::pin(self.expect_codes(base))).await;
                            leaves.and(codes)
                        }
                        _ => Ok(()),
                    }
                }
                // With a filter its search opens them.
                Read::Rank { .. } if filter.is_none() => {
                    let (opened, texts) = join(stored.open(base), stored.open_texts(base)).await;
                    Ok(opened.and(texts)?)
                }
                Read::Rank { .. } => Ok(stored.open(base).await?),
                _ => Ok(stored.read_positions(base).await?),
            }
        };
        let matches = async {
            match filter {
                Some(filter) => self.matches(version, filter, pulse).await.map(Some),
                None => Ok(None),
            }
        };
        let (opened, matches) = join(Box::pin(open), Box::pin(matches)).await;
        opened?;
        matches
    }

    /// Reads what was written since the tail was last brought up to date. Several requests may do so at once: each reads
    /// for itself (a probe sent before a request began proves nothing to it) and adds what the others have not. Where
    /// much is to be read they take turns.
    async fn catch_up(&self, plan: &QueryPlan, version: &Version, pulse: &Pulse) -> Result<(), PlanError> {
        let tail = &version.tail;
        let limit = match plan.level {
            ReadLevel::IndexAndWal => Lsn(u64::MAX),
            _ => Lsn(version.base.manifest.watermark().0 + limits::BOUNDED_READ_FRAGMENTS),
        };
        let _turn = self.cache.turn(tail, pulse, &self.runtime).await?;
        let (from, was_read) = (tail.borrow().end, tail.borrow().was_read);
        if was_read && !holds(Safeguard::ProbeOfOnesOwn) {
            return tail.borrow().check();
        }
        let is_long = !was_read && limit > from.next;
        let _permit = if is_long { Some(self.cache.permit(READ_BYTES, pulse, &self.runtime).await?) } else { None };
        let take = async |fragments: Vec<Fragment>| {
            let questions = {
                let tail = tail.borrow();
                let new = fragments.iter().filter(|fragment| fragment.header.lsn >= tail.end.next);
                tail.layer.questions(new.flat_map(Fragment::operations), Wanted::Changed)
            };
            let facts = Box::pin(self.stored().facts(&version.base, &questions)).await?;
            fragments.iter().for_each(|fragment| tail.borrow_mut().absorb(fragment, &facts));
            self.cache.shrink(version);
            Ok::<(), Failed>(())
        };
        self.reader(plan).read_together(from, limit, take).await.map_err(|Failed(error)| error)?;
        let mut tail = tail.borrow_mut();
        (tail.was_read, tail.is_quiet) = (true, tail.end == from);
        tail.check()
    }

    /// Reads again what `scan` asks for of the log and of the rows that the log changes.
    async fn read_again(
        &self,
        scan: &mut Scan<'_>,
        version: &Version,
        tail: &RefCell<Tail>,
        end: &LogEnd,
        reader: &Reader<'_, S>,
    ) -> Result<(), PlanError> {
        loop {
            let pass = scan.next_pass(&tail.borrow().layer.overlay)?;
            let Some(origins) = pass else { return Ok(()) };
            let mut lsns = Vec::new();
            for origin in origins {
                match origin {
                    Origin::Log(lsn) => lsns.push(lsn),
                    Origin::Stored(group) => self.read_group(scan, group, &version.base, tail).await?,
                }
            }
            // In stretches, so that a scan whose answer becomes too large stops.
            for stretch in lsns.chunks(STRETCH_FRAGMENTS) {
                let mut taken = Ok(());
                let take = |fragment: Fragment| {
                    if taken.is_ok() {
                        let origin = Origin::Log(fragment.header.lsn);
                        taken = scan.take(origin, |index| fragment.operation(index));
                    }
                };
                reader.fragments(stretch, end, take).await.map_err(plan_error)?;
                taken?;
            }
        }
    }

    /// Reads again what `scan` asks for of a group of rows that the log changes.
    async fn read_group(
        &self,
        scan: &mut Scan<'_>,
        group: u64,
        base: &Base,
        tail: &RefCell<Tail>,
    ) -> Result<(), PlanError> {
        let first = usize::try_from(group).expect("a number of rows") * STORED_GROUP;
        let taken_up = |index: usize| tail.borrow().layer.taken_up[first + index];
        let mut places: Vec<(Place, usize)> =
            scan.wanted_of(group).into_iter().map(|index| (taken_up(index), index)).collect();
        places.sort_unstable();
        let mut rows: HashMap<usize, Row> = HashMap::new();
        let mut indexes = places.iter().map(|(_, index)| *index);
        let sorted: Vec<Place> = places.iter().map(|(place, _)| *place).collect();
        self.stored()
            .visit(base, &sorted, &Slots::new(), |_, row| {
                rows.insert(indexes.next().expect("as many rows as places"), row.to_row());
                Ok::<(), PlanError>(())
            })
            .await?;
        let views: HashMap<usize, RowView<'_>> = rows.iter().map(|(index, row)| (*index, row.view())).collect();
        scan.take(Origin::Stored(group), |index| views.get(&index).map(as_upsert))
    }

    /// The same over HTTP: a [`QueryPlan`] as JSON in, an [`Answer`] or a [`PlanError`] with its status out.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        let result = match serde_json::from_slice(request.body()) {
            Ok(plan) => self.run(&plan).await,
            Err(error) => Err(PlanError::Invalid(format!("not a plan: {error}"))),
        };
        match result {
            Ok(answer) => json(StatusCode::OK, &answer),
            Err(error) => json(status(&error), &error),
        }
    }
}

/// What `tally` says.
fn explain(tally: &Tally) -> Explain {
    let range = |range: Range<u64>| (range.start, range.end);
    let explained = |read: ObservedRead| ExplainedRead {
        object: read.key,
        range: read.range.map(range),
        bytes: read.bytes,
        wave: read.wave,
    };
    let reads: Vec<ExplainedRead> = tally.reads.answered().into_iter().map(explained).collect();
    Explain {
        waves: reads.iter().map(|read| read.wave).max().unwrap_or(0),
        bytes: reads.iter().filter_map(|read| read.bytes).sum(),
        reads,
        kept: tally.kept.get(),
        passing: tally.passing.get(),
        unsure: tally.unsure.get(),
        leaves: tally.leaves.get(),
        estimated: tally.estimated.get(),
        measured: tally.measured.get(),
        memory_bytes: runtime::memory_bytes(),
    }
}

/// What there is of a read when it is known where the log ends.
enum Early {
    /// What text indexes say of its filter.
    Prepared(Option<Vec<Matches>>),
    /// The answer from the log as it was known before.
    Answered(Result<Answer, PlanError>),
}

/// How a read goes on.
enum Beginning<'r> {
    Answered(Vec<Vec<Hit>>, u64),
    Scan(Box<Scan<'r>>, Box<Search<'r>>),
}

/// Begins to answer `plan` from `base` and the log in `tail`, as they are now.
fn begin<'r>(
    plan: &'r QueryPlan,
    base: &'r Base,
    tail: &Tail,
    matches: Option<Vec<Matches>>,
    keywords: Option<&'r Keywords>,
) -> Result<Beginning<'r>, PlanError> {
    let QueryPlan { source, read, .. } = plan;
    let visible = base.manifest.records - tail.layer.hidden.len();
    let scan = match read {
        read if let Some(keywords) = keywords => Box::new(tail.layer.overlay.begin_rank(read, keywords)?),
        Read::Count => return Ok(Beginning::Answered(Vec::new(), visible + tail.layer.overlay.len() as u64)),
        read if base.is_empty() => match tail.layer.overlay.begin(source, read)? {
            Begun::Answered(hits, count) => return Ok(Beginning::Answered(hits, count)),
            Begun::Scan(scan) => scan,
        },
        read => Box::new(tail.layer.overlay.begin_over(source, read)?),
    };
    let unknown = |ids: &'r [String]| {
        ids.iter().map(String::as_str).filter(|id| !tail.layer.overlay.contains(id)).collect::<Vec<&str>>()
    };
    let (ids, hidden) = (read.ids().map(unknown), tail.layer.hidden.clone());
    let passing = match read.filter().zip(matches) {
        Some((filter, matches)) => Some(Passing::new(filter, matches, base, &hidden)?),
        None => None,
    };
    Ok(Beginning::Scan(scan, Box::new(Search { base, source, read, hidden, ids, passing, keywords })))
}

/// An error where a reader of the log waits.
struct Failed(PlanError);

impl From<TailError> for Failed {
    fn from(error: TailError) -> Self {
        Failed(plan_error(error))
    }
}

impl From<StoredError> for Failed {
    fn from(error: StoredError) -> Self {
        Failed(error.into())
    }
}

/// Fragments that a scan reads before it looks whether it may go on.
const STRETCH_FRAGMENTS: usize = 256;

/// Ids that are looked up before it is known which of them the log has.
const PREFETCHED_IDS: usize = 64;

/// Memory in which a reader works: what it asks for ahead, and the one that is being decoded.
const READ_BYTES: usize = limits::READ_AHEAD_BYTES * 3 / 2;

/// Memory in which stored rows are looked through: several parts of codes, or some batches of each segment.
fn stored_bytes(plan: &QueryPlan, base: &Base) -> usize {
    const BATCHES_BYTES: usize = 8 * 1024 * 1024;
    match &plan.read {
        Read::Query { ids: None, .. } => {
            let codes = codes_parts(base).into_iter().map(|part| part.block.range.end - part.block.range.start);
            let codes: u64 = codes.take(limits::CONNECTIONS_MAX).sum();
            leaves::bytes(base) + BATCHES_BYTES + usize::try_from(codes).unwrap_or(usize::MAX)
        }
        Read::Rank { .. } => {
            let indexed = usize::try_from(limits::TEXT_RANK_BYTES_MAX).unwrap_or(usize::MAX);
            BATCHES_BYTES + indexed + limits::RANK_COUNTS_BYTES_MAX
        }
        _ => BATCHES_BYTES,
    }
}

/// Memory in which a scan of `tail` works: fragments, candidates, pieces of records, hits.
fn scan_bytes(tail: &Tail) -> usize {
    /// What a scan keeps of a record that may be a hit, about.
    const CANDIDATE_BYTES: usize = 96;
    let ahead = (tail.fragment_bytes_max * limits::CONNECTIONS_MAX).min(limits::READ_AHEAD_BYTES);
    let fragments = ahead + 2 * tail.fragment_bytes_max;
    fragments + tail.layer.overlay.len() * CANDIDATE_BYTES + limits::PARTIAL_BYTES_MAX
}

fn plan_error(error: TailError) -> PlanError {
    match error {
        TailError::Unavailable(reason) => PlanError::Unavailable(reason),
        TailError::Broken { .. } => PlanError::Corrupt(error.to_string()),
    }
}

/// The HTTP status under which an error crosses to the gateway.
fn status(error: &PlanError) -> StatusCode {
    match error {
        PlanError::Invalid(_) => StatusCode::BAD_REQUEST,
        PlanError::UnknownId => StatusCode::NOT_FOUND,
        PlanError::Missing(_) => StatusCode::GONE,
        PlanError::Corrupt(_) => StatusCode::INTERNAL_SERVER_ERROR,
        PlanError::Unavailable(_) | PlanError::TooLarge(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Bytes> {
    // Counted first: a buffer that grows is there twice while it is moved.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).expect("answers have string keys and finite numbers");
    let mut body = Vec::with_capacity(length.0);
    serde_json::to_writer(&mut body, value).expect("what was written once can be written again");
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body.into()).expect("a constant header is valid")
}

/// Counts what is written.
struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
