//! Row changes and the transactions that carry them.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Relation, SourceLsn, Timestamp};

/// A transaction id on the source (32 bits, as the protocol sends it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub u32);

/// One value of a row. Its bytes are the server's own and are passed on untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// An unchanged out-of-line (TOAST) value that the source did not send. Never the same thing as NULL.
    Unchanged,
    /// The value in its type's text format.
    Text(Bytes),
    /// The value in its type's binary format.
    Binary(Bytes),
}

impl Cell {
    /// The bytes that this value occupies in memory, roughly: what the memory bounds count.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let value = match self {
            Cell::Null | Cell::Unchanged => 0,
            Cell::Text(bytes) | Cell::Binary(bytes) => bytes.len(),
        };
        size_of::<Self>() + value
    }
}

/// The cells of one row, in the order of the relation's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(pub Vec<Cell>);

impl Row {
    /// The bytes that the row occupies in memory, roughly.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.0.iter().map(Cell::size_bytes).sum::<usize>()
    }
}

/// What the source says of a row as it was before an update or delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldRow {
    /// `K`: the identity columns; every other cell is [`Cell::Null`] and says nothing.
    Key(Row),
    /// `O`: every column (REPLICA IDENTITY FULL).
    Full(Row),
}

impl OldRow {
    /// The cells, whichever kind it is.
    #[must_use]
    pub fn row(&self) -> &Row {
        match self {
            OldRow::Key(row) | OldRow::Full(row) => row,
        }
    }
}

/// One change of a transaction, in the order in which the source made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new row.
    Insert {
        /// The table.
        relation: Arc<Relation>,
        /// The row; no cell is [`Cell::Unchanged`].
        new: Row,
    },
    /// A changed row.
    Update {
        /// The table.
        relation: Arc<Relation>,
        /// The old row: present when the identity changed or is FULL. Without it, the identity columns of
        /// `new` identify the row.
        old: Option<OldRow>,
        /// The row as it is now.
        new: Row,
    },
    /// A deleted row.
    Delete {
        /// The table.
        relation: Arc<Relation>,
        /// Which row.
        old: OldRow,
    },
    /// Emptied tables. Every table that the source truncated with one command is listed.
    Truncate {
        /// The tables.
        relations: Vec<Arc<Relation>>,
        /// `CASCADE` was given on the source. The tables it reached are already in `relations`.
        cascade: bool,
        /// `RESTART IDENTITY` was given.
        restart_identity: bool,
    },
    /// A logical message (`pg_logical_emit_message`). It changes no table.
    Message {
        /// Where the message stands in the WAL.
        lsn: SourceLsn,
        /// Whether it belongs to the transaction around it.
        transactional: bool,
        /// The prefix that its writer chose.
        prefix: String,
        /// The content.
        content: Bytes,
    },
}

impl Change {
    /// The bytes that the change occupies in memory, roughly: what batches and memory bounds count.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let rows = match self {
            Change::Insert { new, .. } => new.size_bytes(),
            Change::Update { old, new, .. } => {
                new.size_bytes() + old.as_ref().map_or(0, |old| old.row().size_bytes())
            }
            Change::Delete { old, .. } => old.row().size_bytes(),
            Change::Truncate { relations, .. } => relations.len() * size_of::<Arc<Relation>>(),
            Change::Message { prefix, content, .. } => prefix.len() + content.len(),
        };
        size_of::<Self>() + rows
    }
}

/// Where a transaction came from when it was itself replicated to the source (the protocol's Origin message).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The origin's name on the source.
    pub name: String,
    /// The commit LSN on the server where the transaction began. It is a position of neither end of this
    /// flow, so it has neither LSN type.
    pub commit_lsn: u64,
}

/// What is known of a transaction before its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionHeader {
    /// The transaction id on the source.
    pub xid: Xid,
    /// The LSN of the commit record (its start): the transaction's place in the commit order.
    pub commit_lsn: SourceLsn,
    /// When the source committed it, by the source's clock.
    pub commit_time: Timestamp,
    /// The replication origin, when the transaction did not begin on the source.
    pub origin: Option<Origin>,
}
