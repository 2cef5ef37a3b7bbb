//! A log against a vector: whatever is done to it, it holds the same frames, and after a crash a prefix that was synced.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{AMPLE, Frame, file_of, frames, noise, tiny, true_bytes};
use proptest::prelude::*;
use relevo_spool::{Log, Mark, Sizes, Spool, SpoolError};

#[derive(Debug, Clone)]
enum Step {
    /// Append a frame of this length, this far above the last position.
    Append(u64, usize),
    Sync,
    Reopen,
    Read,
    TruncateFrom(u64),
    Mark,
    /// Back to one of the marks.
    TruncateTo(prop::sample::Index),
    /// The process dies, and the file has lost this share of what came after the last sync.
    Crash(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_u64..3, prop_oneof![0_usize..30, 30_usize..60, 60_usize..400]).prop_map(|(up, length)| Step::Append(up, length)),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        2 => Just(Step::Read),
        2 => (0_u64..60).prop_map(Step::TruncateFrom),
        3 => Just(Step::Mark),
        3 => any::<prop::sample::Index>().prop_map(Step::TruncateTo),
        1 => any::<prop::sample::Index>().prop_map(Step::Crash),
    ]
}

/// The log under test and what it must hold.
struct Pair {
    dir: tempfile::TempDir,
    sizes: Sizes,
    open: Option<(Spool, Log)>,
    model: Vec<Frame>,
    /// What was in it at the last sync.
    synced: Vec<Frame>,
    /// Every content since then: what a crash may leave begins one of these.
    since: Vec<Vec<Frame>>,
    /// Marks with the content at the time, and whether they are void.
    marks: Vec<(Mark, Vec<Frame>, bool)>,
}

impl Pair {
    fn new(sizes: Sizes) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open_with(dir.path(), AMPLE, sizes).unwrap();
        let log = spool.log("t").unwrap();
        Self {
            dir,
            sizes,
            open: Some((spool, log)),
            model: vec![],
            synced: vec![],
            since: vec![],
            marks: vec![],
        }
    }

    fn log(&mut self) -> &mut Log {
        &mut self.open.as_mut().unwrap().1
    }

    fn truncate_model(&mut self, length: usize) {
        self.model.truncate(length);
        for (_, content, void) in &mut self.marks {
            *void |= content.len() > length;
        }
    }

    fn reopen(&mut self) {
        self.open = None;
        let spool = Spool::open_with(self.dir.path(), AMPLE, self.sizes).unwrap();
        let log = spool.log("t").unwrap();
        self.open = Some((spool, log));
        for (_, _, void) in &mut self.marks {
            *void = true;
        }
    }

    fn run(&mut self, step: Step, seed: u64) {
        match step {
            Step::Append(up, length) => {
                let position = self.model.last().map_or(0, |(last, _)| *last) + up;
                let frame =
                    if seed.is_multiple_of(2) { noise(length, seed) } else { vec![seed as u8; length] };
                self.log().append(position, &frame).unwrap();
                self.model.push((position, frame));
            }
            Step::Sync => self.sync(),
            Step::Reopen => {
                self.sync();
                self.reopen();
                assert_eq!(self.log().torn_bytes(), 0);
            }
            Step::Read => assert_eq!(frames(self.log()).unwrap(), self.model),
            Step::TruncateFrom(position) => {
                self.log().truncate_from(position).unwrap();
                self.truncate_model(self.model.partition_point(|(own, _)| *own < position));
            }
            Step::Mark => {
                let mark = self.log().mark();
                self.marks.push((mark, self.model.clone(), false));
            }
            Step::TruncateTo(index) => self.truncate_to(index),
            Step::Crash(index) => self.crash(index),
        }
        self.since.push(self.model.clone());
        let last = self.model.last().map(|(position, _)| *position);
        let count = self.model.len() as u64;
        assert_eq!((self.log().frames(), self.log().last_position()), (count, last));
    }

    fn sync(&mut self) {
        self.log().sync().unwrap();
        self.synced = self.model.clone();
        self.since.clear();
        assert_eq!(self.open.as_ref().unwrap().0.used_bytes(), true_bytes(self.dir.path()));
    }

    fn truncate_to(&mut self, index: prop::sample::Index) {
        if self.marks.is_empty() {
            return;
        }
        let (mark, content, void) = self.marks[index.index(self.marks.len())].clone();
        let result = self.log().truncate_to(mark);
        if void {
            assert!(matches!(result, Err(SpoolError::StaleMark { .. })), "{result:?}");
        } else {
            result.unwrap();
            self.truncate_model(content.len());
            assert_eq!(self.model, content);
        }
    }

    /// Everything that was not written is lost, and the end of the file as far as nobody was promised it.
    fn crash(&mut self, index: prop::sample::Index) {
        self.open = None;
        let file = file_of(self.dir.path(), "t");
        let length = std::fs::metadata(&file).unwrap().len();
        let floor = promised_bytes(&std::fs::read(&file).unwrap());
        let kept = floor + index.index((length - floor) as usize + 1) as u64;
        std::fs::File::options().write(true).open(&file).unwrap().set_len(kept).unwrap();
        self.reopen();
        let found = frames(self.log()).unwrap();
        let known = self.since.iter().chain([&self.synced]);
        assert!(known.into_iter().any(|content| content.starts_with(&found)), "{found:?}");
        let kept = self.since.iter().map(Vec::len).min().unwrap_or(usize::MAX).min(self.synced.len());
        assert!(found.len() >= kept && found[..kept] == self.synced[..kept], "{found:?} {kept}");
        self.truncate_model(0);
        self.model = found;
        self.sync();
    }
}

/// Up to where a file is on disk, as its own seal says: a log may sync more often than it is asked to. A file that
/// never held a frame for certain may even lack its header.
fn promised_bytes(file: &[u8]) -> u64 {
    let seal = u64::from_le_bytes(file[24..32].try_into().unwrap());
    if seal == 61 { 0 } else { seal }
}

proptest! {
    #[test]
    fn a_log_holds_what_a_vector_would(
        steps in prop::collection::vec((step(), any::<u64>()), 1..80),
        block_bytes in 1_usize..200,
        buffers_bytes in prop_oneof![Just(0_usize), Just(3000_usize), Just(1_usize << 20)],
        open_files in 0_usize..2,
    ) {
        let mut pair = Pair::new(Sizes { block_bytes, buffers_bytes, open_files });
        for (step, seed) in steps {
            pair.run(step, seed);
        }
        pair.run(Step::Read, 0);
        pair.run(Step::Reopen, 0);
        pair.run(Step::Read, 0);
        // With the logs dropped, nothing is in use but the files.
        let (spool, log) = pair.open.take().unwrap();
        drop(log);
        prop_assert_eq!(spool.used_bytes(), true_bytes(pair.dir.path()));
        prop_assert_eq!(spool.usage().buffered_bytes(), 0);
        prop_assert_eq!(spool.usage().open_files(), 0);
    }
}

#[test]
fn frames_of_ordinary_size_and_one_of_many_blocks_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), AMPLE).unwrap();
    let mut log = spool.log("t").unwrap();
    let small: Vec<Frame> = (0..20_000).map(|n| (n, noise(n as usize % 300, n))).collect();
    let large = (20_000, noise(10 << 20, 7));
    let zeros = (20_000, vec![0; 30 << 20]);
    let all: Vec<Frame> = small.into_iter().chain([large, zeros, (20_001, vec![])]).collect();
    for (position, frame) in &all {
        log.append(*position, frame).unwrap();
    }
    log.sync().unwrap();
    assert!(frames(&mut log).unwrap() == all);
    drop(log);
    assert!(frames(&mut spool.log("t").unwrap()).unwrap() == all);
}

#[test]
fn a_truncation_that_was_synced_is_not_undone_by_a_crash_in_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), AMPLE).unwrap();
    let mut log = spool.log("t").unwrap();
    for position in 0..10 {
        log.append(position, b"frame").unwrap();
    }
    log.sync().unwrap();
    log.truncate_from(6).unwrap();
    log.sync().unwrap();
    let before = std::fs::metadata(file_of(dir.path(), "t")).unwrap().len();
    log.truncate_from(3).unwrap();
    drop((log, spool));
    let file = std::fs::File::options().write(true).open(file_of(dir.path(), "t")).unwrap();
    file.set_len(before).unwrap();
    let positions: Vec<u64> =
        frames(&mut tiny(dir.path()).log("t").unwrap()).unwrap().iter().map(|frame| frame.0).collect();
    assert_eq!(positions, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn positions_do_not_fall() {
    let dir = tempfile::tempdir().unwrap();
    let spool = tiny(dir.path());
    let mut log = spool.log("t").unwrap();
    log.append(5, b"a").unwrap();
    log.append(5, b"b").unwrap();
    assert!(matches!(log.append(4, b"c"), Err(SpoolError::Order { last: 5, position: 4, .. })));
    log.sync().unwrap();
    drop(log);
    let mut log = spool.log("t").unwrap();
    assert!(matches!(log.append(4, b"c"), Err(SpoolError::Order { .. })));
    log.truncate_from(5).unwrap();
    log.append(4, b"c").unwrap();
    assert_eq!(frames(&mut log).unwrap(), [(4, b"c".to_vec())]);
}
