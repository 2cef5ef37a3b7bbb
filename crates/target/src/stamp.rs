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

/// The transactions that last wrote the tables' rows in `pg_class`.
const STAMPS: &str = "
SELECT n.nspname::text, c.relname::text, c.xmin::text::bigint
  FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name";

/// Fails with SQLSTATE 22P02 (`invalid_text_representation`) unless the tables `$6` (OIDs) still have the stamps `$7`: so the
/// server refuses the transaction, whose COMMIT is already under way. It goes with the statement that moves the progress,
/// whose parameters come first, since each statement of its own is waited for by whoever waits for the transaction.
const CHECK: &str = "
(SELECT CASE WHEN pg_catalog.count(*) = 0 THEN '0' ELSE 'relevo: a table was altered' END::int
  FROM unnest($6::oid[], $7::bigint[]) AS known (oid, stamp)
 WHERE known.stamp IS DISTINCT FROM
       (SELECT c.xmin::text::bigint FROM pg_catalog.pg_class c WHERE c.oid = known.oid))";

/// The stamps of the tables that exist, to be taken before their descriptions are read.
pub(crate) async fn stamps(client: &Client, names: &[TableName]) -> Result<BTreeMap<TableName, i64>, Error> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let rows = client.query(STAMPS, &[&schemas, &tables]).await?;
    rows.iter()
        .map(|row| {
            Ok((TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?), row.try_get(2)?))
        })
        .collect()
}

/// The statement that moves the progress if the tables are as they were.
pub(crate) async fn prepare_advance(client: &Client) -> Result<Statement, Error> {
    client.prepare(&relevo_state::advance_progress(CHECK)).await
}

/// The tables that the transaction has touched, by their OIDs.
#[derive(Debug, Default, Clone)]
pub(crate) struct Touched(BTreeMap<u32, Arc<TableMap>>);

impl Touched {
    /// The first description of a table in the transaction counts, even when the source describes it anew and it is
    /// read again: what was sent by the first must have been right too.
    pub(crate) fn add(&mut self, map: &Arc<TableMap>) {
        self.0.entry(map.table.oid).or_insert_with(|| Arc::clone(map));
    }

    /// A table that the transaction itself gives a new stamp: by TRUNCATE, which also keeps everybody else out.
    pub(crate) fn remove(&mut self, map: &TableMap) {
        self.0.remove(&map.table.oid);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether it holds for every table.
    pub(crate) fn all(&self, holds: fn(&TableMap) -> bool) -> bool {
        self.0.values().all(|map| holds(map))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::{column, relation, table};

    #[test]
    fn the_first_description_of_a_table_is_the_one_that_is_checked() {
        let map = |stamp| {
            let target = table(vec![column("k", 23)], &[]);
            Arc::new(TableMap::new(&relation(&["k"]), target, (1, stamp)).unwrap())
        };
        let mut touched = Touched::default();
        touched.add(&map(700));
        touched.add(&map(701));
        assert_eq!(touched.stamps().1, [700]);
        touched.remove(&map(701));
        touched.add(&map(702));
        assert_eq!(touched.stamps().1, [702], "emptied by the transaction itself");
    }
}
