//! Flows and their progress.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use relevo_model::{FlowName, Progress, SourceIdentity, SourceLsn, Timestamp};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, GenericClient, Row};

use crate::{FlowLock, StateError};

/// What a flow does. The words are those of `status --json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// Checking both sides; creating schema, publication and slot.
    Preparing,
    /// The initial copy.
    Copying,
    /// Following the source.
    Streaming,
    /// Held on purpose.
    Paused,
    /// Ended in order.
    Stopped,
    /// An error needs a hand.
    Failed,
}

impl FlowState {
    /// The word in the database, in JSON and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::Streaming => "streaming",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for FlowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FlowState {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        Ok(match text {
            "preparing" => Self::Preparing,
            "copying" => Self::Copying,
            "streaming" => Self::Streaming,
            "paused" => Self::Paused,
            "stopped" => Self::Stopped,
            "failed" => Self::Failed,
            other => return Err(StateError::Corrupt { column: "flow.state", value: other.to_owned() }),
        })
    }
}

/// One flow into this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRecord {
    /// The name.
    pub name: FlowName,
    /// What the flow last said of itself.
    pub state: FlowState,
    /// Why, if there is something to say.
    pub detail: Option<String>,
    /// When it said so, by this database's clock.
    pub state_at: Timestamp,
    /// The tables exist on this side.
    pub schema_ready: bool,
    /// How many times the initial copy was begun.
    pub copy_attempt: i32,
    /// The copy is complete: every table follows the stream.
    pub copied: bool,
    /// The initial copy was complete once: what is copied since are tables that were added.
    pub completed: bool,
    /// The id of the spool that holds what copied tables have missed.
    pub spool: Option<String>,
}

/// The progress with the source that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredProgress {
    /// Which source the positions are positions of.
    pub source: SourceIdentity,
    /// How far.
    pub progress: Progress,
}

const CREATE_FLOW: &str =
    "INSERT INTO relevo.flow (name, state) VALUES ($1, 'preparing') ON CONFLICT (name) DO NOTHING";
const READ_FLOW: &str = "SELECT name, state, detail, state_at, schema_ready, copy_attempt, \
     copied_at IS NOT NULL, spool, completed FROM relevo.flow WHERE name = $1";
const READ_ALL_FLOWS: &str = "SELECT name, state, detail, state_at, schema_ready, copy_attempt, \
     copied_at IS NOT NULL, spool, completed FROM relevo.flow ORDER BY name";
const SET_STATE: &str = "UPDATE relevo.flow SET state = $2, detail = $3, state_at = pg_catalog.now() \
     WHERE name = $1 AND (state, detail) IS DISTINCT FROM ($2, $3)";
/// The same, unless another session than those of `$4` (processes of the server) holds one of the locks `$5` and `$6`.
/// Says whether none does. `pg_locks` shows the two halves of a key as `classid` and `objid` (manual, *pg_locks*).
const SAY_STATE: &str = "WITH other AS MATERIALIZED (SELECT EXISTS (SELECT FROM pg_catalog.pg_locks AS l \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> ALL ($4::int4[]) \
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()) \
     AND ((l.classid::bigint << 32) | l.objid::bigint) IN ($5, $6)) AS works), \
     said AS (UPDATE relevo.flow SET state = $2, detail = $3, state_at = pg_catalog.now() FROM other \
     WHERE NOT other.works AND name = $1 AND (state, detail) IS DISTINCT FROM ($2, $3)) \
     SELECT NOT works FROM other";
const MARK_SCHEMA_READY: &str = "UPDATE relevo.flow SET schema_ready = true WHERE name = $1";
const BEGIN_ATTEMPT: &str = "UPDATE relevo.flow SET copy_attempt = copy_attempt + 1, copy_bytes_per_second = NULL, \
     copy_remaining_seconds = NULL WHERE name = $1 RETURNING copy_attempt";
const READ_ATTEMPT: &str = "SELECT copy_attempt FROM relevo.flow WHERE name = $1";
const RESET_SOME: &str = "UPDATE relevo.table_state AS t SET state = 'pending', copied_lsn = NULL, copied_rows = NULL, \
     copied_bytes = NULL, total_bytes = wanted.bytes, updated_at = pg_catalog.now() \
     FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::int8[])) \
     AS wanted (schema_name, table_name, bytes) \
     WHERE t.flow = $1 AND t.schema_name = wanted.schema_name AND t.table_name = wanted.table_name";
const RESET_TABLES: &str = "UPDATE relevo.table_state SET state = 'pending', copied_lsn = NULL, copied_rows = NULL, \
     copied_bytes = NULL, updated_at = pg_catalog.now() WHERE flow = $1";
const READ_PROGRESS: &str = "SELECT source_system_id, source_timeline, source_database, applied_lsn, commit_lsn, \
     commit_time FROM relevo.progress WHERE flow = $1";
const CREATE_PROGRESS: &str = "INSERT INTO relevo.progress \
     (flow, source_system_id, source_timeline, source_database, applied_lsn) VALUES ($1, $2, $3, $4, $5)";
/// A statement of its own, so that the next one sees what whoever held the row has committed.
const HOLD_FLOW: &str = "SELECT 1 FROM relevo.flow WHERE name = $1 FOR UPDATE";
const COMPLETE_COPY: &str = "UPDATE relevo.flow \
     SET copied_at = pg_catalog.now(), completed = true, spool = NULL WHERE name = $1 \
     AND NOT EXISTS (SELECT FROM relevo.table_state AS t WHERE t.flow = $1 AND t.state <> 'streaming')";
const REOPEN_COPY: &str = "UPDATE relevo.flow SET copied_at = NULL WHERE name = $1";
/// `$3`: server processes of the caller's own sessions, `$4`: the key of the lock. See `SAY_STATE`.
const CLAIM_SPOOL: &str = "UPDATE relevo.flow SET spool = $2 \
     WHERE name = $1 AND (spool IS NULL OR spool = $2) AND EXISTS (SELECT FROM pg_catalog.pg_locks AS l \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid = ANY ($3::int4[]) \
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()) \
     AND ((l.classid::bigint << 32) | l.objid::bigint) = $4)";
const CHANGE_SPOOL: &str = "WITH noted AS (UPDATE relevo.flow SET spool = $2 WHERE name = $1), \
     again AS (UPDATE relevo.table_state SET state = 'pending', copied_lsn = NULL, copied_rows = NULL, \
     copied_bytes = NULL, updated_at = pg_catalog.now() WHERE flow = $1 AND state = 'copied' RETURNING 1) \
     SELECT pg_catalog.count(*) FROM again";

/// Moves the progress of a flow, inside the transaction that carries the data.
///
/// Parameters: `$1` flow (text), `$2` the applied LSN that must be there now (pg_lsn), `$3` the new applied LSN
/// (pg_lsn), `$4` commit LSN (pg_lsn, NULL to keep), `$5` commit time (timestamptz, NULL to keep).
///
/// When the row is not there or holds another position, somebody else has applied to this flow; when the new position
/// lies behind a [hold](crate::hold()) that is in force, the flow may not go there yet: the statement
/// then fails with SQLSTATE 22012 (`division_by_zero`) and the server refuses the whole transaction, even when
/// its COMMIT was sent without waiting for this answer.
///
/// `besides`: an expression that the same statement evaluates, for whoever has another reason to have the server refuse.
#[must_use]
pub fn advance_progress(besides: &str) -> String {
    format!(
        "WITH moved AS (UPDATE relevo.progress SET applied_lsn = $3, \
         commit_lsn = coalesce($4, commit_lsn), commit_time = coalesce($5, commit_time), \
         updated_at = pg_catalog.clock_timestamp() \
         WHERE flow = $1 AND applied_lsn = $2 \
         AND (hold_lsn IS NULL OR $3 <= hold_lsn OR hold_until < pg_catalog.clock_timestamp()) RETURNING 1) \
         SELECT 1 / pg_catalog.count(*), {besides} FROM moved"
    )
}

const FORGET_PROGRESS: &str = "DELETE FROM relevo.progress WHERE flow = $1";
const FORGET_COPY: &str =
    "UPDATE relevo.flow SET copied_at = NULL, completed = false, spool = NULL WHERE name = $1";

fn record(row: &Row) -> Result<FlowRecord, StateError> {
    let name: String = row.get(0);
    Ok(FlowRecord {
        name: name.parse().map_err(|_| StateError::Corrupt { column: "flow.name", value: name.clone() })?,
        state: row.get::<_, &str>(1).parse()?,
        detail: row.get(2),
        state_at: row.get::<_, SystemTime>(3).into(),
        schema_ready: row.get(4),
        copy_attempt: row.get(5),
        copied: row.get(6),
        spool: row.get(7),
        completed: row.get(8),
    })
}

/// Records a flow unless it is recorded already.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn create_flow(client: &impl GenericClient, name: &FlowName) -> Result<(), StateError> {
    let done = client.execute(CREATE_FLOW, &[&name.as_str()]).await;
    done.map(drop).map_err(StateError::sql("recording the flow"))
}

/// The flow, `None` when this database has never heard of it.
///
/// # Errors
/// [`StateError::Sql`], [`StateError::Corrupt`].
pub async fn flow(client: &impl GenericClient, name: &FlowName) -> Result<Option<FlowRecord>, StateError> {
    let row =
        client.query_opt(READ_FLOW, &[&name.as_str()]).await.map_err(StateError::sql("reading the flow"))?;
    row.as_ref().map(record).transpose()
}

/// Forgets how far the flow is. Its tables stay recorded, so that the next copy may replace their rows.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn forget_progress(client: &mut Client, name: &FlowName) -> Result<(), StateError> {
    let action = "forgetting the progress";
    let transaction = client.transaction().await.map_err(StateError::sql(action))?;
    transaction.execute(FORGET_PROGRESS, &[&name.as_str()]).await.map_err(StateError::sql(action))?;
    transaction.execute(RESET_TABLES, &[&name.as_str()]).await.map_err(StateError::sql(action))?;
    transaction.execute(FORGET_COPY, &[&name.as_str()]).await.map_err(StateError::sql(action))?;
    crate::verification::forget(&transaction, name).await?;
    set_state(&transaction, name, FlowState::Stopped, Some("reset")).await?;
    transaction.commit().await.map_err(StateError::sql(action))
}

/// All flows into this database, by name.
///
/// # Errors
/// [`StateError::Sql`], [`StateError::Corrupt`].
pub async fn flows(client: &impl GenericClient) -> Result<Vec<FlowRecord>, StateError> {
    let rows = client.query(READ_ALL_FLOWS, &[]).await.map_err(StateError::sql("reading the flows"))?;
    rows.iter().map(record).collect()
}

/// Writes down what the flow does. Writes nothing when it already stands there.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn set_state(
    client: &impl GenericClient,
    name: &FlowName,
    state: FlowState,
    detail: Option<&str>,
) -> Result<(), StateError> {
    let done = client.execute(SET_STATE, &[&name.as_str(), &state.as_str(), &detail]).await;
    done.map(drop).map_err(StateError::sql("recording the flow's state"))
}

/// The same as [`set_state`], unless another process works for the flow: what that one says must not be hidden. `own_pids`
/// are the server's processes of the caller's own sessions that have taken a lock. Returns whether no other one works.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn say_state(
    client: &impl GenericClient,
    name: &FlowName,
    state: FlowState,
    detail: Option<&str>,
    own_pids: &[i32],
) -> Result<bool, StateError> {
    let (apply, copy) = (FlowLock::Apply.key(name), FlowLock::Copy.key(name));
    let row = client
        .query_one(SAY_STATE, &[&name.as_str(), &state.as_str(), &detail, &own_pids, &apply, &copy])
        .await
        .map_err(StateError::sql("recording the flow's state"))?;
    Ok(row.get(0))
}

/// Writes down that the tables exist on this side.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn mark_schema_ready(client: &impl GenericClient, name: &FlowName) -> Result<(), StateError> {
    let done = client.execute(MARK_SCHEMA_READY, &[&name.as_str()]).await;
    done.map(drop).map_err(StateError::sql("recording that the schema is there"))
}

/// Begins a copy of some tables, given as schemas, names and sizes on the source in bytes: these are pending again, the others stay as they are.
/// Returns the number of this attempt. Call it in a transaction.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn begin_attempt_of(
    client: &impl GenericClient,
    name: &FlowName,
    (schemas, tables, total_bytes): (&[&str], &[&str], &[i64]),
) -> Result<i32, StateError> {
    let error = "beginning a copy";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&name.as_str(), &schemas, &tables, &total_bytes];
    client.execute(RESET_SOME, &parameters).await.map_err(StateError::sql(error))?;
    let row = client.query_one(BEGIN_ATTEMPT, &[&name.as_str()]).await.map_err(StateError::sql(error))?;
    Ok(row.get(0))
}

/// The number of the copy's latest attempt, 0 before the first.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn copy_attempt(client: &impl GenericClient, name: &FlowName) -> Result<i32, StateError> {
    let row = client
        .query_opt(READ_ATTEMPT, &[&name.as_str()])
        .await
        .map_err(StateError::sql("reading the attempt"))?;
    Ok(row.map_or(0, |row| row.get(0)))
}

/// The stored progress, `None` before the copy is complete.
///
/// # Errors
/// [`StateError::Sql`], [`StateError::Corrupt`].
pub async fn progress(
    client: &impl GenericClient,
    name: &FlowName,
) -> Result<Option<StoredProgress>, StateError> {
    let row = client
        .query_opt(READ_PROGRESS, &[&name.as_str()])
        .await
        .map_err(StateError::sql("reading the progress"))?;
    let Some(row) = row else { return Ok(None) };
    let timeline: i64 = row.get(1);
    let lsn = |lsn: PgLsn| SourceLsn::new(lsn.into());
    Ok(Some(StoredProgress {
        source: SourceIdentity {
            system_id: row.get(0),
            timeline: u32::try_from(timeline).map_err(|_| StateError::Corrupt {
                column: "progress.source_timeline",
                value: timeline.to_string(),
            })?,
            database: row.get(2),
        },
        progress: Progress {
            applied: lsn(row.get(3)),
            commit_lsn: row.get::<_, Option<PgLsn>>(4).map(lsn),
            commit_time: row.get::<_, Option<SystemTime>>(5).map(Timestamp::from),
        },
    }))
}

/// Writes the first progress row, with which the stream begins; the tables arrive beside it.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn begin_streaming(
    client: &impl GenericClient,
    name: &FlowName,
    source: &SourceIdentity,
    from: SourceLsn,
) -> Result<(), StateError> {
    let timeline = i64::from(source.timeline);
    let from = PgLsn::from(from.as_u64());
    let first: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&name.as_str(), &source.system_id, &timeline, &source.database, &from];
    client.execute(CREATE_PROGRESS, &first).await.map(drop).map_err(StateError::sql("beginning to stream"))
}

/// Writes down that every table follows the stream and everything that comes after the rows is there, unless tables
/// were added meanwhile. Returns whether it is so.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn complete_copy(client: &mut Client, name: &FlowName) -> Result<bool, StateError> {
    let action = "ending the copy";
    let transaction = client.transaction().await.map_err(StateError::sql(action))?;
    transaction.execute(HOLD_FLOW, &[&name.as_str()]).await.map_err(StateError::sql(action))?;
    let done =
        transaction.execute(COMPLETE_COPY, &[&name.as_str()]).await.map_err(StateError::sql(action))?;
    transaction.commit().await.map_err(StateError::sql(action))?;
    Ok(done > 0)
}

/// Writes down that tables are to be copied again. Call it in the transaction that records them, and first: it keeps
/// [`complete_copy`] waiting.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn reopen_copy(client: &impl GenericClient, name: &FlowName) -> Result<(), StateError> {
    let done = client.execute(REOPEN_COPY, &[&name.as_str()]).await;
    done.map(drop).map_err(StateError::sql("recording that tables are to be copied"))
}

/// Writes down which spool holds what tables miss from now on, provided that one of the caller's own sessions
/// (`own_pids`, processes of the server) holds [`FlowLock::Apply`] and no other spool is recorded. Returns whether it is
/// so: whoever applies later will find the tables that are recorded now.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn claim_spool(
    client: &impl GenericClient,
    name: &FlowName,
    spool: &str,
    own_pids: &[i32],
) -> Result<bool, StateError> {
    let key = FlowLock::Apply.key(name);
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&name.as_str(), &spool, &own_pids, &key];
    let claimed = client.execute(CLAIM_SPOOL, &parameters).await;
    Ok(claimed.map_err(StateError::sql("recording the spool"))? > 0)
}

/// Writes down which spool holds what copied tables have missed from now on. Those that were copied before it have
/// lost what they missed: they are pending again. Returns how many they are.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn change_spool(
    client: &impl GenericClient,
    name: &FlowName,
    spool: &str,
) -> Result<u64, StateError> {
    let row = client
        .query_one(CHANGE_SPOOL, &[&name.as_str(), &spool])
        .await
        .map_err(StateError::sql("recording the spool"))?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}
