//! Which tables of the source the two publications of a flow reach, and what is changed in them all the same.

use tokio_postgres::Client;

use crate::error::{CatalogError, get, reading};
use crate::{TableName, queries};

/// A table of the source with rows of its own: an ordinary one or a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedTable {
    /// Its name.
    pub name: TableName,
    /// The partitioned table at the top of its tree, when it is a partition.
    pub partition_root: Option<TableName>,
    /// The publication with all changes holds it, or a table above it.
    pub whole: bool,
    /// The publication of inserts and truncates does.
    pub inserts: bool,
    /// How many rows were updated or deleted, ever since the statistics were last reset
    /// (`pg_stat_user_tables.n_tup_upd` and `n_tup_del`).
    pub changes: i64,
}

/// All user tables, with how the publications `whole` and `inserts` reach them.
///
/// # Errors
/// [`CatalogError::Query`].
pub async fn published(
    client: &Client,
    whole: &str,
    inserts: &str,
) -> Result<Vec<PublishedTable>, CatalogError> {
    let rows = client
        .query(queries::PUBLISHED, &[&whole, &inserts])
        .await
        .map_err(reading("the published tables"))?;
    rows.iter()
        .map(|row| {
            let root_schema: Option<String> = get(row, "root_schema")?;
            let root_name: Option<String> = get(row, "root_name")?;
            Ok(PublishedTable {
                name: TableName { schema: get(row, "schema")?, name: get(row, "name")? },
                partition_root: root_schema.zip(root_name).map(|(schema, name)| TableName { schema, name }),
                whole: get(row, "whole")?,
                inserts: get(row, "inserts")?,
                changes: get(row, "changes")?,
            })
        })
        .collect()
}
