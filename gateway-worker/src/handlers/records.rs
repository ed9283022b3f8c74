//! Routes about the records of one collection.

use super::{Answered, Call};
use crate::routes::{Scope, Verb};
use crate::wire::records::{self, Batch, Delete};
use crate::wire::{ApiError, body, responses};
use crate::{Executors, Gateway};
use catalog::Catalog;
use http::StatusCode;
use model::CollectionId;
use query::Read;
use runtime::Runtime;
use storage::ObjectStore;

/// Where a handler works: a gateway, and the collection that the path names.
struct Records<'a, 'm, S, C, E, R> {
    gateway: &'a Gateway<'m, S, C, E, R>,
    scope: &'a Scope,
    id: CollectionId,
}

pub(super) async fn answer<S, C, E, R>(
    gateway: &Gateway<'_, S, C, E, R>,
    call: &Call<'_>,
    scope: &Scope,
    id: CollectionId,
    verb: Verb,
) -> Answered
where
    S: ObjectStore,
    C: Catalog,
    E: Executors,
    R: Runtime,
{
    let records = Records { gateway, scope, id };
    let (kind, body) = (call.content_type(), call.body());
    match verb {
        Verb::Add => records.write(records::add(kind, body)?, StatusCode::CREATED).await,
        Verb::Upsert => records.write(records::upsert(kind, body)?, StatusCode::OK).await,
        Verb::Update => records.write(records::update(kind, body)?, StatusCode::OK).await,
        Verb::Delete => records.delete(records::delete(kind, body)?).await,
        Verb::Get => records.get(records::get(kind, body)?).await,
        Verb::Query => records.query(records::query(kind, body)?).await,
        Verb::Count => records.count(call).await,
        Verb::Search => Err(ApiError::unimplemented(
            "Error executing plan: Not implemented: Search operation is not implemented yet",
        )),
        Verb::IndexingStatus => Err(ApiError::unimplemented("Indexing status is not implemented yet")),
        Verb::Fork => Err(ApiError::unimplemented("Collection forking is not implemented yet")),
        Verb::ForkCount => Err(ApiError::unimplemented("Count forks is not implemented yet")),
    }
}

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> Records<'_, '_, S, C, E, R> {
    async fn write(&self, batch: Batch, done: StatusCode) -> Answered {
        self.gateway.write_batch(self.scope, self.id, batch).await?;
        Ok(responses::json(done, responses::empty()))
    }

    async fn delete(&self, request: Delete) -> Answered {
        let deleted = match request {
            Delete::Nothing => self.gateway.write(self.scope, self.id, &[]).await.map(|()| 0)?,
            Delete::Ids { operations, deleted } => {
                self.gateway.write(self.scope, self.id, &operations).await.map(|()| deleted)?
            }
            Delete::Matching(read) => self.gateway.delete_matching(self.scope, self.id, read).await?,
        };
        Ok(responses::json(StatusCode::OK, responses::deleted(deleted)))
    }

    async fn get(&self, request: records::ReadRequest) -> Answered {
        let answer = self.gateway.read(self.scope, self.id, |row| request.check(row), &request.read).await?;
        Ok(responses::json(StatusCode::OK, responses::get(&answer, &request.include)))
    }

    async fn query(&self, request: records::ReadRequest) -> Answered {
        let answer = self.gateway.read(self.scope, self.id, |row| request.check(row), &request.read).await?;
        Ok(responses::json(StatusCode::OK, responses::query(&answer, &request.include)))
    }

    async fn count(&self, call: &Call<'_>) -> Answered {
        // Every level promises at most what a linearizable count gives.
        body::read_level(call.query())?;
        let answer = self.gateway.read(self.scope, self.id, |_| Ok(()), &Read::Count).await?;
        Ok(responses::json(StatusCode::OK, responses::count(answer.count)))
    }
}
