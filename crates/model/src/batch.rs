//! Batches: whole transactions that become visible on the target together, or a part of one large one.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Change, QualifiedName, SourceLsn, TransactionHeader};

/// A transaction of the source, or a part of one that is too large to be held whole.
///
/// The parts of one transaction follow each other without anything between them. The first has `first`, the
/// last has `end`; a small transaction is one part that has both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionPart {
    /// The transaction that this is (a part of).
    pub header: Arc<TransactionHeader>,
    /// No part of the transaction came before this one.
    pub first: bool,
    /// The changes, in the source's order.
    pub changes: Vec<Change>,
    /// On the last part: the end of the commit record, where the next transaction may begin. This is the
    /// position that is recorded as applied and confirmed to the slot.
    pub end: Option<SourceLsn>,
    /// What the changes occupy in memory, roughly, in bytes.
    pub size_bytes: usize,
}

/// What a target applies in one go: zero or more transaction parts, then possibly a position to move to.
///
/// Only the first part can continue a transaction that an earlier batch began, and only the last part can
/// leave one unfinished.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The parts, in commit order.
    pub parts: Vec<TransactionPart>,
    /// The position that is reached once all parts are applied: the end of the last whole transaction, or a
    /// later keepalive position behind it. `None` when the batch ends inside a transaction.
    pub position: Option<SourceLsn>,
    /// What all parts occupy in memory, roughly, in bytes.
    pub size_bytes: usize,
    /// Tables that arrive with this batch: their rows were copied beside the stream, its parts (and those of the batches
    /// that it continues) are what they have missed since, and from here on they follow it. The position is the one
    /// that was reached before.
    pub joins: Vec<QualifiedName>,
}

impl Batch {
    /// How many transactions end in this batch.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.parts.iter().filter(|part| part.end.is_some()).count()
    }

    /// How many changes the batch carries.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.parts.iter().map(|part| part.changes.len()).sum()
    }

    /// Whether the batch begins inside a transaction whose earlier parts were applied before.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.parts.first().is_some_and(|part| !part.first)
    }

    /// Whether the batch leaves a transaction unfinished: it may not be committed yet.
    #[must_use]
    pub fn unfinished(&self) -> bool {
        self.parts.last().is_some_and(|part| part.end.is_none())
    }
}

/// Collects what arrives while the target is busy and hands it over in batches, without ever waiting for more.
///
/// The batcher is pure: it decides from what it holds, not from time. Whenever the target is idle, call
/// [`Batcher::take`]: what is there goes at once, together.
/// The concatenation of all batches equals the input (property-tested).
#[derive(Debug)]
pub struct Batcher {
    limit_bytes: usize,
    waiting: VecDeque<TransactionPart>,
    waiting_bytes: usize,
    /// A keepalive position behind everything that waits.
    position: Option<SourceLsn>,
    /// The last part that came in leaves its transaction unfinished, whether it still waits or was taken.
    inside: bool,
    /// The furthest position that came in: a batch never moves the target back.
    reached: SourceLsn,
}

impl Batcher {
    /// A batcher whose batches stop growing at `limit_bytes`. One part that is larger still goes alone.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            position: None,
            inside: false,
            reached: SourceLsn::ZERO,
        }
    }

    /// Adds the next part in the source's order.
    pub fn push(&mut self, part: TransactionPart) {
        self.waiting_bytes += part.size_bytes;
        // The part lies behind the keepalive: its own end will carry the position further.
        self.position = None;
        self.inside = part.end.is_none();
        self.reached = self.reached.max(part.end.unwrap_or_default());
        self.waiting.push_back(part);
    }

    /// Notes that the source has sent everything before `position`.
    ///
    /// Inside a transaction such a position means nothing and is dropped; so is one that was reached before.
    pub fn keepalive(&mut self, position: SourceLsn) {
        if !self.inside && position > self.reached {
            self.reached = position;
            self.position = Some(position);
        }
    }

    /// What waits, in bytes: what back-pressure is decided by.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The next batch, or `None` when nothing waits. It ends at a transaction's end whenever a whole
    /// transaction fits; only a transaction that is itself in several parts leaves it unfinished.
    pub fn take(&mut self) -> Option<Batch> {
        self.take_until(None)
    }

    /// The same, with nothing behind `limit` in it: no transaction begins that commits there or later, and no position
    /// lies beyond. A transaction that was begun goes on.
    pub fn take_until(&mut self, limit: Option<SourceLsn>) -> Option<Batch> {
        self.gather(limit, false)
    }

    /// The same, with at most one transaction in it: one of them could not be applied, and those before it can.
    pub fn take_one_until(&mut self, limit: Option<SourceLsn>) -> Option<Batch> {
        self.gather(limit, true)
    }

    fn gather(&mut self, limit: Option<SourceLsn>, one: bool) -> Option<Batch> {
        let mut batch = Batch::default();
        while let Some(part) = self.waiting.front() {
            let fits = batch.size_bytes + part.size_bytes <= self.limit_bytes && !(one && part.first);
            if !batch.parts.is_empty() && !fits {
                break;
            }
            // A transaction in several parts never rides at the end of a batch of whole ones: its last part
            // may be long in coming, and the whole ones would stay invisible until then.
            let opens = part.first && part.end.is_none();
            if !batch.parts.is_empty() && opens {
                break;
            }
            if part.first && limit.is_some_and(|limit| part.header.commit_lsn >= limit) {
                break;
            }
            let Some(part) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= part.size_bytes;
            batch.size_bytes += part.size_bytes;
            batch.position = part.end;
            batch.parts.push(part);
        }
        if self.waiting.is_empty() && !batch.unfinished() {
            let within = |position: &mut SourceLsn| limit.is_none_or(|limit| *position <= limit);
            batch.position = self.position.take_if(within).or(batch.position);
        }
        (!batch.parts.is_empty() || batch.position.is_some()).then_some(batch)
    }
}
