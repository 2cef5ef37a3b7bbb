//! What the session does about the batch behind the one in hand.
//!
//! Two batches that write different rows may be applied at once, as long as the second commits behind the first: nobody sees
//! the order of anything but the commits. What may not enter: how the second session is kept (`crate::beside`).

use std::sync::Arc;

use relevo_model::{Applied, Batch, ChangeSource, Progress};
use tokio::time::Instant;
use tracing::debug;

use super::{InHand, Session, Way};
use crate::ahead::Done;
use crate::writes::Writes;
use crate::{FlowError, FlowEvent};

impl<S: ChangeSource> Session<'_, S> {
    /// Gives the target a batch, and its second session the one behind it, if a whole one waits and writes other rows.
    pub(super) fn give_two(&mut self, first: Batch) -> Result<(), FlowError> {
        let writes = if self.may_go_beside(&first) { Writes::of(&first) } else { None };
        self.give(first)?;
        let Some(writes) = writes else { return Ok(()) };
        let Some(second) = self.batcher.take() else { return Ok(()) };
        let whole = !second.unfinished() && !second.continues() && !second.parts.is_empty();
        if whole && writes.are_apart_from(&second) {
            self.next = self.beside.take(second, Instant::now(), || self.ahead.session());
        } else {
            self.beside.refuses();
            self.next = Some(second);
        }
        Ok(())
    }

    /// Whether another batch might go beside this one. Only a whole one does: fewer changes had better wait for more.
    fn may_go_beside(&mut self, first: &Batch) -> bool {
        self.batcher.waiting_bytes() >= self.options.batch_bytes
            && !first.unfinished()
            && !first.continues()
            && self.next.is_none()
            && self.gate.limit().is_none()
            && self.reached >= self.singly_until
            && self.ahead.leaves_room()
            && self.beside.allows()
    }

    /// Commits the batch that went beside another one, once that is there.
    pub(super) fn go_beside(&mut self) {
        if !self.beside.holds() || self.beside.is_committing() {
            return;
        }
        let now = Instant::now();
        if !self.ahead.leaves_room() {
            return self.take_back_beside("tables are on their way");
        }
        if let Some(first) = &self.in_hand {
            return self.beside.look(first.since, now);
        }
        self.observe_oldest(self.beside.oldest());
        if self.beside.takes_too_long(now) {
            return self.take_back_beside("it takes too long");
        }
        let Some((batch, since)) = self.beside.commit(self.idle.stored()) else { return };
        let commit_times = self.count(&batch);
        self.in_hand = Some(InHand {
            since,
            position: batch.position,
            bytes: batch.size_bytes,
            commit_times,
            way: Way::Beside(batch),
        });
    }

    fn take_back_beside(&mut self, why: &str) {
        debug!("a batch beside the one in hand is taken back and goes behind it: {why}");
        self.next = self.beside.take_back();
        self.observer.event(FlowEvent::Beside { committed: false });
    }

    /// The second session has applied a batch, or committed it, or failed.
    pub(super) fn went_beside(&mut self, result: Result<Done, FlowError>) -> Result<(), FlowError> {
        match result {
            Ok(Done::Committed(applied)) => self.committed_beside(&applied),
            Ok(Done::Applied) => {
                self.beside.is_prepared(Instant::now());
                Ok(())
            }
            Ok(Done::MustGoAlone) => {
                self.take_back_beside("it has to go alone");
                Ok(())
            }
            // The server may have committed all the same: the stored progress will say.
            Err(error) if self.beside.is_committing() => Err(error),
            Err(error) => {
                self.take_back_beside(&error.text());
                Ok(())
            }
        }
    }

    fn committed_beside(&mut self, applied: &Applied) -> Result<(), FlowError> {
        let Some(InHand { way: Way::Beside(batch), .. }) = &self.in_hand else { return Ok(()) };
        let last = batch.parts.last().map(|part| Arc::clone(&part.header));
        self.beside.committed(Instant::now());
        self.observer.event(FlowEvent::Beside { committed: true });
        if let (Some(position), Some(header)) = (applied.position, last) {
            let (commit_lsn, commit_time) = (Some(header.commit_lsn), Some(header.commit_time));
            self.apply.moved(Progress { applied: position, commit_lsn, commit_time })?;
        }
        self.applied(*applied)
    }
}
