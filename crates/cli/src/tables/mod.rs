//! `relevo tables`: which tables the flow has; adding some and taking some out, whether or not Relevo runs.
//!
//! What changes is what is recorded on the target, and what the publications hold. What may not enter: copying. A Relevo
//! that runs, or the next one that is started, finds what is recorded and brings it.

mod add;
mod list;
mod remove;
mod trees;

use std::collections::BTreeSet;
use std::path::PathBuf;

use relevo_catalog::{Pattern, Selection, TableInfo, TableName};
use relevo_connect::SqlSession;
use relevo_model::FlowName;
use relevo_source::inspect_slot;
use relevo_state::{self as state, TableRecord};

use self::trees::Trees;
use crate::args::{TablesAction, TablesArgs};
use crate::connect;
use crate::error::{CliError, NO_FLOW};
use crate::redact::redact_all;
use crate::settings::{File, FlowSettings};

/// The flow, both its sides, and what they have.
struct Flow {
    settings: FlowSettings,
    /// What the patterns of the configuration choose.
    selection: Selection,
    name: FlowName,
    source: SqlSession,
    target: SqlSession,
    /// The tables that are recorded as the flow's.
    recorded: Vec<TableRecord>,
    /// All tables of the source.
    all: Vec<TableInfo>,
    /// The program that reads the source's schema, if one is named.
    pg_dump: Option<PathBuf>,
    json: bool,
}

/// Lists, adds or removes.
///
/// # Errors
/// [`CliError::Usage`]: patterns that are none, or are missing; [`CliError::Refused`]: tables that may not be added or
/// removed; [`CliError::Failed`]: a side does not answer, or knows no such flow.
pub async fn run(args: &TablesArgs, file: &File) -> Result<(), CliError> {
    let action = args.action.unwrap_or(TablesAction::List);
    let patterns = patterns(action, &args.tables)?;
    let mut flow = Flow::open(args, file).await?;
    match action {
        TablesAction::List => list::list(&flow),
        TablesAction::Add => add::add(&mut flow, &patterns).await,
        TablesAction::Remove => remove::remove(&mut flow, &patterns).await,
    }
}

fn patterns(action: TablesAction, texts: &[String]) -> Result<Vec<Pattern>, CliError> {
    match action {
        TablesAction::List if !texts.is_empty() => {
            return Err(CliError::usage("relevo tables list takes no pattern: it shows every table"));
        }
        TablesAction::Add | TablesAction::Remove if texts.is_empty() => {
            return Err(CliError::usage(
                "no table is named: give one or more patterns such as public.orders or public.*",
            ));
        }
        _ => {}
    }
    texts
        .iter()
        .map(|text| {
            let wrong = |error: relevo_catalog::SelectionError| {
                CliError::usage(redact_all(&error.to_string(), std::iter::once(text.as_str())))
            };
            text.parse().map_err(wrong)
        })
        .collect()
}

impl Flow {
    async fn open(args: &TablesArgs, file: &File) -> Result<Self, CliError> {
        let settings = file.flow(&args.flow)?;
        let selection = file.selection(&args.patterns)?;
        let pg_dump = file.pg_dump(args.pg_dump.as_deref());
        let (source, target) = connect::both(&settings).await?;
        let facts = relevo_catalog::server(&source).await.map_err(catalog_failed)?;
        let target_facts = relevo_catalog::server(&target).await.map_err(catalog_failed)?;
        let name = connect::flow_name(settings.name.as_ref(), &facts, &target_facts);
        let begun = state::installed_version(&*target).await.map_err(state_failed)?.is_some()
            && state::progress(&*target, &name).await.map_err(state_failed)?.is_some();
        if !begun {
            return Err(CliError::failed(format!(
                "flow {name} has not begun to stream into this target: relevo run begins it, with the tables that its \
                 --include and --exclude choose; if there is another flow, give its --name"
            )).of_kind(NO_FLOW));
        }
        let recorded = state::tables(&*target, &name).await.map_err(state_failed)?;
        let all = relevo_catalog::user_tables(&source).await.map_err(catalog_failed)?;
        Ok(Self { settings, selection, name, source, target, recorded, all, pg_dump, json: args.json })
    }

    fn recorded_names(&self) -> BTreeSet<TableName> {
        self.recorded.iter().map(name_of).collect()
    }

    /// The source's tables, with what is recorded and no longer there.
    fn trees(&self, more: &BTreeSet<TableName>) -> Trees {
        let there = self.all.iter().map(|table| (table.name.clone(), table.partition_root.clone()));
        let recorded = self.recorded.iter().map(|table| (name_of(table), None));
        let more = more.iter().map(|table| (table.clone(), None));
        Trees::new(there.chain(recorded).chain(more))
    }

    /// Whether a Relevo streams the flow at present.
    async fn runs(&self) -> Result<bool, CliError> {
        let slot = inspect_slot(&self.source, &self.name.slot()).await;
        Ok(slot.map_err(|error| CliError::from_fault(&error))?.is_some_and(|slot| slot.active))
    }

    /// What the publications hold.
    async fn published(&self) -> Result<relevo_snapshot::Published, CliError> {
        let published = relevo_snapshot::published(&self.source, &self.name).await;
        published.map_err(|error| CliError::from_fault(&error))?.ok_or_else(|| {
            CliError::refused(format!(
                "source: publication {} or {} is gone, and changes with it: relevo reset and relevo run copy the tables \
                 anew",
                self.name.publication(),
                self.name.insert_only_publication()
            )).of_kind("publication_missing")
        })
    }
}

fn name_of(table: &TableRecord) -> TableName {
    TableName::new(&table.schema, &table.name)
}

fn listed(names: impl IntoIterator<Item = impl ToString>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

fn catalog_failed(error: relevo_catalog::CatalogError) -> CliError {
    CliError::catalog(&error)
}

fn state_failed(error: state::StateError) -> CliError {
    CliError::state(&error)
}
