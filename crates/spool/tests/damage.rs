//! Files that are not what was written: torn by a crash, cut short, or with a byte changed. There is a clean prefix or
//! an error, never a frame that was not appended, and never less than was synced without an error.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;

use common::{Frame, file_of, frames, noise, tiny};
use relevo_spool::{Spool, SpoolError};

/// Some blocks of several frames, a frame of several parts, a truncation within a block.
fn content() -> Vec<Frame> {
    let mut all: Vec<Frame> = (0..6).map(|n| (n, noise(10 + n as usize, n))).collect();
    all.push((6, noise(150, 6)));
    all.extend((7..10).map(|n| (n, vec![n as u8; 9])));
    all
}

/// Writes the content, syncing after `synced` frames and at no other time; what is read back in the end is
/// [`content`] without its last frame, and one more.
fn write(dir: &Path, synced: Option<usize>) -> (Vec<Frame>, u64) {
    let spool = tiny(dir);
    let mut log = spool.log("t").unwrap();
    let mut synced_bytes = 0;
    for (count, (position, frame)) in content().into_iter().enumerate() {
        log.append(position, &frame).unwrap();
        if synced == Some(count + 1) {
            log.sync().unwrap();
            synced_bytes = fs::metadata(file_of(dir, "t")).unwrap().len();
        }
    }
    frames(&mut log).unwrap();
    log.truncate_from(9).unwrap();
    log.append(11, b"after").unwrap();
    let expected = frames(&mut log).unwrap();
    assert_eq!(expected.len(), content().len());
    if synced == Some(usize::MAX) {
        log.sync().unwrap();
        synced_bytes = fs::metadata(file_of(dir, "t")).unwrap().len();
    }
    (expected, synced_bytes)
}

/// Opens and reads the log whose file holds these bytes. Frames that were read before an error are returned too.
fn reread(spool: &Spool, bytes: &[u8]) -> (Vec<Frame>, Option<SpoolError>) {
    // A new file: some file systems flush one that is written over.
    fs::remove_file(file_of(spool.dir(), "t")).unwrap();
    fs::write(file_of(spool.dir(), "t"), bytes).unwrap();
    let mut log = match spool.log("t") {
        Ok(log) => log,
        Err(error) => return (vec![], Some(error)),
    };
    let mut found = vec![];
    for frame in log.read().unwrap() {
        match frame {
            Ok((position, bytes)) => found.push((position, bytes.to_vec())),
            Err(error) => return (found, Some(error)),
        }
    }
    (found, None)
}

/// Frames that may be read: those of the end, or of the time before the truncation, which a crash may undo.
fn is_prefix(found: &[Frame], expected: &[Frame]) -> bool {
    expected.starts_with(found) || content().starts_with(found)
}

#[test]
fn a_file_that_a_crash_cut_anywhere_after_its_sync_is_read_up_to_a_whole_frame() {
    for synced in [None, Some(3), Some(7), Some(8)] {
        let dir = tempfile::tempdir().unwrap();
        let (expected, synced_bytes) = write(dir.path(), synced);
        let bytes = fs::read(file_of(dir.path(), "t")).unwrap();
        let spool = tiny(dir.path());
        for length in 0..=bytes.len() {
            let (found, error) = reread(&spool, &bytes[..length]);
            assert!(is_prefix(&found, &expected), "{synced:?} {length} {found:?}");
            if length as u64 >= synced_bytes {
                assert!(error.is_none(), "{synced:?} {length} {error:?}");
                assert!(found.len() >= synced.unwrap_or(0), "{synced:?} {length} {found:?}");
            } else if length >= 60 {
                assert!(matches!(error, Some(SpoolError::Corrupt { .. })), "{synced:?} {length} {error:?}");
            }
            // A file system may lengthen the file before the bytes are there.
            let mut zeros = bytes[..length].to_vec();
            zeros.resize(bytes.len() + 100, 0);
            let (found, error) = reread(&spool, &zeros);
            assert!(is_prefix(&found, &expected), "{synced:?} {length} {found:?}");
            assert!(
                error.is_none() || (length as u64) < synced_bytes.max(61),
                "{synced:?} {length} {error:?}"
            );
        }
    }
}

#[test]
fn a_byte_changed_before_the_sync_is_an_error_and_one_after_it_ends_the_log() {
    for synced in [None, Some(3), Some(8), Some(usize::MAX)] {
        let dir = tempfile::tempdir().unwrap();
        let (expected, synced_bytes) = write(dir.path(), synced);
        let bytes = fs::read(file_of(dir.path(), "t")).unwrap();
        let spool = tiny(dir.path());
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let (found, error) = reread(&spool, &damaged);
                assert!(is_prefix(&found, &expected), "{synced:?} {at} {found:?}");
                let told = matches!(error, Some(SpoolError::Corrupt { .. } | SpoolError::OtherName { .. }));
                let in_head = at < 61;
                assert_eq!(told, in_head || (at as u64) < synced_bytes, "{synced:?} {at} {error:?}");
            }
        }
        assert_eq!(reread(&spool, &bytes).0, expected);
    }
}

#[test]
fn a_block_in_another_place_or_of_another_life_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let spool = tiny(dir.path());
    let file = file_of(dir.path(), "t");
    let write = |value: u8| {
        let mut log = spool.log("t").unwrap();
        let mut ends = vec![fs::metadata(&file).unwrap().len() as usize];
        for position in 0..3 {
            log.append(position, &[value; 20]).unwrap();
            log.read().unwrap();
            ends.push(fs::metadata(&file).unwrap().len() as usize);
        }
        drop(log);
        let bytes = fs::read(&file).unwrap();
        (bytes, ends)
    };
    let (one, ends) = write(1);
    spool.remove("t").unwrap();
    let (other, other_ends) = write(2);
    assert_eq!(ends, other_ends);
    let [_, first, second, third] = ends[..] else { panic!("{ends:?}") };
    let swapped = [&one[..first], &one[second..third], &one[first..second]].concat();
    assert_eq!(reread(&spool, &swapped).0.len(), 1);
    let mixed = [&one[..first], &other[first..]].concat();
    assert_eq!(reread(&spool, &mixed).0, [(0, vec![1; 20])]);
}

#[test]
fn a_torn_end_is_told_and_cut_off_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (expected, _) = write(dir.path(), Some(3));
    let spool = tiny(dir.path());
    let file = file_of(dir.path(), "t");
    let length = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(length - 1).unwrap();
    let mut log = spool.log("t").unwrap();
    assert!(log.torn_bytes() > 0);
    assert_eq!(fs::metadata(&file).unwrap().len(), length - 1 - log.torn_bytes());
    log.append(20, b"next").unwrap();
    let mut wanted = expected[..expected.len() - 1].to_vec();
    wanted.push((20, b"next".to_vec()));
    assert_eq!(frames(&mut log).unwrap(), wanted);
}

#[test]
fn an_error_of_damage_names_file_and_offset_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (_, synced_bytes) = write(dir.path(), Some(usize::MAX));
    let file = file_of(dir.path(), "t");
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let spool = tiny(dir.path());
    let error = frames(&mut spool.log("t").unwrap()).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()) && error.contains("at byte 61"), "{error}");
    assert!(error.contains("must be removed"), "{error}");
    fs::write(&file, &bytes[..synced_bytes as usize - 1]).unwrap();
    let Err(SpoolError::Corrupt { offset_bytes, .. }) = spool.log("t") else { panic!("it was opened") };
    assert_eq!(offset_bytes, synced_bytes - 1);
    // It can be got rid of.
    spool.clear().unwrap();
    assert_eq!(frames(&mut spool.log("t").unwrap()).unwrap(), []);
}
