//! Notices that a server has fallen silent while something is asked of it that may take long.
//!
//! How long a query may take cannot be said: it may wait for a lock, or read the catalogs of a hundred thousand tables.
//! But a server that lives takes another connection meanwhile. What may not enter: what is asked.

use std::time::Duration;

use relevo_connect::{ConnInfo, ConnectError, SessionSettings, connect_sql};
use relevo_model::Side;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// How long nothing is thought of it.
const QUIET: Duration = Duration::from_secs(10);
/// How long another connection may take at most, for whom `connect_timeout` is without limit.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// What the sessions of these connections are called on the servers.
const APPLICATION_NAME: &str = "relevo";

/// A server that work depends on.
#[derive(Clone)]
pub struct Server {
    /// How to reach it.
    pub info: ConnInfo,
    /// Which end it is.
    pub side: Side,
}

/// Awaits `work` as long as the servers can be reached.
///
/// # Errors
/// A server takes no other connection: the link is dead although it looks open.
pub async fn while_alive<T>(servers: &[Server], work: impl Future<Output = T>) -> Result<T, ConnectError> {
    let silent = async {
        loop {
            sleep(QUIET).await;
            for server in servers {
                if let Some(error) = is_silent(server).await {
                    return error;
                }
            }
        }
    };
    tokio::select! {
        biased;
        output = work => Ok(output),
        error = silent => Err(error),
    }
}

/// Why the server must be taken for silent, if it must.
async fn is_silent(server: &Server) -> Option<ConnectError> {
    let settings = SessionSettings::for_values(APPLICATION_NAME);
    let attempt = timeout(CONNECT_LIMIT, connect_sql(&server.info, server.side, &settings)).await;
    let Ok(attempt) = attempt else {
        debug!(side = %server.side, "a second connection is not answered, and connect_timeout sets no limit");
        return None;
    };
    match attempt {
        Err(
            error @ (ConnectError::Timeout { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::Lost { .. }),
        ) => Some(error),
        // Whatever else it says, it says something.
        Ok(_) | Err(_) => None,
    }
}
