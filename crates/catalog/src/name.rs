//! Names of tables, and how names and strings are quoted in SQL.

use std::fmt;

/// A table's schema and name, as the catalogs have them: case and odd characters as they are, nothing quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table.
    pub name: String,
}

impl TableName {
    /// A table's name from its two parts.
    #[must_use]
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// The name as SQL has it: both parts always quoted, so that no keyword and no upper case can hurt.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

impl fmt::Display for TableName {
    /// `schema.name`, for people; use [`TableName::quoted`] for SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// `name` as a quoted SQL identifier (manual, *Identifiers and Key Words*).
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL string constant, whatever `standard_conforming_strings` says (manual, *String Constants*).
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_names_are_quoted_and_people_read_them_plain() {
        let name = TableName::new("Odd Schema", "t.\"x\"");
        assert_eq!(name.quoted(), "\"Odd Schema\".\"t.\"\"x\"\"\"");
        assert_eq!(name.to_string(), "Odd Schema.t.\"x\"");
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\b'"), r"E'a\\b'''");
    }
}
