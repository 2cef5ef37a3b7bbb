//! What comes after the rows: indexes and constraints, sequences, materialized views, statistics, and the note
//! that the flow streams from here.

use relevo_catalog::TableName;
use relevo_connect::{SqlSession, describe};
use relevo_model::{Side, SourceIdentity};
use relevo_state as state;

use crate::plan::CopyPlan;
use crate::schema::{begin, commit, create_after_rows};
use crate::sequences::{SequenceMode, Sequences, sequence_stays};
use crate::session::Sessions;
use crate::{CopyEvent, CopyObserver, CopyOptions, ExportedSnapshot, Phase, SnapshotError, Stop, sql};

/// Completes the copy: indexes, constraints and triggers, the sequences' present values, materialized views,
/// statistics. Then, in one flushed transaction, records that the flow streams from the snapshot's position
/// ([`state::begin_streaming`]).
///
/// # Errors
/// [`SnapshotError`]; there is no progress row then, so the next start copies again.
pub async fn finish(
    options: &CopyOptions,
    plan: &CopyPlan,
    snapshot: &ExportedSnapshot,
    identity: &SourceIdentity,
    observer: &dyn CopyObserver,
    stop: &Stop,
) -> Result<(), SnapshotError> {
    let sessions = Sessions::new(options);
    sessions
        .run(stop, async {
            let target = sessions.target().await?;
            create_after_rows(&options.flow, &target, observer).await?;
            let source = sessions.source(sessions.source_encoding(&target).await?).await?;
            set_sequences(options, &source, &target, observer).await?;
            refresh_views(&source, &target, observer).await?;
            analyze(plan, &target, observer).await?;
            begin(&target).await?;
            // Everything before this commit is flushed with it.
            target
                .batch_execute("SET LOCAL synchronous_commit = 'on'")
                .await
                .map_err(SnapshotError::target_sql("ending the copy"))?;
            state::begin_streaming(&*target, &options.flow, identity, snapshot.lsn)
                .await
                .map_err(SnapshotError::state)?;
            commit(&target).await?;
            source.close().await;
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

/// Gives the planner its statistics: without them the first queries, Relevo's own among them, scan whole tables.
async fn analyze(
    plan: &CopyPlan,
    target: &SqlSession,
    observer: &dyn CopyObserver,
) -> Result<(), SnapshotError> {
    // A partitioned table is analysed with all its partitions; autovacuum would never do so.
    let tops: Vec<&TableName> =
        plan.tables.iter().filter(|table| !table.is_partition).map(|table| &table.name).collect();
    let phase = Phase::Analyze;
    observer.event(CopyEvent::PhaseStarted { phase, steps: tops.len(), estimated_bytes: 0 });
    for table in tops {
        match target.batch_execute(&format!("ANALYZE {}", table.quoted())).await {
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
