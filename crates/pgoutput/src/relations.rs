//! What the source has said of its tables and types, and the changes that can be understood by it.

use std::collections::HashMap;
use std::sync::Arc;

use relevo_model::{Cell, Change, Column, Relation, RelationId, Row, TypeName};

use crate::error::{AssembleError, Place};
use crate::message::{Message, RelationDescription};

/// The tables and types that the source has described on this connection.
#[derive(Debug, Default, Clone)]
pub struct RelationCache {
    relations: HashMap<RelationId, Arc<Relation>>,
    types: HashMap<u32, TypeName>,
}

impl RelationCache {
    /// What is known of a table.
    #[must_use]
    pub fn get(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.relations.get(&id)
    }

    /// Takes over a table's description. The server repeats it whenever it may have changed; a repetition that
    /// changes nothing keeps the same `Arc`, so what others have derived from it stays valid.
    pub fn describe(&mut self, description: RelationDescription) {
        let RelationDescription { id, namespace, name, replica_identity, columns } = description;
        let columns = columns
            .into_iter()
            .map(|column| Column {
                name: column.name,
                identity: column.identity,
                type_oid: column.type_oid,
                type_modifier: column.type_modifier,
                type_name: self.types.get(&column.type_oid).cloned(),
            })
            .collect();
        let relation = Relation { id, schema: schema(namespace), name, replica_identity, columns };
        if self.relations.get(&id).is_none_or(|known| **known != relation) {
            self.relations.insert(id, Arc::new(relation));
        }
    }

    /// Takes over a type's name, for the relations described after it.
    pub fn name_type(&mut self, type_oid: u32, namespace: String, name: String) {
        self.types.insert(type_oid, TypeName { schema: schema(namespace), name });
    }

    /// The change that a message of a transaction's content makes; `None` for descriptions.
    pub(crate) fn change(&mut self, message: Message, place: Place) -> Result<Option<Change>, AssembleError> {
        let what = message.name();
        Ok(Some(match message {
            Message::Insert { relation, new, .. } => {
                let relation = self.known(what, relation)?;
                complete(what, &relation, "new", &new)?;
                Change::Insert { relation, new }
            }
            Message::Update { relation, old, new, .. } => {
                let relation = self.known(what, relation)?;
                if let Some(old) = &old {
                    complete(what, &relation, "old", old.row())?;
                }
                right_width(what, &relation, "new", &new)?;
                Change::Update { relation, old, new }
            }
            Message::Delete { relation, old, .. } => {
                let relation = self.known(what, relation)?;
                complete(what, &relation, "old", old.row())?;
                Change::Delete { relation, old }
            }
            Message::Truncate { cascade, restart_identity, relations, .. } => {
                let relations = relations.into_iter().map(|id| self.known(what, id));
                Change::Truncate {
                    relations: relations.collect::<Result<_, _>>()?,
                    cascade,
                    restart_identity,
                }
            }
            Message::Logical { transactional, lsn, prefix, content, .. } => {
                Change::Message { lsn, transactional, prefix, content }
            }
            Message::Relation { relation, .. } => {
                self.describe(relation);
                return Ok(None);
            }
            Message::Type { type_oid, namespace, name, .. } => {
                self.name_type(type_oid, namespace, name);
                return Ok(None);
            }
            _ => return Err(AssembleError::OutOfPlace { message: what, place, expected: "a change" }),
        }))
    }

    fn known(&self, message: &'static str, relation: RelationId) -> Result<Arc<Relation>, AssembleError> {
        self.get(relation).cloned().ok_or(AssembleError::UnknownRelation { message, relation })
    }
}

/// The protocol sends the empty name for `pg_catalog`, "to save space" (`logicalrep_write_namespace`).
fn schema(namespace: String) -> String {
    if namespace.is_empty() { "pg_catalog".to_owned() } else { namespace }
}

fn right_width(
    message: &'static str,
    relation: &Relation,
    row: &'static str,
    values: &Row,
) -> Result<(), AssembleError> {
    let (expected, found) = (relation.columns.len(), values.0.len());
    if expected == found {
        return Ok(());
    }
    Err(AssembleError::ColumnCount { message, relation: relation.to_string(), row, expected, found })
}

/// Refuses a row of the wrong width, and one with an unchanged value where there is nothing to keep.
fn complete(
    message: &'static str,
    relation: &Relation,
    row: &'static str,
    values: &Row,
) -> Result<(), AssembleError> {
    right_width(message, relation, row, values)?;
    let mut cells = relation.columns.iter().zip(&values.0);
    match cells.find(|(_, cell)| **cell == Cell::Unchanged) {
        None => Ok(()),
        Some((column, _)) => Err(AssembleError::Unchanged {
            message,
            relation: relation.to_string(),
            row,
            column: column.name.clone(),
        }),
    }
}
