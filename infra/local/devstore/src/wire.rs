//! Between the words of S3's API and our own: conditions, checksums, attributes, tokens, errors.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};

use crate::digest::{Algorithm, ChecksumKind, Checksums};
use crate::listing::After;
use crate::store::{Condition, StoreError};
use crate::upload::PARTS_MAX;

/// The checksum fields that most of S3's messages have, as [`Checksums`].
macro_rules! checksums_of {
    ($message:expr) => {
        [
            ($crate::digest::Algorithm::Crc32, $message.checksum_crc32.clone()),
            ($crate::digest::Algorithm::Crc32c, $message.checksum_crc32c.clone()),
            ($crate::digest::Algorithm::Crc64nvme, $message.checksum_crc64nvme.clone()),
            ($crate::digest::Algorithm::Sha1, $message.checksum_sha1.clone()),
            ($crate::digest::Algorithm::Sha256, $message.checksum_sha256.clone()),
        ]
        .into_iter()
        .filter_map(|(algorithm, value)| Some((algorithm, value?)))
        .collect::<$crate::digest::Checksums>()
    };
}

/// A message of S3 with its checksum fields taken from [`Checksums`], other fields as given, the rest absent.
macro_rules! with_checksums {
    ($message:ident { $($field:ident $(: $value:expr)?),* $(,)? }, $checksums:expr) => {{
        let mut checksums: $crate::digest::Checksums = $checksums;
        $message {
            checksum_crc32: checksums.remove(&$crate::digest::Algorithm::Crc32),
            checksum_crc32c: checksums.remove(&$crate::digest::Algorithm::Crc32c),
            checksum_crc64nvme: checksums.remove(&$crate::digest::Algorithm::Crc64nvme),
            checksum_sha1: checksums.remove(&$crate::digest::Algorithm::Sha1),
            checksum_sha256: checksums.remove(&$crate::digest::Algorithm::Sha256),
            $($field $(: $value)?,)*
            ..Default::default()
        }
    }};
}

/// The fields of a request that describe the object it makes, as [`Attributes`](crate::object::Attributes).
macro_rules! attributes_of {
    ($input:expr) => {
        $crate::object::Attributes {
            content_type: $input.content_type.clone(),
            content_encoding: $input.content_encoding.as_deref().and_then($crate::wire::kept_encoding),
            content_language: $input.content_language.clone(),
            content_disposition: $input.content_disposition.clone(),
            cache_control: $input.cache_control.clone(),
            user: $input.metadata.clone().unwrap_or_default().into_iter().collect(),
        }
    };
}

pub(crate) use {attributes_of, checksums_of, with_checksums};

impl From<StoreError> for S3Error {
    /// A disk that fails is also written to the log: nobody may look at what the client is told.
    fn from(error: StoreError) -> S3Error {
        if let StoreError::Io(cause) = &error {
            eprintln!("devstore: {cause}");
        }
        let code = match &error {
            StoreError::NoSuchBucket => S3ErrorCode::NoSuchBucket,
            StoreError::BucketExists => S3ErrorCode::BucketAlreadyOwnedByYou,
            StoreError::NoSuchKey => S3ErrorCode::NoSuchKey,
            StoreError::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            StoreError::PreconditionFailed => S3ErrorCode::PreconditionFailed,
            StoreError::InvalidPart { .. } => S3ErrorCode::InvalidPart,
            StoreError::PartTooSmall { .. } => S3ErrorCode::EntityTooSmall,
            StoreError::BadDigest { .. } => S3ErrorCode::BadDigest,
            StoreError::TooLarge => S3ErrorCode::EntityTooLarge,
            StoreError::Body(source) => code_of_body_error(&source.to_string()),
            StoreError::Io(_) => S3ErrorCode::InternalError,
        };
        S3Error::with_message(code, error.to_string())
    }
}

/// s3s hands on what is wrong with a signed body as an error of a private type: only its text tells.
fn code_of_body_error(text: &str) -> S3ErrorCode {
    if text.contains("Sha256Mismatch") {
        S3ErrorCode::BadDigest
    } else if text.contains("SignatureMismatch") {
        S3ErrorCode::SignatureDoesNotMatch
    } else {
        S3ErrorCode::IncompleteBody
    }
}

/// The condition of a write. S3 knows `*` only for `If-None-Match`.
pub(crate) fn write_condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Always),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Condition::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::Etag(etag.value().to_owned())),
        _ => Err(s3_error!(NotImplemented, "a write takes If-None-Match: * or If-Match: an etag, not both")),
    }
}

/// The conditions of a read, in the order of RFC 9110, section 13.2.2.
pub(crate) struct ReadConditions<'a> {
    pub(crate) if_match: Option<&'a ETagCondition>,
    pub(crate) if_unmodified_since: Option<&'a Timestamp>,
    pub(crate) if_none_match: Option<&'a ETagCondition>,
    pub(crate) if_modified_since: Option<&'a Timestamp>,
}

impl ReadConditions<'_> {
    /// `PreconditionFailed`, `NotModified`, or nothing that hinders the read.
    pub(crate) fn check(&self, etag: &str, modified: &Timestamp) -> S3Result<()> {
        let matches = |condition: &ETagCondition| condition.as_etag().is_none_or(|other| other.value() == etag);
        let holds = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(since)) => modified <= since,
            (None, None) => true,
        };
        let is_news = match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => !matches(condition),
            (None, Some(since)) => modified > since,
            (None, None) => true,
        };
        match (holds, is_news) {
            (false, _) => Err(s3_error!(PreconditionFailed)),
            (true, false) => Err(not_modified(etag)),
            (true, true) => Ok(()),
        }
    }
}

fn not_modified(etag: &str) -> S3Error {
    let mut error = s3_error!(NotModified);
    let mut headers = HeaderMap::new();
    if let Ok(value) = strong(etag).to_http_header() {
        headers.insert(http::header::ETAG, value);
    }
    error.set_headers(headers);
    error
}

/// An ETag as S3 writes them.
pub(crate) fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

/// The checksums that will follow the body, as `x-amz-trailer` announces them.
pub(crate) fn announced_checksums(headers: &HeaderMap) -> Vec<Algorithm> {
    let values = headers.get_all("x-amz-trailer").into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|name| Algorithm::from_header(&name.trim().to_ascii_lowercase()))
        .collect()
}

/// The announced checksums, once the body has been read.
pub(crate) fn trailing_checksums(announced: &[Algorithm], trailers: Option<&TrailingHeaders>) -> S3Result<Checksums> {
    let value_of = |algorithm: Algorithm| {
        let value = trailers?.read(|headers| Some(headers.get(algorithm.header())?.to_str().ok()?.to_owned()))??;
        Some((algorithm, value))
    };
    let checksums: Option<Checksums> = announced.iter().copied().map(value_of).collect();
    checksums.ok_or_else(|| s3_error!(InvalidRequest, "an announced trailer did not come"))
}

/// The checksum that a multipart object shall have; `None` if the client wants none.
pub(crate) fn upload_checksum(
    algorithm: Option<&str>,
    kind: Option<&str>,
) -> S3Result<Option<(Algorithm, ChecksumKind)>> {
    let Some(algorithm) = algorithm else {
        return Ok(None);
    };
    let unknown = || s3_error!(InvalidRequest, "no such checksum");
    let algorithm = Algorithm::from_name(algorithm).ok_or_else(unknown)?;
    let kind = match kind {
        None if algorithm == Algorithm::Crc64nvme => ChecksumKind::FullObject,
        None | Some("COMPOSITE") => ChecksumKind::Composite,
        Some("FULL_OBJECT") => ChecksumKind::FullObject,
        Some(_) => return Err(unknown()),
    };
    let exists = match kind {
        ChecksumKind::FullObject => algorithm.is_crc(),
        ChecksumKind::Composite => algorithm != Algorithm::Crc64nvme,
    };
    if exists { Ok(Some((algorithm, kind))) } else { Err(unknown()) }
}

/// The content encoding without `aws-chunked`, which is about the transfer only.
pub(crate) fn kept_encoding(encoding: &str) -> Option<String> {
    let kept: Vec<&str> = encoding.split(',').map(str::trim).filter(|name| *name != "aws-chunked").collect();
    let kept = kept.join(",");
    (!kept.is_empty()).then_some(kept)
}

/// A part's number.
pub(crate) fn part_number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number).ok().filter(|number| (1..=PARTS_MAX).contains(number));
    number.ok_or_else(|| s3_error!(InvalidArgument, "part numbers go from 1 to {PARTS_MAX}"))
}

/// A size as S3's messages have it.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("files are smaller than 2^63 bytes")
}

/// The opaque token that continues a listing.
pub(crate) fn token(after: &After) -> String {
    let (kind, bytes) = match after {
        After::Key(key) => (b'k', key),
        After::Prefix(prefix) => (b'p', prefix),
    };
    URL_SAFE_NO_PAD.encode([&[kind], bytes.as_slice()].concat())
}

/// Reads a token that [`token`] wrote.
pub(crate) fn parse_token(token: &str) -> S3Result<After> {
    let wrong = || s3_error!(InvalidArgument, "the continuation token is not one of ours");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    match bytes.split_first() {
        Some((b'k', key)) => Ok(After::Key(key.to_vec())),
        Some((b'p', prefix)) => Ok(After::Prefix(prefix.to_vec())),
        _ => Err(wrong()),
    }
}

/// A key in a listing, percent-encoded if the client asked for `encoding-type=url`.
pub(crate) fn listed(key: &[u8], url_encoded: bool) -> String {
    if !url_encoded {
        return String::from_utf8_lossy(key).into_owned();
    }
    let mut text = String::with_capacity(key.len());
    for byte in key {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lead_back() {
        for after in [After::Key(b"a/\xc3\xa9".to_vec()), After::Prefix(b"a/".to_vec()), After::Key(Vec::new())] {
            assert_eq!(parse_token(&token(&after)).unwrap(), after);
        }
        for wrong in ["", "!", "eA"] {
            assert!(parse_token(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn listed_keys_are_encoded_on_request() {
        assert_eq!(listed("a b/é+%".as_bytes(), true), "a%20b/%C3%A9%2B%25");
        assert_eq!(listed("a b/é+%".as_bytes(), false), "a b/é+%");
    }

    #[test]
    fn transfer_encoding_is_not_content_encoding() {
        assert_eq!(kept_encoding("aws-chunked"), None);
        assert_eq!(kept_encoding("gzip, aws-chunked"), Some("gzip".into()));
    }

    #[test]
    fn upload_checksums_are_those_that_s3_has() {
        let check = |algorithm, kind, expect| assert_eq!(upload_checksum(algorithm, kind).ok(), expect);
        check(None, None, Some(None));
        check(Some("CRC32"), None, Some(Some((Algorithm::Crc32, ChecksumKind::Composite))));
        check(Some("CRC32"), Some("FULL_OBJECT"), Some(Some((Algorithm::Crc32, ChecksumKind::FullObject))));
        check(Some("CRC64NVME"), None, Some(Some((Algorithm::Crc64nvme, ChecksumKind::FullObject))));
        check(Some("CRC64NVME"), Some("COMPOSITE"), None);
        check(Some("SHA256"), Some("FULL_OBJECT"), None);
        check(Some("MD4"), None, None);
    }
}
