//! What each side says of a flow.
//!
//! What may not enter: what follows from both together.

use std::collections::BTreeSet;
use std::time::SystemTime;

use relevo_catalog::{Selection, TableInfo, TableName};
use relevo_connect::SqlSession;
use relevo_model::{FlowName, Side, SourceLsn, Timestamp};
use relevo_source::inspect_slot;
use relevo_state::{ErrorRecord, FlowState, HandoverRecord, TableState};
use relevo_telemetry::{CopyProgress, LastError, SlotStatus, TableCounts, TableProgress};
use tokio_postgres::types::PgLsn;

use super::copying;
use crate::error::CliError;
use crate::output;

/// Where the WAL ends, the clock, and what the walsender knows of the flow.
const SOURCE_NOW: &str = "SELECT pg_catalog.pg_current_wal_lsn(), pg_catalog.clock_timestamp(), r.write_lsn, r.replay_lsn \
     FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.slot_name = $1 \
     LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid = s.active_pid";

/// What the target has stored.
#[derive(Default)]
pub struct TargetSide {
    pub known: bool,
    pub state: Option<(FlowState, Option<String>, Timestamp)>,
    pub applied: Option<SourceLsn>,
    pub commit_time: Option<Timestamp>,
    pub tables: TableCounts,
    pub recorded: BTreeSet<TableName>,
    pub copy: Option<CopyProgress>,
    /// Every table.
    pub each_table: Vec<TableProgress>,
    pub errors: u64,
    pub last_error: Option<LastError>,
    /// The newest first; none when no node has a role here.
    pub handovers: Vec<HandoverRecord>,
}

/// What the source says.
#[derive(Default)]
pub struct SourceSide {
    pub known: bool,
    pub current: Option<SourceLsn>,
    pub now: Option<Timestamp>,
    pub received: Option<SourceLsn>,
    pub replayed: Option<SourceLsn>,
    pub confirmed: Option<SourceLsn>,
    pub active: bool,
    pub slot: Option<SlotStatus>,
}

/// What the target has stored.
///
/// # Errors
/// [`CliError::Failed`]: it does not answer.
pub async fn read_target(target: &SqlSession, flow: &FlowName) -> Result<TargetSide, CliError> {
    let failed = |error| CliError::state(&error);
    if relevo_state::installed_version(&**target).await.map_err(failed)?.is_none() {
        return Ok(TargetSide { known: true, ..TargetSide::default() });
    }
    let record = relevo_state::flow(&**target, flow).await.map_err(failed)?;
    let progress =
        relevo_state::progress(&**target, flow).await.map_err(failed)?.map(|stored| stored.progress);
    let tables = relevo_state::tables(&**target, flow).await.map_err(failed)?;
    let there = |state| matches!(state, TableState::Copied | TableState::Streaming);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let errors = relevo_state::error_count(&**target, flow).await.map_err(failed)?;
    let pace = relevo_state::copy_pace(&**target, flow).await.map_err(failed)?;
    let newest = relevo_state::errors(&**target, flow, 1).await.map_err(failed)?.pop();
    // A schema of an older version knows of no hand-overs.
    let handovers = relevo_state::handovers(&**target).await.unwrap_or_default();
    let is_complete = record.as_ref().is_some_and(|record| record.copied);
    Ok(TargetSide {
        known: true,
        state: record.map(|record| (record.state, record.detail, record.state_at)),
        applied: progress.as_ref().map(|progress| progress.applied),
        commit_time: progress.and_then(|progress| progress.commit_time),
        tables: TableCounts {
            copied: count(tables.iter().filter(|table| there(table.state)).count()),
            total: count(tables.len()),
            not_added: 0,
        },
        recorded: tables.iter().map(|table| TableName::new(&table.schema, &table.name)).collect(),
        copy: (!is_complete && !tables.is_empty()).then(|| copying::progress(&tables, pace)),
        each_table: copying::each(&tables),
        errors: errors.unsigned_abs(),
        last_error: newest.map(last_error),
        handovers,
    })
}

fn last_error(record: ErrorRecord) -> LastError {
    let table = record.table.map_or(String::new(), |(schema, name)| format!("{schema}.{name}: "));
    LastError {
        at: output::time(record.at),
        side: None,
        kind: record.kind,
        text: format!("{table}{}", record.message),
    }
}

/// What the source says.
///
/// # Errors
/// [`CliError::Failed`]: it does not answer.
pub async fn read_source(source: &SqlSession, flow: &FlowName) -> Result<SourceSide, CliError> {
    let name = flow.slot();
    let row = source
        .query_one(SOURCE_NOW, &[&name])
        .await
        .map_err(|error| CliError::sql(Side::Source, "asking for positions", &error))?;
    let lsn = |index: usize| row.get::<_, Option<PgLsn>>(index).map(|lsn| SourceLsn::new(lsn.into()));
    let slot = inspect_slot(source, &name).await.map_err(|error| CliError::from_fault(&error))?;
    Ok(SourceSide {
        known: true,
        current: lsn(0),
        now: Some(Timestamp::from(row.get::<_, SystemTime>(1))),
        received: lsn(2),
        replayed: lsn(3),
        confirmed: slot.as_ref().and_then(|slot| slot.confirmed_flush_lsn),
        active: slot.as_ref().is_some_and(|slot| slot.active),
        slot: slot.map(|slot| SlotStatus {
            name,
            wal_status: slot.wal_status,
            retained_bytes: slot.retained_bytes.map(i64::unsigned_abs),
            safe_bytes: slot.safe_wal_bytes.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        }),
    })
}

/// How many tables of the source are chosen and not part of the flow; partitions count as the table at their top.
///
/// # Errors
/// [`CliError::Failed`]: it does not answer.
pub async fn not_added(
    source: &SqlSession,
    selection: &Selection,
    recorded: &BTreeSet<TableName>,
) -> Result<u64, CliError> {
    let failed = |error| CliError::catalog(&error);
    let all = relevo_catalog::user_tables(source).await.map_err(failed)?;
    let top = |table: &TableInfo| table.partition_root.clone().unwrap_or_else(|| table.name.clone());
    let part_of_flow = |table: &&TableInfo| recorded.contains(&table.name);
    let ours: BTreeSet<TableName> = all.iter().filter(part_of_flow).map(top).collect();
    let tops: BTreeSet<TableName> = all.iter().map(top).collect();
    let others = tops.difference(&ours).filter(|top| selection.matches(top)).count();
    Ok(u64::try_from(others).unwrap_or(u64::MAX))
}
