//! Adding tables: everything is looked at as before a first copy, what the target lacks is made there, then they are
//! recorded. Whoever runs the flow copies them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::num::NonZeroUsize;

use relevo_catalog::{Finding, Pattern, Selection, Severity, TableName};
use relevo_model::Fault;
use relevo_snapshot::{CopyOptions, CopyPlan, Creation, SchemaMode, SnapshotError, Split};
use serde::Serialize;

use super::{Flow, listed};
use crate::error::CliError;
use crate::output;

#[derive(Serialize)]
struct Document<'a> {
    name: &'a str,
    added: Vec<String>,
    created: Vec<String>,
    part_already: Vec<String>,
    excluded: Vec<String>,
    running: bool,
    findings: &'a [Finding],
    warnings: &'a [String],
}

/// What was done.
#[derive(Default)]
struct Added {
    added: Vec<String>,
    /// Those that the target did not have.
    created: Vec<String>,
    findings: Vec<Finding>,
    warnings: Vec<String>,
}

/// What the patterns choose, by what becomes of it.
struct Chosen {
    new: BTreeSet<TableName>,
    part_already: BTreeSet<TableName>,
    excluded: BTreeSet<TableName>,
}

/// Adds what the patterns choose.
///
/// # Errors
/// [`CliError::Refused`]: excluded, or the target cannot take them; [`CliError::Failed`].
pub async fn add(flow: &mut Flow, patterns: &[Pattern]) -> Result<(), CliError> {
    let chosen = choose(flow, patterns)?;
    let done = match chosen.new.is_empty() {
        true => Added::default(),
        false => register(flow, &chosen.new).await?,
    };
    let strings = |names: &BTreeSet<TableName>| names.iter().map(ToString::to_string).collect();
    let document = Document {
        name: flow.name.as_str(),
        added: done.added,
        created: done.created,
        part_already: strings(&chosen.part_already),
        excluded: strings(&chosen.excluded),
        running: flow.runs().await?,
        findings: &done.findings,
        warnings: &done.warnings,
    };
    if flow.json { output::json(&document) } else { output::print(&text(&document)) }
}

/// Records the tables; makes those that the target lacks as they are on the source, if that can be done.
async fn register(flow: &mut Flow, tables: &BTreeSet<TableName>) -> Result<Added, CliError> {
    let options = options(flow, tables, flow.published().await?.via_partition_root);
    let creation = relevo_snapshot::creation(&options, &flow.all, &flow.source, &flow.target).await;
    let (creation, mut unable) = match creation {
        Ok(creation) => (creation, None),
        Err(error) => (None, Some(error)),
    };
    let mut hollow = None;
    let mut done = record(flow, &options, tables, creation.as_ref(), &mut hollow).await;
    if let Err(error @ SnapshotError::Statement { .. }) = done {
        // Refused then, with what somebody can do.
        unable = Some(error);
        done = record(flow, &options, tables, None, &mut hollow).await;
    }
    match (done, unable) {
        (Ok(Some(plan)), _) => Ok(Added::of(&plan, creation.as_ref())),
        (Ok(None), _) => Err(CliError::refused(format!(
            "{} has no partition yet, so there is nothing to copy and nothing to follow: create one on the source (and on \
             the target, if it has the table) first; nothing was changed",
            listed(hollow)
        )).of_kind("no_partitions")),
        (Err(refusal @ SnapshotError::Refused { .. }), Some(why)) => Err(CliError::refused(format!(
            "{refusal}; it could not be made from the source's schema: {why}; nothing was changed"
        )).of_kind(refusal.kind())),
        (Err(error), _) => Err(CliError::from_fault(&error)),
    }
}

/// The plan, when it was recorded; `None`: one of the tables is partitioned and has no partition, and
/// `hollow` says which.
async fn record(
    flow: &mut Flow,
    options: &CopyOptions,
    tables: &BTreeSet<TableName>,
    creation: Option<&Creation>,
    hollow: &mut Option<TableName>,
) -> Result<Option<CopyPlan>, SnapshotError> {
    let has_partitions = |plan: &CopyPlan| {
        let of_jobs: BTreeSet<TableName> =
            plan.tables_of(&plan.jobs).into_iter().map(|table| table.name).collect();
        *hollow = tables.difference(&of_jobs).next().cloned();
        hollow.is_none()
    };
    relevo_snapshot::register_more(options, creation, &flow.source, &mut flow.target, has_partitions).await
}

impl Added {
    fn of(plan: &CopyPlan, creation: Option<&Creation>) -> Self {
        let mut added: Vec<String> = plan.jobs.iter().map(|job| job.table.to_string()).collect();
        added.sort();
        let created = creation.map(|creation| creation.tables().iter().map(ToString::to_string).collect());
        let warnings = creation.map(|creation| creation.warnings().to_vec());
        Self {
            added,
            created: created.unwrap_or_default(),
            findings: plan.findings.clone(),
            warnings: warnings.unwrap_or_default(),
        }
    }
}

fn choose(flow: &Flow, patterns: &[Pattern]) -> Result<Chosen, CliError> {
    let recorded = flow.recorded_names();
    let trees = flow.trees(&BTreeSet::new());
    let part_of_flow: BTreeSet<&TableName> =
        trees.iter().filter(|(_, members)| !members.is_disjoint(&recorded)).map(|(top, _)| top).collect();
    let mut chosen =
        Chosen { new: BTreeSet::new(), part_already: BTreeSet::new(), excluded: BTreeSet::new() };
    for (pattern, tops) in trees.chosen(patterns, "the source")? {
        let (part, rest): (Vec<_>, Vec<_>) = tops.into_iter().partition(|top| part_of_flow.contains(top));
        let (new, excluded): (Vec<_>, Vec<_>) = rest.into_iter().partition(|top| flow.selection.matches(top));
        // Among many that a pattern names, the excluded ones are left out; one that is asked for alone is refused.
        if part.is_empty() && new.is_empty() {
            return Err(CliError::refused(format!(
                "{pattern} names only tables that the configuration leaves out ({}): change its include and exclude \
                 patterns, of relevo run as well, and add them then; nothing was changed",
                listed(excluded)
            )).of_kind("table_excluded"));
        }
        chosen.new.extend(new.into_iter().cloned());
        chosen.part_already.extend(part.into_iter().cloned());
        chosen.excluded.extend(excluded.into_iter().cloned());
    }
    Ok(chosen)
}

fn options(flow: &Flow, tables: &BTreeSet<TableName>, via_partition_root: bool) -> CopyOptions {
    CopyOptions {
        flow: flow.name.clone(),
        source: flow.settings.source.pinned(flow.source.host()),
        target: flow.settings.target.pinned(flow.target.host()),
        selection: Selection::exactly(tables.iter().cloned()),
        mode: SchemaMode::Existing,
        via_partition_root,
        jobs: NonZeroUsize::MIN,
        split: Split::WherePays,
        pg_dump: flow.pg_dump.clone(),
    }
}

fn text(document: &Document<'_>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for table in &document.added {
        let _ = writeln!(text, "{table} is part of flow {} now", document.name);
    }
    for table in &document.created {
        let _ =
            writeln!(text, "{table} was created on the target; its indexes and constraints follow its rows");
    }
    for warning in document.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for table in &document.part_already {
        let _ = writeln!(text, "{table} was part of flow {} already", document.name);
    }
    for table in &document.excluded {
        let _ = writeln!(text, "{table} is left out: the configuration excludes it");
    }
    let told = |severity: Severity| severity == Severity::Warning || severity == Severity::Notice;
    for finding in document.findings.iter().filter(|finding| told(finding.severity)) {
        let subject = finding.subject.as_deref().unwrap_or_default();
        let _ = writeln!(text, "{}: {subject}: {}", finding.severity, finding.message);
    }
    if !document.added.is_empty() {
        text.push_str(if document.running {
            "relevo run copies them beside the stream, from now on; see relevo tables\n"
        } else {
            "relevo run is not at work: it copies them when it is started\n"
        });
    }
    text
}
