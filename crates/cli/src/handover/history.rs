//! `relevo history`: who was the primary when, from what all nodes remember.

use std::collections::BTreeMap;

use relevo_handover::{HandoverRecord, HandoverState, HookState, observe};
use serde::Serialize;

use crate::args::HistoryArgs;
use crate::error::CliError;
use crate::output;
use crate::settings::File;

#[derive(Debug, Serialize)]
struct Entry {
    id: String,
    kind: &'static str,
    state: &'static str,
    epoch: u64,
    from: Option<String>,
    to: String,
    requested_by: String,
    started_at: String,
    ended_at: Option<String>,
    step: Option<String>,
    old_lsn: Option<String>,
    old_commit_time: Option<String>,
    new_lsn: Option<String>,
    pause_ms: Option<i64>,
    loss: Option<String>,
    on_fence: Option<&'static str>,
    on_promote: Option<&'static str>,
}

impl Entry {
    fn of(record: &HandoverRecord) -> Self {
        Self {
            id: record.id.clone(),
            kind: record.kind.as_str(),
            state: record.state.as_str(),
            epoch: record.epoch,
            from: record.from.clone(),
            to: record.to.clone(),
            requested_by: record.requested_by.clone(),
            started_at: output::time(record.started_at),
            ended_at: record.ended_at.map(output::time),
            step: record.step.clone(),
            old_lsn: record.old_lsn.map(|lsn| lsn.to_string()),
            old_commit_time: record.old_commit_time.map(output::time),
            new_lsn: record.new_lsn.map(|lsn| lsn.to_string()),
            pause_ms: record.pause_ms,
            loss: record.loss.clone(),
            on_fence: record.on_fence.map(HookState::as_str),
            on_promote: record.on_promote.map(HookState::as_str),
        }
    }
}

/// Prints the history.
///
/// # Errors
/// [`CliError::Failed`]: no node answers.
pub async fn run(args: &HistoryArgs, file: &File) -> Result<(), CliError> {
    let cluster = file.cluster()?;
    let observed = observe(&cluster).await;
    if observed.all_seen().next().is_none() {
        return Err(
            CliError::failed("no node answers; relevo history asks them all").of_kind("no_node_answers")
        );
    }
    // A node may have died before it learnt how it ended: of the same hand-over the one that knows more counts.
    let mut all: BTreeMap<&str, &HandoverRecord> = BTreeMap::new();
    for record in observed.all_seen().flat_map(|(_, seen)| &seen.handovers) {
        let known = all.entry(&record.id).or_insert(record);
        if known.state == HandoverState::Running || (known.ended_at.is_none() && record.ended_at.is_some()) {
            *known = record;
        }
    }
    let mut records: Vec<&HandoverRecord> = all.into_values().collect();
    records.sort_by_key(|record| std::cmp::Reverse((record.started_at, record.epoch)));
    let entries: Vec<Entry> = records.into_iter().map(Entry::of).collect();
    if args.json {
        return output::json(&entries);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["EPOCH", "WHAT", "FROM", "TO", "BEGAN", "STATE", "PAUSE", "BY", "MAY BE LOST"]);
    for entry in &entries {
        table.add_row([
            entry.epoch.to_string(),
            entry.kind.to_owned(),
            entry.from.clone().unwrap_or_default(),
            entry.to.clone(),
            entry.started_at.clone(),
            entry.state.to_owned(),
            entry.pause_ms.map_or_else(String::new, |pause| format!("{pause} ms")),
            entry.requested_by.clone(),
            entry.loss.clone().unwrap_or_default(),
        ]);
    }
    output::print(&format!("{table}\n"))
}
