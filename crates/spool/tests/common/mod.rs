//! What the tests of the spool share. What may not enter: assertions about one test's subject.
#![allow(dead_code, clippy::unwrap_used, reason = "not every test uses all of it; a test fails by panicking")]

use std::path::{Path, PathBuf};

use relevo_spool::{Log, Sizes, Spool, SpoolError};

/// Sizes that make blocks, parts and buffers of a few bytes.
pub const TINY: Sizes = Sizes { block_bytes: 64, buffers_bytes: 16 << 10, open_files: 2 };
/// No limit that a test meets by accident.
pub const AMPLE: u64 = 1 << 40;

pub type Frame = (u64, Vec<u8>);

/// All frames of a log.
pub fn frames(log: &mut Log) -> Result<Vec<Frame>, SpoolError> {
    log.read()?.map(|frame| frame.map(|(position, bytes)| (position, bytes.to_vec()))).collect()
}

/// The file of the only log in a directory.
pub fn file_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("log.{name}"))
}

/// What the files of all logs take.
pub fn true_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let logs = files.filter(|file| !["id", "lock"].contains(&file.file_name().to_str().unwrap()));
    logs.map(|file| file.metadata().unwrap().len()).sum()
}

/// Bytes that zstd cannot make smaller, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A spool with an ample limit and tiny sizes.
pub fn tiny(dir: &Path) -> Spool {
    Spool::open_with(dir, AMPLE, TINY).unwrap()
}
