//! Sequences and where they stand.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::error::{CatalogError, get, reading};
use crate::{Selection, TableName, queries};

/// How many sequences one query reads: each is a relation of its own, and a query has a limit of locks.
const SEQUENCES_A_QUERY: usize = 500;

/// A sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceInfo {
    /// Schema and name.
    pub name: TableName,
    /// The table and column that own it (`serial`, identity columns, `OWNED BY`).
    pub owned_by: Option<(TableName, String)>,
    /// It belongs to an identity column.
    pub identity: bool,
    /// `INCREMENT BY`.
    pub increment: i64,
    /// Where it stands; `None` when this role may not read it.
    pub value: Option<SequenceValue>,
}

/// Where a sequence stands, as its two arguments of `setval` (manual, *Sequence Manipulation Functions*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceValue {
    /// The last value; the next one is behind it, or is itself it when `is_called` is false.
    pub last_value: i64,
    /// Whether `last_value` has been handed out.
    pub is_called: bool,
}

impl SequenceInfo {
    /// Whether it goes along with the selected tables: by its owner when it has one, else by its own name.
    #[must_use]
    pub fn is_selected(&self, selection: &Selection) -> bool {
        selection.matches(self.owned_by.as_ref().map_or(&self.name, |(table, _)| table))
    }
}

/// Every permanent sequence that users made, with its value at present, in the order of their names. Left out are
/// those of the system, of schema `relevo` and of extensions. Values are not part of any snapshot: they are those
/// of the moment.
///
/// # Errors
/// When a catalog or a sequence cannot be read; also when a sequence is dropped meanwhile.
pub async fn sequences(client: &Client) -> Result<Vec<SequenceInfo>, CatalogError> {
    let rows = client.query(queries::SEQUENCES, &[]).await.map_err(reading("the sequences"))?;
    let mut found = Vec::with_capacity(rows.len());
    let mut readable: Vec<(u32, String)> = Vec::new();
    for row in &rows {
        let oid: u32 = get(row, "oid")?;
        let name = TableName { schema: get(row, "schema")?, name: get(row, "name")? };
        if get(row, "readable")? {
            readable.push((oid, name.quoted()));
        }
        let owner: Option<TableName> = get::<_, Option<String>>(row, "owner_schema")?
            .zip(get(row, "owner_table")?)
            .map(|(schema, name)| TableName { schema, name });
        let sequence = SequenceInfo {
            name,
            owned_by: owner.zip(get(row, "owner_column")?),
            identity: get(row, "identity")?,
            increment: get(row, "increment")?,
            value: None,
        };
        found.push((oid, sequence));
    }
    let mut values: HashMap<u32, SequenceValue> = HashMap::new();
    for chunk in readable.chunks(SEQUENCES_A_QUERY) {
        let sql = queries::sequence_values(chunk);
        for row in &client.query(&sql, &[]).await.map_err(reading("the sequences' values"))? {
            let value =
                SequenceValue { last_value: get(row, "last_value")?, is_called: get(row, "is_called")? };
            values.insert(get(row, "oid")?, value);
        }
    }
    let with_value = |(oid, mut sequence): (u32, SequenceInfo)| {
        sequence.value = values.get(&oid).copied();
        sequence
    };
    Ok(found.into_iter().map(with_value).collect())
}
