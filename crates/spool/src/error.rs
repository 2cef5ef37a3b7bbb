//! What can go wrong with a spool. Every variant names the file or directory and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A spool could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The operating system refused something.
    #[error("spool {path}: {doing} failed", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file system, or the quota on it, is used up.
    #[error(
        "spool {path}: {doing} failed because its file system has no room left; free some or enlarge it (what was \
         appended before stays)",
        path = path.display()
    )]
    NoSpace {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The spool's own limit would be passed. The log is as it was before the call.
    #[error(
        "the spool in {dir} is full: {needed_bytes} more bytes were asked for, {used_bytes} of {limit_bytes} are in \
         use; raise the limit, or wait until logs are read and removed",
        dir = dir.display()
    )]
    Full {
        /// The spool's directory.
        dir: PathBuf,
        /// The limit.
        limit_bytes: u64,
        /// What files and buffers take.
        used_bytes: u64,
        /// What the call would have added at most.
        needed_bytes: u64,
    },
    /// Another process, or another [`crate::Spool`] of this one, uses the directory.
    #[error(
        "the spool directory {dir} is in use by another process; stop that one, or give each its own directory",
        dir = dir.display()
    )]
    Locked {
        /// The spool's directory.
        dir: PathBuf,
    },
    /// The directory lies where others may make files too, and is not ours alone: somebody may have made it in order to read
    /// or change what is kept there.
    #[error(
        "the spool directory {dir} {why}, so others could read or change what is kept there: remove it, or give the spool a \
         directory of its own (--spool, RELEVO_SPOOL or `spool` under [apply])",
        dir = dir.display()
    )]
    NotOurs {
        /// The spool's directory.
        dir: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// The file that says which spool this is cannot be understood.
    #[error(
        "{path} should hold the spool's id, 32 hexadecimal digits; is this a directory of another program? Give \
         the spool a directory of its own",
        path = path.display()
    )]
    BadId {
        /// The file `id`.
        path: PathBuf,
    },
    /// A log is open, so it can be neither opened again nor removed.
    #[error("the log {name:?} of the spool in {dir} is open already; drop it first", dir = dir.display())]
    InUse {
        /// The spool's directory.
        dir: PathBuf,
        /// The log's name.
        name: String,
    },
    /// A name that is too long to be stored.
    #[error("a log's name may have up to {limit_bytes} bytes, not {length_bytes}; shorten it")]
    NameTooLong {
        /// How long it is.
        length_bytes: usize,
        /// How long it may be.
        limit_bytes: usize,
    },
    /// The file of a log belongs to another name.
    #[error(
        "{path} should hold the log {expected:?}, but holds {found:?}; was it renamed by hand? Move it away",
        path = path.display()
    )]
    OtherName {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        expected: String,
        /// The name in the file.
        found: String,
    },
    /// A position below the one before it.
    #[error(
        "the log {name:?} ends at position {last}, so a frame at {position} cannot follow; report this as a bug"
    )]
    Order {
        /// The log's name.
        name: String,
        /// The position of the last frame.
        last: u64,
        /// The one that was to follow.
        position: u64,
    },
    /// A frame larger than any can be.
    #[error("a frame of {length_bytes} bytes is too long for the log {name:?}: the limit is {limit_bytes}")]
    FrameTooLong {
        /// The log's name.
        name: String,
        /// How long it is.
        length_bytes: usize,
        /// How long it may be.
        limit_bytes: usize,
    },
    /// Something that had been synced cannot be read back.
    #[error(
        "{path} is damaged at byte {offset_bytes}: {what}. It was whole when it was written, so look at the disk and \
         the file system; the log cannot be used any more and must be removed, and its frames be made again",
        path = path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset_bytes: u64,
        /// What does not hold.
        what: &'static str,
    },
    /// An earlier sync failed, so nobody knows which of the latest frames are on disk.
    #[error(
        "{path} cannot be used since a sync of it failed: open the log again, it then ends where it was last synced",
        path = path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// A mark of another log, or one that lies beyond a later truncation.
    #[error("the mark does not belong to the log {name:?} as it is now; report this as a bug")]
    StaleMark {
        /// The log's name.
        name: String,
    },
    /// The compressor refused.
    #[error("spool {path}: compressing a block failed; report this as a bug", path = path.display())]
    Compress {
        /// The file that the block was for.
        path: PathBuf,
        /// What the compressor says.
        source: io::Error,
    },
}

impl SpoolError {
    /// An error of the operating system, told apart by whether the disk is full.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::NoSpace { doing, path, source }
                }
                _ => Self::Io { doing, path, source },
            }
        }
    }
}
