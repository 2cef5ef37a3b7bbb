//! The rows: each table is a job of its own, one transaction on the target that holds all of its rows and the note
//! that they are there. A table is never half there.

use std::time::Instant;

use relevo_catalog::{Finding, PublishedTable, TableInfo, TableKind, TableName};
use relevo_connect::SqlSession;
use relevo_model::Side;
use relevo_state::{self as state, FlowState};
use tokio_postgres::error::SqlState;

use crate::plan::{CopyPlan, SchemaAction, TableJob, copied_columns, not_empty, only};
use crate::pump::{Copied, Pump};
use crate::schema::{begin, commit};
use crate::session::Sessions;
use crate::unchanged::{check_tables, hold_table};
use crate::{CopyEvent, CopyObserver, CopyOptions, ExportedSnapshot, Phase, SnapshotError, Stop, sql};

/// What has been copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsCopied {
    /// Tables.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
    /// Bytes of COPY text.
    pub bytes: u64,
}

/// Copies the rows of every table of the plan as the exported snapshot shows them.
///
/// An attempt always copies every table anew, because the rows of an earlier one belong to an earlier snapshot:
/// what a recorded table holds is removed in the transaction that brings its rows. The snapshot's session must stay
/// open until this returns. The copied rows are durable at the latest when [`crate::finish()`] returns.
///
/// # Errors
/// [`SnapshotError`]; no table is half-copied, and the next attempt begins again.
pub async fn copy_rows(
    options: &CopyOptions,
    plan: &CopyPlan,
    snapshot: &ExportedSnapshot,
    observer: &dyn CopyObserver,
    stop: &Stop,
) -> Result<RowsCopied, SnapshotError> {
    let sessions = Sessions::new(options);
    sessions
        .run(stop, async {
            let target = sessions.target().await?;
            let source = sessions.source(sessions.source_encoding(&target).await?).await?;
            let present = sessions.source("UTF8").await?;
            import_snapshot(&source, snapshot).await?;
            check_tables(&source, &options.flow, plan, options.via_partition_root).await?;
            source.batch_execute("COMMIT").await.map_err(SnapshotError::source_sql("reading the tables"))?;
            let names: Vec<TableName> = plan.jobs.iter().map(|job| job.table.clone()).collect();
            let there = relevo_catalog::tables(&target, &names)
                .await
                .map_err(SnapshotError::catalog(Side::Target))?;
            let attempt = begin_attempt(options, &target).await?;
            note_changes(options, plan, &present, &target).await?;
            observer.event(CopyEvent::PhaseStarted {
                phase: Phase::Rows,
                steps: plan.jobs.len(),
                estimated_bytes: plan.estimated_bytes(),
            });
            let copier = TableCopier {
                options,
                snapshot,
                observer,
                first_attempt: attempt == 1,
                schema_is_ours: matches!(plan.schema, SchemaAction::Copy(_)),
                source: &source,
                present: &present,
                target: &target,
            };
            let mut total = RowsCopied { tables: plan.jobs.len(), ..RowsCopied::default() };
            for job in &plan.jobs {
                let on_target = there.iter().find(|table| table.name == job.table);
                let copied = copier.copy_table(job, on_target).await?;
                total.rows += copied.stored_rows;
                total.bytes += copied.bytes;
            }
            source.close().await;
            present.close().await;
            target.close().await;
            Ok(total)
        })
        .await
}

/// Counts the attempt; every table is to be copied again.
async fn begin_attempt(options: &CopyOptions, target: &SqlSession) -> Result<i32, SnapshotError> {
    if state::progress(&**target, &options.flow).await.map_err(SnapshotError::state)?.is_some() {
        let message = "the flow streams already; a copy would throw away what it has applied";
        let finding = Finding::error("flow_streams", Side::Target, message).about(&options.flow);
        return Err(SnapshotError::Refused { findings: vec![finding] });
    }
    begin(target).await?;
    let attempt = state::begin_attempt(&**target, &options.flow).await.map_err(SnapshotError::state)?;
    state::set_state(&**target, &options.flow, FlowState::Copying, None)
        .await
        .map_err(SnapshotError::state)?;
    commit(target).await?;
    Ok(attempt)
}

/// Remembers what the source has counted for tables of which updates and deletes are not published, so that those
/// made from now on can be told.
async fn note_changes(
    options: &CopyOptions,
    plan: &CopyPlan,
    source: &SqlSession,
    target: &SqlSession,
) -> Result<(), SnapshotError> {
    let (whole, inserts) = (options.flow.publication(), options.flow.insert_only_publication());
    let tables = relevo_catalog::published(source, &whole, &inserts)
        .await
        .map_err(SnapshotError::catalog(Side::Source))?;
    for job in plan.jobs.iter().filter(|job| job.insert_only) {
        let of_job = |table: &&PublishedTable| {
            table.name == job.table || (job.partitioned && table.partition_root.as_ref() == Some(&job.table))
        };
        let changes = tables.iter().filter(of_job).map(|table| table.changes).sum();
        let name = (job.table.schema.as_str(), job.table.name.as_str());
        state::set_source_changes(&**target, &options.flow, name, changes)
            .await
            .map_err(SnapshotError::state)?;
    }
    Ok(())
}

async fn import_snapshot(source: &SqlSession, snapshot: &ExportedSnapshot) -> Result<(), SnapshotError> {
    source.batch_execute(&sql::import_snapshot(&snapshot.name)).await.map_err(|source| {
        match source.code() {
            // "invalid snapshot identifier"; since version 17 also "snapshot … does not exist".
            Some(&SqlState::INVALID_PARAMETER_VALUE | &SqlState::UNDEFINED_OBJECT) => {
                SnapshotError::SnapshotGone { source }
            }
            _ => SnapshotError::source_sql("importing the snapshot")(source),
        }
    })
}

/// Copies tables over one pair of sessions. Several of them could share the work: the jobs are independent.
struct TableCopier<'c> {
    options: &'c CopyOptions,
    snapshot: &'c ExportedSnapshot,
    observer: &'c dyn CopyObserver,
    first_attempt: bool,
    /// The tables were created by this very copy.
    schema_is_ours: bool,
    source: &'c SqlSession,
    /// The source as it is now, not as the snapshot shows it.
    present: &'c SqlSession,
    target: &'c SqlSession,
}

impl TableCopier<'_> {
    async fn copy_table(
        &self,
        job: &TableJob,
        on_target: Option<&TableInfo>,
    ) -> Result<Copied, SnapshotError> {
        let started = Instant::now();
        let table = &job.table;
        self.observer.event(CopyEvent::TableStarted {
            table,
            estimated_bytes: job.estimated_bytes,
            estimated_rows: job.estimated_rows,
        });
        // A transaction for each table, so that a lock on the source is held no longer than its rows are read.
        import_snapshot(self.source, self.snapshot).await?;
        hold_table(self.source, self.present, job).await?;
        self.check_unchanged(job).await?;
        let (flow, client) = (&self.options.flow, &**self.target);
        state::mark_copying(client, flow, &table.schema, &table.name).await.map_err(SnapshotError::state)?;

        begin(self.target).await?;
        self.make_empty(job, on_target).await?;
        let copied = self.pump(job).await?;
        // The source's verdict on its own COPY, before anything is committed.
        self.source
            .batch_execute("COMMIT")
            .await
            .map_err(SnapshotError::source_sql(format!("reading the rows of {table}")))?;
        if copied.sent_rows != copied.stored_rows {
            return Err(SnapshotError::RowCount {
                table: table.to_string(),
                sent: copied.sent_rows,
                stored: copied.stored_rows,
            });
        }
        let (rows, bytes) = (copied.stored_rows, copied.bytes);
        let counts = (i64::try_from(rows).unwrap_or(i64::MAX), i64::try_from(bytes).unwrap_or(i64::MAX));
        state::mark_copied(client, flow, (&table.schema, &table.name), self.snapshot.lsn, counts)
            .await
            .map_err(SnapshotError::state)?;
        commit(self.target).await?;
        let elapsed = started.elapsed();
        self.observer.event(CopyEvent::TableFinished { table, rows, bytes, elapsed });
        Ok(copied)
    }

    /// The plan was made before the snapshot. A column that came in between would be in the stream, but not in the
    /// copied rows.
    async fn check_unchanged(&self, job: &TableJob) -> Result<(), SnapshotError> {
        let now = relevo_catalog::table(self.source, &job.table)
            .await
            .map_err(SnapshotError::catalog(Side::Source))?;
        let change = match now {
            None => "it is gone",
            Some(now) if copied_columns(&now) != job.columns => "its columns are others",
            Some(now) if (now.kind == TableKind::Partitioned) != job.partitioned => "its kind is another",
            Some(_) => return Ok(()),
        };
        Err(SnapshotError::TableChanged { table: job.table.to_string(), change: change.to_owned() })
    }

    /// Removes what an earlier attempt has left. At the first attempt nothing can be Relevo's, and rows that came
    /// after the plan was made are refused.
    async fn make_empty(&self, job: &TableJob, on_target: Option<&TableInfo>) -> Result<(), SnapshotError> {
        let table = &job.table;
        let error = || SnapshotError::target_sql(format!("emptying {table}"));
        let only = on_target.map_or_else(|| sql::only(table, job.partitioned), only);
        let holds_rows = format!("SELECT EXISTS (SELECT FROM {only})");
        if !self.target.query_one(&holds_rows, &[]).await.map_err(error())?.get::<_, bool>(0) {
            return Ok(());
        }
        // An extension fills its own tables when it is created, as it did on the source.
        let by_extension = self.schema_is_ours && on_target.is_some_and(|table| table.extension.is_some());
        if self.first_attempt && !by_extension {
            return Err(SnapshotError::Refused { findings: vec![not_empty(table)] });
        }
        // TRUNCATE refuses a table that foreign keys point at, even when they do not act.
        let referenced =
            self.target.query_one(sql::IS_REFERENCED, &[&table.quoted()]).await.map_err(error())?.get(0);
        let empty = if referenced { format!("DELETE FROM {only}") } else { format!("TRUNCATE {only}") };
        self.target.batch_execute(&empty).await.map_err(error())
    }

    async fn pump(&self, job: &TableJob) -> Result<Copied, SnapshotError> {
        let table = &job.table;
        let pump = Pump {
            source: self.source,
            target: self.target,
            copy_out: sql::copy_out(table, &job.columns, job.partitioned),
            copy_in: sql::copy_in(table, &job.columns),
            table: table.to_string(),
        };
        let progress = |rows, bytes| self.observer.event(CopyEvent::TableProgress { table, rows, bytes });
        pump.run(progress).await
    }
}
