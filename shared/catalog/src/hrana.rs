//! The database over HTTP: Hrana, the protocol of libSQL (Turso, sqld), one round trip for each transaction.

mod pipeline;
#[cfg(test)]
mod tests;

use crate::database::{Database, Failure, Outcome, Statement};
use crate::{CatalogError, SqlCatalog};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use runtime::{Http, HttpError, Runtime};
use std::fmt;

/// The catalog in a libSQL database, one HTTP round trip a call. It holds no connection, so the next call works as soon as
/// the database does.
pub type HranaCatalog<R> = SqlCatalog<HranaDatabase<R>, R>;

impl<R: Runtime + Http> HranaCatalog<R> {
    /// The catalog at `config.url`. `Refused` if that is not a URL as described there, or the token not one line.
    pub fn new(config: HranaConfig, runtime: R) -> Result<Self, CatalogError> {
        Ok(SqlCatalog::over(HranaDatabase::new(config, runtime.clone())?, runtime))
    }

    /// The same catalog, reached through `runtime`.
    #[must_use]
    pub fn through(&self, runtime: R) -> Self {
        let database = HranaDatabase { runtime: runtime.clone(), ..self.database().clone() };
        SqlCatalog::over(database, runtime)
    }
}

/// Where the database is and how to enter.
#[derive(Clone)]
pub struct HranaConfig {
    /// `http://`, `https://` or `libsql://` (which is `https://`) with host, port and maybe a path; no query. It must
    /// be the primary's: a replica answers reads from its past.
    pub url: String,
    /// Sent as a bearer token.
    pub token: Option<String>,
}

impl HranaConfig {
    /// The URL with its real scheme and without a slash at its end. `Refused` if it is not as described: the message quotes
    /// nothing, as people put tokens into URLs.
    pub fn base_url(&self) -> Result<String, CatalogError> {
        let base = match self.url.strip_prefix("libsql://") {
            Some(rest) => format!("https://{rest}"),
            None => self.url.clone(),
        };
        let base = base.trim_end_matches('/');
        let is_plain = |uri: &Uri| {
            let known_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
            let plain_host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            known_scheme && plain_host && uri.query().is_none() && !base.contains('#')
        };
        if base.parse().is_ok_and(|uri| is_plain(&uri)) {
            return Ok(base.to_owned());
        }
        Err(CatalogError::Refused("the url must be http(s):// or libsql:// with a host, without query".to_owned()))
    }
}

impl fmt::Debug for HranaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "(hidden)");
        f.debug_struct("HranaConfig").field("url", &self.url).field("token", &token).finish()
    }
}

/// A libSQL database behind its HTTP endpoint. Making one costs nothing and sends nothing.
#[derive(Clone)]
pub struct HranaDatabase<R> {
    runtime: R,
    pipeline: Uri,
    token: Option<String>,
    authorization: Option<HeaderValue>,
}

impl<R: Runtime + Http> HranaDatabase<R> {
    fn new(config: HranaConfig, runtime: R) -> Result<Self, CatalogError> {
        let pipeline = format!("{}/v2/pipeline", config.base_url()?);
        let pipeline = pipeline.parse().map_err(|_| CatalogError::Refused("the url is too long".to_owned()))?;
        let authorization = config.token.as_deref().map(bearer).transpose()?;
        Ok(HranaDatabase { runtime, pipeline, token: config.token, authorization })
    }

    fn request(&self, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.pipeline.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        request
    }
}

impl<R: Runtime + Http> Database for HranaDatabase<R> {
    async fn run(&self, statements: &[Statement]) -> Result<Vec<Outcome>, Failure> {
        let outcome = match self.runtime.fetch(self.request(pipeline::request_body(statements))).await {
            Ok(reply) => pipeline::outcomes(reply.status(), reply.body(), statements.len()),
            Err(HttpError::Invalid(text)) => Err(Failure::Refused(text)),
            Err(HttpError::NoReply(text)) => Err(Failure::Lost(text)),
        };
        outcome.map_err(|failure| failure.hiding(self.token.as_deref()))
    }
}

fn bearer(token: &str) -> Result<HeaderValue, CatalogError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| CatalogError::Refused("the token is not one line of printable text".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
