//! A snapshot that is kept by a session of our own, instead of by the replication connection that made the slot: so that
//! a temporary slot can go, with the WAL that it keeps, while tables are still read under its snapshot.

use relevo_connect::SqlSession;

use crate::engine::import_snapshot;
use crate::session::Sessions;
use crate::{CopyOptions, ExportedSnapshot, SnapshotError};

/// The snapshot may be exported again by a transaction that has imported it (manual, *Snapshot Synchronization
/// Functions*).
const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot()";

/// An exported snapshot that lives as long as this value and its session. Rows that it sees are not removed by VACUUM.
pub struct HeldSnapshot {
    session: SqlSession,
    snapshot: ExportedSnapshot,
}

impl HeldSnapshot {
    /// Takes over an exported snapshot. Whoever exported it is not needed afterwards.
    ///
    /// # Errors
    /// [`SnapshotError::SnapshotGone`]; [`SnapshotError::Sql`].
    pub async fn hold(options: &CopyOptions, exported: &ExportedSnapshot) -> Result<Self, SnapshotError> {
        let session = Sessions::new(options).source("UTF8").await?;
        import_snapshot(&session, &exported.name).await?;
        let row = session
            .query_one(EXPORT, &[])
            .await
            .map_err(SnapshotError::source_sql("exporting the snapshot again"))?;
        let snapshot = ExportedSnapshot { name: row.get(0), lsn: exported.lsn };
        Ok(Self { session, snapshot })
    }

    /// The snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &ExportedSnapshot {
        &self.snapshot
    }

    /// Lets it go. What has imported it keeps it until its transaction ends.
    pub async fn release(self) {
        self.session.close().await;
    }
}
