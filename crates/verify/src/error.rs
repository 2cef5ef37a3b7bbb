//! What can go wrong while both sides are compared.

use std::time::Duration;

use relevo_catalog::CatalogError;
use relevo_connect::{ConnectError, describe};
use relevo_model::{Fault, FlowName, Side, SourceLsn};
use relevo_snapshot::SnapshotError;
use relevo_source::SourceError;
use relevo_state::StateError;
use thiserror::Error;

/// Both sides could not be compared, or rows could not be mended.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// No session could be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No snapshot of the source could be had.
    #[error(transparent)]
    Slot(#[from] SourceError),
    /// The stored state could not be read or written.
    #[error("target: {0}")]
    State(#[from] StateError),
    /// The catalog could not be read.
    #[error("{side}: what the tables look like could not be read")]
    Catalog {
        /// Where.
        side: Side,
        /// Why.
        #[source]
        source: CatalogError,
    },
    /// A statement failed.
    #[error("{side}: {action} failed: {}", describe(.source))]
    Sql {
        /// Where.
        side: Side,
        /// What was being done.
        action: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Nobody applies, so no position can be reached.
    #[error(
        "nobody applies flow {flow}: both sides can only be compared while relevo run is at work, which takes the target to \
         the position of the comparison; start it, then try again"
    )]
    NobodyApplies {
        /// The flow.
        flow: FlowName,
    },
    /// Another command holds the flow.
    #[error("another relevo verify or relevo repair is at work on flow {flow}: wait until it has ended")]
    InUse {
        /// The flow.
        flow: FlowName,
    },
    /// The flow has no progress.
    #[error("flow {flow} has not begun to stream on the target: begin it with relevo run")]
    NotStreaming {
        /// The flow.
        flow: FlowName,
    },
    /// The schema is of an older version.
    #[error(
        "schema relevo on the target is of version {found}, and holding a flow needs version {needed}: restart relevo run \
         with this version of the program, which brings it up to date"
    )]
    OlderSchema {
        /// What is there.
        found: i32,
        /// What is needed.
        needed: i32,
    },
    /// A snapshot of the source has to wait for transactions that were running when it was asked for.
    #[error(
        "a snapshot of the source could not be had within {} s, because it waits for transactions that were running when it \
         was asked for{}; nothing was changed, and the flow goes on: end them, or try again later",
        .waited.as_secs(), list(.transactions)
    )]
    Waits {
        /// How long it was tried.
        waited: Duration,
        /// The transactions, for people.
        transactions: Vec<String>,
    },
    /// The target did not get there in time.
    #[error(
        "the target did not reach {at} within {} s: it stands at {applied}; relevo status says what keeps it, and the flow \
         goes on",
        .waited.as_secs()
    )]
    NotReached {
        /// How long it was waited for.
        waited: Duration,
        /// The position.
        at: SourceLsn,
        /// Where the target stands.
        applied: SourceLsn,
    },
    /// The sequences could not be set.
    #[error("the sequences could not be set")]
    Sequences {
        /// Why.
        #[source]
        source: Box<SnapshotError>,
    },
    /// Rows of the target changed under the hands of the repair, or the hold ended.
    #[error("{what}: nothing was kept; try again")]
    Disturbed {
        /// What happened.
        what: String,
    },
}

impl VerifyError {
    /// A short stable word for it, as in [`relevo_model::Fault::kind`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Slot(error) => error.kind(),
            Self::State(error) => error.kind(),
            Self::Catalog { source, .. } => source.kind(),
            Self::Sql { source, .. } => relevo_connect::kind(source),
            Self::NobodyApplies { .. } => "nobody_applies",
            Self::InUse { .. } => "verify_in_use",
            Self::NotStreaming { .. } => "not_streaming",
            Self::OlderSchema { .. } => "older_schema",
            Self::Waits { .. } => "snapshot_waits",
            Self::NotReached { .. } => "not_reached",
            Self::Sequences { source } => source.kind(),
            Self::Disturbed { .. } => "disturbed",
        }
    }

    pub(crate) fn sql(side: Side, action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let action = action.into();
        move |source| Self::Sql { side, action, source }
    }
}

fn list(transactions: &[String]) -> String {
    if transactions.is_empty() { String::new() } else { format!(": {}", transactions.join("; ")) }
}
