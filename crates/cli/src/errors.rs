//! `relevo errors`: what went wrong without stopping the flow.

use std::fmt::Write as _;

use relevo_model::{FlowName, Side};
use relevo_state::ErrorRecord;
use serde::Serialize;
use tokio_postgres::IsolationLevel;

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

/// Prints the newest errors that the flow has written down on the target, and removes them if that is asked.
///
/// # Errors
/// [`CliError::Failed`]: the target does not answer, or knows no such flow.
pub async fn run(args: &ErrorsArgs, file: &File) -> Result<(), CliError> {
    let settings = file.flow(&args.flow)?;
    let mut target =
        connect::session(&settings.target, Side::Target).await.map_err(|e| CliError::from_fault(&e))?;
    let flow = status::flow_on_target(settings.name.as_ref(), &target).await?;
    let failed = |error| CliError::state(&error);
    let sql_failed = |error: tokio_postgres::Error| CliError::sql(Side::Target, "reading the errors", &error);
    // What is removed is what was there when they were read: nothing goes that nobody could have seen.
    let transaction = target.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let transaction = transaction.start().await.map_err(sql_failed)?;
    let errors = relevo_state::errors(&transaction, &flow, args.limit).await.map_err(failed)?;
    let cleared = match args.clear {
        true => Some(relevo_state::clear_errors(&transaction, &flow).await.map_err(failed)?),
        false => None,
    };
    show(args, &flow, &errors, cleared)?;
    // Only now: what could not be shown stays.
    transaction.commit().await.map_err(sql_failed)
}

fn show(
    args: &ErrorsArgs,
    flow: &FlowName,
    errors: &[ErrorRecord],
    cleared: Option<u64>,
) -> Result<(), CliError> {
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
    if let Some(cleared) = cleared {
        let _ = writeln!(text, "{cleared} errors of flow {flow} removed");
    }
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
