//! What lies around the flow: the databases that take part, the last hand-overs, the last comparison. As documents, and as
//! whoever finds it out tells the board.

use std::time::Duration;

use relevo_model::{Side, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Role, SlotStatus, TableProgress};

/// How it is known when a database was last heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is this side of the flow.
    Side(Side),
    /// So long ago.
    Ago(Duration),
    /// Never.
    Never,
}

/// A database that takes part, as whoever has looked tells the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSight {
    /// See [`NodeStatus::name`].
    pub name: String,
    /// See [`NodeStatus::place`].
    pub place: String,
    /// See [`NodeStatus::role`].
    pub role: Option<Role>,
    /// See [`NodeStatus::epoch`].
    pub epoch: Option<u64>,
    /// See [`NodeStatus::here`].
    pub here: bool,
    /// See [`NodeStatus::source`].
    pub source: Option<String>,
    /// When it was last heard from.
    pub heard: Heard,
    /// See [`NodeStatus::reader`].
    pub reader: Option<ReaderStatus>,
}

/// A database that takes part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's name; `source` or `target` without a configuration file.
    pub name: String,
    /// Where it is: hosts with ports, and the database. No secret.
    pub place: String,
    /// The role that it has; `null`: nobody has said.
    pub role: Option<Role>,
    /// The last epoch that it knew of; `null`: not known.
    pub epoch: Option<u64>,
    /// This Relevo stands beside it.
    pub here: bool,
    /// Which of these databases it follows, as far as this Relevo knows; `null`: none, or another Relevo knows.
    pub source: Option<String>,
    /// Seconds since it was heard from; `null`: never.
    pub silent_seconds: Option<f64>,
    /// How it reads from the primary; only the Relevo beside the primary knows.
    pub reader: Option<ReaderStatus>,
}

/// How a standby reads from the primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderStatus {
    /// It reads now.
    pub active: bool,
    /// Its slot on the primary.
    pub slot: SlotStatus,
}

/// A hand-over that this node took part in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverStatus {
    /// The same on every node.
    pub id: String,
    /// `init`, `switchover`, `failover`, `rejoin` or `fence`.
    pub kind: String,
    /// `running`, `done` or `rolled back`.
    pub state: String,
    /// The epoch that it led to, or was to lead to.
    pub epoch: u64,
    /// Who had the role before.
    pub from: Option<String>,
    /// Who was to have it.
    pub to: String,
    /// Who asked.
    pub requested_by: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
    /// For how many milliseconds nobody could write.
    pub pause_ms: Option<i64>,
    /// What may be missing.
    pub loss: Option<String>,
}

/// What the last comparisons of both sides have said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationStatus {
    /// The oldest of the tables' last comparisons, RFC 3339; `null` while a table was never compared.
    pub at: Option<String>,
    /// Rows that differed and were not mended; `null` when nothing was ever compared.
    pub differences: Option<u64>,
}

/// The document of `/api/tables`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesSnapshot {
    /// Every table of the flow, by name.
    pub tables: Vec<TableProgress>,
}

/// When a node was heard from, in the board's time.
#[derive(Debug, Clone, Copy)]
enum HeardAt {
    Side(Side),
    At(Option<Timestamp>),
}

/// A node, and when it was heard from.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    sight: NodeSight,
    heard: HeardAt,
}

impl Known {
    pub(crate) fn new(sight: NodeSight, now: Timestamp) -> Self {
        let heard = match sight.heard {
            Heard::Side(side) => HeardAt::Side(side),
            Heard::Ago(ago) => {
                let ago_us = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
                HeardAt::At(Some(Timestamp::from_postgres_us(now.postgres_us().saturating_sub(ago_us))))
            }
            Heard::Never => HeardAt::At(None),
        };
        Self { sight, heard }
    }

    /// `silent_seconds`: of a side of the flow.
    pub(crate) fn status(&self, now: Timestamp, silent_seconds: impl Fn(Side) -> Option<f64>) -> NodeStatus {
        let NodeSight { name, place, role, epoch, here, source, reader, .. } = self.sight.clone();
        let silent_seconds = match self.heard {
            HeardAt::Side(side) => silent_seconds(side),
            HeardAt::At(at) => at.map(|at| now.seconds_since(at)),
        };
        NodeStatus { name, place, role, epoch, here, source, silent_seconds, reader }
    }
}
