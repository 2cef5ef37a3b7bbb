//! The two ports of a flow, with the contract that makes it safe, and the words for what goes wrong.
//!
//! **The contract.**
//! - A source yields transactions whole and in commit order, or in parts that follow each other.
//! - A target applies batches in the order in which it gets them, makes a transaction visible whole or not at
//!   all, and writes the progress in the same target transaction as the data.
//! - *Applied* means committed on the target. *Durable* means that this commit is flushed there. Only durable
//!   positions are reported back to the source, and never one that lies beyond the progress that the target
//!   has stored: so a target that was restored to an older state is found out instead of losing changes.
//! - After any error both ends are thrown away and opened again; the target's progress says where to go on.

use std::error::Error;
use std::fmt;
use std::future::Future;

use crate::{Batch, SourceLsn, TargetLsn, Timestamp, TransactionPart, Xid};

/// An end of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The database that changes come from.
    Source,
    /// The database that they go to.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Target => "target",
        })
    }
}

/// What can be done about an error; the one question that the retry table asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// Passes by itself (a lost link, a server that restarts, a full disk): try again, with backoff.
    Transient,
    /// Needs a hand at the data or the settings (a unique violation, a missing column, a wrong password), and
    /// nothing is lost meanwhile: the flow has failed, says so, and goes on by itself once it is mended.
    Blocked,
    /// Going on would lose or repeat changes (a lost slot, another timeline): refuse, name the remedy, stop.
    Refused,
}

/// The kind of a fault that is none: the target keeps the flow at a position for a while. It is transient.
pub const HELD: &str = "held";

/// What every error that crosses a port can say of itself.
pub trait Fault: Error + Send + Sync + 'static {
    /// What can be done about it.
    fn class(&self) -> FaultClass;
    /// The end that it arose at.
    fn side(&self) -> Side;
    /// The stable word for it, one of [`KINDS`](crate::KINDS): the `kind` label of `relevo_errors_total`, and the code by
    /// which docs/errors.md explains it.
    fn kind(&self) -> &'static str;
}

/// What makes a source the same source: positions of one mean nothing on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceIdentity {
    /// The cluster's system identifier, in decimal, as `IDENTIFY_SYSTEM` gives it.
    pub system_id: String,
    /// The timeline. A promoted physical standby has another one, and a slot does not survive the change.
    pub timeline: u32,
    /// The database that the slot is in.
    pub database: String,
}

/// What the target has stored of a flow, in the same transaction as the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Everything that ends at or before this position is on the target.
    pub applied: SourceLsn,
    /// The commit LSN of the last transaction applied; `None` before the first.
    pub commit_lsn: Option<SourceLsn>,
    /// When the source committed it, by the source's clock.
    pub commit_time: Option<Timestamp>,
}

/// One thing that a source yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// The next transaction, or part of one.
    Part(TransactionPart),
    /// Everything that ends before this position has been yielded, and nothing is half-way.
    Keepalive(SourceLsn),
    /// Part of a transaction that still runs on the source, see [`Ahead`].
    Ahead(Ahead),
}

/// What a source yields of a transaction while it still runs, for whoever can apply it in a session of its own and take it
/// back. Of one transaction at a time.
///
/// Whoever takes events may say at any moment that nothing of it was applied ([`ChangeSource::settle_ahead`]): the source then
/// yields the whole transaction after its commit, as [`SourceEvent::Part`]s. So it may be ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ahead {
    /// A part without an end. Its header has neither commit LSN nor time, since there is none yet. What it changes rests on
    /// the transactions that were yielded before it, and on no other.
    Part(TransactionPart),
    /// What is left of it, with its end and the true header: it has committed. Nothing else is yielded until
    /// [`ChangeSource::settle_ahead`] says what has become of it.
    Commit(TransactionPart),
    /// It was rolled back, as a whole or in part, or may not be applied ahead any further: what was applied of it is to be
    /// taken back.
    Abort(Xid),
}

impl Ahead {
    /// The transaction.
    #[must_use]
    pub fn xid(&self) -> Xid {
        match self {
            Ahead::Part(part) | Ahead::Commit(part) => part.header.xid,
            Ahead::Abort(xid) => *xid,
        }
    }
}

/// The positions that go back to the source. Each only grows, and `durable <= applied <= received`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feedback {
    /// In our memory.
    pub received: SourceLsn,
    /// Committed on the target.
    pub applied: SourceLsn,
    /// Flushed on the target and recorded in its progress: what the slot may forget.
    pub durable: SourceLsn,
}

/// Where committed transactions come from.
pub trait ChangeSource: Send {
    /// What can go wrong.
    type Error: Fault;

    /// The next event, in commit order. Cancel-safe: dropping the future loses nothing.
    ///
    /// Not calling it is how back-pressure works; a source keeps its connection alive meanwhile.
    fn next(&mut self) -> impl Future<Output = Result<SourceEvent, Self::Error>> + Send;

    /// Sets the positions that the source is told from now on. Returns at once.
    fn report(&mut self, feedback: Feedback);

    /// Says what has become of a transaction of which parts were yielded ahead: `true` after [`Ahead::Commit`], when it is
    /// committed on the target; `false` at any time, when nothing of it is there. Returns at once. Only for sources that
    /// yield [`Ahead`].
    fn settle_ahead(&mut self, xid: Xid, committed: bool) {
        let _ = (xid, committed);
    }

    /// Tells the source the last reported positions and ends the stream in order.
    fn close(self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What a target says of a batch that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The progress that is now committed; `None` while a transaction in parts is unfinished.
    pub position: Option<SourceLsn>,
    /// `None`: the commit was flushed before this value was returned. `Some`: it is durable once the target has
    /// flushed its WAL up to here.
    pub durable_at: Option<TargetLsn>,
    /// Rows that an update or delete did not find. They were logged, with their keys.
    pub missing_rows: u64,
    /// Changes that were applied one by one after they could not be applied as sets.
    pub reapplied_changes: u64,
}

/// Where committed transactions go.
pub trait ChangeTarget: Send {
    /// What can go wrong.
    type Error: Fault;

    /// What the target had stored when it was opened.
    fn progress(&self) -> &Progress;

    /// Applies the batch and, unless it ends inside a transaction, commits it together with its position.
    ///
    /// Batches come in order; one that [continues](Batch::continues) follows the one that it continues. After an
    /// error, or when the future is dropped, the value may only be dropped: nothing of an uncommitted batch stays.
    fn apply(&mut self, batch: Batch) -> impl Future<Output = Result<Applied, Self::Error>> + Send;

    /// Another session of this target ([`AheadTarget`]) has committed a transaction and moved the progress to here.
    fn moved(&mut self, progress: Progress);

    /// Resolves once the target has work of its own to do, between two transactions of the source: it then wants an
    /// empty batch, whether or not the source has anything. Cancel-safe. Most targets never do.
    fn wanting(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// A second session of the target, for one transaction that still runs on the source, or for a batch that is applied while
/// the one before it still is. Dropping the value takes back what is not committed.
pub trait AheadTarget: Send {
    /// What can go wrong.
    type Error: Fault;

    /// Applies a part, to which everything is there that the source had yielded before it.
    ///
    /// # Errors
    /// Also when the part cannot be applied exactly as it stands: what needs a second attempt, or a word to somebody, is for
    /// the whole transaction, which can be applied again behind its commit.
    fn apply(&mut self, part: TransactionPart) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Commits what was applied, together with the position, provided that the progress stands at `applied`. `last` has the
    /// end, and changes only if they were not applied before.
    ///
    /// # Errors
    /// The commit may have happened all the same: the stored progress says.
    fn commit(
        &mut self,
        last: TransactionPart,
        applied: SourceLsn,
    ) -> impl Future<Output = Result<Applied, Self::Error>> + Send;

    /// Applies a batch of whole transactions while the batch before it, which changes other rows, is still being applied, and
    /// holds the commit back. `false`: this batch has to go by itself, and the value may only be dropped.
    ///
    /// # Errors
    /// As of [`AheadTarget::apply`].
    fn prepare(&mut self, batch: &Batch) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Makes sure that nobody waits for what a batch that was prepared has locked.
    ///
    /// # Errors
    /// Also when somebody does: the batch before it may be among them, and would wait for ever.
    fn look(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Commits the batch that was prepared, together with its position, provided that the progress stands at `applied`.
    ///
    /// # Errors
    /// The commit may have happened all the same: the stored progress says.
    fn commit_prepared(
        &mut self,
        batch: &Batch,
        applied: SourceLsn,
    ) -> impl Future<Output = Result<Applied, Self::Error>> + Send;
}

/// Tells how far the target has flushed, on a connection of its own, so that it answers while a batch is applied.
pub trait FlushProbe: Send {
    /// What can go wrong.
    type Error: Fault;

    /// How far the target's WAL is flushed. Also serves as the sign that the target is alive.
    fn flushed(&mut self) -> impl Future<Output = Result<TargetLsn, Self::Error>> + Send;
}
