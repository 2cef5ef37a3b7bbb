//! What a copy tells of its progress. What becomes of it (a bar, log lines, metrics) is the caller's matter.

use std::fmt;
use std::time::Duration;

use relevo_catalog::TableName;
use relevo_model::Side;

/// The parts of the initial copy, in their order. Indexes and statistics of a table are begun while rows of others are
/// still on their way; the phase is then that of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Types, functions, tables.
    Schema,
    /// The rows.
    Rows,
    /// Indexes, constraints, triggers and whatever else comes after the rows.
    Indexes,
    /// The sequences' values.
    Sequences,
    /// The contents of materialized views.
    Views,
    /// The planner's statistics.
    Analyze,
}

impl Phase {
    /// The word for it in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Rows => "rows",
            Self::Indexes => "indexes",
            Self::Sequences => "sequences",
            Self::Views => "views",
            Self::Analyze => "analyze",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyEvent<'a> {
    /// A phase begins.
    PhaseStarted {
        /// Which.
        phase: Phase,
        /// How many [`CopyEvent::StepFinished`] or, for rows, [`CopyEvent::TableFinished`] will follow. Behind the rows
        /// a few more may come, when something has to be repeated.
        steps: usize,
        /// For rows: the size of all tables on the source, in bytes. What COPY writes may be more or less.
        estimated_bytes: u64,
    },
    /// A statement of the schema, a sequence, a view or a table to analyze is done.
    StepFinished {
        /// In which phase.
        phase: Phase,
    },
    /// The rows of a table begin to flow.
    TableStarted {
        /// The table.
        table: &'a TableName,
        /// Its size on the source, in bytes.
        estimated_bytes: u64,
        /// The planner's number of rows, if it has one.
        estimated_rows: Option<u64>,
    },
    /// More rows of the table were sent to the target. They are not committed yet.
    TableProgress {
        /// The table.
        table: &'a TableName,
        /// Rows since the last such event.
        rows: u64,
        /// Bytes of rows, as COPY writes them, since the last such event.
        bytes: u64,
    },
    /// The table's rows are committed.
    TableFinished {
        /// The table.
        table: &'a TableName,
        /// All its rows.
        rows: u64,
        /// All bytes of its rows, as COPY writes them.
        bytes: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// Rows of the table that were told of by [`CopyEvent::TableProgress`] are rolled back.
    RowsLost {
        /// The table.
        table: &'a TableName,
        /// So many rows.
        rows: u64,
        /// So many bytes of rows, as COPY writes them.
        bytes: u64,
    },
    /// The table has its rows, its own indexes and keys, and statistics. Foreign keys, triggers and whatever else is
    /// about several tables come when all rows are there.
    TableReady {
        /// The table.
        table: &'a TableName,
    },
    /// What was being done for the table failed, and is tried again under the same snapshot.
    Repeated {
        /// The table.
        table: &'a TableName,
        /// Where it failed.
        side: Side,
        /// The stable word for the error.
        kind: &'static str,
        /// What happened.
        message: &'a str,
    },
    /// The copy goes on, but somebody should know.
    Warning {
        /// What was left out or differs, and why.
        message: &'a str,
    },
}

/// Who is told. Events come from one task at a time for each table; several tables may be under way at once.
pub trait CopyObserver: Send + Sync {
    /// Takes note. Must not block.
    fn event(&self, event: CopyEvent<'_>);
}

/// Nobody is told.
impl CopyObserver for () {
    fn event(&self, _event: CopyEvent<'_>) {}
}
