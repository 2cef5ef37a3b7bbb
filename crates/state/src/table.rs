//! The tables of a flow and how far each of them is.

use std::str::FromStr;

use relevo_model::{FlowName, SourceLsn};
use tokio_postgres::GenericClient;
use tokio_postgres::types::PgLsn;

use crate::StateError;

/// How far one table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableState {
    /// Not begun.
    Pending,
    /// Rows are on their way; none is visible yet.
    Copying,
    /// The rows are there, as of the recorded LSN.
    Copied,
    /// Follows the source.
    Streaming,
}

impl TableState {
    /// The word in the database and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Copying => "copying",
            Self::Copied => "copied",
            Self::Streaming => "streaming",
        }
    }
}

impl FromStr for TableState {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        Ok(match text {
            "pending" => Self::Pending,
            "copying" => Self::Copying,
            "copied" => Self::Copied,
            "streaming" => Self::Streaming,
            other => {
                return Err(StateError::Corrupt { column: "table_state.state", value: other.to_owned() });
            }
        })
    }
}

/// One table of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRecord {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: TableState,
    /// Updates and deletes are not replicated: no replica identity.
    pub insert_only: bool,
    /// The LSN that its copied rows are of.
    pub copied_lsn: Option<SourceLsn>,
    /// How many rows were copied, or sent so far.
    pub copied_rows: Option<i64>,
    /// The same in bytes, as COPY wrote them: text or binary.
    pub copied_bytes: Option<i64>,
    /// What its rows occupied on the source when their copy was begun, in bytes.
    pub total_bytes: Option<i64>,
    /// Of an insert-only table: the updates and deletes that the source had counted when it was last looked at.
    pub source_changes: Option<i64>,
}

const REGISTER: &str = "INSERT INTO relevo.table_state (flow, schema_name, table_name, state, insert_only) \
     VALUES ($1, $2, $3, 'pending', $4) \
     ON CONFLICT (flow, schema_name, table_name) DO UPDATE SET insert_only = excluded.insert_only";
const READ: &str = "SELECT schema_name, table_name, state, insert_only, copied_lsn, copied_rows, source_changes, \
     copied_bytes, total_bytes \
     FROM relevo.table_state WHERE flow = $1 ORDER BY schema_name, table_name";
const COPYING: &str = "UPDATE relevo.table_state SET state = 'copying', updated_at = pg_catalog.now() \
     WHERE flow = $1 AND schema_name = $2 AND table_name = $3";
const COPIED: &str = "UPDATE relevo.table_state SET state = 'copied', copied_lsn = $4, copied_rows = $5, \
     copied_bytes = $6, updated_at = pg_catalog.now() WHERE flow = $1 AND schema_name = $2 AND table_name = $3";
const COUNTS: &str = "SELECT copied_rows, copied_bytes FROM relevo.table_state \
     WHERE flow = $1 AND schema_name = $2 AND table_name = $3 AND state = 'copied'";
const SOURCE_CHANGES: &str = "UPDATE relevo.table_state SET source_changes = $4 \
     WHERE flow = $1 AND schema_name = $2 AND table_name = $3";
const OTHERS: &str = "SELECT t.flow, t.schema_name, t.table_name FROM relevo.table_state AS t \
     WHERE t.flow <> $1 ORDER BY t.schema_name, t.table_name, t.flow";
const DROP: &str = "DELETE FROM relevo.table_state WHERE flow = $1 AND schema_name = $2 AND table_name = $3";
const DROP_STREAMING: &str = "DELETE FROM relevo.table_state \
     WHERE flow = $1 AND schema_name = $2 AND table_name = $3 AND state = 'streaming'";
const COUNT: &str = "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE state <> 'streaming') \
     FROM relevo.table_state WHERE flow = $1";

/// Lets copied tables follow the stream, inside the transaction that brings what they have missed.
///
/// Parameters: `$1` flow (text), `$2` and `$3` their schemas and names (text[]). Unless every one of them is recorded
/// as copied, the statement fails with SQLSTATE 22012 (`division_by_zero`) and the server refuses the transaction.
pub const JOIN_TABLES: &str = "WITH joined AS (UPDATE relevo.table_state AS t \
     SET state = 'streaming', updated_at = pg_catalog.now() \
     FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS j (schema_name, table_name) \
     WHERE t.flow = $1 AND t.schema_name = j.schema_name AND t.table_name = j.table_name AND t.state = 'copied' \
     RETURNING 1) \
     SELECT 1 / (pg_catalog.count(*) = pg_catalog.cardinality($2::text[]))::int FROM joined";

/// Records that a table belongs to the flow; from now on its rows on this side are Relevo's to replace.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn register_table(
    client: &impl GenericClient,
    flow: &FlowName,
    schema: &str,
    name: &str,
    insert_only: bool,
) -> Result<(), StateError> {
    let done = client.execute(REGISTER, &[&flow.as_str(), &schema, &name, &insert_only]).await;
    done.map(drop).map_err(StateError::sql("recording a table"))
}

/// Forgets a table that no longer belongs to the flow. Its rows stay.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn drop_table(
    client: &impl GenericClient,
    flow: &FlowName,
    schema: &str,
    name: &str,
) -> Result<(), StateError> {
    let done = client.execute(DROP, &[&flow.as_str(), &schema, &name]).await;
    done.map(drop).map_err(StateError::sql("forgetting a table"))
}

/// The same as [`drop_table`] for a table that follows the stream. Returns `false`, and forgets nothing, when it does not.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn drop_streaming_table(
    client: &impl GenericClient,
    flow: &FlowName,
    schema: &str,
    name: &str,
) -> Result<bool, StateError> {
    let done = client.execute(DROP_STREAMING, &[&flow.as_str(), &schema, &name]).await;
    Ok(done.map_err(StateError::sql("forgetting a table"))? > 0)
}

/// How many tables the flow has, and how many of them do not follow the stream (yet).
///
/// # Errors
/// [`StateError::Sql`].
pub async fn table_counts(client: &impl GenericClient, flow: &FlowName) -> Result<(i64, i64), StateError> {
    let row =
        client.query_one(COUNT, &[&flow.as_str()]).await.map_err(StateError::sql("counting the tables"))?;
    Ok((row.get(0), row.get(1)))
}

/// The tables of the flow, by schema and name.
///
/// # Errors
/// [`StateError::Sql`], [`StateError::Corrupt`].
pub async fn tables(client: &impl GenericClient, flow: &FlowName) -> Result<Vec<TableRecord>, StateError> {
    let rows = client.query(READ, &[&flow.as_str()]).await.map_err(StateError::sql("reading the tables"))?;
    rows.iter()
        .map(|row| {
            Ok(TableRecord {
                schema: row.get(0),
                name: row.get(1),
                state: row.get::<_, &str>(2).parse()?,
                insert_only: row.get(3),
                copied_lsn: row.get::<_, Option<PgLsn>>(4).map(|lsn| SourceLsn::new(lsn.into())),
                copied_rows: row.get(5),
                source_changes: row.get(6),
                copied_bytes: row.get(7),
                total_bytes: row.get(8),
            })
        })
        .collect()
}

/// Notes that a table's rows are on their way.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn mark_copying(
    client: &impl GenericClient,
    flow: &FlowName,
    schema: &str,
    name: &str,
) -> Result<(), StateError> {
    let done = client.execute(COPYING, &[&flow.as_str(), &schema, &name]).await;
    done.map(drop).map_err(StateError::sql("recording a table's copy"))
}

/// Notes that a table's rows are there. Call it in the transaction that carries them.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn mark_copied(
    client: &impl GenericClient,
    flow: &FlowName,
    (schema, name): (&str, &str),
    lsn: SourceLsn,
    (rows, bytes): (i64, i64),
) -> Result<(), StateError> {
    let lsn = PgLsn::from(lsn.as_u64());
    let done = client.execute(COPIED, &[&flow.as_str(), &schema, &name, &lsn, &rows, &bytes]).await;
    done.map(drop).map_err(StateError::sql("recording a table's copy"))
}

/// The rows and bytes of a table that is copied and does not stream yet; `None` for any other.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn copied_counts(
    client: &impl GenericClient,
    flow: &FlowName,
    (schema, name): (&str, &str),
) -> Result<Option<(i64, i64)>, StateError> {
    let row = client
        .query_opt(COUNTS, &[&flow.as_str(), &schema, &name])
        .await
        .map_err(StateError::sql("reading a table's copy"))?;
    let count = |value: Option<i64>| value.unwrap_or(0);
    Ok(row.map(|row| (count(row.get(0)), count(row.get(1)))))
}

/// Notes how many updates and deletes of an insert-only table the source has counted.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn set_source_changes(
    client: &impl GenericClient,
    flow: &FlowName,
    (schema, name): (&str, &str),
    changes: i64,
) -> Result<(), StateError> {
    let done = client.execute(SOURCE_CHANGES, &[&flow.as_str(), &schema, &name, &changes]).await;
    done.map(drop).map_err(StateError::sql("recording what the source has counted"))
}

/// A table of another flow into this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherTable {
    /// The other flow's name.
    pub flow: String,
    /// The table's schema.
    pub schema: String,
    /// The table's name.
    pub name: String,
}

/// The tables that other flows have recorded as theirs.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn tables_of_others(
    client: &impl GenericClient,
    flow: &FlowName,
) -> Result<Vec<OtherTable>, StateError> {
    let rows = client
        .query(OTHERS, &[&flow.as_str()])
        .await
        .map_err(StateError::sql("reading the tables of other flows"))?;
    Ok(rows.iter().map(|row| OtherTable { flow: row.get(0), schema: row.get(1), name: row.get(2) }).collect())
}
