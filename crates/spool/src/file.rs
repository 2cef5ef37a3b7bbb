//! The open file of a log. Files are open only while a log has unsynced writes, and not more than a few at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::shared::Shared;

/// A file that is counted as long as it is open.
pub(crate) struct Held {
    pub file: File,
    /// Whether it is one too many and must be synced and closed at the end of the call.
    pub is_surplus: bool,
    shared: Arc<Shared>,
}

impl Held {
    /// Opens a log's file, which exists unless `create` is set.
    pub(crate) fn open(shared: &Arc<Shared>, path: &Path, create: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let others = shared.counters.open_files.fetch_add(1, Relaxed);
        let is_surplus = others >= shared.sizes.open_files;
        Ok(Self { file, is_surplus, shared: Arc::clone(shared) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.counters.open_files.fetch_sub(1, Relaxed);
    }
}
