//! The initial copy, as `relevo run` does it: publications, slot, schema, rows, and the first progress.

use std::sync::Arc;
use std::time::Duration;

use relevo_connect::ConnInfo;
use relevo_model::{FaultClass, FlowName, Side, SourceIdentity};
use relevo_snapshot::{CopyOptions, CopyPlan, Existing, ExportedSnapshot, SchemaMode, Stop};
use relevo_source::{ExpectedSlot, ReplicationConnection, SlotSnapshot, verdict};
use relevo_state::{self as state, FlowLock, FlowState};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::SchemaArg;
use crate::run::board::FlowBoard;
use crate::run::fault::{StartFault, interrupted};
use crate::run::publications::Publications;
use crate::run::sides::{Sides, Started, tell};
use crate::settings::RunSettings;

/// How long dropping the slot of an interrupted copy may take.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// What a copy is made with.
pub struct Copy<'a> {
    /// The settings.
    pub settings: &'a RunSettings,
    /// Where it is shown.
    pub board: &'a Arc<FlowBoard>,
    /// Both sides.
    pub sides: Sides,
    /// The flow.
    pub flow: FlowName,
    /// Ends it.
    pub shutdown: &'a CancellationToken,
}

/// Copies, and leaves the flow ready to stream. An interrupted copy leaves no slot behind when it can help it: the next one
/// makes its own, and a forgotten slot fills the source's disk.
///
/// # Errors
/// Whatever is in the way.
pub async fn run(mut copy: Copy<'_>) -> Result<Started, StartFault> {
    let options = copy.options();
    let prepared = tokio::select! {
        () = copy.shutdown.cancelled() => return Err(interrupted()),
        prepared = copy.prepare(&options) => prepared?,
    };
    copy.board.set_state(FlowState::Copying, None);
    let result = copy.snapshot_and_rows(&options, &prepared).await;
    copy.board.copy_ended();
    match result {
        Ok(started) => {
            copy.board.tables_stream(&prepared.jobs);
            info!(flow = %started.flow, "the copy is complete; streaming follows");
            Ok(started)
        }
        Err(fault) => {
            copy.abandon_slot(&options.source).await;
            Err(fault)
        }
    }
}

impl Copy<'_> {
    fn options(&self) -> CopyOptions {
        CopyOptions {
            flow: self.flow.clone(),
            source: self.settings.flow.source.pinned(self.sides.source.host()),
            target: self.settings.flow.target.pinned(self.sides.target.host()),
            selection: self.settings.tables.selection.clone(),
            mode: match self.settings.schema {
                SchemaArg::Auto => SchemaMode::Auto,
                SchemaArg::Copy => SchemaMode::Copy,
                SchemaArg::Existing => SchemaMode::Existing,
            },
            via_partition_root: self.settings.tables.via_partition_root,
            pg_dump: self.settings.pg_dump.clone(),
        }
    }

    /// Plans, takes the copy's lock, and creates what the source needs: schema `relevo` and the publications. On the
    /// target the copy creates everything itself, in a session in which the user's event triggers do not fire.
    async fn prepare(&mut self, options: &CopyOptions) -> Result<CopyPlan, StartFault> {
        let plan = relevo_snapshot::plan(&self.sides.source, &self.sides.target, options).await?;
        tell(&plan.findings);
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
        state::install(&mut self.sides.source).await.map_err(StartFault::state(Side::Source))?;
        let findings = relevo_snapshot::publish(
            &self.sides.source,
            &self.flow,
            &plan.tables,
            options.via_partition_root,
            Existing::Replace,
        )
        .await?;
        tell(&findings);
        Ok(plan)
    }

    /// Whether a copy of the flow has been completed.
    async fn is_complete(&self) -> Result<bool, StartFault> {
        let target = &*self.sides.target;
        let failed = || StartFault::state(Side::Target);
        Ok(state::installed_version(target).await.map_err(failed())?.is_some()
            && state::progress(target, &self.flow).await.map_err(failed())?.is_some())
    }

    async fn snapshot_and_rows(&self, options: &CopyOptions, plan: &CopyPlan) -> Result<Started, StartFault> {
        // The exported snapshot lives as long as this connection stays idle.
        let (_connection, snapshot) = tokio::select! {
            () = self.shutdown.cancelled() => return Err(interrupted()),
            created = self.create_slot(&options.source) => created?,
        };
        let identity = SourceIdentity {
            system_id: self.sides.source_facts.system_id.clone(),
            timeline: self.sides.source_facts.timeline,
            database: self.sides.source_facts.database.clone(),
        };
        let (_sender, stop) = stop(self.shutdown);
        let observer = self.board.as_ref();
        relevo_snapshot::copy_schema(options, plan, &snapshot, observer, &stop).await?;
        self.note(FlowState::Copying).await;
        let copied = relevo_snapshot::copy_rows(options, plan, &snapshot, observer, &stop).await?;
        info!(
            tables = copied.tables,
            rows = copied.rows,
            bytes = copied.bytes,
            "copy: all rows have arrived"
        );
        relevo_snapshot::finish(options, plan, &snapshot, &identity, observer, &stop).await?;
        let copied = plan.jobs.iter().map(|job| job.table.to_string()).collect();
        let publications = Publications::new(&self.flow, copied);
        Ok(Started { flow: self.flow.clone(), identity, publications })
    }

    /// Writes the state down for `relevo status`; the copy goes on without it.
    async fn note(&self, state: FlowState) {
        if let Err(error) = state::set_state(&*self.sides.target, &self.flow, state, None).await {
            warn!(%error, "the flow's state could not be written down");
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
        let created = connection.create_slot(&name, SlotSnapshot::Export).await?;
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
            database: self.sides.source_facts.database.clone(),
            applied: None,
        };
        if found.lost().is_none() {
            verdict(Some(&found), &expected).map_err(relevo_source::SourceError::from)?;
        }
        info!(slot = name, "dropping the slot of an earlier attempt to copy");
        connection.drop_slot(name, true).await?;
        Ok(())
    }

    async fn abandon_slot(&self, source: &ConnInfo) {
        let name = self.flow.slot();
        let work = async {
            let mut connection = ReplicationConnection::connect(source, &name).await?;
            self.drop_slot(&mut connection, &name).await
        };
        match timeout(DROP_LIMIT, work).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => warn!(slot = name, "the slot of the interrupted copy stays: {}", fault.text),
            Err(_) => warn!(
                slot = name,
                "the slot of the interrupted copy stays: the source did not answer in time"
            ),
        }
    }
}

/// The token as the copy wants it.
fn stop(shutdown: &CancellationToken) -> (watch::Sender<bool>, Stop) {
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
