//! A transaction of the source that is applied before it has committed, in a session of the target of its own.
//!
//! It costs nothing to give it up: the source keeps all of it until it is told what became of it, so whatever is in the way
//! (an error, a wait, a hold) takes back what was done, and the transaction comes again as a whole, behind its commit. What
//! may not enter: the first session's batches, and when the source commits.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use relevo_model::{Ahead, AheadTarget, Applied, Batch, Fault, SourceLsn, TransactionPart, Xid};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::info;

use crate::worker::Owner;
use crate::{AppliedBatch, FlowError};

/// Without a new part for this long, the transaction is taken back: it would keep its locks, and the target from cleaning up,
/// for as long as somebody on the source is at lunch.
const QUIET_LIMIT: Duration = Duration::from_secs(5);
/// A part may take this long: if it waits for somebody's lock, it had better wait once its transaction has committed.
const PART_LIMIT: Duration = Duration::from_secs(10);
/// How long other transactions may be held up by parts that wait, and by the locks of what was applied.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many transactions are left out at most after one that was given up.
const MOST_LEFT_OUT: u32 = 64;

/// Opens the target's second session, whenever a transaction is to go ahead.
pub struct AheadSessions {
    start: Box<dyn Fn() -> Task + Send>,
    allowed: Box<dyn Fn() -> bool + Send>,
}

impl fmt::Debug for AheadSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AheadSessions").finish_non_exhaustive()
    }
}

impl AheadSessions {
    /// `open` opens a session; `allowed` says whether anything may go ahead just now.
    pub fn new<A, E, F>(
        open: impl Fn() -> F + Send + 'static,
        allowed: impl Fn() -> bool + Send + 'static,
    ) -> Self
    where
        A: AheadTarget + 'static,
        E: Fault,
        F: Future<Output = Result<A, E>> + Send + 'static,
    {
        Self { start: Box::new(move || Task::start(open())), allowed: Box::new(allowed) }
    }
}

/// What the second session is to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// To apply a part of a transaction.
    Part(TransactionPart),
    /// To commit the transaction.
    Commit(TransactionPart, SourceLsn),
    /// To apply a batch and hold its commit back.
    Prepare(Arc<Batch>),
    /// To look whether somebody waits for the batch.
    Look,
    /// To commit the batch.
    CommitPrepared(Arc<Batch>, SourceLsn),
}

/// What it has done.
#[derive(Debug)]
pub(crate) enum Done {
    /// It is applied, and not committed.
    Applied,
    /// It cannot go beside anything else.
    MustGoAlone,
    /// It is committed.
    Committed(Applied),
}

/// The handle of the task that owns the second session.
#[derive(Debug)]
pub(crate) struct Task {
    pub work: mpsc::Sender<Work>,
    pub results: mpsc::Receiver<Result<Done, FlowError>>,
    pub owner: Owner,
}

impl Task {
    fn start<A, E>(opening: impl Future<Output = Result<A, E>> + Send + 'static) -> Self
    where
        A: AheadTarget + 'static,
        E: Fault,
    {
        let (work, inbox) = mpsc::channel(1);
        let (outbox, results) = mpsc::channel(1);
        Self { work, results, owner: Owner::of(own(opening, inbox, outbox)) }
    }
}

async fn own<A: AheadTarget, E: Fault>(
    opening: impl Future<Output = Result<A, E>>,
    mut inbox: mpsc::Receiver<Work>,
    outbox: mpsc::Sender<Result<Done, FlowError>>,
) {
    let mut target = match opening.await {
        Ok(target) => target,
        Err(error) => {
            // Nobody listens any more: then nobody needs to know.
            let _ = outbox.send(Err(FlowError::end(error))).await;
            return;
        }
    };
    while let Some(work) = inbox.recv().await {
        let done = match work {
            Work::Part(part) => target.apply(part).await.map(|()| Done::Applied),
            Work::Commit(last, applied) => target.commit(last, applied).await.map(Done::Committed),
            Work::Prepare(batch) => {
                let prepared = target.prepare(&batch).await;
                prepared.map(|beside| if beside { Done::Applied } else { Done::MustGoAlone })
            }
            Work::Look => target.look().await.map(|()| Done::Applied),
            Work::CommitPrepared(batch, applied) => {
                target.commit_prepared(&batch, applied).await.map(Done::Committed)
            }
        };
        let failed = done.is_err();
        if outbox.send(done.map_err(FlowError::end)).await.is_err() || failed {
            return;
        }
    }
}

/// How much is thought of the second session: after a transaction, or a batch, that had to be given up some are left out,
/// twice as many each time. Pure.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    left_out: u32,
    next: u32,
}

impl Default for Trust {
    fn default() -> Self {
        Self { left_out: 0, next: 1 }
    }
}

impl Trust {
    /// Whether the next one may try.
    pub fn allows(&mut self) -> bool {
        let allows = self.left_out == 0;
        self.left_out = self.left_out.saturating_sub(1);
        allows
    }

    /// One that tried had to be given up.
    pub fn failed(&mut self) {
        self.left_out = self.next;
        self.next = (self.next * 2).min(MOST_LEFT_OUT);
    }

    /// One that tried is committed.
    pub fn succeeded(&mut self) {
        self.next = 1;
    }
}

/// What is thought of both things that the second session may do.
#[derive(Debug, Default)]
pub(crate) struct Trusts {
    /// Of transactions that go ahead of their commit.
    pub ahead: Trust,
    /// Of batches that go beside another one.
    pub beside: Trust,
}

/// What the session does about an event of the source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing.
    Nothing,
    /// It tells the source that nothing of the transaction is there.
    Refused(Xid),
}

/// A part that waits for its turn.
#[derive(Debug)]
struct Waiting {
    part: TransactionPart,
    /// How many transactions had come in whole before it: they must be on the target first.
    behind: u64,
    since: Instant,
}

/// The transaction that goes ahead.
#[derive(Debug)]
struct Going {
    xid: Xid,
    task: Task,
    waiting: VecDeque<Waiting>,
    /// The part that is being applied: since when, and its size.
    in_hand: Option<(Instant, usize)>,
    /// It has committed on the source: its end, without changes.
    last: Option<Waiting>,
    committing: bool,
    /// What has been applied.
    done: AppliedBatch,
    /// How many transactions had come in whole when it began.
    began_behind: u64,
    heard_at: Instant,
}

/// Applies one transaction at a time ahead of its commit.
#[derive(Debug)]
pub(crate) struct AheadOfCommit<'a> {
    sessions: Option<AheadSessions>,
    trust: &'a mut Trust,
    going: Option<Going>,
    /// How many transactions have come in whole, and how many of them are on the target.
    came_in: u64,
    applied: u64,
}

impl<'a> AheadOfCommit<'a> {
    pub fn new(sessions: Option<AheadSessions>, trust: &'a mut Trust) -> Self {
        Self { sessions, trust, going: None, came_in: 0, applied: 0 }
    }

    /// A transaction has come in whole.
    pub fn came_in(&mut self) {
        self.came_in += 1;
    }

    /// So many of those that came in are on the target.
    pub fn applied(&mut self, transactions: u64) {
        self.applied += transactions;
    }

    /// What waits and is in hand, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.going.as_ref().map_or(0, |going| {
            going.waiting.iter().map(|waiting| waiting.part.size_bytes).sum::<usize>()
                + going.in_hand.map_or(0, |(_, bytes)| bytes)
        })
    }

    /// The end of the transaction, when it has committed on the source and is not yet visible.
    pub fn committed(&self) -> Option<&TransactionPart> {
        self.going.as_ref()?.last.as_ref().map(|last| &last.part)
    }

    /// Takes in what the source yields.
    pub fn take_in(&mut self, ahead: Ahead, now: Instant) -> Taken {
        let xid = ahead.xid();
        let waiting = |part, behind| Waiting { part, behind, since: now };
        match ahead {
            Ahead::Part(part) if part.first => {
                let allowed = self.sessions.as_ref().filter(|sessions| (sessions.allowed)());
                let Some(sessions) = allowed.filter(|_| self.trust.allows()) else {
                    return Taken::Refused(xid);
                };
                self.going = Some(Going {
                    xid,
                    task: (sessions.start)(),
                    waiting: VecDeque::from([waiting(part, self.came_in)]),
                    in_hand: None,
                    last: None,
                    committing: false,
                    done: AppliedBatch::default(),
                    began_behind: self.came_in,
                    heard_at: now,
                });
            }
            Ahead::Part(part) => {
                let behind = self.came_in;
                if let Some(going) = self.of(xid) {
                    going.heard_at = now;
                    going.waiting.push_back(waiting(part, behind));
                }
            }
            Ahead::Commit(last) => {
                let behind = self.came_in;
                if let Some(going) = self.of(xid) {
                    // What is left is applied first, so that an error of the commit is one of the commit.
                    let end = TransactionPart { changes: Vec::new(), size_bytes: 0, ..last.clone() };
                    going.waiting.push_back(waiting(TransactionPart { end: None, ..last }, behind));
                    going.last = Some(waiting(end, behind));
                }
            }
            Ahead::Abort(_) => {
                if self.of(xid).is_some() {
                    self.going = None;
                }
            }
        }
        Taken::Nothing
    }

    fn of(&mut self, xid: Xid) -> Option<&mut Going> {
        self.going.as_mut().filter(|going| going.xid == xid)
    }

    /// Gives the second session the next part, if it is idle and what the part rests on is on the target. A task that has
    /// ended says why by its results.
    pub fn hand_over(&mut self, now: Instant) {
        let applied = self.applied;
        let Some(going) = self.going.as_mut().filter(|going| going.in_hand.is_none() && !going.committing)
        else {
            return;
        };
        if going.waiting.front().is_none_or(|waiting| waiting.behind > applied) {
            return;
        }
        if let Some(Waiting { part, .. }) = going.waiting.pop_front() {
            part.changes.iter().for_each(|change| going.done.changes.count(change));
            going.done.bytes += part.size_bytes as u64;
            going.in_hand = Some((now, part.size_bytes));
            let _ = going.task.work.try_send(Work::Part(part));
        }
    }

    /// Gives the second session the end of the transaction, if that is all that is left to do and all that came before is on
    /// the target, where the progress stands at `stored`. Returns the end, which has no changes.
    pub fn commit(&mut self, stored: SourceLsn) -> Option<TransactionPart> {
        let applied = self.applied;
        let going = self.going.as_mut()?;
        if going.in_hand.is_some() || !going.waiting.is_empty() || going.committing {
            return None;
        }
        let last = going.last.as_ref().filter(|last| last.behind <= applied)?.part.clone();
        going.done.commit_times.push(last.header.commit_time);
        going.committing = true;
        let _ = going.task.work.try_send(Work::Commit(last.clone(), stored));
        Some(last)
    }

    /// Whether the second session may be used for something else just now.
    pub fn leaves_room(&self) -> bool {
        self.going.is_none() && self.sessions.as_ref().is_some_and(|sessions| (sessions.allowed)())
    }

    /// Opens the second session for something else.
    pub fn session(&self) -> Option<Task> {
        self.sessions.as_ref().map(|sessions| (sessions.start)())
    }

    /// Waits for the second session. Cancel-safe.
    pub async fn result(&mut self) -> Result<Done, FlowError> {
        match &mut self.going {
            Some(going) if going.in_hand.is_some() || going.committing => {
                let result = going.task.results.recv().await;
                result.unwrap_or(Err(FlowError::TaskStopped { task: "apply ahead" }))
            }
            _ => pending().await,
        }
    }

    /// A part is applied.
    pub fn part_applied(&mut self) {
        if let Some(going) = &mut self.going
            && let Some((since, _)) = going.in_hand.take()
        {
            going.done.took += since.elapsed();
        }
    }

    /// The transaction is committed on the target. What was applied, and the transaction.
    pub fn transaction_committed(&mut self) -> Option<(Xid, AppliedBatch)> {
        let going = self.going.take()?;
        self.trust.succeeded();
        Some((going.xid, going.done))
    }

    /// Whether the end of the transaction is on its way: whether it has committed will be known soon, and not before.
    pub fn is_committing(&self) -> bool {
        self.going.as_ref().is_some_and(|going| going.committing)
    }

    /// Why the transaction must not go on ahead, if so. `batch_since`: how long the first session has been at its batch.
    pub fn obstacle(&self, held: bool, batch_since: Option<Instant>, now: Instant) -> Option<Obstacle> {
        let going = self.going.as_ref().filter(|going| !going.committing)?;
        let longer = |since: Instant, limit| now.saturating_duration_since(since) > limit;
        if held {
            return Some(Obstacle::of("the flow is held"));
        }
        if self.sessions.as_ref().is_none_or(|sessions| !(sessions.allowed)()) {
            return Some(Obstacle::of("tables are on their way"));
        }
        if batch_since.is_some_and(|since| longer(since, PATIENCE)) {
            return Some(Obstacle::fault("a batch of other transactions is kept waiting"));
        }
        if going.in_hand.is_some_and(|(since, _)| longer(since, PART_LIMIT)) {
            return Some(Obstacle::fault("a part takes too long"));
        }
        let others = self.came_in > going.began_behind;
        if others && going.waiting.front().is_some_and(|waiting| longer(waiting.since, PATIENCE)) {
            return Some(Obstacle::fault("it holds up other transactions"));
        }
        let quiet = going.last.is_none() && longer(going.heard_at, QUIET_LIMIT);
        quiet.then(|| Obstacle::of("nothing has come of it for a while"))
    }

    /// Takes back what was applied; the source is to be told. `None`: there is nothing.
    pub fn take_back(&mut self, obstacle: &Obstacle) -> Option<Xid> {
        let going = self.going.take()?;
        if obstacle.is_fault {
            self.trust.failed();
        }
        info!(
            xid = going.xid.0,
            parts_bytes = going.done.bytes,
            "a transaction that was applied ahead of its commit is taken back and comes again after it: {}",
            obstacle.why
        );
        Some(going.xid)
    }

    /// An error of the commit itself, which ends the session.
    pub fn lost(&mut self) {
        self.trust.failed();
        self.going = None;
    }

    /// Ends the second session and waits, until `deadline`, for its connection to be gone.
    pub async fn stop(self, deadline: Instant) {
        if let Some(going) = self.going {
            going.task.owner.stop(deadline).await;
        }
    }
}

/// Why a transaction does not go on ahead.
#[derive(Debug)]
pub(crate) struct Obstacle {
    why: Arc<str>,
    /// The next one would probably meet it too.
    is_fault: bool,
}

impl Obstacle {
    fn of(why: &str) -> Self {
        Self { why: why.into(), is_fault: false }
    }

    fn fault(why: &str) -> Self {
        Self { why: why.into(), is_fault: true }
    }

    /// The second session has failed.
    pub fn error(error: &FlowError) -> Self {
        Self::fault(&error.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_each_failure_twice_as_many_transactions_are_left_out_until_one_goes_well() {
        let mut trust = Trust::default();
        let mut left_out = || {
            trust.failed();
            (0..200).take_while(|_| !trust.allows()).count()
        };
        assert_eq!([left_out(), left_out(), left_out()], [1, 2, 4]);
        assert_eq!((0..10).map(|_| left_out()).last(), Some(64));
        trust.succeeded();
        trust.failed();
        assert!(!trust.allows() && trust.allows(), "one again");
    }
}
