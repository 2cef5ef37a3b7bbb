//! How a flow begins: it goes on from its stored progress, or both sides are checked, prepared and copied.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use relevo_catalog::{Finding, Severity, check_both};
use relevo_model::{FlowName, Side};
use relevo_snapshot::Existing;
use relevo_state::{self as state, TableState};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::connect;
use crate::run::alive::while_alive;
use crate::run::board::FlowBoard;
use crate::run::copier::{Rows, names_of};
use crate::run::copy::{self, Copy};
use crate::run::fault::{StartFault, interrupted};
use crate::run::publications::Publications;
use crate::run::sides::{Facts, Sides, Started, tell};
use crate::settings::RunSettings;

/// Goes on with the flow, or prepares and copies it. Begins from scratch when called again after an error.
///
/// # Errors
/// Whatever is in the way; its class says whether trying again helps.
pub async fn begin(
    settings: &RunSettings,
    board: &Arc<FlowBoard>,
    shutdown: &CancellationToken,
) -> Result<Started, StartFault> {
    let work = async {
        let mut sides = open(settings).await?;
        let servers = sides.servers(settings);
        let facts = while_alive(&servers, facts(&sides)).await??;
        let flow = connect::flow_name(settings.flow.name.as_ref(), &facts.source, &facts.target);
        board.named(&flow);
        let work = async {
            let resumed = resume(settings, board, &mut sides, &flow).await?;
            if resumed.is_none() {
                check(settings, board, (&sides, &facts), &flow).await?;
            }
            Ok::<_, StartFault>(resumed)
        };
        Ok::<_, StartFault>(match while_alive(&servers, work).await?? {
            Some(started) => Begun::Started(Box::new(started)),
            None => Begun::Checked(Box::new((sides, facts)), flow),
        })
    };
    let begun = tokio::select! {
        () = shutdown.cancelled() => return Err(interrupted()),
        begun = work => begun?,
    };
    match begun {
        Begun::Started(started) => Ok(*started),
        // The copy ends itself in order when it is interrupted.
        Begun::Checked(both, flow) => {
            let (sides, facts) = *both;
            let slot_is_ours = AtomicBool::new(false);
            copy::run(Copy { settings, board, sides, facts, flow, shutdown, slot_is_ours }).await
        }
    }
}

enum Begun {
    Started(Box<Started>),
    Checked(Box<(Sides, Facts)>, FlowName),
}

/// Opens both sides.
pub async fn open(settings: &RunSettings) -> Result<Sides, StartFault> {
    let flow = &settings.flow;
    // Both are waited for: when neither can be reached, it is always the source that is named.
    let (source, target) = tokio::join!(
        connect::session(&flow.source, Side::Source),
        connect::session(&flow.target, Side::Target)
    );
    Ok(Sides { source: source?, target: target? })
}

/// Asks both sides what they are.
async fn facts(sides: &Sides) -> Result<Facts, StartFault> {
    let (source, target) =
        tokio::join!(relevo_catalog::server(&sides.source), relevo_catalog::server(&sides.target));
    Ok(Facts {
        source: source.map_err(StartFault::catalog(Side::Source))?,
        target: target.map_err(StartFault::catalog(Side::Target))?,
    })
}

/// The flow as it was left, if its copy is complete.
async fn resume(
    settings: &RunSettings,
    board: &Arc<FlowBoard>,
    sides: &mut Sides,
    flow: &FlowName,
) -> Result<Option<Started>, StartFault> {
    let failed = || StartFault::state(Side::Target);
    if state::installed_version(&*sides.target).await.map_err(failed())?.is_none() {
        return Ok(None);
    }
    // An older Relevo may have made it.
    state::install(&mut sides.target).await.map_err(failed())?;
    let Some(stored) = state::progress(&*sides.target, flow).await.map_err(failed())? else {
        return Ok(None);
    };
    let tables = state::tables(&*sides.target, flow).await.map_err(failed())?;
    board.tables_known(&tables, &[]);
    let record = state::flow(&*sides.target, flow).await.map_err(failed())?;
    let completed = record.as_ref().is_some_and(|record| record.completed);
    let copied = record.is_some_and(|record| record.copied)
        && tables.iter().all(|table| table.state == TableState::Streaming);
    let applied_lsn = stored.progress.applied;
    if copied {
        info!(%flow, %applied_lsn, "the copy is complete; going on from the stored progress");
    } else {
        let what = if completed { "tables were added" } else { "the copy is not complete" };
        info!(%flow, %applied_lsn, "{what}; copying what is missing, and going on from the stored progress");
    }
    let all = relevo_catalog::user_tables(&sides.source).await.map_err(StartFault::catalog(Side::Source))?;
    let selection = settings.tables.selection.of_recorded(&all, &names_of(&tables));
    let published = relevo_snapshot::selected_tables(all, &selection);
    let by_root = settings.tables.via_partition_root;
    let findings = relevo_snapshot::publish(&sides.source, flow, &published, by_root, Existing::Report);
    tell(board, &findings.await?);
    let mut publications = Publications::new(flow, by_root);
    publications.look(&sides.source).await?;
    let copy = (!copied).then_some(Rows { first: None, added: completed });
    Ok(Some(Started { flow: flow.clone(), identity: stored.source, publications, copy }))
}

/// What `relevo check` says, before anything is changed.
async fn check(
    settings: &RunSettings,
    board: &FlowBoard,
    (sides, facts): (&Sides, &Facts),
    flow: &FlowName,
) -> Result<(), StartFault> {
    info!(%flow, "no complete copy on the target; checking both sides");
    let findings = check_both(
        (&sides.source, &facts.source),
        (&sides.target, &facts.target),
        &settings.tables.selection,
        settings.tables.via_partition_root,
        flow,
    )
    .await;
    tell(board, &findings);
    let errors: Vec<Finding> =
        findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    if errors.is_empty() { Ok(()) } else { Err(StartFault::findings(&errors)) }
}
