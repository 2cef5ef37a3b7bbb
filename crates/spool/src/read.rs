//! Reading a log from its beginning, one block in memory at a time.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::error::SpoolError;
use crate::format::{Kind, frame_at};
use crate::log::Log;
use crate::walk::{Block, Flaw, Walker};

/// The frames of a log with their positions, from the first to the last. After an error it ends.
///
/// A frame shares the memory of its block: who keeps one for long keeps up to [`crate::Sizes::block_bytes`], and does
/// better to copy it.
pub struct Frames<'a> {
    walker: Walker,
    path: std::path::PathBuf,
    content: Bytes,
    at: usize,
    /// Frames of `content` that are still to come.
    left: u32,
    /// The block that `content` is of.
    block: Option<Block>,
    done: bool,
    /// While frames are read, the log does not change.
    log: PhantomData<&'a mut Log>,
}

impl Log {
    /// Reads all frames, from the first on. What is buffered is written before (but not synced).
    ///
    /// # Errors
    /// Errors of writing what is buffered and of opening the file; each frame has its own.
    pub fn read(&mut self) -> Result<Frames<'_>, SpoolError> {
        self.read_detached()
    }

    /// [`Log::read`] for an owner who sees to it that the log does not change and stays as long as the frames.
    pub(crate) fn read_detached(&mut self) -> Result<Frames<'static>, SpoolError> {
        self.check_usable()?;
        self.flush()?;
        Ok(Frames {
            walker: self.walker(self.start)?,
            path: self.path.clone(),
            content: Bytes::new(),
            at: 0,
            left: 0,
            block: None,
            done: false,
            log: PhantomData,
        })
    }
}

impl Frames<'_> {
    fn frame(&mut self) -> Result<Option<(u64, Bytes)>, Flaw> {
        while self.left == 0 {
            let Some((block, kept)) = self.walker.next_kept()? else { return Ok(None) };
            if block.header.kind == Kind::Part {
                return self.assemble(block).map(Some);
            }
            self.content = self.walker.content(&block)?.into();
            self.at = 0;
            self.left = kept.unwrap_or(block).header.frames;
            self.block = Some(block);
        }
        let frame = frame_at(&self.content, self.at);
        let Some((position, range)) = frame else {
            let damage = |block: Block| block.damage("a block holds fewer frames than it says");
            return self.block.map_or(Ok(None), |block| Err(damage(block)));
        };
        self.left -= 1;
        self.at = range.end;
        let frame = self.content.slice(range);
        if self.left == 0 {
            self.content = Bytes::new();
        }
        Ok(Some((position, frame)))
    }

    /// A frame that is larger than a block.
    fn assemble(&mut self, first: Block) -> Result<(u64, Bytes), Flaw> {
        let mut frame = self.walker.content(&first)?;
        let mut rest = first.header.rest;
        frame.reserve_exact(usize::try_from(rest).unwrap_or(0).min(crate::MAX_FRAME_BYTES));
        while rest > 0 {
            // The walker sees to it that the parts fit.
            let Some(part) = self.walker.next()? else { return Err(first.damage("it ends within a frame")) };
            frame.extend(self.walker.content(&part)?);
            rest = part.header.rest;
        }
        Ok((first.header.first, frame.into()))
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<(u64, Bytes), SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let frame = self.frame().map_err(|flaw| flaw.into_error(&self.path)).transpose();
        self.done = !matches!(frame, Some(Ok(_)));
        frame
    }
}
