//! What can go wrong on the target, in words that say what to do.
//!
//! What may not enter: logging. An error is logged where it is handled.

use std::fmt;

use relevo_catalog::{CatalogError, TableName};
use relevo_connect::{ConnectError, Place, classify, describe, kind};
use relevo_model::{Fault, FaultClass, FlowName, HELD, Side, SourceIdentity, SourceLsn, Xid};
use relevo_state::StateError;
use thiserror::Error;
use tokio_postgres::error::SqlState;

/// The change that failed, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedChange {
    /// `insert`, `update`, `delete` or `truncate`.
    pub operation: &'static str,
    /// The table.
    pub table: TableName,
    /// The identity of the row, as `id=5, region=eu`; empty when there is none or it is not known which row.
    pub key: String,
    /// The column, when it is known.
    pub column: Option<String>,
    /// The transaction on the source.
    pub xid: Xid,
    /// Its commit LSN.
    pub commit_lsn: SourceLsn,
}

impl fmt::Display for FailedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.operation, self.table)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ", row {}", self.key)?;
        }
        write!(f, " (source transaction {}, commit LSN {})", self.xid.0, self.commit_lsn)
    }
}

/// Something went wrong on the target.
#[derive(Debug, Error)]
pub enum TargetError {
    /// No session could be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The stored state could not be read.
    #[error("target: {source}")]
    State {
        /// Why.
        #[from]
        source: StateError,
    },
    /// The catalog could not be read.
    #[error("target: what table {table} looks like could not be read")]
    Catalog {
        /// The table.
        table: TableName,
        /// Why.
        #[source]
        source: CatalogError,
    },
    /// The role may not keep triggers and foreign keys from firing.
    #[error(
        "target: the role may not set session_replication_role: {}; grant it as a superuser with GRANT SET ON \
         PARAMETER session_replication_role TO <role> (PostgreSQL 15 and later; for 14, relevo check prints the \
         statements; managed services have a role of their own for it)",
        describe(.source)
    )]
    ReplicaRole {
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// There is no progress row.
    #[error(
        "target: there is no progress of flow {flow}: its initial copy was never completed here, or schema relevo \
         was dropped; put the schema back, or copy anew: relevo reset, then relevo run"
    )]
    NoProgress {
        /// The flow.
        flow: FlowName,
    },
    /// The stored positions belong to another source.
    #[error(
        "target: the progress of flow {flow} belongs to another source: it was system {} timeline {} database \
         {:?}, and now it is system {} timeline {} database {:?}; positions of one mean nothing on the other. \
         Point Relevo at the old source again, or copy anew: relevo reset, then relevo run",
        .stored.system_id, .stored.timeline, .stored.database,
        .expected.system_id, .expected.timeline, .expected.database
    )]
    OtherSource {
        /// The flow.
        flow: FlowName,
        /// The source that the progress belongs to.
        stored: Box<SourceIdentity>,
        /// The source that was reached.
        expected: Box<SourceIdentity>,
    },
    /// The progress row is not where this session left it.
    #[error(
        "target: the progress of flow {flow} is no longer {expected}: something else changed or removed it; \
         nothing of the batch was kept"
    )]
    ProgressMoved {
        /// The flow.
        flow: FlowName,
        /// Where it should have stood.
        expected: SourceLsn,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The flow is held at a position that the batch lies behind.
    #[error(
        "target: flow {flow} is held at {at}, and nothing behind it is applied before that ends; nothing of the batch was kept"
    )]
    Held {
        /// The flow.
        flow: FlowName,
        /// Where.
        at: SourceLsn,
    },
    /// Tables were to follow the stream that are not recorded as copied.
    #[error(
        "target: tables {tables} have arrived, but relevo.table_state of flow {flow} does not call all of them copied \
         (any more): has somebody else changed it? Nothing was kept; the flow is opened again"
    )]
    NotCopied {
        /// The flow.
        flow: FlowName,
        /// Their names.
        tables: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Tables were altered on the target while statements for them were prepared.
    #[error(
        "target: a table was altered while the flow ran, one of {tables}; nothing of the batch was kept, and they are read again"
    )]
    TableAltered {
        /// The tables of the batch.
        tables: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The target takes no writes.
    #[error(
        "target: it is read-only: {}; is it a physical standby? Point Relevo at its primary, or promote it",
        describe(.source)
    )]
    ReadOnly {
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A physical standby answers.
    #[error(
        "{at}: it is read-only, because it is a physical standby, and its progress may be an old one; nothing is lost, \
         Relevo goes on by itself once the primary answers. If the URL names several servers, add \
         target_session_attrs=read-write; if it names only this one, name its primary, or promote it"
    )]
    Standby {
        /// Which server.
        at: Place,
    },
    /// A table of the source is not on the target.
    #[error(
        "target: table {table} does not exist; create it as it is on the source (pg_dump --schema-only --table \
         shows how), or exclude it from the flow"
    )]
    MissingTable {
        /// The table.
        table: TableName,
    },
    /// Columns of the source are not on the target.
    #[error(
        "target: table {table} lacks column{} {}; add {} with the type that the source has",
        if .columns.len() == 1 { "" } else { "s" },
        .columns.join(", "),
        if .columns.len() == 1 { "it" } else { "them" }
    )]
    MissingColumns {
        /// The table.
        table: TableName,
        /// The columns, by the source's names.
        columns: Vec<String>,
    },
    /// The source sends a value for a column that the target computes.
    #[error(
        "target: column {column} of table {table} is a generated column, but the source sends values for it; drop \
         its expression on the target (ALTER COLUMN … DROP EXPRESSION), or leave the column out of the publication"
    )]
    GeneratedColumn {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// An update or delete does not say which row it means.
    #[error(
        "target: an update or delete of table {table} came without the row's identity; give the table a primary \
         key or REPLICA IDENTITY FULL on the source"
    )]
    NoIdentity {
        /// The table.
        table: TableName,
    },
    /// A change could not be applied.
    #[error("target: {change} failed: {}{}", describe(.source), remedy(.source, *.outdated))]
    Change {
        /// Which change.
        change: Box<FailedChange>,
        /// The target table was altered after Relevo had read its catalog: reading it again may be all it takes.
        outdated: bool,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The net changes of a table could not be applied as sets. Within a batch this only means that it is applied again in
    /// order.
    #[error("target: {operation} of a set of rows of {table} failed: {}{}", describe(.source), remedy(.source, false))]
    Set {
        /// The table.
        table: TableName,
        /// `insert`, `update` or `delete`.
        operation: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The net changes of a table touched another number of rows than there are changes. Within a batch this only means
    /// that it is applied again in order.
    #[error("target: {operation} of a set of rows of {table} touched {found} rows instead of {expected}")]
    SetCount {
        /// The table.
        table: TableName,
        /// `insert`, `update` or `delete`.
        operation: &'static str,
        /// How many rows it is about; 0: none may be there.
        expected: u64,
        /// How many there were.
        found: u64,
    },
    /// Another statement failed.
    #[error("target: {action} failed: {}", describe(.source))]
    Session {
        /// What was being done.
        action: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Somebody waits for what a transaction that has yet to commit on the source has locked. Only that transaction is taken
    /// back; this is never the end of a flow.
    #[error("target: another session waits for its locks")]
    WaitedFor,
    /// What was handed over is not what the contract of the port promises.
    #[error("target: {0}; this is a fault in Relevo, please report it")]
    Contract(&'static str),
    /// The target failed before, or was interrupted, and has to be opened again.
    #[error("target: the session was given up after an error or an interrupted batch; open it again")]
    Spent,
}

impl TargetError {
    /// Whether the same changes may go well one by one; or else fail in a way that says which of them does not.
    pub(crate) fn is_worth_the_order(&self) -> bool {
        let of_changes = matches!(self, Self::Set { .. } | Self::SetCount { .. } | Self::Change { .. });
        of_changes && self.class() == FaultClass::Blocked
    }

    /// The table whose net changes could not be applied.
    pub(crate) fn table_of_set(&self) -> Option<&TableName> {
        match self {
            Self::Set { table, .. } | Self::SetCount { table, .. } => Some(table),
            _ => None,
        }
    }

    pub(crate) fn session(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| {
            if is_read_only(&source) { Self::ReadOnly { source } } else { Self::Session { action, source } }
        }
    }
}

/// A transaction may not write here: 25006, or on a physical standby the refusal of BEGIN READ WRITE
/// (`check_transaction_read_only`, `commands/variable.c`).
pub(crate) fn is_read_only(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        let of_standby = *db.code() == SqlState::FEATURE_NOT_SUPPORTED
            && db.routine().is_some_and(|routine| routine.contains("read_only"));
        *db.code() == SqlState::READ_ONLY_SQL_TRANSACTION || of_standby
    })
}

/// Whether the statement no longer fits the table: it was altered on the target.
pub(crate) fn is_altered(error: &tokio_postgres::Error) -> bool {
    let Some(db) = error.as_db_error() else { return false };
    let replanned = *db.code() == SqlState::FEATURE_NOT_SUPPORTED
        && db.routine().is_some_and(|routine| routine.contains("RevalidateCachedQuery"));
    let altered = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::DATATYPE_MISMATCH,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::GENERATED_ALWAYS,
    ];
    replanned || altered.contains(db.code())
}

/// The way out, by the kind of refusal.
fn remedy(error: &tokio_postgres::Error, outdated: bool) -> &'static str {
    if outdated {
        return "; the table was altered since its description was read; it is read again";
    }
    let Some(code) = error.code() else { return "" };
    match (code.code(), code.code().get(..2)) {
        ("23505" | "23P01", _) => {
            "; remove or change the conflicting row on the target, or drop the constraint; nothing was lost, and \
             Relevo goes on by itself once it can"
        }
        (_, Some("23")) => {
            "; change the constraint or the data on the target; nothing was lost, and Relevo goes on by itself \
             once it can"
        }
        (_, Some("22")) | ("42804", _) => {
            "; give the target's column the type that the source has; Relevo goes on by itself once the value fits"
        }
        ("42501", _) => "; grant the right to Relevo's role on the target",
        ("42P01" | "42703", _) => "; create what is missing on the target as it is on the source",
        ("53100", _) => "; make room on the target's disk",
        _ => "",
    }
}

impl Fault for TargetError {
    fn class(&self) -> FaultClass {
        match self {
            Self::Connect(error) => error.class(),
            Self::Catalog { source, .. } => source.class(),
            Self::State { source } => match source.sql_error() {
                Some(error) => classify(error),
                None => FaultClass::Blocked,
            },
            Self::Change { outdated: true, .. } => FaultClass::Transient,
            Self::Change { source, .. }
            | Self::Set { source, .. }
            | Self::Session { source, .. }
            | Self::ReplicaRole { source } => classify(source),
            Self::NoProgress { .. } | Self::OtherSource { .. } => FaultClass::Refused,
            Self::ReadOnly { .. }
            | Self::Standby { .. }
            | Self::MissingTable { .. }
            | Self::MissingColumns { .. }
            | Self::GeneratedColumn { .. }
            | Self::NoIdentity { .. }
            | Self::SetCount { .. }
            | Self::Contract(_) => FaultClass::Blocked,
            // Opening again reads where the progress really stands.
            Self::ProgressMoved { .. }
            | Self::Held { .. }
            | Self::NotCopied { .. }
            | Self::TableAltered { .. }
            | Self::WaitedFor
            | Self::Spent => FaultClass::Transient,
        }
    }

    fn side(&self) -> Side {
        Side::Target
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.kind(),
            Self::TableAltered { .. } | Self::Change { outdated: true, .. } => "table_altered",
            Self::Catalog { source, .. } => source.kind(),
            Self::State { source, .. } => source.kind(),
            Self::Change { source, .. } | Self::Set { source, .. } | Self::Session { source, .. } => {
                kind(source)
            }
            Self::ReplicaRole { .. } => "replica_role",
            Self::NoProgress { .. } => "no_progress",
            Self::OtherSource { .. } => "other_source",
            Self::ProgressMoved { .. } => "progress_moved",
            Self::Held { .. } => HELD,
            Self::NotCopied { .. } => "not_copied",
            Self::ReadOnly { .. } | Self::Standby { .. } => "read_only",
            Self::MissingTable { .. } => "missing_table",
            Self::MissingColumns { .. } => "missing_column",
            Self::GeneratedColumn { .. } => "generated_column",
            Self::NoIdentity { .. } => "no_identity",
            Self::SetCount { .. } => "set_count",
            Self::WaitedFor => "lock_timeout",
            Self::Contract(_) => "contract",
            Self::Spent => "spent",
        }
    }
}
