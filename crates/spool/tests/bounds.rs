//! What a spool may take (disk, memory, files), and who may use it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::{AMPLE, Frame, TINY, file_of, frames, noise, tiny, true_bytes};
use proptest::prelude::*;
use relevo_spool::{Log, Sizes, Spool, SpoolError};

proptest! {
    #[test]
    fn the_limit_is_never_passed_and_a_refused_frame_leaves_the_log_as_it_was(
        lengths in prop::collection::vec((0_usize..3, 0_usize..500, any::<u64>()), 1..60),
        limit_bytes in 100_u64..6000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open_with(dir.path(), limit_bytes, TINY).unwrap();
        let mut logs: Vec<(Option<Log>, Vec<Frame>)> = vec![(None, vec![]), (None, vec![]), (None, vec![])];
        for (which, length, seed) in lengths {
            let (log, model) = &mut logs[which];
            if log.is_none() {
                *log = match spool.log(&which.to_string()) {
                    Ok(log) => Some(log),
                    Err(SpoolError::Full { .. }) => None,
                    Err(error) => panic!("{error}"),
                };
            }
            let Some(log) = log else { continue };
            let frame = noise(length, seed);
            match log.append(0, &frame) {
                Ok(()) => model.push((0, frame)),
                Err(SpoolError::Full { limit_bytes: told, used_bytes, needed_bytes, .. }) => {
                    prop_assert_eq!(told, limit_bytes);
                    prop_assert!(used_bytes + needed_bytes > limit_bytes);
                }
                Err(error) => panic!("{error}"),
            }
            prop_assert!(spool.used_bytes() <= limit_bytes && true_bytes(dir.path()) <= spool.used_bytes());
        }
        spool.sync_all(logs.iter_mut().filter_map(|(log, _)| log.as_mut())).unwrap();
        prop_assert_eq!(spool.used_bytes(), true_bytes(dir.path()));
        for (log, model) in &mut logs {
            if let Some(log) = log {
                prop_assert_eq!(&frames(log).unwrap(), model);
            }
        }
        drop(logs);
        let again = spool.used_bytes();
        drop(spool);
        let spool = tiny(dir.path());
        prop_assert_eq!(spool.used_bytes(), again);
        spool.clear().unwrap();
        prop_assert_eq!((spool.used_bytes(), true_bytes(dir.path())), (0, 0));
    }
}

#[test]
fn thousands_of_logs_share_memory_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes { buffers_bytes: 1 << 19, open_files: 16, ..Sizes::default() };
    let spool = Spool::open_with(dir.path(), AMPLE, sizes).unwrap();
    let usage = spool.usage();
    let mut logs: Vec<Log> = (0..1000).map(|n| spool.log(&format!("table {n}")).unwrap()).collect();
    assert_eq!((usage.open_files(), usage.buffered_bytes()), (0, 0));
    for round in 0..3 {
        for (n, log) in logs.iter_mut().enumerate() {
            log.append(round, &noise(700, n as u64 + round)).unwrap();
            assert!(usage.buffered_bytes() <= sizes.buffers_bytes, "{usage:?}");
            assert!(usage.open_files() <= sizes.open_files, "{usage:?}");
        }
    }
    spool.sync_all(&mut logs).unwrap();
    assert_eq!((usage.open_files(), usage.buffered_bytes()), (0, 0));
    for n in 0..logs.len() {
        // The seal says that each was synced up to its end.
        let bytes = fs::read(file_of(dir.path(), &format!("table%20{n}"))).unwrap();
        assert_eq!(u64::from_le_bytes(bytes[24..32].try_into().unwrap()), bytes.len() as u64);
    }
    for (n, log) in logs.iter_mut().enumerate() {
        let wanted: Vec<Frame> = (0..3).map(|round| (round, noise(700, n as u64 + round))).collect();
        assert_eq!(frames(log).unwrap(), wanted);
    }
    assert_eq!(spool.names().unwrap().len(), 1000);
}

#[test]
fn a_directory_has_one_user_and_keeps_its_id() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("a/spool");
    let spool = tiny(&dir);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let error = Spool::open(&dir, AMPLE).err().unwrap();
    assert!(matches!(error, SpoolError::Locked { .. }));
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    let (id, log) = (spool.id(), spool.log("t").unwrap());
    drop(spool);
    // A log that is still open may still write.
    assert!(matches!(Spool::open(&dir, AMPLE), Err(SpoolError::Locked { .. })));
    drop(log);
    assert_eq!(tiny(&dir).id(), id);
    assert_ne!(tiny(&outer.path().join("b")).id(), id);
    fs::write(dir.join("id"), "not an id").unwrap();
    assert!(matches!(Spool::open(&dir, AMPLE), Err(SpoolError::BadId { .. })));
}

#[test]
fn another_process_holds_the_lock_until_it_dies() {
    let dir = tempfile::tempdir().unwrap();
    drop(tiny(dir.path()));
    // It says when it has the lock, and keeps it as long as nobody closes its input.
    let mut other = Command::new("flock")
        .arg(dir.path().join("lock"))
        .args(["--command", "echo locked; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = other.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(line, "locked\n");
    assert!(matches!(Spool::open(dir.path(), AMPLE), Err(SpoolError::Locked { .. })));
    drop(other.stdin.take());
    other.wait().unwrap();
    drop(tiny(dir.path()));
}

#[test]
fn any_text_is_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let long = "ü".repeat(2000);
    let names = [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "a/b",
        "a\0b",
        "a%2fb",
        "A.b",
        "a.b",
        "öffentlich.Käse 🧀",
        &long,
    ];
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    {
        let spool = tiny(dir.path());
        for name in names {
            let mut log = spool.log(name).unwrap();
            log.append(1, name.as_bytes()).unwrap();
            log.sync().unwrap();
        }
        assert_eq!(spool.names().unwrap(), sorted);
    }
    let spool = tiny(dir.path());
    assert_eq!(spool.names().unwrap(), sorted);
    for name in names {
        assert_eq!(frames(&mut spool.log(name).unwrap()).unwrap(), [(1, name.as_bytes().to_vec())]);
        spool.remove(name).unwrap();
        spool.remove(name).unwrap();
    }
    assert_eq!((spool.names().unwrap(), spool.used_bytes()), (vec![], 0));
    assert!(matches!(spool.log(&"x".repeat(5000)), Err(SpoolError::NameTooLong { .. })));
}

#[test]
fn an_open_log_is_neither_opened_again_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = tiny(dir.path());
    let log = spool.log("t").unwrap();
    assert!(matches!(spool.log("t"), Err(SpoolError::InUse { .. })));
    assert!(matches!(spool.remove("t"), Err(SpoolError::InUse { .. })));
    assert!(matches!(spool.clear(), Err(SpoolError::InUse { .. })));
    drop(log);
    drop(spool.log("t").unwrap());
    spool.clear().unwrap();
    assert!(!file_of(dir.path(), "t").exists());
}

#[test]
fn a_spool_that_is_removed_leaves_nothing_but_what_is_not_its_own() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("spool");
    for foreign in [false, true] {
        let spool = tiny(&dir);
        let mut log = spool.log("t").unwrap();
        log.sync().unwrap();
        drop(log);
        if foreign {
            fs::write(dir.join("notes.txt"), "mine").unwrap();
        }
        spool.remove_all().unwrap();
        let left: Vec<_> =
            fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, if foreign { vec!["notes.txt"] } else { vec![] });
        assert_eq!(dir.exists(), foreign);
    }
}

#[test]
fn a_file_under_the_wrong_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = tiny(dir.path());
    spool.log("a").unwrap().sync().unwrap();
    fs::rename(file_of(dir.path(), "a"), file_of(dir.path(), "b")).unwrap();
    assert!(matches!(spool.log("b"), Err(SpoolError::OtherName { .. })));
}

#[test]
fn a_mark_of_another_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = tiny(dir.path());
    let mark = spool.log("a").unwrap().mark();
    let mut log = spool.log("b").unwrap();
    log.append(1, b"x").unwrap();
    assert!(matches!(log.truncate_to(mark), Err(SpoolError::StaleMark { .. })));
}

#[test]
fn a_full_disk_is_told_apart_and_the_log_goes_on() {
    // The one file without room that needs no file system of its own.
    let dir = tempfile::tempdir().unwrap();
    let spool = tiny(dir.path());
    let mut log = spool.log("t").unwrap();
    log.append(1, b"first").unwrap();
    log.sync().unwrap();
    let (file, aside) = (file_of(dir.path(), "t"), dir.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    log.append(2, b"second").unwrap();
    let error = log.sync().unwrap_err();
    assert!(matches!(error, SpoolError::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("no room left"), "{error}");
    fs::rename(&aside, &file).unwrap();
    drop(log);
    assert_eq!(spool.used_bytes(), true_bytes(dir.path()));
    let mut log = spool.log("t").unwrap();
    assert_eq!(frames(&mut log).unwrap(), [(1, b"first".to_vec())]);
}

#[test]
fn after_a_failed_sync_a_log_must_be_opened_again_and_ends_where_it_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let spool = tiny(dir.path());
    let mut log = spool.log("t").unwrap();
    log.append(1, b"first").unwrap();
    log.sync().unwrap();
    let (file, aside) = (file_of(dir.path(), "t"), dir.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    // It takes every write and no sync.
    std::os::unix::fs::symlink("/dev/null", &file).unwrap();
    log.append(2, b"second").unwrap();
    let error = log.sync().unwrap_err();
    assert!(matches!(error, SpoolError::Io { doing: "syncing", .. }), "{error:?}");
    assert!(matches!(log.append(3, b"third"), Err(SpoolError::Broken { .. })));
    assert!(matches!(spool.sync_all([&mut log]), Err(SpoolError::Broken { .. })));
    assert!(matches!(log.truncate_from(0), Err(SpoolError::Broken { .. })));
    assert!(matches!(log.read(), Err(SpoolError::Broken { .. })));
    fs::rename(&aside, &file).unwrap();
    drop(log);
    let mut log = spool.log("t").unwrap();
    log.append(3, b"third").unwrap();
    assert_eq!(frames(&mut log).unwrap(), [(1, b"first".to_vec()), (3, b"third".to_vec())]);
}
