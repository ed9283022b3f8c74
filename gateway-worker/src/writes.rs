//! How a collection is written: one fragment for a request, acknowledged when it is durable and known to count.

use crate::memory::SeenRow;
use crate::reads::{check_scope, row_error};
use crate::routes::Scope;
use crate::wire::ApiError;
use crate::wire::configuration::schema_entries_for;
use crate::wire::records::{Batch, check_count, check_read};
use crate::{Executors, Gateway};
use catalog::{Catalog, CatalogError};
use futures_util::future::join;
use model::{CollectionId, LogEnd, Operation, Timestamp, keys, limits};
use query::Read;
use runtime::Runtime;
use storage::{ObjectStore, PutMode};
use wal::{AppendError, Placement, RefreshError, RowSource, RowView, Writer};

/// Longest time a write tries before it gives up, in ms: the rest of the request's deadline is for answering.
const WRITE_DEADLINE_MS: u64 = limits::REQUEST_DEADLINE_MS * 2 / 3;

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> Gateway<'_, S, C, E, R> {
    /// Appends what clients call a batch. If the collection has no dimension yet, the batch's becomes it.
    ///
    /// Cost, warm and uncontended: one put and, beside it, one catalog read.
    pub(crate) async fn write_batch(&self, scope: &Scope, id: CollectionId, batch: Batch) -> Result<(), ApiError> {
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
        self.write_on(seen, &batch.into_operations()?).await
    }

    /// Appends operations, whose vectors have the collection's dimension, as one fragment.
    pub(crate) async fn write(
        &self,
        scope: &Scope,
        id: CollectionId,
        operations: &[Operation],
    ) -> Result<(), ApiError> {
        self.write_on(self.row_for_write(scope, id).await?, operations).await
    }

    async fn write_on(&self, seen: SeenRow, operations: &[Operation]) -> Result<(), ApiError> {
        let id = seen.row.id;
        if operations.is_empty() {
            // Nothing to make durable, but the collection must be there.
            return self.fetch_row(id).await.map(drop);
        }
        self.trust_store().await?;
        let new_keys = schema_entries_for(operations, &seen.row.schema);
        let append = self.append_anywhere(seen, operations, self.write_deadline());
        if new_keys.is_empty() {
            return append.await.map(drop);
        }
        let (end, discovered) = join(append, self.catalog.add_schema_keys(id, new_keys)).await;
        if let Err(error) = discovered {
            // The schema is a hint; the next write with these keys tries again.
            (self.settings.log)(&format!("schema of {id} not extended: {error}"));
        }
        end.map(drop)
    }

    /// Deletes the records that `matching` finds, all in one fragment that directly follows what was read to find them.
    /// Returns how many.
    pub(crate) async fn delete_matching(
        &self,
        scope: &Scope,
        id: CollectionId,
        matching: Read,
    ) -> Result<u64, ApiError> {
        let seen = self.row_for_write(scope, id).await?;
        self.trust_store().await?;
        let deadline = self.write_deadline();
        for _ in 0..limits::EVALUATION_ATTEMPTS_MAX {
            let answer = self.read(scope, id, |row| check_read(&matching, row), &matching).await?;
            let hits = answer.hits.into_iter().flatten();
            let deletions: Vec<Operation> = hits.map(|hit| Operation::delete(hit.id.as_str().into())).collect();
            if deletions.is_empty() {
                return Ok(0);
            }
            check_count(deletions.len())?;
            match self.append(&seen, &deletions, Placement::Exactly(answer.end), deadline).await {
                Ok(_) => return Ok(deletions.len() as u64),
                Err(AppendError::Conflict(_)) => {}
                Err(error) => return Err(self.append_error(id, error)),
            }
        }
        let message = "The collection changed faster than its records could be matched: nothing was deleted, try again";
        Err(ApiError::unavailable(message))
    }

    fn write_deadline(&self) -> Timestamp {
        self.runtime.now().plus_ms(WRITE_DEADLINE_MS)
    }

    async fn append_anywhere(
        &self,
        seen: SeenRow,
        operations: &[Operation],
        deadline: Timestamp,
    ) -> Result<LogEnd, ApiError> {
        let id = seen.row.id;
        let first = self.append(&seen, operations, Placement::Anywhere(self.memory.end(id)), deadline).await;
        let result = match first {
            Err(AppendError::StaleEnd) => {
                self.memory.forget_end(id);
                let seen = self.fetch_row(id).await?;
                self.append(&seen, operations, Placement::Anywhere(None), deadline).await
            }
            result => result,
        };
        result.map_err(|error| self.append_error(id, error))
    }

    async fn append(
        &self,
        seen: &SeenRow,
        operations: &[Operation],
        placement: Placement,
        deadline: Timestamp,
    ) -> Result<LogEnd, AppendError> {
        let rows = CatalogRows { gateway: self, id: seen.row.id };
        let writer = Writer { store: &self.store, runtime: &self.runtime, rows: &rows, collection: seen.row.id };
        let end = writer.append(operations, seen.view(), placement, deadline).await?;
        self.memory.see_end(seen.row.id, end);
        Ok(end)
    }

    /// A row on which a claim may rest.
    async fn row_for_write(&self, scope: &Scope, id: CollectionId) -> Result<SeenRow, ApiError> {
        let now = self.runtime.now();
        let known = self.memory.row(id).filter(|seen| now.ms_since(seen.requested_at) <= limits::CLAIM_ROW_AGE_MAX_MS);
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

    fn append_error(&self, id: CollectionId, error: AppendError) -> ApiError {
        match error {
            AppendError::Deleted => ApiError::collection_id_not_found(id),
            AppendError::NotWritten(_) | AppendError::StaleEnd | AppendError::Conflict(_) => not_written(&error),
            AppendError::Unknown(_) => ApiError::indeterminate(error),
            AppendError::Broken { .. } => ApiError::internal(error),
        }
    }
}

fn not_written(cause: &dyn std::fmt::Display) -> ApiError {
    ApiError::unavailable("Nothing was written: try again later").because(cause)
}

/// The catalog as the log's writer sees it.
struct CatalogRows<'a, 'm, S, C, E, R> {
    gateway: &'a Gateway<'m, S, C, E, R>,
    id: CollectionId,
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
