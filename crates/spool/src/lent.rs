//! A spool that several parts of a program share: opened when it is first needed, removed when nobody needs it. What may
//! not enter: what the logs are for.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::SpoolError;
use crate::log::Log;
use crate::read::Frames;
use crate::spool::Spool;

/// What the names of scratch logs begin with; no other log may have such a name.
const SCRATCH: &str = "scratch:";

/// A longer buffer is given back after its use.
const KEPT_BYTES: usize = 16 << 10;

/// A spool directory that many may use, one at a time. Clones share it.
#[derive(Clone)]
pub struct SharedSpool {
    directory: PathBuf,
    /// Others may make files where it lies.
    among_others: bool,
    limit_bytes: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    spool: Option<Spool>,
    /// Named logs are in use.
    is_kept: bool,
    /// Scratch logs that are open.
    scratches: u64,
    /// Scratch logs that were ever made.
    made: u64,
}

impl SharedSpool {
    /// A spool in this directory, which may take so many bytes. Nothing is created yet.
    #[must_use]
    pub fn new(directory: PathBuf, limit_bytes: u64) -> Self {
        Self { directory, among_others: false, limit_bytes, state: Arc::default() }
    }

    /// The same in a place where others may make files too, such as the directory for temporary files: what is found under
    /// that name is used only if it is ours alone.
    #[must_use]
    pub fn among_others(directory: PathBuf, limit_bytes: u64) -> Self {
        Self { among_others: true, ..Self::new(directory, limit_bytes) }
    }

    /// What it holds, in bytes on disk; 0 when it is not open.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().spool.as_ref().map_or(0, Spool::used_bytes)
    }

    /// What it may hold, in bytes on disk.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Works with the spool, which stays from now on until [`SharedSpool::release`]. Logs are opened here and may be
    /// used elsewhere.
    ///
    /// # Errors
    /// As [`Spool::open`], and those of the work.
    pub fn with<R, E: From<SpoolError>>(&self, work: impl FnOnce(&Spool) -> Result<R, E>) -> Result<R, E> {
        let mut state = self.lock();
        let spool = self.open(&mut state)?;
        state.is_kept = true;
        work(state.spool.insert(spool))
    }

    /// Nobody needs the named logs any more. They are removed, and the directory as soon as no scratch log is open. It
    /// can be used again.
    ///
    /// # Errors
    /// [`SpoolError`]: files cannot be removed.
    pub fn release(&self) -> Result<(), SpoolError> {
        let mut state = self.lock();
        state.is_kept = false;
        state.remove_if_idle()
    }

    /// Removes what a process that was killed has left behind, while nobody needs a named log.
    ///
    /// # Errors
    /// As [`Spool::open`], and errors of removing files.
    pub fn sweep(&self) -> Result<(), SpoolError> {
        let mut state = self.lock();
        if state.spool.is_none() && self.directory.symlink_metadata().is_ok() {
            state.spool = Some(self.open(&mut state)?);
        }
        state.remove_if_idle()
    }

    /// A log without a name, which is removed when it is dropped.
    ///
    /// # Errors
    /// As [`Spool::open`] and [`Spool::log`].
    pub fn scratch(&self) -> Result<Scratch, SpoolError> {
        let mut state = self.lock();
        let spool = self.open(&mut state)?;
        state.made += 1;
        let name = format!("{SCRATCH}{}", state.made);
        let opened = state.spool.insert(spool).log(&name);
        match opened {
            Ok(log) => {
                state.scratches += 1;
                drop(state);
                Ok(Scratch { log: Some(log), name, shared: self.clone(), joined: Vec::new() })
            }
            Err(error) => {
                // The error of the log says what is wrong; the directory is removed by whoever comes next.
                let _ = state.remove_if_idle();
                Err(error)
            }
        }
    }

    /// Takes the spool out, or opens it. A scratch log that is found then belongs to a process that was killed.
    fn open(&self, state: &mut State) -> Result<Spool, SpoolError> {
        if let Some(spool) = state.spool.take() {
            return Ok(spool);
        }
        let spool = match self.among_others {
            true => Spool::open_among_others(&self.directory, self.limit_bytes)?,
            false => Spool::open(&self.directory, self.limit_bytes)?,
        };
        for name in spool.names()?.iter().filter(|name| name.starts_with(SCRATCH)) {
            spool.remove(name)?;
        }
        Ok(spool)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove_if_idle(&mut self) -> Result<(), SpoolError> {
        if self.is_kept || self.scratches > 0 {
            return Ok(());
        }
        let Some(spool) = self.spool.take() else { return Ok(()) };
        if let Err(error) = spool.clear() {
            // Whoever is still in there must find the directory locked by us, and not by a stranger.
            self.spool = Some(spool);
            return Err(error);
        }
        spool.remove_all()
    }
}

/// A log without a name: what it holds is of use to nobody but its owner, and gone with it.
pub struct Scratch {
    log: Option<Log>,
    name: String,
    shared: SharedSpool,
    /// Where pieces are joined.
    joined: Vec<u8>,
}

impl Scratch {
    /// Appends a frame that is made of two pieces. Nothing is ever synced.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_joined(&mut self, head: &[u8], tail: &[u8]) -> Result<(), SpoolError> {
        self.joined.clear();
        self.joined.extend_from_slice(head);
        self.joined.extend_from_slice(tail);
        let appended = self.log.as_mut().map_or(Ok(()), |log| log.append(0, &self.joined));
        if self.joined.capacity() > KEPT_BYTES {
            self.joined = Vec::new();
        }
        appended
    }

    /// What it takes of the spool, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::bytes)
    }

    /// The frames from the first to the last; the log is removed when they are dropped. A frame shares the memory of its
    /// block, see [`Frames`].
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn into_frames(mut self) -> Result<ScratchFrames, SpoolError> {
        let frames = self.log.as_mut().map(Log::read_detached).transpose()?;
        Ok(ScratchFrames { frames, _scratch: self })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.log = None;
        let mut state = self.shared.lock();
        let removed = state.spool.as_ref().map_or(Ok(()), |spool| spool.remove(&self.name));
        state.scratches -= 1;
        if let Err(error) = removed.and_then(|()| state.remove_if_idle()) {
            tracing::warn!("a file of the spool that is no longer needed could not be removed: {error}");
        }
    }
}

/// The frames of a scratch log. After an error it ends.
pub struct ScratchFrames {
    frames: Option<Frames<'static>>,
    _scratch: Scratch,
}

impl Iterator for ScratchFrames {
    type Item = Result<Bytes, SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.frames.as_mut()?.next()?;
        Some(next.map(|(_, frame)| frame))
    }
}
