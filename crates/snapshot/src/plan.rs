//! What a copy is going to do, and every reason not to begin, before anything is changed on either side.

use std::collections::{BTreeMap, BTreeSet};

use relevo_catalog::{Finding, Generated, Selection, Severity, TableInfo, TableKind, TableName};
use relevo_model::Side;
use relevo_state as state;
use tokio_postgres::Client;

use crate::pg_dump::PgDump;
use crate::{CopyOptions, SchemaMode, SnapshotError, sql};

/// How many tables one query looks into.
const TABLES_A_QUERY: usize = 100;

/// What happens to the target's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaAction {
    /// It is copied from the source with this program.
    Copy(PgDump),
    /// The tables are there and were compared; nothing is created.
    Existing,
    /// An earlier attempt has brought it here, and it was compared.
    Ready,
}

/// The rows of one table: a job that depends on no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableJob {
    /// The table, of the same name on both sides.
    pub table: TableName,
    /// The columns to copy, by name: all that are not generated.
    pub columns: Vec<String>,
    /// The source's table is partitioned and read as one.
    pub partitioned: bool,
    /// Updates and deletes will not be replicated: there is no replica identity.
    pub insert_only: bool,
    /// The table came with an extension, which fills its own tables when it is created, as it did on the source.
    pub filled_by_extension: bool,
    /// Its size on the source, in bytes.
    pub estimated_bytes: u64,
    /// The planner's number of rows on the source, if it has one.
    pub estimated_rows: Option<u64>,
    /// The sizes of its indexes on the source, in bytes, when they are still to be made on the target.
    pub index_bytes: BTreeMap<TableName, u64>,
}

/// What a copy is going to do.
#[derive(Debug, Clone)]
pub struct CopyPlan {
    /// What happens to the schema.
    pub schema: SchemaAction,
    /// The selected tables of the source, partitioned ones and their partitions alike: what to
    /// [publish](crate::publish).
    pub tables: Vec<TableInfo>,
    /// The rows to copy, the largest table first.
    pub jobs: Vec<TableJob>,
    /// What somebody should know and what does not keep the copy from beginning.
    pub findings: Vec<Finding>,
}

impl CopyPlan {
    /// The planned tables that have to do with these jobs: the tables themselves, and the whole trees of partitions.
    #[must_use]
    pub fn tables_of(&self, jobs: &[TableJob]) -> Vec<TableInfo> {
        let names: BTreeSet<&TableName> = jobs.iter().map(|job| &job.table).collect();
        let of_jobs = self.tables.iter().filter(|table| names.contains(&table.name));
        let roots: BTreeSet<&TableName> =
            of_jobs.map(|table| table.partition_root.as_ref().unwrap_or(&table.name)).collect();
        let belongs = |table: &&TableInfo| {
            roots.contains(&table.name)
                || table.partition_root.as_ref().is_some_and(|root| roots.contains(root))
        };
        self.tables.iter().filter(belongs).cloned().collect()
    }
}

/// The tables that take part: see [`Selection::includes`].
#[must_use]
pub fn selected_tables(tables: Vec<TableInfo>, selection: &Selection) -> Vec<TableInfo> {
    tables.into_iter().filter(|table| selection.includes(table)).collect()
}

/// Plans a copy. Reads both sides and changes nothing.
///
/// Both clients need `search_path = ''`.
///
/// # Errors
/// [`SnapshotError::Refused`] with everything that is in the way: target tables that are missing, do not fit, or
/// hold rows that Relevo did not bring; [`SnapshotError::PgDumpMissing`], [`SnapshotError::PgDumpTooOld`]; and
/// what the servers may say.
pub async fn plan(
    source: &Client,
    target: &Client,
    options: &CopyOptions,
) -> Result<CopyPlan, SnapshotError> {
    let (all, remembered) = tokio::join!(relevo_catalog::user_tables(source), remembered(target, options));
    let all = all.map_err(SnapshotError::catalog(Side::Source))?;
    let (ready, ours) = remembered?;
    let mut findings = unmatched(&all, options);
    let tables = selected_tables(all, &options.selection);
    let mut jobs = jobs(&tables, options.via_partition_root);
    let needed: Vec<TableInfo> =
        tables.iter().filter(|table| is_needed(table, options.via_partition_root)).cloned().collect();
    let names: Vec<TableName> = needed.iter().map(|table| table.name.clone()).collect();
    let existing =
        relevo_catalog::tables(target, &names).await.map_err(SnapshotError::catalog(Side::Target))?;
    let action = match action(ready, options.mode, &names, &existing) {
        Ok(action) => action,
        Err(refusal) => return Err(SnapshotError::Refused { findings: refusal }),
    };
    if action == Action::Copy {
        findings.extend(relevo_catalog::identities(&needed));
    } else {
        findings.extend(relevo_catalog::compare(&needed, &existing));
    }
    // A program that has to be started, on the source's behalf, beside what the target is asked.
    let dumping = async {
        match action {
            Action::Copy => find_pg_dump(source, options).await.map(SchemaAction::Copy),
            Action::Existing => Ok(SchemaAction::Existing),
            Action::Ready => Ok(SchemaAction::Ready),
        }
    };
    let (in_the_way, schema) = tokio::join!(in_the_way(target, (&jobs, options), &existing, &ours), dumping);
    findings.extend(in_the_way?);
    let (refusals, mut findings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    if !refusals.is_empty() {
        return Err(SnapshotError::Refused { findings: refusals });
    }
    findings.retain(|finding| finding.severity != Severity::Ok);
    if action == Action::Ready {
        // The keys come after the rows.
        findings.retain(|finding| finding.check != "target_key");
    }
    if action == Action::Existing {
        jobs.iter_mut().for_each(|job| job.filled_by_extension = false);
    } else {
        measure_indexes(source, &tables, &mut jobs).await?;
    }
    Ok(CopyPlan { schema: schema?, tables, jobs, findings })
}

/// Rows and flows that have the target's tables already.
async fn in_the_way(
    target: &Client,
    (jobs, options): (&[TableJob], &CopyOptions),
    existing: &[TableInfo],
    ours: &BTreeSet<TableName>,
) -> Result<Vec<Finding>, SnapshotError> {
    let mut findings = foreign_rows(target, jobs, existing, ours).await?;
    findings.extend(of_other_flows(target, jobs, options).await?);
    Ok(findings)
}

pub(crate) async fn find_pg_dump(source: &Client, options: &CopyOptions) -> Result<PgDump, SnapshotError> {
    let row = source
        .query_one(sql::VERSION, &[])
        .await
        .map_err(SnapshotError::source_sql("reading the server's version"))?;
    PgDump::find(options.pg_dump.as_deref(), row.get::<_, i32>(0) / 10_000).await
}

/// Patterns that match nothing: most often a typing error.
fn unmatched(all: &[TableInfo], options: &CopyOptions) -> Vec<Finding> {
    let names: Vec<TableName> = all.iter().map(|table| table.name.clone()).collect();
    let finding = |pattern: &relevo_catalog::Pattern| {
        let message = format!("no table of the source matches the pattern {pattern}");
        Finding::warning("unmatched_pattern", Side::Source, message)
    };
    let mut findings: Vec<Finding> = options.selection.unmatched(&names).map(finding).collect();
    // Nobody is surprised by a choice that was not made by patterns.
    let by_patterns = all.iter().filter(|_| !options.selection.is_exact());
    for table in by_patterns {
        let Some(root) = &table.partition_root else { continue };
        if options.selection.matches(root) != options.selection.matches(&table.name) {
            let fate = if options.selection.matches(root) { "takes part" } else { "does not take part" };
            let message = format!("{fate}, as the partitioned table {root} decides for all its partitions");
            findings.push(Finding::warning("partition_selection", Side::Source, message).about(&table.name));
        }
    }
    findings
}

/// Whether the target needs a table of this name.
fn is_needed(table: &TableInfo, via_partition_root: bool) -> bool {
    if via_partition_root { !table.is_partition } else { true }
}

/// One job for each table that holds rows; or, by root, for each tree of partitions.
fn jobs(tables: &[TableInfo], via_partition_root: bool) -> Vec<TableJob> {
    let mut size_of_tree: BTreeMap<&TableName, (i64, i64)> = BTreeMap::new();
    for leaf in tables.iter().filter(|table| table.kind == TableKind::Ordinary) {
        let (bytes, rows) =
            size_of_tree.entry(leaf.partition_root.as_ref().unwrap_or(&leaf.name)).or_default();
        *bytes += leaf.bytes;
        // One table that was never analysed makes the sum unknown.
        *rows = if *rows < 0 || leaf.rows_estimate < 0 { -1 } else { *rows + leaf.rows_estimate };
    }
    let takes_part = |table: &&TableInfo| match (via_partition_root, table.kind) {
        (false, kind) => kind == TableKind::Ordinary,
        (true, _) => !table.is_partition,
    };
    let mut jobs: Vec<TableJob> = tables
        .iter()
        .filter(takes_part)
        .map(|table| {
            let (bytes, rows) = match via_partition_root {
                true => size_of_tree.get(&table.name).copied().unwrap_or_default(),
                false => (table.bytes, table.rows_estimate),
            };
            TableJob {
                table: table.name.clone(),
                columns: copied_columns(table),
                partitioned: table.kind == TableKind::Partitioned,
                insert_only: crate::publication::is_insert_only(table, tables, via_partition_root),
                filled_by_extension: table.extension.is_some(),
                estimated_bytes: u64::try_from(bytes).unwrap_or(0),
                estimated_rows: u64::try_from(rows).ok(),
                index_bytes: BTreeMap::new(),
            }
        })
        .collect();
    jobs.sort_by(|a, b| b.estimated_bytes.cmp(&a.estimated_bytes).then_with(|| a.table.cmp(&b.table)));
    jobs
}

/// Adds the sizes of the indexes, which say how long it takes to build them.
async fn measure_indexes(
    source: &Client,
    tables: &[TableInfo],
    jobs: &mut [TableJob],
) -> Result<(), SnapshotError> {
    let numbers: BTreeMap<TableName, usize> =
        jobs.iter().enumerate().map(|(number, job)| (job.table.clone(), number)).collect();
    let number_of = |table: &TableInfo| {
        // A partition is a job of its own, or goes with the tree that it is of.
        numbers.get(&table.name).or_else(|| numbers.get(table.partition_root.as_ref()?)).copied()
    };
    let numbers: BTreeMap<&TableName, usize> =
        tables.iter().filter_map(|table| Some((&table.name, number_of(table)?))).collect();
    let schemas: Vec<&str> = numbers.keys().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = numbers.keys().map(|table| table.name.as_str()).collect();
    let rows = source
        .query(sql::INDEX_SIZES, &[&schemas, &names])
        .await
        .map_err(SnapshotError::source_sql("measuring the indexes"))?;
    for row in rows {
        let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let index = TableName::new(table.schema.clone(), row.get::<_, String>(2));
        let job = numbers.get(&table).and_then(|number| jobs.get_mut(*number));
        if let Some(job) = job {
            job.index_bytes.insert(index, u64::try_from(row.get::<_, i64>(3)).unwrap_or(0));
        }
    }
    Ok(())
}

/// The columns whose values are copied; generated ones are computed anew on the target.
pub(crate) fn copied_columns(table: &TableInfo) -> Vec<String> {
    let stored = table.columns.iter().filter(|column| column.generated == Generated::None);
    stored.map(|column| column.name.clone()).collect()
}

/// Whether an earlier attempt has brought the schema, and the tables that are Relevo's to replace.
async fn remembered(
    target: &Client,
    options: &CopyOptions,
) -> Result<(bool, BTreeSet<TableName>), SnapshotError> {
    if state::installed_version(target).await.map_err(SnapshotError::state)?.is_none() {
        return Ok((false, BTreeSet::new()));
    }
    let flow = state::flow(target, &options.flow).await.map_err(SnapshotError::state)?;
    let tables = state::tables(target, &options.flow).await.map_err(SnapshotError::state)?;
    let names = tables.into_iter().map(|table| TableName::new(table.schema, table.name)).collect();
    Ok((flow.is_some_and(|flow| flow.schema_ready), names))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Copy,
    Existing,
    Ready,
}

/// What to do about the schema, or why nothing can be done.
fn action(
    ready: bool,
    mode: SchemaMode,
    needed: &[TableName],
    existing: &[TableInfo],
) -> Result<Action, Vec<Finding>> {
    if ready {
        return Ok(Action::Ready);
    }
    let there: BTreeSet<&TableName> = existing.iter().map(|table| &table.name).collect();
    let (present, missing): (Vec<_>, Vec<_>) = needed.iter().partition(|name| there.contains(name));
    let refuse = |names: &[&TableName], check, message: &str, remedy: &str| {
        let finding =
            |name: &&TableName| Finding::error(check, Side::Target, message).about(name).mend(remedy);
        Err(names.iter().map(finding).collect())
    };
    match mode {
        SchemaMode::Copy | SchemaMode::Auto if present.is_empty() => Ok(Action::Copy),
        SchemaMode::Existing | SchemaMode::Auto if missing.is_empty() => Ok(Action::Existing),
        SchemaMode::Copy => refuse(
            &present,
            "table_exists",
            "exists on the target already",
            "drop it there, or copy into the existing tables",
        ),
        SchemaMode::Existing => refuse(
            &missing,
            "missing_table",
            "does not exist on the target",
            "create it there, or exclude it",
        ),
        SchemaMode::Auto => refuse(
            &missing,
            "missing_table",
            "does not exist on the target, while other tables of the source do",
            "create it there, exclude it, or empty the target's database so that the whole schema is copied",
        ),
    }
}

/// Tables that another flow writes: each of the two would take the other's rows for its own, and replace them.
async fn of_other_flows(
    target: &Client,
    jobs: &[TableJob],
    options: &CopyOptions,
) -> Result<Vec<Finding>, SnapshotError> {
    if state::installed_version(target).await.map_err(SnapshotError::state)?.is_none() {
        return Ok(Vec::new());
    }
    let others = state::tables_of_others(target, &options.flow).await.map_err(SnapshotError::state)?;
    let names: BTreeSet<&TableName> = jobs.iter().map(|job| &job.table).collect();
    let finding = |other: state::OtherTable| {
        let table = TableName::new(other.schema, other.name);
        let flow = &other.flow;
        let remedy = format!(
            "exclude it; or, if flow {flow} was given up: DELETE FROM relevo.flow WHERE name = {}; on the target",
            relevo_catalog::quote_literal(flow)
        );
        names.contains(&table).then(|| {
            Finding::error("table_of_other_flow", Side::Target, format!("belongs to flow {flow}"))
                .about(&table)
                .mend(remedy)
        })
    };
    Ok(others.into_iter().filter_map(finding).collect())
}

/// Tables of the target that hold rows and were never recorded as Relevo's: their rows are somebody's.
pub(crate) async fn foreign_rows(
    target: &Client,
    jobs: &[TableJob],
    existing: &[TableInfo],
    ours: &BTreeSet<TableName>,
) -> Result<Vec<Finding>, SnapshotError> {
    let wanted: BTreeSet<&TableName> =
        jobs.iter().map(|job| &job.table).filter(|name| !ours.contains(*name)).collect();
    let tables: Vec<&TableInfo> = existing.iter().filter(|table| wanted.contains(&table.name)).collect();
    let mut findings = Vec::new();
    for chunk in tables.chunks(TABLES_A_QUERY) {
        let looks: Vec<String> =
            chunk.iter().map(|table| format!("EXISTS (SELECT FROM {})", only(table))).collect();
        let query = format!("SELECT ARRAY[{}]", looks.join(", "));
        let row = target
            .query_one(&query, &[])
            .await
            .map_err(SnapshotError::target_sql("looking whether the tables are empty"))?;
        let filled: Vec<bool> = row.get(0);
        for (table, _) in chunk.iter().zip(filled).filter(|(_, filled)| *filled) {
            findings.push(not_empty(&table.name));
        }
    }
    Ok(findings)
}

pub(crate) fn only(table: &TableInfo) -> String {
    sql::only(&table.name, table.kind == TableKind::Partitioned)
}

/// The finding that keeps Relevo from destroying somebody's rows.
pub(crate) fn not_empty(table: &TableName) -> Finding {
    Finding::error(
        "table_not_empty",
        Side::Target,
        "holds rows that Relevo did not bring; they would be lost",
    )
    .about(table)
    .mend(format!("TRUNCATE {}; if nobody needs them, or exclude the table", table.quoted()))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
