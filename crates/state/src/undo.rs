//! The rows that an old primary has to give back: what was changed there and never left it.

use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use crate::StateError;

/// A row by its key, each value in its text form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UndoRow {
    /// The table's schema.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// The columns of the key.
    pub columns: Vec<String>,
    /// Their values.
    pub key: Vec<String>,
}

const PUT: &str = "INSERT INTO relevo.undo (handover, schema_name, table_name, columns, key) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
const READ: &str = "SELECT schema_name, table_name, columns, key FROM relevo.undo WHERE handover = $1 \
     ORDER BY schema_name, table_name, key";
const FORGET: &str = "DELETE FROM relevo.undo WHERE handover = $1";

/// Writes the rows down. Those that stand there already are the same.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn put_undo(
    client: &impl GenericClient,
    handover: &str,
    rows: impl IntoIterator<Item = &UndoRow>,
) -> Result<(), StateError> {
    let error = || StateError::sql("recording which rows are to be given back");
    let put = client.prepare(PUT).await.map_err(error())?;
    for row in rows {
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&handover, &row.schema, &row.table, &row.columns, &row.key];
        client.execute(&put, &parameters).await.map_err(error())?;
    }
    Ok(())
}

/// The rows of a rejoin that are still to be given back.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn undo_rows(client: &impl GenericClient, handover: &str) -> Result<Vec<UndoRow>, StateError> {
    let rows = client.query(READ, &[&handover]).await;
    let rows = rows.map_err(StateError::sql("reading which rows are to be given back"))?;
    let record = |row: &tokio_postgres::Row| UndoRow {
        schema: row.get(0),
        table: row.get(1),
        columns: row.get(2),
        key: row.get(3),
    };
    Ok(rows.iter().map(record).collect())
}

/// Forgets them: they have the new primary's values.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn forget_undo(client: &impl GenericClient, handover: &str) -> Result<(), StateError> {
    let done = client.execute(FORGET, &[&handover]).await;
    done.map(drop).map_err(StateError::sql("forgetting which rows were to be given back"))
}
