//! The schema on its way to the target: types, functions and tables before the rows; indexes, constraints and triggers
//! are stored for after them.

use std::collections::BTreeSet;

use relevo_catalog::{TableInfo, TableKind, TableName};
use relevo_connect::SqlSession;
use relevo_model::Side;
use relevo_state::{self as state, NewStatement};

use crate::pg_dump::{PgDump, Section};
use crate::plan::{CopyPlan, SchemaAction, foreign_rows};
use crate::script::{
    Adapted, AdaptedStatement, TargetFacts, key_parts, summary, tables_of_statements, transform,
};
use crate::session::{Sessions, begin, commit};
use crate::{CopyEvent, CopyObserver, CopyOptions, ExportedSnapshot, Phase, SnapshotError, Stop, sql};

/// Makes the target's tables ready for rows and records them as the flow's, all in one transaction.
///
/// When the schema is copied, what comes after the rows is stored in the same transaction for
/// [`crate::copy_tables`] and [`crate::finish_schema`].
///
/// # Errors
/// [`SnapshotError`]; the target is then as it was, except for the (empty) schema `relevo`.
pub async fn copy_schema(
    options: &CopyOptions,
    plan: &CopyPlan,
    snapshot: &ExportedSnapshot,
    observer: &dyn CopyObserver,
    stop: &Stop,
) -> Result<(), SnapshotError> {
    let sessions = Sessions::new(options);
    sessions
        .run(stop, async {
            let mut target = sessions.alone().await?;
            let encoding = sessions.source_encoding(&target).await?;
            let dumping = async {
                match &plan.schema {
                    SchemaAction::Copy(pg_dump) => dump(options, pg_dump, snapshot, encoding).await.map(Some),
                    SchemaAction::Existing | SchemaAction::Ready => Ok(None),
                }
            };
            let installing = async { state::install(&mut target).await.map_err(SnapshotError::state) };
            let (dump, ()) = tokio::try_join!(dumping, installing)?;
            match dump {
                Some(dump) => {
                    let facts = facts(&target).await?;
                    let (before, after) = adapt(&dump, &facts, observer);
                    create(options, plan, &target, &before, &after, observer).await
                }
                None => {
                    begin(&target).await?;
                    check_still_empty(options, plan, &target).await?;
                    record(options, plan, &target).await?;
                    commit(&target).await
                }
            }?;
            target.close().await;
            Ok(())
        })
        .await
}

/// Both parts of the schema, as `pg_dump` wrote them.
async fn dump(
    options: &CopyOptions,
    pg_dump: &PgDump,
    snapshot: &ExportedSnapshot,
    encoding: &str,
) -> Result<(String, String), SnapshotError> {
    let part = |section| pg_dump.dump(&options.source, (Some(&snapshot.name), encoding), &[], section);
    tokio::try_join!(part(Section::PreData), part(Section::PostData))
}

fn adapt(dump: &(String, String), facts: &TargetFacts, observer: &dyn CopyObserver) -> (Adapted, Adapted) {
    let (before, after) = (transform(&dump.0, facts), transform(&dump.1, facts));
    for message in before.warnings.iter().chain(&after.warnings) {
        observer.event(CopyEvent::Warning { message });
    }
    (before, after)
}

/// What the target has, for adapting the dump to it.
pub(crate) async fn facts(target: &SqlSession) -> Result<TargetFacts, SnapshotError> {
    // Since version 16 a member of a role may be kept from acting for it.
    let act_for = if target.server_version_num() >= 160_000 { "SET" } else { "MEMBER" };
    let row = target
        .query_one(sql::TARGET_FACTS, &[&act_for])
        .await
        .map_err(SnapshotError::target_sql("reading what the target has"))?;
    let set = |index: usize| row.get::<_, Vec<String>>(index).into_iter().collect();
    Ok(TargetFacts {
        version_num: row.get(0),
        superuser: row.get(1),
        roles: set(2),
        assumable_roles: set(3),
        tablespaces: set(4),
        schemas: set(5),
        settings: set(6),
        compressions: set(7),
    })
}

async fn create(
    options: &CopyOptions,
    plan: &CopyPlan,
    target: &SqlSession,
    before: &Adapted,
    after: &Adapted,
    observer: &dyn CopyObserver,
) -> Result<(), SnapshotError> {
    let phase = Phase::Schema;
    observer.event(CopyEvent::PhaseStarted { phase, steps: before.statements.len(), estimated_bytes: 0 });
    begin(target).await?;
    run_all(&before.statements, target, || observer.event(CopyEvent::StepFinished { phase })).await?;
    record(options, plan, target).await?;
    let after = for_later(&after.statements, &plan.tables);
    state::save_statements(&**target, &options.flow, &after).await.map_err(SnapshotError::state)?;
    commit(target).await
}

/// The statements as they are stored until the rows are there.
pub(crate) fn for_later(statements: &[AdaptedStatement], tables: &[TableInfo]) -> Vec<NewStatement> {
    let statements = keys_in_two(statements, tables);
    let tables = tables_of_statements(statements.iter().map(|statement| statement.sql.as_str()));
    let with_table = |(statement, table): (&AdaptedStatement, Option<TableName>)| NewStatement {
        table: table.map(|table| (table.schema, table.name)),
        statement: statement.alone(),
    };
    statements.iter().zip(tables).map(with_table).collect()
}

/// The statements with the keys of tables that are not partitioned as an index and a constraint. Of tables that do not
/// take part nobody knows whether they are partitioned; they have no rows either.
fn keys_in_two(statements: &[AdaptedStatement], tables: &[TableInfo]) -> Vec<AdaptedStatement> {
    let ordinary = tables.iter().filter(|table| table.kind == TableKind::Ordinary);
    let ordinary: BTreeSet<&TableName> = ordinary.map(|table| &table.name).collect();
    let tables = tables_of_statements(statements.iter().map(|statement| statement.sql.as_str()));
    let in_two = |(statement, table): (&AdaptedStatement, Option<TableName>)| {
        let parts = table.filter(|table| ordinary.contains(table)).and_then(|_| key_parts(&statement.sql));
        let Some(parts) = parts else { return vec![statement.clone()] };
        let part = |sql| AdaptedStatement { settings: statement.settings.clone(), sql };
        vec![part(parts.index), part(parts.constraint)]
    };
    statements.iter().zip(tables).flat_map(in_two).collect()
}

/// Runs the statements in the open transaction.
pub(crate) async fn run_all(
    statements: &[AdaptedStatement],
    target: &SqlSession,
    done: impl Fn(),
) -> Result<(), SnapshotError> {
    let mut settings = "";
    for statement in statements {
        if statement.settings != settings {
            run(target, statement, &statement.settings).await?;
            settings = &statement.settings;
        }
        run(target, statement, &statement.sql).await?;
        done();
    }
    Ok(())
}

async fn run(target: &SqlSession, statement: &AdaptedStatement, text: &str) -> Result<(), SnapshotError> {
    let named = |source| SnapshotError::Statement { statement: summary(&statement.sql), source };
    target.batch_execute(text).await.map_err(named)
}

/// From the moment that a table is recorded its rows are Relevo's to replace, so it must be empty when it is.
pub(crate) async fn check_still_empty(
    options: &CopyOptions,
    plan: &CopyPlan,
    target: &tokio_postgres::Client,
) -> Result<(), SnapshotError> {
    let recorded = state::tables(target, &options.flow).await.map_err(SnapshotError::state)?;
    let ours = recorded.into_iter().map(|table| TableName::new(table.schema, table.name)).collect();
    let names: Vec<TableName> = plan.jobs.iter().map(|job| job.table.clone()).collect();
    let there = relevo_catalog::tables(target, &names).await.map_err(SnapshotError::catalog(Side::Target))?;
    match foreign_rows(target, &plan.jobs, &there, &ours).await? {
        findings if findings.is_empty() => Ok(()),
        findings => Err(SnapshotError::Refused { findings }),
    }
}

/// Records the flow, its tables, and that they are there.
async fn record(options: &CopyOptions, plan: &CopyPlan, target: &SqlSession) -> Result<(), SnapshotError> {
    let (flow, client) = (&options.flow, &**target);
    state::create_flow(client, flow).await.map_err(SnapshotError::state)?;
    for old in state::tables(client, flow).await.map_err(SnapshotError::state)? {
        let planned = |name: &TableName| name.schema == old.schema && name.name == old.name;
        if !plan.jobs.iter().any(|job| planned(&job.table)) {
            state::drop_table(client, flow, &old.schema, &old.name).await.map_err(SnapshotError::state)?;
        }
    }
    for job in &plan.jobs {
        let (schema, name) = (&job.table.schema, &job.table.name);
        state::register_table(client, flow, schema, name, job.insert_only)
            .await
            .map_err(SnapshotError::state)?;
    }
    state::mark_schema_ready(client, flow).await.map_err(SnapshotError::state)
}
