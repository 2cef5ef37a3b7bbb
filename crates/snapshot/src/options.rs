//! What is to be copied and how: the words that the command line and the configuration use.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use relevo_catalog::Selection;
use relevo_connect::ConnInfo;
use relevo_model::{FlowName, SourceLsn};
use tokio::sync::watch;

/// Where the target's tables come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SchemaMode {
    /// [`Copy`](Self::Copy) when the target has none of the tables, [`Existing`](Self::Existing) when it has all
    /// of them.
    #[default]
    Auto,
    /// Copied from the source with `pg_dump`; the target must have none of them.
    Copy,
    /// They are there, and empty.
    Existing,
}

/// A snapshot that another session of the source holds open (manual, *Snapshot Synchronization Functions*; the
/// replication command `CREATE_REPLICATION_SLOT … (SNAPSHOT 'export')`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedSnapshot {
    /// Its name.
    pub name: String,
    /// The slot's consistent point: the stream continues from here.
    pub lsn: SourceLsn,
}

/// Everything that a copy needs to know beforehand.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The flow that the copy is for.
    pub flow: FlowName,
    /// The source; pinned to the server that exported the snapshot ([`ConnInfo::pinned`]).
    pub source: ConnInfo,
    /// The target; pinned to the server that was planned for.
    pub target: ConnInfo,
    /// The tables whose rows are copied. The schema is always copied whole.
    pub selection: Selection,
    /// Where the target's tables come from.
    pub mode: SchemaMode,
    /// Partitioned tables are copied and published as one table, not leaf by leaf; the target may then have them
    /// partitioned in another way or not at all.
    pub via_partition_root: bool,
    /// How many tables, parts of tables and indexes are worked on at the same time. Each takes a session on either
    /// side, and holds less than a MiB of rows in memory, however long a row is.
    pub jobs: NonZeroUsize,
    /// Which tables are copied in parts.
    pub split: Split,
    /// The `pg_dump` to use; `None`: the one on PATH, or a sufficient one in the places where packages put it.
    pub pg_dump: Option<PathBuf>,
}

/// Which tables are copied in parts, when there are several jobs. Parts keep all jobs busy up to the end, and a lost link
/// repeats only its part; but their rows cannot be written frozen, which takes a tenth of the target's processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// Those that are clearly larger than a job's share of all tables, so that the others would wait for them; and those
    /// that take minutes.
    #[default]
    WherePays,
    /// Those of at least so many bytes, in parts of at least half of that.
    From(u64),
}

/// Whether the work is to end. Every wait of a copy ends within about a second of it; what was not committed is
/// rolled back.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Ends the work when the value becomes `true` or its sender is dropped.
    #[must_use]
    pub fn new(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Waits until the work is to end.
    pub(crate) async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that nobody is left to ask for it, which ends the work too.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}
