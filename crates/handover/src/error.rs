//! What can go wrong while a hand-over is worked on.

use relevo_connect::{ConnectError, describe};
use relevo_model::Fault;
use relevo_source::SourceError;
use relevo_state::StateError;
use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::{NodeNameError, Refusal};

/// A hand-over did not get as far as it should.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// It may not be done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A node cannot be reached.
    #[error("node {node}: {source}")]
    Connect {
        /// Which.
        node: String,
        /// Why.
        source: Box<ConnectError>,
    },
    /// A statement failed.
    #[error("node {node}: {action}: {}", describe(source))]
    Sql {
        /// Where.
        node: String,
        /// What was being done.
        action: String,
        /// The server's words.
        source: tokio_postgres::Error,
    },
    /// What Relevo remembers could not be read or written.
    #[error("node {node}: {source}")]
    State {
        /// Where.
        node: String,
        /// Why.
        source: StateError,
    },
    /// A catalog could not be read.
    #[error("node {node}: {source}")]
    Catalog {
        /// Where.
        node: String,
        /// Why.
        source: relevo_catalog::CatalogError,
    },
    /// A publication or a sequence could not be made as it has to be.
    #[error("node {node}: {source}")]
    Snapshot {
        /// Where.
        node: String,
        /// Why.
        source: Box<relevo_snapshot::SnapshotError>,
    },
    /// The slot of the old primary could not be read.
    #[error("node {node}: {source}")]
    Source {
        /// Where.
        node: String,
        /// Why.
        source: Box<SourceError>,
    },
    /// Transactions hold locks that the fence needs.
    #[error(
        "node {node}: the fence could not be set within {waited_ms} ms, because transactions that have written are still \
         open ({holders}): end them (SELECT pg_terminate_backend(PID)), or give more time with --max-pause; applications \
         write as before"
    )]
    FenceWaits {
        /// Where.
        node: String,
        /// How long it was tried.
        waited_ms: u128,
        /// Who is in the way.
        holders: String,
    },
    /// Others hold locks that a step needs.
    #[error(
        "node {node}: {action} was given up after {waited_ms} ms, because others hold locks there ({holders}): end them \
         (SELECT pg_terminate_backend(PID)), then type the same command again"
    )]
    LocksHeld {
        /// Where.
        node: String,
        /// What was being done.
        action: String,
        /// How long it was tried.
        waited_ms: u128,
        /// Who is in the way.
        holders: String,
    },
    /// The standby has not caught up within the time that writes may pause.
    #[error(
        "node {node} has not caught up within {waited_ms} ms (it is at {applied}, and {wanted} is wanted): the hand-over \
         was given up"
    )]
    TooSlow {
        /// Which.
        node: String,
        /// How long was waited.
        waited_ms: u128,
        /// How far it is.
        applied: String,
        /// How far it should be.
        wanted: String,
    },
    /// It failed, and what it had done could not be taken back.
    #[error(
        "{error}; it was not taken back: {why}. Type the same command again: it goes on from here, or says what to do"
    )]
    NotTakenBack {
        /// What failed.
        error: Box<HandoverError>,
        /// Why it was not.
        why: String,
    },
    /// Only this command cannot reach the primary.
    #[error(
        "{node} still gets transactions that {primary} commits now: {primary} lives, and only this command cannot reach it. \
         Type relevo switchover --to {node} where both can be reached; or, if the role must move without {primary}, stop the \
         Relevo beside {node} first. {node} follows {primary} as before"
    )]
    PrimaryLives {
        /// Who lives.
        primary: String,
        /// Who was to take over.
        node: String,
    },
    /// Somebody else has changed the role meanwhile.
    #[error(
        "node {node}: the role has moved meanwhile ({found}): look at relevo status, and type the command again"
    )]
    Overtaken {
        /// Where.
        node: String,
        /// What was found.
        found: String,
    },
    /// Another command is at work.
    #[error(
        "another hand-over command is at work, it holds node {node} ({holder}): wait until it has ended, and type the command \
         again if it is still needed. One whose terminal is lost ends by itself within half a minute, or at once by SELECT \
         pg_terminate_backend(PID) on {node}"
    )]
    UnderWay {
        /// Where it was met.
        node: String,
        /// Whose session.
        holder: String,
    },
    /// Both sides could not be compared or made equal.
    #[error("node {node}: {source}")]
    Verify {
        /// Where rows are mended.
        node: String,
        /// Why.
        source: Box<relevo_verify::VerifyError>,
    },
    /// Files.
    #[error("{what}: {source}")]
    File {
        /// Which.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// No such node.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// Something that has to be waited for does not come.
    #[error("{0}")]
    Waited(String),
}

impl HandoverError {
    /// A short stable word for it, as in [`relevo_model::Fault::kind`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Connect { source, .. } => source.kind(),
            Self::Sql { source, .. } => relevo_connect::kind(source),
            Self::State { source, .. } => source.kind(),
            Self::Catalog { source, .. } => source.kind(),
            Self::Snapshot { source, .. } => source.kind(),
            Self::Source { source, .. } => source.kind(),
            Self::FenceWaits { .. } => "fence_waits",
            Self::LocksHeld { .. } => "locks_held",
            Self::TooSlow { .. } => "standby_too_slow",
            Self::NotTakenBack { .. } => "not_taken_back",
            Self::PrimaryLives { .. } => "primary_lives",
            Self::Overtaken { .. } => "role_moved",
            Self::UnderWay { .. } => "handover_under_way",
            Self::Verify { source, .. } => source.kind(),
            Self::File { .. } => "file",
            Self::Name(_) => "node_name",
            Self::Waited(_) => "handover_waits",
        }
    }

    /// What the server says went wrong, if it was the server that said so.
    pub(crate) fn sql_state(&self) -> Option<SqlState> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
                return error.code().cloned();
            }
            cause = error.source();
        }
        None
    }

    /// The node whose statement failed.
    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Self::Sql { node, .. }
            | Self::State { node, .. }
            | Self::Catalog { node, .. }
            | Self::Snapshot { node, .. } => Some(node),
            _ => None,
        }
    }

    pub(crate) fn sql(node: &str, action: &str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Sql { node: node.to_owned(), action: action.to_owned(), source }
    }

    pub(crate) fn state(node: &str) -> impl FnOnce(StateError) -> Self {
        move |source| Self::State { node: node.to_owned(), source }
    }

    pub(crate) fn catalog(node: &str) -> impl FnOnce(relevo_catalog::CatalogError) -> Self {
        move |source| Self::Catalog { node: node.to_owned(), source }
    }

    pub(crate) fn snapshot(node: &str) -> impl FnOnce(relevo_snapshot::SnapshotError) -> Self {
        move |source| Self::Snapshot { node: node.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn slot(node: &str) -> impl FnOnce(SourceError) -> Self {
        move |source| Self::Source { node: node.to_owned(), source: Box::new(source) }
    }
}

impl Refusal {
    /// A short stable word for it, as in [`relevo_model::Fault::kind`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoSuchNode { .. } => "no_such_node",
            Self::NotInitialised { .. } => "no_primary",
            Self::Contested { .. } => "contested_role",
            Self::WrongNode { .. } => "wrong_node",
            Self::Unreachable { .. } => "node_unreachable",
            Self::NotReady { .. } => "node_not_ready",
            Self::PrimaryLives { .. } => "primary_lives",
            Self::Behind { .. } => "standby_behind",
            Self::Interrupted { .. } => "switchover_interrupted",
            Self::CannotFence { .. } => "cannot_fence",
            Self::CannotRejoin { .. } => "cannot_rejoin",
        }
    }
}
