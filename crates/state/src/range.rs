//! The parts of a large table that the copy has brought, each noted with its rows.

use relevo_model::FlowName;
use tokio_postgres::GenericClient;

use crate::StateError;

const FORGET: &str =
    "DELETE FROM relevo.table_range WHERE flow = $1 AND schema_name = $2 AND table_name = $3";
const BEGIN: &str = "INSERT INTO relevo.table_range (flow, schema_name, table_name, first_block) \
     VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const FINISH: &str = "UPDATE relevo.table_range SET rows = $5, bytes = $6 \
     WHERE flow = $1 AND schema_name = $2 AND table_name = $3 AND first_block = $4";
const READ: &str = "SELECT first_block, rows, bytes FROM relevo.table_range \
     WHERE flow = $1 AND schema_name = $2 AND table_name = $3 ORDER BY first_block";

/// A part of a table that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedRange {
    /// Where it begins in the source's table, in blocks.
    pub first_block: i64,
    /// Its rows.
    pub rows: i64,
    /// Its bytes, as COPY wrote them: text or binary.
    pub bytes: i64,
}

/// Forgets every part of a table. Call it in the transaction that empties the table.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn forget_ranges(
    client: &impl GenericClient,
    flow: &FlowName,
    (schema, name): (&str, &str),
) -> Result<(), StateError> {
    let done = client.execute(FORGET, &[&flow.as_str(), &schema, &name]).await;
    done.map(drop).map_err(StateError::sql("forgetting the parts of a table"))
}

/// Claims a part of a table for this transaction, before its rows are brought: `false` when it is there already. A
/// transaction of another session that has claimed it is waited for, even when that session's client is gone.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn begin_range(
    client: &impl GenericClient,
    flow: &FlowName,
    (schema, name): (&str, &str),
    first_block: i64,
) -> Result<bool, StateError> {
    let done = client.execute(BEGIN, &[&flow.as_str(), &schema, &name, &first_block]).await;
    done.map(|count| count > 0).map_err(StateError::sql("recording a part of a table"))
}

/// Notes what was brought of a part. Call it in the transaction of [`begin_range`].
///
/// # Errors
/// [`StateError::Sql`].
pub async fn finish_range(
    client: &impl GenericClient,
    flow: &FlowName,
    (schema, name): (&str, &str),
    range: CopiedRange,
) -> Result<(), StateError> {
    let CopiedRange { first_block, rows, bytes } = range;
    let done = client.execute(FINISH, &[&flow.as_str(), &schema, &name, &first_block, &rows, &bytes]).await;
    done.map(drop).map_err(StateError::sql("recording a part of a table"))
}

/// The parts of a table that are there, by their first block.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn ranges(
    client: &impl GenericClient,
    flow: &FlowName,
    (schema, name): (&str, &str),
) -> Result<Vec<CopiedRange>, StateError> {
    let rows = client
        .query(READ, &[&flow.as_str(), &schema, &name])
        .await
        .map_err(StateError::sql("reading the parts of a table"))?;
    let count = |value: Option<i64>| value.unwrap_or(0);
    Ok(rows
        .iter()
        .map(|row| CopiedRange { first_block: row.get(0), rows: count(row.get(1)), bytes: count(row.get(2)) })
        .collect())
}
