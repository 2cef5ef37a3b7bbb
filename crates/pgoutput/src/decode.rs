//! From bytes to messages. Total: any bytes give a message or an error, never a panic.
//!
//! The fields are those of the manual's *Logical Replication Message Formats*, in the order in which
//! `src/backend/replication/logical/proto.c` writes them. Whether a message may come *now* is not judged
//! here; the assembler does that.

use bytes::Bytes;
use relevo_model::{Cell, OldRow, RelationId, ReplicaIdentity, Row, Xid};

use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeProblem};
use crate::format::{Format, Protocol};
use crate::message::{AbortPoint, ColumnDescription, Message, Prepared, RelationDescription, tag};

type Result<T> = std::result::Result<T, DecodeError>;

/// Decodes the messages of one connection in their order.
///
/// It remembers one thing: whether it is inside a stream block, where changes carry a transaction id.
#[derive(Debug, Clone)]
pub struct Decoder {
    format: Format,
    in_stream: bool,
}

impl Decoder {
    /// A decoder for a connection that has just been started with these settings.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format, in_stream: false }
    }

    /// What the connection was started with.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether the next message stands inside a stream block.
    #[must_use]
    pub const fn in_stream(&self) -> bool {
        self.in_stream
    }

    /// Decodes the next message.
    ///
    /// # Errors
    /// The frame is not exactly one message of the agreed protocol. The decoder's state is unchanged then.
    pub fn decode(&mut self, frame: &Bytes) -> Result<Message> {
        let message = decode(frame, self.format, self.in_stream)?;
        match message {
            Message::StreamStart { .. } => self.in_stream = true,
            Message::StreamStop => self.in_stream = false,
            _ => {}
        }
        Ok(message)
    }
}

/// Decodes one message: the payload of an `XLogData` message. `in_stream`: whether it stands between a Stream
/// Start and its Stream Stop. Values are slices of `frame`; their bytes are not copied.
///
/// # Errors
/// The frame is not exactly one message of the agreed protocol.
pub fn decode(frame: &Bytes, format: Format, in_stream: bool) -> Result<Message> {
    let mut cursor = Cursor::new(frame);
    let tag = cursor.u8("the message's tag")?;
    let since = match tag {
        tag::STREAM_START | tag::STREAM_STOP | tag::STREAM_COMMIT | tag::STREAM_ABORT => Protocol::V2,
        tag::BEGIN_PREPARE
        | tag::PREPARE
        | tag::COMMIT_PREPARED
        | tag::ROLLBACK_PREPARED
        | tag::STREAM_PREPARE => Protocol::V3,
        _ => Protocol::V1,
    };
    if format.protocol < since {
        let problem = DecodeProblem::LaterProtocol { since, agreed: format.protocol };
        return Err(cursor.error_at(0, problem));
    }
    let message = match tag {
        tag::RELATION
        | tag::TYPE
        | tag::INSERT
        | tag::UPDATE
        | tag::DELETE
        | tag::TRUNCATE
        | tag::LOGICAL => {
            let xid = if in_stream { Some(cursor.xid("the transaction id")?) } else { None };
            content(&mut cursor, tag, xid)?
        }
        tag::BEGIN_PREPARE
        | tag::PREPARE
        | tag::COMMIT_PREPARED
        | tag::ROLLBACK_PREPARED
        | tag::STREAM_PREPARE => two_phase(&mut cursor, tag)?,
        _ => frame_of_transaction(&mut cursor, tag, format)?,
    };
    cursor.finish()?;
    Ok(message)
}

/// The messages around the changes of a transaction.
fn frame_of_transaction(cursor: &mut Cursor<'_>, tag: u8, format: Format) -> Result<Message> {
    Ok(match tag {
        tag::BEGIN => Message::Begin {
            final_lsn: cursor.lsn("the final LSN")?,
            commit_time: cursor.time("the commit time")?,
            xid: cursor.xid("the transaction id")?,
        },
        tag::COMMIT => {
            no_flags(cursor)?;
            Message::Commit {
                commit_lsn: cursor.lsn("the commit LSN")?,
                end_lsn: cursor.lsn("the end LSN")?,
                commit_time: cursor.time("the commit time")?,
            }
        }
        tag::ORIGIN => Message::Origin {
            commit_lsn: cursor.u64("the origin's commit LSN")?,
            name: cursor.text("the origin's name")?,
        },
        tag::STREAM_START => Message::StreamStart {
            xid: cursor.xid("the transaction id")?,
            first_segment: cursor.one_of("the first-segment flag", "0 or 1", |byte| match byte {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            })?,
        },
        tag::STREAM_STOP => Message::StreamStop,
        tag::STREAM_COMMIT => {
            let xid = cursor.xid("the transaction id")?;
            no_flags(cursor)?;
            Message::StreamCommit {
                xid,
                commit_lsn: cursor.lsn("the commit LSN")?,
                end_lsn: cursor.lsn("the end LSN")?,
                commit_time: cursor.time("the commit time")?,
            }
        }
        tag::STREAM_ABORT => Message::StreamAbort {
            xid: cursor.xid("the transaction id")?,
            subxid: cursor.xid("the subtransaction's id")?,
            at: if format.abort_point() {
                Some(AbortPoint { lsn: cursor.lsn("the abort LSN")?, time: cursor.time("the abort time")? })
            } else {
                None
            },
        },
        found => return Err(cursor.error_at(0, DecodeProblem::UnknownTag { found })),
    })
}

/// The messages that can also stand inside a stream block, behind their transaction id.
fn content(cursor: &mut Cursor<'_>, tag: u8, xid: Option<Xid>) -> Result<Message> {
    Ok(match tag {
        tag::RELATION => Message::Relation { xid, relation: relation(cursor)? },
        tag::TYPE => Message::Type {
            xid,
            type_oid: cursor.u32("the type's OID")?,
            namespace: cursor.text("the type's schema")?,
            name: cursor.text("the type's name")?,
        },
        tag::INSERT => {
            let relation = relation_id(cursor)?;
            cursor.one_of("the tuple's letter", "'N'", |byte| (byte == b'N').then_some(()))?;
            Message::Insert { xid, relation, new: row(cursor)? }
        }
        tag::UPDATE => update(cursor, xid)?,
        tag::DELETE => {
            let relation = relation_id(cursor)?;
            let letter = cursor.one_of("the tuple's letter", "'K' or 'O'", |byte| match byte {
                b'K' | b'O' => Some(byte),
                _ => None,
            })?;
            let old = row(cursor)?;
            Message::Delete {
                xid,
                relation,
                old: if letter == b'K' { OldRow::Key(old) } else { OldRow::Full(old) },
            }
        }
        tag::TRUNCATE => truncate(cursor, xid)?,
        tag::LOGICAL => {
            let transactional = cursor.one_of("the flags", "0 or 1 (transactional)", |byte| match byte {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            })?;
            let lsn = cursor.lsn("the message's LSN")?;
            let prefix = cursor.text("the message's prefix")?;
            let length = cursor.length("the length of the message's content")?;
            let content = cursor.bytes("the message's content", length)?;
            Message::Logical { xid, transactional, lsn, prefix, content }
        }
        found => return Err(cursor.error_at(0, DecodeProblem::UnknownTag { found })),
    })
}

fn two_phase(cursor: &mut Cursor<'_>, tag: u8) -> Result<Message> {
    if tag != tag::BEGIN_PREPARE {
        no_flags(cursor)?;
    }
    Ok(match tag {
        tag::BEGIN_PREPARE => Message::BeginPrepare(prepared(cursor)?),
        tag::PREPARE => Message::Prepare(prepared(cursor)?),
        tag::STREAM_PREPARE => Message::StreamPrepare(prepared(cursor)?),
        tag::COMMIT_PREPARED => Message::CommitPrepared {
            commit_lsn: cursor.lsn("the commit LSN")?,
            end_lsn: cursor.lsn("the end LSN")?,
            commit_time: cursor.time("the commit time")?,
            xid: cursor.xid("the transaction id")?,
            gid: cursor.text("the prepared transaction's name")?,
        },
        tag::ROLLBACK_PREPARED => Message::RollbackPrepared {
            prepare_end_lsn: cursor.lsn("the end LSN of the prepare")?,
            rollback_end_lsn: cursor.lsn("the end LSN of the rollback")?,
            prepare_time: cursor.time("the prepare time")?,
            rollback_time: cursor.time("the rollback time")?,
            xid: cursor.xid("the transaction id")?,
            gid: cursor.text("the prepared transaction's name")?,
        },
        found => return Err(cursor.error_at(0, DecodeProblem::UnknownTag { found })),
    })
}

fn prepared(cursor: &mut Cursor<'_>) -> Result<Prepared> {
    Ok(Prepared {
        prepare_lsn: cursor.lsn("the prepare LSN")?,
        end_lsn: cursor.lsn("the end LSN")?,
        prepare_time: cursor.time("the prepare time")?,
        xid: cursor.xid("the transaction id")?,
        gid: cursor.text("the prepared transaction's name")?,
    })
}

/// A byte of flags of which none has a meaning yet.
fn no_flags(cursor: &mut Cursor<'_>) -> Result<()> {
    cursor.one_of("the flags", "0", |byte| (byte == 0).then_some(()))
}

fn relation_id(cursor: &mut Cursor<'_>) -> Result<RelationId> {
    cursor.u32("the relation's OID").map(RelationId)
}

fn relation(cursor: &mut Cursor<'_>) -> Result<RelationDescription> {
    /// Flags, the NUL of the name, type and modifier.
    const LEAST_COLUMN_BYTES: usize = 10;
    let id = relation_id(cursor)?;
    let namespace = cursor.text("the relation's schema")?;
    let name = cursor.text("the relation's name")?;
    let replica_identity =
        cursor.one_of("the replica identity", "'d', 'n', 'f' or 'i'", |byte| match byte {
            b'd' => Some(ReplicaIdentity::Default),
            b'n' => Some(ReplicaIdentity::Nothing),
            b'f' => Some(ReplicaIdentity::Full),
            b'i' => Some(ReplicaIdentity::Index),
            _ => None,
        })?;
    let count = cursor.count16("the number of columns", LEAST_COLUMN_BYTES)?;
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        columns.push(ColumnDescription {
            identity: cursor.one_of("the column's flags", "0 or 1 (identity)", |byte| match byte {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            })?,
            name: cursor.text("the column's name")?,
            type_oid: cursor.u32("the OID of the column's type")?,
            type_modifier: cursor.i32("the column's type modifier")?,
        });
    }
    Ok(RelationDescription { id, namespace, name, replica_identity, columns })
}

fn update(cursor: &mut Cursor<'_>, xid: Option<Xid>) -> Result<Message> {
    let relation = relation_id(cursor)?;
    let letter = cursor.one_of("the tuple's letter", "'K', 'O' or 'N'", |byte| match byte {
        b'K' | b'O' | b'N' => Some(byte),
        _ => None,
    })?;
    let old = match letter {
        b'K' => Some(OldRow::Key(row(cursor)?)),
        b'O' => Some(OldRow::Full(row(cursor)?)),
        _ => None,
    };
    if old.is_some() {
        cursor.one_of("the new tuple's letter", "'N'", |byte| (byte == b'N').then_some(()))?;
    }
    Ok(Message::Update { xid, relation, old, new: row(cursor)? })
}

fn truncate(cursor: &mut Cursor<'_>, xid: Option<Xid>) -> Result<Message> {
    const CASCADE: u8 = 1;
    const RESTART_IDENTITY: u8 = 2;
    let offset = cursor.position();
    let count = cursor.length("the number of relations")?;
    let flags = cursor.one_of("the options", "a sum of 1 (CASCADE) and 2 (RESTART IDENTITY)", |byte| {
        (byte <= CASCADE | RESTART_IDENTITY).then_some(byte)
    })?;
    let count = cursor.check_count(offset, "the number of relations", count, size_of::<u32>())?;
    let mut relations = Vec::with_capacity(count);
    for _ in 0..count {
        relations.push(relation_id(cursor)?);
    }
    Ok(Message::Truncate {
        xid,
        cascade: flags & CASCADE != 0,
        restart_identity: flags & RESTART_IDENTITY != 0,
        relations,
    })
}

/// The manual's `TupleData`.
fn row(cursor: &mut Cursor<'_>) -> Result<Row> {
    let count = cursor.count16("the number of values", 1)?;
    let mut cells = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = cursor.one_of("the value's kind", "'n', 'u', 't' or 'b'", |byte| match byte {
            b'n' | b'u' | b't' | b'b' => Some(byte),
            _ => None,
        })?;
        cells.push(match kind {
            b'n' => Cell::Null,
            b'u' => Cell::Unchanged,
            _ => {
                let length = cursor.length("the value's length")?;
                let value = cursor.bytes("the value", length)?;
                if kind == b't' { Cell::Text(value) } else { Cell::Binary(value) }
            }
        });
    }
    Ok(Row(cells))
}
