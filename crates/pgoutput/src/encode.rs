//! From messages to bytes: the exact inverse of the decoder, so that each is a test of the other and tests
//! elsewhere can play the server.

use bytes::{BufMut, Bytes, BytesMut};
use relevo_model::{Cell, OldRow, ReplicaIdentity, Row, Xid};

use crate::error::EncodeError;
use crate::message::{Message, Prepared, RelationDescription};

type Result<T> = std::result::Result<T, EncodeError>;

/// The bytes of a message, as the server would send them.
///
/// # Errors
/// The message holds something that the protocol has no bytes for: a name with a NUL, too many columns.
pub fn encode(message: &Message) -> Result<Bytes> {
    let mut out = BytesMut::new();
    encode_into(message, &mut out)?;
    Ok(out.freeze())
}

/// Appends the bytes of a message. After an error, what was appended is not a message.
///
/// # Errors
/// As [`encode`].
pub fn encode_into(message: &Message, out: &mut BytesMut) -> Result<()> {
    out.put_u8(message.tag());
    if let Some(Xid(xid)) = message.stream_xid() {
        out.put_u32(xid);
    }
    match message {
        Message::Begin { final_lsn, commit_time, xid } => {
            out.put_u64(final_lsn.as_u64());
            out.put_i64(commit_time.postgres_us());
            out.put_u32(xid.0);
        }
        Message::Commit { commit_lsn, end_lsn, commit_time } => {
            out.put_u8(0);
            out.put_u64(commit_lsn.as_u64());
            out.put_u64(end_lsn.as_u64());
            out.put_i64(commit_time.postgres_us());
        }
        Message::Origin { commit_lsn, name } => {
            out.put_u64(*commit_lsn);
            text(out, "the origin's name", name)?;
        }
        Message::StreamStart { xid, first_segment } => {
            out.put_u32(xid.0);
            out.put_u8(u8::from(*first_segment));
        }
        Message::StreamStop => {}
        Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time } => {
            out.put_u32(xid.0);
            out.put_u8(0);
            out.put_u64(commit_lsn.as_u64());
            out.put_u64(end_lsn.as_u64());
            out.put_i64(commit_time.postgres_us());
        }
        Message::StreamAbort { xid, subxid, at } => {
            out.put_u32(xid.0);
            out.put_u32(subxid.0);
            if let Some(at) = at {
                out.put_u64(at.lsn.as_u64());
                out.put_i64(at.time.postgres_us());
            }
        }
        Message::BeginPrepare(_)
        | Message::Prepare(_)
        | Message::StreamPrepare(_)
        | Message::CommitPrepared { .. }
        | Message::RollbackPrepared { .. } => two_phase(out, message)?,
        Message::Relation { .. }
        | Message::Type { .. }
        | Message::Insert { .. }
        | Message::Update { .. }
        | Message::Delete { .. }
        | Message::Truncate { .. }
        | Message::Logical { .. } => content(out, message)?,
    }
    Ok(())
}

/// What stands behind tag and transaction id in the messages that a stream block may hold.
fn content(out: &mut BytesMut, message: &Message) -> Result<()> {
    match message {
        Message::Relation { relation: description, .. } => relation(out, description)?,
        Message::Type { type_oid, namespace, name, .. } => {
            out.put_u32(*type_oid);
            text(out, "the type's schema", namespace)?;
            text(out, "the type's name", name)?;
        }
        Message::Insert { relation, new, .. } => {
            out.put_u32(relation.0);
            row(out, b'N', new)?;
        }
        Message::Update { relation, old, new, .. } => {
            out.put_u32(relation.0);
            if let Some(old) = old {
                old_row(out, old)?;
            }
            row(out, b'N', new)?;
        }
        Message::Delete { relation, old, .. } => {
            out.put_u32(relation.0);
            old_row(out, old)?;
        }
        Message::Truncate { cascade, restart_identity, relations, .. } => {
            length(out, "the number of relations", relations.len())?;
            out.put_u8(u8::from(*cascade) | (u8::from(*restart_identity) << 1));
            for relation in relations {
                out.put_u32(relation.0);
            }
        }
        Message::Logical { transactional, lsn, prefix, content, .. } => {
            out.put_u8(u8::from(*transactional));
            out.put_u64(lsn.as_u64());
            text(out, "the message's prefix", prefix)?;
            length(out, "the message's content", content.len())?;
            out.put_slice(content);
        }
        _ => {}
    }
    Ok(())
}

fn two_phase(out: &mut BytesMut, message: &Message) -> Result<()> {
    const GID: &str = "the prepared transaction's name";
    match message {
        Message::BeginPrepare(body) => prepared(out, body),
        Message::Prepare(body) | Message::StreamPrepare(body) => {
            out.put_u8(0);
            prepared(out, body)
        }
        Message::CommitPrepared { commit_lsn, end_lsn, commit_time, xid, gid } => {
            out.put_u8(0);
            out.put_u64(commit_lsn.as_u64());
            out.put_u64(end_lsn.as_u64());
            out.put_i64(commit_time.postgres_us());
            out.put_u32(xid.0);
            text(out, GID, gid)
        }
        Message::RollbackPrepared {
            prepare_end_lsn,
            rollback_end_lsn,
            prepare_time,
            rollback_time,
            xid,
            gid,
        } => {
            out.put_u8(0);
            out.put_u64(prepare_end_lsn.as_u64());
            out.put_u64(rollback_end_lsn.as_u64());
            out.put_i64(prepare_time.postgres_us());
            out.put_i64(rollback_time.postgres_us());
            out.put_u32(xid.0);
            text(out, GID, gid)
        }
        _ => Ok(()),
    }
}

fn prepared(out: &mut BytesMut, body: &Prepared) -> Result<()> {
    out.put_u64(body.prepare_lsn.as_u64());
    out.put_u64(body.end_lsn.as_u64());
    out.put_i64(body.prepare_time.postgres_us());
    out.put_u32(body.xid.0);
    text(out, "the prepared transaction's name", &body.gid)
}

fn relation(out: &mut BytesMut, relation: &RelationDescription) -> Result<()> {
    out.put_u32(relation.id.0);
    text(out, "the relation's schema", &relation.namespace)?;
    text(out, "the relation's name", &relation.name)?;
    out.put_u8(match relation.replica_identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    count16(out, "the relation's columns", relation.columns.len())?;
    for column in &relation.columns {
        out.put_u8(u8::from(column.identity));
        text(out, "the column's name", &column.name)?;
        out.put_u32(column.type_oid);
        out.put_i32(column.type_modifier);
    }
    Ok(())
}

fn old_row(out: &mut BytesMut, old: &OldRow) -> Result<()> {
    match old {
        OldRow::Key(key) => row(out, b'K', key),
        OldRow::Full(full) => row(out, b'O', full),
    }
}

fn row(out: &mut BytesMut, letter: u8, row: &Row) -> Result<()> {
    out.put_u8(letter);
    count16(out, "the row's values", row.0.len())?;
    for cell in &row.0 {
        let (kind, value) = match cell {
            Cell::Null => (b'n', None),
            Cell::Unchanged => (b'u', None),
            Cell::Text(value) => (b't', Some(value)),
            Cell::Binary(value) => (b'b', Some(value)),
        };
        out.put_u8(kind);
        if let Some(value) = value {
            length(out, "the value", value.len())?;
            out.put_slice(value);
        }
    }
    Ok(())
}

fn text(out: &mut BytesMut, field: &'static str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(EncodeError::Nul { field });
    }
    out.put_slice(text.as_bytes());
    out.put_u8(0);
    Ok(())
}

fn count16(out: &mut BytesMut, field: &'static str, count: usize) -> Result<()> {
    let limit = usize::from(u16::MAX);
    let count = u16::try_from(count).map_err(|_| EncodeError::TooMany { field, count, limit })?;
    out.put_u16(count);
    Ok(())
}

fn length(out: &mut BytesMut, field: &'static str, count: usize) -> Result<()> {
    let limit = i32::MAX as usize;
    let count = i32::try_from(count).map_err(|_| EncodeError::TooMany { field, count, limit })?;
    out.put_i32(count);
    Ok(())
}
