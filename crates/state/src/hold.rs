//! Holding a flow at a position of its source, so that both sides can be compared there.
//!
//! The database itself keeps the flow there: [`crate::advance_progress`] refuses to move behind a hold that is in force,
//! whoever asks. A hold ends by itself, because whoever asked for it may have been killed. What may not enter: what is
//! done meanwhile.

use relevo_model::{FlowName, SourceLsn};
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{GenericClient, Row};

use crate::StateError;

/// The channel on which whoever applies is told that a hold has changed (manual, *LISTEN*).
pub const HOLD_CHANNEL: &str = "relevo_hold";

/// The row's lock puts it in order with whoever applies: what has not committed yet is refused or waited for.
const HOLD: &str = "WITH held AS (UPDATE relevo.progress SET hold_lsn = coalesce($2, applied_lsn), \
     hold_until = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3) \
     WHERE flow = $1 AND applied_lsn <= coalesce($2, applied_lsn) RETURNING hold_lsn, applied_lsn) \
     SELECT hold_lsn, applied_lsn, pg_catalog.pg_notify('relevo_hold', $1)::text FROM held";
const RENEW: &str = "UPDATE relevo.progress \
     SET hold_until = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3) \
     WHERE flow = $1 AND hold_lsn = $2 AND hold_until >= pg_catalog.clock_timestamp()";
const RELEASE: &str = "WITH freed AS (UPDATE relevo.progress SET hold_lsn = NULL, hold_until = NULL \
     WHERE flow = $1 AND hold_lsn IS NOT NULL RETURNING 1) \
     SELECT pg_catalog.pg_notify('relevo_hold', $1)::text FROM freed";
const READ: &str = "SELECT hold_lsn, applied_lsn FROM relevo.progress \
     WHERE flow = $1 AND hold_lsn IS NOT NULL AND hold_until >= pg_catalog.clock_timestamp()";
/// An update, so that the transaction is known to be Relevo's own by the row that it carries. Whoever waits for the row, and has
/// begun because the hold seemed to be over, finds it in force.
const LOCK_HELD: &str = "UPDATE relevo.progress SET updated_at = pg_catalog.clock_timestamp(), \
     hold_until = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $2) WHERE flow = $1 AND hold_lsn IS NOT NULL AND hold_until >= pg_catalog.clock_timestamp() \
     RETURNING hold_lsn, applied_lsn";

const STAND_AT: &str = "UPDATE relevo.progress SET applied_lsn = $2, commit_lsn = NULL, commit_time = NULL, \
     updated_at = pg_catalog.clock_timestamp() WHERE flow = $1 AND hold_lsn = $2";

/// A hold that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Nothing behind this position is applied.
    pub at: SourceLsn,
    /// What is applied. Once it is `at`, the target is what the source was there.
    pub applied: SourceLsn,
}

impl Hold {
    fn of(row: &Row) -> Self {
        let lsn = |index: usize| SourceLsn::new(row.get::<_, PgLsn>(index).into());
        Self { at: lsn(0), applied: lsn(1) }
    }

    /// Whether the target stands exactly at the position.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.at == self.applied
    }
}

/// Keeps the flow from moving behind `at` (`None`: behind what is applied now) for `seconds`, by the database's clock, in
/// place of any other hold. `None`: the flow has no progress, or has moved behind `at` already; nothing is changed then.
///
/// A transaction that whoever applies has half applied is given up when it commits behind `at`. So name what the source
/// has written by now, if you can: all that is half applied was committed before it.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn hold(
    client: &impl GenericClient,
    flow: &FlowName,
    at: Option<SourceLsn>,
    seconds: u32,
) -> Result<Option<Hold>, StateError> {
    let at = at.map(|at| PgLsn::from(at.as_u64()));
    let row = client
        .query_opt(HOLD, &[&flow.as_str(), &at, &f64::from(seconds)])
        .await
        .map_err(StateError::sql("holding the flow"))?;
    Ok(row.as_ref().map(Hold::of))
}

/// Says that the target stands where it is held, although nothing was applied: whoever calls it makes the rows so.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn stand_at(client: &impl GenericClient, flow: &FlowName, at: SourceLsn) -> Result<(), StateError> {
    let done = client.execute(STAND_AT, &[&flow.as_str(), &PgLsn::from(at.as_u64())]).await;
    done.map(drop).map_err(StateError::sql("moving the flow to where it is held"))
}

/// Keeps a hold for another `seconds` from now on. `false`: it is not in force any more.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn renew_hold(
    client: &impl GenericClient,
    flow: &FlowName,
    at: SourceLsn,
    seconds: u32,
) -> Result<bool, StateError> {
    let at = PgLsn::from(at.as_u64());
    let done = client.execute(RENEW, &[&flow.as_str(), &at, &f64::from(seconds)]).await;
    Ok(done.map_err(StateError::sql("holding the flow"))? > 0)
}

/// Lets the flow go on.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn release(client: &impl GenericClient, flow: &FlowName) -> Result<(), StateError> {
    let done = client.execute(RELEASE, &[&flow.as_str()]).await;
    done.map(drop).map_err(StateError::sql("letting the flow go on"))
}

/// The hold that is in force; `None` when there is none.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn held(client: &impl GenericClient, flow: &FlowName) -> Result<Option<Hold>, StateError> {
    read(client, READ, &[&flow.as_str()]).await
}

/// The same, and the hold is in force for another `seconds`; nobody can apply or change it until the end of this transaction.
/// Whoever has begun to apply because an earlier hold was over is refused afterwards. So this is the last statement before
/// the COMMIT of whoever writes the rows of this very position.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn lock_held(
    client: &impl GenericClient,
    flow: &FlowName,
    seconds: u32,
) -> Result<Option<Hold>, StateError> {
    read(client, LOCK_HELD, &[&flow.as_str(), &f64::from(seconds)]).await
}

async fn read(
    client: &impl GenericClient,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<Hold>, StateError> {
    let row = client.query_opt(sql, parameters).await;
    let row = row.map_err(StateError::sql("reading whether the flow is held"))?;
    Ok(row.as_ref().map(Hold::of))
}
