//! Routes about the records of one collection.

use super::{Answered, Call};
use crate::idempotency::RequestKey;
use crate::reads::{ReadOptions, check_scope};
use crate::routes::{Scope, Verb};
use crate::wire::records::{self, Batch, Delete, ReadRequest};
use crate::wire::{ApiError, body, responses, schema, unbuilt};
use crate::{Executors, Gateway, quotas};
use catalog::Catalog;
use http::StatusCode;
use model::{CollectionId, Filter};
use query::Read;
use runtime::Runtime;
use storage::ObjectStore;

/// Where a handler works: a gateway, and the collection that the path names.
struct Records<'a, 'm, S, C, E, R> {
    gateway: &'a Gateway<'m, S, C, E, R>,
    scope: &'a Scope,
    id: CollectionId,
    /// That the request is to be carried out once.
    key: Option<RequestKey>,
}

/// Answers `verb`; `id`: as the path has it. A body of the wrong shape is told so before an id that is none.
pub(super) async fn answer<S, C, E, R>(
    gateway: &Gateway<'_, S, C, E, R>,
    call: &Call<'_>,
    scope: &Scope,
    id: &str,
    verb: Verb,
) -> Answered
where
    S: ObjectStore,
    C: Catalog,
    E: Executors,
    R: Runtime,
{
    let key = if verb.writes() { call.key()? } else { None };
    let request = Request::of(verb, call)?;
    let action = request.action();
    request.filters().try_for_each(|filter| quotas::check_patterns(&gateway.settings, filter, action))?;
    let id = CollectionId::parse(id).ok_or_else(ApiError::collection_id_malformed)?;
    let records = Records { gateway, scope, id, key };
    match request {
        Request::Write(batch, done) => records.write(batch, done).await,
        Request::Delete(delete) => records.delete(delete).await,
        Request::Get(get, options) => records.get(get, options).await,
        Request::Query(query, options) => records.query(query, options).await,
        Request::Count(options) => records.count(options).await,
        Request::IndexingStatus => records.indexing_status().await,
        Request::Unbuilt { message, filters } => records.refuse(message, &filters).await,
    }
}

/// What is asked of a collection, sound in itself.
enum Request {
    /// With the status of its success.
    Write(Batch, StatusCode),
    Delete(Delete),
    Get(ReadRequest, ReadOptions),
    Query(ReadRequest, ReadOptions),
    Count(ReadOptions),
    IndexingStatus,
    /// What this server does not have, and how it says so: where Chroma's single-node server has it not either, in the
    /// words of that one. `filters` must go with the collection's schema.
    Unbuilt {
        message: &'static str,
        filters: Vec<Filter>,
    },
}

impl Request {
    fn of(verb: Verb, call: &Call<'_>) -> Result<Request, ApiError> {
        let refusal = |message| Request::Unbuilt { message, filters: Vec::new() };
        Ok(match verb {
            Verb::Add => Request::Write(call.parse(records::add)?, StatusCode::CREATED),
            Verb::Upsert => Request::Write(call.parse(records::upsert)?, StatusCode::OK),
            Verb::Update => Request::Write(call.parse(records::update)?, StatusCode::OK),
            Verb::Delete => Request::Delete(call.parse(records::delete)?),
            Verb::Get => Request::Get(call.parse(records::get)?, body::read_options(call.query())?),
            Verb::Query => Request::Query(call.parse(records::query)?, body::read_options(call.query())?),
            Verb::Count => Request::Count(body::read_options(call.query())?),
            Verb::Search => Request::Unbuilt {
                message: "Error executing plan: Not implemented: Search operation is not implemented for local executor",
                filters: call.parse(unbuilt::search)?,
            },
            Verb::Fork => {
                call.parse(unbuilt::fork)?;
                refusal("Collection forking is unsupported for local chroma")
            }
            Verb::ForkCount => refusal("Count forks is unsupported for local chroma"),
            Verb::IndexingStatus => Request::IndexingStatus,
        })
    }
}

impl Request {
    /// What its records must satisfy.
    fn filters(&self) -> impl Iterator<Item = &Filter> {
        let (read, filters): (Option<&Read>, &[Filter]) = match self {
            Request::Get(request, _) | Request::Query(request, _) => (Some(&request.read), &[]),
            Request::Delete(Delete::Matching(read)) => (Some(read), &[]),
            Request::Unbuilt { filters, .. } => (None, filters),
            Request::Write(..) | Request::Delete(_) | Request::Count(_) | Request::IndexingStatus => (None, &[]),
        };
        read.and_then(Read::filter).into_iter().chain(filters)
    }

    /// As messages about quotas call it.
    fn action(&self) -> &'static str {
        match self {
            Request::Get(..) => "Get",
            Request::Query(..) => "Query",
            Request::Delete(_) => "Delete",
            Request::Unbuilt { .. } => "Search",
            Request::Write(..) | Request::Count(_) | Request::IndexingStatus => "Other",
        }
    }
}

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> Records<'_, '_, S, C, E, R> {
    async fn write(&self, batch: Batch, done: StatusCode) -> Answered {
        self.gateway.write_batch(self.scope, self.id, batch, self.key).await?;
        Ok(responses::json(done, responses::empty()))
    }

    async fn delete(&self, request: Delete) -> Answered {
        let deleted = match request {
            Delete::Nothing => self.gateway.delete(self.scope, self.id, Vec::new(), 0, self.key).await?,
            Delete::Ids { operations, deleted } => {
                self.gateway.delete(self.scope, self.id, operations, deleted, self.key).await?
            }
            Delete::Matching(read) => self.gateway.delete_matching(self.scope, self.id, read, self.key).await?,
        };
        Ok(responses::json(StatusCode::OK, responses::deleted(deleted)))
    }

    async fn get(&self, request: ReadRequest, options: ReadOptions) -> Answered {
        let answer = self.gateway.read(self.scope, self.id, |row| request.check(row), &request.read, options).await?;
        Ok(responses::json(StatusCode::OK, responses::get(&answer, &request.include)))
    }

    async fn query(&self, request: ReadRequest, options: ReadOptions) -> Answered {
        let answer = self.gateway.read(self.scope, self.id, |row| request.check(row), &request.read, options).await?;
        Ok(responses::json(StatusCode::OK, responses::query(&answer, &request.include)))
    }

    async fn count(&self, options: ReadOptions) -> Answered {
        let answer = self.gateway.read(self.scope, self.id, |_| Ok(()), &Read::Count, options).await?;
        Ok(responses::json(StatusCode::OK, responses::count(answer.count)))
    }

    /// How much of the log is compacted, as of now.
    async fn indexing_status(&self) -> Answered {
        let seen = self.gateway.fetch_row(self.id).await?;
        check_scope(&seen.row, self.scope)?;
        let end = self.gateway.find_log_end(&seen).await?;
        let indexed = seen.row.manifest.compacted.operations;
        Ok(responses::json(StatusCode::OK, responses::indexing_status(indexed, end.operations)))
    }

    /// 501, unless there is no such collection or it cannot be filtered so.
    async fn refuse(&self, message: &str, filters: &[Filter]) -> Answered {
        let row = self.gateway.fetch_row(self.id).await?.row;
        check_scope(&row, self.scope)?;
        filters.iter().try_for_each(|filter| schema::check_filter(&row.schema, filter))?;
        Err(ApiError::unimplemented(message))
    }
}
