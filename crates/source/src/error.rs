//! What can go wrong at the source, and what each SQLSTATE of the server means for the flow.
//!
//! One table decides whether an error passes by itself, needs a hand, or forbids going on: [`SourceError::class`].

use std::time::Duration;

use relevo_connect::{ConnectError, Place, ServerMessage};
use relevo_model::{Fault, FaultClass, Side};
use relevo_pgoutput::AssembleError;

use crate::verdict::Refusal;

/// What can go wrong at the source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The server could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),

    /// The link broke.
    #[error("{doing} failed; the link is lost and will be opened again")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the operating system says.
        source: std::io::Error,
    },

    /// The server closed the link without a word.
    #[error(
        "the source closed the connection while {doing}; see the source's server log for why (a crash of the \
         server, or a pooler in between that does not speak the replication protocol)"
    )]
    Closed {
        /// What was being done.
        doing: &'static str,
    },

    /// The server reported an error.
    #[error("{doing}: {error}{}", remedy(.error))]
    Server {
        /// What was being done.
        doing: String,
        /// What the server said.
        error: Box<ServerMessage>,
    },

    /// An ordinary SQL session with the source failed without an error of the server.
    #[error("{doing} failed; the SQL session with the source is lost and will be opened again")]
    Sql {
        /// What was being done.
        doing: String,
        /// What went wrong.
        source: tokio_postgres::Error,
    },

    /// A frame that cannot be one of PostgreSQL's.
    #[error(
        "the source sent a frame {tag:?} of {length_bytes} bytes, and no PostgreSQL message is as long (limit \
         {limit}) or shorter than 4; is it a PostgreSQL server that answers there?", limit = crate::frame::MAX_FRAME_BYTES
    )]
    FrameLength {
        /// The frame's tag.
        tag: char,
        /// The length that it claims.
        length_bytes: usize,
    },

    /// A frame whose content is not what its tag says.
    #[error("the source sent a frame {tag:?} that cannot be read; nothing of it was confirmed")]
    BadFrame {
        /// The frame's tag.
        tag: char,
        /// What is wrong with it.
        source: std::io::Error,
    },

    /// The server sent something that does not belong there.
    #[error("the source broke the protocol: {what}; nothing of it was confirmed, please report it")]
    Protocol {
        /// What came, and what was expected.
        what: String,
    },

    /// A message of the output plugin cannot be decoded or does not fit the ones before it.
    #[error("the stream of changes cannot be read; nothing of it was confirmed")]
    Decode {
        /// Tag, offset and reason.
        source: AssembleError,
    },

    /// What the source sends of running transactions cannot be held.
    #[error(transparent)]
    Held(AssembleError),

    /// The server cannot be asked for what is wanted.
    #[error("the source cannot be asked for this stream")]
    Options {
        /// Which option is in the way.
        #[from]
        source: relevo_pgoutput::OptionsError,
    },

    /// Nothing came for too long although answers were asked for.
    #[error(
        "nothing was heard from the source for {} s although answers were asked for; the link is taken for dead and \
         will be opened again", .silence.as_secs()
    )]
    Silent {
        /// How long nothing came.
        silence: Duration,
    },

    /// The server ended the stream in order.
    #[error("the source is shutting down: it ended the stream in order; Relevo reconnects when it is back")]
    ShuttingDown,

    /// Another connection holds the slot.
    #[error(
        "slot {slot:?} is active for PID {pid} {holder}, waited {} s; if that is another Relevo, stop one of the two; if it \
         is a dead connection, the source drops it after its wal_sender_timeout, or end it with \
         SELECT pg_terminate_backend({pid})", .waited.as_secs()
    )]
    SlotActive {
        /// The slot.
        slot: String,
        /// Who holds it.
        pid: i32,
        /// What is known of the holder.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },

    /// A physical standby answers.
    #[error(
        "{at}: the server is a physical standby, which has neither the flow's slot nor all of the WAL; nothing is lost, \
         Relevo goes on by itself once the primary answers. If the URL names several servers, add \
         target_session_attrs=primary; if it names only this one, name its primary"
    )]
    Standby {
        /// Which server.
        at: Place,
    },

    /// Going on would lose or repeat changes.
    #[error(transparent)]
    Refused(#[from] Refusal),

    /// The thread that serves the connection could not be started, or has ended without saying why.
    #[error("the thread that serves the replication connection {what}; the connection will be opened again")]
    Thread {
        /// What happened to it.
        what: String,
    },

    /// The source was used after it had failed.
    #[error("the source has failed before: {first}")]
    Failed {
        /// The first error.
        first: String,
        /// Its class.
        class: FaultClass,
        /// Its kind.
        kind: &'static str,
    },
}

impl From<AssembleError> for SourceError {
    fn from(source: AssembleError) -> Self {
        match source {
            AssembleError::Store { .. } => Self::Held(source),
            _ => Self::Decode { source },
        }
    }
}

impl SourceError {
    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    pub(crate) fn server(doing: impl Into<String>, error: ServerMessage) -> Self {
        Self::Server { doing: doing.into(), error: Box::new(error) }
    }

    pub(crate) fn sql(doing: impl Into<String>, source: tokio_postgres::Error) -> Self {
        match source.as_db_error() {
            Some(error) => Self::server(doing, error.into()),
            None => Self::Sql { doing: doing.into(), source },
        }
    }

    /// The SQLSTATE, when the server reported one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server { error, .. } => Some(&error.sqlstate),
            _ => None,
        }
    }
}

/// What an error of the server means for the flow: as everywhere, but here an error can also say that changes are
/// gone. Where one SQLSTATE means several things the C function that reported it decides: unlike the message it is
/// never translated. (`replication/walsender.c`, `replication/logical/logical.c`, `replication/slot.c`.) Where the
/// function has moved in another version, the slot's state, looked at before every start, says the same one step later.
fn class_of(error: &ServerMessage) -> FaultClass {
    let routine = error.routine.as_deref().unwrap_or_default();
    match (error.sqlstate.as_str(), routine) {
        // "requested WAL segment … has already been removed": what the slot should have kept is gone.
        ("58P01", "WalSndSegmentOpen") => FaultClass::Refused,
        // "replication slot … does not exist": what it kept is gone with it.
        ("42704", "ReplicationSlotAcquire" | "ReplicationSlotAcquireInternal") => FaultClass::Refused,
        // The slot was invalidated: "cannot read from logical replication slot", "can no longer get changes from
        // replication slot" (14 to 17), "can no longer access replication slot" (18).
        ("55000", "ReplicationSlotAcquire") => FaultClass::Refused,
        ("55000", "CreateDecodingContext") if !error.message.contains("synchronized") => FaultClass::Refused,
        _ => error.class(),
    }
}

/// Whether the server complains of a publication that does not exist: an error up to 17
/// (`catalog/pg_publication.c`), a warning since 18 (`replication/pgoutput/pgoutput.c`).
pub(crate) fn about_publication(message: &ServerMessage) -> bool {
    let routine = message.routine.as_deref().unwrap_or_default();
    matches!(
        (message.sqlstate.as_str(), routine),
        ("42704", "get_publication_oid" | "GetPublicationByName") | ("55000", "LoadPublications")
    )
}

/// What to do about an error of the server, when the server does not say so itself.
fn remedy(error: &ServerMessage) -> &'static str {
    match error.sqlstate.as_str() {
        _ if about_publication(error) => {
            "; decoding looks publications up as they were when the change was made, so one that is created again now \
             does not serve the changes made before: then copy the tables anew: relevo reset, then relevo run"
        }
        "42501" if error.message.contains("replication") || error.message.contains("WAL sender") => {
            "; give the role the right: ALTER ROLE … REPLICATION"
        }
        "53400" => {
            "; raise max_replication_slots on the source (needs a restart), or drop slots that nobody uses"
        }
        "53300" => {
            "; raise max_wal_senders on the source (needs a restart), or stop consumers that nobody needs"
        }
        "55000" if error.message.contains("wal_level") => {
            "; set wal_level = logical on the source and restart it"
        }
        "57P01" | "57P02" | "57P03" => {
            "; the server restarts or shuts down, Relevo reconnects when it is back"
        }
        _ => match class_of(error) {
            FaultClass::Refused => {
                "; the changes that the target still needs are gone: give slots more room (max_slot_wal_keep_size), and \
                 copy the tables anew: relevo reset, then relevo run"
            }
            _ => "",
        },
    }
}

impl Fault for SourceError {
    fn class(&self) -> FaultClass {
        match self {
            Self::Connect(error) => error.class(),
            Self::Server { error, .. } => class_of(error),
            Self::Io { .. }
            | Self::Closed { .. }
            | Self::Sql { .. }
            | Self::Silent { .. }
            | Self::ShuttingDown
            | Self::SlotActive { .. }
            | Self::Thread { .. } => FaultClass::Transient,
            Self::Standby { .. }
            | Self::FrameLength { .. }
            | Self::BadFrame { .. }
            | Self::Protocol { .. }
            | Self::Decode { .. }
            | Self::Options { .. } => FaultClass::Blocked,
            Self::Held(error) => error.class(),
            Self::Refused(_) => FaultClass::Refused,
            Self::Failed { class, .. } => *class,
        }
    }

    fn side(&self) -> Side {
        Side::Source
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Server { error, .. } if class_of(error) == FaultClass::Refused => "slot_lost",
            Self::Server { error, .. } if about_publication(error) => "publication_missing",
            Self::Server { error, .. } => error.kind(),
            Self::Io { .. } | Self::Closed { .. } | Self::Sql { .. } | Self::Thread { .. } => "source_link",
            Self::FrameLength { .. } | Self::BadFrame { .. } | Self::Protocol { .. } => "source_protocol",
            Self::Decode { .. } => "decode",
            Self::Held(error) => error.kind(),
            Self::Options { .. } => "source_options",
            Self::Silent { .. } => "source_silent",
            Self::ShuttingDown => "source_shutdown",
            Self::SlotActive { .. } => "slot_active",
            Self::Standby { .. } => "source_standby",
            Self::Refused(refusal) => refusal.kind(),
            Self::Failed { kind, .. } => kind,
        }
    }
}
