//! When to read: at once while idle, in gulps under a backlog.
//!
//! The walsender sends every message with a system call of its own, and each one that wakes the reader costs it a
//! context switch: an eager reader drained 300k messages in 1.9 s, one that lets about 200 µs of bytes gather before
//! each read did it in 0.57 s. Only the decision stands here; it is pure but for the pause itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::frame::Received;

/// How long bytes gather. tokio's timer ticks in milliseconds, which is too coarse, so the thread sleeps: the
/// connection has a thread of its own, and nothing else runs there.
pub(crate) const GATHER: Duration = Duration::from_micros(200);
/// Reads that follow each other faster than this belong to one burst.
const BURST_GAP: Duration = Duration::from_micros(100);
/// So many reads of one burst are a backlog. A small transaction is over before.
const BURST_READS: u32 = 16;
/// A pause that gathered less than this was in vain: there is no backlog any more.
const WORTHWHILE_BYTES: usize = 2048;

/// Decides whether to pause before the next read.
#[derive(Debug)]
pub(crate) struct Pace {
    gather: Option<Duration>,
    burst_reads: u32,
    paused: bool,
    filled: bool,
    last_read_at: Option<Instant>,
}

impl Pace {
    /// Pauses by putting the thread to sleep for `gather`; `None`: never pauses.
    pub(crate) fn new(gather: Option<Duration>) -> Self {
        Self { gather, burst_reads: 0, paused: false, filled: false, last_read_at: None }
    }

    /// Notes what a read brought.
    pub(crate) fn read(&mut self, received: Received, now: Instant) {
        let gap = self.last_read_at.map(|last| now.duration_since(last));
        self.burst_reads = match gap {
            _ if self.paused && received.bytes < WORTHWHILE_BYTES => 0,
            Some(gap) if self.paused || gap < BURST_GAP => self.burst_reads.saturating_add(1),
            _ => 0,
        };
        (self.filled, self.last_read_at) = (received.filled, Some(now));
    }

    /// Whether bytes should gather before the next read. `waiting`: something that was read before has not been taken
    /// yet, so nothing is delayed.
    fn should_pause(&self, waiting: bool) -> bool {
        // A read that filled its room left more behind: it is there already.
        !self.filled && (waiting || self.burst_reads >= BURST_READS)
    }

    /// Lets bytes gather if there is a backlog.
    pub(crate) fn wait_before_read(&mut self, waiting: bool) {
        self.paused = self.gather.is_some() && self.should_pause(waiting);
        if let Some(gather) = self.gather.filter(|_| self.paused) {
            std::thread::sleep(gather);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Received = Received { bytes: 100, filled: false };
    const LARGE: Received = Received { bytes: 20_000, filled: false };

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
        pace.wait_before_read(false);
        pace.read(LARGE, now + Duration::from_micros(250));
        assert!(pace.should_pause(false));
        pace.wait_before_read(false);
        pace.read(SMALL, now + Duration::from_micros(500));
        assert!(!pace.should_pause(false));
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
