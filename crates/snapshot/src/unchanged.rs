//! Whether the source's tables are still what the copy takes them for. The plan is made before the slot, the rows are
//! read long after it; whatever happened between would be neither in the copy nor in the stream.
//!
//! A change that is found ends the attempt; the next one plans anew. Changes of structure that come later are found
//! by the stream.

use std::collections::{BTreeMap, BTreeSet};

use relevo_catalog::{TableInfo, TableName};
use relevo_connect::SqlSession;
use relevo_model::Side;
use tokio_postgres::error::SqlState;

use crate::plan::TableJob;
use crate::publication::published_as_planned;
use crate::session::Sessions;
use crate::{CopyOptions, SnapshotError, sql};

/// Under the snapshot: the planned tables, their partitions and the publications are those of the plan. A partition
/// that was created before the snapshot is in the stream, but its rows are not; a table that was created again is not
/// in the publication.
///
/// A table that has nothing to do with the planned ones may have been added: it is not part of the flow, and
/// whoever watches the flow says so.
pub(crate) async fn check_tables(
    source: &SqlSession,
    options: &CopyOptions,
    tables: &[TableInfo],
    all: bool,
) -> Result<(), SnapshotError> {
    let planned: BTreeSet<&TableName> = tables.iter().map(|table| &table.name).collect();
    let is_planned = |name: &TableName| planned.contains(name);
    let mut now = relevo_catalog::user_tables(source).await.map_err(SnapshotError::catalog(Side::Source))?;
    now.retain(|table| is_planned(&table.name) || table.partition_root.as_ref().is_some_and(is_planned));
    let there: BTreeSet<&TableName> = now.iter().map(|table| &table.name).collect();
    if let Some(gone) = planned.iter().find(|name| !there.contains(*name)) {
        return Err(changed(gone, "it is gone"));
    }
    if let Some(new) = there.iter().find(|name| !is_planned(name)) {
        return Err(changed(new, "it is a new partition"));
    }
    match published_as_planned(source, options, &now, all).await? {
        None => Ok(()),
        Some(table) => Err(changed(&table, "it is not published as planned")),
    }
}

fn changed(table: &TableName, change: &str) -> SnapshotError {
    SnapshotError::TableChanged { table: table.to_string(), change: change.to_owned() }
}

/// One stored part of a table.
struct Part {
    top: bool,
    file: u32,
    structure: String,
}

/// Keeps the definition of the table as it is for the rest of the transaction, and finds out whether the snapshot still
/// shows its rows. To a snapshot that is older than an ALTER TABLE that writes all rows anew, the table is empty
/// (manual, *Caveats* of *Concurrency Control*); and the stream does not carry rows that are only written anew.
///
/// `source` has imported the snapshot. What is there now is only looked at when something has moved.
pub(crate) async fn hold_table(
    source: &SqlSession,
    sessions: &Sessions<'_>,
    job: &TableJob,
) -> Result<(), SnapshotError> {
    let table = &job.table;
    source.batch_execute(&sql::lock(table, job.partitioned)).await.map_err(|error| match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => changed(table, "it is gone"),
        _ => SnapshotError::source_sql(format!("locking {table}"))(error),
    })?;
    let here = source
        .query_one(sql::IS_WHERE_IT_WAS, &[&table.schema, &table.name, &table.quoted()])
        .await
        .map_err(SnapshotError::source_sql(format!("looking where {table} is stored")))?;
    if here.get(0) {
        return Ok(());
    }
    let present = sessions.source("UTF8").await?;
    let (then, now) = (parts(source, table).await?, parts(&present, table).await?);
    present.close().await;
    match difference(&then, &now) {
        None => Ok(()),
        Some(change) => Err(changed(table, change)),
    }
}

fn difference(then: &BTreeMap<u32, Part>, now: &BTreeMap<u32, Part>) -> Option<&'static str> {
    let top = |parts: &BTreeMap<u32, Part>| parts.iter().find(|(_, part)| part.top).map(|(oid, _)| *oid);
    if top(then).is_none() || top(then) != top(now) {
        return Some("another table has its name");
    }
    let rewritten = |(oid, then): (&u32, &Part)| {
        now.get(oid).is_some_and(|now| now.file != then.file && now.structure != then.structure)
    };
    then.iter().any(rewritten).then_some("its rows were written anew by ALTER TABLE")
}

async fn parts(session: &SqlSession, table: &TableName) -> Result<BTreeMap<u32, Part>, SnapshotError> {
    let rows = session
        .query(sql::STORAGE, &[&table.schema, &table.name])
        .await
        .map_err(SnapshotError::source_sql(format!("looking where {table} is stored")))?;
    let part = |row: &tokio_postgres::Row| Part { top: row.get(1), file: row.get(2), structure: row.get(3) };
    Ok(rows.iter().map(|row| (row.get(0), part(row))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(all: &[(u32, u32, &str)]) -> BTreeMap<u32, Part> {
        let part = |(at, &(oid, file, structure)): (usize, &(u32, u32, &str))| {
            (oid, Part { top: at == 0, file, structure: structure.to_owned() })
        };
        all.iter().enumerate().map(part).collect()
    }

    #[test]
    fn only_what_empties_the_snapshot_counts_as_a_change() {
        let then = parts(&[(1, 0, "a"), (2, 20, "b"), (3, 30, "c")]);
        let same = |now: &[(u32, u32, &str)]| difference(&then, &parts(now));
        assert_eq!(same(&[(1, 0, "a"), (2, 20, "b"), (3, 30, "c")]), None);
        // A column was added without a rewrite; a partition was truncated; another was dropped, one created.
        assert_eq!(same(&[(1, 0, "x"), (2, 20, "x"), (3, 31, "c")]), None);
        assert_eq!(same(&[(1, 0, "a"), (2, 20, "b"), (4, 40, "d")]), None);
        assert!(same(&[(1, 0, "x"), (2, 21, "x"), (3, 30, "c")]).is_some());
        assert!(same(&[(9, 20, "a")]).is_some());
        assert!(same(&[]).is_some());
    }
}
