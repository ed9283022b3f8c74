//! Routes about tenants and databases.

use super::{Answered, Call};
use crate::Gateway;
use crate::routes::Scope;
use crate::wire::{ApiError, body, names, responses, tenants};
use bytes::Bytes;
use catalog::{Catalog, CatalogError};
use http::StatusCode;
use runtime::Runtime;

fn ok(body: Bytes) -> Answered {
    Ok(responses::json(StatusCode::OK, body))
}

pub(super) async fn create_tenant<S, C: Catalog, E, R>(gateway: &Gateway<'_, S, C, E, R>, call: &Call<'_>) -> Answered {
    let name = call.parse(tenants::create_tenant)?;
    match gateway.catalog.create_tenant(&name).await {
        Err(CatalogError::AlreadyExists) => Err(ApiError::tenant_exists(&name)),
        result => ok(result.map(|()| responses::empty())?),
    }
}

pub(super) async fn get_tenant<S, C: Catalog, E, R>(gateway: &Gateway<'_, S, C, E, R>, name: &str) -> Answered {
    if !gateway.catalog.tenant_exists(name).await? {
        return Err(ApiError::tenant_not_found(name));
    }
    ok(responses::tenant(name))
}

pub(super) fn update_tenant(call: &Call<'_>) -> Answered {
    call.parse(tenants::update_tenant)?;
    ok(responses::empty())
}

pub(super) async fn list_databases<S, C: Catalog, E, R>(
    gateway: &Gateway<'_, S, C, E, R>,
    call: &Call<'_>,
    tenant: &str,
) -> Answered {
    let page = body::page(call.query())?;
    ok(responses::databases(&gateway.catalog.list_databases(tenant, page).await?))
}

pub(super) async fn create_database<S, C: Catalog, E, R: Runtime>(
    gateway: &Gateway<'_, S, C, E, R>,
    call: &Call<'_>,
    tenant: &str,
) -> Answered {
    let name = call.parse(tenants::create_database)?;
    let id = uuid::Builder::from_random_bytes(gateway.runtime.random().to_be_bytes()).into_uuid();
    match gateway.catalog.create_database(tenant, &name, id.as_u128()).await {
        Err(CatalogError::AlreadyExists) => Err(ApiError::database_exists(&name)),
        result => ok(result.map(|()| responses::empty())?),
    }
}

pub(super) async fn get_database<S, C: Catalog, E, R>(gateway: &Gateway<'_, S, C, E, R>, scope: &Scope) -> Answered {
    names::check_database_to_get(&scope.database)?;
    match gateway.catalog.get_database(&scope.tenant, &scope.database).await {
        Err(CatalogError::NotFound) => Err(ApiError::database_not_found(&scope.database)),
        result => ok(responses::database(&result?)),
    }
}

pub(super) async fn delete_database<S, C: Catalog, E, R>(gateway: &Gateway<'_, S, C, E, R>, scope: &Scope) -> Answered {
    match gateway.catalog.delete_database(&scope.tenant, &scope.database).await {
        Err(CatalogError::NotFound) => Err(ApiError::database_to_delete_not_found(&scope.database)),
        result => ok(result.map(|()| responses::empty())?),
    }
}
