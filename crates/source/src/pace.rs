//! When to read: at once while idle, in gulps under a backlog.
//!
//! The walsender sends every message with a system call of its own, and each one that wakes the reader costs it a
//! context switch: an eager reader drained 300k messages in 1.9 s, one that lets about 200 µs of bytes gather before
//! each read did it in 0.57 s. Only the decision stands here; it is pure but for the pause itself.
//!
//! On a machine where everybody waits for a processor an eager reader keeps itself small: each message wakes it, it and
//! the target run at once, and the walsender gets its turn after them. 100,000 transactions took 10 s in this way. How
//! far the stream is behind tells a backlog from an idle stream whatever the processors do.

use std::time::Duration;

use tokio::time::Instant;

use crate::frame::Received;

/// How long bytes gather at first. tokio's timer ticks in milliseconds, which is too coarse, so the thread sleeps: the
/// connection has a thread of its own, and nothing else runs there.
pub(crate) const GATHER: Duration = Duration::from_micros(200);
/// So many times longer at most, as long as a pause brings something and not a lot.
const LONGEST_FACTOR: u32 = 8;
/// Reads that follow each other faster than this belong to one burst.
const BURST_GAP: Duration = Duration::from_micros(100);
/// A gap that ends a burst. What lies between says nothing: whoever shares the processors makes such gaps too.
const QUIET_GAP: Duration = Duration::from_micros(400);
/// So many reads of one burst are a backlog. A small transaction is over before.
const BURST_READS: u32 = 16;
/// No more are counted, so that two pauses in vain end the burst.
const LIMIT_READS: u32 = 2 * BURST_READS;
/// A pause that gathered less than this was in vain.
const WORTHWHILE_BYTES: usize = 2048;
/// A pause that gathered less than this may be longer.
const LITTLE_BYTES: usize = 8 * 1024;
/// A pause that gathered more than this was longer than it need be. A socket holds little of messages this small (some
/// 27 KB were seen), and whoever pauses when it is full keeps the walsender waiting.
const PLENTY_BYTES: usize = 16 * 1024;

/// A transaction that is sent so long after its commit is part of a backlog, in microseconds. It is much more than the
/// longest pause, and more than the flush of a commit takes.
const BEHIND_US: i64 = 50_000;

/// Decides whether to pause before the next read, and for how long.
#[derive(Debug)]
pub(crate) struct Pace {
    gather: Option<Duration>,
    factor: u32,
    burst_reads: u32,
    behind: bool,
    /// Since the last read.
    paused: bool,
    filled: bool,
    last_read_at: Option<Instant>,
}

impl Pace {
    /// Pauses by putting the thread to sleep for `gather` or a few times that; `None`: never pauses.
    pub(crate) fn new(gather: Option<Duration>) -> Self {
        Self {
            gather,
            factor: 1,
            burst_reads: 0,
            behind: false,
            paused: false,
            filled: false,
            last_read_at: None,
        }
    }

    /// Notes how long after its commit a transaction was sent, in microseconds.
    pub(crate) fn sent_behind(&mut self, behind_us: i64) {
        self.behind = behind_us >= BEHIND_US;
    }

    /// Notes what a read brought.
    pub(crate) fn read(&mut self, received: Received, now: Instant) {
        let gap = self.last_read_at.map_or(Duration::MAX, |last| now.duration_since(last));
        if std::mem::take(&mut self.paused) {
            let in_vain = received.bytes < WORTHWHILE_BYTES;
            self.burst_reads = if in_vain { self.burst_reads / 2 } else { LIMIT_READS };
            self.factor = match received.bytes {
                _ if in_vain && !self.behind => 1,
                bytes if bytes < LITTLE_BYTES => (self.factor * 2).min(LONGEST_FACTOR),
                bytes if bytes > PLENTY_BYTES => (self.factor / 2).max(1),
                _ => self.factor,
            };
        } else if gap < BURST_GAP {
            self.burst_reads = (self.burst_reads + 1).min(LIMIT_READS);
        } else if gap > QUIET_GAP {
            self.burst_reads = 0;
        }
        (self.filled, self.last_read_at) = (received.filled, Some(now));
    }

    /// Whether bytes should gather before the next read. `waiting`: something that was read before has not been taken
    /// yet, so nothing is delayed.
    fn should_pause(&self, waiting: bool) -> bool {
        // A read that filled its room left more behind: it is there already.
        !self.filled && (waiting || self.behind || self.burst_reads >= BURST_READS)
    }

    /// Lets bytes gather if there is a backlog; once before each read, however often the caller comes round before it.
    pub(crate) fn wait_before_read(&mut self, waiting: bool) {
        if self.paused || !self.should_pause(waiting) {
            return;
        }
        if let Some(gather) = self.gather {
            self.paused = true;
            std::thread::sleep(gather * self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Received = Received { bytes: 100, filled: false };
    const LARGE: Received = Received { bytes: 20_000, filled: false };
    const ENOUGH: Received = Received { bytes: 12_000, filled: false };
    const SOME: Received = Received { bytes: 4_000, filled: false };

    fn pace() -> Pace {
        Pace::new(Some(Duration::ZERO))
    }

    #[test]
    fn an_idle_stream_is_read_at_once() {
        let (mut pace, mut now) = (pace(), Instant::now());
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            pace.read(SMALL, now);
            assert!(!pace.should_pause(false));
        }
    }

    #[test]
    fn a_burst_is_gathered_until_it_is_over() {
        let (mut pace, mut now) = (pace(), Instant::now());
        for _ in 0..=BURST_READS {
            now += Duration::from_micros(10);
            pace.read(SMALL, now);
        }
        assert!(pace.should_pause(false));
        for _ in 0..10 {
            now += Duration::from_micros(250);
            pace.wait_before_read(false);
            pace.read(LARGE, now);
            assert!(pace.should_pause(false));
        }
        // One pause in vain may be somebody else's use of the processor.
        for goes_on in [true, false] {
            now += Duration::from_micros(250);
            pace.wait_before_read(false);
            pace.read(SMALL, now);
            assert_eq!(pace.should_pause(false), goes_on);
        }
    }

    #[test]
    fn a_stream_that_is_behind_is_gathered_however_little_comes() {
        let (mut pace, mut now) = (pace(), Instant::now());
        pace.sent_behind(BEHIND_US);
        for _ in 0..100 {
            now += Duration::from_millis(2);
            assert!(pace.should_pause(false));
            pace.wait_before_read(false);
            pace.read(SMALL, now);
        }
        assert_eq!(pace.factor, LONGEST_FACTOR);
        pace.sent_behind(BEHIND_US - 1);
        assert!(!pace.should_pause(false));
    }

    #[test]
    fn there_is_one_pause_before_a_read() {
        let mut pace = Pace::new(Some(Duration::from_millis(20)));
        let began = std::time::Instant::now();
        for _ in 0..100 {
            pace.wait_before_read(true);
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }

    #[test]
    fn a_gap_that_says_nothing_ends_no_burst() {
        let (mut pace, mut now) = (pace(), Instant::now());
        for read in 0..40 {
            now += Duration::from_micros(if read % 2 == 0 { 10 } else { 300 });
            pace.read(SMALL, now);
        }
        assert!(pace.should_pause(false));
    }

    #[test]
    fn pauses_grow_while_they_bring_something_and_not_a_lot() {
        let (mut pace, now) = (pace(), Instant::now());
        let factors = [SOME, SOME, SOME, SOME, ENOUGH, LARGE, SOME, SMALL].map(|received| {
            pace.wait_before_read(true);
            pace.read(received, now);
            pace.factor
        });
        assert_eq!(factors, [2, 4, 8, 8, 8, 4, 8, 1]);
    }

    #[test]
    fn what_is_there_already_is_read_at_once() {
        let (mut pace, now) = (pace(), Instant::now());
        pace.read(Received { bytes: 1 << 17, filled: true }, now);
        assert!(!pace.should_pause(true));
        pace.read(LARGE, now + Duration::from_millis(1));
        assert!(pace.should_pause(true));
    }
}
