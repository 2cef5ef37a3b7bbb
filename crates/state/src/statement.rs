//! Schema statements that wait for the rows: indexes, constraints, triggers.

use relevo_model::FlowName;
use tokio_postgres::GenericClient;

use crate::StateError;

const FORGET: &str = "DELETE FROM relevo.schema_statement WHERE flow = $1";
const SAVE: &str = "INSERT INTO relevo.schema_statement (flow, ordinal, statement) \
     SELECT $1, ordinal::integer, statement FROM pg_catalog.unnest($2::text[]) WITH ORDINALITY AS s (statement, ordinal)";
const PENDING: &str = "SELECT ordinal, statement FROM relevo.schema_statement WHERE flow = $1 AND NOT done \
     ORDER BY ordinal";
const DONE: &str = "UPDATE relevo.schema_statement SET done = true WHERE flow = $1 AND ordinal = $2";

/// Stores the statements of a flow in their order, in place of any that are stored. Call it in a transaction.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn save_statements(
    client: &impl GenericClient,
    flow: &FlowName,
    statements: &[String],
) -> Result<(), StateError> {
    let action = "storing schema statements";
    client.execute(FORGET, &[&flow.as_str()]).await.map_err(StateError::sql(action))?;
    let done = client.execute(SAVE, &[&flow.as_str(), &statements]).await;
    done.map(drop).map_err(StateError::sql(action))
}

/// The statements that were not run yet, with their ordinals, in order.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn pending_statements(
    client: &impl GenericClient,
    flow: &FlowName,
) -> Result<Vec<(i32, String)>, StateError> {
    let rows = client
        .query(PENDING, &[&flow.as_str()])
        .await
        .map_err(StateError::sql("reading schema statements"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
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
