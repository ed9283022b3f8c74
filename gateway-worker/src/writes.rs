//! How a collection is written: a fragment for what one or several requests bring, acknowledged when it is durable and
//! known to count.

use crate::backlog::{Admission, admit};
use crate::chores::Written;
use crate::idempotency::{RequestKey, Search};
use crate::lane::{Lane, Seat, Turn};
use crate::memory::SeenRow;
use crate::reads::ReadOptions;
use crate::reads::{check_scope, row_error};
use crate::routes::Scope;
use crate::wire::ApiError;
use crate::wire::configuration::schema_entries_for;
use crate::wire::records::{Batch, check_count, check_read};
use crate::{Executors, Gateway};
use catalog::{Catalog, CatalogError};
use futures_util::future::join;
use model::safeguard::{Safeguard, holds};
use model::{CollectionId, LogEnd, Operation, Timestamp, keys, limits};
use query::Read;
use runtime::{Runtime, beating};
use std::cell::RefCell;
use std::pin::pin;
use storage::{ObjectStore, PutMode};
use wal::{Append, AppendError, RefreshError, RowSource, RowView, Writer};

/// Longest time a write tries before it gives up, in ms: the rest of the request's deadline is for answering.
const WRITE_DEADLINE_MS: u64 = limits::REQUEST_DEADLINE_MS * 2 / 3;

/// What is to be appended directly behind the end at which it was decided.
pub(crate) struct Decision {
    pub(crate) operations: Vec<Operation>,
    pub(crate) end: LogEnd,
    /// How many records the answer says were deleted.
    pub(crate) deleted: u64,
}

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> Gateway<'_, S, C, E, R> {
    /// Appends what clients call a batch. If the collection has no dimension yet, the batch's becomes it.
    ///
    /// Cost, warm and uncontended: one put and, beside it, one catalog read. Writes to one collection at the same time
    /// in one isolate share them.
    pub(crate) async fn write_batch(
        &self,
        scope: &Scope,
        id: CollectionId,
        batch: Batch,
        key: Option<RequestKey>,
    ) -> Result<(), ApiError> {
        let seen = self.row_for_write(scope, id).await?;
        if let Err(error) = batch.check_dimension(seen.row.dimension) {
            // The collection may be gone by now, which is another answer.
            self.fetch_row(id).await?;
            return Err(error);
        }
        // Before anything is put: two first writes of different lengths must not both be acknowledged. And before the
        // rest is checked, as in Chroma: vectors fix the dimension, whatever becomes of their records.
        let seen = match batch.dimension() {
            Some(dimension) if seen.row.dimension.is_none() => self.set_dimension(id, dimension).await?,
            _ => seen,
        };
        batch.check_dimension(seen.row.dimension)?;
        self.write_on(seen, batch.into_operations()?, key, 0).await.map(drop)
    }

    /// Appends deletions. Returns how many records they are said to have removed: `deleted`, or what the same request
    /// was answered before.
    pub(crate) async fn delete(
        &self,
        scope: &Scope,
        id: CollectionId,
        operations: Vec<Operation>,
        deleted: u64,
        key: Option<RequestKey>,
    ) -> Result<u64, ApiError> {
        self.write_on(self.row_for_write(scope, id).await?, operations, key, deleted).await
    }

    async fn write_on(
        &self,
        seen: SeenRow,
        operations: Vec<Operation>,
        key: Option<RequestKey>,
        deleted: u64,
    ) -> Result<u64, ApiError> {
        let id = seen.row.id;
        if operations.is_empty() {
            // Nothing to make durable, but the collection must be there.
            return self.fetch_row(id).await.map(|_| deleted);
        }
        self.trust_store().await?;
        self.admit(&seen).await?;
        let new_keys = schema_entries_for(&operations, &seen.row.schema);
        let append = async {
            match key {
                None => self.append_shared(&seen, operations).await.map(|()| deleted),
                Some(key) => {
                    let decide = async || {
                        let end = self.log_end(&seen).await.map_err(|error| self.append_error(id, error))?;
                        Ok(Decision { operations: operations.clone(), end, deleted })
                    };
                    self.append_decided(&seen, Some(&key), decide).await
                }
            }
        };
        if new_keys.is_empty() {
            return append.await;
        }
        let (appended, discovered) = join(append, self.catalog.add_schema_keys(id, new_keys)).await;
        if let Err(error) = discovered {
            // The schema is a hint; the next write with these keys tries again.
            (self.settings.log)(&format!("schema of {id} not extended: {error}"));
        }
        appended
    }

    /// Deletes the records that `matching` finds, all in one fragment that directly follows what was read to find them.
    /// Returns how many.
    pub(crate) async fn delete_matching(
        &self,
        scope: &Scope,
        id: CollectionId,
        matching: Read,
        key: Option<RequestKey>,
    ) -> Result<u64, ApiError> {
        let seen = self.row_for_write(scope, id).await?;
        self.trust_store().await?;
        self.admit(&seen).await?;
        let decide = async || {
            let answer =
                self.read(scope, id, |row| check_read(&matching, row), &matching, ReadOptions::default()).await?;
            let hits = answer.hits.into_iter().flatten();
            let operations: Vec<Operation> = hits.map(|hit| Operation::delete(hit.id.as_str().into())).collect();
            check_count(operations.len())?;
            let deleted = operations.len() as u64;
            Ok(Decision { operations, end: answer.end, deleted })
        };
        self.append_decided(&seen, key.as_ref(), decide).await
    }

    /// Slows or refuses a write to a log that is not compacted fast enough.
    async fn admit(&self, seen: &SeenRow) -> Result<(), ApiError> {
        let Some(end) = self.memory.end(seen.row.id) else { return Ok(()) };
        match admit(&end, &seen.row.manifest.compacted) {
            Admission::Free | Admission::Slowed(0) => Ok(()),
            Admission::Slowed(ms) => {
                self.runtime.sleep(ms).await;
                Ok(())
            }
            Admission::Refused => Err(ApiError::backoff()),
        }
    }

    /// Appends operations in one fragment with what other requests of this isolate write at the same time.
    async fn append_shared(&self, seen: &SeenRow, operations: Vec<Operation>) -> Result<(), ApiError> {
        let (id, deadline) = (seen.row.id, self.write_deadline());
        let lane = self.memory.lane(id);
        let seat = lane.join(operations);
        let outcome = loop {
            if let Some(outcome) = seat.outcome() {
                break outcome;
            }
            let now = self.runtime.now();
            if now >= deadline {
                break Err(seat.leave());
            }
            match lane.take(now) {
                Some(turn) => self.resolve(&lane, &turn, &seat, seen, deadline).await,
                None => self.runtime.sleep(limits::POLL_MS).await,
            }
        };
        outcome.map(drop).map_err(|error| self.append_error(id, error))
    }

    /// Brings the append of a group to its end, unless another request takes over.
    async fn resolve(&self, lane: &Lane, turn: &Turn<'_>, seat: &Seat, seen: &SeenRow, deadline: Timestamp) {
        let id = seen.row.id;
        let rows = CatalogRows { gateway: self, id };
        let resolved = self.beating(turn, async {
            let append = match seat.append() {
                Some(append) => {
                    append.borrow_mut().resume();
                    append
                }
                None => {
                    let end = match self.log_end(seen).await {
                        Ok(end) => end,
                        Err(error) => return turn.holds().then_some(Err(error)),
                    };
                    if !turn.holds() {
                        return None;
                    }
                    seat.freeze(lane, |operations| Append::anywhere(operations, end, seen.view(), deadline))
                }
            };
            match self.writer(&rows).carry_out(append, || turn.holds()).await? {
                Err(AppendError::StaleEnd) => self.begin_again(&rows, turn, append, deadline).await,
                outcome => Some(outcome),
            }
        });
        if let Some(outcome) = resolved.await {
            if let Ok(end) = &outcome {
                self.see_written(id, *end);
            }
            seat.settle(outcome);
        }
    }

    /// Carries out an append that wrote nothing, because what was believed of the log was too old, by what is true now.
    async fn begin_again(
        &self,
        rows: &CatalogRows<'_, '_, S, C, E, R>,
        turn: &Turn<'_>,
        append: &RefCell<Append>,
        deadline: Timestamp,
    ) -> Option<Result<LogEnd, AppendError>> {
        self.memory.forget_end(rows.id);
        let row = match rows.refresh().await {
            Ok(row) => row,
            Err(RefreshError::Deleted) => return Some(Err(AppendError::Deleted)),
            Err(RefreshError::Unavailable(reason)) => return Some(Err(AppendError::NotWritten(reason))),
        };
        let writer = self.writer(rows);
        match writer.find_end(row.compacted).await {
            Ok(end) => append.borrow_mut().begin_again(end, row, deadline),
            Err(error) => return Some(Err(error)),
        }
        writer.carry_out(append, || turn.holds()).await
    }

    /// Appends what `decide` decides directly behind the end that it was decided at; whenever another write comes
    /// between, it is decided anew. With a key nothing is appended if the log has the request already.
    ///
    /// Returns the number of deleted records to answer with.
    pub(crate) async fn append_decided(
        &self,
        seen: &SeenRow,
        key: Option<&RequestKey>,
        decide: impl AsyncFn() -> Result<Decision, ApiError>,
    ) -> Result<u64, ApiError> {
        let deadline = self.write_deadline();
        let mut search = match key {
            Some(key) => Some(self.begin_search(seen, key).await?),
            None => None,
        };
        // Deciding may take long, and the other writers need not wait for it; once overtaken, they do.
        let mut decision = decide().await?;
        let lane = self.memory.lane(seen.row.id);
        let turn = self.wait_for_turn(&lane, deadline).await?;
        for _ in 0..limits::EVALUATION_ATTEMPTS_MAX {
            let attempt = self.append_decision(seen, search.as_mut(), decision, deadline);
            if let Some(deleted) = self.beating(&turn, attempt).await? {
                return Ok(deleted);
            }
            decision = self.beating(&turn, decide()).await?;
        }
        let message = "The collection changed faster than the write could be decided: nothing was written, try again";
        Err(ApiError::unavailable(message))
    }

    /// Appends a decision where it was decided. Returns the number of deleted records to answer with; `None` if another
    /// write came between.
    async fn append_decision(
        &self,
        seen: &SeenRow,
        search: Option<&mut Search>,
        decision: Decision,
        deadline: Timestamp,
    ) -> Result<Option<u64>, ApiError> {
        let id = seen.row.id;
        let rows = CatalogRows { gateway: self, id };
        let mut request = None;
        if let Some(search) = search {
            if let Some(answered) = self.search(&rows, search, decision.end.next).await? {
                return Ok(Some(answered));
            }
            request = Some(search.key.answered(decision.deleted));
        }
        if decision.operations.is_empty() {
            return Ok(Some(decision.deleted));
        }
        if self.memory.end(id).is_some_and(|known| known.next > decision.end.next) {
            return Ok(None);
        }
        let place = if holds(Safeguard::ClaimAtResolved) { Append::exactly } else { Append::anywhere };
        let append = place(decision.operations, decision.end, seen.view(), deadline).keyed(request);
        let append = RefCell::new(append);
        let outcome = self.writer(&rows).carry_out(&append, || true).await;
        match outcome.expect("an append of its own is not taken over") {
            Ok(end) => {
                self.see_written(id, end);
                Ok(Some(decision.deleted))
            }
            Err(AppendError::Conflict(lsn)) => {
                // Whoever was first is behind the end that this isolate knows.
                let header = self.writer(&rows).header(lsn).await.map_err(|error| self.append_error(id, error))?;
                header.iter().for_each(|header| self.memory.see_end(id, header.as_end()));
                Ok(None)
            }
            Err(AppendError::StaleEnd) => {
                self.memory.forget_end(id);
                Ok(None)
            }
            Err(error) => Err(self.append_error(id, error)),
        }
    }

    async fn wait_for_turn<'l>(&self, lane: &'l Lane, deadline: Timestamp) -> Result<Turn<'l>, ApiError> {
        loop {
            let now = self.runtime.now();
            match lane.take(now) {
                Some(turn) => return Ok(turn),
                None if now >= deadline => return Err(not_written(&"other writes took too long")),
                None => self.runtime.sleep(limits::POLL_MS).await,
            }
        }
    }

    /// Runs `future` and says meanwhile that the holder of the turn is alive.
    async fn beating<T>(&self, turn: &Turn<'_>, future: impl Future<Output = T>) -> T {
        beating(&self.runtime, limits::BEAT_MS, || turn.beat(self.runtime.now()), pin!(future)).await
    }

    fn write_deadline(&self) -> Timestamp {
        self.runtime.now().plus_ms(WRITE_DEADLINE_MS)
    }

    /// Where the log was last seen to end, or else where it ends. What was seen before others compacted and collected the log
    /// is worth nothing: an idempotency key that remembered it would refer to fragments that are gone.
    pub(crate) async fn log_end(&self, seen: &SeenRow) -> Result<LogEnd, AppendError> {
        let id = seen.row.id;
        match self.memory.end(id) {
            Some(end) if end.next >= seen.row.watermark() => Ok(end),
            _ => self.writer(&CatalogRows { gateway: self, id }).find_end(seen.row.manifest.compacted).await,
        }
    }

    /// Where the log ends now. Cost: from where it was last seen to end, one HEAD if it has not grown; else see
    /// [`Writer::find_end`].
    pub(crate) async fn find_log_end(&self, seen: &SeenRow) -> Result<LogEnd, ApiError> {
        let (id, compacted) = (seen.row.id, seen.row.manifest.compacted);
        let known = self.memory.end(id).filter(|end| end.next > compacted.next).unwrap_or(compacted);
        let found = self.writer(&CatalogRows { gateway: self, id }).find_end(known).await;
        found.map_err(|error| self.append_error(id, error))
    }

    fn see_written(&self, id: CollectionId, end: LogEnd) {
        self.memory.see_end(id, end);
        self.written.borrow_mut().push(Written { collection: id, end });
    }

    pub(crate) fn writer<'a, 'b>(
        &'a self,
        rows: &'a CatalogRows<'a, 'b, S, C, E, R>,
    ) -> Writer<'a, S, R, CatalogRows<'a, 'b, S, C, E, R>> {
        Writer { store: &self.store, runtime: &self.runtime, rows, collection: rows.id }
    }

    /// A row on which a claim may rest.
    async fn row_for_write(&self, scope: &Scope, id: CollectionId) -> Result<SeenRow, ApiError> {
        let now = self.runtime.now();
        let known = self.memory.row(id).filter(|seen| {
            now.ms_since(seen.requested_at) <= limits::CLAIM_ROW_AGE_MAX_MS || !holds(Safeguard::FreshRowBeforeClaim)
        });
        let seen = match known {
            Some(seen) => seen,
            None => self.fetch_row(id).await?,
        };
        check_scope(&seen.row, scope)?;
        Ok(seen)
    }

    async fn set_dimension(&self, id: CollectionId, dimension: u32) -> Result<SeenRow, ApiError> {
        self.ask_row(id, self.catalog.set_dimension(id, dimension)).await.map_err(|error| row_error(id, error))
    }

    /// Refuses to write to a store that ignores conditions: on such a one writers would overwrite each other. It is
    /// probed once for each deployment, which leaves a marker; an isolate looks for the marker before its first write.
    async fn trust_store(&self) -> Result<(), ApiError> {
        if self.memory.store_trusted.get() {
            return Ok(());
        }
        let marker = keys::probe_passed(&self.settings.store_name);
        if self.store.head(&marker).await.map_err(|error| not_written(&error))?.is_none() {
            let probed = storage::probe(&self.store, &keys::probe(self.runtime.random())).await;
            probed.map_err(|error| not_written(&error))?;
            let put = self.store.put(&marker, "passed".into(), PutMode::Overwrite).await;
            put.map_err(|error| not_written(&error))?;
        }
        self.memory.store_trusted.set(true);
        Ok(())
    }

    pub(crate) fn append_error(&self, id: CollectionId, error: AppendError) -> ApiError {
        match error {
            AppendError::Deleted => ApiError::collection_id_not_found(id),
            AppendError::NotWritten(_) | AppendError::StaleEnd | AppendError::Conflict(_) => not_written(&error),
            AppendError::Unknown(_) => ApiError::indeterminate(error),
            AppendError::Broken { .. } => ApiError::internal(error),
        }
    }
}

pub(crate) fn not_written(cause: &dyn std::fmt::Display) -> ApiError {
    ApiError::unavailable("Nothing was written: try again later").because(cause)
}

/// The catalog as the log's writer sees it.
pub(crate) struct CatalogRows<'a, 'm, S, C, E, R> {
    pub(crate) gateway: &'a Gateway<'m, S, C, E, R>,
    pub(crate) id: CollectionId,
}

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> RowSource for CatalogRows<'_, '_, S, C, E, R> {
    async fn refresh(&self) -> Result<RowView, RefreshError> {
        let call = self.gateway.catalog.get_collection_by_id(self.id);
        match self.gateway.ask_row(self.id, call).await {
            Ok(seen) => Ok(seen.view()),
            Err(CatalogError::NotFound) => Err(RefreshError::Deleted),
            Err(error) => Err(RefreshError::Unavailable(error.to_string())),
        }
    }

    fn known_end(&self) -> Option<LogEnd> {
        self.gateway.memory.end(self.id)
    }
}
