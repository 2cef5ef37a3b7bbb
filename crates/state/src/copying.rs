//! How far a copy is, noted for whoever asks while it goes on. A courtesy: nothing is decided by it.

use relevo_model::FlowName;
use tokio_postgres::GenericClient;

use crate::StateError;

/// Rows that somebody holds are passed over: nobody may wait for a courtesy, and it for nobody.
const NOTE_TABLES: &str = "WITH free AS MATERIALIZED (SELECT t.schema_name, t.table_name FROM relevo.table_state AS t \
     WHERE t.flow = $1 AND t.state = 'copying' FOR UPDATE SKIP LOCKED) \
     UPDATE relevo.table_state AS t SET copied_rows = n.rows, copied_bytes = n.bytes \
     FROM free JOIN ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::int8[]), \
     pg_catalog.unnest($4::int8[])) AS n (name, rows, bytes) \
     ON n.name = pg_catalog.concat(free.schema_name, '.', free.table_name) \
     WHERE t.flow = $1 AND t.schema_name = free.schema_name AND t.table_name = free.table_name";
const NOTE_PACE: &str = "UPDATE relevo.flow SET copy_bytes_per_second = $2, copy_remaining_seconds = $3 \
     WHERE name = $1 AND (copy_bytes_per_second, copy_remaining_seconds) IS DISTINCT FROM ($2, $3)";
const READ_PACE: &str =
    "SELECT copy_bytes_per_second, copy_remaining_seconds FROM relevo.flow WHERE name = $1";

/// What has been sent of a table that is being copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentTable {
    /// Schema and name, with a point between them.
    pub table: String,
    /// Rows.
    pub rows: i64,
    /// Bytes, as COPY writes them: text or binary.
    pub bytes: i64,
}

/// How fast rows are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyPace {
    /// Such bytes in a second.
    pub bytes_per_second: Option<i64>,
    /// Seconds that the rows will take at this rate.
    pub remaining_seconds: Option<i64>,
}

/// Notes how far the copy is. Not in a transaction with anything else: then nothing is waited for.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn note_copy(
    client: &impl GenericClient,
    flow: &FlowName,
    pace: CopyPace,
    tables: &[SentTable],
) -> Result<(), StateError> {
    let failed = || StateError::sql("noting how far the copy is");
    if !tables.is_empty() {
        let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
        let rows: Vec<i64> = tables.iter().map(|table| table.rows).collect();
        let bytes: Vec<i64> = tables.iter().map(|table| table.bytes).collect();
        let done = client.execute(NOTE_TABLES, &[&flow.as_str(), &names, &rows, &bytes]).await;
        done.map_err(failed())?;
    }
    let done =
        client.execute(NOTE_PACE, &[&flow.as_str(), &pace.bytes_per_second, &pace.remaining_seconds]).await;
    done.map(drop).map_err(failed())
}

/// How fast the flow's rows were copied when it was last noted.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn copy_pace(client: &impl GenericClient, flow: &FlowName) -> Result<CopyPace, StateError> {
    let row = client
        .query_opt(READ_PACE, &[&flow.as_str()])
        .await
        .map_err(StateError::sql("reading how far the copy is"))?;
    Ok(row.map_or_else(CopyPace::default, |row| CopyPace {
        bytes_per_second: row.get(0),
        remaining_seconds: row.get(1),
    }))
}
