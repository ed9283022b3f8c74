//! Routes about collections.

use super::{Answered, Call};
use crate::reads::{check_scope, row_error};
use crate::routes::Scope;
use crate::wire::{ApiError, body, collections, responses};
use crate::{Executors, Gateway};
use bytes::Bytes;
use catalog::{Catalog, CatalogError};
use http::StatusCode;
use model::CollectionId;
use runtime::Runtime;
use storage::ObjectStore;

fn ok(body: Bytes) -> Answered {
    Ok(responses::json(StatusCode::OK, body))
}

pub(super) async fn list<S, C: Catalog, E, R>(
    gateway: &Gateway<'_, S, C, E, R>,
    call: &Call<'_>,
    scope: &Scope,
) -> Answered {
    let page = body::page(call.query())?;
    ok(collections::collections(&gateway.catalog.list_collections(&scope.tenant, &scope.database, page).await?))
}

pub(super) async fn count<S, C: Catalog, E, R>(gateway: &Gateway<'_, S, C, E, R>, scope: &Scope) -> Answered {
    ok(responses::count(gateway.catalog.count_collections(&scope.tenant, &scope.database).await?))
}

pub(super) async fn create<S, C: Catalog, E, R: Runtime>(
    gateway: &Gateway<'_, S, C, E, R>,
    call: &Call<'_>,
    scope: &Scope,
) -> Answered {
    let id = CollectionId::from_random(gateway.runtime.random());
    let new = call.parse(|kind, body| collections::create(kind, body, id, &scope.tenant, &scope.database))?;
    let name = new.name.clone();
    match gateway.catalog.create_collection(new).await {
        Err(CatalogError::NotFound) => Err(ApiError::database_of_new_collection_missing(&scope.database)),
        Err(CatalogError::AlreadyExists) => Err(ApiError::collection_exists(&name)),
        result => ok(collections::collection(&result?)),
    }
}

pub(super) async fn get<S, C: Catalog, E, R>(gateway: &Gateway<'_, S, C, E, R>, scope: &Scope, name: &str) -> Answered {
    match gateway.catalog.get_collection(&scope.tenant, &scope.database, name).await {
        Err(CatalogError::NotFound) => Err(ApiError::collection_not_found(name)),
        result => ok(collections::collection(&result?)),
    }
}

pub(super) async fn get_by_id<S, C, E, R>(gateway: &Gateway<'_, S, C, E, R>, scope: &Scope, id: &str) -> Answered
where
    S: ObjectStore,
    C: Catalog,
    E: Executors,
    R: Runtime,
{
    let id = CollectionId::parse(id).ok_or_else(ApiError::by_id_malformed)?;
    let seen = gateway.fetch_row(id).await.and_then(|seen| check_scope(&seen.row, scope).map(|()| seen));
    match seen {
        Err(error) if error.status == StatusCode::NOT_FOUND => Err(ApiError::collection_not_found(&id.to_string())),
        seen => ok(collections::collection(&seen?.row)),
    }
}

pub(super) async fn update<S, C, E, R>(
    gateway: &Gateway<'_, S, C, E, R>,
    call: &Call<'_>,
    scope: &Scope,
    id: &str,
) -> Answered
where
    S: ObjectStore,
    C: Catalog,
    E: Executors,
    R: Runtime,
{
    let id = CollectionId::parse(id).ok_or_else(ApiError::collection_id_malformed)?;
    let update = call.parse(collections::update)?;
    let seen = gateway.fetch_row(id).await?;
    check_scope(&seen.row, scope)?;
    if !update.is_empty() {
        let new_name = update.new_name().unwrap_or_default().to_owned();
        let changed = gateway.catalog.update_collection(id, update.into_change(&seen.row)?).await;
        changed.map_err(|error| match error {
            CatalogError::AlreadyExists => ApiError::collection_exists(&new_name),
            error => row_error(id, error),
        })?;
    }
    ok(responses::empty())
}

pub(super) async fn delete<S, C: Catalog, E, R>(
    gateway: &Gateway<'_, S, C, E, R>,
    scope: &Scope,
    name: &str,
) -> Answered {
    match gateway.catalog.delete_collection(&scope.tenant, &scope.database, name).await {
        Err(CatalogError::NotFound) => Err(ApiError::collection_not_found(name)),
        result => ok(result.map(|()| responses::empty())?),
    }
}
