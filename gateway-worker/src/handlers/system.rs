//! Routes about the server itself.

use super::Answered;
use crate::wire::{ApiError, responses};
use crate::{Executors, Gateway};
use bytes::Bytes;
use catalog::{Catalog, DEFAULT_DATABASE, DEFAULT_TENANT};
use futures_util::future::join;
use http::{Response, StatusCode};
use model::keys;
use runtime::Runtime;
use storage::ObjectStore;

fn ok(body: Bytes) -> Response<Bytes> {
    responses::json(StatusCode::OK, body)
}

pub(super) fn heartbeat<S, C, E, R: Runtime>(gateway: &Gateway<'_, S, C, E, R>) -> Response<Bytes> {
    ok(responses::heartbeat(gateway.runtime.now()))
}

pub(super) fn version() -> Response<Bytes> {
    ok(responses::version())
}

pub(super) fn preflight() -> Response<Bytes> {
    ok(responses::preflight())
}

pub(super) fn identity() -> Response<Bytes> {
    ok(responses::identity("", DEFAULT_TENANT, &[DEFAULT_DATABASE]))
}

/// Asks catalog and store for something small: both must answer before reads or writes can.
pub(super) async fn healthcheck<S: ObjectStore, C: Catalog, E: Executors, R: Runtime>(
    gateway: &Gateway<'_, S, C, E, R>,
) -> Response<Bytes> {
    let marker = keys::probe_passed(&gateway.settings.store_name);
    let (catalog, store) = join(gateway.catalog.ping(), gateway.store.head(&marker)).await;
    let (status, body) = responses::healthcheck(catalog.is_ok() && store.is_ok(), store.is_ok());
    responses::json(status, body)
}

pub(super) async fn reset<S, C: Catalog, E, R>(gateway: &Gateway<'_, S, C, E, R>) -> Answered {
    if !gateway.settings.allow_reset {
        return Err(ApiError::reset_disabled());
    }
    gateway.catalog.reset().await?;
    Ok(ok(responses::reset()))
}
