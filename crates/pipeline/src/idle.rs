//! When a position without changes is worth a write on the target.
//!
//! A busy server with a quiet replicated database sends a keepalive position many times a second. Writing each
//! one would turn an idle standby into a busy one; writing none would keep WAL on the source for ever, because
//! only stored positions are confirmed. Pure: time comes in as a parameter.

use std::time::Duration;

use relevo_model::SourceLsn;
use tokio::time::Instant;

/// The three reasons to write a bare position; any one suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleRules {
    /// This much time passed since the last write.
    pub interval: Duration,
    /// The source keeps more WAL than this, in bytes, only because the position is not stored.
    pub distance_bytes: u64,
    /// The position has stood still this long (and so has the target). A source that is being shut down waits
    /// until its last position is confirmed (`WalSndDone` in `replication/walsender.c`): it shall not have to
    /// wait a whole `interval`.
    pub settled: Duration,
}

impl Default for IdleRules {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), distance_bytes: 16 << 20, settled: Duration::from_secs(1) }
    }
}

/// Remembers what is stored and decides about the bare positions that come.
#[derive(Debug, Clone)]
pub struct IdleProgress {
    rules: IdleRules,
    stored: SourceLsn,
    written_at: Instant,
    /// The bare position that is not stored yet, and since when it is the newest.
    held: Option<(SourceLsn, Instant)>,
}

impl IdleProgress {
    /// Begins with what the target has stored.
    #[must_use]
    pub fn new(rules: IdleRules, stored: SourceLsn, now: Instant) -> Self {
        Self { rules, stored, written_at: now, held: None }
    }

    /// A bare position came.
    pub fn hold(&mut self, position: SourceLsn, now: Instant) {
        let newest = self.held.map_or(self.stored, |(held, _)| held);
        if position > newest {
            self.held = Some((position, now));
        }
    }

    /// A change came: its own commit will carry the position further.
    pub fn release(&mut self) {
        self.held = None;
    }

    /// The target has stored this position.
    pub fn written(&mut self, position: SourceLsn, now: Instant) {
        self.stored = self.stored.max(position);
        self.written_at = now;
        if self.held.is_some_and(|(held, _)| held <= self.stored) {
            self.held = None;
        }
    }

    /// The last position that the target has stored.
    #[must_use]
    pub fn stored(&self) -> SourceLsn {
        self.stored
    }

    /// The position to write now, if one is due.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<SourceLsn> {
        let (position, since) = self.held?;
        let since_write = now.saturating_duration_since(self.written_at);
        let stands = now.saturating_duration_since(since).min(since_write);
        let due = since_write >= self.rules.interval
            || stands >= self.rules.settled
            || position.bytes_since(self.stored) > self.rules.distance_bytes;
        due.then_some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn lsn(bytes: u64) -> SourceLsn {
        SourceLsn::new(bytes)
    }

    #[test]
    fn positions_that_keep_moving_are_written_once_an_interval() {
        let start = Instant::now();
        let mut idle = IdleProgress::new(IdleRules::default(), lsn(1000), start);
        let mut writes = Vec::new();
        for tenth in 1..=250_u64 {
            let now = start + Duration::from_millis(100 * tenth);
            idle.hold(lsn(1000 + tenth), now);
            if let Some(position) = idle.due(now) {
                writes.push(position);
                idle.written(position, now);
            }
        }
        assert_eq!(writes, [lsn(1100), lsn(1200)], "at 10 s and at 20 s");
    }

    #[test]
    fn a_position_that_stands_still_is_written_soon_and_once() {
        let start = Instant::now();
        let mut idle = IdleProgress::new(IdleRules::default(), lsn(1000), start);
        idle.hold(lsn(1001), start);
        assert_eq!(idle.due(start + Duration::from_millis(999)), None);
        let later = start + Duration::from_secs(1);
        idle.hold(lsn(1001), later);
        assert_eq!(idle.due(later), Some(lsn(1001)), "the same position again does not start the time anew");
        idle.written(lsn(1001), later);
        assert_eq!(idle.due(later + Duration::from_secs(60)), None);
    }

    #[test]
    fn much_retained_wal_is_released_at_once() {
        let start = Instant::now();
        let mut idle = IdleProgress::new(IdleRules::default(), lsn(1000), start);
        idle.hold(lsn(1000 + (16 << 20)), start);
        assert_eq!(idle.due(start), None);
        idle.hold(lsn(1001 + (16 << 20)), start);
        assert_eq!(idle.due(start), Some(lsn(1001 + (16 << 20))));
    }

    #[test]
    fn a_change_or_an_older_position_leaves_nothing_to_write() {
        let start = Instant::now();
        let hour = start + Duration::from_secs(3600);
        let mut idle = IdleProgress::new(IdleRules::default(), lsn(1000), start);
        idle.hold(lsn(1000), start);
        idle.hold(lsn(900), start);
        assert_eq!(idle.due(hour), None);
        idle.hold(lsn(1001), start);
        idle.release();
        assert_eq!(idle.due(hour), None);
    }
}
