//! The directory: its lock, its id, and the logs in it. What may not enter: what stands in a log.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::error::SpoolError;
use crate::log::Log;
use crate::name::{FileKind, MAX_NAME_BYTES, file_kind, file_name};
use crate::ours::make_ours;
use crate::recover::{Head, head};
use crate::shared::{Shared, Sizes, Usage, sync_path};

/// The file that holds the lock.
const LOCK: &str = "lock";
/// The file that holds the id.
const ID: &str = "id";
/// Threads that sync logs at the same time: a file system writes several syncs as one.
const SYNCING_THREADS: usize = 8;

/// What tells one spool directory from every other. It is made with the directory and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u128);

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// A directory of logs, used by one process at a time.
///
/// Dropping it leaves the files. The directory stays locked until its logs are dropped as well.
pub struct Spool {
    shared: Arc<Shared>,
    id: Id,
}

impl Spool {
    /// Opens the directory, and makes it (with rights for the owner only) if it is missing. `limit_bytes` is what all
    /// its logs may take together.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] when it is in use, [`SpoolError::BadId`] when it is no spool's, [`SpoolError::Io`] and
    /// [`SpoolError::NoSpace`] when it cannot be written.
    pub fn open(dir: impl AsRef<Path>, limit_bytes: u64) -> Result<Self, SpoolError> {
        Self::open_with(dir, limit_bytes, Sizes::default())
    }

    /// [`Spool::open`] of a directory in a place where others may make files too, such as that for temporary files: it must
    /// be ours alone.
    ///
    /// # Errors
    /// [`SpoolError::NotOurs`], and as [`Spool::open`].
    pub fn open_among_others(dir: impl AsRef<Path>, limit_bytes: u64) -> Result<Self, SpoolError> {
        make_ours(dir.as_ref())?;
        Self::open(dir, limit_bytes)
    }

    /// [`Spool::open`] with other sizes of buffers.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn open_with(dir: impl AsRef<Path>, limit_bytes: u64, sizes: Sizes) -> Result<Self, SpoolError> {
        let dir = dir.as_ref().to_owned();
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        created.map_err(SpoolError::io("making the directory", &dir))?;
        let lock = lock(&dir)?;
        let id = read_or_make_id(&dir)?;
        let mut used_bytes = 0;
        for (path, _) in log_files(&dir)? {
            used_bytes += fs::metadata(&path).map_err(SpoolError::io("looking at", &path))?.len();
        }
        Ok(Self { shared: Arc::new(Shared::new(dir, limit_bytes, used_bytes, sizes, lock)), id })
    }

    /// What tells this directory from others: who remembers it notices when the directory was exchanged or emptied.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// See [`Usage::used_bytes`].
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.usage().used_bytes()
    }

    /// See [`Usage::limit_bytes`].
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.usage().limit_bytes()
    }

    /// A handle for other threads that tells how full the spool is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { counters: Arc::clone(&self.shared.counters) }
    }

    /// Opens a log, or makes it. Any text of up to 4096 bytes is a name.
    ///
    /// A file whose end a crash tore is cut back to its last whole block; [`Log::torn_bytes`] tells.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] when the log is open already, [`SpoolError::Corrupt`] when bytes that had been synced are
    /// not there any more, [`SpoolError::Full`], [`SpoolError::NameTooLong`], [`SpoolError::OtherName`], and errors of
    /// reading and writing the file.
    pub fn log(&self, name: &str) -> Result<Log, SpoolError> {
        if name.len() > MAX_NAME_BYTES {
            let (length_bytes, limit_bytes) = (name.len(), MAX_NAME_BYTES);
            return Err(SpoolError::NameTooLong { length_bytes, limit_bytes });
        }
        Log::open(self.shared.claim(name)?, self.shared.dir.join(file_name(name)))
    }

    /// The logs that exist, in order. A log with a very long name is left out if a crash came before its first sync.
    ///
    /// # Errors
    /// Errors of reading the directory; [`SpoolError::Corrupt`] for a log with a very long name whose header is damaged.
    pub fn names(&self) -> Result<Vec<String>, SpoolError> {
        let mut names = Vec::new();
        for (path, kind) in log_files(&self.shared.dir)? {
            match kind {
                FileKind::Named(name) => names.push(name),
                _ => {
                    let file = File::open(&path).map_err(SpoolError::io("opening", &path))?;
                    if let Head::Whole(header, _) = head(&file, &path)? {
                        names.push(header.name);
                    }
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a log; one that does not exist is no error. After a crash of the machine it may be back, unless a log
    /// was synced in between: who removes logs must know without them which are done.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] when the log is open, [`SpoolError::Io`] when its file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), SpoolError> {
        let _claim = self.shared.claim(name)?;
        self.remove_file(&self.shared.dir.join(file_name(name)))
    }

    /// Removes all logs, also damaged ones, and makes that durable.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] when a log is open, [`SpoolError::Io`] when a file cannot be removed.
    pub fn clear(&self) -> Result<(), SpoolError> {
        self.shared.check_idle()?;
        for (path, _) in log_files(&self.shared.dir)? {
            self.remove_file(&path)?;
        }
        self.shared.sync_dir()
    }

    /// Removes all logs and what [`Spool::open`] has made; the directory itself only if nothing of others is in it.
    ///
    /// # Errors
    /// As [`Spool::clear`].
    pub fn remove_all(self) -> Result<(), SpoolError> {
        self.clear()?;
        let dir = &self.shared.dir;
        // The lock last: until then nobody else begins here.
        for name in [ID, LOCK] {
            let path = dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SpoolError::io("removing", &path)(error));
                }
                _ => {}
            }
        }
        match fs::remove_dir(dir) {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) =>
            {
                Err(SpoolError::io("removing the directory", dir)(error))
            }
            _ => Ok(()),
        }
    }

    /// Syncs several logs, faster than one after the other.
    ///
    /// # Errors
    /// The first error of [`Log::sync`]; the other logs may be synced or not, and can be synced again.
    pub fn sync_all<'a>(&self, logs: impl IntoIterator<Item = &'a mut Log>) -> Result<(), SpoolError> {
        let mut logs: Vec<&mut Log> = logs.into_iter().filter(|log| log.needs_sync()).collect();
        if logs.len() <= 1 {
            return logs.iter_mut().try_for_each(|log| log.sync());
        }
        self.shared.sync_dir()?;
        let share = logs.len().div_ceil(SYNCING_THREADS);
        std::thread::scope(|scope| {
            let threads: Vec<_> = logs
                .chunks_mut(share)
                .map(|logs| scope.spawn(move || logs.iter_mut().try_for_each(|log| log.sync())))
                .collect();
            let results = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            results.fold(Ok(()), Result::and)
        })
    }

    fn remove_file(&self, path: &Path) -> Result<(), SpoolError> {
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(SpoolError::io("looking at", path)(error)),
        };
        fs::remove_file(path).map_err(SpoolError::io("removing", path))?;
        self.shared.dir_changed();
        self.shared.settle(length, 0);
        Ok(())
    }
}

/// The files of logs in a directory.
fn log_files(dir: &Path) -> Result<Vec<(PathBuf, FileKind)>, SpoolError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(SpoolError::io("listing", dir))? {
        let entry = entry.map_err(SpoolError::io("listing", dir))?;
        let kind = entry.file_name().to_str().map_or(FileKind::Foreign, file_kind);
        if kind != FileKind::Foreign {
            files.push((entry.path(), kind));
        }
    }
    Ok(files)
}

/// Takes the directory's lock, which the operating system gives back when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join(LOCK);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(SpoolError::io("opening the lock", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::Locked { dir: dir.to_owned() }),
        Err(error) => Err(SpoolError::io("locking", &path)(error.into())),
    }
}

/// The id in the directory. A new one is written aside first, also when none is needed: so a directory that cannot be
/// written is noticed now, and a crash never leaves half an id.
fn read_or_make_id(dir: &Path) -> Result<Id, SpoolError> {
    let (path, aside) = (dir.join(ID), dir.join("id.new"));
    let fresh = Id(rand::random());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .map_err(SpoolError::io("writing", &aside))?;
    let written = writeln!(file, "{fresh}").and_then(|()| file.sync_all());
    written.map_err(SpoolError::io("writing", &aside))?;
    match fs::read_to_string(&path) {
        Ok(text) => {
            fs::remove_file(&aside).map_err(SpoolError::io("removing", &aside))?;
            let digits = text.trim_end();
            let id = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32).map(Id);
            id.ok_or(SpoolError::BadId { path })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::rename(&aside, &path).map_err(SpoolError::io("writing", &path))?;
            sync_path(dir)?;
            // The directory's own entry, where its parent lets us.
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                let _ = sync_path(parent);
            }
            Ok(fresh)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(SpoolError::BadId { path }),
        Err(error) => Err(SpoolError::io("reading", &path)(error)),
    }
}
