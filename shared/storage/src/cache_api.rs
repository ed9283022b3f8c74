//! Cloudflare's Cache API.

use crate::EdgeCache;
use bytes::Bytes;
use runtime::worker_response;
use worker::Cache;

/// Name of the variable that turns it on.
const VARIABLE: &str = "EDGE_CACHE_URL";
/// Name of our cache: what is in it cannot be fetched from the zone's own.
const CACHE: &str = "opal";
/// Objects of these names never change.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The cache of the data centre that the Worker runs in.
#[derive(Clone, Debug)]
pub struct CacheApi {
    /// What names begin with: a URL on the Worker's own domain, as Cloudflare asks for.
    url: String,
}

impl CacheApi {
    /// The cache, if the Worker whose bindings are `env` has one: where `EDGE_CACHE_URL` is not set there is none.
    pub fn from_env(env: &worker::Env) -> Option<Self> {
        let url = env.var(VARIABLE).ok()?.to_string();
        (!url.is_empty()).then(|| CacheApi { url: url.trim_end_matches('/').to_owned() })
    }

    fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }
}

impl EdgeCache for CacheApi {
    async fn get(&self, name: &str) -> Option<Bytes> {
        let mut response = Cache::open(CACHE.to_owned()).await.get(self.url(name), false).await.ok()??;
        (response.status_code() == 200).then_some(())?;
        response.bytes().await.ok().map(Bytes::from)
    }

    async fn put(&self, name: &str, body: Bytes) {
        let response = http::Response::builder().header("cache-control", FOR_EVER).body(body);
        let response = response.expect("constant headers are valid");
        if let Ok(response) = worker_response(response) {
            // It may refuse; then the next one reads from the bucket.
            let _ = Cache::open(CACHE.to_owned()).await.put(self.url(name), response.into()).await;
        }
    }
}
