//! What can go wrong with the initial copy, and what can be done about it.

use std::path::PathBuf;

use relevo_catalog::{CatalogError, Finding};
use relevo_connect::{ConnectError, classify, describe, kind};
use relevo_model::{Fault, FaultClass, Side};
use relevo_state::StateError;

/// The initial copy, or its preparation, failed. Nothing half-copied counts as complete.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A session could not be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("{side}: {action}: {}", describe(.source))]
    Sql {
        /// Where.
        side: Side,
        /// What was being done.
        action: String,
        /// What the server or the connection said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement of the source's schema failed on the target.
    #[error(
        "target: could not create what the source has: {}: in: {statement}; mend it there (the server says what \
         is missing), or create all tables yourself and copy into the existing ones",
        describe(.source)
    )]
    Statement {
        /// The beginning of the statement.
        statement: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Relevo's own tables could not be read or written.
    #[error("{side}: {source}")]
    State {
        /// Where.
        side: Side,
        /// Why.
        #[source]
        source: StateError,
    },
    /// A system catalog could not be read.
    #[error("{side}: {source}{}", server_said(.source))]
    Catalog {
        /// Where.
        side: Side,
        /// Why.
        #[source]
        source: CatalogError,
    },
    /// Going on could destroy data or make a copy that is not faithful.
    #[error("the copy is refused: {}", list(.findings))]
    Refused {
        /// Everything that is in the way.
        findings: Vec<Finding>,
    },
    /// There is no `pg_dump`.
    #[error(
        "pg_dump was not found{}: install PostgreSQL's client programs, version {source_major} or later, or name \
         the program with --pg-dump",
        .path.as_ref().map(|path| format!(" at {}", path.display())).unwrap_or_default()
    )]
    PgDumpMissing {
        /// Where it was looked for; `None`: on PATH and in the usual places.
        path: Option<PathBuf>,
        /// The source's major version.
        source_major: i32,
        /// Why it could not be run.
        #[source]
        source: std::io::Error,
    },
    /// `pg_dump` is older than the source.
    #[error(
        "{} is of version {found}, but the source is PostgreSQL {source_major}, which it cannot read: install \
         the client programs of version {source_major} or later, or name another program with --pg-dump",
        .path.display()
    )]
    PgDumpTooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The source's major version.
        source_major: i32,
    },
    /// `pg_dump` ended with an error.
    #[error("pg_dump of the source failed ({status}): {stderr}")]
    PgDumpFailed {
        /// How it ended.
        status: String,
        /// What it said, without secrets.
        stderr: String,
    },
    /// The exported snapshot is gone: its session has ended.
    #[error(
        "source: the exported snapshot is no longer there, because the session that holds it has ended; the copy \
         begins again with a new one: {}",
        describe(.source)
    )]
    SnapshotGone {
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A table of the source changed its definition while the copy began.
    #[error("source: table {table} was changed while the copy began ({change}); the copy begins again")]
    TableChanged {
        /// The table.
        table: String,
        /// What differs.
        change: String,
    },
    /// The target stored another number of rows than the source sent.
    #[error(
        "target: {stored} of the {sent} rows of {table} were stored: a trigger with ENABLE ALWAYS or ENABLE \
         REPLICA may have dropped rows; disable it and the copy begins again"
    )]
    RowCount {
        /// The table.
        table: String,
        /// Rows that the source sent.
        sent: u64,
        /// Rows that the target stored.
        stored: u64,
    },
    /// What the source sent are not rows in the format that was asked for.
    #[error(
        "source: the rows of {table} could not be read: {problem}; nothing of them was stored, and the copy begins \
         again; if this repeats, what stands between Relevo and the source changes what it passes on"
    )]
    Malformed {
        /// The table.
        table: String,
        /// What is wrong with them.
        problem: String,
    },
    /// Another attempt to copy has begun; this one must not write any more.
    #[error(
        "target: attempt {attempt} to copy the flow was given up, because attempt {latest} has begun since"
    )]
    Superseded {
        /// This one.
        attempt: i32,
        /// The latest.
        latest: i32,
    },
    /// Relevo was told to stop.
    #[error("stopped on request; what was not complete is rolled back")]
    Stopped,
}

impl SnapshotError {
    pub(crate) fn sql(side: Side, action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Sql { side, action: action.into(), source }
    }

    pub(crate) fn source_sql(action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        Self::sql(Side::Source, action)
    }

    pub(crate) fn target_sql(action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        Self::sql(Side::Target, action)
    }

    pub(crate) fn catalog(side: Side) -> impl FnOnce(CatalogError) -> Self {
        move |source| Self::Catalog { side, source }
    }

    /// An error of the state on the target, where the copy keeps it.
    pub(crate) fn state(source: StateError) -> Self {
        Self::State { side: Side::Target, source }
    }
}

fn server_said(error: &CatalogError) -> String {
    match error {
        CatalogError::Query { source, .. } => format!(": {}", describe(source)),
        CatalogError::Unknown { .. } => String::new(),
    }
}

fn list(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let subject = finding.subject.as_deref().map(|subject| format!("{subject}: ")).unwrap_or_default();
        let remedy = finding.remedy.as_deref().map(|remedy| format!(" ({remedy})")).unwrap_or_default();
        format!("{subject}{}{remedy}", finding.message)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("; ")
}

impl Fault for SnapshotError {
    fn class(&self) -> FaultClass {
        match self {
            Self::Connect(error) => error.class(),
            Self::Sql { source, .. } | Self::Statement { source, .. } => classify(source),
            Self::State { source, .. } => source.sql_error().map_or(FaultClass::Blocked, classify),
            Self::Catalog { source, .. } => source.class(),
            Self::Refused { .. } => FaultClass::Refused,
            Self::PgDumpMissing { .. }
            | Self::PgDumpTooOld { .. }
            | Self::RowCount { .. }
            | Self::Malformed { .. } => FaultClass::Blocked,
            // It says so in words only.
            Self::PgDumpFailed { stderr, .. } if stderr.contains("connection") => FaultClass::Transient,
            Self::PgDumpFailed { .. } => FaultClass::Blocked,
            Self::SnapshotGone { .. }
            | Self::TableChanged { .. }
            | Self::Superseded { .. }
            | Self::Stopped => FaultClass::Transient,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Connect(error) => error.side(),
            Self::Sql { side, .. } | Self::State { side, .. } | Self::Catalog { side, .. } => *side,
            Self::Refused { findings } => {
                findings.iter().find_map(|finding| finding.side).unwrap_or(Side::Target)
            }
            Self::Statement { .. } | Self::RowCount { .. } | Self::Superseded { .. } | Self::Stopped => {
                Side::Target
            }
            Self::PgDumpMissing { .. }
            | Self::PgDumpTooOld { .. }
            | Self::PgDumpFailed { .. }
            | Self::SnapshotGone { .. }
            | Self::TableChanged { .. }
            | Self::Malformed { .. } => Side::Source,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Sql { source, .. } => kind(source),
            Self::Statement { .. } => "schema_statement",
            Self::State { source, .. } => source.kind(),
            Self::Catalog { source, .. } => source.kind(),
            Self::Refused { findings } => findings.first().map_or("copy_refused", |finding| finding.check),
            Self::PgDumpMissing { .. } => "pg_dump_missing",
            Self::PgDumpTooOld { .. } => "pg_dump_too_old",
            Self::PgDumpFailed { .. } => "pg_dump_failed",
            Self::SnapshotGone { .. } => "snapshot_gone",
            Self::TableChanged { .. } => "table_changed",
            Self::RowCount { .. } => "row_count",
            Self::Malformed { .. } => "malformed_rows",
            Self::Superseded { .. } => "copy_superseded",
            Self::Stopped => "stopped",
        }
    }
}
