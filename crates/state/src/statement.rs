//! Schema statements that wait for the rows: indexes, constraints, triggers.

use relevo_model::FlowName;
use tokio_postgres::GenericClient;

use crate::StateError;

const STORING: &str = "storing schema statements";
const FORGET: &str = "DELETE FROM relevo.schema_statement WHERE flow = $1";
const SAVE: &str = "INSERT INTO relevo.schema_statement (flow, ordinal, schema_name, table_name, statement) \
     SELECT $1, ordinal::integer, schema_name, table_name, statement \
     FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) \
     WITH ORDINALITY AS s (schema_name, table_name, statement, ordinal)";
const APPEND: &str = "INSERT INTO relevo.schema_statement (flow, ordinal, schema_name, table_name, statement) \
     SELECT $1, s.ordinal::integer + (SELECT coalesce(pg_catalog.max(l.ordinal), 0) FROM relevo.schema_statement AS l \
     WHERE l.flow = $1), s.schema_name, s.table_name, s.statement \
     FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) \
     WITH ORDINALITY AS s (schema_name, table_name, statement, ordinal)";
const PENDING: &str = "SELECT ordinal, schema_name, table_name, statement FROM relevo.schema_statement \
     WHERE flow = $1 AND NOT done ORDER BY ordinal";
const CLAIM: &str =
    "SELECT NOT done FROM relevo.schema_statement WHERE flow = $1 AND ordinal = $2 FOR UPDATE";
const STILL_PENDING: &str =
    "SELECT ordinal FROM relevo.schema_statement WHERE flow = $1 AND ordinal = ANY ($2) AND NOT done";
const DONE: &str = "UPDATE relevo.schema_statement SET done = true WHERE flow = $1 AND ordinal = $2";

/// A statement to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStatement {
    /// Schema and name of the one table that it is about, if it is about one.
    pub table: Option<(String, String)>,
    /// Its text.
    pub statement: String,
}

/// A statement that was not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingStatement {
    /// Its place in the order of all statements, and its key.
    pub ordinal: i32,
    /// Schema and name of the one table that it is about, if it is about one.
    pub table: Option<(String, String)>,
    /// Its text.
    pub statement: String,
}

/// Stores the statements of a flow in their order, in place of any that are stored. Call it in a transaction.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn save_statements(
    client: &impl GenericClient,
    flow: &FlowName,
    statements: &[NewStatement],
) -> Result<(), StateError> {
    client.execute(FORGET, &[&flow.as_str()]).await.map_err(StateError::sql(STORING))?;
    store(client, flow, statements, SAVE).await
}

/// Stores statements behind those that are stored. Call it in a transaction that holds the flow's row.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn append_statements(
    client: &impl GenericClient,
    flow: &FlowName,
    statements: &[NewStatement],
) -> Result<(), StateError> {
    store(client, flow, statements, APPEND).await
}

async fn store(
    client: &impl GenericClient,
    flow: &FlowName,
    statements: &[NewStatement],
    insert: &str,
) -> Result<(), StateError> {
    let table = |new: &NewStatement| new.table.clone().unzip();
    let (schemas, names): (Vec<_>, Vec<_>) = statements.iter().map(table).unzip();
    let texts: Vec<&str> = statements.iter().map(|new| new.statement.as_str()).collect();
    let done = client.execute(insert, &[&flow.as_str(), &schemas, &names, &texts]).await;
    done.map(drop).map_err(StateError::sql(STORING))
}

/// The statements that were not run yet, in order.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn pending_statements(
    client: &impl GenericClient,
    flow: &FlowName,
) -> Result<Vec<PendingStatement>, StateError> {
    let rows = client
        .query(PENDING, &[&flow.as_str()])
        .await
        .map_err(StateError::sql("reading schema statements"))?;
    let table = |schema: Option<String>, name: Option<String>| schema.zip(name);
    Ok(rows
        .iter()
        .map(|row| PendingStatement {
            ordinal: row.get(0),
            table: table(row.get(1), row.get(2)),
            statement: row.get(3),
        })
        .collect())
}

/// Claims a statement for this transaction: `false` when it was run already. A transaction of another session that
/// runs it is waited for, even when that session's client is gone.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn is_pending(
    client: &impl GenericClient,
    flow: &FlowName,
    ordinal: i32,
) -> Result<bool, StateError> {
    let row = client
        .query_opt(CLAIM, &[&flow.as_str(), &ordinal])
        .await
        .map_err(StateError::sql("reading a schema statement"))?;
    Ok(row.is_some_and(|row| row.get(0)))
}

/// Those of the statements with these ordinals that were not run yet.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn still_pending(
    client: &impl GenericClient,
    flow: &FlowName,
    ordinals: &[i32],
) -> Result<Vec<i32>, StateError> {
    let rows = client
        .query(STILL_PENDING, &[&flow.as_str(), &ordinals])
        .await
        .map_err(StateError::sql("reading schema statements"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Notes that a statement was run. Call it in the transaction that ran it.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn finish_statement(
    client: &impl GenericClient,
    flow: &FlowName,
    ordinal: i32,
) -> Result<(), StateError> {
    let done = client.execute(DONE, &[&flow.as_str(), &ordinal]).await;
    done.map(drop).map_err(StateError::sql("recording a schema statement"))
}
