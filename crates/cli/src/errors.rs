//! `relevo errors`: what went wrong without stopping the flow.

use std::fmt::Write as _;

use relevo_model::Side;
use relevo_state::ErrorRecord;
use serde::Serialize;

use crate::args::ErrorsArgs;
use crate::error::CliError;
use crate::settings::File;
use crate::{connect, output, status};

#[derive(Serialize)]
struct Line<'a> {
    id: i64,
    at: String,
    kind: &'a str,
    table: Option<String>,
    commit_lsn: Option<String>,
    message: &'a str,
}

/// Prints the newest errors that the flow has written down on the target.
///
/// # Errors
/// [`CliError::Failed`]: the target does not answer, or knows no such flow.
pub async fn run(args: &ErrorsArgs, file: &File) -> Result<(), CliError> {
    let settings = file.flow(&args.flow)?;
    let target =
        connect::session(&settings.target, Side::Target).await.map_err(|e| CliError::from_fault(&e))?;
    let flow = status::flow_on_target(&settings, &target).await?;
    let errors = relevo_state::errors(&*target, &flow, args.limit)
        .await
        .map_err(|error| CliError::failed(format!("target: {error}")))?;
    let lines: Vec<Line<'_>> = errors.iter().map(line).collect();
    if args.json {
        return output::json(&lines);
    }
    let mut text = String::new();
    for line in &lines {
        let table = line.table.as_deref().unwrap_or("-");
        let lsn = line.commit_lsn.as_deref().unwrap_or("-");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {}  {table}  commit {lsn}\n    {}", line.at, line.kind, line.message);
    }
    let _ = writeln!(text, "{} errors of flow {flow} shown", lines.len());
    output::print(&text)
}

fn line(error: &ErrorRecord) -> Line<'_> {
    Line {
        id: error.id,
        at: output::time(error.at),
        kind: &error.kind,
        table: error.table.as_ref().map(|(schema, name)| format!("{schema}.{name}")),
        commit_lsn: error.commit_lsn.map(|lsn| lsn.to_string()),
        message: &error.message,
    }
}
