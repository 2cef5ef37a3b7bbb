//! Tables that are added to a flow and that the target lacks: how they are made there, from the source's schema as
//! `pg_dump` writes it. Of everything else in that schema only what they cannot do without is made too: schemas, types,
//! sequences.

use std::collections::BTreeSet;

use relevo_catalog::{TableInfo, TableName};
use relevo_connect::{ReplicaRole, SqlSession, act_as_replica};
use relevo_model::Side;
use relevo_state::NewStatement;
use tokio_postgres::{Client, Row};

use crate::pg_dump::{PgDump, Section};
use crate::plan::find_pg_dump;
use crate::schema::{facts, for_later, run_all};
use crate::script::{Adapted, AdaptedStatement, TargetFacts, foreign_key, schema_or_type, transform};
use crate::session::Sessions;
use crate::{CopyOptions, SnapshotError, sql};

/// What has to be run so that tables are there.
#[derive(Debug, Clone)]
pub struct Creation {
    tables: BTreeSet<TableName>,
    before: Vec<AdaptedStatement>,
    after: Vec<NewStatement>,
    warnings: Vec<String>,
}

impl Creation {
    /// The tables that are made.
    #[must_use]
    pub fn tables(&self) -> &BTreeSet<TableName> {
        &self.tables
    }

    /// What of them the target cannot take, and why.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Makes them, in the open transaction.
    pub(crate) async fn run(&self, target: &SqlSession) -> Result<(), SnapshotError> {
        let error = || SnapshotError::target_sql("preparing the session");
        act_as_replica(target, ReplicaRole::Transaction).await.map_err(error())?;
        target.batch_execute(sql::AS_A_COPY).await.map_err(error())?;
        run_all(&self.before, target, || ()).await
    }

    /// What comes after their rows.
    pub(crate) fn after(&self) -> &[NewStatement] {
        &self.after
    }
}

/// How those of the tables are made that the target lacks; `None` when it lacks none. Of a tree of partitions either all is
/// made or nothing. `tables`: all of the source, of which the options select some.
///
/// # Errors
/// [`SnapshotError`]: `pg_dump` cannot be used, or a side does not answer. Nothing was changed.
pub async fn creation(
    options: &CopyOptions,
    tables: &[TableInfo],
    source: &Client,
    target: &SqlSession,
) -> Result<Option<Creation>, SnapshotError> {
    let selected: Vec<&TableInfo> = tables.iter().filter(|table| options.selection.includes(table)).collect();
    let names: Vec<TableName> = selected.iter().map(|table| table.name.clone()).collect();
    let there = present(target, &names, true).await?;
    let top = |table: &TableInfo| table.partition_root.clone().unwrap_or_else(|| table.name.clone());
    let begun: BTreeSet<TableName> =
        selected.iter().filter(|table| there.contains(&table.name)).map(|table| top(table)).collect();
    let missing: Vec<&TableInfo> =
        selected.into_iter().filter(|table| !begun.contains(&top(table))).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let mut relations: Vec<TableName> = missing.iter().map(|table| table.name.clone()).collect();
    let made: BTreeSet<TableName> = relations.iter().cloned().collect();
    let needed = needed(source, &relations).await?;
    let sequences: Vec<TableName> =
        needed.iter().filter(|(_, is_sequence)| *is_sequence).map(|(name, _)| name.clone()).collect();
    let types: Vec<TableName> =
        needed.into_iter().filter(|(_, is_sequence)| !is_sequence).map(|(name, _)| name).collect();
    let has_sequences = present(target, &sequences, true).await?;
    let has_types = present(target, &types, false).await?;
    relations.extend(sequences.into_iter().filter(|sequence| !has_sequences.contains(sequence)));
    let lacks_types: BTreeSet<TableName> =
        types.into_iter().filter(|name| !has_types.contains(name)).collect();

    let dumper = Dumper {
        options,
        pg_dump: find_pg_dump(source, options).await?,
        encoding: Sessions::new(options).source_encoding(target).await?,
        facts: facts(target).await?,
    };
    let mut before = dumper.around(&relations, &lacks_types).await?;
    let own = dumper.dump(&relations, Section::PreData).await?;
    let mut after = dumper.dump(&relations, Section::PostData).await?;
    before.extend(own.statements);
    let mut warnings = own.warnings;
    warnings.append(&mut after.warnings);
    let after = without_strangers(after.statements, &made, target, &mut warnings).await?;
    let tables: Vec<TableInfo> = missing.into_iter().cloned().collect();
    Ok(Some(Creation { tables: made, before, after: for_later(&after, &tables), warnings }))
}

struct Dumper<'o> {
    options: &'o CopyOptions,
    pg_dump: PgDump,
    encoding: &'static str,
    facts: TargetFacts,
}

impl Dumper<'_> {
    async fn dump(&self, relations: &[TableName], section: Section) -> Result<Adapted, SnapshotError> {
        let source = &self.options.source;
        let script = self.pg_dump.dump(source, (None, self.encoding), relations, section).await?;
        Ok(transform(&script, &self.facts))
    }

    /// The schemas and types that the target lacks, out of the whole schema: in the order in which they can be made.
    async fn around(
        &self,
        relations: &[TableName],
        types: &BTreeSet<TableName>,
    ) -> Result<Vec<AdaptedStatement>, SnapshotError> {
        let schemas: BTreeSet<&String> = relations
            .iter()
            .chain(types)
            .map(|name| &name.schema)
            .filter(|schema| !self.facts.schemas.contains(*schema))
            .collect();
        if schemas.is_empty() && types.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = self.dump(&[], Section::PreData).await?.statements;
        all.retain(|statement| match schema_or_type(&statement.sql) {
            Some((schema, None)) => schemas.contains(&schema),
            Some((schema, Some(name))) => types.contains(&TableName::new(schema, name)),
            None => false,
        });
        Ok(all)
    }
}

/// Without foreign keys that point at tables that the target does not have.
async fn without_strangers(
    mut statements: Vec<AdaptedStatement>,
    made: &BTreeSet<TableName>,
    target: &Client,
    warnings: &mut Vec<String>,
) -> Result<Vec<AdaptedStatement>, SnapshotError> {
    let referenced = |statement: &AdaptedStatement| foreign_key(&statement.sql).map(|key| key.referenced);
    let wanted: Vec<TableName> = statements.iter().filter_map(referenced).collect();
    let there = present(target, &wanted, true).await?;
    statements.retain(|statement| {
        let Some(key) = foreign_key(&statement.sql) else { return true };
        let known = made.contains(&key.referenced) || there.contains(&key.referenced);
        if !known {
            warnings.push(format!(
                "foreign key {} of {} is left out, because the target has no table {}",
                key.name, key.table, key.referenced
            ));
        }
        known
    });
    Ok(statements)
}

async fn needed(source: &Client, tables: &[TableName]) -> Result<Vec<(TableName, bool)>, SnapshotError> {
    let (schemas, names) = columns(tables);
    let rows = source.query(sql::NEEDED, &[&schemas, &names]).await;
    let rows = rows.map_err(SnapshotError::source_sql("reading what the tables need"))?;
    Ok(rows.iter().map(|row| (name(row), row.get(2))).collect())
}

/// Which of them the target has, as relations or as types.
async fn present(
    target: &Client,
    wanted: &[TableName],
    relations: bool,
) -> Result<BTreeSet<TableName>, SnapshotError> {
    let (schemas, names) = columns(wanted);
    let rows = target.query(sql::THERE, &[&schemas, &names, &relations]).await;
    let rows = rows.map_err(SnapshotError::sql(Side::Target, "looking for tables and types"))?;
    Ok(rows.iter().map(name).collect())
}

fn columns(names: &[TableName]) -> (Vec<&str>, Vec<&str>) {
    names.iter().map(|name| (name.schema.as_str(), name.name.as_str())).unzip()
}

fn name(row: &Row) -> TableName {
    TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))
}
