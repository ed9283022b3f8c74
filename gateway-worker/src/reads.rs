//! How a collection is read: at once by the row that is known, while the catalog is asked whether it still holds.

use crate::memory::SeenRow;
use crate::routes::Scope;
use crate::wire::ApiError;
use crate::{Executors, Gateway};
use catalog::{Catalog, CatalogError};
use futures_util::future::join;
use model::safeguard::{Safeguard, holds};
use model::{CollectionId, CollectionRow, limits};
use query::{Answer, PlanError, QueryPlan, Read, ReadLevel, Source};
use runtime::Runtime;
use std::rc::Rc;
use storage::ObjectStore;

/// How a read is done, besides what it asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// How much of what was written must be seen.
    pub level: ReadLevel,
    /// Whether the answer says how it was found.
    pub explain: bool,
}

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> Gateway<'_, S, C, E, R> {
    /// Answers `read`, as of a moment after this call began, unless `check` refuses it for this collection.
    ///
    /// Below the default `level`, a row at most [`limits::CLAIM_ROW_AGE_MAX_MS`] old is good enough: the answer may lack
    /// what happened since, also that the collection was deleted.
    ///
    /// Cost: one catalog read, beside the executor's work if the row was known before, else ahead of it; none below the
    /// default level if the row was known.
    pub(crate) async fn read(
        &self,
        scope: &Scope,
        id: CollectionId,
        check: impl Fn(&CollectionRow) -> Result<(), ApiError>,
        read: &Read,
        ReadOptions { level, explain }: ReadOptions,
    ) -> Result<Answer, ApiError> {
        // A row without a dimension may be older than the first write, which would make any answer "nothing".
        let known = self.memory.row(id).filter(|seen| seen.row.dimension.is_some());
        // Whether `seen` was asked for by this call. Timestamps cannot tell: within a millisecond much may happen.
        let mut fresh = known.is_none();
        let mut seen = match known {
            Some(seen) => seen,
            None => join(self.fetch_row(id), self.executors.prepare()).await.0?,
        };
        for _ in 0..limits::EVALUATION_ATTEMPTS_MAX {
            if let Err(error) = check_scope(&seen.row, scope).and_then(|()| check(&seen.row)) {
                if fresh {
                    return Err(error);
                }
                // What does not fit the row that was known may be gone by now, which is another answer.
                (seen, fresh) = (self.fetch_row(id).await?, true);
                continue;
            }
            let plan = QueryPlan { source: source(&seen.row), read: read.clone(), level, explain };
            let age_ms = self.runtime.now().ms_since(seen.requested_at);
            let is_good_enough = level != ReadLevel::IndexAndWal && age_ms <= limits::CLAIM_ROW_AGE_MAX_MS;
            if is_good_enough || fresh {
                let answer = self.spent.on_executors(&self.runtime, self.executors.run(&plan)).await;
                if let Err(error @ PlanError::Missing(_)) = answer {
                    // Collected while it was read, or damage: only where the row is still the same.
                    let now = self.fetch_row(id).await?;
                    if fresh && now.row.generation == seen.row.generation {
                        return Err(error.into());
                    }
                    (seen, fresh) = (now, true);
                    continue;
                }
                // A failure, too, may be that of an old row: what it names was collected.
                if is_good_enough || self.is_young(&seen) {
                    return self.accept(&plan, answer);
                }
                seen = self.fetch_row(id).await?;
            } else {
                let run = self.spent.on_executors(&self.runtime, self.executors.run(&plan));
                let (answer, now) = join(run, self.fetch_row(id)).await;
                let now = now?;
                check_scope(&now.row, scope)?;
                let may_pass = match &answer {
                    Ok(_) => false,
                    Err(PlanError::Missing(_)) => true,
                    // Such as a log that was too long until it was compacted.
                    Err(_) => now.row.generation != seen.row.generation,
                };
                if !may_pass && still_holds(&seen.row, &now.row) && self.is_young(&now) {
                    return self.accept(&plan, answer);
                }
                (seen, fresh) = (now, true);
            }
        }
        Err(ApiError::unavailable("The collection changed faster than it could be read: try again"))
    }

    /// Whether nothing that a reader of the row finds missing can have been collected: the delay before the first
    /// deletion is longer.
    fn is_young(&self, seen: &SeenRow) -> bool {
        let age_ms = self.runtime.now().ms_since(seen.requested_at);
        age_ms < limits::ANSWER_ROW_AGE_MAX_MS || !holds(Safeguard::AgeOfStrongRead)
    }

    /// The answer by a row that has proved good. At the default level: where it saw the log end is where the next write
    /// begins. (By a row that was too old it may have seen what a late put left in a place that was collected.)
    fn accept(&self, plan: &QueryPlan, answer: Result<Answer, PlanError>) -> Result<Answer, ApiError> {
        let answer = answer?;
        if plan.level == ReadLevel::IndexAndWal {
            self.memory.see_end(plan.source.collection, answer.end);
        }
        Ok(answer)
    }

    /// The row as it is now.
    pub(crate) async fn fetch_row(&self, id: CollectionId) -> Result<SeenRow, ApiError> {
        self.ask_row(id, self.catalog.get_collection_by_id(id)).await.map_err(|error| row_error(id, error))
    }

    /// The row that `call`, not yet sent, answers with; the isolate remembers it, or that it is gone.
    pub(crate) async fn ask_row(
        &self,
        id: CollectionId,
        call: impl Future<Output = Result<CollectionRow, CatalogError>>,
    ) -> Result<SeenRow, CatalogError> {
        let requested_at = self.runtime.now();
        let answer = self.spent.on_catalog(&self.runtime, call).await;
        if answer == Err(CatalogError::NotFound) {
            self.memory.forget(id);
        }
        let seen = SeenRow { row: Rc::new(answer?), requested_at };
        self.memory.see_row(&seen);
        Ok(seen)
    }
}

/// Why a call about the collection `id` gave no row.
pub(crate) fn row_error(id: CollectionId, error: CatalogError) -> ApiError {
    match error {
        CatalogError::NotFound => ApiError::collection_id_not_found(id),
        error => error.into(),
    }
}

/// Whether what was read by the row `used` is what a reader of the row `fresh` would find: nothing that was to be read
/// may have been collected, and no first write may have been overlooked.
fn still_holds(used: &CollectionRow, fresh: &CollectionRow) -> bool {
    let is_uncollected = fresh.gc_floor <= used.watermark() || !holds(Safeguard::FloorAfterRead);
    is_uncollected && fresh.dimension == used.dimension
}

fn source(row: &CollectionRow) -> Source {
    Source {
        collection: row.id,
        generation: row.generation,
        manifest: row.manifest.clone(),
        dimension: row.dimension,
        space: row.configuration.space,
        ef_search: row.configuration.ef_search,
    }
}

/// A collection is found under its own tenant and database only.
pub(crate) fn check_scope(row: &CollectionRow, scope: &Scope) -> Result<(), ApiError> {
    let found = row.tenant == scope.tenant && row.database == scope.database;
    if found { Ok(()) } else { Err(ApiError::collection_id_not_found(row.id)) }
}
