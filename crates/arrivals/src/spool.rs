//! The spool as the sessions of a flow share it: opened when it is first needed, removed when nothing is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relevo_spool::{Spool, SpoolError};
use tokio::runtime::{Handle, RuntimeFlavor};

/// A spool directory that many may use, one at a time. Clones share it.
#[derive(Clone)]
pub struct SharedSpool {
    directory: PathBuf,
    limit_bytes: u64,
    spool: Arc<Mutex<Option<Spool>>>,
}

impl SharedSpool {
    /// A spool in this directory, which may take so many bytes. Nothing is created yet.
    #[must_use]
    pub fn new(directory: PathBuf, limit_bytes: u64) -> Self {
        Self { directory, limit_bytes, spool: Arc::default() }
    }

    /// What tells this directory from another one, also one that was made anew in its place. Opens it.
    ///
    /// # Errors
    /// [`SpoolError`]: it cannot be opened, or another process uses it.
    pub fn id(&self) -> Result<String, SpoolError> {
        self.with(|spool| Ok(spool.id().to_string()))
    }

    /// What it holds, in bytes on disk; 0 when it is not open.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().as_ref().map_or(0, Spool::used_bytes)
    }

    /// Removes everything that it holds, and the directory. It can be used again.
    ///
    /// # Errors
    /// [`SpoolError`]: files cannot be removed.
    pub fn remove(&self) -> Result<(), SpoolError> {
        blocking(|| match self.lock().take() {
            Some(spool) => spool.remove_all(),
            None => Ok(()),
        })
    }

    /// Works with the spool on this thread, while the others of the runtime take over its tasks.
    pub(crate) fn with<R, E: From<SpoolError>>(
        &self,
        work: impl FnOnce(&Spool) -> Result<R, E>,
    ) -> Result<R, E> {
        blocking(|| {
            let mut guard = self.lock();
            let spool = match guard.take() {
                Some(spool) => spool,
                None => Spool::open(&self.directory, self.limit_bytes)?,
            };
            work(guard.insert(spool))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Spool>> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does blocking work without keeping the other tasks of this thread waiting.
pub(crate) fn blocking<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
