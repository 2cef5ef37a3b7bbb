//! The session for a transaction that still runs on the source.
//!
//! It holds no lock of the flow and knows no progress of its own: it commits only behind a statement that makes the server
//! refuse, unless the progress stands where the flow says that it stands (`relevo_state::advance_progress`). What may not
//! enter: when that is.

use relevo_connect::ConnInfo;
use relevo_model::{AheadTarget, Applied, Batch, ChangeTarget, SourceLsn, TransactionPart};

use crate::error::TargetError;
use crate::open::{PgTarget, TargetOptions};

/// Whether another session waits for a table or a row that this one has locked.
const SOMEBODY_WAITS: &str = "SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks mine
      JOIN pg_catalog.pg_locks theirs
        ON NOT theirs.granted AND theirs.locktype = mine.locktype
       AND CASE mine.locktype
           WHEN 'relation' THEN (theirs.database, theirs.relation) = (mine.database, mine.relation)
           ELSE theirs.transactionid = mine.transactionid END
     WHERE mine.pid = pg_catalog.pg_backend_pid() AND mine.granted
       AND mine.locktype IN ('relation', 'transactionid'))";

/// A second session of a target. Dropping it rolls back what is not committed.
///
/// It applies what goes well as it stands: an error, a row that is missing or one too many ends it, where the first
/// session would try again in another way, or write the row down. It also ends when somebody waits for its locks, which the
/// first session would not have before the transaction's commit.
pub struct PgAheadTarget(PgTarget);

impl PgAheadTarget {
    /// Opens the session, on the server that `info` names: the same that the flow's first session is on.
    ///
    /// # Errors
    /// [`TargetError::Connect`] and the others of a session that is set up.
    pub async fn open(info: &ConnInfo, options: TargetOptions) -> Result<Self, TargetError> {
        Ok(Self(PgTarget::open_second(info, options).await?))
    }
}

impl AheadTarget for PgAheadTarget {
    type Error = TargetError;

    async fn apply(&mut self, part: TransactionPart) -> Result<(), TargetError> {
        let row = self.0.session.query_one(SOMEBODY_WAITS, &[]).await;
        if row.and_then(|row| row.try_get(0)).map_err(TargetError::session("looking who waits"))? {
            return Err(TargetError::WaitedFor);
        }
        let size_bytes = part.size_bytes;
        self.0.apply(Batch { parts: vec![part], size_bytes, ..Batch::default() }).await.map(drop)
    }

    async fn commit(&mut self, last: TransactionPart, applied: SourceLsn) -> Result<Applied, TargetError> {
        self.0.progress.applied = applied;
        let (position, size_bytes) = (last.end, last.size_bytes);
        self.0.apply(Batch { parts: vec![last], position, size_bytes, ..Batch::default() }).await
    }
}
