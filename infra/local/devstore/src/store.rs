//! Buckets and objects in a directory. Every call blocks on the disk; the callers run them on blocking threads.
//!
//! ```text
//! DATA/lock                        held while a devstore serves this directory
//! DATA/tmp/                        what is not published yet; emptied on start
//! DATA/buckets/BUCKET/…            objects, named by `keys`, written by `object`
//! DATA/uploads/ID/                 multipart uploads: see `upload`
//! ```
//!
//! An object is written to `tmp/`, synced, and then published under its name in one step: by link(2), which fails if
//! the name is taken, when it must not exist yet, else by rename(2). The directory is synced before the call returns.
//! So a crash leaves the complete object or none, and of racing claims one wins, whatever this process believes.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::keys;
use crate::object::{Description, Object, write_description};

/// Locks that order the changes to one key: more of them, fewer keys that wait for each other without need.
const TURNS: usize = 256;
/// How often a publication whose directory was removed under it is tried.
const PUBLISH_ATTEMPTS_MAX: usize = 100;
/// Directories remembered as synced; beyond it all are forgotten, which costs a few syncs.
const KNOWN_DIRECTORIES_MAX: usize = 65_536;
/// How long a start waits for an earlier process to let go of the directory: 50 × 100 ms.
const LOCK_ATTEMPTS_MAX: usize = 50;
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// 404: create the bucket first.
    #[error("the bucket does not exist")]
    NoSuchBucket,
    /// 409: it can be used as it is.
    #[error("the bucket exists")]
    BucketExists,
    /// 404.
    #[error("the key does not exist")]
    NoSuchKey,
    /// 404: it was completed or aborted, or never existed.
    #[error("the upload does not exist")]
    NoSuchUpload,
    /// 412: nothing was changed; look at what is there.
    #[error("the condition does not hold")]
    PreconditionFailed,
    /// 400: a part that was named to complete an upload is not there or another.
    #[error("part {number} does not exist or is another")]
    InvalidPart { number: u16 },
    /// 400: every part but the last must have 5 MiB.
    #[error("part {number} is too small")]
    PartTooSmall { number: u16 },
    /// 400: nothing was written; the body was damaged on its way.
    #[error("the {algorithm} of the body is another")]
    BadDigest { algorithm: &'static str },
    /// 400: nothing was written.
    #[error("the object is too large")]
    TooLarge,
    /// 400: the body broke off or was not as signed; nothing was written.
    #[error("the body could not be received: {0}")]
    Body(s3s::StdError),
    /// 500: the disk is full or broken. Of a write that was not acknowledged either all or nothing is there.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What must hold of the key for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing.
    Always,
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match: *`.
    Present,
    /// `If-Match: "etag"`.
    Etag(String),
}

/// A file that is not published yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct TempFile {
    pub(crate) file: File,
    path: PathBuf,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; after a crash the next start empties the directory.
        let _ = fs::remove_file(&self.path);
    }
}

/// The data directory.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    directories: Directories,
    turns: Vec<Mutex<()>>,
    temp_next: AtomicU64,
    /// Released by the kernel when the process ends, however it ends.
    _lock: File,
}

impl Store {
    /// Opens the data directory, makes it if needed, and removes what a crash left unpublished.
    ///
    /// - `fsync`: false gives up durability against a power failure (not against a killed process) for speed.
    ///
    /// Errors: `WouldBlock` if another devstore serves the directory for longer than 5 s; whatever the disk says.
    pub(crate) fn open(root: &Path, fsync: bool) -> io::Result<Store> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let lock = lock(&root.join("lock"))?;
        let tmp = root.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let directories = Directories { root: root.clone(), fsync, known: Mutex::default() };
        for name in ["tmp", "buckets", "uploads"] {
            directories.ensure(&root.join(name))?;
        }
        let turns = (0..TURNS).map(|_| Mutex::default()).collect();
        Ok(Store { root, directories, turns, temp_next: AtomicU64::new(0), _lock: lock })
    }

    /// Makes a bucket, durably.
    pub(crate) fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let path = self.root.join("buckets").join(bucket);
        let _turn = self.turn(&path);
        if path.is_dir() {
            return Err(StoreError::BucketExists);
        }
        Ok(self.directories.ensure(&path)?)
    }

    /// The buckets and when they were last changed, by name.
    pub(crate) fn buckets(&self) -> io::Result<Vec<(String, SystemTime)>> {
        let mut buckets = Vec::new();
        for entry in fs::read_dir(self.root.join("buckets"))? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                buckets.push((name, entry.metadata()?.modified()?));
            }
        }
        buckets.sort();
        Ok(buckets)
    }

    /// The directory of a bucket that exists.
    pub(crate) fn bucket_path(&self, bucket: &str) -> Result<PathBuf, StoreError> {
        let path = self.root.join("buckets").join(bucket);
        if path.is_dir() { Ok(path) } else { Err(StoreError::NoSuchBucket) }
    }

    /// The directory of multipart uploads.
    pub(crate) fn uploads_path(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Opens an object for reading.
    pub(crate) fn open_object(&self, bucket: &str, key: &str) -> Result<Object, StoreError> {
        let path = self.bucket_path(bucket)?.join(keys::path_of(key));
        open_existing(&path)?.ok_or(StoreError::NoSuchKey)
    }

    /// A new file for what will be published later.
    pub(crate) fn temp_file(&self) -> io::Result<TempFile> {
        let path = self.temp_path();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(TempFile { file, path })
    }

    /// A name in `tmp/` that nothing else uses.
    pub(crate) fn temp_path(&self) -> PathBuf {
        self.root.join("tmp").join(self.temp_next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Makes a body an object and publishes it, durably. On any error the key is as it was, or as someone else made it.
    ///
    /// Cost: two syncs; none if the condition does not hold.
    pub(crate) fn publish(
        &self,
        body: TempFile,
        description: &Description,
        (bucket, key): (&str, &str),
        condition: &Condition,
    ) -> Result<(), StoreError> {
        let path = self.bucket_path(bucket)?.join(keys::path_of(key));
        check(condition, &path)?;
        let sealed = self.seal(body, description)?;
        {
            let _turn = self.turn(&path);
            check(condition, &path)?;
            self.place(&sealed, &path, condition)?;
        }
        Ok(self.directories.sync_parent(&path)?)
    }

    /// Publishes a body as an object at `path`, replacing what is there, durably.
    pub(crate) fn publish_at(&self, body: TempFile, description: &Description, path: &Path) -> Result<(), StoreError> {
        let sealed = self.seal(body, description)?;
        fs::rename(&sealed.path, path)?;
        Ok(self.directories.sync_parent(path)?)
    }

    /// Deletes an object, durably. That it is not there is an error only under a condition.
    pub(crate) fn delete(&self, bucket: &str, key: &str, condition: &Condition) -> Result<(), StoreError> {
        let path = self.bucket_path(bucket)?.join(keys::path_of(key));
        {
            let _turn = self.turn(&path);
            check(condition, &path)?;
            match fs::remove_file(&path) {
                Err(error) if is_absence(&error) => return Ok(()),
                result => result?,
            }
        }
        self.directories.sync_parent(&path)?;
        self.directories.remove_empty_above(&path, &self.root.join("buckets").join(bucket));
        Ok(())
    }

    /// Moves a directory or file within the data directory, durably.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.directories.sync_parent(to)?;
        self.directories.sync_parent(from)
    }

    /// Writes the description and syncs: from here on the file is a whole object.
    fn seal(&self, mut body: TempFile, description: &Description) -> io::Result<TempFile> {
        write_description(&mut body.file, description)?;
        self.sync(&body.file)?;
        Ok(body)
    }

    /// Syncs a file or directory, if this store syncs at all.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        if self.directories.fsync { file.sync_all() } else { Ok(()) }
    }

    /// The atomic step. The directory may vanish between two lines, when the last object in it is deleted.
    fn place(&self, sealed: &TempFile, path: &Path, condition: &Condition) -> Result<(), StoreError> {
        let parent = path.parent().expect("an object lies in a bucket");
        for _ in 0..PUBLISH_ATTEMPTS_MAX {
            self.directories.ensure(parent)?;
            let placed = match condition {
                Condition::Absent => fs::hard_link(&sealed.path, path),
                _ => fs::rename(&sealed.path, path),
            };
            match placed {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(StoreError::PreconditionFailed),
                Err(error) if error.kind() == ErrorKind::NotFound => self.directories.forget(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(ErrorKind::NotFound, format!("{} keeps vanishing", parent.display())).into())
    }

    /// Held while a key is compared and changed. Claims do not need it: link(2) compares and changes by itself.
    fn turn(&self, path: &Path) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % TURNS as u64).expect("less than the number of turns");
        self.turns[turn].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directories that are known to be durable, and their making and removing.
#[derive(Debug)]
struct Directories {
    root: PathBuf,
    fsync: bool,
    /// Made or seen, and the directory above synced, since the start.
    known: Mutex<HashSet<PathBuf>>,
}

impl Directories {
    /// Makes a directory below the root and those above it, and makes sure that they outlive a crash.
    fn ensure(&self, directory: &Path) -> io::Result<()> {
        let mut known = self.known();
        if known.len() > KNOWN_DIRECTORIES_MAX {
            known.clear();
        }
        let unknown: Vec<&Path> =
            directory.ancestors().take_while(|ancestor| *ancestor != self.root && !known.contains(*ancestor)).collect();
        for ancestor in unknown.into_iter().rev() {
            match fs::create_dir(ancestor) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                result => result?,
            }
            self.sync_parent(ancestor)?;
            known.insert(ancestor.to_owned());
        }
        Ok(())
    }

    /// Removes the directories above `path` that are empty, up to but not with `top`.
    fn remove_empty_above(&self, path: &Path, top: &Path) {
        let mut known = self.known();
        for directory in path.ancestors().skip(1).take_while(|ancestor| *ancestor != top) {
            // A directory that is in use again, or that stays for any other reason, does no harm.
            if fs::remove_dir(directory).is_err() {
                return;
            }
            known.remove(directory);
        }
    }

    /// Forgets which directories exist, after one turned out not to.
    fn forget(&self) {
        self.known().clear();
    }

    /// Syncs the directory that holds `path`. If it is gone, so is what was published in it: nothing is left to sync.
    fn sync_parent(&self, path: &Path) -> io::Result<()> {
        if !self.fsync {
            return Ok(());
        }
        let parent = path.parent().expect("everything lies below the root");
        match File::open(parent) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            opened => opened?.sync_all(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the object at `path` if there is one.
pub(crate) fn open_existing(path: &Path) -> io::Result<Option<Object>> {
    match Object::open(path) {
        Ok(object) => Ok(Some(object)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn check(condition: &Condition, path: &Path) -> Result<(), StoreError> {
    let etag = match condition {
        Condition::Always => return Ok(()),
        Condition::Absent => {
            return if path.try_exists()? { Err(StoreError::PreconditionFailed) } else { Ok(()) };
        }
        Condition::Present => None,
        Condition::Etag(etag) => Some(etag),
    };
    let object = open_existing(path)?.ok_or(StoreError::NoSuchKey)?;
    match etag {
        Some(etag) if *etag != object.description.etag => Err(StoreError::PreconditionFailed),
        _ => Ok(()),
    }
}

fn is_absence(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::WouldBlock, format!("another devstore holds {}", path.display())))
}
