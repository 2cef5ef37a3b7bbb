//! Whether the target's tables are still what they were read as.
//!
//! A prepared statement outlives an ALTER TABLE: the server plans it again, and converts the values from the type
//! that the column had to the type that it has, which may change them without an error (`float8` to `numeric`).
//! And a key that was unique may be gone. So the last question before the progress, when the batch holds locks on
//! all its tables, is whether their descriptions were written since. What may not enter: what the tables look like.

use std::collections::BTreeMap;
use std::sync::Arc;

use relevo_catalog::TableName;
use tokio_postgres::{Client, Error, Statement};

use crate::mapping::TableMap;

/// The transactions that last wrote each column and index of a table, summed up. None of them is written by
/// VACUUM or ANALYZE.
const STAMP: &str = "
SELECT coalesce((SELECT pg_catalog.sum(a.xmin::text::bigint) FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0), 0)::bigint
     + coalesce((SELECT pg_catalog.sum(i.xmin::text::bigint + i.indexrelid::bigint) FROM pg_catalog.pg_index i
                  WHERE i.indrelid = c.oid), 0)::bigint
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2";

/// Fails with SQLSTATE 22012 (`division_by_zero`) unless the tables `$1` (OIDs) still have the stamps `$2`: so the
/// server refuses the transaction, whose COMMIT is already under way.
const CHECK: &str = "
SELECT 1 / (pg_catalog.count(*) = 0)::int
  FROM unnest($1::oid[], $2::bigint[]) AS known (oid, stamp)
 WHERE known.stamp IS DISTINCT FROM
       coalesce((SELECT pg_catalog.sum(a.xmin::text::bigint) FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = known.oid AND a.attnum > 0), 0)::bigint
     + coalesce((SELECT pg_catalog.sum(i.xmin::text::bigint + i.indexrelid::bigint) FROM pg_catalog.pg_index i
                  WHERE i.indrelid = known.oid), 0)::bigint";

/// The stamp of a table, to be taken before its description is read; 0 when there is no such table.
pub(crate) async fn stamp(client: &Client, name: &TableName) -> Result<i64, Error> {
    match client.query_opt(STAMP, &[&name.schema, &name.name]).await? {
        Some(row) => row.try_get(0),
        None => Ok(0),
    }
}

pub(crate) async fn prepare_check(client: &Client) -> Result<Statement, Error> {
    client.prepare(CHECK).await
}

/// The tables that the transaction has touched, by their OIDs.
#[derive(Debug, Default)]
pub(crate) struct Touched(BTreeMap<u32, Arc<TableMap>>);

impl Touched {
    pub(crate) fn add(&mut self, map: &Arc<TableMap>) {
        let known = self.0.get(&map.table.oid).is_some_and(|have| Arc::ptr_eq(have, map));
        if !known {
            self.0.insert(map.table.oid, Arc::clone(map));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The parameters of the check.
    pub(crate) fn stamps(&self) -> (Vec<u32>, Vec<i64>) {
        self.0.iter().map(|(oid, map)| (*oid, map.stamp)).unzip()
    }

    /// The tables for a message.
    pub(crate) fn names(&self) -> String {
        let names: Vec<String> = self.0.values().map(|map| map.name().to_string()).collect();
        names.join(", ")
    }
}
