//! What went wrong without stopping a flow.

use std::time::SystemTime;

use relevo_model::{FlowName, SourceLsn, Timestamp};
use tokio_postgres::GenericClient;
use tokio_postgres::types::PgLsn;

use crate::StateError;

/// Something to write down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewError {
    /// A short stable word, the same as the metric's `kind`.
    pub kind: &'static str,
    /// Schema and name of the table, when it is about one.
    pub table: Option<(String, String)>,
    /// The source transaction.
    pub commit_lsn: Option<SourceLsn>,
    /// What happened, with the row's key.
    pub message: String,
}

/// Something written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRecord {
    /// Its number in this database.
    pub id: i64,
    /// When, by this database's clock.
    pub at: Timestamp,
    /// A short stable word.
    pub kind: String,
    /// Schema and name of the table, when it is about one.
    pub table: Option<(String, String)>,
    /// The source transaction.
    pub commit_lsn: Option<SourceLsn>,
    /// What happened.
    pub message: String,
}

const RECORD: &str = "INSERT INTO relevo.error (flow, kind, schema_name, table_name, commit_lsn, message) \
     VALUES ($1, $2, $3, $4, $5, $6)";
const READ: &str = "SELECT id, at, kind, schema_name, table_name, commit_lsn, message FROM relevo.error \
     WHERE flow = $1 ORDER BY id DESC LIMIT $2";
const COUNT: &str = "SELECT pg_catalog.count(*) FROM relevo.error WHERE flow = $1";

/// Writes errors down, in order.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn record_errors(
    client: &impl GenericClient,
    flow: &FlowName,
    errors: &[NewError],
) -> Result<(), StateError> {
    for error in errors {
        let (schema, table) = match &error.table {
            Some((schema, table)) => (Some(schema), Some(table)),
            None => (None, None),
        };
        let lsn = error.commit_lsn.map(|lsn| PgLsn::from(lsn.as_u64()));
        client
            .execute(RECORD, &[&flow.as_str(), &error.kind, &schema, &table, &lsn, &error.message])
            .await
            .map_err(StateError::sql("recording an error"))?;
    }
    Ok(())
}

/// The newest errors of the flow, newest first, at most `limit`.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn errors(
    client: &impl GenericClient,
    flow: &FlowName,
    limit: i64,
) -> Result<Vec<ErrorRecord>, StateError> {
    let rows =
        client.query(READ, &[&flow.as_str(), &limit]).await.map_err(StateError::sql("reading the errors"))?;
    Ok(rows
        .iter()
        .map(|row| ErrorRecord {
            id: row.get(0),
            at: row.get::<_, SystemTime>(1).into(),
            kind: row.get(2),
            table: row.get::<_, Option<String>>(3).zip(row.get(4)),
            commit_lsn: row.get::<_, Option<PgLsn>>(5).map(|lsn| SourceLsn::new(lsn.into())),
            message: row.get(6),
        })
        .collect())
}

/// How many errors the flow has written down.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn error_count(client: &impl GenericClient, flow: &FlowName) -> Result<i64, StateError> {
    let row =
        client.query_one(COUNT, &[&flow.as_str()]).await.map_err(StateError::sql("counting the errors"))?;
    Ok(row.get(0))
}
