//! Whether the tables that exist on the target can take what the source's tables will send.
//!
//! Pure: it compares what was read. Tables are matched by schema and name, columns by name.

use std::collections::HashMap;

use relevo_model::{ReplicaIdentity, Side};

use crate::type_fit::{Fit, fit};
use crate::{
    ColumnIdentity, ColumnInfo, Finding, Generated, Severity, TableInfo, TableKind, TableName,
    quote_identifier, worst,
};

/// Compares the tables of a flow with the target's. Everything of the source is expected on the target; what
/// the target has beyond is looked at only where it can be in the way.
///
/// One `tables_match` finding says so when nothing worse than a notice was found.
#[must_use]
pub fn compare(source: &[TableInfo], target: &[TableInfo]) -> Vec<Finding> {
    let targets: HashMap<&TableName, &TableInfo> = target.iter().map(|table| (&table.name, table)).collect();
    let mut findings = Vec::new();
    for table in source {
        match targets.get(&table.name) {
            None => findings.push(missing_table(table, &targets)),
            Some(target) => compare_table(table, target, &mut findings),
        }
    }
    if worst(&findings) < Severity::Warning {
        let message = format!("all {} tables of the source fit into the target's", source.len());
        findings.push(Finding::ok("tables_match", None, message));
    }
    findings.extend(identities(source));
    findings
}

/// Which tables have no usable replica identity: their updates and deletes cannot be replicated.
///
/// Partitioned tables are left out, since changes are sent as those of their partitions.
#[must_use]
pub fn identities(source: &[TableInfo]) -> Vec<Finding> {
    const CHECK: &str = "replica_identity";
    let stored = || source.iter().filter(|table| table.kind == TableKind::Ordinary);
    let without: Vec<&TableInfo> = stored().filter(|table| !table.has_identity()).collect();
    if without.is_empty() {
        let message = format!("all {} tables can tell which row was updated or deleted", stored().count());
        return vec![Finding::ok(CHECK, Side::Source, message)];
    }
    without.into_iter().map(|table| no_identity(CHECK, table)).collect()
}

fn no_identity(check: &'static str, table: &TableInfo) -> Finding {
    let name = table.name.quoted();
    let generated = table.columns.iter().any(|column| column.generated != Generated::None);
    let (reason, sql, remark) = match table.replica_identity {
        ReplicaIdentity::Full => (
            "has REPLICA IDENTITY FULL but generated columns, which are not published",
            format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"),
            "and give it a primary key over plain columns",
        ),
        ReplicaIdentity::Nothing => {
            ("has REPLICA IDENTITY NOTHING", format!("ALTER TABLE {name} REPLICA IDENTITY FULL;"), "")
        }
        ReplicaIdentity::Index => (
            "has REPLICA IDENTITY USING INDEX, but that index is gone or holds a generated column",
            format!("ALTER TABLE {name} REPLICA IDENTITY FULL;"),
            "or DEFAULT, when it has a primary key",
        ),
        ReplicaIdentity::Default if generated => {
            ("has no primary key over plain columns that is checked at once", String::new(), "")
        }
        ReplicaIdentity::Default => (
            "has no primary key, or a deferrable one",
            format!("ALTER TABLE {name} REPLICA IDENTITY FULL;"),
            "or add a primary key",
        ),
    };
    let message =
        format!("{reason}: only its inserts and truncates are replicated, no updates and no deletes");
    let finding = Finding::warning(check, Side::Source, message).about(&table.name);
    match (sql.as_str(), remark) {
        ("", _) => finding.mend(format!(
            "ALTER TABLE {name} REPLICA IDENTITY USING INDEX …; -- a unique index over plain NOT NULL columns"
        )),
        (_, "") => finding.mend_by([sql]),
        (_, remark) => finding.mend_by([sql]).then(remark),
    }
}

fn missing_table(table: &TableInfo, targets: &HashMap<&TableName, &TableInfo>) -> Finding {
    let root = table.partition_root.as_ref().filter(|root| targets.contains_key(root));
    let message = match (&table.partition_bound, root) {
        (Some(bound), Some(root)) => format!(
            "the target's {root} has no such partition ({bound}); changes are sent to the partition of the same name"
        ),
        _ => "the target has no such table".to_owned(),
    };
    let finding = Finding::error("missing_table", Side::Target, message).about(&table.name);
    finding.mend(format!(
        "pg_dump --schema-only --table={} of the source, restored on the target; or exclude the table",
        shell_quoted(&table.name.quoted())
    ))
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn compare_table(source: &TableInfo, target: &TableInfo, findings: &mut Vec<Finding>) {
    let subject = &source.name;
    for column in &source.columns {
        let found = match target.column(&column.name) {
            None => Some(missing_column(source, column)),
            Some(other) => compare_column(source, column, other),
        };
        findings.extend(found);
    }
    for column in &target.columns {
        let filled = !column.not_null
            || column.has_default
            || column.identity != ColumnIdentity::None
            || column.generated != Generated::None;
        if source.column(&column.name).is_none() && !filled {
            let message =
                "exists only on the target, is NOT NULL and has no default: every insert would fail";
            let alter = alter_column(target, column);
            findings.push(
                Finding::error("extra_column", Side::Target, message)
                    .about(qualified(subject, column))
                    .mend_by([format!("{alter} DROP NOT NULL;")]),
            );
        }
    }
    compare_keys(source, target, findings);
    compare_partitions(source, target, findings);
    if target.fires_in_replica {
        let message = "has triggers or rules enabled as REPLICA or ALWAYS: they act on replicated changes too, \
                       and its changes are applied row by row";
        findings.push(Finding::notice("replica_triggers", Side::Target, message).about(subject));
    }
}

fn qualified(table: &TableName, column: &ColumnInfo) -> String {
    format!("{table}.{}", column.name)
}

fn alter_column(table: &TableInfo, column: &ColumnInfo) -> String {
    format!("ALTER TABLE {} ALTER COLUMN {}", table.name.quoted(), quote_identifier(&column.name))
}

fn missing_column(table: &TableInfo, column: &ColumnInfo) -> Finding {
    let subject = qualified(&table.name, column);
    if column.generated != Generated::None {
        let message = "is generated on the source and not sent; the target has no such column";
        return Finding::warning("missing_column", Side::Target, message)
            .about(subject)
            .mend("add the column on the target with the source's generation expression");
    }
    let remedy = format!(
        "ALTER TABLE {} ADD COLUMN {} {};",
        table.name.quoted(),
        quote_identifier(&column.name),
        column.type_sql
    );
    Finding::error("missing_column", Side::Target, "the target has no such column")
        .about(subject)
        .mend_by([remedy])
}

fn compare_column(table: &TableInfo, source: &ColumnInfo, target: &ColumnInfo) -> Option<Finding> {
    let subject = qualified(&table.name, source);
    match (source.generated != Generated::None, target.generated != Generated::None) {
        (true, true) => return None,
        (true, false) => {
            let message = "is generated on the source, so it is not sent; the target's is a plain column that \
                           nobody would fill";
            let (name, column) = (table.name.quoted(), quote_identifier(&target.name));
            return Some(Finding::error("generated_column", Side::Target, message).about(subject).mend(
                format!("ALTER TABLE {name} DROP COLUMN {column}, ADD COLUMN {column} {} GENERATED ALWAYS AS (…) STORED;", target.type_sql),
            ));
        }
        (false, true) => {
            let message =
                "is a plain column on the source, but generated on the target, where it cannot be written";
            let finding = Finding::error("generated_column", Side::Target, message).about(subject);
            return Some(match target.generated {
                Generated::Virtual => {
                    finding.mend("make it a plain column on the target: drop it and add it again")
                }
                _ => finding.mend_by([format!("{} DROP EXPRESSION;", alter_column(table, target))]),
            });
        }
        (false, false) => {}
    }
    let (from, to) = (&source.type_sql, &target.type_sql);
    let alter = alter_column(table, target);
    match fit(from, to) {
        Fit::Uncertain => Some(
            Finding::warning(
                "column_type",
                Side::Target,
                format!("is {from} on the source and {to} on the target: values may not fit"),
            )
            .about(subject)
            .mend_by([format!("{alter} TYPE {from} USING {}::{from};", quote_identifier(&target.name))]),
        ),
        _ if target.not_null && !source.not_null => Some(
            Finding::warning(
                "column_not_null",
                Side::Target,
                "may be NULL on the source, but not on the target",
            )
            .about(subject)
            .mend_by([format!("{alter} DROP NOT NULL;")]),
        ),
        Fit::Wider => Some(
            Finding::notice(
                "column_type",
                Side::Target,
                format!("is {from} on the source and {to} on the target, which takes every value"),
            )
            .about(subject),
        ),
        Fit::Same => None,
    }
}

fn compare_keys(source: &TableInfo, target: &TableInfo, findings: &mut Vec<Finding>) {
    let covers = |key: &Vec<String>, columns: &[String]| key.iter().all(|column| columns.contains(column));
    let identity = &source.identity_columns;
    if source.replica_identity != ReplicaIdentity::Full
        && !identity.is_empty()
        && !target.unique_keys.iter().any(|key| covers(key, identity))
    {
        let message = format!(
            "the target has no unique key over ({}): every update and delete would scan the table, and could meet \
             more than one row",
            identity.join(", ")
        );
        let columns = identity.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
        findings.push(
            Finding::warning("target_key", Side::Target, message)
                .about(&source.name)
                .mend_by([format!("CREATE UNIQUE INDEX ON {} ({columns});", target.name.quoted())]),
        );
    }
    for key in &target.unique_keys {
        // A source key over some of the columns makes these unique as well.
        if !source.unique_keys.iter().any(|ours| covers(ours, key)) {
            let message = format!(
                "the target has a unique key over ({}) that the source has not, or checks only at commit: what the \
                 source accepts may fail here",
                key.join(", ")
            );
            findings.push(Finding::warning("extra_key", Side::Target, message).about(&source.name));
        }
    }
}

fn compare_partitions(source: &TableInfo, target: &TableInfo, findings: &mut Vec<Finding>) {
    let differ = |message: String| Finding::warning("partitions", Side::Target, message).about(&source.name);
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    match (source.kind, target.kind) {
        (TableKind::Partitioned, TableKind::Ordinary) => findings
            .push(differ("is partitioned on the source and an ordinary table on the target".to_owned())),
        (TableKind::Ordinary, TableKind::Partitioned) if source.is_partition => findings.push(differ(
            "is a partition with rows of its own on the source and partitioned further on the target"
                .to_owned(),
        )),
        (TableKind::Ordinary, TableKind::Partitioned) => findings.push(
            Finding::notice(
                "partitions",
                Side::Target,
                "is partitioned on the target only: it routes the rows",
            )
            .about(&source.name),
        ),
        _ if source.partition_key != target.partition_key => findings.push(differ(format!(
            "is partitioned by {} on the source and by {} on the target",
            or_none(&source.partition_key),
            or_none(&target.partition_key)
        ))),
        _ if target.is_partition && source.partition_bound != target.partition_bound => {
            findings.push(differ(format!(
                "holds the rows {} on the source and {} on the target: rows may not belong into it",
                source.partition_bound.as_deref().unwrap_or("of no partition"),
                or_none(&target.partition_bound)
            )));
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
pub(crate) mod tests;
