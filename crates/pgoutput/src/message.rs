//! The messages as values: one variant for each message of the manual's *Logical Replication Message Formats*.
//!
//! A message holds exactly what its bytes say, nothing more and nothing less, so that encoding it gives the
//! same bytes again. What follows from several messages (a relation's columns for its rows) is not here.

use bytes::Bytes;
use relevo_model::{OldRow, RelationId, ReplicaIdentity, Row, SourceLsn, Timestamp, Xid};

/// One message of `pgoutput`.
///
/// `xid` in a message that can stand inside a stream block is the (sub)transaction that it belongs to: `Some`
/// exactly when the message stands between a [`Message::StreamStart`] and its [`Message::StreamStop`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `B`: a committed transaction begins.
    Begin {
        /// The LSN of its commit record.
        final_lsn: SourceLsn,
        /// When it committed.
        commit_time: Timestamp,
        /// Its id.
        xid: Xid,
    },
    /// `C`: the transaction ends.
    Commit {
        /// The LSN of the commit record: Begin's `final_lsn`.
        commit_lsn: SourceLsn,
        /// Where the commit record ends.
        end_lsn: SourceLsn,
        /// When it committed.
        commit_time: Timestamp,
    },
    /// `O`: the transaction was itself replicated to the source.
    Origin {
        /// The commit LSN on the server where it began: a position of neither end of this flow.
        /// 0 for a streamed transaction.
        commit_lsn: u64,
        /// The origin's name.
        name: String,
    },
    /// `R`: a table's columns, before the first change of it and again whenever they may have changed.
    Relation {
        /// See [`Message`].
        xid: Option<Xid>,
        /// The table.
        relation: RelationDescription,
    },
    /// `Y`: the name of a type that is not built in.
    Type {
        /// See [`Message`].
        xid: Option<Xid>,
        /// The type's OID, as the columns name it.
        type_oid: u32,
        /// The schema as sent: empty stands for `pg_catalog`.
        namespace: String,
        /// The name (of a domain: that of its base type).
        name: String,
    },
    /// `I`: an inserted row.
    Insert {
        /// See [`Message`].
        xid: Option<Xid>,
        /// The table.
        relation: RelationId,
        /// The row.
        new: Row,
    },
    /// `U`: an updated row.
    Update {
        /// See [`Message`].
        xid: Option<Xid>,
        /// The table.
        relation: RelationId,
        /// `K`, `O` or neither.
        old: Option<OldRow>,
        /// The row as it is now.
        new: Row,
    },
    /// `D`: a deleted row.
    Delete {
        /// See [`Message`].
        xid: Option<Xid>,
        /// The table.
        relation: RelationId,
        /// `K` or `O`.
        old: OldRow,
    },
    /// `T`: emptied tables.
    Truncate {
        /// See [`Message`].
        xid: Option<Xid>,
        /// `CASCADE` was given.
        cascade: bool,
        /// `RESTART IDENTITY` was given.
        restart_identity: bool,
        /// The tables.
        relations: Vec<RelationId>,
    },
    /// `M`: a message of `pg_logical_emit_message`.
    Logical {
        /// See [`Message`].
        xid: Option<Xid>,
        /// Whether it belongs to a transaction.
        transactional: bool,
        /// Where it stands in the WAL.
        lsn: SourceLsn,
        /// The prefix that its writer chose.
        prefix: String,
        /// The content.
        content: Bytes,
    },
    /// `S`: a block of a running transaction begins.
    StreamStart {
        /// The top-level transaction.
        xid: Xid,
        /// Whether this is its first block.
        first_segment: bool,
    },
    /// `E`: the block ends.
    StreamStop,
    /// `c`: a streamed transaction has committed.
    StreamCommit {
        /// The top-level transaction.
        xid: Xid,
        /// The LSN of its commit record.
        commit_lsn: SourceLsn,
        /// Where the commit record ends.
        end_lsn: SourceLsn,
        /// When it committed.
        commit_time: Timestamp,
    },
    /// `A`: a streamed transaction, or a subtransaction of one, was rolled back.
    StreamAbort {
        /// The top-level transaction.
        xid: Xid,
        /// What was rolled back: `xid` itself or a subtransaction.
        subxid: Xid,
        /// Where and when; sent exactly when [`Format::abort_point`](crate::Format::abort_point) says so.
        at: Option<AbortPoint>,
    },
    /// `b`: a prepared transaction begins.
    BeginPrepare(Prepared),
    /// `P`: the prepared transaction ends.
    Prepare(Prepared),
    /// `K`: a prepared transaction has committed.
    CommitPrepared {
        /// The LSN of the commit record.
        commit_lsn: SourceLsn,
        /// Where the commit record ends.
        end_lsn: SourceLsn,
        /// When it committed.
        commit_time: Timestamp,
        /// Its id.
        xid: Xid,
        /// The name that `PREPARE TRANSACTION` gave it.
        gid: String,
    },
    /// `r`: a prepared transaction was rolled back.
    RollbackPrepared {
        /// Where the prepare record ends.
        prepare_end_lsn: SourceLsn,
        /// Where the rollback record ends.
        rollback_end_lsn: SourceLsn,
        /// When it was prepared.
        prepare_time: Timestamp,
        /// When it was rolled back.
        rollback_time: Timestamp,
        /// Its id.
        xid: Xid,
        /// The name that `PREPARE TRANSACTION` gave it.
        gid: String,
    },
    /// `p`: a streamed transaction was prepared.
    StreamPrepare(Prepared),
}

/// What Begin Prepare, Prepare and Stream Prepare say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The LSN of the prepare record.
    pub prepare_lsn: SourceLsn,
    /// Where the prepare record ends.
    pub end_lsn: SourceLsn,
    /// When it was prepared.
    pub prepare_time: Timestamp,
    /// Its id.
    pub xid: Xid,
    /// The name that `PREPARE TRANSACTION` gave it.
    pub gid: String,
}

/// Where and when a streamed transaction was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortPoint {
    /// The LSN of the abort record.
    pub lsn: SourceLsn,
    /// When.
    pub time: Timestamp,
}

/// A table as a Relation message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationDescription {
    /// The OID on the source.
    pub id: RelationId,
    /// The schema as sent: empty stands for `pg_catalog`.
    pub namespace: String,
    /// The table's name.
    pub name: String,
    /// How old rows are identified.
    pub replica_identity: ReplicaIdentity,
    /// The published columns.
    pub columns: Vec<ColumnDescription>,
}

/// A column as a Relation message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDescription {
    /// Whether the column is part of the replica identity.
    pub identity: bool,
    /// The name.
    pub name: String,
    /// The OID of the type on the source.
    pub type_oid: u32,
    /// The type modifier (`atttypmod`), -1 when there is none.
    pub type_modifier: i32,
}

/// The tags that begin the messages, as `logicalproto.h` (`LogicalRepMsgType`) names them.
pub(crate) mod tag {
    pub(crate) const BEGIN: u8 = b'B';
    pub(crate) const COMMIT: u8 = b'C';
    pub(crate) const ORIGIN: u8 = b'O';
    pub(crate) const RELATION: u8 = b'R';
    pub(crate) const TYPE: u8 = b'Y';
    pub(crate) const INSERT: u8 = b'I';
    pub(crate) const UPDATE: u8 = b'U';
    pub(crate) const DELETE: u8 = b'D';
    pub(crate) const TRUNCATE: u8 = b'T';
    pub(crate) const LOGICAL: u8 = b'M';
    pub(crate) const STREAM_START: u8 = b'S';
    pub(crate) const STREAM_STOP: u8 = b'E';
    pub(crate) const STREAM_COMMIT: u8 = b'c';
    pub(crate) const STREAM_ABORT: u8 = b'A';
    pub(crate) const BEGIN_PREPARE: u8 = b'b';
    pub(crate) const PREPARE: u8 = b'P';
    pub(crate) const COMMIT_PREPARED: u8 = b'K';
    pub(crate) const ROLLBACK_PREPARED: u8 = b'r';
    pub(crate) const STREAM_PREPARE: u8 = b'p';

    /// The manual's name for the message that begins with this tag.
    pub(crate) const fn name(tag: u8) -> Option<&'static str> {
        Some(match tag {
            BEGIN => "Begin",
            COMMIT => "Commit",
            ORIGIN => "Origin",
            RELATION => "Relation",
            TYPE => "Type",
            INSERT => "Insert",
            UPDATE => "Update",
            DELETE => "Delete",
            TRUNCATE => "Truncate",
            LOGICAL => "Message",
            STREAM_START => "Stream Start",
            STREAM_STOP => "Stream Stop",
            STREAM_COMMIT => "Stream Commit",
            STREAM_ABORT => "Stream Abort",
            BEGIN_PREPARE => "Begin Prepare",
            PREPARE => "Prepare",
            COMMIT_PREPARED => "Commit Prepared",
            ROLLBACK_PREPARED => "Rollback Prepared",
            STREAM_PREPARE => "Stream Prepare",
            _ => return None,
        })
    }
}

impl Message {
    /// The byte that the message begins with.
    #[must_use]
    pub const fn tag(&self) -> u8 {
        match self {
            Message::Begin { .. } => tag::BEGIN,
            Message::Commit { .. } => tag::COMMIT,
            Message::Origin { .. } => tag::ORIGIN,
            Message::Relation { .. } => tag::RELATION,
            Message::Type { .. } => tag::TYPE,
            Message::Insert { .. } => tag::INSERT,
            Message::Update { .. } => tag::UPDATE,
            Message::Delete { .. } => tag::DELETE,
            Message::Truncate { .. } => tag::TRUNCATE,
            Message::Logical { .. } => tag::LOGICAL,
            Message::StreamStart { .. } => tag::STREAM_START,
            Message::StreamStop => tag::STREAM_STOP,
            Message::StreamCommit { .. } => tag::STREAM_COMMIT,
            Message::StreamAbort { .. } => tag::STREAM_ABORT,
            Message::BeginPrepare(_) => tag::BEGIN_PREPARE,
            Message::Prepare(_) => tag::PREPARE,
            Message::CommitPrepared { .. } => tag::COMMIT_PREPARED,
            Message::RollbackPrepared { .. } => tag::ROLLBACK_PREPARED,
            Message::StreamPrepare(_) => tag::STREAM_PREPARE,
        }
    }

    /// The manual's name for this kind of message.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match tag::name(self.tag()) {
            Some(name) => name,
            None => "unknown",
        }
    }

    /// The (sub)transaction that a message inside a stream block belongs to.
    #[must_use]
    pub const fn stream_xid(&self) -> Option<Xid> {
        match self {
            Message::Relation { xid, .. }
            | Message::Type { xid, .. }
            | Message::Insert { xid, .. }
            | Message::Update { xid, .. }
            | Message::Delete { xid, .. }
            | Message::Truncate { xid, .. }
            | Message::Logical { xid, .. } => *xid,
            _ => None,
        }
    }

    /// The message as it stands inside a stream block of (sub)transaction `subxid`; unchanged when it is of a kind
    /// that says nothing of its transaction there.
    #[must_use]
    pub fn in_stream_of(mut self, subxid: Xid) -> Self {
        if let Message::Relation { xid, .. }
        | Message::Type { xid, .. }
        | Message::Insert { xid, .. }
        | Message::Update { xid, .. }
        | Message::Delete { xid, .. }
        | Message::Truncate { xid, .. }
        | Message::Logical { xid, .. } = &mut self
        {
            *xid = Some(subxid);
        }
        self
    }
}
