//! Truncating a log: from a position on, or back to a mark.

use crate::error::SpoolError;
use crate::format::{BLOCK_HEADER_BYTES, Kind, Point, frame_at};
use crate::log::{Log, header};
use crate::walk::{Block, Walker};

/// A place in a log to which it can be truncated, as long as the log stays open.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Where the block begins that the next frame goes to.
    at: Point,
    /// Frames of that block before the mark, and the last of their positions.
    block_frames: u32,
    last: u64,
    /// When it was taken.
    time: u64,
    /// Of which log.
    log: u64,
}

/// The truncations of a log since it was opened: what makes a mark void.
pub(crate) struct Cuts {
    /// Tells one opening of one log from all others.
    log: u64,
    time: u64,
    /// When it was truncated and to how many frames; only those that no later truncation undercut.
    to_frames: Vec<(u64, u64)>,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { log: rand::random(), time: 0, to_frames: Vec::new() }
    }
}

impl Cuts {
    fn add(&mut self, frames: u64) {
        while self.to_frames.last().is_some_and(|(_, earlier)| *earlier >= frames) {
            self.to_frames.pop();
        }
        self.time += 1;
        self.to_frames.push((self.time, frames));
    }

    /// Whether no truncation went below the mark since it was taken.
    fn admit(&self, mark: &Mark) -> bool {
        let later = self.to_frames.partition_point(|(time, _)| *time <= mark.time);
        let lowest = self.to_frames.get(later).map(|(_, frames)| *frames);
        mark.log == self.log && lowest.is_none_or(|lowest| lowest >= mark.frames())
    }
}

impl Mark {
    /// How many frames the log had.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.at.frames + u64::from(self.block_frames)
    }
}

impl Log {
    /// Marks the end of the log. A mark costs nothing and needs no release.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            at: self.end,
            block_frames: self.buffer.frames,
            last: self.buffer.last,
            time: self.cuts.time,
            log: self.cuts.log,
        }
    }

    /// Forgets all frames that were appended after the mark. Like what is appended, this survives a crash only after
    /// [`Log::sync`]. It may take 48 bytes beyond the spool's limit.
    ///
    /// # Errors
    /// [`SpoolError::StaleMark`] for a mark of another log or of an earlier opening, or one beyond a later truncation;
    /// errors of reading and writing the file.
    pub fn truncate_to(&mut self, mark: Mark) -> Result<(), SpoolError> {
        self.check_usable()?;
        if !self.cuts.admit(&mark) || mark.frames() > self.frames() {
            return Err(SpoolError::StaleMark { name: self.name.clone() });
        }
        if mark.frames() == self.frames() {
            return Ok(());
        }
        // Before anything is tried: a cut that fails half way voids the marks beyond it as well.
        self.cuts.add(mark.frames());
        if mark.at.offset == self.end.offset {
            self.shorten_buffer(mark.block_frames, mark.last)?;
        } else {
            self.forget_buffer();
            if mark.block_frames == 0 {
                self.shorten(mark.at)?;
            } else {
                let mut walker = self.walker(mark.at)?;
                let block = walker.next_kept().map_err(|flaw| flaw.into_error(&self.path))?;
                let Some((block, kept)) = block else {
                    return Err(SpoolError::StaleMark { name: self.name.clone() });
                };
                self.keep(&block, kept.as_ref(), mark.block_frames, mark.last)?;
            }
        }
        self.close_surplus()
    }

    /// Forgets all frames whose position is `position` or above. Like what is appended, this survives a crash only
    /// after [`Log::sync`]. It may take 48 bytes beyond the spool's limit.
    ///
    /// # Errors
    /// Errors of reading and writing the file.
    pub fn truncate_from(&mut self, position: u64) -> Result<(), SpoolError> {
        self.check_usable()?;
        if self.last_position().is_none_or(|last| last < position) {
            return Ok(());
        }
        if self.buffer.frames > 0 && self.buffer.first < position {
            let (frames, last) = frames_below(&self.buffer.raw, self.buffer.frames, position);
            self.shorten_buffer(frames, last)?;
        } else {
            self.forget_buffer();
            self.shorten_from(position)?;
        }
        self.cuts.add(self.frames());
        self.close_surplus()
    }

    /// Finds the block in which the first frame at `position` or above lies, and cuts there.
    fn shorten_from(&mut self, position: u64) -> Result<(), SpoolError> {
        if self.end.last_position().is_none_or(|last| last < position) {
            return Ok(());
        }
        let mut walker = self.walker(self.start)?;
        while let Some((block, kept)) = walker.next_kept().map_err(|flaw| flaw.into_error(&self.path))? {
            let shown = kept.as_ref().unwrap_or(&block).header;
            if shown.last < position {
                continue;
            }
            if block.header.first >= position {
                return self.shorten(block.before);
            }
            let content = walker.content(&block).map_err(|flaw| flaw.into_error(&self.path))?;
            let (frames, last) = frames_below(&content, shown.frames, position);
            return self.keep(&block, kept.as_ref(), frames, last);
        }
        Ok(())
    }

    /// Ends the log after the first frames of a written block.
    fn keep(
        &mut self,
        block: &Block,
        kept: Option<&Block>,
        frames: u32,
        last: u64,
    ) -> Result<(), SpoolError> {
        let shown = kept.unwrap_or(block);
        if frames == 0 {
            return self.shorten(block.before);
        }
        self.shorten(shown.after)?;
        if shown.header.frames > frames {
            let all = block.before.frames + u64::from(frames);
            self.write_block(&mut header(Kind::Keep, frames, last, last, all), &[])?;
            // Not asked of the limit: what frees bytes must not fail for want of them.
            self.shared.settle(0, BLOCK_HEADER_BYTES as u64);
        }
        Ok(())
    }

    /// Ends the log after the first frames of the buffer.
    fn shorten_buffer(&mut self, frames: u32, last: u64) -> Result<(), SpoolError> {
        if frames == 0 {
            self.forget_buffer();
            return Ok(());
        }
        let mut length = 0;
        for _ in 0..frames {
            let frame = frame_at(&self.buffer.raw, length);
            length = frame.ok_or_else(|| SpoolError::StaleMark { name: self.name.clone() })?.1.end;
        }
        self.buffer.raw.truncate(length);
        self.buffer.frames = frames;
        self.buffer.last = last;
        Ok(())
    }

    pub(crate) fn walker(&self, at: Point) -> Result<Walker, SpoolError> {
        let (path, end) = (self.path.clone(), self.end.offset);
        let file = std::fs::File::open(&path).map_err(SpoolError::io("opening", &path))?;
        Walker::new(file, path, at, end)
    }
}

/// How many of the first frames lie below a position, and where the last of them is.
fn frames_below(raw: &[u8], frames: u32, position: u64) -> (u32, u64) {
    let (mut at, mut last) = (0, 0);
    for count in 0..frames {
        match frame_at(raw, at) {
            Some((own, range)) if own < position => (at, last) = (range.end, own),
            _ => return (count, last),
        }
    }
    (frames, last)
}
