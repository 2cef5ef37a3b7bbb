//! What telemetry may read of a source at any time, also while the pipeline waits in `next()`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use relevo_model::SourceLsn;
use tokio::time::Instant;

#[derive(Debug)]
struct Shared {
    began: Instant,
    /// Microseconds since `began`, plus one; 0: never.
    last_contact_us: AtomicU64,
    received: AtomicU64,
    server_position: AtomicU64,
    buffered_bytes: AtomicUsize,
    streamed_bytes: AtomicU64,
    /// Microseconds of all pauses in reading that are over.
    paused_us: AtomicU64,
    /// Microseconds since `began` when the present pause began, plus one; 0: there is none.
    paused_since_us: AtomicU64,
    backend_pid: AtomicI32,
}

/// A view of the replication connection. It outlives the connection: hand the same one to every new
/// [`PgSource`](crate::PgSource) of a flow, and its last contact keeps growing older while the source is unreachable.
///
/// Each value is read by itself; two of them may stem from different moments.
#[derive(Debug, Clone)]
pub struct SourceMonitor(Arc<Shared>);

impl Default for SourceMonitor {
    fn default() -> Self {
        Self(Arc::new(Shared {
            began: Instant::now(),
            last_contact_us: AtomicU64::new(0),
            received: AtomicU64::new(0),
            server_position: AtomicU64::new(0),
            buffered_bytes: AtomicUsize::new(0),
            streamed_bytes: AtomicU64::new(0),
            paused_us: AtomicU64::new(0),
            paused_since_us: AtomicU64::new(0),
            backend_pid: AtomicI32::new(0),
        }))
    }
}

impl SourceMonitor {
    /// When the last byte came from the source; `None`: never yet. While it is idle the source is asked for an answer
    /// every status interval, so this is never much older than that on a healthy link, unless the buffer is full:
    /// then nothing is read.
    #[must_use]
    pub fn last_contact(&self) -> Option<std::time::Instant> {
        let us = self.0.last_contact_us.load(Ordering::Relaxed);
        Some((self.0.began + Duration::from_micros(us.checked_sub(1)?)).into_std())
    }

    /// Everything before this position is in our memory or further.
    #[must_use]
    pub fn received_lsn(&self) -> SourceLsn {
        SourceLsn::new(self.0.received.load(Ordering::Relaxed))
    }

    /// How far the walsender had got when it last said so.
    #[must_use]
    pub fn server_lsn(&self) -> SourceLsn {
        SourceLsn::new(self.0.server_position.load(Ordering::Relaxed))
    }

    /// What is held in memory: what waits to be taken with `next()`, and what has come of transactions that still run, in
    /// bytes.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.0.buffered_bytes.load(Ordering::Relaxed)
    }

    /// What has come of transactions that still run, in bytes of memory and disk.
    #[must_use]
    pub fn streamed_bytes(&self) -> u64 {
        self.0.streamed_bytes.load(Ordering::Relaxed)
    }

    /// For how long altogether nothing was read because the buffer was full: the source had to wait for the target.
    #[must_use]
    pub fn paused(&self) -> Duration {
        let over = Duration::from_micros(self.0.paused_us.load(Ordering::Relaxed));
        let present = self.0.paused_since_us.load(Ordering::Relaxed).checked_sub(1);
        over + present.map_or(Duration::ZERO, |since| {
            self.0.began.elapsed().saturating_sub(Duration::from_micros(since))
        })
    }

    /// The walsender that served the last connection of this process; 0 before the first.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.0.backend_pid.load(Ordering::Relaxed)
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.0.began).as_micros()).unwrap_or(u64::MAX - 1)
    }

    pub(crate) fn heard(&self, at: Instant) {
        let us = self.us(at);
        self.0.last_contact_us.store(us + 1, Ordering::Relaxed);
    }

    pub(crate) fn set_received(&self, position: SourceLsn) {
        self.0.received.store(position.as_u64(), Ordering::Relaxed);
    }

    pub(crate) fn set_server(&self, position: SourceLsn) {
        self.0.server_position.store(position.as_u64(), Ordering::Relaxed);
    }

    pub(crate) fn set_buffered(&self, bytes: usize) {
        self.0.buffered_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_streamed(&self, bytes: u64) {
        self.0.streamed_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Only the loop of one connection at a time calls this.
    pub(crate) fn set_paused(&self, paused: bool, now: Instant) {
        let since = self.0.paused_since_us.load(Ordering::Relaxed);
        if paused && since == 0 {
            self.0.paused_since_us.store(self.us(now) + 1, Ordering::Relaxed);
        } else if !paused && since > 0 {
            self.0.paused_since_us.store(0, Ordering::Relaxed);
            self.0.paused_us.fetch_add((self.us(now) + 1).saturating_sub(since), Ordering::Relaxed);
        }
    }

    pub(crate) fn set_backend_pid(&self, pid: i32) {
        self.0.backend_pid.store(pid, Ordering::Relaxed);
    }
}
