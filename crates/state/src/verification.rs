//! What the last comparison of each table said.

use std::time::SystemTime;

use relevo_model::{FlowName, SourceLsn, Timestamp};
use tokio_postgres::GenericClient;
use tokio_postgres::types::PgLsn;

use crate::StateError;

const SAVE: &str = "INSERT INTO relevo.verification \
     (flow, schema_name, table_name, lsn, rows, differences) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (flow, schema_name, table_name) DO UPDATE SET verified_at = pg_catalog.now(), lsn = excluded.lsn, \
     rows = excluded.rows, differences = excluded.differences";
const MENDED: &str = "UPDATE relevo.verification SET differences = greatest(differences - $4, 0) \
     WHERE flow = $1 AND schema_name = $2 AND table_name = $3";
const FORGET: &str = "DELETE FROM relevo.verification WHERE flow = $1";
/// Tables that were taken out of the flow do not count any more.
const READ: &str = "SELECT CASE WHEN pg_catalog.count(*) = pg_catalog.count(v.flow) THEN pg_catalog.min(v.verified_at) END, \
     coalesce(pg_catalog.sum(v.differences), 0)::bigint, pg_catalog.count(v.flow) FROM relevo.table_state AS t LEFT JOIN relevo.verification AS v \
     ON v.flow = t.flow AND v.schema_name = t.schema_name AND v.table_name = t.table_name WHERE t.flow = $1";

/// What a comparison of a table said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Both sides were compared at this position.
    pub lsn: SourceLsn,
    /// The rows that were compared.
    pub rows: i64,
    /// How many are missing, too many or different.
    pub differences: i64,
}

/// What the last comparisons of all tables of a flow said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The oldest of the tables' last comparisons, by this database's clock; `None` while a table was never compared.
    pub at: Option<Timestamp>,
    /// Rows that differed and have not been mended, of all tables; `None` when none was ever compared.
    pub differences: Option<i64>,
}

/// Writes down what a comparison said.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn save_verification(
    client: &impl GenericClient,
    flow: &FlowName,
    table: &VerifiedTable,
) -> Result<(), StateError> {
    let lsn = PgLsn::from(table.lsn.as_u64());
    let done = client
        .execute(SAVE, &[&flow.as_str(), &table.schema, &table.name, &lsn, &table.rows, &table.differences])
        .await;
    done.map(drop).map_err(StateError::sql("recording a comparison"))
}

/// Writes down that so many of the rows that differed are as they should be. Call it in the transaction that mends them.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn save_mended(
    client: &impl GenericClient,
    flow: &FlowName,
    (schema, name): (&str, &str),
    rows: i64,
) -> Result<(), StateError> {
    let done = client.execute(MENDED, &[&flow.as_str(), &schema, &name, &rows]).await;
    done.map(drop).map_err(StateError::sql("recording what was mended"))
}

/// Forgets what was compared: the rows are other ones from now on.
pub(crate) async fn forget(client: &impl GenericClient, flow: &FlowName) -> Result<(), StateError> {
    let done = client.execute(FORGET, &[&flow.as_str()]).await;
    done.map(drop).map_err(StateError::sql("forgetting the last comparisons"))
}

/// What the last comparisons said.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn verified(client: &impl GenericClient, flow: &FlowName) -> Result<Verified, StateError> {
    let action = "reading the last comparisons";
    let row = client.query_one(READ, &[&flow.as_str()]).await.map_err(StateError::sql(action))?;
    let compared = row.get::<_, i64>(2) > 0;
    Ok(Verified {
        at: row.get::<_, Option<SystemTime>>(0).map(Timestamp::from),
        differences: compared.then(|| row.get(1)),
    })
}
