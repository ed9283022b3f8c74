//! Requests that carry an `Idempotency-Key`: carried out once, however often they are sent.
//!
//! The key's object says where the log ended when the key was first seen. Whoever writes under the key examines every
//! fragment from there to the one it claims, also those that come between; so of any number of tries, in any number of
//! isolates, one lands, and the others find it and answer as it did.

use crate::memory::SeenRow;
use crate::wire::ApiError;
use crate::writes::{CatalogRows, not_written};
use crate::{Executors, Gateway};
use catalog::Catalog;
use futures_util::future::try_join_all;
use http::HeaderMap;
use http::header::HeaderName;
use model::{ContentHash, Lsn, Timestamp, keys, limits};
use runtime::Runtime;
use serde::{Deserialize, Serialize};
use storage::{ObjectStore, PutError, PutMode};
use wal::{AppendError, KeyedRequest, content_hash};

/// The header.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// A request that is to be carried out once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestKey {
    key: ContentHash,
    request: ContentHash,
}

impl RequestKey {
    /// Of a request with a key; `None` if it has none. `path` and `body` tell it from every other request.
    ///
    /// Errors: 400 if the key is not 1 to 255 visible ASCII characters, or if there are several.
    pub(crate) fn of(headers: &HeaderMap, path: &str, body: &[u8]) -> Result<Option<Self>, ApiError> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let key = value.as_bytes();
        let well_formed = (1..=255).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        if !well_formed || values.next().is_some() {
            return Err(ApiError::invalid_argument("Idempotency-Key must be 1 to 255 visible ASCII characters"));
        }
        Ok(Some(RequestKey { key: content_hash(&[key]), request: content_hash(&[path.as_bytes(), body]) }))
    }

    /// What the fragment remembers of it.
    pub(crate) fn answered(self, deleted: u64) -> KeyedRequest {
        KeyedRequest { key: self.key, request: self.request, deleted }
    }
}

/// A key in use, as its object tells.
#[derive(Serialize, Deserialize)]
struct KeyInUse {
    /// Where the log ended when the key was first seen.
    from: Lsn,
    /// When that was.
    created_at: Timestamp,
}

/// A search of the log for a request.
pub(crate) struct Search {
    pub(crate) key: RequestKey,
    /// First LSN that was not examined.
    next: Lsn,
}

impl<S: ObjectStore, C: Catalog, E: Executors, R: Runtime> Gateway<'_, S, C, E, R> {
    /// Takes the key into use, or learns since when it is.
    ///
    /// Cost: one put, which a repeated request follows with a get.
    pub(crate) async fn begin_search(&self, seen: &SeenRow, key: &RequestKey) -> Result<Search, ApiError> {
        let id = seen.row.id;
        let end = self.log_end(seen).await.map_err(|error| self.append_error(id, error))?;
        let (object, now) = (keys::idempotency(id, key.key), self.runtime.now());
        let fresh = KeyInUse { from: end.next, created_at: now };
        let body = serde_json::to_vec(&fresh).expect("numbers are JSON");
        let first = self.store.put(&object, body.clone().into(), PutMode::Create).await;
        match first {
            Ok(_) => return Ok(Search { key: *key, next: fresh.from }),
            Err(PutError::Precondition | PutError::Indeterminate(_)) => {}
            Err(error) => return Err(not_written(&error)),
        }
        let stored = self.store.get(&object).await.map_err(|error| not_written(&error))?;
        let stored = stored.ok_or_else(|| not_written(&"the key's object is not there yet"))?;
        let used: KeyInUse = serde_json::from_slice(&stored).map_err(ApiError::internal)?;
        if now.ms_since(used.created_at) <= limits::IDEMPOTENCY_WINDOW_MS {
            return Ok(Search { key: *key, next: used.from });
        }
        // The fragments from then on may be gone: the key begins anew.
        self.store.put(&object, body.into(), PutMode::Overwrite).await.map_err(|error| not_written(&error))?;
        Ok(Search { key: *key, next: fresh.from })
    }

    /// Examines what lies before `end` and was not examined yet. Returns what the request was answered, if it is there.
    ///
    /// Errors: 422 if the key belongs to another request. Cost: a ranged get for each fragment.
    pub(crate) async fn search(
        &self,
        rows: &CatalogRows<'_, '_, S, C, E, R>,
        search: &mut Search,
        end: Lsn,
    ) -> Result<Option<u64>, ApiError> {
        let writer = self.writer(rows);
        while search.next < end {
            let wave = (search.next.0..end.0).take(limits::CONNECTIONS_MAX).map(Lsn);
            let headers = try_join_all(wave.map(|lsn| writer.header(lsn))).await;
            for header in headers.map_err(|error| self.append_error(rows.id, error))? {
                let header = header.ok_or_else(|| self.append_error(rows.id, AppendError::StaleEnd))?;
                if let Some(found) = header.requests.iter().find(|request| request.key == search.key.key) {
                    let same = found.request == search.key.request;
                    let error = || ApiError::unprocessable("Idempotency-Key was used with another request");
                    return if same { Ok(Some(found.deleted)) } else { Err(error()) };
                }
                search.next = header.lsn.next();
            }
        }
        Ok(None)
    }
}
