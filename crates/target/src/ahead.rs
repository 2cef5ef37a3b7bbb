//! The session for a transaction that still runs on the source, or for a batch beside the one before it.
//!
//! It holds no lock of the flow and knows no progress of its own: it commits only behind a statement that makes the server
//! refuse, unless the progress stands where the flow says that it stands (`relevo_state::advance_progress`). What may not
//! enter: when that is.

use std::sync::Arc;

use relevo_catalog::TableKind;
use relevo_connect::ConnInfo;
use relevo_model::{AheadTarget, Applied, Batch, ChangeTarget, Progress, SourceLsn, TransactionPart};

use crate::error::TargetError;
use crate::mapping::TableMap;
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

/// Whether a table shows nothing of the order of two transactions that change different rows of it: no triggers or rules
/// of its own see the rest of the database, and its rows are changed under this name alone.
fn goes_beside(map: &TableMap) -> bool {
    let table = &map.table;
    let in_a_tree = table.kind == TableKind::Partitioned || table.partition_root.is_some();
    !table.fires_in_replica && !in_a_tree
}

impl AheadTarget for PgAheadTarget {
    type Error = TargetError;

    async fn apply(&mut self, part: TransactionPart) -> Result<(), TargetError> {
        self.look().await?;
        let size_bytes = part.size_bytes;
        self.0.apply(Batch { parts: vec![part], size_bytes, ..Batch::default() }).await.map(drop)
    }

    async fn commit(&mut self, last: TransactionPart, applied: SourceLsn) -> Result<Applied, TargetError> {
        self.0.progress.applied = applied;
        let (position, size_bytes) = (last.end, last.size_bytes);
        self.0.apply(Batch { parts: vec![last], position, size_bytes, ..Batch::default() }).await
    }

    async fn prepare(&mut self, batch: &Batch) -> Result<bool, TargetError> {
        self.0.apply_and_withhold(batch).await?;
        Ok(self.0.touched.all(goes_beside))
    }

    async fn look(&mut self) -> Result<(), TargetError> {
        let row = self.0.session.query_one(SOMEBODY_WAITS, &[]).await;
        match row.and_then(|row| row.try_get(0)).map_err(TargetError::session("looking who waits"))? {
            true => Err(TargetError::WaitedFor),
            false => Ok(()),
        }
    }

    async fn commit_prepared(&mut self, batch: &Batch, applied: SourceLsn) -> Result<Applied, TargetError> {
        self.0.progress = Progress { applied, commit_lsn: None, commit_time: None };
        let end = |part: &TransactionPart| TransactionPart {
            header: Arc::clone(&part.header),
            first: false,
            changes: Vec::new(),
            end: part.end,
            size_bytes: 0,
        };
        // The transaction says which ones of the source it holds, by the first and the last of them.
        let mut parts: Vec<TransactionPart> = batch.parts.first().map(end).into_iter().collect();
        if batch.parts.len() > 1 {
            parts.extend(batch.parts.last().map(end));
        }
        self.0.apply(Batch { parts, position: batch.position, ..Batch::default() }).await
    }
}
