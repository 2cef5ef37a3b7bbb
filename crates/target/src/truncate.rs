//! TRUNCATE of several tables as one, and what to do when a foreign key of the target stands in the way.
//!
//! What may not enter: when it is sent.

use relevo_catalog::{TableInfo, quote_identifier};
use tokio_postgres::{Client, Error};

use crate::mapping::only;

/// A foreign key from a table outside the list (and outside the partitions of those in it) to one inside.
/// TRUNCATE refuses such a list whether or not the referencing table holds rows
/// (`heap_truncate_check_FKs`, `catalog/heap.c`).
const BLOCKING_KEY: &str = "
WITH listed AS (
    SELECT given.oid FROM pg_catalog.unnest($1::oid[]) AS given (oid)
     UNION
    SELECT tree.relid::oid
      FROM pg_catalog.unnest($1::oid[]) AS given (oid), LATERAL pg_catalog.pg_partition_tree(given.oid) AS tree)
SELECT c.conrelid::regclass::text || ' (' || c.conname || ')'
  FROM pg_catalog.pg_constraint c
 WHERE c.contype = 'f'
   AND c.confrelid IN (SELECT oid FROM listed)
   AND c.conrelid NOT IN (SELECT oid FROM listed)
 ORDER BY 1 LIMIT 1";

/// The sequences that belong to columns of the tables: what RESTART IDENTITY restarts.
const OWNED_SEQUENCES: &str = "
SELECT n.nspname::text, s.relname::text
  FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
   AND d.refobjid = ANY ($1::oid[]) AND d.deptype IN ('a', 'i')
 ORDER BY 1, 2";

/// The statements that empty the tables.
pub(crate) struct Emptying {
    /// To be executed in order.
    pub(crate) statements: Vec<String>,
    /// The foreign key that kept TRUNCATE from being used, for the log.
    pub(crate) blocked_by: Option<String>,
}

/// Decides how the tables are emptied. As in native replication there is no CASCADE on the target: the tables
/// that it reached on the source are in the list, and others on the target are not the source's to empty.
pub(crate) async fn emptying(
    client: &Client,
    tables: &[&TableInfo],
    restart_identity: bool,
) -> Result<Emptying, Error> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let blocked_by: Option<String> = match client.query_opt(BLOCKING_KEY, &[&oids]).await? {
        Some(row) => Some(row.try_get(0)?),
        None => None,
    };
    if blocked_by.is_none() {
        return Ok(Emptying { statements: vec![truncate(tables, restart_identity)], blocked_by });
    }
    let mut statements: Vec<String> =
        tables.iter().map(|table| format!("DELETE FROM {}", only(table))).collect();
    if restart_identity {
        for row in client.query(OWNED_SEQUENCES, &[&oids]).await? {
            let (schema, name): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            statements.push(format!(
                "ALTER SEQUENCE {}.{} RESTART",
                quote_identifier(schema),
                quote_identifier(name)
            ));
        }
    }
    Ok(Emptying { statements, blocked_by })
}

fn truncate(tables: &[&TableInfo], restart_identity: bool) -> String {
    let names: Vec<String> = tables.iter().map(|table| only(table)).collect();
    let identity = if restart_identity { "RESTART IDENTITY" } else { "CONTINUE IDENTITY" };
    format!("TRUNCATE {} {identity} RESTRICT", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::table;
    use relevo_catalog::TableKind;

    #[test]
    fn all_tables_are_emptied_by_one_statement_without_their_children() {
        let ordinary = table(vec![], &[]);
        let root = TableInfo { kind: TableKind::Partitioned, ..table(vec![], &[]) };
        assert_eq!(
            truncate(&[&ordinary, &root], true),
            r#"TRUNCATE ONLY "s"."t", "s"."t" RESTART IDENTITY RESTRICT"#
        );
        assert_eq!(truncate(&[&ordinary], false), r#"TRUNCATE ONLY "s"."t" CONTINUE IDENTITY RESTRICT"#);
    }
}
