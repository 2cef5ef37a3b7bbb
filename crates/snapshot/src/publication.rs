//! The two publications of a flow: which table is in which, creating them, and saying what differs later.
//!
//! A table is published with all its changes when its rows can be told apart (a replica identity); otherwise with
//! inserts and truncates only, since publishing more would make the application's UPDATE and DELETE fail on the
//! source (manual, *CREATE PUBLICATION*). Partitioned tables are published by their root, so that partitions that
//! are created later are not lost in silence.

mod locking;

use std::collections::BTreeSet;

use relevo_catalog::{Finding, TableInfo, TableKind, TableName, quote_identifier, quote_literal};
use relevo_model::{FlowName, ReplicaIdentity, Side};
use tokio_postgres::Client;

use crate::{CopyOptions, SnapshotError, sql};

/// What happens to publications that are there already and differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They are made anew: nothing has been streamed yet.
    Replace,
    /// They stay, and the differences are findings.
    Report,
}

/// Creates the flow's publications, or checks them, and returns what is not as it should be.
///
/// Call it before the slot is created: the slot can only decode for publications that were there before it.
/// `tables` is what [`crate::CopyPlan::tables`] holds.
///
/// # Errors
/// [`SnapshotError::Sql`], for example when the role owns not all of the tables.
pub async fn publish(
    source: &Client,
    flow: &FlowName,
    tables: &[TableInfo],
    via_partition_root: bool,
    existing: Existing,
) -> Result<Vec<Finding>, SnapshotError> {
    let wanted = wanted(flow, tables, via_partition_root);
    let mut script = String::new();
    let mut findings = Vec::new();
    let mut members = BTreeSet::new();
    let mut listed_anew = BTreeSet::new();
    for publication in &wanted {
        let found = read(source, &publication.name).await?;
        match (&found, existing) {
            (Some(found), _) if found == publication => {}
            (Some(found), Existing::Report) => findings.extend(settings_differ(found, publication)),
            (None, Existing::Report) => findings.push(missing(publication)),
            (found, Existing::Replace) => {
                if found.is_some() {
                    script.push_str(&format!("DROP PUBLICATION {};\n", quote_identifier(&publication.name)));
                }
                script.push_str(&publication.create(tables));
                listed_anew.extend(publication.tables.iter().cloned());
            }
        }
        let listed = found.map(|found| found.tables).unwrap_or_default();
        members.extend(listed.into_iter().map(|table| (publication.name.clone(), table)));
    }
    if existing == Existing::Report {
        findings.extend(tables_differ(&wanted, &members));
    }
    // In one transaction: both publications or none.
    locking::change(source, &listed_anew, &script)
        .await
        .map_err(SnapshotError::source_sql("creating the publications"))?;
    findings.extend(later_partitions(tables, &wanted));
    Ok(findings)
}

/// Adds to the flow's publications what these tables need and is missing there. Call it before the snapshot is taken
/// under which they are copied: what they send before it is not needed.
///
/// # Errors
/// [`SnapshotError::Sql`], for example when the role owns not all of the tables.
pub async fn publish_more(
    source: &Client,
    options: &CopyOptions,
    tables: &[TableInfo],
) -> Result<(), SnapshotError> {
    let (mut script, mut added) = (String::new(), BTreeSet::new());
    for publication in wanted(&options.flow, tables, options.via_partition_root) {
        let Some(found) = read(source, &publication.name).await? else { continue };
        let missing: BTreeSet<TableName> = publication.tables.difference(&found.tables).cloned().collect();
        if !missing.is_empty() {
            let name = quote_identifier(&publication.name);
            script.push_str(&format!("ALTER PUBLICATION {name} ADD TABLE {};\n", list(&missing, tables)));
            added.extend(missing);
        }
    }
    locking::change(source, &added, &script)
        .await
        .map_err(SnapshotError::source_sql("adding to the publications"))
}

/// Takes tables out of the flow's publications. What was written to them before is still sent.
///
/// # Errors
/// [`SnapshotError::Sql`], for example when the role owns not all of the tables.
pub async fn publish_less(
    source: &Client,
    flow: &FlowName,
    tables: &BTreeSet<TableName>,
) -> Result<(), SnapshotError> {
    let (mut script, mut dropped) = (String::new(), BTreeSet::new());
    for name in [flow.publication(), flow.insert_only_publication()] {
        let Some(found) = read(source, &name).await? else { continue };
        let listed: Vec<TableName> = found.tables.intersection(tables).cloned().collect();
        let names: Vec<String> = listed.iter().map(|table| sql::only(table, false)).collect();
        if !names.is_empty() {
            let (name, list) = (quote_identifier(&name), names.join(", "));
            script.push_str(&format!("ALTER PUBLICATION {name} DROP TABLE {list};\n"));
            dropped.extend(listed);
        }
    }
    locking::change(source, &dropped, &script)
        .await
        .map_err(SnapshotError::source_sql("taking tables out of the publications"))
}

/// What the flow's publications hold at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Partitioned tables are published as one table.
    pub via_partition_root: bool,
    /// The tables that either of them lists.
    pub tables: BTreeSet<TableName>,
}

/// Reads the flow's publications; `None` when one of them is missing.
///
/// # Errors
/// [`SnapshotError::Sql`].
pub async fn published(source: &Client, flow: &FlowName) -> Result<Option<Published>, SnapshotError> {
    let whole = read(source, &flow.publication()).await?;
    let inserts = read(source, &flow.insert_only_publication()).await?;
    Ok(whole.zip(inserts).map(|(whole, inserts)| Published {
        via_partition_root: whole.via_partition_root,
        tables: whole.tables.union(&inserts.tables).cloned().collect(),
    }))
}

/// What an owner's note begins with.
const OWNER_MARK: &str = "Relevo: ";

/// Who the flow's publications were made for, as [`mark_owner`] has noted; `None`: nobody knows.
///
/// # Errors
/// [`SnapshotError::Sql`].
pub async fn owner(source: &Client, flow: &FlowName) -> Result<Option<String>, SnapshotError> {
    let row = source
        .query_opt(sql::PUBLICATION_COMMENT, &[&flow.publication()])
        .await
        .map_err(SnapshotError::source_sql("reading the publication's comment"))?;
    let comment = row.and_then(|row| row.get::<_, Option<String>>(0));
    Ok(comment.and_then(|comment| comment.strip_prefix(OWNER_MARK).map(str::to_owned)))
}

/// Notes for whom the flow's publications are, so that a flow of the same name into another database does not take its
/// slot away.
///
/// # Errors
/// [`SnapshotError::Sql`].
pub async fn mark_owner(source: &Client, flow: &FlowName, owner: &str) -> Result<(), SnapshotError> {
    let (name, text) =
        (quote_identifier(&flow.publication()), quote_literal(&format!("{OWNER_MARK}{owner}")));
    source
        .batch_execute(&format!("COMMENT ON PUBLICATION {name} IS {text}"))
        .await
        .map_err(SnapshotError::source_sql("marking the publication"))
}

/// A table that the publications do not hold as these tables ask for, if there is one.
pub(crate) async fn published_as_planned(
    source: &Client,
    options: &CopyOptions,
    tables: &[TableInfo],
    all: bool,
) -> Result<Option<TableName>, SnapshotError> {
    for publication in wanted(&options.flow, tables, options.via_partition_root) {
        let listed = read(source, &publication.name).await?.map(|found| found.tables).unwrap_or_default();
        let missing = publication.tables.difference(&listed).next();
        let too_many = listed.difference(&publication.tables).next().filter(|_| all);
        if let Some(table) = missing.or(too_many) {
            return Ok(Some(table.clone()));
        }
    }
    Ok(None)
}

/// Whether only inserts and truncates of the table are published.
pub(crate) fn is_insert_only(table: &TableInfo, tables: &[TableInfo], via_partition_root: bool) -> bool {
    if via_partition_root && table.kind == TableKind::Partitioned {
        return !tree_has_identity(table, tables);
    }
    !table.has_identity()
}

/// A publication as it is, or as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Publication {
    name: String,
    updates: bool,
    via_partition_root: bool,
    /// Whether other settings are as Relevo makes them.
    plain: bool,
    tables: BTreeSet<TableName>,
}

impl Publication {
    fn operations(&self) -> &'static str {
        if self.updates { "insert, update, delete, truncate" } else { "insert, truncate" }
    }

    fn create(&self, tables: &[TableInfo]) -> String {
        let name = quote_identifier(&self.name);
        let list = list(&self.tables, tables);
        let tables = if list.is_empty() { String::new() } else { format!(" FOR TABLE {list}") };
        format!(
            "CREATE PUBLICATION {name}{tables} WITH (publish = '{}', publish_via_partition_root = {});\n",
            self.operations(),
            self.via_partition_root
        )
    }
}

/// Tables as a publication lists them. Children of an ordinary table are listed themselves; a partitioned one stands for
/// its partitions.
fn list(names: &BTreeSet<TableName>, tables: &[TableInfo]) -> String {
    let listed = tables.iter().filter(|table| names.contains(&table.name));
    let only = listed.map(|table| sql::only(&table.name, table.kind == TableKind::Partitioned));
    only.collect::<Vec<_>>().join(", ")
}

/// Both publications as they should be.
fn wanted(flow: &FlowName, tables: &[TableInfo], via_partition_root: bool) -> [Publication; 2] {
    let new = |name, updates| Publication {
        name,
        updates,
        via_partition_root,
        plain: true,
        tables: BTreeSet::new(),
    };
    let mut full = new(flow.publication(), true);
    let mut inserts = new(flow.insert_only_publication(), false);
    for table in tables.iter().filter(|table| !table.is_partition) {
        let name = table.name.clone();
        if table.kind == TableKind::Ordinary {
            let publication = if table.has_identity() { &mut full } else { &mut inserts };
            publication.tables.insert(name);
        } else if via_partition_root {
            let whole = tree_has_identity(table, tables);
            let publication = if whole { &mut full } else { &mut inserts };
            publication.tables.insert(name);
        } else if leaves_have_identity(table, tables) {
            full.tables.insert(name);
        } else {
            // Inserts of every partition, those to come included; of those that have an identity, everything.
            inserts.tables.insert(name);
            let with_identity = leaves(table, tables).filter(|leaf| leaf.has_identity());
            full.tables.extend(with_identity.map(|leaf| leaf.name.clone()));
        }
    }
    [full, inserts]
}

fn leaves<'t>(root: &'t TableInfo, tables: &'t [TableInfo]) -> impl Iterator<Item = &'t TableInfo> {
    tables.iter().filter(|table| {
        table.kind == TableKind::Ordinary && table.partition_root.as_ref() == Some(&root.name)
    })
}

/// Whether every partition has an identity, and one that is created later gets one: from the root's primary key,
/// since no other identity is passed on to partitions.
fn leaves_have_identity(root: &TableInfo, tables: &[TableInfo]) -> bool {
    let passed_on = root.replica_identity == ReplicaIdentity::Default && root.has_identity();
    passed_on && leaves(root, tables).all(TableInfo::has_identity)
}

/// Whether the changes of every partition can be sent as the root's. The old row is written as the partition's
/// identity says, and read as the root's: so the first must hold the columns of the second.
fn tree_has_identity(root: &TableInfo, tables: &[TableInfo]) -> bool {
    let covers = |leaf: &TableInfo| {
        leaf.replica_identity == ReplicaIdentity::Full
            || (root.replica_identity != ReplicaIdentity::Full
                && root.identity_columns.iter().all(|column| leaf.identity_columns.contains(column)))
    };
    root.has_identity() && leaves(root, tables).all(|leaf| leaf.has_identity() && covers(leaf))
}

/// Partitioned tables of which a later partition would be replicated without updates and deletes.
fn later_partitions(tables: &[TableInfo], wanted: &[Publication; 2]) -> Vec<Finding> {
    let [_, inserts] = wanted;
    tables
        .iter()
        .filter(|table| table.kind == TableKind::Partitioned && inserts.tables.contains(&table.name))
        .map(|table| {
            let message = "has no primary key that its partitions share: updates and deletes of a partition \
                           without a replica identity of its own, and of those created later, are not replicated";
            let name = table.name.quoted();
            Finding::warning("partition_identity", Side::Source, message)
                .about(&table.name)
                .mend(format!("ALTER TABLE {name} ADD PRIMARY KEY (…);"))
        })
        .collect()
}

async fn read(source: &Client, name: &str) -> Result<Option<Publication>, SnapshotError> {
    let error = || SnapshotError::source_sql("reading the publications");
    let Some(row) = source.query_opt(sql::PUBLICATION, &[&name]).await.map_err(error())? else {
        return Ok(None);
    };
    let flag = |index: usize| row.get::<_, bool>(index);
    let (all_tables, insert, update, delete, truncate) = (flag(0), flag(1), flag(2), flag(3), flag(4));
    let rows = source.query(sql::PUBLICATION_TABLES, &[&name]).await.map_err(error())?;
    Ok(Some(Publication {
        name: name.to_owned(),
        updates: update && delete,
        via_partition_root: flag(5),
        plain: insert && truncate && !all_tables && update == delete && !flag(6),
        tables: rows
            .iter()
            .map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)))
            .collect(),
    }))
}

fn missing(publication: &Publication) -> Finding {
    let message = "the flow's publication is gone: the changes made since are not sent";
    Finding::error("publication_missing", Side::Source, message)
        .about(&publication.name)
        .mend("relevo reset, then relevo run, which creates it and copies the tables anew")
}

fn settings_differ(found: &Publication, wanted: &Publication) -> Option<Finding> {
    if (found.updates, found.via_partition_root, found.plain)
        == (wanted.updates, wanted.via_partition_root, wanted.plain)
    {
        return None;
    }
    let message = format!(
        "the publication was changed, and changes made since may be missing on the target; it has to publish '{}' of \
         listed tables, without row filters and column lists, with publish_via_partition_root = {}",
        wanted.operations(),
        wanted.via_partition_root
    );
    let remedy = format!(
        "ALTER PUBLICATION {} SET (publish = '{}', publish_via_partition_root = {}); if anything was changed \
         meanwhile, relevo reset and relevo run, which copies the tables anew",
        quote_identifier(&wanted.name),
        wanted.operations(),
        wanted.via_partition_root
    );
    Some(Finding::error("publication_settings", Side::Source, message).about(&wanted.name).mend(remedy))
}

/// What the publications list against what they should.
fn tables_differ(wanted: &[Publication; 2], members: &BTreeSet<(String, TableName)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let listed_in = |publication: &Publication, table: &TableName| {
        members.contains(&(publication.name.clone(), table.clone()))
    };
    let [full, inserts] = wanted;
    let all: BTreeSet<&TableName> = full.tables.union(&inserts.tables).collect();
    for table in &all {
        let want = (full.tables.contains(table), inserts.tables.contains(table));
        let have = (listed_in(full, table), listed_in(inserts, table));
        if want == have {
            continue;
        }
        let finding = match (want, have) {
            (_, (false, false)) => Finding::error(
                "publication_table",
                Side::Source,
                "is selected, but not published: it was added later, or taken out of the publication; its changes \
                 do not reach the target",
            )
            .mend(format!(
                "if it was taken out and nothing was written to it since: ALTER PUBLICATION {} ADD TABLE {}; else relevo \
                 reset and relevo run, which copies the tables anew; or exclude it",
                quote_identifier(if want.0 { &full.name } else { &inserts.name }),
                table.quoted()
            )),
            ((true, _), (false, true)) => Finding::notice(
                "publication_identity",
                Side::Source,
                "has a replica identity by now, but only its inserts and truncates are published",
            ),
            ((false, _), (true, _)) => Finding::warning(
                "publication_identity",
                Side::Source,
                "has lost its replica identity while its updates and deletes are published: they fail on the source",
            )
            .mend("give it a primary key again"),
            _ => Finding::notice("publication_table", Side::Source, "is published in another way than planned"),
        };
        findings.push(finding.about(table));
    }
    for (publication, table) in members.iter().filter(|(_, table)| !all.contains(table)) {
        let message = format!("is published by {publication}, but not selected");
        findings.push(Finding::notice("publication_table", Side::Source, message).about(table));
    }
    findings
}

#[cfg(test)]
#[path = "publication_tests.rs"]
mod tests;
