//! What a log holds: the messages with which a source would send the transactions of one table, so that they are read
//! back by what reads the source.
//!
//! Every frame stands at the commit LSN of its transaction. What may not enter: when something is kept, and files.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use relevo_model::{Change, Relation, RelationId, SourceLsn, TransactionHeader, TransactionPart};
use relevo_pgoutput::{
    AssembleError, Assembler, ColumnDescription, EncodeError, Format, MemoryStore, Message, Protocol,
    RelationDescription, Streaming, encode_into,
};

/// The name of the log of a table. The length keeps `a.b` + `c` apart from `a` + `b.c`.
pub(crate) fn log_name(schema: &str, table: &str) -> String {
    format!("{PREFIX}{}:{schema}.{table}", schema.len())
}

/// What the names of all such logs begin with.
pub(crate) const PREFIX: &str = "table:";

/// Turns changes into frames. It says itself what it has described; a new one describes everything again.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    described: HashMap<RelationId, Arc<Relation>>,
    open: bool,
    buffer: BytesMut,
}

impl FrameWriter {
    /// The frames for one change of the transaction, in order.
    pub(crate) fn change(
        &mut self,
        header: &TransactionHeader,
        change: &Change,
    ) -> Result<Vec<Bytes>, EncodeError> {
        let mut frames = Vec::with_capacity(1);
        if !self.open {
            self.open = true;
            let TransactionHeader { xid, commit_lsn, commit_time, origin } = header;
            let begin = Message::Begin { final_lsn: *commit_lsn, commit_time: *commit_time, xid: *xid };
            frames.push(self.frame(&begin)?);
            if let Some(origin) = origin {
                let origin = Message::Origin { commit_lsn: origin.commit_lsn, name: origin.name.clone() };
                frames.push(self.frame(&origin)?);
            }
        }
        match change {
            Change::Insert { relation, .. }
            | Change::Update { relation, .. }
            | Change::Delete { relation, .. } => self.describe(relation, &mut frames)?,
            Change::Truncate { relations, .. } => {
                for relation in relations {
                    self.describe(relation, &mut frames)?;
                }
            }
            Change::Message { .. } => {}
        }
        frames.push(self.frame(&message(change))?);
        Ok(frames)
    }

    /// Whether a transaction was begun and not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The frame that ends the transaction.
    pub(crate) fn end(
        &mut self,
        header: &TransactionHeader,
        end_lsn: SourceLsn,
    ) -> Result<Bytes, EncodeError> {
        self.open = false;
        let TransactionHeader { commit_lsn, commit_time, .. } = header;
        let commit = Message::Commit { commit_lsn: *commit_lsn, end_lsn, commit_time: *commit_time };
        self.frame(&commit)
    }

    fn describe(&mut self, relation: &Arc<Relation>, frames: &mut Vec<Bytes>) -> Result<(), EncodeError> {
        let known = self.described.get(&relation.id);
        if known.is_some_and(|known| Arc::ptr_eq(known, relation) || known == relation) {
            return Ok(());
        }
        for column in &relation.columns {
            let Some(of) = &column.type_name else { continue };
            let (namespace, name) = (of.schema.clone(), of.name.clone());
            let named = Message::Type { xid: None, type_oid: column.type_oid, namespace, name };
            frames.push(self.frame(&named)?);
        }
        let columns = relation.columns.iter().map(|column| ColumnDescription {
            name: column.name.clone(),
            identity: column.identity,
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
        });
        let description = RelationDescription {
            id: relation.id,
            namespace: relation.schema.clone(),
            name: relation.name.clone(),
            replica_identity: relation.replica_identity,
            columns: columns.collect(),
        };
        frames.push(self.frame(&Message::Relation { xid: None, relation: description })?);
        self.described.insert(relation.id, Arc::clone(relation));
        Ok(())
    }

    fn frame(&mut self, message: &Message) -> Result<Bytes, EncodeError> {
        self.buffer.clear();
        encode_into(message, &mut self.buffer)?;
        Ok(self.buffer.split().freeze())
    }
}

fn message(change: &Change) -> Message {
    match change {
        Change::Insert { relation, new } => {
            Message::Insert { xid: None, relation: relation.id, new: new.clone() }
        }
        Change::Update { relation, old, new } => {
            Message::Update { xid: None, relation: relation.id, old: old.clone(), new: new.clone() }
        }
        Change::Delete { relation, old } => {
            Message::Delete { xid: None, relation: relation.id, old: old.clone() }
        }
        Change::Truncate { relations, cascade, restart_identity } => Message::Truncate {
            xid: None,
            cascade: *cascade,
            restart_identity: *restart_identity,
            relations: relations.iter().map(|relation| relation.id).collect(),
        },
        Change::Message { lsn, transactional, prefix, content } => Message::Logical {
            xid: None,
            transactional: *transactional,
            lsn: *lsn,
            prefix: prefix.clone(),
            content: content.clone(),
        },
    }
}

/// Turns frames back into parts of transactions.
pub(crate) struct FrameReader(Assembler);

impl FrameReader {
    pub(crate) fn new(part_bytes: usize) -> Self {
        let format = Format { protocol: Protocol::V1, streaming: Streaming::Off };
        // Nothing is streamed, so the store holds nothing.
        Self(Assembler::new(format, part_bytes, MemoryStore::new(0)))
    }

    /// Takes a frame; then call [`FrameReader::next`] until it gives `None`.
    pub(crate) fn feed(&mut self, frame: &Bytes) -> Result<(), AssembleError> {
        self.0.feed(frame)
    }

    pub(crate) fn next(&mut self) -> Result<Option<TransactionPart>, AssembleError> {
        self.0.next_part()
    }
}
