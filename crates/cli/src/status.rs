//! `relevo status`: how the flow is, from what both databases say. Works whether or not Relevo runs, and with either side
//! unreachable: then it says so and shows the rest.

mod copying;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::SystemTime;

use relevo_catalog::{Selection, TableInfo, TableName};
use relevo_connect::SqlSession;
use relevo_model::{FlowName, Side, SourceLsn, Timestamp};
use relevo_source::inspect_slot;
use relevo_state::{FlowState, TableState};
use relevo_telemetry::{CopyProgress, Role, SlotStatus, TableCounts};
use serde::Serialize;
use tokio_postgres::types::PgLsn;

use crate::args::StatusArgs;
use crate::error::{CliError, chain};
use crate::settings::{File, FlowSettings, Standing};
use crate::{connect, output};

/// Where the WAL ends, the clock, and what the walsender knows of the flow.
const SOURCE_NOW: &str = "SELECT pg_catalog.pg_current_wal_lsn(), pg_catalog.clock_timestamp(), r.write_lsn, r.replay_lsn \
     FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.slot_name = $1 \
     LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid = s.active_pid";
/// The slots of Relevo in this database, for when the flow's name has to be guessed.
const SLOTS: &str = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots \
     WHERE plugin = 'pgoutput' AND database = pg_catalog.current_database() AND slot_name LIKE 'relevo\\_%'";

/// The document of `relevo status --json`; its names are those of `/api/status`.
#[derive(Debug, Serialize)]
struct Status {
    name: String,
    node: Option<String>,
    role: Role,
    primary: Option<String>,
    epoch: u64,
    state: &'static str,
    state_detail: Option<String>,
    state_at: Option<String>,
    running: bool,
    source_lsn: Option<String>,
    received_lsn: Option<String>,
    applied_lsn: Option<String>,
    durable_lsn: Option<String>,
    lag_bytes: Option<u64>,
    lag_seconds: Option<f64>,
    last_commit_time: Option<String>,
    slot: Option<SlotStatus>,
    tables: TableCounts,
    copy: Option<CopyProgress>,
    errors: u64,
    unreachable: Vec<Unreachable>,
}

#[derive(Debug, Serialize)]
struct Unreachable {
    side: String,
    error: String,
}

/// What the target has stored.
#[derive(Default)]
struct TargetSide {
    known: bool,
    state: Option<(FlowState, Option<String>, Timestamp)>,
    applied: Option<SourceLsn>,
    commit_time: Option<Timestamp>,
    tables: TableCounts,
    recorded: BTreeSet<TableName>,
    copy: Option<CopyProgress>,
    errors: u64,
}

/// What the source says.
#[derive(Default)]
struct SourceSide {
    known: bool,
    current: Option<SourceLsn>,
    now: Option<Timestamp>,
    received: Option<SourceLsn>,
    replayed: Option<SourceLsn>,
    confirmed: Option<SourceLsn>,
    active: bool,
    slot: Option<SlotStatus>,
}

/// Prints how the flow is.
///
/// # Errors
/// [`CliError::Failed`]: neither side answers, or none of them knows the flow.
pub async fn run(args: &StatusArgs, file: &File) -> Result<(), CliError> {
    let settings = file.flow(&args.flow)?;
    let selection = file.selection(&args.patterns)?;
    let source = connect::session(&settings.source, Side::Source).await;
    let target = connect::session(&settings.target, Side::Target).await;
    let mut unreachable = Vec::new();
    for (side, error) in [(Side::Source, source.as_ref().err()), (Side::Target, target.as_ref().err())] {
        if let Some(error) = error {
            unreachable.push(Unreachable { side: side.to_string(), error: chain(error) });
        }
    }
    let (source, target) = (source.ok(), target.ok());
    let flow = flow_of(&settings, source.as_ref(), target.as_ref(), &unreachable).await?;
    let mut on_target = match &target {
        Some(session) => read_target(session, &flow).await?,
        None => TargetSide::default(),
    };
    let on_source = match &source {
        Some(session) => read_source(session, &flow).await?,
        None => SourceSide::default(),
    };
    if let Some(source) = &source
        && on_target.state.is_some()
    {
        on_target.tables.not_added = not_added(source, &selection, &on_target.recorded).await?;
    }
    if on_target.state.is_none() && on_source.slot.is_none() && unreachable.is_empty() {
        return Err(CliError::failed(format!(
            "there is no flow {flow} between these databases: begin one with relevo run, or give its --name"
        )));
    }
    let status = status(&flow, file.standing(), (on_source, on_target), unreachable);
    if args.json { output::json(&status) } else { output::print(&text(&status)) }
}

/// The flow's name when only the target is at hand: the given one, or the only one there.
///
/// # Errors
/// [`CliError::Failed`]: there is none, or none of that name; [`CliError::Usage`]: there is more than one.
pub async fn flow_on_target(wanted: Option<&FlowName>, target: &SqlSession) -> Result<FlowName, CliError> {
    let failed = |error: relevo_state::StateError| CliError::failed(format!("target: {error}"));
    if relevo_state::installed_version(&**target).await.map_err(failed)?.is_none() {
        return Err(CliError::failed(
            "the target has no schema relevo: no flow was ever begun into this database",
        ));
    }
    let mut flows: Vec<FlowName> =
        relevo_state::flows(&**target).await.map_err(failed)?.into_iter().map(|flow| flow.name).collect();
    let Some(wanted) = wanted else { return only(flows, "the target") };
    flows.retain(|name| name == wanted);
    flows.pop().ok_or_else(|| CliError::failed(format!("the target knows of no flow {wanted}")))
}

fn only(mut names: Vec<FlowName>, place: &str) -> Result<FlowName, CliError> {
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        (None, _) => {
            Err(CliError::failed(format!("{place} knows of no flow; if there is one, give its --name")))
        }
        (Some(last), false) => {
            names.push(last);
            let names: Vec<&str> = names.iter().map(FlowName::as_str).collect();
            Err(CliError::usage(format!(
                "{place} knows several flows, give one as --name: {}",
                names.join(", ")
            )))
        }
    }
}

async fn flow_of(
    settings: &FlowSettings,
    source: Option<&SqlSession>,
    target: Option<&SqlSession>,
    unreachable: &[Unreachable],
) -> Result<FlowName, CliError> {
    match (&settings.name, source, target) {
        (Some(name), Some(_), _) | (Some(name), _, Some(_)) => Ok(name.clone()),
        (None, Some(source), Some(target)) => {
            let failed = |error: relevo_catalog::CatalogError| CliError::failed(chain(&error));
            let source = relevo_catalog::server(source).await.map_err(failed)?;
            let target = relevo_catalog::server(target).await.map_err(failed)?;
            Ok(connect::flow_name(None, &source, &target))
        }
        (None, None, Some(target)) => flow_on_target(None, target).await,
        (None, Some(source), None) => {
            let rows = source.query(SLOTS, &[]).await.map_err(|error| sql_failed(Side::Source, &error))?;
            let name =
                |row: &tokio_postgres::Row| row.get::<_, String>(0).strip_prefix("relevo_")?.parse().ok();
            only(rows.iter().filter_map(name).collect(), "the source")
        }
        (_, None, None) => {
            let errors: Vec<&str> = unreachable.iter().map(|side| side.error.as_str()).collect();
            Err(CliError::failed(format!("neither database can be reached: {}", errors.join("; "))))
        }
    }
}

fn sql_failed(side: Side, error: &tokio_postgres::Error) -> CliError {
    CliError::failed(format!("{side}: {}", relevo_connect::describe(error)))
}

async fn read_target(target: &SqlSession, flow: &FlowName) -> Result<TargetSide, CliError> {
    let failed = |error: relevo_state::StateError| CliError::failed(format!("target: {error}"));
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
        errors: errors.unsigned_abs(),
    })
}

async fn read_source(source: &SqlSession, flow: &FlowName) -> Result<SourceSide, CliError> {
    let name = flow.slot();
    let row =
        source.query_one(SOURCE_NOW, &[&name]).await.map_err(|error| sql_failed(Side::Source, &error))?;
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
async fn not_added(
    source: &SqlSession,
    selection: &Selection,
    recorded: &BTreeSet<TableName>,
) -> Result<u64, CliError> {
    let failed = |error: relevo_catalog::CatalogError| CliError::failed(chain(&error));
    let all = relevo_catalog::user_tables(source).await.map_err(failed)?;
    let top = |table: &TableInfo| table.partition_root.clone().unwrap_or_else(|| table.name.clone());
    let part_of_flow = |table: &&TableInfo| recorded.contains(&table.name);
    let ours: BTreeSet<TableName> = all.iter().filter(part_of_flow).map(top).collect();
    let tops: BTreeSet<TableName> = all.iter().map(top).collect();
    let others = tops.difference(&ours).filter(|top| selection.matches(top)).count();
    Ok(u64::try_from(others).unwrap_or(u64::MAX))
}

/// What follows from both sides.
fn status(
    flow: &FlowName,
    standing: Option<&Standing>,
    (source, target): (SourceSide, TargetSide),
    unreachable: Vec<Unreachable>,
) -> Status {
    let (state, detail, at) = match target.state {
        // A flow that streams holds its slot; one that was killed could not write down that it stopped.
        Some((FlowState::Streaming | FlowState::Preparing, detail, at))
            if source.slot.is_some() && !source.active && target.applied.is_some() =>
        {
            (FlowState::Stopped, detail, Some(at))
        }
        // A source that does not answer cannot be streamed from; what was written down is only the last word.
        Some((FlowState::Streaming, _, at)) if !source.known => {
            let why = "the source cannot be reached; streaming is what the flow last said of itself";
            (FlowState::Preparing, Some(why.to_owned()), Some(at))
        }
        Some((state, detail, at)) => (state, detail, Some(at)),
        None if !target.known => {
            let why = "the target, where the flow's state is written down, cannot be reached";
            (if source.active { FlowState::Streaming } else { FlowState::Failed }, Some(why.to_owned()), None)
        }
        None => (FlowState::Preparing, None, None),
    };
    // A walsender reports positions without changes, which are written down only now and then.
    let applied = target.applied.max(source.replayed.filter(|_| target.applied.is_some()));
    let lag_bytes = source.current.zip(applied).map(|(current, applied)| current.bytes_since(applied));
    let lag_seconds = match (lag_bytes, source.now, target.commit_time) {
        (Some(0), ..) => Some(0.0),
        (_, now, Some(commit_time)) => Some(now.unwrap_or_else(Timestamp::now).seconds_since(commit_time)),
        _ => None,
    };
    let text = |lsn: Option<SourceLsn>| lsn.map(|lsn| lsn.to_string());
    Status {
        name: flow.to_string(),
        node: standing.map(|standing| standing.node.clone()),
        role: match standing {
            Some(standing) if standing.node == standing.primary => Role::Primary,
            Some(_) | None => Role::Standby,
        },
        primary: standing.map(|standing| standing.primary.clone()),
        epoch: standing.map_or(0, |standing| standing.epoch),
        state: state.as_str(),
        state_detail: detail,
        state_at: at.map(output::time),
        running: source.active,
        source_lsn: text(source.current),
        received_lsn: text(source.received.max(applied)),
        applied_lsn: text(applied),
        durable_lsn: text(source.confirmed),
        lag_bytes,
        lag_seconds,
        last_commit_time: target.commit_time.map(output::time),
        slot: source.slot,
        tables: target.tables,
        copy: target.copy.map(|copy| copying::of_process(copy, source.active)),
        errors: target.errors,
        unreachable,
    }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12}{value}");
    };
    let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    if let (Some(node), Some(primary)) = (&status.node, &status.primary) {
        let role = match status.role {
            Role::Primary => "the primary".to_owned(),
            Role::Standby => format!("a standby of {primary}"),
        };
        line("node", format!("{node}, {role} since epoch {}", status.epoch));
    }
    line("flow", status.name.clone());
    let since = status.state_at.as_ref().map_or(String::new(), |at| format!(" since {at}"));
    let holds = if status.running { "" } else { "; no process holds the slot" };
    line("state", format!("{}{since}{holds}", status.state));
    if let Some(detail) = &status.state_detail {
        line("", detail.clone());
    }
    let lag = match (status.lag_seconds, status.lag_bytes) {
        (Some(seconds), Some(bytes)) => format!("{}, {}", output::seconds(seconds), output::bytes(bytes)),
        (Some(seconds), None) => format!("{} or more", output::seconds(seconds)),
        (None, Some(bytes)) => output::bytes(bytes),
        (None, None) => "unknown".to_owned(),
    };
    line("lag", lag);
    line("source", or_unknown(&status.source_lsn));
    line("received", or_unknown(&status.received_lsn));
    line("applied", or_unknown(&status.applied_lsn));
    line("durable", or_unknown(&status.durable_lsn));
    if let Some(at) = &status.last_commit_time {
        line("last commit", at.clone());
    }
    line(
        "slot",
        match &status.slot {
            None => "unknown".to_owned(),
            Some(slot) => {
                let size = |bytes: Option<u64>| bytes.map_or("no limit".to_owned(), output::bytes);
                let wal_status = slot.wal_status.as_deref().unwrap_or("nothing reserved");
                format!(
                    "{} ({wal_status}); {} of WAL retained, {} until it is in danger",
                    slot.name,
                    slot.retained_bytes.map_or("an unknown amount".to_owned(), output::bytes),
                    size(slot.safe_bytes)
                )
            }
        },
    );
    line("tables", format!("{} of {} copied", status.tables.copied, status.tables.total));
    if status.tables.not_added > 0 {
        let count = status.tables.not_added;
        line("", format!("{count} more on the source are not part of the flow (relevo tables lists them)"));
    }
    for text in status.copy.iter().flat_map(copying::lines) {
        line("copy", text);
    }
    line("errors", format!("{} written down (relevo errors lists them)", status.errors));
    for side in &status.unreachable {
        line("UNREACHABLE", format!("{}: {}", side.side, side.error));
    }
    text
}
