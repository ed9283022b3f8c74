//! Multipart uploads. Every call blocks on the disk.
//!
//! ```text
//! DATA/uploads/ID/upload.json      what was said when it was created
//! DATA/uploads/ID/00001            a part, as a file of `object`
//! ```
//!
//! An upload appears and disappears by a rename of its directory. A crash between publishing the object and removing
//! the upload leaves an upload that can be completed again, to the same object, or aborted.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, ChecksumKind, Checksums, Digester, Digests, composite, hex, multipart_etag};
use crate::object::{Attributes, Description, Object};
use crate::store::{Condition, Store, StoreError, TempFile, open_existing};

/// Parts have numbers from 1 to this.
pub(crate) const PARTS_MAX: u16 = 10_000;
/// Every part but the last has at least so many bytes.
const PART_BYTES_MIN: u64 = 5 << 20;
const COPY_BYTES: usize = 1 << 20;

/// What an upload will become.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) attributes: Attributes,
    /// The checksum that the object will have.
    pub(crate) checksum: Option<(Algorithm, ChecksumKind)>,
}

/// A part as the client names it to complete an upload.
#[derive(Clone, Debug)]
pub(crate) struct NamedPart {
    pub(crate) number: u16,
    pub(crate) etag: String,
    pub(crate) checksums: Checksums,
}

/// Creates an upload, durably. Returns its id.
pub(crate) fn create(store: &Store, upload: &Upload) -> Result<String, StoreError> {
    store.bucket_path(&upload.bucket)?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    let id = hex(&nonce);
    let unborn = store.temp_path();
    fs::create_dir(&unborn)?;
    let mut file = File::create_new(unborn.join("upload.json"))?;
    file.write_all(&serde_json::to_vec(upload).map_err(io::Error::from)?)?;
    store.sync(&file)?;
    store.sync(&File::open(&unborn)?)?;
    store.rename(&unborn, &store.uploads_path().join(&id))?;
    Ok(id)
}

/// The upload `id`, if it is one to this bucket and key.
pub(crate) fn find(store: &Store, id: &str, (bucket, key): (&str, &str)) -> Result<Upload, StoreError> {
    let json = match fs::read(directory(store, id)?.join("upload.json")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(StoreError::NoSuchUpload),
        json => json?,
    };
    let upload: Upload = serde_json::from_slice(&json).map_err(io::Error::from)?;
    let is_same = upload.bucket == bucket && upload.key == key;
    if is_same { Ok(upload) } else { Err(StoreError::NoSuchUpload) }
}

/// Keeps a part, durably, in place of an earlier one of this number.
pub(crate) fn put_part(
    store: &Store,
    id: &str,
    number: u16,
    body: TempFile,
    description: &Description,
) -> Result<(), StoreError> {
    let path = part_path(&directory(store, id)?, number);
    match store.publish_at(body, description, &path) {
        // The upload was completed or aborted while the part came in.
        Err(StoreError::Io(error)) if error.kind() == ErrorKind::NotFound => Err(StoreError::NoSuchUpload),
        result => result,
    }
}

/// The parts beyond number `after`, at most `parts_max`, in order; and whether there are more.
pub(crate) fn parts(
    store: &Store,
    id: &str,
    after: u16,
    parts_max: usize,
) -> Result<(Vec<(u16, Object)>, bool), StoreError> {
    let directory = directory(store, id)?;
    let mut numbers: Vec<u16> = fs::read_dir(&directory)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > after)
        .collect();
    numbers.sort_unstable();
    let more = numbers.len() > parts_max;
    let mut parts = Vec::new();
    for number in numbers.into_iter().take(parts_max) {
        if let Some(part) = open_existing(&part_path(&directory, number))? {
            parts.push((number, part));
        }
    }
    Ok((parts, more))
}

/// Makes the object of the named parts and publishes it, durably; then the upload is gone.
///
/// - `named`: in ascending order.
/// - `promised`: checksum of the whole object, if the client knows it.
///
/// Cost: reads and writes every byte once.
pub(crate) fn complete(
    store: &Store,
    id: &str,
    upload: &Upload,
    named: &[NamedPart],
    promised: &Checksums,
    condition: &Condition,
) -> Result<Description, StoreError> {
    let directory = directory(store, id)?;
    let parts = named.iter().map(|part| open_part(&directory, part)).collect::<Result<Vec<_>, _>>()?;
    check_sizes(named, &parts)?;
    let whole = upload.checksum.filter(|(_, kind)| *kind == ChecksumKind::FullObject).map(|(algorithm, _)| algorithm);
    let (body, digests) = concatenate(store, &parts, whole)?;

    let checksums = object_checksums(upload, &parts, digests)?;
    let broken = promised.iter().find(|(algorithm, value)| checksums.get(algorithm) != Some(value));
    if let Some((algorithm, _)) = broken {
        return Err(StoreError::BadDigest { algorithm: algorithm.name() });
    }
    let etag = multipart_etag(parts.iter().map(|part| part.description.etag.as_str()));
    let description = Description {
        size: parts.iter().map(|part| part.description.size).sum(),
        etag: etag.ok_or_else(|| damaged("a part's etag is no md5"))?,
        checksums,
        checksum_kind: upload.checksum.map(|(_, kind)| kind),
        attributes: upload.attributes.clone(),
    };
    store.publish(body, &description, (&upload.bucket, &upload.key), condition)?;
    abort(store, id)?;
    Ok(description)
}

/// Forgets an upload and its parts.
pub(crate) fn abort(store: &Store, id: &str) -> Result<(), StoreError> {
    let dead = store.temp_path();
    match store.rename(&directory(store, id)?, &dead) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(StoreError::NoSuchUpload),
        result => result?,
    }
    Ok(fs::remove_dir_all(dead)?)
}

/// The id comes from the client: only what `create` may have made becomes a path.
fn directory(store: &Store, id: &str) -> Result<PathBuf, StoreError> {
    let is_id = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let path = store.uploads_path().join(if is_id { id } else { return Err(StoreError::NoSuchUpload) });
    if path.is_dir() { Ok(path) } else { Err(StoreError::NoSuchUpload) }
}

fn part_path(directory: &Path, number: u16) -> PathBuf {
    directory.join(format!("{number:05}"))
}

fn open_part(directory: &Path, named: &NamedPart) -> Result<Object, StoreError> {
    let wrong = StoreError::InvalidPart { number: named.number };
    let Some(part) = open_existing(&part_path(directory, named.number))? else {
        return Err(wrong);
    };
    let kept = &part.description.checksums;
    let is_same = part.description.etag == named.etag
        && named.checksums.iter().all(|(algorithm, value)| kept.get(algorithm) == Some(value));
    if is_same { Ok(part) } else { Err(wrong) }
}

fn check_sizes(named: &[NamedPart], parts: &[Object]) -> Result<(), StoreError> {
    let all_but_last = named.iter().zip(parts).take(parts.len().saturating_sub(1));
    for (named, part) in all_but_last {
        if part.description.size < PART_BYTES_MIN {
            return Err(StoreError::PartTooSmall { number: named.number });
        }
    }
    Ok(())
}

fn concatenate(
    store: &Store,
    parts: &[Object],
    algorithm: Option<Algorithm>,
) -> Result<(TempFile, Digests), StoreError> {
    let mut temp = store.temp_file()?;
    let mut digester = Digester::new(algorithm);
    let mut buffer = vec![0; COPY_BYTES];
    for part in parts {
        let mut body = (&part.file).take(part.description.size);
        loop {
            let read = body.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digester.update(&buffer[..read]);
            temp.file.write_all(&buffer[..read])?;
        }
    }
    Ok((temp, digester.finish()))
}

fn object_checksums(upload: &Upload, parts: &[Object], whole: Digests) -> Result<Checksums, StoreError> {
    let Some((algorithm, ChecksumKind::Composite)) = upload.checksum else {
        return Ok(whole.checksums);
    };
    let of_parts: Option<Vec<&str>> =
        parts.iter().map(|part| part.description.checksums.get(&algorithm).map(String::as_str)).collect();
    let value = of_parts.and_then(|values| composite(algorithm, values.into_iter()));
    Ok(Checksums::from([(algorithm, value.ok_or_else(|| damaged("a part has no checksum"))?)]))
}

fn damaged(why: &str) -> StoreError {
    StoreError::Io(io::Error::new(ErrorKind::InvalidData, why))
}
