//! What can go wrong between a target and the logs of the tables that it waits for.

use relevo_model::{Fault, FaultClass, Side};
use relevo_pgoutput::{AssembleError, EncodeError};
use relevo_spool::SpoolError;
use thiserror::Error;

/// A batch was not applied, or a table could not join the stream. Nothing of it stays on the target.
#[derive(Debug, Error)]
pub enum ArrivalError<E> {
    /// The target itself.
    #[error(transparent)]
    Target(E),
    /// What tables that are still copied have missed does not fit into the spool any more.
    #[error(
        "the spool is full while tables are being copied: {source}; the source keeps its WAL from here on. The flow goes \
         on by itself when tables have arrived and free their share; or give it more room with --spool-limit"
    )]
    Full {
        /// How full.
        #[source]
        source: SpoolError,
    },
    /// The spool could not be written or read.
    #[error(
        "the spool failed: {source}. If it cannot be mended, stop Relevo and remove the spool's directory: the tables \
         that have not arrived are then copied again"
    )]
    Spool {
        /// Why.
        #[source]
        source: SpoolError,
    },
    /// A change has no form in which it could be kept.
    #[error("a change of {table}, which is still being copied, cannot be kept: {source}")]
    Encode {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: EncodeError,
    },
    /// What was kept is not understood.
    #[error(
        "what was kept for {table} is not understood: {source}. Stop Relevo and remove the spool's directory: the tables \
         that have not arrived are then copied again"
    )]
    Kept {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: AssembleError,
    },
}

impl<E> From<SpoolError> for ArrivalError<E> {
    fn from(source: SpoolError) -> Self {
        match source {
            SpoolError::Full { .. } => Self::Full { source },
            _ => Self::Spool { source },
        }
    }
}

impl<E: Fault> Fault for ArrivalError<E> {
    fn class(&self) -> FaultClass {
        match self {
            Self::Target(error) => error.class(),
            // Mended by a table that arrives, or by somebody who makes room.
            Self::Full { .. } | Self::Spool { .. } => FaultClass::Blocked,
            Self::Encode { .. } | Self::Kept { .. } => FaultClass::Refused,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Target(error) => error.side(),
            _ => Side::Target,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Target(error) => error.kind(),
            Self::Full { .. } => "spool_full",
            Self::Spool { .. } => "spool",
            Self::Encode { .. } => "encode",
            Self::Kept { .. } => "spool_content",
        }
    }
}
