//! Tantivy's files as ranges of a bundle: the directory by which it reads them.
//!
//! A read of bytes that are not in memory ends with `WouldBlock`, which tantivy hands through; the source remembers what
//! was missing, and the same call succeeds once that was supplied.

use crate::pages::Source;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tantivy::HasLen;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    Directory, DirectoryLock, FileHandle, Lock, OwnedBytes, WatchCallback, WatchHandle, WritePtr,
};

/// Name of the file that describes the index.
pub(crate) const META: &str = "meta.json";

/// Where the files of an index lie, by extension: an index has one segment.
pub(crate) type FileTable = BTreeMap<String, Range<u64>>;

/// A directory that only reads.
#[derive(Clone)]
pub(crate) struct Files {
    table: Arc<FileTable>,
    meta: Arc<[u8]>,
    source: Arc<dyn Source>,
}

impl Files {
    pub(crate) fn new(table: FileTable, meta: &[u8], source: Arc<dyn Source>) -> Self {
        Files { table: Arc::new(table), meta: meta.into(), source }
    }

    fn range(&self, path: &Path) -> Result<Range<u64>, OpenReadError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let range = extension.and_then(|extension| self.table.get(extension));
        range.cloned().ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Directory for Files {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        Ok(Arc::new(File { source: self.source.clone(), range: self.range(path)? }))
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(path == Path::new(META) || self.range(path).is_ok())
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        if path == Path::new(META) {
            Ok(self.meta.to_vec())
        } else {
            Err(OpenReadError::FileDoesNotExist(path.to_owned()))
        }
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        Err(DeleteError::FileDoesNotExist(path.to_owned()))
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::FileAlreadyExists(path.to_owned()))
    }

    fn atomic_write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    /// Nothing here changes, so there is nothing to lock.
    fn acquire_lock(&self, _: &Lock) -> Result<DirectoryLock, LockError> {
        Ok(DirectoryLock::from(Box::new(())))
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

#[derive(Debug)]
struct File {
    source: Arc<dyn Source>,
    range: Range<u64>,
}

impl HasLen for File {
    fn len(&self) -> usize {
        crate::index(self.range.end - self.range.start)
    }
}

impl FileHandle for File {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        if range.start > range.end || range.end > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.source.read(self.range.start + range.start as u64..self.range.start + range.end as u64)
    }
}
