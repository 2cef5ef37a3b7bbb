//! The rows that a batch writes, as far as it takes to tell whether another batch writes any of them too.
//!
//! Pure. Rows are told apart by what identifies them on the source, as bytes, and stand here as hashes: two that only look the
//! same keep a batch from going beside another one, which costs time and nothing else. Nor does correctness rest on finding
//! every row that is the same: the target's own locks and the number of rows that each statement finds tell of those
//! (`relevo_model::AheadTarget`).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use relevo_model::{Batch, Cell, Change, Relation, ReplicaIdentity, Row};

/// The rows of a batch.
#[derive(Debug)]
pub(crate) struct Writes(HashSet<u64>);

impl Writes {
    /// Those of this batch; `None`: it writes more than rows that can be named.
    pub fn of(batch: &Batch) -> Option<Self> {
        let mut rows = HashSet::with_capacity(batch.changes());
        let named = each_row(batch, |row| {
            rows.insert(row);
            true
        });
        named.then_some(Self(rows))
    }

    /// Whether the batch writes none of these rows, and nothing but rows that can be named.
    pub fn are_apart_from(&self, batch: &Batch) -> bool {
        each_row(batch, |row| !self.0.contains(&row))
    }
}

/// Goes through the rows until `goes_on` says otherwise or one cannot be named. Whether it came to the end.
fn each_row(batch: &Batch, mut goes_on: impl FnMut(u64) -> bool) -> bool {
    let mut changes = batch.parts.iter().flat_map(|part| &part.changes);
    changes.all(|change| match change {
        Change::Insert { relation, new } => name(relation, new).is_some_and(&mut goes_on),
        Change::Update { relation, old, new } => {
            let old_goes_on = match old {
                Some(old) => name(relation, old.row()).is_some_and(&mut goes_on),
                None => true,
            };
            old_goes_on && name(relation, new).is_some_and(&mut goes_on)
        }
        Change::Delete { relation, old } => name(relation, old.row()).is_some_and(&mut goes_on),
        Change::Truncate { .. } => false,
        Change::Message { .. } => true,
    })
}

/// The row's name; `None` without a key, or where a whole row is the identity, which another change of it does not repeat.
fn name(relation: &Relation, row: &Row) -> Option<u64> {
    if relation.replica_identity == ReplicaIdentity::Full {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    (&relation.schema, &relation.name).hash(&mut hasher);
    let mut is_named = false;
    for (column, cell) in relation.columns.iter().zip(&row.0).filter(|(column, _)| column.identity) {
        let (Cell::Text(bytes) | Cell::Binary(bytes)) = cell else { return None };
        (&column.name, bytes).hash(&mut hasher);
        is_named = true;
    }
    is_named.then(|| hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use relevo_model::{
        Column, OldRow, RelationId, SourceLsn, Timestamp, TransactionHeader, TransactionPart, Xid,
    };

    use super::*;

    fn relation(name: &str, identity: &[bool], replica_identity: ReplicaIdentity) -> Arc<Relation> {
        let column = |(number, identity): (usize, &bool)| Column {
            name: format!("c{number}"),
            identity: *identity,
            type_oid: 25,
            type_modifier: -1,
            type_name: None,
        };
        let columns = identity.iter().enumerate().map(column).collect();
        let (schema, name) = ("public".to_owned(), name.to_owned());
        Arc::new(Relation { id: RelationId(1), schema, name, replica_identity, columns })
    }

    fn keyed(name: &str) -> Arc<Relation> {
        relation(name, &[true, false], ReplicaIdentity::Default)
    }

    fn row(cells: &[&'static str]) -> Row {
        Row(cells.iter().map(|cell| Cell::Text(Bytes::from_static(cell.as_bytes()))).collect())
    }

    fn insert(relation: &Arc<Relation>, cells: &[&'static str]) -> Change {
        Change::Insert { relation: Arc::clone(relation), new: row(cells) }
    }

    fn update(relation: &Arc<Relation>, from: Option<&[&'static str]>, to: &[&'static str]) -> Change {
        let old = from.map(|from| OldRow::Key(row(from)));
        Change::Update { relation: Arc::clone(relation), old, new: row(to) }
    }

    fn delete(relation: &Arc<Relation>, cells: &[&'static str]) -> Change {
        Change::Delete { relation: Arc::clone(relation), old: OldRow::Key(row(cells)) }
    }

    fn batch(changes: Vec<Change>) -> Batch {
        let header = TransactionHeader {
            xid: Xid(1),
            commit_lsn: SourceLsn::new(1),
            commit_time: Timestamp::default(),
            origin: None,
        };
        let end = Some(SourceLsn::new(2));
        let part = TransactionPart { header: Arc::new(header), first: true, changes, end, size_bytes: 0 };
        Batch { parts: vec![part], position: end, ..Batch::default() }
    }

    /// Whether two batches of one change each are apart, whichever comes first.
    fn apart(first: &Change, second: &Change) -> bool {
        let (first, second) = (batch(vec![first.clone()]), batch(vec![second.clone()]));
        let one = |a: &Batch, b: &Batch| Writes::of(a).is_some_and(|writes| writes.are_apart_from(b));
        assert_eq!(one(&first, &second), one(&second, &first));
        one(&first, &second)
    }

    #[test]
    fn a_row_is_the_same_by_its_key_whatever_is_done_to_it() {
        let t = keyed("t");
        let of_7 = [
            insert(&t, &["7", "x"]),
            update(&t, None, &["7", "y"]),
            update(&t, Some(&["7", ""]), &["8", "y"]),
            update(&t, Some(&["8", ""]), &["7", "y"]),
            delete(&t, &["7", ""]),
        ];
        for change in &of_7 {
            assert!(of_7.iter().all(|other| !apart(change, other)), "{change:?}");
            assert!(apart(change, &insert(&t, &["9", "x"])), "{change:?}");
            assert!(apart(change, &insert(&keyed("u"), &["7", "x"])), "a row of another table");
        }
    }

    #[test]
    fn what_cannot_be_named_is_apart_from_nothing() {
        let t = keyed("t");
        let full = relation("t", &[true, true], ReplicaIdentity::Full);
        let keyless = relation("t", &[false, false], ReplicaIdentity::Nothing);
        let unchanged = Row(vec![Cell::Unchanged, Cell::Null]);
        let unnamed = [
            insert(&full, &["7", "x"]),
            insert(&keyless, &["7", "x"]),
            Change::Update { relation: Arc::clone(&t), old: None, new: unchanged },
            Change::Truncate { relations: vec![Arc::clone(&t)], cascade: false, restart_identity: false },
        ];
        for change in &unnamed {
            assert!(!apart(change, &insert(&keyed("u"), &["1", "x"])), "{change:?}");
        }
    }

    #[test]
    fn the_parts_of_a_key_are_not_run_together() {
        let t = relation("t", &[true, true], ReplicaIdentity::Default);
        assert!(apart(&insert(&t, &["ab", "c"]), &insert(&t, &["a", "bc"])));
        assert!(!apart(&insert(&t, &["ab", "c"]), &insert(&t, &["ab", "c"])));
    }
}
