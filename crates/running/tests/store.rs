//! The store against a simple model, its bounds, and what it leaves on disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use relevo_model::{Fault, FaultClass, Xid};
use relevo_pgoutput::StreamStore;
use relevo_running::{RunningError, RunningStore};
use relevo_spool::{SharedSpool, Spool, SpoolError};
use tempfile::TempDir;

const AMPLE: u64 = 1 << 40;

fn spool(limit_bytes: u64) -> (TempDir, SharedSpool, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    (directory, SharedSpool::new(path.clone(), limit_bytes), path)
}

/// Bytes that do not compress, the same for the same seed.
fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn content(store: &mut RunningStore, xid: u32) -> Vec<Bytes> {
    store.commit(Xid(xid)).unwrap().filter_map(Result::unwrap).collect()
}

fn logs(path: &Path) -> usize {
    let Ok(files) = std::fs::read_dir(path) else { return 0 };
    files.filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().starts_with("log")).count()
}

#[derive(Debug, Clone)]
enum Call {
    Append { xid: u32, sub: u32, length: usize },
    Abort { xid: u32, sub: u32 },
    Commit { xid: u32 },
}

fn calls() -> impl Strategy<Value = Call> {
    let length = prop_oneof![6 => 0..200_usize, 2 => 200..5000_usize, 1 => 5000..400_000_usize];
    prop_oneof![
        12 => (0..4_u32, 0..5_u32, length).prop_map(|(xid, sub, length)| Call::Append { xid, sub, length }),
        2 => (0..4_u32, 0..5_u32).prop_map(|(xid, sub)| Call::Abort { xid, sub }),
        1 => (0..4_u32).prop_map(|xid| Call::Commit { xid }),
    ]
}

/// Transactions get new ids when they have ended, and so do subtransactions: PostgreSQL gives no id twice.
struct Ids {
    next: u32,
    top: BTreeMap<u32, u32>,
    sub: BTreeMap<(u32, u32), u32>,
}

impl Ids {
    fn of(&mut self, xid: u32, sub: u32) -> (Xid, Xid) {
        let next = &mut self.next;
        let mut fresh = || {
            *next += 1;
            *next
        };
        let top = *self.top.entry(xid).or_insert_with(&mut fresh);
        let sub = if sub == 0 { top } else { *self.sub.entry((top, sub)).or_insert_with(&mut fresh) };
        (Xid(top), Xid(sub))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn it_gives_back_what_was_appended_and_not_rolled_back(
        calls in prop::collection::vec(calls(), 0..120),
        memory_limit in prop_oneof![Just(0_u64), Just(2_000), Just(100_000), Just(AMPLE)],
    ) {
        let (_directory, spool, path) = spool(AMPLE);
        let mut store = RunningStore::new(spool.clone(), memory_limit);
        let mut ids = Ids { next: 0, top: BTreeMap::new(), sub: BTreeMap::new() };
        let mut model: BTreeMap<Xid, Vec<(Xid, Bytes)>> = BTreeMap::new();
        for (seed, call) in calls.into_iter().enumerate() {
            match call {
                Call::Append { xid, sub, length } => {
                    let (top, subxid) = ids.of(xid, sub);
                    let frame = noise(length, seed as u64);
                    store.append(top, subxid, frame.clone()).unwrap();
                    model.entry(top).or_default().push((subxid, frame));
                }
                Call::Abort { xid, sub } => {
                    let (top, subxid) = ids.of(xid, sub);
                    store.abort(top, subxid).unwrap();
                    if sub == 0 {
                        ids.top.remove(&xid);
                        model.remove(&top);
                    } else {
                        ids.sub.remove(&(top.0, sub));
                        model.entry(top).or_default().retain(|(of, _)| *of != subxid);
                    }
                }
                Call::Commit { xid } => {
                    let (top, _) = ids.of(xid, 0);
                    ids.top.remove(&xid);
                    let expected: Vec<Bytes> =
                        model.remove(&top).unwrap_or_default().into_iter().map(|(_, frame)| frame).collect();
                    prop_assert_eq!(content(&mut store, top.0), expected);
                }
            }
            // Ids of what was rolled back are kept until the transaction ends; they are few here.
            prop_assert!(store.memory_bytes() <= memory_limit + 8 * 200, "{} bytes", store.memory_bytes());
            prop_assert!(store.bytes() >= store.memory_bytes());
        }
        let open: Vec<u32> = model.keys().map(|xid| xid.0).collect();
        for xid in open {
            store.abort(Xid(xid), Xid(xid)).unwrap();
        }
        let unknown: Vec<u32> = ids.top.values().copied().collect();
        for xid in unknown {
            store.abort(Xid(xid), Xid(xid)).unwrap();
        }
        prop_assert_eq!((store.bytes(), spool.used_bytes()), (0, 0));
        prop_assert!(!path.exists(), "the spool is left behind");
    }

    #[test]
    fn the_limit_is_never_passed_and_what_ended_makes_room(
        lengths in prop::collection::vec((1..4_u32, 1..3000_usize), 1..80),
    ) {
        const LIMIT: u64 = 40_000;
        let (_directory, spool, _) = spool(LIMIT);
        let mut store = RunningStore::new(spool.clone(), 1000);
        for (seed, (xid, length)) in lengths.into_iter().enumerate() {
            let appended = store.append(Xid(xid), Xid(xid), noise(length, seed as u64));
            prop_assert!(spool.used_bytes() <= LIMIT);
            match appended {
                Ok(()) => {}
                Err(RunningError::Full { largest, limit_bytes, .. }) => {
                    prop_assert_eq!(limit_bytes, LIMIT);
                    prop_assert!(largest.sent_bytes > 0);
                    store = RunningStore::new(spool.clone(), 1000);
                    prop_assert_eq!(spool.used_bytes(), 0, "a store that is dropped keeps its room");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn small_transactions_never_touch_the_disk_and_the_largest_moves_first() {
    let (_directory, spool, path) = spool(AMPLE);
    let mut store = RunningStore::new(spool, 100_000);
    for xid in 1..=50 {
        store.append(Xid(xid), Xid(xid), noise(500, 1)).unwrap();
    }
    assert!(!path.exists());
    for n in 0..200 {
        store.append(Xid(99), Xid(99), noise(1000, n)).unwrap();
    }
    assert_eq!(logs(&path), 1, "only the large one is on disk");
    for xid in 1..=50 {
        assert_eq!(content(&mut store, xid), [noise(500, 1)]);
    }
    assert_eq!(content(&mut store, 99).len(), 200);
    assert!(!path.exists());
}

#[test]
fn a_hundred_thousand_subtransactions_take_little_memory() {
    const SUBTRANSACTIONS: u32 = 100_000;
    let (_directory, spool, path) = spool(AMPLE);
    let mut store = RunningStore::new(spool, 1 << 20);
    let mut kept = 0;
    for sub in 1..=SUBTRANSACTIONS {
        store.append(Xid(7), Xid(7 + sub), Bytes::from(sub.to_be_bytes().to_vec())).unwrap();
        if sub % 3 == 0 {
            store.abort(Xid(7), Xid(7 + sub)).unwrap();
        } else {
            kept += 1;
        }
        assert!(store.memory_bytes() <= 2 << 20, "{} bytes", store.memory_bytes());
    }
    assert_eq!(logs(&path), 1, "one log for all of them");
    let frames = content(&mut store, 7);
    assert_eq!(frames.len(), kept);
    assert!(frames.iter().all(|frame| u32::from_be_bytes(frame[..].try_into().unwrap()) % 3 != 0));
}

#[test]
fn a_full_spool_names_the_largest_transactions_and_what_to_do() {
    let (_directory, spool, path) = spool(1 << 20);
    let mut store = RunningStore::new(spool, 0);
    for n in 0..20 {
        store.append(Xid(4711), Xid(4711), noise(30_000, n)).unwrap();
    }
    store.append(Xid(12), Xid(12), noise(200_000, 1)).unwrap();
    let error = (0..100).find_map(|n| store.append(Xid(5), Xid(5), noise(10_000, n)).err()).unwrap();
    let text = error.to_string();
    assert_eq!((error.class(), error.kind()), (FaultClass::Blocked, "spool_full"));
    for words in
        ["transaction 4711 holds 5", "transaction 12 ", "--spool-limit 1 MiB", "backend_xid = '4711'"]
    {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    drop(store);
    assert!(!path.exists(), "what a failed store held is gone with it");
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let (_directory, spool, path) = spool(AMPLE);
    let mut store = RunningStore::new(spool.clone(), 0);
    store.append(Xid(1), Xid(1), noise(1_000_000, 1)).unwrap();
    // As a kill leaves it: the files stay, the lock goes.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    assert_eq!(logs(copy.path()), 1);
    let again = SharedSpool::new(copy.path().to_owned(), AMPLE);
    assert_eq!(again.with(Spool::names).unwrap(), Vec::<String>::new());
    assert_eq!(logs(copy.path()), 0);
    // Its end is cut off, and something else stands there.
    for file in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
        if file.file_name().to_str().unwrap().starts_with("log") {
            let content = std::fs::read(file.path()).unwrap();
            std::fs::write(copy.path().join(file.file_name()), &content[..content.len() / 2]).unwrap();
            std::fs::write(copy.path().join("log.scratch%3a77"), b"garbage").unwrap();
        }
    }
    again.release().unwrap();
    drop(again);
    let swept = SharedSpool::new(copy.path().to_owned(), AMPLE);
    swept.sweep().unwrap();
    assert!(!copy.path().exists(), "{:?}", std::fs::read_dir(copy.path()).map(Iterator::count));
}

#[test]
fn the_spool_stays_while_somebody_else_needs_it() {
    let (_directory, spool, path) = spool(AMPLE);
    let id = spool.with(|spool| Ok::<_, SpoolError>(spool.id())).unwrap();
    spool.with(|spool| spool.log("table")?.append(1, b"missed")).unwrap();
    let mut store = RunningStore::new(spool.clone(), 0);
    store.append(Xid(1), Xid(1), noise(1000, 1)).unwrap();
    assert_eq!(content(&mut store, 1).len(), 1);
    assert_eq!(spool.with(|spool| Ok::<_, SpoolError>(spool.id())).unwrap(), id);
    assert_eq!(logs(&path), 1);
    // The other way about: what is lent stays when nobody else needs it.
    store.append(Xid(2), Xid(2), noise(300_000, 2)).unwrap();
    let released = spool.release();
    assert!(path.exists(), "{released:?}");
    assert_eq!(content(&mut store, 2), [noise(300_000, 2)]);
    assert!(!path.exists());
}

#[test]
fn a_spool_that_is_in_use_by_another_process_is_an_error_that_says_so() {
    let (_directory, spool, path) = spool(AMPLE);
    let _other = Spool::open(&path, AMPLE).unwrap();
    let mut store = RunningStore::new(spool, 0);
    let error = store.append(Xid(1), Xid(1), noise(10, 1)).unwrap_err();
    assert_eq!((error.class(), error.kind()), (FaultClass::Blocked, "spool"));
    assert!(error.to_string().contains("in use by another process"), "{error}");
}
