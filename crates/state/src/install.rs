//! Creating schema `relevo`, and knowing which version of it is there.

use tokio_postgres::{Client, GenericClient};

use crate::StateError;

/// The version of the schema that this program writes.
pub const VERSION: i32 = STEPS.len() as i32;

/// What makes each version of the one before it, from version 1 on. What was released is never changed, only followed.
const STEPS: [&str; 2] = [include_str!("schema.sql"), include_str!("schema_2.sql")];

/// It reads the tables. `to_regclass` would believe what this session has cached: that there is no such schema, although
/// another one has created it while this one waited for the lock.
const SCHEMA_EXISTS: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
               WHERE n.nspname = 'relevo' AND c.relname = 'version')";
const READ_VERSION: &str = "SELECT pg_catalog.max(version) FROM relevo.version";
/// Two processes that start at once must not both create the schema. The key is arbitrary and never changes.
const LOCK_INSTALL: &str = "SELECT pg_catalog.pg_advisory_xact_lock(7235419268110325)";

/// The version of schema `relevo` in this database, `None` when it is not there.
///
/// # Errors
/// [`StateError::NewerSchema`] when a later Relevo was here: what its tables mean is not known to this one;
/// [`StateError::Sql`].
pub async fn installed_version(client: &impl GenericClient) -> Result<Option<i32>, StateError> {
    let action = "reading its version";
    let row = client.query_one(SCHEMA_EXISTS, &[]).await.map_err(StateError::sql(action))?;
    if !row.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_one(READ_VERSION, &[]).await.map_err(StateError::sql(action))?;
    match row.get(0) {
        Some(found) if found > VERSION => Err(StateError::NewerSchema { found, known: VERSION }),
        version => Ok(version),
    }
}

/// Creates schema `relevo`, or brings an older version up to this one. Idempotent, and safe when two processes do it at
/// once.
///
/// # Errors
/// [`StateError::NewerSchema`] when a later Relevo was here; [`StateError::Sql`], for example without CREATE on
/// the database.
pub async fn install(client: &mut Client) -> Result<(), StateError> {
    let action = "creating it";
    if installed_version(client).await?.is_some_and(|found| found == VERSION) {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(StateError::sql(action))?;
    transaction.execute(LOCK_INSTALL, &[]).await.map_err(StateError::sql(action))?;
    let found = installed_version(&transaction).await?.and_then(|found| usize::try_from(found).ok());
    for step in STEPS.iter().skip(found.unwrap_or(0)) {
        transaction.batch_execute(step).await.map_err(StateError::sql(action))?;
    }
    transaction.commit().await.map_err(StateError::sql(action))
}
