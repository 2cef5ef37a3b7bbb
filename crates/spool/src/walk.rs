//! Going through the blocks of a file, checking all that can be checked. It does not say what a flaw means: behind the
//! seal it is the trace of a crash, before it damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::codec::Decoder;
use crate::error::SpoolError;
use crate::format::{BLOCK_HEADER_BYTES, BlockHeader, Kind, Point};

/// Why a walk cannot go on.
pub(crate) enum Flaw {
    /// The file could not be read at all.
    Unreadable(SpoolError),
    /// What is read does not hold.
    Damage { offset_bytes: u64, what: &'static str },
}

impl Flaw {
    /// The flaw as an error, where it cannot be the trace of a crash.
    pub(crate) fn into_error(self, path: &std::path::Path) -> SpoolError {
        match self {
            Self::Unreadable(error) => error,
            Self::Damage { offset_bytes, what } => {
                SpoolError::Corrupt { path: path.to_owned(), offset_bytes, what }
            }
        }
    }
}

/// A block that was come by.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub header: BlockHeader,
    pub before: Point,
    pub after: Point,
}

impl Block {
    pub(crate) fn damage(&self, what: &'static str) -> Flaw {
        Flaw::Damage { offset_bytes: self.before.offset, what }
    }
}

/// Goes from block to block.
pub(crate) struct Walker {
    file: File,
    path: PathBuf,
    at: Point,
    end: u64,
    previous: Option<BlockHeader>,
    ahead: Option<Block>,
    decoder: Decoder,
}

impl Walker {
    /// From `at`, the beginning of a block, to `end`.
    pub(crate) fn new(file: File, path: PathBuf, at: Point, end: u64) -> Result<Self, SpoolError> {
        let decoder = Decoder::new().map_err(SpoolError::io("making a decompressor", &path))?;
        Ok(Self { file, path, at, end, previous: None, ahead: None, decoder })
    }

    /// The header of the next block.
    pub(crate) fn next(&mut self) -> Result<Option<Block>, Flaw> {
        if let Some(block) = self.ahead.take() {
            return Ok(Some(block));
        }
        let before = self.at;
        if before.offset == self.end {
            let unfinished = self.previous.is_some_and(|previous| previous.is_unfinished());
            return if unfinished { Err(self.damage("it ends within a frame")) } else { Ok(None) };
        }
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        self.read(&mut bytes, before.offset, "it ends within a block's header")?;
        let (header, chain) = BlockHeader::decode(&bytes, before.chain).map_err(|what| self.damage(what))?;
        self.check(&header)?;
        let after = header.after(&before, chain);
        if after.offset > self.end {
            return Err(self.damage("it ends within a block"));
        }
        self.previous = Some(header);
        self.at = after;
        Ok(Some(Block { header, before, after }))
    }

    /// The next block, and when it is of frames, the last [`Kind::Keep`] that shortens it.
    pub(crate) fn next_kept(&mut self) -> Result<Option<(Block, Option<Block>)>, Flaw> {
        let Some(block) = self.next()? else { return Ok(None) };
        match block.header.kind {
            Kind::Frames => {}
            Kind::Part => return Ok(Some((block, None))),
            Kind::Keep => return Err(block.damage("a truncation without a block before it")),
        }
        let mut kept: Option<Block> = None;
        loop {
            match self.next()? {
                Some(keep) if keep.header.kind == Kind::Keep => {
                    let most = kept.map_or(block.header.frames, |kept| kept.header.frames);
                    let frames = keep.header.frames;
                    let fits = block.before.frames + u64::from(frames) == keep.header.rest;
                    if frames == 0 || frames > most || !fits {
                        return Err(keep.damage("a truncation that does not fit the block before it"));
                    }
                    kept = Some(keep);
                }
                other => {
                    self.ahead = other;
                    break;
                }
            }
        }
        Ok(Some((block, kept)))
    }

    /// Whether the header may follow the one before.
    fn check(&self, header: &BlockHeader) -> Result<(), Flaw> {
        if let Some(previous) = self.previous.filter(BlockHeader::is_unfinished) {
            let fits = header.kind == Kind::Part
                && header.first == previous.first
                && u64::from(header.raw_bytes).checked_add(header.rest) == Some(previous.rest);
            return if fits { Ok(()) } else { Err(self.damage("a part of a frame is missing")) };
        }
        let follows = match (header.kind, self.previous) {
            (Kind::Keep, Some(previous)) => previous.kind != Kind::Part,
            (Kind::Keep, None) => true,
            _ => self.at.last_position().is_none_or(|last| last <= header.first),
        };
        if follows { Ok(()) } else { Err(self.damage("blocks are out of order")) }
    }

    /// The content of a block, checked.
    pub(crate) fn content(&mut self, block: &Block) -> Result<Vec<u8>, Flaw> {
        let mut stored = vec![0; block.header.stored_bytes as usize];
        let offset = block.before.offset + BLOCK_HEADER_BYTES as u64;
        self.read(&mut stored, offset, "it ends within a block")?;
        if block.header.kind == Kind::Keep {
            return Ok(Vec::new());
        }
        let content = self.decoder.content(&block.header, &stored);
        content.ok_or_else(|| block.damage("the checksum of a block does not fit"))
    }

    fn read(&self, bytes: &mut [u8], offset: u64, short: &'static str) -> Result<(), Flaw> {
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damage(short),
            _ => Flaw::Unreadable(SpoolError::io("reading", &self.path)(error)),
        })
    }

    fn damage(&self, what: &'static str) -> Flaw {
        Flaw::Damage { offset_bytes: self.at.offset, what }
    }
}
