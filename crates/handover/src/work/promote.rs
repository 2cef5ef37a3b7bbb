//! The step that moves the role.

use std::time::{Duration, Instant};

use relevo_model::SourceLsn;
use relevo_state::{self as state, Hook, RoleNote};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;
use tracing::info;

use super::Run;
use crate::guard::Place;
use crate::observe::Seen;
use crate::{HandoverError, armed, hooks, sql};

/// How long it is tried again after a loss when it meets whoever still applies at the wrong moment, or somebody's lock.
const PATIENCE: Duration = Duration::from_secs(20);
/// The shortest and the longest wait for a lock in one attempt.
const LOCK_TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

impl Run<'_> {
    /// In one transaction: nobody applies to this node any more, the epoch is ours, ordinary sessions may write, and from
    /// which position of its WAL others can follow is written down.
    pub(super) async fn promote(&mut self, node: &str, from: &str, epoch: u64) -> Result<(), HandoverError> {
        let seen = self.see(node).await?;
        if let Some(record) = &seen.record
            && record.epoch == epoch
            && record.primary == node
        {
            return Ok(());
        }
        let planned = self.plan.kind == state::HandoverKind::Switchover;
        // Nobody may write while a switchover waits here; after a loss nobody can in any case.
        let limit = if planned { self.budget() } else { PATIENCE };
        let began = Instant::now();
        loop {
            if planned {
                self.hold_fence(from, node).await?;
            }
            let left = limit.saturating_sub(began.elapsed()).clamp(LOCK_TIMEOUTS.0, LOCK_TIMEOUTS.1);
            let done = self.try_promote((node, from, epoch), &seen, left).await;
            if planned {
                // Should that not arrive, it ends with the session.
                let session = self.session(from).await?;
                let _ = session.batch_execute("COMMIT").await;
            }
            match done {
                Ok(()) => break,
                Err(error) => {
                    // The session may be in the middle of its transaction.
                    self.sessions.remove(node);
                    let passes = matches!(
                        error.sql_state(),
                        Some(SqlState::T_R_DEADLOCK_DETECTED | SqlState::LOCK_NOT_AVAILABLE)
                    );
                    if !passes || began.elapsed() >= limit {
                        self.record.new_lsn = None;
                        return Err(error);
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if let Some(paused) = self.paused.take() {
            self.done.pause = Some(paused.elapsed());
            self.record.pause_ms = i64::try_from(paused.elapsed().as_millis()).ok();
        }
        self.tell(node, Hook::OnPromote).await?;
        // The Relevo beside it does the same; the role has moved in any case.
        let disarmed = armed::disarm(self.session(node).await?, node, &[]).await;
        if let Err(error) = disarmed {
            info!(%error, "armed slots on {node} are left to its Relevo");
        }
        Ok(())
    }

    /// Keeps the old primary's fence where it is until its session's transaction ends: whoever wants to take it back waits, and
    /// then finds that the role has moved.
    async fn hold_fence(&mut self, from: &str, node: &str) -> Result<(), HandoverError> {
        let fence = self.record.old_lsn;
        let session = self.session(from).await?;
        session.batch_execute("BEGIN").await.map_err(HandoverError::sql(from, "holding the fence"))?;
        let known = state::hold_node(&**session).await.map_err(HandoverError::state(from))?;
        let stands = known.is_some_and(|known| {
            known.fenced && known.promised_to.as_deref() == Some(node) && known.fence_lsn == fence
        });
        if stands {
            return Ok(());
        }
        self.sessions.remove(from);
        Err(HandoverError::Overtaken {
            node: from.to_owned(),
            found: format!("it is not fenced for {node} any more"),
        })
    }

    async fn try_promote(
        &mut self,
        (node, from, epoch): (&str, &str, u64),
        seen: &Seen,
        wait: Duration,
    ) -> Result<(), HandoverError> {
        let flow = self.work.cluster.flow_into(node)?;
        let planned = self.plan.kind == state::HandoverKind::Switchover;
        // Due in the transaction that makes it so; while we hold the lock nobody else runs it.
        self.work.hooks.make_due(Hook::OnPromote, &mut self.record);
        if self.record.is_untold(Hook::OnPromote) {
            let cluster = self.work.cluster;
            hooks::claim(cluster, node, self.session(node).await?).await?;
        }
        let fence = self.record.old_lsn.filter(|_| planned);
        let mut record = self.record.clone();
        let session = self.session(node).await?;
        let place =
            Place { client: session, node, database: &seen.identity.database, superuser: seen.superuser };
        let error = || HandoverError::sql(node, "taking the role");
        let failed = || HandoverError::state(node);
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '{}ms'", wait.as_millis());
        session.batch_execute(&begin).await.map_err(error())?;
        let known = state::hold_node(&**session).await.map_err(failed())?;
        if let Some(known) = known.filter(|known| known.epoch >= epoch) {
            let found = format!("primary is {} since epoch {}", known.primary, known.epoch);
            return Err(HandoverError::Overtaken { node: node.to_owned(), found });
        }
        // Whoever applies has committed before this, or never will.
        let stored = state::hold_progress(&**session, &flow).await.map_err(failed())?;
        let progress = state::progress(&**session, &flow).await.map_err(failed())?;
        if let Some(fence) = fence
            && stored.is_none_or(|applied| applied < fence)
        {
            let at = stored.map_or_else(|| "no position".to_owned(), |applied| applied.to_string());
            let found = format!("it is at {at}, before the fence at {fence}");
            return Err(HandoverError::Overtaken { node: node.to_owned(), found });
        }
        state::end_flow(&**session, &flow).await.map_err(failed())?;
        let script = place.unfence_script().await?;
        session.batch_execute(&script).await.map_err(error())?;
        let role = RoleNote { epoch, primary: node, fenced: false, fence_lsn: None, promised_to: None };
        state::note_role(&**session, role).await.map_err(failed())?;
        let detail = format!("node {node} is the primary");
        state::set_state(&**session, &flow, state::FlowState::Stopped, Some(&detail))
            .await
            .map_err(failed())?;
        let row = session.query_one(sql::INSERT_LSN, &[]).await.map_err(error())?;
        record.new_lsn = Some(SourceLsn::new(row.get::<_, PgLsn>(0).into()));
        if let Some(progress) = &progress {
            record.old_system_id = Some(progress.source.system_id.clone());
            // After a fence everything up to it has arrived; otherwise just what was applied.
            record.old_lsn = fence.or(Some(progress.progress.applied));
            record.old_commit_time = progress.progress.commit_time;
        }
        if !planned {
            record.loss = Some(loss(from, &record));
        }
        state::put_handover(&**session, &record).await.map_err(failed())?;
        session.batch_execute("COMMIT").await.map_err(error())?;
        self.done.old_lsn = record.old_lsn;
        self.done.old_commit_time = record.old_commit_time;
        self.record = record;
        Ok(())
    }
}

/// What may be missing, in words.
fn loss(from: &str, record: &state::HandoverRecord) -> String {
    let position = record.old_lsn.map_or_else(|| "no position".to_owned(), |lsn| lsn.to_string());
    match record.old_commit_time.and_then(|at| jiff::Timestamp::from_microsecond(at.unix_us()).ok()) {
        Some(at) => format!(
            "whatever {from} committed behind {position}; the last transaction that arrived was committed at {at:.3}"
        ),
        None => format!("whatever {from} committed behind {position}"),
    }
}
