//! The SQL that applies one change. All statements on user tables that hold values are built here.
//!
//! Every name is qualified and quoted, every operator is the catalog's, every parameter has its column's type.
//! What may not enter: values, and sending anything.

use std::fmt::Write as _;

use relevo_catalog::{Generated, quote_identifier};
use tokio_postgres::types::{Kind, Type};

use crate::mapping::TableMap;
use crate::shape::{Find, Mask, Shape};

/// Which row of a change a parameter is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOf {
    /// The row as it was.
    Old,
    /// The row as it is now.
    New,
}

/// Where the value of a parameter is found in a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// In which row.
    pub(crate) row: RowOf,
    /// In which column of the relation.
    pub(crate) column: usize,
}

/// A statement with what its parameters stand for, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) slots: Vec<Slot>,
}

impl Sql {
    /// The statement for changes of this shape.
    pub(crate) fn new(map: &TableMap, shape: &Shape) -> Self {
        let mut builder = Builder { map, slots: Vec::new() };
        let text = match shape {
            Shape::Insert => builder.insert(),
            Shape::Copy => copy(map),
            Shape::Delete { find } => builder.delete(find),
            Shape::Update { set, find, replace: true } => builder.replace(set, find),
            Shape::Update { set, find, replace: false } if set.is_empty() => builder.look(find),
            Shape::Update { set, find, replace: false } => builder.update(set, find),
        };
        Self { text, slots: builder.slots }
    }

    /// The types of the parameters: those of the columns that they are for.
    ///
    /// Left to itself the server would infer them, which goes wrong for operators that several types share. Only
    /// the OID goes over the wire; the driver looks everything else up.
    pub(crate) fn types(&self, map: &TableMap) -> Vec<Type> {
        self.slots
            .iter()
            .map(|slot| {
                let column = map.column(slot.column);
                Type::from_oid(column.type_oid).unwrap_or_else(|| {
                    Type::new(column.type_sql.clone(), column.type_oid, Kind::Simple, String::new())
                })
            })
            .collect()
    }
}

/// Finds one row of several that match, and what to add to the statement to affect that one only.
struct Target {
    /// A WITH list to begin with, or nothing.
    with: String,
    /// The further FROM item, or nothing.
    from: &'static str,
    /// The condition.
    condition: String,
}

struct Builder<'m> {
    map: &'m TableMap,
    slots: Vec<Slot>,
}

impl Builder<'_> {
    fn parameter(&mut self, row: RowOf, column: usize) -> String {
        let slot = Slot { row, column };
        let known = self.slots.iter().position(|have| *have == slot);
        let place = known.unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        });
        format!("${}", place + 1)
    }

    fn insert(&mut self) -> String {
        let table = self.map.name().quoted();
        if self.map.relation.columns.is_empty() {
            return format!("INSERT INTO {table} DEFAULT VALUES");
        }
        let values: Vec<String> =
            (0..self.map.relation.columns.len()).map(|index| self.parameter(RowOf::New, index)).collect();
        format!(
            "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            column_list(self.map),
            values.join(", ")
        )
    }

    fn update(&mut self, set: &Mask, find: &Find) -> String {
        let target = self.target(find);
        let mut assignments = Vec::new();
        for index in self.columns_of(set) {
            let value = self.parameter(RowOf::New, index);
            assignments.push(format!("{} = {value}", quote_identifier(&self.map.column(index).name)));
        }
        let from = if target.from.is_empty() { String::new() } else { format!(" FROM {}", target.from) };
        format!(
            "{}UPDATE {} AS t SET {}{from} WHERE {}",
            target.with,
            self.map.only(),
            assignments.join(", "),
            target.condition
        )
    }

    fn delete(&mut self, find: &Find) -> String {
        let target = self.target(find);
        format!("{}{}", target.with, self.delete_from(&target))
    }

    fn delete_from(&self, target: &Target) -> String {
        let using = if target.from.is_empty() { String::new() } else { format!(" USING {}", target.from) };
        format!("DELETE FROM {} AS t{using} WHERE {}", self.map.only(), target.condition)
    }

    /// Deletes the row and inserts it again with its new values: the only way in SQL to change an identity column
    /// that is GENERATED ALWAYS. What the change does not set is taken from the row that was deleted.
    fn replace(&mut self, set: &Mask, find: &Find) -> String {
        let target = self.target(find);
        let (mut names, mut values) = (Vec::new(), Vec::new());
        let columns = self.map.table.columns.iter().enumerate();
        for (place, column) in columns.filter(|(_, column)| column.generated == Generated::None) {
            let name = quote_identifier(&column.name);
            values.push(match self.map.source_of(place).filter(|index| set.contains(*index)) {
                Some(index) => self.parameter(RowOf::New, index),
                None => format!("gone.{name}"),
            });
            names.push(name);
        }
        let with =
            if target.with.is_empty() { "WITH ".to_owned() } else { format!("{}, ", target.with.trim_end()) };
        format!(
            "{with}gone AS ({} RETURNING t.*) INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM gone",
            self.delete_from(&target),
            self.map.name().quoted(),
            names.join(", "),
            values.join(", ")
        )
    }

    /// Changes nothing and tells whether the row is there.
    fn look(&mut self, find: &Find) -> String {
        let condition = self.condition(find);
        format!("SELECT 1 FROM {} AS t WHERE {condition} LIMIT 1", self.map.only())
    }

    /// One row, even when several match.
    ///
    /// When no unique key of the target promises that, the row is chosen first and then named by its place: a
    /// `Tid Scan`. Within a partitioned table a place is unique only together with the partition.
    fn target(&mut self, find: &Find) -> Target {
        let by_key = matches!(find, Find::OldKey | Find::NewKey);
        let condition = self.condition(find);
        if by_key && self.map.identity_is_unique {
            return Target { with: String::new(), from: "", condition };
        }
        let order = self.order(find);
        let (more, and) = if self.map.is_partitioned() {
            (", t.tableoid AS part", " AND t.tableoid = victim.part")
        } else {
            ("", "")
        };
        Target {
            with: format!(
                "WITH victim AS (SELECT t.ctid AS place{more} FROM {} AS t WHERE {condition}{order} LIMIT 1) ",
                self.map.only()
            ),
            from: "victim",
            condition: format!("t.ctid = victim.place{and}"),
        }
    }

    fn condition(&mut self, find: &Find) -> String {
        let width = self.map.relation.columns.len();
        let mut terms = Vec::new();
        match find {
            Find::OldKey | Find::NewKey => {
                let row = if *find == Find::OldKey { RowOf::Old } else { RowOf::New };
                for index in self.map.identity.clone() {
                    terms.push(self.equals(row, index));
                }
            }
            Find::WholeRow { nulls, unsent } => {
                for index in (0..width).filter(|index| !unsent.contains(*index)) {
                    terms.push(if nulls.contains(index) {
                        // Unlike IS NULL, it takes a composite value whose fields are all NULL for a value.
                        format!("{} IS NOT DISTINCT FROM NULL", self.qualified(index))
                    } else {
                        self.equals(RowOf::Old, index)
                    });
                }
            }
        }
        if terms.is_empty() { "true".to_owned() } else { terms.join(" AND ") }
    }

    fn equals(&mut self, row: RowOf, index: usize) -> String {
        let (column, value) = (self.qualified(index), self.parameter(row, index));
        match self.map.equality(index) {
            Some(operator) => format!("{column} {operator} {value}"),
            None => format!("pg_catalog.record_image_eq(ROW({column}), ROW({value}))"),
        }
    }

    /// Among rows that match, the identical one first: 1.0 equals 1.00, but only one of them is meant.
    fn order(&mut self, find: &Find) -> String {
        let Find::WholeRow { nulls, unsent } = find else { return String::new() };
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        for index in 0..self.map.relation.columns.len() {
            let compared =
                !nulls.contains(index) && !unsent.contains(index) && self.map.equality(index).is_some();
            if compared && !self.map.equal_is_identical(index) {
                columns.push(self.qualified(index));
                values.push(self.parameter(RowOf::Old, index));
            }
        }
        if columns.is_empty() {
            return String::new();
        }
        let mut order = String::from(" ORDER BY pg_catalog.record_image_eq(");
        // Writing to a String cannot fail.
        let _ = write!(order, "ROW({}), ROW({})) DESC", columns.join(", "), values.join(", "));
        order
    }

    fn qualified(&self, index: usize) -> String {
        format!("t.{}", quote_identifier(&self.map.column(index).name))
    }

    fn columns_of(&self, mask: &Mask) -> Vec<usize> {
        (0..self.map.relation.columns.len()).filter(|index| mask.contains(*index)).collect()
    }
}

fn column_list(map: &TableMap) -> String {
    let names: Vec<String> =
        map.relation.columns.iter().map(|column| quote_identifier(&column.name)).collect();
    names.join(", ")
}

fn copy(map: &TableMap) -> String {
    format!("COPY {} ({}) FROM STDIN (FORMAT text)", map.name().quoted(), column_list(map))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::{column, relation, table};
    use relevo_catalog::{ColumnIdentity, ColumnInfo, TableInfo, TableKind};

    const EQ: &str = "OPERATOR(pg_catalog.=)";

    fn mask(columns: &[usize]) -> Mask {
        let mut mask = Mask::default();
        columns.iter().for_each(|index| mask.insert(*index));
        mask
    }

    fn keyed() -> TableMap {
        let target = table(vec![column("k", 23), column("A b", 25), column("x", 25)], &[&["k"]]);
        TableMap::new(&relation(&["A b", "k"]), target, (0, 0)).unwrap()
    }

    fn whole(nulls: &[usize], unsent: &[usize]) -> Find {
        Find::WholeRow { nulls: mask(nulls), unsent: mask(unsent) }
    }

    fn old(column: usize) -> Slot {
        Slot { row: RowOf::Old, column }
    }

    fn new(column: usize) -> Slot {
        Slot { row: RowOf::New, column }
    }

    #[test]
    fn an_insert_names_its_columns_and_overrides_identities() {
        let sql = Sql::new(&keyed(), &Shape::Insert);
        assert_eq!(sql.text, r#"INSERT INTO "s"."t" ("A b", "k") OVERRIDING SYSTEM VALUE VALUES ($1, $2)"#);
        assert_eq!(sql.slots, [new(0), new(1)]);
        assert_eq!(sql.types(&keyed()), [Type::TEXT, Type::INT4]);
        assert_eq!(
            Sql::new(&keyed(), &Shape::Copy).text,
            r#"COPY "s"."t" ("A b", "k") FROM STDIN (FORMAT text)"#
        );
    }

    #[test]
    fn a_table_without_columns_can_be_inserted_into() {
        let map = TableMap::new(&relation(&[]), table(vec![], &[]), (0, 0)).unwrap();
        assert_eq!(Sql::new(&map, &Shape::Insert).text, r#"INSERT INTO "s"."t" DEFAULT VALUES"#);
    }

    #[test]
    fn a_unique_key_needs_no_detour() {
        let find = Find::NewKey;
        let update =
            Sql::new(&keyed(), &Shape::Update { set: mask(&[0]), find: find.clone(), replace: false });
        assert_eq!(update.text, format!(r#"UPDATE ONLY "s"."t" AS t SET "A b" = $2 WHERE t."k" {EQ} $1"#));
        assert_eq!(update.slots, [new(1), new(0)]);
        let delete = Sql::new(&keyed(), &Shape::Delete { find: Find::OldKey });
        assert_eq!(delete.text, format!(r#"DELETE FROM ONLY "s"."t" AS t WHERE t."k" {EQ} $1"#));
        let look = Sql::new(&keyed(), &Shape::Update { set: mask(&[]), find, replace: false });
        assert_eq!(look.text, format!(r#"SELECT 1 FROM ONLY "s"."t" AS t WHERE t."k" {EQ} $1 LIMIT 1"#));
    }

    #[test]
    fn a_key_that_is_not_unique_affects_one_row() {
        let map =
            TableMap::new(&relation(&["k", "a"]), table(vec![column("k", 23), column("a", 23)], &[]), (0, 0));
        let sql = Sql::new(&map.unwrap(), &Shape::Delete { find: Find::OldKey });
        assert_eq!(
            sql.text,
            format!(
                r#"WITH victim AS (SELECT t.ctid AS place FROM ONLY "s"."t" AS t WHERE t."k" {EQ} $1 LIMIT 1) DELETE FROM ONLY "s"."t" AS t USING victim WHERE t.ctid = victim.place"#
            )
        );
    }

    #[test]
    fn a_whole_row_is_found_by_every_column_that_was_sent() {
        let json = ColumnInfo { equality: None, ..column("j", 114) };
        let numeric = column("n", 1700);
        let target = table(vec![column("a", 23), column("b", 23), json, numeric, column("c", 25)], &[]);
        let map = TableMap::new(&relation(&["a", "b", "j", "n", "c"]), target, (0, 0)).unwrap();
        let sql = Sql::new(&map, &Shape::Delete { find: whole(&[1], &[4]) });
        assert_eq!(
            sql.text,
            format!(
                r#"WITH victim AS (SELECT t.ctid AS place FROM ONLY "s"."t" AS t WHERE t."a" {EQ} $1 AND t."b" IS NOT DISTINCT FROM NULL AND pg_catalog.record_image_eq(ROW(t."j"), ROW($2)) AND t."n" {EQ} $3 ORDER BY pg_catalog.record_image_eq(ROW(t."n"), ROW($3)) DESC LIMIT 1) DELETE FROM ONLY "s"."t" AS t USING victim WHERE t.ctid = victim.place"#
            )
        );
        assert_eq!(sql.slots, [old(0), old(2), old(3)]);
    }

    #[test]
    fn in_a_partitioned_table_a_row_is_named_by_partition_and_place() {
        let target = TableInfo { kind: TableKind::Partitioned, ..table(vec![column("a", 23)], &[]) };
        let map = TableMap::new(&relation(&["a"]), target, (0, 0)).unwrap();
        let update = Shape::Update { set: mask(&[0]), find: whole(&[], &[]), replace: false };
        assert_eq!(
            Sql::new(&map, &update).text,
            format!(
                r#"WITH victim AS (SELECT t.ctid AS place, t.tableoid AS part FROM "s"."t" AS t WHERE t."a" {EQ} $1 LIMIT 1) UPDATE "s"."t" AS t SET "a" = $2 FROM victim WHERE t.ctid = victim.place AND t.tableoid = victim.part"#
            )
        );
    }

    #[test]
    fn replacing_a_row_keeps_what_the_change_does_not_set() {
        let always = ColumnInfo { identity: ColumnIdentity::Always, ..column("k", 23) };
        let computed = ColumnInfo { generated: Generated::Stored, ..column("g", 23) };
        let target = table(vec![always, column("a", 23), computed, column("extra", 23)], &[&["k"]]);
        let map = TableMap::new(&relation(&["a", "k"]), target, (0, 0)).unwrap();
        let shape = |find| Shape::Update { set: mask(&[1]), find, replace: true };
        assert_eq!(
            Sql::new(&map, &shape(Find::OldKey)).text,
            format!(
                r#"WITH gone AS (DELETE FROM ONLY "s"."t" AS t WHERE t."k" {EQ} $1 RETURNING t.*) INSERT INTO "s"."t" ("k", "a", "extra") OVERRIDING SYSTEM VALUE SELECT $2, gone."a", gone."extra" FROM gone"#
            )
        );
        let by_row = Sql::new(&map, &shape(whole(&[], &[]))).text;
        assert!(
            by_row.starts_with("WITH victim AS (") && by_row.contains("LIMIT 1), gone AS (DELETE"),
            "{by_row}"
        );
    }
}
