//! The operations of S3 over the store.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, TrailingHeaders, s3_error};

use crate::body::{BODY_BYTES_MAX, ObjectBody, Received, blocking, receive};
use crate::digest::{Algorithm, ChecksumKind, Promise, hex, is_md5};
use crate::listing::{self, After, Item, Page, Query};
use crate::object::{Attributes, Description, Object};
use crate::store::{Condition, Store, StoreError};
use crate::upload::{self, NamedPart, Upload};
use crate::wire::{
    ReadConditions, announced_checksums, attributes_of, checksums_of, listed, parse_token, part_number, signed, strong,
    token, trailing_checksums, upload_checksum, with_checksums, write_condition,
};

/// Items of a page, keys of a DeleteObjects request, parts of a ListParts page: at most.
const ITEMS_MAX: i32 = 1000;
/// Content type of an object that was written without one.
const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";

/// The S3 service.
pub(crate) struct Service {
    pub(crate) store: Arc<Store>,
}

impl Service {
    /// Runs what blocks on the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> S3Result<T> {
        let store = Arc::clone(&self.store);
        Ok(blocking(move || work(&store)).await?)
    }

    /// Receives a body and holds it to its promise.
    async fn receive(
        &self,
        body: Option<StreamingBlob>,
        content_length: Option<i64>,
        mut promise: Promise,
        transfer: Transfer<'_>,
    ) -> S3Result<Received> {
        if content_length.is_some_and(|bytes| bytes > signed(BODY_BYTES_MAX)) {
            return Err(StoreError::TooLarge.into());
        }
        if promise.md5.as_deref().is_some_and(|md5| !is_md5(md5)) {
            return Err(s3_error!(InvalidDigest));
        }
        let announced = announced_checksums(transfer.headers);
        let algorithms: Vec<Algorithm> =
            promise.checksums.keys().chain(&announced).copied().chain(transfer.wanted).collect();
        let body = body.unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty()));
        let received = receive(&self.store, body, algorithms).await?;
        promise.checksums.extend(trailing_checksums(&announced, transfer.trailers)?);
        match promise.broken_by(&received.digests) {
            Some(algorithm) => Err(StoreError::BadDigest { algorithm }.into()),
            None => Ok(received),
        }
    }

    async fn open(&self, bucket: String, key: String, conditions: &ReadConditions<'_>) -> S3Result<Object> {
        let object = self.on_disk(move |store| store.open_object(&bucket, &key)).await?;
        conditions.check(&object.description.etag, &Timestamp::from(object.modified))?;
        Ok(object)
    }
}

/// How a body comes, besides its bytes.
struct Transfer<'a> {
    headers: &'a HeaderMap,
    trailers: Option<&'a TrailingHeaders>,
    /// A checksum to compute though the client promised none.
    wanted: Option<Algorithm>,
}

/// Description of a body that was received in one piece.
fn describe(received: &Received, attributes: Attributes) -> Description {
    let checksums = received.digests.checksums.clone();
    Description {
        size: received.size,
        etag: hex(&received.digests.md5),
        checksum_kind: (!checksums.is_empty()).then_some(ChecksumKind::FullObject),
        checksums,
        attributes,
    }
}

fn checksum_type(kind: Option<ChecksumKind>) -> Option<ChecksumType> {
    kind.map(|kind| ChecksumType::from_static(kind.name()))
}

/// A reply that describes an object. Checksums are shown on request, and only beside the whole body: a client would
/// hold a part of it to them.
macro_rules! described {
    ($reply:ident { $($field:ident $(: $value:expr)?),* $(,)? }, $description:expr, $modified:expr, $shows:expr) => {{
        let Description { etag, checksums, checksum_kind, attributes, .. } = $description;
        let shown = if $shows { (checksums, checksum_kind) } else { Default::default() };
        with_checksums!($reply {
            checksum_type: checksum_type(shown.1),
            e_tag: Some(strong(&etag)),
            last_modified: Some(Timestamp::from($modified)),
            accept_ranges: Some("bytes".to_owned()),
            content_type: Some(attributes.content_type.unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned())),
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_disposition: attributes.content_disposition,
            cache_control: attributes.cache_control,
            metadata: Some(attributes.user.into_iter().collect()),
            $($field $(: $value)?,)*
        }, shown.0)
    }};
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// This store keeps one version of an object, and gives it whole or by byte range.
fn refuse_versions_and_parts(version: Option<&str>, part: Option<i32>) -> S3Result<()> {
    match (version, part) {
        (None | Some("null"), None) => Ok(()),
        _ => Err(s3_error!(NotImplemented, "no versions, and no reads by part number")),
    }
}

/// The part of the body that is asked for. An empty body has no ranges.
fn checked_range(range: Option<s3s::dto::Range>, size: u64) -> S3Result<Range<u64>> {
    let Some(range) = range else {
        return Ok(0..size);
    };
    let range = range.check(size)?;
    if range.is_empty() { Err(s3_error!(InvalidRange)) } else { Ok(range) }
}

#[async_trait]
impl S3 for Service {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        let location = Some(format!("/{bucket}"));
        self.on_disk(move |store| store.create_bucket(&bucket)).await?;
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.on_disk(move |store| store.bucket_path(&req.input.bucket)).await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.on_disk(|store| Ok(store.buckets()?)).await?;
        let bucket = |(name, changed)| Bucket {
            name: Some(name),
            creation_date: Some(Timestamp::from(changed)),
            ..Default::default()
        };
        let buckets = Some(buckets.into_iter().map(bucket).collect());
        Ok(S3Response::new(ListBucketsOutput { buckets, ..Default::default() }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request { mut input, headers, trailing_headers, .. } = req;
        let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let promise = Promise { md5: input.content_md5.take(), checksums: checksums_of!(input) };
        let transfer = Transfer { headers: &headers, trailers: trailing_headers.as_ref(), wanted: None };
        let received = self.receive(input.body.take(), input.content_length, promise, transfer).await?;

        let description = describe(&received, attributes_of!(input));
        let description = self
            .on_disk(move |store| {
                let body = received.into_file(store)?;
                store.publish(body, &description, (&input.bucket, &input.key), &condition)?;
                Ok(description)
            })
            .await?;
        Ok(S3Response::new(with_checksums!(
            PutObjectOutput {
                e_tag: Some(strong(&description.etag)),
                checksum_type: checksum_type(description.checksum_kind),
            },
            description.checksums
        )))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        refuse_versions_and_parts(input.version_id.as_deref(), input.part_number)?;
        let conditions = ReadConditions {
            if_match: input.if_match.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
        };
        let object = self.open(input.bucket, input.key, &conditions).await?;
        let (description, modified) = (object.description.clone(), object.modified);
        let range = checked_range(input.range, description.size)?;
        let content_range =
            input.range.map(|_| format!("bytes {}-{}/{}", range.start, range.end - 1, description.size));
        let is_whole = range == (0..description.size);
        let length = signed(range.end - range.start);
        let body = self.on_disk(move |_| Ok(ObjectBody::open(object, range)?)).await?;
        let shows_checksums = is_whole && wants_checksums(input.checksum_mode.as_ref());
        Ok(S3Response::new(described!(
            GetObjectOutput { content_length: Some(length), content_range, body: Some(StreamingBlob::new(body)) },
            description,
            modified,
            shows_checksums
        )))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        refuse_versions_and_parts(input.version_id.as_deref(), input.part_number)?;
        let conditions = ReadConditions {
            if_match: input.if_match.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
        };
        let Object { description, modified, .. } = self.open(input.bucket, input.key, &conditions).await?;
        let length = signed(description.size);
        Ok(S3Response::new(described!(
            HeadObjectOutput { content_length: Some(length) },
            description,
            modified,
            wants_checksums(input.checksum_mode.as_ref())
        )))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        refuse_versions_and_parts(input.version_id.as_deref(), None)?;
        let condition = write_condition(input.if_match.as_ref(), None)?;
        self.on_disk(move |store| store.delete(&input.bucket, &input.key, &condition)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = req.input;
        if delete.objects.len() > usize::try_from(ITEMS_MAX).expect("a small number") {
            return Err(s3_error!(MalformedXML, "more than {ITEMS_MAX} keys"));
        }
        let is_quiet = delete.quiet.unwrap_or(false);
        let mut output = DeleteObjectsOutput::default();
        for object in delete.objects {
            let ObjectIdentifier { key, version_id, e_tag, .. } = object;
            refuse_versions_and_parts(version_id.as_deref(), None)?;
            let condition = e_tag.map_or(Condition::Always, |etag| Condition::Etag(etag.into_value()));
            let (name, place) = (key.clone(), bucket.clone());
            match self.on_disk(move |store| store.delete(&place, &name, &condition)).await {
                Ok(()) if is_quiet => {}
                Ok(()) => {
                    let deleted = DeletedObject { key: Some(key), ..Default::default() };
                    output.deleted.get_or_insert_default().push(deleted);
                }
                Err(error) => output.errors.get_or_insert_default().push(Error {
                    key: Some(key),
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    version_id: None,
                }),
            }
        }
        Ok(S3Response::new(output))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let CopySource::Bucket { bucket, key, version_id } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "a copy's source is a bucket and a key"));
        };
        refuse_versions_and_parts(version_id.as_deref(), None)?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
        };
        // To a copy also "not modified" is a failed condition.
        let source = self.open(bucket.to_string(), key.to_string(), &conditions).await.map_err(|error| {
            if error.status_code() == Some(http::StatusCode::NOT_MODIFIED) {
                s3_error!(PreconditionFailed)
            } else {
                error
            }
        })?;
        let is_replaced = input.metadata_directive.as_ref().is_some_and(|to| to.as_str() == MetadataDirective::REPLACE);
        let attributes = if is_replaced { attributes_of!(input) } else { source.description.attributes.clone() };
        let algorithms: Vec<Algorithm> = source.description.checksums.keys().copied().collect();
        let range = 0..source.description.size;
        let body = self.on_disk(move |_| Ok(ObjectBody::open(source, range)?)).await?;
        let received = receive(&self.store, body, algorithms).await?;

        let description = describe(&received, attributes);
        let etag = description.etag.clone();
        let modified = self
            .on_disk(move |store| {
                let body = received.into_file(store)?;
                store.publish(body, &description, (&input.bucket, &input.key), &Condition::Always)?;
                Ok(store.open_object(&input.bucket, &input.key)?.modified)
            })
            .await?;
        let result = CopyObjectResult {
            e_tag: Some(strong(&etag)),
            last_modified: Some(Timestamp::from(modified)),
            ..Default::default()
        };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let max_keys = input.max_keys.unwrap_or(ITEMS_MAX).min(ITEMS_MAX);
        let query = Query {
            prefix: input.prefix.clone().unwrap_or_default().into_bytes(),
            delimiter: input.delimiter.clone().filter(|text| !text.is_empty()).map(String::into_bytes),
            after: match &input.continuation_token {
                Some(token) => parse_token(token)?,
                None => After::Key(input.start_after.clone().unwrap_or_default().into_bytes()),
            },
            items_max: usize::try_from(max_keys).map_err(|_| s3_error!(InvalidArgument, "max-keys is negative"))?,
        };
        let bucket = input.bucket.clone();
        let page = self.on_disk(move |store| Ok(listing::list(&store.bucket_path(&bucket)?, &query)?)).await?;
        Ok(S3Response::new(listing_reply(input, max_keys, page)))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let algorithm = input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
        let checksum = upload_checksum(algorithm, input.checksum_type.as_ref().map(ChecksumType::as_str))?;
        let upload = Upload {
            bucket: input.bucket.clone(),
            key: input.key.clone(),
            attributes: attributes_of!(input),
            checksum,
        };
        let id = self.on_disk(move |store| upload::create(store, &upload)).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
            checksum_type: checksum_type(checksum.map(|(_, kind)| kind)),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let S3Request { mut input, headers, trailing_headers, .. } = req;
        let number = part_number(input.part_number)?;
        let promise = Promise { md5: input.content_md5.take(), checksums: checksums_of!(input) };
        let (body, content_length) = (input.body.take(), input.content_length);
        let id = input.upload_id.clone();
        let upload = self.on_disk(move |store| upload::find(store, &id, (&input.bucket, &input.key))).await?;
        let wanted = upload.checksum.map(|(algorithm, _)| algorithm);
        let transfer = Transfer { headers: &headers, trailers: trailing_headers.as_ref(), wanted };
        let received = self.receive(body, content_length, promise, transfer).await?;

        let description = describe(&received, Attributes::default());
        let description = self
            .on_disk(move |store| {
                let body = received.into_file(store)?;
                upload::put_part(store, &input.upload_id, number, body, &description)?;
                Ok(description)
            })
            .await?;
        Ok(S3Response::new(with_checksums!(
            UploadPartOutput { e_tag: Some(strong(&description.etag)) },
            description.checksums
        )))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let max_parts = input.max_parts.unwrap_or(ITEMS_MAX).clamp(0, ITEMS_MAX);
        let parts_max = usize::try_from(max_parts).expect("clamped to it");
        let after = input.part_number_marker.unwrap_or(0);
        let after_number = u16::try_from(after).map_err(|_| s3_error!(InvalidArgument, "no such part number"))?;
        let (id, place) = (input.upload_id.clone(), (input.bucket.clone(), input.key.clone()));
        let (upload, (parts, more)) = self
            .on_disk(move |store| {
                let upload = upload::find(store, &id, (&place.0, &place.1))?;
                Ok((upload, upload::parts(store, &id, after_number, parts_max)?))
            })
            .await?;
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: Some(max_parts),
            part_number_marker: Some(after),
            next_part_number_marker: parts.last().map(|(number, _)| i32::from(*number)),
            is_truncated: Some(more),
            checksum_algorithm: upload.checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
            checksum_type: checksum_type(upload.checksum.map(|(_, kind)| kind)),
            parts: Some(parts.into_iter().map(|(number, part)| listed_part(number, part)).collect()),
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let named = named_parts(input.multipart_upload.as_ref())?;
        let promised = checksums_of!(input);
        let (id, place) = (input.upload_id, (input.bucket.clone(), input.key.clone()));
        let description = self
            .on_disk(move |store| {
                let upload = upload::find(store, &id, (&place.0, &place.1))?;
                upload::complete(store, &id, &upload, &named, &promised, &condition)
            })
            .await?;
        Ok(S3Response::new(with_checksums!(
            CompleteMultipartUploadOutput {
                location: Some(format!("/{}/{}", input.bucket, input.key)),
                bucket: Some(input.bucket),
                key: Some(input.key),
                e_tag: Some(strong(&description.etag)),
                checksum_type: checksum_type(description.checksum_kind),
            },
            description.checksums
        )))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        self.on_disk(move |store| {
            upload::find(store, &input.upload_id, (&input.bucket, &input.key))?;
            upload::abort(store, &input.upload_id)
        })
        .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

fn listing_reply(input: ListObjectsV2Input, max_keys: i32, page: Page) -> ListObjectsV2Output {
    let is_encoded = input.encoding_type.as_ref().is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
    let written = |text: Option<String>| text.map(|text| listed(text.as_bytes(), is_encoded));
    let key_count = i32::try_from(page.items.len()).expect("a page is small");
    let (mut contents, mut common_prefixes) = (Vec::new(), Vec::new());
    for item in page.items {
        match item {
            Item::Prefix(prefix) => common_prefixes.push(CommonPrefix { prefix: Some(listed(&prefix, is_encoded)) }),
            Item::Object { key, description, modified } => {
                contents.push(listed_object(listed(&key, is_encoded), &description, modified));
            }
        }
    }
    ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(written(input.prefix).unwrap_or_default()),
        delimiter: written(input.delimiter),
        start_after: written(input.start_after),
        max_keys: Some(max_keys),
        key_count: Some(key_count),
        is_truncated: Some(page.next.is_some()),
        continuation_token: input.continuation_token,
        next_continuation_token: page.next.as_ref().map(token),
        encoding_type: input.encoding_type,
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        ..Default::default()
    }
}

fn listed_object(key: String, description: &Description, modified: SystemTime) -> s3s::dto::Object {
    s3s::dto::Object {
        key: Some(key),
        e_tag: Some(strong(&description.etag)),
        size: Some(signed(description.size)),
        last_modified: Some(Timestamp::from(modified)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Default::default()
    }
}

#[expect(clippy::needless_update, reason = "the macro is for messages with more fields too")]
fn listed_part(number: u16, part: Object) -> Part {
    with_checksums!(
        Part {
            part_number: Some(i32::from(number)),
            e_tag: Some(strong(&part.description.etag)),
            size: Some(signed(part.description.size)),
            last_modified: Some(Timestamp::from(part.modified)),
        },
        part.description.checksums
    )
}

/// The parts that complete an upload: at least one, in ascending order.
fn named_parts(upload: Option<&CompletedMultipartUpload>) -> S3Result<Vec<NamedPart>> {
    let parts = upload.and_then(|upload| upload.parts.as_deref()).unwrap_or_default();
    let named: Vec<NamedPart> = parts.iter().map(named_part).collect::<S3Result<_>>()?;
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "no parts are named"));
    }
    if !named.is_sorted_by(|left, right| left.number < right.number) {
        return Err(s3_error!(InvalidPartOrder));
    }
    Ok(named)
}

fn named_part(part: &CompletedPart) -> S3Result<NamedPart> {
    let number = part.part_number.ok_or_else(|| s3_error!(MalformedXML, "a part has no number"))?;
    let etag = part.e_tag.clone().ok_or_else(|| s3_error!(MalformedXML, "a part has no etag"))?;
    Ok(NamedPart { number: part_number(number)?, etag: etag.into_value(), checksums: checksums_of!(part) })
}
