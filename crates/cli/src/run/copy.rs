//! How the initial copy begins: publications, slot, schema, and the first progress. The rows follow beside the stream
//! ([`crate::run::copier`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relevo_connect::ConnInfo;
use relevo_model::{FaultClass, FlowName, Side, SourceIdentity};
use relevo_snapshot::{CopyOptions, CopyPlan, Existing, ExportedSnapshot, HeldSnapshot, SchemaMode, Stop};
use relevo_source::{ExpectedSlot, ReplicationConnection, SlotLifetime, SlotSnapshot, inspect_slot, verdict};
use relevo_state::{self as state, FlowLock, FlowState};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::SchemaArg;
use crate::run::alive::while_alive;
use crate::run::board::FlowBoard;
use crate::run::copier::Rows;
use crate::run::fault::{StartFault, interrupted};
use crate::run::publications::Publications;
use crate::run::sides::{Facts, Sides, Started, tell};
use crate::settings::RunSettings;

/// How long dropping the slot of an interrupted copy may take.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// How long to wait for the process that made the slot to end.
const DROP_PAUSE: Duration = Duration::from_millis(50);
/// The slot is still held by somebody.
const IN_USE: &str = "slot_in_use";
/// Ends the process that makes the slot, if it is one of this flow's. A parameter: the name of the slot, which is what
/// the flow's sessions are called as well.
const END_MAKER: &str = "
SELECT pg_catalog.pg_terminate_backend(a.pid)
  FROM pg_catalog.pg_replication_slots AS s JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
 WHERE s.slot_name = $1 AND a.application_name = $1";
/// The SQLSTATE object_in_use.
const OBJECT_IN_USE: &str = "55006";

/// What a copy is made with.
pub struct Copy<'a> {
    /// The settings.
    pub settings: &'a RunSettings,
    /// Where it is shown.
    pub board: &'a Arc<FlowBoard>,
    /// Both sides.
    pub sides: Sides,
    /// What they are.
    pub facts: Facts,
    /// The flow.
    pub flow: FlowName,
    /// Ends it.
    pub shutdown: &'a CancellationToken,
    /// The slot of the flow's name is of this attempt, or about to be.
    pub slot_is_ours: AtomicBool,
}

/// Prepares everything for stream and rows. When that is interrupted it leaves no slot behind, if it can help it: the next
/// attempt makes its own, and a forgotten slot fills the source's disk.
///
/// # Errors
/// Whatever is in the way.
pub async fn run(mut copy: Copy<'_>) -> Result<Started, StartFault> {
    let options = copy.options();
    let servers = copy.sides.servers(copy.settings);
    let prepared = tokio::select! {
        () = copy.shutdown.cancelled() => return Err(interrupted()),
        prepared = while_alive(&servers, copy.prepare(&options)) => prepared??,
    };
    copy.board.set_state(FlowState::Copying, None);
    let result = copy.slot_and_schema(&options, &prepared).await;
    copy.board.copy_ended();
    match result {
        Ok(started) => Ok(started),
        Err(fault) => {
            if copy.slot_is_ours.load(Ordering::Relaxed) {
                copy.abandon_slot(&options.source).await;
            }
            Err(fault)
        }
    }
}

/// What the copy goes by, with both sides as they were reached.
pub fn copy_options(settings: &RunSettings, sides: &Sides, flow: &FlowName) -> CopyOptions {
    CopyOptions {
        flow: flow.clone(),
        source: settings.flow.source.pinned(sides.source.host()),
        target: settings.flow.target.pinned(sides.target.host()),
        selection: settings.tables.selection.clone(),
        mode: match settings.schema {
            SchemaArg::Auto => SchemaMode::Auto,
            SchemaArg::Copy => SchemaMode::Copy,
            SchemaArg::Existing => SchemaMode::Existing,
        },
        via_partition_root: settings.tables.via_partition_root,
        jobs: settings.copy_jobs,
        split: settings.copy_split,
        pg_dump: settings.pg_dump.clone(),
    }
}

impl Copy<'_> {
    fn options(&self) -> CopyOptions {
        copy_options(self.settings, &self.sides, &self.flow)
    }

    /// Plans, takes the copy's lock, and creates what the source needs: schema `relevo` and the publications. On the
    /// target the copy creates everything itself, in a session in which the user's event triggers do not fire.
    async fn prepare(&mut self, options: &CopyOptions) -> Result<CopyPlan, StartFault> {
        let plan = relevo_snapshot::plan(&self.sides.source, &self.sides.target, options).await?;
        tell(self.board, &plan.findings);
        self.board.copy_planned(&plan.jobs);
        let target = &self.sides.target;
        // From here on the slot and the publications are this process's to make anew.
        if !state::try_lock(&**target, &self.flow, FlowLock::Copy)
            .await
            .map_err(StartFault::state(Side::Target))?
        {
            return Err(StartFault {
                side: Side::Target,
                class: FaultClass::Transient,
                kind: "copy_in_progress",
                text: format!("another Relevo copies flow {}; waiting until it is done", self.flow),
            });
        }
        self.board.holds_copy_lock(target.backend_pid());
        if self.is_complete().await? {
            return Err(StartFault {
                side: Side::Target,
                class: FaultClass::Transient,
                kind: "copy_in_progress",
                text: format!(
                    "another Relevo has just completed the copy of flow {}; going on from it",
                    self.flow
                ),
            });
        }
        let into = self.leads_to();
        self.check_owner(&into).await?;
        state::install(&mut self.sides.source).await.map_err(StartFault::state(Side::Source))?;
        let findings = relevo_snapshot::publish(
            &self.sides.source,
            &self.flow,
            &plan.tables,
            options.via_partition_root,
            Existing::Replace,
        )
        .await?;
        tell(self.board, &findings);
        if relevo_snapshot::owner(&self.sides.source, &self.flow).await?.as_ref() != Some(&into) {
            relevo_snapshot::mark_owner(&self.sides.source, &self.flow, &into).await?;
        }
        Ok(plan)
    }

    /// The flow with where it leads to, as it is noted on the source.
    fn leads_to(&self) -> String {
        let target = &self.facts.target;
        format!("flow {} into database {} of server {}", self.flow, target.database, target.system_id)
    }

    /// Refuses to take the slot of a flow of the same name into another database, which would then have lost it.
    async fn check_owner(&self, into: &str) -> Result<(), StartFault> {
        let (source, slot) = (&self.sides.source, self.flow.slot());
        let owner = relevo_snapshot::owner(source, &self.flow).await?;
        let Some(owner) = owner.filter(|owner| owner != into) else { return Ok(()) };
        if inspect_slot(source, &slot).await?.is_none() {
            return Ok(());
        }
        let text = format!(
            "source: slot {slot} and its publications belong to {owner}, and this is {into}: give this flow another \
             --name; or, if the other one is given up, drop its slot on the source: \
             SELECT pg_drop_replication_slot('{slot}')"
        );
        Err(StartFault::refused(Side::Source, "slot_of_other_flow", text))
    }

    /// Whether a copy of the flow has been completed.
    async fn is_complete(&self) -> Result<bool, StartFault> {
        let target = &*self.sides.target;
        let failed = || StartFault::state(Side::Target);
        Ok(state::installed_version(target).await.map_err(failed())?.is_some()
            && state::progress(target, &self.flow).await.map_err(failed())?.is_some())
    }

    async fn slot_and_schema(&self, options: &CopyOptions, plan: &CopyPlan) -> Result<Started, StartFault> {
        // The exported snapshot lives as long as this connection stays idle.
        let (_connection, exported) = tokio::select! {
            () = self.shutdown.cancelled() => return Err(interrupted()),
            created = self.create_slot(&options.source) => created?,
        };
        let held = tokio::select! {
            () = self.shutdown.cancelled() => return Err(interrupted()),
            held = HeldSnapshot::hold(options, &exported) => held?,
        };
        let identity = SourceIdentity {
            system_id: self.facts.source.system_id.clone(),
            timeline: self.facts.source.timeline,
            database: self.facts.source.database.clone(),
        };
        let (_sender, stop) = stop(self.shutdown);
        relevo_snapshot::copy_schema(options, plan, held.snapshot(), self.board.as_ref(), &stop).await?;
        relevo_snapshot::check_snapshot(options, plan, (&plan.jobs, true), held.snapshot(), &stop).await?;
        self.note(FlowState::Copying).await;
        let target = &*self.sides.target;
        let failed = || StartFault::state(Side::Target);
        state::begin_streaming(target, &self.flow, &identity, exported.lsn).await.map_err(failed())?;
        // From here on the slot belongs to the stored progress.
        self.slot_is_ours.store(false, Ordering::Relaxed);
        // For the copier, which has sessions of its own: this one may end later than that begins.
        state::unlock(target, &self.flow, FlowLock::Copy).await.map_err(failed())?;
        let publications = Publications::new(&self.flow, options.via_partition_root);
        let copy = Some(Rows { first: Some(held), added: false });
        Ok(Started { flow: self.flow.clone(), identity, publications, copy })
    }

    /// Writes the state down for `relevo status`; the copy goes on without it.
    async fn note(&self, state: FlowState) {
        if let Err(error) = state::set_state(&*self.sides.target, &self.flow, state, None).await {
            warn!(kind = error.kind(), %error, "the flow's state could not be written down");
        }
    }

    /// Makes the slot anew, with a snapshot of the moment from which it sends.
    async fn create_slot(
        &self,
        source: &ConnInfo,
    ) -> Result<(ReplicationConnection, ExportedSnapshot), StartFault> {
        let name = self.flow.slot();
        let mut connection = ReplicationConnection::connect(source, &name).await?;
        self.drop_slot(&mut connection, &name).await?;
        info!(slot = name, "creating the slot; it waits for transactions that run on the source now");
        self.slot_is_ours.store(true, Ordering::Relaxed);
        let created = connection.create_slot(&name, SlotLifetime::Permanent, SlotSnapshot::Export).await?;
        let lsn = created.consistent_point;
        let snapshot = created.snapshot.ok_or_else(|| {
            StartFault::refused(
                Side::Source,
                "protocol",
                "the source exported no snapshot with the slot".to_owned(),
            )
        })?;
        info!(slot = name, %lsn, snapshot, "the slot is there");
        Ok((connection, ExportedSnapshot { name: snapshot, lsn }))
    }

    /// Drops the slot of an earlier attempt, if it is one: nothing was ever applied from it.
    async fn drop_slot(&self, connection: &mut ReplicationConnection, name: &str) -> Result<(), StartFault> {
        let Some(found) = connection.inspect_slot(name).await? else { return Ok(()) };
        let expected = ExpectedSlot {
            name: name.to_owned(),
            database: self.facts.source.database.clone(),
            applied: None,
        };
        if found.lost().is_none() {
            verdict(Some(&found), &expected).map_err(relevo_source::SourceError::from)?;
        }
        info!(slot = name, "dropping the slot of an earlier attempt to copy");
        // Never with WAIT: a server that waits does not notice that nobody waits with it any more, and would drop the
        // slot whenever it is left, perhaps long after.
        let in_use = || StartFault {
            side: Side::Source,
            class: FaultClass::Transient,
            kind: IN_USE,
            text: format!(
                "source: slot {name} of an earlier attempt to copy is in use by process {} {}; waiting until it is left",
                found.active_pid.unwrap_or_default(),
                found.holder.as_ref().map(ToString::to_string).unwrap_or_default(),
            ),
        };
        if found.active {
            return Err(in_use());
        }
        match connection.drop_slot(name, false).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(OBJECT_IN_USE) => Err(in_use()),
            Err(error) => Err(error.into()),
        }
    }

    async fn abandon_slot(&self, source: &ConnInfo) {
        let name = self.flow.slot();
        let work = async {
            let mut connection = ReplicationConnection::connect(source, &name).await?;
            loop {
                match self.drop_slot(&mut connection, &name).await {
                    Err(fault) if fault.kind == IN_USE => {}
                    done => return done,
                }
                // Its making was interrupted. The server would notice only when it is done, and leave the slot behind.
                let ended = self.sides.source.execute(END_MAKER, &[&name]).await;
                ended.map_err(|error| {
                    StartFault::sql(Side::Source, "ending the making of the slot", &error)
                })?;
                tokio::time::sleep(DROP_PAUSE).await;
            }
        };
        match timeout(DROP_LIMIT, work).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => warn!(
                slot = name,
                kind = fault.kind,
                "the slot of the interrupted copy stays: {}",
                fault.text
            ),
            Err(_) => warn!(
                slot = name,
                "the slot of the interrupted copy stays: the source did not answer in time"
            ),
        }
    }
}

/// The token as the copy wants it.
pub fn stop(shutdown: &CancellationToken) -> (watch::Sender<bool>, Stop) {
    let (sender, receiver) = watch::channel(false);
    let (token, forward) = (shutdown.clone(), sender.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = token.cancelled() => { let _ = forward.send(true); }
            () = forward.closed() => {}
        }
    });
    (sender, Stop::new(receiver))
}
