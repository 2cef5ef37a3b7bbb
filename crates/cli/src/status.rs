//! `relevo status`: how the flow is, from what both databases say. Works whether or not Relevo runs, and with either side
//! unreachable: then it says so and shows the rest.

mod copying;
mod look;
mod sides;
mod watch;

use std::fmt::Write as _;

use relevo_state::HandoverRecord;
use relevo_telemetry::{CopyProgress, LastError, Role, SlotStatus, TableCounts, TableProgress};
use serde::Serialize;

use self::look::Looker;
use crate::args::StatusArgs;
use crate::error::CliError;
use crate::output;
use crate::settings::File;

pub use self::look::flow_on_target;
pub use self::watch::{draws, run as watch};

/// The document of `relevo status --json`; its names are those of `/api/status`.
#[derive(Debug, Clone, Serialize)]
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
    last_error: Option<LastError>,
    unreachable: Vec<Unreachable>,
    #[serde(skip)]
    watched: Watched,
}

/// What the terminal shows beyond the document.
#[derive(Debug, Clone, Default)]
struct Watched {
    tables: Vec<TableProgress>,
    handovers: Vec<HandoverRecord>,
}

#[derive(Debug, Clone, Serialize)]
struct Unreachable {
    side: String,
    kind: &'static str,
    error: String,
}

/// Prints how the flow is.
///
/// # Errors
/// [`CliError::Failed`]: neither side answers, or none of them knows the flow.
pub async fn run(args: &StatusArgs, file: &File) -> Result<(), CliError> {
    let status = Looker::new(args, file)?.look().await?;
    if args.json { output::json(&status) } else { output::print(&text(&status)) }
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
    if let Some(error) = &status.last_error {
        line("", format!("the last: {} [{}] at {}", error.text, error.kind, error.at));
    }
    for side in &status.unreachable {
        line("UNREACHABLE", format!("{}: {} [{}]", side.side, side.error, side.kind));
    }
    text
}
