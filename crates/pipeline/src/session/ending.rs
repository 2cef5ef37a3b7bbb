//! How a session ends: in order when it was asked to, by dropping both ends after an error.
//!
//! What may not enter: anything that brings the target further than the batch that it has in hand.

use relevo_model::{ChangeSource, Fault, FaultClass, Side, SourceLsn};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::{Outcome, Session};
use crate::FlowError;

impl<S: ChangeSource> Session<'_, S> {
    /// Stops in order: the batch in hand, its durability, the last report; each within its limit.
    pub(super) async fn finish(mut self, asked: Instant) -> Outcome {
        self.finish_batch_in_hand(asked + self.options.grace).await;
        // From here and not from the limit before: a batch that was done at once gives nobody else more time.
        let durable_until = Instant::now() + self.options.durability_grace;
        while self.durability.pending() {
            match timeout_at(durable_until, self.probe.flushed()).await {
                Ok(Ok(flushed)) => self.flushed(flushed),
                Ok(Err(error)) => {
                    warn!(kind = error.kind(), "what was applied last is not confirmed: {}", error.text());
                    break;
                }
                Err(_) => {
                    info!(
                        "the target has not flushed what was applied last; it is confirmed after the next start"
                    );
                    break;
                }
            }
        }
        self.publish();
        let sound = self.sound();
        let position = self.durability.durable();
        let close_until = Instant::now() + self.options.close_grace;
        let Self { source, apply, probe, ahead, beside, .. } = self;
        // An unfinished batch is rolled back by dropping the target.
        let second = async { tokio::join!(ahead.stop(close_until), beside.stop(close_until)) };
        tokio::join!(apply.stop(close_until), probe.stop(close_until), second, async {
            match timeout_at(close_until, source.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!("the source did not end the stream in order: {error}"),
                Err(_) => debug!("the source did not end the stream in time"),
            }
        });
        info!(confirmed = %position, "stopped");
        Outcome { end: Ok(()), sound, singly_until: SourceLsn::ZERO }
    }

    /// Waits for the batch in hand, unless it could not commit anyway because its transaction is unfinished.
    async fn finish_batch_in_hand(&mut self, until: Instant) {
        if self.in_hand.as_ref().is_none_or(|batch| batch.position.is_none()) {
            return;
        }
        let result = timeout_at(until, self.batch_in_hand_done()).await;
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(kind = error.kind(), "the batch in hand was not applied: {}", error.text())
            }
            Err(_) => info!("the batch in hand did not commit in time; it comes again after the next start"),
        }
    }

    async fn batch_in_hand_done(&mut self) -> Result<(), FlowError> {
        if self.beside.is_committing() {
            let result = self.beside.result().await;
            return self.went_beside(result);
        }
        if self.ahead.is_committing() {
            let result = self.ahead.result().await;
            return self.went_ahead(result);
        }
        let applied = self.apply.result().await?;
        self.applied(applied)
    }

    /// How far the next session goes transaction by transaction. Of a batch of several, those before the one that is in the way
    /// have to come in: what mends the one may be what breaks another, as when a table was renamed between the two.
    pub(super) fn singly_after(&self, end: &Result<(), FlowError>) -> SourceLsn {
        let is_in_the_way =
            matches!(end, Err(error) if error.class() == FaultClass::Blocked && error.side() == Side::Target);
        let several = self.in_hand.as_ref().filter(|batch| is_in_the_way && batch.commit_times.len() > 1);
        several.and_then(|batch| batch.position).unwrap_or_default().max(self.singly_until)
    }

    /// Drops both ends after an error and waits until the target's connection is gone.
    pub(super) async fn dismantle(mut self, failed_at: Instant) {
        if self.beside.holds() {
            // It may be what was in the way: two sessions that wait for each other, of which the server ends the first.
            self.beside.refuses();
        }
        let until = failed_at + self.options.close_grace;
        let Self { source, apply, probe, ahead, beside, .. } = self;
        drop(source);
        tokio::join!(apply.stop(until), probe.stop(until), ahead.stop(until), beside.stop(until));
    }
}
