//! Who holds the locks that a hand-over waits for, so that a person knows whom to end.
//!
//! What may not enter: how long is waited for them.

use std::time::Duration;

use relevo_connect::SqlSession;
use tokio_postgres::error::SqlState;

use crate::observe::connect;
use crate::{Cluster, HandoverError, Step, sql};

/// Those that hold locks now, for people.
pub(crate) async fn holders(client: &SqlSession) -> String {
    match client.query(sql::HOLDERS, &[]).await {
        Ok(rows) if rows.is_empty() => "they have ended meanwhile".to_owned(),
        Ok(rows) => rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("; "),
        Err(_) => "they could not be looked up".to_owned(),
    }
}

/// The same error, with those who were in its way if it was a lock that did not come.
pub(crate) async fn named(
    cluster: &Cluster,
    error: HandoverError,
    step: &Step,
    waited: Duration,
) -> HandoverError {
    if error.sql_state() != Some(SqlState::LOCK_NOT_AVAILABLE) {
        return error;
    }
    let Some(node) = error.node().map(str::to_owned) else { return error };
    let holders = match connect(cluster, &node).await {
        Ok(session) => holders(&session).await,
        Err(_) => "they could not be looked up".to_owned(),
    };
    HandoverError::LocksHeld { node, action: step.to_string(), waited_ms: waited.as_millis(), holders }
}
