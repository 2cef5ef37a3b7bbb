//! The status document: what `/api/status` and `relevo status --json` hold. Its names are a contract.

use relevo_model::{Side, SourceLsn};
use serde::{Deserialize, Serialize};

use crate::{HandoverStatus, NodeStatus, VerificationStatus};

/// The role that a node has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is written to.
    Primary,
    /// It follows the primary.
    Standby,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Standby];

    /// The word in labels and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// What the flow is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Checking both sides, setting up, or opening connections (again).
    Preparing,
    /// The initial copy.
    Copying,
    /// Changes flow, or would if there were any.
    Streaming,
    /// Held by request.
    Paused,
    /// Ended by request.
    Stopped,
    /// It needs a hand; `state_detail` says which.
    Failed,
}

impl RunState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Preparing, Self::Copying, Self::Streaming, Self::Paused, Self::Stopped, Self::Failed];

    /// The word in labels and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::Streaming => "streaming",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// How far a table has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Not begun.
    Pending,
    /// Its rows are being copied.
    Copying,
    /// Its rows are there, as of the copy's snapshot.
    Copied,
    /// Its changes flow.
    Streaming,
}

impl TableState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Copying, Self::Copied, Self::Streaming];

    /// The word in labels and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Copying => "copying",
            Self::Copied => "copied",
            Self::Streaming => "streaming",
        }
    }
}

/// The slot on the source (`pg_replication_slots`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// `reserved`, `extended`, `unreserved` or `lost`; `null` while it has reserved nothing.
    pub wal_status: Option<String>,
    /// WAL that the source keeps for it, in bytes.
    pub retained_bytes: Option<u64>,
    /// WAL that can still be written before the slot is in danger, in bytes; `null`: there is no limit.
    pub safe_bytes: Option<u64>,
}

/// One table of the initial copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableProgress {
    /// `schema.table`.
    pub name: String,
    /// How far it has come.
    pub state: TableState,
    /// Rows copied.
    pub rows: u64,
    /// Bytes copied, as COPY writes them: text or binary.
    pub bytes: u64,
    /// Its size on the source, in bytes: an estimate of the same order as `bytes`, no more.
    pub total_bytes_estimate: Option<u64>,
}

/// Where the initial copy is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CopyProgress {
    /// What is being done, in a word or two; empty when nothing is.
    pub phase: String,
    /// Rows copied of all tables.
    pub rows: u64,
    /// Bytes copied of all tables, as COPY writes them.
    pub bytes: u64,
    /// The size of all tables on the source, in bytes, as far as it is known.
    pub total_bytes_estimate: Option<u64>,
    /// How fast rows arrive, in bytes a second as COPY writes them; `null`: none do, or it is too early to say.
    pub bytes_per_second: Option<u64>,
    /// How long the rows that are missing will take at this rate, in seconds; indexes and constraints come on top. 0 when
    /// all rows are there; `null`: not known.
    pub remaining_seconds: Option<u64>,
    /// Each table.
    pub tables: Vec<TableProgress>,
}

/// How many tables there are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableCounts {
    /// Copied, or further.
    pub copied: u64,
    /// All.
    pub total: u64,
    /// Tables of the source that the patterns choose and that are not part of the flow: they came later, or were taken
    /// out.
    pub not_added: u64,
}

/// The last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When, RFC 3339.
    pub at: String,
    /// `source` or `target`; `null` when it was neither.
    pub side: Option<String>,
    /// A short stable word for it.
    pub kind: String,
    /// What it said, without secrets.
    pub text: String,
}

/// Everything that is known of a flow at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusSnapshot {
    /// The flow.
    pub name: String,
    /// The node that this process stands next to; `null` without a configuration file.
    pub node: Option<String>,
    /// The role of that node.
    pub role: Role,
    /// The epoch: who is primary is whoever has the highest.
    pub epoch: u64,
    /// What the flow is doing.
    pub state: RunState,
    /// Why, or what next, for people.
    pub state_detail: Option<String>,
    /// Where the source's WAL ended when it was last asked.
    #[serde(with = "lsn")]
    pub source_lsn: Option<SourceLsn>,
    /// In Relevo's memory.
    #[serde(with = "lsn")]
    pub received_lsn: Option<SourceLsn>,
    /// Visible on the target.
    #[serde(with = "lsn")]
    pub applied_lsn: Option<SourceLsn>,
    /// Stored and flushed on the target.
    #[serde(with = "lsn")]
    pub durable_lsn: Option<SourceLsn>,
    /// `source_lsn − applied_lsn`; `null` until both are known.
    pub lag_bytes: Option<u64>,
    /// How far behind the target is; 0 when caught up.
    pub lag_seconds: f64,
    /// Seconds since the source was heard from; `null`: never.
    pub source_silent_seconds: Option<f64>,
    /// Seconds since the target was heard from; `null`: never.
    pub target_silent_seconds: Option<f64>,
    /// The slot; `null` until it is known.
    pub slot: Option<SlotStatus>,
    /// The tables.
    pub tables: TableCounts,
    /// How many errors there were since this process started, each missing row counted.
    pub errors: u64,
    /// The last of them.
    pub last_error: Option<LastError>,
    /// Transactions applied since this process started.
    pub transactions_applied: u64,
    /// Rows and truncations applied since this process started.
    pub changes_applied: u64,
    /// What is held in memory, in bytes.
    pub buffer_bytes: u64,
    /// The initial copy; `null` when none was made by this process.
    pub copy: Option<CopyProgress>,
    /// The databases that take part, as far as they are known.
    pub nodes: Vec<NodeStatus>,
    /// The last hand-overs that this node took part in, the newest first.
    pub handovers: Vec<HandoverStatus>,
    /// What the last comparisons of both sides have said; `null` until that was looked up.
    pub verification: Option<VerificationStatus>,
    /// How many errors are written down in the target's `relevo.error`; `null` until that was looked up.
    pub queued_errors: Option<u64>,
    /// Seconds since the main loop last went round: when it stands still, nothing here can be believed.
    pub heartbeat_age_seconds: f64,
    /// When this was said, RFC 3339, by Relevo's clock.
    pub at: String,
    /// Relevo's version.
    pub version: String,
    /// When this process started, RFC 3339.
    pub started_at: String,
}

/// The word for a side.
pub(crate) const fn side_label(side: Side) -> &'static str {
    match side {
        Side::Source => "source",
        Side::Target => "target",
    }
}

/// Positions are text such as `16/B374D848`, or null.
mod lsn {
    use relevo_model::SourceLsn;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub fn serialize<S: Serializer>(lsn: &Option<SourceLsn>, serializer: S) -> Result<S::Ok, S::Error> {
        match lsn {
            Some(lsn) => serializer.collect_str(lsn),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SourceLsn>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
