//! The SQL of this crate that is no more than a text. Names of tables are quoted by whoever puts them in.

use relevo_catalog::{TableName, quote_identifier, quote_literal};

use crate::format::Format;

/// What the target has, for adapting a dump. One row, arrays of text.
pub(crate) const TARGET_FACTS: &str = "
SELECT pg_catalog.current_setting('server_version_num')::int4,
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
       ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles),
       ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles
             WHERE pg_catalog.pg_has_role(current_user, oid, $1)),
       ARRAY(SELECT spcname::text FROM pg_catalog.pg_tablespace),
       ARRAY(SELECT nspname::text FROM pg_catalog.pg_namespace),
       ARRAY(SELECT name FROM pg_catalog.pg_settings),
       ARRAY(SELECT m FROM pg_catalog.pg_settings, pg_catalog.unnest(enumvals) AS m
             WHERE name = 'default_toast_compression')";

/// `server_version_num`.
pub(crate) const VERSION: &str = "SELECT pg_catalog.current_setting('server_version_num')::int4";

/// The encoding of the database, by name.
pub(crate) const DATABASE_ENCODING: &str = "SELECT pg_catalog.getdatabaseencoding()";

/// Lets this session build indexes with more memory, when the server has it: all workers together with half of what it
/// gives its buffers, each with a gigabyte at most, and never with less than the server's own setting. A parameter: how
/// many workers there are.
pub(crate) const MAINTENANCE_MEMORY: &str = "
SELECT pg_catalog.set_config('maintenance_work_mem', pg_catalog.concat(greatest(
           pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')),
           least(pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / (2 * $1::int8),
                 1073741824)) / 1024, 'kB'), false)";

/// Ends a backend of this flow's user; a row as long as it is there. Parameters: its process id, and what the flow's
/// sessions are called.
pub(crate) const END_BACKEND: &str = "
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE pid = $1 AND application_name = $2 AND datname = pg_catalog.current_database()";

/// What decides how a table is emptied: whether foreign keys of other tables point at it, whether TRUNCATE is granted,
/// and whether it may be locked against writers. A parameter: its name, quoted.
pub(crate) const EMPTYING: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint AS c
               WHERE c.contype = 'f' AND c.confrelid = t.oid AND c.conrelid <> c.confrelid),
       pg_catalog.has_table_privilege(t.oid, 'TRUNCATE'),
       pg_catalog.has_table_privilege(t.oid, 'UPDATE, DELETE, TRUNCATE')
FROM (SELECT (($1::text)::pg_catalog.regclass)::pg_catalog.oid) AS t (oid)";

/// In a transaction that acts as one that replicates: what is created is created as by a session of the copy.
pub(crate) const AS_A_COPY: &str =
    "SET LOCAL check_function_bodies = off; SET LOCAL client_min_messages = warning";

/// Makes the transaction one that has something to commit, and so to flush.
pub(crate) const WRITE_COMMIT: &str = "SELECT pg_catalog.pg_current_xact_id()";

/// The file that a table's rows are in now, whatever the transaction's snapshot shows. A parameter: its name, quoted.
pub(crate) const FILE_NOW: &str = "SELECT pg_catalog.pg_relation_filenode(pg_catalog.to_regclass($1))";

/// That file, and how many blocks it has. A parameter: the table's name, quoted.
pub(crate) const SIZE_NOW: &str = "
SELECT pg_catalog.pg_relation_filenode(t.oid),
       pg_catalog.pg_relation_size(t.oid) / pg_catalog.current_setting('block_size')::int8
FROM (SELECT (($1::text)::pg_catalog.regclass)::pg_catalog.oid) AS t (oid)";

/// Whether a table and its parts are stored now where the transaction's snapshot shows them: then the snapshot shows
/// all rows. Parameters: schema and name, and the name, quoted.
pub(crate) const IS_WHERE_IT_WAS: &str = "
SELECT coalesce(pg_catalog.bool_and(pg_catalog.pg_relation_filenode(c.oid) IS NOT DISTINCT FROM nullif(c.relfilenode, 0)
                         AND t.oid = pg_catalog.to_regclass($3)), false)
FROM pg_catalog.pg_namespace AS n
JOIN pg_catalog.pg_class AS t ON t.relnamespace = n.oid AND t.relname = $2
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(t.oid) AS p) AS part (oid)
JOIN pg_catalog.pg_class AS c ON c.oid = part.oid
WHERE n.nspname = $1";

/// How a table is built: the server's major version, whether the table is partitioned, and a row for each of its columns,
/// in their order: name, type, modifier, and whether it is generated. A parameter: the table's name, quoted.
pub(crate) const DESCRIPTION: &str = "
SELECT pg_catalog.current_setting('server_version_num')::int4 / 10000, c.relkind = 'p',
       a.attname::text, a.atttypid, a.atttypmod, a.attgenerated <> ''
FROM pg_catalog.pg_class AS c
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p')
ORDER BY a.attnum";

/// The parts of a partitioned table, itself included. A parameter: its name, quoted.
pub(crate) const PARTITION_TREE: &str = "
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.relid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace";

/// The partitioned tables at the top of trees that hold these tables. Parameters: schemas and names.
pub(crate) const PARTITION_ROOTS: &str = "
SELECT DISTINCT rn.nspname::text, r.relname::text, r.reltuples < 0
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relispartition
JOIN pg_catalog.pg_class AS r ON r.oid = pg_catalog.pg_partition_root(c.oid)
JOIN pg_catalog.pg_namespace AS rn ON rn.oid = r.relnamespace
ORDER BY 1, 2";

/// The indexes of these tables with their sizes in bytes: schema, table, index, size. Parameters: schemas and names.
pub(crate) const INDEX_SIZES: &str = "
SELECT n.nspname::text, t.relname::text, c.relname::text, coalesce(pg_catalog.pg_relation_size(c.oid), 0)
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class AS t ON t.relnamespace = n.oid AND t.relname = wanted.name
JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid AND c.relkind = 'i'";

/// What tables need that `pg_dump --table` leaves out: types, and sequences that their defaults use, which users made.
/// Schema, name, and whether it is a sequence. Parameters: the tables' schemas and names.
pub(crate) const NEEDED: &str = "
WITH RECURSIVE wanted AS (
    SELECT c.oid
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS w (schema, name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.schema
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name),
needed (oid) AS (
    SELECT a.atttypid FROM wanted JOIN pg_catalog.pg_attribute AS a ON a.attrelid = wanted.oid
     WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT part.oid FROM needed JOIN pg_catalog.pg_type AS t ON t.oid = needed.oid
    CROSS JOIN LATERAL (
        SELECT t.typelem UNION ALL SELECT t.typbasetype
        UNION ALL SELECT pg_catalog.unnest(ARRAY[r.rngtypid, r.rngsubtype]) FROM pg_catalog.pg_range AS r
                   WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
                   WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS part (oid)
     WHERE part.oid <> 0),
objects (classid, oid, schema, name, sequence) AS (
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typnamespace, t.typname, false
    FROM needed JOIN pg_catalog.pg_type AS t ON t.oid = needed.oid
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
    WHERE t.typtype IN ('c', 'd', 'e', 'r') AND coalesce(c.relkind = 'c', true)
    UNION
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, s.oid, s.relnamespace, s.relname, true
    FROM wanted JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = wanted.oid
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    JOIN pg_catalog.pg_class AS s ON s.oid = d.refobjid AND s.relkind = 'S')
SELECT n.nspname::text, o.name::text, o.sequence
FROM objects AS o JOIN pg_catalog.pg_namespace AS n ON n.oid = o.schema
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = o.classid AND d.objid = o.oid AND d.deptype = 'e')
ORDER BY 1, 2";

/// Which of these types, or relations, there are. Parameters: schemas and names; whether relations are asked for.
pub(crate) const THERE: &str = "
SELECT w.schema, w.name
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS w (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.schema
WHERE CASE WHEN $3::bool
           THEN EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = w.name)
           ELSE EXISTS (SELECT FROM pg_catalog.pg_type AS t WHERE t.typnamespace = n.oid AND t.typname = w.name)
      END";

/// A foreign key by its table and name: whether it was validated. Parameters: the table's name, quoted; the key's.
pub(crate) const FOREIGN_KEY: &str = "
SELECT convalidated FROM pg_catalog.pg_constraint
 WHERE contype = 'f' AND conrelid = pg_catalog.to_regclass($1) AND conname = $2";

/// Whether a table is partitioned. A parameter: its name, quoted.
pub(crate) const IS_PARTITIONED: &str = "
SELECT coalesce((SELECT relkind = 'p' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)), false)";

/// The populated materialized views that users made.
pub(crate) const POPULATED_VIEWS: &str = "
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated
  AND n.nspname <> 'relevo' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                    AND d.deptype = 'e')
ORDER BY 1, 2";

/// Which materialized views there are. Parameters: schemas and names.
pub(crate) const EXISTING_VIEWS: &str = "
SELECT n.nspname::text, c.relname::text
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind = 'm'
ORDER BY 1, 2";

/// Parameters: an array each of sequences' names, quoted, their last values, and whether those were handed out.
pub(crate) const SET_SEQUENCES: &str = "
SELECT pg_catalog.setval(s.name::pg_catalog.regclass, s.last_value, s.is_called)
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::int8[]), pg_catalog.unnest($3::bool[]))
     AS s (name, last_value, is_called)";

/// The publication's settings. A parameter: its name.
pub(crate) const PUBLICATION: &str = "
SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
       EXISTS (SELECT FROM pg_catalog.pg_publication_rel AS r
               WHERE r.prpubid = p.oid
                 AND (pg_catalog.to_jsonb(r) ->> 'prqual' IS NOT NULL
                      OR pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL))
FROM pg_catalog.pg_publication AS p WHERE pubname = $1";

/// The tables that a publication lists. A parameter: its name.
pub(crate) const PUBLICATION_TABLES: &str = "
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_publication AS p
JOIN pg_catalog.pg_publication_rel AS r ON r.prpubid = p.oid
JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.pubname = $1
ORDER BY 1, 2";

/// What the publication's comment says. A parameter: its name.
pub(crate) const PUBLICATION_COMMENT: &str = "
SELECT pg_catalog.obj_description(oid, 'pg_publication') FROM pg_catalog.pg_publication WHERE pubname = $1";

/// Where a table's rows are stored and how they are built up; of a partitioned one those of its partitions. In a
/// session with an imported snapshot: as that shows it; in any other: as it is now. Parameters: schema and name.
///
/// Every form of ALTER TABLE that writes the rows anew puts them into another file, and leaves new versions of the
/// rows of `pg_attribute`, or another access method or persistence. TRUNCATE and VACUUM FULL only do the first.
pub(crate) const STORAGE: &str = "
SELECT c.oid, c.oid = t.oid AS top, c.relfilenode AS file,
       pg_catalog.concat_ws(' ', c.relam, c.relpersistence,
           (SELECT pg_catalog.string_agg(a.attnum || ':' || a.xmin::text, ' ' ORDER BY a.attnum)
              FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0)) AS structure
FROM pg_catalog.pg_namespace AS n
JOIN pg_catalog.pg_class AS t ON t.relnamespace = n.oid AND t.relname = $2
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(t.oid) AS p) AS part (oid)
JOIN pg_catalog.pg_class AS c ON c.oid = part.oid
WHERE n.nspname = $1";

/// Keeps the table's definition as it is until the transaction ends.
pub(crate) fn lock(table: &TableName, partitioned: bool) -> String {
    format!("LOCK TABLE {} IN ACCESS SHARE MODE", only(table, partitioned))
}

/// Begins a transaction of the source that sees what the exported snapshot sees.
pub(crate) fn import_snapshot(name: &str) -> String {
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        quote_literal(name)
    )
}

/// Reads a table's rows. A table with children gives only its own; a partitioned one those of its partitions.
pub(crate) fn copy_out(table: &TableName, columns: &[String], partitioned: bool, format: Format) -> String {
    let (name, options) = (table.quoted(), options(format, false));
    match (partitioned, columns) {
        (true, _) => format!("COPY (SELECT {} FROM {name}) TO STDOUT{options}", list(columns)),
        (false, []) => format!("COPY {name} TO STDOUT{options}"),
        (false, _) => format!("COPY {name} ({}) TO STDOUT{options}", list(columns)),
    }
}

/// Reads the rows of a table whose place is in these blocks: from the first to before the second, if there is one. A
/// row stays in its place as long as a snapshot sees it, and the table is not rewritten (TID Range Scan, since
/// version 14).
pub(crate) fn copy_out_range(
    table: &TableName,
    columns: &[String],
    blocks: (u64, Option<u64>),
    format: Format,
) -> String {
    let end = blocks.1.map(|end| format!(" AND ctid < '({end},0)'")).unwrap_or_default();
    let rows = format!("{} WHERE ctid >= '({},0)'{end}", only(table, false), blocks.0);
    format!("COPY (SELECT {} FROM {rows}) TO STDOUT{}", list(columns), options(format, false))
}

/// Writes a table's rows; frozen, if the table was truncated in the same transaction.
pub(crate) fn copy_in(table: &TableName, columns: &[String], frozen: bool, format: Format) -> String {
    let (name, options) = (table.quoted(), options(format, frozen));
    match columns {
        [] => format!("COPY {name} FROM STDIN{options}"),
        _ => format!("COPY {name} ({}) FROM STDIN{options}", list(columns)),
    }
}

fn options(format: Format, frozen: bool) -> &'static str {
    match (format, frozen) {
        (Format::Text, false) => "",
        (Format::Text, true) => " (FREEZE)",
        (Format::Binary, false) => " (FORMAT binary)",
        (Format::Binary, true) => " (FORMAT binary, FREEZE)",
    }
}

/// Does nothing; when it is prepared, the table is locked against ALTER TABLE until the transaction ends, whatever
/// the role may do with it.
pub(crate) fn hold_definition(table: &TableName) -> String {
    format!("SELECT FROM ONLY {}", table.quoted())
}

/// `a table`, without its children unless it is partitioned (which has no rows of its own).
pub(crate) fn only(table: &TableName, partitioned: bool) -> String {
    if partitioned { table.quoted() } else { format!("ONLY {}", table.quoted()) }
}

fn list(columns: &[String]) -> String {
    columns.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_statements_quote_every_name_and_allow_for_no_columns() {
        let table = TableName::new("S", "t\"x");
        let columns = ["a".to_owned(), "B c".to_owned()];
        let (text, binary) = (Format::Text, Format::Binary);
        let out = |columns, partitioned, format| copy_out(&table, columns, partitioned, format);
        assert_eq!(out(&columns, false, text), r#"COPY "S"."t""x" ("a", "B c") TO STDOUT"#);
        assert_eq!(out(&columns, true, text), r#"COPY (SELECT "a", "B c" FROM "S"."t""x") TO STDOUT"#);
        assert_eq!(out(&[], true, text), r#"COPY (SELECT  FROM "S"."t""x") TO STDOUT"#);
        assert_eq!(out(&columns[..1], false, binary), r#"COPY "S"."t""x" ("a") TO STDOUT (FORMAT binary)"#);
        assert_eq!(copy_in(&table, &columns, false, text), r#"COPY "S"."t""x" ("a", "B c") FROM STDIN"#);
        assert_eq!(copy_in(&table, &[], true, text), r#"COPY "S"."t""x" FROM STDIN (FREEZE)"#);
        let frozen = copy_in(&table, &columns[..1], true, binary);
        assert_eq!(frozen, r#"COPY "S"."t""x" ("a") FROM STDIN (FORMAT binary, FREEZE)"#);
        let last = copy_out_range(&table, &columns[..1], (7, None), text);
        assert_eq!(last, r#"COPY (SELECT "a" FROM ONLY "S"."t""x" WHERE ctid >= '(7,0)') TO STDOUT"#);
        assert!(
            copy_out_range(&table, &[], (0, Some(7)), binary)
                .ends_with(" WHERE ctid >= '(0,0)' AND ctid < '(7,0)') TO STDOUT (FORMAT binary)")
        );
        assert_eq!(only(&table, false), r#"ONLY "S"."t""x""#);
    }
}
