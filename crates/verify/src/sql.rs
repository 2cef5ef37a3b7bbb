//! Every statement of this crate. All names are qualified: the sessions' `search_path` is empty.

use relevo_catalog::{TableInfo, TableKind, quote_identifier, quote_literal};
use relevo_model::Side;

use crate::shape::{Shape, only};

/// The snapshot is taken by the first query.
pub(crate) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(crate) const EXPORT_SNAPSHOT: &str = "SELECT pg_catalog.pg_export_snapshot()";
pub(crate) const INSERT_POSITION: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()";
/// A transaction behind the position, so that an idle source passes it at once; flushed, because what is not is not sent.
pub(crate) const MARK: &str = "SET synchronous_commit = local; \
     SELECT pg_catalog.pg_logical_emit_message(true, 'relevo', 'verify')";
/// Whom the creation of a slot waits for: transactions that had an id when it began.
pub(crate) const RUNNING: &str = "SELECT pg_catalog.format('process %s of %s (%s), for %s s', a.pid, a.usename, \
     coalesce(nullif(a.application_name, ''), 'no application name'), \
     pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start))) \
     FROM pg_catalog.pg_stat_activity AS a WHERE a.backend_xid IS NOT NULL AND a.pid <> $1 \
     ORDER BY a.xact_start LIMIT 10";
pub(crate) const TERMINATE: &str = "SELECT pg_catalog.pg_terminate_backend($1)";
pub(crate) const ENCODING: &str = "SELECT pg_catalog.current_setting('server_encoding')";
/// Whether the files of the table are those that the snapshot knows: TRUNCATE and other rewrites do not keep the rows for
/// those who look at an older state (manual, *MVCC Caveats*). To be asked once the table is locked by reading it.
pub(crate) const SAME_FILES: &str = "SELECT coalesce(pg_catalog.bool_and(pg_catalog.pg_relation_filenode(c.oid) IS NOT DISTINCT FROM nullif(c.relfilenode, 0)), false) \
     FROM pg_catalog.pg_class AS c WHERE c.oid = $1 OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree($1) AS t)";
pub(crate) const BLOCKS: &str = "SELECT pg_catalog.pg_relation_size($1::oid) \
     / pg_catalog.current_setting('block_size')::bigint, pg_catalog.current_setting('block_size')::bigint";
/// The tables that refer to others.
pub(crate) const REFERENCES: &str = "SELECT DISTINCT conrelid, confrelid FROM pg_catalog.pg_constraint \
     WHERE contype = 'f' AND conrelid = ANY ($1) AND confrelid = ANY ($1)";
pub(crate) const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

pub(crate) fn import_snapshot(name: &str) -> String {
    format!("{BEGIN_SNAPSHOT}; SET TRANSACTION SNAPSHOT {}", quote_literal(name))
}

/// Statements about one table on one side.
#[derive(Clone, Copy)]
pub(crate) struct OnSide<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) side: Side,
    /// The sides have other encodings: bytes are compared in this one.
    pub(crate) recode: bool,
}

impl OnSide<'_> {
    pub(crate) fn table(&self) -> &TableInfo {
        match self.side {
            Side::Source => &self.shape.source,
            Side::Target => &self.shape.target,
        }
    }

    /// A column's value as the target's type has it. Through the type's output function, as in the stream: a cast to text
    /// gives other texts for some types.
    fn value(&self, place: usize) -> String {
        let column = &self.shape.columns[place];
        let plain = format!("t.{}", quote_identifier(&column.name));
        match (&column.cast, self.side) {
            (Some(cast), Side::Source) => {
                format!("CASE WHEN {plain} IS DISTINCT FROM NULL THEN pg_catalog.concat({plain})::{cast} END")
            }
            _ => plain,
        }
    }

    /// The same as text.
    fn text(&self, place: usize) -> String {
        let value = self.value(place);
        format!("CASE WHEN {value} IS DISTINCT FROM NULL THEN pg_catalog.concat({value}) END")
    }

    fn md5(&self, text: &str) -> String {
        if self.recode {
            format!("pg_catalog.md5(pg_catalog.convert_to({text}, 'UTF8'))")
        } else {
            format!("pg_catalog.md5({text})")
        }
    }

    fn row(&self, places: impl Iterator<Item = usize>) -> String {
        let values: Vec<String> = places.map(|place| self.value(place)).collect();
        self.md5(&format!("ROW({})::pg_catalog.text", values.join(", ")))
    }

    /// The hash of the whole row. NULL and the empty text differ in a row's text.
    fn row_hash(&self) -> String {
        self.row(0..self.shape.columns.len())
    }

    /// What a row is known by.
    fn key_hash(&self) -> String {
        if self.shape.is_keyed() { self.row(self.shape.key.iter().copied()) } else { self.row_hash() }
    }

    fn texts(&self, places: impl Iterator<Item = usize>) -> String {
        let texts: Vec<String> = places.map(|place| self.text(place)).collect();
        format!("ARRAY[{}]::pg_catalog.text[]", texts.join(", "))
    }

    /// Checksums of the rows in each of `buckets` (a power of two). In parts by the rows' places: `$1` and `$2`.
    pub(crate) fn sums(&self, buckets: u32, range: Option<(i64, Option<i64>)>) -> String {
        let place = match range {
            None => String::new(),
            Some((first, None)) => format!(" WHERE t.ctid >= '({first},0)'::tid"),
            Some((first, Some(end))) => {
                format!(" WHERE t.ctid >= '({first},0)'::tid AND t.ctid < '({end},0)'::tid")
            }
        };
        format!(
            "SELECT {bucket} AS bucket, pg_catalog.count(*), {high}, {low} FROM (SELECT {key} AS kh, {row} AS rh \
             FROM {table} AS t{place} OFFSET 0) AS h GROUP BY 1",
            bucket = bucket("h.kh", buckets),
            high = "pg_catalog.sum(('x' || pg_catalog.substr(h.rh, 1, 16))::bit(64)::bigint)::text",
            low = "pg_catalog.sum(('x' || pg_catalog.substr(h.rh, 17, 16))::bit(64)::bigint)::text",
            key = self.key_hash(),
            row = self.row_hash(),
            table = only(self.table()),
        )
    }

    /// The rows of the buckets `$1`, sorted by their hashes: the same order on every server.
    pub(crate) fn rows(&self, buckets: u32) -> String {
        let columns = self.shape.columns.len();
        let key = if self.shape.is_keyed() {
            self.texts(self.shape.key.iter().copied())
        } else {
            let beginnings: Vec<String> =
                (0..columns).map(|place| format!("pg_catalog.left({}, 100)", self.text(place))).collect();
            format!("ARRAY[{}]::pg_catalog.text[]", beginnings.join(", "))
        };
        let hashes: Vec<String> = (0..columns).map(|place| self.md5(&self.text(place))).collect();
        format!(
            "SELECT h.kh, h.rh, pg_catalog.count(*), pg_catalog.min(h.k), pg_catalog.min(h.c) \
             FROM (SELECT {key_hash} AS kh, {row_hash} AS rh, {key} AS k, ARRAY[{hashes}]::pg_catalog.text[] AS c \
             FROM {table} AS t WHERE {bucket} = ANY ($1)) AS h \
             GROUP BY h.kh, h.rh ORDER BY h.kh COLLATE pg_catalog.\"C\", h.rh COLLATE pg_catalog.\"C\"",
            key_hash = self.key_hash(),
            row_hash = self.row_hash(),
            hashes = hashes.join(", "),
            table = only(self.table()),
            bucket = bucket(&self.key_hash(), buckets),
        )
    }

    /// Rows with all their values. With a key: those of the keys `$1`, `$2`, …, one array of texts for each column.
    /// Without: those of the hashes `$1`. On the target with their places.
    pub(crate) fn values(&self) -> String {
        let place = match self.side {
            Side::Source => "NULL::oid, NULL::text",
            Side::Target => "t.tableoid, t.ctid::text",
        };
        let values = self.texts(0..self.shape.columns.len());
        let table = only(self.table());
        if !self.shape.is_keyed() {
            let hash = self.row_hash();
            return format!("SELECT {hash}, {values}, {place} FROM {table} AS t WHERE {hash} = ANY ($1)");
        }
        let arrays: Vec<String> =
            (1..=self.shape.key.len()).map(|number| format!("${number}::pg_catalog.text[]")).collect();
        let names: Vec<String> = (1..=self.shape.key.len()).map(|number| format!("k{number}")).collect();
        let mut conditions = Vec::new();
        for (number, place) in self.shape.key.iter().enumerate() {
            let column = &self.shape.columns[*place];
            let info = if self.side == Side::Source { &column.source } else { &column.target };
            let equality = info.equality.as_deref().unwrap_or("OPERATOR(pg_catalog.=)");
            let name = quote_identifier(&column.name);
            let given = format!("w.k{}", number + 1);
            // Found by the index; but what is equal need not be the same.
            conditions.push(format!("t.{name} {equality} {given}::{}", info.type_sql));
            conditions.push(format!(
                "({}) COLLATE pg_catalog.\"C\" = {given} COLLATE pg_catalog.\"C\"",
                self.text(*place)
            ));
        }
        format!(
            "SELECT {hash}, {values}, {place} FROM ROWS FROM ({arrays}) AS w ({names}) JOIN {table} AS t ON {conditions}",
            hash = self.key_hash(),
            arrays = arrays
                .iter()
                .map(|array| format!("pg_catalog.unnest({array})"))
                .collect::<Vec<_>>()
                .join(", "),
            names = names.join(", "),
            conditions = conditions.join(" AND "),
        )
    }

    /// Whether the table can be read in parts by the rows' places.
    pub(crate) fn has_places(&self) -> bool {
        self.table().kind == TableKind::Ordinary
    }

    pub(crate) fn insert(&self) -> String {
        let written = self.shape.written().map(|place| &self.shape.columns[place]);
        let names: Vec<String> = written.map(|column| quote_identifier(&column.name)).collect();
        let values: Vec<String> = (1..=names.len()).map(|number| format!("${number}")).collect();
        let table = self.table().name.quoted();
        if names.is_empty() {
            return format!("INSERT INTO {table} DEFAULT VALUES");
        }
        format!(
            "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            names.join(", "),
            values.join(", ")
        )
    }

    /// Sets the columns at these places of the row at `$1` in the table `$2`.
    pub(crate) fn update(&self, places: &[usize]) -> String {
        let set: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(number, place)| {
                format!("{} = ${}", quote_identifier(&self.shape.columns[*place].name), number + 3)
            })
            .collect();
        let table = only(self.table());
        format!("UPDATE {table} AS t SET {} WHERE t.ctid = $1::tid AND t.tableoid = $2::oid", set.join(", "))
    }

    pub(crate) fn delete(&self) -> String {
        format!("DELETE FROM {} AS t WHERE t.ctid = $1::tid AND t.tableoid = $2::oid", only(self.table()))
    }
}

fn bucket(hash: &str, buckets: u32) -> String {
    format!("(('x' || pg_catalog.substr({hash}, 1, 8))::bit(32)::bigint & {})", buckets - 1)
}
