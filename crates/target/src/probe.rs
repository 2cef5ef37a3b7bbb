//! How far the target's WAL is flushed, asked on a session of its own.
//!
//! What may not enter: anything that could make the question wait for a batch.

use relevo_connect::{ConnInfo, SqlSession};
use relevo_model::{FlowName, FlushProbe, TargetLsn};
use tokio_postgres::Statement;
use tokio_postgres::types::PgLsn;

use crate::error::TargetError;
use crate::open::connect;

const FLUSHED: &str = "SELECT pg_catalog.pg_current_wal_flush_lsn()";

/// Asks the target how far its WAL is flushed.
pub struct PgFlushProbe {
    session: SqlSession,
    statement: Statement,
}

impl PgFlushProbe {
    /// Opens the session.
    ///
    /// # Errors
    /// [`TargetError::Connect`]; [`TargetError::Session`] on a physical standby, which writes no WAL.
    pub async fn open(info: &ConnInfo, flow: &FlowName) -> Result<Self, TargetError> {
        let session = connect(info, flow).await?;
        let statement =
            session.prepare(FLUSHED).await.map_err(TargetError::session("preparing the flush position"))?;
        Ok(Self { session, statement })
    }
}

impl FlushProbe for PgFlushProbe {
    type Error = TargetError;

    async fn flushed(&mut self) -> Result<TargetLsn, TargetError> {
        let error = || TargetError::session("asking for the flush position");
        let row = self.session.query_one(&self.statement, &[]).await.map_err(error())?;
        let lsn: PgLsn = row.try_get(0).map_err(error())?;
        Ok(TargetLsn::new(lsn.into()))
    }
}
