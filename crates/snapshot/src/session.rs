//! The sessions of a copy: how they are set up on either side, the lock that keeps attempts apart, and how they end when
//! the work is to stop.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use relevo_connect::{Canceller, ReplicaRole, SessionSettings, SqlSession, act_as_replica, connect_sql};
use relevo_model::{FlowName, Side};
use relevo_state::{self as state, FlowLock, StateError};

use crate::sql;
use crate::{CopyOptions, SnapshotError, Stop};

/// How long the servers may take to be told that nobody waits any more.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// How long the lock is waited for before somebody is told.
const QUIET_LOCK_WAIT: Duration = Duration::from_secs(2);

/// The encoding that values travel in when neither server can convert.
const SQL_ASCII: &str = "SQL_ASCII";

/// How often a server looks whether its client is still there while it builds an index or waits for a lock.
const CHECK_CLIENT: &str = "SET client_connection_check_interval = '2s'";

/// Opens sessions, and remembers them so that their work can be cancelled.
pub(crate) struct Sessions<'o> {
    pub(crate) options: &'o CopyOptions,
    open: Mutex<Vec<Canceller>>,
}

impl<'o> Sessions<'o> {
    pub(crate) fn new(options: &'o CopyOptions) -> Self {
        Self { options, open: Mutex::new(Vec::new()) }
    }

    /// Does the work unless it is to stop: then the servers are told to cancel it, and its sessions are closed.
    pub(crate) async fn run<T>(
        &self,
        stop: &Stop,
        work: impl Future<Output = Result<T, SnapshotError>>,
    ) -> Result<T, SnapshotError> {
        tokio::select! {
            biased;
            () = stop.requested() => {}
            result = work => return result,
        }
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        let cancels = open.iter().map(Canceller::cancel);
        // A server that cannot be reached learns it from the closed connection.
        let _ = tokio::time::timeout(CANCEL_LIMIT, futures_util::future::join_all(cancels)).await;
        Err(SnapshotError::Stopped)
    }

    async fn open(&self, side: Side, settings: &SessionSettings) -> Result<SqlSession, SnapshotError> {
        let info = match side {
            Side::Source => &self.options.source,
            Side::Target => &self.options.target,
        };
        let session = connect_sql(&info.patient_writes(), side, settings).await?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(session.canceller());
        // Not every platform has it, and a server without it finds out later.
        if let Err(error) = session.batch_execute(CHECK_CLIENT).await {
            tracing::debug!(%side, error = %relevo_connect::describe(&error), "the server does not watch its clients");
        }
        Ok(session)
    }

    fn settings(&self) -> SessionSettings {
        SessionSettings::for_values(self.options.flow.slot())
            // Rows that a policy hides are an error instead of missing in silence.
            .with("row_security", "off")
            .with("standard_conforming_strings", "on")
            .with("client_min_messages", "warning")
            .with("default_transaction_isolation", "read committed")
    }

    /// A session that reads the source. `encoding`: what [`Sessions::source_encoding`] says.
    pub(crate) async fn source(&self, encoding: &str) -> Result<SqlSession, SnapshotError> {
        self.open(Side::Source, &self.settings().with("client_encoding", encoding)).await
    }

    /// A session that writes the target: triggers and foreign keys do not act in it, nor do event triggers, and it
    /// can write where others may only read.
    async fn target(&self) -> Result<SqlSession, SnapshotError> {
        let settings = self
            .settings()
            .with("default_transaction_read_only", "off")
            .with("check_function_bodies", "off")
            .with("synchronous_commit", "off");
        let session = self.open(Side::Target, &settings).await?;
        act_as_replica(&session, ReplicaRole::Session)
            .await
            .map_err(SnapshotError::target_sql("setting session_replication_role"))?;
        if encoding_of(&session, Side::Target).await? == SQL_ASCII {
            session
                .batch_execute("SET client_encoding = 'SQL_ASCII'")
                .await
                .map_err(SnapshotError::target_sql("setting the encoding"))?;
        }
        Ok(session)
    }

    /// A session that writes the target while no session of any attempt does.
    pub(crate) async fn alone(&self) -> Result<SqlSession, SnapshotError> {
        let session = self.target().await?;
        self.wait_for(state::lock(&*session, &self.options.flow, FlowLock::Rows)).await?;
        Ok(session)
    }

    /// A session that writes the target for the attempt of this number, beside others of it.
    pub(crate) async fn worker(&self, attempt: i32) -> Result<SqlSession, SnapshotError> {
        let session = self.beside().await?;
        check_attempt(&session, &self.options.flow, attempt).await?;
        Ok(session)
    }

    /// A session that writes the target for the latest attempt, and its number.
    pub(crate) async fn latest(&self) -> Result<(SqlSession, i32), SnapshotError> {
        let session = self.beside().await?;
        let attempt =
            state::copy_attempt(&*session, &self.options.flow).await.map_err(SnapshotError::state)?;
        Ok((session, attempt))
    }

    async fn beside(&self) -> Result<SqlSession, SnapshotError> {
        let session = self.target().await?;
        self.wait_for(state::lock_shared(&*session, &self.options.flow, FlowLock::Rows)).await?;
        let workers = i64::try_from(self.options.jobs.get()).unwrap_or(i64::MAX);
        session
            .execute(sql::MAINTENANCE_MEMORY, &[&workers])
            .await
            .map_err(SnapshotError::target_sql("setting the memory for building indexes"))?;
        Ok(session)
    }

    async fn wait_for(
        &self,
        lock: impl Future<Output = Result<(), StateError>>,
    ) -> Result<(), SnapshotError> {
        let mut locked = pin!(lock);
        let result = match tokio::time::timeout(QUIET_LOCK_WAIT, &mut locked).await {
            Ok(result) => result,
            Err(_) => {
                // An earlier process of ours that was killed: its backends end once they have read what is in their
                // sockets. Or another Relevo is at work.
                tracing::warn!(
                    flow = %self.options.flow,
                    "other sessions work for this flow on the target; waiting until they end"
                );
                locked.await
            }
        };
        result.map_err(SnapshotError::state)
    }

    /// The encoding of the source's session. Between two databases without an encoding, bytes pass as they are.
    pub(crate) async fn source_encoding(&self, target: &SqlSession) -> Result<&'static str, SnapshotError> {
        if encoding_of(target, Side::Target).await? != SQL_ASCII {
            return Ok("UTF8");
        }
        let source = self.source("UTF8").await?;
        let encoding = encoding_of(&source, Side::Source).await?;
        source.close().await;
        Ok(if encoding == SQL_ASCII { SQL_ASCII } else { "UTF8" })
    }
}

pub(crate) async fn begin(target: &SqlSession) -> Result<(), SnapshotError> {
    target.batch_execute("BEGIN").await.map_err(SnapshotError::target_sql("beginning a transaction"))
}

pub(crate) async fn commit(target: &SqlSession) -> Result<(), SnapshotError> {
    target.batch_execute("COMMIT").await.map_err(SnapshotError::target_sql("committing"))
}

pub(crate) async fn roll_back(target: &SqlSession) -> Result<(), SnapshotError> {
    target.batch_execute("ROLLBACK").await.map_err(SnapshotError::target_sql("rolling back"))
}

/// Fails when another attempt has begun since the one of this number. To be asked at the end of a transaction, after
/// the tables that it writes were locked by writing them: an attempt counts itself before it empties a table.
pub(crate) async fn check_attempt(
    target: &SqlSession,
    flow: &FlowName,
    attempt: i32,
) -> Result<(), SnapshotError> {
    match state::copy_attempt(&**target, flow).await.map_err(SnapshotError::state)? {
        latest if latest == attempt => Ok(()),
        latest => Err(SnapshotError::Superseded { attempt, latest }),
    }
}

/// The error of a statement, with the server's last words when the session has ended over it.
pub(crate) async fn explain(
    session: &SqlSession,
    action: String,
    error: tokio_postgres::Error,
) -> SnapshotError {
    let action = match error.is_closed() {
        false => action,
        true => match session.closed().await {
            Some(cause) => format!("{action}: {}", relevo_connect::describe(&cause)),
            None => action,
        },
    };
    SnapshotError::Sql { side: session.place().side, action, source: error }
}

async fn encoding_of(session: &SqlSession, side: Side) -> Result<String, SnapshotError> {
    let row = session
        .query_one(sql::DATABASE_ENCODING, &[])
        .await
        .map_err(SnapshotError::sql(side, "reading the encoding"))?;
    Ok(row.get(0))
}
