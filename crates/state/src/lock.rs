//! Locks of a flow: advisory locks of sessions on its target (manual, *Advisory Locks*).
//!
//! What may not enter: who takes which lock, and when.

use relevo_model::FlowName;
use tokio_postgres::GenericClient;

use crate::StateError;

/// `$1`: the key of the lock. `pg_locks` shows its two halves as `classid` and `objid` (manual, *pg_locks*).
const IS_LOCKED: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks AS l \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()) \
     AND ((l.classid::bigint << 32) | l.objid::bigint) = $1)";
/// `$1`: the key of the lock.
const HOLDER: &str = "SELECT 'pid ' || l.pid || coalesce(', from ' || pg_catalog.host(a.client_addr), '') \
     || coalesce(', since ' || a.backend_start::timestamptz(0), '') \
     FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()) \
     AND ((l.classid::bigint << 32) | l.objid::bigint) = $1";
/// `$1`: the key of the lock.
const END_HOLDER: &str = "SELECT pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks AS l \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_catalog.pg_backend_pid() \
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()) \
     AND ((l.classid::bigint << 32) | l.objid::bigint) = $1";
const TRY_LOCK: &str = "SELECT pg_catalog.pg_try_advisory_lock($1)";
const LOCK: &str = "SELECT pg_catalog.pg_advisory_lock($1)";
const LOCK_SHARED: &str = "SELECT pg_catalog.pg_advisory_lock_shared($1)";
const UNLOCK: &str = "SELECT pg_catalog.pg_advisory_unlock($1)";

/// What is locked of a flow, by sessions on its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowLock {
    /// Applying changes: one session.
    Apply,
    /// Making the slot and the copy, from the first step to the last: one session.
    Copy,
    /// Bringing rows of the copy, and what comes after them: shared by all sessions of an attempt. Whoever begins
    /// another attempt holds it alone meanwhile, so that no backend of an earlier one is left.
    Rows,
    /// Holding the flow at a position, and comparing or rewriting rows there: one session.
    Hold,
    /// Running the hooks of the hand-over that gave this node the role, or took it: one session.
    Hooks,
    /// Applying a transaction ahead of its commit: one session, beside the one that has [`FlowLock::Apply`].
    Ahead,
    /// Making or dropping what this flow would read from on a node that may become the primary: one session on that node.
    Arm,
    /// Working on a hand-over in which the node takes part that this flow leads into: one session on that node.
    Handover,
}

impl FlowLock {
    /// The key of the advisory lock (manual, *Advisory Locks*).
    #[must_use]
    pub fn key(self, name: &FlowName) -> i64 {
        match self {
            Self::Apply => name.lock_key(),
            Self::Copy => !name.lock_key(),
            Self::Rows => name.lock_key().rotate_left(32),
            Self::Hold => !name.lock_key().rotate_left(32),
            Self::Hooks => name.lock_key().rotate_left(16),
            Self::Ahead => !name.lock_key().rotate_left(16),
            Self::Arm => name.lock_key().rotate_left(48),
            Self::Handover => !name.lock_key().rotate_left(48),
        }
    }
}

/// Takes a lock of the flow for this session, if no other session has it.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn try_lock(
    client: &impl GenericClient,
    name: &FlowName,
    lock: FlowLock,
) -> Result<bool, StateError> {
    let key = lock.key(name);
    let row = client.query_one(TRY_LOCK, &[&key]).await.map_err(StateError::sql("taking the flow's lock"))?;
    Ok(row.get(0))
}

/// Whether any session has a lock of the flow.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn is_locked(
    client: &impl GenericClient,
    name: &FlowName,
    lock: FlowLock,
) -> Result<bool, StateError> {
    let row = client.query_one(IS_LOCKED, &[&lock.key(name)]).await;
    row.map(|row| row.get(0)).map_err(StateError::sql("looking for the flow's lock"))
}

/// Whose session has a lock of the flow that only one can have, for people; `None`: nobody's any more.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn holder(
    client: &impl GenericClient,
    name: &FlowName,
    lock: FlowLock,
) -> Result<Option<String>, StateError> {
    let row = client.query_opt(HOLDER, &[&lock.key(name)]).await;
    row.map(|row| row.map(|row| row.get(0))).map_err(StateError::sql("looking who has the flow's lock"))
}

/// Ends the other session that has a lock of the flow.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn end_holder(
    client: &impl GenericClient,
    name: &FlowName,
    lock: FlowLock,
) -> Result<(), StateError> {
    let done = client.execute(END_HOLDER, &[&lock.key(name)]).await;
    done.map(drop).map_err(StateError::sql("ending who has the flow's lock"))
}

/// Takes a lock of the flow for this session alone; waits as long as others have it.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn lock(client: &impl GenericClient, name: &FlowName, lock: FlowLock) -> Result<(), StateError> {
    let done = client.execute(LOCK, &[&lock.key(name)]).await;
    done.map(drop).map_err(StateError::sql("taking the flow's lock"))
}

/// Takes a lock of the flow for this session beside others that share it; waits as long as one has it alone.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn lock_shared(
    client: &impl GenericClient,
    name: &FlowName,
    lock: FlowLock,
) -> Result<(), StateError> {
    let done = client.execute(LOCK_SHARED, &[&lock.key(name)]).await;
    done.map(drop).map_err(StateError::sql("sharing the flow's lock"))
}

/// Gives back what [`lock`] has taken.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn unlock(client: &impl GenericClient, name: &FlowName, lock: FlowLock) -> Result<(), StateError> {
    let done = client.execute(UNLOCK, &[&lock.key(name)]).await;
    done.map(drop).map_err(StateError::sql("giving back the flow's lock"))
}
