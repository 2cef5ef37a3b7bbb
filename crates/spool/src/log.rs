//! One log: appending, writing blocks, syncing. Truncating stands in `cut`, reading in `read`.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::codec::max_block_bytes;
use crate::error::SpoolError;
use crate::file::Held;
use crate::format::{BlockHeader, FRAME_HEADER_BYTES, Kind, Point, push_frame};
use crate::recover::{Recovered, create, recover, seal};
use crate::shared::{Claim, Shared};

/// Longer frames are refused: 2 GiB less one byte, twice what a PostgreSQL message can have.
pub const MAX_FRAME_BYTES: usize = 0x7fff_ffff;
/// What a buffer begins with.
const MIN_BUFFER_BYTES: usize = 1 << 10;

/// One log of a spool, open in one place at a time.
///
/// Dropping it leaves the file; frames that were not synced may be lost then, the latest will be.
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: String,
    /// Keeps others from opening or removing it.
    _claim: Claim,
    pub(crate) path: PathBuf,
    pub(crate) salt: u64,
    pub(crate) start: Point,
    /// Up to where the file is on disk, and says so.
    pub(crate) sealed: Point,
    /// What is written.
    pub(crate) end: Point,
    pub(crate) buffer: Buffer,
    file: Option<Arc<Held>>,
    /// Whether something was written or cut since the last sync.
    pub(crate) dirty: bool,
    /// Whether the file may be longer than `end`, after a write that failed half way.
    ragged: bool,
    /// Whether a sync failed: then nobody knows what is on disk.
    broken: bool,
    torn_bytes: u64,
    pub(crate) cuts: crate::cut::Cuts,
}

/// Frames that are not written yet.
#[derive(Default)]
pub(crate) struct Buffer {
    pub raw: Vec<u8>,
    pub frames: u32,
    pub first: u64,
    pub last: u64,
    /// What is taken of the spool's limit for them.
    pub reserved_bytes: u64,
}

impl Log {
    /// Opens or makes the log of a name that has been claimed.
    pub(crate) fn open(claim: Claim, path: PathBuf) -> Result<Self, SpoolError> {
        let (shared, name) = (Arc::clone(&claim.shared), claim.name.as_str());
        let held = Held::open(&shared, &path, true).map_err(SpoolError::io("opening", &path))?;
        let length = held.file.metadata().map_err(SpoolError::io("looking at", &path))?.len();
        let (recovered, is_new) = match recover(&held.file, &path, length, name)? {
            Some(recovered) => (recovered, false),
            None => (begin(&shared, &held, &path, name, length)?, true),
        };
        let Recovered { salt, start, sealed, end } = recovered;
        let mut log = Self {
            shared,
            name: name.to_owned(),
            _claim: claim,
            path,
            salt,
            start,
            sealed,
            end,
            buffer: Buffer::default(),
            file: None,
            dirty: is_new || end.offset > sealed.offset,
            ragged: false,
            broken: false,
            torn_bytes: 0,
            cuts: crate::cut::Cuts::default(),
        };
        if !is_new && length > end.offset {
            log.torn_bytes = length - end.offset;
            tracing::warn!(
                path = %log.path.display(), offset_bytes = end.offset, torn_bytes = log.torn_bytes,
                "the end of a spool file had not been synced before a crash and is cut off"
            );
            held.file.set_len(end.offset).map_err(SpoolError::io("cutting off a torn end", &log.path))?;
            log.shared.settle(log.torn_bytes, 0);
            log.dirty = true;
        }
        Ok(log)
    }

    /// The name it was opened by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many frames it holds.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.end.frames + u64::from(self.buffer.frames)
    }

    /// The position of the last frame.
    #[must_use]
    pub fn last_position(&self) -> Option<u64> {
        if self.buffer.frames > 0 { Some(self.buffer.last) } else { self.end.last_position() }
    }

    /// What it takes of the spool: its file, and the most that the buffered frames can add to it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end.offset + self.buffer.reserved_bytes
    }

    /// How many bytes were cut off when it was opened, because a crash had left them half written. They had never been
    /// synced.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Appends a frame. It is on disk only after [`Log::sync`].
    ///
    /// # Errors
    /// [`SpoolError::Full`] at the spool's limit, [`SpoolError::Order`] for a position below the last,
    /// [`SpoolError::FrameTooLong`], [`SpoolError::NoSpace`] and [`SpoolError::Io`]: after all of these the log holds
    /// what it held before and can be used on. [`SpoolError::Broken`]: it must be opened again.
    pub fn append(&mut self, position: u64, frame: &[u8]) -> Result<(), SpoolError> {
        self.check_usable()?;
        if let Some(last) = self.last_position().filter(|last| *last > position) {
            return Err(SpoolError::Order { name: self.name.clone(), last, position });
        }
        if frame.len() > MAX_FRAME_BYTES {
            return Err(SpoolError::FrameTooLong {
                name: self.name.clone(),
                length_bytes: frame.len(),
                limit_bytes: MAX_FRAME_BYTES,
            });
        }
        let raw_bytes = FRAME_HEADER_BYTES + frame.len();
        if raw_bytes > self.shared.sizes.block_bytes {
            self.flush()?;
            return self.append_parts(position, frame);
        }
        if self.buffer.raw.len() + raw_bytes > self.shared.sizes.block_bytes {
            self.flush()?;
        }
        if !self.grow(raw_bytes) {
            self.flush()?;
            if !self.grow(raw_bytes) {
                return self.append_alone(position, frame);
            }
        }
        if self.reserve(raw_bytes).is_err() {
            // What is buffered takes less once it is compressed.
            self.flush()?;
            self.reserve(raw_bytes)?;
            if !self.grow(raw_bytes) {
                return self.append_alone(position, frame);
            }
        }
        push_frame(&mut self.buffer.raw, position, frame);
        if self.buffer.frames == 0 {
            self.buffer.first = position;
        }
        self.buffer.last = position;
        self.buffer.frames += 1;
        Ok(())
    }

    /// Makes everything appended, and every truncation, survive a crash of the machine.
    ///
    /// # Errors
    /// When the frames could not be written ([`SpoolError::NoSpace`], [`SpoolError::Io`]) it may be called again. When
    /// the file could not be synced, the log is [`SpoolError::Broken`] from then on and ends, opened again, where it
    /// was last synced.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        self.check_usable()?;
        self.flush()?;
        if self.dirty {
            self.settle()?;
        }
        Ok(())
    }

    /// Whether [`Log::sync`] has something to do.
    pub(crate) fn needs_sync(&self) -> bool {
        self.dirty || self.broken || self.buffer.frames > 0
    }

    pub(crate) fn check_usable(&self) -> Result<(), SpoolError> {
        if self.broken { Err(SpoolError::Broken { path: self.path.clone() }) } else { Ok(()) }
    }

    /// Writes what is buffered, and frees the buffer.
    pub(crate) fn flush(&mut self) -> Result<(), SpoolError> {
        if self.buffer.frames == 0 {
            self.forget_buffer();
            return Ok(());
        }
        let raw = std::mem::take(&mut self.buffer.raw);
        let Buffer { frames, first, last, .. } = self.buffer;
        let written = self.write_block(&mut header(Kind::Frames, frames, first, last, 0), &raw);
        self.buffer.raw = raw;
        let written_bytes = written?;
        self.shared.settle(0, written_bytes);
        self.forget_buffer();
        self.close_surplus()
    }

    /// Writes a frame for which the spool has no memory to buffer it.
    fn append_alone(&mut self, position: u64, frame: &[u8]) -> Result<(), SpoolError> {
        self.forget_buffer();
        let mut raw = Vec::with_capacity(FRAME_HEADER_BYTES + frame.len());
        push_frame(&mut raw, position, frame);
        self.append_block(&mut header(Kind::Frames, 1, position, position, 0), &raw)?;
        self.close_surplus()
    }

    /// Writes a frame that is larger than a block.
    fn append_parts(&mut self, position: u64, frame: &[u8]) -> Result<(), SpoolError> {
        let before = self.end;
        let mut rest = frame.len();
        for part in frame.chunks(self.shared.sizes.block_bytes) {
            rest -= part.len();
            let frames = u32::from(rest == 0);
            let mut header = header(Kind::Part, frames, position, position, rest as u64);
            if let Err(error) = self.append_block(&mut header, part) {
                self.shared.settle(self.end.offset - before.offset, 0);
                self.end = before;
                self.ragged = true;
                self.trim();
                return Err(error);
            }
        }
        self.close_surplus()
    }

    /// Writes a block, if the limit admits it.
    fn append_block(&mut self, header: &mut BlockHeader, raw: &[u8]) -> Result<(), SpoolError> {
        let reserved_bytes = max_block_bytes(raw.len());
        self.shared.reserve(reserved_bytes)?;
        let written = self.write_block(header, raw);
        self.shared.settle(reserved_bytes, *written.as_ref().unwrap_or(&0));
        written.map(|_| ())
    }

    /// Writes a block at the end; its length in the file is the caller's to account for.
    pub(crate) fn write_block(&mut self, header: &mut BlockHeader, raw: &[u8]) -> Result<u64, SpoolError> {
        let held = self.open_file()?;
        let shared = &self.shared;
        let mut encoder =
            shared.encoders.take().map_err(SpoolError::io("making a compressor", &self.path))?;
        let compressed = encoder.block(header, raw, self.end.chain);
        let (bytes, chain) =
            compressed.map_err(|source| SpoolError::Compress { path: self.path.clone(), source })?;
        let written = held.file.write_all_at(bytes, self.end.offset);
        let length = bytes.len() as u64;
        shared.encoders.give(encoder);
        if let Err(error) = written {
            self.ragged = true;
            self.trim();
            return Err(SpoolError::io("writing", &self.path)(error));
        }
        self.end = header.after(&self.end, chain);
        self.dirty = true;
        Ok(length)
    }

    /// Opens the file, and removes what a failed write may have left behind the end.
    fn open_file(&mut self) -> Result<Arc<Held>, SpoolError> {
        let path = &self.path;
        let held = match self.file.take() {
            Some(held) => held,
            None => Arc::new(Held::open(&self.shared, path, false).map_err(SpoolError::io("opening", path))?),
        };
        if self.ragged {
            held.file.set_len(self.end.offset).map_err(SpoolError::io("cutting off", path))?;
            self.ragged = false;
        }
        Ok(Arc::clone(self.file.insert(held)))
    }

    /// Removes what a failed write may have left; if that fails too, the next write does it.
    fn trim(&mut self) {
        if let Some(held) = &self.file
            && held.file.set_len(self.end.offset).is_ok()
        {
            self.ragged = false;
        }
    }

    /// Cuts the written file; the frames' bytes become free.
    pub(crate) fn shorten(&mut self, to: Point) -> Result<(), SpoolError> {
        if to.offset < self.sealed.offset {
            // The seal goes back first, and durably: a file shorter than its seal would be taken for damaged.
            let held = self.open_file()?;
            seal(&held.file, &self.path, self.salt, &to)?;
            self.synced(held.file.sync_data())?;
            self.sealed = to;
        }
        let removed_bytes = self.end.offset - to.offset;
        if removed_bytes > 0 {
            let held = self.open_file()?;
            held.file.set_len(to.offset).map_err(SpoolError::io("truncating", &self.path))?;
            self.end = to;
            self.dirty = true;
            self.shared.settle(removed_bytes, 0);
        }
        Ok(())
    }

    /// Syncs what is written, says so in the file, and closes it.
    fn settle(&mut self) -> Result<(), SpoolError> {
        self.shared.sync_dir()?;
        let held = self.open_file()?;
        self.synced(held.file.sync_data())?;
        seal(&held.file, &self.path, self.salt, &self.end)?;
        self.sealed = self.end;
        self.dirty = false;
        self.file = None;
        Ok(())
    }

    /// After a failed sync the system may show bytes that are not on disk, and call them synced the next time. So the
    /// log ends where it was last synced, and must be opened again.
    fn synced(&mut self, result: std::io::Result<()>) -> Result<(), SpoolError> {
        let Err(error) = result else { return Ok(()) };
        self.broken = true;
        if let Some(held) = self.file.take()
            && held.file.set_len(self.sealed.offset).is_ok()
        {
            self.shared.settle(self.end.offset - self.sealed.offset, 0);
            self.end = self.sealed;
        }
        self.forget_buffer();
        Err(SpoolError::io("syncing", &self.path)(error))
    }

    /// Closes the file if too many are open. What is written is synced before, or an error of it might go unheard.
    pub(crate) fn close_surplus(&mut self) -> Result<(), SpoolError> {
        if self.file.as_ref().is_some_and(|held| held.is_surplus) { self.settle() } else { Ok(()) }
    }

    /// Takes memory for so many more bytes in the buffer.
    fn grow(&mut self, raw_bytes: usize) -> bool {
        let held = self.buffer.raw.capacity();
        let needed = self.buffer.raw.len() + raw_bytes;
        if needed <= held {
            return true;
        }
        let block_bytes = self.shared.sizes.block_bytes;
        let capacity = needed.next_power_of_two().max(MIN_BUFFER_BYTES).min(block_bytes.max(needed));
        if !self.shared.take_memory(held, capacity) {
            return false;
        }
        self.buffer.raw.reserve_exact(capacity - self.buffer.raw.len());
        // An allocator may give more; what is accounted must be what is held.
        let surplus = self.buffer.raw.capacity() - capacity;
        self.shared.counters.buffered_bytes.fetch_add(surplus, std::sync::atomic::Ordering::Relaxed);
        true
    }

    /// Takes of the limit what the block can need once so many bytes are added to it.
    fn reserve(&mut self, raw_bytes: usize) -> Result<(), SpoolError> {
        let needed = max_block_bytes(self.buffer.raw.len() + raw_bytes);
        self.shared.reserve(needed.saturating_sub(self.buffer.reserved_bytes))?;
        self.buffer.reserved_bytes = needed.max(self.buffer.reserved_bytes);
        Ok(())
    }

    /// Drops what is buffered, its memory and what it took of the limit.
    pub(crate) fn forget_buffer(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.shared.give_memory(buffer.raw.capacity());
        self.shared.settle(buffer.reserved_bytes, 0);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.forget_buffer();
        if self.ragged && self.open_file().is_err() {
            // What is left behind the end takes room until the log is opened again, which cuts it off.
            let length = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
            self.shared.settle(0, length.saturating_sub(self.end.offset));
        }
    }
}

/// A header without what the encoder fills in.
pub(crate) fn header(kind: Kind, frames: u32, first: u64, last: u64, rest: u64) -> BlockHeader {
    BlockHeader { kind, raw_bytes: 0, stored_bytes: 0, frames, first, last, rest, body_crc: 0 }
}

/// Makes a new file, if the limit admits its header. `length_bytes` is what the file has already.
fn begin(
    shared: &Shared,
    held: &Held,
    path: &std::path::Path,
    name: &str,
    length_bytes: u64,
) -> Result<Recovered, SpoolError> {
    shared.dir_changed();
    let header_bytes = (crate::format::FILE_HEADER_BYTES + name.len()) as u64;
    let created = shared
        .reserve(header_bytes)
        .and_then(|()| create(&held.file, path, name).inspect_err(|_| shared.settle(header_bytes, 0)));
    match created {
        Ok(recovered) => {
            shared.settle(length_bytes, 0);
            Ok(recovered)
        }
        Err(error) => {
            // Nothing was in it, so nothing is lost with it.
            if std::fs::remove_file(path).is_ok() {
                shared.settle(length_bytes, 0);
            }
            Err(error)
        }
    }
}
