//! The step that moves the role.

use std::time::Duration;

use relevo_model::SourceLsn;
use relevo_state::{self as state, RoleNote};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;

use super::Run;
use crate::guard::Place;
use crate::observe::Seen;
use crate::{HandoverError, sql};

/// How often it is tried again when it meets whoever still applies at the wrong moment.
const ATTEMPTS: usize = 10;
const LOCK_TIMEOUT: &str = "2s";

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
        for attempt in 1.. {
            match self.try_promote(node, from, epoch, &seen).await {
                Ok(()) => break,
                Err(error) => {
                    // The session may be in the middle of its transaction.
                    self.sessions.remove(node);
                    let passes = matches!(&error, HandoverError::Sql { source, .. }
                        | HandoverError::State { source: state::StateError::Sql { source, .. }, .. }
                        if matches!(source.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::LOCK_NOT_AVAILABLE)));
                    if !passes || attempt == ATTEMPTS {
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
        self.work.hook("on_promote", &self.record).await;
        Ok(())
    }

    async fn try_promote(
        &mut self,
        node: &str,
        from: &str,
        epoch: u64,
        seen: &Seen,
    ) -> Result<(), HandoverError> {
        let flow = self.work.cluster.flow_into(node)?;
        let planned = self.plan.kind == state::HandoverKind::Switchover;
        let fence = self.record.old_lsn.filter(|_| planned);
        let mut record = self.record.clone();
        let session = self.session(node).await?;
        let place =
            Place { client: session, node, database: &seen.identity.database, superuser: seen.superuser };
        let error = || HandoverError::sql(node, "taking the role");
        let failed = || HandoverError::state(node);
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
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
