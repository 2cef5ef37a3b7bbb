//! What comes when all rows are there: what is about several tables, sequences, materialized views.

use relevo_catalog::TableName;
use relevo_connect::{SqlSession, describe};
use relevo_model::Side;
use relevo_state as state;

use crate::rest::create_the_rest;
use crate::sequences::{SequenceMode, Sequences, sequence_stays};
use crate::session::Sessions;
use crate::{CopyEvent, CopyObserver, CopyOptions, Phase, SnapshotError, Stop, sql};

/// Brings what is left when all rows are there: the statements that are about several tables (foreign keys, triggers,
/// rules, policies, views, event triggers) and any others that were not run yet, the sequences' present values, the
/// contents of materialized views, and statistics of partitioned tables. One after the other, over one session.
///
/// # Errors
/// [`SnapshotError`]. Each statement is noted with its own commit, so another call goes on where this one was.
pub async fn finish_schema(
    options: &CopyOptions,
    observer: &dyn CopyObserver,
    stop: &Stop,
) -> Result<(), SnapshotError> {
    let sessions = Sessions::new(options);
    sessions
        .run(stop, async {
            let (target, attempt) = sessions.latest().await?;
            create_the_rest(&options.flow, &target, attempt, observer).await?;
            let source = sessions.source(sessions.source_encoding(&target).await?).await?;
            set_sequences(options, &source, &target, observer).await?;
            refresh_views(&source, &target, observer).await?;
            analyze_trees(options, &target, observer, |_| true).await?;
            source.close().await;
            target.close().await;
            Ok(())
        })
        .await
}

/// Brings what is left for tables that were added to a flow: the statements that were not run yet, and statistics of
/// partitioned tables. Sequences follow the source by then, and materialized views are left as they are: the standby may
/// be in use.
///
/// # Errors
/// [`SnapshotError`], as [`finish_schema`].
pub async fn finish_added(
    options: &CopyOptions,
    observer: &dyn CopyObserver,
    stop: &Stop,
) -> Result<(), SnapshotError> {
    let sessions = Sessions::new(options);
    sessions
        .run(stop, async {
            let (target, attempt) = sessions.latest().await?;
            create_the_rest(&options.flow, &target, attempt, observer).await?;
            // Those that never were.
            analyze_trees(options, &target, observer, |never_analysed| never_analysed).await?;
            target.close().await;
            Ok(())
        })
        .await
}

/// Sets the selected sequences to where they stand on the source at present; while the flow streams they follow it.
async fn set_sequences(
    options: &CopyOptions,
    source: &SqlSession,
    target: &SqlSession,
    observer: &dyn CopyObserver,
) -> Result<(), SnapshotError> {
    let phase = Phase::Sequences;
    observer.event(CopyEvent::PhaseStarted { phase, steps: 1, estimated_bytes: 0 });
    let done = Sequences::new(options.selection.clone()).set(source, target, SequenceMode::Exactly).await?;
    for (sequence, problem) in &done.problems {
        observer.event(CopyEvent::Warning { message: &sequence_stays(sequence, problem) });
    }
    observer.event(CopyEvent::StepFinished { phase });
    Ok(())
}

/// Fills the materialized views that are filled on the source. One view may read another, and how is not looked
/// up: whatever fails is tried again as long as another one succeeds.
async fn refresh_views(
    source: &SqlSession,
    target: &SqlSession,
    observer: &dyn CopyObserver,
) -> Result<(), SnapshotError> {
    let names = |rows: &[tokio_postgres::Row]| -> Vec<TableName> {
        rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect()
    };
    let error = |side| SnapshotError::sql(side, "reading the materialized views");
    let filled = names(&source.query(sql::POPULATED_VIEWS, &[]).await.map_err(error(Side::Source))?);
    let schemas: Vec<&str> = filled.iter().map(|name| name.schema.as_str()).collect();
    let views: Vec<&str> = filled.iter().map(|name| name.name.as_str()).collect();
    let there = target.query(sql::EXISTING_VIEWS, &[&schemas, &views]).await.map_err(error(Side::Target))?;
    let mut pending = names(&there);
    let phase = Phase::Views;
    observer.event(CopyEvent::PhaseStarted { phase, steps: pending.len(), estimated_bytes: 0 });
    loop {
        let mut failed = Vec::new();
        let before = pending.len();
        for view in pending {
            let refresh = format!("REFRESH MATERIALIZED VIEW {}", view.quoted());
            match target.batch_execute(&refresh).await {
                Ok(()) => observer.event(CopyEvent::StepFinished { phase }),
                Err(error) if error.as_db_error().is_none() => {
                    return Err(SnapshotError::target_sql(format!("filling the view {view}"))(error));
                }
                Err(error) => failed.push((view, error)),
            }
        }
        if failed.is_empty() || failed.len() == before {
            for (view, error) in failed {
                let message = format!("materialized view {view} could not be filled: {}", describe(&error));
                observer.event(CopyEvent::Warning { message: &message });
            }
            return Ok(());
        }
        pending = failed.into_iter().map(|(view, _)| view).collect();
    }
}

/// Gives the planner the statistics of whole trees of partitions; autovacuum would never do so. The partitions have
/// theirs already, and since version 18 they are spared a second look.
async fn analyze_trees(
    options: &CopyOptions,
    target: &SqlSession,
    observer: &dyn CopyObserver,
    wanted: impl Fn(bool) -> bool,
) -> Result<(), SnapshotError> {
    let tables = state::tables(&**target, &options.flow).await.map_err(SnapshotError::state)?;
    let (schemas, names): (Vec<String>, Vec<String>) =
        tables.into_iter().map(|table| (table.schema, table.name)).unzip();
    let roots = target
        .query(sql::PARTITION_ROOTS, &[&schemas, &names])
        .await
        .map_err(SnapshotError::target_sql("reading the partitioned tables"))?;
    let only = if target.server_version_num() >= 180_000 { "ONLY " } else { "" };
    let phase = Phase::Analyze;
    observer.event(CopyEvent::PhaseStarted { phase, steps: roots.len(), estimated_bytes: 0 });
    for row in roots.iter().filter(|row| wanted(row.get(2))) {
        let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        match target.batch_execute(&format!("ANALYZE {only}{}", table.quoted())).await {
            Ok(()) => {}
            Err(error) if error.as_db_error().is_none() => {
                return Err(SnapshotError::target_sql(format!("analysing {table}"))(error));
            }
            Err(error) => {
                let message = format!("table {table} could not be analysed: {}", describe(&error));
                observer.event(CopyEvent::Warning { message: &message });
            }
        }
        observer.event(CopyEvent::StepFinished { phase });
    }
    Ok(())
}
