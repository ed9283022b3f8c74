//! The bucket of a stack, as any S3 tool sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Credentials, S3Action, UrlStyle};
use stack::Stack;

use super::http::Client;

const SIGNED_FOR: Duration = Duration::from_secs(600);
/// Kind of the section of a segment's head that is the index of ids: see docs/formats.md.
const IDS_KIND: u32 = 4;

/// One connection to the store.
pub(crate) struct Bucket {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    endpoint: String,
    client: Client,
}

/// Bytes of a collection's objects, by what they are for.
pub(crate) type Stored = BTreeMap<&'static str, u64>;

impl Bucket {
    pub(crate) fn of(stack: &Stack) -> Result<Bucket> {
        let endpoint = stack.store_url();
        Ok(Bucket {
            bucket: rusty_s3::Bucket::new(endpoint.parse()?, UrlStyle::Path, stack::BUCKET, stack::REGION)?,
            credentials: Credentials::new(stack::ACCESS_KEY_ID, stack::SECRET_ACCESS_KEY),
            client: Client::new(&endpoint),
            endpoint,
        })
    }

    /// The objects under `prefix`, with their sizes in bytes.
    pub(crate) fn list(&mut self, prefix: &str) -> Result<Vec<(String, u64)>> {
        let (mut objects, mut token) = (Vec::new(), None);
        loop {
            let mut list = self.bucket.list_objects_v2(Some(&self.credentials));
            list.with_prefix(prefix);
            if let Some(token) = &token {
                list.with_continuation_token(token);
            }
            let reply = String::from_utf8(self.send("GET", list.sign(SIGNED_FOR).as_str(), b"")?)?;
            let reply = ListObjectsV2::parse_response(&reply)?;
            for object in reply.contents {
                objects.push((object.key, object.size.context("an object without a size")?));
            }
            token = reply.next_continuation_token;
            if token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Copies an object by reading and writing it.
    pub(crate) fn copy(&mut self, from: &str, to: &str) -> Result<()> {
        let body = self.get(from)?;
        let url = self.bucket.put_object(Some(&self.credentials), to).sign(SIGNED_FOR);
        self.send("PUT", url.as_str(), &body).map(drop)
    }

    /// What is stored of a collection.
    pub(crate) fn stored(&mut self, collection: &str) -> Result<Stored> {
        let mut stored = Stored::new();
        for (key, bytes) in self.list(&format!("{collection}/"))? {
            let part = part(&key).with_context(|| format!("{key} is no object that we know"))?;
            let mut bytes = bytes;
            if part == "head" {
                let ids = ids_bytes(&self.get(&key)?).with_context(|| format!("{key} is no head of a segment"))?;
                *stored.entry("ids").or_default() += ids;
                bytes -= ids;
            }
            *stored.entry(part).or_default() += bytes;
        }
        Ok(stored)
    }

    /// A URL by which anybody may get the object under `key`, for a while.
    pub(crate) fn signed(&self, key: &str) -> String {
        self.bucket.get_object(Some(&self.credentials), key).sign(SIGNED_FOR).into()
    }

    fn get(&mut self, key: &str) -> Result<Vec<u8>> {
        let url = self.signed(key);
        self.send("GET", &url, b"")
    }

    fn send(&mut self, method: &str, url: &str, body: &[u8]) -> Result<Vec<u8>> {
        let path = url.strip_prefix(&self.endpoint);
        ensure!(path.is_some(), "signed URLs begin with the endpoint, not {url}");
        self.client.call(method, path.unwrap_or_default(), body)
    }
}

/// What the object under a key of a collection is for.
fn part(key: &str) -> Option<&'static str> {
    let (kind, name) = key.split_once('/')?.1.split_once('/')?;
    Some(match (kind, name.rsplit('/').next()?) {
        ("log", _) => "log",
        ("pack", _) => "packs",
        ("seg", "head") => "head",
        ("seg", name) if name.starts_with("rows-") => "rows",
        ("seg", name) if name.starts_with("codes-") => "codes",
        ("seg", "index") => "leaf index",
        ("seg", name) if name.starts_with("leaves-") || name.starts_with("near-") => "leaf index",
        ("seg", "text") => "text index",
        ("seg", name) if name.starts_with("terms-") => "text index",
        ("del", _) => "delete vectors",
        _ => return None,
    })
}

/// Bytes of the index of ids in a segment's head, as its table of sections tells.
fn ids_bytes(head: &[u8]) -> Option<u64> {
    let number = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let sections = usize::try_from(number(20)?).ok()?;
    let entries = head.get(40..)?.chunks_exact(32).take(sections);
    let kind = |entry: &[u8]| entry.first_chunk().map(|kind| u32::from_le_bytes(*kind));
    let ids = entries.into_iter().find(|entry| kind(entry) == Some(IDS_KIND))?;
    Some(u64::from_le_bytes(*ids.get(16..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_their_keys() {
        for (key, expect) in [
            ("c/log/0000000000000001", Some("log")),
            ("c/pack/1/0000000000000010", Some("packs")),
            ("c/seg/00000000-0123/head", Some("head")),
            ("c/seg/00000000-0123/rows-0001.arrow", Some("rows")),
            ("c/seg/00000000-0123/codes-0001", Some("codes")),
            ("c/seg/00000000-0123/index", Some("leaf index")),
            ("c/seg/00000000-0123/near-0001.arrow", Some("leaf index")),
            ("c/seg/00000000-0123/terms-0001", Some("text index")),
            ("c/del/00000000-0123", Some("delete vectors")),
            ("dirty/c", None),
        ] {
            assert_eq!(part(key), expect, "{key}");
        }
    }

    #[test]
    fn the_golden_head_tells_its_index_of_ids() {
        let head = include_bytes!("../../../shared/segment/testdata/v1/head");
        let ids = ids_bytes(head).unwrap();
        assert!(ids > 0 && ids.is_multiple_of(4_096), "whole pages, not {ids} bytes");
        assert_eq!(ids_bytes(&head[..50]), None);
    }
}
