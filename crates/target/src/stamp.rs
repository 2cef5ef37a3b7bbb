//! Whether the target's tables are still what they were read as.
//!
//! A prepared statement outlives an ALTER TABLE: the server plans it again, and converts the values from the type
//! that the column had to the type that it has, which may change them without an error (`float8` to `numeric`).
//! So the last question before the progress, when the batch holds locks on all its tables, is whether their rows in
//! `pg_class` were written since. Every change of a type that rewrites the table does that, as do new columns,
//! TRUNCATE and GRANT; VACUUM and ANALYZE do not. What may not enter: what the tables look like.

use std::collections::BTreeMap;
use std::sync::Arc;

use relevo_catalog::TableName;
use tokio_postgres::{Client, Error, Statement};

use crate::mapping::TableMap;

/// The transaction that last wrote the table's row in `pg_class`.
const STAMP: &str = "
SELECT c.xmin::text::bigint
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2";

/// Fails with SQLSTATE 22012 (`division_by_zero`) unless the tables `$1` (OIDs) still have the stamps `$2`: so the
/// server refuses the transaction, whose COMMIT is already under way.
const CHECK: &str = "
SELECT 1 / (pg_catalog.count(*) = 0)::int
  FROM unnest($1::oid[], $2::bigint[]) AS known (oid, stamp)
 WHERE known.stamp IS DISTINCT FROM
       (SELECT c.xmin::text::bigint FROM pg_catalog.pg_class c WHERE c.oid = known.oid)";

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

    /// A table that the transaction itself gives a new stamp: by TRUNCATE, which also keeps everybody else out.
    pub(crate) fn remove(&mut self, map: &TableMap) {
        self.0.remove(&map.table.oid);
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
