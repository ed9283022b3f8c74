//! A bucket reached through a Worker's R2 binding: no signatures, no endpoint, no keys.

use crate::r2_errors::{put_error, read_error};
use crate::{Etag, LIST_KEYS_MAX, ObjectStore, PutError, PutMode, ReadError, key_error};
use bytes::Bytes;
use md5::{Digest, Md5};
use model::limits;
use runtime::{Runtime, within};
use std::ops::Range;
use worker::js_sys::{Object, Reflect, Uint8Array, futures::JsFuture};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::worker_sys::{R2Bucket, R2Object};

/// Most calls for one listing: R2 may cut its pages short, but must go on.
const LIST_CALLS_MAX: usize = 16;

/// Positions above this are not whole numbers in JavaScript; no object is nearly as large.
const POSITION_MAX: u64 = 1 << 52;

/// A bucket of R2, by its binding.
///
/// A call cannot be taken back: one that took too long may still have its effect later. Writes carry an MD5, which R2
/// verifies.
#[derive(Debug)]
pub struct R2Store<R> {
    runtime: R,
    bucket: worker::Bucket,
}

impl<R> R2Store<R> {
    /// The bucket behind a binding. Nothing is sent yet.
    pub fn new(bucket: worker::Bucket, runtime: R) -> Self {
        R2Store { runtime, bucket }
    }

    /// The same bucket, reached through `runtime`.
    pub fn through(&self, runtime: R) -> Self {
        R2Store { runtime, bucket: self.bucket.clone() }
    }
}

impl<R: Runtime> ObjectStore for R2Store<R> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.read(key, async || body_of(self.bucket.get(key).execute().await?).await).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        assert!(range.start < range.end, "an empty range asks for nothing");
        let (offset, length) = (range.start.min(POSITION_MAX), (range.end - range.start).min(POSITION_MAX));
        let part = worker::Range::OffsetWithLength { offset, length };
        let read = self.read(key, async || body_of(self.bucket.get(key).range(part).execute().await?).await).await;
        match read {
            Ok(Some(body)) if body.len() as u64 > length => {
                Err(ReadError::Unavailable("more bytes than asked for".to_owned()))
            }
            // A range that begins beyond the end is an error to R2, to its emulator one without a code.
            Err(ReadError::Unavailable(error)) => match self.head(key).await? {
                Some(size) if size <= range.start => Ok(Some(Bytes::new())),
                _ => Err(ReadError::Unavailable(error)),
            },
            read => read,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.read(key, async || Ok(self.bucket.head(key).await?.map(|object| object.size()))).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        let written = self.write(key, async || self.send(key, &body, &mode).await).await?;
        written.ok_or(PutError::Precondition)
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        let mut keys = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..LIST_CALLS_MAX {
            let limit = u32::try_from(LIST_KEYS_MAX - keys.len()).expect("a page is short");
            let mut page = self.bucket.list().prefix(prefix).limit(limit);
            page = match (cursor.take(), start_after) {
                (Some(cursor), _) => page.cursor(cursor),
                (None, Some(key)) => page.start_after(key),
                (None, None) => page,
            };
            let page = self.answered(page.execute()).await.map_err(|error| read_error(&error))?;
            keys.extend(page.objects().iter().map(worker::Object::key));
            cursor = page.cursor().filter(|_| page.truncated());
            if cursor.is_none() || keys.len() >= LIST_KEYS_MAX {
                return Ok(keys);
            }
        }
        Err(ReadError::Unavailable(format!("a listing of fewer than {LIST_KEYS_MAX} keys does not end")))
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.write(key, async || self.bucket.delete(key).await).await
    }
}

impl<R: Runtime> R2Store<R> {
    async fn read<T>(&self, key: &str, call: impl AsyncFnOnce() -> worker::Result<T>) -> Result<T, ReadError> {
        match key_error(key) {
            Some(error) => Err(ReadError::Refused(error)),
            None => self.answered(call()).await.map_err(|error| read_error(&error)),
        }
    }

    async fn write<T>(&self, key: &str, call: impl AsyncFnOnce() -> worker::Result<T>) -> Result<T, PutError> {
        match key_error(key) {
            Some(error) => Err(PutError::Refused(error)),
            None => self.answered(call()).await.map_err(|error| put_error(&error)),
        }
    }

    /// What `call` gives, or the text of its error; one that takes too long has an error without a code.
    async fn answered<T>(&self, call: impl Future<Output = worker::Result<T>>) -> Result<T, String> {
        match within(&self.runtime, limits::STORE_TIMEOUT_MS, call).await {
            Some(outcome) => outcome.map_err(|error| error.to_string()),
            None => Err(format!("no reply within {} ms", limits::STORE_TIMEOUT_MS)),
        }
    }

    /// The etag of what was written; `None` if the condition of `mode` does not hold.
    ///
    /// Past the typed call of `worker`, which has conditions as a struct only: its `etagDoesNotMatch: "*"` was once taken
    /// for the etag `*` and overwrote. As headers they mean what HTTP says.
    async fn send(&self, key: &str, body: &Bytes, mode: &PutMode) -> worker::Result<Option<Etag>> {
        let bucket: &R2Bucket = self.bucket.as_ref().unchecked_ref();
        let md5 = Md5::digest(body);
        let body = Uint8Array::from(body.as_ref()).into();
        let written = JsFuture::from(bucket.put(key.to_owned(), body, options(&md5, mode)?)?).await?;
        if written.is_null() {
            return Ok(None);
        }
        Ok(Some(Etag(written.unchecked_into::<R2Object>().http_etag()?)))
    }
}

/// The checksum and the condition of a put.
fn options(md5: &[u8], mode: &PutMode) -> worker::Result<JsValue> {
    let options = Object::new();
    Reflect::set(&options, &"md5".into(), &Uint8Array::from(md5).buffer())?;
    let condition = match mode {
        PutMode::Overwrite => None,
        PutMode::Create => Some(("if-none-match", "*")),
        PutMode::Update(etag) => Some(("if-match", etag.0.as_str())),
    };
    if let Some((name, value)) = condition {
        let headers = worker::Headers::new();
        headers.set(name, value)?;
        Reflect::set(&options, &"onlyIf".into(), &headers.0)?;
    }
    Ok(options.into())
}

/// The bytes of an object, if there is one.
async fn body_of(object: Option<worker::Object>) -> worker::Result<Option<Bytes>> {
    let Some(object) = object else { return Ok(None) };
    let body = object.body().ok_or_else(|| worker::Error::RustError("an object without its body".to_owned()))?;
    Ok(Some(body.bytes().await?.into()))
}
