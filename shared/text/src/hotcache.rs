//! What a reader must have before it can name bytes: the only part of an index that is always in memory.

use crate::attributes::Directory;
use crate::bytes::{Cursor, put_leb, put_run};
use crate::files::FileTable;
use crate::options::Options;
use crate::pages::{PageTable, Source};
use crate::{TextError, damaged};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tantivy::directory::OwnedBytes;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"OPALTXT1";
/// The version this code writes and the only one it reads.
pub(crate) const VERSION: u32 = 1;

/// The hotcache as values.
pub(crate) struct Hotcache {
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
    pub(crate) options: Options,
    pub(crate) pages: PageTable,
    pub(crate) files: FileTable,
    /// Tantivy's description of the index.
    pub(crate) meta: Vec<u8>,
    /// Stretches of the bundle that opening it reads, ascending.
    pub(crate) hot: Vec<(u64, OwnedBytes)>,
    pub(crate) directory: Directory,
}

impl Hotcache {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for number in [VERSION, self.first_row, self.rows] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.pages.bytes.to_le_bytes());
        out.push(self.pages.bits);
        self.options.encode(&mut out);
        out.extend(self.pages.checksums.iter().flat_map(|checksum| checksum.to_le_bytes()));
        put_leb(&mut out, self.files.len() as u64);
        for (extension, range) in &self.files {
            put_run(&mut out, extension.as_bytes());
            put_leb(&mut out, range.start);
            put_leb(&mut out, range.end - range.start);
        }
        put_run(&mut out, &self.meta);
        put_leb(&mut out, self.hot.len() as u64);
        for (start, bytes) in &self.hot {
            put_leb(&mut out, *start);
            put_run(&mut out, bytes);
        }
        self.directory.encode(&mut out);
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TextError> {
        let (body, checksum) = bytes.split_last_chunk::<8>().ok_or_else(|| damaged("the hotcache is cut off"))?;
        let mut cursor = Cursor(body);
        if cursor.take(MAGIC.len())? != MAGIC {
            return Err(damaged("not a hotcache"));
        }
        let version = cursor.u32()?;
        if version != VERSION {
            return Err(TextError::Version(version));
        }
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(damaged("the hotcache does not match its checksum"));
        }
        let (first_row, rows) = (cursor.u32()?, cursor.u32()?);
        if first_row.checked_add(rows).is_none() {
            return Err(damaged("rows beyond all numbers"));
        }
        let (bytes, bits) = (cursor.u64()?, cursor.u8()?);
        let options = Options::decode(&mut cursor)?;
        let checksums = cursor.take(PageTable::pages(bits, bytes)?.saturating_mul(4))?;
        let checksums = checksums.as_chunks().0.iter().map(|checksum| u32::from_le_bytes(*checksum)).collect();
        let pages = PageTable { bits, bytes, checksums };
        let files = decode_files(&mut cursor, bytes)?;
        let meta = cursor.run()?.to_vec();
        let hot = decode_hot(&mut cursor, bytes)?;
        let directory = Directory::decode(&mut cursor, bytes)?;
        if !cursor.0.is_empty() {
            return Err(damaged("more bytes than a hotcache has"));
        }
        Ok(Hotcache { first_row, rows, options, pages, files, meta, hot, directory })
    }
}

fn within(start: u64, length: u64, end: u64) -> Result<Range<u64>, TextError> {
    let range = start.checked_add(length).filter(|last| *last <= end).map(|last| start..last);
    range.ok_or_else(|| damaged("bytes that the bundle does not have"))
}

fn decode_files(cursor: &mut Cursor<'_>, end: u64) -> Result<FileTable, TextError> {
    let mut files = FileTable::new();
    for _ in 0..cursor.leb()? {
        let extension = cursor.text()?.to_owned();
        files.insert(extension, within(cursor.leb()?, cursor.leb()?, end)?);
    }
    Ok(files)
}

fn decode_hot(cursor: &mut Cursor<'_>, end: u64) -> Result<Vec<(u64, OwnedBytes)>, TextError> {
    let (mut hot, mut last) = (Vec::new(), 0);
    for _ in 0..cursor.leb()? {
        let (start, bytes) = (cursor.leb()?, cursor.run()?);
        if start < last {
            return Err(damaged("stretches that do not ascend"));
        }
        last = within(start, bytes.len() as u64, end)?.end;
        hot.push((start, OwnedBytes::new(bytes.to_vec())));
    }
    Ok(hot)
}

/// Hot stretches in front of another source.
pub(crate) struct Hot {
    pub(crate) stretches: Vec<(u64, OwnedBytes)>,
    pub(crate) behind: Arc<dyn Source>,
}

impl fmt::Debug for Hot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hot({} before {:?})", self.stretches.len(), self.behind)
    }
}

impl Source for Hot {
    fn read(&self, range: Range<u64>) -> io::Result<OwnedBytes> {
        let at = self.stretches.partition_point(|(start, _)| *start <= range.start);
        let before = at.checked_sub(1).map(|at| &self.stretches[at]);
        if let Some((start, bytes)) = before.filter(|(start, bytes)| range.end - start <= bytes.len() as u64) {
            return Ok(bytes.slice(crate::index(range.start - start)..crate::index(range.end - start)));
        }
        self.behind.read(range)
    }
}
