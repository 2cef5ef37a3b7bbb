//! What the board shows besides the flow itself: who takes part, what was, and what the last quarter of an hour was like.

use std::sync::Arc;
use std::time::Duration;

use relevo_model::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::{Board, rfc3339};
use crate::around::Known;
use crate::history::Reading;
use crate::{HandoverStatus, HistorySnapshot, NodeSight, Role, TablesSnapshot, VerificationStatus};

/// How often it is looked at how things are, for the history.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What the source said longer ago than this is not how it is, in seconds.
const FRESH_POLL_SECONDS: f64 = 10.0;

impl Board {
    /// The databases that take part, as far as they are known.
    pub fn set_nodes(&self, nodes: Vec<NodeSight>) {
        let now = self.clock.now();
        self.inner().nodes = nodes.into_iter().map(|node| Known::new(node, now)).collect();
    }

    /// The last hand-overs, the newest first.
    pub fn set_handovers(&self, handovers: Vec<HandoverStatus>) {
        self.inner().handovers = handovers;
    }

    /// What the last comparisons of both sides have said: when the oldest of them was, if all tables were compared, and how
    /// many rows differed, if any were.
    pub fn set_verified(&self, at: Option<Timestamp>, differences: Option<u64>) {
        self.metrics.verified(at.map(Timestamp::unix_us), differences);
        self.inner().verification = Some(VerificationStatus { at: at.map(rfc3339), differences });
    }

    /// How things are now becomes part of the history.
    pub fn look(&self) {
        let now = self.clock.now();
        let mut inner = self.inner();
        let is_fresh = inner.lag.poll_age_seconds(now).is_some_and(|age| age <= FRESH_POLL_SECONDS);
        let is_standby = inner.role == Role::Standby;
        let reading = Reading {
            role: inner.role,
            epoch: inner.epoch,
            state: inner.state,
            lag_seconds: is_standby.then(|| inner.lag_seconds(now)),
            lag_bytes: inner.lag_bytes().filter(|_| is_standby && is_fresh).map(|bytes| bytes.applied),
            transactions: self.metrics.transactions_applied(),
            changes: self.metrics.changes_applied(),
            source_lsn: inner.lag.source_lsn().filter(|_| is_fresh),
            slot: inner.slot.clone().filter(|_| is_fresh),
        };
        inner.history.look(now, &reading);
    }

    /// Looks once a second, until `shutdown` completes. A history that nobody keeps any more has a gap at its end.
    pub async fn keep_history(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looks = async {
            loop {
                ticks.tick().await;
                self.look();
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = looks => {}
        }
    }

    /// What the last quarter of an hour was like, as of now.
    #[must_use]
    pub fn history(&self) -> HistorySnapshot {
        self.inner().history.snapshot(self.clock.now())
    }

    /// Every table of the flow.
    #[must_use]
    pub fn tables(&self) -> TablesSnapshot {
        TablesSnapshot { tables: self.inner().tables.values().cloned().collect() }
    }
}
