//! `relevo verify`: whether both sides hold the same rows at one position of the source, while the flow runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use relevo_verify::{
    DifferenceKind, Ends, RowDifference, SequenceGap, SequencePlace, TableReport, Verification, VerifyError,
    VerifyOptions,
};
use serde::Serialize;
use serde_json::Value;

use crate::args::{CompareArgs, VerifyArgs};
use crate::error::{CliError, NO_FLOW, chain};
use crate::settings::{CompareSettings, File};
use crate::{connect, output};

/// How many rows of a table are shown to people.
const ROWS_SHOWN: usize = 20;

/// The document of `relevo verify --json` and `relevo repair --dry-run --json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    name: String,
    equal: bool,
    lsn: String,
    pause_ms: u64,
    differences: u64,
    tables: Vec<Table<'a>>,
    skipped: Vec<Skipped>,
    sequences_behind: usize,
    sequences: Vec<SequenceLine>,
}

/// A sequence that stands elsewhere on the target.
#[derive(Debug, Serialize)]
struct SequenceLine {
    sequence: String,
    state: &'static str,
    source: Option<i64>,
    target: Option<i64>,
    reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Table<'a> {
    table: String,
    insert_only: bool,
    key: &'a [String],
    source_rows: u64,
    target_rows: u64,
    missing: u64,
    extra: u64,
    differing: u64,
    rows: Vec<RowLine<'a>>,
}

#[derive(Debug, Serialize)]
struct RowLine<'a> {
    kind: &'static str,
    key: BTreeMap<&'a str, Option<&'a str>>,
    values: Option<&'a [Option<String>]>,
    columns: &'a [String],
    count: u64,
}

/// A table that was not compared.
#[derive(Debug, Serialize)]
pub struct Skipped {
    table: String,
    reason: String,
}

/// Compares, and prints what was found.
///
/// # Errors
/// [`CliError::Refused`]: both sides differ; [`CliError::Failed`]: they could not be compared.
pub async fn run(args: &VerifyArgs, file: &File) -> Result<(), CliError> {
    let (ends, options) = ends(&args.compare, file).await?;
    let found = relevo_verify::verify(&ends, &options).await.map_err(failed)?;
    show(&ends, &found, args.compare.json)?;
    conclude(&found)
}

/// Which flow is compared, and how.
///
/// # Errors
/// [`CliError::Usage`], [`CliError::Failed`].
pub async fn ends(args: &CompareArgs, file: &File) -> Result<(Ends, VerifyOptions), CliError> {
    let CompareSettings { options, timeout } = file.compare(args)?;
    let settings = file.flow(&args.flow)?;
    let (source, target) = connect::both(&settings).await?;
    let failed = |error| CliError::catalog(&error);
    let source_facts = relevo_catalog::server(&source).await.map_err(failed)?;
    let target_facts = relevo_catalog::server(&target).await.map_err(failed)?;
    let flow = connect::flow_name(settings.name.as_ref(), &source_facts, &target_facts);
    let state_failed = |error| CliError::state(&error);
    let known = relevo_state::installed_version(&*target).await.map_err(state_failed)?.is_some()
        && relevo_state::flow(&*target, &flow).await.map_err(state_failed)?.is_some();
    if !known {
        return Err(CliError::failed(format!(
            "the target knows of no flow {flow}: begin it with relevo run, or give its --name"
        ))
        .of_kind(NO_FLOW));
    }
    let stored = relevo_state::progress(&*target, &flow).await.map_err(state_failed)?;
    let here = (&source_facts.system_id, &source_facts.database);
    if stored.is_some_and(|stored| (&stored.source.system_id, &stored.source.database) != here) {
        return Err(CliError::refused(format!(
            "flow {flow} follows another source than the one that was given: their rows say nothing of each other"
        )).of_kind("other_source"));
    }
    source.close().await;
    target.close().await;
    let ends = Ends { source: settings.source.clone(), target: settings.target.clone(), flow, timeout };
    Ok((ends, options))
}

/// What a comparison that failed ends the command with.
pub fn failed(error: VerifyError) -> CliError {
    CliError::failed(chain(&error)).of_kind(error.kind())
}

/// Prints what was found.
///
/// # Errors
/// Standard output is gone.
pub fn show(ends: &Ends, found: &Verification, json: bool) -> Result<(), CliError> {
    if json {
        return output::json(&Report {
            name: ends.flow.to_string(),
            equal: found.differences() == 0 && found.skipped.is_empty() && found.sequences_behind() == 0,
            lsn: found.lsn.to_string(),
            pause_ms: milliseconds(found.pause),
            differences: found.differences(),
            tables: found.tables.iter().map(table).collect(),
            skipped: skipped(&found.skipped),
            sequences_behind: found.sequences_behind(),
            sequences: found.sequences.iter().map(sequence).collect(),
        });
    }
    output::print(&text(ends, found))
}

/// How the command ends.
///
/// # Errors
/// Unless all tables were compared and are equal.
pub fn conclude(found: &Verification) -> Result<(), CliError> {
    let tables = found.tables.iter().filter(|table| table.differences() > 0).count();
    if tables > 0 {
        return Err(CliError::refused(format!(
            "both sides differ at {} in {} rows of {tables} tables; relevo repair rewrites these rows on the target",
            found.lsn,
            found.differences()
        )).of_kind("rows_differ"));
    }
    let behind = found.sequences_behind();
    if behind > 0 {
        return Err(CliError::refused(format!(
            "{behind} sequences of the target are behind the source's, whose tables are equal at {}; they follow once in a \
             heartbeat interval while relevo run is at work, and relevo repair sets them at once",
            found.lsn
        ))
        .of_kind("sequences_behind"));
    }
    if found.tables.is_empty() && found.skipped.is_empty() {
        return Err(
            CliError::usage("no table of the flow was chosen: is --table right?").of_kind("no_such_table")
        );
    }
    match found.skipped.len() {
        0 => Ok(()),
        count => Err(CliError::failed(format!(
            "{count} tables could not be compared; the others are equal at {}",
            found.lsn
        ))
        .of_kind("tables_skipped")),
    }
}

const fn sequence_word(place: &SequencePlace) -> (&'static str, Option<&'static str>) {
    match place {
        SequencePlace::Behind => ("behind", None),
        SequencePlace::Ahead => ("ahead", None),
        SequencePlace::Unknown(why) => ("unknown", Some(*why)),
    }
}

fn sequence(gap: &SequenceGap) -> SequenceLine {
    let (state, reason) = sequence_word(&gap.place);
    SequenceLine { sequence: gap.name.to_string(), state, source: gap.source, target: gap.target, reason }
}

fn sequence_text(gap: &SequenceGap) -> String {
    let value = |value: Option<i64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let name = gap.name.to_string();
    let (word, reason) = sequence_word(&gap.place);
    match reason {
        Some(reason) => format!("{name:<40} sequence, not compared: {reason}"),
        None => format!(
            "{name:<40} sequence, {word}: {} on the target, {} on the source",
            value(gap.target),
            value(gap.source)
        ),
    }
}

/// In whole milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The tables that were not compared, as they stand in the documents.
pub fn skipped(tables: &[relevo_verify::SkippedTable]) -> Vec<Skipped> {
    let line = |skipped: &relevo_verify::SkippedTable| Skipped {
        table: skipped.table.to_string(),
        reason: skipped.reason.clone(),
    };
    tables.iter().map(line).collect()
}

fn table(report: &TableReport) -> Table<'_> {
    Table {
        table: report.table.to_string(),
        insert_only: report.insert_only,
        key: &report.key,
        source_rows: report.source_rows,
        target_rows: report.target_rows,
        missing: report.missing,
        extra: report.extra,
        differing: report.differing,
        rows: report.rows.iter().map(|row| line(report, row)).collect(),
    }
}

fn line<'a>(report: &'a TableReport, row: &'a RowDifference) -> RowLine<'a> {
    let key = report.key.iter().map(String::as_str).zip(row.key.iter().map(Option::as_deref));
    RowLine {
        kind: word(row.kind),
        key: key.collect(),
        values: report.key.is_empty().then_some(&row.key[..]),
        columns: &row.columns,
        count: row.count,
    }
}

const fn word(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::Missing => "missing",
        DifferenceKind::Extra => "extra",
        DifferenceKind::Differing => "differing",
    }
}

fn text(ends: &Ends, found: &Verification) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "flow {} at {}; it stood still for {} ms",
        ends.flow,
        found.lsn,
        milliseconds(found.pause)
    );
    for report in &found.tables {
        let verdict = match report.differences() {
            0 => "equal".to_owned(),
            _ => {
                format!("{} missing, {} extra, {} differing", report.missing, report.extra, report.differing)
            }
        };
        let _ = writeln!(text, "{:<40} {:>12} rows  {verdict}", report.table.to_string(), report.source_rows);
        if report.insert_only && report.differences() > 0 {
            let _ = writeln!(
                text,
                "    the source does not send updates and deletes of this table: it has no replica identity"
            );
        }
        for row in report.rows.iter().take(ROWS_SHOWN) {
            let _ = writeln!(text, "    {:<9} {}", word(row.kind), shown(report, row));
        }
        if report.differences() > ROWS_SHOWN as u64 {
            let _ = writeln!(text, "    … {} in all", report.differences());
        }
    }
    for skipped in &found.skipped {
        let _ = writeln!(text, "{:<40} not compared: {}", skipped.table.to_string(), skipped.reason);
    }
    for gap in &found.sequences {
        let _ = writeln!(text, "{}", sequence_text(gap));
    }
    text
}

fn shown(report: &TableReport, row: &RowDifference) -> String {
    let value = |value: &Option<String>| {
        value.as_ref().map_or("NULL".to_owned(), |text| format!("{}", Value::from(text.as_str())))
    };
    let mut text = if report.key.is_empty() {
        format!("({})", row.key.iter().map(value).collect::<Vec<_>>().join(", "))
    } else {
        let pairs = report.key.iter().zip(&row.key).map(|(name, text)| format!("{name} = {}", value(text)));
        pairs.collect::<Vec<_>>().join(", ")
    };
    if !row.columns.is_empty() {
        text += &format!(": {}", row.columns.join(", "));
    }
    if row.count > 1 {
        text += &format!(" ({} times)", row.count);
    }
    text
}
