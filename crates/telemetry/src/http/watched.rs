//! Something that is made of files, and made anew when they change: certificates and tokens are exchanged while a process
//! runs, by tools that tell nobody. What may not enter: what the files hold.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{error, info, warn};

use crate::TelemetryError;

/// What tells a file from itself after a change; behind links, as they lead now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let changed = (found.ctime(), found.ctime_nsec());
        Some(Self { device: found.dev(), inode: found.ino(), bytes: found.size(), changed })
    }
}

type Make<T> = Box<dyn Fn() -> Result<T, TelemetryError> + Send + Sync>;

/// What was made of the files when they were last read well.
pub(super) struct Watched<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    seen: Vec<Option<Stamp>>,
    value: Arc<T>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// # Errors
    /// What `make` says.
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, TelemetryError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, TelemetryError> {
        // Before they are read: whoever changes them meanwhile is noticed the next time.
        let seen = stamps(&files);
        let value = Arc::new(make()?);
        Ok(Arc::new(Self { files, make: Box::new(make), state: Mutex::new(State { seen, value }) }))
    }

    /// What the files hold now. If they cannot be used any more, it stays what they held before, and the log says so once.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<T> {
        let this = Arc::clone(self);
        // A file system that hangs must not keep the runtime's threads.
        match tokio::task::spawn_blocking(move || this.look()).await {
            Ok(value) => value,
            // The runtime is ending.
            Err(_) => self.lock().value.clone(),
        }
    }

    fn look(&self) -> Arc<T> {
        let mut state = self.lock();
        let now = stamps(&self.files);
        if now != state.seen {
            state.seen = now;
            let names =
                self.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            match (self.make)() {
                Ok(value) => {
                    info!("HTTP: read anew: {names}");
                    state.value = Arc::new(value);
                }
                Err(failure) => error!("HTTP: goes on with what was read before: {failure}"),
            }
        }
        Arc::clone(&state.value)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|path| Stamp::of(path)).collect()
}

/// Says so when everybody on this machine may read a secret. It is used all the same: where only one process lives, as in a
/// container, that is usual.
pub(super) fn warn_if_open(setting: &str, path: &Path) {
    const READ_BY_ALL: u32 = 0o004;
    if fs::metadata(path).is_ok_and(|found| found.mode() & READ_BY_ALL != 0) {
        warn!("{setting} file {} may be read by every user of this machine: chmod o-r", path.display());
    }
}
