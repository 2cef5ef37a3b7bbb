//! Every table of the flow, and those of the source that are not part of it.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Flow, name_of};
use crate::error::CliError;
use crate::output;

#[derive(Serialize)]
struct Document<'a> {
    name: &'a str,
    tables: Vec<Table>,
    not_part: Vec<NotPart>,
}

#[derive(Serialize)]
struct Table {
    table: String,
    state: &'static str,
    insert_only: bool,
    copied_rows: Option<i64>,
    copied_lsn: Option<String>,
    on_source: bool,
}

#[derive(Serialize)]
struct NotPart {
    table: String,
    reason: Reason,
}

/// Why a table of the source is not part of the flow.
#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Reason {
    /// The patterns do not choose it.
    Excluded,
    /// It came later, or was taken out.
    NotAdded,
}

/// Prints them.
///
/// # Errors
/// [`CliError::Failed`]: standard output is gone.
pub fn list(flow: &Flow) -> Result<(), CliError> {
    let there: std::collections::BTreeSet<_> = flow.all.iter().map(|table| &table.name).collect();
    let tables = flow.recorded.iter().map(|table| Table {
        table: name_of(table).to_string(),
        state: table.state.as_str(),
        insert_only: table.insert_only,
        copied_rows: table.copied_rows,
        copied_lsn: table.copied_lsn.map(|lsn| lsn.to_string()),
        on_source: there.contains(&name_of(table)),
    });
    let recorded = flow.recorded_names();
    let trees = flow.trees(&recorded);
    let others = trees.iter().filter(|(_, members)| members.is_disjoint(&recorded));
    let not_part = others.map(|(top, _)| NotPart {
        table: top.to_string(),
        reason: if flow.selection.matches(top) { Reason::NotAdded } else { Reason::Excluded },
    });
    let document =
        Document { name: flow.name.as_str(), tables: tables.collect(), not_part: not_part.collect() };
    if flow.json { output::json(&document) } else { output::print(&text(&document)) }
}

fn text(document: &Document<'_>) -> String {
    let names = document.tables.iter().map(|table| table.table.chars().count());
    let others = document.not_part.iter().map(|table| table.table.chars().count());
    let width = names.chain(others).max().unwrap_or(0).max("table".len());
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:<width$}  state      {:>12}  copied LSN", "table", "copied rows");
    for table in &document.tables {
        let rows = table.copied_rows.map_or("-".to_owned(), |rows| rows.to_string());
        let lsn = table.copied_lsn.as_deref().unwrap_or("-");
        let _ = write!(text, "{:<width$}  {:<9}  {rows:>12}  {lsn}", table.table, table.state);
        if table.insert_only {
            text.push_str("  insert-only: its updates and deletes are not replicated");
        }
        if !table.on_source {
            text.push_str("  no longer on the source");
        }
        text.push('\n');
    }
    if !document.not_part.is_empty() {
        text.push_str("\nnot part of the flow:\n");
    }
    for table in &document.not_part {
        let reason = match table.reason {
            Reason::Excluded => "excluded by the configuration",
            Reason::NotAdded => "came later, or was removed: relevo tables add",
        };
        let _ = writeln!(text, "{:<width$}  {reason}", table.table);
    }
    let (tables, others) = (document.tables.len(), document.not_part.len());
    let _ = writeln!(text, "\n{tables} tables of flow {}; {others} others on the source", document.name);
    text
}
