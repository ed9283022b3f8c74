//! Check, call, answer: one function for each route.

mod collections;
mod records;
mod system;
mod tenants;

use crate::idempotency::RequestKey;
use crate::routes::{NoRoute, Route, route};
use crate::wire::{self, ApiError};
use crate::{Executors, Gateway};
use bytes::Bytes;
use catalog::Catalog;
use http::Response;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use runtime::Runtime;
use std::cell::Cell;
use storage::ObjectStore;

type Answered = Result<Response<Bytes>, ApiError>;

/// What a handler needs of a request.
struct Call<'a> {
    head: &'a Parts,
    body: Cell<Bytes>,
}

impl Call<'_> {
    fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// What `parse` makes of content type and body. The body's memory is free again when this returns: what was made of
    /// it may be as large.
    fn parse<T>(&self, parse: impl FnOnce(Option<&str>, &[u8]) -> Result<T, ApiError>) -> Result<T, ApiError> {
        // A value that is not text is some type, and none that we take.
        let content_type = self.head.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
        parse(content_type, &self.body.take())
    }

    /// That the request is to be carried out once, if it says so. To be asked before the body is parsed.
    fn key(&self) -> Result<Option<RequestKey>, ApiError> {
        let body = self.body.take();
        let key = RequestKey::of(&self.head.headers, self.head.uri.path(), &body);
        self.body.set(body);
        key
    }
}

/// Answers the request with this head and body, or says why not.
pub(crate) async fn answer<S, C, E, R>(gateway: &Gateway<'_, S, C, E, R>, head: &Parts, body: Bytes) -> Answered
where
    S: ObjectStore,
    C: Catalog,
    E: Executors,
    R: Runtime,
{
    let route = match route(&head.method, head.uri.path()) {
        Ok(route) => route,
        Err(NoRoute::Path) => return Err(ApiError::no_such_route()),
        Err(NoRoute::Method(allowed)) => return Err(ApiError::method_not_allowed(&allowed)),
    };
    wire::body::check_size(body.len(), head.uri.path())?;
    let call = Call { head, body: Cell::new(body) };
    match route {
        Route::VersionOne => Err(ApiError::v1_is_gone()),
        Route::Heartbeat => Ok(system::heartbeat(gateway)),
        Route::Version => Ok(system::version()),
        Route::Healthcheck => Ok(system::healthcheck(gateway).await),
        Route::PreFlightChecks => Ok(system::preflight()),
        Route::Identity => Ok(system::identity()),
        Route::Reset => system::reset(gateway).await,
        Route::CreateTenant => tenants::create_tenant(gateway, &call).await,
        Route::GetTenant { tenant } => tenants::get_tenant(gateway, &tenant).await,
        Route::UpdateTenant { .. } => tenants::update_tenant(&call),
        Route::ListDatabases { tenant } => tenants::list_databases(gateway, &call, &tenant).await,
        Route::CreateDatabase { tenant } => tenants::create_database(gateway, &call, &tenant).await,
        Route::GetDatabase(scope) => tenants::get_database(gateway, &scope).await,
        Route::DeleteDatabase(scope) => tenants::delete_database(gateway, &scope).await,
        Route::ListCollections(scope) => collections::list(gateway, &call, &scope).await,
        Route::CountCollections(scope) => collections::count(gateway, &scope).await,
        Route::CreateCollection(scope) => collections::create(gateway, &call, &scope).await,
        Route::GetCollection { scope, name } => collections::get(gateway, &scope, &name).await,
        Route::GetCollectionById { scope, id } => collections::get_by_id(gateway, &scope, &id).await,
        Route::UpdateCollection { scope, id } => collections::update(gateway, &call, &scope, &id).await,
        Route::DeleteCollection { scope, name } => collections::delete(gateway, &scope, &name).await,
        Route::Records { scope, id, verb } => records::answer(gateway, &call, &scope, &id, verb).await,
    }
}
