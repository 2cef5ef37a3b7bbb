//! What a database knows of the nodes: which one it is itself, and who is the primary since which epoch.

use std::time::SystemTime;

use relevo_model::{FlowName, SourceIdentity, SourceLsn, Timestamp};
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{GenericClient, Row};

use crate::StateError;

/// What one database says of itself and of the role of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// The name that all nodes share.
    pub cluster: String,
    /// The node that this database is.
    pub name: String,
    /// How many times the role was given, as far as this database knows; from 1.
    pub epoch: u64,
    /// Who has the role in that epoch.
    pub primary: String,
    /// Ordinary sessions cannot write here.
    pub fenced: bool,
    /// Of a fenced primary: where its WAL ended behind the last write of an ordinary session.
    pub fence_lsn: Option<SourceLsn>,
    /// Of a primary that is fenced for a switchover: to which node.
    pub promised_to: Option<String>,
    /// When the Relevo beside this database last said that it lives, by this database's clock.
    pub heartbeat_at: Option<Timestamp>,
    /// When the role was written down, by this database's clock.
    pub updated_at: Timestamp,
    /// What time it is there.
    pub now: Timestamp,
}

/// The role as it is to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleNote<'a> {
    /// The epoch.
    pub epoch: u64,
    /// Who has the role in it.
    pub primary: &'a str,
    /// Whether ordinary sessions are kept from writing here.
    pub fenced: bool,
    /// See [`NodeRecord::fence_lsn`].
    pub fence_lsn: Option<SourceLsn>,
    /// See [`NodeRecord::promised_to`].
    pub promised_to: Option<&'a str>,
}

const READ: &str = "SELECT cluster, name, epoch, primary_node, fenced, fence_lsn, promised_to, heartbeat_at, \
     updated_at, pg_catalog.clock_timestamp() FROM relevo.node";
const HOLD: &str = "SELECT 1 FROM relevo.node FOR UPDATE";
const INSERT: &str = "INSERT INTO relevo.node (cluster, name, epoch, primary_node, fenced) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT DO NOTHING";
const NOTE_ROLE: &str = "UPDATE relevo.node SET epoch = $1, primary_node = $2, fenced = $3, fence_lsn = $4, \
     promised_to = $5, updated_at = pg_catalog.clock_timestamp() WHERE epoch <= $1";
const NOTE_FENCE_LSN: &str = "UPDATE relevo.node SET fence_lsn = $1 WHERE fenced";
const BEAT: &str = "UPDATE relevo.node SET heartbeat_at = pg_catalog.clock_timestamp()";
const END_FLOW: &str =
    "UPDATE relevo.progress SET hold_lsn = applied_lsn, hold_until = 'infinity' WHERE flow = $1";
const HOLD_PROGRESS: &str = "SELECT applied_lsn FROM relevo.progress WHERE flow = $1 FOR UPDATE";
/// One statement, so that whoever stops in the middle keeps nobody waiting. The end of the WAL is read when the row is held.
const SAMPLE_PROGRESS: &str = "WITH held AS MATERIALIZED \
     (SELECT applied_lsn FROM relevo.progress WHERE flow = $1 FOR UPDATE) \
     SELECT pg_catalog.pg_current_wal_insert_lsn(), applied_lsn FROM held";
const PUT_PROGRESS: &str = "INSERT INTO relevo.progress \
     (flow, source_system_id, source_timeline, source_database, applied_lsn) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (flow) DO UPDATE SET source_system_id = excluded.source_system_id, \
     source_timeline = excluded.source_timeline, source_database = excluded.source_database, \
     applied_lsn = excluded.applied_lsn, commit_lsn = NULL, commit_time = NULL, hold_lsn = NULL, hold_until = NULL, \
     updated_at = pg_catalog.clock_timestamp()";
const PUT_FLOW: &str = "INSERT INTO relevo.flow (name, state, schema_ready, copied_at, completed, copy_attempt) \
     VALUES ($1, 'stopped', true, CASE WHEN $2 THEN pg_catalog.now() END, true, 1) \
     ON CONFLICT (name) DO UPDATE SET state = 'stopped', detail = NULL, schema_ready = true, completed = true, \
     copy_attempt = greatest(relevo.flow.copy_attempt, 1), spool = NULL, copied_at = CASE WHEN $2 THEN coalesce(relevo.flow.copied_at, pg_catalog.now()) END, \
     state_at = pg_catalog.now()";
const FORGET_TABLES: &str = "DELETE FROM relevo.table_state WHERE flow = $1";
const PUT_TABLE: &str = "INSERT INTO relevo.table_state (flow, schema_name, table_name, state, insert_only) \
     VALUES ($1, $2, $3, $4, $5)";

fn lsn(lsn: Option<SourceLsn>) -> Option<PgLsn> {
    lsn.map(|lsn| PgLsn::from(lsn.as_u64()))
}

fn signed(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}

fn record(row: &Row) -> NodeRecord {
    NodeRecord {
        cluster: row.get(0),
        name: row.get(1),
        epoch: row.get::<_, i64>(2).unsigned_abs(),
        primary: row.get(3),
        fenced: row.get(4),
        fence_lsn: row.get::<_, Option<PgLsn>>(5).map(|lsn| SourceLsn::new(lsn.into())),
        promised_to: row.get(6),
        heartbeat_at: row.get::<_, Option<SystemTime>>(7).map(Timestamp::from),
        updated_at: row.get::<_, SystemTime>(8).into(),
        now: row.get::<_, SystemTime>(9).into(),
    }
}

/// What this database is; `None` before `relevo init`. Schema `relevo` must be there in this version.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn node(client: &impl GenericClient) -> Result<Option<NodeRecord>, StateError> {
    let row = client.query_opt(READ, &[]).await.map_err(StateError::sql("reading what node this is"))?;
    Ok(row.as_ref().map(record))
}

/// The same, and nobody else changes it until the transaction ends.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn hold_node(client: &impl GenericClient) -> Result<Option<NodeRecord>, StateError> {
    client.execute(HOLD, &[]).await.map_err(StateError::sql("locking what node this is"))?;
    node(client).await
}

/// Says for the first time what node this database is. Changes nothing when it is said already.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn init_node(
    client: &impl GenericClient,
    (cluster, name): (&str, &str),
    role: RoleNote<'_>,
) -> Result<(), StateError> {
    let parameters: [&(dyn ToSql + Sync); 5] =
        [&cluster, &name, &signed(role.epoch), &role.primary, &role.fenced];
    let done = client.execute(INSERT, &parameters).await;
    done.map(drop).map_err(StateError::sql("recording what node this is"))
}

/// Writes down who has the role. Returns `false`, and writes nothing, when a later epoch stands there.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn note_role(client: &impl GenericClient, role: RoleNote<'_>) -> Result<bool, StateError> {
    let parameters: [&(dyn ToSql + Sync); 5] =
        [&signed(role.epoch), &role.primary, &role.fenced, &lsn(role.fence_lsn), &role.promised_to];
    let done = client.execute(NOTE_ROLE, &parameters).await;
    Ok(done.map_err(StateError::sql("recording the role"))? > 0)
}

/// Writes down where the WAL of this fenced primary ends.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn note_fence_lsn(client: &impl GenericClient, at: SourceLsn) -> Result<(), StateError> {
    let done = client.execute(NOTE_FENCE_LSN, &[&PgLsn::from(at.as_u64())]).await;
    done.map(drop).map_err(StateError::sql("recording where the fence is"))
}

/// Says that the Relevo beside this database lives.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn beat(client: &impl GenericClient) -> Result<(), StateError> {
    client.execute(BEAT, &[]).await.map(drop).map_err(StateError::sql("recording the heartbeat"))
}

/// What the flow has applied; whoever applies it waits until the transaction ends. `None`: it has no progress.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn hold_progress(
    client: &impl GenericClient,
    flow: &FlowName,
) -> Result<Option<SourceLsn>, StateError> {
    let row = client.query_opt(HOLD_PROGRESS, &[&flow.as_str()]).await;
    let row = row.map_err(StateError::sql("locking the progress"))?;
    Ok(row.map(|row| SourceLsn::new(row.get::<_, PgLsn>(0).into())))
}

/// Where this database's WAL ends, and what the flow has applied: whatever it applies after that is committed behind that end.
/// `None`: the flow has no progress.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn sample_progress(
    client: &impl GenericClient,
    flow: &FlowName,
) -> Result<Option<(SourceLsn, SourceLsn)>, StateError> {
    let row = client.query_opt(SAMPLE_PROGRESS, &[&flow.as_str()]).await;
    let row = row.map_err(StateError::sql("looking how far the flow is"))?;
    let lsn = |row: &Row, index: usize| SourceLsn::new(row.get::<_, PgLsn>(index).into());
    Ok(row.map(|row| (lsn(&row, 0), lsn(&row, 1))))
}

/// Ends a flow into this database, until it is given another source: it is held for ever where it stands, so whatever is
/// still applied to it is refused by the server.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn end_flow(client: &impl GenericClient, flow: &FlowName) -> Result<(), StateError> {
    let done = client.execute(END_FLOW, &[&flow.as_str()]).await;
    done.map(drop).map_err(StateError::sql("ending the flow"))
}

/// A table as it takes part in a flow that begins without a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Updates and deletes are not replicated: no replica identity.
    pub insert_only: bool,
    /// Its rows are those of the source; otherwise they are to be copied.
    pub follows: bool,
}

/// Lets a database that holds the source's rows already follow it from a position on. Call it in a transaction.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn adopt_flow(
    client: &impl GenericClient,
    flow: &FlowName,
    (source, from): (&SourceIdentity, SourceLsn),
    tables: &[AdoptedTable],
) -> Result<(), StateError> {
    let error = || StateError::sql("letting the flow begin from a position");
    let complete = tables.iter().all(|table| table.follows);
    client.execute(PUT_FLOW, &[&flow.as_str(), &complete]).await.map_err(error())?;
    repoint_flow(client, flow, (source, from)).await?;
    client.execute(FORGET_TABLES, &[&flow.as_str()]).await.map_err(error())?;
    for table in tables {
        let state = if table.follows { "streaming" } else { "pending" };
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&flow.as_str(), &table.schema, &table.name, &state, &table.insert_only];
        client.execute(PUT_TABLE, &parameters).await.map_err(error())?;
    }
    Ok(())
}

/// Lets a flow go on from a position of another source that holds the same rows there.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn repoint_flow(
    client: &impl GenericClient,
    flow: &FlowName,
    (source, from): (&SourceIdentity, SourceLsn),
) -> Result<(), StateError> {
    let (timeline, from) = (i64::from(source.timeline), PgLsn::from(from.as_u64()));
    let progress: [&(dyn ToSql + Sync); 5] =
        [&flow.as_str(), &source.system_id, &timeline, &source.database, &from];
    let done = client.execute(PUT_PROGRESS, &progress).await;
    done.map(drop).map_err(StateError::sql("letting the flow go on from another source"))
}
