//! The rows, with what belongs to each table alone: which tables of which snapshot. How the work is shared out is the
//! engine's matter.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use relevo_catalog::{PublishedTable, TableInfo, TableName};
use relevo_connect::SqlSession;
use relevo_model::{Side, SourceLsn};
use relevo_state::{self as state, PendingStatement};

use crate::engine::{Engine, Table, import_snapshot};
use crate::plan::{CopyPlan, TableJob};
use crate::script::{created_index, shares_table};
use crate::session::{Sessions, begin, commit};
use crate::unchanged::check_tables;
use crate::{CopyEvent, CopyObserver, CopyOptions, ExportedSnapshot, Phase, SnapshotError, Stop, sql};

/// What has been copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsCopied {
    /// Tables.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
    /// Bytes of rows as COPY writes them.
    pub bytes: u64,
}

/// Sees that under the snapshot the source is what was planned for, before these of the plan's tables are copied.
/// `all`: they are all tables of the flow; else only they are looked at.
///
/// # Errors
/// [`SnapshotError::TableChanged`]: plan again; [`SnapshotError`].
pub async fn check_snapshot(
    options: &CopyOptions,
    plan: &CopyPlan,
    (jobs, all): (&[TableJob], bool),
    snapshot: &ExportedSnapshot,
    stop: &Stop,
) -> Result<(), SnapshotError> {
    let sessions = Sessions::new(options);
    sessions
        .run(stop, async {
            let (source, target) = tokio::try_join!(sessions.source("UTF8"), sessions.alone())?;
            import_snapshot(&source, &snapshot.name).await?;
            let tables = if all { plan.tables.clone() } else { plan.tables_of(jobs) };
            check_tables(&source, options, &tables, all).await?;
            source.batch_execute("COMMIT").await.map_err(SnapshotError::source_sql("reading the tables"))?;
            note_changes(options, jobs, &source, &target).await?;
            source.close().await;
            target.close().await;
            Ok(())
        })
        .await
}

/// Copies the rows of these tables as the exported snapshot shows them, several at once, and large ones in parts. As
/// soon as a table's rows are there, its indexes and keys are built and its statistics gathered; then
/// [`CopyEvent::TableReady`] is told. Each is marked as copied at the snapshot's position in `relevo.table_state`.
///
/// An attempt always copies these tables anew, because the rows of an earlier one belong to an earlier snapshot: what
/// they hold is removed, so a table that streams must not be among them. Other tables of the flow are left as they are.
/// The snapshot's session must stay open until this returns. One call at a time for a flow: a second one waits until
/// the sessions of the first have ended, and the first could not go on.
///
/// `there`: tables that an earlier call has marked as copied; only what follows their rows is done, before the rest.
///
/// The sessions share the lock [`relevo_state::FlowLock::Rows`]; whoever applies changes to other tables is not in their way.
///
/// # Errors
/// [`SnapshotError`]. What was marked as copied stays so, until the next attempt; nothing else is there in part, except
/// for the parts of tables in state `copying`. Lost links are repaired here as long as the snapshot is there.
pub async fn copy_tables(
    options: &CopyOptions,
    (jobs, there): (&[TableJob], &[TableJob]),
    snapshot: &ExportedSnapshot,
    observer: &dyn CopyObserver,
    stop: &Stop,
) -> Result<RowsCopied, SnapshotError> {
    let jobs = jobs.iter().map(|job| (job, false)).chain(there.iter().map(|job| (job, true)));
    let jobs: Vec<(&TableJob, bool)> = jobs.collect();
    bring(options, &jobs, snapshot, observer, stop).await
}

/// Does for tables that were marked as copied by an earlier call what [`copy_tables`] does after their rows: what is not
/// done yet of their indexes, keys and statistics, and [`CopyEvent::TableReady`].
///
/// # Errors
/// As [`copy_tables`].
pub async fn complete_tables(
    options: &CopyOptions,
    jobs: &[TableJob],
    observer: &dyn CopyObserver,
    stop: &Stop,
) -> Result<(), SnapshotError> {
    let jobs: Vec<(&TableJob, bool)> = jobs.iter().map(|job| (job, true)).collect();
    // Nothing is read from the source any more.
    let none = ExportedSnapshot { name: String::new(), lsn: SourceLsn::ZERO };
    bring(options, &jobs, &none, observer, stop).await.map(drop)
}

/// Brings tables, each with whether its rows are there already.
async fn bring(
    options: &CopyOptions,
    tables: &[(&TableJob, bool)],
    snapshot: &ExportedSnapshot,
    observer: &dyn CopyObserver,
    stop: &Stop,
) -> Result<RowsCopied, SnapshotError> {
    let jobs: Vec<&TableJob> = tables.iter().map(|(job, _)| *job).collect();
    let missing: Vec<&TableJob> = tables.iter().filter(|(_, there)| !there).map(|(job, _)| *job).collect();
    let sessions = Sessions::new(options);
    sessions
        .run(stop, async {
            let target = sessions.alone().await?;
            let attempt = begin_attempt(options, &missing, &target).await?;
            let encoding = sessions.source_encoding(&target).await?;
            let names: Vec<TableName> = jobs.iter().map(|job| job.table.clone()).collect();
            let there = relevo_catalog::tables(&target, &names)
                .await
                .map_err(SnapshotError::catalog(Side::Target))?;
            let mut statements = own_statements(options, &jobs, &target).await?;
            // Workers share the lock that this session holds alone.
            target.close().await;
            if !missing.is_empty() {
                observer.event(CopyEvent::PhaseStarted {
                    phase: Phase::Rows,
                    steps: missing.len(),
                    estimated_bytes: missing.iter().map(|job| job.estimated_bytes).sum(),
                });
            }
            let there: HashMap<&TableName, &TableInfo> =
                there.iter().map(|table| (&table.name, table)).collect();
            let mut tables: Vec<Table<'_>> = tables
                .iter()
                .map(|(job, rows_are_there)| {
                    let own = statements.remove(&job.table).unwrap_or_default();
                    Table::new(job, *rows_are_there, there.get(&job.table).copied(), own)
                })
                .collect();
            tables.sort_by_key(|table| (table.lacks_rows(), Reverse(table.effort_bytes())));
            let engine = Engine::new(&sessions, (snapshot, observer), (attempt, encoding), tables);
            let (rows, bytes) = engine.run().await?;
            Ok(RowsCopied { tables: missing.len(), rows, bytes })
        })
        .await
}

/// Counts the attempt; these tables are to be copied again. Whoever belongs to an earlier attempt finds the number
/// changed before it finds a table emptied.
async fn begin_attempt(
    options: &CopyOptions,
    jobs: &[&TableJob],
    target: &SqlSession,
) -> Result<i32, SnapshotError> {
    let schemas: Vec<&str> = jobs.iter().map(|job| job.table.schema.as_str()).collect();
    let names: Vec<&str> = jobs.iter().map(|job| job.table.name.as_str()).collect();
    let bytes = |job: &&TableJob| i64::try_from(job.estimated_bytes).unwrap_or(i64::MAX);
    let bytes: Vec<i64> = jobs.iter().map(bytes).collect();
    begin(target).await?;
    let attempt = state::begin_attempt_of(&**target, &options.flow, (&schemas, &names, &bytes))
        .await
        .map_err(SnapshotError::state)?;
    target
        .batch_execute("SET LOCAL synchronous_commit = 'local'")
        .await
        .map_err(SnapshotError::target_sql("beginning an attempt"))?;
    commit(target).await?;
    Ok(attempt)
}

/// The statements that wait for the rows of each of these tables alone.
async fn own_statements(
    options: &CopyOptions,
    jobs: &[&TableJob],
    target: &SqlSession,
) -> Result<BTreeMap<TableName, Vec<PendingStatement>>, SnapshotError> {
    let mut owner: HashMap<(String, String), &TableName> = HashMap::new();
    for job in jobs {
        let table = &job.table;
        owner.insert((table.schema.clone(), table.name.clone()), table);
        if !job.partitioned {
            continue;
        }
        // A tree that is copied as one is ready when all of its tables are.
        let tree = target
            .query(sql::PARTITION_TREE, &[&table.quoted()])
            .await
            .map_err(SnapshotError::target_sql(format!("reading the partitions of {table}")))?;
        owner.extend(tree.iter().map(|row| ((row.get(0), row.get(1)), table)));
    }
    let pending = state::pending_statements(&**target, &options.flow).await.map_err(SnapshotError::state)?;
    let mut own: BTreeMap<TableName, Vec<PendingStatement>> = BTreeMap::new();
    for statement in pending {
        if let Some(table) = statement.table.as_ref().and_then(|table| owner.get(table)) {
            own.entry((*table).clone()).or_default().push(statement);
        }
    }
    for job in jobs {
        if let Some(statements) = own.get_mut(&job.table) {
            statements.sort_by_key(|pending| order(pending, job));
        }
    }
    Ok(own)
}

/// Indexes come first: they are built side by side, and what has to have the table for itself needs them, not they it. The
/// largest begins first, because what takes longest must not begin last.
fn order(pending: &PendingStatement, job: &TableJob) -> (bool, Reverse<u64>, i32) {
    let shares = shares_table(&pending.statement);
    let index = created_index(&pending.statement).filter(|_| shares);
    let bytes = index.and_then(|index| job.index_bytes.get(&index)).copied().unwrap_or(0);
    (!shares, Reverse(bytes), pending.ordinal)
}

/// Remembers what the source has counted for tables of which updates and deletes are not published, so that those
/// made from now on can be told.
async fn note_changes(
    options: &CopyOptions,
    jobs: &[TableJob],
    source: &SqlSession,
    target: &SqlSession,
) -> Result<(), SnapshotError> {
    let (whole, inserts) = (options.flow.publication(), options.flow.insert_only_publication());
    let tables = relevo_catalog::published(source, &whole, &inserts)
        .await
        .map_err(SnapshotError::catalog(Side::Source))?;
    for job in jobs.iter().filter(|job| job.insert_only) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(texts: &[&str]) -> Vec<PendingStatement> {
        let pending = |(ordinal, text): (i32, &&str)| PendingStatement {
            ordinal,
            table: Some(("public".to_owned(), "t".to_owned())),
            statement: (*text).to_owned(),
        };
        (1..).zip(texts).map(pending).collect()
    }

    fn job(bytes: u64, indexes: &[(&str, u64)]) -> TableJob {
        let index = |(name, bytes): &(&str, u64)| (TableName::new("public", *name), *bytes);
        TableJob {
            table: TableName::new("public", "t"),
            columns: Vec::new(),
            partitioned: false,
            insert_only: false,
            filled_by_extension: false,
            estimated_bytes: bytes,
            estimated_rows: None,
            index_bytes: indexes.iter().map(index).collect(),
        }
    }

    #[test]
    fn large_indexes_come_first_and_what_needs_them_last() {
        let mut pending = statements(&[
            "CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id);",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY USING INDEX t_pkey;",
            "CREATE INDEX unknown ON public.t USING btree (a);",
            "SET LOCAL default_tablespace = fast;\nCREATE INDEX large ON public.t USING btree (b);",
            "ALTER TABLE ONLY public.t REPLICA IDENTITY USING INDEX t_pkey;",
        ]);
        let job = job(1000, &[("t_pkey", 10), ("large", 70)]);
        pending.sort_by_key(|pending| order(pending, &job));
        let ordinals: Vec<i32> = pending.iter().map(|pending| pending.ordinal).collect();
        assert_eq!(ordinals, [4, 1, 3, 2, 5]);
    }

    #[test]
    fn a_table_with_large_indexes_takes_longer_than_a_larger_one_without() {
        let text = ["CREATE INDEX i ON public.t USING btree (a);"];
        let (indexed, plain) = (job(1000, &[("i", 500), ("gone", 9000)]), job(2000, &[]));
        let effort = |job: &TableJob, there| Table::new(job, there, None, statements(&text)).effort_bytes();
        assert_eq!((effort(&indexed, false), effort(&indexed, true)), (2500, 1500));
        assert_eq!((effort(&plain, false), effort(&plain, true)), (2000, 0));
    }
}
