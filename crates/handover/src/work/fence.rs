//! The steps around the fence: setting it, waiting behind it, taking it back.

use std::time::{Duration, Instant};

use relevo_catalog::Selection;
use relevo_model::SourceLsn;
use relevo_snapshot::{SequenceMode, Sequences};
use relevo_state::{self as state, HandoverKind, Hook, NodeRecord, RoleNote};
use tracing::info;

use super::{LOOK, Run, until};
use crate::guard::Place;
use crate::{HandoverError, hooks, sql};

/// How long a standby whose source is gone may go on applying what it has received.
const SETTLE_LIMIT: Duration = Duration::from_secs(600);
/// A transaction that was committed so long after the failover began shows that the primary lives, in microseconds: two
/// servers' clocks may differ by less.
const CLOCKS_US: i64 = 5_000_000;
/// For so long nothing must move before that counts as the end.
const STILL: Duration = Duration::from_millis(1500);
/// For how long a drained standby stands still by itself, in seconds.
const STAND_SECONDS: u32 = 60;
/// By how many values a sequence is moved ahead when nobody can say where the old primary's stands.
const SEQUENCE_MARGIN: i64 = 10_000;

impl Run<'_> {
    pub(super) async fn fence(&mut self, node: &str, promised_to: Option<&str>) -> Result<(), HandoverError> {
        let seen = self.see(node).await?;
        // A node that follows another by now is closed already, and that would count as a fence of its own. One that has lost its
        // memory may be fenced by force.
        let may = |record: &NodeRecord| self.plan.kind != HandoverKind::Switchover || record.primary == node;
        let Some(record) = seen.record.clone().filter(may) else {
            let found = seen.record.map_or_else(
                || "it knows no role".to_owned(),
                |record| format!("primary is {} since epoch {}", record.primary, record.epoch),
            );
            return Err(HandoverError::Overtaken { node: node.to_owned(), found });
        };
        // Due before it stands, so that whoever is killed behind it has not kept it for himself. While we hold the lock nobody
        // else tells of a fence that is only about to stand.
        self.work.hooks.make_due(Hook::OnFence, &mut self.record);
        if self.record.is_untold(Hook::OnFence) {
            let cluster = self.work.cluster;
            hooks::claim(cluster, node, self.session(node).await?).await?;
        }
        self.note(node).await?;
        if record.fenced && record.fence_lsn.is_some() && record.promised_to.as_deref() == promised_to {
            // By an interrupted command: writers wait since then.
            let age = record.now.unix_us() - record.updated_at.unix_us();
            let age = Duration::from_micros(u64::try_from(age).unwrap_or(0));
            self.paused = Instant::now().checked_sub(age);
            self.record.old_lsn = record.fence_lsn;
            let session = self.session(node).await?;
            let place =
                Place { client: session, node, database: &seen.identity.database, superuser: seen.superuser };
            place.mark().await?;
            return self.tell(node, Hook::OnFence).await;
        }
        let role = RoleNote {
            epoch: record.epoch,
            primary: &record.primary,
            fenced: true,
            fence_lsn: None,
            promised_to,
        };
        let patience = self.work.max_pause;
        let session = self.session(node).await?;
        let place =
            Place { client: session, node, database: &seen.identity.database, superuser: seen.superuser };
        let fenced = place.fence(role, patience).await?;
        self.paused = Some(fenced.since);
        self.record.old_lsn = Some(fenced.lsn);
        self.tell(node, Hook::OnFence).await
    }

    /// What is left of the time in which nobody may write; a command that goes on with an interrupted one has it anew.
    pub(super) fn budget(&self) -> Duration {
        let spent = self.paused.map_or(Duration::ZERO, |since| since.elapsed());
        match spent > self.work.max_pause && self.plan.resumes.is_some() {
            true => self.work.max_pause,
            false => self.work.max_pause.saturating_sub(spent),
        }
    }

    pub(super) async fn drain(&mut self, node: &str, from: &str) -> Result<(), HandoverError> {
        let wanted = self.fence_of(from).await?;
        let began = Instant::now();
        match self.applied_reaches(node, wanted, self.budget()).await? {
            Ok(()) => self.stand_still(node).await,
            Err(applied) => Err(HandoverError::TooSlow {
                node: node.to_owned(),
                waited_ms: began.elapsed().as_millis(),
                applied: applied.map_or_else(|| "no position".to_owned(), |lsn| lsn.to_string()),
                wanted: wanted.to_string(),
            }),
        }
    }

    /// Nothing more is applied until the node has the role, or for a while: whoever applies would otherwise meet the end of
    /// its flow as an error.
    async fn stand_still(&mut self, node: &str) -> Result<(), HandoverError> {
        let flow = self.work.cluster.flow_into(node)?;
        let session = self.session(node).await?;
        let held = state::hold(&**session, &flow, None, STAND_SECONDS).await;
        held.map(drop).map_err(HandoverError::state(node))
    }

    /// Half of what is left of the time, so that a standby that is slow does not take the switchover with it.
    pub(super) async fn drain_others(&mut self, nodes: &[String], from: &str) {
        let Ok(wanted) = self.fence_of(from).await else { return };
        for node in nodes {
            let limit = self.budget() / 2;
            match self.applied_reaches(node, wanted, limit).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    self.left_behind(node, "it has not caught up in time; it goes on by itself once it has");
                }
                Err(error) => self.left_behind(node, &error.to_string()),
            }
        }
    }

    pub(super) fn left_behind(&mut self, node: &str, why: &str) {
        self.done.warnings.push(format!("{node} does not follow yet: {why}"));
        self.done.left_behind.push(node.to_owned());
    }

    async fn fence_of(&mut self, from: &str) -> Result<SourceLsn, HandoverError> {
        let session = self.session(from).await?;
        let record = state::node(&**session).await.map_err(HandoverError::state(from))?;
        record.and_then(|record| record.fence_lsn).ok_or_else(|| HandoverError::Overtaken {
            node: from.to_owned(),
            found: "it is not fenced any more".to_owned(),
        })
    }

    /// `Err`: how far it came.
    async fn applied_reaches(
        &mut self,
        node: &str,
        wanted: SourceLsn,
        limit: Duration,
    ) -> Result<Result<(), Option<SourceLsn>>, HandoverError> {
        let flow = self.work.cluster.flow_into(node)?;
        let session = self.session(node).await?;
        let mut last = None;
        let reached = until(limit, async || {
            let progress = state::progress(&**session, &flow).await.map_err(HandoverError::state(node))?;
            last = progress.map(|progress| progress.progress.applied);
            Ok(last.filter(|applied| *applied >= wanted).map(drop))
        });
        Ok(reached.await?.ok_or(last))
    }

    pub(super) async fn sequences(&mut self, from: &str, to: &str) -> Result<(), HandoverError> {
        let selection: Selection = self.work.cluster.selection.clone();
        self.session(from).await?;
        self.session(to).await?;
        let (Some(source), Some(target)) = (self.sessions.get(from), self.sessions.get(to)) else {
            return Ok(());
        };
        let done = Sequences::new(selection).set(source, target, SequenceMode::Exactly).await;
        let done = done.map_err(HandoverError::snapshot(to))?;
        for (sequence, problem) in done.problems {
            self.done.warnings.push(relevo_snapshot::sequence_stays(&sequence, &problem));
        }
        Ok(())
    }

    pub(super) async fn advance_sequences(&mut self, node: &str) -> Result<(), HandoverError> {
        let session = self.session(node).await?;
        let error = || HandoverError::sql(node, "moving the sequences ahead");
        // A sequence follows once in a heartbeat; the rows may be further.
        let owned = session.query(sql::OWNED_SEQUENCES, &[]).await.map_err(error())?;
        for row in &owned {
            let statement = sql::catch_up(row.get(0), row.get(1), row.get(2), row.get(3));
            session.batch_execute(&statement).await.map_err(error())?;
        }
        session
            .query_one(sql::ADVANCE_SEQUENCES, &[&SEQUENCE_MARGIN])
            .await
            .map(drop)
            .map_err(HandoverError::sql(node, "moving the sequences ahead"))
    }

    /// Waits until the flow stands still and nobody is in the middle of a transaction of it.
    pub(super) async fn settle(&mut self, node: &str) -> Result<(), HandoverError> {
        self.note(node).await?;
        let flow = self.work.cluster.flow_into(node)?;
        let from = self.plan.from.clone().unwrap_or_default();
        let session = self.session(node).await?;
        let record = state::node(&**session).await.map_err(HandoverError::state(node))?;
        let lives_us = record.map_or(i64::MAX, |record| record.now.unix_us().saturating_add(CLOCKS_US));
        let mut last = None;
        let mut since = Instant::now();
        let settled = until(SETTLE_LIMIT, async || {
            let progress = state::progress(&**session, &flow).await.map_err(HandoverError::state(node))?;
            let commit_time = progress.as_ref().and_then(|progress| progress.progress.commit_time);
            if commit_time.is_some_and(|at| at.unix_us() > lives_us) {
                return Err(HandoverError::PrimaryLives { primary: from.clone(), node: node.to_owned() });
            }
            let applied = progress.map(|progress| progress.progress.applied);
            let busy: bool = session
                .query_one(sql::APPLIES_NOW, &[&flow.lock_key()])
                .await
                .map_err(HandoverError::sql(node, "looking whether somebody applies"))?
                .get(0);
            if applied != last || busy {
                last = applied;
                since = Instant::now();
            }
            tokio::time::sleep(LOOK * 10).await;
            Ok((since.elapsed() >= STILL).then_some(()))
        });
        if settled.await?.is_none() {
            info!(
                "{node} is still applying after {SETTLE_LIMIT:?}; what it has not committed by then is not waited for"
            );
        }
        Ok(())
    }

    pub(super) async fn unfence(&mut self, node: &str) -> Result<(), HandoverError> {
        let seen = self.see(node).await?;
        let Some(record) = seen.record.filter(|record| record.fenced) else { return Ok(()) };
        if record.primary != node {
            return Err(HandoverError::Overtaken {
                node: node.to_owned(),
                found: format!("primary is {} since epoch {}", record.primary, record.epoch),
            });
        }
        if let Some(paused) = self.paused.take() {
            self.done.pause = Some(paused.elapsed());
        }
        let session = self.session(node).await?;
        let place =
            Place { client: session, node, database: &seen.identity.database, superuser: seen.superuser };
        let script = place.unfence_script().await?;
        let error = || HandoverError::sql(node, "taking the fence back");
        session.batch_execute("BEGIN").await.map_err(error())?;
        let role = RoleNote {
            epoch: record.epoch,
            primary: node,
            fenced: false,
            fence_lsn: None,
            promised_to: None,
        };
        state::note_role(&**session, role).await.map_err(HandoverError::state(node))?;
        session.batch_execute(&script).await.map_err(error())?;
        session.batch_execute("COMMIT").await.map_err(error())?;
        // Who was to get the role goes on at once, if it can be reached; otherwise by itself after a while.
        let to = self.record.to.clone();
        if to != node && self.session(&to).await.is_ok() {
            let flow = self.work.cluster.flow_into(&to)?;
            let session = self.session(&to).await?;
            state::release(&**session, &flow).await.map_err(HandoverError::state(&to))?;
        }
        Ok(())
    }
}
