//! The SQL that applies many rows at once. Its only parameter is the text of an array of the table's row type, see
//! [`crate::record`]; or the rows come by COPY through a temporary table, which the server reads with half the work, and
//! which is made for one transaction only: it would keep the database from freezing its rows if it stayed.
//!
//! It is never prepared: planned anew each time, it fits the table as it is now, and does so for thousands of rows. The
//! array comes in as text, so that the planner does not read it to guess how long it is. Names and operators are
//! qualified as in [`crate::statement`]. What may not enter: values, and sending anything.

use relevo_catalog::quote_identifier;
use tokio_postgres::types::Type;

use crate::mapping::TableMap;
use crate::shape::Mask;

/// The type of the parameter.
pub(crate) const PARAMETER: Type = Type::TEXT;

/// Sets the columns of `set` in the rows with the given identities.
pub(crate) fn update(map: &TableMap, set: &Mask) -> String {
    update_from(map, set, &given(map))
}

fn update_from(map: &TableMap, set: &Mask, rows: &str) -> String {
    let assignments: Vec<String> =
        names(map, set).into_iter().map(|name| format!("{name} = s.{name}")).collect();
    format!(
        "UPDATE {} AS t SET {} FROM {rows} WHERE {}",
        map.only(),
        assignments.join(", "),
        same_identity(map)
    )
}

/// Makes the temporary table that rows for this table go through, for as long as the transaction lasts. It has no
/// constraints: columns that are not sent stay NULL.
pub(crate) fn create_stage(map: &TableMap) -> String {
    let columns: Vec<String> =
        (0..map.relation.columns.len()).map(|index| quote_identifier(&map.column(index).name)).collect();
    format!(
        "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA",
        stage_name(map),
        columns.join(", "),
        map.only()
    )
}

/// Empties it for the next rows.
pub(crate) fn empty_stage(map: &TableMap) -> String {
    format!("TRUNCATE pg_temp.{}", stage_name(map))
}

/// Fills it with the columns of `sent`.
pub(crate) fn fill_stage(map: &TableMap, sent: &Mask) -> String {
    format!("COPY pg_temp.{} ({}) FROM STDIN (FORMAT text)", stage_name(map), names(map, sent).join(", "))
}

/// Like [`update`], with the rows from there.
pub(crate) fn update_from_stage(map: &TableMap, set: &Mask) -> String {
    update_from(map, set, &format!("pg_temp.{} AS s", stage_name(map)))
}

fn stage_name(map: &TableMap) -> String {
    format!("relevo_stage_{}", map.table.oid)
}

fn names(map: &TableMap, columns: &Mask) -> Vec<String> {
    let wanted = (0..map.relation.columns.len()).filter(|index| columns.contains(*index));
    wanted.map(|index| quote_identifier(&map.column(index).name)).collect()
}

/// Deletes the rows with the given identities.
pub(crate) fn delete(map: &TableMap) -> String {
    let table = map.only();
    match map.identity[..] {
        [index] if scalar(map, index) => {
            let name = quote_identifier(&map.column(index).name);
            let equals = map.equality(index).unwrap_or_default();
            format!(
                "DELETE FROM {table} AS t WHERE t.{name} {equals} ANY (ARRAY(SELECT s.{name} FROM {}))",
                given(map)
            )
        }
        _ => format!("DELETE FROM {table} AS t USING {} WHERE {}", given(map), same_identity(map)),
    }
}

/// Finds those of the given identities that are taken.
pub(crate) fn taken(map: &TableMap) -> String {
    format!(
        "SELECT 1 FROM {} WHERE EXISTS (SELECT FROM {} AS t WHERE {})",
        given(map),
        map.only(),
        same_identity(map)
    )
}

fn given(map: &TableMap) -> String {
    format!("pg_catalog.unnest($1::pg_catalog.text::{}[]) AS s", map.name().quoted())
}

fn same_identity(map: &TableMap) -> String {
    let equal = |index: &usize| {
        let name = quote_identifier(&map.column(*index).name);
        format!("t.{name} {} s.{name}", map.equality(*index).unwrap_or_default())
    };
    map.identity.iter().map(equal).collect::<Vec<_>>().join(" AND ")
}

/// Whether an array of the column's values is an array of that many elements: one of arrays would be flattened.
fn scalar(map: &TableMap, index: usize) -> bool {
    /// `name int8 int2 int4 text oid bpchar varchar date timestamp timestamptz numeric uuid`
    /// (`catalog/pg_type.dat`; these numbers never change).
    const SCALARS: [u32; 13] = [19, 20, 21, 23, 25, 26, 1042, 1043, 1082, 1114, 1184, 1700, 2950];
    SCALARS.contains(&map.column(index).type_oid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::{column, relation, table};

    fn keyed(keys: &[&str], key_type: u32) -> TableMap {
        let columns = vec![column("k", key_type), column("k 2", 25), column("A b", 25), column("x", 25)];
        TableMap::new(&relation(&["A b", "k", "x", "k 2"][..2 + keys.len()]), table(columns, &[keys]), (0, 0))
            .unwrap()
    }

    const GIVEN: &str = r#"pg_catalog.unnest($1::pg_catalog.text::"s"."t"[]) AS s"#;
    const EQ: &str = "OPERATOR(pg_catalog.=)";

    #[test]
    fn rows_are_found_by_their_identity() {
        let map = keyed(&["k"], 23);
        let set = [0, 2].into_iter().collect();
        assert_eq!(
            update(&map, &set),
            format!(
                r#"UPDATE ONLY "s"."t" AS t SET "A b" = s."A b", "x" = s."x" FROM {GIVEN} WHERE t."k" {EQ} s."k""#
            )
        );
        assert_eq!(
            delete(&map),
            format!(
                r#"DELETE FROM ONLY "s"."t" AS t WHERE t."k" {EQ} ANY (ARRAY(SELECT s."k" FROM {GIVEN}))"#
            )
        );
        assert_eq!(
            taken(&map),
            format!(
                r#"SELECT 1 FROM {GIVEN} WHERE EXISTS (SELECT FROM ONLY "s"."t" AS t WHERE t."k" {EQ} s."k")"#
            )
        );
    }

    #[test]
    fn rows_go_through_a_table_without_constraints() {
        let map = keyed(&["k"], 23);
        assert_eq!(
            create_stage(&map),
            r#"CREATE TEMPORARY TABLE relevo_stage_1 ON COMMIT DROP AS SELECT "A b", "k", "x" FROM ONLY "s"."t" WITH NO DATA"#
        );
        assert_eq!(
            fill_stage(&map, &[0, 1].into_iter().collect()),
            r#"COPY pg_temp.relevo_stage_1 ("A b", "k") FROM STDIN (FORMAT text)"#
        );
        assert_eq!(empty_stage(&map), "TRUNCATE pg_temp.relevo_stage_1");
        assert_eq!(
            update_from_stage(&map, &[0].into_iter().collect()),
            format!(
                r#"UPDATE ONLY "s"."t" AS t SET "A b" = s."A b" FROM pg_temp.relevo_stage_1 AS s WHERE t."k" {EQ} s."k""#
            )
        );
    }

    #[test]
    fn keys_of_several_columns_and_of_arrays_are_joined() {
        let map = keyed(&["k", "k 2"], 23);
        let expected = format!(
            r#"DELETE FROM ONLY "s"."t" AS t USING {GIVEN} WHERE t."k" {EQ} s."k" AND t."k 2" {EQ} s."k 2""#
        );
        assert_eq!(delete(&map), expected);
        let expected = format!(r#"DELETE FROM ONLY "s"."t" AS t USING {GIVEN} WHERE t."k" {EQ} s."k""#);
        assert_eq!(delete(&keyed(&["k"], 1007)), expected);
    }
}
