//! Which format the rows of a table travel in, by what the servers say about its columns. Pure.

use tokio_postgres::types::Type;

/// The formats of COPY that are used (manual, *COPY*, *File Formats*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Values as their types print them: any server reads what any other has printed.
    Text,
    /// Values as their types send them: less work for both servers, where the two mean the same by it.
    Binary,
}

/// A table's column, as one server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// The column's name.
    pub(crate) name: String,
    /// `pg_attribute.atttypid`.
    pub(crate) type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub(crate) modifier: i32,
    /// Its values are computed from others, and not copied.
    pub(crate) generated: bool,
}

/// A table, as one server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    /// The server's major version, such as 15.
    pub(crate) major: i32,
    /// The table is partitioned.
    pub(crate) partitioned: bool,
    /// The table's columns, in their order.
    pub(crate) columns: Vec<Column>,
}

impl Described {
    /// The names of the columns whose values are copied.
    pub(crate) fn copied(&self) -> impl Iterator<Item = &String> {
        self.columns.iter().filter(|column| !column.generated).map(|column| &column.name)
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Types whose binary form depends on nothing but the value: no setting, no locale, no OID of the user's objects, no name
/// that another database may lack. Their arrays are taken too: what they say about their elements is the OID of a
/// built-in type.
///
/// Left out: `money` (its digits are those of the locale), `reg*` (OIDs), `name` and `"char"` (text cuts them and
/// converts them otherwise), `xml` (carries an encoding), and what is rare in large tables: ranges, `tsvector`, `pg_lsn`.
const STABLE: [(Type, Type); 32] = [
    (Type::BOOL, Type::BOOL_ARRAY),
    (Type::BYTEA, Type::BYTEA_ARRAY),
    (Type::INT2, Type::INT2_ARRAY),
    (Type::INT4, Type::INT4_ARRAY),
    (Type::INT8, Type::INT8_ARRAY),
    (Type::OID, Type::OID_ARRAY),
    (Type::FLOAT4, Type::FLOAT4_ARRAY),
    (Type::FLOAT8, Type::FLOAT8_ARRAY),
    (Type::NUMERIC, Type::NUMERIC_ARRAY),
    (Type::TEXT, Type::TEXT_ARRAY),
    (Type::VARCHAR, Type::VARCHAR_ARRAY),
    (Type::BPCHAR, Type::BPCHAR_ARRAY),
    (Type::DATE, Type::DATE_ARRAY),
    (Type::TIME, Type::TIME_ARRAY),
    (Type::TIMETZ, Type::TIMETZ_ARRAY),
    (Type::TIMESTAMP, Type::TIMESTAMP_ARRAY),
    (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
    (Type::INTERVAL, Type::INTERVAL_ARRAY),
    (Type::UUID, Type::UUID_ARRAY),
    (Type::JSON, Type::JSON_ARRAY),
    (Type::JSONB, Type::JSONB_ARRAY),
    (Type::BIT, Type::BIT_ARRAY),
    (Type::VARBIT, Type::VARBIT_ARRAY),
    (Type::INET, Type::INET_ARRAY),
    (Type::CIDR, Type::CIDR_ARRAY),
    (Type::MACADDR, Type::MACADDR_ARRAY),
    (Type::MACADDR8, Type::MACADDR8_ARRAY),
    (Type::POINT, Type::POINT_ARRAY),
    (Type::LINE, Type::LINE_ARRAY),
    (Type::LSEG, Type::LSEG_ARRAY),
    (Type::BOX, Type::BOX_ARRAY),
    (Type::CIRCLE, Type::CIRCLE_ARRAY),
];

fn is_stable(type_oid: u32) -> bool {
    STABLE.iter().any(|(plain, array)| [plain.oid(), array.oid()].contains(&type_oid))
}

/// Why these columns have to travel as text; `None`: binary is the same bytes with the same meaning.
///
/// PostgreSQL promises nothing about binary forms between major versions (manual, *COPY*: "COPY BINARY … is very
/// data type specific"), so both servers have to be of the same one, and every column of a built-in type of the list
/// above, which has the same OID everywhere, and of the same type with the same modifier on the target: an `int8` is read
/// as a `float8` without complaint. Domains, enums, composites and extensions' types are not on the list: their OIDs are
/// a database's own, and some forms hold such OIDs.
///
/// If the source's column has changed its type since the snapshot without its rows being written anew (`int4` to `oid`,
/// `varchar` to `text`), the server sends the same bytes as before the change.
pub(crate) fn why_text(columns: &[String], source: &Described, target: &Described) -> Option<String> {
    if source.major != target.major {
        return Some(format!("the servers are of versions {} and {}", source.major, target.major));
    }
    if columns.is_empty() {
        return Some("there are no columns".to_owned());
    }
    columns.iter().find_map(|name| match (source.column(name), target.column(name)) {
        (Some(from), Some(_)) if !is_stable(from.type_oid) => {
            Some(format!("the type of column {name} is not known to have one binary form"))
        }
        (Some(from), Some(to)) if from == to => None,
        _ => Some(format!("column {name} is of another type on the target")),
    })
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::Kind;

    use super::*;

    fn table(major: i32, columns: &[(&str, u32, i32)]) -> Described {
        let column = |&(name, type_oid, modifier): &(&str, u32, i32)| {
            let generated = name.starts_with("generated");
            Column { name: name.to_owned(), type_oid, modifier, generated }
        };
        Described { major, partitioned: false, columns: columns.iter().map(column).collect() }
    }

    fn names(columns: &[&str]) -> Vec<String> {
        columns.iter().map(|name| (*name).to_owned()).collect()
    }

    fn is_binary(columns: &[&str], source: &Described, target: &Described) -> bool {
        why_text(&names(columns), source, target).is_none()
    }

    #[test]
    fn the_same_built_in_types_in_the_same_version_go_in_binary() {
        let all: Vec<(String, u32)> = STABLE
            .iter()
            .flat_map(|(plain, array)| [plain, array].map(|kind| (kind.name().to_owned(), kind.oid())))
            .collect();
        let columns: Vec<(&str, u32, i32)> =
            all.iter().map(|(name, oid)| (name.as_str(), *oid, -1)).collect();
        let (here, mut there) = (table(15, &columns), table(15, &columns));
        // Their order does not matter.
        there.columns.reverse();
        let names: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
        assert_eq!(why_text(&self::names(&names), &here, &there), None);
    }

    #[test]
    fn arrays_are_those_of_the_types_beside_them() {
        for (plain, array) in &STABLE {
            assert_eq!(array.kind(), &Kind::Array(plain.clone()));
            assert_eq!(plain.kind(), &Kind::Simple);
            assert!(array.oid() < 10_000);
        }
    }

    #[test]
    fn other_versions_go_as_text() {
        let columns = [("id", Type::INT4.oid(), -1)];
        assert!(is_binary(&["id"], &table(15, &columns), &table(15, &columns)));
        assert!(!is_binary(&["id"], &table(15, &columns), &table(16, &columns)));
    }

    #[test]
    fn a_type_that_differs_or_is_missing_on_the_target_goes_as_text() {
        let source = table(17, &[("a", Type::VARCHAR.oid(), 24), ("b", Type::INT8.oid(), -1)]);
        let with = |a: (u32, i32), b: u32| table(17, &[("a", a.0, a.1), ("b", b, -1)]);
        let (varchar, int8) = (Type::VARCHAR.oid(), Type::INT8.oid());
        let fits = |target: &Described| is_binary(&["a", "b"], &source, target);
        assert!(fits(&with((varchar, 24), int8)));
        assert!(!fits(&with((varchar, 34), int8)));
        assert!(!fits(&with((varchar, -1), int8)));
        assert!(!fits(&with((Type::TEXT.oid(), -1), int8)));
        assert!(!fits(&with((varchar, 24), Type::FLOAT8.oid())));
        assert!(!fits(&table(17, &[("a", varchar, 24)])));
        assert!(!is_binary(&["a"], &table(17, &[]), &source));
        // Columns that are not copied do not count.
        assert!(is_binary(&["b"], &source, &with((Type::TEXT.oid(), -1), int8)));
    }

    #[test]
    fn generated_columns_are_not_copied() {
        let int4 = Type::INT4.oid();
        let source = table(18, &[("a", int4, -1), ("generated", Type::MONEY.oid(), -1), ("b", int4, -1)]);
        assert_eq!(source.copied().collect::<Vec<_>>(), ["a", "b"]);
        assert!(is_binary(&["a", "b"], &source, &source));
    }

    #[test]
    fn types_that_mean_something_else_elsewhere_go_as_text() {
        let unstable = [
            Type::MONEY,
            Type::XML,
            Type::REGCLASS,
            Type::REGROLE,
            Type::NAME,
            Type::CHAR,
            Type::INT4_RANGE,
            Type::INT4MULTI_RANGE,
            Type::TS_VECTOR,
            Type::RECORD,
            Type::MONEY_ARRAY,
            Type::REGCLASS_ARRAY,
            Type::INT4_RANGE_ARRAY,
        ];
        // And one of the user's: a domain, an enum, a composite, or an extension's.
        for oid in unstable.iter().map(Type::oid).chain([16_384, 0]) {
            let both = table(18, &[("id", Type::INT4.oid(), -1), ("x", oid, -1)]);
            assert!(!is_binary(&["id", "x"], &both, &both), "{oid}");
        }
        assert!(!is_binary(&[], &table(18, &[]), &table(18, &[])));
    }
}
