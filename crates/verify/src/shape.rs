//! What of a table is compared: the columns that both sides have, and the key by which a row is known. Pure.

use relevo_catalog::{ColumnIdentity, ColumnInfo, Generated, TableInfo, TableKind, TableName};

/// A column that is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Both sides compute it from others.
    pub(crate) computed: bool,
    /// The target's type as SQL, if the source has another: its text is then read by the target's type first, as the
    /// stream does.
    pub(crate) cast: Option<String>,
    /// The types of the two sides.
    pub(crate) source: ColumnInfo,
    pub(crate) target: ColumnInfo,
}

/// A table on both sides.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) name: TableName,
    pub(crate) insert_only: bool,
    pub(crate) source: TableInfo,
    pub(crate) target: TableInfo,
    /// In the source's order.
    pub(crate) columns: Vec<Column>,
    /// The places of the key's columns; empty: there is none, and rows are counted.
    pub(crate) key: Vec<usize>,
}

impl Shape {
    /// What is compared, or why the table cannot be.
    pub(crate) fn new(source: TableInfo, target: TableInfo, insert_only: bool) -> Result<Self, String> {
        let mut columns = Vec::with_capacity(source.columns.len());
        let mut missing = Vec::new();
        for column in &source.columns {
            let computed = column.generated != Generated::None;
            match target.column(&column.name) {
                Some(have) if (have.generated != Generated::None) == computed => columns.push(Column {
                    name: column.name.clone(),
                    computed,
                    cast: (have.type_sql != column.type_sql).then(|| have.type_sql.clone()),
                    source: column.clone(),
                    target: have.clone(),
                }),
                // What the source computes by itself is not replicated.
                Some(_) | None if computed => {}
                Some(_) => return Err(format!("column {} is computed on the target", column.name)),
                None => missing.push(column.name.as_str()),
            }
        }
        if !missing.is_empty() {
            return Err(format!("the target lacks these columns: {}", missing.join(", ")));
        }
        let is_key = |column: &Column| column.source.not_null && !column.computed;
        let place = |name: &String| columns.iter().position(|column| column.name == *name && is_key(column));
        let key = source.unique_keys.iter().find_map(|key| key.iter().map(place).collect::<Option<Vec<_>>>());
        Ok(Self {
            name: source.name.clone(),
            insert_only,
            source,
            target,
            columns,
            key: key.unwrap_or_default(),
        })
    }

    pub(crate) fn is_keyed(&self) -> bool {
        !self.key.is_empty()
    }

    pub(crate) fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|place| self.columns[*place].name.clone()).collect()
    }

    /// The places of the columns that can be written.
    pub(crate) fn written(&self) -> impl Iterator<Item = usize> {
        (0..self.columns.len()).filter(|place| !self.columns[*place].computed)
    }

    /// The places of those that both sides compute.
    pub(crate) fn computed(&self) -> impl Iterator<Item = usize> {
        (0..self.columns.len()).filter(|place| self.columns[*place].computed)
    }

    /// Whether an UPDATE may not set the column on the target.
    pub(crate) fn is_always_identity(&self, place: usize) -> bool {
        self.columns[place].target.identity == ColumnIdentity::Always
    }
}

/// The table as a FROM item, without the children that inherit from an ordinary table.
pub(crate) fn only(table: &TableInfo) -> String {
    match table.kind {
        TableKind::Ordinary => format!("ONLY {}", table.name.quoted()),
        TableKind::Partitioned => table.name.quoted(),
    }
}
