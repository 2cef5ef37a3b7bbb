//! Which table and columns of the target a relation of the source means.
//!
//! Tables and columns are matched by name; the order of columns may differ, and the target may have columns
//! that the source has not. What may not enter: SQL, and anything that depends on one row.

use std::sync::Arc;

use relevo_catalog::{ColumnIdentity, ColumnInfo, Generated, TableInfo, TableKind, TableName};
use relevo_model::Relation;

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
    /// The places, in the relation, of the columns that identify a row.
    pub(crate) identity: Vec<usize>,
    /// Whether a unique key of the target lies within the identity: then at most one row can match.
    pub(crate) identity_is_unique: bool,
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
        let identity: Vec<usize> = relation
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.identity)
            .map(|(index, _)| index)
            .collect();
        let identity_is_unique = table.unique_keys.iter().any(|key| {
            key.iter().all(|name| identity.iter().any(|index| relation.columns[*index].name == *name))
        });
        Ok(Self {
            relation: Arc::clone(relation),
            table,
            columns,
            identity,
            identity_is_unique,
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
        self.columns.iter().position(|at| *at == target_index)
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
    use relevo_model::{Column, RelationId, ReplicaIdentity};

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
    fn a_unique_key_proves_that_an_array_can_be_compared() {
        let array = ColumnInfo { equality: None, ..column("k", 1007) };
        let keyed = TableMap::new(&relation(&["k"]), table(vec![array.clone()], &[&["k"]]), (0, 0)).unwrap();
        assert_eq!(keyed.equality(0), Some("OPERATOR(pg_catalog.=)"));
        let bare = TableMap::new(&relation(&["k"]), table(vec![array], &[]), (0, 0)).unwrap();
        assert_eq!(bare.equality(0), None);
    }
}
