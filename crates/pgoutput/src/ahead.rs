//! One transaction that still runs on the source, cut into parts as it arrives.
//!
//! Beside the frames that wait for its commit, not instead of them: whoever applies the parts may take them back at any
//! moment, and then the frames are read as if nothing had been. So whatever is not plain here is left to them. What may not
//! enter: transactions that have committed.

use std::sync::Arc;

use relevo_model::{Ahead, SourceLsn, TransactionHeader, TransactionPart, Xid};

use crate::error::Place;
use crate::message::{Message, RelationDescription};
use crate::relations::RelationCache;
use crate::transaction::OpenTransaction;

/// The transaction, and what it says of tables.
#[derive(Debug)]
pub(crate) struct RunningAhead {
    transaction: OpenTransaction,
    /// As the transaction sees them; the others see its descriptions when it has committed.
    relations: RelationCache,
    described: Vec<Described>,
}

/// A description that the transaction has sent.
#[derive(Debug)]
enum Described {
    Relation(RelationDescription),
    Type { type_oid: u32, namespace: String, name: String },
}

/// What a transaction has said of tables.
#[derive(Debug)]
pub(crate) struct Descriptions(Vec<Described>);

impl Descriptions {
    /// Lets everybody know.
    pub(crate) fn tell(self, relations: &mut RelationCache) {
        for described in self.0 {
            match described {
                Described::Relation(relation) => relations.describe(relation),
                Described::Type { type_oid, namespace, name } => {
                    relations.name_type(type_oid, namespace, name)
                }
            }
        }
    }
}

impl RunningAhead {
    /// A transaction whose first block begins.
    pub(crate) fn new(xid: Xid, relations: &RelationCache) -> Self {
        Self {
            transaction: OpenTransaction::running(xid),
            relations: relations.clone(),
            described: Vec::new(),
        }
    }

    pub(crate) fn xid(&self) -> Xid {
        self.transaction.xid()
    }

    /// No part of it has left.
    pub(crate) fn is_whole(&self) -> bool {
        self.transaction.is_whole()
    }

    /// Takes the next message of its content. `Err`: it cannot go on ahead.
    ///
    /// An emptied table would be locked against readers for as long as the transaction runs. Nor is a message that is not
    /// understood an error before its transaction has committed: it may yet be rolled back.
    pub(crate) fn take(
        &mut self,
        message: Message,
        part_bytes: usize,
    ) -> Result<Option<TransactionPart>, ()> {
        match &message {
            Message::Truncate { .. } => return Err(()),
            Message::Relation { relation, .. } => self.described.push(Described::Relation(relation.clone())),
            Message::Type { type_oid, namespace, name, .. } => self.described.push(Described::Type {
                type_oid: *type_oid,
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            _ => {}
        }
        let place = Place::StreamBlock(self.xid());
        let change = self.relations.change(message, place).map_err(drop)?;
        Ok(change.and_then(|change| self.transaction.push(change, part_bytes)))
    }

    /// It has committed: what is left of it, and what it has said of tables.
    pub(crate) fn commit(self, header: &Arc<TransactionHeader>, end: SourceLsn) -> (Ahead, Descriptions) {
        (Ahead::Commit(self.transaction.finish_as(header, end)), Descriptions(self.described))
    }
}
