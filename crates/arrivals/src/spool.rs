//! The spool as the sessions of a flow share it, for those who may not keep the tasks of a runtime waiting.

use relevo_spool::{Spool, SpoolError};
use tokio::runtime::{Handle, RuntimeFlavor};

/// A spool directory that many may use, one at a time. Clones share it.
#[derive(Clone)]
pub struct SharedSpool(relevo_spool::SharedSpool);

impl SharedSpool {
    /// The same spool, for asynchronous tasks.
    #[must_use]
    pub fn new(spool: relevo_spool::SharedSpool) -> Self {
        Self(spool)
    }

    /// What tells this directory from another one, also one that was made anew in its place. Opens it.
    ///
    /// # Errors
    /// [`SpoolError`]: it cannot be opened, or another process uses it.
    pub fn id(&self) -> Result<String, SpoolError> {
        self.with(|spool| Ok(spool.id().to_string()))
    }

    /// Removes what was kept for tables, and the directory once nobody else needs it. It can be used again.
    ///
    /// # Errors
    /// [`SpoolError`]: files cannot be removed.
    pub fn release(&self) -> Result<(), SpoolError> {
        blocking(|| self.0.release())
    }

    /// Works with the spool on this thread, while the others of the runtime take over its tasks.
    pub(crate) fn with<R, E: From<SpoolError>>(
        &self,
        work: impl FnOnce(&Spool) -> Result<R, E>,
    ) -> Result<R, E> {
        blocking(|| self.0.with(work))
    }
}

/// Does blocking work without keeping the other tasks of this thread waiting.
pub(crate) fn blocking<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
