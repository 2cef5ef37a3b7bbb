//! What all logs of a spool share: its limits, what is in use of them, and who is open. What may not enter: the format.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::Encoders;
use crate::error::SpoolError;
use crate::format::{FRAME_HEADER_BYTES, MAX_BLOCK_BYTES};

/// How much a spool takes of memory and of file descriptors. The default is right outside tests.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Content of one block before compression: what one log gathers before it writes. 12 bytes to 1 MiB.
    pub block_bytes: usize,
    /// What all logs together gather before they write. When it runs short each gets less, and blocks become smaller.
    pub buffers_bytes: usize,
    /// Files of logs with unsynced writes that stay open. A log beyond that syncs with every block that it writes,
    /// because a file that is closed before its sync may lose a write without anybody hearing of it.
    pub open_files: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { block_bytes: 256 << 10, buffers_bytes: 32 << 20, open_files: 128 }
    }
}

/// How full a spool is, for other threads. It does not keep the spool open.
#[derive(Debug, Clone)]
pub struct Usage {
    pub(crate) counters: Arc<Counters>,
}

impl Usage {
    /// Bytes of all logs: the sizes of their files, and the most that the buffered frames can add to them.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.counters.used_bytes.load(Relaxed)
    }

    /// Bytes that [`Usage::used_bytes`] may reach.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.counters.limit_bytes
    }

    /// Bytes of memory that all logs hold for frames which are not written yet.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.counters.buffered_bytes.load(Relaxed)
    }

    /// Files of logs that are open for writing.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.counters.open_files.load(Relaxed)
    }
}

/// What is in use.
#[derive(Debug)]
pub(crate) struct Counters {
    pub limit_bytes: u64,
    pub used_bytes: AtomicU64,
    pub buffered_bytes: AtomicUsize,
    pub open_files: AtomicUsize,
}

/// One spool, as its logs see it. As long as one of them lives, the directory stays locked.
pub(crate) struct Shared {
    pub dir: PathBuf,
    pub sizes: Sizes,
    pub counters: Arc<Counters>,
    pub encoders: Encoders,
    /// Names of the logs that are open.
    open_names: Mutex<HashSet<String>>,
    /// Whether files were made or removed since the directory was last synced.
    dir_changed: Mutex<bool>,
    /// Holds the lock of the operating system.
    _lock: File,
}

impl Shared {
    pub(crate) fn new(dir: PathBuf, limit_bytes: u64, used_bytes: u64, sizes: Sizes, lock: File) -> Self {
        let counters = Counters {
            limit_bytes,
            used_bytes: AtomicU64::new(used_bytes),
            buffered_bytes: AtomicUsize::new(0),
            open_files: AtomicUsize::new(0),
        };
        // An empty frame must fit, because it cannot be cut into parts.
        let block_bytes = sizes.block_bytes.clamp(FRAME_HEADER_BYTES, MAX_BLOCK_BYTES);
        let sizes = Sizes { block_bytes, ..sizes };
        Self {
            dir,
            sizes,
            counters: Arc::new(counters),
            encoders: Encoders::default(),
            open_names: Mutex::default(),
            dir_changed: Mutex::new(false),
            _lock: lock,
        }
    }

    /// Takes bytes of the limit.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), SpoolError> {
        let limit_bytes = self.counters.limit_bytes;
        let taken = self.counters.used_bytes.fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= limit_bytes)
        });
        taken.map(|_| ()).map_err(|used_bytes| SpoolError::Full {
            dir: self.dir.clone(),
            limit_bytes,
            used_bytes,
            needed_bytes: bytes,
        })
    }

    /// Replaces what was taken for something by what it really takes. A file that was changed by hand may free more
    /// than was ever counted; that must not make the spool look full.
    pub(crate) fn settle(&self, reserved_bytes: u64, real_bytes: u64) {
        let settled = |used: u64| Some(used.saturating_add(real_bytes).saturating_sub(reserved_bytes));
        let _ = self.counters.used_bytes.fetch_update(Relaxed, Relaxed, settled);
    }

    /// Takes memory for a buffer that is to hold `total` bytes, of which it has `held`. A log gets up to a quarter of
    /// what is free, so that many logs share fairly and the sum stays bounded whatever they do.
    pub(crate) fn take_memory(&self, held: usize, total: usize) -> bool {
        let limit = self.sizes.buffers_bytes;
        let taken = self.counters.buffered_bytes.fetch_update(Relaxed, Relaxed, |all| {
            let free_with_ours = limit.saturating_sub(all - held);
            (total <= free_with_ours / 4).then_some(all - held + total)
        });
        taken.is_ok()
    }

    /// Gives back memory of a buffer.
    pub(crate) fn give_memory(&self, bytes: usize) {
        self.counters.buffered_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Records that a log is in use, unless it is already.
    pub(crate) fn claim(self: &Arc<Self>, name: &str) -> Result<Claim, SpoolError> {
        if self.names().insert(name.to_owned()) {
            return Ok(Claim { shared: Arc::clone(self), name: name.to_owned() });
        }
        Err(SpoolError::InUse { dir: self.dir.clone(), name: name.to_owned() })
    }

    /// Refuses when any log is open.
    pub(crate) fn check_idle(&self) -> Result<(), SpoolError> {
        let open = self.names().iter().min().cloned();
        open.map_or(Ok(()), |name| Err(SpoolError::InUse { dir: self.dir.clone(), name }))
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.open_names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a file was made or removed.
    pub(crate) fn dir_changed(&self) {
        *self.dir_changed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Makes the directory's entries durable. Whoever comes while another syncs waits for it.
    pub(crate) fn sync_dir(&self) -> Result<(), SpoolError> {
        let mut changed = self.dir_changed.lock().unwrap_or_else(PoisonError::into_inner);
        if *changed {
            sync_path(&self.dir)?;
            *changed = false;
        }
        Ok(())
    }
}

/// A log's name while it is in use.
pub(crate) struct Claim {
    pub shared: Arc<Shared>,
    pub name: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.names().remove(&self.name);
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_path(dir: &std::path::Path) -> Result<(), SpoolError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(SpoolError::io("syncing the directory", dir))
}
