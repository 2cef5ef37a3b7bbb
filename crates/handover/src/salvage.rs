//! What never left an old primary: one JSON object for each transaction, and which rows it has touched.
//!
//! Values are in their text form, as the server sent them. A value that was not sent because it had not changed is named
//! in `unchanged`. What may not enter: where the transactions come from, and what becomes of the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use relevo_catalog::{TableInfo, TableName};
use relevo_model::{Cell, Change, Relation, ReplicaIdentity, Row, TransactionPart};
use serde_json::{Map, Value, json};

/// Rows by table, and tables of which every row counts.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// The columns of the key, and the keys.
    pub(crate) rows: BTreeMap<TableName, (Vec<String>, BTreeSet<Vec<String>>)>,
    /// Tables that were truncated, or whose rows cannot be told apart.
    pub(crate) whole: BTreeSet<TableName>,
}

/// Writes transactions and notes what they have touched.
pub(crate) struct Salvage<W> {
    out: W,
    node: String,
    tables: BTreeMap<TableName, TableInfo>,
    pub(crate) touched: Touched,
    pub(crate) transactions: u64,
    pub(crate) rows: u64,
    /// The transaction in hand has been begun in the file.
    open: bool,
}

impl<W: Write> Salvage<W> {
    /// `tables`: those of the node, for their keys.
    pub(crate) fn new(out: W, node: &str, tables: Vec<TableInfo>) -> Self {
        let tables = tables.into_iter().map(|table| (table.name.clone(), table)).collect();
        Self {
            out,
            node: node.to_owned(),
            tables,
            touched: Touched::default(),
            transactions: 0,
            rows: 0,
            open: false,
        }
    }

    /// Takes the next part. A transaction that changes no rows leaves no trace.
    pub(crate) fn take(&mut self, part: &TransactionPart) -> std::io::Result<()> {
        for change in &part.changes {
            let Some(document) = self.change(change) else { continue };
            if self.open {
                write!(self.out, ",")?;
            } else {
                let header = &part.header;
                let time = jiff::Timestamp::from_microsecond(header.commit_time.unix_us())
                    .map_or(Value::Null, |time| json!(time.to_string()));
                write!(
                    self.out,
                    "{{\"node\":{},\"xid\":{},\"commit_lsn\":\"{}\",\"commit_time\":{time},\"changes\":[",
                    json!(self.node),
                    header.xid.0,
                    header.commit_lsn
                )?;
                self.open = true;
                self.transactions += 1;
            }
            write!(self.out, "{document}")?;
        }
        if part.end.is_some() && std::mem::take(&mut self.open) {
            writeln!(self.out, "]}}")?;
        }
        Ok(())
    }

    /// Everything was taken.
    pub(crate) fn finish(mut self) -> std::io::Result<(W, Touched)> {
        self.out.flush()?;
        Ok((self.out, self.touched))
    }

    fn change(&mut self, change: &Change) -> Option<Value> {
        Some(match change {
            Change::Insert { relation, new } => {
                self.note(relation, &[new]);
                json!({ "op": "insert", "table": relation.to_string(), "new": values(relation, new) })
            }
            Change::Update { relation, old, new } => {
                match old {
                    Some(old) => self.note(relation, &[old.row(), new]),
                    None => self.note(relation, &[new]),
                }
                let mut document = json!({
                    "op": "update", "table": relation.to_string(), "new": values(relation, new),
                });
                if let Some(old) = old {
                    document["old"] = values(relation, old.row());
                }
                let unchanged = unchanged(relation, new);
                if !unchanged.is_empty() {
                    document["unchanged"] = json!(unchanged);
                }
                document
            }
            Change::Delete { relation, old } => {
                self.note(relation, &[old.row()]);
                json!({ "op": "delete", "table": relation.to_string(), "old": values(relation, old.row()) })
            }
            Change::Truncate { relations, .. } => {
                let names: Vec<String> = relations.iter().map(ToString::to_string).collect();
                self.touched.whole.extend(relations.iter().map(|relation| name(relation)));
                json!({ "op": "truncate", "tables": names })
            }
            Change::Message { .. } => return None,
        })
    }

    /// Notes the rows by their keys.
    fn note(&mut self, relation: &Relation, rows: &[&Row]) {
        self.rows += 1;
        let table = name(relation);
        let Some(columns) = self.key(relation) else {
            self.touched.whole.insert(table);
            return;
        };
        for row in rows {
            match key(relation, &columns, row) {
                Some(key) => {
                    let known = self
                        .touched
                        .rows
                        .entry(table.clone())
                        .or_insert_with(|| (columns.clone(), BTreeSet::new()));
                    known.1.insert(key);
                }
                // A part of the key was not sent.
                None => {
                    self.touched.whole.insert(table.clone());
                }
            }
        }
    }

    /// The columns by which a row is found.
    fn key(&self, relation: &Relation) -> Option<Vec<String>> {
        if relation.replica_identity != ReplicaIdentity::Full {
            let columns: Vec<String> = relation
                .columns
                .iter()
                .filter(|column| column.identity)
                .map(|column| column.name.clone())
                .collect();
            return (!columns.is_empty()).then_some(columns);
        }
        let table = self.tables.get(&name(relation))?;
        let whole = |key: &&Vec<String>| {
            key.iter().all(|column| table.column(column).is_some_and(|column| column.not_null))
        };
        table.unique_keys.iter().find(whole).cloned()
    }
}

fn name(relation: &Relation) -> TableName {
    TableName::new(&relation.schema, &relation.name)
}

fn text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(bytes) | Cell::Binary(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Cell::Null | Cell::Unchanged => None,
    }
}

fn key(relation: &Relation, columns: &[String], row: &Row) -> Option<Vec<String>> {
    columns
        .iter()
        .map(|wanted| {
            let at = relation.columns.iter().position(|column| column.name == *wanted)?;
            text(row.0.get(at)?)
        })
        .collect()
}

fn values(relation: &Relation, row: &Row) -> Value {
    let mut values = Map::new();
    for (column, cell) in relation.columns.iter().zip(&row.0) {
        match cell {
            Cell::Unchanged => {}
            cell => {
                values.insert(column.name.clone(), text(cell).map_or(Value::Null, Value::String));
            }
        }
    }
    Value::Object(values)
}

fn unchanged<'r>(relation: &'r Relation, row: &Row) -> Vec<&'r str> {
    let cells = relation.columns.iter().zip(&row.0);
    cells.filter(|(_, cell)| **cell == Cell::Unchanged).map(|(column, _)| column.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relevo_model::{Column, OldRow, RelationId, SourceLsn, Timestamp, TransactionHeader, Xid};

    use super::*;

    fn relation(identity: ReplicaIdentity) -> Arc<Relation> {
        let column = |name: &str, identity| Column {
            name: name.to_owned(),
            identity,
            type_oid: 25,
            type_modifier: -1,
            type_name: None,
        };
        Arc::new(Relation {
            id: RelationId(1),
            schema: "public".to_owned(),
            name: "t".to_owned(),
            replica_identity: identity,
            columns: vec![column("k", identity == ReplicaIdentity::Default), column("v", false)],
        })
    }

    fn row(cells: [&str; 2]) -> Row {
        let cell = |text: &str| match text {
            "∅" => Cell::Null,
            "…" => Cell::Unchanged,
            text => Cell::Text(text.to_owned().into()),
        };
        Row(cells.map(cell).to_vec())
    }

    fn part(changes: Vec<Change>, (first, end): (bool, bool)) -> TransactionPart {
        let header = TransactionHeader {
            xid: Xid(7),
            commit_lsn: SourceLsn::new(16),
            commit_time: Timestamp::from_unix_us(0),
            origin: None,
        };
        TransactionPart {
            header: Arc::new(header),
            first,
            changes,
            end: end.then_some(SourceLsn::new(32)),
            size_bytes: 0,
        }
    }

    #[test]
    fn a_transaction_in_parts_is_one_line_and_every_row_that_it_touched_is_known_by_its_keys() {
        let t = relation(ReplicaIdentity::Default);
        let mut salvage = Salvage::new(Vec::new(), "a", Vec::new());
        let message = Change::Message {
            lsn: SourceLsn::new(1),
            transactional: true,
            prefix: "relevo".to_owned(),
            content: Default::default(),
        };
        salvage.take(&part(vec![message], (true, true))).unwrap();
        let insert = Change::Insert { relation: t.clone(), new: row(["1", "∅"]) };
        salvage.take(&part(vec![insert], (true, false))).unwrap();
        let moved = Change::Update {
            relation: t.clone(),
            old: Some(OldRow::Key(row(["2", "∅"]))),
            new: row(["3", "…"]),
        };
        let gone = Change::Delete { relation: t.clone(), old: OldRow::Key(row(["4", "∅"])) };
        salvage.take(&part(vec![moved, gone], (false, true))).unwrap();
        assert_eq!((salvage.transactions, salvage.rows), (1, 3));
        let (text, touched) = salvage.finish().unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 1);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            document["changes"][0],
            json!({"op": "insert", "table": "public.t", "new": {"k": "1", "v": null}})
        );
        assert_eq!(document["changes"][1]["unchanged"], json!(["v"]));
        let keys: Vec<&str> =
            touched.rows[&TableName::new("public", "t")].1.iter().map(|key| &*key[0]).collect();
        assert_eq!(keys, ["1", "2", "3", "4"]);
        assert!(touched.whole.is_empty());
    }

    #[test]
    fn a_table_whose_rows_cannot_be_told_apart_counts_whole() {
        for identity in [ReplicaIdentity::Full, ReplicaIdentity::Nothing] {
            let mut salvage = Salvage::new(Vec::new(), "a", Vec::new());
            let insert = Change::Insert { relation: relation(identity), new: row(["1", "x"]) };
            salvage.take(&part(vec![insert], (true, true))).unwrap();
            assert!(salvage.touched.whole.contains(&TableName::new("public", "t")), "{identity:?}");
        }
    }
}
