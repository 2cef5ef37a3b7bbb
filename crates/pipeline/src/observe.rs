//! What a flow tells whoever watches it: values, no formatting and no clocks.

use std::time::Duration;

use relevo_model::{Change, FaultClass, Progress, Side, SourceLsn, Timestamp};

/// What a flow is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// Connections are being opened.
    Opening,
    /// Changes flow, or would if there were any.
    Streaming,
    /// The flow is held at this position, and everything before it is on the target.
    Held(SourceLsn),
    /// An end was lost; it is tried again after a pause.
    Retrying,
    /// Something needs a hand; it is tried again all the same, so that the flow goes on once it is mended.
    Failed,
    /// The flow has ended, by request.
    Stopped,
}

/// How many changes there were of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChangeCounts {
    /// Inserted rows.
    pub inserts: u64,
    /// Updated rows.
    pub updates: u64,
    /// Deleted rows.
    pub deletes: u64,
    /// Truncate commands.
    pub truncates: u64,
    /// Logical messages.
    pub messages: u64,
}

impl ChangeCounts {
    /// Counts one change.
    pub(crate) fn count(&mut self, change: &Change) {
        match change {
            Change::Insert { .. } => self.inserts += 1,
            Change::Update { .. } => self.updates += 1,
            Change::Delete { .. } => self.deletes += 1,
            Change::Truncate { .. } => self.truncates += 1,
            Change::Message { .. } => self.messages += 1,
        }
    }
}

/// What became visible on the target with one commit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedBatch {
    /// The progress that was stored with it.
    pub position: SourceLsn,
    /// When the source committed each transaction, in commit order, by the source's clock. Empty when only the
    /// position moved.
    pub commit_times: Vec<Timestamp>,
    /// The changes.
    pub changes: ChangeCounts,
    /// What they occupied in memory, in bytes.
    pub bytes: u64,
    /// How long the target worked on it.
    pub took: Duration,
    /// Rows that an update or delete did not find.
    pub missing_rows: u64,
    /// Changes that were applied one by one after they could not be applied as sets.
    pub reapplied_changes: u64,
}

/// One thing that happened in a flow.
#[derive(Debug)]
pub enum FlowEvent<'a> {
    /// The flow's loop went round. It comes several times a second whatever else happens; when it stops coming,
    /// the loop hangs.
    Turn,
    /// The flow does something else from now on.
    State(FlowState),
    /// Both ends are open; the flow goes on from here. The position may be *earlier* than one applied before,
    /// when a crash of the target took back what was not durable.
    Opened {
        /// What the target had stored.
        progress: &'a Progress,
    },
    /// The source was heard from; everything before this position has been received.
    Received {
        /// The position.
        position: SourceLsn,
    },
    /// A batch went to the target.
    HandedOver {
        /// How many transactions end in it.
        transactions: u64,
        /// What it occupies in memory, in bytes.
        bytes: u64,
    },
    /// A commit happened on the target.
    Applied(&'a AppliedBatch),
    /// A transaction that went ahead of its commit is committed on the target, or was taken back by us.
    Ahead {
        /// It is committed.
        committed: bool,
    },
    /// A batch that was applied beside the one before it is committed on the target, or was taken back by us.
    Beside {
        /// It is committed.
        committed: bool,
    },
    /// When the source committed the oldest transaction that has been received and is not visible on the target
    /// yet; `None` when there is none.
    OldestUnapplied(Option<Timestamp>),
    /// Whatever the source yielded before this position is visible on the target. Unlike the stored progress it
    /// also follows positions without changes at once.
    Reached {
        /// The position.
        position: SourceLsn,
    },
    /// This position is stored and flushed on the target, and reported to the source.
    Durable {
        /// The position.
        position: SourceLsn,
    },
    /// What is held in memory, waiting and in the target's hand.
    Buffer {
        /// In bytes.
        bytes: u64,
    },
    /// The target answered the probe.
    TargetAlive,
    /// The session ended with an error. Comes at every attempt, also when the log stays silent.
    Failed {
        /// What can be done about it.
        class: FaultClass,
        /// Where it arose.
        side: Side,
        /// The short word for it.
        kind: &'static str,
        /// The error with its causes, in one line, without secrets.
        text: &'a str,
        /// How many attempts have failed in a row.
        attempts: u32,
        /// The pause before the next attempt; `None`: there is none.
        retry_in: Option<Duration>,
    },
    /// Both ends are about to be opened again because this one failed.
    Reconnect {
        /// The end that failed.
        side: Side,
    },
}

/// Watches a flow. It is called from the flow's own loop: it must return at once.
pub trait FlowObserver: Send + Sync {
    /// Something happened.
    fn event(&self, event: FlowEvent<'_>);
}

/// Watches nothing.
impl FlowObserver for () {
    fn event(&self, _event: FlowEvent<'_>) {}
}
