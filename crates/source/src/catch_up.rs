//! A stream that begins far behind the source asks for whole transactions, and is followed by another when it has caught up.
//!
//! A large transaction that has committed long ago is applied while it is received, if it is sent whole; one that is sent
//! in the way of those that still run has to be received before it is known to have committed. Near the source it is the
//! other way about: what was sent while the transaction ran need not be sent after its commit. What may not enter: the
//! connection. It has to be another one: on the same, a walsender takes the second START_REPLICATION of a logical slot for
//! ended already (`streamingDoneSending` in `replication/walsender.c`).

use std::time::Duration;

use relevo_model::SourceLsn;
use tokio::time::Instant;

/// From how much WAL on a stream is far behind, in bytes. A transaction that is sent while it runs has written about as
/// much as `logical_decoding_work_mem` at least, which is seldom less than its default, 64 MiB.
pub(crate) const FAR_BEHIND_BYTES: u64 = 64 << 20;

/// Whether a stream that begins at `start` is far behind a source that is at `current`.
pub(crate) fn is_far_behind(start: SourceLsn, current: SourceLsn) -> bool {
    current.bytes_since(start) >= FAR_BEHIND_BYTES
}

/// How long the stream stays as it is after that: who has only just caught up may fall behind again.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Follows a stream of whole transactions.
#[derive(Debug, Clone)]
pub(crate) struct CatchUp {
    /// Where the source was when the stream began. Who is there is not far behind any more.
    until: SourceLsn,
    caught_up_at: Option<Instant>,
}

impl CatchUp {
    /// For a stream that begins when the source is there.
    pub(crate) fn new(until: SourceLsn) -> Self {
        Self { until, caught_up_at: None }
    }

    /// The server has nothing to send before `position`, and nothing is half-way. Whether another stream shall follow.
    pub(crate) fn at_rest(&mut self, position: SourceLsn, now: Instant) -> bool {
        if position < self.until {
            return false;
        }
        let since = *self.caught_up_at.get_or_insert(now);
        now.duration_since(since) >= SETTLED_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_less_is_near() {
        let at = |bytes| SourceLsn::new((7 << 32) + bytes);
        assert!(!is_far_behind(at(0), at(0)));
        assert!(!is_far_behind(at(0), at(FAR_BEHIND_BYTES - 1)));
        assert!(is_far_behind(at(0), at(FAR_BEHIND_BYTES)));
        assert!(!is_far_behind(at(FAR_BEHIND_BYTES), at(0)), "a source that is behind is refused elsewhere");
    }

    #[test]
    fn another_stream_follows_once_this_has_been_near_for_a_while() {
        let (mut catch_up, begin) = (CatchUp::new(SourceLsn::new(100)), Instant::now());
        assert!(!catch_up.at_rest(SourceLsn::new(99), begin));
        let near = begin + SETTLED_AFTER;
        assert!(!catch_up.at_rest(SourceLsn::new(100), near), "only from here on");
        assert!(!catch_up.at_rest(SourceLsn::new(200), near + SETTLED_AFTER / 2));
        assert!(catch_up.at_rest(SourceLsn::new(300), near + SETTLED_AFTER));
    }
}
