//! `relevo repair`: rewrites exactly the rows of the target that differ, while the flow runs.

use std::fmt::Write as _;

use relevo_verify::{Ends, Repaired};
use serde::Serialize;

use crate::args::RepairArgs;
use crate::error::CliError;
use crate::output;
use crate::settings::File;
use crate::verify::{self, Skipped, milliseconds};

/// The document of `relevo repair --json`.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    lsn: Option<String>,
    pause_ms: u64,
    transactions: u64,
    rows: u64,
    left: u64,
    sequences_set: usize,
    tables: Vec<Table>,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Serialize)]
struct Table {
    table: String,
    inserted: u64,
    updated: u64,
    deleted: u64,
}

/// Compares, and mends what differs.
///
/// # Errors
/// [`CliError::Refused`]: with `--dry-run`, when there is something to do; [`CliError::Failed`].
pub async fn run(args: &RepairArgs, file: &File) -> Result<(), CliError> {
    let (ends, options) = verify::ends(&args.compare, file).await?;
    if args.dry_run {
        let found = relevo_verify::verify(&ends, &options).await.map_err(verify::failed)?;
        verify::show(&ends, &found, args.compare.json)?;
        return verify::conclude(&found);
    }
    let repaired = relevo_verify::repair(&ends, &options).await.map_err(verify::failed)?;
    let sequences_set = match &options.sequences {
        Some(selection) => relevo_verify::repair_sequences(&ends, selection).await.map_err(verify::failed)?,
        None => 0,
    };
    let report = report(&ends, &repaired, sequences_set);
    if args.compare.json {
        output::json(&report)?
    } else {
        output::print(&text(&report, &repaired))?
    }
    if repaired.left > 0 {
        return Err(CliError::failed(format!(
            "{} rows still differ: try again; if it is a column that either side computes by itself, compare what it is \
             computed by",
            repaired.left
        ))
        .of_kind("rows_differ"));
    }
    match repaired.skipped.len() {
        0 => Ok(()),
        count => {
            Err(CliError::failed(format!("{count} tables could not be looked at")).of_kind("tables_skipped"))
        }
    }
}

fn report(ends: &Ends, repaired: &Repaired, sequences_set: usize) -> Report {
    let tables = repaired.tables.iter().filter(|(_, done)| done.rows() > 0);
    Report {
        name: ends.flow.to_string(),
        lsn: repaired.lsn.map(|lsn| lsn.to_string()),
        pause_ms: milliseconds(repaired.pause),
        transactions: repaired.transactions,
        rows: repaired.tables.iter().map(|(_, done)| done.rows()).sum(),
        left: repaired.left,
        sequences_set,
        tables: tables
            .map(|(table, done)| Table {
                table: table.to_string(),
                inserted: done.inserted,
                updated: done.updated,
                deleted: done.deleted,
            })
            .collect(),
        skipped: verify::skipped(&repaired.skipped),
    }
}

fn text(report: &Report, repaired: &Repaired) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for table in &report.tables {
        let _ = writeln!(
            text,
            "{:<40} {} inserted, {} updated, {} deleted",
            table.table, table.inserted, table.updated, table.deleted
        );
    }
    for skipped in &repaired.skipped {
        let _ = writeln!(text, "{:<40} not looked at: {}", skipped.table.to_string(), skipped.reason);
    }
    if report.sequences_set > 0 {
        let _ = writeln!(text, "{} sequences were set to where the source's stand", report.sequences_set);
    }
    let _ = match report.rows {
        0 => writeln!(text, "flow {}: nothing was to be mended", report.name),
        rows => writeln!(
            text,
            "flow {}: {rows} rows were mended in {} transactions; it stood still for {} ms",
            report.name, report.transactions, report.pause_ms
        ),
    };
    text
}
