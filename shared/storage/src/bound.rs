//! The bucket that a Worker's configuration names.

use crate::{Etag, ObjectStore, PutError, PutMode, R2Store, ReadError, S3Config, S3ConfigError, S3Store};
use bytes::Bytes;
use runtime::{Http, Runtime};
use std::ops::Range;

/// Name of the R2 binding.
const BINDING: &str = "BUCKET";

/// A Worker's bucket: its R2 binding `BUCKET` if it has one, else what its S3 variables name.
#[derive(Debug)]
pub enum BoundStore<R> {
    /// By binding.
    R2(R2Store<R>),
    /// By variables.
    S3(S3Store<R>),
}

impl<R: Runtime + Http> BoundStore<R> {
    /// The bucket of the Worker whose bindings are `env`. Errors: there is no binding, and a variable is missing.
    pub fn from_env(env: &worker::Env, runtime: R) -> Result<Self, S3ConfigError> {
        if let Ok(bucket) = env.bucket(BINDING) {
            return Ok(BoundStore::R2(R2Store::new(bucket, runtime)));
        }
        let config = S3Config::from_lookup(|name| env.var(name).ok().map(|value| value.to_string()))?;
        Ok(BoundStore::S3(S3Store::new(config, runtime)?))
    }

    /// The same bucket, reached through `runtime`: reading variables costs more.
    pub fn through(&self, runtime: R) -> Self {
        match self {
            BoundStore::R2(store) => BoundStore::R2(store.through(runtime)),
            BoundStore::S3(store) => BoundStore::S3(store.through(runtime)),
        }
    }

    /// By which way it is reached, as text that tells two buckets of one Worker apart.
    pub fn name(&self) -> String {
        match self {
            BoundStore::R2(_) => "r2".to_owned(),
            BoundStore::S3(store) => store.url(),
        }
    }
}

impl<R: Runtime + Http> ObjectStore for BoundStore<R> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        match self {
            BoundStore::R2(store) => store.get(key).await,
            BoundStore::S3(store) => store.get(key).await,
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        match self {
            BoundStore::R2(store) => store.get_range(key, range).await,
            BoundStore::S3(store) => store.get_range(key, range).await,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        match self {
            BoundStore::R2(store) => store.head(key).await,
            BoundStore::S3(store) => store.head(key).await,
        }
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        match self {
            BoundStore::R2(store) => store.put(key, body, mode).await,
            BoundStore::S3(store) => store.put(key, body, mode).await,
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        match self {
            BoundStore::R2(store) => store.list(prefix, start_after).await,
            BoundStore::S3(store) => store.list(prefix, start_after).await,
        }
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        match self {
            BoundStore::R2(store) => store.delete(key).await,
            BoundStore::S3(store) => store.delete(key).await,
        }
    }
}
