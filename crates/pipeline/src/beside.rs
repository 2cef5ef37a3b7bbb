//! The batch behind the one in hand, when both write different rows: the target's second session applies it meanwhile, and
//! commits it once the one in hand is there.
//!
//! What may not enter: which batch may, and what follows from its commit.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use relevo_model::{Batch, SourceLsn, Timestamp};
use tokio::time::Instant;

use crate::FlowError;
use crate::ahead::{Done, Task, Trust, Work};

/// The batch in hand may take this long before it is looked whether it waits for what the batch beside it has locked; and so
/// long passes until the next look.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// A batch may take this long until it is prepared, once the one before it is there.
const PREPARE_LIMIT: Duration = Duration::from_secs(10);
/// A session that nothing was given to for so long is closed.
const QUIET_LIMIT: Duration = Duration::from_secs(5);

/// How far the batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is being applied.
    Preparing,
    /// It waits for its commit, and was last looked at then.
    Prepared(Instant),
    /// It is being looked whether somebody waits for it.
    Looking,
    /// It is being committed.
    Committing,
}

/// The batch that goes beside another one.
#[derive(Debug)]
struct Held {
    batch: Arc<Batch>,
    since: Instant,
    stage: Stage,
}

/// The second session, as far as whole batches go by it.
#[derive(Debug)]
pub(crate) struct Beside<'a> {
    task: Option<Task>,
    held: Option<Held>,
    trust: &'a mut Trust,
    used_at: Option<Instant>,
}

impl<'a> Beside<'a> {
    pub fn new(trust: &'a mut Trust) -> Self {
        Self { task: None, held: None, trust, used_at: None }
    }

    /// Whether the next batch may try, which it is to do if so.
    pub fn allows(&mut self) -> bool {
        self.held.is_none() && self.trust.allows()
    }

    /// The batch could not go beside the other.
    pub fn refuses(&mut self) {
        self.trust.failed();
    }

    /// Begins to apply the batch, by the session that is open or the one that `start` opens. Returns it if there is none.
    pub fn take(
        &mut self,
        batch: Batch,
        now: Instant,
        start: impl FnOnce() -> Option<Task>,
    ) -> Option<Batch> {
        if self.task.is_none() {
            self.task = start();
        }
        let Some(task) = &self.task else { return Some(batch) };
        let batch = Arc::new(batch);
        // A task that has ended says why by its results.
        let _ = task.work.try_send(Work::Prepare(Arc::clone(&batch)));
        self.used_at = Some(now);
        self.held = Some(Held { batch, since: now, stage: Stage::Preparing });
        None
    }

    /// Whether a batch is there that comes next.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// What the batch occupies, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.batch.size_bytes)
    }

    /// When the first transaction of the batch committed on the source.
    pub fn oldest(&self) -> Option<Timestamp> {
        let first = self.held.as_ref().and_then(|held| held.batch.parts.first());
        first.map(|part| part.header.commit_time)
    }

    /// Whether the session has been at it for so long that somebody else had better do it.
    pub fn takes_too_long(&self, now: Instant) -> bool {
        let long = |held: &Held| now.saturating_duration_since(held.since) > PREPARE_LIMIT;
        self.held.as_ref().is_some_and(|held| held.stage == Stage::Preparing && long(held))
    }

    /// Commits the batch if it is applied. Returns it, and since when it was in hand.
    pub fn commit(&mut self, stored: SourceLsn) -> Option<(Arc<Batch>, Instant)> {
        let held = self.held.as_mut().filter(|held| matches!(held.stage, Stage::Prepared(_)))?;
        held.stage = Stage::Committing;
        let batch = Arc::clone(&held.batch);
        if let Some(task) = &self.task {
            let _ = task.work.try_send(Work::CommitPrepared(Arc::clone(&batch), stored));
        }
        Some((batch, held.since))
    }

    /// Looks whether somebody waits for the batch, if the one in hand takes long.
    pub fn look(&mut self, batch_since: Instant, now: Instant) {
        let long = |since: Instant| now.saturating_duration_since(since) > LOOK_AFTER;
        let (Some(held), Some(task)) = (&mut self.held, &self.task) else { return };
        if matches!(held.stage, Stage::Prepared(looked_at) if long(looked_at)) && long(batch_since) {
            held.stage = Stage::Looking;
            let _ = task.work.try_send(Work::Look);
        }
    }

    /// Closes a session that nothing has come to for a while.
    pub fn rest(&mut self, now: Instant) {
        let quiet = |at| now.saturating_duration_since(at) > QUIET_LIMIT;
        if self.held.is_none() && self.used_at.is_some_and(quiet) {
            self.close();
        }
    }

    /// Closes the session. Nothing is held.
    pub fn close(&mut self) {
        (self.task, self.used_at) = (None, None);
    }

    /// Waits for the session. Cancel-safe.
    pub async fn result(&mut self) -> Result<Done, FlowError> {
        let works = self.held.as_ref().is_some_and(|held| !matches!(held.stage, Stage::Prepared(_)));
        match &mut self.task {
            Some(task) if works => {
                let result = task.results.recv().await;
                result.unwrap_or(Err(FlowError::TaskStopped { task: "apply beside" }))
            }
            _ => pending().await,
        }
    }

    /// The batch is applied, or nobody waits for it.
    pub fn is_prepared(&mut self, now: Instant) {
        if let Some(held) = &mut self.held {
            held.stage = Stage::Prepared(now);
        }
    }

    /// The batch is committed on the target.
    pub fn committed(&mut self, now: Instant) {
        (self.held, self.used_at) = (None, Some(now));
        self.trust.succeeded();
    }

    /// Whether the commit is on its way: whether it has happened will be known soon, and not before.
    pub fn is_committing(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.stage == Stage::Committing)
    }

    /// Takes the batch back, which is to be applied by itself. Its session ends, and with it what it has done.
    pub fn take_back(&mut self) -> Option<Batch> {
        self.close();
        self.trust.failed();
        self.held.take().map(|held| Arc::unwrap_or_clone(held.batch))
    }

    /// Ends the session and waits, until `deadline`, for its connection to be gone.
    pub async fn stop(self, deadline: Instant) {
        if let Some(task) = self.task {
            task.owner.stop(deadline).await;
        }
    }
}
