//! Logs of byte frames in a directory: bounded, compressed, checksummed, and whole after a crash.
//!
//! A [`Spool`] is one directory with one limit; a [`Log`] in it is one file. Frames are appended with a position that
//! never falls, gathered into blocks, compressed, and read back from the beginning. What [`Log::sync`] has returned for
//! survives a crash of the machine; what came later may survive up to any frame, but never in part and never changed.
//!
//! A [`SharedSpool`] is what several parts of a program hold of one: it is there as long as one of them needs it, and
//! lends [`Scratch`] logs, which are of no use to anybody after a crash and are never synced.
//!
//! What may not enter: anything that knows what a frame or a position means, async runtimes, SQL. All calls block.
//!
//! **Memory.** All logs of a spool together hold at most [`Sizes::buffers_bytes`] of frames that are not written yet, and
//! no log more than [`Sizes::block_bytes`] of them; a writing or reading thread adds its compressor (about 1 MiB) and
//! one block. An idle log holds neither a buffer nor a file descriptor.

mod codec;
mod cut;
mod error;
mod file;
mod format;
mod lent;
mod log;
mod name;
mod ours;
mod read;
mod recover;
mod shared;
mod spool;
mod walk;

pub use cut::Mark;
pub use error::SpoolError;
pub use lent::{Scratch, ScratchFrames, SharedSpool};
pub use log::{Log, MAX_FRAME_BYTES};
pub use read::Frames;
pub use shared::{Sizes, Usage};
pub use spool::{Id, Spool};
