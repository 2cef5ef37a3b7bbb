//! What never left an old primary: one JSON object for each transaction, and which rows it has touched.
//!
//! Values are in their text form, as the server sent them. A value that was not sent because it had not changed is named
//! in `unchanged`. What may not enter: where the transactions come from, and what becomes of the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use relevo_catalog::{TableInfo, TableName};
use relevo_model::{
    AppliedMark, Cell, Change, Relation, ReplicaIdentity, Row, SourceLsn, TransactionPart, is_applied,
};
use serde_json::{Map, Value, json};

use crate::plan::Inherited;

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

/// Which of the transactions in a former primary's slot are wanted, where the slot begins before its own writes.
pub(crate) struct Wanted<'a> {
    /// From where on it wrote itself; `None`: all that comes is wanted.
    own_from: Option<SourceLsn>,
    system_id: &'a str,
    /// From where on others lack what that server committed.
    from: SourceLsn,
    /// What the first one that is wanted says of those before it; `None`: there is none yet.
    before: Option<SourceLsn>,
    /// The transaction in hand came from elsewhere.
    applied: bool,
    /// It is wanted, from the part in hand on.
    now: bool,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(from: SourceLsn, inherited: &'a Inherited) -> Self {
        let (own_from, system_id, lacked) = match inherited {
            Inherited::Nothing | Inherited::Before(_) => (None, "", SourceLsn::ZERO),
            Inherited::Of { system_id, from: lacked } => (Some(from), system_id.as_str(), *lacked),
        };
        Self { own_from, system_id, from: lacked, before: None, applied: false, now: true }
    }

    /// Whether the part is wanted. What was applied and does not say of whom is.
    pub(crate) fn takes(&mut self, part: &TransactionPart) -> bool {
        let Some(own_from) = self.own_from else { return true };
        let mut marks = part.changes.iter().filter_map(AppliedMark::of).peekable();
        if part.first {
            self.applied = part.changes.first().is_some_and(is_applied);
            self.now = match self.applied {
                true => marks.peek().is_none(),
                false => part.header.commit_lsn >= own_from,
            };
        }
        // A transaction that takes further ones in says so again: those may be lacked although the first is not.
        for mark in marks.filter(|mark| mark.system_id == self.system_id && mark.last >= self.from) {
            self.now = true;
            self.before.get_or_insert(mark.after);
        }
        self.now
    }

    /// What is in no slot any more, in words.
    pub(crate) fn gap(&self, node: &str) -> Option<String> {
        self.own_from?;
        let from = self.from;
        match self.before {
            Some(before) if before < from => None,
            Some(before) => Some(format!(
                "what {node} had of the primary before it is in the file from {before} of that one on; what that one committed \
                 from {from} to there is in no slot of {node} any more"
            )),
            None => Some(format!(
                "what {node} had of the primary before it, committed there from {from} on, is in no slot of {node} any more and \
                 not in the file"
            )),
        }
    }
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

    use relevo_model::{Column, OldRow, RelationId, Timestamp, TransactionHeader, Xid};

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

    #[test]
    fn of_what_was_applied_only_that_is_wanted_which_the_others_never_had() {
        let inherited = Inherited::Of { system_id: "7".to_owned(), from: SourceLsn::new(0x50) };
        let message = |content: String| Change::Message {
            lsn: SourceLsn::new(1),
            transactional: true,
            prefix: "relevo".to_owned(),
            content: content.into(),
        };
        let applied = |system: u32, after: u32, last: u32| {
            let mark = format!("applied {system} 0/{after:X} 0/{last:X} 0/{last:X}");
            part(vec![message("applied".to_owned()), message(mark)], (true, false))
        };
        let own = part(Vec::new(), (true, true));
        let rest = || part(Vec::new(), (false, true));
        let mut wanted = Wanted::new(SourceLsn::new(16), &inherited);
        assert!(wanted.gap("b").unwrap().contains("not in the file"));
        for (transaction, is) in
            [(applied(7, 0x30, 0x40), false), (applied(8, 0x40, 0x60), false), (applied(7, 0x40, 0x50), true)]
        {
            assert_eq!((wanted.takes(&transaction), wanted.takes(&rest())), (is, is));
        }
        assert_eq!(wanted.gap("b"), None);
        let mut further = Wanted::new(SourceLsn::new(16), &inherited);
        assert!(!further.takes(&applied(7, 0x30, 0x40)));
        let mark = Change::Message {
            lsn: SourceLsn::new(1),
            transactional: true,
            prefix: "relevo".to_owned(),
            content: "applied 7 0/30 0/40 0/60".into(),
        };
        assert!(further.takes(&part(vec![mark], (false, false))), "it takes in what the others lack");
        assert!(further.takes(&rest()) && further.gap("b").is_none());
        assert!(wanted.takes(&own), "its own, from where it got the role");
        assert!(!Wanted::new(SourceLsn::new(17), &inherited).takes(&own));
        let mut late = Wanted::new(SourceLsn::new(16), &inherited);
        assert!(late.takes(&applied(7, 0x50, 0x60)));
        assert!(late.gap("b").unwrap().contains("from 0/50 to there"));
        let mut all = Wanted::new(SourceLsn::new(17), &Inherited::Nothing);
        assert!(all.takes(&own) && all.gap("b").is_none());
    }
}
