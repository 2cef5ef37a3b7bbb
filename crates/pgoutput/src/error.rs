//! What can be wrong with the bytes, and with the order of the messages.

use std::error::Error;
use std::fmt;
use std::str::Utf8Error;

use relevo_model::{Fault, FaultClass, RelationId, Side, SourceLsn, Xid};

use crate::format::Protocol;
use crate::message::tag;

/// A frame is not a message of the agreed protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// The frame's first byte; `None` for an empty frame.
    pub tag: Option<u8>,
    /// The byte of the frame (from 0, the tag) where the offending field begins.
    pub offset: usize,
    /// What is wrong there.
    pub problem: DecodeProblem,
}

/// What is wrong with a field of a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeProblem {
    /// The frame ends too early.
    #[error("expected {field} in {needed_bytes} bytes, but only {left_bytes} are left in the frame")]
    Truncated {
        /// The field.
        field: &'static str,
        /// The bytes that it (or what it counts) takes.
        needed_bytes: usize,
        /// The bytes that are there.
        left_bytes: usize,
    },
    /// No message begins with this tag.
    #[error("expected the tag of a logical replication message, found {}", Byte(*.found))]
    UnknownTag {
        /// The tag.
        found: u8,
    },
    /// The message exists, but not in the protocol that was asked for.
    #[error("expected a message of protocol {agreed}, found one that exists since protocol {since}")]
    LaterProtocol {
        /// The first version that has the message.
        since: Protocol,
        /// The version that was asked for.
        agreed: Protocol,
    },
    /// A flag or letter has no meaning.
    #[error("expected {expected} as {field}, found {}", Byte(*.found))]
    Unexpected {
        /// The field.
        field: &'static str,
        /// The byte.
        found: u8,
        /// The bytes that have a meaning.
        expected: &'static str,
    },
    /// A length or count is negative.
    #[error("expected 0 or more as {field}, found {found}")]
    NegativeLength {
        /// The field.
        field: &'static str,
        /// The number.
        found: i32,
    },
    /// A string has no NUL at its end.
    #[error("expected {field} as a string that ends with a NUL, but there is none up to the frame's end")]
    Unterminated {
        /// The field.
        field: &'static str,
    },
    /// A name is not UTF-8.
    #[error(
        "expected {field} in UTF-8: the database's encoding cannot be converted (SQL_ASCII?), so give the \
         object a name in plain ASCII"
    )]
    NotUtf8 {
        /// The field.
        field: &'static str,
        /// Where it goes wrong.
        source: Utf8Error,
    },
    /// Something stands behind the last field.
    #[error("expected the frame's end, found {bytes} more bytes")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            None => f.write_str("empty logical replication message")?,
            Some(byte) => {
                write!(f, "logical replication message {}", Byte(byte))?;
                if let Some(name) = tag::name(byte) {
                    write!(f, " ({name})")?;
                }
            }
        }
        write!(f, ", byte {}: {}", self.offset, self.problem)
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// A byte for people: the character when it has one, and the number always.
struct Byte(u8);

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "'{}' (0x{:02x})", char::from(self.0), self.0)
        } else {
            write!(f, "0x{:02x}", self.0)
        }
    }
}

/// A message has no bytes in the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string holds a NUL, which would end it.
    #[error("{field} contains a NUL character: the protocol ends strings with it")]
    Nul {
        /// The field.
        field: &'static str,
    },
    /// A count or length does not fit its field.
    #[error("{field}: {count} do not fit the protocol's field, which ends at {limit}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many.
        count: usize,
        /// How many would fit.
        limit: usize,
    },
}

/// The messages do not make up transactions, or cannot be held.
///
/// None of these passes by itself, and none loses anything: the server sends the transaction again.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A frame could not be decoded.
    #[error("the source sent something that is not a message of the agreed protocol")]
    Decode(#[from] DecodeError),
    /// A message came where it cannot stand.
    #[error("the source sent {message} {place}: expected {expected}")]
    OutOfPlace {
        /// The message's name.
        message: &'static str,
        /// Where it came.
        place: Place,
        /// What can stand there.
        expected: &'static str,
    },
    /// A change of a relation that was never described.
    #[error(
        "the source sent {message} for relation {}, which it has not described: expected a Relation \
         message first", .relation.0
    )]
    UnknownRelation {
        /// The message's name.
        message: &'static str,
        /// The relation's OID on the source.
        relation: RelationId,
    },
    /// A row does not have its table's columns.
    #[error("{message} of table {relation}: expected {expected} values in the {row} row, found {found}")]
    ColumnCount {
        /// The message's name.
        message: &'static str,
        /// The table, for people.
        relation: String,
        /// Which of the rows.
        row: &'static str,
        /// The table's columns.
        expected: usize,
        /// The row's values.
        found: usize,
    },
    /// "Unchanged" stands where there is nothing that it could be unchanged from.
    #[error(
        "{message} of table {relation}: expected a value of column {column} in the {row} row, found \
         \"unchanged\", which only the new row of an Update may have"
    )]
    Unchanged {
        /// The message's name.
        message: &'static str,
        /// The table, for people.
        relation: String,
        /// Which of the rows.
        row: &'static str,
        /// The column.
        column: String,
    },
    /// A commit is not the one that its Begin announced.
    #[error("transaction {} was announced with commit LSN {announced}, but committed at {committed}", .xid.0)]
    CommitMismatch {
        /// The transaction.
        xid: Xid,
        /// Begin's `final_lsn`.
        announced: SourceLsn,
        /// Commit's `commit_lsn`.
        committed: SourceLsn,
    },
    /// A transaction ends before its own commit record, or commits before the end of the one before it.
    #[error(
        "transaction {} commits at {commit_lsn} and ends at {end_lsn}: expected an end behind the commit, and \
         a commit at or behind {previous_end_lsn}, the end of the transaction before it", .xid.0
    )]
    CommitOrder {
        /// The transaction.
        xid: Xid,
        /// Its commit record.
        commit_lsn: SourceLsn,
        /// The end of its commit record.
        end_lsn: SourceLsn,
        /// The end of the previous transaction.
        previous_end_lsn: SourceLsn,
    },
    /// A block, commit or abort of a streamed transaction whose beginning was not seen.
    #[error("the source sent {message} of streamed transaction {}, whose first block it has not sent", .xid.0)]
    UnknownStream {
        /// The message's name.
        message: &'static str,
        /// The top-level transaction.
        xid: Xid,
    },
    /// A first block of a transaction that is being streamed already.
    #[error("the source began to stream transaction {} a second time", .xid.0)]
    StreamedTwice {
        /// The top-level transaction.
        xid: Xid,
    },
    /// A prepared transaction, which is never asked for.
    #[error(
        "the source sent {message} of prepared transaction {gid:?} ({}), though two-phase commit was not \
         asked for: drop the slot and let Relevo create it, without two_phase", .xid.0
    )]
    TwoPhase {
        /// The message's name.
        message: &'static str,
        /// The transaction.
        xid: Xid,
        /// The name that `PREPARE TRANSACTION` gave it.
        gid: String,
    },
    /// What was streamed of running transactions could not be stored, or read back.
    #[error("streamed transaction {} could not be held until its commit", .xid.0)]
    Store {
        /// The top-level transaction.
        xid: Xid,
        /// What the store says.
        source: Box<dyn Error + Send + Sync>,
        /// What can be done about it.
        class: FaultClass,
        /// The store's word for it.
        kind: &'static str,
    },
    /// The caller fed a frame before it took all parts.
    #[error("a frame was fed before all parts of the transaction before it were taken")]
    PartsPending,
    /// The caller went on after an error.
    #[error("nothing can be assembled after an error: connect again, with a new assembler")]
    Failed,
}

/// Where a message came that cannot stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Between transactions.
    Outside,
    /// Between a Begin and its Commit.
    Transaction(Xid),
    /// There, behind the first message that is not an Origin.
    TransactionContent(Xid),
    /// Between a Stream Start and its Stream Stop.
    StreamBlock(Xid),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Outside => f.write_str("outside any transaction"),
            Place::Transaction(xid) => write!(f, "inside transaction {}", xid.0),
            Place::TransactionContent(xid) => write!(f, "behind the first change of transaction {}", xid.0),
            Place::StreamBlock(xid) => write!(f, "inside a stream block of transaction {}", xid.0),
        }
    }
}

impl Fault for AssembleError {
    fn class(&self) -> FaultClass {
        match self {
            AssembleError::Store { class, .. } => *class,
            // The server keeps everything that was not confirmed: a newer Relevo resumes there.
            _ => FaultClass::Blocked,
        }
    }

    fn side(&self) -> Side {
        Side::Source
    }

    fn kind(&self) -> &'static str {
        match self {
            AssembleError::Decode(_) => "decode",
            AssembleError::TwoPhase { .. } => "two_phase",
            AssembleError::Store { kind, .. } => kind,
            AssembleError::PartsPending | AssembleError::Failed => "internal",
            _ => "protocol",
        }
    }
}
