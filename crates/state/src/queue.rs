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

/// How many of a flow's errors are kept: the newest. Older ones are removed now and then (see [`trim_errors`]).
pub const ERRORS_KEPT: i64 = 10_000;
/// How many one statement removes at most, so that none takes long.
const TRIMMED_AT_ONCE: i64 = 10_000;

/// Parameters: the flow, and an array each of kinds, schemas, tables, commit LSNs and messages.
const RECORD: &str = "INSERT INTO relevo.error (flow, kind, schema_name, table_name, commit_lsn, message) \
     SELECT $1, e.kind, e.schema_name, e.table_name, e.commit_lsn, e.message \
     FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), \
     pg_catalog.unnest($5::pg_lsn[]), pg_catalog.unnest($6::text[])) \
     WITH ORDINALITY AS e (kind, schema_name, table_name, commit_lsn, message, ordinal) ORDER BY e.ordinal";
const TRIM: &str = "DELETE FROM relevo.error WHERE id IN \
     (SELECT id FROM relevo.error WHERE flow = $1 ORDER BY id DESC OFFSET $2 LIMIT $3)";
const CLEAR: &str = "DELETE FROM relevo.error WHERE flow = $1";
const READ: &str = "SELECT id, at, kind, schema_name, table_name, commit_lsn, message FROM relevo.error \
     WHERE flow = $1 ORDER BY id DESC LIMIT $2";
const COUNT: &str = "SELECT pg_catalog.count(*) FROM relevo.error WHERE flow = $1";

/// Writes errors down, in order, by one statement.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn record_errors(
    client: &impl GenericClient,
    flow: &FlowName,
    errors: &[NewError],
) -> Result<(), StateError> {
    if errors.is_empty() {
        return Ok(());
    }
    let table = |error: &NewError| error.table.clone().unzip();
    let kinds: Vec<&str> = errors.iter().map(|error| error.kind).collect();
    let (schemas, tables): (Vec<Option<String>>, Vec<Option<String>>) = errors.iter().map(table).unzip();
    let lsn = |error: &NewError| error.commit_lsn.map(|lsn| PgLsn::from(lsn.as_u64()));
    let lsns: Vec<Option<PgLsn>> = errors.iter().map(lsn).collect();
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    let done = client.execute(RECORD, &[&flow.as_str(), &kinds, &schemas, &tables, &lsns, &messages]).await;
    done.map(drop).map_err(StateError::sql("recording errors"))
}

/// Removes all errors of the flow but the newest `kept`. Returns how many were removed.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn trim_errors(client: &impl GenericClient, flow: &FlowName, kept: i64) -> Result<u64, StateError> {
    let mut removed = 0;
    loop {
        let done = client.execute(TRIM, &[&flow.as_str(), &kept, &TRIMMED_AT_ONCE]).await;
        let count = done.map_err(StateError::sql("removing the oldest errors"))?;
        removed += count;
        if count < TRIMMED_AT_ONCE.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes every error of the flow that this session's transaction sees. Returns how many there were.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn clear_errors(client: &impl GenericClient, flow: &FlowName) -> Result<u64, StateError> {
    let done = client.execute(CLEAR, &[&flow.as_str()]).await;
    done.map_err(StateError::sql("removing the errors"))
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
