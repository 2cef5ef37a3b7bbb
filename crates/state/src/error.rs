//! What can go wrong with stored state. The side is the caller's to name: the same tables are on both.

use thiserror::Error;

/// Stored state could not be read or written.
#[derive(Debug, Error)]
pub enum StateError {
    /// A statement on schema `relevo` failed.
    #[error("schema relevo: {action} failed: {}", relevo_connect::describe(.source))]
    Sql {
        /// What was being done.
        action: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The schema was written by a later version of Relevo.
    #[error(
        "schema relevo has version {found}, this program knows versions up to {known}: \
         run the newer Relevo that installed it"
    )]
    NewerSchema {
        /// The version in the database.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// A stored value is not one that Relevo writes.
    #[error("schema relevo: {column} holds {value:?}, which Relevo never writes: was it edited by hand?")]
    Corrupt {
        /// Table and column.
        column: &'static str,
        /// What stands there.
        value: String,
    },
}

impl StateError {
    pub(crate) fn sql(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Sql { action, source }
    }

    /// A short stable word for it, as in [`relevo_model::Fault::kind`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sql { source, .. } => relevo_connect::kind(source),
            Self::NewerSchema { .. } => "newer_schema",
            Self::Corrupt { .. } => "state_corrupt",
        }
    }

    /// The server's error, when there is one: what a caller classifies by.
    #[must_use]
    pub fn sql_error(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Sql { source, .. } => Some(source),
            Self::NewerSchema { .. } | Self::Corrupt { .. } => None,
        }
    }
}
