//! What a comparison has found: values, no formatting.

use std::time::Duration;

use relevo_catalog::TableName;
use relevo_model::SourceLsn;
use relevo_snapshot::{SequenceGap, SequencePlace};

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The source has it, the target has not.
    Missing,
    /// The target has it, the source has not.
    Extra,
    /// Both have it, with other values.
    Differing,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDifference {
    /// How.
    pub kind: DifferenceKind,
    /// The values of the key's columns as text; without a key, the beginnings of all values.
    pub key: Vec<Option<String>>,
    /// The columns that differ.
    pub columns: Vec<String>,
    /// So many rows alike: more than one only without a key.
    pub count: u64,
    /// What the row is found by when there is no key.
    pub(crate) hash: String,
}

/// What was found of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableReport {
    /// The table.
    pub table: TableName,
    /// Its updates and deletes are not replicated: it has no replica identity.
    pub insert_only: bool,
    /// Both sides compute columns of it from others.
    pub(crate) computes: bool,
    /// The columns by which a row is known; empty: there is no key, and rows are counted.
    pub key: Vec<String>,
    /// Rows of the source.
    pub source_rows: u64,
    /// Rows of the target.
    pub target_rows: u64,
    /// Rows that are missing on the target.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows with other values.
    pub differing: u64,
    /// The first of them.
    pub rows: Vec<RowDifference>,
}

impl TableReport {
    pub(crate) fn new(table: TableName, key: Vec<String>) -> Self {
        Self {
            table,
            insert_only: false,
            computes: false,
            key,
            source_rows: 0,
            target_rows: 0,
            missing: 0,
            extra: 0,
            differing: 0,
            rows: Vec::new(),
        }
    }

    /// How many rows differ.
    #[must_use]
    pub fn differences(&self) -> u64 {
        self.missing + self.extra + self.differing
    }
}

/// A table that was not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedTable {
    /// The table.
    pub table: TableName,
    /// Why.
    pub reason: String,
}

/// What was found of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Both sides were compared at this position of the source.
    pub lsn: SourceLsn,
    /// How long the flow stood still for it, at most.
    pub pause: Duration,
    /// The tables that were compared.
    pub tables: Vec<TableReport>,
    /// Those that were not.
    pub skipped: Vec<SkippedTable>,
    /// Sequences that stand elsewhere on the target, or could not be compared.
    pub sequences: Vec<SequenceGap>,
}

impl Verification {
    /// How many sequences of the target are behind the source's: their next values may be duplicate keys.
    #[must_use]
    pub fn sequences_behind(&self) -> usize {
        self.sequences.iter().filter(|gap| gap.place == SequencePlace::Behind).count()
    }

    /// How many rows differ.
    #[must_use]
    pub fn differences(&self) -> u64 {
        self.tables.iter().map(TableReport::differences).sum()
    }
}
