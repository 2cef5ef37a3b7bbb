//! Which table and columns of the target a relation of the source means.
//!
//! Tables and columns are matched by name; the order of columns may differ, and the target may have columns
//! that the source has not. What may not enter: SQL, and anything that depends on one row.

use std::sync::Arc;

use relevo_catalog::{ColumnIdentity, ColumnInfo, Generated, TableInfo, TableKind, TableName};
use relevo_model::{Relation, ReplicaIdentity};

use crate::error::TargetError;

/// A relation of the source and the table on the target that its changes go to.
#[derive(Debug)]
pub(crate) struct TableMap {
    /// What the source says of it.
    pub(crate) relation: Arc<Relation>,
    /// What the target says of it.
    pub(crate) table: TableInfo,
    /// For each column of the relation, the place in `table.columns`.
    columns: Vec<usize>,
    /// For each column of the table, the relation's column that fills it.
    sources: Vec<Option<usize>>,
    /// The places, in the relation, of the columns that identify a row.
    pub(crate) identity: Vec<usize>,
    /// Whether a unique key of the target lies within the identity: then at most one row can match.
    pub(crate) identity_is_unique: bool,
    /// The source sends whole old rows, and a key of the target names the one that is meant, so that the other columns
    /// need not be looked at.
    pub(crate) full_by_key: bool,
    /// The batch in which the target's catalog was read.
    pub(crate) read_in_batch: u64,
    /// What the catalog's rows about the table were then, see [`crate::stamp`].
    pub(crate) stamp: i64,
}

impl TableMap {
    /// Matches the two.
    ///
    /// # Errors
    /// [`TargetError::MissingColumns`] and [`TargetError::GeneratedColumn`].
    pub(crate) fn new(
        relation: &Arc<Relation>,
        table: TableInfo,
        (read_in_batch, stamp): (u64, i64),
    ) -> Result<Self, TargetError> {
        let mut columns = Vec::with_capacity(relation.columns.len());
        let mut missing = Vec::new();
        for column in &relation.columns {
            match table.columns.iter().position(|have| have.name == column.name) {
                Some(at) if table.columns[at].generated != Generated::None => {
                    return Err(TargetError::GeneratedColumn {
                        table: table.name,
                        column: column.name.clone(),
                    });
                }
                Some(at) => columns.push(at),
                None => missing.push(column.name.clone()),
            }
        }
        if !missing.is_empty() {
            return Err(TargetError::MissingColumns { table: table.name, columns: missing });
        }
        let mut identity: Vec<usize> = relation
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.identity)
            .map(|(index, _)| index)
            .collect();
        let key = (relation.replica_identity == ReplicaIdentity::Full).then(|| key_of(relation, &table));
        let full_by_key = key.flatten().map(|key| identity = key).is_some();
        let identity_is_unique = table.unique_keys.iter().any(|key| {
            key.iter().all(|name| identity.iter().any(|index| relation.columns[*index].name == *name))
        });
        let mut sources = vec![None; table.columns.len()];
        columns.iter().enumerate().for_each(|(index, at)| sources[*at] = Some(index));
        Ok(Self {
            relation: Arc::clone(relation),
            table,
            columns,
            sources,
            identity,
            identity_is_unique,
            full_by_key,
            read_in_batch,
            stamp,
        })
    }

    /// The target's column for the relation's column at `index`.
    pub(crate) fn column(&self, index: usize) -> &ColumnInfo {
        &self.table.columns[self.columns[index]]
    }

    /// The relation's column that fills this column of the target, if there is one.
    pub(crate) fn source_of(&self, target_index: usize) -> Option<usize> {
        self.sources[target_index]
    }

    /// The relation's column that fills each column of the target, in the target's order.
    pub(crate) fn sources(&self) -> &[Option<usize>] {
        &self.sources
    }

    /// Whether the relation says everything that a row of the target holds and that can be written.
    pub(crate) fn fills_rows(&self) -> bool {
        let columns = self.table.columns.iter().zip(&self.sources);
        columns.into_iter().all(|(column, source)| column.generated != Generated::None || source.is_some())
    }

    /// Whether changes of one row may become one: its identity names it here as it does on the source, and nothing
    /// sees the changes one by one.
    pub(crate) fn folds(&self) -> bool {
        // An UPDATE cannot set such a column; the row's own statement gets around that.
        let replaced = |index: &usize| self.is_always_identity(*index) && !self.identity.contains(index);
        let whole_rows = self.relation.replica_identity == ReplicaIdentity::Full && !self.full_by_key;
        self.identity_is_unique
            && !whole_rows
            && !self.table.fires_in_replica
            && self.identity.iter().all(|index| self.equality(*index).is_some())
            && !(0..self.columns.len()).any(|index| replaced(&index))
    }

    /// Whether an UPDATE may not set the column.
    pub(crate) fn is_always_identity(&self, index: usize) -> bool {
        self.column(index).identity == ColumnIdentity::Always
    }

    /// The name that the target table has.
    pub(crate) fn name(&self) -> &TableName {
        &self.table.name
    }

    /// Whether rows are in partitions: then a `ctid` alone does not name a row.
    pub(crate) fn is_partitioned(&self) -> bool {
        self.table.kind == TableKind::Partitioned
    }

    /// The table as a FROM item. Children of an ordinary table are tables of their own to the source, so they
    /// are left out; the partitions of a partitioned one are reached through it.
    pub(crate) fn only(&self) -> String {
        only(&self.table)
    }

    /// The operator that compares the column with a value, if one is known.
    ///
    /// The catalog gives none for arrays, ranges and composites, since those of some element types have none;
    /// but a unique key over such a column proves that there is one.
    pub(crate) fn equality(&self, index: usize) -> Option<&str> {
        let column = self.column(index);
        let in_key = || self.table.unique_keys.iter().flatten().any(|name| *name == column.name);
        column.equality.as_deref().or_else(|| in_key().then_some("OPERATOR(pg_catalog.=)"))
    }

    /// Whether values of the column that are equal are also identical, byte for byte.
    ///
    /// They are not for `numeric` (1.0, 1.00), `citext`, floats (0, -0), `jsonb` and others, nor for any type
    /// that this list does not name.
    pub(crate) fn equal_is_identical(&self, index: usize) -> bool {
        /// `bool bytea "char" name int8 int2 int4 text oid varchar date time timestamp timestamptz uuid pg_lsn
        /// money macaddr` (`catalog/pg_type.dat`; these numbers never change).
        const IDENTICAL: [u32; 18] =
            [16, 17, 18, 19, 20, 21, 23, 25, 26, 1043, 1082, 1083, 1114, 1184, 2950, 3220, 790, 829];
        let column = self.column(index);
        column.collation_deterministic && IDENTICAL.contains(&column.type_oid)
    }
}

/// The columns of the relation that make a key of the table by which a whole row is found, as native replication does
/// (manual, *Logical Replication*, "Replica Identity"). A unique key with NULLs in it names nobody.
fn key_of(relation: &Relation, table: &TableInfo) -> Option<Vec<usize>> {
    table.unique_keys.iter().find_map(|key| {
        let column = |name: &String| {
            let required = table.column(name).is_some_and(|column| column.not_null);
            relation.columns.iter().position(|column| column.name == *name).filter(|_| required)
        };
        key.iter().map(column).collect()
    })
}

/// The table as a FROM item, without the children that inherit from an ordinary table.
pub(crate) fn only(table: &TableInfo) -> String {
    match table.kind {
        TableKind::Ordinary => format!("ONLY {}", table.name.quoted()),
        TableKind::Partitioned => table.name.quoted(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use relevo_model::{Column, RelationId};

    /// A target column of a test; `type_oid` 23 is `integer`.
    pub(crate) fn column(name: &str, type_oid: u32) -> ColumnInfo {
        ColumnInfo {
            name: name.to_owned(),
            position: 1,
            type_oid,
            type_sql: "integer".to_owned(),
            not_null: false,
            has_default: false,
            identity: ColumnIdentity::None,
            generated: Generated::None,
            equality: Some("OPERATOR(pg_catalog.=)".to_owned()),
            collation_deterministic: true,
        }
    }

    pub(crate) fn table(columns: Vec<ColumnInfo>, unique_keys: &[&[&str]]) -> TableInfo {
        TableInfo {
            oid: 1,
            name: TableName::new("s", "t"),
            kind: TableKind::Ordinary,
            replica_identity: ReplicaIdentity::Default,
            identity_columns: Vec::new(),
            columns,
            unique_keys: unique_keys
                .iter()
                .map(|key| key.iter().map(|name| (*name).to_owned()).collect())
                .collect(),
            partition_root: None,
            is_partition: false,
            partition_key: None,
            partition_bound: None,
            fires_in_replica: false,
            bytes: 0,
            rows_estimate: 0,
            extension: None,
        }
    }

    /// A relation of a test: an identity column's name begins with `k`.
    pub(crate) fn relation(columns: &[&str]) -> Arc<Relation> {
        Arc::new(Relation {
            id: RelationId(7),
            schema: "s".to_owned(),
            name: "t".to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: columns
                .iter()
                .map(|name| Column {
                    name: (*name).to_owned(),
                    identity: name.starts_with('k'),
                    type_oid: 23,
                    type_modifier: -1,
                    type_name: None,
                })
                .collect(),
        })
    }

    #[test]
    fn columns_are_matched_by_name_and_extra_ones_are_left_alone() {
        let target = table(vec![column("extra", 23), column("b", 25), column("k", 23)], &[&["k"]]);
        let map = TableMap::new(&relation(&["k", "b"]), target, (0, 0)).unwrap();
        assert_eq!(map.column(0).name, "k");
        assert_eq!(map.column(1).name, "b");
        assert_eq!(map.source_of(0), None);
        assert_eq!(map.source_of(1), Some(1));
        assert_eq!(map.identity, [0]);
        assert!(map.identity_is_unique);
    }

    #[test]
    fn every_missing_column_is_named() {
        let error = TableMap::new(&relation(&["k", "b", "c"]), table(vec![column("k", 23)], &[]), (0, 0))
            .unwrap_err();
        let TargetError::MissingColumns { columns, .. } = error else { panic!("{error}") };
        assert_eq!(columns, ["b", "c"]);
    }

    #[test]
    fn a_value_for_a_column_that_the_target_computes_is_refused() {
        let computed = ColumnInfo { generated: Generated::Stored, ..column("b", 23) };
        let error =
            TableMap::new(&relation(&["k", "b"]), table(vec![column("k", 23), computed], &[]), (0, 0));
        assert!(matches!(error, Err(TargetError::GeneratedColumn { column, .. }) if column == "b"));
    }

    #[test]
    fn an_identity_that_no_unique_key_covers_is_not_unique() {
        let wide = table(vec![column("k", 23), column("b", 23)], &[&["k", "b"]]);
        assert!(!TableMap::new(&relation(&["k", "b"]), wide, (0, 0)).unwrap().identity_is_unique);
        let none = table(vec![column("k", 23)], &[]);
        assert!(!TableMap::new(&relation(&["k"]), none, (0, 0)).unwrap().identity_is_unique);
    }

    #[test]
    fn a_whole_row_is_found_by_a_key_that_is_never_null() {
        let whole = |names: &[&str]| {
            let relation = Relation { replica_identity: ReplicaIdentity::Full, ..(*relation(names)).clone() };
            Arc::new(relation)
        };
        let required = |name| ColumnInfo { not_null: true, ..column(name, 23) };
        let target = || table(vec![column("k", 23), required("b"), required("c")], &[&["k"], &["b", "c"]]);
        let map = TableMap::new(&whole(&["k", "c", "b"]), target(), (0, 0)).unwrap();
        assert_eq!((map.full_by_key, &map.identity[..], map.folds()), (true, &[2, 1][..], true));
        let map = TableMap::new(&whole(&["k", "b"]), target(), (0, 0)).unwrap();
        assert_eq!((map.full_by_key, &map.identity[..], map.folds()), (false, &[0][..], false));
    }

    #[test]
    fn what_may_be_folded() {
        let keyed = |columns: Vec<ColumnInfo>| {
            TableMap::new(&relation(&["k", "b"]), table(columns, &[&["k"]]), (0, 0))
        };
        let map = keyed(vec![column("k", 23), column("b", 25)]).unwrap();
        assert!(map.folds() && map.fills_rows());
        let more = keyed(vec![column("k", 23), column("b", 25), column("c", 25)]).unwrap();
        assert!(more.folds() && !more.fills_rows());
        let always = |name| ColumnInfo { identity: ColumnIdentity::Always, ..column(name, 23) };
        assert!(keyed(vec![always("k"), column("b", 25)]).unwrap().folds());
        assert!(!keyed(vec![column("k", 23), always("b")]).unwrap().folds());
        let target = table(vec![column("k", 23), column("b", 25)], &[&["k"]]);
        let seen = TableInfo { fires_in_replica: true, ..target };
        assert!(!TableMap::new(&relation(&["k", "b"]), seen, (0, 0)).unwrap().folds());
    }

    #[test]
    fn a_unique_key_proves_that_an_array_can_be_compared() {
        let array = ColumnInfo { equality: None, ..column("k", 1007) };
        let keyed = TableMap::new(&relation(&["k"]), table(vec![array.clone()], &[&["k"]]), (0, 0)).unwrap();
        assert_eq!(keyed.equality(0), Some("OPERATOR(pg_catalog.=)"));
        let bare = TableMap::new(&relation(&["k"]), table(vec![array], &[]), (0, 0)).unwrap();
        assert_eq!(bare.equality(0), None);
    }
}
