//! What the session does about a transaction that goes ahead of its commit.
//!
//! What may not enter: how long it may go on, and why not (`crate::ahead`).

use relevo_model::{Applied, ChangeSource, Progress, TransactionPart};
use tokio::time::Instant;

use super::{InHand, Session, Way};
use crate::ahead::{Done, Obstacle};
use crate::{AppliedBatch, FlowError, FlowEvent};

impl<S: ChangeSource> Session<'_, S> {
    /// Brings the transaction on that goes ahead of its commit, if there is one.
    pub(super) fn go_ahead(&mut self) -> Result<(), FlowError> {
        let now = Instant::now();
        let batch_since = self.in_hand.as_ref().map(|batch| batch.since);
        if let Some(obstacle) = self.ahead.obstacle(self.gate.limit().is_some(), batch_since, now) {
            self.take_back(&obstacle);
        }
        self.ahead.hand_over(now);
        if let Some(last) = self.ahead.committed() {
            let commit_time = last.header.commit_time;
            self.observe_oldest(Some(commit_time));
        }
        let others = self.in_hand.is_some() || self.next.is_some() || self.beside.holds();
        if others || self.batcher.waiting_bytes() > 0 || self.order.inside() {
            return Ok(());
        }
        let Some(last) = self.ahead.commit(self.idle.stored()) else { return Ok(()) };
        // As if it had come in only now; should it not commit, the session ends, or it comes in again.
        let mut order = self.order.clone();
        order.part(&TransactionPart { first: true, ..last.clone() })?;
        self.observer.event(FlowEvent::HandedOver { transactions: 1, bytes: last.size_bytes as u64 });
        self.in_hand = Some(InHand {
            since: now,
            position: last.end,
            bytes: last.size_bytes,
            commit_times: Vec::new(),
            way: Way::Ahead(order, last.header),
        });
        Ok(())
    }

    /// Gives up what goes ahead of its commit; it comes again behind it.
    fn take_back(&mut self, obstacle: &Obstacle) {
        if let Some(xid) = self.ahead.take_back(obstacle) {
            self.source.settle_ahead(xid, false);
            self.observer.event(FlowEvent::Ahead { committed: false });
        }
    }

    /// The second session has applied a part, or committed, or failed.
    pub(super) fn went_ahead(&mut self, result: Result<Done, FlowError>) -> Result<(), FlowError> {
        match result {
            Ok(Done::Committed(applied)) => self.committed_ahead(applied),
            Ok(Done::Applied | Done::MustGoAlone) => {
                self.ahead.part_applied();
                Ok(())
            }
            // The server may have committed all the same: the stored progress will say.
            Err(error) if self.ahead.is_committing() => {
                self.ahead.lost();
                Err(error)
            }
            Err(error) => {
                self.take_back(&Obstacle::error(&error));
                Ok(())
            }
        }
    }

    fn committed_ahead(&mut self, applied: Applied) -> Result<(), FlowError> {
        let Some(InHand { since, position: handed, way: Way::Ahead(order, header), .. }) =
            self.in_hand.take()
        else {
            return Ok(());
        };
        let (Some(position), Some((xid, done))) = (handed, self.ahead.transaction_committed()) else {
            return Ok(());
        };
        if applied.position != handed {
            return Err(FlowError::WrongPosition { handed, stored: applied.position });
        }
        self.source.settle_ahead(xid, true);
        self.observer.event(FlowEvent::Ahead { committed: true });
        self.order = order;
        let (commit_lsn, commit_time) = (Some(header.commit_lsn), Some(header.commit_time));
        self.apply.moved(Progress { applied: position, commit_lsn, commit_time })?;
        let took = done.took + since.elapsed();
        self.committed(&AppliedBatch { position, took, ..done }, applied.durable_at);
        Ok(())
    }
}
