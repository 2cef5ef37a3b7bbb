//! Taking tables out. First they are forgotten on the target, then the source is told to publish them no longer: what it
//! has sent by then is still applied, and nobody misses a table that is recorded and not published.

use std::collections::BTreeSet;

use relevo_catalog::{Pattern, TableName};
use relevo_model::Side;
use relevo_state::{self as state, FlowLock, TableState};
use serde::Serialize;

use super::{Flow, listed, name_of, state_failed};
use crate::error::CliError;
use crate::output;

#[derive(Serialize)]
struct Document<'a> {
    name: &'a str,
    removed: Vec<String>,
}

/// Takes out what the patterns choose.
///
/// # Errors
/// [`CliError::Refused`]: a partition for itself, or a table that is being copied; [`CliError::Failed`].
pub async fn remove(flow: &mut Flow, patterns: &[Pattern]) -> Result<(), CliError> {
    let published = flow.published().await?.tables;
    // What an interrupted removal has forgotten is still published.
    let ours: BTreeSet<TableName> = flow.recorded_names().union(&published).cloned().collect();
    let trees = flow.trees(&published).with_any_of(&ours);
    let chosen = trees.chosen(patterns, &format!("flow {}", flow.name))?;
    let tops: BTreeSet<&TableName> = chosen.into_iter().flat_map(|(_, tops)| tops).collect();
    let members = trees.iter().filter(|(top, _)| tops.contains(top)).flat_map(|(_, members)| members);
    let members: BTreeSet<TableName> = members.cloned().collect();
    forget(flow, &members).await?;
    relevo_snapshot::publish_less(&flow.source, &flow.name, &members)
        .await
        .map_err(|error| CliError::from_fault(&error))?;
    let document =
        Document { name: flow.name.as_str(), removed: tops.into_iter().map(ToString::to_string).collect() };
    if flow.json { output::json(&document) } else { output::print(&text(&document)) }
}

/// Forgets those of the tables that are recorded, all or none. A table whose rows are on their way is only forgotten
/// while nobody is at work.
async fn forget(flow: &mut Flow, tables: &BTreeSet<TableName>) -> Result<(), CliError> {
    let recorded: Vec<_> = flow.recorded.iter().filter(|table| tables.contains(&name_of(table))).collect();
    let on_their_way = recorded.iter().any(|table| table.state != TableState::Streaming);
    let mut alone = false;
    if on_their_way {
        alone = true;
        for lock in [FlowLock::Copy, FlowLock::Rows, FlowLock::Apply] {
            alone = alone && state::try_lock(&*flow.target, &flow.name, lock).await.map_err(state_failed)?;
        }
    }
    let sql_failed = |error: tokio_postgres::Error| CliError::sql(Side::Target, "forgetting tables", &error);
    let transaction = flow.target.transaction().await.map_err(sql_failed)?;
    let mut stay = Vec::new();
    for table in recorded {
        let (name, schema, table_name) = (&flow.name, &table.schema, &table.name);
        if alone {
            state::drop_table(&transaction, name, schema, table_name).await.map_err(state_failed)?;
        } else if !state::drop_streaming_table(&transaction, name, schema, table_name)
            .await
            .map_err(state_failed)?
        {
            stay.push(name_of(table));
        }
    }
    if !stay.is_empty() {
        transaction.rollback().await.map_err(sql_failed)?;
        return Err(CliError::refused(format!(
            "relevo run is copying {}: wait until relevo tables shows it as streaming, or stop relevo run and remove it \
             then; nothing was changed",
            listed(stay)
        )).of_kind("table_copying"));
    }
    transaction.commit().await.map_err(sql_failed)
}

fn text(document: &Document<'_>) -> String {
    let lines = document.removed.iter().map(|table| {
        format!(
            "{table} is no longer part of flow {}: its rows on the target stay as they are, and no longer follow the \
             source\n",
            document.name
        )
    });
    lines.collect::<String>()
        + "a relevo reset brings back what --include and --exclude choose: exclude what is to stay away\n"
}
