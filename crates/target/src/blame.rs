//! Which change of many an error of the server is about, and which of its columns.
//!
//! The server does not say it in one place: a parameter's number, a line of COPY, the name of a type. What may
//! not enter: what is done about the error.

use relevo_model::{Cell, Change, OldRow, Row, TransactionHeader};
use tokio_postgres::error::DbError;

use crate::cell::shown;
use crate::error::FailedChange;
use crate::mapping::TableMap;
use crate::statement::Slot;

/// How many columns a message shows of a row without an identity.
const SHOWN_COLUMNS: usize = 8;

/// One change with the transaction that it belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) header: &'a TransactionHeader,
    pub(crate) change: &'a Change,
}

impl Item<'_> {
    /// The words for a failure of this change.
    pub(crate) fn failed(&self, map: &TableMap, column: Option<String>) -> FailedChange {
        FailedChange {
            operation: operation(self.change),
            table: map.name().clone(),
            key: key(map, self.change),
            column,
            xid: self.header.xid,
            commit_lsn: self.header.commit_lsn,
        }
    }
}

/// The word for a change.
pub(crate) fn operation(change: &Change) -> &'static str {
    match change {
        Change::Insert { .. } => "insert",
        Change::Update { .. } => "update",
        Change::Delete { .. } => "delete",
        Change::Truncate { .. } => "truncate",
        Change::Message { .. } => "message",
    }
}

/// The row's identity for a message: `id=5, region=eu`; the first columns when it has none.
pub(crate) fn key(map: &TableMap, change: &Change) -> String {
    let row = match change {
        Change::Insert { new, .. } | Change::Update { old: None, new, .. } => new,
        Change::Update { old: Some(old), .. } | Change::Delete { old, .. } => match old {
            OldRow::Key(row) | OldRow::Full(row) => row,
        },
        Change::Truncate { .. } | Change::Message { .. } => return String::new(),
    };
    shown_key(map, row)
}

fn shown_key(map: &TableMap, row: &Row) -> String {
    let width = map.relation.columns.len().min(row.0.len());
    let in_identity = |index: &usize| map.identity.is_empty() || map.identity.contains(index);
    let mut parts: Vec<String> = (0..width)
        .filter(in_identity)
        .take(SHOWN_COLUMNS)
        .map(|index| format!("{}={}", map.relation.columns[index].name, shown(&row.0[index])))
        .collect();
    if (0..width).filter(in_identity).count() > SHOWN_COLUMNS {
        parts.push("…".to_owned());
    }
    parts.join(", ")
}

/// The column that an error of a statement with parameters is about.
pub(crate) fn column_of_statement(error: &DbError, map: &TableMap, slots: &[Slot]) -> Option<String> {
    if let Some(column) = error.column() {
        return Some(column.to_owned());
    }
    // "unnamed portal parameter $3 = '…'"; the number stands in every language.
    let parameter = error.where_().and_then(|context| number_after(context, "$"));
    let slot = parameter.and_then(|number| number.checked_sub(1)).and_then(|index| slots.get(index));
    if let Some(slot) = slot {
        return Some(map.column(slot.column).name.clone());
    }
    column_by_type(error, map)
}

/// The line, from 0, and the column that an error of COPY is about.
pub(crate) fn line_of_copy(error: &DbError, map: &TableMap) -> (Option<usize>, Option<String>) {
    let context = error.where_().unwrap_or_default();
    // "COPY t, line 3, column b: "xyz"". The table's name may hold digits and commas itself.
    let rest = context.split_once(&format!("{}, ", map.name().name)).map_or("", |(_, rest)| rest);
    let line = number_after(rest, "").and_then(|line| line.checked_sub(1));
    let after_line = rest.split_once(", ").map_or("", |(_, rest)| rest);
    let after_word = after_line.split_once(' ').map_or("", |(_, rest)| rest);
    let named = map
        .relation
        .columns
        .iter()
        .filter(|column| {
            after_word.strip_prefix(column.name.as_str()).is_some_and(|rest| rest.starts_with(':'))
        })
        .max_by_key(|column| column.name.len());
    let column = named
        .map(|column| column.name.clone())
        .or_else(|| error.column().map(str::to_owned))
        .or_else(|| column_by_type(error, map));
    (line, column)
}

/// "value too long for type character varying(5)" names no column, and neither does "A field with precision 3, scale 0
/// must round to …"; often only one has that type.
fn column_by_type(error: &DbError, map: &TableMap) -> Option<String> {
    if !error.code().code().starts_with("22") {
        return None;
    }
    let numeric = error.detail().and_then(numeric_type);
    let mut of_type = (0..map.relation.columns.len()).map(|index| map.column(index)).filter(|column| {
        error.message().ends_with(&format!(" {}", column.type_sql))
            || numeric.as_ref() == Some(&column.type_sql)
    });
    match (of_type.next(), of_type.next()) {
        (Some(column), None) => Some(column.name.clone()),
        _ => None,
    }
}

/// The type that the first two numbers of a text make, whatever its language.
fn numeric_type(detail: &str) -> Option<String> {
    let mut numbers = detail.split(|c: char| !c.is_ascii_digit() && c != '-').filter(|part| !part.is_empty());
    let (precision, scale) = (numbers.next()?, numbers.next()?);
    Some(format!("numeric({precision},{scale})"))
}

/// The first number behind `mark`.
fn number_after(text: &str, mark: &str) -> Option<usize> {
    let from = text.find(mark)? + mark.len();
    let digits: String =
        text[from..].chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Roughly how many bytes the cells of a change make on the wire.
pub(crate) fn size_bytes(change: &Change) -> usize {
    /// What a bound statement costs beside its values.
    const OVERHEAD: usize = 64;
    let row = |row: &Row| {
        row.0
            .iter()
            .map(|cell| match cell {
                Cell::Null | Cell::Unchanged => 6,
                Cell::Text(bytes) | Cell::Binary(bytes) => bytes.len() + 6,
            })
            .sum::<usize>()
    };
    OVERHEAD
        + match change {
            Change::Insert { new, .. } => row(new),
            Change::Update { old, new, .. } => row(new) + old.as_ref().map_or(0, |old| row(old.row())),
            Change::Delete { old, .. } => row(old.row()),
            Change::Truncate { .. } | Change::Message { .. } => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::{column, relation, table};
    use bytes::Bytes;

    fn text(value: &str) -> Cell {
        Cell::Text(Bytes::copy_from_slice(value.as_bytes()))
    }

    #[test]
    fn a_row_is_named_by_its_identity() {
        let columns = vec![column("k", 23), column("k2", 25), column("a", 25)];
        let map = TableMap::new(&relation(&["k", "a", "k2"]), table(columns, &[]), (0, 0)).unwrap();
        let new = Row(vec![text("5"), text("secret"), Cell::Null]);
        let change = Change::Insert { relation: map.relation.clone(), new };
        assert_eq!(key(&map, &change), "k=5, k2=NULL");
        assert_eq!(operation(&change), "insert");
    }

    #[test]
    fn a_row_without_identity_is_named_by_its_first_columns() {
        let names: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let columns = names.iter().map(|name| column(name, 23)).collect();
        let map = TableMap::new(&relation(&names), table(columns, &[]), (0, 0)).unwrap();
        let old = OldRow::Full(Row(vec![text("1"); 10]));
        let shown = key(&map, &Change::Delete { relation: map.relation.clone(), old });
        assert!(shown.starts_with("c0=1, c1=1") && shown.ends_with("c7=1, …"), "{shown}");
    }

    #[test]
    fn a_numeric_type_is_found_in_any_language() {
        let detail = "A field with precision 3, scale 0 must round to an absolute value less than 10^3.";
        assert_eq!(numeric_type(detail).as_deref(), Some("numeric(3,0)"));
        assert_eq!(numeric_type("Ein Feld mit Präzision 5, Skala -2 …").as_deref(), Some("numeric(5,-2)"));
        assert_eq!(numeric_type("nothing"), None);
    }

    #[test]
    fn numbers_are_found_in_any_language() {
        assert_eq!(number_after("unnamed portal parameter $3 = 'x7'", "$"), Some(3));
        assert_eq!(number_after("Parameter $12", "$"), Some(12));
        assert_eq!(number_after("line 4, column b2", ""), Some(4));
        assert_eq!(number_after("nothing", "$"), None);
    }
}
