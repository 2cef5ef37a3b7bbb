//! Opening a log's file: making a new one, or finding out how far an old one is whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::SpoolError;
use crate::format::{FILE_HEADER_BYTES, FileHeader, Point, decode_seal, encode_seal, lacks_name};
use crate::name::MAX_NAME_BYTES;
use crate::walk::{Flaw, Walker};

/// What a file turned out to be.
pub(crate) struct Recovered {
    pub salt: u64,
    /// Where the first block begins.
    pub start: Point,
    /// Up to where it was synced.
    pub sealed: Point,
    /// Up to where it is whole. What lies behind is to be cut off.
    pub end: Point,
}

/// What the beginning of a file says.
pub(crate) enum Head {
    /// A header, and the seal in it.
    Whole(FileHeader, Point),
    /// The file was made, but a crash came before its header was on disk: nothing in it was ever synced.
    Unborn,
}

/// Reads the beginning of a file.
pub(crate) fn head(file: &File, path: &Path) -> Result<Head, SpoolError> {
    let mut bytes = vec![0; FILE_HEADER_BYTES + MAX_NAME_BYTES];
    let read = read_up_to(file, &mut bytes).map_err(SpoolError::io("reading", path))?;
    bytes.truncate(read);
    let is_empty = bytes.len() < FILE_HEADER_BYTES || bytes.iter().all(|byte| *byte == 0);
    if is_empty || lacks_name(&bytes) {
        return Ok(Head::Unborn);
    }
    let corrupt = |what| SpoolError::Corrupt { path: path.to_owned(), offset_bytes: 0, what };
    let header = FileHeader::decode(&bytes).ok_or_else(|| corrupt("its header does not hold"))?;
    let seal = decode_seal(header.salt, &bytes).filter(|seal| seal.offset >= header.start().offset);
    let seal = seal.ok_or_else(|| corrupt("the seal in its header does not hold"))?;
    Ok(Head::Whole(header, seal))
}

/// Looks at a file of `length_bytes` that should hold the log `name`; `None` when it never was synced with a header.
pub(crate) fn recover(
    file: &File,
    path: &Path,
    length_bytes: u64,
    name: &str,
) -> Result<Option<Recovered>, SpoolError> {
    let Head::Whole(header, sealed) = head(file, path)? else { return Ok(None) };
    if header.name != name {
        let (expected, found) = (name.to_owned(), header.name);
        return Err(SpoolError::OtherName { path: path.to_owned(), expected, found });
    }
    if length_bytes < sealed.offset {
        let what = "it ends before the place up to which it was synced";
        return Err(SpoolError::Corrupt { path: path.to_owned(), offset_bytes: length_bytes, what });
    }
    let again = file.try_clone().map_err(SpoolError::io("opening", path))?;
    let mut walker = Walker::new(again, path.to_owned(), sealed, length_bytes)?;
    let end = whole_end(&mut walker, sealed)?;
    Ok(Some(Recovered { salt: header.salt, start: header.start(), sealed, end }))
}

/// How far blocks are whole, beginning from `sealed`. Frames of several parts count when their last part is there.
fn whole_end(walker: &mut Walker, sealed: Point) -> Result<Point, SpoolError> {
    let mut end = sealed;
    loop {
        let step = walker.next().and_then(|block| match block {
            Some(block) => walker.content(&block).map(|_| Some(block)),
            None => Ok(None),
        });
        match step {
            Ok(Some(block)) if block.header.is_unfinished() => {}
            Ok(Some(block)) => end = block.after,
            Ok(None) | Err(Flaw::Damage { .. }) => return Ok(end),
            Err(Flaw::Unreadable(error)) => return Err(error),
        }
    }
}

/// Writes the beginning of a new file.
pub(crate) fn create(file: &File, path: &Path, name: &str) -> Result<Recovered, SpoolError> {
    let header = FileHeader { salt: rand::random(), name: name.to_owned() };
    // Whatever an unborn file holds is not ours.
    file.set_len(0).map_err(SpoolError::io("emptying", path))?;
    file.write_all_at(&header.encode(), 0).map_err(SpoolError::io("writing the header", path))?;
    let start = header.start();
    Ok(Recovered { salt: header.salt, start, sealed: start, end: start })
}

/// Writes down how far a file is on disk.
pub(crate) fn seal(file: &File, path: &Path, salt: u64, point: &Point) -> Result<(), SpoolError> {
    let bytes = encode_seal(salt, point);
    file.write_all_at(&bytes, crate::format::SEAL_OFFSET).map_err(SpoolError::io("writing the seal", path))
}

fn read_up_to(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
