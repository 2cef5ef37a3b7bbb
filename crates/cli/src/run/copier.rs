//! Brings the rows beside the stream: copies what has not arrived, as often as it takes, hands each table over to the
//! stream, and then creates what comes after all rows.
//!
//! Who may copy is decided twice: the applying session holds the flow ([`FlowLock::Apply`]), and while something is
//! copied a session here holds [`FlowLock::Copy`]. What is there and what is not is read from the target each time.

mod ahead;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relevo_arrivals::Arrivals;
use relevo_catalog::{Selection, TableName};
use relevo_model::{FaultClass, FlowName, QualifiedName, Side, SourceLsn};
use relevo_snapshot::{
    CopyEvent, CopyObserver, CopyOptions, CopyPlan, ExportedSnapshot, HeldSnapshot, Phase, TableJob,
};
use relevo_source::{ReplicationConnection, SlotLifetime, SlotSnapshot};
use relevo_state::{self as state, FlowLock, TableRecord, TableState};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::ahead::Ahead;
use crate::error::{CliError, chain};
use crate::run::board::FlowBoard;
use crate::run::copy::{copy_options, stop};
use crate::run::fault::{StartFault, interrupted};
use crate::run::sides::{Sides, tell};
use crate::run::start;
use crate::run::stream::Coming;
use crate::settings::RunSettings;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a first snapshot is kept while the stream cannot be opened. It keeps the source from removing old rows.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// The rows that are still to come.
pub struct Rows {
    /// The snapshot of the flow's own slot, if it was just made.
    pub first: Option<HeldSnapshot>,
    /// They are of tables that were added to a flow whose copy was complete: whatever is wrong with them is no reason to
    /// stop the others.
    pub added: bool,
}

/// Who brings them.
pub struct Copier<'a> {
    /// The settings.
    pub settings: &'a RunSettings,
    /// Where it is shown.
    pub board: &'a Arc<FlowBoard>,
    /// The flow.
    pub flow: &'a FlowName,
    /// What the stream knows of it.
    pub coming: Coming,
    /// How often the stream was opened; each time, what is recorded may be less than before.
    pub opened: watch::Receiver<u64>,
}

/// What is left to do.
enum Left {
    /// Nothing.
    Nothing,
    /// To look again.
    More,
}

impl Copier<'_> {
    /// Brings the rows until all tables follow the stream, or `shutdown`.
    ///
    /// # Errors
    /// Somebody has to mend something first.
    pub async fn run(mut self, mut rows: Rows, shutdown: &CancellationToken) -> Result<(), CliError> {
        let mut first = rows.first.take();
        let opening = async {
            let looks = first.is_some();
            let ahead = async { if looks { self.look_ahead().await } else { None } };
            let opened = stream_opened(self.opened.clone(), &mut first);
            tokio::join!(opened, ahead).1
        };
        let mut ahead = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ahead = opening => ahead,
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let fault = match self.attempt((first.take(), ahead.take()), rows.added, shutdown).await {
                Ok(Left::Nothing) => return Ok(()),
                Ok(Left::More) => {
                    pause = FIRST_PAUSE;
                    continue;
                }
                Err(fault) => fault,
            };
            self.board.copy_ended();
            if shutdown.is_cancelled() {
                return Ok(());
            }
            self.board.start_failed(fault.side, fault.kind, &fault.text);
            if fault.class != FaultClass::Transient && !rows.added {
                return Err(fault.into());
            }
            error!(side = %fault.side, kind = fault.kind, retry_in = ?pause, "copy: {}", fault.text);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &mut self,
        (first, ahead): (Option<HeldSnapshot>, Option<Ahead>),
        added: bool,
        shutdown: &CancellationToken,
    ) -> Result<Left, StartFault> {
        self.opened.mark_unchanged();
        let (sides, planned) = ahead.and_then(Ahead::if_recent).unzip();
        let (mut sides, tables) = tokio::select! {
            () = shutdown.cancelled() => return Err(interrupted()),
            opened = self.open(sides) => opened?,
        };
        let options = copy_options(self.settings, &sides, self.flow);
        let missing = of_state(&tables, is_missing);
        if !missing.is_empty() {
            let (selection, plan) = match planned.filter(|planned| planned.tables == names_of(&tables)) {
                Some(planned) => (planned.selection, Some(planned.plan)),
                None => (self.selection(&sides, &tables).await?, None),
            };
            let options = CopyOptions { selection, ..options };
            let tables = (&missing, copied_lsns(&tables));
            self.copy(&sides, &options, tables, (first, plan), shutdown).await?;
            return Ok(Left::More);
        }
        if let Some(held) = first {
            held.release().await;
        }
        let copied = copied_lsns(&tables);
        if !copied.is_empty() {
            let options = CopyOptions { selection: self.selection(&sides, &tables).await?, ..options };
            self.complete(&sides, &options, copied, shutdown).await?;
            // Without the lock of the copy: if the flow was lost to another Relevo, it has to copy instead.
            drop(sides);
            tokio::select! {
                () = shutdown.cancelled() => return Err(interrupted()),
                () = self.coming.arrivals.all_joined() => {}
                _ = self.opened.changed() => {}
            }
            return Ok(Left::More);
        }
        let (_sender, stop) = stop(shutdown);
        self.board.tables_known(&tables, &[]);
        match added {
            true => relevo_snapshot::finish_added(&options, self.board.as_ref(), &stop).await?,
            false => relevo_snapshot::finish_schema(&options, self.board.as_ref(), &stop).await?,
        }
        let complete = state::complete_copy(&mut sides.target, self.flow).await;
        if !complete.map_err(StartFault::state(Side::Target))? {
            // Tables were added meanwhile.
            return Ok(Left::More);
        }
        self.board.copy_completed();
        info!(flow = %self.flow, tables = tables.len(), "the copy is complete: every table follows the source");
        Ok(Left::Nothing)
    }

    /// Both sides, with the lock of the copy, and the tables as they are recorded.
    async fn open(&self, sides: Option<Sides>) -> Result<(Sides, Vec<TableRecord>), StartFault> {
        let sides = match sides {
            Some(sides) => sides,
            None => start::open(self.settings).await?,
        };
        let failed = || StartFault::state(Side::Target);
        if !state::try_lock(&*sides.target, self.flow, FlowLock::Copy).await.map_err(failed())? {
            return Err(StartFault {
                side: Side::Target,
                class: FaultClass::Transient,
                kind: "copy_in_progress",
                text: format!("another session copies flow {}; waiting until it is done", self.flow),
            });
        }
        self.board.holds_copy_lock(sides.target.backend_pid());
        let tables = self.expect(&sides).await?;
        Ok((sides, tables))
    }

    /// The tables as they are recorded. What the stream brings for those whose rows are to come is kept from now on:
    /// the source sends nothing of tables that were added before it is told to publish them, which comes after this.
    ///
    /// Another Relevo may have taken the flow over; it would not expect them. But if our own session still applies, whoever
    /// opens the stream after it finds them recorded.
    async fn expect(&self, sides: &Sides) -> Result<Vec<TableRecord>, StartFault> {
        let failed = || StartFault::state(Side::Target);
        let (target, coming) = (&*sides.target, &self.coming);
        let looking = coming.looking.lock().await;
        let tables = state::tables(target, self.flow).await.map_err(failed())?;
        let mut missing = tables.iter().filter(|table| is_missing(table.state)).map(name_of).peekable();
        if missing.peek().is_none() {
            return Ok(tables);
        }
        coming.complete.store(false, Ordering::Release);
        missing.for_each(|table| coming.arrivals.expect(table));
        drop(looking);
        let spool = coming.spool.id().map_err(|error| StartFault {
            side: Side::Target,
            class: FaultClass::Blocked,
            kind: "spool",
            text: format!("what tables miss while they are copied cannot be kept: {}", chain(&error)),
        })?;
        let ours = state::claim_spool(target, self.flow, &spool, &self.board.applying_pids()).await;
        if ours.map_err(failed())? || self.claim_between(sides, &spool).await? {
            return Ok(tables);
        }
        Err(StartFault {
            side: Side::Target,
            class: FaultClass::Transient,
            kind: "not_applying",
            text: format!("flow {} is not applied by this Relevo at present; copying when it is", self.flow),
        })
    }

    /// Claims the spool while nobody applies, for the moment that this takes as the one who does. A stream that fails again
    /// and again, because the spool is full until a table arrives, holds the flow only now and then.
    async fn claim_between(&self, sides: &Sides, spool: &str) -> Result<bool, StartFault> {
        let failed = || StartFault::state(Side::Target);
        let target = &*sides.target;
        if !state::try_lock(target, self.flow, FlowLock::Apply).await.map_err(failed())? {
            return Ok(false);
        }
        let own = [sides.target.backend_pid()];
        let claimed = state::claim_spool(target, self.flow, spool, &own).await;
        state::unlock(target, self.flow, FlowLock::Apply).await.map_err(failed())?;
        claimed.map_err(failed())
    }

    /// The tables of the flow as the copy selects them.
    async fn selection(&self, sides: &Sides, tables: &[TableRecord]) -> Result<Selection, StartFault> {
        let all =
            relevo_catalog::user_tables(&sides.source).await.map_err(StartFault::catalog(Side::Source))?;
        Ok(self.settings.tables.selection.of_recorded(&all, &names_of(tables)))
    }

    /// Copies what is missing, and does what is left for tables that were copied before, so that they need not wait.
    async fn copy(
        &self,
        sides: &Sides,
        options: &CopyOptions,
        (missing, mut copied): (&BTreeSet<QualifiedName>, BTreeMap<QualifiedName, SourceLsn>),
        (first, plan): (Option<HeldSnapshot>, Option<CopyPlan>),
        shutdown: &CancellationToken,
    ) -> Result<(), StartFault> {
        copied.retain(|table, _| self.coming.arrivals.is_coming(table));
        // Everything was looked at when the flow's own snapshot was taken.
        let checked = first.is_some();
        let prepared = async {
            let plan = match plan {
                Some(plan) => plan,
                None => relevo_snapshot::plan(&sides.source, &sides.target, options).await?,
            };
            let wanted = plan.jobs.iter().filter(|job| missing.contains(&qualified(job)));
            let jobs: Vec<TableJob> = wanted.cloned().collect();
            self.forget_gone(sides, missing, &jobs.iter().map(qualified).collect()).await?;
            let held = match first {
                Some(held) => held,
                None => {
                    let tables = plan.tables_of(&jobs);
                    relevo_snapshot::publish_more(&sides.source, options, &tables).await?;
                    self.snapshot(options).await?
                }
            };
            Ok::<_, StartFault>((plan, jobs, held))
        };
        let (plan, jobs, held) = tokio::select! {
            () = shutdown.cancelled() => return Err(interrupted()),
            prepared = prepared => prepared?,
        };
        tell(self.board, &plan.findings);
        let failed = StartFault::state(Side::Target);
        self.board.tables_known(&state::tables(&*sides.target, self.flow).await.map_err(failed)?, &jobs);
        let there: Vec<TableJob> =
            plan.jobs.iter().filter(|job| copied.contains_key(&qualified(job))).cloned().collect();
        let mut at = copied;
        at.extend(jobs.iter().map(|job| (qualified(job), held.snapshot().lsn)));
        let rows_are_there = Notify::new();
        let arriving = Arriving { copier: self, at, rows_are_there: Some(&rows_are_there) };
        let (_sender, stop) = stop(shutdown);
        if !checked {
            relevo_snapshot::check_snapshot(options, &plan, (&jobs, false), held.snapshot(), &stop).await?;
        }
        let snapshot = held.snapshot().clone();
        let copying = relevo_snapshot::copy_tables(options, (&jobs, &there), &snapshot, &arriving, &stop);
        // It keeps the source from removing old rows, and indexes may be built for hours.
        let releasing = async {
            rows_are_there.notified().await;
            held.release().await;
        };
        let copied = released_meanwhile(copying, releasing).await?;
        self.board.copy_ended();
        info!(
            tables = copied.tables,
            rows = copied.rows,
            bytes = copied.bytes,
            "copy: all rows have arrived"
        );
        Ok(())
    }

    /// Does what is left for copied tables that nobody has told the stream of: an earlier process has copied them.
    async fn complete(
        &self,
        sides: &Sides,
        options: &CopyOptions,
        mut at: BTreeMap<QualifiedName, SourceLsn>,
        shutdown: &CancellationToken,
    ) -> Result<(), StartFault> {
        // It may have joined the stream since the tables were read.
        at.retain(|table, _| self.coming.arrivals.is_coming(table));
        if at.is_empty() {
            return Ok(());
        }
        let plan = tokio::select! {
            () = shutdown.cancelled() => return Err(interrupted()),
            plan = relevo_snapshot::plan(&sides.source, &sides.target, options) => plan?,
        };
        let jobs: Vec<TableJob> =
            plan.jobs.into_iter().filter(|job| at.contains_key(&qualified(job))).collect();
        let there = jobs.iter().map(qualified).collect();
        self.forget_gone(sides, &at.keys().cloned().collect(), &there).await?;
        let (_sender, stop) = stop(shutdown);
        let arriving = Arriving { copier: self, at, rows_are_there: None };
        Ok(relevo_snapshot::complete_tables(options, &jobs, &arriving, &stop).await?)
    }

    /// A snapshot of a position of its own, for tables that could not be copied under the first.
    async fn snapshot(&self, options: &CopyOptions) -> Result<HeldSnapshot, StartFault> {
        let mut connection = ReplicationConnection::connect(&options.source, &self.flow.slot()).await?;
        // A name of its own: the slot of an attempt that was killed lives until its server process notices.
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let name = format!("relevo_copy_{:x}", since_epoch.unwrap_or_default().as_nanos());
        info!(
            slot = name,
            "a temporary slot for the tables that are still to be copied; it waits for transactions that run on the source now"
        );
        let created = connection.create_slot(&name, SlotLifetime::Temporary, SlotSnapshot::Export).await?;
        let snapshot = created.snapshot.ok_or_else(|| {
            let text = "the source exported no snapshot with the slot".to_owned();
            StartFault::refused(Side::Source, "protocol", text)
        })?;
        let exported = ExportedSnapshot { name: snapshot, lsn: created.consistent_point };
        // The slot ends with its connection, and does not keep the WAL of the whole copy.
        Ok(HeldSnapshot::hold(options, &exported).await?)
    }

    /// Tables that are no longer on the source leave the flow; on the target they stay as they are.
    async fn forget_gone(
        &self,
        sides: &Sides,
        missing: &BTreeSet<QualifiedName>,
        there: &BTreeSet<QualifiedName>,
    ) -> Result<(), StartFault> {
        for gone in missing.difference(there) {
            warn!(table = %gone, "copy: the table is no longer on the source, or excluded; it leaves the flow");
            state::drop_table(&*sides.target, self.flow, &gone.schema, &gone.name)
                .await
                .map_err(StartFault::state(Side::Target))?;
            self.coming.arrivals.forget(gone);
        }
        Ok(())
    }
}

/// Shows what happens, and tells the stream which tables have arrived.
struct Arriving<'a, 'c> {
    copier: &'a Copier<'c>,
    /// Whose rows are of which position.
    at: BTreeMap<QualifiedName, SourceLsn>,
    /// Who waits for the last row of all of them.
    rows_are_there: Option<&'a Notify>,
}

impl CopyObserver for Arriving<'_, '_> {
    fn event(&self, event: CopyEvent<'_>) {
        match event {
            CopyEvent::TableReady { table } => {
                let table = QualifiedName { schema: table.schema.clone(), name: table.name.clone() };
                if let Some(at) = self.at.get(&table) {
                    self.copier.coming.arrivals.arrived(&table, *at);
                }
            }
            // It begins when every table has been marked as copied, and that is flushed.
            CopyEvent::PhaseStarted { phase: Phase::Indexes, .. } => {
                self.rows_are_there.inspect(|waiting| waiting.notify_one());
            }
            _ => {}
        }
        self.copier.board.as_ref().event(event);
    }
}

/// Waits until the stream holds the flow: before, another Relevo may be at work.
async fn stream_opened(mut opened: watch::Receiver<u64>, first: &mut Option<HeldSnapshot>) {
    let is_open = opened.wait_for(|times| *times > 0);
    if tokio::time::timeout(HOLD_LIMIT, is_open).await.is_err() {
        if let Some(held) = first.take() {
            held.release().await;
        }
        // An error means that the stream is gone, and this with it.
        let _ = opened.wait_for(|times| *times > 0).await;
    }
}

/// Awaits `work`, and does the rest beside it once its time comes; it is not waited for.
async fn released_meanwhile<T>(work: impl Future<Output = T>, releasing: impl Future<Output = ()>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = releasing => {}
    }
    work.await
}

fn qualified(job: &TableJob) -> QualifiedName {
    QualifiedName { schema: job.table.schema.clone(), name: job.table.name.clone() }
}

fn name_of(table: &TableRecord) -> QualifiedName {
    QualifiedName { schema: table.schema.clone(), name: table.name.clone() }
}

/// The recorded tables' names, as the catalogs have them.
pub fn names_of(tables: &[TableRecord]) -> BTreeSet<TableName> {
    tables.iter().map(|table| TableName::new(&table.schema, &table.name)).collect()
}

fn is_missing(state: TableState) -> bool {
    matches!(state, TableState::Pending | TableState::Copying)
}

fn of_state(tables: &[TableRecord], is: impl Fn(TableState) -> bool) -> BTreeSet<QualifiedName> {
    tables.iter().filter(|table| is(table.state)).map(name_of).collect()
}

fn copied_lsns(tables: &[TableRecord]) -> BTreeMap<QualifiedName, SourceLsn> {
    let copied = tables.iter().filter(|table| table.state == TableState::Copied);
    copied.filter_map(|table| Some((name_of(table), table.copied_lsn?))).collect()
}

/// Brings what the stream believes of the tables in line with what the target has recorded, under the lock of the
/// applying session. Copied tables whose missed changes were kept in another spool have lost them: they are pending
/// again.
///
/// # Errors
/// The target or the spool.
pub async fn reconcile(
    target: &tokio_postgres::Client,
    flow: &FlowName,
    arrivals: &Arrivals,
    spool_id: &str,
) -> Result<(), state::StateError> {
    let record = state::flow(target, flow).await?;
    let known = record.and_then(|record| record.spool);
    if known.as_deref() != Some(spool_id) {
        let lost = state::change_spool(target, flow, spool_id).await?;
        if lost > 0 {
            warn!(
                tables = lost,
                "tables were copied, but what they have missed since was kept in another spool; they are copied again"
            );
        }
    }
    let tables = state::tables(target, flow).await?;
    let waiting = tables.iter().filter(|table| table.state != TableState::Streaming);
    arrivals.reconcile(waiting.map(|table| {
        let copied_at = table.copied_lsn.filter(|_| table.state == TableState::Copied);
        (name_of(table), copied_at)
    }));
    Ok(())
}
