//! The bucket seen from outside: signed requests straight to devstore, as any S3 tool would send them.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use model::Operation;
use rusty_s3::{Credentials, S3Action, UrlStyle};
use serde_json::Value;
use stack::{Stack, StoreAdmin};

use super::{Api, Reply};

const SIGNED_FOR: Duration = Duration::from_secs(60);

/// The bucket of a stack.
pub(crate) struct Bucket {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    store: Api,
    admin: StoreAdmin,
}

impl Bucket {
    pub(crate) fn of(stack: &Stack) -> Self {
        let endpoint = stack.store_url().parse().unwrap();
        Bucket {
            bucket: rusty_s3::Bucket::new(endpoint, UrlStyle::Path, stack::BUCKET, stack::REGION).unwrap(),
            credentials: Credentials::new(stack::ACCESS_KEY_ID, stack::SECRET_ACCESS_KEY),
            store: Api::new(stack.store_url()),
            admin: stack.store_admin(),
        }
    }

    /// The object, if there is one.
    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.try_get(key).unwrap()
    }

    /// The same. An error: the store does not answer, or not well.
    pub(crate) fn try_get(&self, key: &str) -> Result<Option<Bytes>, String> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        let reply = self.send("GET", url.as_str(), Bytes::new())?;
        match reply.status {
            200 => Ok(Some(reply.body)),
            404 => Ok(None),
            _ => Err(format!("{reply:?}")),
        }
    }

    /// Writes the object, whether there is one or not.
    pub(crate) fn put(&self, key: &str, body: impl Into<Bytes>) {
        let url = self.bucket.put_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        self.send("PUT", url.as_str(), body.into()).unwrap().expect(200);
    }

    /// The fragments of a collection's log, in order.
    pub(crate) fn fragments(&self, collection: &str) -> Vec<Bytes> {
        (0..).map_while(|lsn| self.get(&fragment_key(collection, lsn))).collect()
    }

    /// All that was ever written to a collection, in order.
    pub(crate) fn operations(&self, collection: &str) -> Vec<Operation> {
        let fragments = self.fragments(collection).into_iter();
        fragments.flat_map(|body| wal::fragment::decode(&body).unwrap().to_operations().unwrap()).collect()
    }

    /// What devstore counted of the requests that a trace caused; null if there were none.
    pub(crate) fn counts(&self, trace_id: &str) -> Value {
        self.admin.trace(trace_id).unwrap().unwrap_or_default()
    }

    fn send(&self, method: &str, url: &str, body: Bytes) -> Result<Reply, String> {
        let path = url.strip_prefix(self.store.url()).expect("signed URLs begin with the endpoint");
        self.store.send(Request::builder().method(method).uri(path).body(body).unwrap())
    }
}

/// Where a fragment lies.
pub(crate) fn fragment_key(collection: &str, lsn: u64) -> String {
    format!("{collection}/log/{lsn:016x}")
}
